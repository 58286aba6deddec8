//! The facts of a saga's stream, and their stored form.
//!
//! The stored form is a type word and a JSON object. The format is ours: later versions only add
//! fields, each with a default. Golden files in `tests/golden` hold what earlier versions wrote.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::call::{Failure, FailureClass, Fate};
use crate::emitted::{Emitted, EventType};
use crate::ids::{DefinitionName, Digest, IndexName, SagaId, SignalName, StepName, Timestamp};
use crate::index::IndexValue;
use crate::payload::Payload;
use crate::personal::{PersonalPath, SealedKey};

/// The cause of a compensation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A step failed for good.
    StepFailed,
    /// It is unknown whether a step happened, and no attempts are left.
    StepUnknown,
    /// The saga's deadline passed.
    Deadline,
    /// An operator cancelled the saga.
    Cancelled,
    /// An operator had a completed saga compensated.
    Compensated,
}

/// The step of another saga that started this saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The other saga.
    pub saga: SagaId,
    /// The step of that saga.
    pub step: StepName,
}

macro_rules! events {
    ($($(#[$about:meta])* $subject:ident($group:ident) {
        $($(#[$doc:meta])* $variant:ident($fact:ident) = $kind:literal {
            $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
        })*
    })*) => {
        /// One fact, by what it is about.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Event {
            $($(#[$about])* $subject($group),)*
            /// A plugin emitted a domain event; the plugin chooses its type.
            Emitted(Emitted),
        }

        $(
            $(#[$about])*
            #[derive(Debug, Clone, PartialEq, Eq)]
            #[allow(clippy::large_enum_variant, reason = "of the large one, a saga has one event")]
            pub enum $group {
                $($(#[$doc])* $variant($fact),)*
            }

            $(
                $(#[$doc])*
                #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
                pub struct $fact {
                    $($(#[$field_doc])* pub $field: $type,)*
                }

                impl From<$fact> for Event {
                    fn from(fact: $fact) -> Self {
                        Self::$subject($group::$variant(fact))
                    }
                }
            )*
        )*

        impl Event {
            /// Every event type that this host itself writes.
            pub const KINDS: &[&'static str] = &[$($($kind,)*)*];

            /// Returns the type word of the stored form.
            #[must_use]
            pub fn kind(&self) -> Cow<'static, str> {
                match self {
                    $($(Self::$subject($group::$variant(_)) => Cow::Borrowed($kind),)*)*
                    Self::Emitted(event) => Cow::Owned(event.kind.to_string()),
                }
            }

            /// Returns the data of the stored form: a JSON object, or any JSON for a domain event.
            #[must_use]
            pub fn data(&self) -> String {
                let text = match self {
                    $($(Self::$subject($group::$variant(fact)) => serde_json::to_string(fact),)*)*
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
                    $($($kind => {
                        serde_json::from_str::<$fact>(data).map(Self::from).map_err(wrong)
                    })*)*
                    _ => decode_emitted(kind, data),
                }
            }
        }
    };
}

impl From<Emitted> for Event {
    fn from(event: Emitted) -> Self {
        Self::Emitted(event)
    }
}

/// The reason why a stored event cannot be read. Its saga cannot be read either; other sagas are
/// not affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// This version does not know the type.
    #[error("the event type `{0}` is not known to this version")]
    Kind(String),
    /// The data does not fit the type.
    #[error("the data of a `{kind}` event cannot be read: {message}")]
    Data {
        /// The event's type.
        kind: String,
        /// What does not fit.
        message: String,
    },
}

impl StepEvent {
    /// Returns the step that the event is about.
    #[must_use]
    pub(crate) const fn step(&self) -> &StepName {
        match self {
            Self::Started(fact) => &fact.step,
            Self::Waiting(fact) => &fact.step,
            Self::Expanded(fact) => &fact.step,
            Self::Succeeded(fact) => &fact.step,
            Self::Failed(fact) => &fact.step,
            Self::Unknown(fact) => &fact.step,
            Self::Skipped(fact) => &fact.step,
        }
    }
}

impl UndoEvent {
    /// Returns the step whose undo the event is about.
    #[must_use]
    pub(crate) const fn step(&self) -> &StepName {
        match self {
            Self::Started(fact) => &fact.step,
            Self::Succeeded(fact) => &fact.step,
            Self::Failed(fact) => &fact.step,
            Self::Blocked(fact) => &fact.step,
        }
    }
}

impl Event {
    /// Returns true when events of sagas may have this type: one of this host, or one that a plugin
    /// may use. A damaged type whose first word is reserved is neither.
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
    /// Something happened to the saga as a whole.
    Saga(SagaEvent) {
        /// The saga started.
        Started(SagaStarted) = "saga.started" {
            /// The name of its definition.
            definition: DefinitionName,
            /// The digest of the definition that the saga is pinned to.
            definition_digest: Digest,
            /// The input of the saga.
            input: Payload,
            /// The idempotency key of the caller.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            key: Option<String>,
            /// The tags by which callers find the saga.
            #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
            tags: BTreeMap<String, String>,
            /// The values by which callers find the saga: those of the index of its definition.
            #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
            index: BTreeMap<IndexName, IndexValue>,
            /// The trace context of the caller (W3C).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            traceparent: Option<String>,
            /// When the saga is compensated unless it has completed.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            deadline_at: Option<Timestamp>,
            /// When the first steps may begin; none when they may begin at once.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            start_at: Option<Timestamp>,
            /// The step of another saga that started this one, if one did.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            parent: Option<Parent>,
            /// The key of the personal values of the saga, if its definition has a subject.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            sealed_key: Option<Box<SealedKey>>,
            /// Who started the saga; none on a host without access control, and when a step of another saga did.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            who: Option<String>,
        }
        /// The time came at which the first steps of the saga may begin. Only a saga with a start time
        /// has this event.
        Due(SagaDue) = "saga.due" {}
        /// The saga began to be compensated.
        CompensationStarted(CompensationStarted) = "compensation.started" {
            /// The cause, for programs.
            cause: Cause,
            /// The step that failed, if one did.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            step: Option<StepName>,
            /// The reason, for people.
            reason: String,
        }
        /// The saga completed: every step is done.
        Completed(SagaCompleted) = "saga.completed" {}
        /// The saga is compensated: every effect that has an undo is undone.
        Compensated(SagaCompensated) = "saga.compensated" {}
        /// The saga is blocked: it needs an operator.
        Blocked(SagaBlocked) = "saga.blocked" {
            /// The step that needs the operator; none when the log of the saga is full. When the step
            /// has not failed, its next call needs an erased value.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            step: Option<StepName>,
            /// The reason, for people.
            reason: String,
        }
        /// The saga is abandoned: effects may stand.
        Abandoned(SagaAbandoned) = "saga.abandoned" {
            /// The reason, for people.
            reason: String,
        }
        /// The clock of the host was set back. Every time that was set while the clock was ahead is
        /// moved, so that it is as far away from now as it was from then.
        Retimed(SagaRetimed) = "saga.retimed" {
            /// How far the clock was ahead, in milliseconds.
            ahead_ms: u64,
        }
        /// Components mark places as personal that the definition does not name: those that serve when
        /// the saga starts, and later one that served a call. Their values are sealed from here on.
        Marked(SagaMarked) = "saga.marked" {
            /// The places.
            personal: Vec<PersonalPath>,
        }
    }
    /// Something happened to a step: to its `execute`, or to its wait.
    Step(StepEvent) {
        /// An attempt of `execute` is about to run.
        Started(StepStarted) = "step.started" {
            /// The step.
            step: StepName,
            /// The attempt, from 1.
            attempt: u32,
            /// The component that serves the call. For a step that runs a saga, the definition of that
            /// saga.
            digest: Digest,
            /// The saga that the step runs, if it runs one.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            child: Option<SagaId>,
            /// True for a trial of a circuit breaker: the attempt tests whether the service works
            /// again, and does not count.
            #[serde(default, skip_serializing_if = "std::ops::Not::not")]
            trial: bool,
        }
        /// A step waits for a signal or a time.
        Waiting(StepWaiting) = "step.waiting" {
            /// The step.
            step: StepName,
            /// The signal that the step waits for, if it waits for one.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            signal: Option<SignalName>,
            /// The end of the wait; none when it has no end.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            until: Option<Timestamp>,
        }
        /// A step that runs over a list got its elements. From here on each element is a step of its
        /// own.
        Expanded(StepExpanded) = "step.expanded" {
            /// The step.
            step: StepName,
            /// The elements; element `n` is the step `NAME[n]`.
            items: Vec<Payload>,
        }
        /// The step succeeded: its effect stands.
        Succeeded(StepSucceeded) = "step.succeeded" {
            /// The step.
            step: StepName,
            /// The attempt that succeeded; 0 for a wait, and for a step over a list.
            attempt: u32,
            /// The output of the step. For a step over a list, the list of its elements' outputs.
            output: Payload,
            /// The answer of the component's `probe`, if it was asked.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            probe: Option<Fate>,
        }
        /// An attempt failed and left no effect.
        Failed(StepFailed) = "step.failed" {
            /// The step.
            step: StepName,
            /// The attempt; 0 when the step failed before it was called.
            attempt: u32,
            /// The class of the failure: permanent or retryable.
            class: FailureClass,
            /// What went wrong.
            error: Failure,
            /// When the next attempt is due; none when the step has failed.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            retry_at: Option<Timestamp>,
            /// The answer of the component's `probe`, if it was asked.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            probe: Option<Fate>,
        }
        /// It is unknown whether an attempt left its effect.
        Unknown(StepUnknown) = "step.unknown" {
            /// The step.
            step: StepName,
            /// The attempt.
            attempt: u32,
            /// The reason why it is unknown.
            error: Failure,
            /// When the next attempt is due; none when the step stays unknown.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            retry_at: Option<Timestamp>,
            /// The answer of the component's `probe`, if it was asked.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            probe: Option<Fate>,
        }
        /// The step was skipped, because its `when` was false.
        Skipped(StepSkipped) = "step.skipped" {
            /// The step.
            step: StepName,
            /// The expression of its `when`.
            reason: String,
        }
    }
    /// Something happened to the undo of a step: to its `compensate`.
    Undo(UndoEvent) {
        /// An attempt of `compensate` is about to run.
        Started(UndoStarted) = "undo.started" {
            /// The step that is compensated.
            step: StepName,
            /// The attempt, from 1; attempts of `execute` are counted apart.
            attempt: u32,
            /// The component that serves the call.
            digest: Digest,
            /// The reason for this component, when it is not the active one.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            note: Option<String>,
            /// True for a trial of a circuit breaker: the attempt tests whether the service works
            /// again, and does not count.
            #[serde(default, skip_serializing_if = "std::ops::Not::not")]
            trial: bool,
        }
        /// The undo succeeded: no effect of the step stands any more.
        Succeeded(UndoSucceeded) = "undo.succeeded" {
            /// The step.
            step: StepName,
            /// The attempt that succeeded.
            attempt: u32,
            /// The receipt of the undo, if it returned one.
            #[serde(
                default,
                skip_serializing_if = "Option::is_none",
                deserialize_with = "crate::payload::present"
            )]
            receipt: Option<Payload>,
            /// True when there was nothing to undo.
            #[serde(default, skip_serializing_if = "std::ops::Not::not")]
            nothing: bool,
            /// The answer of the component's `probe`, if it was asked.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            probe: Option<Fate>,
        }
        /// An attempt of `compensate` failed and will be retried.
        Failed(UndoFailed) = "undo.failed" {
            /// The step.
            step: StepName,
            /// The attempt.
            attempt: u32,
            /// The class of the failure: retryable or unknown.
            class: FailureClass,
            /// What went wrong.
            error: Failure,
            /// When the next attempt is due.
            retry_at: Timestamp,
            /// The answer of the component's `probe`, if it was asked.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            probe: Option<Fate>,
        }
        /// `compensate` failed for good. The effect stands until an operator acts.
        Blocked(UndoBlocked) = "undo.blocked" {
            /// The step.
            step: StepName,
            /// The last attempt.
            attempt: u32,
            /// The class of the failure.
            class: FailureClass,
            /// What went wrong.
            error: Failure,
            /// The answer of the component's `probe`, if it was asked.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            probe: Option<Fate>,
        }
    }
    /// An operator gave an order, or wrote a note.
    Operator(OperatorEvent) {
        /// An operator cancelled the saga.
        Cancelled(OperatorCancelled) = "operator.cancelled" {
            /// Who gave the order.
            who: String,
            /// The reason that they gave.
            reason: String,
        }
        /// An operator had the saga compensated, perhaps after it completed.
        Compensated(OperatorCompensated) = "operator.compensated" {
            /// Who gave the order.
            who: String,
            /// The reason that they gave.
            reason: String,
        }
        /// An operator paused the saga: no call begins.
        Paused(OperatorPaused) = "operator.paused" {
            /// Who gave the order.
            who: String,
            /// The reason that they gave.
            reason: String,
        }
        /// An operator resumed the saga.
        Resumed(OperatorResumed) = "operator.resumed" {
            /// Who gave the order.
            who: String,
            /// The reason that they gave.
            reason: String,
        }
        /// An operator had a call retried, with as many attempts as at first.
        Retried(OperatorRetried) = "operator.retried" {
            /// Who gave the order.
            who: String,
            /// The reason that they gave.
            reason: String,
            /// The step.
            step: StepName,
            /// The input of the step's later calls, if the operator edited it.
            #[serde(
                default,
                skip_serializing_if = "Option::is_none",
                deserialize_with = "crate::payload::present"
            )]
            input: Option<Payload>,
            /// True when the step's later calls carry a new idempotency key: the input was edited, and
            /// no effect of an earlier call can stand.
            #[serde(default, skip_serializing_if = "std::ops::Not::not")]
            new_key: bool,
            /// The component that serves the step's calls in the direction that failed, until the next
            /// such order. None when the usual component serves them.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            digest: Option<Digest>,
        }
        /// An operator skipped the step or its undo; the saga goes on without it.
        Skipped(OperatorSkipped) = "operator.skipped" {
            /// Who gave the order.
            who: String,
            /// The reason that they gave.
            reason: String,
            /// The step.
            step: StepName,
        }
        /// An operator resolved a call: they found out what became of it, or did its work by hand.
        Resolved(OperatorResolved) = "operator.resolved" {
            /// Who resolved it.
            who: String,
            /// The reason that they gave.
            reason: String,
            /// The step.
            step: StepName,
            /// True when the call happened.
            happened: bool,
            /// The output of the call; none when it is unknown.
            #[serde(
                default,
                skip_serializing_if = "Option::is_none",
                deserialize_with = "crate::payload::present"
            )]
            output: Option<Payload>,
            /// The evidence: how the operator knows.
            evidence: String,
        }
        /// An operator added a note to the saga, in whatever status. It changes nothing else.
        Noted(OperatorNoted) = "operator.noted" {
            /// Who wrote the note.
            who: String,
            /// The text of the note.
            reason: String,
        }
        /// An operator abandoned the saga.
        Abandoned(OperatorAbandoned) = "operator.abandoned" {
            /// Who gave the order.
            who: String,
            /// The reason that they gave.
            reason: String,
        }
    }
    /// Something happened to a signal.
    Signal(SignalEvent) {
        /// A signal arrived. The saga keeps it until a step waits for it.
        Received(SignalReceived) = "signal.received" {
            /// The name of the signal.
            name: SignalName,
            /// The sender's id of the signal. A second signal with the same id is discarded.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            id: Option<String>,
            /// The payload of the signal.
            payload: Payload,
            /// Who sent the signal; unknown for signals that earlier versions recorded.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            who: Option<String>,
        }
    }
}
