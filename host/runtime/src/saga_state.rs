//! A saga as a reader of the host sees it.

use amends_engine::{Saga, SagaId, SagaStatus, Timestamp};

use crate::stall::Stall;

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
    /// What holds it back, outside its events: one for each call that cannot begin.
    pub stalls: Vec<Stall>,
    /// Says that what happened to it cannot be recorded and why, as a clause for people. None when
    /// it can be recorded.
    pub unrecorded: Option<String>,
}

impl From<Saga> for SagaState {
    /// A saga that nothing outside its events holds back.
    fn from(saga: Saga) -> Self {
        Self { saga, stalls: Vec::new(), unrecorded: None }
    }
}

impl SagaState {
    pub(crate) fn of(saga: &Saga, stalls: &[Stall]) -> Self {
        Self { stalls: stalls.to_vec(), ..Self::from(saga.clone()) }
    }
}

/// Whether nothing will happen without an operator.
pub(crate) fn rests(status: SagaStatus) -> bool {
    status.is_end() || status == SagaStatus::Blocked
}
