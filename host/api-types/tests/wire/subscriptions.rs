//! Subscriptions, and what operators order about them.

use amends_api_types::{RedriveBody, SubscriptionView};

use crate::kept::{is_kept, is_refused};

#[test]
fn a_subscription() {
    is_kept::<SubscriptionView>(&[
        r#"{
            "name": "billing", "state": "active", "target": "https://billing.example.com/hooks",
            "position": "40", "lag_events": 0, "dead_letters": 0, "is_redriving": false
        }"#,
        r#"{
            "name": "billing", "state": "away", "target": "https://billing.example.com/hooks",
            "position": "40", "lag_events": 7, "dead_letters": 2, "is_redriving": true,
            "last_error": "no answer within 30s", "last_error_at": "2026-01-02T03:04:05.678Z"
        }"#,
    ]);
}

#[test]
fn an_order_about_a_subscription() {
    is_kept::<RedriveBody>(&[r#"{"reason": "why"}"#]);
    assert!(is_refused::<RedriveBody>(r#"{"reason": "why", "name": "billing"}"#));
}
