//! Calls of components, and their outcomes.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ids::{SagaId, StepName, hex};
use crate::payload::Payload;

/// The direction of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The call does the step.
    Execute,
    /// The call undoes the step.
    Compensate,
}

impl Direction {
    /// Returns `execute` or `compensate`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Compensate => "compensate",
        }
    }
}

/// A failure, for people (`message`) and for programs (`code`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The code: stable words in lower case, joined by `_`.
    pub code: String,
    /// A sentence for the person on call.
    pub message: String,
    /// The pause before the next attempt, when the guest knows it better than the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// More details, if there are any.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::payload::present"
    )]
    pub details: Option<Payload>,
}

impl Failure {
    /// Makes a failure with a code and a message only.
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retry_after_ms: None, details: None }
    }
}

/// The outcome of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The call succeeded, with the output of `execute` or the receipt (or `null`) of `compensate`.
    Succeeded(Payload),
    /// `compensate` succeeded: there was nothing to undo.
    NothingToUndo,
    /// The call failed. No effect stands, and another attempt would not help.
    Permanent(Failure),
    /// The call failed. No effect stands, and another attempt may help.
    Retryable(Failure),
    /// The effect may stand: after a trap, a timeout, a lost reply or a crash of the host.
    Unknown(Failure),
}

/// Writes the outcome for people: `answered {…}`, `found nothing to undo`, or
/// `failed (permanent) with CODE: MESSAGE`.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (class, failure) = match self {
            Self::Succeeded(output) => return write!(f, "answered {}", output.as_str()),
            Self::NothingToUndo => return f.write_str("found nothing to undo"),
            Self::Permanent(failure) => (FailureClass::Permanent, failure),
            Self::Retryable(failure) => (FailureClass::Retryable, failure),
            Self::Unknown(failure) => (FailureClass::Unknown, failure),
        };
        write!(f, "failed ({}) with {}: {}", class.as_str(), failure.code, failure.message)
    }
}

/// The answer of a component's `probe` about a call whose reply was lost. It is about the
/// idempotency key, so also about every earlier attempt with that key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The call happened.
    Happened,
    /// The call did not happen, and will not.
    DidNotHappen,
    /// The component cannot tell.
    Unclear,
}

/// The class of a failed call, as events, logs and metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Another attempt would not help.
    Permanent,
    /// Another attempt may help.
    Retryable,
    /// It is unknown whether the effect stands.
    Unknown,
}

impl FailureClass {
    /// Returns `permanent`, `retryable` or `unknown`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Retryable => "retryable",
            Self::Unknown => "unknown",
        }
    }
}

/// Returns the idempotency key of the calls of a step of a saga in one direction. It is the same for
/// every attempt, and after every restart: the first 128 bits of the SHA-256 of saga, step, direction
/// and generation, as 32 hexadecimal digits.
///
/// `generation` counts, from 0, how often a new key began because the input was edited. Services
/// refuse a key that they know with another body. While an effect of an earlier attempt may stand, the
/// key stays the same, so that the effect cannot happen twice.
#[must_use]
pub fn idempotency_key(
    saga: SagaId,
    step: &StepName,
    direction: Direction,
    generation: u32,
) -> String {
    let mut hash = Sha256::new();
    hash.update(saga.as_bytes());
    hash.update(step.as_str().as_bytes());
    hash.update([0]);
    hash.update(direction.as_str().as_bytes());
    if generation > 0 {
        hash.update([0]);
        hash.update(generation.to_be_bytes());
    }
    hex(&hash.finalize()[..16])
}

/// The longest timeout of a call that a definition may have. With a longer one the host could not
/// stop in reasonable time.
pub const TIMEOUT_MAX: Duration = Duration::from_hours(1);
