//! The keyed state that each plugin has: what a call saw of it and wants to write.
//!
//! A call reads while it runs, and writes when its event is recorded. Its [`StateChange`] is part
//! of the append of that event. The append is refused when a value that the call saw has changed
//! since. That is optimistic concurrency control with backward validation (Kung and Robinson,
//! 1981), on values instead of versions: a value that is the same again counts as unchanged.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::PluginName;

/// The longest key, in bytes.
pub const STATE_KEY_BYTES_MAX: usize = 256;

/// The largest value, in bytes. A value is always read and written as a whole, so state is no place
/// for documents.
pub const STATE_VALUE_BYTES_MAX: usize = 256 << 10;

/// The most keys that one change reads, keys that it writes, lists that it reads, and keys of one
/// list: each at most this many.
pub const STATE_KEYS_MAX: usize = 1_000;

/// The most rows that one change may have seen. A key that it read is one row; a list is one row
/// and one more for each key in it. The writer looks at all of them again, some 0.3 µs each, while
/// all other appends wait.
pub const STATE_ROWS_MAX: usize = 10_000;

/// The cost of looking at one row again, in [`StateChange::cost_bytes`]: it takes about as long as
/// writing this many bytes.
const ROW_COST_BYTES: usize = 256;

/// The largest state of one plugin, in bytes of keys and values, unless its settings say otherwise.
pub const STATE_BYTES_MAX_DEFAULT: u64 = 256 << 20;

/// What one call saw of its plugin's state, and what it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// The plugin whose state it is.
    pub plugin: PluginName,
    /// The values that the call read, as JSON texts by key; none for a key that did not exist.
    pub reads: BTreeMap<String, Option<Arc<str>>>,
    /// The lists of keys that the call read. A key that an earlier change of the same append writes
    /// counts as a change of every list that covers it.
    pub lists: Vec<StateList>,
    /// The values that the call writes, by key; none removes the key.
    pub writes: BTreeMap<String, Option<Arc<str>>>,
    /// The most bytes that keys and values of the plugin may have after this change.
    pub bytes_max: u64,
}

/// A list of keys that a call read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateList {
    /// The query that the call made.
    pub query: StateQuery,
    /// The keys that it got.
    pub keys: Vec<String>,
}

/// A query for keys of a plugin's state, in the order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StateQuery {
    /// The keys begin with this text.
    pub prefix: String,
    /// The keys are greater than this one.
    pub after: Option<String>,
    /// The most keys to return; never more than [`STATE_KEYS_MAX`].
    pub limit: u32,
}

impl StateQuery {
    /// Returns true when the list may contain this key.
    #[must_use]
    pub fn covers(&self, key: &str) -> bool {
        key.starts_with(&self.prefix) && self.after.as_deref().is_none_or(|after| key > after)
    }

    /// How many keys are returned at most.
    #[must_use]
    pub fn limit(&self) -> usize {
        (self.limit as usize).min(STATE_KEYS_MAX)
    }
}

impl StateChange {
    /// Makes a change that saw nothing and writes nothing.
    #[must_use]
    pub fn new(plugin: PluginName, bytes_max: u64) -> Self {
        let (reads, writes) = (BTreeMap::new(), BTreeMap::new());
        Self { plugin, reads, lists: Vec::new(), writes, bytes_max }
    }

    /// Returns true when the change saw nothing and writes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.lists.is_empty() && self.writes.is_empty()
    }

    /// Returns the number of rows that the writer looks at again when it records the change. At
    /// most [`STATE_ROWS_MAX`] are allowed.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.reads.len() + self.lists.iter().map(|list| 1 + list.keys.len()).sum::<usize>()
    }

    /// Returns how much the change adds to a transaction: the bytes that it compares and writes,
    /// and the time that looking at its rows takes, counted as bytes.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        let values = self.reads.values().chain(self.writes.values()).flatten();
        let rows = self.rows() + self.writes.len();
        values.map(|value| value.len()).sum::<usize>() + rows * ROW_COST_BYTES
    }

    /// Checks the rules that need no look at the store.
    ///
    /// # Errors
    /// The rule that the change breaks, in words.
    pub fn check(&self) -> Result<(), &'static str> {
        let keys = self.reads.keys().chain(self.writes.keys());
        if !keys.into_iter().all(|key| is_state_key(key)) {
            let rule = "a key of state has 1 to 256 bytes and no control characters";
            return Err(rule);
        }
        let values = self.writes.values().flatten();
        if values.into_iter().any(|value| value.len() > STATE_VALUE_BYTES_MAX) {
            return Err("a value of state is at most 256 KiB");
        }
        let largest = self.reads.len().max(self.writes.len()).max(self.lists.len());
        if largest > STATE_KEYS_MAX {
            let rule = "a change of state has at most 1,000 keys and lists";
            return Err(rule);
        }
        if self.rows() > STATE_ROWS_MAX {
            let rule = "a change of state saw at most 10,000 rows: keys that it read and listed";
            return Err(rule);
        }
        Ok(())
    }
}

/// Returns true when a text may be a key: 1 to [`STATE_KEY_BYTES_MAX`] bytes, no control
/// characters.
#[must_use]
pub fn is_state_key(key: &str) -> bool {
    (1..=STATE_KEY_BYTES_MAX).contains(&key.len()) && !key.chars().any(char::is_control)
}
