//! What really happened outside, which the log can only try to tell.

use crate::Timestamp;

/// The true effects of the calls.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    /// The effect of each step.
    pub(super) steps: Vec<StepEffect>,
    /// The requests of calls that have ended for the host, and that have not arrived yet.
    pub(super) on_their_way: Vec<PendingRequest>,
}

impl Ledger {
    /// Returns true when the effect of a step may still come to stand although no call of it runs.
    pub(super) fn may_land(&self, step: usize, now: Timestamp) -> bool {
        let of_step = |request: &&PendingRequest| request.step == step;
        let mut requests = self.on_their_way.iter().filter(of_step);
        requests.any(|request| request.may_land(&self.steps[step], now))
    }
}

/// A request that may still have its effect.
#[derive(Debug, Clone)]
pub(super) struct PendingRequest {
    /// The number of its call among all calls of several hosts.
    pub(super) call: u64,
    pub(super) step: usize,
    /// The generation of the idempotency key that it carries.
    pub(super) generation: u32,
    /// By then it has arrived or never will.
    pub(super) until: Timestamp,
}

impl PendingRequest {
    /// Returns true when the request may still have its effect. A second request with the same key
    /// has none.
    pub(super) fn may_land(&self, effect: &StepEffect, now: Timestamp) -> bool {
        let is_used = effect.times > 0 && effect.generation == self.generation;
        now < self.until && !effect.is_closed && !is_used
    }
}

/// The effect of one step.
#[derive(Debug, Clone, Default)]
pub(super) struct StepEffect {
    /// True when the effect stands now.
    pub(super) stands: bool,
    /// How often the effect came to stand.
    pub(super) times: u32,
    /// The generation of the idempotency key that made it stand.
    pub(super) generation: u32,
    /// True once an undo ran: requests on their way have no effect any more.
    pub(super) is_closed: bool,
}
