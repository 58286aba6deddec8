//! What the rules know: what the log says, and what the world saw.

#![expect(clippy::wildcard_enum_match_arm, reason = "the rest is handled before")]

use super::units::Units;
use crate::event::Event;
use crate::{Definition, Emitted, FailureClass, Fate, Outcome, Payload, StepKind, Timestamp};

/// What the events so far say, kept apart from [`crate::Saga`].
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
    /// Signals that came, and that steps have taken.
    pub(super) signals: usize,
    pub(super) signals_taken: usize,
    /// The step whose call succeeded with the last event, and has something to tell.
    pub(super) tells: Option<usize>,
    /// The deadline, and when it was set.
    pub(super) deadline: Option<(Timestamp, Timestamp)>,
}

/// Whether a step waits for a signal or a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Waits {
    #[default]
    No,
    ForEver,
    Until {
        since: Timestamp,
        until: Timestamp,
    },
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
    /// It failed or is unknown, and no attempt follows.
    pub(super) has_failed: bool,
    pub(super) undo_attempts: u32,
    pub(super) is_undoing: bool,
    pub(super) is_undone: bool,
    pub(super) is_undo_blocked: bool,
    pub(super) waits: Waits,
    /// What it gave, whoever said so.
    pub(super) output: Option<Payload>,
    /// It runs over a list and has its elements.
    pub(super) is_expanded: bool,
    /// An operator went on without it, whatever of it stands.
    pub(super) is_let_go: bool,
    /// Attempts that do not count, because an operator had it tried again.
    pub(super) attempts_before: u32,
    pub(super) undo_attempts_before: u32,
    /// How often an operator has edited the input of its calls.
    pub(super) edits: u32,
    /// Whether nobody knows what became of some attempt of each.
    pub(super) is_unclear: bool,
    pub(super) is_undo_unclear: bool,
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
        self.tells = match event {
            Event::StepSucceeded(e) if e.attempt > 0 => units.index_of(&e.step),
            Event::UndoSucceeded(e) => units.index_of(&e.step),
            _ => None,
        }
        .filter(|step| !emitted_by(*step).is_empty());
        let name = match event {
            Event::StepStarted(e) => &e.step,
            Event::StepWaiting(e) => &e.step,
            Event::StepExpanded(e) => &e.step,
            Event::StepSucceeded(e) => &e.step,
            Event::StepFailed(e) => &e.step,
            Event::StepUnknown(e) => &e.step,
            Event::StepSkipped(e) => &e.step,
            Event::UndoStarted(e) => &e.step,
            Event::UndoSucceeded(e) => &e.step,
            Event::UndoFailed(e) => &e.step,
            Event::UndoBlocked(e) => &e.step,
            Event::OperatorRetried(e) => &e.step,
            Event::OperatorSkipped(e) => &e.step,
            Event::OperatorResolved(e) => &e.step,
            Event::SagaRetimed(_) => return self.retime(at),
            Event::SagaStarted(e) => {
                self.deadline = e.deadline_at.map(|deadline| (deadline, at));
                return;
            }
            Event::CompensationStarted(_)
            | Event::SagaCompleted(_)
            | Event::SagaCompensated(_)
            | Event::SagaBlocked(_)
            | Event::SagaAbandoned(_)
            | Event::SignalReceived(_)
            | Event::Emitted(_)
            | Event::OperatorCancelled(_)
            | Event::OperatorCompensated(_)
            | Event::OperatorPaused(_)
            | Event::OperatorResumed(_)
            | Event::OperatorNoted(_)
            | Event::OperatorAbandoned(_) => return self.apply_saga(event),
        };
        let Some(index) = units.index_of(name) else { return };
        let is_wait = matches!(definition.steps()[units.step(index)].kind, StepKind::Wait { .. });
        let has_undo = definition.steps()[units.step(index)].undo.is_some();
        let is_compensating = self.is_compensating;
        let step = &mut self.steps[index];
        match event {
            Event::OperatorRetried(_) => {
                self.is_blocked = false;
                // Only a pivot is tried again before any undo of it.
                self.is_compensating &= step.undo_attempts > 0;
            }
            Event::OperatorSkipped(_) => self.is_blocked = false,
            Event::OperatorResolved(e) => {
                self.is_blocked = false;
                self.is_compensating &= has_undo || !e.happened;
            }
            Event::StepSucceeded(_) => self.signals_taken += usize::from(is_wait),
            _ => {}
        }
        step.apply(at, event, is_compensating, has_undo);
    }

    /// What was set by a clock that was ahead of `at` comes as long after `at`.
    fn retime(&mut self, at: Timestamp) {
        let waits = self.steps.iter_mut().filter_map(|step| match &mut step.waits {
            Waits::Until { since, until } => Some((since, until)),
            Waits::No | Waits::ForEver => None,
        });
        let deadline = self.deadline.as_mut().map(|(deadline, since)| (since, deadline));
        for (since, until) in waits.chain(deadline).filter(|(since, _)| **since > at) {
            *until = at.after(until.since(*since));
            *since = at;
        }
    }

    /// An event that is about no step.
    fn apply_saga(&mut self, event: &Event) {
        match event {
            Event::CompensationStarted(_) => self.is_compensating = true,
            Event::SagaCompleted(_) => {
                (self.has_ended, self.is_completed, self.is_paused) = (true, true, false);
            }
            Event::SagaCompensated(_) | Event::SagaAbandoned(_) => self.has_ended = true,
            Event::SagaBlocked(_) => self.is_blocked = true,
            Event::SignalReceived(_) => self.signals += 1,
            Event::OperatorCancelled(_) => self.is_cancelled = true,
            Event::OperatorCompensated(_) => {
                (self.has_ended, self.is_completed, self.is_cancelled) = (false, false, true);
            }
            Event::OperatorPaused(_) => self.is_paused = true,
            Event::OperatorResumed(_) => self.is_paused = false,
            Event::OperatorAbandoned(_) => self.is_given_up = true,
            _ => {}
        }
    }

    pub(super) fn is_past_pivot(&self, definition: &Definition) -> bool {
        definition.pivot().is_some_and(|pivot| self.steps[pivot].is_done())
    }
}

impl StepRecord {
    fn apply(&mut self, at: Timestamp, event: &Event, is_compensating: bool, has_undo: bool) {
        match event {
            Event::StepStarted(e) => {
                (self.attempts, self.is_executing, self.began_at) = (e.attempt, true, at);
            }
            Event::StepWaiting(e) => {
                let until = |until| Waits::Until { since: at, until };
                self.waits = e.until.map_or(Waits::ForEver, until);
            }
            Event::StepExpanded(_) => self.is_expanded = true,
            Event::StepSucceeded(e) => {
                (self.is_executing, self.has_succeeded, self.waits) = (false, true, Waits::No);
                self.output = Some(e.output.clone());
            }
            Event::StepFailed(e) => {
                self.is_unclear &= e.probe != Some(Fate::DidNotHappen);
                self.failed(e.retry_at);
            }
            Event::StepUnknown(e) => {
                self.is_unclear = true;
                self.failed(e.retry_at);
            }
            Event::StepSkipped(_) => self.is_skipped = true,
            Event::UndoStarted(e) => (self.undo_attempts, self.is_undoing) = (e.attempt, true),
            Event::UndoSucceeded(_) => (self.is_undoing, self.is_undone) = (false, true),
            Event::UndoFailed(e) => {
                self.is_undoing = false;
                self.undo_failed(e.class, e.probe);
            }
            Event::UndoBlocked(e) => {
                (self.is_undoing, self.is_undo_blocked) = (false, true);
                self.undo_failed(e.class, e.probe);
            }
            Event::OperatorRetried(e) => {
                self.edits += u32::from(e.input.is_some());
                (self.has_failed, self.is_undo_blocked) = (false, false);
                self.attempts_before = self.attempts;
                self.undo_attempts_before = self.undo_attempts;
            }
            Event::OperatorSkipped(_) => {
                (self.has_failed, self.is_undo_blocked) = (false, false);
                (self.is_skipped, self.is_let_go) = (!is_compensating, true);
                self.waits = Waits::No;
            }
            Event::OperatorResolved(e) => {
                let is_undo = is_compensating && has_undo;
                self.has_succeeded |= !is_undo && e.happened;
                if !is_undo && e.happened {
                    self.output.clone_from(&e.output);
                }
                self.has_failed &= is_undo || !e.happened;
                (self.is_undone, self.is_undo_blocked) = (is_undo, false);
                self.waits = Waits::No;
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
        (self.has_failed, self.waits) = (retry_at.is_none(), Waits::No);
    }

    /// Whether it was called and will be again.
    pub(super) fn is_under_way(&self) -> bool {
        let is_called = self.attempts > self.attempts_before;
        self.is_executing || is_called && !self.is_done() && !self.has_failed
    }

    /// The same of its undo.
    pub(super) fn is_undo_under_way(&self) -> bool {
        let is_called = self.undo_attempts > self.undo_attempts_before;
        let is_settled = self.is_undone || self.is_undo_blocked || self.is_let_go;
        self.is_undoing || is_called && !is_settled
    }

    pub(super) fn is_done(&self) -> bool {
        self.has_succeeded || self.is_skipped
    }
}

/// What every call of a step tells, however it ends: every other step is silent.
pub(super) fn emitted_by(step: usize) -> Vec<Emitted> {
    let number = serde_json::json!(step);
    match ("sim.told".parse(), Payload::from_value(&number)) {
        (Ok(kind), Ok(data)) if step % 2 == 1 => vec![Emitted { kind, data }],
        _ => Vec::new(),
    }
}

/// What really happened outside, which the log can only try to tell.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    pub(super) steps: Vec<Effect>,
    /// Requests of calls that are over for the host, and that the world has not seen yet.
    pub(super) on_their_way: Vec<OnItsWay>,
}

/// A request that may still come to have its effect.
#[derive(Debug, Clone)]
pub(super) struct OnItsWay {
    pub(super) step: usize,
    /// Which of the step's keys it carries.
    pub(super) generation: u32,
    /// By then it has come or never will.
    pub(super) until: Timestamp,
}

impl Ledger {
    /// Whether the effect of a step may still come to stand though no call of it runs.
    pub(super) fn may_land(&self, step: usize, now: Timestamp) -> bool {
        let of_step = |request: &&OnItsWay| request.step == step;
        let mut requests = self.on_their_way.iter().filter(of_step);
        requests.any(|request| request.may_land(&self.steps[step], now))
    }
}

impl OnItsWay {
    /// Whether it may still have its effect: a key that was used brings nothing.
    pub(super) fn may_land(&self, effect: &Effect, now: Timestamp) -> bool {
        let is_used = effect.times > 0 && effect.generation == self.generation;
        now < self.until && !effect.is_closed && !is_used
    }
}

/// The effect of one step.
#[derive(Debug, Clone, Default)]
pub(super) struct Effect {
    /// It stands now.
    pub(super) stands: bool,
    /// It came to stand this often.
    pub(super) times: u32,
    /// Which of the step's keys made it stand.
    pub(super) generation: u32,
    /// It was undone, or was to be: what is on its way comes to nothing.
    pub(super) is_closed: bool,
    /// What the last call answered, as far as the host heard.
    pub(super) answer: Option<Outcome>,
}
