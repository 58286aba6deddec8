//! Brings sagas back into memory: those that the clock wakes soon, and those whose time is ahead of the
//! clock.
//!
//! A saga that waits for long is in the store alone. A look for what the clock wakes soon reads a range
//! of an index and remembers nothing. So what one look misses, because the saga was in memory or the
//! store failed, the next one finds, long before its time.
//!
//! Deliberately absent: signals and orders. Their worker loads the saga by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::{CLOCK_TOLERANCE, SagaId, Timestamp};
use amends_registry::now;
use amends_store::{ShardId, Store, StoreError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::budget::Budget;
use crate::limits::{
    AHEAD_PAUSE, CLOCKS_PER_READ, DUE_AHEAD, DUE_PAUSE, DUE_PAUSE_FULL, DUE_PER_READ,
    LIVE_BYTES_EACH,
};
use crate::message::Message;
use crate::owner::worker_of;

/// Looks for waiting sagas that must be in memory. Does not keep the host alive.
pub(crate) struct DueSagas {
    store: Arc<dyn Store>,
    /// The inboxes of the workers.
    workers: Vec<mpsc::WeakUnboundedSender<Message>>,
    live_bytes: Arc<Budget>,
    /// The shards that this host owns.
    owned: watch::Receiver<Vec<ShardId>>,
}

/// A look under way at the sagas whose time may be ahead of the clock: those up to this one are done.
#[derive(Debug, Clone, Copy, Default)]
struct Ahead(Option<SagaId>);

impl DueSagas {
    pub(crate) fn new(
        store: &Arc<dyn Store>,
        workers: Vec<mpsc::WeakUnboundedSender<Message>>,
        live_bytes: &Arc<Budget>,
        owned: watch::Receiver<Vec<ShardId>>,
    ) -> Self {
        Self { store: Arc::clone(store), workers, live_bytes: Arc::clone(live_bytes), owned }
    }

    /// Looks until the host stops or its store is closed.
    pub(crate) async fn run(mut self) {
        // The clock may have been set back before, or on another host.
        let (mut ahead, mut looked_at) = (Some(Ahead::default()), now());
        self.owned.mark_unchanged();
        loop {
            let pause = match self.look(&mut ahead).await {
                Ok(pause) => pause,
                Err(StoreError::Closed | StoreError::Fatal(_)) => return,
                Err(error) => {
                    tracing::warn!(%error, "sagas that wait cannot be read now");
                    DUE_PAUSE
                }
            };
            let until = Instant::now() + pause;
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                changed = self.owned.changed() => match changed {
                    Ok(()) => ahead = Some(Ahead::default()),
                    Err(_) => return,
                }
            }
            let at = now();
            if looked_at.since(at) > CLOCK_TOLERANCE {
                ahead = Some(Ahead::default());
            }
            looked_at = at;
        }
    }

    /// Answers when to look again.
    async fn look(&self, ahead: &mut Option<Ahead>) -> Result<Duration, StoreError> {
        let has_all = self.load_due().await?;
        // A page a look: however many sagas wait, those that are due come first.
        if let Some(looked_through) = ahead {
            *ahead = self.load_ahead(*looked_through).await?;
        }
        Ok(match (has_all, ahead) {
            (true, None) => DUE_PAUSE,
            (true, Some(_)) => AHEAD_PAUSE,
            (false, _) => DUE_PAUSE_FULL,
        })
    }

    /// Has the workers load the sagas that the clock wakes soon. While sagas in memory hold as many
    /// bytes as they may, only what is due already is loaded, and little at a time: sagas in memory may
    /// wait for it. Answers false when there is more.
    async fn load_due(&self) -> Result<bool, StoreError> {
        let mut after = None;
        loop {
            let at = now();
            let has_room = self.live_bytes.has_room(LIVE_BYTES_EACH);
            let until = if has_room { at.after(DUE_AHEAD) } else { at };
            let shards = self.owned.borrow().clone();
            let page = self.store.sagas().due(shards, until, after, DUE_PER_READ).await?;
            let Some(last) = page.last() else { return Ok(has_room) };
            after = Some(*last);
            let loaded = self.load(page.into_iter().map(|(_, id)| id)).await;
            if !has_room && loaded > 0 {
                return Ok(false);
            }
        }
    }

    /// Has the workers load the sagas whose last event is later than the clock of this host says: the
    /// clock was set back since, and what they wait for may be further away by the clock than they are
    /// to wait. Looks at one page, and answers where to go on; none after the last.
    async fn load_ahead(&self, Ahead(after): Ahead) -> Result<Option<Ahead>, StoreError> {
        let at = now();
        let shards = self.owned.borrow().clone();
        let page = self.store.sagas().waiting(shards, after, CLOCKS_PER_READ).await?;
        let next = page.last().map(|(last, _)| Ahead(Some(*last)));
        let is_ahead = |(_, latest): &(SagaId, Timestamp)| latest.since(at) > CLOCK_TOLERANCE;
        self.load(page.into_iter().filter(is_ahead).map(|(id, _)| id)).await;
        Ok(next)
    }

    /// Has the workers load those of these sagas that are not in memory. Answers how many were loaded,
    /// once they are.
    async fn load(&self, ids: impl Iterator<Item = SagaId>) -> usize {
        let mut by_worker = BTreeMap::<usize, Vec<SagaId>>::new();
        for id in ids {
            by_worker.entry(worker_of(ShardId::of(id), self.workers.len())).or_default().push(id);
        }
        let mut answers = Vec::new();
        for (worker, ids) in by_worker {
            if let Some(worker) = self.workers[worker].upgrade() {
                let (reply, answer) = oneshot::channel();
                let _ = worker.send(Message::Due { ids, reply });
                answers.push(answer);
            }
        }
        let mut loaded = 0;
        for answer in answers {
            loaded += answer.await.unwrap_or(0);
        }
        loaded
    }
}
