//! Signals to sagas.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Payload;

use crate::words::SagaStatusWord;

/// A signal.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalBody {
    /// The payload of the signal: any JSON.
    #[schema(value_type = serde_json::Value)]
    #[serde(default = "Payload::null")]
    pub payload: Payload,
    /// The sender's id of the signal. The saga ignores a second signal with the same id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// The answer to a signal that the saga took.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SignalTaken {
    /// The id of the saga.
    #[schema(format = "uuid")]
    pub id: String,
    /// The status of the saga after the signal.
    #[schema(value_type = SagaStatusWord)]
    pub status: String,
}
