//! Why a saga does not move, in a few sentences: the reason comes first.

use std::fmt::Write as _;
use std::time::Duration;

use crate::call::{Direction, Failure, idempotency_key};
use crate::decide::{Order, Verb, needs_operator, permits};
use crate::definition::StepKind;
use crate::ids::{ServiceName, StepName, Timestamp};
use crate::plan::exposure;
use crate::saga::{Phase, Progress, Saga, StepState};
use crate::status::SagaStatus;

/// So many steps are named in one sentence.
const PARTS_MAX: usize = 8;

/// The explanation quotes at most this many bytes of an answer: enough for a booking number.
const ANSWER_BYTES_MAX: usize = 200;

/// Why a saga is where it is, for a person at three in the morning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// A few sentences. The first gives the reason.
    pub sentence: String,
    /// When a step goes on by the clock alone. The deadline is not meant: it ends the saga.
    pub next_at: Option<Timestamp>,
    /// When what has not completed is undone; none when the deadline changes nothing any more.
    pub deadline_at: Option<Timestamp>,
    /// The operator's verbs that would change something.
    pub verbs: Vec<&'static str>,
    /// The steps whose undo is due and has not begun: `skip` and `resolve` take it when the order says that
    /// it is about the undo.
    pub undos: Vec<StepName>,
}

/// Explains the state as it is at `at`.
#[must_use]
pub fn why(saga: &Saga, at: Timestamp) -> Why {
    let status = saga.status();
    let sentence = match status {
        SagaStatus::Completed => {
            let (by_hand, unknown) = (by_hand(saga), unknown(saga));
            format!("It is completed: every step is done.{by_hand}{unknown}")
        }
        SagaStatus::Compensated => {
            let reason = saga.reason().unwrap_or_default();
            let effects = match effects(saga) {
                None => no_effect(saga),
                Some(effects) => {
                    format!("all that has an undo is undone. Without an undo, {effects}")
                }
            };
            let (because, by_hand, unknown) = (because(reason), by_hand(saga), unknown(saga));
            format!("It is compensated: {effects}. It was undone {because}.{by_hand}{unknown}")
        }
        SagaStatus::Abandoned => {
            let reason = saga.reason().unwrap_or_default();
            let effects = effects(saga).unwrap_or_else(|| no_effect(saga));
            let (by_hand, unknown) = (by_hand(saga), unknown(saga));
            format!("It is abandoned: {reason}. What is left: {effects}.{by_hand}{unknown}")
        }
        SagaStatus::Paused => paused(saga, at),
        SagaStatus::Blocked => blocked(saga),
        SagaStatus::Compensating => {
            let reason = saga.reason().unwrap_or_default();
            format!("It is being undone {}; {}.", because(reason), activity(saga, at))
        }
        SagaStatus::Running | SagaStatus::Waiting => {
            let pivot = pivot_first(saga).map_or_else(String::new, |words| format!("; {words}"));
            format!("It is {status}: {}{pivot}.", activity(saga, at))
        }
    };
    // What is due already waits for something else.
    let next_at = saga.steps.iter().filter_map(StepState::next_at).filter(|next| *next > at).min();
    let next_at = next_at.filter(|_| !status.is_end() && saga.paused.is_none());
    let waits = (0..saga.steps.len()).filter(|index| saga.undo_waits(*index));
    let undos = waits.map(|index| saga.name(index).clone()).collect();
    Why { sentence, next_at, deadline_at: saga.deadline_in_force(), verbs: verbs(saga, at), undos }
}

/// What a saga that has not ended does or waits for at `at`, for one line of a list: what matters most
/// comes first. None when nothing is in flight or waited for.
#[must_use]
pub fn activity_in_brief(saga: &Saga, at: Timestamp) -> Option<String> {
    if saga.has_ended() {
        return None;
    }
    let mut parts: Vec<_> =
        (0..saga.steps.len()).filter_map(|index| step_in_brief(saga, index, at)).collect();
    if let Some(held) = &saga.paused {
        parts.insert(0, (false, format!("paused by {}: {}", held.who, held.reason)));
    }
    // What waits longest for others to act is what a reader looks for; what runs comes last.
    parts.sort_by_key(|(is_running, _)| *is_running);
    let parts = shortened(parts.into_iter().map(|(_, words)| words).collect());
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Whether a step runs, and what it does or waits for.
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
        Progress::UndoBackingOff { retry_at, .. } => {
            let attempt = step.undo_attempts - step.undo_attempts_before + 1;
            let of = spec.undo.as_ref().map_or(0, |undo| undo.retry.attempts);
            let again = again(retry_at, at);
            Some((false, format!("undo of {name} {again}, {attempt} of {of}{}", error())))
        }
        Progress::Running if saga.child(index).is_none() => {
            let since = since(step.began_at);
            Some((true, format!("attempt {} of {name} is in flight{since}", step.attempts)))
        }
        Progress::Undoing if saga.child(index).is_none() => {
            let since = since(step.undo_began_at);
            Some((
                true,
                format!("attempt {} to undo {name} is in flight{since}", step.undo_attempts),
            ))
        }
        Progress::Running
        | Progress::Undoing
        | Progress::FannedOut
        | Progress::Pending
        | Progress::Succeeded
        | Progress::Failed
        | Progress::Unknown
        | Progress::Skipped
        | Progress::Undone
        | Progress::UndoBlocked
        | Progress::UndoSkipped => step_activity(saga, index, at).map(|words| (true, words)),
    }
}

/// When a call is made again; a time that has passed says nothing.
fn again(retry_at: Timestamp, at: Timestamp) -> String {
    if retry_at > at { format!("again at {retry_at}") } else { "is due again".to_owned() }
}

/// What an order to undo a saga waits for, when nobody can tell yet whether it may still be undone;
/// a clause for people.
#[must_use]
pub fn pivot_first(saga: &Saga) -> Option<String> {
    let pivot = saga.definition.pivot().filter(|_| saga.wish.is_some() && saga.is_at_pivot())?;
    let is_running = saga.steps[pivot].progress == Progress::Running;
    let next =
        if is_running { "is in flight" } else { "may have happened and is tried again first" };
    let pivot = saga.name(pivot);
    Some(format!(
        "it is to be undone, but its pivot {pivot} {next}: if that succeeds, the saga goes on to \
         its end and is not undone"
    ))
}

/// The effects of its own steps that stand or may stand, a clause; none when there is none.
fn effects(saga: &Saga) -> Option<String> {
    let effects = exposure(saga);
    let of = |is_certain| {
        let these = effects.iter().filter(|effect| effect.is_certain == is_certain);
        shortened(these.map(|effect| effect.step.to_string()).collect())
    };
    let told = |names: Vec<String>, one, many| match names.as_slice() {
        [] => None,
        [name] => Some(format!("the effect of {name} {one}")),
        _ => Some(format!("the effects of {} {many}", names.join(", "))),
    };
    let certain = told(of(true), "stands", "stand");
    let possible = told(of(false), "may stand", "may stand");
    let parts: Vec<_> = [certain, possible].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn no_effect(saga: &Saga) -> String {
    let ran_sagas = (0..saga.steps.len()).any(|index| saga.child(index).is_some());
    let of_own = if ran_sagas {
        " of its own steps; `amends why` of each saga that they ran tells of its steps"
    } else {
        ""
    };
    format!("no effect stands{of_own}")
}

/// `because pay failed: …`, `because it was cancelled by ada: …`.
fn because(reason: &str) -> String {
    let is_order = ["cancelled by ", "compensated by "].iter().any(|word| reason.starts_with(word));
    if is_order { format!("because it was {reason}") } else { format!("because {reason}") }
}

/// What operators said of its steps, a sentence each, or nothing.
fn by_hand(saga: &Saga) -> String {
    let told = |index: usize| {
        let step = &saga.steps[index];
        let (name, by) = (saga.name(index), step.by_hand.as_deref()?);
        let what = if step.progress == Progress::Undone {
            format!("{name} counts as undone by word of")
        } else if step.progress == Progress::UndoSkipped {
            format!("The undo of {name} was skipped by")
        } else if step.progress == Progress::Skipped {
            format!("{name} was skipped by")
        } else {
            format!("{name} was resolved by")
        };
        Some(format!("{what} {}: {}", by.who, by.reason))
    };
    let parts = shortened((0..saga.steps.len()).filter_map(told).collect());
    if parts.is_empty() { String::new() } else { format!(" {}.", parts.join(". ")) }
}

/// Who holds it, and what comes when it is resumed.
fn paused(saga: &Saga, at: Timestamp) -> String {
    let held = saga.paused.as_ref();
    let held = held.map_or_else(String::new, |held| format!(" by {}: {}", held.who, held.reason));
    let undone = match &saga.phase {
        Phase::Compensating(started) => {
            format!("; then it goes on being undone {}", because(&started.reason))
        }
        Phase::Forward => pivot_first(saga).map_or_else(String::new, |words| format!("; {words}")),
        Phase::Completed | Phase::Compensated(_) | Phase::Abandoned(_) => String::new(),
    };
    let blocked = saga.blocked.as_ref().map_or_else(String::new, |blocked| {
        format!("; after that it needs an operator: {}", blocked.reason)
    });
    let also = also(saga, at);
    format!("It is paused{held}; no call begins until it is resumed{also}{undone}{blocked}.")
}

/// The whole chain: what is blocked, why the saga came there, and what waits for it.
fn blocked(saga: &Saga) -> String {
    let reason = saga.reason().unwrap_or_default();
    let mut sentence = format!("It is blocked and needs an operator: {reason}");
    if let Phase::Compensating(started) = &saga.phase {
        let _ = write!(sentence, "; it was being undone {}", because(&started.reason));
    }
    let waiting: Vec<_> = (0..saga.steps.len())
        .filter(|index| {
            matches!(saga.phase, Phase::Compensating(_))
                && matches!(saga.steps[*index].progress, Progress::Succeeded | Progress::Unknown)
                && saga.spec(*index).undo.is_some()
                && !saga.runs_over_list(*index)
                && !saga.is_undo_ready(*index)
        })
        .map(|index| saga.name(index).to_string())
        .collect();
    let _ = match shortened(waiting).as_slice() {
        [] => Ok(()),
        [one] => write!(sentence, "; the undo of {one} waits for that"),
        all => write!(sentence, "; the undos of {} wait for that", all.join(", ")),
    };
    sentence.push('.');
    let needs = (0..saga.steps.len()).filter(|index| needs_operator(saga, *index));
    let calls = shortened(needs.filter_map(|index| calls_that_failed(saga, index)).collect());
    if !calls.is_empty() {
        let _ = write!(sentence, " {}.", calls.join(". "));
    }
    sentence
}

/// The attempts of a step that needs an operator, with their idempotency keys: whoever repairs it can ask
/// with those what they did. And what the step answered, when its undo is blocked.
fn calls_that_failed(saga: &Saga, index: usize) -> Option<String> {
    let step = &saga.steps[index];
    let is_undo = step.progress == Progress::UndoBlocked;
    let executed = (step.attempts > 0 && (!is_undo || step.attempts_unknown > 0)).then(|| {
        let (unknown, all) = (step.attempts_unknown, step.attempts);
        attempts_told(saga, index, Direction::Execute, unknown, all)
    });
    let undone = (is_undo && step.undo_attempts > 0).then(|| {
        let (unknown, all) = (step.undo_attempts_unknown, step.undo_attempts);
        attempts_told(saga, index, Direction::Compensate, unknown, all)
    });
    let answered = step.output.as_ref().filter(|_| is_undo).map(|output| {
        let text = output.as_str();
        let end = text.floor_char_boundary(ANSWER_BYTES_MAX);
        let more = if end < text.len() { "…" } else { "" };
        format!("{} answered {}{more}", saga.name(index), &text[..end])
    });
    let parts: Vec<_> = [answered, executed, undone].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(". "))
}

/// The attempts of which nobody knew what came of them, with the idempotency keys that they carried: with
/// those, whoever they reached can say what it did. A sentence of its own, or nothing.
fn unknown(saga: &Saga) -> String {
    let parts = (0..saga.steps.len()).flat_map(|index| {
        let step = &saga.steps[index];
        let executed = (Direction::Execute, step.attempts_unknown, step.attempts);
        let undone = (Direction::Compensate, step.undo_attempts_unknown, step.undo_attempts);
        let told = [executed, undone].into_iter().filter(|(_, unknown, _)| *unknown > 0);
        told.map(move |(direction, unknown, all)| {
            attempts_told(saga, index, direction, unknown, all)
        })
    });
    let parts = shortened(parts.collect());
    if parts.is_empty() { String::new() } else { format!(" {}.", parts.join(". ")) }
}

/// What became of all attempts, `unknown` of which nobody knows the end of; and their idempotency key.
fn attempts_told(
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
    let mut told = match (all, unknown) {
        (1, 0) => format!("The only attempt {of} failed"),
        (2, 0) => format!("Both attempts {of} failed"),
        (_, 0) => format!("All {all} attempts {of} failed"),
        (1, _) => format!("The only attempt {of} ended unknown"),
        (2, 2) => format!("Both attempts {of} ended unknown"),
        _ if unknown == all => format!("All {all} attempts {of} ended unknown"),
        _ => format!("{unknown} of {all} attempts {of} ended unknown"),
    };
    if !matches!(saga.spec(index).kind, StepKind::Call { .. }) {
        return told;
    }
    let generation = saga.steps[index].generation(direction);
    let key = idempotency_key(saga.id, name, direction, generation);
    let _ = match (generation, all) {
        (0, 1) => write!(told, "; it was sent with the idempotency key {key}"),
        (0, _) if unknown == all || unknown == 0 => {
            write!(told, "; they were sent with the idempotency key {key}")
        }
        (0, _) => write!(told, "; all were sent with the idempotency key {key}"),
        _ => write!(
            told,
            "; since its input was edited they are sent with the idempotency key {key}, and the history \
             has the key of each"
        ),
    };
    told
}

/// The verbs that are permitted and would do something.
fn verbs(saga: &Saga, at: Timestamp) -> Vec<&'static str> {
    let is_forward = saga.phase == Phase::Forward;
    let resolve = |undo| {
        let evidence = "seen".to_owned();
        Verb::Resolve { step: None, happened: true, output: None, evidence, undo }
    };
    let all = [
        (Verb::Retry { step: None, input: None, digest: None }, true),
        (resolve(false), true),
        (resolve(true), true),
        (Verb::Skip { step: None, undo: false }, true),
        (Verb::Skip { step: None, undo: true }, true),
        (Verb::Resume, true),
        (Verb::Cancel, is_forward && saga.wish.is_none()),
        (Verb::Compensate, saga.phase == Phase::Completed),
        (Verb::Pause, saga.paused.is_none()),
        (Verb::Abandon, saga.status() != SagaStatus::Abandoned),
    ];
    let permits = |verb: Verb| {
        let order = Order { who: String::new(), reason: String::new(), verb };
        permits(saga, at, &order).is_ok()
    };
    // Where several steps need it, the verb must name one of them.
    let permits_one = |verb: &Verb| {
        let is_meant = |step: &usize| needs_operator(saga, *step) || saga.undo_waits(*step);
        let mut steps = (0..saga.steps.len()).filter(is_meant);
        steps.any(|step| permits(of_step(verb, saga.name(step))))
    };
    let permitted = |verb: &Verb| permits(verb.clone()) || permits_one(verb);
    let wanted = all.into_iter().filter(|(verb, does)| *does && permitted(verb));
    let signal = waits_for_signal(saga).then_some("signal");
    let mut words: Vec<_> = signal.into_iter().chain(wanted.map(|(verb, _)| verb.word())).collect();
    // A step and an undo may both be meant.
    words.dedup();
    words
}

/// Whether a step waits for a signal now: to send it is no order of an operator, and what moves the
/// saga.
fn waits_for_signal(saga: &Saga) -> bool {
    !saga.has_ended()
        && (0..saga.steps.len()).any(|index| {
            matches!(saga.steps[index].progress, Progress::Waiting { .. })
                && matches!(saga.spec(index).kind, StepKind::Wait { .. })
        })
}

/// The verb about this step, when it is about one.
fn of_step(verb: &Verb, name: &StepName) -> Verb {
    let name = Some(name.clone());
    match verb.clone() {
        Verb::Retry { input, digest, .. } => Verb::Retry { step: name, input, digest },
        Verb::Skip { undo, .. } => Verb::Skip { step: name, undo },
        Verb::Resolve { happened, output, evidence, undo, .. } => {
            Verb::Resolve { step: name, happened, output, evidence, undo }
        }
        other @ (Verb::Cancel
        | Verb::Compensate
        | Verb::CompensateWithParent
        | Verb::Pause
        | Verb::Resume
        | Verb::Abandon
        | Verb::Note) => other,
    }
}

fn also(saga: &Saga, at: Timestamp) -> String {
    let parts = activities(saga, at);
    if parts.is_empty() { String::new() } else { format!("; {}", parts.join("; ")) }
}

/// What is in flight or waited for, step by step.
fn activity(saga: &Saga, at: Timestamp) -> String {
    let parts = activities(saga, at);
    if parts.is_empty() { "nothing is in flight".to_owned() } else { parts.join("; ") }
}

fn activities(saga: &Saga, at: Timestamp) -> Vec<String> {
    let all = (0..saga.steps.len()).filter_map(|index| step_activity(saga, index, at));
    shortened(all.collect())
}

/// A sentence with a thousand elements in it is read by nobody.
pub(crate) fn shortened(mut parts: Vec<String>) -> Vec<String> {
    let more = parts.len().saturating_sub(PARTS_MAX);
    if more > 0 {
        parts.truncate(PARTS_MAX);
        parts.push(format!("{more} more"));
    }
    parts
}

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
        Progress::Undoing => Some(if let Some(child) = saga.child(index) {
            format!("the undo of {name} runs in saga {child}")
        } else {
            let call = format!("attempt {} to undo {name}", step.undo_attempts);
            let timeout = spec.undo.as_ref().map_or(spec.timeout, |undo| undo.timeout);
            let last = step.error.as_deref().filter(|_| step.undo_attempts > 1);
            in_flight(&call, spec.service(), step.undo_began_at, timeout, last)
        }),
        Progress::UndoBackingOff { retry_at, .. } => Some(format!(
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
        | Progress::Succeeded
        | Progress::Failed
        | Progress::Unknown
        | Progress::Skipped
        | Progress::Undone
        | Progress::UndoBlocked
        | Progress::UndoSkipped => None,
    }
}

fn tried_again(retry_at: Timestamp, at: Timestamp) -> String {
    if retry_at > at {
        format!("will be tried again at {retry_at}")
    } else {
        "is due to be tried again".to_owned()
    }
}

/// A call that has not come back: a service that hangs looks like this until the timeout.
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

fn since(at: Option<Timestamp>) -> String {
    at.map_or_else(String::new, |at| format!(" since {at}"))
}
