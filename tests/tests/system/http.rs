//! The HTTP API as a client without our command line sees it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::sync::mpsc;
use std::time::Duration;

use amends_tests::{Behaviour, Component};
use serde_json::{Value, json};

use crate::place::{Host, Place, agent};

/// One definition of each end: `good` completes, `bad` is compensated, `slow` takes its time,
/// `stuck` is blocked, `later` comes back in an hour.
fn place() -> Place {
    let place = Place::empty();
    let write = |name: &str, execute, compensate| {
        let component = Component { name, execute, compensate, ..Component::default() };
        fs::write(place.plugin(name), component.build()).unwrap();
    };
    write("good", Behaviour::Echo, Behaviour::Done);
    write("bad", Behaviour::Permanent, Behaviour::Done);
    write("slow", Behaviour::Spin, Behaviour::Done);
    write("stuck", Behaviour::Done, Behaviour::Trap);
    write("trap", Behaviour::Trap, Behaviour::Done);
    let step = |plugin: &str, more: &str| {
        format!("[[saga.step]]\nname = \"{plugin}\"\nplugin = \"{plugin}\"\n{more}\n")
    };
    let once = "retry = { attempts = 1, backoff = [] }\n";
    let undo_once = "undo = { retry = { attempts = 1, backoff = [] } }\n";
    let echo = step("good", "input = \"input\"");
    place.config(&format!(
        "[[saga]]\nname = \"good\"\n{echo}\
         [[saga]]\nname = \"bad\"\n{echo}{}\
         [[saga]]\nname = \"slow\"\n{echo}{}\
         [[saga]]\nname = \"stuck\"\n{}{}\
         [[saga]]\nname = \"later\"\n{}",
        step("bad", ""),
        step("slow", &format!("timeout = \"60s\"\n{once}")),
        step("stuck", undo_once),
        step("bad", ""),
        step("trap", "retry = { attempts = 2, backoff = [\"1h\"] }\n"),
    ));
    place
}

struct Answer {
    status: u16,
    kind: String,
    location: Option<String>,
    body: Value,
}

fn post(host: &Host, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = agent().post(host.url(path)).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    answer(request.send(body).unwrap())
}

fn batch(host: &Host, lines: &str) -> ureq::http::Response<ureq::Body> {
    let request = agent().post(host.url("/v1/sagas:batch"));
    request.header("content-type", "application/x-ndjson").send(lines).unwrap()
}

fn get(host: &Host, path: &str) -> Answer {
    answer(agent().get(host.url(path)).call().unwrap())
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    let header =
        |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (kind, location) = (header("content-type").unwrap_or_default(), header("location"));
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string().unwrap();
    Answer { status, kind, location, body: serde_json::from_str(&text).unwrap_or(Value::Null) }
}

fn start(host: &Host, definition: &str, wait: &str) -> Value {
    let body = json!({"definition": definition, "input": {"n": 1}}).to_string();
    post(host, &format!("/v1/sagas{wait}"), &[], &body).body
}

#[test]
fn a_start_is_accepted_and_can_be_found() {
    let place = place();
    let host = place.run();
    let body = r#"{"definition":"good","input":{"n":1},"tags":{"region":"north"}}"#;
    let started = post(&host, "/v1/sagas", &[], body);
    assert_eq!(started.status, 202);
    let id = started.body["id"].as_str().unwrap();
    assert_eq!(started.location.as_deref(), Some(format!("/v1/sagas/{id}").as_str()));
    host.settle();
    let saga = host.get(&format!("/v1/sagas/{id}"));
    assert_eq!(saga["status"], "completed");
    assert_eq!(saga["output"], json!({"n": 1}));
    assert_eq!(saga["steps"][0]["status"], "succeeded");
    assert_eq!(saga["steps"][0]["attempts"], 1);
    let events = host.get(&format!("/v1/sagas/{id}/events"));
    assert_eq!(events["items"].as_array().unwrap().len(), 4);
    for query in ["tag=region:north", "definition=good", "status=completed,blocked"] {
        let page = host.get(&format!("/v1/sagas?{query}"));
        assert_eq!(page["items"][0]["id"], id, "{query}");
    }
    for query in ["tag=region:south", "definition=bad", "status=blocked"] {
        let page = host.get(&format!("/v1/sagas?{query}"));
        assert_eq!(page["items"], json!([]), "{query}");
    }
}

#[test]
fn a_wait_answers_when_the_saga_rests_or_the_wait_ends() {
    let place = place();
    let host = place.run();
    assert_eq!(start(&host, "good", "?wait=30s")["status"], "completed");
    assert_eq!(start(&host, "bad", "?wait=30s")["status"], "compensated");
    assert_eq!(start(&host, "stuck", "?wait=30s")["status"], "blocked");
    assert_eq!(start(&host, "slow", "?wait=50ms")["status"], "running");
}

#[test]
fn a_saga_can_be_waited_for() {
    let place = place();
    let host = place.run();
    let id = start(&host, "good", "")["id"].as_str().unwrap().to_owned();
    assert_eq!(host.get(&format!("/v1/sagas/{id}?wait=30s"))["status"], "completed");
    let id = start(&host, "slow", "")["id"].as_str().unwrap().to_owned();
    assert_eq!(host.get(&format!("/v1/sagas/{id}?wait=50ms"))["status"], "running");
    let unknown = "/v1/sagas/0198c0de-0000-7000-8000-000000000000?wait=30s";
    assert_eq!(get(&host, unknown).status, 404);
    let wrong = get(&host, &format!("/v1/sagas/{id}?wait=long"));
    assert_eq!((wrong.status, wrong.body["code"].as_str()), (400, Some("bad_query")));
}

#[test]
fn what_was_started_is_told_even_when_the_host_stops_meanwhile() {
    let place = place();
    let host = place.run();
    let answer = std::thread::scope(|scope| {
        let body = r#"{"definition":"later","input":{"n":1},"tags":{"region":"north"}}"#;
        let answer = scope.spawn(|| post(&host, "/v1/sagas?wait=60s", &[], body));
        host.until("it is started", || host.sagas().len() == 1);
        host.terminate();
        answer.join().unwrap()
    });
    assert_eq!(answer.status, 202, "{}", answer.body);
    let id = answer.body["id"].as_str().unwrap();
    assert_eq!(answer.location.as_deref(), Some(format!("/v1/sagas/{id}").as_str()));
    assert_eq!(answer.body["definition"], "later");
    assert_eq!(answer.body["status"], "running");
    assert_eq!(answer.body["input"], json!({"n": 1}));
    assert_eq!(answer.body["tags"], json!({"region": "north"}));
    assert_eq!((&answer.body["version"], &answer.body["steps"]), (&json!(0), &json!([])));
    assert_eq!(host.ended_logged().0, Some(0));
    let host = place.run();
    let saga = host.get(&format!("/v1/sagas/{id}"));
    assert_eq!(saga["definition"], "later");
    let at = |saga: &Value| saga["started_at"].as_str().unwrap()[..17].to_owned();
    assert_eq!(at(&saga), at(&answer.body), "to the minute");
}

#[test]
fn the_same_key_starts_one_saga_however_often_it_is_sent() {
    let place = place();
    let host = place.run();
    let body = r#"{"definition":"good","input":{"n":1}}"#;
    let ids: Vec<(u16, String)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..100)
            .map(|_| {
                scope.spawn(|| {
                    let answer = post(&host, "/v1/sagas", &[("idempotency-key", "k-1")], body);
                    (answer.status, answer.body["id"].as_str().unwrap().to_owned())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let distinct: BTreeSet<_> = ids.iter().map(|(_, id)| id).collect();
    assert_eq!(distinct.len(), 1);
    assert_eq!(ids.iter().filter(|(status, _)| *status == 202).count(), 1, "one was the first");
    assert_eq!(ids.iter().filter(|(status, _)| *status == 200).count(), 99);
    assert_eq!(host.sagas().len(), 1);
    let other = r#"{"definition":"good","input":{"n":2}}"#;
    let refused = post(&host, "/v1/sagas", &[("idempotency-key", "k-1")], other);
    assert_eq!((refused.status, refused.body["code"].as_str()), (422, Some("key_reused")));
}

#[test]
fn what_is_wrong_is_told_as_a_problem() {
    let place = place();
    let host = place.run();
    let unknown = "/v1/sagas/0198c0de-0000-7000-8000-000000000000";
    let large = format!("{{\"definition\":\"good\",\"input\":\"{}\"}}", "x".repeat(1 << 20));
    let deep =
        format!("{{\"definition\":\"good\",\"input\":{}{}}}", "[".repeat(100), "]".repeat(100));
    // A byte more than a body may have: were it longer, the host could close the connection while
    // the rest is still being sent.
    let larger = "x".repeat((1 << 20) + (64 << 10) + 1);
    let long_key = "k".repeat(300);
    let started = start(&host, "good", "?wait=30s");
    let done = format!("/v1/sagas/{}", started["id"].as_str().unwrap());
    let cases: [(&str, Answer, u16, &str); 17] = [
        ("no saga", get(&host, unknown), 404, "saga_unknown"),
        ("no saga's events", get(&host, &format!("{unknown}/events")), 404, "saga_unknown"),
        ("no saga's why", get(&host, &format!("{unknown}/why")), 404, "saga_unknown"),
        ("no id", get(&host, "/v1/sagas/seven"), 400, "bad_id"),
        ("no path", get(&host, "/v2/sagas"), 404, "not_found"),
        ("no plugin", get(&host, "/v1/plugins/none"), 404, "plugin_unknown"),
        ("no method", post(&host, "/v1/plugins", &[], "{}"), 405, "method_not_allowed"),
        ("no status", get(&host, "/v1/sagas?status=happy"), 400, "bad_query"),
        ("no such query", get(&host, "/v1/sagas?states=running"), 400, "bad_query"),
        ("no cursor", get(&host, "/v1/sagas?cursor=7"), 400, "bad_cursor"),
        ("too long a page", get(&host, "/v1/sagas?limit=1001"), 400, "bad_query"),
        (
            "no definition",
            post(&host, "/v1/sagas", &[], r#"{"definition":"none"}"#),
            404,
            "definition_unknown",
        ),
        ("no json", post(&host, "/v1/sagas", &[], "{"), 400, "bad_request"),
        ("too large", post(&host, "/v1/sagas", &[], &large), 422, "bad_request"),
        ("too deep", post(&host, "/v1/sagas", &[], &deep), 422, "bad_request"),
        ("far too large", post(&host, "/v1/sagas", &[], &larger), 413, "body_too_large"),
        (
            "a long key",
            post(&host, "/v1/sagas", &[("idempotency-key", &long_key)], r#"{"definition":"good"}"#),
            400,
            "bad_request",
        ),
    ];
    let mut wrong = Vec::new();
    for (what, answer, status, code) in cases {
        if (answer.status, answer.body["code"].as_str()) != (status, Some(code)) {
            wrong.push(format!("{what}: {}", answer.body));
            continue;
        }
        assert_eq!(answer.kind, "application/problem+json", "{what}");
        assert_eq!(answer.body["status"], status, "{what}");
        assert!(answer.body["title"].is_string() && answer.body["detail"].is_string(), "{what}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let cancelled = post(&host, &format!("{done}/cancel"), &[], r#"{"reason":"late"}"#);
    let told = (cancelled.status, cancelled.body["code"].as_str());
    assert_eq!(told, (409, Some("wrong_state")), "{}", cancelled.body);
    assert_eq!(host.sagas().len(), 1, "nothing wrong was started");
}

#[test]
fn cancel_undoes_and_names_who_and_why() {
    let place = place();
    let host = place.run();
    let id = start(&host, "slow", "")["id"].as_str().unwrap().to_owned();
    host.until("the slow step runs", || {
        host.get(&format!("/v1/sagas/{id}"))["steps"][1]["status"] == "running"
    });
    let path = format!("/v1/sagas/{id}/cancel");
    let no_reason = post(&host, &path, &[], "{}");
    assert_eq!(no_reason.status, 422);
    let cancelled = post(&host, &path, &[("amends-user", "ada")], r#"{"reason":"a mistake"}"#);
    assert_eq!(cancelled.status, 200, "{}", cancelled.body);
    assert_eq!(cancelled.body["status"], "compensating");
    let again = post(&host, &path, &[("amends-user", "eve")], r#"{"reason":"again"}"#);
    assert_eq!(again.status, 200);
    let events = host.get(&format!("/v1/sagas/{id}/events"));
    let events = events["items"].as_array().unwrap();
    let operator: Vec<_> =
        events.iter().filter(|event| event["type"] == "operator.cancelled").collect();
    assert_eq!(operator.len(), 1, "cancelling twice is once");
    assert_eq!(operator[0]["data"], json!({"who": "ada@127.0.0.1", "reason": "a mistake"}));
}

#[test]
fn pages_follow_each_other_without_gaps() {
    let place = place();
    let host = place.run();
    let lines = "{\"definition\":\"good\"}\n".repeat(95);
    let mut batch = batch(&host, &lines);
    let ids: Vec<String> = batch
        .body_mut()
        .read_to_string()
        .unwrap()
        .lines()
        .map(|line| {
            let answer: Value = serde_json::from_str(line).unwrap();
            answer["id"].as_str().unwrap_or_else(|| panic!("{line}")).to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 95);
    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = host.get(&format!("/v1/sagas?limit=10{cursor}"));
        let items = page["items"].as_array().unwrap();
        listed.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let mut sorted = ids;
    sorted.sort();
    sorted.reverse();
    assert_eq!(listed, sorted, "the newest first, each once");
}

#[test]
fn a_batch_answers_a_line_for_each_line_in_order() {
    let place = place();
    let host = place.run();
    let lines = [
        r#"{"definition":"good","key":"a"}"#,
        r#"{"definition":"none"}"#,
        "not json",
        "",
        r#"{"definition":"good","key":"a"}"#,
        r#"{"definition":"good","key":"a","input":1}"#,
    ];
    let mut response = batch(&host, &lines.join("\n"));
    let text = response.body_mut().read_to_string().unwrap();
    let answers: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 5, "{text}");
    assert_eq!(answers[0]["id"], answers[3]["id"]);
    let codes: Vec<_> = answers.iter().map(|answer| answer["problem"]["code"].as_str()).collect();
    let expected =
        [None, Some("definition_unknown"), Some("bad_request"), None, Some("key_reused")];
    assert_eq!(codes, expected);
}

#[test]
fn a_saga_can_be_watched_and_the_watch_resumed() {
    let place = place();
    let host = place.run();
    let id = start(&host, "bad", "?wait=30s")["id"].as_str().unwrap().to_owned();
    let watch = |last: Option<&str>| {
        let mut request = agent().get(host.url(&format!("/v1/sagas/{id}/watch")));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.call().unwrap();
        let kind = response.headers()["content-type"].to_str().unwrap();
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        let lines = BufReader::new(response.into_body().into_reader()).lines();
        // It ends with the saga.
        let lines: Vec<String> = lines.map(Result::unwrap).collect();
        let of = |field: &str| -> Vec<String> {
            let field = format!("{field}: ");
            lines.iter().filter_map(|line| line.strip_prefix(&field)).map(str::to_owned).collect()
        };
        (of("id"), of("event"))
    };
    let (ids, kinds) = watch(None);
    assert_eq!(kinds.first().map(String::as_str), Some("saga.started"));
    assert_eq!(kinds.last().map(String::as_str), Some("saga.compensated"));
    let (resumed, _) = watch(Some(&ids[2]));
    assert_eq!(resumed, ids[3..]);
}

/// Follows the log in a thread of its own. Sends the id and the type of each event, also an id alone.
fn follow(host: &Host, query: &str, last: Option<&str>) -> mpsc::Receiver<(String, String)> {
    let mut request =
        agent().get(host.url(&format!("/v1/events{query}"))).header("accept", "text/event-stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let response = request.call().unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let (sender, events) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut id, mut kind) = (String::new(), String::new());
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let Ok(line) = line else { return };
            match line.split_once(": ") {
                Some(("id", text)) => text.clone_into(&mut id),
                Some(("event", text)) => text.clone_into(&mut kind),
                Some(_) => {}
                None if id.is_empty() => {}
                None => {
                    if sender.send((std::mem::take(&mut id), std::mem::take(&mut kind))).is_err() {
                        return;
                    }
                }
            }
        }
    });
    events
}

#[test]
fn the_log_can_be_followed_and_the_stream_resumed() {
    let place = place();
    let host = place.run();
    let before = start(&host, "good", "?wait=30s")["id"].clone();
    let now = follow(&host, "?definition=bad&type=saga.*,undo.succeeded", None);
    // A client that is cut off before the first event knows its place all the same.
    let (place_now, kind) = now.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(!place_now.is_empty() && kind.is_empty(), "{place_now} {kind}");
    let all = follow(&host, "?after=0", None);
    let id = start(&host, "bad", "?wait=30s")["id"].clone();
    let next = |events: &mpsc::Receiver<(String, String)>| {
        loop {
            let (id, kind) = events.recv_timeout(Duration::from_secs(30)).unwrap();
            if !kind.is_empty() {
                return (id, kind);
            }
        }
    };
    // What came before the stream and what is not wanted is left out.
    let (mut seen, mut ids) = (Vec::new(), Vec::new());
    while seen.last().is_none_or(|kind| kind != "saga.compensated") {
        let (id, kind) = next(&now);
        ids.push(id);
        seen.push(kind);
    }
    let expected: Vec<_> = host.get(&format!("/v1/sagas/{}/events", id.as_str().unwrap()))["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .filter(|kind| kind.starts_with("saga.") || kind == "undo.succeeded")
        .collect();
    assert_eq!(seen, expected);
    // From the start, all of them in their order, as pages have them.
    let listed = host.events();
    assert!(listed.iter().any(|event| event["saga"] == before));
    for event in &listed {
        let (id, kind) = next(&all);
        assert_eq!(
            (id, kind.as_str()),
            (event["position"].to_string(), event["type"].as_str().unwrap())
        );
    }
    // A place that the log has not reached is one of another store, or of before a restore.
    for format in ["application/json", "text/event-stream"] {
        let ahead = agent().get(host.url("/v1/events?after=1000000")).header("accept", format);
        let mut refused = ahead.call().unwrap();
        let text = refused.body_mut().read_to_string().unwrap();
        assert_eq!(refused.status(), 409, "{text}");
        assert!(text.contains("cursor_ahead"), "{text}");
    }
    // A client that comes back misses nothing, and gets nothing twice.
    let again = follow(&host, "?definition=bad&type=saga.*,undo.succeeded", Some(&ids[0]));
    let rest: Vec<_> = ids[1..].iter().map(|_| next(&again).0).collect();
    assert_eq!(rest, ids[1..]);
    for (query, last) in [("?limit=5", None), ("", Some("x"))] {
        let mut request = agent()
            .get(host.url(&format!("/v1/events{query}")))
            .header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        assert_eq!(request.call().unwrap().status(), 400, "{query} {last:?}");
    }
}

#[test]
fn the_trace_of_the_caller_is_kept_and_logged() {
    let place = place();
    let host = place.run();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let header = format!("00-{trace}-b7ad6b7169203331-01");
    let body = r#"{"definition":"bad"}"#;
    let answer = post(&host, "/v1/sagas?wait=30s", &[("traceparent", &header)], body);
    assert_eq!(answer.body["traceparent"], header);
    let id = answer.body["id"].as_str().unwrap().to_owned();
    host.until("the calls are logged", || {
        let lines = host.log();
        let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let calls = lines.filter(|line| {
            line["saga_id"] == id
                && line["trace_id"] == trace
                && line["step"].is_string()
                && line["attempt"] == 1
        });
        calls.count() >= 3
    });
    let wrong = post(&host, "/v1/sagas", &[("traceparent", "nonsense")], body);
    assert_eq!(wrong.status, 202, "a trace that cannot be read is no reason to refuse");
    assert_eq!(wrong.body["traceparent"], Value::Null);
}

#[test]
fn a_batch_keeps_the_trace_of_the_caller_if_it_is_one() {
    let place = place();
    let host = place.run();
    let kept = |header: &[u8]| {
        let mut response = agent()
            .post(host.url("/v1/sagas:batch"))
            .header("content-type", "application/x-ndjson")
            .header("traceparent", ureq::http::HeaderValue::from_bytes(header).unwrap())
            .send(r#"{"definition":"good"}"#)
            .unwrap();
        let answer: Value =
            serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap();
        let id = answer["id"].as_str().unwrap_or_else(|| panic!("{answer}"));
        host.get(&format!("/v1/sagas/{id}"))["traceparent"].clone()
    };
    let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(kept(header.as_bytes()), header);
    assert_eq!(kept(b"nonsense"), Value::Null);
    assert_eq!(kept(b"\xff"), Value::Null);
}

#[test]
fn a_host_has_only_so_many_watchers() {
    let place = place();
    let host = place.run();
    // Those of sagas are more: see `flood.rs`.
    let watch = || {
        let request = agent().get(host.url("/v1/events")).header("accept", "text/event-stream");
        let response = request.call().unwrap();
        if response.status() == 200 { Ok(response) } else { Err(answer(response)) }
    };
    let mut watchers = Vec::new();
    let refused = loop {
        match watch() {
            Ok(response) => watchers.push(response),
            Err(refused) => break refused,
        }
        assert!(watchers.len() < 1_000, "there is no end of watchers");
    };
    assert_eq!((refused.status, refused.body["code"].as_str()), (429, Some("watchers_full")));
    assert!(watchers.len() > 100, "{}", watchers.len());
    watchers.pop();
    host.until("there is room for another", || watch().is_ok());
}

#[test]
fn the_api_describes_itself_and_its_state() {
    let place = place();
    let host = place.run();
    let document = host.get("/v1/openapi.json");
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in [
        "/v1/sagas",
        "/v1/sagas:batch",
        "/v1/sagas/{id}",
        "/v1/sagas/{id}/events",
        "/v1/sagas/{id}/watch",
        "/v1/sagas/{id}/why",
        "/v1/sagas/{id}/cancel",
        "/v1/plugins",
        "/v1/plugins/{name}",
        "/v1/plugins/{name}/state",
        "/v1/plugins/{name}/state/{key}",
        "/v1/plugins/{name}/state:import",
        "/v1/definitions",
        "/v1/events",
    ] {
        assert!(document["paths"][path].is_object(), "{path} is not described");
    }
    let definitions = host.get("/v1/definitions");
    let items = definitions["items"].as_array().unwrap();
    let names: Vec<_> = items.iter().map(|item| item["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["bad", "good", "later", "slow", "stuck"]);
    let plugins = host.get("/v1/plugins");
    assert_eq!(plugins["items"].as_array().unwrap().len(), 5);
    let plugin = host.get("/v1/plugins/good");
    assert_eq!(plugin["version"], "1.2.3");
    assert_eq!(plugin["exports"], json!(["execute", "compensate"]));
    start(&host, "stuck", "?wait=30s");
    let mut metrics = agent().get(host.url("/metrics")).call().unwrap();
    let metrics = metrics.body_mut().read_to_string().unwrap();
    for line in [
        "amends_saga_started_total{definition=\"stuck\"} 1",
        "amends_saga_blocked 1",
        "amends_step_failures_total{",
        "amends_step_duration_seconds",
        "amends_store_append_seconds",
        "amends_store_batch_size",
    ] {
        assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
    }
    for kind in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, _) = kind.split_once(' ').unwrap();
        assert!(metrics.contains(&format!("# HELP {name} ")), "{name} is not described");
    }
    assert_eq!(get(&host, "/healthz").status, 200);
}
