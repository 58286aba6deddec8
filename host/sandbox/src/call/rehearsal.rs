//! What a component did in a call without any effect.

use amends_engine::Outcome;

use crate::call::effects::Effects;
use crate::capability::outbound::stub::StubbedRequest;

/// What a component did in a rehearsal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsed {
    /// What it answered, or why it did not.
    pub outcome: Outcome,
    /// What would have been recorded with the outcome.
    pub effects: Effects,
    /// The requests that it would have sent, in order.
    pub requests: Vec<StubbedRequest>,
}
