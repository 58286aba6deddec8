//! Values of plugins' state in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::{PluginName, StateChange};

/// The most bytes of keys and values in memory: enough for the stock of a warehouse, not an
/// archive.
const CACHE_BYTES_MAX: usize = 16 << 20;

/// The value of a key; none when there is no such key.
pub(super) type StateValue = Option<Arc<str>>;

/// The values that were last read or queued for writing, by plugin and key.
///
/// A value may be wrong, because a queued append may fail. That does no harm: a call that saw a
/// wrong value is refused when it is recorded, and the cache then forgets the value. So calls one
/// after the other on one key need not wait for the disk between them.
#[derive(Default)]
pub(super) struct StateCache {
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
    pub(super) fn get(&self, plugin: &PluginName, key: &str) -> Option<StateValue> {
        let known = self.lock();
        known.values.get(plugin)?.get(key).cloned()
    }

    /// Returns how often values were forgotten. A reader asks before it reads, and gives the answer
    /// to [`Self::read`].
    pub(super) fn forgotten(&self) -> u64 {
        self.lock().forgotten
    }

    /// Keeps a value that was read, unless a newer value may have been known since the reader asked
    /// for `forgotten`.
    pub(super) fn read(&self, plugin: &PluginName, key: &str, value: StateValue, forgotten: u64) {
        let mut known = self.lock();
        let is_known = known.values.get(plugin).is_some_and(|values| values.contains_key(key));
        if !is_known && known.forgotten == forgotten {
            known.put(plugin, key, value);
        }
    }

    /// Keeps the values that a queued append will write.
    pub(super) fn queued(&self, changes: &[StateChange]) {
        let mut known = self.lock();
        for change in changes {
            for (key, value) in &change.writes {
                known.put(&change.plugin, key, value.clone());
            }
        }
    }

    /// Forgets the values that failed changes saw or would have written.
    pub(super) fn forget(&self, changes: &[StateChange]) {
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
    pub(super) fn clear(&self) {
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
