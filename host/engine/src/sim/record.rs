//! What the log says, kept apart from the state of the engine.

#![expect(clippy::wildcard_enum_match_arm, reason = "the rest is handled before")]

use super::units::Units;
use crate::event::{Event, OperatorEvent, SagaEvent, SignalEvent, StepEvent, UndoEvent};
use crate::{Definition, Emitted, FailureClass, Fate, Payload, StepKind, Timestamp};

/// What the events so far say about a saga.
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
    /// The number of signals that arrived, and of those that steps have taken.
    pub(super) signals: usize,
    pub(super) signals_taken: usize,
    /// The step whose call succeeded with the last event, and emits domain events.
    pub(super) emits: Option<usize>,
    /// The deadline, and when it was set.
    pub(super) deadline: Option<(Timestamp, Timestamp)>,
    /// While it waits for its start: when that is, and when that time was set.
    pub(super) start: Option<(Timestamp, Timestamp)>,
    /// The number of events, and how many an operator allows; none before the first such order.
    events: u64,
    events_allowed: Option<u64>,
    /// True when it is blocked because its log is full.
    is_blocked_by_log: bool,
}

/// The wait of a step for a signal or a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Wait {
    /// It does not wait.
    #[default]
    No,
    /// It waits without an end.
    ForEver,
    /// It waits until a time.
    Until { since: Timestamp, until: Timestamp },
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, as the log tells it")]
#[derive(Debug, Clone, Default)]
pub(super) struct StepRecord {
    pub(super) attempts: u32,
    pub(super) is_executing: bool,
    /// When the last attempt began.
    pub(super) began_at: Timestamp,
    pub(super) has_succeeded: bool,
    pub(super) is_skipped: bool,
    /// True when it failed or is unknown, and no attempt follows.
    pub(super) has_failed: bool,
    pub(super) undo_attempts: u32,
    pub(super) is_undoing: bool,
    pub(super) is_undone: bool,
    pub(super) is_undo_blocked: bool,
    pub(super) waits: Wait,
    /// The output of the step, from its component or from an operator.
    pub(super) output: Option<Payload>,
    /// True when it runs over a list and has its elements.
    pub(super) is_expanded: bool,
    /// True when an operator skipped it or its undo, so that its effect may stand.
    pub(super) is_let_go: bool,
    /// The attempts that do not count, because an operator had the call retried.
    pub(super) attempts_before: u32,
    pub(super) undo_attempts_before: u32,
    /// How often an operator has edited the input of its calls.
    pub(super) edits: u32,
    /// True when the outcome of some attempt of each is unknown.
    pub(super) is_unclear: bool,
    pub(super) is_undo_unclear: bool,
    /// True when that was so of the calls whose input was edited last. Their key stayed.
    pub(super) was_unclear_when_edited: bool,
}

impl Record {
    pub(super) fn of<'e>(
        (definition, units): (&Definition, &Units),
        log: impl IntoIterator<Item = (Timestamp, &'e Event)>,
    ) -> Self {
        let mut record = Self::new(units);
        for (at, event) in log {
            record.apply((definition, units), at, event);
        }
        record
    }

    pub(super) fn new(units: &Units) -> Self {
        Self { steps: vec![StepRecord::default(); units.len()], ..Self::default() }
    }

    pub(super) fn apply(
        &mut self,
        (definition, units): (&Definition, &Units),
        at: Timestamp,
        event: &Event,
    ) {
        self.count(definition, event);
        self.emits = match event {
            Event::Step(StepEvent::Succeeded(e)) if e.attempt > 0 => units.index_of(&e.step),
            Event::Undo(UndoEvent::Succeeded(e)) => units.index_of(&e.step),
            _ => None,
        }
        .filter(|step| !emitted_by(*step).is_empty());
        let name = match event {
            Event::Step(event) => event.step(),
            Event::Undo(event) => event.step(),
            Event::Operator(OperatorEvent::Retried(order)) => &order.step,
            Event::Operator(OperatorEvent::Skipped(order)) => &order.step,
            Event::Operator(OperatorEvent::Resolved(order)) => &order.step,
            Event::Saga(SagaEvent::Retimed(_)) => return self.retime(at),
            Event::Saga(SagaEvent::Started(e)) => {
                self.deadline = e.deadline_at.map(|deadline| (deadline, at));
                self.start = e.start_at.map(|start| (start, at));
                return;
            }
            Event::Operator(_) | Event::Saga(_) | Event::Signal(_) | Event::Emitted(_) => {
                return self.apply_saga(event);
            }
        };
        let Some(index) = units.index_of(name) else { return };
        let is_wait = matches!(definition.steps()[units.step(index)].kind, StepKind::Wait { .. });
        let has_undo = definition.steps()[units.step(index)].undo.is_some();
        let is_compensating = self.is_compensating;
        let step = &mut self.steps[index];
        match event {
            Event::Operator(OperatorEvent::Retried(_)) => {
                self.is_blocked = false;
                // Only a pivot is tried again before any undo of it.
                self.is_compensating &= step.undo_attempts > 0;
            }
            Event::Operator(OperatorEvent::Skipped(_)) => self.is_blocked = false,
            Event::Operator(OperatorEvent::Resolved(e)) => {
                self.is_blocked = false;
                self.is_compensating &= has_undo || !e.happened;
            }
            Event::Step(StepEvent::Succeeded(_)) => self.signals_taken += usize::from(is_wait),
            _ => {}
        }
        step.apply(at, event, is_compensating, has_undo);
    }

    /// Moves the times that were set by a clock that was ahead of `at`.
    fn retime(&mut self, at: Timestamp) {
        let waits = self.steps.iter_mut().filter_map(|step| match &mut step.waits {
            Wait::Until { since, until } => Some((since, until)),
            Wait::No | Wait::ForEver => None,
        });
        let deadline = self.deadline.as_mut().map(|(deadline, since)| (since, deadline));
        let start = self.start.as_mut().map(|(start, since)| (since, start));
        for (since, until) in waits.chain(deadline).chain(start).filter(|(since, _)| **since > at) {
            *until = at.after(until.since(*since));
            *since = at;
        }
    }

    /// Applies an event that is about no step.
    fn apply_saga(&mut self, event: &Event) {
        match event {
            Event::Saga(SagaEvent::CompensationStarted(_)) => self.is_compensating = true,
            Event::Saga(SagaEvent::Due(_)) => self.start = None,
            Event::Saga(SagaEvent::Completed(_)) => {
                (self.has_ended, self.is_completed, self.is_paused) = (true, true, false);
            }
            Event::Saga(SagaEvent::Compensated(_) | SagaEvent::Abandoned(_)) => {
                self.has_ended = true;
            }
            Event::Saga(SagaEvent::Blocked(e)) => {
                (self.is_blocked, self.is_blocked_by_log) = (true, e.step.is_none());
            }
            Event::Signal(SignalEvent::Received(_)) => self.signals += 1,
            Event::Operator(OperatorEvent::Cancelled(_)) => self.is_cancelled = true,
            Event::Operator(OperatorEvent::Compensated(_)) => {
                (self.has_ended, self.is_completed, self.is_cancelled) = (false, false, true);
            }
            Event::Operator(OperatorEvent::Paused(_)) => self.is_paused = true,
            Event::Operator(OperatorEvent::Resumed(_)) => self.is_paused = false,
            Event::Operator(OperatorEvent::Abandoned(_)) => self.is_given_up = true,
            _ => {}
        }
    }

    /// Counts an event. An order that moves a saga whose log is full allows more.
    fn count(&mut self, definition: &Definition, event: &Event) {
        let moves = match event {
            Event::Operator(order) => !matches!(
                order,
                OperatorEvent::Paused(_) | OperatorEvent::Noted(_) | OperatorEvent::Abandoned(_)
            ),
            _ => false,
        };
        if moves && self.is_log_full(definition) {
            self.events_allowed = Some(self.events + 1 + definition.log_limits().more.events);
            self.is_blocked &= !self.is_blocked_by_log;
        }
        self.events += 1;
    }

    /// Returns true when no call may begin until an operator allows more events.
    pub(super) fn is_log_full(&self, definition: &Definition) -> bool {
        self.events >= self.events_allowed.unwrap_or(definition.log_limits().max.events)
    }

    pub(super) fn is_past_pivot(&self, definition: &Definition) -> bool {
        definition.pivot().is_some_and(|pivot| self.steps[pivot].is_done())
    }
}

impl StepRecord {
    fn apply(&mut self, at: Timestamp, event: &Event, is_compensating: bool, has_undo: bool) {
        match event {
            Event::Step(StepEvent::Started(e)) => {
                (self.attempts, self.is_executing, self.began_at) = (e.attempt, true, at);
            }
            Event::Step(StepEvent::Waiting(e)) => {
                let until = |until| Wait::Until { since: at, until };
                self.waits = e.until.map_or(Wait::ForEver, until);
            }
            Event::Step(StepEvent::Expanded(_)) => self.is_expanded = true,
            Event::Step(StepEvent::Succeeded(e)) => {
                (self.is_executing, self.has_succeeded, self.waits) = (false, true, Wait::No);
                self.output = Some(e.output.clone());
            }
            Event::Step(StepEvent::Failed(e)) => {
                self.is_unclear &= e.probe != Some(Fate::DidNotHappen);
                self.failed(e.retry_at);
            }
            Event::Step(StepEvent::Unknown(e)) => {
                self.is_unclear = true;
                self.failed(e.retry_at);
            }
            Event::Step(StepEvent::Skipped(_)) => self.is_skipped = true,
            Event::Undo(UndoEvent::Started(e)) => {
                (self.undo_attempts, self.is_undoing) = (e.attempt, true);
            }
            Event::Undo(UndoEvent::Succeeded(_)) => {
                (self.is_undoing, self.is_undone) = (false, true);
            }
            Event::Undo(UndoEvent::Failed(e)) => {
                self.is_undoing = false;
                self.undo_failed(e.class, e.probe);
            }
            Event::Undo(UndoEvent::Blocked(e)) => {
                (self.is_undoing, self.is_undo_blocked) = (false, true);
                self.undo_failed(e.class, e.probe);
            }
            Event::Operator(OperatorEvent::Retried(e)) => {
                if e.input.is_some() {
                    self.edits += 1;
                    let is_undo = is_compensating && has_undo;
                    self.was_unclear_when_edited =
                        if is_undo { self.is_undo_unclear } else { self.is_unclear };
                }
                (self.has_failed, self.is_undo_blocked) = (false, false);
                self.attempts_before = self.attempts;
                self.undo_attempts_before = self.undo_attempts;
            }
            Event::Operator(OperatorEvent::Skipped(_)) => {
                (self.has_failed, self.is_undo_blocked) = (false, false);
                (self.is_skipped, self.is_let_go) = (!is_compensating, true);
                self.waits = Wait::No;
            }
            Event::Operator(OperatorEvent::Resolved(e)) => {
                let is_undo = is_compensating && has_undo;
                self.has_succeeded |= !is_undo && e.happened;
                if !is_undo && e.happened {
                    self.output.clone_from(&e.output);
                }
                self.has_failed &= is_undo || !e.happened;
                (self.is_undone, self.is_undo_blocked) = (is_undo, false);
                self.waits = Wait::No;
            }
            _ => {}
        }
    }

    fn undo_failed(&mut self, class: FailureClass, probe: Option<Fate>) {
        let is_unknown = class == FailureClass::Unknown;
        let is_known = probe == Some(Fate::DidNotHappen);
        self.is_undo_unclear = is_unknown || self.is_undo_unclear && !is_known;
    }

    fn failed(&mut self, retry_at: Option<Timestamp>) {
        self.is_executing = false;
        (self.has_failed, self.waits) = (retry_at.is_none(), Wait::No);
    }

    /// Returns true while a call of the step runs or another attempt follows.
    pub(super) fn is_under_way(&self) -> bool {
        let is_called = self.attempts > self.attempts_before;
        self.is_executing || is_called && !self.is_done() && !self.has_failed
    }

    /// Returns true while a call of the undo runs or another attempt follows.
    pub(super) fn is_undo_under_way(&self) -> bool {
        let is_called = self.undo_attempts > self.undo_attempts_before;
        let is_settled = self.is_undone || self.is_undo_blocked || self.is_let_go;
        self.is_undoing || is_called && !is_settled
    }

    pub(super) fn is_done(&self) -> bool {
        self.has_succeeded || self.is_skipped
    }
}

/// Returns the domain events that every call of a step emits, however it ends. Every other step
/// emits none.
pub(super) fn emitted_by(step: usize) -> Vec<Emitted> {
    let number = serde_json::json!(step);
    match ("sim.told".parse(), Payload::from_value(&number)) {
        (Ok(kind), Ok(data)) if step % 2 == 1 => vec![Emitted { kind, data }],
        _ => Vec::new(),
    }
}
