//! The steps of a saga.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::{Payload, Timestamp};

use crate::words::{DirectionWord, StepStatusWord};

/// One step of a saga.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// The name of the step.
    pub name: String,
    /// `pending`, `waiting`, `running`, `backing_off`, `breaker_open`, `succeeded`, `failed`,
    /// `unknown`, `skipped`, `undoing`, `undo_backing_off`, `undone`, `undo_blocked` or
    /// `undo_skipped`.
    #[schema(value_type = StepStatusWord)]
    pub status: String,
    /// The direction of the step's last call: `execute` or `compensate`.
    #[schema(value_type = DirectionWord)]
    pub direction: String,
    /// How many attempts there were in that direction.
    pub attempts: u32,
    /// The input of the step's calls: computed from the saga as it is now, or given by an operator with
    /// `retry`. Only in the answer to `GET /v1/sagas/{id}`, for steps that were called or edited.
    #[schema(value_type = Option<serde_json::Value>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Payload>,
    /// Whether the input is left out: this answer has no room for it, or it took too long to compute.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub input_omitted: bool,
    /// The output of `execute`.
    #[schema(value_type = Option<serde_json::Value>)]
    pub output: Option<Payload>,
    /// The last failure.
    pub error: Option<ErrorView>,
    /// The digest of the component that served the last call.
    pub digest: Option<String>,
    /// The idempotency key of the calls of `execute`. An operator who edits the input begins a new key, and
    /// this is the latest; the events of the saga have the key of each call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The idempotency key of the calls of `compensate`, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_idempotency_key: Option<String>,
    /// When the first attempt began.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When the step last came to rest.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// When the next attempt is due, or the step stops waiting.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Timestamp>,
    /// What holds the step's call back that no event says, in words: a plugin, room, memory, the machine
    /// or a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// The name of the signal that the step waits for, or waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The id of the saga that the step runs or ran, if it runs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
    /// Who resolved or skipped the step or its undo; absent once a call was made after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<ByHandView>,
    /// Whether the undo found nothing to undo.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undid_nothing: bool,
    /// Set when this answer has no room for `output` and the `details` of `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted: Option<OmittedView>,
}

/// An operator who resolved or skipped a step.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ByHandView {
    /// Who: a name, which the host does not check, and an address.
    pub who: String,
    /// Why they did it.
    pub reason: String,
}

/// What an answer leaves out because it has no room for it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OmittedView {
    /// How many bytes were left out.
    pub bytes: usize,
    /// The path that has them.
    pub see: String,
}

/// The failure of a call.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ErrorView {
    /// The stable code of the failure, for programs.
    pub code: String,
    /// What went wrong, for people.
    pub message: String,
    /// Anything else that the component reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub details: Option<Payload>,
}
