//! Effects that stand or may stand.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Payload;

/// An effect that stands or may stand.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EffectView {
    /// The step.
    pub step: String,
    /// False: nobody knows whether it stands.
    pub is_certain: bool,
    /// Whether the definition has an undo for it.
    pub has_undo: bool,
    /// What the step answered.
    #[schema(value_type = Option<Object>)]
    pub output: Option<Payload>,
}

/// Effects of sagas that have not completed, summed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExposureItem {
    /// The definition.
    pub definition: String,
    /// The step.
    pub step: String,
    /// Sagas in which its effect stands.
    pub standing: u64,
    /// Sagas in which it may stand.
    pub unknown: u64,
    /// Of both, those of sagas that are blocked.
    pub blocked: u64,
    /// Of both, those of sagas that were abandoned.
    pub abandoned: u64,
}
