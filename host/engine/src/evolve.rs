//! Applies facts. Never decides.

mod operator;

use std::sync::Arc;

use crate::call::{FailureClass, Fate};
use crate::definition::{Definition, StepKind};
use crate::event::{Event, StepExpanded};
use crate::ids::{SagaId, StepName, Timestamp};
use crate::payload::Payload;
use crate::saga::{Element, FanOut, Phase, Progress, Saga, Signal, StepState};

/// An event that cannot follow the ones before it: the log is damaged, or was written by
/// something else. Its saga must not be touched until a person has looked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {version} of saga {saga} is `{kind}`, which cannot be: {message}")]
pub struct Impossible {
    /// The saga.
    pub saga: SagaId,
    /// The version that the event would have had.
    pub version: u64,
    /// The event's type.
    pub kind: String,
    /// Why it cannot be.
    pub message: String,
}

/// Folds a whole log: its first event makes the saga, each other one changes it.
///
/// # Errors
/// When the log is empty, does not begin with `saga.started`, or has an event that cannot
/// follow the ones before it.
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
        Some((at, Event::SagaStarted(started))) => {
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

/// Applies one fact that became durable at `at`.
///
/// # Errors
/// When the event cannot follow the ones before it; the saga is then unchanged.
pub fn evolve(saga: &mut Saga, at: Timestamp, event: &Event) -> Result<(), Impossible> {
    match apply(saga, at, event) {
        Ok(()) => {
            saga.version = saga.version.plus(1);
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

fn apply(saga: &mut Saga, at: Timestamp, event: &Event) -> Result<(), String> {
    // Compensating a completed saga is all that may follow an end, and notes, which change nothing.
    let reopens = saga.phase == Phase::Completed && matches!(event, Event::OperatorCompensated(_));
    let is_note = matches!(event, Event::OperatorNoted(_));
    if saga.has_ended() && !reopens && !is_note {
        return Err(format!("the saga is {}", saga.status()));
    }
    match event {
        Event::SagaStarted(_) => Err("the saga has started".to_owned()),
        Event::StepStarted(_)
        | Event::StepWaiting(_)
        | Event::StepSucceeded(_)
        | Event::StepFailed(_)
        | Event::StepUnknown(_)
        | Event::StepSkipped(_) => apply_step(saga, at, event),
        Event::StepExpanded(expanded) => expand(saga, at, expanded),
        Event::UndoStarted(_)
        | Event::UndoSucceeded(_)
        | Event::UndoFailed(_)
        | Event::UndoBlocked(_) => apply_undo(saga, at, event),
        Event::CompensationStarted(started) => {
            require(saga.phase == Phase::Forward, "the saga is being undone")?;
            saga.phase = Phase::Compensating(Arc::new(started.clone()));
            saga.compensating_since = Some(at);
            Ok(())
        }
        Event::SagaCompleted(_) => {
            require(saga.phase == Phase::Forward, "the saga is being undone")?;
            saga.phase = Phase::Completed;
            saga.paused = None;
            saga.ended_at = Some(at);
            Ok(())
        }
        Event::SagaCompensated(_) => {
            let Phase::Compensating(started) = &saga.phase else {
                return Err("the saga is not being undone".to_owned());
            };
            saga.phase = Phase::Compensated(Arc::clone(started));
            saga.ended_at = Some(at);
            Ok(())
        }
        Event::SagaBlocked(blocked) => {
            saga.blocked = Some(Arc::new(blocked.clone()));
            Ok(())
        }
        Event::SagaAbandoned(abandoned) => {
            saga.phase = Phase::Abandoned(Arc::new(abandoned.clone()));
            saga.ended_at = Some(at);
            Ok(())
        }
        Event::SagaRetimed(_) => {
            saga.retime(at);
            Ok(())
        }
        // Told to whoever reads the stream.
        Event::Emitted(_) => Ok(()),
        Event::SignalReceived(signal) => {
            saga.signals.push(Signal {
                name: signal.name.clone(),
                id: signal.id.clone(),
                payload: Some(signal.payload.clone()),
            });
            Ok(())
        }
        Event::OperatorCancelled(_)
        | Event::OperatorCompensated(_)
        | Event::OperatorPaused(_)
        | Event::OperatorResumed(_)
        | Event::OperatorRetried(_)
        | Event::OperatorSkipped(_)
        | Event::OperatorResolved(_)
        | Event::OperatorNoted(_)
        | Event::OperatorAbandoned(_) => operator::apply(saga, at, event),
    }
}

fn apply_step(saga: &mut Saga, at: Timestamp, event: &Event) -> Result<(), String> {
    let name = step_of(event);
    let index = index_of(saga, name)?;
    let (is_wait, signal) = match &saga.spec(index).kind {
        StepKind::Wait { wait } => (true, Some(wait.signal.clone())),
        StepKind::Call { .. } | StepKind::Sleep { .. } | StepKind::Saga { .. } => (false, None),
    };
    let runs_saga = matches!(saga.spec(index).kind, StepKind::Saga { .. });
    let step = &mut saga.steps[index];
    let from = step.progress;
    let running = from == Progress::Running;
    let waiting = matches!(from, Progress::Waiting { .. });
    let idle = matches!(from, Progress::Pending | Progress::BackingOff { .. });
    let fanned_out = from == Progress::FannedOut;
    // A step that failed before it was called, or was waiting when its saga began to be undone.
    let settled =
        |attempt: u32| (running || waiting || fanned_out || idle) && attempt == step.attempts;
    match event {
        Event::StepStarted(event) => {
            require(idle, "the step is not waiting for a call")?;
            require(event.attempt == step.attempts + 1, "attempts count one by one")?;
            require(!runs_saga || event.child.is_some(), "it names no saga that the step runs")?;
            step.progress = Progress::Running;
            step.by_hand = None;
            step.attempts = event.attempt;
            step.began_at = Some(at);
            step.child = event.child;
            step.attempts_before += u32::from(event.trial);
            step.digest = Some(event.digest);
            step.started_at.get_or_insert(at);
            step.ended_at = None;
        }
        Event::StepWaiting(event) => {
            require(from == Progress::Pending, "the step has begun")?;
            step.progress = Progress::Waiting { since: at, until: event.until };
            step.started_at.get_or_insert(at);
        }
        Event::StepSucceeded(event) => {
            let is_known = running || waiting || fanned_out || from == Progress::Pending;
            require(is_known && settled(event.attempt), "that attempt is not running")?;
            require(from != Progress::Pending || is_wait, "the step was not called")?;
            step.started_at.get_or_insert(at);
            step.succeed(Some(event.output.clone()), at);
            if let Some(signal) = signal {
                // Dropping what it says keeps its id, so that a duplicate is still known.
                if let Some(signal) = saga.signal_mut(&signal) {
                    signal.payload = None;
                }
            }
        }
        Event::StepFailed(event) => {
            require(settled(event.attempt), "that attempt is not running")?;
            // It did not happen and will not: that is about every attempt so far.
            step.tainted &= event.probe != Some(Fate::DidNotHappen);
            step.error = Some(Arc::new(event.error.clone()));
            step.rest(event.retry_at, Progress::Failed, at);
        }
        Event::StepUnknown(event) => {
            require(settled(event.attempt), "that attempt is not running")?;
            step.error = Some(Arc::new(event.error.clone()));
            step.tainted = true;
            step.attempts_unknown = step.attempts_unknown.saturating_add(1);
            step.rest(event.retry_at, Progress::Unknown, at);
        }
        Event::StepSkipped(_) => {
            require(from == Progress::Pending, "the step has begun")?;
            step.progress = Progress::Skipped;
            step.ended_at = Some(at);
        }
        Event::SagaStarted(_)
        | Event::StepExpanded(_)
        | Event::CompensationStarted(_)
        | Event::UndoStarted(_)
        | Event::UndoSucceeded(_)
        | Event::UndoFailed(_)
        | Event::UndoBlocked(_)
        | Event::SagaCompleted(_)
        | Event::SagaCompensated(_)
        | Event::SagaBlocked(_)
        | Event::SagaAbandoned(_)
        | Event::SagaRetimed(_)
        | Event::SignalReceived(_)
        | Event::Emitted(_)
        | Event::OperatorCancelled(_)
        | Event::OperatorCompensated(_)
        | Event::OperatorPaused(_)
        | Event::OperatorResumed(_)
        | Event::OperatorRetried(_)
        | Event::OperatorSkipped(_)
        | Event::OperatorResolved(_)
        | Event::OperatorNoted(_)
        | Event::OperatorAbandoned(_) => return Err("it is not about a step".to_owned()),
    }
    Ok(())
}

fn expand(saga: &mut Saga, at: Timestamp, event: &StepExpanded) -> Result<(), String> {
    let index = index_of(saga, Some(&event.step))?;
    require(saga.runs_over_list(index), "the step runs over no list")?;
    require(saga.steps[index].progress == Progress::Pending, "the step has begun")?;
    require(saga.fan_out(index).is_none(), "the step has its elements")?;
    let named = |(number, item): (usize, &Payload)| Element {
        name: event.step.element(number),
        item: item.clone(),
    };
    let elements = event.items.iter().enumerate().map(named).collect();
    let first = saga.steps.len();
    saga.fan_outs.push(FanOut { step: index, first, elements });
    saga.steps.resize_with(first + event.items.len(), StepState::default);
    let step = &mut saga.steps[index];
    step.progress = Progress::FannedOut;
    step.started_at.get_or_insert(at);
    Ok(())
}

fn apply_undo(saga: &mut Saga, at: Timestamp, event: &Event) -> Result<(), String> {
    require(matches!(saga.phase, Phase::Compensating(_)), "the saga is not being undone")?;
    let name = step_of(event);
    let step = step_mut(saga, name)?;
    let undoing = |attempt: u32| {
        let same = step.progress == Progress::Undoing && attempt == step.undo_attempts;
        require(same, "that attempt is not running")
    };
    match event {
        Event::UndoStarted(event) => {
            let idle = matches!(
                step.progress,
                Progress::Succeeded | Progress::Unknown | Progress::UndoBackingOff { .. }
            );
            require(idle, "nothing of the step is to be undone")?;
            require(event.attempt == step.undo_attempts + 1, "attempts count one by one")?;
            step.progress = Progress::Undoing;
            step.by_hand = None;
            step.undo_attempts = event.attempt;
            step.undo_began_at = Some(at);
            step.undo_attempts_before += u32::from(event.trial);
            step.undo_digest = Some(event.digest);
        }
        Event::UndoSucceeded(event) => {
            undoing(event.attempt)?;
            step.progress = Progress::Undone;
            step.undid_nothing = event.nothing;
            step.ended_at = Some(at);
        }
        Event::UndoFailed(event) => {
            undoing(event.attempt)?;
            step.error = Some(Arc::new(event.error.clone()));
            step.undo_failed(event.class, event.probe);
            step.progress = Progress::UndoBackingOff { since: at, retry_at: event.retry_at };
        }
        Event::UndoBlocked(event) => {
            undoing(event.attempt)?;
            step.error = Some(Arc::new(event.error.clone()));
            step.undo_failed(event.class, event.probe);
            step.progress = Progress::UndoBlocked;
            step.ended_at = Some(at);
        }
        Event::SagaStarted(_)
        | Event::StepStarted(_)
        | Event::StepWaiting(_)
        | Event::StepExpanded(_)
        | Event::StepSucceeded(_)
        | Event::StepFailed(_)
        | Event::StepUnknown(_)
        | Event::StepSkipped(_)
        | Event::CompensationStarted(_)
        | Event::SagaCompleted(_)
        | Event::SagaCompensated(_)
        | Event::SagaBlocked(_)
        | Event::SagaAbandoned(_)
        | Event::SagaRetimed(_)
        | Event::SignalReceived(_)
        | Event::Emitted(_)
        | Event::OperatorCancelled(_)
        | Event::OperatorCompensated(_)
        | Event::OperatorPaused(_)
        | Event::OperatorResumed(_)
        | Event::OperatorRetried(_)
        | Event::OperatorSkipped(_)
        | Event::OperatorResolved(_)
        | Event::OperatorNoted(_)
        | Event::OperatorAbandoned(_) => return Err("it is not about an undo".to_owned()),
    }
    Ok(())
}

impl StepState {
    fn rest(&mut self, retry_at: Option<Timestamp>, end: Progress, at: Timestamp) {
        self.progress = match retry_at {
            Some(retry_at) => Progress::BackingOff { since: at, retry_at },
            None => end,
        };
        self.ended_at = Some(at);
    }

    /// Nobody may know whether the effect still stands; what its component says of it is about
    /// every attempt so far.
    fn undo_failed(&mut self, class: FailureClass, probe: Option<Fate>) {
        if class == FailureClass::Unknown {
            self.undo_tainted = true;
            self.undo_attempts_unknown = self.undo_attempts_unknown.saturating_add(1);
        } else if probe == Some(Fate::DidNotHappen) {
            self.undo_tainted = false;
        }
    }

    /// `output`: what it gave, if that is known.
    fn succeed(&mut self, output: Option<Payload>, at: Timestamp) {
        self.progress = Progress::Succeeded;
        self.output = output;
        self.error = None;
        self.ended_at = Some(at);
    }
}

fn require(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

fn step_mut<'s>(saga: &'s mut Saga, name: Option<&StepName>) -> Result<&'s mut StepState, String> {
    let index = index_of(saga, name)?;
    Ok(&mut saga.steps[index])
}

fn index_of(saga: &Saga, name: Option<&StepName>) -> Result<usize, String> {
    let name = name.ok_or("it names no step")?;
    saga.index_of(name).ok_or_else(|| format!("the saga has no step `{name}`"))
}

fn step_of(event: &Event) -> Option<&StepName> {
    match event {
        Event::StepStarted(event) => Some(&event.step),
        Event::StepWaiting(event) => Some(&event.step),
        Event::StepExpanded(event) => Some(&event.step),
        Event::StepSucceeded(event) => Some(&event.step),
        Event::StepFailed(event) => Some(&event.step),
        Event::StepUnknown(event) => Some(&event.step),
        Event::StepSkipped(event) => Some(&event.step),
        Event::UndoStarted(event) => Some(&event.step),
        Event::UndoSucceeded(event) => Some(&event.step),
        Event::UndoFailed(event) => Some(&event.step),
        Event::UndoBlocked(event) => Some(&event.step),
        Event::OperatorRetried(event) => Some(&event.step),
        Event::OperatorSkipped(event) => Some(&event.step),
        Event::OperatorResolved(event) => Some(&event.step),
        Event::SagaStarted(_)
        | Event::CompensationStarted(_)
        | Event::SagaCompleted(_)
        | Event::SagaCompensated(_)
        | Event::SagaBlocked(_)
        | Event::SagaAbandoned(_)
        | Event::SagaRetimed(_)
        | Event::SignalReceived(_)
        | Event::Emitted(_)
        | Event::OperatorCancelled(_)
        | Event::OperatorCompensated(_)
        | Event::OperatorPaused(_)
        | Event::OperatorResumed(_)
        | Event::OperatorNoted(_)
        | Event::OperatorAbandoned(_) => None,
    }
}
