//! Payloads: what is shown to tokens that may see them, and what stands in their place for the others.

use std::fs;
use std::io::{BufRead as _, BufReader};

use amends_tests::{Behaviour, Component};
use serde_json::{Value, json};

use super::asker::{ADMIN, ADMIN_VARIABLE, AUTH, Asker, make};
use crate::place::{Host, Place, agent, stderr, stdout};

/// Stands in every payload of the sagas, and nowhere else.
const MARK: &str = "planted-4711";

/// Stands in the place of a payload that the reader may not see.
const WITHHELD: &str = "[withheld]";

const IMPORTS: &str = "
    (import \"amends:saga/state@1.1.0\" \"set\" (func $set (param i32 i32 i32 i32)))
    (import \"amends:saga/events@1.1.0\" \"emit\" (func $emit (param i32 i32 i32 i32)))
    (data (i32.const 20000) \"order.told\")";

/// Says the input in a domain event, keeps it as the state `no`, and answers it.
const TELLS: Behaviour = Behaviour::Text(
    "(call $emit (i32.const 20000) (i32.const 10) (local.get $at) (local.get $length))
     (call $set (i32.const 3060) (i32.const 2) (local.get $at) (local.get $length))
     (i32.store offset=8 (i32.const 2048) (local.get $at))
     (i32.store offset=12 (i32.const 2048) (local.get $length))
     (i32.const 2048)",
);

/// Undoes with the input of the step as the receipt.
const RECEIPT: Behaviour = Behaviour::Text(
    "(i32.store8 offset=12 (i32.const 2112) (i32.const 1))
     (i32.store offset=16 (i32.const 2112) (i32.load offset=48 (local.get $arguments)))
     (i32.store offset=20 (i32.const 2112) (i32.load offset=52 (local.get $arguments)))
     (i32.const 2112)",
);

/// Fails for good, with the input as the details: code `no`, message `it is not possible`.
const FAILS: Behaviour = Behaviour::Text(
    "(i32.store8 (i32.const 2048) (i32.const 1))
     (i32.store8 offset=8 (i32.const 2048) (i32.const 0))
     (i32.store offset=16 (i32.const 2048) (i32.const 3060))
     (i32.store offset=20 (i32.const 2048) (i32.const 2))
     (i32.store offset=24 (i32.const 2048) (i32.const 3064))
     (i32.store offset=28 (i32.const 2048) (i32.const 18))
     (i32.store8 offset=48 (i32.const 2048) (i32.const 1))
     (i32.store offset=52 (i32.const 2048) (local.get $at))
     (i32.store offset=56 (i32.const 2048) (local.get $length))
     (i32.const 2048)",
);

/// `order` is compensated after its signal, `gate` completes after it, `list` completes at once; the calls of
/// `busy` and `lost` are tried again in an hour, and of `lost` nobody knows what became of them.
const SAGAS: &str = "
[plugin.tell]
state = true
events = true

[[saga]]
name = \"order\"
[[saga.step]]
name = \"tell\"
plugin = \"tell\"
input = \"input\"
[[saga.step]]
name = \"approval\"
wait = \"approved\"
[[saga.step]]
name = \"fail\"
plugin = \"fail\"
input = \"input\"

[[saga]]
name = \"gate\"
[[saga.step]]
name = \"tell\"
plugin = \"tell\"
input = \"input\"
[[saga.step]]
name = \"approval\"
wait = \"approved\"

[[saga]]
name = \"list\"
[[saga.step]]
name = \"echo\"
plugin = \"echo\"
each = \"input.items\"
input = \"item\"

[[saga]]
name = \"busy\"
[[saga.step]]
name = \"busy\"
plugin = \"busy\"
input = \"input\"
retry = { attempts = 2, backoff = [\"1h\"] }

[[saga]]
name = \"lost\"
[[saga.step]]
name = \"lost\"
plugin = \"trap\"
input = \"input\"
retry = { attempts = 2, backoff = [\"1h\"] }

[[subscription]]
name = \"shop\"
url = \"http://127.0.0.1:9/hook\"
secrets = [{ env = \"SHOP_SECRET\" }]
";

fn tell(version: &str, compensate: Behaviour) -> Vec<u8> {
    let (name, imports) = ("tell", IMPORTS);
    Component { name, version, imports, execute: TELLS, compensate, ..Component::default() }.build()
}

fn place() -> Place {
    let place = Place::empty();
    fs::write(place.plugin("tell"), tell("1.0.0", RECEIPT)).unwrap();
    for (name, execute) in [
        ("fail", FAILS),
        ("echo", Behaviour::Echo),
        ("busy", Behaviour::Retryable),
        ("trap", Behaviour::Trap),
    ] {
        let component = Component { name, execute, ..Component::default() };
        fs::write(place.plugin(name), component.build()).unwrap();
    }
    place.config(&format!("{AUTH}{SAGAS}"));
    place
}

fn run(place: &Place) -> Host {
    let secret = "whsec_bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3";
    place.run_with_env(&[ADMIN_VARIABLE, ("SHOP_SECRET", secret)])
}

/// The sagas of a test, by their ids.
struct Sagas {
    order: String,
    /// It goes on.
    gate: String,
    ended: Vec<String>,
}

/// What a saga of a definition is started with.
fn input(definition: &str) -> Value {
    let marked = json!({"text": MARK});
    if definition == "list" { json!({"items": [marked]}) } else { marked }
}

fn start(host: &Host, definition: &str) -> String {
    let body = json!({"definition": definition, "input": input(definition)});
    let saga = Asker::with(ADMIN).post(host, "/v1/sagas", &body).done();
    saga["id"].as_str().unwrap().to_owned()
}

/// Makes a saga of each definition, and has a person do what may carry a payload.
fn sagas(host: &Host) -> Sagas {
    let admin = Asker::with(ADMIN);
    let post = |id: &str, what: &str, body: Value| {
        admin.post(host, &format!("/v1/sagas/{id}/{what}"), &body).done();
    };
    let saga = |id: &str| admin.get(host, &format!("/v1/sagas/{id}")).done();
    let definitions = ["order", "gate", "gate", "list", "busy", "lost"];
    let [order, gate, done, elements, busy, lost] = definitions.map(|name| start(host, name));
    for id in [&order, &done] {
        post(id, "signals/approved", json!({"payload": {"signed": MARK}}));
    }
    host.until("the calls have failed", || {
        [&busy, &lost].iter().all(|id| saga(id)["steps"][0]["error"].is_object())
    });
    let edited = json!({"text": format!("edited {MARK}")});
    post(&busy, "retry", json!({"reason": "a test", "step": "busy", "input": edited}));
    let found = json!({"found": MARK});
    post(&lost, "resolve", json!({"reason": "a test", "evidence": "seen", "output": found}));
    admin.put(host, "/v1/plugins/tell/state/by-hand", &json!({"kept": MARK})).done();
    // What a retry comes to does not matter here.
    let cancel = format!("/v1/sagas/{busy}/cancel");
    admin.post(host, &cancel, &json!({"reason": "a test"}));
    let ended = vec![order.clone(), done, elements, busy, lost];
    host.until("all but one have ended", || {
        ended.iter().all(|id| saga(id)["ended_at"].is_string())
    });
    host.until("the other one waits", || saga(&gate)["status"] == "waiting");
    Sagas { order, gate, ended }
}

/// A place with a host, and its sagas.
fn set_up() -> (Place, Host, Sagas) {
    let place = place();
    let host = run(&place);
    let sagas = sagas(&host);
    (place, host, sagas)
}

/// A token of a role that may not see payloads, and one that may.
fn tokens(host: &Host, role: &str) -> [(bool, String); 2] {
    [false, true]
        .map(|payloads| (payloads, make(host, &format!("{role}-{payloads}"), &[role], payloads)))
}

/// A path of each operation that reads, for each saga.
fn reads(host: &Host, sagas: &Sagas) -> Vec<String> {
    let document = host.get("/v1/openapi.json");
    let mut paths = Vec::new();
    for (route, methods) in document["paths"].as_object().unwrap() {
        if methods["get"].is_null() {
            continue;
        }
        let route = route
            .replace("/v1/plugins/{name}", "/v1/plugins/tell")
            .replace("/v1/subscriptions/{name}", "/v1/subscriptions/shop")
            .replace("{digest}", &format!("sha256:{}", "0".repeat(64)))
            .replace("{key}", "no");
        if !route.contains("{id}") {
            paths.push(route);
            continue;
        }
        paths.extend(sagas.ended.iter().map(|id| route.replace("{id}", id)));
        // The watch of a saga that goes on does not end.
        if !route.ends_with("/watch") {
            paths.push(route.replace("{id}", &sagas.gate));
        }
    }
    for query in [
        "/v1/events?limit=1000",
        "/v1/sagas?activity=true",
        "/v1/sagas?text=possible",
        "/v1/sagas/counts?by=status,code",
    ] {
        paths.push(query.to_owned());
    }
    paths.push(format!("/v1/sagas/{}?wait=1s", sagas.order));
    assert!(paths.iter().all(|path| !path.contains('{')), "{paths:?}");
    paths
}

/// The log up to now, as a stream.
fn streamed(host: &Host, token: &str) -> String {
    let log = Asker::with(ADMIN).get(host, "/v1/events?limit=1000").done();
    let last = &log["items"].as_array().unwrap().last().unwrap()["position"];
    let request = agent().get(host.url("/v1/events?after=0"));
    let request = request.header("authorization", format!("Bearer {token}"));
    let response = request.header("accept", "text/event-stream").call().unwrap();
    assert_eq!(response.status(), 200);
    let (mut text, mut is_last) = (String::new(), false);
    for line in BufReader::new(response.into_body().into_reader()).lines() {
        let line = line.unwrap();
        is_last |= line == format!("id: {last}");
        text.push_str(&line);
        if is_last && line.is_empty() {
            return text;
        }
    }
    panic!("the stream ends before {last}: {text}");
}

/// The log as CloudEvents.
fn batch(host: &Host, token: &str) -> String {
    let request = agent().get(host.url("/v1/events?limit=1000"));
    let request = request.header("authorization", format!("Bearer {token}"));
    let request = request.header("accept", "application/cloudevents-batch+json");
    let mut response = request.call().unwrap();
    assert_eq!(response.status(), 200);
    response.body_mut().read_to_string().unwrap()
}

/// Where payloads are in answers: the path, and a JSON pointer (RFC 6901).
fn places(sagas: &Sagas) -> Vec<(String, &'static str)> {
    let Sagas { order, gate, ended } = sagas;
    let of = |id: &str, more: &str| format!("/v1/sagas/{id}{more}");
    vec![
        (of(order, ""), "/input"),
        (of(order, ""), "/steps/0/input"),
        (of(order, ""), "/steps/0/output"),
        (of(order, ""), "/steps/1/output"),
        (of(order, ""), "/steps/2/error/details"),
        (of(&ended[1], ""), "/output"),
        (of(gate, "/undo-plan"), "/items/0/input"),
        (of(gate, "/undo-plan"), "/items/0/output"),
        (of(gate, "/exposure"), "/items/0/output"),
    ]
}

/// Where payloads are in the events of the log: the type, and a JSON pointer.
const PAYLOADS_OF_EVENTS: [(&str, &str); 10] = [
    ("saga.started", "/data/input"),
    ("step.succeeded", "/data/output"),
    ("step.expanded", "/data/items/0"),
    ("step.failed", "/data/error/details"),
    ("undo.succeeded", "/data/receipt"),
    ("signal.received", "/data/payload"),
    ("operator.retried", "/data/input"),
    ("operator.resolved", "/data/output"),
    ("operator.state_set", "/data/value"),
    ("order.told", "/data"),
];

/// Checks that a payload is there, or what stands in its place.
#[track_caller]
fn check(found: &Value, payloads: bool) {
    if payloads {
        assert!(found.to_string().contains(MARK), "{found}");
    } else {
        assert_eq!(found, WITHHELD);
    }
}

#[test]
fn payloads_are_shown_to_tokens_that_may_see_them() {
    let (_place, host, sagas) = set_up();
    for (payloads, token) in tokens(&host, "viewer") {
        let viewer = Asker::with(&token);
        let mut said = Vec::new();
        for path in reads(&host, &sagas) {
            let answer = viewer.get(&host, &path);
            // A host that was started lately still counts effects.
            let is_known = answer.status < 500 || answer.body["code"] == "exposure_counting";
            assert!(is_known, "{path}: {}", answer.text);
            said.push((path, answer.text));
        }
        said.push(("the stream of the log".to_owned(), streamed(&host, &token)));
        said.push(("the log as CloudEvents".to_owned(), batch(&host, &token)));
        for (what, text) in said.iter().filter(|_| !payloads) {
            assert!(!text.contains(MARK), "{what}: {text}");
        }
        // That the others have it shows that it is looked for in the right places.
        let has_all =
            |(what, text): &(String, String)| what.starts_with("the ") && text.contains(MARK);
        assert_eq!(said.iter().filter(|it| has_all(it)).count(), if payloads { 2 } else { 0 });

        for (path, pointer) in places(&sagas) {
            let body = viewer.get(&host, &path).done();
            let found = body.pointer(pointer).unwrap_or_else(|| panic!("{path} {pointer}: {body}"));
            check(found, payloads);
        }
        let log = viewer.get(&host, "/v1/events?limit=1000").done();
        let history = viewer.get(&host, &format!("/v1/sagas/{}/events", sagas.order)).done();
        for (kind, pointer) in PAYLOADS_OF_EVENTS {
            let is_one = |event: &&Value| event["type"] == kind && event.pointer(pointer).is_some();
            let events = log["items"].as_array().unwrap().iter();
            let events = events.chain(history["items"].as_array().unwrap());
            let found: Vec<_> = events.filter(is_one).collect();
            assert!(!found.is_empty(), "no event {kind} has {pointer}");
            for event in found {
                check(event.pointer(pointer).unwrap(), payloads);
            }
        }
    }
}

#[test]
fn starts_and_orders_show_no_more_than_reads_do() {
    let (_place, host, Sagas { gate, .. }) = set_up();
    for (payloads, token) in tokens(&host, "operator") {
        let operator = Asker::with(&token);
        let orders = ["note", "pause", "resume"].map(|verb| (verb, json!({"reason": "a test"})));
        let dry_run = ("cancel", json!({"reason": "a test", "dry_run": true}));
        for (verb, body) in orders.into_iter().chain([dry_run]) {
            let answer = operator.post(&host, &format!("/v1/sagas/{gate}/{verb}"), &body);
            check(&answer.body["input"], payloads);
            check(&answer.body["steps"][0]["output"], payloads);
            assert_eq!(answer.text.contains(MARK), payloads, "{}", answer.text);
        }
    }
    for (payloads, token) in tokens(&host, "service") {
        let service = Asker::with(&token);
        let key = format!("start-{payloads}");
        let body = json!({"definition": "list", "input": input("list"), "key": key});
        // The second one is told what the first one has started.
        for status in [202, 200] {
            let answer = service.post(&host, "/v1/sagas?wait=30s", &body);
            assert_eq!(answer.status, status, "{}", answer.text);
            assert_eq!(answer.body["status"], "completed", "{}", answer.text);
            check(&answer.body["input"], payloads);
            check(&answer.body["output"], payloads);
            assert_eq!(answer.text.contains(MARK), payloads, "{}", answer.text);
        }
    }
}

#[test]
fn the_command_line_shows_what_the_token_may_see() {
    let (place, host, Sagas { order, gate, .. }) = set_up();
    for (payloads, token) in tokens(&host, "viewer") {
        for verb in [
            &["get", &order][..],
            &["history", &order],
            &["history", &order, "-o", "json"],
            &["undo-plan", &gate, "-o", "json"],
            &["exposure", &gate, "-o", "json"],
        ] {
            let output = place.command(verb).env("AMENDS_TOKEN", &token).output().unwrap();
            let said = stdout(&output) + &stderr(&output);
            let found = [MARK, WITHHELD].map(|text| said.contains(text));
            assert_eq!(found, [payloads, !payloads], "{verb:?}: {said}");
        }
    }
}

/// A receipt is a payload, and a rehearsal compares the receipts of two components.
#[test]
fn a_rehearsal_shows_payloads_to_tokens_that_may_see_them() {
    let (_place, host, _) = set_up();
    let mut form = b"--x\r\ncontent-disposition: form-data; name=\"tell\"\r\n\r\n".to_vec();
    form.extend(tell("2.0.0", Behaviour::Done));
    form.extend(b"\r\n--x--\r\n");
    for (payloads, token) in tokens(&host, "deployer") {
        let request = agent().post(host.url("/v1/plugins:rehearse"));
        let request = request.header("content-type", "multipart/form-data; boundary=x");
        let request = request.header("amends-request", "test");
        let request = request.header("authorization", format!("Bearer {token}"));
        let mut response = request.send(&form[..]).unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        assert_eq!(response.status(), 200, "{text}");
        let report: Value = serde_json::from_str(&text).unwrap();
        assert!(report["steps_differing"].as_u64().unwrap() > 0, "{report}");
        assert_eq!(text.contains(MARK), payloads, "{report}");
    }
}
