//! A saga as a reader of the host sees it.

use amends_engine::{Saga, SagaId, SagaStatus, Timestamp};

use crate::stall::{Stall, StallReason};

/// A saga that was started, now or earlier with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Its id.
    pub id: SagaId,
    /// Whether this request started it.
    pub created: bool,
}

/// A saga as its log has it.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) saga: Saga,
    /// When its last event was decided.
    pub(crate) last_at: Timestamp,
}

/// A saga as a reader sees it.
#[derive(Debug, Clone)]
pub struct SagaState {
    /// The saga.
    pub saga: Saga,
    /// What holds it back, outside its events: of each call that is due and cannot begin.
    pub stalls: Vec<StallReason>,
}

impl SagaState {
    pub(crate) fn of(saga: &Saga, stalls: &[Stall]) -> Self {
        let stalls = stalls.iter().map(|stall| stall.reason.clone()).collect();
        Self { saga: saga.clone(), stalls }
    }
}

/// Whether nothing will happen without an operator.
pub(crate) fn rests(status: SagaStatus) -> bool {
    status.is_end() || status == SagaStatus::Blocked
}
