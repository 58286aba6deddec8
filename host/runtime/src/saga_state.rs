//! A saga as a reader of the host sees it.

use amends_engine::{SEALED_REASON, Saga, SagaId, SagaStatus, Timestamp};
use amends_keys::DataKey;
use amends_registry::now;
use amends_store::SagaRow;

use crate::error::RuntimeError;
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
    /// What its row says.
    pub(crate) row: RowState,
    /// The key of its personal values; none when it has none, or when they are erased.
    pub(crate) key: Option<DataKey>,
}

/// A saga that was looked for, if there is one.
pub(crate) type Found = Result<Option<Loaded>, NotLoaded>;

/// Why a saga was not loaded.
#[derive(Debug)]
pub(crate) struct NotLoaded {
    pub(crate) error: RuntimeError,
    /// It has not ended, and is not read by trying again.
    pub(crate) is_lost: bool,
}

/// What the row of a saga says that changes: by this the store finds the sagas that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowState {
    pub(crate) status: SagaStatus,
    pub(crate) wake_at: Option<Timestamp>,
    /// The reason is sealed in the events, and so is not in the row.
    pub(crate) is_reason_sealed: bool,
}

impl RowState {
    /// What the row of a saga should say.
    pub(crate) fn of(saga: &Saga, is_reason_sealed: bool) -> Self {
        Self { status: saga.status(), wake_at: saga.wake_at(), is_reason_sealed }
    }

    /// Returns the row of a saga.
    pub(crate) fn row(self, saga: &Saga) -> SagaRow {
        let row = SagaRow::of(saga);
        let reason = if self.is_reason_sealed {
            row.reason.map(|_| SEALED_REASON.to_owned())
        } else {
            row.reason
        };
        SagaRow { reason, ..row }
    }
}

impl From<&SagaRow> for RowState {
    fn from(row: &SagaRow) -> Self {
        let is_reason_sealed = row.reason.as_deref() == Some(SEALED_REASON);
        Self { status: row.status, wake_at: row.wake_at, is_reason_sealed }
    }
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
    /// The time of the saga when it was read: the clock of the host, or later. The times in its events
    /// compare with this one.
    pub now: Timestamp,
    /// True when the saga has left the store for the archive: it takes no orders.
    pub is_archived: bool,
    /// True when the saga is archived, ran on another host and was imported: it does not come back.
    pub is_imported: bool,
}

impl From<Loaded> for SagaState {
    /// A saga that nothing outside its events holds back.
    fn from(Loaded { saga, last_at, row: _, key: _ }: Loaded) -> Self {
        let now = now().max(last_at);
        let (is_archived, is_imported) = (false, false);
        Self { saga, stalls: Vec::new(), unrecorded: None, now, is_archived, is_imported }
    }
}

/// Whether nothing will happen without an operator.
pub(crate) fn rests(status: SagaStatus) -> bool {
    status.is_end() || status == SagaStatus::Blocked
}
