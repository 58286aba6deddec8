//! Rebuilds the projections from the events, a slice at a time, beside everything else.
//!
//! A reader compares the rows of some sagas with what their events say. The writer gets only those that differ, with
//! the version that they were derived from, and puts the new rows in the place of the old ones in one
//! transaction. A saga that has gone on meanwhile is derived again.

use std::time::Duration;

use amends_engine::SagaId;
use futures::FutureExt as _;

use super::PostgresStore;
use super::connection::{Pg, references};
use super::derive::{PinnedDefinitions, derive_saga};
use super::error::Result as PgResult;
use super::job::WorkDone;
use super::projections::{
    differences, has_other_owner, remove_rows, saga_ids, version_of, version_of_failure,
};
use super::readers::{begin, end};
use super::rows::Rows;
use super::strays::{Stray, Strays, remove_stray, strays};
use super::text::stored_text;
use crate::derived::DerivedSaga;
use crate::error::StoreError;
use crate::id_time::delay_of;
use crate::rebuild::{Projection, RebuildPlace, RebuildSlice, RebuildStage, RowKey};

/// The most sagas of a slice.
const SLICE_MAX: i64 = 256;

/// A slice ends with the saga whose events reach this many bytes.
const SLICE_BYTES_MAX: usize = 16 << 20;

/// The most sagas of one transaction of the writer.
const WRITTEN_MAX: usize = 16;

/// How often a saga is derived again because it went on meanwhile.
const TRIES_MAX: u32 = 100;

/// Why rows of a saga without events stay.
const KEPT_REASON: &str = "it has a row and no events; nothing of it is removed";

/// Some sagas that were compared with their events.
#[derive(Default)]
struct ComparedSagas {
    /// The last one that was looked at.
    last: Option<SagaId>,
    sagas: u64,
    /// Those whose rows differ.
    differing: Vec<DerivedSaga>,
    unreadable: Vec<(SagaId, String)>,
}

impl PostgresStore {
    /// Does one slice of a rebuild, see [`crate::Maintenance::rebuild`].
    pub(super) async fn rebuild_slice(
        &self,
        place: RebuildPlace,
    ) -> Result<RebuildSlice, StoreError> {
        match place.0 {
            RebuildStage::Sagas(after) => self.rebuild_sagas(after).await,
            RebuildStage::Strays { table, after } => self.remove_strays(table, after).await,
            // The words of a failure are in its row.
            RebuildStage::Words => Ok(RebuildSlice::default()),
        }
    }

    async fn rebuild_sagas(&self, after: Option<SagaId>) -> Result<RebuildSlice, StoreError> {
        let lease = self.lease().await?;
        let compared = async {
            begin(&lease).await?;
            let ids = saga_ids(&lease, after, SLICE_MAX).await?;
            let compared = compare(&lease, &ids, SLICE_BYTES_MAX).await?;
            end(&lease).await?;
            Ok(compared)
        };
        let compared = compared.await;
        let mut compared = lease.finish(compared)?;
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
            let lease = self.lease().await?;
            let again = async {
                begin(&lease).await?;
                // All of them: the slice ends after them.
                let compared = compare(&lease, &changed, usize::MAX).await?;
                end(&lease).await?;
                Ok(compared)
            };
            let again = again.await;
            compared = lease.finish(again)?;
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
    /// took. Returns the sagas that have gone on.
    async fn replace(
        &self,
        compared: ComparedSagas,
        slice: &mut RebuildSlice,
    ) -> Result<Vec<SagaId>, StoreError> {
        let (mut left, mut changed) = (compared.differing.into_iter().peekable(), Vec::new());
        while left.peek().is_some() {
            let sagas: Vec<_> = left.by_ref().take(WRITTEN_MAX).collect();
            let done = self.work(move |pg| replace_all(pg, sagas).boxed()).await?;
            slice.rebuilt += done.count;
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
        let lease = self.lease().await?;
        let found = async {
            begin(&lease).await?;
            let found =
                strays(&lease, &mut PinnedDefinitions::default(), table, after.as_ref()).await?;
            end(&lease).await?;
            Ok(found)
        };
        let found = found.await;
        let Strays { rows, kept, next } = lease.finish(found)?;
        let kept = kept.into_iter().map(|saga| (saga, KEPT_REASON.to_owned()));
        let mut slice = RebuildSlice { unreadable: kept.collect(), ..RebuildSlice::default() };
        if !rows.is_empty() {
            let done = self.work(move |pg| remove_all(pg, table, rows).boxed()).await?;
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
}

/// Compares the rows of sagas with their events, until these have `bytes_max` bytes.
async fn compare(pg: &Pg, ids: &[SagaId], bytes_max: usize) -> PgResult<ComparedSagas> {
    let (mut compared, mut bytes) = (ComparedSagas::default(), 0);
    let mut definitions = PinnedDefinitions::default();
    for id in ids {
        compared.last = Some(*id);
        compared.sagas += 1;
        match derive_saga(pg, &mut definitions, *id).await? {
            Ok(derived) => {
                bytes += derived.bytes;
                if !differences(pg, &derived).await?.is_empty() {
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

async fn replace_all(pg: &Pg, sagas: Vec<DerivedSaga>) -> PgResult<WorkDone> {
    let mut done = WorkDone::default();
    for saga in sagas {
        let id = saga.row.id;
        match version_of(pg, id).await? {
            Some(version) if version == saga.version.0 => {
                done.start_delay = done.start_delay.max(delay_of(id, saga.row.started_at));
                let life = saga
                    .row
                    .ended_at
                    .map_or(0, |at| at.as_millis().saturating_sub(saga.row.started_at.as_millis()));
                done.longest_life = done.longest_life.max(life);
                replace(pg, saga).await?;
                done.count += 1;
            }
            Some(_) => done.changed.push(id),
            // It was archived meanwhile.
            None => {}
        }
        done.touched.push(id);
    }
    Ok(done)
}

/// Writes the rows of a saga anew, with the statements that append them.
async fn replace(pg: &Pg, saga: DerivedSaga) -> PgResult<()> {
    let DerivedSaga { row, failures, start_key, may_lack_key, .. } = saga;
    remove_rows(pg, row.id).await?;
    let mut rows = Rows::default();
    rows.put_row(&row, true);
    for (_, failure) in failures {
        rows.add_failure(row.id, version_of_failure(&failure), failure);
    }
    if let Some((key, at)) = start_key {
        let has_key = "SELECT 1 FROM start_keys WHERE key = $1";
        let is_own = !has_other_owner(pg, &key.key, row.id).await?;
        if is_own && (!may_lack_key || pg.exists(has_key, &[&stored_text(&key.key)]).await?) {
            rows.replace_key(key, row.id, at);
        }
    }
    for write in rows.into_writes() {
        pg.execute(write.sql, &references(&write.values)).await?;
    }
    Ok(())
}

async fn remove_all(pg: &Pg, table: Projection, strays: Vec<Stray>) -> PgResult<WorkDone> {
    let mut done = WorkDone::default();
    for stray in strays {
        done.count += remove_stray(pg, table, &stray.key).await?;
        done.touched.push(stray.saga);
    }
    Ok(done)
}
