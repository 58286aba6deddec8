//! What a rehearsal found.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a rehearsal found.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RehearsalView {
    /// The plugin.
    pub plugin: String,
    /// The component that was tried.
    pub digest: String,
    /// Its version.
    pub version: String,
    /// The component that serves now.
    pub serving: String,
    /// Its version.
    pub serving_version: String,
    /// Sagas in flight, or that ended lately, with a step that the plugin undoes.
    pub sagas: usize,
    /// Of them, those in flight.
    pub sagas_in_flight: usize,
    /// Steps of them that the plugin has undone or would undo; of each saga the first ten.
    pub steps_found: usize,
    /// Of them, those that were rehearsed.
    pub steps: usize,
    /// Of them, those that cannot be: their input cannot be computed, or the component that would
    /// undo them now cannot be loaded.
    pub steps_passed_over: usize,
    /// Of those that were rehearsed, those at which a component sends requests.
    pub steps_with_requests: usize,
    /// Of those that were rehearsed, those at which something differs.
    pub steps_differing: usize,
    /// With what requests were answered, one rehearsal each: a status with the body `{}`, or
    /// `no answer`.
    pub answers: Vec<String>,
    /// What differs, the most frequent first.
    pub differences: Vec<DifferenceGroupView>,
    /// How many such there are; the first 50 are told.
    pub differences_total: usize,
    /// What was not compared, because the component that serves does not do it the same twice.
    pub left_out: Vec<LeftOutView>,
    /// What was running when the time was up; null when all was rehearsed.
    pub unfinished: Option<UnfinishedView>,
    /// How long the calls may take together.
    pub time_max_ms: u64,
}

/// Steps at which the same differs in the same way.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DifferenceGroupView {
    /// How many.
    pub steps: usize,
    /// Only with these answers to requests; empty: whatever is answered.
    pub answers: Vec<String>,
    /// One of the sagas.
    pub saga: String,
    /// Its step.
    pub step: String,
    /// What differs there: the first 20.
    pub differences: Vec<DifferenceView>,
    /// How many there are.
    pub differences_total: usize,
}

/// One thing that two components do otherwise.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DifferenceView {
    /// `outcome`, `request 1 body.reference`, `state stock/north/metformin`, `event 1`.
    pub what: String,
    /// What the component that serves does; null: nothing.
    pub old: Option<String>,
    /// What the other does; null: nothing.
    pub new: Option<String>,
}

/// What was not compared.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeftOutView {
    /// What, as in a difference; `*` stands for a word that is one saga's own.
    pub what: String,
    /// At how many steps.
    pub steps: usize,
}

/// A call that had not ended when the time was up.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UnfinishedView {
    /// Its saga.
    pub saga: String,
    /// Its step.
    pub step: String,
    /// Whether the component that is tried was running; else the one that serves.
    pub is_new: bool,
}
