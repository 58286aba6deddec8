//! Sagas that events start: a sender that delivers again and again, a host that is killed in between, and
//! senders that mean harm.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use amends_tests::{Behaviour, Component};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value, json};

use crate::place::{Host, Place, SOON, agent, stderr, stdout, text};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

const OLD_SECRET: &str = "whsec_b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQtb2xk";
const NEW_SECRET: &str = "whsec_bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3";
const SECRETS: [(&str, &str); 2] = [("OLD_SECRET", OLD_SECRET), ("NEW_SECRET", NEW_SECRET)];

const RULES: &str = r#"
[[saga]]
name = "purchase"

[[saga.step]]
name = "one"
plugin = "good"
input = "input"

[[saga.step]]
name = "payment"
wait = "paid"

[[on]]
name = "orders"
event = "order.*"
secrets = [{ env = "OLD_SECRET" }, { env = "NEW_SECRET" }]
start = "purchase"
input = { order_id = "event.data.id", from = "event.source" }
tags = { shop = "event.data.shop", customer = "event.subject" }

[[on]]
name = "mirror"
event = "order.placed"
start = "purchase"

[[on]]
name = "keyed"
event = "order.placed"
start = "purchase"
key = "'order-' + event.data.id"
input = "event.data.id"

[[on]]
name = "paid"
event = "payment.received"
signal = "paid"
saga = "event.subject"

[[on]]
name = "paid-by-key"
event = "payment.received"
signal = "paid"
key = "'order-' + event.data.order"
payload = { amount = "event.data.amount * 2" }
"#;

fn place() -> Place {
    let place = Place::empty();
    let component = Component { name: "good", execute: Behaviour::Echo, ..Component::default() };
    fs::write(place.plugin("good"), component.build()).unwrap();
    place.config(RULES);
    place
}

fn run(place: &Place) -> Host {
    place.run_with_env(&SECRETS)
}

struct Answer {
    status: u16,
    body: Value,
    retry_after: bool,
}

impl Answer {
    /// What became of its events: the result, and the saga.
    fn results(&self) -> Vec<(String, Option<String>)> {
        assert_eq!(self.status, 202, "{}", self.body);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let items = self.body["items"].as_array().unwrap();
        items.iter().map(|item| (text(&item["result"]).unwrap(), text(&item["saga"]))).collect()
    }

    fn only(&self) -> (String, Option<String>) {
        let mut all = self.results();
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[track_caller]
    fn is_refused(&self, status: u16, code: &str, words: &str) {
        let body = &self.body;
        assert_eq!((self.status, body["code"].as_str()), (status, Some(code)), "{body}");
        assert!(body["detail"].as_str().unwrap().contains(words), "{body}");
        assert_eq!(self.retry_after, matches!(status, 429 | 503), "{body}");
    }
}

/// Sends a request; none when the host ends before its answer.
fn try_send(host: &Host, rule: &str, headers: &[(&str, &str)], body: &str) -> Option<Answer> {
    let mut request = agent().post(host.url(&format!("/v1/on/{rule}")));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = request.send(body).ok()?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    assert_eq!(headers.contains_key("www-authenticate"), status == 401);
    let body = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    Some(Answer { status, body, retry_after: headers.contains_key("retry-after") })
}

fn send(host: &Host, rule: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    try_send(host, rule, headers, body).unwrap()
}

pub(crate) fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The signature of a request, as Standard Webhooks has it.
pub(crate) fn signature(secret: &str, id: &str, at: u64, body: &str) -> String {
    let secret = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    format!("v1,{}", STANDARD.encode(hmac::sign(&key, format!("{id}.{at}.{body}").as_bytes())))
}

/// Sends a signed request to `orders`.
fn try_deliver(host: &Host, kind: &str, body: &str) -> Option<Answer> {
    let at = seconds();
    let (id, time) = (format!("msg-{at}"), at.to_string());
    let signature = signature(NEW_SECRET, &id, at, body);
    let headers = [
        ("content-type", kind),
        ("webhook-id", id.as_str()),
        ("webhook-timestamp", time.as_str()),
        ("webhook-signature", signature.as_str()),
    ];
    try_send(host, "orders", &headers, body)
}

fn deliver(host: &Host, kind: &str, body: &str) -> Answer {
    try_deliver(host, kind, body).unwrap()
}

fn event(kind: &str, id: &str, data: &Value) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/shop", "type": kind, "data": data})
}

fn order(id: &str) -> Value {
    event("order.placed", id, &json!({"id": format!("o-{id}"), "shop": "north"}))
}

/// Sends an unsigned event to a rule that wants no signature.
fn structured(host: &Host, rule: &str, event: &Value) -> Answer {
    send(host, rule, &[("content-type", STRUCTURED)], &event.to_string())
}

fn rule(place: &Place, name: &str) -> Value {
    let output = place.amends(&["on", "list", "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let all: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let all = all.as_array().unwrap();
    all.iter().find(|rule| rule["name"] == name).unwrap().clone()
}

fn counts(place: &Place, name: &str) -> [u64; 7] {
    let rule = rule(place, name);
    ["events", "started", "repeated", "signalled", "ignored", "refused", "failed"]
        .map(|count| rule[count].as_u64().unwrap())
}

/// The host dies before the start is durable, after that and before its answer, and between deliveries.
#[test]
fn an_event_that_is_delivered_five_times_starts_one_saga_over_kills() {
    let place = place();
    let body = order("7").to_string();
    for point in ["runtime.start.decided", "runtime.start.durable"] {
        let environment = [SECRETS[0], SECRETS[1], ("FAILPOINTS", &format!("{point}=return"))];
        let host = place.run_with_env(&environment);
        assert!(try_deliver(&host, STRUCTURED, &body).is_none(), "{point} is not hit");
        host.aborted(Duration::from_secs(20)).unwrap();
    }
    let host = run(&place);
    let (result, first) = deliver(&host, STRUCTURED, &body).only();
    assert_eq!(result, "repeated", "the delivery that was durable has started it");
    host.kill();
    let host = run(&place);
    for _ in 0..2 {
        assert_eq!(
            deliver(&host, STRUCTURED, &body).only(),
            ("repeated".to_owned(), first.clone())
        );
    }
    assert_eq!(counts(&place, "orders"), [2, 0, 2, 0, 0, 0, 0]);
    let sagas = host.sagas();
    assert_eq!(sagas.len(), 1, "{sagas:?}");
    assert_eq!(sagas[0]["key"], "on/orders//shop 7");
    let saga = host.get(&format!("/v1/sagas/{}", first.unwrap()));
    assert_eq!(saga["input"], json!({"order_id": "o-7", "from": "/shop"}));
    assert_eq!(saga["tags"], json!({"on": "orders", "shop": "north"}), "a null is no tag");

    // Another rule, another source and another id are other events; other data are not.
    let mut other = order("7");
    other["data"]["id"] = json!("changed");
    assert_eq!(deliver(&host, STRUCTURED, &other.to_string()).only().0, "repeated");
    other["source"] = json!("/another");
    assert_eq!(deliver(&host, STRUCTURED, &other.to_string()).only().0, "started");
    let placed = structured(&host, "mirror", &order("7"));
    assert_eq!(placed.only().0, "started");
    let mirrored = host.get(&format!("/v1/sagas/{}", placed.only().1.unwrap()));
    assert_eq!(mirrored["input"], json!({"id": "o-7", "shop": "north"}), "the data of the event");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_batch_and_headers_carry_events_too() {
    let place = place();
    let host = run(&place);
    let other = event("customer.moved", "1", &json!({}));
    let batch = json!([order("1"), order("2"), order("1"), other]).to_string();
    let first = deliver(&host, BATCH, &batch).results();
    assert_eq!(first[0].1, first[2].1);
    assert_ne!(first[0].1, first[1].1);
    let mut same = [first[0].0.as_str(), first[2].0.as_str()];
    same.sort_unstable();
    assert_eq!((same, first[1].0.as_str()), (["repeated", "started"], "started"));
    assert_eq!(first[3], ("ignored".to_owned(), None));
    let again = deliver(&host, BATCH, &batch).results();
    assert!(again[..3].iter().all(|(result, _)| result == "repeated"), "{again:?}");
    assert_eq!(host.sagas().len(), 2);
    assert_eq!(deliver(&host, BATCH, "[]").results(), []);

    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "b%20%C3%A9"),
        ("ce-source", "/shop"),
        ("ce-type", "order.placed"),
        ("ce-subject", "ann"),
        ("content-type", "application/json"),
    ];
    let sent = send(&host, "mirror", &headers, "{\"n\": 1.50}");
    assert_eq!(sent.body["items"][0]["id"], "b é");
    let saga = host.get(&format!("/v1/sagas/{}", sent.only().1.unwrap()));
    assert_eq!((&saga["input"], &saga["key"]), (&json!({"n": 1.5}), &json!("on/mirror//shop b é")));

    // When the rule fails on one, none is taken.
    let wrong = event("order.placed", "4", &json!({"shop": "x"}));
    let refused = deliver(&host, BATCH, &json!([order("3"), wrong]).to_string());
    refused.is_refused(
        422,
        "expression_failed",
        "event 1 of the batch, counted from 0: the rule's `input.order_id`",
    );
    assert_eq!(deliver(&host, STRUCTURED, &order("3").to_string()).only().0, "started");
    let metrics = text(&host.url("/metrics"));
    assert!(
        metrics.contains("amends_on_events_total{on=\"orders\",result=\"refused\"} 1"),
        "{metrics}"
    );
}

#[test]
fn only_who_knows_a_secret_starts_sagas() {
    let place = place();
    let host = run(&place);
    let body = order("1").to_string();
    let signed = |at: u64, signature: &str, body: &str| {
        let time = at.to_string();
        let headers = [
            ("content-type", STRUCTURED),
            ("webhook-id", "m"),
            ("webhook-timestamp", time.as_str()),
            ("webhook-signature", signature),
        ];
        send(&host, "orders", &headers, body)
    };
    let now = seconds();
    structured(&host, "orders", &order("1")).is_refused(
        401,
        "signature_wrong",
        "webhook-id is missing",
    );
    let right = |secret, at| signature(secret, "m", at, &body);
    let foreign = right("whsec_Zm9yZWlnbi1mb3JlaWduLWZvcmVpZ24tZm9yZWln", now);
    for wrong in [foreign.as_str(), "v1,", "v2,AAAA", "", &right(NEW_SECRET, now)[3..]] {
        signed(now, wrong, &body).is_refused(401, "signature_wrong", "no signature");
    }
    signed(now, &right(NEW_SECRET, now), "{}").is_refused(401, "signature_wrong", "no signature");
    for far in [now - 330, now + 330] {
        signed(far, &right(NEW_SECRET, far), &body).is_refused(
            401,
            "signature_wrong",
            "more than 5 minutes",
        );
    }
    assert_eq!(host.sagas().len(), 0);
    // Both secrets count while one is replaced.
    assert_eq!(signed(now, &right(OLD_SECRET, now), &body).only().0, "started");
    let both = format!("{foreign} {}", right(NEW_SECRET, now));
    assert_eq!(signed(now, &both, &body).only().0, "repeated");
    assert_eq!(counts(&place, "orders"), [11, 1, 1, 0, 0, 9, 0]);
    let found = rule(&place, "orders");
    assert_eq!(found["is_signed"], true);
    assert!(found["last_error"].as_str().unwrap().contains("more than 5 minutes"), "{found}");
    // The same body and signature, as the data of an event whose attributes nobody has signed.
    let (time, signature) = (now.to_string(), right(NEW_SECRET, now));
    let replayed = [
        ("content-type", "application/json"),
        ("webhook-id", "m"),
        ("webhook-timestamp", time.as_str()),
        ("webhook-signature", signature.as_str()),
        ("ce-specversion", "1.0"),
        ("ce-id", "forged"),
        ("ce-source", "/shop"),
        ("ce-type", "order.placed"),
    ];
    send(&host, "orders", &replayed, &body).is_refused(415, "not_signed", "covers the body alone");
    assert_eq!(counts(&place, "orders"), [12, 1, 1, 0, 0, 10, 0]);
    assert_eq!(host.sagas().len(), 1);
    let secrets = [OLD_SECRET, NEW_SECRET].map(|secret| secret.trim_start_matches("whsec_"));
    assert!(!host.log().iter().any(|line| secrets.iter().any(|secret| line.contains(secret))));
}

/// Nobody takes the place of an event's saga, and hostile deliveries are refused in words.
#[test]
fn hostile_deliveries_start_nothing() {
    let place = place();
    let host = run(&place);
    let json = ("content-type", "application/json");
    let start = |key: &str| {
        let body = json!({"definition": "purchase", "input": {}}).to_string();
        let mut answer = agent()
            .post(host.url("/v1/sagas"))
            .header(json.0, json.1)
            .header("idempotency-key", key)
            .send(&body)
            .unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    };
    let (status, body) = start("on/mirror//shop 7");
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("those of events"), "{body}");

    let with = |name: &str, value: Value| {
        let mut event = order("1");
        event[name] = value;
        event
    };
    let long = "x".repeat(500_000);
    for (event, words) in [
        (with("id", json!("a\u{1b}[2J")), "`id` has a control character, U+001B"),
        (with("id", json!("a\nb")), "`id` has a control character, U+000A"),
        (with("id", json!(long)), "`id` has 500000 bytes, at most 1024"),
        (with("id", json!(7)), "`id` is no text"),
        (with("source", json!("a b")), "`source` is no URI"),
        (with("specversion", json!("2.0")), "`specversion` is not 1.0"),
        (with("time", json!("now")), "`time` is no time"),
        (json!([]), "no JSON object"),
    ] {
        structured(&host, "mirror", &event).is_refused(400, "bad_event", words);
    }
    let kind = [("content-type", STRUCTURED)];
    let huge = with("id", json!("x".repeat(10_000_000))).to_string();
    send(&host, "mirror", &kind, &huge).is_refused(413, "body_too_large", "the body has more than");
    let deep = format!("{{\"data\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    send(&host, "mirror", &kind, &deep).is_refused(400, "bad_event", "not valid JSON");
    let nested = "[".repeat(65) + &"]".repeat(65);
    let deep = order("1").to_string().replace("\"north\"", &nested);
    send(&host, "mirror", &kind, &deep).is_refused(400, "bad_event", "`data`");
    let twice = order("1").to_string().replacen('{', "{\"id\":\"other\",", 1);
    send(&host, "mirror", &kind, &twice).is_refused(400, "bad_event", "stands twice");
    send(&host, "mirror", &kind, "").is_refused(400, "bad_event", "not valid JSON");
    send(&host, "mirror", &[json], "{}").is_refused(415, "not_an_event", "CloudEvents");
    let many = Value::from(vec![order("1"); 257]).to_string();
    let batch = [("content-type", BATCH)];
    send(&host, "mirror", &batch, &many).is_refused(400, "bad_event", "257 events, at most 256");
    structured(&host, "nothing", &order("1")).is_refused(404, "rule_unknown", "no rule `nothing`");
    assert_eq!(host.sagas().len(), 0);

    // The longest id that is taken has a key of its own.
    let longest = with("id", json!("x".repeat(1_024)));
    let (result, saga) = structured(&host, "mirror", &longest).only();
    assert_eq!(result, "started");
    assert_eq!(structured(&host, "mirror", &longest).only(), ("repeated".to_owned(), saga));
    let full = Value::from((0..256).map(|id| order(&id.to_string())).collect::<Vec<_>>());
    let taken = send(&host, "mirror", &batch, &full.to_string()).results();
    assert!(taken.iter().all(|(result, _)| result == "started"));
    assert_eq!(host.sagas().len(), 257);
}

#[test]
fn an_event_becomes_a_signal_once_over_kills() {
    let place = place();
    let host = run(&place);
    let (_, saga) = structured(&host, "keyed", &order("1")).only();
    let saga = saga.unwrap();
    let path = format!("/v1/sagas/{saga}");
    assert_eq!(host.get(&path)["key"], "order-o-1");
    // Another event with this key means this saga, and must mean the same.
    assert_eq!(
        structured(&host, "keyed", &event("order.placed", "2", &json!({"id": "o-1"}))).only().0,
        "repeated"
    );
    let start = json!({"definition": "purchase", "input": "else"}).to_string();
    let request = agent().post(host.url("/v1/sagas")).header("content-type", "application/json");
    assert_eq!(request.header("idempotency-key", "order-o-9").send(start).unwrap().status(), 202);
    let other = event("order.placed", "3", &json!({"id": "o-9"}));
    let refused = structured(&host, "keyed", &other);
    refused.is_refused(422, "key_reused", "with another payload");
    let remedy = refused.body["remedy"].as_str().unwrap();
    assert!(remedy.contains("the `key` of the rule gives this event the key"), "{remedy}");
    let waits = |host: &Host| {
        host.until("it waits", || host.get(&path)["steps"][1]["status"] == "waiting");
    };
    waits(&host);
    let mut paid = event("payment.received", "p-1", &json!({"order": "o-1", "amount": 4}));
    paid["subject"] = json!("nothing");
    structured(&host, "paid", &paid).is_refused(422, "expression_failed", "the rule's `saga`");
    paid["subject"] = json!("0198f3a2-0000-7000-8000-000000000001");
    structured(&host, "paid", &paid).is_refused(404, "saga_unknown", "there is no saga");
    paid["data"]["order"] = json!("o-2");
    structured(&host, "paid-by-key", &paid).is_refused(404, "key_unknown", "`order-o-2`");
    paid["data"]["order"] = json!("o-1");
    paid["subject"] = json!(saga);
    let signalled = ("signalled".to_owned(), Some(saga.clone()));
    assert_eq!(structured(&host, "paid-by-key", &paid).only(), signalled);
    host.kill();
    let host = run(&place);
    for _ in 0..2 {
        assert_eq!(structured(&host, "paid-by-key", &paid).only(), signalled);
    }
    // The saga of the other key waits on.
    host.until("it ends", || !host.get(&path)["ended_at"].is_null());
    let found = host.get(&path);
    assert_eq!((&found["status"], &found["output"]), (&json!("completed"), &json!({"amount": 8})));
    // Also when the saga has ended. Another event is another signal, which nothing waits for.
    assert_eq!(structured(&host, "paid-by-key", &paid).only(), signalled);
    structured(&host, "paid", &paid).is_refused(409, "wrong_state", "the saga is completed");
    let events = host.get(&format!("{path}/events"));
    let events = events["items"].as_array().unwrap();
    let signals: Vec<_> =
        events.iter().filter(|event| event["type"] == "signal.received").collect();
    assert_eq!(signals.len(), 1, "{signals:?}");
    assert_eq!(signals[0]["data"]["id"], "on/paid-by-key//shop p-1");
    assert_eq!(signals[0]["data"]["who"], "on paid-by-key");
    let forged = place.amends(&["signal", &saga, "paid", "--id", "on/paid//shop p-1"]);
    assert!(stderr(&forged).contains("those of events"), "{}", stderr(&forged));
}

/// Emits an event of the type `a.told` with its data, then is done.
const TELLS: &str = "
    (call $emit (i32.const 8500) (i32.const 6) (i32.const 8400) (i32.const 7))
    (i32.store offset=8 (i32.const 2048) (i32.const 8400))
    (i32.store offset=12 (i32.const 2048) (i32.const 7))
    (i32.const 2048)";
const TEXTS: &str = r#"
    (import "amends:saga/events@1.1.0" "emit" (func $emit (param i32 i32 i32 i32)))
    (data (i32.const 8400) "{\22n\22:1}")
    (data (i32.const 8500) "a.told")"#;

fn telling_place(rules: &str) -> Place {
    let place = Place::empty();
    let execute = Behaviour::Text(TELLS);
    let tells = Component { name: "tells", execute, imports: TEXTS, ..Component::default() };
    fs::write(place.plugin("tells"), tells.build()).unwrap();
    let saga = |name: &str, step: &str| {
        format!("[[saga]]\nname = \"{name}\"\n[[saga.step]]\nname = \"one\"\n{step}\n")
    };
    place.config(&format!(
        "[plugin.tells]\nevents = true\n{}{}{}{rules}",
        saga("tells", "plugin = \"tells\""),
        saga("parent", "saga = \"tells\""),
        saga("follows", "sleep = \"1ms\""),
    ));
    place
}

fn start(place: &Place, definition: &str) -> String {
    let output = place.amends(&["start", definition, "--wait", "60s", "-o", "ids"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stdout(&output).trim().to_owned()
}

fn subscription(host: &Host, name: &str) -> Value {
    let all = host.get("/v1/subscriptions");
    let mut all = all["items"].as_array().unwrap().iter();
    all.find(|item| item["name"] == name).unwrap().clone()
}

/// The rule has seen every event that there is.
fn until_seen(host: &Host, name: &str) {
    host.until("the rule has caught up", || subscription(host, name)["lag_events"] == 0);
}

#[test]
fn a_domain_event_starts_a_saga_once_over_kills() {
    let rules = "[[on]]\nname = \"told\"\nfrom = \"events\"\nevent = \"a.told\"\n\
                 start = \"follows\"\ninput = { saga = \"event.subject\", n = \"event.data.n\" }\n\
                 [[on]]\nname = \"all\"\nfrom = \"events\"\nevent = \"*\"\nstart = \"follows\"\n";
    let place = telling_place(rules);
    let host = place.run();
    let mut told: Vec<_> = (0..3).map(|_| start(&place, "tells")).collect();
    // Before the cursors are written, or after that: both must do.
    host.kill();
    let host = place.run();
    told.push(start(&place, "tells"));
    until_seen(&host, "on/told");
    until_seen(&host, "on/all");
    host.settle();
    let sagas = host.sagas();
    let of = |rule: &str| -> Vec<&Value> {
        sagas.iter().filter(|saga| saga["tags"]["on"] == rule).collect()
    };
    assert_eq!((of("told").len(), of("all").len()), (4, 4), "{sagas:?}");
    assert_eq!(sagas.len(), 12, "the events of the host start nothing");
    for saga in of("told") {
        let saga = host.get(&format!("/v1/sagas/{}", saga["id"].as_str().unwrap()));
        let by = saga["input"]["saga"].as_str().unwrap();
        assert!(told.iter().any(|id| id == by), "{saga}");
        assert_eq!((&saga["input"]["n"], &saga["tags"]["on_chain"]), (&json!(1), &json!("told")));
        assert!(
            saga["key"].as_str().unwrap().starts_with(&format!("on/told//amends {by}/")),
            "{saga}"
        );
    }
    let listed = stdout(&place.amends(&["subscription", "list"]));
    assert!(listed.contains("on/told") && listed.contains("saga follows"), "{listed}");
    let answer = structured(&host, "told", &event("a.told", "7", &json!({})));
    answer.is_refused(404, "rule_unknown", "over HTTP");
}

/// A saga whose event starts the same saga twice, through a saga that runs it: the chains end, and say so.
#[test]
fn a_circle_of_events_that_branches_ends() {
    let rule_of = |name: &str| {
        format!(
            "[[on]]\nname = \"{name}\"\nfrom = \"events\"\nevent = \"a.*\"\nstart = \"parent\"\n"
        )
    };
    let place = telling_place(&(rule_of("a") + &rule_of("b")));
    let host = place.run();
    start(&place, "tells");
    // Every chain of a and b in which two rules, or fewer, come again.
    let mut expected: Vec<String> = vec!["a".to_owned(), "b".to_owned()];
    for length in 1..4 {
        let chains: Vec<_> =
            expected.iter().filter(|chain| chain.len() == 2 * length - 1).collect();
        let longer =
            chains.iter().flat_map(|chain| ["a", "b"].map(|rule| format!("{chain}/{rule}")));
        let longer: Vec<_> =
            longer.filter(|chain| !["a/a/a/a", "b/b/b/b"].contains(&chain.as_str())).collect();
        expected.extend(longer);
    }
    expected.sort();
    let chains = || {
        let parents = host.sagas().into_iter().filter(|saga| saga["definition"] == "parent");
        let chain = |saga: Value| saga["tags"]["on_chain"].as_str().unwrap().to_owned();
        let mut chains: Vec<String> = parents.map(chain).collect();
        chains.sort();
        chains
    };
    host.until("the chains are complete", || chains().len() >= expected.len());
    for name in ["a", "b"] {
        host.until("the chains have ended", || {
            rule(&place, name)["refused"].as_u64().unwrap() >= 15
        });
        let error = subscription(&host, &format!("on/{name}"))["last_error"].clone();
        assert!(error.as_str().unwrap().contains("is taken for a circle"), "{error}");
    }
    host.settle();
    assert_eq!(chains(), expected);
}

/// A NATS server with a stream for events; ends with the test.
struct Nats {
    child: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Nats {
    /// None where the program is not installed, which is said.
    fn start() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        // Debian has it where the PATH of most users does not look.
        let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
        let mut programs = folders.map(|folder| folder.join("nats-server"));
        let Some(program) = programs.find(|path| path.exists()) else {
            amends_tests::skipped("events from NATS", "nats-server is not installed");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new(program)
            .args([
                "--addr",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--jetstream",
                "--store_dir",
            ])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self { child, url: format!("nats://127.0.0.1:{port}"), _folder: folder })
    }

    /// Publishes a text so often, into a stream that is made before the first one.
    fn publish(&self, text: &str, count: usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let began = Instant::now();
            let client = loop {
                match async_nats::connect(&self.url).await {
                    Ok(client) => break client,
                    Err(error) => assert!(began.elapsed() < SOON, "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            let jetstream = async_nats::jetstream::new(client);
            let subjects = vec!["shop.>".to_owned()];
            let config = async_nats::jetstream::stream::Config {
                name: "SHOP".to_owned(),
                subjects,
                ..Default::default()
            };
            jetstream.get_or_create_stream(config).await.unwrap();
            for _ in 0..count {
                let body = text.to_owned().into_bytes().into();
                jetstream.publish("shop.orders", body).await.unwrap().await.unwrap();
            }
        });
    }
}

/// The stream has the event five times, and the host is killed while it takes it.
#[test]
fn an_event_from_nats_starts_one_saga_over_kills() {
    let Some(nats) = Nats::start() else { return };
    let place = place();
    let config = fs::read_to_string(place.path("amends.toml")).unwrap();
    let rule_of = format!(
        "\n[[on]]\nname = \"stream\"\nevent = \"order.placed\"\nstart = \"purchase\"\n\
         from = {{ nats = \"{}\", stream = \"SHOP\", begin = \"start\" }}\n",
        nats.url
    );
    fs::write(place.path("amends.toml"), config + &rule_of).unwrap();
    // There is no stream yet, and the host runs all the same.
    let host = run(&place);
    host.until("the rule says that its stream is away", || {
        rule(&place, "stream")["state"] == "away"
    });
    host.kill();
    nats.publish(&order("7").to_string(), 2);
    nats.publish("no event", 1);
    let environment = [SECRETS[0], SECRETS[1], ("FAILPOINTS", "runtime.start.durable=return")];
    let host = place.spawn_with_env(&environment);
    assert!(host.aborted(Duration::from_mins(1)).is_some(), "the failpoint is not hit");
    let host = run(&place);
    nats.publish(&order("7").to_string(), 3);
    nats.publish(&order("8").to_string(), 1);
    let started = || {
        let sagas = host.sagas();
        let mut keys: Vec<_> =
            sagas.iter().map(|saga| saga["key"].as_str().unwrap().to_owned()).collect();
        keys.sort();
        keys
    };
    let all = ["on/stream//shop 7", "on/stream//shop 8"];
    // What was cut off comes again after the thirty seconds that NATS waits for an acknowledgement.
    host.until("the stream is taken", || {
        let found = rule(&place, "stream");
        found["repeated"].as_u64().unwrap() >= 4 && started() == all
    });
    let found = rule(&place, "stream");
    assert_eq!(found["state"], "active");
    assert_eq!(started(), all);
    assert_eq!(host.stop(), Some(0));
}
