//! Gives batches their place in the log: dense positions, over the batches of all hosts.
//!
//! A batch has a number that its transaction took from a sequence. So a batch that another one may be the effect of has
//! the smaller number, and is seen by everybody who sees the other: it was committed before that one took its number.
//! A round takes all batches that are committed and have no place yet, in the order of their numbers, and puts them
//! after the last place. It takes no batch that is not committed, so no gap is ever left for one, and it looks at no
//! clock. Rounds follow one another by the lock of one row. Any host may do a round; the first that needs a place does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::connection::Pg;
use super::error::Result;
use super::membership::Membership;
use super::place::Place;
use super::read;
use crate::error::{Obstacle, StoreError};
use crate::paging::Cursor;

/// The pause between two rounds that nobody waits for. Each costs an fsync.
const PAUSE: Duration = Duration::from_millis(10);

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
    SET enable_seqscan = off; SET default_transaction_isolation = 'read committed'";

/// A round, one transaction. The second statement sees what whoever had the lock before has placed. Batches past the
/// limit have larger numbers, and are the next round's.
const ROUND: &str = "SELECT value FROM meta WHERE name = 'position' FOR UPDATE;
    WITH found AS (
        SELECT batch, sum(events) OVER (ORDER BY batch) - events AS before FROM batches
        WHERE position IS NULL AND events > 0 ORDER BY batch LIMIT 10000),
    placed AS (
        UPDATE batches SET position = found.before + (SELECT value FROM meta WHERE name = 'position')
        FROM found WHERE batches.batch = found.batch RETURNING batches.events)
    UPDATE meta SET value = value + (SELECT coalesce(sum(events), 0) FROM placed)
    WHERE name = 'position'";

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

    /// Has the batches that are committed placed within some milliseconds.
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
        let mut last_round = Instant::now();
        loop {
            let is_alone = self.membership.is_alone();
            let pause = if is_alone { LOOK_PAUSE_ALONE } else { LOOK_PAUSE };
            let first = match timeout(pause, self.requests.recv()).await {
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
            let rest = PAUSE.saturating_sub(last_round.elapsed());
            if waiting.is_empty() && !is_look && !rest.is_zero() {
                // More may be committed meanwhile, and who waits is served at once.
                match timeout(rest, self.requests.recv()).await {
                    Ok(None) => return,
                    Ok(Some(Request::Now(reply))) => waiting.push(reply),
                    Ok(Some(Request::Soon)) => {
                        tokio::time::sleep(PAUSE.saturating_sub(last_round.elapsed())).await;
                    }
                    Err(_) => {}
                }
            }
            last_round = Instant::now();
            let done = timeout(ROUND_TIME_MAX, self.round()).await.unwrap_or_else(|_| {
                let what = "the database does not answer";
                Err(StoreError::unavailable(Obstacle::Database, what))
            });
            if let Err(error) = &done {
                self.pg = None;
                tracing::debug!(%error, "batches get no place in the log now");
            }
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
    while pg.exists(read::UNPLACED, &[]).await? {
        pg.batch(ROUND).await?;
    }
    let end = pg.first("SELECT value FROM meta WHERE name = 'position'", &[]).await?;
    Ok(end.map_or(Ok(0), |row| row.try_get(0))?)
}
