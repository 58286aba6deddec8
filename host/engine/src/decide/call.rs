//! What follows from a call: that it begins, and what came of it.

use std::time::Duration;

use super::{Draft, awaits};
use crate::backoff::pause;
use crate::call::{Direction, Failure, FailureClass, Fate, Outcome};
use crate::definition::StepKind;
use crate::emitted::Emitted;
use crate::event::{
    StepFailed, StepStarted, StepSucceeded, StepUnknown, UndoBlocked, UndoFailed, UndoStarted,
    UndoSucceeded,
};
use crate::ids::{Digest, StepName, Timestamp};
use crate::payload::Payload;
use crate::saga::Phase;

/// What is told of a call that came back.
pub(super) struct Told {
    pub(super) outcome: Outcome,
    pub(super) probe: Option<Fate>,
    pub(super) emitted: Vec<Emitted>,
}

/// How an attempt of `execute` failed.
pub(super) struct Failed {
    pub(super) attempt: u32,
    pub(super) class: FailureClass,
    pub(super) error: Failure,
    pub(super) probe: Option<Fate>,
}

impl Draft<'_> {
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
        // One attempt means that it is never called twice.
        let trial = is_trial && retry.is_some_and(|retry| retry.attempts > 1);
        match direction {
            Direction::Execute => {
                let attempt = state.attempts + 1;
                let runs_saga = matches!(spec.kind, StepKind::Saga { .. });
                // What the one before did may stand: a second one would do it again.
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

    pub(super) fn outcome(
        &mut self,
        step: StepName,
        direction: Direction,
        attempt: u32,
        told: Told,
    ) {
        let Some(index) = self.saga.index_of(&step) else { return };
        if !awaits(self.saga, &step, direction, attempt) {
            return;
        }
        match direction {
            Direction::Execute => self.executed(index, step, attempt, told),
            Direction::Compensate => self.compensated(index, step, attempt, told),
        }
    }

    /// The step fails without another attempt.
    pub(super) fn refuse(&mut self, step: StepName, error: Failure) {
        let Some(index) = self.saga.index_of(&step) else { return };
        let is_due = crate::commands::due(self.saga, index).is_some_and(|due| {
            due.direction == Direction::Execute && due.at.is_none_or(|at| at <= self.at)
        });
        if is_due {
            let attempt = self.saga.steps[index].attempts;
            let failed = Failed { attempt, class: FailureClass::Permanent, error, probe: None };
            self.fail(index, step, failed, None);
        }
    }

    fn executed(&mut self, index: usize, step: StepName, attempt: u32, told: Told) {
        let Told { outcome, probe, emitted } = told;
        let (class, error) = match outcome {
            Outcome::Succeeded(output) => {
                self.emit(StepSucceeded { step, attempt, output, probe });
                self.tell(emitted);
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
            // A saga that was given up stays so.
            FailureClass::Unknown if runs_saga => None,
            // What was in flight when the saga began to be undone settles without another try.
            FailureClass::Retryable | FailureClass::Unknown if !self.may_retry() => None,
            FailureClass::Retryable | FailureClass::Unknown => {
                let retry = &self.saga.spec(index).retry;
                let before = self.saga.steps[index].attempts_before;
                pause(retry, (self.saga.id, &step), Direction::Execute, attempt, before)
                    .map(|pause| self.at.after(pause.max(retry_after(&error))))
            }
        };
        self.fail(index, step, Failed { attempt, class, error, probe }, retry_at);
    }

    /// A component that looks and finds nothing does not know of a request that is still on its way:
    /// that a call did not happen is believed once its own timeout has passed since it began. Until
    /// then nobody knows.
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

    /// A step whose effect may stand does not fail, whatever its last attempt says: it ends
    /// unknown. Unless its component was asked and says that nothing happened.
    pub(super) fn fail(
        &mut self,
        index: usize,
        step: StepName,
        failed: Failed,
        retry_at: Option<Timestamp>,
    ) {
        let Failed { attempt, class, error, probe } = failed;
        let may_stand = self.saga.steps[index].tainted && probe != Some(Fate::DidNotHappen);
        if class == FailureClass::Unknown || may_stand && retry_at.is_none() {
            self.emit(StepUnknown { step, attempt, error, retry_at, probe });
        } else {
            self.emit(StepFailed { step, attempt, class, error, retry_at, probe });
        }
    }

    fn tell(&mut self, emitted: Vec<Emitted>) {
        for event in emitted {
            self.emit(event);
        }
    }

    fn may_retry(&self) -> bool {
        self.saga.phase == Phase::Forward
    }

    fn compensated(&mut self, index: usize, step: StepName, attempt: u32, told: Told) {
        let Told { outcome, probe, emitted } = told;
        let (class, error) = match outcome {
            Outcome::Succeeded(receipt) => {
                let receipt = Some(receipt).filter(|receipt| *receipt != Payload::null());
                self.emit(UndoSucceeded { step, attempt, receipt, nothing: false, probe });
                self.tell(emitted);
                return;
            }
            Outcome::NothingToUndo => {
                self.emit(UndoSucceeded { step, attempt, receipt: None, nothing: true, probe });
                self.tell(emitted);
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

fn retry_after(error: &Failure) -> Duration {
    // A guest must not be able to put a saga to sleep for ever.
    let millis = error.retry_after_ms.unwrap_or(0);
    Duration::from_millis(millis).min(crate::RETRY_AFTER_MAX)
}
