//! The history of a saga as a file, and the replay of that file without a host.

use std::fs;
use std::process::Output;

use amends_engine::Digest;
use serde_json::Value;

use amends_tests::{Behaviour, Component};

use crate::place::{Host, Place, example, repository, stderr, stdout};

/// Asserts that a verb succeeded, and returns what it printed.
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

/// Asserts that a replay fails and says these words.
fn refused(place: &Place, bundle: &[String], words: &str) {
    fs::write(place.path("bad.ndjson"), bundle.join("\n")).unwrap();
    let output = place.amends(&["replay", "bad.ndjson"]);
    assert_eq!(output.status.code(), Some(1), "{words}: {}", stdout(&output));
    assert!(stderr(&output).contains(words), "{words}: {}", stderr(&output));
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

/// Runs the first orders of the example. Some of them are compensated.
fn orders(place: &Place, host: &Host) {
    let orders = fs::read_to_string(example().join("orders.ndjson")).unwrap();
    let some: Vec<_> = orders.lines().take(40).collect();
    fs::write(place.path("some.ndjson"), some.join("\n")).unwrap();
    let starts = ["start", "order-fulfillment", "--input", "some.ndjson", "--each"];
    done(&place.amends(&starts));
    host.settle();
}

#[test]
fn a_replayed_bundle_reproduces_the_history() {
    let place = Place::example();
    let host = place.run();
    orders(&place, &host);
    let sagas = host.sagas();
    let of_status = |status: &str| sagas.iter().find(|saga| saga["status"] == status);
    for status in ["completed", "compensated"] {
        let saga = of_status(status).unwrap_or_else(|| panic!("no order is {status}"));
        let id = saga["id"].as_str().unwrap();
        let file = format!("{status}.ndjson");
        let told = done(&place.amends(&["store", "export", id, &file]));
        let history = done(&place.amends(&["history", id, "-o", "jsonl"]));
        let history: Vec<_> = history.lines().map(json).collect();
        assert_eq!(told, format!("{file} has the {} events of {id}\n", history.len()));

        let replayed = done(&place.amends(&["replay", &file, "-o", "jsonl"]));
        let replayed: Vec<_> = replayed.lines().map(json).collect();
        assert_eq!(replayed.len(), history.len());
        for (state, event) in replayed.iter().zip(&history) {
            for key in ["version", "at", "type", "data"] {
                assert_eq!(state[key], event[key], "{key}");
            }
        }
        assert_eq!(replayed.last().unwrap()["status"], status);
        assert_eq!(replayed[0]["status"], "running");

        // The state in between is that of then: what a call in flight was, and nothing later.
        let to = done(&place.amends(&["replay", &file, "--to", "2"]));
        assert!(to.contains("attempt 1 of prescription"), "{to}");
        assert!(to.contains("It is running: "), "{to}");
        assert!(!to.contains("step.succeeded"), "{to}");
        let sentence = host.get(&format!("/v1/sagas/{id}/why"))["sentence"].clone();
        let told = place.amends(&["replay", &file, "--wide"]);
        let (told, sentence) = (done(&told), sentence.as_str().unwrap());
        assert!(told.contains(sentence), "{sentence}: {told}");

        let bundle = lines(&fs::read_to_string(place.path(&file)).unwrap());
        let head = json(&bundle[0]);
        let components = head["components"].as_array().unwrap();
        let is_there = |plugin: &str| components.iter().any(|it| it["plugin"] == plugin);
        assert!(is_there("prescription"), "{head}");
        let is_undone = history
            .iter()
            .any(|event| event["type"] == "undo.started" && event["data"]["step"] == "inventory");
        assert_eq!(is_there("inventory-release"), is_undone, "{head}");
        // Through a pipe it is the same.
        assert_eq!(lines(&done(&place.amends(&["store", "export", id]))), bundle);
    }
    let refused = place.amends(&["store", "export", "@last", "completed.ndjson"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("completed.ndjson exists"), "{}", stderr(&refused));
    done(&place.amends(&["store", "export", "@last", "completed.ndjson", "--replace"]));
    let unknown = "0198c0de-0000-7000-8000-000000000000";
    assert_eq!(place.amends(&["store", "export", unknown]).status.code(), Some(4));
    assert_eq!(host.stop(), Some(0));
}

/// A component makes the recorded calls again: the same one comes to the same, another one differs.
#[test]
fn recorded_calls_are_made_again_on_another_component() {
    let place = Place::example();
    let host = place.run();
    orders(&place, &host);
    let saga = host.sagas().into_iter().find(|saga| saga["status"] == "completed").unwrap();
    done(&place.amends(&["store", "export", saga["id"].as_str().unwrap(), "saga.ndjson"]));
    assert_eq!(host.stop(), Some(0));
    let replay = |component: &str, more: &[&str]| {
        let args = ["replay", "saga.ndjson", "--component", component];
        place.amends(&[&args, more].concat())
    };
    let file = repository().join("plugins/prescription.wasm");
    let told = done(&replay(file.to_str().unwrap(), &[]));
    assert!(told.contains("1 calls of prescription were made again: 1 the same"), "{told}");
    let states = done(&replay(file.to_str().unwrap(), &["-o", "jsonl"]));
    let states: Vec<_> = states.lines().map(json).collect();
    let replayed: Vec<_> = states.iter().filter(|state| !state["replayed"].is_null()).collect();
    let [state] = replayed[..] else { panic!("{replayed:?}") };
    assert_eq!(
        (&state["type"], &state["data"]["step"]),
        (&"step.succeeded".into(), &"prescription".into())
    );
    assert_eq!(state["replayed"]["verdict"], "same", "{state}");

    let execute = Behaviour::Permanent;
    let other = Component { name: "prescription", execute, ..Component::default() };
    fs::write(place.path("prescription.wasm"), other.build()).unwrap();
    let differs = replay("prescription.wasm", &[]);
    assert_eq!(differs.status.code(), Some(8), "{}", stderr(&differs));
    let told = stdout(&differs);
    assert!(told.contains("differs: failed (permanent) with no: it is not possible"), "{told}");
    assert!(
        told.contains("1 calls of prescription were made again: 0 the same, 1 differ"),
        "{told}"
    );

    // Of a plugin that made no call, and of no component at all.
    let none = done(&replay("other=prescription.wasm", &[]));
    assert!(none.contains("0 calls of other were made again"), "{none}");
    fs::write(place.path("bad.wasm"), "no component").unwrap();
    let refused = replay("prescription=bad.wasm", &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("bad.wasm cannot be called"), "{}", stderr(&refused));
}

/// The components of a bundle make the calls again that they served, without a host and without the folder.
/// One that was swapped meanwhile makes its own calls, and one that is gone is named.
#[test]
fn the_components_of_a_bundle_make_its_calls_again() {
    let place = Place::example();
    let host = place.run();
    orders(&place, &host);
    let sagas = host.sagas();
    // The inventory has reserved, and its undo is a component of its own, which finds that.
    let is_undone = |saga: &&Value| {
        let view = host.get(&format!("/v1/sagas/{}", saga["id"].as_str().unwrap()));
        view["steps"][1]["status"] == "undone"
    };
    let saga = sagas.iter().find(is_undone).expect("an order whose stock was released");
    let id = saga["id"].as_str().unwrap();
    let told = done(&place.amends(&["store", "export", id, "whole.ndjson", "--components"]));
    assert!(told.contains(" and 4 components") || told.contains(" and 3 components"), "{told}");
    let plain = done(&place.amends(&["store", "export", id]));
    // It is the same bundle, with lines between the head and the events.
    let whole = fs::read_to_string(place.path("whole.ndjson")).unwrap();
    let without: Vec<_> =
        whole.lines().filter(|line| !line.starts_with("{\"component\":")).collect();
    assert_eq!(plain.lines().collect::<Vec<_>>(), without);

    // Another version of the undo serves from here on; the one that served is removed.
    let released = repository().join("plugins/inventory-release.wasm");
    let new = crate::swap::another_version(&fs::read(&released).unwrap());
    fs::write(place.path("new.wasm"), new).unwrap();
    done(&place.amends(&["plugin", "deploy", "inventory-release=new.wasm"]));
    assert_eq!(host.stop(), Some(0));
    fs::remove_dir_all(place.plugins()).unwrap();
    let again =
        stdout(&place.amends(&["replay", "whole.ndjson", "--calls", "--config", "amends.toml"]));
    let last = again.lines().last().unwrap();
    assert!(last.contains("inventory, inventory-release, prescription"), "{again}");
    let states = stdout(&place.amends(&[
        "replay",
        "whole.ndjson",
        "--calls",
        "--config",
        "amends.toml",
        "-o",
        "jsonl",
    ]));
    let states: Vec<_> = states.lines().map(json).collect();
    let verdict = |kind: &str, step: &str| {
        let is_it = |state: &&Value| state["type"] == kind && state["data"]["step"] == step;
        states.iter().find(is_it).map(|state| state["replayed"]["verdict"].clone())
    };
    // The undo, which is another component, finds in the state what the step wrote there.
    for (kind, step) in [
        ("step.succeeded", "prescription"),
        ("step.succeeded", "inventory"),
        ("undo.succeeded", "inventory"),
        ("undo.succeeded", "prescription"),
    ] {
        assert_eq!(verdict(kind, step), Some("same".into()), "{kind} {step}: {again}");
    }
    let plain_file = place.path("plain.ndjson");
    fs::write(&plain_file, &plain).unwrap();
    let none = place.amends(&["replay", "plain.ndjson", "--calls"]);
    assert!(stderr(&none).contains("the bundle has no components"), "{}", stderr(&none));

    // A component that was damaged on the way does not run.
    let at = whole.find("\"base64\":\"").unwrap() + 2_000;
    let mut damaged = whole.clone().into_bytes();
    damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
    fs::write(place.path("damaged.ndjson"), damaged).unwrap();
    let output = place.amends(&["replay", "damaged.ndjson"]);
    assert!(stderr(&output).contains("line 2: the component is damaged"), "{}", stderr(&output));

    let digest = Digest::of(&fs::read(&released).unwrap());
    let database = rusqlite::Connection::open(place.path("data/amends.db")).unwrap();
    let removed = "DELETE FROM blobs WHERE digest = ?1";
    assert_eq!(database.execute(removed, [digest.as_bytes()]).unwrap(), 1);
    drop(database);
    fs::create_dir(place.plugins()).unwrap();
    let host = place.run();
    let output = place.amends(&["store", "export", id, "rest.ndjson", "--components"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let named = format!("the component {} of inventory-release is gone", &digest.to_string()[..19]);
    assert!(stderr(&output).contains(&named), "{named}: {}", stderr(&output));
    let output = place.amends(&["replay", "rest.ndjson", "--calls"]);
    let words = "of inventory-release; its calls are not made";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_bundle_that_was_changed_is_refused_with_its_line() {
    let place = Place::example();
    let host = place.run();
    orders(&place, &host);
    let bundle = lines(&done(&place.amends(&["store", "export", "@last"])));
    assert_eq!(host.stop(), Some(0));
    let changed = |number: usize, change: &dyn Fn(&str) -> String| {
        let mut bundle = bundle.clone();
        bundle[number] = change(&bundle[number]);
        bundle
    };
    let replaced = |number, from: &'static str, to: &'static str| {
        let change = move |line: &str| {
            assert!(line.contains(from), "{line}");
            line.replace(from, to)
        };
        changed(number, &change)
    };
    refused(&place, &[], "the bundle is empty");
    refused(&place, &bundle[1..], "line 1: it has no format");
    refused(&place, &bundle[..1], "the bundle has no events");
    refused(&place, &bundle[..4], "the bundle is cut off: it ends with event 3 of");
    refused(&place, &replaced(0, "amends-saga/1", "amends-saga/9"), "this version reads");
    refused(&place, &replaced(0, "\"prescription\"", "\"shipment\""), "line 1: its definition");
    refused(&place, &replaced(2, "step.started", "step.stopped"), "line 3");
    let without = |number: usize| [&bundle[..number], &bundle[number + 1..]].concat();
    refused(&place, &without(2), "line 3: event 2 is missing; this one is 3");
    refused(&place, &changed(2, &|line| line[..line.len() / 2].to_owned()), "line 3");
    // What was decided before the call began cannot follow: the engine says so.
    let mut swapped = bundle.clone();
    swapped[2] = bundle[3].replace("\"version\":3", "\"version\":2");
    refused(&place, &swapped, "which cannot be");
    fs::write(place.path("long.ndjson"), "x".repeat(33 << 20)).unwrap();
    let output = place.amends(&["replay", "long.ndjson"]);
    assert!(stderr(&output).contains("longer than 32 MiB"), "{}", stderr(&output));
    let output = place.amends(&["replay", "missing.ndjson"]);
    assert!(stderr(&output).contains("missing.ndjson cannot be read"), "{}", stderr(&output));
}
