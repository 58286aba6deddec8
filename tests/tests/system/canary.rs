//! A component that serves a share of the sagas at first.

use std::collections::BTreeSet;
use std::fs;

use amends_tests::{Behaviour, Component};
use serde_json::Value;

use crate::place::{Host, Place, stderr, stdout};

const SAGAS: usize = 400;

fn component(version: &str) -> Component<'_> {
    Component { name: "pack", version, ..Component::default() }
}

fn place() -> Place {
    let place = Place::empty();
    fs::write(place.plugin("pack"), component("1.2.3").build()).unwrap();
    // So that every attempt is a call of its own, and no saga waits for long.
    place.config(
        "[[saga]]\nname = \"order\"\n\
         [[saga.step]]\nname = \"pack\"\nplugin = \"pack\"\n\
         retry = { attempts = 4, backoff = [\"20ms\", \"200ms\", \"2s\"] }\n",
    );
    place
}

fn canary(place: &Place, bytes: &[u8], more: &[&str]) -> String {
    fs::write(place.path("pack.wasm"), bytes).unwrap();
    let deploy = ["plugin", "deploy", "pack.wasm", "--canary", "25%", "--reason", "release 2"];
    let output = place.amends(&[&deploy, more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stdout(&output)
}

fn start(place: &Place, sagas: usize) {
    let lines = "{}\n".repeat(sagas);
    fs::write(place.path("inputs.ndjson"), lines).unwrap();
    let start = ["start", "order", "--input", "inputs.ndjson", "--each", "--wait", "-o", "ids"];
    let output = place.amends(&start);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

fn last(host: &Host) -> Value {
    host.get("/v1/plugins/pack")["canaries"][0].clone()
}

fn of(events: &[Value], kind: &str) -> Vec<Value> {
    events.iter().filter(|event| event["type"] == kind).cloned().collect()
}

#[test]
fn a_canary_that_misbehaves_is_taken_back_and_harms_no_saga() {
    let place = place();
    let host = place.run();
    let good = host.get("/v1/plugins/pack")["digest"].clone();
    let traps = Component { execute: Behaviour::Trap, ..component("2.0.0") };
    let told = canary(&place, &traps.build(), &["--min-calls", "40"]);
    assert!(told.contains("a canary from now on"), "{told}");
    let list = stdout(&place.amends(&["plugin", "list"]));
    assert!(list.contains("1.2.3, canary 2.0.0 (25 %)"), "{list}");
    start(&place, SAGAS);
    host.until("it is taken back", || !last(&host)["ended"].is_null());
    let ended = last(&host);
    assert_eq!(ended["ended"]["promoted"], false);
    let reason = ended["ended"]["reason"].as_str().unwrap();
    assert!(
        reason.contains("of the active component's") && reason.contains("5 points"),
        "{reason}"
    );
    let versions = stdout(&place.amends(&["plugin", "versions", "pack"]));
    for words in ["taken back", "ada@127.0.0.1", "release 2: 25 % of the sagas"] {
        assert!(versions.contains(words), "{words}: {versions}");
    }

    let events = host.events();
    // Attempts on it failed, and the next ones of the same sagas were served by the good one.
    assert_eq!(of(&events, "saga.completed").len(), SAGAS, "every saga is done");
    let bad = |event: &&Value| event["data"]["digest"] == ended["digest"];
    let started = of(&events, "step.started");
    let tried: BTreeSet<_> =
        started.iter().filter(bad).map(|one| one["saga"].to_string()).collect();
    assert!((3..SAGAS / 2).contains(&tried.len()), "{} sagas on it", tried.len());
    let end = of(&events, "plugin.canary_ended").pop().unwrap();
    let position = |event: &Value| event["position"].as_u64().unwrap();
    let late = started.iter().filter(bad).filter(|one| position(one) > position(&end));
    // Those that were admitted in that moment.
    assert!(late.count() <= 64, "it is called no more");
    assert_eq!(host.get("/v1/plugins/pack")["digest"], good);
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_canary_that_does_well_serves_all_sagas_and_an_operator_may_say_when() {
    let place = place();
    let host = place.run();
    let version = |version: &str| {
        let undo = Behaviour::Effect;
        Component { compensate: undo, ..component(version) }.build()
    };
    canary(&place, &version("2.0.0"), &["--promote-after", "50"]);
    start(&place, SAGAS);
    let serves = || host.get("/v1/plugins/pack")["version"].clone();
    host.until("it is promoted", || serves() == "2.0.0");
    let plugin = host.get("/v1/plugins/pack");
    assert_eq!(plugin["history"][0]["cause"], "canary", "{plugin}");
    let reason = plugin["history"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("0 of its 50 calls failed"), "{reason}");
    assert_eq!(plugin["canaries"][0]["ended"]["promoted"], true);
    let (done, started) =
        (of(&host.events(), "step.succeeded"), of(&host.events(), "step.started"));
    assert_eq!(done.len(), SAGAS);
    let digests: BTreeSet<_> =
        started.iter().map(|one| one["data"]["digest"].to_string()).collect();
    assert_eq!(digests.len(), 2, "both served");

    let act = |verb: &str| place.amends(&["plugin", verb, "pack", "--reason", "test"]);
    assert!(stderr(&act("promote")).contains("no canary of it runs"));
    canary(&place, &version("3.0.0"), &[]);
    // What is undone by it, the history says so.
    let ids =
        stdout(&place.amends(&["list", "--definition", "order", "--limit", "100", "-o", "ids"]));
    for id in ids.lines() {
        let output = place.amends(&["compensate", id, "--reason", "test", "-o", "ids"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    host.settle();
    let events = host.events();
    let undos = of(&events, "undo.started");
    let (of_canary, others): (Vec<&Value>, Vec<&Value>) =
        undos.iter().partition(|undo| undo["data"]["note"] == "served by the canary of pack");
    assert!(of_canary.len() > 5 && others.len() > 30, "{} {}", of_canary.len(), others.len());
    let canary_digest = last(&host)["digest"].clone();
    assert!(of_canary.iter().all(|undo| undo["data"]["digest"] == canary_digest));
    assert!(others.iter().all(|undo| undo["data"]["digest"] == plugin["digest"]));
    let told = stdout(&act("promote"));
    assert!(told.contains("pack: version 3.0.0 serves all sagas now"), "{told}");
    canary(&place, &version("4.0.0"), &[]);
    let told = stdout(&act("rollback"));
    assert!(
        told.contains("version 3.0.0 serves all sagas again: the canary is taken back"),
        "{told}"
    );
    assert_eq!(serves(), "3.0.0");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn what_is_no_canary_is_refused_in_words() {
    let place = place();
    let host = place.run();
    fs::write(place.path("pack.wasm"), component("2.0.0").build()).unwrap();
    fs::write(place.path("new.wasm"), component("1.2.3").build()).unwrap();
    for (arguments, exit, words) in [
        (&["pack.wasm", "--canary", "100%"][..], 1, "from 0.01 to 99 percent"),
        (&["pack.wasm", "--canary", "x"], 2, "write such as 10%"),
        (&["pack.wasm", "--margin", "5"], 2, "--canary"),
        (&["pack.wasm", "--canary", "10", "--margin", "100"], 1, "from 0 to under 100 points"),
        (
            &["pack.wasm", "--canary", "10", "--min-calls", "9", "--promote-after", "8"],
            1,
            "after 9",
        ),
        (&["pack.wasm", "new.wasm", "--canary", "10"], 1, "a canary is one component"),
        (&["new.wasm", "--canary", "10"], 1, "there is no such plugin, and no definition uses it"),
        (&["pack.wasm", "--canary", "-5"], 1, "from 0.01 to 99 percent"),
        (&["pack=new.wasm", "--canary", "10"], 1, "serves all sagas already"),
    ] {
        let output = place.amends(&[&["plugin", "deploy"], arguments].concat());
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {told}");
        assert!(told.contains(words), "{arguments:?}: {told}");
    }
    assert_eq!(host.get("/v1/plugins/pack")["canaries"], serde_json::json!([]));
    assert_eq!(host.stop(), Some(0));
}
