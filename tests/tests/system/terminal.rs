//! Texts of plugins and callers are data: they do not steer the terminal of whoever reads them, and
//! every reader gets the same value of them.

use std::fs;
use std::process::Output;

use amends_tests::{Behaviour, Component};
use serde_json::{Value, json};

use crate::place::{Host, Place, agent, stderr, stdout};

/// What stands in the memory of the component at 8,192: 13 bytes of a code, 65 of a message, 45 of
/// JSON, the type of an event.
const TEXTS: &str = r#"
    (import "amends:saga/events@1.1.0" "emit" (func $emit (param i32 i32 i32 i32)))
    (data (i32.const 8192) "Bad Code!\1b[2J")
    (data (i32.const 8300) "no\1b[2J\1b]0;owned\07\1b]52;c;eA==\07\0d\0aFORGED  step.succeeded\7f\e2\80\aez\c2\9b1m\e2\80\a8x")
    (data (i32.const 8400) "{\22x\22:\22\7f\c2\9b2J\e2\80\ae\e2\80\a8\22,\22y\22:\22\5cu001b[2J\5cr\5cnFORGED\22}")
    (data (i32.const 8500) "a.told")"#;

/// Fails for good with all of it.
const FAILS: &str = "
    (i32.store8 (i32.const 2048) (i32.const 1))
    (i32.store8 offset=8 (i32.const 2048) (i32.const 0))
    (i32.store offset=16 (i32.const 2048) (i32.const 8192))
    (i32.store offset=20 (i32.const 2048) (i32.const 13))
    (i32.store offset=24 (i32.const 2048) (i32.const 8300))
    (i32.store offset=28 (i32.const 2048) (i32.const 65))
    (i32.store8 offset=48 (i32.const 2048) (i32.const 1))
    (i32.store offset=52 (i32.const 2048) (i32.const 3020))
    (i32.store offset=56 (i32.const 2048) (i32.const 8))
    (i32.const 2048)";

/// Says it in a line of the log, in an event and in its answer.
const TELLS: &str = "
    (call $log (i32.const 1) (i32.const 8300) (i32.const 65) (i32.const 0) (i32.const 0))
    (call $emit (i32.const 8500) (i32.const 6) (i32.const 8400) (i32.const 45))
    (i32.store offset=8 (i32.const 2048) (i32.const 8400))
    (i32.store offset=12 (i32.const 2048) (i32.const 45))
    (i32.const 2048)";

/// As [`FAILS`], where the answer of an undo stands.
const UNDO_FAILS: &str = "
    (i32.store8 (i32.const 2112) (i32.const 1))
    (i32.store8 offset=8 (i32.const 2112) (i32.const 0))
    (i32.store offset=16 (i32.const 2112) (i32.const 8192))
    (i32.store offset=20 (i32.const 2112) (i32.const 13))
    (i32.store offset=24 (i32.const 2112) (i32.const 8300))
    (i32.store offset=28 (i32.const 2112) (i32.const 65))
    (i32.store8 offset=48 (i32.const 2112) (i32.const 0))
    (i32.const 2112)";

fn place() -> Place {
    let place = Place::empty();
    for (name, execute, compensate) in [
        ("tells", Behaviour::Text(TELLS), Behaviour::Text(UNDO_FAILS)),
        ("fails", Behaviour::Text(FAILS), Behaviour::Done),
        ("good", Behaviour::Echo, Behaviour::Done),
    ] {
        let imports = if name == "good" { "" } else { TEXTS };
        let component = Component { name, execute, compensate, imports, ..Component::default() };
        fs::write(place.plugin(name), component.build()).unwrap();
    }
    place.config(
        "[plugin.tells]\nevents = true\n\
         [[saga]]\nname = \"hostile\"\n\
         [[saga.step]]\nname = \"tells\"\nplugin = \"tells\"\n\
         [[saga.step]]\nname = \"fails\"\nplugin = \"fails\"\n\
         [[saga]]\nname = \"good\"\n\
         [[saga.step]]\nname = \"good\"\nplugin = \"good\"\ninput = \"input\"\n\
         [[saga.step]]\nname = \"wait\"\nwait = { signal = \"go\" }\n",
    );
    place
}

/// Only whole lines, and none that the texts of others begin.
fn is_harmless(what: &str, output: &Output) {
    for text in [stdout(output), stderr(output)] {
        let steers = |c: char| c != '\n' && amends_engine::is_steering(c);
        assert!(!text.contains(steers), "{what}: {text:?}");
        assert!(!text.lines().any(|line| line.trim().starts_with("FORGED")), "{what}: {text}");
    }
}

#[test]
fn what_others_say_does_not_steer_a_terminal() {
    let place = place();
    let host = place.run();
    let input = "{\"note\":\"\u{7f}\u{9b}2J\u{202e}\u{2028}\\u001b[2J\\r\\nFORGED\"}";
    let started = place.amends(&["start", "hostile", "--input", input, "--wait"]);
    is_harmless("start", &started);
    assert_eq!(started.status.code(), Some(6), "{}", stdout(&started));
    let id = stdout(&place.amends(&["list", "-o", "ids"])).trim().to_owned();
    let saga = host.get(&format!("/v1/sagas/{id}"));
    let error = &saga["steps"][1]["error"];
    let message = error["message"].as_str().unwrap();
    assert_eq!(error["code"], "invalid_code", "{error}");
    assert!(message.starts_with("no\u{1b}[2J"), "kept as it is where programs read it: {error}");
    assert!(message.contains(r#"the component's own code is "Bad Code!\u{1b}[2J""#), "{error}");
    let details = error["details"].as_str().unwrap();
    assert!(details.contains("cannot be recorded: it is not valid JSON"), "{error}");
    for format in ["table", "json", "jsonl", "ids"] {
        for words in [
            vec!["get", &id],
            vec!["history", &id],
            vec!["why", &id],
            vec!["undo-plan", &id],
            vec!["exposure", &id],
            vec!["list"],
            vec!["plugin", "list"],
            vec!["plugin", "versions", "tells"],
        ] {
            let arguments = [words.as_slice(), &["-o", format]].concat();
            let output = place.amends(&arguments);
            is_harmless(&arguments.join(" "), &output);
            assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
            if format == "json" {
                serde_json::from_slice::<Value>(&output.stdout).unwrap();
            }
        }
    }
    let table = stdout(&place.amends(&["get", &id]));
    assert!(table.contains(r"no\u001b[2J\u001b]0;owned\u0007"), "{table}");
    let json = stdout(&place.amends(&["get", &id, "-o", "json"]));
    let read: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(read["steps"][1]["error"], *error, "the same JSON");
    assert_eq!(read["input"], saga["input"]);
    let done = place.amends(&["abandon", &id, "--reason", "seen enough"]);
    is_harmless("abandon", &done);
    for format in ["table", "jsonl"] {
        is_harmless("watch", &place.amends(&["watch", &id, "-o", format]));
    }
    let again = place.amends(&["retry", &id, "--reason", "a\u{1b}[2J\nFORGED"]);
    is_harmless("an error of the host", &again);
    assert!(
        stderr(&again).contains("the reason has a control character, U+001B"),
        "{}",
        stderr(&again)
    );
    // Each line of the log is one, whoever wrote what is in it.
    for line in host.log() {
        serde_json::from_str::<Value>(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    assert_eq!(host.stop(), Some(0));
}

fn refused(host: &Host, path: &str, body: &str) -> String {
    let request = agent().post(host.url(path)).header("content-type", "application/json");
    let mut response = request.send(body).unwrap();
    let problem: Value = response.body_mut().read_json().unwrap();
    assert_eq!(response.status().as_u16(), 400, "{path} {body}: {problem}");
    problem["detail"].as_str().unwrap().to_owned()
}

#[test]
fn texts_that_steer_or_have_no_value_are_refused_at_the_door() {
    let place = place();
    let host = place.run();
    let start = json!({"definition": "good", "input": {}});
    let mut response = agent().post(host.url("/v1/sagas")).send_json(&start).unwrap();
    let saga: Value = response.body_mut().read_json().unwrap();
    let path = |verb: &str| format!("/v1/sagas/{}/{verb}", saga["id"].as_str().unwrap());
    let hostile = r#""a\u001b[2Jb""#;
    for (path, body, words) in [
        (path("pause"), format!(r#"{{"reason":{hostile}}}"#), "the reason has a control"),
        (path("pause"), r#"{"reason":"a\u202eb"}"#.to_owned(), "U+202E"),
        (
            path("resolve"),
            format!(r#"{{"reason":"r","step":"good","evidence":{hostile}}}"#),
            "the evidence has a control",
        ),
        (path("signals/go"), format!(r#"{{"id":{hostile}}}"#), "the id of the signal has"),
        (path("signals/go"), r#"{"payload":"\ud800"}"#.to_owned(), "not every reader"),
        (path("signals/go%1b"), "{}".to_owned(), "is not a name"),
        (
            "/v1/sagas".to_owned(),
            format!(r#"{{"definition":"good","tags":{{"a":{hostile}}}}}"#),
            "the value of a tag has",
        ),
        (
            "/v1/sagas".to_owned(),
            format!(r#"{{"definition":"good","tags":{{{hostile}:"a"}}}}"#),
            "the name of a tag has",
        ),
        (
            "/v1/sagas".to_owned(),
            format!(r#"{{"definition":"good","key":{hostile}}}"#),
            "the idempotency key has",
        ),
        (
            "/v1/sagas".to_owned(),
            r#"{"definition":"good","input":{"qty":1000000,"x":"\ud800"}}"#.to_owned(),
            "not every reader understands the same",
        ),
        (
            "/v1/sagas".to_owned(),
            r#"{"definition":"good","input":{"qty":1000000,"x":1e999}}"#.to_owned(),
            "number out of range",
        ),
        (
            "/v1/sagas".to_owned(),
            r#"{"definition":"good","input":{"qty":1,"qty":1000000}}"#.to_owned(),
            "the name \"qty\" stands twice",
        ),
    ] {
        let detail = refused(&host, &path, &body);
        assert!(detail.contains(words), "{path} {body}: {detail}");
    }
    let lines = "{\"definition\":\"good\",\"input\":\"\\ud800\"}\n{\"definition\":\"good\"}\n";
    let batch = agent().post(host.url("/v1/sagas:batch"));
    let mut batch = batch.header("content-type", "application/x-ndjson").send(lines).unwrap();
    let answers = batch.body_mut().read_to_string().unwrap();
    let answers: Vec<Value> =
        answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let detail = answers[0]["problem"]["detail"].as_str().unwrap();
    assert!(detail.contains("not every reader understands the same"), "{detail}");
    assert!(answers[1]["id"].is_string(), "{answers:?}");
    assert_eq!(host.stop(), Some(0));
}

/// A definition that an author may well write, and what a caller may send to it.
#[test]
fn an_expression_that_costs_too_much_ends_its_saga_and_delays_no_other() {
    let place = Place::empty();
    let component = Component { name: "good", ..Component::default() };
    fs::write(place.plugin("good"), component.build()).unwrap();
    place.config(
        "[[saga]]\nname = \"good\"\n\
         [[saga.step]]\nname = \"one\"\nplugin = \"good\"\n\
         [[saga]]\nname = \"costly\"\n\
         [[saga.step]]\nname = \"one\"\nplugin = \"good\"\n\
         [[saga.step]]\nname = \"two\"\nplugin = \"good\"\n\
         when = \"input.a.all(x, input.b.exists(y, y == x))\"\n",
    );
    let host = place.run();
    let numbers: Vec<u32> = (0..8_000).collect();
    let input = json!({"a": numbers, "b": numbers.iter().rev().collect::<Vec<_>>()});
    let body = json!({"definition": "costly", "input": input});
    let url = host.url("/v1/sagas?wait=60s");
    let costly = |times: usize| -> Vec<std::thread::JoinHandle<Value>> {
        let one = || {
            let (url, body) = (url.clone(), body.clone());
            let post = move || {
                agent().post(&url).send_json(&body).unwrap().body_mut().read_json().unwrap()
            };
            std::thread::spawn(post)
        };
        (0..times).map(|_| one()).collect()
    };
    let sagas = costly(4);
    fs::write(place.path("lines"), "{}\n".repeat(100)).unwrap();
    let good = place.amends(&["start", "good", "--input", "lines", "--each", "--wait"]);
    assert!(stdout(&good).contains("100  completed"), "{}", stdout(&good));
    for saga in sagas {
        let saga = saga.join().unwrap();
        assert_eq!(saga["status"], "compensated", "{}", saga["status"]);
        assert_eq!(saga["steps"][1]["error"]["code"], "expression_limit");
        assert_eq!(saga["steps"][1]["attempts"], 0, "it was never called");
        let at = |field: &str| saga[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let took = at("ended_at") - at("started_at");
        // 64 million comparisons take half a minute.
        assert!(took.total(jiff::Unit::Second).unwrap() < 10.0, "{took}");
    }
    assert_eq!(host.stop(), Some(0));
}
