//! The state of one step or element.

use std::sync::Arc;

use super::orders::{Chosen, Ordered};
use super::progress::{Progress, StepOutcome};
use crate::call::{Direction, Failure};
use crate::ids::{Digest, SagaId, Timestamp};
use crate::payload::Payload;

/// The state of one step or element of a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, as the log tells it")]
pub(crate) struct StepState {
    pub(crate) progress: Progress,
    /// The attempts of `execute` so far.
    pub(crate) attempts: u32,
    /// The attempts of `compensate` so far.
    pub(crate) undo_attempts: u32,
    /// The attempts of each that do not count: those before an operator had the call retried, and
    /// the trials of a circuit breaker.
    pub(crate) attempts_before: u32,
    pub(crate) undo_attempts_before: u32,
    /// The attempts of each whose outcome was unknown.
    pub(crate) attempts_unknown: u32,
    pub(crate) undo_attempts_unknown: u32,
    /// When the last attempt of each began.
    pub(crate) began_at: Option<Timestamp>,
    pub(crate) undo_began_at: Option<Timestamp>,
    /// When the attempt of each before that one began.
    pub(crate) earlier_began_at: Option<Timestamp>,
    pub(crate) earlier_undo_began_at: Option<Timestamp>,
    /// How often each got a new idempotency key.
    pub(crate) key_generation: u32,
    pub(crate) undo_key_generation: u32,
    /// The saga that the last attempt of `execute` started, if the step runs one.
    pub(crate) child: Option<SagaId>,
    /// The input of its calls, if an operator edited it.
    pub(crate) input: Option<Payload>,
    /// The component of its calls, if an operator chose one.
    pub(crate) chosen: Option<Arc<Chosen>>,
    /// Who resolved or skipped the step or its undo. A later call clears this.
    pub(crate) by_hand: Option<Arc<Ordered>>,
    /// True when its undo found nothing to undo.
    pub(crate) undid_nothing: bool,
    /// True when its next call needs an erased value, so that only an operator moves it.
    pub(crate) lacks_values: bool,
    /// The component of the last `execute`.
    pub(crate) digest: Option<Digest>,
    /// The component of the last `compensate`.
    pub(crate) undo_digest: Option<Digest>,
    /// The output of the step, once it has succeeded and if it is known. Its undo keeps it.
    pub(crate) output: Option<Payload>,
    /// True when some attempt was unknown: an effect may stand, even if a later attempt failed.
    pub(crate) tainted: bool,
    /// True when some attempt of `compensate` was unknown: the effect may no longer stand.
    pub(crate) undo_tainted: bool,
    /// The last failure.
    pub(crate) error: Option<Arc<Failure>>,
    /// When its first attempt or its wait began.
    pub(crate) started_at: Option<Timestamp>,
    /// When its last attempt ended.
    pub(crate) ended_at: Option<Timestamp>,
}

impl StepState {
    /// Returns the time that it waits for. None when only an operator moves it.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        self.timer().filter(|_| !self.lacks_values).map(|(_, due)| due)
    }

    /// Returns when the time that it waits for was set, and that time.
    pub(crate) fn timer(&self) -> Option<(Timestamp, Timestamp)> {
        let mut progress = self.progress;
        progress.timer_mut().map(|(since, due)| (*since, *due))
    }

    /// Returns the generation of the idempotency key that calls of this direction carry now.
    pub(crate) fn generation(&self, direction: Direction) -> u32 {
        match direction {
            Direction::Execute => self.key_generation,
            Direction::Compensate => self.undo_key_generation,
        }
    }

    /// Returns where it stood before its undo began: succeeded or unknown.
    pub(crate) fn stood(&self) -> Progress {
        let is_certain = self.output.is_some();
        Progress::Settled(if is_certain { StepOutcome::Succeeded } else { StepOutcome::Unknown })
    }
}

impl Default for StepState {
    fn default() -> Self {
        Self {
            progress: Progress::Pending,
            attempts: 0,
            undo_attempts: 0,
            attempts_before: 0,
            undo_attempts_before: 0,
            attempts_unknown: 0,
            undo_attempts_unknown: 0,
            began_at: None,
            undo_began_at: None,
            earlier_began_at: None,
            earlier_undo_began_at: None,
            key_generation: 0,
            undo_key_generation: 0,
            child: None,
            input: None,
            digest: None,
            undo_digest: None,
            chosen: None,
            by_hand: None,
            undid_nothing: false,
            lacks_values: false,
            output: None,
            tainted: false,
            undo_tainted: false,
            error: None,
            started_at: None,
            ended_at: None,
        }
    }
}
