//! Plugins, the components that serve or served them, and what operators order about them.

use amends_api_types::{
    ActivationView, CallCountsView, CanaryEndView, CanaryView, PluginView, PromoteBody,
    RejectionView, RollbackBody,
};

use crate::kept::{is_kept, is_refused};

#[test]
fn a_plugin() {
    is_kept::<PluginView>(&[
        r#"{
            "name": "pack", "digest": null, "version": null, "exports": [], "needs": [],
            "active_since": null, "history": [], "rejections": [], "last_rejection": null,
            "canaries": []
        }"#,
        r#"{
            "name": "pack", "digest": "sha256:aa", "version": "1.2.0",
            "exports": ["execute", "compensate"], "needs": ["state"],
            "active_since": "2026-01-02T03:04:05.678Z",
            "history": [{
                "at": "2026-01-02T03:04:05.678Z", "digest": "sha256:aa", "version": "1.2.0",
                "cause": "file"
            }],
            "rejections": [{
                "at": "2026-01-02T03:04:05.678Z", "digest": null, "reason": "too large"
            }],
            "last_rejection": {
                "at": "2026-01-02T03:04:05.678Z", "digest": null, "reason": "too large"
            },
            "canaries": []
        }"#,
    ]);
}

#[test]
fn a_component_that_became_active_or_was_refused() {
    is_kept::<ActivationView>(&[
        r#"{
            "at": "2026-01-02T03:04:05.678Z", "digest": "sha256:aa", "version": "1.2.0",
            "cause": "deploy", "who": "ann@127.0.0.1", "reason": "mends the undo"
        }"#,
        r#"{
            "at": "2026-01-02T03:04:05.678Z", "digest": "sha256:aa", "version": "1.2.0",
            "cause": "file"
        }"#,
    ]);
    is_kept::<RejectionView>(&[
        r#"{"at": "2026-01-02T03:04:05.678Z", "digest": "sha256:bb", "reason": "no manifest"}"#,
        r#"{"at": "2026-01-02T03:04:05.678Z", "digest": null, "reason": "too large"}"#,
    ]);
}

#[test]
fn a_canary() {
    is_kept::<CanaryView>(&[
        r#"{
            "at": "2026-01-02T03:04:05.678Z", "digest": "sha256:cc", "version": "2.0.0",
            "share": 10.0, "margin": 5.0, "min_calls": 100, "promote_after": null,
            "calls": {"total": 3, "failed": 2, "unknown": 1},
            "active_calls": {"total": 0, "failed": 0, "unknown": 0}, "ended": null
        }"#,
        r#"{
            "at": "2026-01-02T03:04:05.678Z", "digest": "sha256:cc", "version": "2.0.0",
            "share": 12.5, "margin": 0.5, "min_calls": 10, "promote_after": 1000,
            "who": "ann@127.0.0.1", "reason": "try it",
            "calls": {"total": 3, "failed": 2, "unknown": 1},
            "active_calls": {"total": 30, "failed": 0, "unknown": 0},
            "ended": {
                "at": "2026-01-02T04:04:05.678Z", "promoted": true, "who": "ben@127.0.0.1",
                "reason": "it is well"
            }
        }"#,
    ]);
    is_kept::<CanaryEndView>(&[r#"{"at": "2026-01-02T03:04:05.678Z", "promoted": false}"#]);
    is_kept::<CallCountsView>(&[r#"{"total": 3, "failed": 2, "unknown": 1}"#]);
}

#[test]
fn an_order_about_a_plugin() {
    is_kept::<RollbackBody>(&[
        r#"{"reason": "why"}"#,
        r#"{"reason": "why", "to": "sha256:aa", "force": true}"#,
    ]);
    assert!(is_refused::<RollbackBody>(r#"{"reason": "why", "forced": true}"#));
    is_kept::<PromoteBody>(&[r#"{"reason": "why"}"#]);
    assert!(is_refused::<PromoteBody>(r#"{"reason": "why", "force": true}"#));
}
