//! What is in flight or waited for, step by step.

use std::time::Duration;

use crate::call::Failure;
use crate::definition::StepKind;
use crate::ids::{ServiceName, Timestamp};
use crate::saga::{Phase, Progress, Saga, UndoProgress};
use crate::sentence::shortened;

/// Describes what a saga does or waits for at `at`, for one line of a list. What matters most comes
/// first. None when the saga has ended, or nothing is in flight or waited for.
#[must_use]
pub fn activity_in_brief(saga: &Saga, at: Timestamp) -> Option<String> {
    if saga.has_ended() {
        return None;
    }
    let mut parts: Vec<_> =
        (0..saga.steps.len()).filter_map(|index| step_in_brief(saga, index, at)).collect();
    parts.extend(start(saga).map(|words| (false, words)));
    if let Some(held) = &saga.paused {
        parts.insert(0, (false, format!("paused by {}: {}", held.who, held.reason)));
    }
    // A reader looks for what waits for others to act, so what runs comes last.
    parts.sort_by_key(|(is_running, _)| *is_running);
    let parts = shortened(parts.into_iter().map(|(_, words)| words).collect());
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Describes what is in flight or waited for, as clauses.
pub(super) fn activity(saga: &Saga, at: Timestamp) -> String {
    let parts = activities(saga, at);
    if parts.is_empty() { "nothing is in flight".to_owned() } else { parts.join("; ") }
}

/// Describes what each step does or waits for; empty when nothing is in flight or waited for.
pub(super) fn activities(saga: &Saga, at: Timestamp) -> Vec<String> {
    let steps = (0..saga.steps.len()).filter_map(|index| step_activity(saga, index, at));
    shortened(start(saga).into_iter().chain(steps).collect())
}

/// Says when the saga starts, while it waits for that.
fn start(saga: &Saga) -> Option<String> {
    saga.start_at().map(|start_at| format!("it starts at {start_at}"))
}

/// Describes in brief what a step does or waits for. The first part is true when it runs.
fn step_in_brief(saga: &Saga, index: usize, at: Timestamp) -> Option<(bool, String)> {
    let (step, spec, name) = (&saga.steps[index], saga.spec(index), saga.name(index));
    let error = || {
        let error = step.error.as_deref();
        error.map_or_else(String::new, |error| format!(": {}: {}", error.code, error.message))
    };
    match step.progress {
        Progress::Waiting { until, .. } => {
            let until = until.map_or_else(String::new, |until| format!(" until {until}"));
            let words = match &spec.kind {
                StepKind::Wait { wait } => {
                    format!("{name} waits for signal {}{until}", wait.signal)
                }
                StepKind::Call { .. } | StepKind::Sleep { .. } | StepKind::Saga { .. } => {
                    format!("{name} sleeps{until}")
                }
            };
            Some((false, words))
        }
        Progress::BackingOff { retry_at, .. } => {
            let attempt = step.attempts - step.attempts_before + 1;
            let of = spec.retry.attempts;
            let again = again(retry_at, at);
            Some((false, format!("{name} {again}, {attempt} of {of}{}", error())))
        }
        Progress::Undo(UndoProgress::BackingOff { retry_at, .. }) => {
            let attempt = step.undo_attempts - step.undo_attempts_before + 1;
            let of = spec.undo.as_ref().map_or(0, |undo| undo.retry.attempts);
            let again = again(retry_at, at);
            Some((false, format!("undo of {name} {again}, {attempt} of {of}{}", error())))
        }
        Progress::Running if saga.child(index).is_none() => {
            let since = since(step.began_at);
            Some((true, format!("attempt {} of {name} is in flight{since}", step.attempts)))
        }
        Progress::Undo(UndoProgress::Running) if saga.child(index).is_none() => {
            let since = since(step.undo_began_at);
            Some((
                true,
                format!("attempt {} to undo {name} is in flight{since}", step.undo_attempts),
            ))
        }
        Progress::Running
        | Progress::FannedOut
        | Progress::Pending
        | Progress::Settled(_)
        | Progress::Undo(_) => step_activity(saga, index, at).map(|words| (true, words)),
    }
}

/// Describes what a step does or waits for.
fn step_activity(saga: &Saga, index: usize, at: Timestamp) -> Option<String> {
    let (step, spec) = (&saga.steps[index], saga.spec(index));
    let name = saga.name(index);
    let error = || {
        let error = step.error.as_deref();
        error.map_or_else(String::new, |error| format!(" ({}: {})", error.code, error.message))
    };
    match step.progress {
        Progress::Running => Some(if let Some(child) = saga.child(index) {
            format!("{name} runs as saga {child}")
        } else {
            let call = format!("attempt {} of {name}", step.attempts);
            let last = step.error.as_deref().filter(|_| step.attempts > 1);
            in_flight(&call, spec.service(), step.began_at, spec.timeout, last)
        }),
        Progress::Waiting { until, .. } => {
            let until = until.map_or_else(String::new, |until| format!(" until {until}"));
            Some(match &spec.kind {
                StepKind::Wait { wait } => {
                    format!("{name} waits for the signal `{}`{until}", wait.signal)
                }
                StepKind::Call { .. } | StepKind::Sleep { .. } | StepKind::Saga { .. } => {
                    format!("{name} sleeps{until}")
                }
            })
        }
        Progress::BackingOff { retry_at, .. } => Some(format!(
            "{name} {}{} and {}, attempt {} of {}",
            if step.tainted { "may have happened" } else { "failed" },
            error(),
            tried_again(retry_at, at),
            step.attempts - step.attempts_before + 1,
            spec.retry.attempts
        )),
        Progress::Undo(UndoProgress::Running) => Some(if let Some(child) = saga.child(index) {
            format!("the undo of {name} runs in saga {child}")
        } else {
            let call = format!("attempt {} to undo {name}", step.undo_attempts);
            let timeout = spec.undo.as_ref().map_or(spec.timeout, |undo| undo.timeout);
            let last = step.error.as_deref().filter(|_| step.undo_attempts > 1);
            in_flight(&call, spec.service(), step.undo_began_at, timeout, last)
        }),
        Progress::Undo(UndoProgress::BackingOff { retry_at, .. }) => Some(format!(
            "the undo of {name} {}{} and {}, attempt {} of {}",
            if step.undo_tainted { "may have happened" } else { "failed" },
            error(),
            tried_again(retry_at, at),
            step.undo_attempts - step.undo_attempts_before + 1,
            spec.undo.as_ref().map_or(0, |undo| undo.retry.attempts)
        )),
        Progress::FannedOut => {
            let elements = &saga.steps[saga.fan_out(index)?.range()];
            let done = elements.iter().filter(|element| element.progress.is_done()).count();
            let is_forward = saga.phase == Phase::Forward;
            is_forward.then(|| format!("{done} of {} elements of {name} are done", elements.len()))
        }
        Progress::Pending
        | Progress::Settled(_)
        | Progress::Undo(UndoProgress::Blocked | UndoProgress::Undone | UndoProgress::Skipped) => {
            None
        }
    }
}

/// Says in brief when the next attempt is due. A time that has passed is left out.
fn again(retry_at: Timestamp, at: Timestamp) -> String {
    if retry_at > at { format!("again at {retry_at}") } else { "is due again".to_owned() }
}

/// Says when the next attempt is due.
fn tried_again(retry_at: Timestamp, at: Timestamp) -> String {
    if retry_at > at {
        format!("will be tried again at {retry_at}")
    } else {
        "is due to be tried again".to_owned()
    }
}

/// Describes a call in flight. With a service that hangs, this stays so until the timeout.
fn in_flight(
    call: &str,
    service: Option<&ServiceName>,
    began_at: Option<Timestamp>,
    timeout: Duration,
    last_failure: Option<&Failure>,
) -> String {
    let service = service.map_or_else(String::new, |name| format!(" to service `{name}`"));
    let since = since(began_at);
    let last = last_failure.map_or_else(String::new, |error| {
        format!(" (the attempt before: {}: {})", error.code, error.message)
    });
    format!("{call} is in flight{service}{since}, its timeout is {timeout:?}{last}")
}

/// Says since when.
fn since(at: Option<Timestamp>) -> String {
    at.map_or_else(String::new, |at| format!(" since {at}"))
}
