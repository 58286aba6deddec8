//! Sagas leave memory while they wait, and are loaded again when something happens to them.
//!
//! Only the worker of a saga appends to it. So what is loaded is the saga as it is, unless the saga was
//! in memory while it was read: then the load counts for nothing.

use std::sync::Arc;

use amends_engine::SagaId;
use amends_failpoint::failpoint;
use tokio::sync::oneshot;

use super::Worker;
use crate::error::OperateError;
use crate::limits::LIVE_BYTES_EACH;
use crate::live::Loading;
use crate::message::Message;
use crate::saga_state::{Found, NotLoaded};
use amends_registry::now;

impl Worker {
    /// Has a saga that is not in memory loaded, and keeps what waits for it until then.
    pub(super) fn load_for(&mut self, id: SagaId, keep: impl FnOnce(&mut Loading)) {
        if !self.loading.contains_key(&id) {
            self.load(vec![id], None);
        }
        if let Some(loading) = self.loading.get_mut(&id) {
            keep(loading);
        }
    }

    /// Loads sagas that the clock wakes soon, and answers how many once they are in memory.
    pub(super) fn load_due(&mut self, mut ids: Vec<SagaId>, reply: oneshot::Sender<usize>) {
        ids.retain(|id| {
            self.owned.of(*id).is_some()
                && !self.live.contains_key(id)
                && !self.loading.contains_key(id)
                && self.config.quarantine.reason(*id).is_none()
        });
        self.load(ids, Some(reply));
    }

    /// Reads sagas in a task of its own.
    fn load(&mut self, ids: Vec<SagaId>, reply: Option<oneshot::Sender<usize>>) {
        self.loads += 1;
        let number = self.loads;
        for id in &ids {
            self.loading.insert(*id, Loading { number, ..Loading::default() });
        }
        let (loader, inbox) = (Arc::clone(&self.config.loader), self.config.inbox.clone());
        tokio::spawn(async move {
            let mut left = ids.as_slice();
            while !left.is_empty() {
                let Ok(_permit) = loader.loads.acquire().await else { return };
                let sagas = loader.page(left).await;
                left = left.get(sagas.len()..).unwrap_or_default();
                let Some(inbox) = inbox.upgrade() else { return };
                let (done, is_done) = oneshot::channel();
                let _ = inbox.send(Message::Loaded { number, sagas, done });
                drop(inbox);
                // One page at a time is in memory twice.
                let _ = is_done.await;
            }
            if let Some(reply) = reply {
                let _ = reply.send(ids.len());
            }
        });
    }

    /// Goes on with sagas that were read.
    pub(super) fn loaded(&mut self, number: u64, sagas: Vec<(SagaId, Found)>) {
        for (id, found) in sagas {
            let is_this = |loading: &Loading| loading.number == number;
            if !self.loading.get(&id).is_some_and(is_this) {
                continue;
            }
            let Some(loading) = self.loading.remove(&id) else { continue };
            match found {
                // Whoever waits asks again, and hears why nothing touches it.
                Ok(Some(_)) if self.config.quarantine.reason(id).is_some() => {}
                Ok(Some(loaded)) => {
                    let bytes = LIVE_BYTES_EACH + loaded.saga.memory_bytes();
                    let held = self.config.live_bytes.hold(bytes);
                    self.take_up(loaded, held, loading);
                }
                Ok(None) => {
                    for queued in loading.inputs {
                        queued.refuse(OperateError::NotFound(id));
                    }
                }
                Err(error) => self.not_loaded(id, error, loading),
            }
        }
    }

    /// A saga that cannot be read is set aside like one that cannot be read at a start.
    fn not_loaded(
        &mut self,
        id: SagaId,
        NotLoaded { error, is_lost }: NotLoaded,
        loading: Loading,
    ) {
        if is_lost {
            // Whoever waits asks again, and hears why nothing touches it.
            self.quarantine(id, &error.to_string());
            return;
        }
        tracing::debug!(saga_id = %id, %error, "saga cannot be loaded now");
        for queued in loading.inputs {
            queued.refuse(error.clone().into());
        }
    }

    /// Forgets a saga that only the clock or a signal moves, and not soon.
    pub(super) fn let_go(&mut self, id: SagaId) {
        if self.live.get_mut(&id).is_some_and(|live| live.may_leave(now())) {
            failpoint("runtime.saga.leaves");
            self.remove(id);
        }
    }

    /// Forgets the sagas that stayed for somebody who waited for them.
    pub(super) fn let_go_of_all(&mut self) {
        let at = now();
        let leaves =
            self.live.iter_mut().filter_map(|(id, live)| live.may_leave(at).then_some(*id));
        for id in leaves.collect::<Vec<_>>() {
            self.remove(id);
        }
    }
}
