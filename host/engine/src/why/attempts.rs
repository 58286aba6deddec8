//! What became of attempts, with the idempotency keys that they carried.

use std::fmt::Write as _;

use super::quote::Quote;
use crate::call::{Direction, idempotency_key};
use crate::definition::StepKind;
use crate::saga::{Progress, Saga, UndoProgress};
use crate::sentence::shortened;

/// Describes the attempts of a step that needs an operator, with their idempotency keys. With those
/// the operator can ask the service what the attempts did. When the undo of the step is blocked,
/// its output comes first, quoted. Of a call that lacks values, only the key that it would carry is known.
pub(super) fn failed_calls(saga: &Saga, index: usize, quote: Quote) -> Option<String> {
    let step = &saga.steps[index];
    if step.lacks_values {
        return key_to_come(saga, index);
    }
    let is_undo = step.progress == Progress::Undo(UndoProgress::Blocked);
    let executed = (step.attempts > 0 && (!is_undo || step.attempts_unknown > 0)).then(|| {
        let (unknown, all) = (step.attempts_unknown, step.attempts);
        describe_attempts(saga, index, Direction::Execute, unknown, all)
    });
    let undone = (is_undo && step.undo_attempts > 0).then(|| {
        let (unknown, all) = (step.undo_attempts_unknown, step.undo_attempts);
        describe_attempts(saga, index, Direction::Compensate, unknown, all)
    });
    let answered = step.output.as_ref().filter(|_| is_undo);
    let answered =
        answered.map(|output| format!("{} answered {}", saga.name(index), quote(output)));
    let parts: Vec<_> = [answered, executed, undone].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(". "))
}

/// Names the idempotency key that the next call of a step would carry. When the store was restored from a
/// backup, the service may know the key.
fn key_to_come(saga: &Saga, index: usize) -> Option<String> {
    let direction = saga.next_call(index)?;
    if !matches!(saga.spec(index).kind, StepKind::Call { .. }) {
        return None;
    }
    let name = saga.name(index);
    let call = match direction {
        Direction::Execute => format!("The call of {name}"),
        Direction::Compensate => format!("The call to undo {name}"),
    };
    let generation = saga.steps[index].generation(direction);
    let key = idempotency_key(saga.id, name, direction, generation);
    Some(format!("{call} would carry the idempotency key {key}"))
}

/// Describes the attempts whose outcome was unknown, with their idempotency keys. With those the
/// service can say what the attempts did. Sentences of their own, or an empty text.
pub(super) fn unknown(saga: &Saga) -> String {
    let parts = (0..saga.steps.len()).flat_map(|index| {
        let step = &saga.steps[index];
        let executed = (Direction::Execute, step.attempts_unknown, step.attempts);
        let undone = (Direction::Compensate, step.undo_attempts_unknown, step.undo_attempts);
        let told = [executed, undone].into_iter().filter(|(_, unknown, _)| *unknown > 0);
        told.map(move |(direction, unknown, all)| {
            describe_attempts(saga, index, direction, unknown, all)
        })
    });
    let parts = shortened(parts.collect());
    if parts.is_empty() { String::new() } else { format!(" {}.", parts.join(". ")) }
}

/// Describes all attempts of a step in one direction, of which `unknown` ended unknown, and their
/// idempotency key.
fn describe_attempts(
    saga: &Saga,
    index: usize,
    direction: Direction,
    unknown: u32,
    all: u32,
) -> String {
    let name = saga.name(index);
    let of = match direction {
        Direction::Execute => format!("of {name}"),
        Direction::Compensate => format!("to undo {name}"),
    };
    let mut words = match (all, unknown) {
        (1, 0) => format!("The only attempt {of} failed"),
        (2, 0) => format!("Both attempts {of} failed"),
        (_, 0) => format!("All {all} attempts {of} failed"),
        (1, _) => format!("The only attempt {of} ended unknown"),
        (2, 2) => format!("Both attempts {of} ended unknown"),
        _ if unknown == all => format!("All {all} attempts {of} ended unknown"),
        _ => format!("{unknown} of {all} attempts {of} ended unknown"),
    };
    if !matches!(saga.spec(index).kind, StepKind::Call { .. }) {
        return words;
    }
    let generation = saga.steps[index].generation(direction);
    let key = idempotency_key(saga.id, name, direction, generation);
    let _ = match (generation, all) {
        (0, 1) => write!(words, "; it was sent with the idempotency key {key}"),
        (0, _) if unknown == all || unknown == 0 => {
            write!(words, "; they were sent with the idempotency key {key}")
        }
        (0, _) => write!(words, "; all were sent with the idempotency key {key}"),
        _ => write!(
            words,
            "; since its input was edited they are sent with the idempotency key {key}, and the history \
             has the key of each"
        ),
    };
    words
}
