//! One transaction of the lane: sent whole, without waiting for answers in between.

use std::future::poll_fn;
use std::task::Poll;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::timeout;

use super::connection::{Pg, references};
use super::error::{ANSWER_TIME_MAX, Failure, Result};
use super::locks::StateLocks;
use super::rows::Write;

/// The fence: no row is a division by zero, and that error takes the rest of the transaction with it. The row is
/// locked, so whoever takes over waits for the end of the transaction.
const FENCE: &str = "SELECT 1 / count(*) FROM (
    SELECT 1 FROM lanes WHERE host = $1 AND lane = 0 AND epoch = $2 FOR UPDATE) AS fence";

/// The code of a division by zero: of [`FENCE`], or of a statement that refuses what has changed meanwhile.
const DIVISION_BY_ZERO: &str = "22012";

/// The code of a key that is there already: another host was first.
const UNIQUE_VIOLATION: &str = "23505";

/// The fence, and the record of the batch, in one statement: see [`FENCE`] and [`WITNESS`].
const FENCED_WITNESS: &str = "INSERT INTO batches (host, lane, number, epoch, events, total)
    SELECT $1, 0, $3::int8, $2, $4::int8, $5::int8 WHERE 1 / (SELECT count(*) FROM (
        SELECT 1 FROM lanes WHERE host = $1 AND lane = 0 AND epoch = $2 FOR UPDATE) AS fence) = 1";

/// Records a batch, by which it is known whether it was committed.
const WITNESS: &str = "INSERT INTO batches (host, lane, epoch, number, events, total)
                       VALUES ($1, 0, $2, $3, $4, $5)";

/// Locks the lanes of all hosts, so that none writes meanwhile.
const ALL_LANES: &str = "SELECT 1 FROM lanes ORDER BY host, lane FOR UPDATE";

/// What came of a transaction.
pub(super) enum Outcome {
    /// It is durable. How many rows each statement changed.
    Committed(Vec<u64>),
    /// Another host has taken the lane over. Nothing was written.
    Fenced,
    /// Another host was first with something that the batch depends on. Nothing was written.
    Raced(Failure),
    /// It failed, and nothing was written.
    Refused(Failure),
    /// The connection broke after all was sent: it may have been committed.
    Unknown(Failure),
}

/// A lane of a host in an epoch: who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LaneEpoch {
    /// The number of the host.
    pub(super) host: i64,
    pub(super) epoch: i64,
}

/// The number of a transaction of a lane, and what it leaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    pub(super) lane: LaneEpoch,
    pub(super) number: i64,
    /// How many events it has.
    pub(super) events: i64,
    /// How many events the lane has written with it.
    pub(super) total: i64,
}

/// What a transaction of a lane begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    Not,
    /// [`begin_locked`] has begun it.
    Locked,
}

/// Runs statements in one transaction, after the fence and the row of the batch, which gives the appends their
/// place. Both are one statement, because each costs the server about as much as three appends.
pub(super) async fn transact(pg: &Pg, writes: Vec<Write>, batch: Batch, begun: Begun) -> Outcome {
    let Batch { lane: LaneEpoch { host, epoch }, number, events, total } = batch;
    let mut all = Vec::with_capacity(writes.len() + 1);
    let sql = if begun == Begun::Not { FENCED_WITNESS } else { WITNESS };
    let witness: Vec<super::connection::Value> =
        vec![Box::new(host), Box::new(epoch), Box::new(number), Box::new(events), Box::new(total)];
    all.push(Write { sql, values: witness });
    all.extend(writes);
    let mut statements = Vec::with_capacity(all.len());
    for write in &all {
        match pg.statement(write.sql).await {
            Ok(statement) => statements.push(statement),
            Err(failure) => return Outcome::Refused(failure),
        }
    }
    let simple = |sql: &'static str| async move { pg.client.batch_execute(sql).await.map(|()| 0) };
    let mut sent: Vec<BoxFuture<'_, _>> = Vec::new();
    if begun == Begun::Not {
        sent.push(simple("BEGIN").boxed());
    }
    for (write, statement) in all.iter().zip(&statements) {
        let run = async move { pg.client.execute(statement, &references(&write.values)).await };
        sent.push(run.boxed());
    }
    sent.push(simple("COMMIT").boxed());
    let Ok(answers) = timeout(ANSWER_TIME_MAX, in_order(sent)).await else {
        return Outcome::Unknown(Failure::Silent);
    };
    outcome(answers.into_iter().map(|answer| answer.map_err(Failure::from)), begun)
}

/// Says what the answers to the statements of a transaction come to.
fn outcome(answers: impl Iterator<Item = Result<u64>>, begun: Begun) -> Outcome {
    // Those of `BEGIN` and of the row of the batch say nothing, nor does that of `COMMIT`.
    let (fence, before) = match begun {
        Begun::Not => (Some(1), 2),
        Begun::Locked => (None, 1),
    };
    let (mut counts, mut lost) = (Vec::new(), None);
    for (number, answer) in answers.enumerate() {
        match answer {
            Ok(count) => counts.push(count),
            Err(failure) if failure.is_lost() => lost = lost.or(Some(failure)),
            // The first error is the reason, and the server writes nothing of the transaction after it.
            Err(failure) if lost.is_none() => {
                return match failure.code() {
                    Some(DIVISION_BY_ZERO) if Some(number) == fence => Outcome::Fenced,
                    Some(DIVISION_BY_ZERO | UNIQUE_VIOLATION) => Outcome::Raced(failure),
                    Some(_) if failure.is_of_locks() => Outcome::Raced(failure),
                    Some(_) | None => Outcome::Refused(failure),
                };
            }
            Err(_) => {}
        }
    }
    if let Some(failure) = lost {
        return Outcome::Unknown(failure);
    }
    counts.truncate(counts.len().saturating_sub(1));
    Outcome::Committed(counts.split_off(before.min(counts.len())))
}

/// Polls futures in their order, each time: the first poll of each sends its statement.
pub(super) async fn in_order<T>(mut futures: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut is_over = true;
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if done.is_some() {
                continue;
            }
            match future.poll_unpin(context) {
                Poll::Ready(value) => *done = Some(value),
                Poll::Pending => is_over = false,
            }
        }
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

/// Begins a transaction in which no other host changes what the locks stand for, until its end. Returns false when
/// another host has taken the lane over.
pub(super) async fn begin_locked(pg: &Pg, lane: LaneEpoch, locks: &StateLocks) -> Result<bool> {
    let (fence, lock) = (pg.statement(FENCE).await?, pg.statement(StateLocks::SQL).await?);
    let simple = |sql: &'static str| async move { pg.client.batch_execute(sql).await.map(|()| 0) };
    let (keys, exclusive) = locks.columns();
    let (fence, lock, keys, exclusive) = (&fence, &lock, &keys, &exclusive);
    let sent: Vec<BoxFuture<'_, _>> = vec![
        simple("BEGIN").boxed(),
        async move { pg.client.execute(fence, &[&lane.host, &lane.epoch]).await }.boxed(),
        async move { pg.client.execute(lock, &[keys, exclusive]).await }.boxed(),
    ];
    let answers = timeout(ANSWER_TIME_MAX, in_order(sent)).await.map_err(|_| Failure::Silent)?;
    for (number, answer) in answers.into_iter().enumerate() {
        match answer.map_err(Failure::from) {
            Ok(_) => {}
            Err(failure) if number == 1 && failure.code() == Some(DIVISION_BY_ZERO) => {
                return Ok(false);
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(true)
}

/// Begins a transaction in which no other host writes. Returns false when another host has taken the lane over.
pub(super) async fn begin_alone(pg: &Pg, lane: LaneEpoch) -> Result<bool> {
    // A host that registers now would have a lane that is not locked.
    let begin =
        "BEGIN; SET LOCAL lock_timeout = '1s'; LOCK TABLE lanes IN SHARE ROW EXCLUSIVE MODE";
    pg.batch(begin).await?;
    // The own lane with them, in one order, so that two hosts do not wait for each other.
    pg.query(ALL_LANES, &[]).await?;
    match pg.query(FENCE, &[&lane.host, &lane.epoch]).await {
        Ok(_) => Ok(true),
        Err(failure) if failure.code() == Some(DIVISION_BY_ZERO) => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Begins a transaction of the own lane. Returns false when another host has taken it over.
pub(super) async fn begin_fenced(pg: &Pg, lane: LaneEpoch) -> Result<bool> {
    begin_locked(pg, lane, &StateLocks::default()).await
}

/// Records the batch of such a transaction.
pub(super) async fn put_witness(pg: &Pg, batch: Batch) -> Result<()> {
    let Batch { lane: LaneEpoch { host, epoch }, number, events, total } = batch;
    pg.execute(WITNESS, &[&host, &epoch, &number, &events, &total]).await?;
    Ok(())
}

/// Returns true when a batch was committed. Right only after the epoch of the lane was raised, or its row was
/// removed: before, the batch may be about to be committed.
pub(super) async fn is_there(pg: &Pg, batch: Batch) -> Result<bool> {
    let sql = "SELECT 1 FROM batches WHERE host = $1 AND lane = 0 AND number = $2 AND epoch = $3";
    pg.exists(sql, &[&batch.lane.host, &batch.number, &batch.lane.epoch]).await
}
