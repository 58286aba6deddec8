//! Effects that stand or may stand.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Payload;

/// An effect of a saga that stands or may stand.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EffectView {
    /// The name of the step.
    pub step: String,
    /// Whether the effect stands; false when nobody knows whether it stands.
    pub is_certain: bool,
    /// Whether the definition has an undo for the step.
    pub has_undo: bool,
    /// The output of the step.
    #[schema(value_type = Option<serde_json::Value>)]
    pub output: Option<Payload>,
}

/// The effects of one step, summed over all sagas of a definition that have not completed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExposureItem {
    /// The name of the definition.
    pub definition: String,
    /// The name of the step.
    pub step: String,
    /// How many sagas there are in which the effect stands.
    pub standing: u64,
    /// How many sagas there are in which the effect may stand.
    pub unknown: u64,
    /// How many of both are blocked.
    pub blocked: u64,
    /// How many of both were abandoned.
    pub abandoned: u64,
}
