//! What a compensation would do.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Payload;

/// One undo that a compensation would run now.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PlannedView {
    /// The step.
    pub step: String,
    /// From 1: undos of one wave run in parallel, each wave after the one before.
    pub wave: usize,
    /// The plugin that undoes it; none: the saga that it ran is compensated.
    pub plugin: Option<String>,
    /// The saga that it ran.
    pub child: Option<String>,
    /// The component that would serve it.
    pub digest: Option<String>,
    /// Why that one, when it is not the active one.
    pub note: Option<String>,
    /// What it is given.
    #[schema(value_type = Option<Object>)]
    pub input: Option<Payload>,
    /// What the step answered; none: nobody knows whether it happened.
    #[schema(value_type = Option<Object>)]
    pub output: Option<Payload>,
    /// Where the step stands now.
    pub status: String,
}
