//! Instances that have served a call and may serve another: the policy `reuse`.
//!
//! A fresh instance for every call is the default: nothing that a component keeps in its memory,
//! by design or by mistake, gets from one saga into another. A component that is trusted may serve
//! so many calls with one instance, which saves making it. Only one whose last call ended in an
//! answer is kept; one that trapped, met a limit or was broken off is dropped with its memory.

use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::PluginName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::Store;
use wasmtime::component::Instance;

use crate::call::guest::Guest;

/// Instances that wait, of all components together: each holds a place in the pool that a call of
/// another component may need. Calls compute, so about as many as there are cores run at once.
pub(crate) const IDLE_MAX: usize = 64;

/// At most one in so many places of the pool is held by an instance that waits.
pub(crate) const IDLE_PART: usize = 10;

/// An instance and how many calls it has served.
pub(crate) struct Warm {
    pub(crate) store: Store<Guest>,
    pub(crate) instance: Instance,
    pub(crate) served: u32,
}

/// The instances of one component that wait.
pub(crate) struct Idle {
    waiting: Mutex<Vec<Waiting>>,
    room: Arc<Semaphore>,
}

struct Waiting {
    warm: Warm,
    /// Two plugins with the same component share no instance: they have other secrets.
    plugin: PluginName,
    _place: OwnedSemaphorePermit,
}

impl Idle {
    pub(crate) fn new(room: Arc<Semaphore>) -> Self {
        Self { waiting: Mutex::default(), room }
    }

    /// The one that served last: what it touched is most likely still in the caches.
    pub(crate) fn take(&self, plugin: &PluginName) -> Option<Warm> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let last = waiting.iter().rposition(|waiting| waiting.plugin == *plugin)?;
        Some(waiting.swap_remove(last).warm)
    }

    /// Keeps it, or drops it when enough wait or they have enough memory. What it has is no more that
    /// of a call.
    pub(crate) fn put(&self, plugin: &PluginName, mut warm: Warm) {
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else { return };
        if !warm.store.data_mut().rest() {
            return;
        }
        let waiting = Waiting { warm, plugin: plugin.clone(), _place: place };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(waiting);
    }
}
