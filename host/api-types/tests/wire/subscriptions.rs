//! Subscriptions, and what operators order about them.

use amends_api_types::{DeadLetterView, RedriveBody, SubscriptionView};

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
fn a_dead_letter() {
    is_kept::<DeadLetterView>(&[
        r#"{
            "place": "40", "saga": "01a22771-d200-7317-af42-15839a68746d", "version": 3,
            "type": "step.succeeded", "at": "2026-01-02T03:04:05.678Z", "attempts": 8,
            "error": "the receiver answered 500"
        }"#,
        r#"{
            "place": "41", "version": 1, "type": "deploy.activated", "at": "2026-01-02T03:04:05.678Z",
            "attempts": 1, "error": "an earlier event of the same saga is a dead letter"
        }"#,
    ]);
}

#[test]
fn an_order_about_a_subscription() {
    is_kept::<RedriveBody>(&[r#"{"reason": "why"}"#]);
    assert!(is_refused::<RedriveBody>(r#"{"reason": "why", "name": "billing"}"#));
}
