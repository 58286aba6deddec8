//! Plugins' state: the table, and what was last read or handed in of it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::{PluginName, StateChange, StateList, StateQuery};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::write::Books;
use crate::types::Appended;

type Result<T> = rusqlite::Result<T>;

/// Bytes of keys and values that are kept in memory: the stock of a warehouse, not an archive.
const CACHE_BYTES_MAX: usize = 16 << 20;

/// What is behind a key; none when it is not there.
pub(super) type Value = Option<Arc<str>>;

/// The value of a key.
pub(super) fn get(connection: &Connection, plugin: &str, key: &str) -> Result<Value> {
    connection
        .prepare_cached("SELECT value FROM state WHERE plugin = ?1 AND key = ?2")?
        .query_row(params![plugin, key], |row| row.get(0))
        .optional()
}

/// Keys in the order of their bytes.
pub(super) fn keys(
    connection: &Connection,
    plugin: &str,
    query: &StateQuery,
) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    each_key(connection, plugin, query, |key| {
        keys.push(key.to_owned());
        true
    })?;
    Ok(keys)
}

/// Shows each key of a list to `visit`, in the order of their bytes, until that answers false.
fn each_key(
    connection: &Connection,
    plugin: &str,
    query: &StateQuery,
    mut visit: impl FnMut(&str) -> bool,
) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "SELECT key FROM state WHERE plugin = ?1 AND key >= ?2 AND key > ?3 ORDER BY key LIMIT ?4",
    )?;
    let after = query.after.as_deref().unwrap_or_default();
    let limit = i64::try_from(query.limit()).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![plugin, query.prefix, after, limit])?;
    while let Some(row) = rows.next()? {
        let key = row.get_ref(0)?.as_str()?;
        if !key.starts_with(&query.prefix) || !visit(key) {
            break;
        }
    }
    Ok(())
}

/// The value of each key as it was last read, or will be once what was handed in is written. What
/// is wrong in it does no harm: whoever has seen it is refused when it is recorded, and then it is
/// forgotten. So calls one after the other on one key need not wait for the disk between them.
#[derive(Default)]
pub(super) struct StateCache {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    values: HashMap<PluginName, HashMap<String, Value>>,
    bytes: usize,
    /// How often values were forgotten. A value that was read before that may be older than the one
    /// that was forgotten.
    forgotten: u64,
}

impl StateCache {
    pub(super) fn get(&self, plugin: &PluginName, key: &str) -> Option<Value> {
        let known = self.lock();
        known.values.get(plugin)?.get(key).cloned()
    }

    /// What a reader asks for before it reads, and hands in with the value.
    pub(super) fn forgotten(&self) -> u64 {
        self.lock().forgotten
    }

    /// Keeps a value that was read, unless a newer one may have been there since `forgotten` was
    /// asked for.
    pub(super) fn read(&self, plugin: &PluginName, key: &str, value: Value, forgotten: u64) {
        let mut known = self.lock();
        let is_known = known.values.get(plugin).is_some_and(|values| values.contains_key(key));
        if !is_known && known.forgotten == forgotten {
            known.put(plugin, key, value);
        }
    }

    /// What will be written.
    pub(super) fn hand_in(&self, changes: &[StateChange]) {
        let mut known = self.lock();
        for change in changes {
            for (key, value) in &change.writes {
                known.put(&change.plugin, key, value.clone());
            }
        }
    }

    /// What was not written, and what was seen and is no more so.
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

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The bytes only ever grow, until all is forgotten.
    fn put(&mut self, plugin: &PluginName, key: &str, value: Value) {
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

/// What the changes of an append that were looked at so far make of a plugin's state.
struct Ahead<'c> {
    writes: BTreeMap<&'c str, &'c Value>,
    bytes: u64,
}

impl Books {
    /// How many bytes the state of each plugin has after the changes; or, when one of them is of
    /// what is not there now or would be too much, what is answered instead. Each row that a change
    /// saw or writes is looked at once, however many changes there are.
    pub(super) fn check_state(
        &self,
        connection: &Connection,
        changes: &[StateChange],
    ) -> Result<std::result::Result<Vec<(PluginName, u64)>, Appended>> {
        let mut all_ahead: BTreeMap<&PluginName, Ahead<'_>> = BTreeMap::new();
        for (index, change) in changes.iter().enumerate() {
            let ahead = match all_ahead.entry(&change.plugin) {
                Entry::Occupied(ahead) => ahead.into_mut(),
                Entry::Vacant(none) => none.insert(Ahead {
                    writes: BTreeMap::new(),
                    bytes: self.bytes(connection, &change.plugin)?,
                }),
            };
            if !is_current(connection, change, &ahead.writes)? {
                return Ok(Err(Appended::StateChanged(index)));
            }
            let before = ahead.bytes;
            for (key, value) in &change.writes {
                let was = match ahead.writes.insert(key, value) {
                    Some(value) => value.as_ref().map(|value| value.len() as u64),
                    None => stored_bytes(connection, change.plugin.as_str(), key)?,
                };
                let of = |value: u64| key.len() as u64 + value;
                ahead.bytes -= was.map_or(0, of).min(ahead.bytes);
                ahead.bytes += value.as_ref().map_or(0, |value| of(value.len() as u64));
            }
            // What makes it smaller is always taken.
            if ahead.bytes > change.bytes_max && ahead.bytes > before {
                return Ok(Err(Appended::StateFull(index)));
            }
        }
        let bytes = all_ahead.into_iter().map(|(plugin, ahead)| (plugin.clone(), ahead.bytes));
        Ok(Ok(bytes.collect()))
    }

    /// Writes changes that were checked; `bytes` is what [`Self::check_state`] answered.
    pub(super) fn write_state(
        &mut self,
        connection: &Connection,
        changes: &[StateChange],
        bytes: Vec<(PluginName, u64)>,
    ) -> Result<()> {
        self.state_bytes.extend(bytes);
        for change in changes {
            for (key, value) in &change.writes {
                let plugin = change.plugin.as_str();
                match value {
                    Some(value) => connection
                        .prepare_cached("INSERT OR REPLACE INTO state VALUES (?1, ?2, ?3)")?
                        .execute(params![plugin, key, value])?,
                    None => connection
                        .prepare_cached("DELETE FROM state WHERE plugin = ?1 AND key = ?2")?
                        .execute(params![plugin, key])?,
                };
            }
        }
        Ok(())
    }

    /// Bytes of the keys and values of a plugin.
    fn bytes(&self, connection: &Connection, plugin: &PluginName) -> Result<u64> {
        if let Some(bytes) = self.state_bytes.get(plugin) {
            return Ok(*bytes);
        }
        connection.query_row(
            "SELECT coalesce(sum(octet_length(key) + octet_length(value)), 0) FROM state
             WHERE plugin = ?1",
            [plugin.as_str()],
            |row| row.get::<_, i64>(0).map(i64::unsigned_abs),
        )
    }
}

/// Bytes of the value of a key; none when it is not there.
fn stored_bytes(connection: &Connection, plugin: &str, key: &str) -> Result<Option<u64>> {
    let bytes: Option<i64> = connection
        .prepare_cached("SELECT octet_length(value) FROM state WHERE plugin = ?1 AND key = ?2")?
        .query_row(params![plugin, key], |row| row.get(0))
        .optional()?;
    Ok(bytes.map(i64::unsigned_abs))
}

/// Whether a call would see the same again, after what earlier changes of the same append write.
fn is_current(
    connection: &Connection,
    change: &StateChange,
    written: &BTreeMap<&str, &Value>,
) -> Result<bool> {
    let plugin = change.plugin.as_str();
    for (key, seen) in &change.reads {
        let is_same = match written.get(key.as_str()) {
            Some(written) => **written == *seen,
            None => get(connection, plugin, key)? == *seen,
        };
        if !is_same {
            return Ok(false);
        }
    }
    for list in &change.lists {
        if is_in_list(written, &list.query) || !is_same_list(connection, plugin, list)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether one of the keys that are written may be in a list.
fn is_in_list(written: &BTreeMap<&str, &Value>, query: &StateQuery) -> bool {
    let prefix = query.prefix.as_str();
    let from = match query.after.as_deref() {
        Some(after) if after >= prefix => Bound::Excluded(after),
        Some(_) | None => Bound::Included(prefix),
    };
    let next = written.range::<str, _>((from, Bound::Unbounded)).next();
    next.is_some_and(|(key, _)| query.covers(key))
}

fn is_same_list(connection: &Connection, plugin: &str, list: &StateList) -> Result<bool> {
    let (mut seen, mut is_same) = (list.keys.iter(), true);
    each_key(connection, plugin, &list.query, |key| {
        is_same = seen.next().is_some_and(|seen| seen == key);
        is_same
    })?;
    Ok(is_same && seen.next().is_none())
}
