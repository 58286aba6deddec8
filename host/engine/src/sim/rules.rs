//! What must hold, whatever the machine does. The rules follow the words of the design and not the
//! code: nothing here looks at a [`crate::Saga`].

use super::ledger::Ledger;
use super::record::{Record, StepRecord, Wait, emitted_by};
use super::units::{Units, items};
use crate::event::{
    Event, OperatorEvent, SagaEvent, StepEvent, StepExpanded, StepStarted, StepSucceeded,
    UndoEvent, UndoStarted,
};
use crate::{Definition, Fate, Outcome, Payload, StepKind, StepName, StepSpec, Timestamp};

/// The result of a check. The error is the rule that was broken, as a sentence.
type Verdict = Result<(), String>;

/// What the rules know: the definition, what the log said before, and what is true.
pub(super) struct Rules<'a> {
    pub(super) definition: &'a Definition,
    pub(super) units: &'a Units,
    pub(super) record: &'a Record,
    pub(super) ledger: &'a Ledger,
    /// The outcome of the last call of each step, as the host that decided has heard it.
    pub(super) answers: &'a [Option<Outcome>],
    /// The time of the decision, as the log has it.
    pub(super) at: Timestamp,
    /// The time of the world.
    pub(super) now: Timestamp,
}

impl Rules<'_> {
    /// Checks one event before it becomes durable.
    pub(super) fn check(&self, event: &Event) -> Verdict {
        require(self.may_follow(event), || "nothing follows an end".to_owned())?;
        match event {
            Event::Emitted(emitted) => {
                let is_of_it =
                    self.record.emits.is_some_and(|step| emitted_by(step).contains(emitted));
                require(is_of_it, || "no call that succeeded tells that".to_owned())
            }
            Event::Saga(event) => self.check_saga(event),
            Event::Step(event) => self.check_step(event),
            Event::Undo(event) => self.check_undo(event),
            Event::Operator(event) => self.check_order(event),
            Event::Signal(_) => Ok(()),
        }
    }

    fn check_saga(&self, event: &SagaEvent) -> Verdict {
        match event {
            SagaEvent::Started(_) => Err("a saga starts once".to_owned()),
            SagaEvent::Due(_) => {
                let is_due = self.record.start.is_some_and(|(start, _)| start <= self.at);
                require(is_due && !self.record.is_compensating, || {
                    "its start is not due".to_owned()
                })
            }
            SagaEvent::CompensationStarted(_) => self.compensation_started(),
            SagaEvent::Completed(_) => self.completed(),
            SagaEvent::Compensated(_) => self.compensated(),
            SagaEvent::Blocked(e) if e.step.is_none() => {
                require(self.is_log_full(), || "blocked by a log that is not full".to_owned())
            }
            SagaEvent::Blocked(_) => {
                let held = (0..self.record.steps.len()).any(|index| self.needs_operator(index));
                require(held, || "blocked, and no step needs an operator".to_owned())
            }
            SagaEvent::Abandoned(_) => self.abandoned(),
            SagaEvent::Retimed(_) | SagaEvent::Marked(_) => Ok(()),
        }
    }

    fn check_step(&self, event: &StepEvent) -> Verdict {
        match event {
            StepEvent::Started(started) => self.step_started(started),
            StepEvent::Waiting(e) => self.step_waiting(self.index(&e.step)?),
            StepEvent::Expanded(e) => self.expanded(e),
            StepEvent::Succeeded(e) if self.record.steps[self.index(&e.step)?].is_expanded => {
                self.elements_done(e)
            }
            StepEvent::Succeeded(e)
                if self.record.steps[self.index(&e.step)?].waits != Wait::No =>
            {
                self.wait_over(self.index(&e.step)?)
            }
            StepEvent::Succeeded(e) => {
                let index = self.index(&e.step)?;
                let answer = self.answer(index);
                let told =
                    matches!(answer, Some(Outcome::Succeeded(output)) if *output == e.output);
                require(self.ledger.steps[index].stands, || format!("{} does not stand", e.step))?;
                require(told, || format!("{} did not answer that output", e.step))
            }
            StepEvent::Failed(e) => {
                let index = self.index(&e.step)?;
                let stands = self.ledger.steps[index].stands;
                let is_sure = e.retry_at.is_none() || e.probe == Some(Fate::DidNotHappen);
                require(!is_sure || !stands, || {
                    format!("{} is said to have failed, and its effect stands", e.step)
                })?;
                require(!is_sure || !self.ledger.may_land(index, self.now), || {
                    format!("{} is said to have failed, and a request is on its way", e.step)
                })?;
                self.not_succeeded(index)
            }
            StepEvent::Unknown(e) => self.not_succeeded(self.index(&e.step)?),
            StepEvent::Skipped(e) => {
                let index = self.index(&e.step)?;
                self.dependencies_done(index)?;
                let when = self.spec(index).when.as_deref();
                require(when == Some("false"), || format!("{} is wanted", e.step))
            }
        }
    }

    fn check_undo(&self, event: &UndoEvent) -> Verdict {
        match event {
            UndoEvent::Started(started) => self.undo_started(started),
            UndoEvent::Succeeded(e) => {
                let index = self.index(&e.step)?;
                require(!self.ledger.steps[index].stands, || format!("{} still stands", e.step))
            }
            UndoEvent::Failed(e) => self.undo_not_succeeded(self.index(&e.step)?),
            UndoEvent::Blocked(e) => {
                let index = self.index(&e.step)?;
                self.undo_not_succeeded(index)?;
                let permanent = matches!(self.answer(index), Some(Outcome::Permanent(_)));
                let undo = self.spec(index).undo.as_ref();
                let attempt = e.attempt - self.record.steps[index].undo_attempts_before;
                let used_up = undo.is_some_and(|undo| attempt == undo.retry.attempts);
                require(permanent || used_up, || format!("{} has undo attempts left", e.step))
            }
        }
    }

    fn check_order(&self, event: &OperatorEvent) -> Verdict {
        match event {
            OperatorEvent::Cancelled(_) => {
                require(!self.record.is_cancelled, || "it is cancelled twice".to_owned())
            }
            OperatorEvent::Compensated(_) => {
                let is_past = self.record.is_past_pivot(self.definition);
                require(!is_past, || "compensated past the pivot".to_owned())
            }
            OperatorEvent::Paused(_) => {
                require(!self.record.is_paused, || "it is paused twice".to_owned())
            }
            OperatorEvent::Resumed(_) => {
                let is_held = self.record.is_paused || self.is_log_full();
                require(is_held, || "resumed out of nothing".to_owned())
            }
            OperatorEvent::Abandoned(_) => {
                require(!self.record.is_given_up, || "it is given up twice".to_owned())
            }
            OperatorEvent::Retried(e) => self.not_in_flight(self.index(&e.step)?),
            OperatorEvent::Skipped(e) => {
                let index = self.index(&e.step)?;
                let is_past = self.record.is_past_pivot(self.definition);
                let stands = self.ledger.steps[index].stands;
                // In a saga that may still be compensated, a skipped effect would be forgotten.
                require(!stands || self.record.is_compensating || is_past, || {
                    format!("{} is skipped, stands, and would never be undone", e.step)
                })?;
                self.not_in_flight(index)
            }
            OperatorEvent::Resolved(e) => self.not_in_flight(self.index(&e.step)?),
            OperatorEvent::Noted(_) => Ok(()),
        }
    }

    /// Checks a saga for which nothing is in flight, due or timed.
    pub(super) fn at_rest(&self) -> Verdict {
        let waits = self.record.steps.iter().any(|step| step.waits == Wait::ForEver);
        let held = self.record.is_blocked || self.record.is_paused || waits;
        require(self.record.has_ended || held, || {
            "it rests, and has neither ended nor is blocked".to_owned()
        })?;
        if self.record.has_ended || !self.record.is_compensating || self.record.is_paused {
            return Ok(());
        }
        // In a blocked saga, an effect stands only when an operator is needed for it or for a step
        // after it.
        for (index, effect) in self.ledger.steps.iter().enumerate() {
            let (spec, name) = (self.spec(index), self.units.name(index));
            let below = self.units.descendants(self.definition, index);
            let held = self.needs_operator(index)
                || below.into_iter().any(|other| self.needs_operator(other));
            let let_go = self.record.steps[index].is_let_go;
            require(!effect.stands || spec.undo.is_none() || held || let_go, || {
                format!("{name} stands, and nothing keeps its undo back")
            })?;
        }
        Ok(())
    }

    /// Checks the start of a call of `execute`.
    fn step_started(&self, event: &StepStarted) -> Verdict {
        let index = self.index(&event.step)?;
        let (step, spec) = (&self.record.steps[index], self.spec(index));
        let name = &event.step;
        require(self.has_effect(index), || format!("{name} is called, and only waits"))?;
        self.within_concurrency(index, StepRecord::is_under_way)?;
        require(!self.record.is_paused, || format!("{name} begins while the saga is paused"))?;
        require(!self.is_log_full(), || format!("{name} begins, and the log is full"))?;
        require(!self.record.is_compensating, || format!("{name} begins while all is undone"))?;
        require(!step.is_executing, || format!("{name} is called twice at once"))?;
        require(!step.is_done() && !step.has_failed, || format!("{name} was settled"))?;
        require(event.attempt == step.attempts + 1, || format!("{name} skips an attempt"))?;
        let counted = event.attempt - step.attempts_before;
        require(counted <= spec.retry.attempts, || format!("{name} has too many attempts"))?;
        require(spec.when.as_deref() != Some("false"), || format!("{name} is not wanted"))?;
        self.dependencies_done(index)
    }

    /// Checks the start of a call of `compensate`.
    fn undo_started(&self, event: &UndoStarted) -> Verdict {
        let index = self.index(&event.step)?;
        let (step, spec) = (&self.record.steps[index], self.spec(index));
        let name = &event.step;
        self.within_concurrency(index, StepRecord::is_undo_under_way)?;
        let undo = spec.undo.as_ref().ok_or_else(|| format!("{name} has no undo"))?;
        require(!self.record.is_paused, || format!("{name} is undone while the saga is paused"))?;
        require(!self.is_log_full(), || format!("{name} is undone, and the log is full"))?;
        require(!step.is_let_go, || format!("{name} is undone, and an operator let it stand"))?;
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
        let counted = event.attempt - step.undo_attempts_before;
        require(counted <= undo.retry.attempts, || format!("{name} has too many attempts"))?;
        for other in self.units.descendants(self.definition, index) {
            let below = self.spec(other);
            let let_go = self.record.steps[other].is_let_go;
            let is_still = self.ledger.steps[other].stands && below.undo.is_some() && !let_go;
            let runs = self.record.steps[other].is_executing || self.record.steps[other].is_undoing;
            require(!is_still && !runs, || {
                let below = self.units.name(other);
                format!("{name} is undone before {below}, which was built on it")
            })?;
        }
        Ok(())
    }

    /// Checks the start of a compensation.
    fn compensation_started(&self) -> Verdict {
        require(!self.record.is_compensating, || "it is undone twice".to_owned())?;
        require(!self.record.is_past_pivot(self.definition), || {
            "it is undone past the pivot".to_owned()
        })?;
        let failed = self.record.steps.iter().any(|step| step.has_failed);
        let late = self.record.deadline.is_some_and(|(deadline, _)| deadline <= self.at);
        require(failed || self.record.is_cancelled || late, || {
            "it is undone for nothing".to_owned()
        })
    }

    /// Checks the end of a completed saga.
    fn completed(&self) -> Verdict {
        require(!self.record.is_compensating, || "what is undone is not completed".to_owned())?;
        for (index, step) in self.record.steps.iter().enumerate() {
            let name = self.units.name(index);
            let is_element = self.units.siblings(index).is_some();
            let list = &self.record.steps[self.units.step(index)];
            // A skipped list has no elements.
            let is_none = is_element && !list.is_expanded;
            require(step.is_done() || is_none, || format!("completed, and {name} is not done"))?;
            let effect = &self.ledger.steps[index];
            let times = u32::from(step.has_succeeded && self.has_effect(index));
            let fits = effect.stands == (times == 1) && effect.times == times;
            require(fits || step.is_let_go, || {
                format!("completed, and the effect of {name} came {} times", effect.times)
            })?;
        }
        Ok(())
    }

    /// Checks the end of a compensated saga.
    fn compensated(&self) -> Verdict {
        require(self.record.is_compensating, || "compensated out of nothing".to_owned())?;
        for (index, step) in self.record.steps.iter().enumerate() {
            let (spec, name) = (self.spec(index), self.units.name(index));
            require(!step.is_executing && !step.is_undoing, || {
                format!("compensated, and {name} is in flight")
            })?;
            let may_stand = spec.undo.is_none() && !spec.pivot;
            require(!self.ledger.steps[index].stands || may_stand, || {
                format!("compensated, and the effect of {name} stands")
            })?;
            require(!self.ledger.may_land(index, self.now) || may_stand, || {
                format!("compensated, and a request of {name} is on its way")
            })?;
        }
        Ok(())
    }

    /// Checks the end of an abandoned saga.
    fn abandoned(&self) -> Verdict {
        if self.record.is_given_up {
            return Ok(());
        }
        let let_go = self.record.steps.iter().any(|step| step.is_let_go);
        require(let_go, || "abandoned, and no operator asked for it".to_owned())?;
        for (index, effect) in self.ledger.steps.iter().enumerate() {
            let (step, spec) = (&self.record.steps[index], self.spec(index));
            let may_stand = step.is_let_go || spec.undo.is_none() && !spec.pivot;
            require(!effect.stands || may_stand, || {
                format!("abandoned, and the effect of {} stands", self.units.name(index))
            })?;
        }
        Ok(())
    }

    /// Checks the start of a wait.
    fn step_waiting(&self, index: usize) -> Verdict {
        let name = self.units.name(index);
        let waits = matches!(self.spec(index).kind, StepKind::Wait { .. } | StepKind::Sleep { .. });
        require(waits, || format!("{name} is a call"))?;
        require(!self.record.is_compensating, || format!("{name} begins while all is undone"))?;
        require(self.record.steps[index].waits == Wait::No, || format!("{name} waits twice"))?;
        self.dependencies_done(index)
    }

    /// Checks the end of a wait.
    fn wait_over(&self, index: usize) -> Verdict {
        let spec = self.spec(index);
        let is_over = match self.record.steps[index].waits {
            Wait::Until { until, .. } => until <= self.at,
            Wait::No | Wait::ForEver => false,
        };
        let is_told = self.record.signals > self.record.signals_taken;
        let held = if matches!(spec.kind, StepKind::Wait { .. }) { is_told } else { is_over };
        require(held, || format!("{} ends its wait too early", spec.name))
    }

    /// Returns true when an event may follow those before it.
    fn may_follow(&self, event: &Event) -> bool {
        let reopens = self.record.is_completed
            && matches!(event, Event::Operator(OperatorEvent::Compensated(_)));
        !self.record.has_ended
            || reopens
            || matches!(event, Event::Operator(OperatorEvent::Noted(_)))
    }

    /// Checks that no call of a step is in flight.
    fn not_in_flight(&self, index: usize) -> Verdict {
        let (step, name) = (&self.record.steps[index], self.units.name(index));
        require(!step.is_executing && !step.is_undoing, || format!("{name} is in flight"))
    }

    /// Returns true when no call may begin until an operator allows more events.
    fn is_log_full(&self) -> bool {
        self.record.is_log_full(self.definition)
    }

    /// Returns true when only an operator can move a step.
    fn needs_operator(&self, index: usize) -> bool {
        let (step, spec) = (&self.record.steps[index], self.spec(index));
        let past_pivot = step.has_failed && self.record.is_past_pivot(self.definition);
        let unknown_pivot = spec.pivot && spec.undo.is_none() && step.has_failed;
        step.is_undo_blocked || past_pivot || unknown_pivot
    }

    /// Checks that a step over a list gets the right elements, once.
    fn expanded(&self, event: &StepExpanded) -> Verdict {
        let index = self.index(&event.step)?;
        let (step, spec, name) = (&self.record.steps[index], self.spec(index), &event.step);
        require(!self.record.is_compensating, || format!("{name} begins while all is undone"))?;
        require(!step.is_expanded && !step.is_done(), || format!("{name} was settled"))?;
        require(spec.when.as_deref() != Some("false"), || format!("{name} is not wanted"))?;
        let is_list = spec.each.is_some() && self.units.siblings(index).is_none();
        let items: Result<Vec<_>, _> = event.items.iter().map(Payload::to_value).collect();
        require(is_list && items == Ok(self::items(spec)), || {
            format!("{name} has elements that it is not to have")
        })?;
        self.dependencies_done(index)
    }

    /// Checks that a step over a list ends after its elements, with the list of their outputs.
    fn elements_done(&self, event: &StepSucceeded) -> Verdict {
        let elements = &self.record.steps[self.units.elements(self.index(&event.step)?)];
        require(elements.iter().all(StepRecord::is_done), || {
            format!("{} is done before its elements are", event.step)
        })?;
        let output = |step: &StepRecord| {
            step.output.as_ref().map_or(Ok(serde_json::Value::Null), Payload::to_value)
        };
        let outputs: Result<Vec<_>, _> = elements.iter().map(output).collect();
        require(event.output.to_value() == outputs.map(serde_json::Value::Array), || {
            format!("{} does not give what its elements gave", event.step)
        })
    }

    /// Checks that not too many elements of a list are under way.
    fn within_concurrency(
        &self,
        index: usize,
        is_under_way: impl Fn(&StepRecord) -> bool,
    ) -> Verdict {
        let Some(siblings) = self.units.siblings(index) else { return Ok(()) };
        let others = siblings.filter(|other| *other != index);
        let under_way = others.filter(|other| is_under_way(&self.record.steps[*other])).count();
        let most = self.spec(index).each.as_ref().map_or(0, |each| each.concurrency);
        require(under_way < most, || {
            format!("{} is the {}th at once, of {most}", self.units.name(index), under_way + 1)
        })
    }

    /// Checks that a step begins after everything before it, and an element after its list.
    fn dependencies_done(&self, index: usize) -> Verdict {
        let spec = self.spec(index);
        require(self.record.start.is_none(), || format!("{} begins too early", spec.name))?;
        if self.units.siblings(index).is_some() {
            let is_there = self.record.steps[self.units.step(index)].is_expanded;
            return require(is_there, || format!("{} has no elements yet", spec.name));
        }
        for other in &spec.after {
            let done = self.record.steps[self.index(other)?].is_done();
            require(done, || format!("{} begins before {other} is done", spec.name))?;
        }
        Ok(())
    }

    /// Checks that `execute` did not say that it succeeded.
    fn not_succeeded(&self, index: usize) -> Verdict {
        let name = self.units.name(index);
        let step = &self.record.steps[index];
        let told = matches!(self.answer(index), Some(Outcome::Succeeded(_)));
        require(!(told && step.is_executing), || format!("{name} said that it succeeded"))
    }

    /// Checks that `compensate` did not say that it succeeded.
    fn undo_not_succeeded(&self, index: usize) -> Verdict {
        let name = self.units.name(index);
        let answer = self.answer(index);
        let told = matches!(answer, Some(Outcome::Succeeded(_) | Outcome::NothingToUndo));
        require(!told, || format!("the undo of {name} said that it succeeded"))
    }

    /// Returns the outcome of the last call of a step, as the host has heard it.
    fn answer(&self, index: usize) -> Option<&Outcome> {
        self.answers.get(index).and_then(Option::as_ref)
    }

    fn index(&self, name: &StepName) -> Result<usize, String> {
        self.units.index_of(name).ok_or_else(|| format!("there is no step {name}"))
    }

    fn spec(&self, index: usize) -> &StepSpec {
        &self.definition.steps()[self.units.step(index)]
    }

    fn has_effect(&self, index: usize) -> bool {
        self.units.has_effect(self.definition, index)
    }
}

fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}
