//! What the rules know: what the log says, and what the world saw.

use crate::event::Event;
use crate::{Definition, Outcome, StepName};

/// What the events so far say, kept apart from [`crate::Saga`].
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, as the log tells it")]
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    pub(super) steps: Vec<StepRecord>,
    pub(super) is_compensating: bool,
    pub(super) is_cancelled: bool,
    pub(super) is_blocked: bool,
    pub(super) has_ended: bool,
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
            Event::StepSucceeded(e) => {
                let step = StepRecord { is_executing: false, has_succeeded: true, ..step(&e.step) };
                (&e.step, step)
            }
            Event::StepFailed(e) => {
                let has_failed = e.retry_at.is_none();
                (&e.step, StepRecord { is_executing: false, has_failed, ..step(&e.step) })
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
            Event::SagaCompleted(_) | Event::SagaCompensated(_) => {
                self.has_ended = true;
                return;
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
