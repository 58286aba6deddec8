//! What the writer does when a connection is lost: it connects again, and finds out what became of a transaction
//! whose answer did not come.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::connection::Pg;
use super::error::{Failure, cause};
use super::job::Job;
use super::open::{BATCHES_KEPT, raise_own};
use super::transaction::{Batch, is_there};
use super::writer::Writer;
use crate::error::{Fatal, StoreError};
use crate::queue::QueuedJob as _;

/// The first and the longest pause between two tries to connect.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long a store that closes asks what became of its last transaction.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(10);

/// How long the question may take.
const ASK_TIME_MAX: Duration = Duration::from_secs(10);

impl Writer {
    /// Connects again, and raises the epoch, so that nothing of an older connection is written any more. When
    /// another host has taken the lane over, that is the error, and the connection stays.
    pub(super) async fn reconnect(&mut self) -> Result<(), StoreError> {
        self.pg = None;
        self.cache.forget();
        let pg = Pg::connect(&self.place.config, &self.setup).await?;
        let raised = raise_own(&pg, self.run_number).await?;
        self.pg = Some(pg);
        match raised {
            Some(epoch) => self.epoch = epoch,
            None => return Err(Fatal::Fenced.into()),
        }
        self.refuse_another_past().await?;
        tracing::info!(epoch = self.epoch, "the store is connected again");
        Ok(())
    }

    /// Fails when the database has less than was acknowledged: it was restored, or another server has taken over that
    /// did not have all of it. What this process holds in memory is of no use then.
    async fn refuse_another_past(&self) -> Result<(), StoreError> {
        let Some(pg) = &self.pg else { return Ok(()) };
        let last = "SELECT position FROM batches WHERE host = 0 AND lane = 0
                    ORDER BY batch DESC LIMIT 1";
        let row = pg.first(last, &[]).await?;
        let last: Option<i64> = row.map(|row| row.try_get(0)).transpose().map_err(Failure::from)?;
        let missing = self.cache.position - last.unwrap_or(0);
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
