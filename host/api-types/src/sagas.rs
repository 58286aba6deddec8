//! Sagas, alone and in lists.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::{IndexName, IndexValue, Payload, Timestamp};

use crate::erasures::PersonalView;
use crate::steps::StepView;
use crate::words::SagaStatusWord;

/// A saga.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SagaView {
    /// The id of the saga, a `UUIDv7`.
    #[schema(format = "uuid")]
    pub id: String,
    /// The name of the saga's definition.
    pub definition: String,
    /// The digest of the definition that the saga is pinned to; empty when the saga could not be read.
    pub definition_digest: String,
    /// `running`, `waiting`, `paused`, `compensating`, `blocked`, `completed`, `compensated` or `abandoned`;
    /// the last three are ends. `quarantined` when the saga cannot be read or stepped, so that nothing
    /// touches it; `reason` then says why.
    #[schema(value_type = SagaStatusWord)]
    pub status: String,
    /// The input that the saga was started with.
    #[schema(value_type = serde_json::Value)]
    pub input: Payload,
    /// The output of a completed saga: that of its last step, or of each of its last steps by name.
    #[schema(value_type = Option<serde_json::Value>)]
    pub output: Option<Payload>,
    /// The steps of the saga, in the order of the definition.
    pub steps: Vec<StepView>,
    /// When the saga was accepted: its input is durable since then.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When the first steps may begin, while the saga waits for that.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
    /// When the saga ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// The deadline: a saga that has not completed by then is compensated.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline_at: Option<Timestamp>,
    /// When something is next due by the clock alone.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Timestamp>,
    /// How many events the saga has; 0 in the answer to a start whose saga could not be read.
    pub version: u64,
    /// The trace context of the caller.
    pub traceparent: Option<String>,
    /// The trace id of the saga's calls: each log line about them has it, and the `traceparent` of their
    /// requests. It is that of the caller's trace context, else the saga's id without hyphens.
    #[serde(default)]
    pub trace_id: String,
    /// The idempotency key of the caller.
    pub key: Option<String>,
    /// The tags by which the saga can be found.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// The index values by which the saga can be found: texts, numbers, true or false.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    pub index: BTreeMap<IndexName, IndexValue>,
    /// Why the saga is blocked, or why it is or was compensated. When it is to be compensated and its pivot
    /// is unknown: what has to come first.
    pub reason: Option<String>,
    /// The last note that an operator added to the saga.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<NoteView>,
    /// The saga and step that started this saga, if a saga did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentView>,
    /// Whether the saga has left the store for the archive: it can be read, and nothing can be done to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
    /// What became of the saga's personal values, if its definition has a subject; only in the answer to a
    /// request for this saga.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personal: Option<PersonalView>,
}

/// A note that an operator added to a saga.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NoteView {
    /// When the operator added the note.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who added the note: a name, which the host does not check, and an address.
    pub who: String,
    /// The text of the note.
    pub reason: String,
}

/// The step of another saga that started a saga.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ParentView {
    /// The id of the other saga.
    #[schema(format = "uuid")]
    pub saga: String,
    /// The name of its step.
    pub step: String,
}

/// A saga in a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SagaItem {
    /// The id of the saga.
    #[schema(format = "uuid")]
    pub id: String,
    /// The name of the saga's definition.
    pub definition: String,
    /// The status of the saga, `quarantined` included.
    #[schema(value_type = SagaStatusWord)]
    pub status: String,
    /// Why the saga is blocked or quarantined, or why it is or was compensated.
    pub reason: Option<String>,
    /// When the saga began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When the saga ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// The deadline: a saga that has not completed by then is compensated.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline_at: Option<Timestamp>,
    /// When something is next due by the clock alone.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Timestamp>,
    /// The idempotency key of the caller.
    pub key: Option<String>,
    /// The tags by which the saga can be found.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// The index values by which the saga can be found: texts, numbers, true or false.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    pub index: BTreeMap<IndexName, IndexValue>,
    /// What a saga that has not ended does or waits for; only in answers to `activity=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// Whether the saga is archived; only in answers to `archived=true`. Its reason and its tags are then
    /// in the saga alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
}

/// Sagas, counted.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SagaCounts {
    /// How many sagas the filters find.
    pub sagas: u64,
    /// The largest groups of them, the largest first; at most 100.
    pub groups: Vec<SagaGroupItem>,
    /// How many groups there are beyond those.
    #[serde(default)]
    pub more_groups: u64,
}

/// Sagas that have something in common.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SagaGroupItem {
    /// What they have in common: `status`, `definition`, `reason`, `step` (`NAME`, or `NAME undo` when the undo
    /// failed), `code`. Null when they have no such value.
    pub by: BTreeMap<String, Option<String>>,
    /// How many they are.
    pub sagas: u64,
    /// When the first of them started.
    #[schema(value_type = String, format = DateTime)]
    pub oldest: Timestamp,
    /// The id of the first of them.
    pub example: String,
}
