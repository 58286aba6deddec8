//! Circuit breakers, and what operators order about them.

use amends_api_types::{BreakerRateView, BreakerView, CloseBody, OpenBody};

use crate::kept::{is_kept, is_refused};

#[test]
fn a_breaker() {
    is_kept::<BreakerView>(&[
        r#"{
            "service": "carrier", "state": "closed", "failures": 0, "failures_max": null,
            "rate": null, "open_until": null, "open_for_ms": 30000, "half_open": 1,
            "on_open": "wait", "last_error": null
        }"#,
        r#"{
            "service": "carrier", "state": "open", "failures": 5, "failures_max": 5,
            "rate": {
                "calls": 20, "calls_failed": 11, "failure_rate": 0.5, "window_ms": 10000,
                "calls_min": 20
            },
            "open_until": "2026-01-02T03:04:05.678Z", "open_for_ms": 30000, "half_open": 1,
            "on_open": "fail", "last_error": "no answer", "opened_by": "ann@127.0.0.1",
            "opened_reason": "they asked for it"
        }"#,
    ]);
    is_kept::<BreakerRateView>(&[
        r#"{"calls": 0, "calls_failed": 0, "failure_rate": 1.0, "window_ms": 1, "calls_min": 1}"#,
    ]);
}

#[test]
fn an_order_about_a_breaker() {
    is_kept::<OpenBody>(&[r#"{"reason": "why"}"#, r#"{"reason": "why", "for": "1h"}"#]);
    assert!(is_refused::<OpenBody>(r#"{"reason": "why", "open_for": "1h"}"#));
    is_kept::<CloseBody>(&[r#"{"reason": "why"}"#]);
    assert!(is_refused::<CloseBody>(r#"{"reason": "why", "for": "1h"}"#));
}
