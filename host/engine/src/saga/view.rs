//! A saga as a reader sees it.

use std::borrow::Cow;
use std::sync::Arc;

use super::orders::Note;
use super::progress::Progress;
use super::state::{Phase, Saga};
use super::step_state::StepState;
use crate::call::Direction;
use crate::definition::Definition;
use crate::event::SagaStarted;
use crate::ids::{SagaId, StepName, Timestamp, Version};
use crate::payload::Payload;
use crate::status::SagaStatus;
use crate::trace::TraceContext;

impl Saga {
    /// Returns the id of the saga.
    #[must_use]
    pub fn id(&self) -> SagaId {
        self.id
    }

    /// Returns the definition that the saga is pinned to.
    #[must_use]
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// Returns how many events the saga has.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns what the saga was started with.
    #[must_use]
    pub fn started(&self) -> &SagaStarted {
        &self.started
    }

    /// Returns the trace context of the saga (W3C Trace Context, level 1). It is the one that the
    /// caller gave. Else it follows from the saga's id, so that it is the same after every restart:
    /// its trace id is the id without hyphens, and its flags ask receivers to keep the trace.
    #[must_use]
    pub fn traceparent(&self) -> Cow<'_, str> {
        if let Some(given) = &self.started.traceparent {
            return Cow::Borrowed(given);
        }
        Cow::Owned(TraceContext::of_saga(self.id).to_string())
    }

    /// Returns the trace id of [`Self::traceparent`]: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        let traceparent = self.traceparent();
        traceparent.split('-').nth(1).unwrap_or_default().to_owned()
    }

    /// Returns when an attempt of a step or element began, if it is the last one in its direction or the
    /// one before.
    #[must_use]
    pub fn attempt_began_at(
        &self,
        step: &StepName,
        direction: Direction,
        attempt: u32,
    ) -> Option<Timestamp> {
        let step = &self.steps[self.index_of(step)?];
        let (last, began_at, earlier) = match direction {
            Direction::Execute => (step.attempts, step.began_at, step.earlier_began_at),
            Direction::Compensate => {
                (step.undo_attempts, step.undo_began_at, step.earlier_undo_began_at)
            }
        };
        match last.checked_sub(attempt)? {
            0 => began_at,
            1 => earlier,
            _ => None,
        }
    }

    /// Returns when the saga started.
    #[must_use]
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// Returns when the saga ended, if it has.
    #[must_use]
    pub fn ended_at(&self) -> Option<Timestamp> {
        self.ended_at
    }

    /// Returns when the compensation began, while the saga is being compensated.
    #[must_use]
    pub fn compensating_since(&self) -> Option<Timestamp> {
        self.compensating_since.filter(|_| self.ended_at.is_none())
    }

    /// Returns the status of the saga.
    #[must_use]
    pub fn status(&self) -> SagaStatus {
        match &self.phase {
            Phase::Completed => SagaStatus::Completed,
            Phase::Compensated(_) => SagaStatus::Compensated,
            Phase::Abandoned(_) => SagaStatus::Abandoned,
            Phase::Forward | Phase::Compensating(_) if self.paused.is_some() => SagaStatus::Paused,
            Phase::Forward | Phase::Compensating(_) if self.blocked.is_some() => {
                SagaStatus::Blocked
            }
            Phase::Compensating(_) => SagaStatus::Compensating,
            Phase::Forward if self.is_waiting() => SagaStatus::Waiting,
            Phase::Forward => SagaStatus::Running,
        }
    }

    /// Returns true when no call is in flight or due, and some step or the start waits.
    fn is_waiting(&self) -> bool {
        if self.start_at.is_some() {
            return true;
        }
        let waits = |step: &StepState| {
            matches!(step.progress, Progress::BackingOff { .. } | Progress::Waiting { .. })
        };
        self.steps.iter().any(waits)
            && !self.steps.iter().any(|step| step.progress == Progress::Running)
            && !(0..self.definition.steps().len()).any(|step| self.is_ready(step))
            && !self.fan_outs.iter().any(|fan_out| {
                let may_begin = &self.steps[fan_out.first..self.may_begin_until(fan_out)];
                may_begin.iter().any(|step| step.progress == Progress::Pending)
            })
    }

    /// Returns the reason why the saga is blocked, or why it was compensated or abandoned.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        if let Some(blocked) = self.blocked.as_ref().filter(|_| self.ended_at.is_none()) {
            return Some(&blocked.reason);
        }
        match &self.phase {
            Phase::Compensating(started) | Phase::Compensated(started) => Some(&started.reason),
            Phase::Abandoned(abandoned) => Some(&abandoned.reason),
            Phase::Forward | Phase::Completed => None,
        }
    }

    /// Returns the step whose failure began the compensation. None when an operator or the deadline
    /// began it.
    #[must_use]
    pub fn undone_for(&self) -> Option<&StepName> {
        match &self.phase {
            Phase::Compensating(started) | Phase::Compensated(started) => started.step.as_ref(),
            Phase::Forward | Phase::Completed | Phase::Abandoned(_) => None,
        }
    }

    /// Returns the last note of an operator. The events of the saga have the earlier ones.
    #[must_use]
    pub fn note(&self) -> Option<&Note> {
        self.note.as_deref()
    }

    /// Returns the output of a completed saga: that of its last step, or those of its last steps by
    /// name.
    #[must_use]
    pub fn output(&self) -> Option<Payload> {
        if self.phase != Phase::Completed {
            return None;
        }
        // Several outputs together may exceed the limit of one payload. Then only the steps have
        // them.
        let output_of = |step: usize| self.steps[step].output.clone();
        self.definition.output(|step| output_of(step).unwrap_or_else(Payload::null))
    }
}
