//! The times that a saga waits for, and a clock that is set back.

use std::time::Duration;

use super::state::{Phase, Saga};
use super::step_state::StepState;
use crate::ids::Timestamp;
use crate::limits::CLOCK_TOLERANCE;

impl Saga {
    /// Returns when the saga is compensated unless it has completed, if its definition has a
    /// deadline.
    #[must_use]
    pub fn deadline_at(&self) -> Option<Timestamp> {
        self.deadline.map(|(deadline, _)| deadline)
    }

    /// Returns the deadline, while it can still change something.
    pub(crate) fn deadline_in_force(&self) -> Option<Timestamp> {
        // The deadline changes nothing once an operator wants the saga compensated, or while it is
        // not known whether the saga is past its pivot.
        let in_force = self.phase == Phase::Forward
            && !self.is_past_pivot()
            && !self.is_at_pivot()
            && self.wish.is_none();
        self.deadline_at().filter(|_| in_force)
    }

    /// Returns when the first steps of the saga may begin, while it waits for that.
    #[must_use]
    pub fn start_at(&self) -> Option<Timestamp> {
        self.start_at.filter(|_| self.phase == Phase::Forward).map(|(start_at, _)| start_at)
    }

    /// Returns the next time at which the clock alone makes something due.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        let retries = self.steps.iter().filter_map(StepState::next_at).min();
        [retries, self.start_at(), self.deadline_in_force()].into_iter().flatten().min()
    }

    /// Returns how far the clock was ahead when it set a time that the saga waits for, and was set
    /// back since. None when it was not ahead by more than [`CLOCK_TOLERANCE`].
    pub(crate) fn clock_was_ahead(&self, at: Timestamp) -> Option<Duration> {
        let is_back = |since: Timestamp| since.since(at) > CLOCK_TOLERANCE;
        if !is_back(self.latest_at) {
            return None;
        }
        let steps = self.steps.iter().filter_map(StepState::timer).map(|(since, _)| since);
        let deadline = self.deadline.filter(|_| self.deadline_in_force().is_some());
        let start = self.start_at.filter(|_| self.start_at().is_some());
        let latest =
            steps.chain(deadline.into_iter().chain(start).map(|(_, since)| since)).max()?;
        is_back(latest).then(|| latest.since(at))
    }

    /// Moves each time that was set after `at`, so that it is as far away from `at` as it was from
    /// when it was set.
    pub(crate) fn retime(&mut self, at: Timestamp) {
        let timers = self.steps.iter_mut().filter_map(|step| step.progress.timer_mut());
        let deadline = self.deadline.as_mut().map(|(deadline, since)| (since, deadline));
        let start = self.start_at.as_mut().map(|(start_at, since)| (since, start_at));
        for (since, due) in timers.chain(deadline).chain(start).filter(|(since, _)| **since > at) {
            *due = at.after(due.since(*since));
            *since = at;
        }
        self.latest_at = at;
    }
}
