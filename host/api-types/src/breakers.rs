//! Circuit breakers: how they stand, and what an operator orders about them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Timestamp;

use crate::words::{BreakerStateWord, OnOpenWord};

/// The circuit breaker of a service.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BreakerView {
    /// The name of the service.
    pub service: String,
    /// `closed`, `open` or `half_open`.
    #[schema(value_type = BreakerStateWord)]
    pub state: String,
    /// How many calls have failed in a row.
    pub failures: u32,
    /// The breaker opens after this many failures in a row; null when failures in a row do not open it.
    pub failures_max: Option<u32>,
    /// The failure rate at which the breaker opens; null when no rate opens it.
    pub rate: Option<BreakerRateView>,
    /// Until when no call begins, while the breaker is open.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub open_until: Option<Timestamp>,
    /// How long the breaker stays open, in milliseconds.
    pub open_for_ms: u64,
    /// How many calls try after that. All of them must succeed to close the breaker.
    pub half_open: u32,
    /// What a step does while the breaker is open: `wait` or `fail`.
    #[schema(value_type = OnOpenWord)]
    pub on_open: String,
    /// The message of the last failure.
    pub last_error: Option<String>,
    /// Who opened the breaker by hand; absent when nobody did. Without `open_until` it stays open until
    /// somebody closes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_by: Option<String>,
    /// Why somebody opened the breaker by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_reason: Option<String>,
}

/// The failure rate at which a circuit breaker opens, and the calls that count.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BreakerRateView {
    /// How many calls ended within the window.
    pub calls: u32,
    /// How many of them failed.
    pub calls_failed: u32,
    /// The breaker opens when this part of the calls failed: more than 0, at most 1.
    pub failure_rate: f64,
    /// The length of the window, in milliseconds.
    pub window_ms: u64,
    /// The breaker does not open with fewer calls than this in the window.
    pub calls_min: u32,
}

/// The order to open a breaker: why, and for how long.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenBody {
    /// Why. The host keeps the reason and who asked in the stream of the service.
    #[schema(min_length = 1)]
    pub reason: String,
    /// How long the breaker stays open, such as `1h`; until somebody closes it when absent.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub open_for: Option<String>,
}

/// The order to close a breaker.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloseBody {
    /// Why. The host keeps the reason and who asked in the stream of the service.
    #[schema(min_length = 1)]
    pub reason: String,
}
