//! What an operator orders about a saga.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use amends_engine::Payload;

/// An operator's reason, and what the verb needs. A key that the verb does not take is refused.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatorBody {
    /// Kept in the saga's stream, with who asked.
    pub reason: String,
    /// `retry`, `skip`, `resolve`: the step; when absent, the one that needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// `retry`: the input of the step's calls from here on.
    #[schema(value_type = Option<Object>)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub input: Option<Payload>,
    /// `retry`: the digest of the component that serves the step's calls from here on, until it is
    /// retried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// `resolve`: what the call gave; when absent, nobody knows. It has to fit the output schema of
    /// the component that executed the step.
    #[schema(value_type = Option<Object>)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub output: Option<Payload>,
    /// `resolve`: how it is known what became of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// `resolve`: whether the call happened; true when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub happened: Option<bool>,
    /// `skip`, `resolve`: true when the order is about the step's undo, which is blocked, waits to be tried
    /// again, or is due and has not begun. An undo that has not begun is not taken otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<bool>,
    /// True: nothing is done, and the answer is the saga as it is when it permits the order, else the
    /// refusal. A host that does not know this key refuses the order.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// Tells `null`, which is a payload, from a key that is absent.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Payload>, D::Error> {
    Payload::deserialize(from).map(Some)
}
