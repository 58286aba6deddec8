//! Every decision.
//!
//! [`decide`] takes what happened and answers the facts that follow, in order, for one append.
//! It has three parts: everything that follows from the state and the time (`settle`), the direct
//! answer to the input, then everything that follows from the state that this leads to. Because
//! `settle` looks at the state only, a log that was cut anywhere goes on from where it was cut:
//! [`Input::Tick`] finds what is missing. An order or a signal meets the settled state: it is
//! answered by a fact of its own, or refused in words.

mod call;
mod operator;
mod settle;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::call::{Direction, Failure, Fate, Outcome};
use crate::definition::Definition;
use crate::emitted::Emitted;
use crate::event::{Event, Parent, SagaStarted, SignalReceived};
use crate::evolve::evolve;
use crate::ids::{Digest, SagaId, SignalName, StepName, Timestamp};
use crate::payload::Payload;
use crate::saga::{Progress, Saga, Signal};
use call::Told;

pub(crate) use operator::needs_operator;
pub use operator::{Order, Verb, permits, steps_of};

/// Signals that a saga keeps until its steps take them.
pub const SIGNALS_MAX: usize = 256;

/// What a saga is started with.
#[derive(Debug, Clone)]
pub struct Start {
    /// Its id, new.
    pub id: SagaId,
    /// What it does.
    pub definition: Arc<Definition>,
    /// What it is given.
    pub input: Payload,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// For finding it.
    pub tags: BTreeMap<String, String>,
    /// The caller's trace context (W3C).
    pub traceparent: Option<String>,
    /// What starts it, if that is a step of another saga.
    pub parent: Option<Parent>,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// The runtime can run a call that [`crate::commands`] named: it has the component and room.
    Admit {
        /// The step.
        step: StepName,
        /// Which way.
        direction: Direction,
        /// The component that will serve the call.
        digest: Digest,
        /// Why this component, when it is not the active one.
        note: Option<String>,
        /// It tries for a breaker whether the service works again: it does not count as an attempt,
        /// unless there is only one.
        is_trial: bool,
    },
    /// What came of a call.
    Outcome {
        /// The step.
        step: StepName,
        /// Which way.
        direction: Direction,
        /// Which attempt.
        attempt: u32,
        /// What came of it.
        outcome: Outcome,
        /// What the component found out about it when it was asked, if it was. The outcome is
        /// what follows from that.
        probe: Option<Fate>,
        /// What the component told, if it succeeded: dropped otherwise, as no effect of it stands.
        emitted: Vec<Emitted>,
    },
    /// A call that is due will not be run: its service is not to be called now, and the config
    /// says that this fails the step. An undo is never refused, it waits.
    Refuse {
        /// The step.
        step: StepName,
        /// Why not.
        error: Failure,
    },
    /// Time has passed, or the saga was loaded.
    Tick,
    /// Somebody signals. Refused when no step can take it any more.
    Signal {
        /// Which signal.
        name: SignalName,
        /// The sender's id of it: with one that came before nothing happens.
        id: Option<String>,
        /// What it says.
        payload: Payload,
        /// Who sends it.
        who: Option<String>,
    },
    /// An operator acts. Refused when the saga does not permit that now.
    Operate(Order),
}

/// Why an operator's wish is refused in the state that a saga is in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {remedy}")]
pub struct Refusal {
    /// Why not.
    pub message: String,
    /// What would be right.
    pub remedy: String,
}

/// What follows from an input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Decision {
    /// The facts, in order, for one append.
    pub events: Vec<Event>,
    /// Why the order or the signal is refused; the facts are then those that the clock alone led
    /// to. None: it has a fact of its own, or was done already.
    pub refused: Option<Refusal>,
}

/// Starts a saga: the facts of its first append, and the saga after them.
#[must_use]
pub fn start(at: Timestamp, start: Start) -> (Saga, Vec<Event>) {
    let deadline_at = start.definition.spec().deadline.map(|deadline| at.after(deadline));
    let started = SagaStarted {
        definition: start.definition.name().clone(),
        definition_digest: start.definition.digest(),
        input: start.input,
        key: start.key,
        tags: start.tags,
        traceparent: start.traceparent,
        deadline_at,
        parent: start.parent,
    };
    let mut saga = Saga::new(start.id, start.definition, at, started.clone());
    let mut draft = Draft { saga: &mut saga, at, events: vec![started.into()] };
    draft.settle();
    let events = draft.events;
    (saga, events)
}

/// Decides. Empty when the input is late, repeated, or not about a call that is running.
///
/// The answer must be durable before anything acts on it; then [`evolve`] applies each fact.
#[must_use]
pub fn decide(saga: &Saga, at: Timestamp, input: Input) -> Vec<Event> {
    decide_on(&mut saga.clone(), at, input).events
}

/// As [`decide`], on a copy of the saga that is the caller's: the facts are applied to it already.
/// When this panics, the copy is worth nothing.
pub fn decide_on(saga: &mut Saga, at: Timestamp, input: Input) -> Decision {
    let mut draft = Draft { saga, at, events: Vec::new() };
    draft.correct_times();
    draft.settle();
    let answer = match input {
        Input::Signal { name, id, payload, who } => {
            draft.signal(SignalReceived { name, id, payload, who })
        }
        Input::Operate(order) => draft.operate(order),
        // Only an operator moves a saga that has ended.
        Input::Admit { .. } | Input::Outcome { .. } | Input::Refuse { .. } | Input::Tick
            if draft.saga.has_ended() =>
        {
            Ok(())
        }
        Input::Admit { step, direction, digest, note, is_trial } => {
            draft.admit((step, direction), digest, note, is_trial);
            Ok(())
        }
        Input::Outcome { step, direction, attempt, outcome, probe, emitted } => {
            draft.outcome(step, direction, attempt, Told { outcome, probe, emitted });
            Ok(())
        }
        Input::Refuse { step, error } => {
            draft.refuse(step, error);
            Ok(())
        }
        Input::Tick => Ok(()),
    };
    draft.settle();
    Decision { events: draft.events, refused: answer.err() }
}

/// Whether what came of this call would be heard: the attempt is the one that is running.
#[must_use]
pub fn awaits(saga: &Saga, step: &StepName, direction: Direction, attempt: u32) -> bool {
    let Some(index) = saga.index_of(step).filter(|_| !saga.has_ended()) else { return false };
    let state = &saga.steps[index];
    match direction {
        Direction::Execute => state.progress == Progress::Running && state.attempts == attempt,
        Direction::Compensate => {
            state.progress == Progress::Undoing && state.undo_attempts == attempt
        }
    }
}

/// Whether a saga takes a new signal now: some step waits for it, or will.
///
/// # Errors
/// When the saga has ended, no step of it waits for that signal at any time or none will any more,
/// or too many came before.
pub fn permits_signal(saga: &Saga, name: &SignalName) -> Result<(), Refusal> {
    let refuse = |message: String, remedy: String| Err(Refusal { message, remedy });
    if saga.has_ended() {
        let message = format!("the saga is {}", saga.status());
        return refuse(message, "nothing waits for a signal any more".to_owned());
    }
    if !saga.definition.signals().any(|known| known == name) {
        let known: Vec<_> = saga.definition.signals().map(SignalName::as_str).collect();
        let remedy = if known.is_empty() {
            "its definition waits for no signal".to_owned()
        } else {
            format!("it waits for {}", known.join(", "))
        };
        return refuse(format!("no step of the saga waits for `{name}`"), remedy);
    }
    if !saga.may_take(name) {
        let message = format!("no step of the saga will wait for `{name}` any more");
        return refuse(message, "ask why the saga is where it is".to_owned());
    }
    if saga.signals.len() >= SIGNALS_MAX {
        let message = format!("{SIGNALS_MAX} signals came already");
        return refuse(message, "send each signal once, with an id".to_owned());
    }
    Ok(())
}

/// A saga to try facts on, and the facts so far.
struct Draft<'s> {
    saga: &'s mut Saga,
    at: Timestamp,
    events: Vec<Event>,
}

impl Draft<'_> {
    fn emit(&mut self, event: impl Into<Event>) {
        let event = event.into();
        if let Err(error) = evolve(self.saga, self.at, &event) {
            // A decision that evolve refuses is a bug of this module and nothing else.
            panic!("decided what cannot be: {error}");
        }
        self.events.push(event);
    }

    /// One that came before does nothing.
    ///
    /// # Errors
    /// As [`permits_signal`].
    fn signal(&mut self, signal: SignalReceived) -> Result<(), Refusal> {
        let is_it = |one: &Signal| one.name == signal.name && one.id == signal.id;
        let came_before = signal.id.is_some() && self.saga.signals.iter().any(is_it);
        if !came_before {
            permits_signal(self.saga, &signal.name)?;
            self.emit(signal);
        }
        Ok(())
    }
}
