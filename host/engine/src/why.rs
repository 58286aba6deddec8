//! Why a saga does not move, in a few sentences. The reason comes first.

mod activity;
mod attempts;
mod effects;
mod quote;
mod verbs;

use std::fmt::Write as _;

use crate::ids::{StepName, Timestamp};
use crate::log_limits::LOG_EVENTS_LONG;
use crate::saga::{Phase, Progress, Saga, StepOutcome, StepState, UndoProgress};
use crate::sentence::shortened;
use crate::status::SagaStatus;
use crate::withhold::WITHHELD;
use activity::{activities, activity};
use attempts::{failed_calls, unknown};
use effects::{effects, no_effect};
use quote::{Quote, quoted};
use verbs::verbs;

pub use activity::activity_in_brief;

/// The explanation of a saga's state, for a person at three in the morning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// A few sentences. The first one gives the reason.
    pub sentence: String,
    /// When the saga starts, or a step goes on, by the clock alone. The deadline does not count, because it ends the
    /// saga.
    pub next_at: Option<Timestamp>,
    /// The deadline; none when it changes nothing any more.
    pub deadline_at: Option<Timestamp>,
    /// The operator's verbs that would change something.
    pub verbs: Vec<&'static str>,
    /// The steps whose undo is due and has not begun. `skip` and `resolve` apply to it when the
    /// order says that it is about the undo.
    pub undos: Vec<StepName>,
}

/// Explains the state of a saga at `at`. The sentence may quote an output.
#[must_use]
pub fn why(saga: &Saga, at: Timestamp) -> Why {
    explain(saga, at, quoted)
}

/// Explains the state of a saga as [`why`] does, for a reader who may not see payloads: [`WITHHELD`] stands in
/// the place of an output.
#[must_use]
pub fn why_withheld(saga: &Saga, at: Timestamp) -> Why {
    explain(saga, at, |_| format!("\"{WITHHELD}\""))
}

fn explain(saga: &Saga, at: Timestamp, quote: Quote) -> Why {
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
        SagaStatus::Blocked => blocked(saga, quote),
        SagaStatus::Compensating => {
            let reason = saga.reason().unwrap_or_default();
            format!("It is being undone {}; {}.", because(reason), activity(saga, at))
        }
        SagaStatus::Running | SagaStatus::Waiting => {
            let pivot = pivot_first(saga).map_or_else(String::new, |words| format!("; {words}"));
            format!("It is {status}: {}{pivot}.", activity(saga, at))
        }
    };
    let sentence = sentence + &long_log(saga);
    // A step that is due already waits for something else.
    let nexts = saga.steps.iter().filter_map(StepState::next_at).chain(saga.start_at());
    let next_at = nexts.filter(|next| *next > at).min();
    let next_at = next_at.filter(|_| !status.is_end() && saga.paused.is_none());
    let waits = (0..saga.steps.len()).filter(|index| saga.undo_waits(*index));
    let undos = waits.map(|index| saga.name(index).clone()).collect();
    Why { sentence, next_at, deadline_at: saga.deadline_in_force(), verbs: verbs(saga, at), undos }
}

/// Says that the log of a live saga is long, as a sentence for people, or an empty text.
fn long_log(saga: &Saga) -> String {
    let events = saga.log.events;
    if saga.has_ended() || events < LOG_EVENTS_LONG || saga.is_log_full() {
        return String::new();
    }
    let max = saga.log_max.events;
    format!(" Its log is long: it has {events} events, and is full at {max}.")
}

/// Says that an order to compensate a saga waits for the pivot, as a clause for people. None when
/// no order waits for it.
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

/// Makes a clause of a reason: `because pay failed: …`, `because it was cancelled by ada: …`.
fn because(reason: &str) -> String {
    let is_order = ["cancelled by ", "compensated by "].iter().any(|word| reason.starts_with(word));
    if is_order { format!("because it was {reason}") } else { format!("because {reason}") }
}

/// Describes what operators did to steps, a sentence each, or an empty text.
fn by_hand(saga: &Saga) -> String {
    let sentence = |index: usize| {
        let step = &saga.steps[index];
        let (name, by) = (saga.name(index), step.by_hand.as_deref()?);
        let what = if step.progress == Progress::Undo(UndoProgress::Undone) {
            format!("{name} counts as undone by word of")
        } else if step.progress == Progress::Undo(UndoProgress::Skipped) {
            format!("The undo of {name} was skipped by")
        } else if step.progress == Progress::Settled(StepOutcome::Skipped) {
            format!("{name} was skipped by")
        } else {
            format!("{name} was resolved by")
        };
        Some(format!("{what} {}: {}", by.who, by.reason))
    };
    let parts = shortened((0..saga.steps.len()).filter_map(sentence).collect());
    if parts.is_empty() { String::new() } else { format!(" {}.", parts.join(". ")) }
}

/// Explains a paused saga: who paused it, and what follows when it is resumed.
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

/// Explains a blocked saga: what is blocked, what led there, and what waits for it.
fn blocked(saga: &Saga, quote: Quote) -> String {
    let reason = saga.reason().unwrap_or_default();
    let mut sentence = format!("It is blocked and needs an operator: {reason}");
    if let Phase::Compensating(started) = &saga.phase {
        let _ = write!(sentence, "; it was being undone {}", because(&started.reason));
    }
    let waiting: Vec<_> = (0..saga.steps.len())
        .filter(|index| {
            matches!(saga.phase, Phase::Compensating(_))
                && saga.steps[*index].progress.may_stand()
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
    let needs = (0..saga.steps.len()).filter(|index| saga.needs_operator(*index));
    let calls = shortened(needs.filter_map(|index| failed_calls(saga, index, quote)).collect());
    if !calls.is_empty() {
        let _ = write!(sentence, " {}.", calls.join(". "));
    }
    sentence
}

/// Describes what is in flight or waited for, as an addition to a sentence.
fn also(saga: &Saga, at: Timestamp) -> String {
    let parts = activities(saga, at);
    if parts.is_empty() { String::new() } else { format!("; {}", parts.join("; ")) }
}
