//! The facts of a saga's stream, and their stored form.
//!
//! The stored form is a type word and a JSON object. It is ours: a field is only ever added,
//! with a default, and golden files in `tests/golden` hold what earlier versions wrote.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::call::{Failure, FailureClass};
use crate::ids::{DefinitionName, Digest, StepName, Timestamp};
use crate::payload::Payload;

/// Why compensation began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A step failed for good.
    StepFailed,
    /// Nobody knows whether a step happened, and attempts are used up.
    StepUnknown,
    /// The saga's deadline passed.
    Deadline,
    /// An operator cancelled.
    Cancelled,
}

macro_rules! events {
    ($($(#[$doc:meta])* $variant:ident = $kind:literal {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    })*) => {
        /// One fact.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Event {
            $($(#[$doc])* $variant($variant),)*
        }

        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
            pub struct $variant {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            impl From<$variant> for Event {
                fn from(event: $variant) -> Self {
                    Self::$variant(event)
                }
            }
        )*

        impl Event {
            /// Every event type, as the contract names it.
            pub const KINDS: &[&'static str] = &[$($kind,)*];

            /// The type word of the stored form.
            #[must_use]
            pub const fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $kind,)*
                }
            }

            /// The data of the stored form: a JSON object.
            #[must_use]
            pub fn data(&self) -> String {
                let text = match self {
                    $(Self::$variant(event) => serde_json::to_string(event),)*
                };
                // Every field is a string, a number, a map of strings or a checked payload.
                text.unwrap_or_default()
            }

            /// Reads the stored form.
            ///
            /// # Errors
            /// When the type is not known or the data does not fit it.
            pub fn decode(kind: &str, data: &str) -> Result<Self, DecodeError> {
                let wrong = |error: serde_json::Error| DecodeError::Data {
                    kind: kind.to_owned(),
                    message: error.to_string(),
                };
                match kind {
                    $($kind => serde_json::from_str(data).map(Self::$variant).map_err(wrong),)*
                    _ => Err(DecodeError::Kind(kind.to_owned())),
                }
            }
        }
    };
}

/// Why a stored event cannot be read. Its saga cannot be either; others are not touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A type that this version does not know.
    #[error("the event type `{0}` is not known to this version")]
    Kind(String),
    /// Data that does not fit its type.
    #[error("the data of a `{kind}` event cannot be read: {message}")]
    Data {
        /// The event's type.
        kind: String,
        /// What does not fit.
        message: String,
    },
}

events! {
    /// A saga began.
    SagaStarted = "saga.started" {
        /// The name of its definition.
        definition: DefinitionName,
        /// The definition it is pinned to.
        definition_digest: Digest,
        /// What it was given.
        input: Payload,
        /// The caller's idempotency key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// For finding it.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        tags: BTreeMap<String, String>,
        /// The caller's trace context (W3C).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        traceparent: Option<String>,
        /// When what has not completed is compensated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_at: Option<Timestamp>,
    }
    /// An attempt of `execute` is about to run.
    StepStarted = "step.started" {
        /// The step.
        step: StepName,
        /// From 1.
        attempt: u32,
        /// The component that serves it.
        digest: Digest,
    }
    /// The step's effect stands.
    StepSucceeded = "step.succeeded" {
        /// The step.
        step: StepName,
        /// The attempt that did it.
        attempt: u32,
        /// What it answered.
        output: Payload,
    }
    /// An attempt failed and left no effect.
    StepFailed = "step.failed" {
        /// The step.
        step: StepName,
        /// The attempt; 0 when the step failed before it was called.
        attempt: u32,
        /// Permanent or retryable.
        class: FailureClass,
        /// What went wrong.
        error: Failure,
        /// When the next attempt is due; none: the step has failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_at: Option<Timestamp>,
    }
    /// Nobody knows whether an attempt left its effect.
    StepUnknown = "step.unknown" {
        /// The step.
        step: StepName,
        /// The attempt.
        attempt: u32,
        /// Why nobody knows.
        error: Failure,
        /// When the next attempt is due; none: the step is unknown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_at: Option<Timestamp>,
    }
    /// The step's `when` was false.
    StepSkipped = "step.skipped" {
        /// The step.
        step: StepName,
        /// The expression.
        reason: String,
    }
    /// From here on, what happened is undone.
    CompensationStarted = "compensation.started" {
        /// Why, for programs.
        cause: Cause,
        /// The step that failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepName>,
        /// Why, for people.
        reason: String,
    }
    /// An attempt of `compensate` is about to run.
    UndoStarted = "undo.started" {
        /// The step that is undone.
        step: StepName,
        /// From 1, apart from the attempts of `execute`.
        attempt: u32,
        /// The component that serves it.
        digest: Digest,
        /// Why this component, when it is not the one that is active.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    }
    /// No effect of the step stands any more.
    UndoSucceeded = "undo.succeeded" {
        /// The step.
        step: StepName,
        /// The attempt that did it.
        attempt: u32,
        /// What the undo gave to keep.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "crate::payload::present"
        )]
        receipt: Option<Payload>,
        /// There was nothing to undo.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        nothing: bool,
    }
    /// An attempt of `compensate` failed and will be repeated.
    UndoFailed = "undo.failed" {
        /// The step.
        step: StepName,
        /// The attempt.
        attempt: u32,
        /// Retryable or unknown.
        class: FailureClass,
        /// What went wrong.
        error: Failure,
        /// When the next attempt is due.
        retry_at: Timestamp,
    }
    /// `compensate` failed for good: the effect stands until an operator acts.
    UndoBlocked = "undo.blocked" {
        /// The step.
        step: StepName,
        /// The last attempt.
        attempt: u32,
        /// Its class.
        class: FailureClass,
        /// What went wrong.
        error: Failure,
    }
    /// Every step is done.
    SagaCompleted = "saga.completed" {}
    /// No effect stands.
    SagaCompensated = "saga.compensated" {}
    /// An operator is needed.
    SagaBlocked = "saga.blocked" {
        /// The step that will not move.
        step: StepName,
        /// Why, for people.
        reason: String,
    }
    /// An operator asked for the saga to be undone.
    OperatorCancelled = "operator.cancelled" {
        /// Who asked.
        who: String,
        /// Why.
        reason: String,
    }
}
