//! A circuit breaker that the sagas of a host share.

use std::fs;

use amends_tests::{Behaviour, Component};
use serde_json::Value;

use crate::place::{Host, Place, agent, stdout};

/// Failures that open it.
const FAILURES: usize = 5;

/// Sagas of each of two definitions.
const SAGAS: usize = 10;

/// Two definitions whose step calls the same service.
fn place() -> Place {
    let place = Place::empty();
    write(&place, "1.0.0", Behaviour::Retryable);
    let step = "[[saga.step]]\nname = \"ship\"\nplugin = \"ship\"\nservice = \"carrier\"\n\
                retry = { attempts = 100, backoff = [\"10ms\"] }\n";
    // One call at once, so that no other is in flight when it opens.
    place.config(&format!(
        "[service.carrier]\nconcurrency = 1\n\
         breaker = {{ failures = {FAILURES}, open_for = \"3s\" }}\n\
         [[saga]]\nname = \"one\"\n{step}[[saga]]\nname = \"other\"\n{step}"
    ));
    place
}

fn write(place: &Place, version: &str, execute: Behaviour) {
    let component = Component { name: "ship", version, execute, ..Component::default() };
    fs::write(place.plugin("ship"), component.build()).unwrap();
}

fn of_type<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["type"] == kind).collect()
}

/// What stands in `/metrics` for the breaker.
fn gauge(host: &Host) -> String {
    let mut answer = agent().get(host.url("/metrics")).call().unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    let line = text.lines().find(|line| line.starts_with("amends_breaker_state{"));
    line.unwrap_or_else(|| panic!("no amends_breaker_state in {text}")).to_owned()
}

#[test]
fn an_open_breaker_uses_no_attempts_and_closes_when_a_call_succeeds() {
    let place = place();
    let host = place.run();
    let breaker = |host: &Host| host.get("/v1/breakers")["items"][0].clone();
    assert_eq!(breaker(&host)["state"], "closed");
    assert_eq!(gauge(&host), "amends_breaker_state{service=\"carrier\"} 0");
    fs::write(place.path("each.ndjson"), "{}\n".repeat(SAGAS)).unwrap();
    for definition in ["one", "other"] {
        let each = ["start", definition, "--input", "each.ndjson", "--each"];
        assert_eq!(place.amends(&each).status.code(), Some(0));
    }
    host.until("it is open", || breaker(&host)["state"] == "open");
    host.until("the metric says so", || gauge(&host).ends_with(" 2"));
    let found = breaker(&host);
    assert_eq!(found["service"], "carrier");
    assert!(found["failures"].as_u64().unwrap() >= FAILURES as u64, "{found}");
    assert_eq!(found["last_error"], "no: it is not possible", "{found}");
    let table = stdout(&place.amends(&["breakers"]));
    for word in ["carrier", "of 5", "wait", "it is not possible"] {
        assert!(table.contains(word), "{table}");
    }

    // Every saga waits for it, and says so.
    let waits = |host: &Host| {
        host.sagas().iter().all(|saga| {
            let id = saga["id"].as_str().unwrap();
            host.get(&format!("/v1/sagas/{id}"))["steps"][0]["status"] == "breaker_open"
        })
    };
    host.until("every saga waits for it", || waits(&host));
    let id = host.sagas()[0]["id"].as_str().unwrap().to_owned();
    host.until("why says so", || {
        let why = stdout(&place.amends(&["why", &id]));
        why.contains("ship waits for service `carrier`, whose circuit breaker is open until")
    });

    // It is no other after a restart.
    host.kill();
    let host = place.run();
    let found = breaker(&host);
    assert_ne!(found["state"], "closed", "{found}");
    assert!(found["failures"].as_u64().unwrap() >= FAILURES as u64, "{found}");
    assert!(!gauge(&host).ends_with(" 0"), "{}", gauge(&host));
    host.until("every saga waits for it again", || waits(&host));

    // The one call that tries fails, and opens it again.
    host.until("it opened again", || of_type(&host.events(), "breaker.opened").len() > 1);
    write(&place, "1.0.1", Behaviour::Done);
    host.settle();
    assert!(host.sagas().iter().all(|saga| saga["status"] == "completed"));
    assert_eq!(host.sagas().len(), 2 * SAGAS);
    assert_eq!(breaker(&host)["state"], "closed");
    assert_eq!(breaker(&host)["failures"], 0);
    host.until("the metric says so", || gauge(&host).ends_with(" 0"));
    check(&host.events());
}

#[test]
fn a_step_that_finds_it_open_and_fails_has_what_came_before_it_undone() {
    let place = Place::empty();
    write(&place, "1.0.0", Behaviour::Retryable);
    fs::write(place.plugin("good"), Component { name: "good", ..Component::default() }.build())
        .unwrap();
    place.config(
        "[service.carrier]\nbreaker = { failures = 1, open_for = \"10m\", on_open = \"fail\" }\n\
         [[saga]]\nname = \"one\"\n\
         [[saga.step]]\nname = \"good\"\nplugin = \"good\"\n\
         [[saga.step]]\nname = \"ship\"\nplugin = \"ship\"\nservice = \"carrier\"\n\
         retry = { attempts = 3, backoff = [\"10ms\"] }\n",
    );
    let host = place.run();
    // The first opens it and is refused when it tries again, the second when it tries at all.
    for _ in 0..2 {
        let output = place.amends(&["start", "one", "--input", "{}", "--wait", "20s"]);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(5), "{text}");
        assert!(text.contains("ship failed: breaker_open"), "{text}");
    }
    let undone = host.events();
    assert_eq!(of_type(&undone, "undo.succeeded").len(), 2);
    assert_eq!(host.stop(), Some(0));
}

/// Every call began while it was closed, or was the one that tried when its time was over.
fn check(events: &[Value]) {
    let opened = of_type(events, "breaker.opened");
    let closed = of_type(events, "breaker.closed");
    assert_eq!(closed.len(), 1, "one call closes it");
    assert_eq!(closed[0]["service"], "carrier");
    let failed = of_type(events, "step.failed");
    let cut_off = of_type(events, "step.unknown");
    println!("{} times open, {} failures, {} cut off", opened.len(), failed.len(), cut_off.len());
    // The first five, then one each time that its time was over.
    assert_eq!(failed.len(), FAILURES + opened.len() - 1, "{opened:#?}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    for open in &opened {
        // Times of the same form sort as text.
        let (at, until) = (text(&open["at"]), text(&open["data"]["until"]));
        for started in of_type(events, "step.started") {
            let started = text(&started["at"]);
            assert!(started <= at || started >= until, "open {at} to {until}, call at {started}");
        }
    }
}

#[test]
fn an_operator_opens_and_closes_it() {
    let place = place();
    write(&place, "1.0.0", Behaviour::Done);
    let host = place.run();
    let amends = |arguments: &[&str]| {
        let output = place.amends(&[&["breaker"][..], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", crate::place::stderr(&output));
        stdout(&output)
    };
    let start = || {
        let output = place.amends(&["start", "one", "--input", "{}", "-o", "ids"]);
        stdout(&output).trim().to_owned()
    };
    let told = amends(&["open", "carrier", "--reason", "it moves house"]);
    let words =
        "carrier is open until it is closed by hand, opened by ada@127.0.0.1: it moves house";
    assert!(told.contains(words), "{told}");
    assert!(amends(&["list"]).contains("opened by ada@127.0.0.1: it moves house"));
    let id = start();
    host.until("it waits", || {
        let why = stdout(&place.amends(&["why", &id]));
        why.contains("an operator has opened")
            && why.contains("amends breaker close carrier")
            && why.contains("was opened by ada@127.0.0.1: it moves house")
    });
    // Longer than it would stay open by itself, and after a restart.
    host.kill();
    let host = place.run();
    std::thread::sleep(std::time::Duration::from_millis(3_500));
    let breaker = host.get("/v1/breakers")["items"][0].clone();
    assert_eq!(
        (&breaker["state"], &breaker["opened_reason"], &breaker["open_until"]),
        (&"open".into(), &"it moves house".into(), &Value::Null),
        "{breaker}"
    );
    assert_ne!(host.get(&format!("/v1/sagas/{id}"))["status"], "completed");
    amends(&["close", "carrier", "--reason", "it is back"]);
    host.until("it goes on", || host.get(&format!("/v1/sagas/{id}"))["status"] == "completed");
    // For a time.
    amends(&["open", "carrier", "--for", "1s", "--reason", "a moment"]);
    let began = std::time::Instant::now();
    let id = start();
    host.until("it is over", || host.get(&format!("/v1/sagas/{id}"))["status"] == "completed");
    assert!(began.elapsed() > std::time::Duration::from_millis(900), "{:?}", began.elapsed());
    host.until("it is closed", || host.get("/v1/breakers")["items"][0]["state"] == "closed");
    // Who waits until somebody closes it waits until the time that it is given then.
    amends(&["open", "carrier", "--reason", "for long"]);
    let id = start();
    host.until("it waits", || {
        stdout(&place.amends(&["why", &id])).contains("an operator has opened")
    });
    amends(&["open", "carrier", "--for", "1s", "--reason", "not so long"]);
    host.until("it goes on", || host.get(&format!("/v1/sagas/{id}"))["status"] == "completed");
    let events = host.events();
    let who = |kind| {
        let events = of_type(&events, kind).into_iter();
        events.filter_map(|event| Some(event["data"]["reason"].as_str()?.to_owned())).collect()
    };
    let opened: Vec<String> = who("breaker.opened");
    let closed: Vec<String> = who("breaker.closed");
    assert_eq!(opened, ["it moves house", "a moment", "for long", "not so long"]);
    assert_eq!(closed, ["it is back"]);
    let unknown = place.amends(&["breaker", "close", "carier", "--reason", "x"]);
    assert_eq!(unknown.status.code(), Some(4));
    assert!(crate::place::stderr(&unknown).contains("the breakers of this host are carrier"));
}

/// Without a breaker in the config, as at night when a service goes wrong that nobody thought of.
#[test]
fn an_operator_opens_one_that_the_config_does_not_have() {
    let place = Place::empty();
    write(&place, "1.0.0", Behaviour::Retryable);
    place.config(
        "[[saga]]\nname = \"one\"\n[[saga.step]]\nname = \"ship\"\nplugin = \"ship\"\n\
         service = \"carrier\"\nretry = { attempts = 100, backoff = [\"1h\"] }\n",
    );
    let host = place.run();
    let output = place.amends(&["start", "one", "--input", "{}", "-o", "ids"]);
    let id = stdout(&output).trim().to_owned();
    let step = || host.get(&format!("/v1/sagas/{id}"))["steps"][0].clone();
    host.until("its call has failed", || step()["status"] == "backing_off");
    let amends = |arguments: &[&str]| {
        let output = place.amends(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", crate::place::stderr(&output));
        stdout(&output)
    };
    let list = amends(&["breaker", "list"]);
    assert!(list.contains("carrier") && list.contains("closed"), "{list}");
    amends(&["breaker", "open", "carrier", "--reason", "it charges twice"]);
    // An order to try again moves nothing, and says so.
    let retried = amends(&["retry", &id, "--reason", "try it"]);
    assert!(retried.contains("breaker_open"), "{retried}");
    let why = amends(&["why", &id]);
    assert!(why.contains("is due to be tried again") && !why.contains("next:"), "{why}");
    assert!(why.contains("amends breaker close carrier"), "{why}");
    write(&place, "1.0.1", Behaviour::Done);
    host.until("it is mended", || host.get("/v1/plugins")["items"][0]["version"] == "1.0.1");
    assert_eq!(step()["attempts"], 1);
    amends(&["breaker", "close", "carrier", "--reason", "it is mended"]);
    host.until("it goes on", || host.get(&format!("/v1/sagas/{id}"))["status"] == "completed");
}
