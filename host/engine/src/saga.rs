//! The state of one saga: what its events say, and nothing else.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::CLOCK_TOLERANCE;
use crate::call::{Direction, Failure};
use crate::definition::{
    Definition, Item, Read, Source, StepKind, StepSpec, Variable, Variables, Whole,
};
use crate::event::{Cause, CompensationStarted, SagaAbandoned, SagaBlocked, SagaStarted};
use crate::ids::{Digest, SagaId, SignalName, StepName, Timestamp, Version, push_hex};
use crate::payload::{PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX, Payload};
use crate::status::{SagaStatus, StepStatus};

/// Bytes of a trace context: version, trace id, parent id and flags, in hexadecimal.
const TRACEPARENT_BYTES: usize = 55;

/// One saga. Made by [`crate::start`] or [`crate::replay`], changed by [`crate::evolve`] only.
#[derive(Debug, Clone)]
pub struct Saga {
    pub(crate) id: SagaId,
    pub(crate) definition: Arc<Definition>,
    pub(crate) version: Version,
    pub(crate) started: Arc<SagaStarted>,
    pub(crate) started_at: Timestamp,
    pub(crate) ended_at: Option<Timestamp>,
    /// The latest time of its events since the clock was last set back.
    pub(crate) latest_at: Timestamp,
    /// When it is undone unless it has completed, and when that was set.
    pub(crate) deadline: Option<(Timestamp, Timestamp)>,
    pub(crate) phase: Phase,
    pub(crate) compensating_since: Option<Timestamp>,
    pub(crate) blocked: Option<Arc<SagaBlocked>>,
    pub(crate) wish: Option<Arc<Wish>>,
    pub(crate) paused: Option<Arc<Ordered>>,
    /// Who gave it up, and why.
    pub(crate) given_up: Option<Arc<Ordered>>,
    /// The last note of an operator.
    pub(crate) note: Option<Arc<Note>>,
    /// Signals that came, in order; those that a step has taken keep their id alone.
    pub(crate) signals: Vec<Signal>,
    /// The steps of the definition, in its order, then the elements of each fan-out.
    pub(crate) steps: Vec<StepState>,
    /// Steps that run over a list and have begun to, in the order in which they did.
    pub(crate) fan_outs: Vec<FanOut>,
}

/// A step that runs over a list, and its elements: each has a state of its own in
/// [`Saga::steps`], one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FanOut {
    /// The step.
    pub(crate) step: usize,
    /// Where the state of its first element is.
    pub(crate) first: usize,
    pub(crate) elements: Arc<[Element]>,
}

/// One element of a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: StepName,
    pub(crate) item: Payload,
}

impl FanOut {
    pub(crate) fn range(&self) -> Range<usize> {
        self.first..self.first + self.elements.len()
    }
}

/// An operator's wish that the saga be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) who: String,
    pub(crate) reason: String,
    pub(crate) cause: Cause,
}

/// Who ordered something of a saga or a step, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    /// Who.
    pub who: String,
    /// Why.
    pub reason: String,
}

/// What an operator has kept with a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// When it was recorded.
    pub at: Timestamp,
    /// Who says it.
    pub who: String,
    /// What.
    pub reason: String,
}

/// The component that an operator wants for the calls of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// For which of its calls.
    pub direction: Direction,
    /// The component.
    pub digest: Digest,
    /// Who chose it.
    pub who: String,
    /// Why.
    pub reason: String,
}

/// A signal that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signal {
    pub(crate) name: SignalName,
    pub(crate) id: Option<String>,
    /// None when a step has taken it.
    pub(crate) payload: Option<Payload>,
}

/// Which way a saga goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    Forward,
    Compensating(Arc<CompensationStarted>),
    Completed,
    Compensated(Arc<CompensationStarted>),
    Abandoned(Arc<SagaAbandoned>),
}

/// One step of a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StepState {
    pub(crate) progress: Progress,
    /// Attempts of `execute` so far.
    pub(crate) attempts: u32,
    /// Attempts of `compensate` so far.
    pub(crate) undo_attempts: u32,
    /// Attempts of each that do not count: those before an operator had it tried again, and those
    /// that tried for a breaker whether the service works again.
    pub(crate) attempts_before: u32,
    pub(crate) undo_attempts_before: u32,
    /// Attempts of each of which nobody knew what came of them.
    pub(crate) attempts_unknown: u32,
    pub(crate) undo_attempts_unknown: u32,
    /// When the last attempt of each began.
    pub(crate) began_at: Option<Timestamp>,
    pub(crate) undo_began_at: Option<Timestamp>,
    /// How often a new idempotency key of each began.
    pub(crate) key_generation: u32,
    pub(crate) undo_key_generation: u32,
    /// The saga that the last attempt of `execute` started, if it runs one.
    pub(crate) child: Option<SagaId>,
    /// The input of its calls, as an operator edited it.
    pub(crate) input: Option<Payload>,
    /// The component of its calls, as an operator chose it.
    pub(crate) chosen: Option<Arc<Chosen>>,
    /// Who resolved or skipped the step or its undo; none once a call was made after that.
    pub(crate) by_hand: Option<Arc<Ordered>>,
    /// Its undo found nothing to undo.
    pub(crate) undid_nothing: bool,
    /// The component of the last `execute`.
    pub(crate) digest: Option<Digest>,
    /// The component of the last `compensate`.
    pub(crate) undo_digest: Option<Digest>,
    /// What the step gave, once it succeeded and if that is known; kept through its undo.
    pub(crate) output: Option<Payload>,
    /// Some attempt was unknown, so an effect may stand even if a later attempt says it failed.
    pub(crate) tainted: bool,
    /// Some attempt of `compensate` was unknown, so the effect may not stand any more.
    pub(crate) undo_tainted: bool,
    pub(crate) error: Option<Arc<Failure>>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Pending,
    /// For a signal or a time.
    Waiting {
        since: Timestamp,
        until: Option<Timestamp>,
    },
    Running,
    /// It runs over a list: its elements say how far it is, also once it is undone.
    FannedOut,
    BackingOff {
        since: Timestamp,
        retry_at: Timestamp,
    },
    Succeeded,
    Failed,
    Unknown,
    Skipped,
    Undoing,
    UndoBackingOff {
        since: Timestamp,
        retry_at: Timestamp,
    },
    Undone,
    UndoBlocked,
    /// An operator let its effect stand.
    UndoSkipped,
}

/// One step as a reader sees it.
#[derive(Debug, Clone)]
pub struct StepView<'a> {
    /// Its name.
    pub name: &'a StepName,
    /// What the definition says of it; of an element, of the step that it belongs to.
    pub spec: &'a StepSpec,
    /// Where it stands.
    pub status: StepStatus,
    /// Attempts of `execute`.
    pub attempts: u32,
    /// Attempts of `compensate`.
    pub undo_attempts: u32,
    /// Of its attempts of `execute`, those of which nobody knew what came of them.
    pub attempts_unknown: u32,
    /// The same of `compensate`.
    pub undo_attempts_unknown: u32,
    /// Which of the step's idempotency keys its calls of `execute` carry, see
    /// [`crate::idempotency_key`].
    pub generation: u32,
    /// The same of its undo.
    pub undo_generation: u32,
    /// The input of its calls, as an operator edited it.
    pub edited_input: Option<&'a Payload>,
    /// What `execute` answered.
    pub output: Option<&'a Payload>,
    /// What went wrong last.
    pub error: Option<&'a Failure>,
    /// The component of its calls, as an operator chose it.
    pub chosen: Option<&'a Chosen>,
    /// Who resolved or skipped the step or its undo; none once a call was made after that.
    pub by_hand: Option<&'a Ordered>,
    /// Its undo found nothing to undo.
    pub undid_nothing: bool,
    /// The component of the last `execute`.
    pub digest: Option<Digest>,
    /// The component of the last `compensate`.
    pub undo_digest: Option<Digest>,
    /// When its first attempt began.
    pub started_at: Option<Timestamp>,
    /// When it last came to rest.
    pub ended_at: Option<Timestamp>,
    /// When its next attempt is due, or when it stops waiting.
    pub next_at: Option<Timestamp>,
    /// The saga that it runs or ran, if it runs one.
    pub child: Option<SagaId>,
}

impl Saga {
    pub(crate) fn new(
        id: SagaId,
        definition: Arc<Definition>,
        at: Timestamp,
        started: SagaStarted,
    ) -> Self {
        let steps = vec![StepState::default(); definition.steps().len()];
        Self {
            id,
            definition,
            version: Version(1),
            deadline: started.deadline_at.map(|deadline| (deadline, at)),
            started: Arc::new(started),
            started_at: at,
            ended_at: None,
            latest_at: at,
            phase: Phase::Forward,
            compensating_since: None,
            blocked: None,
            wish: None,
            paused: None,
            given_up: None,
            note: None,
            signals: Vec::new(),
            steps,
            fan_outs: Vec::new(),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> SagaId {
        self.id
    }

    /// The definition that it is pinned to.
    #[must_use]
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// How many events it has.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// What it was started with.
    #[must_use]
    pub fn started(&self) -> &SagaStarted {
        &self.started
    }

    /// Its trace context (W3C Trace Context, level 1): the one that the caller gave, else one that
    /// follows from its id, so that it is the same after every restart. The trace id of that is the
    /// saga's id without its hyphens; its flags ask whoever receives it to keep the trace.
    #[must_use]
    pub fn traceparent(&self) -> Cow<'_, str> {
        if let Some(given) = &self.started.traceparent {
            return Cow::Borrowed(given);
        }
        // A UUID of version 7 has bits that are not zero in both halves, as the standard wants.
        let id = self.id.as_bytes();
        let mut text = String::with_capacity(TRACEPARENT_BYTES);
        text.push_str("00-");
        push_hex(&mut text, id);
        text.push('-');
        push_hex(&mut text, &id[8..]);
        text.push_str("-01");
        Cow::Owned(text)
    }

    /// The trace id of [`Self::traceparent`]: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        let traceparent = self.traceparent();
        traceparent.split('-').nth(1).unwrap_or_default().to_owned()
    }

    /// When it began.
    #[must_use]
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// When it is undone unless it has completed, if its definition says so.
    #[must_use]
    pub fn deadline_at(&self) -> Option<Timestamp> {
        self.deadline.map(|(deadline, _)| deadline)
    }

    /// When it ended.
    #[must_use]
    pub fn ended_at(&self) -> Option<Timestamp> {
        self.ended_at
    }

    /// When it began to be undone, if it is being undone.
    #[must_use]
    pub fn compensating_since(&self) -> Option<Timestamp> {
        self.compensating_since.filter(|_| self.ended_at.is_none())
    }

    /// Where it stands.
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

    /// Whether nothing will happen any more: what its status says, without a look at its steps.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        match self.phase {
            Phase::Completed | Phase::Compensated(_) | Phase::Abandoned(_) => true,
            Phase::Forward | Phase::Compensating(_) => false,
        }
    }

    /// Why it is blocked, or why it is or was undone.
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

    /// The step whose failure began the compensation; none when an operator or the deadline began it.
    #[must_use]
    pub fn undone_for(&self) -> Option<&StepName> {
        match &self.phase {
            Phase::Compensating(started) | Phase::Compensated(started) => started.step.as_ref(),
            Phase::Forward | Phase::Completed | Phase::Abandoned(_) => None,
        }
    }

    /// The last note that an operator had kept with it; its events have the others.
    #[must_use]
    pub fn note(&self) -> Option<&Note> {
        self.note.as_deref()
    }

    /// The output of a completed saga: of its last step, or of each of its last steps by name.
    #[must_use]
    pub fn output(&self) -> Option<Payload> {
        if self.phase != Phase::Completed {
            return None;
        }
        // Several outputs together may pass the limit of one: then the steps tell them.
        let output_of = |step: usize| self.steps[step].output.clone();
        self.definition.output(|step| output_of(step).unwrap_or_else(Payload::null))
    }

    /// The next time at which something is due by the clock alone.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        let retries = self.steps.iter().filter_map(StepState::next_at).min();
        [retries, self.deadline_in_force()].into_iter().flatten().min()
    }

    /// The steps, in the order of the definition, each followed by its elements if it runs over a
    /// list.
    pub fn steps(&self) -> impl Iterator<Item = StepView<'_>> {
        let steps = 0..self.definition.steps().len();
        let with_elements = move |step| std::iter::once(step).chain(self.elements(step));
        steps.flat_map(with_elements).map(|index| self.view(index))
    }

    /// One step or element.
    #[must_use]
    pub fn step(&self, name: &StepName) -> Option<StepView<'_>> {
        self.index_of(name).map(|index| self.view(index))
    }

    fn view(&self, index: usize) -> StepView<'_> {
        let step = &self.steps[index];
        StepView {
            name: self.name(index),
            spec: self.spec(index),
            status: self.step_status(index),
            attempts: step.attempts,
            undo_attempts: step.undo_attempts,
            attempts_unknown: step.attempts_unknown,
            undo_attempts_unknown: step.undo_attempts_unknown,
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

    /// Of a step over a list that is undone, what its elements come to.
    pub(crate) fn step_status(&self, index: usize) -> StepStatus {
        let own = self.steps[index].progress;
        let elements = || self.elements(index).map(|element| self.steps[element].progress.status());
        if elements().next().is_none() || self.compensating_since.is_none() {
            return own.status();
        }
        let telling = [
            StepStatus::UndoBlocked,
            StepStatus::Undoing,
            StepStatus::UndoBackingOff,
            StepStatus::Running,
            StepStatus::UndoSkipped,
        ];
        if let Some(status) = telling.into_iter().find(|status| elements().any(|it| it == *status))
        {
            return status;
        }
        if self.is_clear(index) && elements().any(|it| it == StepStatus::Undone) {
            StepStatus::Undone
        } else if own == Progress::FannedOut {
            StepStatus::Failed
        } else {
            own.status()
        }
    }

    /// The fan-out of a step, once it has its elements.
    pub(crate) fn fan_out(&self, step: usize) -> Option<&FanOut> {
        self.fan_outs.iter().find(|fan_out| fan_out.step == step)
    }

    /// The elements of a step; empty when it has none.
    fn elements(&self, step: usize) -> Range<usize> {
        self.fan_out(step).map_or(0..0, FanOut::range)
    }

    /// The fan-out that an element belongs to, and the element; none for a step of the definition.
    pub(crate) fn element(&self, index: usize) -> Option<(&FanOut, &Element)> {
        if index < self.definition.steps().len() {
            return None;
        }
        let fan_out = self.fan_outs.iter().find(|fan_out| fan_out.range().contains(&index))?;
        Some((fan_out, &fan_out.elements[index - fan_out.first]))
    }

    /// The step of the definition that a step is, or belongs to.
    pub(crate) fn step_of(&self, index: usize) -> usize {
        self.element(index).map_or(index, |(fan_out, _)| fan_out.step)
    }

    /// What the definition says of a step or element.
    pub(crate) fn spec(&self, index: usize) -> &StepSpec {
        &self.definition.steps()[self.step_of(index)]
    }

    /// The name of a step or element.
    pub(crate) fn name(&self, index: usize) -> &StepName {
        match self.element(index) {
            Some((_, element)) => &element.name,
            None => &self.definition.steps()[index].name,
        }
    }

    /// The step or element of this name.
    pub(crate) fn index_of(&self, name: &StepName) -> Option<usize> {
        let Some(number) = name.number() else { return self.definition.index_of(name) };
        let named = |step: usize| self.definition.steps()[step].name.as_str() == name.step();
        let fan_out = self.fan_outs.iter().find(|fan_out| named(fan_out.step))?;
        fan_out.range().nth(number)
    }

    /// Whether `step` makes no call of its own: it runs over a list, and its elements do.
    pub(crate) fn runs_over_list(&self, step: usize) -> bool {
        self.definition.steps().get(step).is_some_and(|spec| spec.each.is_some())
    }

    /// Elements of a fan-out that wait for their call, forward or back, may begin up to here, not
    /// included: those under way, the ones that will be tried again among them, are so many at most.
    pub(crate) fn may_begin_until(&self, fan_out: &FanOut) -> usize {
        let is_forward = self.phase == Phase::Forward;
        let steps = || fan_out.range().zip(&self.steps[fan_out.range()]);
        let is_under_way = |step: &StepState| match step.progress {
            Progress::Running | Progress::BackingOff { .. } => is_forward,
            Progress::Undoing | Progress::UndoBackingOff { .. } => !is_forward,
            Progress::Pending
            | Progress::Waiting { .. }
            | Progress::FannedOut
            | Progress::Succeeded
            | Progress::Failed
            | Progress::Unknown
            | Progress::Skipped
            | Progress::Undone
            | Progress::UndoBlocked
            | Progress::UndoSkipped => false,
        };
        let waits = |step: &StepState| match step.progress {
            Progress::Pending => is_forward,
            Progress::Succeeded | Progress::Unknown => !is_forward,
            Progress::Waiting { .. }
            | Progress::Running
            | Progress::FannedOut
            | Progress::BackingOff { .. }
            | Progress::Failed
            | Progress::Skipped
            | Progress::Undoing
            | Progress::UndoBackingOff { .. }
            | Progress::Undone
            | Progress::UndoBlocked
            | Progress::UndoSkipped => false,
        };
        let each = self.definition.steps()[fan_out.step].each.as_ref();
        let concurrency = each.map_or(0, |each| each.concurrency);
        let under_way = steps().filter(|(_, step)| is_under_way(step)).count();
        let free = concurrency.saturating_sub(under_way);
        let next = steps().filter(|(_, step)| waits(step)).nth(free);
        next.map_or(fan_out.range().end, |(index, _)| index)
    }

    /// Whether the point of no return is behind it. A pivot that was skipped counts: what comes
    /// after it has no undo.
    pub(crate) fn is_past_pivot(&self) -> bool {
        self.definition.pivot().is_some_and(|pivot| self.steps[pivot].progress.is_done())
    }

    /// Whether nobody can tell yet if the point of no return is behind it: the pivot's call is in
    /// flight, or an attempt of it was unknown and the next one will tell.
    pub(crate) fn is_at_pivot(&self) -> bool {
        self.definition.pivot().is_some_and(|pivot| {
            let step = &self.steps[pivot];
            // Pending and tainted: an operator had it tried again.
            let tried_again =
                matches!(step.progress, Progress::Pending | Progress::BackingOff { .. });
            step.progress == Progress::Running || tried_again && step.tainted
        })
    }

    /// Whether `step` is a pivot that may have happened and that nothing undoes.
    pub(crate) fn is_unknown_pivot(&self, step: usize) -> bool {
        self.definition.pivot() == Some(step)
            && self.steps[step].progress == Progress::Unknown
            && self.spec(step).undo.is_none()
    }

    /// The saga that the last attempt of `step` started, if it runs one.
    pub(crate) fn child(&self, step: usize) -> Option<SagaId> {
        self.steps[step].child
    }

    /// The first signal of this name that no step has taken.
    pub(crate) fn signal_mut(&mut self, name: &SignalName) -> Option<&mut Signal> {
        self.signals.iter_mut().find(|signal| signal.name == *name && signal.payload.is_some())
    }

    pub(crate) fn deadline_in_force(&self) -> Option<Timestamp> {
        // Once undoing is wished for, or while nobody can tell whether the saga may still be
        // undone, the clock changes nothing.
        let in_force = self.phase == Phase::Forward
            && !self.is_past_pivot()
            && !self.is_at_pivot()
            && self.wish.is_none();
        self.deadline_at().filter(|_| in_force)
    }

    /// By how much the clock was ahead when a time that the saga waits for was set: it has been set
    /// back since. None when it was not, or by no more than [`CLOCK_TOLERANCE`].
    pub(crate) fn clock_was_ahead(&self, at: Timestamp) -> Option<Duration> {
        let is_back = |since: Timestamp| since.since(at) > CLOCK_TOLERANCE;
        if !is_back(self.latest_at) {
            return None;
        }
        let steps = self.steps.iter().filter_map(StepState::timer).map(|(since, _)| since);
        let deadline = self.deadline.filter(|_| self.deadline_in_force().is_some());
        let latest = steps.chain(deadline.map(|(_, since)| since)).max()?;
        is_back(latest).then(|| latest.since(at))
    }

    /// Has each time that was set after `at` come as long after `at` as it was to come after that.
    pub(crate) fn retime(&mut self, at: Timestamp) {
        let timers = self.steps.iter_mut().filter_map(|step| step.progress.timer_mut());
        let deadline = self.deadline.as_mut().map(|(deadline, since)| (since, deadline));
        for (since, due) in timers.chain(deadline).filter(|(since, _)| **since > at) {
            *due = at.after(due.since(*since));
            *since = at;
        }
        self.latest_at = at;
    }

    /// Whether the effect of an earlier call of a step may stand, in the direction in which the
    /// step is to be tried again.
    pub(crate) fn may_have_acted(&self, index: usize) -> bool {
        let step = &self.steps[index];
        match step.progress {
            Progress::UndoBlocked | Progress::UndoBackingOff { .. } => step.undo_tainted,
            Progress::Pending
            | Progress::Waiting { .. }
            | Progress::Running
            | Progress::FannedOut
            | Progress::BackingOff { .. }
            | Progress::Succeeded
            | Progress::Failed
            | Progress::Unknown
            | Progress::Skipped
            | Progress::Undoing
            | Progress::Undone
            | Progress::UndoSkipped => step.tainted,
        }
    }

    /// Whether a step waits for a signal of this name, or may come to.
    pub(crate) fn may_take(&self, name: &SignalName) -> bool {
        let goes_on = match self.phase {
            Phase::Forward => true,
            // A pivot that turns out to have happened turns the saga round.
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

    /// Whether a step waits for a signal of this name now.
    #[must_use]
    pub fn waits_for(&self, name: &SignalName) -> bool {
        let waits = |(spec, step): (&StepSpec, &StepState)| {
            matches!(step.progress, Progress::Waiting { .. })
                && matches!(&spec.kind, StepKind::Wait { wait } if wait.signal == *name)
        };
        self.definition.steps().iter().zip(&self.steps).any(waits)
    }

    /// Whether `step` waits for nothing but its own call. What an element waits for was done
    /// before there were elements.
    pub(crate) fn is_ready(&self, step: usize) -> bool {
        self.steps[step].progress == Progress::Pending
            && (step >= self.definition.steps().len() || self.dependencies_are_done(step))
    }

    fn dependencies_are_done(&self, step: usize) -> bool {
        self.definition.step(step).after.iter().all(|dep| self.steps[dep].progress.is_done())
    }

    /// Whether nothing of `step` stands or can still come to stand. Of a step over a list, nothing
    /// of its elements.
    pub(crate) fn is_clear(&self, step: usize) -> bool {
        let mut elements = self.elements(step);
        if !elements.is_empty() {
            return elements.all(|element| self.is_clear(element));
        }
        match self.steps[step].progress {
            Progress::Pending
            | Progress::FannedOut
            | Progress::Failed
            | Progress::Skipped
            | Progress::Undone
            | Progress::UndoSkipped => true,
            Progress::Succeeded => self.spec(step).undo.is_none() || self.runs_over_list(step),
            // `undo = false` says that there is nothing to undo; of a pivot it says that nothing
            // may be, so an operator must find out.
            Progress::Unknown => self.spec(step).undo.is_none() && !self.is_unknown_pivot(step),
            Progress::Running
            | Progress::Waiting { .. }
            | Progress::BackingOff { .. }
            | Progress::Undoing
            | Progress::UndoBackingOff { .. }
            | Progress::UndoBlocked => false,
        }
    }

    /// Whether `step` stands, has an undo, and everything that was built on it is clear.
    pub(crate) fn is_undo_ready(&self, step: usize) -> bool {
        matches!(self.steps[step].progress, Progress::Succeeded | Progress::Unknown)
            && self.spec(step).undo.is_some()
            && !self.runs_over_list(step)
            && {
                let built_on_it = self.definition.step(self.step_of(step)).descendants;
                built_on_it.iter().all(|other| self.is_clear(other))
            }
    }

    /// Whether the undo of `step` is due and has not begun: its component may be gone, its service away, or
    /// the saga paused.
    pub(crate) fn undo_waits(&self, step: usize) -> bool {
        matches!(self.phase, Phase::Compensating(_)) && self.is_undo_ready(step)
    }

    /// Whether it is the same in everything that its log decides.
    #[cfg(feature = "sim")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.version == other.version
            && self.phase == other.phase
            && self.started == other.started
            && (self.started_at, self.ended_at) == (other.started_at, other.ended_at)
            && (self.latest_at, self.deadline) == (other.latest_at, other.deadline)
            && self.compensating_since == other.compensating_since
            && self.blocked == other.blocked
            && self.wish == other.wish
            && self.paused == other.paused
            && self.given_up == other.given_up
            && self.note == other.note
            && self.signals == other.signals
            && self.steps == other.steps
            && self.fan_outs == other.fan_outs
    }

    /// What the expressions of `step` see.
    pub(crate) fn variables(&self, index: usize) -> Variables<'_> {
        let element = self.element(index);
        let step = element.map_or(index, |(fan_out, _)| fan_out.step);
        let item = element
            .map(|(fan_out, element)| Item::new(element.item.to_value(), index - fan_out.first));
        Variables::new(Seen { saga: self, step }, item)
    }

    /// The input of a step's calls when it is a payload that is passed on as it is: nothing is
    /// read and nothing can go wrong.
    pub(crate) fn input_passed_on(&self, index: usize) -> Option<Payload> {
        match self.definition.step(self.step_of(index)).whole_input()? {
            Whole::Input => Some(self.started.input.clone()),
            Whole::Item => self.element(index).map(|(_, element)| element.item.clone()),
            Whole::Output(name) => {
                let named = |spec: &StepSpec| spec.name.as_str() == name;
                let step = self.definition.steps().iter().position(named)?;
                Some(self.steps[step].output.clone().unwrap_or_else(Payload::null))
            }
        }
    }

    /// Whether the default input of `step`, which has all payloads before it in it, is certainly
    /// within the limits of a payload; false: that must be computed.
    pub(crate) fn fits_default_input(&self, step: usize) -> bool {
        const AROUND: usize = 128;
        let outputs = self.definition.step(step).ancestors.iter();
        let outputs = outputs.filter_map(|step| self.steps[step].output.as_ref());
        let (mut bytes, mut depth) = (AROUND, 0);
        for payload in outputs.chain([&self.started.input]) {
            bytes += payload.as_str().len() + AROUND;
            depth = depth.max(payload.depth());
        }
        bytes <= PAYLOAD_BYTES_MAX && depth + 4 <= PAYLOAD_DEPTH_MAX
    }

    /// Nothing is in flight or due, only times are waited for.
    fn is_waiting(&self) -> bool {
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
}

/// What the expressions of a step read.
struct Seen<'s> {
    saga: &'s Saga,
    step: usize,
}

impl Seen<'_> {
    /// The steps that they look at, with their outputs.
    fn outputs(&self) -> impl Iterator<Item = (&StepName, Option<&Payload>)> {
        let definition = &self.saga.definition;
        let steps = definition.step(self.step).reads.iter();
        steps.map(|step| (&definition.steps()[step].name, self.saga.steps[step].output.as_ref()))
    }
}

impl Source for Seen<'_> {
    fn bytes(&self, variable: Variable) -> usize {
        match variable {
            Variable::Input => self.saga.started.input.as_str().len(),
            Variable::Steps => {
                self.outputs().filter_map(|(_, output)| Some(output?.as_str().len())).sum()
            }
            // Its tags are few and short.
            Variable::Saga => 0,
        }
    }

    fn read(&self, variable: Variable) -> Read {
        let saga = self.saga;
        match variable {
            Variable::Input => saga.started.input.to_value(),
            Variable::Steps => {
                let mut outputs = Map::new();
                for (name, output) in self.outputs() {
                    let output = output.map(Payload::to_value).transpose()?;
                    outputs.insert(name.to_string(), json!({"output": output}));
                }
                Ok(Value::Object(outputs))
            }
            Variable::Saga => Ok(json!({
                "id": saga.id,
                "definition": saga.definition.name(),
                "started_at": saga.started_at,
                "tags": saga.started.tags,
            })),
        }
    }
}

impl StepState {
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        self.timer().map(|(_, due)| due)
    }

    /// The time that it waits for, after when that was set.
    pub(crate) fn timer(&self) -> Option<(Timestamp, Timestamp)> {
        let mut progress = self.progress;
        progress.timer_mut().map(|(since, due)| (*since, *due))
    }

    /// Which idempotency key the next call of this direction carries, and the one that runs.
    pub(crate) fn generation(&self, direction: Direction) -> u32 {
        match direction {
            Direction::Execute => self.key_generation,
            Direction::Compensate => self.undo_key_generation,
        }
    }

    /// Where it stood before its undo began: an effect that was recorded, or one that may stand.
    pub(crate) fn stood(&self) -> Progress {
        if self.output.is_some() { Progress::Succeeded } else { Progress::Unknown }
    }
}

impl Default for StepState {
    fn default() -> Self {
        Self {
            progress: Progress::Pending,
            attempts: 0,
            undo_attempts: 0,
            attempts_before: 0,
            undo_attempts_before: 0,
            attempts_unknown: 0,
            undo_attempts_unknown: 0,
            began_at: None,
            undo_began_at: None,
            key_generation: 0,
            undo_key_generation: 0,
            child: None,
            input: None,
            digest: None,
            undo_digest: None,
            chosen: None,
            by_hand: None,
            undid_nothing: false,
            output: None,
            tainted: false,
            undo_tainted: false,
            error: None,
            started_at: None,
            ended_at: None,
        }
    }
}

impl Progress {
    /// Whether what comes after it may begin.
    pub(crate) fn is_done(self) -> bool {
        matches!(self, Self::Succeeded | Self::Skipped)
    }

    /// When the time that it waits for was set, and that time.
    fn timer_mut(&mut self) -> Option<(&mut Timestamp, &mut Timestamp)> {
        match self {
            Self::BackingOff { since, retry_at } | Self::UndoBackingOff { since, retry_at } => {
                Some((since, retry_at))
            }
            Self::Waiting { since, until: Some(until) } => Some((since, until)),
            Self::Waiting { until: None, .. }
            | Self::Pending
            | Self::Running
            | Self::FannedOut
            | Self::Succeeded
            | Self::Failed
            | Self::Unknown
            | Self::Skipped
            | Self::Undoing
            | Self::Undone
            | Self::UndoBlocked
            | Self::UndoSkipped => None,
        }
    }

    pub(crate) fn status(self) -> StepStatus {
        match self {
            Self::Pending => StepStatus::Pending,
            Self::Waiting { .. } => StepStatus::Waiting,
            Self::Running | Self::FannedOut => StepStatus::Running,
            Self::BackingOff { .. } => StepStatus::BackingOff,
            Self::Succeeded => StepStatus::Succeeded,
            Self::Failed => StepStatus::Failed,
            Self::Unknown => StepStatus::Unknown,
            Self::Skipped => StepStatus::Skipped,
            Self::Undoing => StepStatus::Undoing,
            Self::UndoBackingOff { .. } => StepStatus::UndoBackingOff,
            Self::Undone => StepStatus::Undone,
            Self::UndoBlocked => StepStatus::UndoBlocked,
            Self::UndoSkipped => StepStatus::UndoSkipped,
        }
    }
}
