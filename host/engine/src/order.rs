//! The words of an operator's order, and of its refusal.

use crate::ids::{Digest, StepName};
use crate::payload::Payload;

/// One order of an operator about a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Who gives the order.
    pub who: String,
    /// The reason that they give.
    pub reason: String,
    /// What is to be done.
    pub verb: Verb,
}

/// What an order does.
///
/// Some verbs are about a step. When the order names none, it is about the only step that needs it.
/// A retry without a name is about every such step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Compensate a saga that has not completed.
    Cancel,
    /// Compensate a saga, also one that has completed.
    Compensate,
    /// Compensate a saga because the saga that started it is compensated. The limit
    /// `compensate_within` is for operators and does not apply.
    CompensateWithParent,
    /// Begin no call until the saga is resumed.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Retry a call now, with as many attempts as at first.
    Retry {
        /// The step.
        step: Option<StepName>,
        /// The input of its later calls, when it is edited.
        input: Option<Payload>,
        /// The component of its later calls, until the next such order. None when the usual
        /// component serves them.
        digest: Option<Digest>,
    },
    /// Go on without the step, or without its undo; the effect then stands.
    Skip {
        /// The step.
        step: Option<StepName>,
        /// True when the order is about the undo of the step, also one that has not begun.
        undo: bool,
    },
    /// Record what became of a call: the operator found out, or did its work by hand.
    Resolve {
        /// The step.
        step: Option<StepName>,
        /// For a step, whether it happened. For a blocked undo, true when it was undone by hand,
        /// false when there was nothing to undo.
        happened: bool,
        /// The output of the step, if it is known.
        output: Option<Payload>,
        /// The evidence: how the operator knows.
        evidence: String,
        /// True when the order is about the undo of the step, also one that has not begun.
        undo: bool,
    },
    /// End the saga as it is; effects may stand.
    Abandon,
    /// Add a note to the saga, in any status. It changes nothing else.
    Note,
}

impl Verb {
    /// Returns the word of the API and the command line.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Compensate | Self::CompensateWithParent => "compensate",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Retry { .. } => "retry",
            Self::Skip { .. } => "skip",
            Self::Resolve { .. } => "resolve",
            Self::Abandon => "abandon",
            Self::Note => "note",
        }
    }
}

/// The reason why an order or a signal is refused in the current state of the saga.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {remedy}")]
pub struct Refusal {
    /// What prevents it.
    pub message: String,
    /// What the caller can do instead.
    pub remedy: String,
}
