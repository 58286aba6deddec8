//! Keeps the ownership of shards up to date. It recovers the sagas of a shard that the host gains and
//! gives the shard to a worker. When the host loses a shard, it tells the worker.

use std::collections::BTreeMap;
use std::sync::Arc;

use amends_keys::Keys;
use amends_store::{OwnershipEvent, ShardId, Store, StoreError, TICK_PAUSE};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::budget::Budget;
use crate::definitions::Definitions;
use crate::error::RuntimeError;
use crate::limits::LIVE_BYTES_EACH;
use crate::message::Message;
use crate::recovery::{self, Quarantine, Quarantined};

/// Renews the ownership of this host. Does not keep the host alive.
pub(crate) struct Owner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) keys: Arc<Keys>,
    /// The inboxes of the workers.
    pub(crate) workers: Vec<mpsc::WeakUnboundedSender<Message>>,
    pub(crate) live_bytes: Arc<Budget>,
    pub(crate) quarantine: Arc<Quarantine>,
    /// Told the shards that this host owns.
    pub(crate) owned: watch::Sender<Vec<ShardId>>,
}

/// Returns the number of the worker that runs a shard.
pub(crate) fn worker_of(shard: ShardId, workers: usize) -> usize {
    usize::from(shard.number()) % workers
}

impl Owner {
    /// Owns nothing until its first tick.
    pub(crate) fn new(
        (store, definitions, keys): (&Arc<dyn Store>, &Arc<Definitions>, &Arc<Keys>),
        workers: Vec<mpsc::WeakUnboundedSender<Message>>,
        live_bytes: &Arc<Budget>,
        quarantine: &Arc<Quarantine>,
    ) -> Self {
        Self {
            store: Arc::clone(store),
            definitions: Arc::clone(definitions),
            keys: Arc::clone(keys),
            workers,
            live_bytes: Arc::clone(live_bytes),
            quarantine: Arc::clone(quarantine),
            owned: watch::Sender::default(),
        }
    }

    /// Ticks until the host stops or its store writes nothing any more.
    pub(crate) async fn run(self) {
        let mut tick = tokio::time::interval(TICK_PAUSE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            // A worker that has ended takes no shard any more: the host stops, or a part of it has failed.
            let has_ended = |worker: &mpsc::WeakUnboundedSender<Message>| {
                worker.upgrade().is_none_or(|worker| worker.is_closed())
            };
            if self.workers.iter().any(has_ended) {
                return;
            }
            match self.tick().await {
                Ok(()) => {}
                Err(RuntimeError::Store(StoreError::Closed | StoreError::Fatal(_))) => return,
                Err(error) => {
                    tracing::warn!(%error, "the ownership of shards cannot be renewed now");
                }
            }
        }
    }

    /// Renews the ownership, and tells the workers what has changed. A worker gets a shard together with
    /// its sagas, so nobody reaches a saga before it is recovered.
    ///
    /// # Errors
    /// When the store fails. A shard whose sagas could not be read is released, and gained again by a
    /// later tick.
    pub(crate) async fn tick(&self) -> Result<(), RuntimeError> {
        let mut gained = Vec::new();
        for event in self.store.ownership().tick().await? {
            match event {
                OwnershipEvent::Gained(shard) => gained.push(shard),
                OwnershipEvent::Lost(id) => {
                    self.owned.send_modify(|owned| owned.retain(|other| *other != id));
                    self.tell(id, Message::Lost(id));
                }
            }
        }
        if gained.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = gained.iter().map(|shard| shard.id()).collect();
        let of = (&*self.definitions, &*self.keys);
        let recovered = recovery::recover(&*self.store, of, &ids).await?;
        let (found, store) = (recovered.found(), Arc::clone(&self.store));
        // Nobody waits for the count: it takes longer the more sagas wait.
        tokio::spawn(async move {
            match store.sagas().count_waiting().await {
                Ok(waiting) => found.log(waiting),
                Err(error) => tracing::warn!(%error, "sagas that wait cannot be counted now"),
            }
        });
        for Quarantined { id, reason } in recovered.quarantined {
            self.quarantine.add(id, reason);
        }
        let mut by_shard = BTreeMap::<ShardId, Vec<_>>::new();
        for loaded in recovered.sagas {
            // Counted before the first start is asked for.
            let held = self.live_bytes.hold(LIVE_BYTES_EACH + loaded.saga.memory_bytes());
            by_shard.entry(ShardId::of(loaded.saga.id())).or_default().push((loaded, held));
        }
        for shard in gained {
            let id = shard.id();
            let sagas = by_shard.remove(&id).unwrap_or_default();
            self.tell(id, Message::Gained { shard, sagas });
        }
        self.owned.send_modify(|owned| owned.extend(ids));
        Ok(())
    }

    fn tell(&self, shard: ShardId, message: Message) {
        if let Some(worker) = self.workers[worker_of(shard, self.workers.len())].upgrade() {
            let _ = worker.send(message);
        }
    }
}
