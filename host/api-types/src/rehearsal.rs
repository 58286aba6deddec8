//! The results of a rehearsal: where a component would undo steps otherwise than the active one.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The results of a rehearsal.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RehearsalView {
    /// The name of the plugin.
    pub plugin: String,
    /// The digest of the component that was rehearsed.
    pub digest: String,
    /// The version of the component that was rehearsed.
    pub version: String,
    /// The digest of the active component.
    pub serving: String,
    /// The version of the active component.
    pub serving_version: String,
    /// How many sagas were looked at: those in flight, or that ended lately, with a step that the plugin
    /// undoes.
    pub sagas: usize,
    /// How many of these sagas are in flight.
    pub sagas_in_flight: usize,
    /// How many steps of these sagas the plugin has undone or would undo; of each saga the first ten count.
    pub steps_found: usize,
    /// How many of these steps were rehearsed.
    pub steps: usize,
    /// How many of the found steps cannot be rehearsed: their input cannot be computed, or the component that
    /// would undo them now cannot be loaded.
    pub steps_passed_over: usize,
    /// At how many of the rehearsed steps a component sends requests.
    pub steps_with_requests: usize,
    /// At how many of the rehearsed steps something differs.
    pub steps_differing: usize,
    /// The answers that requests got: a status with the body `{}`, or `no answer`. Each step was rehearsed
    /// with each of them.
    pub answers: Vec<String>,
    /// The first 50 groups of steps that differ, the largest first.
    pub differences: Vec<DifferenceGroupView>,
    /// How many such groups there are.
    pub differences_total: usize,
    /// What was not compared, because the active component does not do it the same twice.
    pub left_out: Vec<LeftOutView>,
    /// The call that was running when the time was up; null when all steps were rehearsed.
    pub unfinished: Option<UnfinishedView>,
    /// How long the calls may take together, in milliseconds.
    pub time_max_ms: u64,
}

/// A group of steps at which the same differs in the same way.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DifferenceGroupView {
    /// How many steps the group has.
    pub steps: usize,
    /// The answers to requests with which the steps differ; empty when they differ with every answer.
    pub answers: Vec<String>,
    /// The id of one of the sagas.
    pub saga: String,
    /// The name of its step.
    pub step: String,
    /// The first 20 differences at this step.
    pub differences: Vec<DifferenceView>,
    /// How many differences there are at this step.
    pub differences_total: usize,
}

/// One thing that two components do differently.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DifferenceView {
    /// What differs: `outcome`, `request 1 body.reference`, `state stock/north/metformin`, `event 1`.
    pub what: String,
    /// What the active component does; null when it does nothing there.
    pub old: Option<String>,
    /// What the rehearsed component does; null when it does nothing there.
    pub new: Option<String>,
}

/// A thing that was not compared.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeftOutView {
    /// What was left out, named as in a difference. `*` stands for a word that differs from saga to saga.
    pub what: String,
    /// At how many steps it was left out.
    pub steps: usize,
}

/// A call that had not ended when the time was up.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UnfinishedView {
    /// The id of the saga.
    pub saga: String,
    /// The name of the step.
    pub step: String,
    /// Whether the call was one of the rehearsed component; if not, of the active one.
    pub is_new: bool,
}
