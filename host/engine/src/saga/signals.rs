//! The signals of a saga: those that arrived, and those that steps wait for.

use super::progress::Progress;
use super::state::{Phase, Saga, Signal};
use super::step_state::StepState;
use crate::definition::{StepKind, StepSpec};
use crate::ids::SignalName;
use crate::payload::Payload;

impl Saga {
    /// Returns the first signal of this name that no step has taken.
    pub(crate) fn signal_mut(&mut self, name: &SignalName) -> Option<&mut Signal> {
        self.signals.iter_mut().find(|signal| signal.name == *name && signal.payload.is_some())
    }

    /// Returns the signals that no step has taken, with their payloads.
    pub fn kept_signals(&self) -> impl Iterator<Item = (&SignalName, &Payload)> {
        let kept = self.signals.iter();
        kept.filter_map(|signal| Some((&signal.name, signal.payload.as_ref()?)))
    }

    /// Returns true when a step waits for a signal of this name, or may do so later.
    pub(crate) fn may_take(&self, name: &SignalName) -> bool {
        let goes_on = match self.phase {
            Phase::Forward => true,
            // The saga goes forward again when an unknown pivot turns out to have happened.
            Phase::Compensating(_) => {
                (0..self.steps.len()).any(|index| self.is_unknown_pivot(index))
            }
            Phase::Completed | Phase::Compensated(_) | Phase::Abandoned(_) => false,
        };
        let takes = |(spec, step): (&StepSpec, &StepState)| {
            let may_wait = matches!(step.progress, Progress::Pending | Progress::Waiting { .. });
            may_wait && matches!(&spec.kind, StepKind::Wait { wait } if wait.signal == *name)
        };
        goes_on && self.definition.steps().iter().zip(&self.steps).any(takes)
    }

    /// Returns true when a step waits for a signal of this name now.
    #[must_use]
    pub fn waits_for(&self, name: &SignalName) -> bool {
        let waits = |(spec, step): (&StepSpec, &StepState)| {
            matches!(step.progress, Progress::Waiting { .. })
                && matches!(&spec.kind, StepKind::Wait { wait } if wait.signal == *name)
        };
        self.definition.steps().iter().zip(&self.steps).any(waits)
    }
}
