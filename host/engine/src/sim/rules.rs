//! What must hold, whatever the machine thinks. Written from the words of the design, not from
//! the code: nothing here looks at a [`crate::Saga`].

use super::record::{Ledger, Record};
use crate::event::{Event, StepStarted, UndoStarted};
use crate::{Definition, Outcome, Timestamp};

type Checked = Result<(), String>;

/// What a rule sees: the definition as it is meant, what the log said before, what is true.
pub(super) struct Rules<'a> {
    pub(super) definition: &'a Definition,
    pub(super) record: &'a Record,
    pub(super) ledger: &'a Ledger,
    pub(super) now: Timestamp,
    pub(super) deadline_at: Option<Timestamp>,
}

impl Rules<'_> {
    /// Checks one event before it becomes durable.
    pub(super) fn check(&self, event: &Event) -> Checked {
        require(!self.record.has_ended, || "nothing follows an end".to_owned())?;
        match event {
            Event::SagaStarted(_) => Err("a saga starts once".to_owned()),
            Event::StepStarted(started) => self.step_started(started),
            Event::StepSucceeded(e) => {
                let index = self.index(&e.step)?;
                let answer = self.ledger.steps[index].answer.as_ref();
                let told =
                    matches!(answer, Some(Outcome::Succeeded(output)) if *output == e.output);
                require(self.ledger.steps[index].stands, || format!("{} does not stand", e.step))?;
                require(told, || format!("{} did not answer that output", e.step))
            }
            Event::StepFailed(e) => {
                let index = self.index(&e.step)?;
                let stands = self.ledger.steps[index].stands;
                require(e.retry_at.is_some() || !stands, || {
                    format!("{} is said to have failed, and its effect stands", e.step)
                })?;
                self.not_succeeded(index)
            }
            Event::StepUnknown(e) => self.not_succeeded(self.index(&e.step)?),
            Event::StepSkipped(e) => {
                let index = self.index(&e.step)?;
                self.dependencies_done(index)?;
                let when = self.definition.steps()[index].when.as_deref();
                require(when == Some("false"), || format!("{} is wanted", e.step))
            }
            Event::CompensationStarted(_) => self.compensation_started(),
            Event::UndoStarted(started) => self.undo_started(started),
            Event::UndoSucceeded(e) => {
                let index = self.index(&e.step)?;
                require(!self.ledger.steps[index].stands, || format!("{} still stands", e.step))
            }
            Event::UndoFailed(e) => self.undo_not_succeeded(self.index(&e.step)?),
            Event::UndoBlocked(e) => {
                let index = self.index(&e.step)?;
                self.undo_not_succeeded(index)?;
                let permanent =
                    matches!(self.ledger.steps[index].answer, Some(Outcome::Permanent(_)));
                let undo = self.definition.steps()[index].undo.as_ref();
                let used_up = undo.is_some_and(|undo| e.attempt == undo.retry.attempts);
                require(permanent || used_up, || format!("{} has undo attempts left", e.step))
            }
            Event::SagaCompleted(_) => self.completed(),
            Event::SagaCompensated(_) => self.compensated(),
            Event::SagaBlocked(_) => {
                let held = (0..self.record.steps.len()).any(|index| self.needs_operator(index));
                require(held, || "blocked, and no step needs an operator".to_owned())
            }
            Event::OperatorCancelled(_) => {
                require(!self.record.is_cancelled, || "it is cancelled twice".to_owned())
            }
        }
    }

    /// Checks a saga for which nothing is in flight, due or timed.
    pub(super) fn at_rest(&self) -> Checked {
        require(self.record.has_ended || self.record.is_blocked, || {
            "it rests, and has neither ended nor is blocked".to_owned()
        })?;
        if self.record.has_ended || !self.record.is_compensating {
            return Ok(());
        }
        // Blocked: what stands is what needs an operator, or what that was built on.
        for (index, effect) in self.ledger.steps.iter().enumerate() {
            let spec = &self.definition.steps()[index];
            let held = self.needs_operator(index)
                || self
                    .definition
                    .step(index)
                    .descendants
                    .iter()
                    .any(|other| self.needs_operator(other));
            require(!effect.stands || spec.undo.is_none() || held, || {
                format!("{} stands, and nothing keeps its undo back", spec.name)
            })?;
        }
        Ok(())
    }

    fn step_started(&self, event: &StepStarted) -> Checked {
        let index = self.index(&event.step)?;
        let (step, spec) = (&self.record.steps[index], &self.definition.steps()[index]);
        let name = &event.step;
        require(!self.record.is_compensating, || format!("{name} begins while all is undone"))?;
        require(!step.is_executing, || format!("{name} is called twice at once"))?;
        require(!step.is_done() && !step.has_failed, || format!("{name} was settled"))?;
        require(event.attempt == step.attempts + 1, || format!("{name} skips an attempt"))?;
        require(event.attempt <= spec.retry.attempts, || format!("{name} has too many attempts"))?;
        require(spec.when.as_deref() != Some("false"), || format!("{name} is not wanted"))?;
        self.dependencies_done(index)
    }

    fn undo_started(&self, event: &UndoStarted) -> Checked {
        let index = self.index(&event.step)?;
        let (step, spec) = (&self.record.steps[index], &self.definition.steps()[index]);
        let name = &event.step;
        let undo = spec.undo.as_ref().ok_or_else(|| format!("{name} has no undo"))?;
        require(self.record.is_compensating, || {
            format!("{name} is undone in a saga that goes on")
        })?;
        require(!self.record.is_past_pivot(self.definition), || {
            format!("{name} is undone past the pivot")
        })?;
        require(!step.is_undoing && !step.is_undone, || format!("{name} is undone twice"))?;
        require(!step.is_executing, || format!("{name} is undone while it runs"))?;
        require(!step.is_undo_blocked, || format!("{name} is blocked"))?;
        require(step.attempts > 0, || format!("{name} never ran"))?;
        require(event.attempt == step.undo_attempts + 1, || format!("{name} skips an attempt"))?;
        require(event.attempt <= undo.retry.attempts, || format!("{name} has too many attempts"))?;
        for other in self.definition.step(index).descendants.iter() {
            let below = &self.definition.steps()[other];
            let is_still = self.ledger.steps[other].stands && below.undo.is_some();
            let runs = self.record.steps[other].is_executing || self.record.steps[other].is_undoing;
            require(!is_still && !runs, || {
                format!("{name} is undone before {}, which was built on it", below.name)
            })?;
        }
        Ok(())
    }

    fn compensation_started(&self) -> Checked {
        require(!self.record.is_compensating, || "it is undone twice".to_owned())?;
        require(!self.record.is_past_pivot(self.definition), || {
            "it is undone past the pivot".to_owned()
        })?;
        let failed = self.record.steps.iter().any(|step| step.has_failed);
        let late = self.deadline_at.is_some_and(|deadline| deadline <= self.now);
        require(failed || self.record.is_cancelled || late, || {
            "it is undone for nothing".to_owned()
        })
    }

    fn completed(&self) -> Checked {
        require(!self.record.is_compensating, || "what is undone is not completed".to_owned())?;
        for (index, step) in self.record.steps.iter().enumerate() {
            let name = &self.definition.steps()[index].name;
            require(step.is_done(), || format!("completed, and {name} is not done"))?;
            let effect = &self.ledger.steps[index];
            let times = u32::from(step.has_succeeded);
            require(effect.stands == step.has_succeeded && effect.times == times, || {
                format!("completed, and the effect of {name} came {} times", effect.times)
            })?;
        }
        Ok(())
    }

    fn compensated(&self) -> Checked {
        require(self.record.is_compensating, || "compensated out of nothing".to_owned())?;
        for (index, step) in self.record.steps.iter().enumerate() {
            let spec = &self.definition.steps()[index];
            let name = &spec.name;
            require(!step.is_executing && !step.is_undoing, || {
                format!("compensated, and {name} is in flight")
            })?;
            let may_stand = spec.undo.is_none() && !spec.pivot;
            require(!self.ledger.steps[index].stands || may_stand, || {
                format!("compensated, and the effect of {name} stands")
            })?;
        }
        Ok(())
    }

    fn needs_operator(&self, index: usize) -> bool {
        let (step, spec) = (&self.record.steps[index], &self.definition.steps()[index]);
        let past_pivot = step.has_failed && self.record.is_past_pivot(self.definition);
        let unknown_pivot = spec.pivot && spec.undo.is_none() && step.has_failed;
        step.is_undo_blocked || past_pivot || unknown_pivot
    }

    fn dependencies_done(&self, index: usize) -> Checked {
        let spec = &self.definition.steps()[index];
        for other in &spec.after {
            let done = self.record.steps[self.index(other)?].is_done();
            require(done, || format!("{} begins before {other} is done", spec.name))?;
        }
        Ok(())
    }

    fn not_succeeded(&self, index: usize) -> Checked {
        let name = &self.definition.steps()[index].name;
        let step = &self.record.steps[index];
        let told = matches!(self.ledger.steps[index].answer, Some(Outcome::Succeeded(_)));
        require(!(told && step.is_executing), || format!("{name} said that it succeeded"))
    }

    fn undo_not_succeeded(&self, index: usize) -> Checked {
        let name = &self.definition.steps()[index].name;
        let answer = &self.ledger.steps[index].answer;
        let told = matches!(answer, Some(Outcome::Succeeded(_) | Outcome::NothingToUndo));
        require(!told, || format!("the undo of {name} said that it succeeded"))
    }

    fn index(&self, name: &crate::StepName) -> Result<usize, String> {
        self.definition.index_of(name).ok_or_else(|| format!("there is no step {name}"))
    }
}

fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(otherwise()) }
}
