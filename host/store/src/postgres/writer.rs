//! The writer: one transaction for everything that waits.
//!
//! When the connection breaks after a transaction was sent, the writer connects again and raises its epoch, so that
//! the older connection writes nothing any more. Then it looks for the row of the batch, and answers with what
//! it finds.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::change::{change_blob, save_schedule, save_subscription};
use super::connection::Pg;
use super::error::{Failure, cause};
use super::job::{Job, Work, WorkDone};
use super::locks::StateLocks;
use super::membership::Membership;
use super::place::Place;
use super::plan::{LONGEST, Plan, WriterCache, plan, together};
use super::rows::Write;
use super::seen::look_up;
use super::sequencer::Sequencer;
use super::transaction::{
    Batch, Begun, LaneEpoch, Outcome, begin_alone, begin_locked, put_witness, transact,
};
use crate::append::{Append, Appended};
use crate::blob::BlobChange;
use crate::error::{Fatal, Obstacle, StoreError};
use crate::health::Health;
use crate::maintenance::StoreStats;
use crate::queue::{QueuedJob as _, to_owner};
use crate::shard_id::ShardId;

/// The most jobs of one transaction. More would gain little, and the first would wait for the last.
const BATCH_MAX: usize = 512;

/// The most bytes of one transaction, see [`Job::bytes`]; a single job may have more.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// The pause between two looks at the connection and at the fence.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// How often a batch is tried when other hosts are first with something that it depends on.
const RACES_MAX: u32 = 5;

/// What readers need of the writer to bound a search by time.
#[derive(Debug, Default)]
pub(super) struct Longest {
    pub(super) start_delay: AtomicI64,
    pub(super) life: AtomicI64,
}

/// The task that writes.
pub(super) struct Writer {
    pub(super) place: Place,
    pub(super) setup: String,
    pub(super) jobs: mpsc::UnboundedReceiver<Job>,
    pub(super) pg: Option<Pg>,
    /// The lane, and its epoch.
    pub(super) lane: LaneEpoch,
    /// The number of this process, see [`super::open::Registered::run`].
    pub(super) run_number: i64,
    /// The number of the last batch of the lane.
    pub(super) batch: i64,
    pub(super) cache: WriterCache,
    pub(super) longest: Arc<Longest>,
    pub(super) membership: Arc<Membership>,
    pub(super) sequencer: Sequencer,
    pub(super) stats: Arc<Mutex<StoreStats>>,
    pub(super) health: Health,
    /// When which batch was the last, a minute apart, for [`BATCHES_KEPT`].
    pub(super) old_batches: VecDeque<(Instant, i64)>,
    pub(super) looks: u32,
    /// The shards that were being handed over when that failed.
    pub(super) unsure: Vec<ShardId>,
    /// The store is being closed.
    pub(super) is_closing: bool,
}

/// Why a batch was not written.
enum Unwritten {
    /// The database takes no such values. In words.
    Values(String),
    /// Another host was first with something, or holds a lock.
    Raced {
        words: String,
        /// It holds a lock.
        is_locked: bool,
    },
    Failed(StoreError),
}

impl From<StoreError> for Unwritten {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// A batch that is durable, with what to answer.
struct Written {
    plan: Plan,
    /// How many rows each statement changed; none when the answers were lost.
    counts: Option<Vec<u64>>,
    /// For each blob of the batch, which statement is its own.
    blobs: VecDeque<usize>,
}

impl Writer {
    /// Runs until a job closes the store or every sender is gone, and every queued job is done.
    pub(super) async fn run(mut self) {
        // From 0 on, so that the first one is an increase.
        metrics::counter!("amends_fenced_writes_total").increment(0);
        let mut looks = interval(LOOK_PAUSE);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = None;
        loop {
            let first = if let Some(job) = next.take() {
                job
            } else {
                tokio::select! {
                    job = self.jobs.recv() => match job {
                        Some(job) => job,
                        None => break,
                    },
                    _ = looks.tick() => {
                        self.look().await;
                        continue;
                    }
                }
            };
            next = self.turn(first).await;
        }
        self.leave().await;
    }

    /// Does the jobs that wait, the first of which is `first`. Returns a job that comes next.
    async fn turn(&mut self, first: Job) -> Option<Job> {
        let (mut batch, mut bytes, mut next) = (Vec::new(), 0, Some(first));
        while let Some(job) = next.take() {
            match job {
                Job::Close => self.close(),
                Job::Work { work, reply } if batch.is_empty() => {
                    let done = self.work(work).await;
                    let _ = reply.send(done);
                    return None;
                }
                Job::HandOver { host, shards } if batch.is_empty() => {
                    self.hand_over(host, &shards).await;
                    return None;
                }
                Job::Work { .. } | Job::HandOver { .. } => {
                    next = Some(job);
                    break;
                }
                Job::Append { .. }
                | Job::Blob { .. }
                | Job::SaveSubscription { .. }
                | Job::SaveSchedule { .. } => {
                    bytes += job.bytes();
                    batch.push(job);
                }
            }
            if batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
                next = self.jobs.try_recv().ok();
            }
        }
        while !batch.is_empty() {
            let count = together(batch.iter().map(append_of)).max(1);
            let rest = batch.split_off(count);
            self.write(batch).await;
            batch = rest;
        }
        next
    }

    pub(super) fn close(&mut self) {
        self.jobs.close();
        self.is_closing = true;
    }

    /// Writes a batch of jobs, and answers them.
    async fn write(&mut self, batch: Vec<Job>) {
        if let Some(lost) = self.health.lost() {
            fail_all(batch, &lost);
            return;
        }
        let batch = self.own(batch);
        if batch.is_empty() {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "at most BATCH_MAX")]
        metrics::histogram!("amends_store_batch_size").record(batch.len() as f64);
        match self.try_write(&batch).await {
            Ok(written) => {
                self.health.worked();
                self.answer(batch, written).await;
            }
            // Each by itself, so that one which cannot be stored does not fail the others.
            Err(Unwritten::Values(words) | Unwritten::Raced { words, .. }) if batch.len() > 1 => {
                tracing::debug!(words, jobs = batch.len(), "a batch is written job by job");
                for job in batch {
                    Box::pin(self.write(vec![job])).await;
                }
            }
            Err(Unwritten::Raced { words, is_locked: true }) => {
                fail_all(batch, &StoreError::unavailable(Obstacle::Database, words));
            }
            Err(Unwritten::Values(words) | Unwritten::Raced { words, .. }) => {
                tracing::error!(words, "the database does not take what is to be stored");
                let what = "the database does not take its values, and the log says why";
                fail_all(batch, &StoreError::Invalid(what));
            }
            Err(Unwritten::Failed(StoreError::Fatal(Fatal::Fenced))) => {
                metrics::counter!("amends_fenced_writes_total").increment(batch.len() as u64);
                let error = self.fenced().await;
                for job in batch {
                    job.fail_fenced(&error);
                }
            }
            Err(Unwritten::Failed(error)) => {
                tracing::debug!(%error, jobs = batch.len(), "nothing of a transaction was written");
                self.health.failed(&error);
                fail_all(batch, &error);
            }
        }
    }

    /// Returns the jobs that this host may write, and answers those of shards that it does not own any more.
    fn own(&self, batch: Vec<Job>) -> Vec<Job> {
        let mut own = Vec::with_capacity(batch.len());
        for job in batch {
            match job.owner() {
                Some(owner) if !self.membership.may_write(owner) => {
                    metrics::counter!("amends_fenced_writes_total").increment(1);
                    job.fail(StoreError::LostOwnership(owner.id));
                }
                Some(_) | None => own.push(job),
            }
        }
        own
    }

    /// Writes a batch of jobs in one transaction. When another host is first with something, or a saga that begins is
    /// there already, everything is looked at again.
    async fn try_write(&mut self, batch: &[Job]) -> Result<Written, Unwritten> {
        for tries in 1.. {
            match self.try_write_once(batch, tries == 1).await {
                Err(Unwritten::Raced { words, .. }) if tries < RACES_MAX => {
                    tracing::debug!(
                        words,
                        "something was there already; the batch is decided again"
                    );
                }
                done => return done,
            }
        }
        Err(StoreError::Closed.into())
    }

    /// Writes a batch of jobs in one transaction. With `assumes_new`, sagas that begin are taken for new ones, and the
    /// transaction fails when one is not.
    async fn try_write_once(
        &mut self,
        batch: &[Job],
        assumes_new: bool,
    ) -> Result<Written, Unwritten> {
        self.connect().await?;
        let appends: Vec<&Append> = batch.iter().filter_map(append_of).collect();
        let Some(pg) = &self.pg else { return Err(StoreError::Closed.into()) };
        let locks = StateLocks::of(&appends);
        let begun = if locks.is_empty() {
            Begun::Not
        } else {
            match begin_locked(pg, self.lane, &locks).await {
                Ok(true) => Begun::Locked,
                Ok(false) => return Err(StoreError::from(Fatal::Fenced).into()),
                Err(failure) => return Err(self.raced_or_failed(failure)),
            }
        };
        let (streams, state_bytes) = (&self.cache.streams, &self.cache.state_bytes);
        let decided = async {
            let seen = look_up(pg, &appends, streams, state_bytes, assumes_new).await?;
            let decided = plan(&self.cache, seen, &appends);
            if !decided.is_unsure {
                return Ok(decided);
            }
            let seen = look_up(pg, &appends, streams, state_bytes, false).await?;
            Ok(plan(&self.cache, seen, &appends))
        };
        let mut plan = decided.await.map_err(|failure: Failure| self.failed(failure))?;
        let mut writes = std::mem::take(&mut plan.writes);
        let mut blobs = VecDeque::new();
        for job in batch {
            match job {
                Job::Blob { kind, digest, change, .. } => {
                    blobs.push_back(writes.len());
                    writes.push(change_blob(*kind, *digest, change));
                }
                Job::SaveSubscription { change, .. } => writes.extend(save_subscription(change)),
                Job::SaveSchedule { row, .. } => writes.push(save_schedule(row)),
                Job::Append { .. } | Job::Work { .. } | Job::HandOver { .. } | Job::Close => {}
            }
        }
        let counts = self.commit(writes, plan.events, begun).await?;
        Ok(Written { plan, counts, blobs })
    }

    /// Commits statements, and finds out what became of them when the answer is lost. Returns how many rows each
    /// changed, unless that was lost.
    async fn commit(
        &mut self,
        writes: Vec<Write>,
        events: i64,
        begun: Begun,
    ) -> Result<Option<Vec<u64>>, Unwritten> {
        let batch = self.next_batch(events);
        let Some(pg) = &self.pg else { return Err(StoreError::Closed.into()) };
        match transact(pg, writes, batch, begun).await {
            Outcome::Committed(counts) => Ok(Some(counts)),
            Outcome::Fenced => Err(StoreError::from(Fatal::Fenced).into()),
            Outcome::Raced(failure) => {
                self.cache.forget();
                let (words, is_locked) = (failure.words(), failure.is_of_locks());
                Err(Unwritten::Raced { words, is_locked })
            }
            Outcome::Refused(failure) if failure.is_of_values() => {
                self.cache.forget();
                Err(Unwritten::Values(failure.words()))
            }
            Outcome::Refused(failure) => Err(self.failed(failure).into()),
            Outcome::Unknown(failure) => {
                if self.find_out(batch, failure).await? {
                    Ok(None)
                } else {
                    Err(not_written().into())
                }
            }
        }
    }

    /// Returns the next batch of the lane.
    pub(super) fn next_batch(&mut self, events: i64) -> Batch {
        self.batch += 1;
        let (lane, total) = (self.lane, self.cache.total + events);
        Batch { lane, number: self.batch, events, total }
    }

    /// Converts a failure to begin a transaction. The connection may be in the middle of it.
    fn raced_or_failed(&mut self, failure: Failure) -> Unwritten {
        if failure.is_of_locks() {
            let words = failure.words();
            let _ = self.failed(failure);
            return Unwritten::Raced { words, is_locked: true };
        }
        self.failed(failure).into()
    }

    /// Forgets what a failure may have made wrong, and the connection when it is lost.
    pub(super) fn failed(&mut self, failure: Failure) -> StoreError {
        self.cache.forget();
        // Also when the server reports an error: a session may be of no use any more, such as after a failover.
        self.pg = None;
        if failure.code() == Some("57014") {
            return StoreError::unavailable(Obstacle::Database, failure.words());
        }
        failure.into()
    }

    /// Connects when there is no connection.
    pub(super) async fn connect(&mut self) -> Result<(), StoreError> {
        if self.pg.as_ref().is_some_and(|pg| !pg.client.is_closed()) {
            return Ok(());
        }
        self.reconnect().await
    }

    /// Does work in a transaction of its own.
    async fn work(&mut self, work: Work) -> Result<WorkDone, StoreError> {
        if let Some(lost) = self.health.lost() {
            return Err(lost);
        }
        match self.try_work(work).await {
            Err(StoreError::Fatal(Fatal::Fenced)) => {
                metrics::counter!("amends_fenced_writes_total").increment(1);
                Err(self.fenced().await)
            }
            Ok(done) => {
                self.health.worked();
                Ok(done)
            }
            // What is there says no, or another host holds its lane for long.
            Err(error @ (StoreError::Damaged { .. } | StoreError::LostOwnership(_))) => Err(error),
            Err(error) => {
                self.health.failed(&error);
                Err(error)
            }
        }
    }

    async fn try_work(&mut self, work: Work) -> Result<WorkDone, StoreError> {
        self.connect().await?;
        let batch = self.next_batch(0);
        let Some(pg) = &self.pg else { return Err(StoreError::Closed) };
        let began = Instant::now();
        let ran = async {
            if !begin_alone(pg, batch.lane).await? {
                return Ok(None);
            }
            let done = work(pg).await?;
            put_witness(pg, batch).await?;
            for (name, longest) in
                [("start_delay", done.start_delay), ("longest_life", done.longest_life)]
            {
                if longest > 0 {
                    pg.execute(LONGEST, &[&name, &longest]).await?;
                }
            }
            Ok::<_, Failure>(Some(done))
        };
        let mut done = match ran.await {
            Ok(Some(done)) => done,
            Ok(None) => return Err(Fatal::Fenced.into()),
            // Rows that are there contradict what was to be written.
            Err(failure) => {
                if let Failure::NotOwner(shard) = failure {
                    self.pg = None;
                    return Err(StoreError::LostOwnership(shard));
                }
                let (is_of_values, words) = (failure.is_of_values(), failure.words());
                let error = self.failed(failure);
                let damaged = StoreError::Damaged { source: cause(words) };
                return Err(if is_of_values { damaged } else { error });
            }
        };
        done.took = began.elapsed();
        if let Err(failure) = pg.batch("COMMIT").await {
            if !failure.is_lost() {
                return Err(self.failed(failure));
            }
            if !self.find_out(batch, failure).await? {
                return Err(not_written());
            }
        }
        for saga in &done.touched {
            self.cache.streams.remove(&crate::Stream::Saga(*saga));
        }
        self.cache.start_delay = self.cache.start_delay.max(done.start_delay);
        self.cache.longest_life = self.cache.longest_life.max(done.longest_life);
        self.tell_longest();
        Ok(done)
    }

    pub(super) fn tell_longest(&self) {
        self.longest.start_delay.store(self.cache.start_delay, Ordering::Relaxed);
        self.longest.life.store(self.cache.longest_life, Ordering::Relaxed);
    }

    /// Answers the jobs of a batch that is durable.
    async fn answer(&mut self, batch: Vec<Job>, written: Written) {
        let Written { mut plan, counts, mut blobs } = written;
        let results = std::mem::take(&mut plan.results);
        let events = plan.events.unsigned_abs();
        plan.remember(&mut self.cache);
        self.tell_longest();
        {
            let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
            stats.transactions += 1;
            stats.events += events;
            let is_done = |result: &&Result<Appended, StoreError>| {
                matches!(result, Ok(Appended::Done { .. }))
            };
            stats.appends += results.iter().filter(is_done).count() as u64;
        }
        if events > 0 {
            self.sequencer.place_soon();
        }
        let mut results = results.into_iter();
        for job in batch {
            match job {
                Job::Append { owner, reply, since, .. } => {
                    let result = results.next().unwrap_or(Err(StoreError::Closed));
                    if matches!(result, Ok(Appended::Done { .. })) {
                        metrics::histogram!("amends_store_append_seconds").record(since.elapsed());
                    }
                    reply
                        .send(result.map_err(|error| to_owner(error, owner.map(|owner| owner.id))));
                }
                Job::Blob { kind, digest, change, reply, .. } => {
                    let statement = blobs.pop_front().unwrap_or_default();
                    let count = counts.as_ref().and_then(|counts| counts.get(statement));
                    let changed = match count {
                        Some(count) => Ok(*count > 0),
                        // The answer was lost: what is there says what was done.
                        None => self.has_blob(kind, digest).await.map(|has| match change {
                            BlobChange::Put { .. } | BlobChange::Renew { .. } => has,
                            BlobChange::Remove { .. } => !has,
                        }),
                    };
                    let _ = reply.send(changed);
                }
                Job::SaveSubscription { reply, .. } | Job::SaveSchedule { reply, .. } => {
                    let _ = reply.send(Ok(()));
                }
                Job::Work { .. } | Job::HandOver { .. } | Job::Close => {}
            }
        }
    }

    async fn has_blob(
        &self,
        kind: crate::blob::BlobKind,
        digest: amends_engine::Digest,
    ) -> Result<bool, StoreError> {
        let Some(pg) = &self.pg else { return Err(StoreError::Closed) };
        let sql = "SELECT 1 FROM blobs WHERE kind = $1 AND digest = $2";
        Ok(pg.exists(sql, &[&kind.as_str(), &digest.as_bytes().as_slice()]).await?)
    }
}

/// Answers jobs with an error.
fn fail_all(jobs: Vec<Job>, error: &StoreError) {
    for job in jobs {
        job.fail(error.clone());
    }
}

/// Returns the append of a job, if it is one.
fn append_of(job: &Job) -> Option<&Append> {
    match job {
        Job::Append { append, .. } => Some(append),
        Job::Blob { .. }
        | Job::SaveSubscription { .. }
        | Job::SaveSchedule { .. }
        | Job::Work { .. }
        | Job::HandOver { .. }
        | Job::Close => None,
    }
}

/// The error of a transaction of which nothing was written.
fn not_written() -> StoreError {
    StoreError::unavailable(
        Obstacle::Database,
        "the connection broke before the transaction was committed",
    )
}
