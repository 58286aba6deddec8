//! Which times of a schedule start a saga now.

use std::collections::VecDeque;
use std::time::Duration;

use amends_engine::Timestamp;

use super::pattern::SchedulePattern;
use super::settings::CatchUp;
use crate::limits::{CATCH_UP_AGE_MAX, CATCH_UP_MAX};

/// What is due of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    /// The times that start a saga, in order.
    pub(crate) starts: Vec<Timestamp>,
    /// The last of the times that were missed and start none, and how many there are.
    pub(crate) missed: Option<(Timestamp, usize)>,
}

/// How far a schedule has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Come {
    /// Times up to this one are decided.
    pub(crate) from: Timestamp,
    /// Times before this one were missed: the host was down, or stood still.
    pub(crate) on_time_from: Timestamp,
    /// Times up to this one were decided before the clock was set back. Those that were missed are not
    /// decided again.
    pub(crate) was_decided_until: Timestamp,
}

/// Returns the times of a schedule up to `now` that are to be decided.
pub(crate) fn due(
    pattern: &SchedulePattern,
    catch_up: CatchUp,
    Come { from, on_time_from, was_decided_until }: Come,
    now: Timestamp,
) -> Due {
    let keep = match catch_up {
        CatchUp::None => 0,
        CatchUp::Last => 1,
        CatchUp::All => CATCH_UP_MAX,
    };
    let (mut caught_up, mut on_time) = (VecDeque::new(), VecDeque::new());
    let (mut missed, mut last) = (0, None);
    let mut at = from.max(now.before(CATCH_UP_AGE_MAX));
    while let Some(next) = pattern.next_after(at).filter(|next| *next <= now) {
        at = next;
        if next >= on_time_from {
            on_time.push_back(next);
            // The sagas of these could not be started for long.
            if on_time.len() > CATCH_UP_MAX {
                missed += caught_up.len() + 1;
                caught_up.clear();
                last = on_time.pop_front();
            }
        } else if next > was_decided_until {
            caught_up.push_back(next);
            if caught_up.len() > keep {
                last = caught_up.pop_front();
                missed += 1;
            }
        }
    }
    // The last of them is caught up by the one that is on time.
    if catch_up == CatchUp::Last && !on_time.is_empty() {
        last = caught_up.pop_front().or(last);
        missed += usize::from(last.is_some());
    }
    let starts = caught_up.into_iter().chain(on_time).collect();
    Due { starts, missed: last.map(|last| (last, missed)) }
}

/// Returns how long to wait until a moment, at most `limit`.
pub(crate) fn pause_until(next: Option<Timestamp>, now: Timestamp, limit: Duration) -> Duration {
    next.map_or(limit, |next| next.since(now).min(limit))
}
