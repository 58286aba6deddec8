//! Pages, and what is in no other list.

use amends_api_types::{DefinitionView, EffectView, ExposureItem, HostView, Page, SagaCounts};

use crate::kept::is_kept;

#[test]
fn a_page() {
    is_kept::<Page<u64>>(&[r#"{"items": []}"#, r#"{"items": [1, 2], "next_cursor": "2"}"#]);
}

#[test]
fn counts() {
    is_kept::<SagaCounts>(&[
        r#"{"sagas": 0, "groups": [], "more_groups": 0}"#,
        r#"{"sagas": 313, "groups": [{
            "by": {"code": null, "step": "inventory undo"}, "sagas": 312,
            "oldest": "2026-03-01T09:30:00.000Z", "example": "0198c0de-0000-7000-8000-000000000000"
        }], "more_groups": 1}"#,
    ]);
}

#[test]
fn a_definition() {
    is_kept::<DefinitionView>(&[
        r#"{"name": "order", "digest": "sha256:aa", "spec": {"name": "order", "steps": []}}"#,
    ]);
}

#[test]
fn effects() {
    is_kept::<EffectView>(&[
        r#"{"step": "pack", "is_certain": false, "has_undo": true, "output": null}"#,
        r#"{"step": "pack", "is_certain": true, "has_undo": false, "output": {"id": 1}}"#,
    ]);
    is_kept::<ExposureItem>(&[r#"{
        "definition": "order", "step": "pack", "standing": 3, "unknown": 1, "blocked": 2,
        "abandoned": 0
    }"#]);
}

#[test]
fn hosts() {
    is_kept::<HostView>(&[
        r#"{"hosts": [], "shards_unowned": 0}"#,
        r#"{"hosts": [{
            "name": "node-a", "address": "http://10.0.0.2:7070", "is_this": true, "shards": [0, 2]
        }], "shards_unowned": 62}"#,
    ]);
}
