//! What callers and operators send about sagas, and what a host answers.

use amends_api_types::{BatchAnswer, OperatorBody, Problem, SignalBody, SignalTaken, StartBody};

use crate::kept::{is_kept, is_refused};

#[test]
fn a_start() {
    is_kept::<StartBody>(&[
        r#"{"definition": "order", "input": null, "tags": {}, "key": null}"#,
        r#"{"definition": "order", "input": {"a": 1e2}, "tags": {"a": "b"}, "key": "order-7"}"#,
        r#"{"definition": "order", "input": null, "tags": {}, "start_at": "2026-01-02T03:04:05.678Z", "key": null}"#,
    ]);
    let least: StartBody = serde_json::from_str(r#"{"definition": "order"}"#).expect("a start");
    assert_eq!((least.input.as_str(), least.tags.len(), least.key), ("null", 0, None));
    assert!(is_refused::<StartBody>(r#"{"definition": "order", "tag": {}}"#));
}

#[test]
fn a_line_of_the_answer_to_a_batch() {
    is_kept::<BatchAnswer>(&[
        r#"{"id": "i"}"#,
        r#"{"problem": {
            "type": "urn:amends:problem:bad_request", "title": "Bad Request", "status": 400,
            "code": "bad_request", "detail": "the line cannot be read"
        }}"#,
    ]);
}

#[test]
fn a_problem() {
    is_kept::<Problem>(&[
        r#"{
            "type": "urn:amends:problem:stopping", "title": "Service Unavailable", "status": 503,
            "code": "stopping", "detail": "the host is stopping"
        }"#,
        r#"{
            "type": "urn:amends:problem:bad_id", "title": "Bad Request", "status": 400,
            "code": "bad_id", "detail": "not an id", "remedy": "give an id"
        }"#,
    ]);
}

#[test]
fn an_order() {
    is_kept::<OperatorBody>(&[
        r#"{"reason": "why"}"#,
        r#"{
            "reason": "why", "step": "pack", "input": null, "digest": "sha256:dd", "output": null,
            "evidence": "their books", "happened": false, "undo": true, "dry_run": true
        }"#,
        r#"{"reason": "why", "input": {"a": 1}, "output": [2]}"#,
    ]);
    let least: OperatorBody = serde_json::from_str(r#"{"reason": "why"}"#).expect("an order");
    assert!(least.input.is_none() && least.output.is_none() && !least.dry_run);
    assert!(is_refused::<OperatorBody>(r#"{"reason": "why", "dryrun": true}"#));
    assert!(is_refused::<OperatorBody>(r#"{"step": "pack"}"#));
}

#[test]
fn a_signal() {
    is_kept::<SignalBody>(&[r#"{"payload": null}"#, r#"{"payload": {"a": 1}, "id": "s-1"}"#]);
    let least: SignalBody = serde_json::from_str("{}").expect("a signal");
    assert_eq!((least.payload.as_str(), least.id), ("null", None));
    assert!(is_refused::<SignalBody>(r#"{"data": 1}"#));
    is_kept::<SignalTaken>(&[r#"{"id": "i", "status": "running"}"#]);
}
