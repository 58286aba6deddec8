//! What the rules know: what the log says, and what the world saw.

use crate::event::Event;
use crate::{Definition, Outcome, StepKind, StepName, Timestamp};

/// What the events so far say, kept apart from [`crate::Saga`].
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, as the log tells it")]
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    pub(super) steps: Vec<StepRecord>,
    pub(super) is_compensating: bool,
    pub(super) is_cancelled: bool,
    pub(super) is_blocked: bool,
    pub(super) is_paused: bool,
    pub(super) is_given_up: bool,
    pub(super) is_completed: bool,
    pub(super) has_ended: bool,
    /// Signals that came, and that steps have taken.
    pub(super) signals: usize,
    pub(super) signals_taken: usize,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, as the log tells it")]
#[derive(Debug, Clone, Default)]
pub(super) struct StepRecord {
    pub(super) attempts: u32,
    pub(super) is_executing: bool,
    pub(super) has_succeeded: bool,
    pub(super) is_skipped: bool,
    /// It failed or is unknown, and no attempt follows.
    pub(super) has_failed: bool,
    pub(super) undo_attempts: u32,
    pub(super) is_undoing: bool,
    pub(super) is_undone: bool,
    pub(super) is_undo_blocked: bool,
    /// It waits, for ever or until a time.
    pub(super) waits: Option<Option<Timestamp>>,
    /// An operator went on without it, whatever of it stands.
    pub(super) is_let_go: bool,
    /// Attempts that do not count, because an operator had it tried again.
    pub(super) attempts_before: u32,
    pub(super) undo_attempts_before: u32,
}

impl Record {
    pub(super) fn of<'e>(
        definition: &Definition,
        log: impl IntoIterator<Item = &'e Event>,
    ) -> Self {
        let mut record = Self::new(definition);
        for event in log {
            record.apply(definition, event);
        }
        record
    }

    pub(super) fn new(definition: &Definition) -> Self {
        Self { steps: vec![StepRecord::default(); definition.steps().len()], ..Self::default() }
    }

    pub(super) fn apply(&mut self, definition: &Definition, event: &Event) {
        let mut step = |name: &StepName| {
            let index = definition.index_of(name);
            index.map_or_else(StepRecord::default, |index| std::mem::take(&mut self.steps[index]))
        };
        let (name, changed) = match event {
            Event::SagaStarted(_) => return,
            Event::StepStarted(e) => {
                let step = StepRecord { attempts: e.attempt, is_executing: true, ..step(&e.step) };
                (&e.step, step)
            }
            Event::StepWaiting(e) => {
                (&e.step, StepRecord { waits: Some(e.until), ..step(&e.step) })
            }
            Event::StepSucceeded(e) => {
                let waits = None;
                let step =
                    StepRecord { is_executing: false, has_succeeded: true, waits, ..step(&e.step) };
                self.signals_taken += usize::from(is_wait(definition, &e.step));
                (&e.step, step)
            }
            Event::StepFailed(e) => {
                let has_failed = e.retry_at.is_none();
                let waits = None;
                (&e.step, StepRecord { is_executing: false, has_failed, waits, ..step(&e.step) })
            }
            Event::StepUnknown(e) => {
                let has_failed = e.retry_at.is_none();
                (&e.step, StepRecord { is_executing: false, has_failed, ..step(&e.step) })
            }
            Event::StepSkipped(e) => (&e.step, StepRecord { is_skipped: true, ..step(&e.step) }),
            Event::UndoStarted(e) => {
                let step = step(&e.step);
                (&e.step, StepRecord { undo_attempts: e.attempt, is_undoing: true, ..step })
            }
            Event::UndoSucceeded(e) => {
                (&e.step, StepRecord { is_undoing: false, is_undone: true, ..step(&e.step) })
            }
            Event::UndoFailed(e) => (&e.step, StepRecord { is_undoing: false, ..step(&e.step) }),
            Event::UndoBlocked(e) => {
                (&e.step, StepRecord { is_undoing: false, is_undo_blocked: true, ..step(&e.step) })
            }
            Event::CompensationStarted(_) => {
                self.is_compensating = true;
                return;
            }
            Event::SagaCompleted(_) => {
                (self.has_ended, self.is_completed, self.is_paused) = (true, true, false);
                return;
            }
            Event::SagaCompensated(_) | Event::SagaAbandoned(_) => {
                self.has_ended = true;
                return;
            }
            Event::SignalReceived(_) => {
                self.signals += 1;
                return;
            }
            Event::OperatorCompensated(_) => {
                (self.has_ended, self.is_completed, self.is_cancelled) = (false, false, true);
                return;
            }
            Event::OperatorPaused(_) => {
                self.is_paused = true;
                return;
            }
            Event::OperatorResumed(_) => {
                self.is_paused = false;
                return;
            }
            Event::OperatorAbandoned(_) => {
                self.is_given_up = true;
                return;
            }
            Event::OperatorRetried(e) => {
                let step = step(&e.step);
                self.is_blocked = false;
                // Only a pivot is tried again while its saga is being undone.
                self.is_compensating &= step.undo_attempts > 0;
                let (attempts_before, undo_attempts_before) = (step.attempts, step.undo_attempts);
                let fresh = StepRecord { has_failed: false, is_undo_blocked: false, ..step };
                (&e.step, StepRecord { attempts_before, undo_attempts_before, ..fresh })
            }
            Event::OperatorSkipped(e) => {
                let step = step(&e.step);
                self.is_blocked = false;
                let is_skipped = !self.is_compensating;
                let gone = StepRecord { has_failed: false, is_undo_blocked: false, ..step };
                (&e.step, StepRecord { is_skipped, is_let_go: true, waits: None, ..gone })
            }
            Event::OperatorResolved(e) => {
                let step = step(&e.step);
                self.is_blocked = false;
                let is_undo = self.is_compensating && step.undo_attempts > 0;
                let has_succeeded = step.has_succeeded || !is_undo && e.happened;
                self.is_compensating &= is_undo || !e.happened;
                let resolved = StepRecord {
                    has_succeeded,
                    has_failed: step.has_failed && (is_undo || !e.happened),
                    is_undone: is_undo,
                    is_undo_blocked: false,
                    waits: None,
                    ..step
                };
                (&e.step, resolved)
            }
            Event::SagaBlocked(_) => {
                self.is_blocked = true;
                return;
            }
            Event::OperatorCancelled(_) => {
                self.is_cancelled = true;
                return;
            }
        };
        if let Some(index) = definition.index_of(name) {
            self.steps[index] = changed;
        }
    }

    pub(super) fn is_past_pivot(&self, definition: &Definition) -> bool {
        definition.pivot().is_some_and(|pivot| self.steps[pivot].is_done())
    }
}

fn is_wait(definition: &Definition, name: &StepName) -> bool {
    let step = definition.steps().iter().find(|step| step.name == *name);
    step.is_some_and(|step| matches!(step.kind, StepKind::Wait { .. }))
}

impl StepRecord {
    pub(super) fn is_done(&self) -> bool {
        self.has_succeeded || self.is_skipped
    }
}

/// What really happened outside, which the log can only try to tell.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    pub(super) steps: Vec<Effect>,
}

/// The effect of one step.
#[derive(Debug, Clone, Default)]
pub(super) struct Effect {
    /// It stands now.
    pub(super) stands: bool,
    /// It came to stand this often.
    pub(super) times: u32,
    /// What the last call answered, as far as the host heard.
    pub(super) answer: Option<Outcome>,
}
