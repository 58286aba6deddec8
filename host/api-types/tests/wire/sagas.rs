//! Sagas, their steps and events, and why they are where they are.

use amends_api_types::{
    ByHandView, ErrorView, EventView, NoteView, OmittedView, ParentView, PlannedView, SagaItem,
    SagaView, StepView, WhyView,
};

use crate::kept::is_kept;

#[test]
fn a_saga() {
    is_kept::<SagaView>(&[
        r#"{
            "id": "019b0000-0000-7000-8000-000000000001", "definition": "order",
            "definition_digest": "sha256:aa", "status": "blocked", "input": {"order": 7, "of": [1.50]},
            "output": null, "steps": [], "started_at": "2026-01-02T03:04:05.678Z", "ended_at": null,
            "deadline_at": null, "next_at": null, "version": 3, "traceparent": null,
            "trace_id": "019b0000000070008000000000000001", "key": null, "tags": {}, "reason": null
        }"#,
        r#"{
            "id": "019b0000-0000-7000-8000-000000000001", "definition": "order",
            "definition_digest": "sha256:aa", "status": "compensated", "input": "text with  spaces",
            "output": {"id": 9}, "steps": [], "started_at": "2026-01-02T03:04:05.678Z",
            "ended_at": "2026-01-02T03:05:05.000Z", "deadline_at": "2026-01-03T03:04:05.678Z",
            "next_at": "2026-01-02T03:04:06.000Z", "version": 12,
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "trace_id": "0af7651916cd43dd8448eb211c80319c", "key": "order-7",
            "tags": {"customer": "9", "shop": "north"}, "reason": "the card was refused",
            "note": {"at": "2026-01-02T03:04:05.999Z", "who": "ann@127.0.0.1", "reason": "called them"},
            "parent": {"saga": "019b0000-0000-7000-8000-000000000000", "step": "pack"}
        }"#,
    ]);
    is_kept::<NoteView>(&[
        r#"{"at": "2026-01-02T03:04:05.678Z", "who": "127.0.0.1", "reason": "a note"}"#,
    ]);
    is_kept::<ParentView>(&[r#"{"saga": "019b0000-0000-7000-8000-000000000000", "step": "pack"}"#]);
}

#[test]
fn a_saga_of_a_version_before_tags_and_trace_ids() {
    let before = r#"{
        "id": "i", "definition": "order", "definition_digest": "d", "status": "running", "input": null,
        "output": null, "steps": [], "started_at": "2026-01-02T03:04:05.678Z", "ended_at": null,
        "deadline_at": null, "next_at": null, "version": 1, "traceparent": null, "key": null,
        "reason": null
    }"#;
    let saga: SagaView = serde_json::from_str(before).expect("optional fields");
    assert!(saga.trace_id.is_empty() && saga.tags.is_empty());
}

#[test]
fn a_step() {
    is_kept::<StepView>(&[
        r#"{
            "name": "reserve", "status": "pending", "direction": "execute", "attempts": 0, "output": null,
            "error": null, "digest": null, "started_at": null, "ended_at": null, "next_at": null
        }"#,
        r#"{
            "name": "shipment[3]", "status": "undone", "direction": "compensate", "attempts": 2,
            "input": {"a": 1}, "input_omitted": true, "output": [1],
            "error": {"code": "away", "message": "no answer", "details": {"status": 503}},
            "digest": "sha256:bb", "idempotency_key": "k1", "undo_idempotency_key": "k2",
            "started_at": "2026-01-02T03:04:05.678Z", "ended_at": "2026-01-02T03:04:06.678Z",
            "next_at": "2026-01-02T03:04:07.678Z", "waits_for": "this machine: no descriptor is left", "signal": "paid",
            "child": "c",
            "by_hand": {"who": "ann@127.0.0.1", "reason": "asked the carrier"}, "undid_nothing": true,
            "omitted": {"bytes": 1048576, "see": "/v1/sagas/i/events"}
        }"#,
    ]);
    is_kept::<ByHandView>(&[r#"{"who": "127.0.0.1", "reason": "why"}"#]);
    is_kept::<OmittedView>(&[r#"{"bytes": 5, "see": "/v1/sagas/i/events"}"#]);
    is_kept::<ErrorView>(&[
        r#"{"code": "away", "message": "no answer"}"#,
        r#"{"code": "away", "message": "no answer", "details": [null]}"#,
    ]);
}

#[test]
fn a_saga_of_a_list() {
    is_kept::<SagaItem>(&[
        r#"{
            "id": "i", "definition": "order", "status": "running", "reason": null,
            "started_at": "2026-01-02T03:04:05.678Z", "ended_at": null, "deadline_at": null,
            "next_at": null, "key": null, "tags": {}
        }"#,
        r#"{
            "id": "i", "definition": "order", "status": "blocked", "reason": "the undo failed",
            "started_at": "2026-01-02T03:04:05.678Z", "ended_at": "2026-01-02T03:04:06.678Z",
            "deadline_at": "2026-01-02T03:04:07.678Z", "next_at": "2026-01-02T03:04:08.678Z",
            "key": "order-7", "tags": {"shop": "north"}, "activity": "undo of pack failed"
        }"#,
    ]);
}

#[test]
fn an_event() {
    is_kept::<EventView>(&[
        r#"{
            "version": 1, "position": 9, "at": "2026-01-02T03:04:05.678Z", "type": "deploy.done",
            "data": {}
        }"#,
        r#"{
            "version": 1, "position": 9, "at": "2026-01-02T03:04:05.678Z", "saga": "i",
            "plugin": "pack", "service": "carrier", "type": "step.started", "data": {"step": "pack"},
            "step": "pack", "idempotency_key": "k"
        }"#,
    ]);
}

#[test]
fn why_it_is_where_it_is() {
    is_kept::<WhyView>(&[
        r#"{"id": "i", "status": "running", "sentence": "It runs.", "next_at": null, "verbs": []}"#,
        r#"{
            "id": "i", "status": "blocked", "sentence": "The undo of pack failed.",
            "components": ["The undo of pack was served by plugin `pack`."],
            "next_at": "2026-01-02T03:04:05.678Z", "deadline_at": "2026-01-02T03:04:06.678Z",
            "verbs": ["retry", "skip"], "undos": ["pack"]
        }"#,
    ]);
}

#[test]
fn an_undo_that_is_planned() {
    is_kept::<PlannedView>(&[
        r#"{
            "step": "pack", "wave": 1, "plugin": null, "child": null, "digest": null, "note": null,
            "input": null, "output": null, "status": "succeeded"
        }"#,
        r#"{
            "step": "pack", "wave": 2, "plugin": "pack", "child": "c", "digest": "sha256:cc",
            "note": "the active one cannot read the output", "input": {"a": 1}, "output": {"b": 2},
            "status": "unknown"
        }"#,
    ]);
}
