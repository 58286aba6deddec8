//! A step of a saga as a reader sees it.

use super::orders::{Chosen, Ordered};
use super::progress::Progress;
use super::state::Saga;
use crate::call::Failure;
use crate::definition::StepSpec;
use crate::ids::{Digest, SagaId, StepName, Timestamp};
use crate::payload::Payload;
use crate::status::StepStatus;

/// One step or element as a reader sees it.
#[derive(Debug, Clone)]
pub struct StepView<'a> {
    /// The name of the step.
    pub name: &'a StepName,
    /// The spec of the step, or of the step that the element belongs to.
    pub spec: &'a StepSpec,
    /// The status of the step.
    pub status: StepStatus,
    /// The number of attempts of `execute`.
    pub attempts: u32,
    /// The number of attempts of `compensate`.
    pub undo_attempts: u32,
    /// The generation of the idempotency key that its calls of `execute` carry, see
    /// [`crate::idempotency_key`].
    pub generation: u32,
    /// The generation of the idempotency key that its calls of `compensate` carry.
    pub undo_generation: u32,
    /// The input of its calls, if an operator edited it.
    pub edited_input: Option<&'a Payload>,
    /// The output of `execute`, if it is known.
    pub output: Option<&'a Payload>,
    /// The last failure.
    pub error: Option<&'a Failure>,
    /// The component of its calls, if an operator chose one.
    pub chosen: Option<&'a Chosen>,
    /// Who resolved or skipped the step or its undo. A later call clears this.
    pub by_hand: Option<&'a Ordered>,
    /// True when its undo found nothing to undo.
    pub undid_nothing: bool,
    /// The component of the last `execute`.
    pub digest: Option<Digest>,
    /// The component of the last `compensate`.
    pub undo_digest: Option<Digest>,
    /// When its first attempt began.
    pub started_at: Option<Timestamp>,
    /// When its last attempt ended.
    pub ended_at: Option<Timestamp>,
    /// When its next attempt is due, or when its wait ends.
    pub next_at: Option<Timestamp>,
    /// The saga that the step runs or ran, if it runs one.
    pub child: Option<SagaId>,
}

impl Saga {
    /// Returns the steps in the order of the definition. The elements of a step over a list follow
    /// it.
    pub fn steps(&self) -> impl Iterator<Item = StepView<'_>> {
        let steps = 0..self.definition.steps().len();
        let with_elements = move |step| std::iter::once(step).chain(self.elements(step));
        steps.flat_map(with_elements).map(|index| self.view(index))
    }

    /// Returns one step or element.
    #[must_use]
    pub fn step(&self, name: &StepName) -> Option<StepView<'_>> {
        self.index_of(name).map(|index| self.view(index))
    }

    /// Returns a step or element by index.
    fn view(&self, index: usize) -> StepView<'_> {
        let step = &self.steps[index];
        StepView {
            name: self.name(index),
            spec: self.spec(index),
            status: self.step_status(index),
            attempts: step.attempts,
            undo_attempts: step.undo_attempts,
            generation: step.key_generation,
            undo_generation: step.undo_key_generation,
            edited_input: step.input.as_ref(),
            output: step.output.as_ref(),
            error: step.error.as_deref(),
            chosen: step.chosen.as_deref(),
            by_hand: step.by_hand.as_deref(),
            undid_nothing: step.undid_nothing,
            digest: step.digest,
            undo_digest: step.undo_digest,
            started_at: step.started_at,
            ended_at: step.ended_at,
            next_at: step.next_at(),
            child: self.child(index),
        }
    }

    /// Returns the status of a step. For a step over a list in a compensation, it follows from the
    /// statuses of its elements.
    pub(crate) fn step_status(&self, index: usize) -> StepStatus {
        let own = self.steps[index].progress;
        let elements = || self.elements(index).map(|element| self.steps[element].progress.status());
        if elements().next().is_none() || self.compensating_since.is_none() {
            return own.status();
        }
        let decisive = [
            StepStatus::UndoBlocked,
            StepStatus::Undoing,
            StepStatus::UndoBackingOff,
            StepStatus::Running,
            StepStatus::UndoSkipped,
        ];
        if let Some(status) =
            decisive.into_iter().find(|status| elements().any(|element| element == *status))
        {
            return status;
        }
        if self.is_clear(index) && elements().any(|element| element == StepStatus::Undone) {
            StepStatus::Undone
        } else if own == Progress::FannedOut {
            StepStatus::Failed
        } else {
            own.status()
        }
    }
}
