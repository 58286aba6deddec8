//! Applies facts. Never decides.

mod operator;
mod precondition;
mod step;
mod transition;
mod undo;

use std::sync::Arc;

use crate::definition::Definition;
use crate::event::{Event, OperatorEvent, SagaEvent, SignalEvent, StepEvent};
use crate::ids::{SagaId, Timestamp};
use crate::log_limits::event_bytes;
use crate::saga::{Phase, Saga, Signal};
use precondition::require;
use step::{apply_step, expand};
use undo::apply_undo;

/// An event that cannot follow the ones before it: the log is damaged, or another program wrote it.
/// The saga must stay as it is until a person has looked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {version} of saga {saga} is `{kind}`, which cannot be: {message}")]
pub struct Impossible {
    /// The saga.
    pub(crate) saga: SagaId,
    /// The version that the event would have had.
    pub(crate) version: u64,
    /// The type of the event.
    pub(crate) kind: String,
    /// The reason why it cannot follow.
    pub message: String,
}

/// Makes a saga of its whole log: the first event starts it, each other event changes it.
///
/// # Errors
/// When the log is empty, does not begin with `saga.started`, or has an event that cannot follow
/// the ones before it.
pub fn replay<'e>(
    id: SagaId,
    definition: Arc<Definition>,
    log: impl IntoIterator<Item = (Timestamp, &'e Event)>,
) -> Result<Saga, Impossible> {
    let wrong = |kind: &str, message: &str| Impossible {
        saga: id,
        version: 1,
        kind: kind.to_owned(),
        message: message.to_owned(),
    };
    let mut log = log.into_iter();
    let mut saga = match log.next() {
        Some((at, Event::Saga(SagaEvent::Started(started)))) => {
            if started.definition_digest != definition.digest() {
                return Err(wrong("saga.started", "it is pinned to another definition"));
            }
            Saga::new(id, definition, at, started.clone())
        }
        Some((_, other)) => return Err(wrong(&other.kind(), "a log begins with saga.started")),
        None => return Err(wrong("nothing", "the log is empty")),
    };
    for (at, event) in log {
        evolve(&mut saga, at, event)?;
    }
    Ok(saga)
}

/// Applies one fact that was decided at `at`.
///
/// # Errors
/// When the event cannot follow the ones before it; the saga is then unchanged.
pub fn evolve(saga: &mut Saga, at: Timestamp, event: &Event) -> Result<(), Impossible> {
    match apply(saga, at, event) {
        Ok(()) => {
            saga.version = saga.version.plus(1);
            saga.log.events += 1;
            saga.log.bytes += event_bytes(event);
            saga.latest_at = saga.latest_at.max(at);
            Ok(())
        }
        Err(message) => Err(Impossible {
            saga: saga.id,
            version: saga.version.0 + 1,
            kind: event.kind().into_owned(),
            message,
        }),
    }
}

/// Applies one fact. The error says why it cannot follow.
fn apply(saga: &mut Saga, at: Timestamp, event: &Event) -> Result<(), String> {
    // Only two things may follow an end: the compensation of a completed saga, and notes.
    let reopens = saga.phase == Phase::Completed
        && matches!(event, Event::Operator(OperatorEvent::Compensated(_)));
    let is_note = matches!(event, Event::Operator(OperatorEvent::Noted(_)));
    if saga.has_ended() && !reopens && !is_note {
        return Err(format!("the saga is {}", saga.status()));
    }
    match event {
        Event::Saga(event) => apply_to_saga(saga, at, event),
        Event::Step(StepEvent::Expanded(expanded)) => expand(saga, at, expanded),
        Event::Step(event) => apply_step(saga, at, event),
        Event::Undo(event) => apply_undo(saga, at, event),
        Event::Operator(event) => operator::apply(saga, at, event),
        // Domain events are for readers of the stream.
        Event::Emitted(_) => Ok(()),
        Event::Signal(SignalEvent::Received(signal)) => {
            saga.signals.push(Signal {
                name: signal.name.clone(),
                id: signal.id.clone(),
                payload: Some(signal.payload.clone()),
            });
            Ok(())
        }
    }
}

/// Applies a fact about the saga as a whole.
fn apply_to_saga(saga: &mut Saga, at: Timestamp, event: &SagaEvent) -> Result<(), String> {
    match event {
        SagaEvent::Started(_) => return Err("the saga has started".to_owned()),
        SagaEvent::Due(_) => {
            require(saga.start_at.is_some(), "the saga does not wait for its start")?;
            require(saga.phase == Phase::Forward, "the saga is being undone")?;
            saga.start_at = None;
        }
        SagaEvent::CompensationStarted(started) => {
            require(saga.phase == Phase::Forward, "the saga is being undone")?;
            saga.phase = Phase::Compensating(Arc::new(started.clone()));
            // Steps that lacked values for their call do not make it any more.
            saga.blocked.take_if(|blocked| blocked.step.is_some());
            saga.steps.iter_mut().for_each(|step| step.lacks_values = false);
            saga.compensating_since = Some(at);
        }
        SagaEvent::Completed(_) => {
            require(saga.phase == Phase::Forward, "the saga is being undone")?;
            saga.phase = Phase::Completed;
            saga.paused = None;
            saga.ended_at = Some(at);
        }
        SagaEvent::Compensated(_) => {
            let Phase::Compensating(started) = &saga.phase else {
                return Err("the saga is not being undone".to_owned());
            };
            saga.phase = Phase::Compensated(Arc::clone(started));
            saga.ended_at = Some(at);
        }
        SagaEvent::Blocked(blocked) => {
            // Any other step that blocks a saga has failed for good, and goes on by itself no more.
            if let Some(index) = blocked.step.as_ref().and_then(|step| saga.index_of(step))
                && saga.next_call(index).is_some()
            {
                saga.steps[index].lacks_values = true;
            }
            saga.blocked = Some(Arc::new(blocked.clone()));
        }
        SagaEvent::Abandoned(abandoned) => {
            saga.phase = Phase::Abandoned(Arc::new(abandoned.clone()));
            saga.ended_at = Some(at);
        }
        SagaEvent::Retimed(_) => saga.retime(at),
        SagaEvent::Marked(marked) => saga.marked.extend(marked.personal.iter().cloned()),
    }
    Ok(())
}
