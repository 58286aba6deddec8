//! Rebuilds the projections from the events, a slice at a time, beside everything else.
//!
//! A reader compares the rows of some sagas with what their events say. The writer gets only those that
//! differ, with the version that they were derived from, and puts the new rows in the place of the old
//! ones in one transaction. A saga that has gone on meanwhile is derived again. So a rebuild of sound
//! projections writes nothing, and each saga has the rows of its log at every moment.

use std::time::Duration;

use amends_engine::SagaId;
use amends_failpoint::failpoint;
use tokio::sync::oneshot;

use super::SqliteStore;
use super::derive::{PinnedDefinitions, derive};
use super::job::Job;
use super::read;
use super::rebuild_job::{RebuildDone, RebuildJob, RebuildTask};
use crate::derived::DerivedSaga;
use crate::error::StoreError;
use crate::rebuild::{Projection, RebuildPlace, RebuildSlice, RebuildStage, RowKey};

/// The most sagas of a slice.
const SLICE_MAX: u32 = 256;

/// A slice ends with the saga whose events reach this many bytes.
const SLICE_BYTES_MAX: usize = 16 << 20;

/// The most sagas of one transaction of the writer.
const WRITTEN_MAX: usize = 16;

/// How often a saga is derived again because it went on meanwhile.
const TRIES_MAX: u32 = 100;

/// Why rows of a saga without events stay: the events may be there, and damage keeps them from being
/// found.
const KEPT_REASON: &str = "it has a row and no events; nothing of it is removed";

/// Some sagas that were compared with their events.
#[derive(Default)]
struct ComparedSagas {
    /// The last one that was looked at.
    last: Option<SagaId>,
    sagas: u64,
    /// Those whose rows differ.
    differing: Vec<DerivedSaga>,
    are_words_wrong: bool,
    unreadable: Vec<(SagaId, String)>,
}

impl SqliteStore {
    /// Does one slice of a rebuild, see [`crate::Maintenance::rebuild`].
    pub(super) async fn rebuild_slice(
        &self,
        place: RebuildPlace,
    ) -> Result<RebuildSlice, StoreError> {
        match place.0 {
            RebuildStage::Sagas(after) => self.rebuild_sagas(after).await,
            RebuildStage::Strays { table, after } => self.remove_strays(table, after).await,
            RebuildStage::Words => {
                self.rebuild_job(RebuildTask::Words).await?;
                Ok(RebuildSlice::default())
            }
        }
    }

    async fn rebuild_sagas(&self, after: Option<SagaId>) -> Result<RebuildSlice, StoreError> {
        let page = self.query(move |connection| {
            // One snapshot for the rows and the events.
            let snapshot = connection.unchecked_transaction()?;
            let ids = read::saga_ids(&snapshot, after, SLICE_MAX)?;
            compare(&snapshot, &ids, SLICE_BYTES_MAX)
        });
        let mut compared = page.await?;
        let mut slice = RebuildSlice {
            sagas: compared.sagas,
            unreadable: std::mem::take(&mut compared.unreadable),
            ..RebuildSlice::default()
        };
        let last = compared.last;
        for tries in 0.. {
            let changed = self.replace(compared, &mut slice).await?;
            if changed.is_empty() {
                break;
            }
            if tries == TRIES_MAX {
                let reason = "it goes on faster than it is read; rebuild again".to_owned();
                slice.unreadable.extend(changed.into_iter().map(|id| (id, reason.clone())));
                break;
            }
            let again = self.query(move |connection| {
                let snapshot = connection.unchecked_transaction()?;
                // All of them: the slice ends after them.
                compare(&snapshot, &changed, usize::MAX)
            });
            compared = again.await?;
            slice.unreadable.append(&mut compared.unreadable);
        }
        let stage = match last {
            Some(last) => RebuildStage::Sagas(Some(last)),
            None => RebuildStage::Strays { table: Projection::ALL[0], after: None },
        };
        slice.next = Some(RebuildPlace(stage));
        Ok(slice)
    }

    /// Writes rows, a few sagas at a time. In between, the writer has as much time for others as these
    /// took. Returns the sagas that have gone on meanwhile.
    async fn replace(
        &self,
        compared: ComparedSagas,
        slice: &mut RebuildSlice,
    ) -> Result<Vec<SagaId>, StoreError> {
        let ComparedSagas { differing, are_words_wrong, .. } = compared;
        let (mut left, mut changed) = (differing.into_iter().peekable(), Vec::new());
        while left.peek().is_some() {
            let sagas = left.by_ref().take(WRITTEN_MAX).collect();
            let done = self.rebuild_job(RebuildTask::Sagas { sagas, are_words_wrong }).await?;
            failpoint("store.rebuild.written");
            slice.rebuilt += done.count;
            slice.unreadable.extend(done.unwritten);
            changed.extend(done.changed);
            tokio::time::sleep(done.took.max(Duration::from_millis(1))).await;
        }
        Ok(changed)
    }

    async fn remove_strays(
        &self,
        table: Projection,
        after: Option<RowKey>,
    ) -> Result<RebuildSlice, StoreError> {
        let strays = self.query(move |connection| {
            let snapshot = connection.unchecked_transaction()?;
            read::strays(&snapshot, &mut PinnedDefinitions::default(), table, after.as_ref())
        });
        let read::Strays { rows, kept, next } = strays.await?;
        let kept = kept.into_iter().map(|saga| (saga, KEPT_REASON.to_owned()));
        let mut slice = RebuildSlice { unreadable: kept.collect(), ..RebuildSlice::default() };
        if !rows.is_empty() {
            let done = self.rebuild_job(RebuildTask::Strays(table, rows)).await?;
            slice.removed = done.count;
            tokio::time::sleep(done.took).await;
        }
        let at = Projection::ALL.iter().position(|one| *one == table).map_or(0, |at| at + 1);
        let stage = match (next, Projection::ALL.get(at)) {
            (Some(key), _) => RebuildStage::Strays { table, after: Some(key) },
            (None, Some(table)) => RebuildStage::Strays { table: *table, after: None },
            (None, None) => RebuildStage::Words,
        };
        slice.next = Some(RebuildPlace(stage));
        Ok(slice)
    }

    /// Has the writer do a part, and waits until it is durable.
    async fn rebuild_job(&self, task: RebuildTask) -> Result<RebuildDone, StoreError> {
        let (reply, done) = oneshot::channel();
        self.queue.push(Job::Rebuild(RebuildJob { task, reply }));
        done.await.unwrap_or(Err(StoreError::Closed))
    }
}

/// Compares the rows of sagas with their events, until these have `bytes_max` bytes.
fn compare(
    connection: &rusqlite::Connection,
    ids: &[SagaId],
    bytes_max: usize,
) -> rusqlite::Result<ComparedSagas> {
    let (mut compared, mut bytes) = (ComparedSagas::default(), 0);
    let mut definitions = PinnedDefinitions::default();
    for id in ids {
        compared.last = Some(*id);
        compared.sagas += 1;
        match derive(connection, &mut definitions, *id)? {
            Ok(derived) => {
                bytes += derived.bytes;
                let differences = read::differences(connection, &derived)?;
                compared.are_words_wrong |= differences.iter().any(|one| one.is_of_words);
                if !differences.is_empty() {
                    compared.differing.push(derived);
                }
            }
            Err(reason) => compared.unreadable.push((*id, reason)),
        }
        if bytes >= bytes_max {
            break;
        }
    }
    Ok(compared)
}
