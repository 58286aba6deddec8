//! The audit of access control.

use amends_api_types::{AuditCheckView, AuditView};

use crate::kept::is_kept;

#[test]
fn an_entry_of_the_audit() {
    is_kept::<AuditView>(&[
        r#"{
            "version": 7, "type": "audit.recorded", "at": "2026-01-02T03:04:05.678Z",
            "who": "ops@127.0.0.1 on behalf of ada", "token": "k3Jq9ZbX0a", "roles": ["operator"],
            "address": "127.0.0.1", "operation": "cancel_saga",
            "target": "/v1/sagas/0198c0de-0000-7000-8000-000000000000/cancel", "status": 409,
            "code": "wrong_state", "count": null, "since": null,
            "chain": "a665a45920422f9d417e4867efdc4fb8a04a1f3fff1fa07e998e86f7f7a27ae3"
        }"#,
        r#"{
            "version": 8, "type": "audit.refused", "at": "2026-01-02T03:04:05.678Z", "who": null,
            "token": null, "roles": [], "address": "127.0.0.1", "operation": null, "target": null,
            "status": null, "code": "token_missing", "count": 12,
            "since": "2026-01-02T03:03:06.000Z",
            "chain": "a665a45920422f9d417e4867efdc4fb8a04a1f3fff1fa07e998e86f7f7a27ae3"
        }"#,
        r#"{
            "version": 9, "type": "audit.of_later", "at": "2026-01-02T03:04:05.678Z", "who": null,
            "token": null, "roles": [], "address": null, "operation": null, "target": null,
            "status": null, "code": null, "count": null, "since": null, "chain": null
        }"#,
    ]);
}

#[test]
fn a_check_of_the_audit() {
    is_kept::<AuditCheckView>(&[
        r#"{
            "entries": 7, "chain": "a665a45920422f9d417e4867efdc4fb8a04a1f3fff1fa07e998e86f7f7a27ae3",
            "finding": "the audit entry 8 is missing"
        }"#,
        r#"{"entries": 0, "chain": null, "finding": null}"#,
    ]);
}
