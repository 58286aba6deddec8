//! Events of sagas, plugins and services.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use amends_engine::Timestamp;

/// One event.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// The place of the event in its stream, from 1.
    pub version: u64,
    /// The place of the event in the whole store.
    pub position: u64,
    /// When the event was decided.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The saga in whose stream the event is; absent for other streams, and in answers about one saga.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga: Option<String>,
    /// The plugin in whose stream the event is; absent for other streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// The service in whose stream the event is; absent for other streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The type of the event: `saga.started`, `step.succeeded`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// What the event says; its type tells which fields there are.
    #[schema(value_type = serde_json::Value)]
    pub data: Box<RawValue>,
    /// The step whose call emitted a domain event. Only in the history and the watch of one saga; other events
    /// have the step in `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The idempotency key that the call carries, for `step.started` and `undo.started`. Only in the history
    /// and the watch of one saga; absent when the step calls no component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}
