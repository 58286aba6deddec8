//! What follows when a call begins and when it ends.

use std::time::Duration;

use super::draft::Draft;
use crate::backoff::pause;
use crate::call::{Direction, Failure, FailureClass, Fate, Outcome};
use crate::definition::StepKind;
use crate::emitted::Emitted;
use crate::event::{
    StepFailed, StepStarted, StepSucceeded, StepUnknown, UndoBlocked, UndoFailed, UndoStarted,
    UndoSucceeded,
};
use crate::ids::{Digest, StepName, Timestamp};
use crate::limits::RETRY_AFTER_MAX;
use crate::payload::Payload;
use crate::saga::{Phase, Progress, Saga, UndoProgress};

/// The end of a call.
pub(super) struct CallEnd {
    pub(super) outcome: Outcome,
    pub(super) probe: Option<Fate>,
    pub(super) emitted: Vec<Emitted>,
}

/// An attempt of `execute` that failed.
pub(super) struct FailedAttempt {
    pub(super) attempt: u32,
    pub(super) class: FailureClass,
    pub(super) error: Failure,
    pub(super) probe: Option<Fate>,
}

/// Returns true when the outcome of this call counts: its attempt is the one that is running.
#[must_use]
pub fn awaits(saga: &Saga, step: &StepName, direction: Direction, attempt: u32) -> bool {
    let Some(index) = saga.index_of(step).filter(|_| !saga.has_ended()) else { return false };
    let state = &saga.steps[index];
    match direction {
        Direction::Execute => state.progress == Progress::Running && state.attempts == attempt,
        Direction::Compensate => {
            let is_running = state.progress == Progress::Undo(UndoProgress::Running);
            is_running && state.undo_attempts == attempt
        }
    }
}

impl Draft<'_> {
    /// Begins a call that is due now. Anything else changes nothing.
    pub(super) fn admit(
        &mut self,
        (step, direction): (StepName, Direction),
        digest: Digest,
        note: Option<String>,
        is_trial: bool,
    ) {
        let Some(index) = self.saga.index_of(&step) else { return };
        let due = crate::commands::due(self.saga, index)
            .is_some_and(|due| due.direction == direction && due.at.is_none_or(|at| at <= self.at));
        if !due {
            return;
        }
        let (state, spec) = (&self.saga.steps[index], self.saga.spec(index));
        let retry = match direction {
            Direction::Execute => Some(&spec.retry),
            Direction::Compensate => spec.undo.as_ref().map(|undo| &undo.retry),
        };
        // A policy of one attempt means that the step is never called twice.
        let trial = is_trial && retry.is_some_and(|retry| retry.attempts > 1);
        match direction {
            Direction::Execute => {
                let attempt = state.attempts + 1;
                let runs_saga = matches!(spec.kind, StepKind::Saga { .. });
                // The effects of the child before may stand, and a new child would repeat them.
                let before = state.child.filter(|_| state.tainted);
                let child = runs_saga
                    .then(|| before.unwrap_or_else(|| self.saga.id.child(&step, attempt, self.at)));
                self.emit(StepStarted { step, attempt, digest, child, trial });
            }
            Direction::Compensate => {
                let attempt = state.undo_attempts + 1;
                self.emit(UndoStarted { step, attempt, digest, note, trial });
            }
        }
    }

    /// Records the end of a call. A late or repeated end changes nothing.
    pub(super) fn outcome(
        &mut self,
        step: StepName,
        direction: Direction,
        attempt: u32,
        end: CallEnd,
    ) {
        let Some(index) = self.saga.index_of(&step) else { return };
        if !awaits(self.saga, &step, direction, attempt) {
            return;
        }
        match direction {
            Direction::Execute => self.executed(index, step, attempt, end),
            Direction::Compensate => self.compensated(index, step, attempt, end),
        }
    }

    /// Fails a step whose call is due and will not run.
    pub(super) fn refuse(&mut self, step: StepName, error: Failure) {
        let Some(index) = self.saga.index_of(&step) else { return };
        let is_due = crate::commands::due(self.saga, index).is_some_and(|due| {
            due.direction == Direction::Execute && due.at.is_none_or(|at| at <= self.at)
        });
        if is_due {
            let attempt = self.saga.steps[index].attempts;
            let failed =
                FailedAttempt { attempt, class: FailureClass::Permanent, error, probe: None };
            self.fail(index, step, failed, None);
        }
    }

    /// Records the end of a call of `execute`.
    fn executed(&mut self, index: usize, step: StepName, attempt: u32, end: CallEnd) {
        let CallEnd { outcome, probe, emitted } = end;
        let (class, error) = match outcome {
            Outcome::Succeeded(output) => {
                self.emit(StepSucceeded { step, attempt, output, probe });
                self.record_emitted(emitted);
                return;
            }
            Outcome::NothingToUndo => (
                FailureClass::Unknown,
                Failure::new("invalid_outcome", "execute answered as if it were an undo"),
            ),
            Outcome::Permanent(error) => (FailureClass::Permanent, error),
            Outcome::Retryable(error) => (FailureClass::Retryable, error),
            Outcome::Unknown(error) => (FailureClass::Unknown, error),
        };
        let (class, error) = self.believed(index, Direction::Execute, probe, (class, error));
        let runs_saga = matches!(self.saga.spec(index).kind, StepKind::Saga { .. });
        let retry_at = match class {
            FailureClass::Permanent => None,
            // A child that was abandoned stays abandoned.
            FailureClass::Unknown if runs_saga => None,
            // Calls in flight when the compensation began are not retried.
            FailureClass::Retryable | FailureClass::Unknown if !self.may_retry() => None,
            FailureClass::Retryable | FailureClass::Unknown => {
                let retry = &self.saga.spec(index).retry;
                let before = self.saga.steps[index].attempts_before;
                pause(retry, (self.saga.id, &step), Direction::Execute, attempt, before)
                    .map(|pause| self.at.after(pause.max(retry_after(&error))))
            }
        };
        self.fail(index, step, FailedAttempt { attempt, class, error, probe }, retry_at);
    }

    /// Returns the class and the error that a failed call counts with.
    ///
    /// A component that is asked may find no effect while the request is still on its way. So the
    /// answer "it did not happen" counts only after the call's timeout has passed since the call
    /// began. Before that, the call is unknown.
    fn believed(
        &self,
        index: usize,
        direction: Direction,
        probe: Option<Fate>,
        (class, mut error): (FailureClass, Failure),
    ) -> (FailureClass, Failure) {
        let (state, spec) = (&self.saga.steps[index], self.saga.spec(index));
        let (began_at, timeout) = match direction {
            Direction::Execute => (state.began_at, Some(spec.timeout)),
            Direction::Compensate => {
                (state.undo_began_at, spec.undo.as_ref().map(|undo| undo.timeout))
            }
        };
        let timeout = timeout.unwrap_or_default();
        let is_early = began_at.is_some_and(|began_at| self.at.since(began_at) < timeout);
        if probe != Some(Fate::DidNotHappen) || !is_early {
            return (class, error);
        }
        error.message += "; its component finds that it did not happen, which is believed when \
                          the call's timeout has passed";
        (FailureClass::Unknown, error)
    }

    /// Records a failed attempt of `execute`. A step whose effect may stand ends as unknown and not
    /// as failed, whatever its last attempt says. Exception: its component was asked and says that
    /// nothing happened.
    pub(super) fn fail(
        &mut self,
        index: usize,
        step: StepName,
        failed: FailedAttempt,
        retry_at: Option<Timestamp>,
    ) {
        let FailedAttempt { attempt, class, error, probe } = failed;
        let may_stand = self.saga.steps[index].tainted && probe != Some(Fate::DidNotHappen);
        if class == FailureClass::Unknown || may_stand && retry_at.is_none() {
            self.emit(StepUnknown { step, attempt, error, retry_at, probe });
        } else {
            self.emit(StepFailed { step, attempt, class, error, retry_at, probe });
        }
    }

    /// Records the domain events of a call that succeeded.
    fn record_emitted(&mut self, emitted: Vec<Emitted>) {
        for event in emitted {
            self.emit(event);
        }
    }

    /// Returns true while failed calls of `execute` are retried.
    fn may_retry(&self) -> bool {
        self.saga.phase == Phase::Forward
    }

    /// Records the end of a call of `compensate`.
    fn compensated(&mut self, index: usize, step: StepName, attempt: u32, end: CallEnd) {
        let CallEnd { outcome, probe, emitted } = end;
        let (class, error) = match outcome {
            Outcome::Succeeded(receipt) => {
                let receipt = Some(receipt).filter(|receipt| *receipt != Payload::null());
                self.emit(UndoSucceeded { step, attempt, receipt, nothing: false, probe });
                self.record_emitted(emitted);
                return;
            }
            Outcome::NothingToUndo => {
                self.emit(UndoSucceeded { step, attempt, receipt: None, nothing: true, probe });
                self.record_emitted(emitted);
                return;
            }
            Outcome::Permanent(error) => (FailureClass::Permanent, error),
            Outcome::Retryable(error) => (FailureClass::Retryable, error),
            Outcome::Unknown(error) => (FailureClass::Unknown, error),
        };
        let (class, error) = self.believed(index, Direction::Compensate, probe, (class, error));
        let pause = match class {
            FailureClass::Permanent => None,
            FailureClass::Retryable | FailureClass::Unknown => {
                let before = self.saga.steps[index].undo_attempts_before;
                let this = (self.saga.id, &step);
                self.saga.spec(index).undo.as_ref().and_then(|undo| {
                    pause(&undo.retry, this, Direction::Compensate, attempt, before)
                })
            }
        };
        match pause {
            Some(pause) => {
                let retry_at = self.at.after(pause.max(retry_after(&error)));
                self.emit(UndoFailed { step, attempt, class, error, retry_at, probe });
            }
            None => self.emit(UndoBlocked { step, attempt, class, error, probe }),
        }
    }
}

/// Returns the pause that the guest asks for, limited so that it cannot stop a saga for ever.
fn retry_after(error: &Failure) -> Duration {
    let millis = error.retry_after_ms.unwrap_or(0);
    Duration::from_millis(millis).min(RETRY_AFTER_MAX)
}
