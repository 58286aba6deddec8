//! Signals to sagas.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Payload;

/// A signal.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalBody {
    /// What it says: any JSON.
    #[schema(value_type = Object)]
    #[serde(default = "Payload::null")]
    pub payload: Payload,
    /// The sender's id of it: a second one with the same id is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// That a signal was taken.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SignalTaken {
    /// The saga.
    pub id: String,
    /// Where it stands now.
    pub status: String,
}
