//! Sagas, alone and in lists.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::{Payload, Timestamp};

use crate::steps::StepView;

/// The status of a saga that cannot be read or stepped, so that nothing touches it.
pub const QUARANTINED: &str = "quarantined";

/// A saga.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SagaView {
    /// Its id, a `UUIDv7`.
    pub id: String,
    /// The name of its definition.
    pub definition: String,
    /// The definition that it is pinned to; empty when the saga could not be read.
    pub definition_digest: String,
    /// `running`, `waiting`, `paused`, `compensating`, `blocked`, `completed`, `compensated`
    /// or `abandoned`; the last three are ends. `quarantined` when it cannot be read or stepped, so
    /// that nothing touches it; `reason` says why.
    pub status: String,
    /// What it was given.
    #[schema(value_type = Object)]
    pub input: Payload,
    /// Of a completed saga: the output of its last step, or of each of its last steps by name.
    #[schema(value_type = Option<Object>)]
    pub output: Option<Payload>,
    /// In the order of the definition.
    pub steps: Vec<StepView>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// When what has not completed is undone.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline_at: Option<Timestamp>,
    /// When something is next due by the clock alone.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Timestamp>,
    /// How many events it has; 0 in the answer to a start whose saga could not be read.
    pub version: u64,
    /// The caller's trace context.
    pub traceparent: Option<String>,
    /// The trace id of its calls: in each line of the log about them, and in the `traceparent` of their
    /// requests. Of the caller's trace context, else the saga's id without hyphens.
    #[serde(default)]
    pub trace_id: String,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// For finding it.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Why it is blocked, or why it is or was undone; of one that is to be undone and whose pivot is
    /// unknown, what comes first.
    pub reason: Option<String>,
    /// The last note that an operator had kept with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<NoteView>,
    /// The saga and step that started it, if a saga did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentView>,
}

/// What an operator had kept with a saga.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NoteView {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who says it: a name that the host does not check, and an address.
    pub who: String,
    /// What.
    pub reason: String,
}

/// The step of another saga that started a saga.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ParentView {
    /// That saga.
    pub saga: String,
    /// Its step.
    pub step: String,
}

/// A saga in a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SagaItem {
    /// Its id.
    pub id: String,
    /// The name of its definition.
    pub definition: String,
    /// Where it stands; `quarantined` when nothing touches it.
    pub status: String,
    /// Why it is blocked or quarantined, or why it is or was undone.
    pub reason: Option<String>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// When what has not completed is undone.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline_at: Option<Timestamp>,
    /// When something is next due by the clock alone.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Timestamp>,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// For finding it.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// What it does or waits for, when it has not ended; only where `activity=true` asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
}
