//! What a compensation of a saga would do.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Payload;

use crate::words::StepStatusWord;

/// One undo that a compensation would run now.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PlannedView {
    /// The name of the step.
    pub step: String,
    /// The wave of the undo, from 1. Undos of one wave run in parallel, each wave after the one before.
    pub wave: usize,
    /// The name of the plugin that undoes the step; null when the step ran a saga, which is compensated.
    pub plugin: Option<String>,
    /// The id of the saga that the step ran.
    pub child: Option<String>,
    /// The digest of the component that would serve the undo.
    pub digest: Option<String>,
    /// Why this component would serve the undo, when it is not the active one.
    pub note: Option<String>,
    /// The input of the step's calls; null when it cannot be computed.
    #[schema(value_type = Option<serde_json::Value>)]
    pub input: Option<Payload>,
    /// The output of the step; null when nobody knows whether it happened.
    #[schema(value_type = Option<serde_json::Value>)]
    pub output: Option<Payload>,
    /// The status of the step.
    #[schema(value_type = StepStatusWord)]
    pub status: String,
}
