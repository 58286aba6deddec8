//! Rules for events.

use amends_api_types::{EventRuleView, EventsTakenView};

use crate::kept::is_kept;

#[test]
fn what_became_of_events() {
    is_kept::<EventsTakenView>(&[
        r#"{"items": []}"#,
        r#"{"items": [
            {"id": "7", "source": "/shop", "result": "ignored"},
            {
                "id": "8", "source": "/shop", "result": "started",
                "saga": "019b0000-0000-7000-8000-000000000001"
            }
        ]}"#,
    ]);
}

#[test]
fn a_rule() {
    is_kept::<EventRuleView>(&[
        r#"{
            "name": "orders", "event": "order.placed", "state": "active", "from": "webhook", "is_signed": true,
            "events": 0, "started": 0, "repeated": 0, "signalled": 0, "ignored": 0, "refused": 0,
            "failed": 0
        }"#,
        r#"{
            "name": "orders", "event": "order.placed", "state": "active", "from": "webhook", "is_signed": true,
            "start": "purchase", "signal": "paid",
            "events": 7, "started": 1, "repeated": 2, "signalled": 0, "ignored": 1, "refused": 2,
            "failed": 1, "last_error": "it is empty", "last_error_at": "2026-01-02T03:04:05.678Z"
        }"#,
    ]);
}
