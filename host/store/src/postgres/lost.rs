//! What the writer does when a connection is lost: it connects again, and finds out what became of a transaction
//! whose answer did not come.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::connection::Pg;
use super::error::{Failure, cause};
use super::job::Job;
use super::open::{BATCHES_KEPT, leave, raise_own, register};
use super::transaction::{Batch, begin_fenced, is_there};
use super::writer::Writer;
use crate::error::{Fatal, Obstacle, StoreError};
use crate::queue::QueuedJob as _;
use crate::shard_id::ShardId;

/// The first and the longest pause between two tries to connect.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long a store that closes asks what became of its last transaction.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(10);

/// How long the question may take.
const ASK_TIME_MAX: Duration = Duration::from_secs(10);

impl Writer {
    /// Connects again, and raises the epoch, so that nothing of an older connection is written any more. When
    /// this host was fenced, that is the error, and the connection stays.
    pub(super) async fn reconnect(&mut self) -> Result<(), StoreError> {
        self.pg = None;
        self.cache.forget();
        let pg = Pg::connect(&self.place, &self.setup).await?;
        let raised = raise_own(&pg, self.lane.host).await?;
        self.pg = Some(pg);
        match raised {
            Some(epoch) => self.lane.epoch = epoch,
            None => return Err(Fatal::Fenced.into()),
        }
        self.refuse_another_past().await?;
        // The older connection gives nothing away any more.
        self.membership.keep(&std::mem::take(&mut self.unsure));
        tracing::info!(epoch = self.lane.epoch, "the store is connected again");
        Ok(())
    }

    /// Goes on as another host after this one was fenced, with nothing of what it owned. Returns the error of what it
    /// could not write. It is fatal when another process has the name of this one, and that process goes on.
    pub(super) async fn fenced(&mut self) -> StoreError {
        self.membership.lose_all(self.lane.host);
        let fenced = self.lane.host;
        match timeout(ASK_TIME_MAX, self.begin_again()).await {
            Ok(Ok(())) => {
                tracing::warn!(
                    fenced,
                    host = self.lane.host,
                    "this host was away for longer than its lease, and another one has its shards; it begins again"
                );
                let what = "this host was away for longer than its lease";
                StoreError::unavailable(Obstacle::Database, what)
            }
            Ok(Err(error)) => {
                self.pg = self.pg.take().filter(|_| error.is_fatal());
                self.health.failed(&error);
                error
            }
            Err(_) => {
                self.pg = None;
                StoreError::unavailable(Obstacle::Database, "the database does not answer")
            }
        }
    }

    async fn begin_again(&mut self) -> Result<(), StoreError> {
        let pg = match self.pg.take().filter(|pg| !pg.client.is_closed()) {
            Some(pg) => pg,
            None => Pg::connect(&self.place, &self.setup).await?,
        };
        // It may be in the middle of a transaction that has failed.
        pg.batch("ROLLBACK").await?;
        if let Some(name) = self.membership.joined_name() {
            let rival = "SELECT 1 FROM hosts WHERE name = $1 AND id <> $2";
            if pg.exists(rival, &[&name, &self.lane.host]).await? {
                self.pg = Some(pg);
                return Err(Fatal::Fenced.into());
            }
        }
        let registered = register(&pg, Some(self.run_number)).await?;
        self.pg = Some(pg);
        // None: the database is becoming a copy of another store.
        let registered = registered.ok_or(Fatal::Fenced)?;
        (self.lane, self.batch) = (registered.lane, 0);
        self.cache.forget();
        self.cache.total = 0;
        self.old_batches.clear();
        self.membership.begin_again(self.lane.host);
        Ok(())
    }

    /// Gives shards to other hosts. Whatever was queued before is written.
    pub(super) async fn hand_over(&mut self, host: i64, shards: &[(ShardId, i64)]) {
        if host != self.lane.host || self.health.lost().is_some() {
            return;
        }
        let shards = self.membership.release(shards);
        self.cache.streams.clear();
        match self.try_hand_over(&shards).await {
            Ok(()) => tracing::info!(shards = shards.len(), "shards are handed over"),
            Err(error) => {
                tracing::warn!(%error, "shards could not be handed over");
                self.unsure.extend(shards.iter().map(|(id, _)| *id));
            }
        }
    }

    async fn try_hand_over(&mut self, shards: &[(ShardId, i64)]) -> Result<(), StoreError> {
        self.connect().await?;
        let (lane, Some(pg)) = (self.lane, &self.pg) else { return Ok(()) };
        let (ids, homes): (Vec<i16>, Vec<i64>) = shards
            .iter()
            .map(|(id, home)| (i16::try_from(id.number()).unwrap_or(i16::MAX), *home))
            .unzip();
        let given = async {
            if !begin_fenced(pg, lane).await? {
                pg.batch("ROLLBACK").await?;
                return Ok(());
            }
            let give = "UPDATE shards SET host = u.host, epoch = epoch + 1
                        FROM unnest($2::int2[], $3::int8[]) AS u(id, host)
                        WHERE shards.id = u.id AND shards.host = $1";
            pg.execute(give, &[&lane.host, &ids, &homes]).await?;
            pg.batch("COMMIT").await
        };
        let given = given.await;
        // After a failure there is no connection, so it is decided with the next one.
        given.map_err(|failure| self.failed(failure))
    }

    /// Gives everything to the other hosts, when the store is closed.
    pub(super) async fn leave(&mut self) {
        if self.health.lost().is_some() {
            return;
        }
        self.membership.lose_all(self.lane.host);
        let left = timeout(CLOSE_TIME_MAX, async {
            self.connect().await?;
            let Some(pg) = &self.pg else { return Ok(()) };
            leave(pg, self.lane.host).await.map_err(StoreError::from)
        });
        if let Ok(Err(error)) = left.await {
            tracing::warn!(%error, "the shards are taken over when the lease of this host has run out");
        }
    }

    /// Fails when the database has less than was acknowledged: it was restored, or another server has taken over that
    /// did not have all of it. What this process holds in memory is of no use then.
    async fn refuse_another_past(&self) -> Result<(), StoreError> {
        let Some(pg) = &self.pg else { return Ok(()) };
        let last = "SELECT total FROM batches WHERE host = $1 AND lane = 0
                    ORDER BY number DESC LIMIT 1";
        let row = pg.first(last, &[&self.lane.host]).await?;
        let last: Option<i64> = row.map(|row| row.try_get(0)).transpose().map_err(Failure::from)?;
        let missing = self.cache.total - last.unwrap_or(0);
        if missing <= 0 {
            return Ok(());
        }
        let what = format!(
            "{missing} events that were acknowledged are not there any more: the database was \
             restored, or another server has taken over that did not have them"
        );
        let (path, source) = (self.place.shown.clone().into(), cause(what));
        Err(Fatal::Damaged { path, source }.into())
    }

    /// Returns whether a batch was committed whose answer was lost. Meanwhile all other jobs are refused, because
    /// nothing can be written.
    pub(super) async fn find_out(
        &mut self,
        batch: Batch,
        failure: Failure,
    ) -> Result<bool, StoreError> {
        let (began, mut pause) = (Instant::now(), PAUSE_MIN);
        tracing::warn!(
            reason = failure.words(),
            "the answer to a transaction is lost; the store asks what became of it"
        );
        let mut error: StoreError = failure.into();
        loop {
            let connected = self.reconnect().await;
            if let (Ok(()) | Err(StoreError::Fatal(_)), Some(pg)) = (&connected, &self.pg) {
                match timeout(ASK_TIME_MAX, is_there(pg, batch)).await {
                    Ok(Ok(true)) => {
                        tracing::info!("the transaction was committed");
                        return Ok(true);
                    }
                    // Another host removes old rows.
                    Ok(Ok(false)) if connected.is_err() && began.elapsed() > BATCHES_KEPT / 2 => {
                        return Err(StoreError::Closed);
                    }
                    Ok(Ok(false)) => {
                        tracing::info!("the transaction was not committed");
                        return connected.map(|()| false);
                    }
                    Ok(Err(failure)) => error = self.failed(failure),
                    Err(_) => self.pg = None,
                }
            } else if let Err(failed) = connected {
                error = failed;
            }
            self.health.failed(&error);
            if self.is_closing && began.elapsed() > CLOSE_TIME_MAX {
                return Err(StoreError::Closed);
            }
            self.refuse_for(pause, &error).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Waits, and answers jobs that come meanwhile with an error.
    async fn refuse_for(&mut self, pause: Duration, error: &StoreError) {
        let over = sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return,
                job = self.jobs.recv() => match job {
                    Some(Job::Close) => self.close(),
                    Some(job) => job.fail(error.clone()),
                    None => {
                        self.is_closing = true;
                        return over.await;
                    }
                },
            }
        }
    }
}
