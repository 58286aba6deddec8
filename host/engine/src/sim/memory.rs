//! What a host has of a saga in memory.

use crate::{Call, Event, Impossible, Outcome, Saga, Timestamp};

/// A saga as a host has it in memory.
#[derive(Clone)]
pub(super) struct Memory {
    /// The saga as of the last append that the host knows to be durable.
    pub(super) saga: Saga,
    /// The calls whose outcome the saga waits for.
    pub(super) in_flight: Vec<Call>,
    /// The outcome of the last call of each step, as far as the host knows it.
    pub(super) answers: Vec<Option<Outcome>>,
}

impl Memory {
    /// Begins a decision at a time of the saga.
    pub(super) fn draft(&self, at: Timestamp) -> Draft {
        Draft { at, saga: self.saga.clone(), events: Vec::new(), impossible: None }
    }
}

/// What a host has decided, before it is durable.
#[derive(Clone)]
pub(super) struct Draft {
    /// The time of the saga at which it was decided.
    pub(super) at: Timestamp,
    /// The saga after the events.
    pub(super) saga: Saga,
    pub(super) events: Vec<Event>,
    /// Why the last event cannot follow the one before it; none as long as the machine is sound.
    pub(super) impossible: Option<Impossible>,
}
