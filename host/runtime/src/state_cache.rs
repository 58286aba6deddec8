//! Values of plugins' state in memory: a decorator of the store.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::{PluginName, StateChange, StateQuery};
use amends_store::{
    Append, AppendReply, Appended, Blobs, Epoch, EventLog, Maintenance, Ownership, OwnershipEvent,
    PluginState, SagaIndex, Shard, ShardId, Store, StoreError,
};
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};

/// The most bytes of keys and values in memory: enough for the stock of a warehouse, not an
/// archive.
const CACHE_BYTES_MAX: usize = 16 << 20;

/// The value of a key; none when there is no such key.
type StateValue = Option<Arc<str>>;

/// Returns a store whose [`PluginState::value`] also knows values that are queued and not durable
/// yet. So calls one after the other on one key need not wait for the disk between them.
///
/// A value may be wrong, because a queued append may fail. That does no harm: a call that saw a
/// wrong value is refused when it is recorded, and the cache then forgets the value.
#[must_use]
pub fn with_state_cache(store: Arc<dyn Store>) -> Arc<dyn Store> {
    Arc::new(CachedStore { store, cache: Arc::default() })
}

struct CachedStore {
    store: Arc<dyn Store>,
    cache: Arc<StateCache>,
}

impl Store for CachedStore {
    fn ownership(&self) -> &dyn Ownership {
        self
    }

    fn log(&self) -> &dyn EventLog {
        self.store.log()
    }

    fn sagas(&self) -> &dyn SagaIndex {
        self.store.sagas()
    }

    fn state(&self) -> &dyn PluginState {
        self
    }

    fn blobs(&self) -> &dyn Blobs {
        self.store.blobs()
    }

    fn maintenance(&self) -> &dyn Maintenance {
        self.store.maintenance()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.close()
    }
}

impl Ownership for CachedStore {
    fn tick(&self) -> BoxFuture<'_, Result<Vec<OwnershipEvent>, StoreError>> {
        async {
            let events = self.store.ownership().tick().await?;
            let with_cache = |event| match event {
                OwnershipEvent::Gained(shard) => {
                    let cache = Arc::clone(&self.cache);
                    OwnershipEvent::Gained(Box::new(CachedShard { shard, cache }))
                }
                lost @ OwnershipEvent::Lost(_) => {
                    // Whoever has it now may change values of which this process does not hear.
                    self.cache.clear();
                    lost
                }
            };
            Ok(events.into_iter().map(with_cache).collect())
        }
        .boxed()
    }
}

impl PluginState for CachedStore {
    fn value(
        &self,
        plugin: PluginName,
        key: String,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StoreError>> {
        if let Some(known) = self.cache.get(&plugin, &key) {
            return ready(Ok(known)).boxed();
        }
        async move {
            let forgotten = self.cache.forgotten();
            let value = self.store.state().value(plugin.clone(), key.clone()).await?;
            self.cache.read(&plugin, &key, value.clone(), forgotten);
            Ok(value)
        }
        .boxed()
    }

    fn keys(
        &self,
        plugin: PluginName,
        query: StateQuery,
    ) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        self.store.state().keys(plugin, query)
    }

    fn change(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        let (writes, known) = (append.state.clone(), Arc::clone(&self.cache));
        known.queued(&writes);
        let changed = self.store.state().change(append);
        // A task of its own: the cache has to learn what came of it, also when nobody waits for it.
        let answered = tokio::spawn(async move {
            let result = changed.await;
            known.answered(&result, &writes);
            result
        });
        async move { answered.await.unwrap_or(Err(StoreError::Closed)) }.boxed()
    }
}

/// A shard whose appends tell the cache what they write.
struct CachedShard {
    shard: Box<dyn Shard>,
    cache: Arc<StateCache>,
}

impl fmt::Debug for CachedShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shard.fmt(f)
    }
}

impl Shard for CachedShard {
    fn id(&self) -> ShardId {
        self.shard.id()
    }

    fn epoch(&self) -> Epoch {
        self.shard.epoch()
    }

    fn append_then(&self, append: Append, reply: AppendReply) {
        if append.state.is_empty() {
            return self.shard.append_then(append, reply);
        }
        let (changes, known) = (append.state.clone(), Arc::clone(&self.cache));
        known.queued(&changes);
        let reply = AppendReply::new(move |result| {
            known.answered(&result, &changes);
            reply.send(result);
        });
        self.shard.append_then(append, reply);
    }
}

/// The values that were last read or queued for writing, by plugin and key.
#[derive(Default)]
struct StateCache {
    known: Mutex<KnownValues>,
}

#[derive(Default)]
struct KnownValues {
    values: HashMap<PluginName, HashMap<String, StateValue>>,
    bytes: usize,
    /// How often values were forgotten. A value that was read before the last time may be older
    /// than the one that was forgotten.
    forgotten: u64,
}

impl StateCache {
    /// Returns the value of a key, if the cache knows it.
    fn get(&self, plugin: &PluginName, key: &str) -> Option<StateValue> {
        let known = self.lock();
        known.values.get(plugin)?.get(key).cloned()
    }

    /// Returns how often values were forgotten. A reader asks before it reads, and gives the answer
    /// to [`Self::read`].
    fn forgotten(&self) -> u64 {
        self.lock().forgotten
    }

    /// Keeps a value that was read, unless a newer value may have been known since the reader asked
    /// for `forgotten`.
    fn read(&self, plugin: &PluginName, key: &str, value: StateValue, forgotten: u64) {
        let mut known = self.lock();
        let is_known = known.values.get(plugin).is_some_and(|values| values.contains_key(key));
        if !is_known && known.forgotten == forgotten {
            known.put(plugin, key, value);
        }
    }

    /// Takes note of what came of an append that was queued.
    fn answered(&self, result: &Result<Appended, StoreError>, changes: &[StateChange]) {
        if !matches!(result, Ok(Appended::Done { .. })) {
            self.forget(changes);
        }
    }

    /// Keeps the values that a queued append will write.
    fn queued(&self, changes: &[StateChange]) {
        let mut known = self.lock();
        for change in changes {
            for (key, value) in &change.writes {
                known.put(&change.plugin, key, value.clone());
            }
        }
    }

    /// Forgets the values that failed changes saw or would have written.
    fn forget(&self, changes: &[StateChange]) {
        if changes.is_empty() {
            return;
        }
        let mut known = self.lock();
        known.forgotten += 1;
        for change in changes {
            let Some(values) = known.values.get_mut(&change.plugin) else { continue };
            for key in change.reads.keys().chain(change.writes.keys()) {
                values.remove(key);
            }
        }
    }

    /// Forgets all values.
    fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, KnownValues> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KnownValues {
    /// Keeps a value. The count of bytes only grows, until all values are forgotten.
    fn put(&mut self, plugin: &PluginName, key: &str, value: StateValue) {
        self.bytes += key.len() + value.as_ref().map_or(0, |value| value.len());
        if self.bytes > CACHE_BYTES_MAX {
            self.clear();
        }
        if let Some(values) = self.values.get_mut(plugin) {
            values.insert(key.to_owned(), value);
        } else {
            self.values.insert(plugin.clone(), HashMap::from([(key.to_owned(), value)]));
        }
    }

    fn clear(&mut self) {
        *self = Self { forgotten: self.forgotten + 1, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use amends_store::conformance::state_change;

    use super::*;

    /// A reader that read before others were refused, and hands in what it read after that.
    #[test]
    fn a_value_that_was_read_before_others_were_forgotten_is_not_kept() {
        let (cache, plugin) = (StateCache::default(), "inventory".parse().unwrap());
        let changes = [state_change(&[], &[("a", Some("2"))])];
        let old = || Some("1".into());
        let forgotten = cache.forgotten();
        cache.queued(&changes);
        cache.read(&plugin, "a", old(), forgotten);
        assert_eq!(cache.get(&plugin, "a"), Some(Some("2".into())), "what was handed in is newer");
        for forget in [(|cache, changes| cache.forget(changes)) as Forget, |cache, _| cache.clear()]
        {
            let forgotten = cache.forgotten();
            forget(&cache, &changes);
            cache.read(&plugin, "a", old(), forgotten);
            assert_eq!(cache.get(&plugin, "a"), None, "it may be older than what was forgotten");
            cache.read(&plugin, "a", old(), cache.forgotten());
            assert_eq!(cache.get(&plugin, "a"), Some(old()));
        }
    }

    type Forget = fn(&StateCache, &[StateChange]);
}
