//! Steps that call no plugin: they wait for a signal or a time, or run another saga.

use std::fmt::Write as _;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use amends_tests::{Behaviour, Component};
use serde_json::{Value, json};

use crate::place::{Host, Place, stderr, stdout};

/// Every definition begins with `good`, whose undo is seen. `early` sleeps before it waits, `twice`
/// waits twice for the same signal, `short` does not wait long, `nap` sleeps. `family` runs `child`,
/// `broken` fails after it, `patient` waits after it, `long` runs `waiting`, which waits.
fn place() -> Place {
    let place = Place::empty();
    for (name, execute) in [("good", Behaviour::Echo), ("bad", Behaviour::Permanent)] {
        let component = Component { name, execute, ..Component::default() };
        fs::write(place.plugin(name), component.build()).unwrap();
    }
    let mut config = String::new();
    let mut saga = |name: &str, steps: &[(&str, &str)]| {
        writeln!(config, "[[saga]]\nname = \"{name}\"").unwrap();
        let first = ("good", "plugin = \"good\"\ninput = \"input\"");
        for (name, kind) in [&[first], steps].concat() {
            writeln!(config, "[[saga.step]]\nname = \"{name}\"\n{kind}").unwrap();
        }
    };
    let gate = ("gate", "wait = \"approved\"");
    let again = ("again", "wait = \"approved\"");
    let last = ("last", "plugin = \"good\"\ninput = \"steps.gate.output\"");
    let bad = ("bad", "plugin = \"bad\"");
    let child = ("child", "saga = \"child\"\ninput = \"{'from': input.n}\"");
    saga("early", &[("nap", "sleep = \"3s\""), gate, last]);
    saga("twice", &[gate, again]);
    saga("short", &[("gate", "wait = { signal = \"approved\", timeout = \"200ms\" }"), last]);
    saga("nap", &[("nap", "sleep = \"1500ms\"")]);
    saga("child", &[]);
    saga("waiting", &[gate]);
    saga("family", &[child]);
    saga("broken", &[child, bad]);
    saga("patient", &[child, gate]);
    saga("long", &[("child", "saga = \"waiting\"")]);
    place.config(&config);
    place
}

fn start(place: &Place, definition: &str) -> String {
    let output = place.amends(&["start", definition, "--input", "{\"n\": 1}", "-o", "ids"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stdout(&output).trim().to_owned()
}

fn done(place: &Place, arguments: &[&str]) {
    let output = place.amends(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
}

fn saga(host: &Host, id: &str) -> Value {
    host.get(&format!("/v1/sagas/{id}"))
}

fn until_status(host: &Host, id: &str, status: &str) -> Value {
    host.until(&format!("{id} is {status}"), || saga(host, id)["status"] == status);
    saga(host, id)
}

fn step<'a>(saga: &'a Value, name: &str) -> &'a Value {
    let mut steps = saga["steps"].as_array().unwrap().iter();
    steps.find(|step| step["name"] == name).unwrap()
}

/// The child that a saga's step runs, when there is one.
fn child(host: &Host, parent: &str) -> String {
    let child = || step(&saga(host, parent), "child")["child"].as_str().map(str::to_owned);
    host.until("it has a child", || {
        let list = host.sagas();
        child().is_some_and(|child| list.iter().any(|saga| saga["id"] == child.as_str()))
    });
    child().unwrap()
}

/// How many events of this type a saga has.
fn count(host: &Host, id: &str, kind: &str) -> usize {
    let page = host.get(&format!("/v1/sagas/{id}/events?limit=1000"));
    page["items"].as_array().unwrap().iter().filter(|event| event["type"] == kind).count()
}

#[test]
fn a_signal_that_comes_early_is_kept_and_is_the_output() {
    let place = place();
    let host = place.run();
    let id = start(&place, "early");
    let payload = "{\"by\": \"ada\", \"amount\": 12345678901234567890}";
    done(&place, &["signal", &id, "approved", "--payload", payload]);
    let found = saga(&host, &id);
    assert_eq!(step(&found, "gate")["status"], "pending", "it came early: {found}");
    host.kill();
    let host = place.run();
    let found = until_status(&host, &id, "completed");
    let expected = json!({"by": "ada", "amount": 12_345_678_901_234_567_890_u64});
    assert_eq!(step(&found, "gate")["output"], expected, "{found}");
    assert_eq!(found["output"], expected, "the next step is given it: {found}");
}

#[test]
fn a_signal_with_the_id_of_another_is_dropped() {
    let place = place();
    let host = place.run();
    let id = start(&place, "twice");
    until_status(&host, &id, "waiting");
    fs::write(place.path("payload.json"), "[1]").unwrap();
    let signal = |payload: &str, signal_id: &str| {
        let arguments = ["signal", &id, "approved", "--payload", payload, "--id", signal_id];
        done(&place, &arguments);
    };
    signal("payload.json", "s-1");
    signal("payload.json", "s-1");
    host.kill();
    let host = place.run();
    signal("[2]", "s-1");
    host.until("the second step waits", || step(&saga(&host, &id), "again")["status"] == "waiting");
    assert_eq!(count(&host, &id, "signal.received"), 1, "two of three are dropped");
    let why = stdout(&place.amends(&["why", &id]));
    assert!(why.contains("again waits for the signal `approved`"), "{why}");
    signal("[3]", "s-2");
    let found = until_status(&host, &id, "completed");
    assert_eq!(step(&found, "gate")["output"], json!([1]));
    assert_eq!(step(&found, "again")["output"], json!([3]));
}

#[test]
fn a_wait_that_times_out_compensates() {
    let place = place();
    let host = place.run();
    let id = start(&place, "short");
    let found = until_status(&host, &id, "compensated");
    assert_eq!(step(&found, "gate")["status"], "failed", "{found}");
    assert_eq!(step(&found, "last")["status"], "pending", "{found}");
    assert_eq!(step(&found, "good")["status"], "undone", "{found}");
    assert!(found["reason"].as_str().unwrap().contains("gate"), "{found}");
}

#[test]
fn a_step_sleeps_through_a_restart() {
    let place = place();
    let host = place.run();
    let id = start(&place, "nap");
    let found = until_status(&host, &id, "waiting");
    let until = step(&found, "nap")["next_at"].as_str().unwrap().to_owned();
    let why = stdout(&place.amends(&["why", &id]));
    assert!(why.contains(&format!("nap sleeps until {until}")), "{why}");
    host.kill();
    let host = place.run();
    let found = until_status(&host, &id, "completed");
    // Times of the same form sort as text.
    assert!(found["ended_at"].as_str().unwrap() >= until.as_str(), "{found} {until}");
}

#[test]
fn a_child_completes_with_its_parent() {
    let place = place();
    let host = place.run();
    let id = start(&place, "family");
    let parent = until_status(&host, &id, "completed");
    let child = saga(&host, &child(&host, &id));
    assert_eq!((&child["status"], &child["definition"]), (&"completed".into(), &"child".into()));
    assert_eq!(child["parent"], json!({"saga": id, "step": "child"}));
    assert_eq!(child["input"], json!({"from": 1}), "what its step makes");
    assert_eq!(step(&parent, "child")["output"], child["output"]);
}

#[test]
fn the_failure_of_a_parent_compensates_a_completed_child() {
    let place = place();
    let host = place.run();
    let id = start(&place, "broken");
    let parent = until_status(&host, &id, "compensated");
    assert_eq!(step(&parent, "child")["status"], "undone");
    let child = child(&host, &id);
    let found = saga(&host, &child);
    assert_eq!(found["status"], "compensated");
    assert_eq!(step(&found, "good")["status"], "undone");
    let history = stdout(&place.amends(&["history", &child]));
    let line = history.lines().find(|line| line.contains("operator.compensated")).unwrap();
    assert!(line.contains(&format!("saga {id}: its step child is undone")), "{line}");
}

#[test]
fn cancelling_a_parent_cancels_a_running_child() {
    let place = place();
    let host = place.run();
    let id = start(&place, "long");
    let child = child(&host, &id);
    until_status(&host, &child, "waiting");
    let plan = stdout(&place.amends(&["undo-plan", &id]));
    assert!(plan.contains(&format!("saga {child}")), "{plan}");
    done(&place, &["cancel", &id, "--reason", "ordered twice"]);
    until_status(&host, &child, "compensated");
    let parent = until_status(&host, &id, "compensated");
    assert_eq!(step(&parent, "good")["status"], "undone");
}

#[test]
fn parents_and_children_go_on_after_kills() {
    let place = place();
    let mut host = place.run();
    let kill = |host: Host| {
        host.kill();
        place.run()
    };
    // A child that waits, and one that has completed.
    let (long, gone, patient) =
        (start(&place, "long"), start(&place, "long"), start(&place, "patient"));
    let [long_child, gone_child, patient_child] =
        [&long, &gone, &patient].map(|id| child(&host, id));
    until_status(&host, &long_child, "waiting");
    until_status(&host, &patient, "waiting");
    host = kill(host);
    assert_eq!(child(&host, &long), long_child, "the same child");
    done(&place, &["signal", &long_child, "approved"]);
    host = kill(host);
    until_status(&host, &long, "completed");
    for id in [&gone, &patient] {
        done(&place, &["cancel", id, "--reason", "ordered twice"]);
    }
    host = kill(host);
    for id in [&gone, &gone_child, &patient, &patient_child] {
        until_status(&host, id, "compensated");
    }
    for child in [&gone_child, &patient_child] {
        assert_eq!(count(&host, child, "saga.compensated"), 1);
    }
    // Killed at whichever moment: a parent and its child end alike.
    let mut broken = Vec::new();
    for turn in 0..30 {
        broken.push(start(&place, "broken"));
        if turn % 5 == 0 {
            host = kill(host);
        }
    }
    for id in &broken {
        until_status(&host, id, "compensated");
        let child = saga(&host, &child(&host, id));
        assert_eq!(child["status"], "compensated", "{child}");
        assert_eq!(step(&child, "good")["status"], "undone");
    }
    assert_eq!(host.sagas().len(), 6 + 2 * broken.len(), "a child was started twice");
}

#[test]
fn no_child_outlives_a_parent_that_is_cancelled_while_the_host_is_killed() {
    const SAGAS: usize = 60;
    let place = place();
    let mut host = place.run();
    fs::write(place.path("each.ndjson"), "{\"n\": 1}\n".repeat(SAGAS)).unwrap();
    done(&place, &["start", "long", "--input", "each.ndjson", "--each"]);
    let waiting = |host: &Host| {
        let sagas = host.sagas();
        let all = sagas.iter().filter(|saga| saga["definition"] == "waiting");
        all.filter(|saga| saga["status"] == "waiting").count()
    };
    host.until("every child waits", || waiting(&host) == SAGAS);
    let query = ["--definition", "long", "--status", "running,waiting"];
    let cancel = [&["cancel"], &query[..], &["--reason", "ordered twice"]].concat();
    let mut kills = 0;
    while !stdout(&place.amends(&[&["list", "-o", "ids"], &query[..]].concat())).is_empty() {
        let mut client = place.command(&cancel);
        let mut client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // A sweep takes some milliseconds, and so does the start of the command.
        std::thread::sleep(Duration::from_millis(10 + kills * 7 % 20));
        host.kill();
        client.wait().unwrap();
        kills += 1;
        assert!(kills < 100, "the parents are not cancelled");
        host = place.run();
    }
    println!("{kills} kills");
    host.settle();
    for saga in host.sagas() {
        assert_eq!(saga["status"], "compensated", "{saga}");
    }
    assert_eq!(host.sagas().len(), 2 * SAGAS);
}
