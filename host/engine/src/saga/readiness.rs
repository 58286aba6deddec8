//! What may begin, and what still stands.

use super::fan_out::FanOut;
use super::progress::{Progress, StepOutcome, UndoProgress};
use super::state::{Phase, Saga};
use super::step_state::StepState;

impl Saga {
    /// Returns true when the saga is past its pivot. A skipped pivot counts, because nothing after
    /// it has an undo.
    pub(crate) fn is_past_pivot(&self) -> bool {
        self.definition.pivot().is_some_and(|pivot| self.steps[pivot].progress.is_done())
    }

    /// Returns true when it is not known yet whether the saga is past its pivot: the pivot's call
    /// is in flight, or an attempt of it was unknown and another one follows.
    pub(crate) fn is_at_pivot(&self) -> bool {
        self.definition.pivot().is_some_and(|pivot| {
            let step = &self.steps[pivot];
            // Pending and tainted means that an operator had it retried.
            let tried_again =
                matches!(step.progress, Progress::Pending | Progress::BackingOff { .. });
            step.progress == Progress::Running || tried_again && step.tainted
        })
    }

    /// Returns true when a step is a pivot that may have happened and that has no undo.
    pub(crate) fn is_unknown_pivot(&self, step: usize) -> bool {
        self.definition.pivot() == Some(step)
            && self.steps[step].progress == Progress::Settled(StepOutcome::Unknown)
            && self.spec(step).undo.is_none()
    }

    /// Returns true when a step has not begun, the start time of the saga has come and everything
    /// before the step is done. An element depends on nothing else, because its step began after
    /// everything before it was done.
    pub(crate) fn is_ready(&self, step: usize) -> bool {
        self.steps[step].progress == Progress::Pending
            && self.start_at.is_none()
            && (step >= self.definition.steps().len() || self.dependencies_are_done(step))
    }

    /// Returns true when every step that a step comes after is done.
    fn dependencies_are_done(&self, step: usize) -> bool {
        self.definition.step(step).after.iter().all(|dep| self.steps[dep].progress.is_done())
    }

    /// Returns the index before which elements of a fan-out may begin their call or undo. This
    /// keeps the limit on elements under way; those that wait for their next attempt count.
    pub(crate) fn may_begin_until(&self, fan_out: &FanOut) -> usize {
        let is_forward = self.phase == Phase::Forward;
        let steps = || fan_out.range().zip(&self.steps[fan_out.range()]);
        let is_under_way = |step: &StepState| match step.progress {
            Progress::Running | Progress::BackingOff { .. } => is_forward,
            Progress::Undo(UndoProgress::Running | UndoProgress::BackingOff { .. }) => !is_forward,
            Progress::Undo(
                UndoProgress::Blocked | UndoProgress::Undone | UndoProgress::Skipped,
            )
            | Progress::Pending
            | Progress::Waiting { .. }
            | Progress::FannedOut
            | Progress::Settled(_) => false,
        };
        let waits = |step: &StepState| match step.progress {
            Progress::Pending => is_forward,
            Progress::Settled(_) => !is_forward && step.progress.may_stand(),
            Progress::Waiting { .. }
            | Progress::Running
            | Progress::FannedOut
            | Progress::BackingOff { .. }
            | Progress::Undo(_) => false,
        };
        let each = self.definition.steps()[fan_out.step].each.as_ref();
        let concurrency = each.map_or(0, |each| each.concurrency);
        let under_way = steps().filter(|(_, step)| is_under_way(step)).count();
        let free = concurrency.saturating_sub(under_way);
        let next = steps().filter(|(_, step)| waits(step)).nth(free);
        next.map_or(fan_out.range().end, |(index, _)| index)
    }

    /// Returns true when no effect of a step stands or can still come to stand. For a step over a
    /// list, no effect of its elements.
    pub(crate) fn is_clear(&self, step: usize) -> bool {
        let mut elements = self.elements(step);
        if !elements.is_empty() {
            return elements.all(|element| self.is_clear(element));
        }
        match self.steps[step].progress {
            Progress::Pending
            | Progress::FannedOut
            | Progress::Settled(StepOutcome::Failed | StepOutcome::Skipped)
            | Progress::Undo(UndoProgress::Undone | UndoProgress::Skipped) => true,
            Progress::Settled(StepOutcome::Succeeded) => {
                self.spec(step).undo.is_none() || self.runs_over_list(step)
            }
            // `undo = false` means that there is nothing to undo. For a pivot it means that nothing
            // may be undone, so an operator must find out what happened.
            Progress::Settled(StepOutcome::Unknown) => {
                self.spec(step).undo.is_none() && !self.is_unknown_pivot(step)
            }
            Progress::Running
            | Progress::Waiting { .. }
            | Progress::BackingOff { .. }
            | Progress::Undo(
                UndoProgress::Running | UndoProgress::BackingOff { .. } | UndoProgress::Blocked,
            ) => false,
        }
    }

    /// Returns true when the effect of a step stands or may stand, it has an undo, and every step
    /// after it is clear.
    pub(crate) fn is_undo_ready(&self, step: usize) -> bool {
        self.steps[step].progress.may_stand()
            && self.spec(step).undo.is_some()
            && !self.runs_over_list(step)
            && {
                let built_on_it = self.definition.step(self.step_of(step)).descendants;
                built_on_it.iter().all(|other| self.is_clear(other))
            }
    }

    /// Returns true when the undo of a step is due and has not begun. Its component or its service
    /// may be missing, or the saga may be paused.
    pub(crate) fn undo_waits(&self, step: usize) -> bool {
        matches!(self.phase, Phase::Compensating(_)) && self.is_undo_ready(step)
    }

    /// Returns true when an earlier call of a step may have had its effect, in the direction in
    /// which the step would be retried. A call that lacks values may have been made after the backup that
    /// the store was restored from.
    pub(crate) fn may_have_acted(&self, index: usize) -> bool {
        let step = &self.steps[index];
        let is_undo = step.progress.undo_has_failed();
        step.lacks_values || if is_undo { step.undo_tainted } else { step.tainted }
    }

    /// Returns true when only an operator can move a step.
    pub(crate) fn needs_operator(&self, index: usize) -> bool {
        if self.steps[index].lacks_values {
            return true;
        }
        match self.steps[index].progress {
            Progress::Settled(StepOutcome::Failed | StepOutcome::Unknown) => {
                self.phase == Phase::Forward || self.is_unknown_pivot(index)
            }
            Progress::Undo(UndoProgress::Blocked) => true,
            Progress::Settled(StepOutcome::Succeeded | StepOutcome::Skipped)
            | Progress::Pending
            | Progress::Waiting { .. }
            | Progress::Running
            | Progress::FannedOut
            | Progress::BackingOff { .. }
            | Progress::Undo(
                UndoProgress::Running
                | UndoProgress::BackingOff { .. }
                | UndoProgress::Undone
                | UndoProgress::Skipped,
            ) => false,
        }
    }
}
