//! Applies facts about an operator's orders.

use std::sync::Arc;

use super::precondition::{index_of, require};
use crate::call::Direction;
use crate::event::{Cause, OperatorEvent, OperatorResolved, OperatorRetried, OperatorSkipped};
use crate::ids::Timestamp;
use crate::log_limits::LogSize;
use crate::saga::{Chosen, Note, Ordered, Phase, Progress, Saga, StepOutcome, UndoProgress, Wish};

/// Applies a fact about an order. One that moves a saga whose log is full allows the log to grow.
pub(super) fn apply(saga: &mut Saga, at: Timestamp, event: &OperatorEvent) -> Result<(), String> {
    let is_log_full = saga.is_log_full();
    apply_order(saga, at, event)?;
    if is_log_full && moves(event) {
        let more = saga.definition.log_limits().more;
        let LogSize { events, bytes } = saga.log;
        // The event of the order itself does not count.
        saga.log_max = LogSize { events: events + 1 + more.events, bytes: bytes + more.bytes };
        if saga.blocked.as_ref().is_some_and(|blocked| blocked.step.is_none()) {
            saga.blocked = None;
        }
    }
    Ok(())
}

/// Returns true when an operator wants the saga to go on, in either direction.
fn moves(event: &OperatorEvent) -> bool {
    match event {
        OperatorEvent::Cancelled(_)
        | OperatorEvent::Compensated(_)
        | OperatorEvent::Resumed(_)
        | OperatorEvent::Retried(_)
        | OperatorEvent::Skipped(_)
        | OperatorEvent::Resolved(_) => true,
        OperatorEvent::Paused(_) | OperatorEvent::Noted(_) | OperatorEvent::Abandoned(_) => false,
    }
}

fn apply_order(saga: &mut Saga, at: Timestamp, event: &OperatorEvent) -> Result<(), String> {
    match event {
        OperatorEvent::Cancelled(event) => {
            saga.wish = Some(wish(&event.who, &event.reason, Cause::Cancelled));
        }
        OperatorEvent::Compensated(event) => {
            saga.wish = Some(wish(&event.who, &event.reason, Cause::Compensated));
            if saga.phase == Phase::Completed {
                saga.phase = Phase::Forward;
                saga.ended_at = None;
            }
        }
        OperatorEvent::Paused(event) => {
            require(saga.paused.is_none(), "the saga is paused")?;
            saga.paused = Some(ordered(&event.who, &event.reason));
        }
        OperatorEvent::Resumed(_) => {
            require(saga.paused.is_some() || saga.is_log_full(), "the saga is not paused")?;
            saga.paused = None;
        }
        OperatorEvent::Retried(event) => return retried(saga, at, event),
        OperatorEvent::Skipped(skip) => {
            let index = skipped(saga, at, skip)?;
            saga.steps[index].by_hand = Some(ordered(&skip.who, &skip.reason));
        }
        OperatorEvent::Resolved(resolution) => {
            let index = resolved(saga, at, resolution)?;
            let reason = format!("{}; known by {}", resolution.reason, resolution.evidence);
            saga.steps[index].by_hand = Some(ordered(&resolution.who, &reason));
        }
        OperatorEvent::Noted(event) => {
            let (who, reason) = (event.who.clone(), event.reason.clone());
            saga.note = Some(Arc::new(Note { at, who, reason }));
        }
        OperatorEvent::Abandoned(event) => {
            saga.given_up = Some(ordered(&event.who, &event.reason));
        }
    }
    Ok(())
}

/// Returns who gave an order and why, as the saga keeps it.
fn ordered(who: &str, reason: &str) -> Arc<Ordered> {
    Arc::new(Ordered { who: who.to_owned(), reason: reason.to_owned() })
}

/// Returns who wants the saga compensated and why, as the saga keeps it.
fn wish(who: &str, reason: &str, cause: Cause) -> Arc<Wish> {
    Arc::new(Wish { who: who.to_owned(), reason: reason.to_owned(), cause })
}

/// Makes a step ready for another attempt.
fn retried(saga: &mut Saga, at: Timestamp, event: &OperatorRetried) -> Result<(), String> {
    let index = index_of(saga, &event.step)?;
    let is_unknown_pivot = saga.is_unknown_pivot(index);
    let (direction, progress) = tried_again(saga, index, at)?;
    let step = &mut saga.steps[index];
    step.progress = progress;
    step.lacks_values = false;
    step.by_hand = None;
    step.attempts_before = step.attempts;
    step.undo_attempts_before = step.undo_attempts;
    if event.input.is_some() {
        step.input.clone_from(&event.input);
    }
    match direction {
        Direction::Execute => step.key_generation += u32::from(event.new_key),
        Direction::Compensate => step.undo_key_generation += u32::from(event.new_key),
    }
    step.chosen = event.digest.map(|digest| {
        let (who, reason) = (event.who.clone(), event.reason.clone());
        Arc::new(Chosen { direction, digest, who, reason })
    });
    if is_unknown_pivot {
        go_forward(saga);
    }
    saga.blocked = None;
    Ok(())
}

/// Returns the direction in which a step is tried again, and where it stands then.
fn tried_again(saga: &Saga, index: usize, at: Timestamp) -> Result<(Direction, Progress), String> {
    let is_forward = saga.phase == Phase::Forward;
    let progress = saga.steps[index].progress;
    let lacking = saga.next_call(index).filter(|_| saga.steps[index].lacks_values);
    // A step that has its elements does not get them again.
    let anew = if saga.fan_out(index).is_some() { Progress::FannedOut } else { Progress::Pending };
    Ok(match progress {
        Progress::Undo(UndoProgress::Blocked) => (Direction::Compensate, saga.steps[index].stood()),
        Progress::Undo(UndoProgress::BackingOff { .. }) => {
            let undo = UndoProgress::BackingOff { since: at, retry_at: at };
            (Direction::Compensate, Progress::Undo(undo))
        }
        Progress::BackingOff { .. } => {
            (Direction::Execute, Progress::BackingOff { since: at, retry_at: at })
        }
        Progress::Settled(StepOutcome::Failed | StepOutcome::Unknown)
            if is_forward || saga.is_unknown_pivot(index) =>
        {
            (Direction::Execute, anew)
        }
        Progress::Pending
        | Progress::Waiting { .. }
        | Progress::Running
        | Progress::FannedOut
        | Progress::Settled(_)
        | Progress::Undo(UndoProgress::Running | UndoProgress::Undone | UndoProgress::Skipped) => {
            // Its call has not begun.
            let direction = lacking.ok_or("the step is not to be tried again")?;
            (direction, progress)
        }
    })
}

/// Turns a saga forward again, whose pivot was unknown. Nothing has been undone: the undos before a
/// pivot wait until the pivot is clear, and nothing after it has begun.
fn go_forward(saga: &mut Saga) {
    saga.phase = Phase::Forward;
    saga.compensating_since = None;
}

/// Skips a step or its undo, and returns the index of the step.
fn skipped(saga: &mut Saga, at: Timestamp, event: &OperatorSkipped) -> Result<usize, String> {
    let index = index_of(saga, &event.step)?;
    let is_forward = saga.phase == Phase::Forward;
    let undo_waits = saga.undo_waits(index);
    let step = &mut saga.steps[index];
    step.progress = match step.progress {
        Progress::Undo(UndoProgress::Blocked | UndoProgress::BackingOff { .. }) => {
            Progress::Undo(UndoProgress::Skipped)
        }
        Progress::Settled(_) if undo_waits => Progress::Undo(UndoProgress::Skipped),
        Progress::Pending if step.lacks_values && is_forward => {
            Progress::Settled(StepOutcome::Skipped)
        }
        Progress::Settled(StepOutcome::Failed | StepOutcome::Unknown)
        | Progress::Waiting { .. }
        | Progress::BackingOff { .. }
            if is_forward =>
        {
            Progress::Settled(StepOutcome::Skipped)
        }
        Progress::Pending
        | Progress::Waiting { .. }
        | Progress::Running
        | Progress::FannedOut
        | Progress::BackingOff { .. }
        | Progress::Settled(_)
        | Progress::Undo(UndoProgress::Running | UndoProgress::Undone | UndoProgress::Skipped) => {
            return Err("the step is not to be skipped".to_owned());
        }
    };
    step.lacks_values = false;
    step.ended_at = Some(at);
    saga.blocked = None;
    Ok(index)
}

/// Resolves a step or its undo, and returns the index of the step.
fn resolved(saga: &mut Saga, at: Timestamp, event: &OperatorResolved) -> Result<usize, String> {
    let index = index_of(saga, &event.step)?;
    let is_unknown_pivot = saga.is_unknown_pivot(index);
    let is_forward = saga.phase == Phase::Forward;
    let undo_waits = saga.undo_waits(index);
    let step = &mut saga.steps[index];
    let output = || event.output.clone();
    match step.progress {
        Progress::Settled(_) if undo_waits => step.undone(at),
        Progress::Undo(UndoProgress::Blocked | UndoProgress::BackingOff { .. }) => step.undone(at),
        Progress::Settled(StepOutcome::Failed | StepOutcome::Unknown)
        | Progress::BackingOff { .. }
            if event.happened && (is_forward || is_unknown_pivot) =>
        {
            step.succeed(output(), at);
        }
        Progress::Waiting { .. } if event.happened && is_forward => step.succeed(output(), at),
        Progress::Pending if step.lacks_values && event.happened && is_forward => {
            step.succeed(output(), at);
        }
        Progress::Settled(StepOutcome::Unknown) if is_unknown_pivot => {
            step.tainted = false;
            step.progress = Progress::Settled(StepOutcome::Failed);
        }
        Progress::BackingOff { .. } if step.tainted && is_forward => step.tainted = false,
        Progress::Pending
        | Progress::Waiting { .. }
        | Progress::Running
        | Progress::FannedOut
        | Progress::BackingOff { .. }
        | Progress::Settled(_)
        | Progress::Undo(UndoProgress::Running | UndoProgress::Undone | UndoProgress::Skipped) => {
            return Err("nothing of the step is to be resolved".to_owned());
        }
    }
    step.lacks_values = false;
    if is_unknown_pivot && event.happened {
        go_forward(saga);
    }
    saga.blocked = None;
    Ok(index)
}
