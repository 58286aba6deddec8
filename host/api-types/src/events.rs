//! Events of sagas, plugins and services.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use amends_engine::Timestamp;

/// One event.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Its place in its stream, from 1.
    pub version: u64,
    /// Its place in the whole store.
    pub position: u64,
    /// When it was decided.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The saga whose event it is; absent for a plugin's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga: Option<String>,
    /// The plugin whose event it is; absent for a saga's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// The service whose stream it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `saga.started`, `step.succeeded`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// What it says.
    #[schema(value_type = Object)]
    pub data: Box<RawValue>,
    /// Of a domain event, in the history and the watch of one saga: the step whose call emitted it. Other
    /// events have it in `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Of `step.started` and `undo.started`, in the history and the watch of one saga: the idempotency
    /// key that the call carries, if it calls a component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}
