//! Sagas that begin later, and sagas of schedules.

use std::fs;

use amends_tests::{Behaviour, Component};
use serde_json::{Value, json};

use crate::place::{Host, Place, stderr, stdout, text};

/// A definition `good` of one call.
fn place() -> Place {
    let place = Place::empty();
    let component = Component { name: "good", execute: Behaviour::Echo, ..Component::default() };
    fs::write(place.plugin("good"), component.build()).unwrap();
    let step = "[[saga.step]]\nname = \"one\"\nplugin = \"good\"\ninput = \"input\"\n";
    place.config(&format!("[[saga]]\nname = \"good\"\ndeadline = \"1h\"\n{step}"));
    place
}

fn amends(place: &Place, arguments: &[&str]) -> String {
    let output = place.amends(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    stdout(&output).trim().to_owned()
}

fn start(place: &Place, at: &str) -> String {
    amends(place, &["start", "good", "--input", "{\"n\": 1}", "--at", at, "-o", "ids"])
}

fn kinds(host: &Host, id: &str) -> Vec<String> {
    let page = host.get(&format!("/v1/sagas/{id}/events"));
    let kind = |event: &Value| event["type"].as_str().unwrap().to_owned();
    page["items"].as_array().unwrap().iter().map(kind).collect()
}

#[test]
fn a_saga_begins_at_its_time_also_after_a_kill() {
    let place = place();
    let host = place.run();
    let id = start(&place, "3s");
    let saga = host.get(&format!("/v1/sagas/{id}"));
    assert_eq!((&saga["status"], &saga["version"]), (&json!("waiting"), &json!(1)), "{saga}");
    assert_eq!(saga["next_at"], saga["start_at"], "{saga}");
    let [starts, deadline] = ["start_at", "deadline_at"]
        .map(|field| saga[field].as_str().unwrap().parse::<amends_engine::Timestamp>().unwrap());
    assert_eq!(deadline.since(starts).as_secs(), 3_600, "the deadline counts from the start");
    host.kill();
    let host = place.run();
    host.until("it is completed", || host.get(&format!("/v1/sagas/{id}"))["status"] == "completed");
    let told = ["saga.started", "saga.due", "step.started", "step.succeeded", "saga.completed"];
    assert_eq!(kinds(&host, &id), told);
    let events = host.get(&format!("/v1/sagas/{id}/events"));
    let due = events["items"][1]["at"].as_str().unwrap().parse::<amends_engine::Timestamp>();
    assert!(due.unwrap() >= starts, "{events}");
    assert!(host.get(&format!("/v1/sagas/{id}"))["start_at"].is_null());
}

#[test]
fn a_saga_that_waits_for_its_start_says_so_and_can_be_cancelled() {
    let place = place();
    let host = place.run();
    let id = start(&place, "3d");
    // It waits without memory.
    host.until("it has left memory", || {
        text(&host.url("/metrics")).lines().any(|line| line == "amends_saga_in_memory 0")
    });
    let said = amends(&place, &["why", &id]);
    assert!(said.contains("It is waiting: it starts "), "{said}");
    let listed = amends(&place, &["list", "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert!(listed[0]["next_at"].is_string(), "{listed}");
    assert!(amends(&place, &["get", &id]).contains("\nstarts   "), "get says it");
    amends(&place, &["cancel", &id, "--reason", "a mistake"]);
    let told = ["saga.started", "operator.cancelled", "compensation.started", "saga.compensated"];
    assert_eq!(kinds(&host, &id), told);
    // A time that has passed is none; a key starts one saga, whenever it begins.
    let past = start(&place, "2020-01-01");
    host.until("it is completed", || {
        host.get(&format!("/v1/sagas/{past}"))["status"] == "completed"
    });
    let keyed = |at| amends(&place, &["start", "good", "--key", "k", "--at", at, "-o", "ids"]);
    assert_eq!(keyed("1h"), keyed("2h"));
    for (at, wrong) in [("3653d", "0"), ("4000d", "more than ten years ahead"), ("soon", "--at: ")]
    {
        let output = place.amends(&["start", "good", "--at", at]);
        if wrong == "0" {
            assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        } else {
            assert_ne!(output.status.code(), Some(0), "{at}");
            assert!(stderr(&output).contains(wrong), "{}", stderr(&output));
        }
    }
}

/// Sets a schedule back by five minutes, as if its host had been down for so long or what it wrote down
/// last were lost.
fn set_back(place: &Place) {
    let store = rusqlite::Connection::open(place.path("data/amends.db")).unwrap();
    let change = "UPDATE schedules SET decided_until = decided_until - 300000, started_at = NULL";
    assert_eq!(store.execute(change, []).unwrap(), 1);
}

/// The sagas of the schedule by their start keys, once the host has started all that are due.
fn scheduled(place: &Place, host: &Host) -> Vec<(String, String)> {
    host.until("the schedule has started its sagas", || {
        let listed = amends(place, &["schedule", "list", "-o", "json"]);
        let listed: Value = serde_json::from_str(&listed).unwrap();
        assert_eq!(listed[0]["next"].as_array().unwrap().len(), 3, "{listed}");
        listed[0]["started_at"].is_string()
    });
    let key = |saga: &Value| saga["key"].as_str().unwrap().to_owned();
    let mut sagas: Vec<_> = host
        .sagas()
        .iter()
        .map(|saga| (key(saga), saga["id"].as_str().unwrap().to_owned()))
        .collect();
    sagas.sort();
    sagas
}

#[test]
fn a_schedule_starts_each_time_once_over_kills() {
    let place = place();
    let config = fs::read_to_string(place.path("amends.toml")).unwrap();
    let schedule = "\n[[schedule]]\nname = \"minutely\"\ndefinition = \"good\"\n\
                    cron = \"* * * * *\"\ntimezone = \"Europe/Vienna\"\ncatch_up = \"all\"\n\
                    input = { shop = \"north\" }\ntags = { team = \"a\" }\n";
    fs::write(place.path("amends.toml"), config + schedule).unwrap();
    place.run().kill();
    set_back(&place);
    let host = place.run();
    let first = scheduled(&place, &host);
    assert!((5..=6).contains(&first.len()), "{first:?}");
    let (key, id) = &first[0];
    let saga = host.get(&format!("/v1/sagas/{id}"));
    let time = &saga["tags"]["scheduled_at"];
    assert_eq!(*key, format!("schedule/minutely/{}", time.as_str().unwrap()));
    assert_eq!(saga["input"], json!({"shop": "north", "scheduled_at": time}));
    let tags = json!({"team": "a", "schedule": "minutely", "scheduled_at": time});
    assert_eq!(saga["tags"], tags);
    host.kill();
    for _ in 0..2 {
        host_is_killed_and_starts_nothing_twice(&place, &first);
    }
}

fn host_is_killed_and_starts_nothing_twice(place: &Place, first: &[(String, String)]) {
    set_back(place);
    let host = place.run();
    let sagas = scheduled(place, &host);
    let mut keys: Vec<_> = sagas.iter().map(|(key, _)| key).collect();
    keys.dedup();
    assert_eq!(keys.len(), sagas.len(), "a time started two sagas: {sagas:?}");
    assert!(first.iter().all(|saga| sagas.contains(saga)), "{first:?} {sagas:?}");
    host.kill();
}
