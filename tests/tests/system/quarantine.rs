//! Sagas that cannot be read: they are listed, they stop nobody, and they can be taken up again.

use std::fs;
use std::path::PathBuf;

use amends_tests::{Behaviour, Component};
use rusqlite::Connection;
use serde_json::Value;

use crate::place::{Host, Place, stderr, stdout, text};

/// `gate` waits for a signal; `parent` runs one.
fn place() -> Place {
    let place = Place::empty();
    let component = Component { name: "good", execute: Behaviour::Echo, ..Component::default() };
    fs::write(place.plugin("good"), component.build()).unwrap();
    place.config(
        "[[saga]]\nname = \"gate\"\n[[saga.step]]\nname = \"gate\"\nwait = \"approved\"\n\
         [[saga]]\nname = \"parent\"\n[[saga.step]]\nname = \"child\"\nsaga = \"gate\"\n",
    );
    place
}

fn start(place: &Place, definition: &str) -> String {
    ids(place, &["start", definition, "-o", "ids"]).remove(0)
}

fn ids(place: &Place, arguments: &[&str]) -> Vec<String> {
    let output = place.amends(arguments);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stdout(&output).lines().map(str::to_owned).collect()
}

fn file(place: &Place) -> PathBuf {
    place.path("data/amends.db")
}

/// Changes what is stored of a saga, as no store would.
fn change(place: &Place, id: &str, to: &str) {
    let connection = Connection::open(file(place)).unwrap();
    let hex = id.replace('-', "");
    let sql = format!("UPDATE appends SET events = {to} WHERE stream = x'{hex}'");
    assert!(connection.execute(&sql, []).unwrap() > 0, "{id}");
}

fn sentence(host: &Host, id: &str) -> String {
    host.get(&format!("/v1/sagas/{id}/why"))["sentence"].as_str().unwrap().to_owned()
}

fn quarantined(host: &Host) -> String {
    let metrics = text(&host.url("/metrics"));
    let line = metrics.lines().find(|line| line.starts_with("amends_quarantined "));
    line.unwrap_or_else(|| panic!("no amends_quarantined in {metrics}")).to_owned()
}

#[test]
fn a_quarantined_saga_is_listed_stops_nobody_and_is_taken_up_again() {
    let place = place();
    let host = place.run();
    let [lost, other, parent] = ["gate", "gate", "parent"].map(|name| start(&place, name));
    let child = || host.get(&format!("/v1/sagas/{parent}"))["steps"][0]["child"].clone();
    host.until("the child is there", || child().as_str().is_some());
    let child = child().as_str().unwrap().to_owned();
    host.until("it waits", || sentence(&host, &child).contains("approved"));
    assert_eq!(host.stop(), Some(0));
    for id in [&lost, &child] {
        change(&place, id, "'#' || events");
    }

    let host = place.run();
    // The parent finds its child. The other is found when somebody asks for it, because it waits.
    host.until("the child is found", || quarantined(&host) == "amends_quarantined 1");
    assert!(sentence(&host, &lost).contains("quarantined"), "{}", sentence(&host, &lost));
    let bundle = place.amends(&["store", "export", &lost, "lost.ndjson"]);
    assert_eq!(bundle.status.code(), Some(0), "{}", stderr(&bundle));
    let replay = place.amends(&["replay", "lost.ndjson"]);
    assert_eq!(replay.status.code(), Some(1), "{}", stdout(&replay));
    assert_eq!(quarantined(&host), "amends_quarantined 2");
    let mut expected = vec![child.clone(), lost.clone()];
    let mut listed = ids(&place, &["list", "--status", "quarantined", "-o", "ids"]);
    expected.sort();
    listed.sort();
    assert_eq!(listed, expected);
    let page = host.get("/v1/sagas?status=quarantined&limit=1");
    assert!(page["next_cursor"].is_string(), "{page}");
    let status = |id: &str| {
        let item = host.sagas().into_iter().find(|item| item["id"] == *id).unwrap();
        (item["status"].as_str().unwrap().to_owned(), item["reason"].to_string())
    };
    assert_eq!(status(&other).0, "waiting");
    assert_eq!(status(&lost).0, "quarantined");
    assert!(status(&lost).1.contains("its event 1"), "{}", status(&lost).1);
    for words in ["quarantined", "its event 1", "resume"] {
        assert!(sentence(&host, &lost).contains(words), "{}", sentence(&host, &lost));
    }
    // Its parent says what it waits for.
    let why = sentence(&host, &parent);
    assert!(why.contains(&child) && why.contains("quarantined"), "{why}");

    // Whoever reads the log comes past what cannot be read, and sees which that is.
    let unreadable = |event: &&Value| event["type"] == "event.unreadable";
    let events = host.events();
    let found: Vec<_> = events.iter().filter(unreadable).collect();
    assert!(found.iter().any(|event| event["saga"] == *lost), "{found:?}");
    assert!(found.iter().all(|event| event["data"]["reason"].is_string()), "{found:?}");
    assert!(events.iter().any(|event| event["saga"] == *other), "{events:?}");

    // As long as it cannot be read, it stays where it is.
    let resume = |id: &str| place.amends(&["resume", id, "--reason", "it is mended"]);
    let refused = resume(&lost);
    assert_eq!(refused.status.code(), Some(1), "{}", stdout(&refused));
    assert!(stderr(&refused).contains("stays quarantined"), "{}", stderr(&refused));
    assert_eq!(quarantined(&host), "amends_quarantined 2");
    for id in [&lost, &child] {
        change(&place, id, "substr(events, 2)");
        let taken = resume(id);
        assert_eq!(taken.status.code(), Some(0), "{}", stderr(&taken));
    }
    assert_eq!(quarantined(&host), "amends_quarantined 0");
    for id in [&lost, &child] {
        let signalled = place.amends(&["signal", id, "approved"]);
        assert_eq!(signalled.status.code(), Some(0), "{}", stderr(&signalled));
    }
    for id in [&lost, &child, &parent] {
        host.until("it ends", || host.get(&format!("/v1/sagas/{id}"))["status"] == "completed");
    }
    assert_eq!(host.stop(), Some(0));
}
