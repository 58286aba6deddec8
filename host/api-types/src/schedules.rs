//! Schedules: when they are due, and what they did last.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Timestamp;

/// A schedule: sagas that start at the times of a cron pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleView {
    /// The name.
    pub name: String,
    /// The name of the definition of its sagas.
    pub definition: String,
    /// The cron pattern.
    pub cron: String,
    /// The name of the time zone that the pattern is about.
    pub timezone: String,
    /// The next times at which it is due, up to three.
    #[schema(value_type = Vec<String>)]
    pub next: Vec<Timestamp>,
    /// The last time that started a saga.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// The saga of that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga: Option<String>,
    /// The last time that was skipped.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_at: Option<Timestamp>,
    /// Why it was skipped: the saga of the time before had not ended, or the host did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_reason: Option<String>,
    /// Why the saga of a time that is due cannot be started now. The host tries again each second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
