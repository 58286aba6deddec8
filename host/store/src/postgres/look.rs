//! What the writer looks at between transactions: whether the connection is there, whether the fence is its own, and
//! whether writes work again.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::error::Failure;
use super::open::BATCHES_KEPT;
use super::writer::Writer;
use crate::error::{Fatal, Obstacle, StoreError};

/// Every so many looks, old batches are removed and the size is measured.
const LOOKS_PER_UPKEEP: u32 = 20;

/// How long one look may take.
const LOOK_TIME_MAX: Duration = Duration::from_secs(10);

impl Writer {
    /// Looks whether the connection is there and the fence is still the own, and whether writes work again.
    pub(super) async fn look(&mut self) {
        if self.health.lost().is_some() {
            return;
        }
        self.looks = self.looks.wrapping_add(1);
        let looked = timeout(LOOK_TIME_MAX, self.try_look()).await;
        let looked = looked.unwrap_or_else(|_| {
            self.pg = None;
            Err(StoreError::unavailable(Obstacle::Database, "the database does not answer"))
        });
        match looked {
            Ok(()) => self.health.worked(),
            Err(error) => {
                self.pg = self.pg.take().filter(|_| error.is_fatal());
                self.health.failed(&error);
            }
        }
    }

    async fn try_look(&mut self) -> Result<(), StoreError> {
        self.connect().await?;
        let Some(pg) = &self.pg else { return Ok(()) };
        let epoch = "SELECT epoch FROM lanes WHERE host = 0 AND lane = 0";
        let row = pg.first(epoch, &[]).await?;
        let epoch: Option<i64> =
            row.map(|row| row.try_get(0)).transpose().map_err(Failure::from)?;
        if epoch != Some(self.epoch) {
            return Err(Fatal::Fenced.into());
        }
        if self.health.is_in_trouble() {
            let probe = "INSERT INTO meta VALUES ('probe', 1)
                         ON CONFLICT (name) DO UPDATE SET value = meta.value + 1";
            pg.execute(probe, &[]).await?;
        }
        if self.looks.is_multiple_of(LOOKS_PER_UPKEEP) {
            self.upkeep().await?;
        }
        Ok(())
    }

    /// Removes rows of old batches, and measures the database.
    async fn upkeep(&mut self) -> Result<(), StoreError> {
        let Some(pg) = &self.pg else { return Ok(()) };
        let now = Instant::now();
        let is_minute =
            self.old_batches.back().is_none_or(|(at, _)| at.elapsed() > Duration::from_mins(1));
        if is_minute {
            self.old_batches.push_back((now, self.batch));
        }
        let is_old = |(at, _): &(Instant, i64)| at.elapsed() > BATCHES_KEPT;
        let mut old = None;
        while let Some((_, batch)) = self.old_batches.front().filter(|one| is_old(one)) {
            old = Some(*batch);
            self.old_batches.pop_front();
        }
        if let Some(old) = old {
            let remove = "DELETE FROM batches WHERE host = 0 AND lane = 0 AND batch < $1";
            pg.execute(remove, &[&old]).await?;
        }
        let size = pg.first("SELECT pg_database_size(current_database())", &[]).await?;
        if let Some(size) = size {
            let bytes: i64 = size.try_get(0).map_err(Failure::from)?;
            #[expect(clippy::cast_precision_loss, reason = "bytes of a database, to some 2^52")]
            metrics::gauge!("amends_store_bytes").set(bytes as f64);
        }
        Ok(())
    }
}
