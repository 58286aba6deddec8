//! Applies facts about a step.

use std::sync::Arc;

use super::precondition::{index_of, require};
use crate::call::Fate;
use crate::definition::StepKind;
use crate::event::{StepEvent, StepExpanded};
use crate::ids::Timestamp;
use crate::payload::Payload;
use crate::saga::{Element, FanOut, Progress, Saga, StepOutcome, StepState};

/// Applies a fact about a step.
pub(super) fn apply_step(saga: &mut Saga, at: Timestamp, event: &StepEvent) -> Result<(), String> {
    let index = index_of(saga, event.step())?;
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
    // A step can also fail before it was called, or while it waits when the compensation begins.
    let settled =
        |attempt: u32| (running || waiting || fanned_out || idle) && attempt == step.attempts;
    match event {
        StepEvent::Started(event) => {
            require(idle, "the step is not waiting for a call")?;
            require(event.attempt == step.attempts + 1, "attempts count one by one")?;
            require(!runs_saga || event.child.is_some(), "it names no saga that the step runs")?;
            step.progress = Progress::Running;
            step.by_hand = None;
            step.attempts = event.attempt;
            step.earlier_began_at = step.began_at.replace(at);
            step.child = event.child;
            step.attempts_before += u32::from(event.trial);
            step.digest = Some(event.digest);
            step.started_at.get_or_insert(at);
            step.ended_at = None;
        }
        StepEvent::Waiting(event) => {
            require(from == Progress::Pending, "the step has begun")?;
            step.progress = Progress::Waiting { since: at, until: event.until };
            step.started_at.get_or_insert(at);
        }
        StepEvent::Succeeded(event) => {
            let is_known = running || waiting || fanned_out || from == Progress::Pending;
            require(is_known && settled(event.attempt), "that attempt is not running")?;
            require(from != Progress::Pending || is_wait, "the step was not called")?;
            step.started_at.get_or_insert(at);
            step.succeed(Some(event.output.clone()), at);
            if let Some(signal) = signal {
                // The payload goes, the id stays, so that a duplicate is still recognised.
                if let Some(signal) = saga.signal_mut(&signal) {
                    signal.payload = None;
                }
            }
        }
        StepEvent::Failed(event) => {
            require(settled(event.attempt), "that attempt is not running")?;
            // The component says that it did not happen. That is about every attempt so far.
            step.tainted &= event.probe != Some(Fate::DidNotHappen);
            step.error = Some(Arc::new(event.error.clone()));
            step.rest(event.retry_at, StepOutcome::Failed, at);
        }
        StepEvent::Unknown(event) => {
            require(settled(event.attempt), "that attempt is not running")?;
            step.error = Some(Arc::new(event.error.clone()));
            step.tainted = true;
            step.attempts_unknown = step.attempts_unknown.saturating_add(1);
            step.rest(event.retry_at, StepOutcome::Unknown, at);
        }
        StepEvent::Skipped(_) => {
            require(from == Progress::Pending, "the step has begun")?;
            step.progress = Progress::Settled(StepOutcome::Skipped);
            step.ended_at = Some(at);
        }
        StepEvent::Expanded(_) => return Err("its elements are not applied here".to_owned()),
    }
    Ok(())
}

/// Gives a step over a list its elements.
pub(super) fn expand(saga: &mut Saga, at: Timestamp, event: &StepExpanded) -> Result<(), String> {
    let index = index_of(saga, &event.step)?;
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
