//! The keyed state of plugins: what a call saw of it and would write.
//!
//! A call reads while it runs and writes when it is recorded. Its [`StateChange`] goes with the append of
//! its event, and both are refused when a value that the call saw has changed since. That is optimistic
//! concurrency control with backward validation (Kung and Robinson, 1981), on values instead of versions:
//! a value that is the same again is as good as one that never changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::PluginName;

/// Bytes of a key.
pub const STATE_KEY_BYTES_MAX: usize = 256;

/// Bytes of a value: state is looked up by key and rewritten whole, it is no place for documents.
pub const STATE_VALUE_BYTES_MAX: usize = 256 << 10;

/// Keys that one change reads, and that it writes; lists that it reads; keys of one list.
pub const STATE_KEYS_MAX: usize = 1_000;

/// Rows that one change saw: a row for each key that it read, and for each list one and one for each
/// key in it. The writer looks at all of them again while everybody waits for it, some 0.3 µs each.
pub const STATE_ROWS_MAX: usize = 10_000;

/// What looking at a row again counts for in [`StateChange::cost_bytes`]: it takes about as long as
/// writing so many bytes.
const ROW_COST_BYTES: usize = 256;

/// Bytes of the keys and values of one plugin, unless its settings say otherwise.
pub const STATE_BYTES_MAX_DEFAULT: u64 = 256 << 20;

/// What one call saw of a plugin's state, and what it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// Whose state.
    pub plugin: PluginName,
    /// What it saw: values (JSON texts) by key, none for a key that was not there.
    pub reads: BTreeMap<String, Option<Arc<str>>>,
    /// The lists of keys that it saw. What an earlier change of the same append writes under such a
    /// list counts as a change of it.
    pub lists: Vec<StateList>,
    /// What it writes; none removes the key.
    pub writes: BTreeMap<String, Option<Arc<str>>>,
    /// Keys and values of the plugin may have so many bytes after it.
    pub bytes_max: u64,
}

/// A list of keys that a call saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateList {
    /// Which were asked for.
    pub query: StateQuery,
    /// Which there were.
    pub keys: Vec<String>,
}

/// Keys of a plugin's state, in the order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StateQuery {
    /// They begin with it.
    pub prefix: String,
    /// And are greater.
    pub after: Option<String>,
    /// At most so many, and at most [`STATE_KEYS_MAX`].
    pub limit: u32,
}

impl StateQuery {
    /// Whether the list may have this key in it.
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
    /// One that saw nothing and writes nothing.
    #[must_use]
    pub fn new(plugin: PluginName, bytes_max: u64) -> Self {
        let (reads, writes) = (BTreeMap::new(), BTreeMap::new());
        Self { plugin, reads, lists: Vec::new(), writes, bytes_max }
    }

    /// Whether it saw nothing and writes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.lists.is_empty() && self.writes.is_empty()
    }

    /// The rows that are looked at again when it is recorded: at most [`STATE_ROWS_MAX`].
    #[must_use]
    pub fn rows(&self) -> usize {
        self.reads.len() + self.lists.iter().map(|list| 1 + list.keys.len()).sum::<usize>()
    }

    /// How much it adds to a transaction: the bytes that it compares and writes, and the time that
    /// looking at its rows takes, counted as bytes.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        let values = self.reads.values().chain(self.writes.values()).flatten();
        let rows = self.rows() + self.writes.len();
        values.map(|value| value.len()).sum::<usize>() + rows * ROW_COST_BYTES
    }

    /// Checks the rules that need no look at the store.
    ///
    /// # Errors
    /// The rule that it breaks, in words.
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

/// Whether a text may be a key: 1 to [`STATE_KEY_BYTES_MAX`] bytes, no control characters.
#[must_use]
pub fn is_state_key(key: &str) -> bool {
    (1..=STATE_KEY_BYTES_MAX).contains(&key.len()) && !key.chars().any(char::is_control)
}
