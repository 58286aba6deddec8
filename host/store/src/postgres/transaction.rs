//! One transaction of the lane: sent whole, without waiting for answers in between.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::timeout;

use super::connection::{Pg, references};
use super::error::{Failure, Result};
use super::rows::Write;

/// How long the answers to a transaction may take. The server ends a statement sooner.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(45);

/// The fence: no row is a division by zero, and that error takes the rest of the transaction with it. The row is
/// locked, so whoever takes over waits for the end of the transaction.
pub(super) const FENCE: &str = "SELECT 1 / count(*) FROM (
    SELECT 1 FROM lanes WHERE host = 0 AND lane = 0 AND epoch = $1 FOR UPDATE) AS fence";

/// The code of the error of [`FENCE`].
const DIVISION_BY_ZERO: &str = "22012";

/// Records a batch, by which it is known whether it was committed.
const WITNESS: &str =
    "INSERT INTO batches (host, lane, batch, epoch, position) VALUES (0, 0, $1, $2, $3)";

/// What came of a transaction.
pub(super) enum Outcome {
    /// It is durable. How many rows each statement changed.
    Committed(Vec<u64>),
    /// Another host has taken the lane over. Nothing was written.
    Fenced,
    /// It failed, and nothing was written.
    Refused(Failure),
    /// The connection broke after all was sent: it may have been committed.
    Unknown(Failure),
}

/// The number of a transaction, and what it leaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    pub(super) number: i64,
    pub(super) epoch: i64,
    /// The position of the last event after it.
    pub(super) position: i64,
}

/// Runs statements in one transaction, after the fence and with the witness of the batch.
pub(super) async fn transact(pg: &Pg, mut writes: Vec<Write>, batch: Batch) -> Outcome {
    let Batch { number, epoch, position } = batch;
    writes.insert(0, Write { sql: FENCE, values: vec![Box::new(epoch)] });
    let witness: Vec<super::connection::Value> =
        vec![Box::new(number), Box::new(epoch), Box::new(position)];
    writes.push(Write { sql: WITNESS, values: witness });
    let mut statements = Vec::with_capacity(writes.len());
    for write in &writes {
        match pg.statement(write.sql).await {
            Ok(statement) => statements.push(statement),
            Err(failure) => return Outcome::Refused(failure),
        }
    }
    let simple = |sql: &'static str| async move { pg.client.batch_execute(sql).await.map(|()| 0) };
    let mut sent: Vec<BoxFuture<'_, _>> = vec![simple("BEGIN").boxed()];
    for (write, statement) in writes.iter().zip(&statements) {
        let run = async move { pg.client.execute(statement, &references(&write.values)).await };
        sent.push(run.boxed());
    }
    sent.push(simple("COMMIT").boxed());
    let Ok(answers) = timeout(ANSWER_TIME_MAX, in_order(sent)).await else {
        let failure = Failure::Unreadable("the database does not answer".to_owned());
        return Outcome::Unknown(failure);
    };
    outcome(answers.into_iter().map(|answer| answer.map_err(Failure::from)))
}

/// Says what the answers to the statements of a transaction come to.
fn outcome(answers: impl Iterator<Item = Result<u64>>) -> Outcome {
    let (mut counts, mut lost) = (Vec::new(), None);
    for (number, answer) in answers.enumerate() {
        match answer {
            Ok(count) => counts.push(count),
            Err(failure) if failure.is_lost() => lost = lost.or(Some(failure)),
            // The first error is the reason, and the server writes nothing of the transaction after it.
            Err(failure) if lost.is_none() => {
                let is_fence = number == 1 && failure.code() == Some(DIVISION_BY_ZERO);
                return if is_fence { Outcome::Fenced } else { Outcome::Refused(failure) };
            }
            Err(_) => {}
        }
    }
    if let Some(failure) = lost {
        return Outcome::Unknown(failure);
    }
    // Those of `BEGIN`, the fence, the witness and `COMMIT` say nothing.
    counts.truncate(counts.len().saturating_sub(2));
    Outcome::Committed(counts.split_off(2.min(counts.len())))
}

/// Polls futures in their order, each time: the first poll of each sends its statement.
async fn in_order<T>(mut futures: Vec<BoxFuture<'_, T>>) -> Vec<T> {
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

/// Begins a transaction whose statements need the answers of those before them. Returns false when another
/// host has taken the lane over.
pub(super) async fn begin_fenced(pg: &Pg, epoch: i64) -> Result<bool> {
    pg.batch("BEGIN").await?;
    match pg.query(FENCE, &[&epoch]).await {
        Ok(_) => Ok(true),
        Err(failure) if failure.code() == Some(DIVISION_BY_ZERO) => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Records the batch of such a transaction.
pub(super) async fn put_witness(pg: &Pg, batch: Batch) -> Result<()> {
    let Batch { number, epoch, position } = batch;
    pg.execute(WITNESS, &[&number, &epoch, &position]).await?;
    Ok(())
}

/// Returns true when a batch was committed. Right only after the epoch of the lane was raised: before, the
/// batch may be about to be committed.
pub(super) async fn is_there(pg: &Pg, batch: Batch) -> Result<bool> {
    let sql = "SELECT 1 FROM batches WHERE host = 0 AND lane = 0 AND batch = $1 AND epoch = $2";
    pg.exists(sql, &[&batch.number, &batch.epoch]).await
}
