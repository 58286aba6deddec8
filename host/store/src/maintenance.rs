//! The state of a store: whether it takes writes, whether it is consistent, and what it counts.

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::backup::{Backup, BackupError};
use crate::error::StoreError;
use crate::rebuild::{RebuildError, RebuildPlace, RebuildSlice};
use crate::survey::StoreSurvey;

/// Says whether a store takes writes.
#[derive(Debug, Clone, Default)]
pub enum StoreHealth {
    /// The store takes writes.
    #[default]
    Well,
    /// The store takes no writes now, for this reason. It tries by itself whether it can again.
    NoWrites(StoreError),
    /// The store will never take writes again in this process, for this reason.
    Lost(StoreError),
}

/// The space of the disk that holds the store, as last measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskRoom {
    /// The bytes that this user may still write.
    pub free_bytes: u64,
    /// The size of the disk.
    pub total_bytes: u64,
    /// True when the disk is nearly full.
    pub is_low: bool,
}

/// Counts since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// The number of appends that were written.
    pub appends: u64,
    /// The number of events that were written.
    pub(crate) events: u64,
    /// The number of transactions that wrote them.
    pub transactions: u64,
    /// The bytes of the database; none before the first measurement.
    pub bytes: Option<u64>,
    /// The bytes of its write-ahead log; none before the first measurement, and for a database of a server.
    pub wal_bytes: Option<u64>,
    /// The space of the disk; none before the first measurement, or when it cannot be measured.
    pub disk: Option<DiskRoom>,
}

/// What keeps a store in order.
pub trait Maintenance: Send + Sync {
    /// Reads the whole store and checks that it is consistent. Each finding is a sentence.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: try again. [`StoreError::Closed`]: it fails again.
    fn verify(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>>;

    /// Compares the projections with the events, and writes anew what differs: one slice, from a place on.
    /// Sagas go on meanwhile. A rebuild is complete when every slice was done, each from the `next` of the
    /// one before. It may be ended after any slice, and begun again at any place.
    ///
    /// What no event says stays as it is: cursors, plugin state, and what the archive has. So do the row
    /// and the start key of a saga whose events are missing.
    ///
    /// # Errors
    /// [`RebuildError::UnderWay`]: another slice is being done. [`StoreError::Unavailable`]: try again. [`StoreError::Damaged`] and [`StoreError::Closed`]: it
    /// fails again. Sagas that were written before the error are written.
    fn rebuild(&self, from: RebuildPlace) -> BoxFuture<'_, Result<RebuildSlice, RebuildError>>;

    /// Returns how many events were ever stored.
    ///
    /// # Errors
    /// As for [`Self::verify`].
    fn events(&self) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Returns what the store holds. It reads indexes and a sample of the log, never the whole log.
    ///
    /// # Errors
    /// As for [`Self::verify`].
    fn survey(&self) -> BoxFuture<'_, Result<StoreSurvey, StoreError>>;

    /// Copies the store as it is at one moment, while it is written to. The copy has every append
    /// that was answered before the call. Only one backup of a store exists at a time. A dropped
    /// future ends the copying, and nothing of it is left.
    ///
    /// # Errors
    /// See [`BackupError`].
    fn back_up(&self) -> BoxFuture<'_, Result<Backup, BackupError>>;

    /// Returns a watch that says whether the store takes writes. It changes to
    /// [`StoreHealth::NoWrites`] before the first failed append is answered. It changes back to
    /// [`StoreHealth::Well`] once writes have worked again for a moment, so a caller whose append
    /// failed waits for that instead of trying again and again.
    fn health(&self) -> watch::Receiver<StoreHealth>;

    /// Returns counts since the store was opened.
    fn stats(&self) -> StoreStats;
}
