//! One simulated host that is never in doubt: each append is answered at once, and a crash forgets
//! everything.
//!
//! This file has the loop of the host. `calls` has the ends of calls and crashes, `operator` the
//! operator, `schedule` the actions and the way to a rest.

mod calls;
mod operator;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use super::action::Action;
use super::figures::Figures;
use super::machine::Machine;
use super::memory::{Draft, Memory};
use super::record::Wait;
use super::stage::{Result, Stage};
use super::violation::Violation;
use crate::{Call, Definition, Due, Input, Payload, SagaId, Timestamp};

/// One simulated host and the saga that it plays.
#[derive(Clone)]
pub(super) struct World<'m> {
    pub(super) stage: Stage<'m>,
    pub(super) memory: Memory,
    pub(super) now: Timestamp,
    /// How far the clock of the host is ahead.
    pub(super) ahead: Duration,
    /// True when calls are admitted in the append that makes them due.
    admits_at_once: bool,
    pub(super) figures: Figures,
    /// The actions so far.
    pub(super) actions: Vec<Action>,
    /// Where the last append begins in the log.
    pub(super) appended_from: usize,
}

impl<'m> World<'m> {
    /// Starts a saga of a definition whose first steps may begin after a delay.
    pub(super) fn start(
        machine: &'m dyn Machine,
        definition: Arc<Definition>,
        input: Payload,
        id: SagaId,
        admits_at_once: bool,
        delay: Duration,
    ) -> Result<Self> {
        let now = Timestamp::from_millis(0);
        let mut stage = Stage::new(machine, definition, id, delay);
        let started = stage.start(now, input);
        stage.commit(&started, &[], now)?;
        let answers = vec![None; stage.units.len()];
        let mut world = Self {
            memory: Memory { saga: started.saga, in_flight: Vec::new(), answers },
            stage,
            now,
            ahead: Duration::ZERO,
            admits_at_once,
            figures: Figures { definitions: 1, ..Figures::default() },
            actions: Vec::new(),
            appended_from: 0,
        };
        let draft = world.memory.draft(now);
        world.admit_due_and_append(draft)?;
        Ok(world)
    }

    /// Returns the calls that are due and not admitted.
    pub(super) fn due(&self) -> Vec<Due> {
        self.stage.due(&self.memory.saga, self.now)
    }

    /// Returns the next time that something waits for.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        self.stage.wake_at(&self.memory.saga, self.now)
    }

    /// Returns true when something waits for a time that is yet to come.
    pub(super) fn may_be_late(&self) -> bool {
        self.wake_at().is_some_and(|at| at > self.now)
    }

    /// Returns the index of the step of a call.
    pub(super) fn index(&self, call: &Call) -> usize {
        self.stage.index(call)
    }

    /// Returns true when a step waits for a signal without an end.
    pub(super) fn waits_for_signal(&self) -> bool {
        let record = &self.stage.record;
        !record.has_ended && record.steps.iter().any(|step| step.waits == Wait::ForEver)
    }

    /// Returns true when a step waits for a signal for some time only.
    pub(super) fn may_signal(&self) -> bool {
        let record = &self.stage.record;
        let waits = record.steps.iter().any(|step| matches!(step.waits, Wait::Until { .. }));
        !record.has_ended && waits && self.stage.definition.signals().next().is_some()
    }

    /// Makes a violation of a rule.
    #[expect(clippy::unnecessary_box_returns, reason = "it is large, and every caller boxes it")]
    pub(super) fn violation(&self, rule: String) -> Box<Violation> {
        self.stage.violation(rule)
    }

    /// Decides on an input, and appends what follows.
    pub(super) fn feed(&mut self, input: Input) -> Result<()> {
        let mut draft = self.memory.draft(self.now);
        self.stage.decide(&mut draft, input);
        self.admit_due_and_append(draft)
    }

    /// Appends a draft, and the admissions of calls that it makes due.
    pub(super) fn admit_due_and_append(&mut self, mut draft: Draft) -> Result<()> {
        if self.admits_at_once {
            self.stage.admit_due(&mut draft);
        }
        self.append(draft)
    }

    /// Appends a draft, checks the state after it, and begins the calls that follow.
    pub(super) fn append(&mut self, draft: Draft) -> Result<()> {
        self.appended_from = self.stage.log.len();
        if !draft.events.is_empty() {
            self.figures.appends += 1;
        }
        self.stage.commit(&draft, &self.memory.answers, self.now)?;
        self.memory.saga = draft.saga;
        self.stage.check_memory(&self.memory.saga, self.now)?;
        self.stage.dispatch(&mut self.memory).map(drop)
    }
}
