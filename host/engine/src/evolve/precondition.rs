//! What must hold before a fact is applied.

use crate::event::Event;
use crate::ids::StepName;
use crate::saga::Saga;

/// Fails with `otherwise` unless a condition holds.
pub(super) fn require(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

/// Returns the index of a step or element by its name.
pub(super) fn index_of(saga: &Saga, name: Option<&StepName>) -> Result<usize, String> {
    let name = name.ok_or("it names no step")?;
    saga.index_of(name).ok_or_else(|| format!("the saga has no step `{name}`"))
}

/// Returns the step that an event names, if it names one.
pub(super) fn step_of(event: &Event) -> Option<&StepName> {
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
