//! A saga that ended on one host is imported into another one: once, whole, and without what was withheld.

use std::fs;
use std::io::Write as _;
use std::process::Output;
use std::time::Duration;

use amends_engine::Digest;
use amends_tests::{Behaviour, Component};
use serde_json::{Value, json};

use crate::place::{Host, Place, stderr, stdout};

/// The failpoints of an import. The file of the archive is written as those of a move are.
pub(crate) const IMPORT_POINTS: [&str; 2] = ["store.import.recording", "store.import.recorded"];

/// Those of the file.
const FILE_POINTS: [&str; 3] =
    ["store.archive.written", "store.archive.named", "store.archive.verified"];

/// How long a host may live on with its failpoint set.
const HIT_LIMIT: Duration = Duration::from_secs(20);

const SAGAS: &str = r#"
[[saga]]
name = "order"
subject = "input.customer_id"
personal = ["input.address"]
[[saga.step]]
name = "copy"
plugin = "copy"
input = "input"

[[saga]]
name = "waits"
[[saga.step]]
name = "copy"
plugin = "copy"
input = "input"
[[saga.step]]
name = "approval"
wait = "approved"
"#;

const ADDRESS: &str = "Kirchengasse 47/3";

fn place() -> Place {
    let place = Place::empty();
    let copy = Component { name: "copy", execute: Behaviour::Echo, ..Component::default() };
    fs::write(place.plugin("copy"), copy.build()).unwrap();
    place.config(SAGAS);
    place
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

/// Asserts that a verb is refused with these words, on one line.
fn refused(output: &Output, words: &str) {
    let said = stdout(output) + &stderr(output);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!output.status.success() && said.contains(words), "{words}: {said}");
}

fn start(place: &Place, definition: &str, key: &str) -> String {
    let input = json!({"customer_id": "c-81", "address": ADDRESS, "quantity": 3}).to_string();
    let start = ["start", definition, "--input", &input, "--key", key, "-o", "ids"];
    done(&place.amends(&start)).trim().to_owned()
}

fn import(place: &Place, file: &str) -> Output {
    place.amends(&["store", "import", file, "--reason", "moved", "--as", "ops", "-o", "json"])
}

fn export(place: &Place, id: &str, more: &[&str]) -> String {
    done(&place.amends(&[&["store", "export", id][..], more].concat()))
}

/// A host with a saga that has completed and one that waits; their bundles, the first one with and without
/// personal values.
fn bundles() -> (String, String, String, String) {
    let place = place();
    let host = place.run();
    let (order, waits) = (start(&place, "order", "k-1"), start(&place, "waits", "k-2"));
    host.until("it waits", || host.get(&format!("/v1/sagas/{waits}"))["status"] == "waiting");
    host.until("it has ended", || host.get(&format!("/v1/sagas/{order}"))["status"] == "completed");
    let withheld = export(&place, &order, &[]);
    let clear = export(&place, &order, &["--personal"]);
    let waits = export(&place, &waits, &[]);
    assert_eq!(host.stop(), Some(0));
    assert!(!withheld.contains(ADDRESS) && clear.contains(ADDRESS));
    (order, withheld, clear, waits)
}

/// The lines of a bundle with one of them replaced.
fn edited(bundle: &str, line: usize, from: &str, to: &str) -> String {
    let mut lines: Vec<_> = bundle.lines().map(str::to_owned).collect();
    assert!(lines[line].contains(from), "{}", lines[line]);
    lines[line] = lines[line].replacen(from, to, 1);
    lines.join("\n") + "\n"
}

fn found_in(folder: &std::path::Path) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return found_in(&path);
        }
        let bytes = fs::read(&path).unwrap_or_default();
        bytes.windows(ADDRESS.len()).any(|at| at == ADDRESS.as_bytes())
    })
}

fn events_of(host: &Host, id: &str) -> Vec<Value> {
    host.get(&format!("/v1/sagas/{id}/events?limit=1000"))["items"].as_array().unwrap().clone()
}

#[test]
fn a_saga_is_read_on_the_host_that_imported_it() {
    let (id, withheld, clear, waits) = bundles();
    let place = place();
    let bundle = |text: &str| fs::write(place.path("saga.ndjson"), text).unwrap();
    let host = place.run();
    bundle(&clear);
    let imported: Value = serde_json::from_str(&done(&import(&place, "saga.ndjson"))).unwrap();
    let events = clear.lines().count();
    assert_eq!(
        imported,
        json!({"id": id, "status": "completed", "events": events, "created": true})
    );
    // Sealed with a key of this host, and shown.
    assert!(!found_in(&place.path("data")) && !found_in(&place.path("archive")));
    let view = host.get(&format!("/v1/sagas/{id}"));
    assert_eq!((&view["archived"], &view["input"]["address"]), (&json!(true), &json!(ADDRESS)));
    assert_eq!(view["personal"]["state"], "sealed");
    let history = done(&place.amends(&["history", &id]));
    assert!(history.contains("operator.noted") && history.contains("imported: moved"), "{history}");
    let last = events_of(&host, &id).pop().unwrap();
    assert_eq!(last["data"]["who"], "ops@127.0.0.1");
    for verb in [&["why", &id][..], &["get", &id], &["list", "--archived", "-o", "ids"]] {
        let said = done(&place.amends(verb));
        assert!(!said.is_empty() && (verb[0] != "list" || said.trim() == id), "{said}");
    }
    assert_eq!(host.get("/v1/sagas")["items"], json!([]));
    assert_eq!(host.events().iter().filter(|event| event["saga"] == id.as_str()).count(), 0);
    // Again, with and without personal values, also after a restart: it stays as it is.
    for text in [&clear, &withheld] {
        bundle(text);
        let again: Value = serde_json::from_str(&done(&import(&place, "saga.ndjson"))).unwrap();
        assert_eq!((&again["created"], &again["events"]), (&json!(false), &json!(events)));
    }
    // Its key answers with it, and it does not come back.
    let known = start(&place, "order", "k-1");
    assert_eq!(known, id);
    refused(&place.amends(&["store", "archive", "--bring-back", &id]), "its undos belong there");
    let said = done(&place.amends(&["why", &id]));
    assert!(said.contains("it ran on another host"), "{said}");
    // Of several files, the one that is damaged is named.
    fs::write(place.path("damaged.ndjson"), edited(&clear, 2, "\"version\"", "\"wersion\""))
        .unwrap();
    let several = ["store", "import", "saga.ndjson", "damaged.ndjson", "--reason", "moved"];
    refused(&place.amends(&several), "damaged.ndjson is not imported: the bundle is damaged");
    for verb in [&["compensate", &id, "--reason", "back"][..], &["undo-plan", &id]] {
        let output = place.amends(verb);
        let said = stderr(&output);
        assert!(!said.contains("bring-back") && said.contains("on the host that ran it"), "{said}");
    }
    bundle(&waits);
    refused(&import(&place, "saga.ndjson"), "has not ended: it is waiting");
    // The erasure reaches it.
    done(&place.amends(&["erase", "--subject", "c-81", "--reason", "request 9"]));
    assert_eq!(host.get(&format!("/v1/sagas/{id}"))["input"]["address"], "[erased]");
    assert_eq!(host.kill().len().min(1), 1);
    let host = place.run();
    assert_eq!(events_of(&host, &id).len(), events);
    assert_eq!(host.stop(), Some(0));
    done(&place.amends(&["store", "verify", "data/amends.db", "--archive", "archive"]));
}

#[test]
fn what_was_withheld_stays_away() {
    let (id, withheld, ..) = bundles();
    let place = place();
    // A bundle that only says that its values are withheld.
    fs::write(place.path("saga.ndjson"), &withheld).unwrap();
    let host = place.run();
    done(&import(&place, "saga.ndjson"));
    let view = host.get(&format!("/v1/sagas/{id}"));
    assert_eq!(
        (&view["input"]["address"], &view["input"]["quantity"]),
        (&json!("[erased]"), &json!(3))
    );
    assert_eq!(view["personal"]["state"], "erased");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn what_is_not_a_whole_bundle_of_this_version_is_refused() {
    let (id, withheld, clear, _) = bundles();
    let place = place();
    let host = place.run();
    let refuse = |text: &str, words: &str| {
        fs::write(place.path("saga.ndjson"), text).unwrap();
        refused(&import(&place, "saga.ndjson"), words);
        // What the command line would not have sent.
        let response = crate::place::agent()
            .post(&host.url("/v1/store/import?reason=moved"))
            .header("content-type", "application/x-ndjson")
            .send(text);
        let mut response = response.unwrap();
        let said = response.body_mut().read_to_string().unwrap();
        assert!(response.status().as_u16() >= 400, "{words}: {said}");
    };
    let version = format!("\"amends\":\"{}\"", env!("CARGO_PKG_VERSION"));
    refuse("", "the bundle is empty");
    refuse("{\"a\":1}\n", "it has no format");
    refuse(&edited(&clear, 0, "amends-saga/1", "amends-saga/9"), "amends-saga/9");
    refuse(&edited(&clear, 0, &version, "\"amends\":\"99.0.0\""), "Amends 99.0.0 made the bundle");
    refuse(&edited(&clear, 1, ADDRESS, "Kirchengasse 47/4"), "its digest is");
    refuse(&edited(&withheld, 0, ",\"withheld\":true", ""), "its digest is");
    let cut = clear.lines().take(3).collect::<Vec<_>>().join("\n");
    refuse(&cut, "cut off: it ends with event 2");
    let without = clear.lines().enumerate().filter(|(number, _)| *number != 2);
    let without: Vec<_> = without.map(|(_, line)| line).collect();
    refuse(&without.join("\n"), "is cut off");
    let digest = clear.lines().next().unwrap().rsplit_once(",\"digest\":").unwrap().1.to_owned();
    let digest = format!(",\"digest\":{}", digest.trim_end_matches('}'));
    refuse(&edited(&clear, 0, &digest, ""), "it has no digest");
    assert_eq!(host.get("/v1/sagas?archived=true")["items"], json!([]));
    // Another saga has the id.
    fs::write(place.path("saga.ndjson"), &clear).unwrap();
    done(&import(&place, "saga.ndjson"));
    done(&place.amends(&["get", &id]));
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn what_is_larger_than_a_bundle_may_be_is_refused() {
    let (_, withheld, _, _) = bundles();
    let head = withheld.lines().next().unwrap();
    let place = place();
    let host = place.run();
    let refuse = |lines: &[&[u8]], words: &str| {
        let mut file = fs::File::create(place.path("saga.ndjson")).unwrap();
        for line in lines {
            file.write_all(line).unwrap();
            file.write_all(b"\n").unwrap();
        }
        drop(file);
        refused(&import(&place, "saga.ndjson"), words);
    };
    let letters = vec![b'A'; (80 << 20) + 1];
    refuse(&[head.as_bytes(), &letters[..=32 << 20]], "line 2: it is longer than 32 MiB");
    // 60 MiB of zeros, five times.
    let digest = Digest::of(&vec![0; 60 << 20]);
    let start = format!("{{\"component\":\"{digest}\",\"base64\":\"");
    let component = [start.as_bytes(), &letters[..80 << 20], b"\"}"].concat();
    let component = component.as_slice();
    let too_much = [head.as_bytes(), component, component, component, component, component];
    refuse(&too_much, "line 6: the components have more than 256 MiB");
    let large = [start.as_bytes(), &letters, &letters[..8 << 20], b"\"}"].concat();
    refuse(&[head.as_bytes(), &large], "line 2: it is longer than 85 MiB");
    let response = crate::place::agent()
        .post(&host.url("/v1/store/import?reason=moved"))
        .header("content-type", "application/x-ndjson")
        .send(&letters[..]);
    // The host may close the connection before all of it was sent.
    if let Ok(response) = response {
        assert_eq!(response.status(), 413);
    }
    assert_eq!(host.get("/v1/sagas?archived=true")["items"], json!([]));
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_saga_that_is_here_with_other_events_stays() {
    let place = place();
    let host = place.run();
    let id = start(&place, "order", "k-1");
    host.settle();
    let before = export(&place, &id, &[]);
    // The saga itself is here: there is nothing to import.
    fs::write(place.path("saga.ndjson"), &before).unwrap();
    let same: Value = serde_json::from_str(&done(&import(&place, "saga.ndjson"))).unwrap();
    assert_eq!(same["created"], false);
    done(&place.amends(&["compensate", &id, "--reason", "sent back"]));
    host.settle();
    refused(&import(&place, "saga.ndjson"), "is here already, with other events");
    assert_eq!(host.get(&format!("/v1/sagas/{id}"))["status"], "compensated");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_crash_in_an_import_leaves_all_or_nothing() {
    let (id, _, clear, _) = bundles();
    for point in FILE_POINTS.into_iter().chain(IMPORT_POINTS) {
        let place = place();
        fs::write(place.path("saga.ndjson"), &clear).unwrap();
        let mut host = place.spawn_with(&format!("{point}=return"));
        assert!(host.becomes_ready(), "{point}");
        assert!(!import(&place, "saga.ndjson").status.success(), "{point} was not hit");
        assert!(host.aborted(HIT_LIMIT).is_some(), "{point} was not hit");
        let host = place.run();
        let archived = host.get("/v1/sagas?archived=true")["items"].as_array().unwrap().len();
        assert_eq!(archived, usize::from(point == "store.import.recorded"), "{point}");
        let again: Value = serde_json::from_str(&done(&import(&place, "saga.ndjson"))).unwrap();
        assert_eq!(again["created"], archived == 0, "{point}");
        assert_eq!(events_of(&host, &id).len(), clear.lines().count(), "{point}");
        // The new file is there. One that the crash left whole stays: its saga is nowhere else.
        let files = fs::read_dir(place.path("archive")).unwrap().count();
        assert!((1..=2).contains(&files), "{point}: {files}");
        assert_eq!(host.stop(), Some(0));
        done(&place.amends(&["store", "verify", "data/amends.db", "--archive", "archive"]));
    }
}
