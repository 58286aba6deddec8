//! The keyed state that each plugin has: what a call saw of it and wants to write.
//!
//! A call reads while it runs, and writes when its event is recorded. Its [`StateChange`] is part
//! of the append of that event. The append is refused when a value that the call saw has changed
//! since. That is optimistic concurrency control with backward validation (Kung and Robinson,
//! 1981), on values instead of versions: a value that is the same again counts as unchanged.
//!
//! A number that many calls change is a counter: a call adds to it and states which numbers it may be
//! for that. It sees no number, so the calls of others do not make it begin again. That is the escrow
//! method (O'Neil, 1986), with the test made when the change is recorded.

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

/// The most rows that one change may have seen. A key that it read or added to is one row; a list is one row
/// and one more for each key in it. The writer looks at all of them again, some 0.3 µs each, while
/// all other appends wait.
pub const STATE_ROWS_MAX: usize = 10_000;

/// The cost of looking at one row again, in [`StateChange::cost_bytes`]: it takes about as long as
/// writing this many bytes.
const ROW_COST_BYTES: usize = 256;

/// The largest state of one plugin, in bytes of keys and values, unless its settings say otherwise.
pub const STATE_BYTES_MAX_DEFAULT: u64 = 256 << 20;

/// The largest whole number of a counter, and its negative is the smallest: every reader of JSON has
/// these exactly (RFC 8259, section 6).
pub const COUNTER_MAX: i64 = (1 << 53) - 1;

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
    /// What the call adds to counters, by key. For a key that is also in `writes`, the addition is
    /// checked, and the value of `writes` is the one that stays.
    pub counters: BTreeMap<String, CounterChange>,
    /// The most bytes that keys and values of the plugin may have after this change.
    pub bytes_max: u64,
}

/// What a call adds to a counter. The change stands as long as the number before it is in the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterChange {
    /// What is added.
    pub delta: i64,
    /// The smallest number for which the call would have got the same answers.
    pub low: i64,
    /// The largest such number.
    pub high: i64,
}

/// Why nothing is added to a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterLimit {
    /// The sum would be less than the smallest number that is allowed.
    TooSmall,
    /// The sum would be more than the largest number that is allowed.
    TooLarge,
}

impl Default for CounterChange {
    fn default() -> Self {
        Self { delta: 0, low: -COUNTER_MAX, high: COUNTER_MAX }
    }
}

impl CounterChange {
    /// Adds to a counter that is `number` before this change, and returns whether the sum is in
    /// `min..=max`. Otherwise nothing is added. Either way, the range becomes that of the numbers for
    /// which the answer is the same. A number beyond [`COUNTER_MAX`] is never a sum.
    ///
    /// # Errors
    /// The limit that the sum would break.
    pub fn add(&mut self, number: i64, delta: i64, min: i64, max: i64) -> Result<(), CounterLimit> {
        let (min, max) = (min.max(-COUNTER_MAX), max.min(COUNTER_MAX));
        let before = i128::from(self.delta) + i128::from(delta);
        let sum = i128::from(number) + before;
        let (lowest, highest) = (i128::from(min) - before, i128::from(max) - before);
        if sum < i128::from(min) {
            self.high = self.high.min(clamped(lowest - 1));
            return Err(CounterLimit::TooSmall);
        }
        if sum > i128::from(max) {
            self.low = self.low.max(clamped(highest + 1));
            return Err(CounterLimit::TooLarge);
        }
        self.low = self.low.max(clamped(lowest));
        self.high = self.high.min(clamped(highest));
        self.delta = clamped(before);
        Ok(())
    }

    /// Returns the number after the change; none when the change does not stand for this value.
    #[must_use]
    pub fn after(&self, value: Option<&str>) -> Option<i64> {
        let number = counter(value?)?;
        (self.low..=self.high).contains(&number).then(|| number.saturating_add(self.delta))
    }
}

fn clamped(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

/// Returns the number of a counter's value; none when the value is no whole number, or one beyond
/// [`COUNTER_MAX`].
#[must_use]
pub fn counter(value: &str) -> Option<i64> {
    let number = value.parse().ok()?;
    (-COUNTER_MAX..=COUNTER_MAX).contains(&number).then_some(number)
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
        let (reads, writes, counters) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { plugin, reads, lists: Vec::new(), writes, counters, bytes_max }
    }

    /// Returns true when the change saw nothing and writes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let sees = !self.reads.is_empty() || !self.lists.is_empty() || !self.counters.is_empty();
        !sees && self.writes.is_empty()
    }

    /// Returns true when the change writes a value or adds to a counter.
    #[must_use]
    pub fn writes_any(&self) -> bool {
        !self.writes.is_empty() || self.counters.values().any(|counter| counter.delta != 0)
    }

    /// Returns the keys that the change writes or adds to.
    pub fn written(&self) -> impl Iterator<Item = &String> {
        self.writes.keys().chain(self.counters.keys())
    }

    /// Takes back what the change writes, and keeps what it depends on.
    pub fn write_nothing(&mut self) {
        self.writes.clear();
        self.counters.values_mut().for_each(|counter| counter.delta = 0);
    }

    /// Returns the number of rows that the writer looks at again when it records the change. At
    /// most [`STATE_ROWS_MAX`] are allowed.
    #[must_use]
    pub fn rows(&self) -> usize {
        let listed = self.lists.iter().map(|list| 1 + list.keys.len());
        self.reads.len() + self.counters.len() + listed.sum::<usize>()
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
        let keys = self.reads.keys().chain(self.written());
        if !keys.into_iter().all(|key| is_state_key(key)) {
            let rule = "a key of state has 1 to 256 bytes and no control characters";
            return Err(rule);
        }
        let values = self.writes.values().flatten();
        if values.into_iter().any(|value| value.len() > STATE_VALUE_BYTES_MAX) {
            return Err("a value of state is at most 256 KiB");
        }
        let written = self.writes.len().max(self.counters.len());
        let largest = self.reads.len().max(written).max(self.lists.len());
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The range of a change is that of the numbers for which each addition has the same answer.
    #[test]
    fn a_counter_stands_for_just_the_numbers_that_give_the_same_answers() {
        let calls = [(-3, 0, 10), (-4, 0, 10), (9, 0, 10), (-1, -2, 10), (0, 5, 5)];
        let answers = |number| {
            let mut change = CounterChange::default();
            let said = calls.map(|(delta, min, max)| change.add(number, delta, min, max));
            (said, change)
        };
        for number in -20..=20 {
            let (said, change) = answers(number);
            assert_eq!(change.after(Some(&number.to_string())), Some(number + change.delta));
            for other in -20..=20 {
                let stands = change.after(Some(&other.to_string()));
                let (same, of_other) = answers(other);
                assert_eq!(stands.is_some(), same == said, "{number} and {other}");
                if let Some(sum) = stands {
                    assert_eq!(sum, other + of_other.delta);
                }
            }
        }
    }

    #[test]
    fn a_counter_never_leaves_what_json_has_exactly() {
        let mut change = CounterChange::default();
        let far = change.add(COUNTER_MAX, 1, i64::MIN, i64::MAX);
        assert_eq!(far, Err(CounterLimit::TooLarge));
        assert_eq!(change.add(-COUNTER_MAX, i64::MIN, i64::MIN, 0), Err(CounterLimit::TooSmall));
        assert_eq!(CounterChange::default().after(Some("9007199254740992")), None);
        for value in [None, Some("1.0"), Some("\"1\""), Some("null"), Some("1e3")] {
            assert_eq!(CounterChange::default().after(value), None);
        }
        assert_eq!(CounterChange::default().after(Some("-7")), Some(-7));
    }
}
