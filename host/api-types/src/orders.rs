//! What an operator orders about a saga.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use amends_engine::Payload;

/// An order of an operator: the reason, and what the verb needs. The host rejects an order with a key that its
/// verb does not take.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatorBody {
    /// Why. The host keeps the reason and who asked in the stream of the saga.
    #[schema(min_length = 1)]
    pub reason: String,
    /// For `retry`, `skip` and `resolve`: the name of the step; when absent, the one that needs the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// For `retry`: the input of the step's calls from now on.
    #[schema(value_type = Option<serde_json::Value>)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub input: Option<Payload>,
    /// For `retry`: the digest of the component that serves the step's calls from now on, until the next
    /// `retry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// For `resolve`: the output of the call; when absent, nobody knows it. The output has to fit the output
    /// schema of the component that executed the step.
    #[schema(value_type = Option<serde_json::Value>)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub output: Option<Payload>,
    /// For `resolve`: how it is known what became of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// For `resolve`: whether the call happened; true when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub happened: Option<bool>,
    /// For `skip` and `resolve`: whether the order is about the undo of the step. The undo is blocked, waits
    /// for its next attempt, or is due and has not begun. An undo that has not begun needs this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<bool>,
    /// Whether the host only says if it would take the order. If it would, the answer is the saga as it is;
    /// if not, the problem. A host that does not know this key rejects the order.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// Tells `null`, which is a payload, from a key that is absent.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Payload>, D::Error> {
    Payload::deserialize(from).map(Some)
}
