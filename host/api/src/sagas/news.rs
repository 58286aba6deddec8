//! Tells the watchers of sagas which sagas have new events.
//!
//! One task reads the log for all watchers of the host. So a watcher whose saga rests costs memory and nothing
//! else, and a host under load reads as much for two thousand watchers as for one. The task says only that there is
//! something new; what that is, each watcher reads for itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::AbortHandle;

use amends_engine::SagaId;
use amends_runtime::{Cursor, Host, StoredEvent};

use crate::sagas::watchers::READ_PAUSE;

/// Events that the task reads at once.
const EVENTS_PER_READ: u32 = 256;

/// At most this many watchers read at the same time. Each read is of one saga and small, and those of sagas wait
/// behind no more than these.
const READS_MAX: usize = 8;

/// For each so many watchers that a saga has, they pause for [`READ_PAUSE`] before they read. So all watchers of one
/// saga read at most 1,280 times a second, however often it changes.
const WATCHERS_PER_PAUSE: u32 = 64;

/// What is new of the sagas that are watched. A clone is the same.
#[derive(Debug, Clone)]
pub(crate) struct News(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    watched: Mutex<Watched>,
    reads: Semaphore,
}

#[derive(Debug, Default)]
struct Watched {
    sagas: HashMap<SagaId, WatchedSaga>,
    /// The task that reads the log, while anybody watches.
    follower: Option<AbortHandle>,
}

/// A saga that is watched.
#[derive(Debug, Default)]
struct WatchedSaga {
    watchers: u32,
    told: watch::Sender<()>,
}

impl Default for News {
    fn default() -> Self {
        Self(Arc::new(Inner { watched: Mutex::default(), reads: Semaphore::new(READS_MAX) }))
    }
}

impl News {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.0.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to watch a saga: what is recorded of it from now on is told.
    pub(crate) fn of(&self, host: &Host, id: SagaId) -> SagaNews {
        let mut watched = self.watched();
        let saga = watched.sagas.entry(id).or_default();
        saga.watchers += 1;
        let changes = saga.told.subscribe();
        if watched.follower.as_ref().is_none_or(AbortHandle::is_finished) {
            // Taken here: what comes after this the task must not miss, and it begins later.
            let head = host.head();
            let from = *head.borrow();
            let follower = tokio::spawn(follow(self.clone(), host.clone(), head, from));
            watched.follower = Some(follower.abort_handle());
        }
        drop(watched);
        SagaNews { all: self.clone(), id, changes }
    }

    fn tell(&self, events: &[StoredEvent]) {
        let watched = self.watched();
        for saga in events.iter().filter_map(|event| watched.sagas.get(&event.stream.saga()?)) {
            saga.told.send_replace(());
        }
    }
}

/// Follows the log, and tells the watchers of each saga that has a new event. It ends when the host stops or the log
/// cannot be read; then every watch ends, and the clients come back with the event that they saw last.
async fn follow(news: News, host: Host, mut head: watch::Receiver<Cursor>, mut from: Cursor) {
    loop {
        // Marked as seen before reading, so that nothing between the two is missed.
        let end = *head.borrow_and_update();
        let Ok(events) = host.log(from, EVENTS_PER_READ).await else { break };
        from = events.last().map_or(from, StoredEvent::cursor);
        news.tell(&events);
        let is_at_end = events.is_empty() || from.events_until(end) == 0;
        if host.is_stopping() || (is_at_end && head.changed().await.is_err()) {
            break;
        }
        if is_at_end {
            tokio::time::sleep(READ_PAUSE).await;
        }
    }
    *news.watched() = Watched::default();
}

/// What is new of one saga, for one watcher.
#[derive(Debug)]
pub(crate) struct SagaNews {
    all: News,
    id: SagaId,
    changes: watch::Receiver<()>,
}

impl SagaNews {
    /// Marks what was told so far as seen: the watcher is about to read.
    pub(crate) fn see(&mut self) {
        self.changes.borrow_and_update();
    }

    /// Waits for a turn to read. May be cancelled.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.all.0.reads.acquire().await.ok()
    }

    /// Waits until the saga has an event that was not seen. False when nobody will tell of one. May be cancelled.
    pub(crate) async fn changed(&mut self) -> bool {
        if self.changes.changed().await.is_err() {
            return false;
        }
        let watchers = self.all.watched().sagas.get(&self.id).map_or(0, |saga| saga.watchers);
        tokio::time::sleep(READ_PAUSE * (watchers / WATCHERS_PER_PAUSE)).await;
        true
    }
}

impl Drop for SagaNews {
    fn drop(&mut self) {
        let mut watched = self.all.watched();
        if let Some(saga) = watched.sagas.get_mut(&self.id) {
            saga.watchers = saga.watchers.saturating_sub(1);
            if saga.watchers == 0 {
                watched.sagas.remove(&self.id);
            }
        }
        if watched.sagas.is_empty()
            && let Some(follower) = watched.follower.take()
        {
            follower.abort();
        }
    }
}
