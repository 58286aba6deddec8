//! What a config says of a schedule.

use std::collections::BTreeMap;

use amends_engine::{DefinitionName, Timestamp};
use serde_json::{Map, Value};

use super::pattern::SchedulePattern;

/// A schedule: when which saga starts.
#[derive(Debug, Clone)]
pub struct ScheduleSettings {
    /// The name. The store keeps under it up to which time the schedule is decided.
    pub name: String,
    /// When it is due.
    pub pattern: SchedulePattern,
    /// The definition of its sagas.
    pub definition: DefinitionName,
    /// The input of its sagas; the field [`SCHEDULED_AT`] is added.
    pub input: Map<String, Value>,
    /// The tags of its sagas; `schedule` and [`SCHEDULED_AT`] are added.
    pub tags: BTreeMap<String, String>,
    /// What becomes of times that were missed.
    pub catch_up: CatchUp,
    /// What becomes of a time while the saga of the time before has not ended.
    pub overlap: Overlap,
}

/// The field of the input and the tag that have the time at which a saga was due.
pub const SCHEDULED_AT: &str = "scheduled_at";

/// What start keys of scheduled sagas begin with. Callers may not use such keys.
pub(crate) const SCHEDULE_KEY_PREFIX: &str = "schedule/";

/// The tag that has the name of the schedule.
pub const SCHEDULE_TAG: &str = "schedule";

/// What becomes of times that were missed, because the host was down or stood still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatchUp {
    /// They start no saga.
    None,
    /// The last of them starts a saga.
    #[default]
    Last,
    /// Each of the last 100 starts a saga.
    All,
}

/// What becomes of a time while the saga of the time before has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// It starts a saga.
    #[default]
    Allow,
    /// It starts none.
    Skip,
}

/// A time in the form of a start key: RFC 3339 without a fraction.
pub(crate) fn written(at: Timestamp) -> String {
    at.to_string().replace(".000Z", "Z")
}
