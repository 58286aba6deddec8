//! Values of plugins' state in memory: a decorator of the store.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::{PluginName, StateChange, StateQuery};
use amends_store::{
    Append, AppendReply, Appended, Archive, Blobs, Epoch, EventLog, HostInfo, Maintenance, Outbox,
    Ownership, OwnershipEvent, PluginState, SagaIndex, Schedules, Shard, ShardId, ShardOwner,
    Store, StoreError,
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

    fn archive(&self) -> &dyn Archive {
        self.store.archive()
    }

    fn outbox(&self) -> &dyn Outbox {
        self.store.outbox()
    }

    fn schedules(&self) -> &dyn Schedules {
        self.store.schedules()
    }

    fn maintenance(&self) -> &dyn Maintenance {
        self.store.maintenance()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.close()
    }
}

impl Ownership for CachedStore {
    fn join(&self, host: HostInfo) {
        self.store.ownership().join(host);
    }

    fn owner_of(&self, shard: ShardId) -> ShardOwner {
        self.store.ownership().owner_of(shard)
    }

    fn others(&self) -> Vec<HostInfo> {
        self.store.ownership().others()
    }

    fn tick(&self) -> BoxFuture<'_, Result<Vec<OwnershipEvent>, StoreError>> {
        async {
            let events = self.store.ownership().tick().await?;
            let with_cache = |event| match event {
                OwnershipEvent::Gained(shard) => {
                    // Whoever had it has changed values.
                    self.cache.clear();
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
        // Another host may have changed what was read before. What this host has queued comes after that.
        let is_alone = self.store.ownership().others().is_empty();
        if let Some((known, is_queued)) = self.cache.get(&plugin, &key)
            && (is_queued || is_alone)
        {
            return ready(Ok(known)).boxed();
        }
        async move {
            let forgotten = self.cache.forgotten();
            let value = self.store.state().value(plugin.clone(), key.clone()).await?;
            if is_alone {
                self.cache.read(&plugin, &key, value.clone(), forgotten);
            }
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
        let changed = known.queued(&writes, || self.store.state().change(append));
        // A task of its own: the cache has to learn what came of it, also when nobody waits for it.
        let answered = tokio::spawn(async move {
            let result = changed.await;
            known.answered(&result, &writes);
            // It may have waited for room in the queue, and another write came before it.
            known.forget(&writes);
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

    fn has_lease(&self) -> bool {
        self.shard.has_lease()
    }

    fn append_then(&self, append: Append, reply: AppendReply) {
        if append.state.is_empty() {
            return self.shard.append_then(append, reply);
        }
        let (cache, written) = (Arc::clone(&self.cache), append.state.clone());
        let reply = AppendReply::new(move |result| {
            cache.answered(&result, &written);
            reply.send(result);
        });
        self.cache.queued(&append.state.clone(), || self.shard.append_then(append, reply));
    }
}

/// The values that were last read or queued for writing, by plugin and key.
#[derive(Default)]
struct StateCache {
    known: Mutex<KnownValues>,
    /// Held while a write is noted and queued, so that the store has two writes of a key in the order in
    /// which the cache has them.
    order: Mutex<()>,
}

#[derive(Default)]
struct KnownValues {
    values: HashMap<PluginName, HashMap<String, KnownValue>>,
    bytes: usize,
    /// How often values were forgotten. A value that was read before the last time may be older
    /// than the one that was forgotten.
    forgotten: u64,
}

/// What is known of a key.
#[derive(Default)]
struct KnownValue {
    /// None when the value has to be read.
    value: Option<StateValue>,
    /// Queued writes of the key that are not answered. As long as there is one, a value that is read may
    /// be older than the one that the key is going to have.
    writes: u32,
}

impl StateCache {
    /// Returns the value of a key, if the cache knows it, and whether this process has queued it.
    fn get(&self, plugin: &PluginName, key: &str) -> Option<(StateValue, bool)> {
        let known = self.lock();
        let one = known.values.get(plugin)?.get(key)?;
        Some((one.value.clone()?, one.writes > 0))
    }

    /// Returns how often values were forgotten. A reader asks before it reads, and gives the answer
    /// to [`Self::read`].
    fn forgotten(&self) -> u64 {
        self.lock().forgotten
    }

    /// Keeps a value that was read, unless a write of the key is queued, or a newer value may have been
    /// known since the reader asked for `forgotten`.
    fn read(&self, plugin: &PluginName, key: &str, value: StateValue, forgotten: u64) {
        let mut known = self.lock();
        // With a value, or with writes that are queued.
        let is_known = known.values.get(plugin).is_some_and(|values| values.contains_key(key));
        if !is_known && known.forgotten == forgotten {
            known.put(plugin, key, Some(value), 0);
        }
    }

    /// Takes in the result of an append that was queued.
    fn answered(&self, result: &Result<Appended, StoreError>, changes: &[Arc<StateChange>]) {
        if !matches!(result, Ok(Appended::Done { .. })) {
            self.forget(changes);
        }
        let mut known = self.lock();
        for change in changes {
            for key in change.written() {
                known.wrote(&change.plugin, key);
            }
        }
    }

    /// Keeps the values that an append will write, and queues it.
    fn queued<T>(&self, changes: &[Arc<StateChange>], queue: impl FnOnce() -> T) -> T {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = self.lock();
        for change in changes {
            for (key, counter) in &change.counters {
                let sum = known.value(&change.plugin, key).and_then(|value| {
                    counter.after(value.as_deref()).map(|sum| Some(sum.to_string().into()))
                });
                known.put(&change.plugin, key, sum, 1);
            }
            for (key, value) in &change.writes {
                known.put(&change.plugin, key, Some(value.clone()), 1);
            }
        }
        drop(known);
        queue()
    }

    /// Forgets the values that failed changes saw or would have written.
    fn forget(&self, changes: &[Arc<StateChange>]) {
        if changes.is_empty() {
            return;
        }
        let mut known = self.lock();
        known.forgotten += 1;
        for change in changes {
            let Some(values) = known.values.get_mut(&change.plugin) else { continue };
            for key in change.reads.keys().chain(change.written()) {
                if let Some(value) = values.get_mut(key) {
                    value.value = None;
                    if value.writes == 0 {
                        values.remove(key);
                    }
                }
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
    /// Returns the value of a key, if it is known.
    fn value(&self, plugin: &PluginName, key: &str) -> Option<StateValue> {
        self.values.get(plugin)?.get(key)?.value.clone()
    }

    /// Keeps a value that was read, or that so many more queued writes of the key will write; none when
    /// what they will write is not known. The count of bytes only grows, until all values are forgotten.
    fn put(&mut self, plugin: &PluginName, key: &str, value: Option<StateValue>, writes: u32) {
        self.bytes += key.len() + value.iter().flatten().map(|value| value.len()).sum::<usize>();
        if self.bytes > CACHE_BYTES_MAX {
            self.clear();
        }
        if let Some(values) = self.values.get_mut(plugin) {
            let known = values.entry(key.to_owned()).or_default();
            (known.value, known.writes) = (value, known.writes + writes);
        } else {
            let known = HashMap::from([(key.to_owned(), KnownValue { value, writes })]);
            self.values.insert(plugin.clone(), known);
        }
    }

    /// A queued write of a key was answered.
    fn wrote(&mut self, plugin: &PluginName, key: &str) {
        let Some(values) = self.values.get_mut(plugin) else { return };
        let Some(known) = values.get_mut(key) else { return };
        known.writes = known.writes.saturating_sub(1);
        if known.writes == 0 && known.value.is_none() {
            values.remove(key);
            // Whoever reads it since before may have the value from before the write.
            self.forgotten += 1;
        }
    }

    /// Forgets all values, but not which writes are queued.
    fn clear(&mut self) {
        self.values.retain(|_, values| {
            values.retain(|_, known| {
                known.value = None;
                known.writes > 0
            });
            !values.is_empty()
        });
        self.forgotten += 1;
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use amends_engine::Version;
    use amends_store::conformance::state_change;

    use super::*;

    /// A reader that read before others were refused, and hands in what it read after that.
    #[test]
    fn a_value_that_was_read_before_others_were_forgotten_is_not_kept() {
        let (cache, plugin) = (StateCache::default(), "inventory".parse().unwrap());
        let changes = [Arc::new(state_change(&[], &[("a", Some("2"))]))];
        let old = || Some("1".into());
        let forgotten = cache.forgotten();
        cache.queued(&changes, || ());
        cache.read(&plugin, "a", old(), forgotten);
        assert_eq!(
            cache.get(&plugin, "a").map(|(value, _)| value),
            Some(Some("2".into())),
            "what was handed in is newer"
        );
        cache.answered(&DONE, &changes);
        for forget in [(|cache, changes| cache.forget(changes)) as Forget, |cache, _| cache.clear()]
        {
            let forgotten = cache.forgotten();
            forget(&cache, &changes);
            cache.read(&plugin, "a", old(), forgotten);
            assert_eq!(
                cache.get(&plugin, "a").map(|(value, _)| value),
                None,
                "it may be older than what was forgotten"
            );
            cache.read(&plugin, "a", old(), cache.forgotten());
            assert_eq!(cache.get(&plugin, "a").map(|(value, _)| value), Some(old()));
        }
    }

    /// Two writes that saw nothing are queued, and the first of them fails. Who reads the key before the
    /// second is durable gets the value from before it.
    #[test]
    fn a_value_that_is_read_while_a_write_is_queued_is_not_kept() {
        let (cache, plugin) = (StateCache::default(), "inventory".parse().unwrap());
        let change = |value| [Arc::new(state_change(&[], &[("a", Some(value))]))];
        let (one, two) = (change("1"), change("2"));
        let old = || Some("0".into());
        cache.queued(&one, || ());
        cache.queued(&two, || ());
        assert_eq!(cache.get(&plugin, "a").map(|(value, _)| value), Some(Some("2".into())));
        cache.answered(&Err(StoreError::Closed), &one);
        cache.clear();
        let before = cache.forgotten();
        cache.read(&plugin, "a", old(), before);
        assert_eq!(
            cache.get(&plugin, "a").map(|(value, _)| value),
            None,
            "the second write is queued"
        );
        cache.answered(&DONE, &two);
        cache.read(&plugin, "a", old(), before);
        assert_eq!(
            cache.get(&plugin, "a").map(|(value, _)| value),
            None,
            "it was read before the second was durable"
        );
        cache.read(&plugin, "a", Some("2".into()), cache.forgotten());
        assert_eq!(cache.get(&plugin, "a").map(|(value, _)| value), Some(Some("2".into())));
    }

    const DONE: Result<Appended, StoreError> = Ok(Appended::Done { version: Version(1) });

    type Forget = fn(&StateCache, &[Arc<StateChange>]);
}
