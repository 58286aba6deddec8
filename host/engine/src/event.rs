//! The facts of a saga's stream, and their stored form.
//!
//! The stored form is a type word and a JSON object. It is ours: a field is only ever added,
//! with a default, and golden files in `tests/golden` hold what earlier versions wrote.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::call::{Failure, FailureClass, Fate};
use crate::emitted::{Emitted, EventType};
use crate::ids::{DefinitionName, Digest, SagaId, SignalName, StepName, Timestamp};
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
    /// An operator had a completed saga compensated.
    Compensated,
}

/// The step of another saga that started a saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// That saga.
    pub saga: SagaId,
    /// Its step.
    pub step: StepName,
}

macro_rules! events {
    ($($(#[$doc:meta])* $variant:ident = $kind:literal {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    })*) => {
        /// One fact.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Event {
            $($(#[$doc])* $variant($variant),)*
            /// What a plugin told; its type is the plugin's own.
            Emitted(Emitted),
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
            /// Every event type of this host's own, as the contract names it.
            pub const KINDS: &[&'static str] = &[$($kind,)*];

            /// The type word of the stored form.
            #[must_use]
            pub fn kind(&self) -> Cow<'static, str> {
                match self {
                    $(Self::$variant(_) => Cow::Borrowed($kind),)*
                    Self::Emitted(event) => Cow::Owned(event.kind.to_string()),
                }
            }

            /// The data of the stored form: a JSON object; of a domain event, any JSON.
            #[must_use]
            pub fn data(&self) -> String {
                let text = match self {
                    $(Self::$variant(event) => serde_json::to_string(event),)*
                    Self::Emitted(event) => return event.data.as_str().to_owned(),
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
                    _ => decode_emitted(kind, data),
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

impl Event {
    /// Whether the events of sagas have this type: it is one of this host's own, or may be a plugin's.
    /// A damaged type whose first word is the host's own is neither.
    #[must_use]
    pub fn is_kind(kind: &str) -> bool {
        Self::KINDS.contains(&kind) || EventType::check(kind).is_ok()
    }
}

fn decode_emitted(kind: &str, data: &str) -> Result<Event, DecodeError> {
    let kind: EventType = kind.parse().map_err(|_| DecodeError::Kind(kind.to_owned()))?;
    let data = Payload::recorded(data).map_err(|error| DecodeError::Data {
        kind: kind.to_string(),
        message: error.to_string(),
    })?;
    Ok(Event::Emitted(Emitted { kind, data }))
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
        /// What started it, if that was another saga.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<Parent>,
    }
    /// An attempt of `execute` is about to run.
    StepStarted = "step.started" {
        /// The step.
        step: StepName,
        /// From 1.
        attempt: u32,
        /// The component that serves it; of a step that runs a saga, that saga's definition.
        digest: Digest,
        /// The saga that it runs, if it runs one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        child: Option<SagaId>,
        /// It tries whether the service works again, and does not count as one of the attempts.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        trial: bool,
    }
    /// A step waits for a signal or a time.
    StepWaiting = "step.waiting" {
        /// The step.
        step: StepName,
        /// The signal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<SignalName>,
        /// Until when; none: for ever.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    }
    /// A step that runs over a list has its elements: each is a step of its own from here on.
    StepExpanded = "step.expanded" {
        /// The step.
        step: StepName,
        /// The list; element `n` is the step `NAME[n]`.
        items: Vec<Payload>,
    }
    /// The step's effect stands.
    StepSucceeded = "step.succeeded" {
        /// The step.
        step: StepName,
        /// The attempt that did it; 0 for a wait, and for a step over a list, whose elements did.
        attempt: u32,
        /// What it answered; of a step over a list, the list of what its elements answered.
        output: Payload,
        /// What the component found out when it was asked, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        probe: Option<Fate>,
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
        /// What the component found out when it was asked, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        probe: Option<Fate>,
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
        /// What the component found out when it was asked, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        probe: Option<Fate>,
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
        /// It tries whether the service works again, and does not count as one of the attempts.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        trial: bool,
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
        /// What the component found out when it was asked, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        probe: Option<Fate>,
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
        /// What the component found out when it was asked, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        probe: Option<Fate>,
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
        /// What the component found out when it was asked, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        probe: Option<Fate>,
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
    /// An operator gave it up: effects may stand.
    SagaAbandoned = "saga.abandoned" {
        /// Why, for people.
        reason: String,
    }
    /// The host's clock was set back: a time that was set while it was ahead is as far away from
    /// here as it was from there.
    SagaRetimed = "saga.retimed" {
        /// By how much the clock was ahead, in milliseconds.
        ahead_ms: u64,
    }
    /// A signal came, to be kept until a step waits for it.
    SignalReceived = "signal.received" {
        /// Which.
        name: SignalName,
        /// The sender's id of it: a second one with the same id is dropped.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// What it says.
        payload: Payload,
        /// Who sent it; not known of those that earlier versions recorded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        who: Option<String>,
    }
    /// An operator asked for the saga to be undone.
    OperatorCancelled = "operator.cancelled" {
        /// Who asked.
        who: String,
        /// Why.
        reason: String,
    }
    /// An operator asked for a completed saga to be undone.
    OperatorCompensated = "operator.compensated" {
        /// Who asked.
        who: String,
        /// Why.
        reason: String,
    }
    /// An operator holds the saga: no call begins.
    OperatorPaused = "operator.paused" {
        /// Who asked.
        who: String,
        /// Why.
        reason: String,
    }
    /// An operator lets the saga go on.
    OperatorResumed = "operator.resumed" {
        /// Who asked.
        who: String,
        /// Why.
        reason: String,
    }
    /// An operator has a call tried again, with attempts as many as at first.
    OperatorRetried = "operator.retried" {
        /// Who asked.
        who: String,
        /// Why.
        reason: String,
        /// The step.
        step: StepName,
        /// The input of the step's calls from here on, if it was edited.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "crate::payload::present"
        )]
        input: Option<Payload>,
        /// The step's calls carry a new idempotency key from here on: the input was edited, and no
        /// effect of an earlier call may stand.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        new_key: bool,
        /// The component that serves the step's calls from here on, in the direction that failed,
        /// until it is retried again; none: whichever serves calls like them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<Digest>,
    }
    /// An operator has the saga go on without the step or without its undo.
    OperatorSkipped = "operator.skipped" {
        /// Who asked.
        who: String,
        /// Why.
        reason: String,
        /// The step.
        step: StepName,
    }
    /// An operator found out, or saw to, what became of a call.
    OperatorResolved = "operator.resolved" {
        /// Who says so.
        who: String,
        /// Why.
        reason: String,
        /// The step.
        step: StepName,
        /// Whether it happened.
        happened: bool,
        /// What it gave; none: nobody knows.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "crate::payload::present"
        )]
        output: Option<Payload>,
        /// How that is known.
        evidence: String,
    }
    /// An operator has something kept with the saga, whatever its status. It changes nothing.
    OperatorNoted = "operator.noted" {
        /// Who says it.
        who: String,
        /// What.
        reason: String,
    }
    /// An operator gave the saga up.
    OperatorAbandoned = "operator.abandoned" {
        /// Who asked.
        who: String,
        /// Why.
        reason: String,
    }
}
