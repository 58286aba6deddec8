//! The steps of a saga.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::{Payload, Timestamp};

/// One step of a saga.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// Its name.
    pub name: String,
    /// `pending`, `waiting`, `running`, `backing_off`, `breaker_open`, `succeeded`, `failed`,
    /// `unknown`, `skipped`, `undoing`, `undo_backing_off`, `undone`, `undo_blocked` or
    /// `undo_skipped`.
    pub status: String,
    /// The direction of its last call: `execute` or `compensate`.
    pub direction: String,
    /// Attempts in that direction.
    pub attempts: u32,
    /// What its calls are given: computed from the saga as it is now, or what an operator gave with
    /// `retry`. In the answer to `GET /v1/sagas/{id}` only, for steps that were called or edited.
    #[schema(value_type = Option<Object>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Payload>,
    /// The input has no room in this answer, or took too long to compute.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub input_omitted: bool,
    /// What `execute` answered.
    #[schema(value_type = Option<Object>)]
    pub output: Option<Payload>,
    /// What went wrong last.
    pub error: Option<ErrorView>,
    /// The component of its last call.
    pub digest: Option<String>,
    /// The idempotency key that its calls of `execute` carried; after its input was edited, the one of the
    /// calls since then. The saga's events have the key of each call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The same of its undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_idempotency_key: Option<String>,
    /// When its first attempt began.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it last came to rest.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// When its next attempt is due, or when it stops waiting.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Timestamp>,
    /// The signal that it waits for, or waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The saga that it runs or ran, if it runs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
    /// Who resolved or skipped the step or its undo; none once a call was made after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<ByHandView>,
    /// Its undo found nothing to undo.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undid_nothing: bool,
    /// What this answer has no room for: `output` and the `details` of `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted: Option<OmittedView>,
}

/// An operator who resolved or skipped a step.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ByHandView {
    /// Who: a name that the host does not check, and an address.
    pub who: String,
    /// Why.
    pub reason: String,
}

/// What an answer has no room for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OmittedView {
    /// How many bytes it has.
    pub bytes: usize,
    /// The path that has it.
    pub see: String,
}

/// What went wrong with a call.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ErrorView {
    /// Stable, for programs.
    pub code: String,
    /// For people.
    pub message: String,
    /// Anything else that the component kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub details: Option<Payload>,
}
