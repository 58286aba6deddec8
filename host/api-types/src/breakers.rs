//! Circuit breakers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Timestamp;

/// A circuit breaker.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BreakerView {
    /// The service.
    pub service: String,
    /// `closed`, `open` or `half_open`.
    pub state: String,
    /// Failures in a row.
    pub failures: u32,
    /// It opens after this many; null when they do not open it.
    pub failures_max: Option<u32>,
    /// When so many of the calls of the last seconds failed, it opens; null when that does not.
    pub rate: Option<BreakerRateView>,
    /// Until when no call begins, while it is open.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub open_until: Option<Timestamp>,
    /// How long it stays open.
    pub open_for_ms: u64,
    /// How many calls then try, and must succeed to close it.
    pub half_open: u32,
    /// `wait` or `fail`.
    pub on_open: String,
    /// The last failure.
    pub last_error: Option<String>,
    /// Who opened it by hand, while it is open for that. Without `open_until` it stays open until somebody
    /// closes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_by: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_reason: Option<String>,
}

/// The failure rate of a circuit breaker.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BreakerRateView {
    /// Calls that ended within the window.
    pub calls: u32,
    /// Of them, those that failed.
    pub calls_failed: u32,
    /// It opens when this part of them failed: more than 0, at most 1.
    pub failure_rate: f64,
    /// How long the window is.
    pub window_ms: u64,
    /// How many calls it takes to open it.
    pub calls_min: u32,
}

/// Why a breaker is opened, and for how long.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenBody {
    /// Kept in the service's stream, with who asked.
    pub reason: String,
    /// How long it stays open, such as `1h`; until somebody closes it when absent.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub open_for: Option<String>,
}

/// Why a breaker is closed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloseBody {
    /// Kept in the service's stream, with who asked.
    pub reason: String,
}
