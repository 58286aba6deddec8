//! Sagas that have not moved for longer than they should.

use std::time::Duration;

use amends_engine::{SagaStatus, StepStatus, Timestamp};

use crate::live::Live;
use crate::stall::{Stall, StallReason, Stuck};

/// How often live sagas are looked at.
pub(crate) const STUCK_CHECK_PAUSE: Duration = Duration::from_secs(10);

/// A saga that something outside holds back (a plugin, room, a breaker) is stuck after so long.
const HELD_MAX: Duration = Duration::from_mins(5);

/// A saga for which nothing is in flight, due or waited for is stuck after so long: the time for
/// an append that is slow.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// A call that has not come back so long after its timeout is stuck.
const OVERDUE_MAX: Duration = Duration::from_mins(1);

/// What is wrong with a saga that does not move, if something is. One that needs an operator and
/// says so is not stuck: it is blocked or paused.
pub(crate) fn stuck(live: &Live, at: Timestamp) -> Option<Stuck> {
    let (saga, since) = (&live.saga, live.moved_at);
    match saga.status() {
        SagaStatus::Blocked | SagaStatus::Paused => return None,
        SagaStatus::Running
        | SagaStatus::Waiting
        | SagaStatus::Compensating
        | SagaStatus::Completed
        | SagaStatus::Compensated
        | SagaStatus::Abandoned => {}
    }
    let idle = at.since(since);
    let found = |reason: String| Some(Stuck { id: saga.id(), since, reason });
    // What nobody but a person can change need not be waited for.
    let is_lost =
        |stall: &&Stall| matches!(stall.reason, StallReason::PluginMissing { why: Some(_), .. });
    if let Some(lost) = live.stalls.iter().find(is_lost) {
        return found(lost.to_string());
    }
    let first = || live.stalls.first().map(Stall::to_string);
    if let Some(held) = live.unrecorded.clone().or_else(first) {
        return if idle > HELD_MAX { found(held) } else { None };
    }
    let waits = saga.steps().any(|step| step.status == StepStatus::Waiting);
    if live.in_flight.is_empty() {
        let is_idle = !waits && live.timer.is_none_or(|timer| timer < at);
        let is_stuck = is_idle && idle > IDLE_MAX;
        return if is_stuck { found("nothing is in flight or due".to_owned()) } else { None };
    }
    let longest = saga.definition().steps().iter().filter(|spec| spec.plugin().is_some());
    let longest = longest
        .flat_map(|spec| [Some(spec.timeout), spec.undo.as_ref().map(|undo| undo.timeout)])
        .flatten()
        .max()
        .unwrap_or_default();
    // A saga that a step runs takes its own time, and is stuck itself if it is.
    let runs_saga = saga.steps().any(|step| {
        let in_flight = matches!(step.status, StepStatus::Running | StepStatus::Undoing);
        in_flight && step.child.is_some()
    });
    if !runs_saga && idle > longest + OVERDUE_MAX {
        return found("a call has not come back long after its timeout".to_owned());
    }
    None
}
