//! Gives batches their place in the log: dense positions, over the batches of all hosts.
//!
//! A batch has a number that its transaction took from a sequence. So a batch that another one may be the effect of has
//! the smaller number, and is seen by everybody who sees the other: it was committed before that one took its number.
//! A round takes all batches that are committed and have no place yet, in the order of their numbers, and puts them
//! after the last place. It takes no batch that is not committed, so no gap is ever left for one, and it looks at no
//! clock. Rounds follow one another by the lock of one row. Any host may do a round; the first that needs a place does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt as _, TryFutureExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{timeout, timeout_at};

use super::connection::Pg;
use super::error::{ANSWER_TIME_MAX, Failure, Result};
use super::membership::Membership;
use super::place::Place;
use super::read;
use super::transaction::in_order;
use crate::error::{Obstacle, StoreError};
use crate::paging::Cursor;

/// The shortest and the longest pause between two rounds that nobody waits for. Each costs an fsync. Between them, it is
/// [`PAUSE_ROUNDS`] times as long as the last round took.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(100);
const PAUSE_ROUNDS: u32 = 9;

/// The pause between two looks at the end of the log while there are other hosts, which move it too; and while there are
/// none.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
const LOOK_PAUSE_ALONE: Duration = Duration::from_secs(1);

/// How long a round may take.
const ROUND_TIME_MAX: Duration = Duration::from_secs(10);

/// What the connection begins with. A place is never given twice, so it is durable before anybody sees it.
const SETUP: &str =
    "SET client_min_messages = warning; SET jit = off; SET statement_timeout = '5s';
    SET idle_in_transaction_session_timeout = '2s'; SET synchronous_commit = on;
    SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
    SET default_transaction_isolation = 'read committed'";

/// The two statements of a round, which are one transaction. The second one sees what whoever had the lock before has
/// placed. Batches past the limit have larger numbers, and are the next round's.
const LOCK: &str = "SELECT value FROM meta WHERE name = 'position' FOR UPDATE";
const PLACE: &str = "WITH found AS (
        SELECT batch, sum(events) OVER (ORDER BY batch) - events AS before FROM batches
        WHERE position IS NULL AND events > 0 ORDER BY batch LIMIT 10000),
    placed AS (
        UPDATE batches SET position = found.before + (SELECT value FROM meta WHERE name = 'position')
        FROM found WHERE batches.batch = found.batch RETURNING batches.events)
    UPDATE meta SET value = value + (SELECT coalesce(sum(events), 0) FROM placed)
    WHERE name = 'position' RETURNING value, (SELECT count(*) FROM placed)";
/// The most batches of a round.
const ROUND_BATCHES_MAX: i64 = 10_000;

/// What the task is asked for.
enum Request {
    /// Every batch that is committed by now has a place when this is answered.
    Now(oneshot::Sender<std::result::Result<(), StoreError>>),
    /// Something was committed.
    Soon,
}

/// Asks the task for places.
#[derive(Debug, Clone)]
pub(super) struct Sequencer(mpsc::UnboundedSender<Request>);

impl Sequencer {
    /// Makes the task, which ends when nobody can ask it any more.
    pub(super) fn new(
        place: Place,
        head: watch::Sender<Cursor>,
        membership: Arc<Membership>,
    ) -> (Self, SequencerTask) {
        let (sender, requests) = mpsc::unbounded_channel();
        let task = SequencerTask { place, requests, head, membership, pg: None };
        (Self(sender), task)
    }

    /// Waits until every batch that is committed has its place.
    pub(super) async fn place_all(&self) -> std::result::Result<(), StoreError> {
        let (reply, done) = oneshot::channel();
        let _ = self.0.send(Request::Now(reply));
        done.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Has the batches that are committed placed soon, see [`PAUSE_MAX`].
    pub(super) fn place_soon(&self) {
        let _ = self.0.send(Request::Soon);
    }
}

/// The task that does the rounds of this host.
pub(super) struct SequencerTask {
    place: Place,
    requests: mpsc::UnboundedReceiver<Request>,
    head: watch::Sender<Cursor>,
    membership: Arc<Membership>,
    pg: Option<Pg>,
}

impl SequencerTask {
    pub(super) async fn run(mut self) {
        let (mut last_round, mut pause) = (Instant::now(), PAUSE_MIN);
        loop {
            let is_alone = self.membership.is_alone();
            let look_pause = if is_alone { LOOK_PAUSE_ALONE } else { LOOK_PAUSE };
            let first = match timeout(look_pause, self.requests.recv()).await {
                Ok(None) => return,
                Ok(Some(request)) => Some(request),
                Err(_) => None,
            };
            let mut waiting = Vec::new();
            let is_look = first.is_none();
            let mut note = |request| match request {
                Request::Now(reply) => waiting.push(reply),
                Request::Soon => {}
            };
            first.into_iter().for_each(&mut note);
            while let Ok(request) = self.requests.try_recv() {
                note(request);
            }
            let rest = pause.saturating_sub(last_round.elapsed());
            if waiting.is_empty() && !is_look && !rest.is_zero() {
                // More may be committed meanwhile, and who waits is served at once.
                let until = last_round + pause;
                loop {
                    match timeout_at(until.into(), self.requests.recv()).await {
                        Ok(None) => return,
                        Ok(Some(Request::Now(reply))) => {
                            waiting.push(reply);
                            break;
                        }
                        Ok(Some(Request::Soon)) => {}
                        Err(_) => break,
                    }
                }
            }
            let began = Instant::now();
            let done = timeout(ROUND_TIME_MAX, self.round()).await.unwrap_or_else(|_| {
                let what = "the database does not answer";
                Err(StoreError::unavailable(Obstacle::Database, what))
            });
            if let Err(error) = &done {
                self.pg = None;
                tracing::debug!(%error, "batches get no place in the log now");
            }
            last_round = Instant::now();
            pause = (PAUSE_ROUNDS * (last_round - began)).clamp(PAUSE_MIN, PAUSE_MAX);
            for reply in waiting {
                let _ = reply.send(done.clone());
            }
        }
    }

    /// Does rounds until every batch that was committed has its place, and tells the end of the log.
    async fn round(&mut self) -> std::result::Result<(), StoreError> {
        let pg = match self.pg.take().filter(|pg| !pg.client.is_closed()) {
            Some(pg) => pg,
            None => Pg::connect(&self.place, SETUP).await?,
        };
        let end = place_all(&pg).await?;
        self.pg = Some(pg);
        let end = Cursor(end.unsigned_abs());
        self.head.send_if_modified(|head| {
            let has_moved = end.0 > head.0;
            head.0 = head.0.max(end.0);
            has_moved
        });
        Ok(())
    }
}

/// Gives a place to each batch that is committed. Returns the position of the last event.
pub(super) async fn place_all(pg: &Pg) -> Result<i64> {
    let mut has_rest = pg.exists(read::UNPLACED, &[]).await?;
    while has_rest {
        has_rest = round(pg).await? == ROUND_BATCHES_MAX;
    }
    let end = pg.first("SELECT value FROM meta WHERE name = 'position'", &[]).await?;
    Ok(end.map_or(Ok(0), |row| row.try_get(0))?)
}

/// Does one round. Returns how many batches it has placed. After an error the connection may be in a transaction.
async fn round(pg: &Pg) -> Result<i64> {
    let (lock, place) = (pg.statement(LOCK).await?, pg.statement(PLACE).await?);
    let simple = |sql: &'static str| pg.client.batch_execute(sql).map_ok(|()| Vec::new()).boxed();
    let sent = vec![
        simple("BEGIN"),
        pg.client.query(&lock, &[]).boxed(),
        pg.client.query(&place, &[]).boxed(),
        simple("COMMIT"),
    ];
    let answers = timeout(ANSWER_TIME_MAX, in_order(sent)).await.map_err(|_| Failure::Silent)?;
    let answers = answers.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
    let placed = answers.get(2).and_then(|rows| rows.first());
    Ok(placed.map_or(Ok(0), |row| row.try_get(1))?)
}
