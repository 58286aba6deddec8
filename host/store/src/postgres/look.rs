//! What the writer looks at between transactions: whether the connection is there, whether the fence is its own, and
//! whether writes work again.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::error::Failure;
use super::open::BATCHES_KEPT;
use super::writer::Writer;
use crate::error::{Fatal, Obstacle, StoreError};

/// Every so many looks, old batches are removed and the size is measured.
const LOOKS_PER_UPKEEP: u32 = 20;

/// Every so many looks, the sizes of plugins' state are forgotten when there are other hosts, which change them too.
const LOOKS_PER_FORGET: u32 = 10;

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
            Err(StoreError::Fatal(Fatal::Fenced)) => drop(self.fenced().await),
            Err(error) => {
                self.pg = self.pg.take().filter(|_| error.is_fatal());
                self.health.failed(&error);
            }
        }
    }

    async fn try_look(&mut self) -> Result<(), StoreError> {
        self.connect().await?;
        let Some(pg) = &self.pg else { return Ok(()) };
        let sql = "SELECT (SELECT epoch FROM lanes WHERE host = $1 AND lane = 0),
            (SELECT coalesce(max(value), 0) FROM meta WHERE name = 'start_delay'),
            (SELECT coalesce(max(value), 0) FROM meta WHERE name = 'longest_life')";
        let row = pg.first(sql, &[&self.lane.host]).await?;
        let Some(row) = row else { return Ok(()) };
        let epoch: Option<i64> = row.try_get(0).map_err(Failure::from)?;
        if epoch != Some(self.lane.epoch) {
            return Err(Fatal::Fenced.into());
        }
        // Other hosts raise them, too.
        let (delay, life): (i64, i64) =
            (row.try_get(1).map_err(Failure::from)?, row.try_get(2).map_err(Failure::from)?);
        self.cache.start_delay = self.cache.start_delay.max(delay);
        self.cache.longest_life = self.cache.longest_life.max(life);
        self.tell_longest();
        if self.looks.is_multiple_of(LOOKS_PER_FORGET) && !self.membership.is_alone() {
            self.cache.state_bytes.clear();
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
            let remove =
                "DELETE FROM batches WHERE host = $1 AND lane = 0 AND number < $2 AND events = 0";
            pg.execute(remove, &[&self.lane.host, &old]).await?;
            // Those of hosts that are gone. Nobody asks for them after so long.
            let remove =
                "DELETE FROM batches WHERE events = 0 AND at < clock_timestamp() - interval '1 h'
                AND NOT EXISTS (SELECT 1 FROM lanes WHERE lanes.host = batches.host)";
            pg.execute(remove, &[]).await?;
        }
        let size = pg.first("SELECT pg_database_size(current_database())", &[]).await?;
        if let Some(size) = size {
            let bytes: i64 = size.try_get(0).map_err(Failure::from)?;
            self.stats.lock().unwrap_or_else(PoisonError::into_inner).bytes =
                u64::try_from(bytes).ok();
        }
        Ok(())
    }
}
