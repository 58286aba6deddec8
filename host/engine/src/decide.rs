//! Every decision.
//!
//! [`decide`] takes what happened and returns the facts that follow, in order, for one append. It
//! has three parts: everything that follows from the state and the time (`settle`), the direct
//! answer to the input, then everything that follows from the state after that.
//!
//! `settle` looks at the state only. So a log that was cut anywhere goes on from where it was cut:
//! [`Input::Tick`] adds what is missing. An order or a signal meets the settled state. It is
//! answered by a fact of its own, or refused in words.

mod call;
mod draft;
mod input;
mod operator;
mod settle;
mod signal;

use crate::event::{Event, SagaStarted, SignalReceived};
use crate::ids::Timestamp;
use crate::order::Refusal;
use crate::saga::Saga;
use call::CallEnd;
use draft::Draft;

pub use call::awaits;
pub use input::{Input, Start};
pub use operator::{permits, steps_of};
pub use signal::permits_signal;

/// The result of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Decision {
    /// The facts, in order, for one append.
    pub events: Vec<Event>,
    /// The reason why the order or the signal is refused; the facts are then those that follow from
    /// the clock alone. None when it has a fact of its own, or was fulfilled already.
    pub refused: Option<Refusal>,
}

/// Starts a saga. Returns the saga, and the facts of its first append, which are applied to it.
#[must_use]
pub fn start(at: Timestamp, start: Start) -> (Saga, Vec<Event>) {
    let start_at = start.start_at.filter(|start_at| *start_at > at);
    // The deadline limits what the saga does, not how long it waits for its start.
    let deadline = start.definition.spec().deadline;
    let deadline_at = deadline.map(|deadline| start_at.unwrap_or(at).after(deadline));
    let index = start.definition.index().values(&start.input);
    let started = SagaStarted {
        definition: start.definition.name().clone(),
        definition_digest: start.definition.digest(),
        input: start.input,
        key: start.key,
        tags: start.tags,
        index,
        traceparent: start.traceparent,
        deadline_at,
        start_at,
        parent: start.parent,
        sealed_key: start.sealed_key.map(Box::new),
        who: start.who,
    };
    let mut saga = Saga::new(start.id, start.definition, at, started.clone());
    let mut draft = Draft { saga: &mut saga, at, events: vec![started.into()] };
    draft.mark(start.personal);
    draft.settle();
    let events = draft.events;
    (saga, events)
}

/// Decides what follows from an input. Returns no facts when the input is late, repeated, or not
/// about a call that is running.
///
/// The facts must be durable before anything acts on them. Then [`crate::evolve`] applies each of
/// them.
#[must_use]
pub fn decide(saga: &Saga, at: Timestamp, input: Input) -> Vec<Event> {
    decide_on(&mut saga.clone(), at, input).events
}

/// Decides as [`decide`] does, on a copy of the saga that the caller gives; the facts are applied
/// to that copy. After a panic the copy must not be used.
pub fn decide_on(saga: &mut Saga, at: Timestamp, input: Input) -> Decision {
    let mut draft = Draft { saga, at, events: Vec::new() };
    draft.correct_times();
    draft.settle();
    let answer = match input {
        Input::Signal { name, id, payload, who } => {
            draft.signal(SignalReceived { name, id, payload, who })
        }
        Input::Operate(order) => draft.operate(order),
        // Only an operator changes a saga that has ended.
        Input::Admit { .. }
        | Input::Outcome { .. }
        | Input::Refuse { .. }
        | Input::Mark { .. }
        | Input::Tick
            if draft.saga.has_ended() =>
        {
            Ok(())
        }
        Input::Admit { step, direction, digest, note, is_trial } => {
            draft.admit((step, direction), digest, note, is_trial);
            Ok(())
        }
        Input::Outcome { step, direction, attempt, outcome, probe, emitted } => {
            draft.outcome(step, direction, attempt, CallEnd { outcome, probe, emitted });
            Ok(())
        }
        Input::Refuse { step, error } => {
            draft.refuse(step, error);
            Ok(())
        }
        Input::Mark { personal } => {
            draft.mark(personal);
            Ok(())
        }
        Input::Tick => Ok(()),
    };
    draft.settle();
    Decision { events: draft.events, refused: answer.err() }
}
