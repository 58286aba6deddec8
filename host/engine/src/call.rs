//! What a call of a component is and what comes of it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ids::{SagaId, StepName, hex};
use crate::payload::Payload;

/// Which way a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Does the step.
    Execute,
    /// Undoes it.
    Compensate,
}

impl Direction {
    /// `execute` or `compensate`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Compensate => "compensate",
        }
    }
}

/// What went wrong, for people (`message`) and for programs (`code`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable, lower case, words joined by `_`.
    pub code: String,
    /// A sentence for the person on call.
    pub message: String,
    /// How long to wait before the next attempt, when the guest knows better than the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Anything else worth keeping.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::payload::present"
    )]
    pub details: Option<Payload>,
}

impl Failure {
    /// A failure with a code and a message only.
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retry_after_ms: None, details: None }
    }
}

/// What came of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was done: the output of `execute`, the receipt (or `null`) of `compensate`.
    Succeeded(Payload),
    /// `compensate` found that there was nothing to undo. A success.
    NothingToUndo,
    /// No effect stands, another attempt would not help.
    Permanent(Failure),
    /// No effect stands, another attempt may help.
    Retryable(Failure),
    /// The effect may stand: a trap, a timeout, a lost reply, the host's death.
    Unknown(Failure),
}

/// For people: `answered {…}`, `found nothing to undo`, `failed (permanent) with CODE: MESSAGE`.
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

/// What a component found out about a call whose reply was lost, when it was asked (`probe`).
/// It is about the idempotency key, so about every attempt before it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It happened.
    Happened,
    /// It did not happen, and will not.
    DidNotHappen,
    /// Cannot be told.
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
    /// Nobody knows whether the effect stands.
    Unknown,
}

impl FailureClass {
    /// `permanent`, `retryable` or `unknown`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Retryable => "retryable",
            Self::Unknown => "unknown",
        }
    }
}

/// The same for every attempt of a step of a saga in one direction, and after every restart:
/// the first 128 bits of the SHA-256 of the three, as 32 hexadecimal digits.
///
/// `generation` counts from 0 the edits of the call's input after which a new key began: a service
/// refuses a key that it knows with another body. While an effect of an earlier attempt may stand,
/// the key stays, so that the effect cannot come twice.
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

/// The longest that one call may take, whatever the definition says: past it the host cannot
/// stop in reasonable time.
pub const TIMEOUT_MAX: Duration = Duration::from_hours(1);
