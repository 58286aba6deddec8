//! A saga in the memory of a host, and its way to the log.

use std::sync::Arc;

use crate::sim::memory::{Draft, Memory};
use crate::{Direction, Input, Outcome, StepName, Timestamp};

/// A saga in the memory of a host, see `runtime/src/live.rs`.
pub(super) struct Live {
    /// Which reading or start of a saga it comes from.
    pub(super) reading: u64,
    pub(super) memory: Memory,
    pub(super) clock: SagaClock,
    /// The append under way.
    pub(super) pending: Option<Arc<Append>>,
    /// What happened since that append was made.
    pub(super) inputs: Vec<Queued>,
    /// Calls are durable and did not begin, because the lease was over.
    pub(super) has_unbegun: bool,
    /// The clock has moved since the last decision, or calls that were due were not admitted.
    pub(super) may_tick: bool,
}

/// The time of a saga, which never goes back, see `runtime/src/live.rs`.
#[derive(Debug, Clone, Copy)]
pub(super) struct SagaClock {
    /// When the last event was decided.
    pub(super) at: Timestamp,
    /// When this host decided it or read it, by the time of the world.
    pub(super) seen: Timestamp,
}

impl SagaClock {
    /// Returns the time of the saga when the clock of its host says `wall`.
    pub(super) fn time(self, wall: Timestamp, now: Timestamp) -> Timestamp {
        wall.max(self.at.after(now.since(self.seen)))
    }

    /// Returns when, by the time of the world, the saga comes to a time.
    pub(super) fn comes_to(self, time: Timestamp, skew: i64) -> Timestamp {
        let by_clock = Timestamp::from_millis(time.as_millis() - skew);
        by_clock.min(self.seen.after(time.since(self.at)))
    }
}

/// Something that happened to a saga, and who waits for the answer.
#[derive(Clone)]
pub(super) struct Queued {
    pub(super) input: Input,
    /// The step and the outcome of a call that ended.
    pub(super) answer: Option<(usize, Outcome)>,
    pub(super) request: Option<usize>,
}

impl Queued {
    pub(super) fn new(input: Input) -> Self {
        Self { input, answer: None, request: None }
    }

    /// Returns the call that ended.
    pub(super) fn call(&self) -> Option<(&StepName, Direction)> {
        match &self.input {
            Input::Outcome { step, direction, .. } => Some((step, *direction)),
            Input::Admit { .. }
            | Input::Refuse { .. }
            | Input::Mark { .. }
            | Input::Signal { .. }
            | Input::Operate(_)
            | Input::Tick => None,
        }
    }
}

/// A draft on its way to the log.
pub(super) struct Append {
    /// Its number among all appends of a run.
    pub(super) number: u64,
    pub(super) saga: usize,
    /// The epoch of the shard in which it was made.
    pub(super) epoch: u64,
    /// The number of events before it.
    pub(super) expected: usize,
    pub(super) clock: SagaClock,
    pub(super) draft: Draft,
    /// The outcomes that the host had heard by then.
    pub(super) answers: Vec<Option<Outcome>>,
    /// Kept, so that nothing is lost when the append fails.
    pub(super) inputs: Vec<Queued>,
    /// The request that the append starts the saga for.
    pub(super) start: Option<usize>,
}
