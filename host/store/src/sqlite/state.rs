//! The table `state`: what plugins keep.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::Arc;

use amends_engine::{PluginName, StateChange, StateList, StateQuery};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::sum::{check_sum, sum_of};
use super::writer_cache::WriterCache;
use crate::append::Appended;

type Result<T> = rusqlite::Result<T>;

/// The value of a key; none when there is no such key.
type StateValue = Option<Arc<str>>;

/// Returns the value of a key.
pub(super) fn get(connection: &Connection, plugin: &str, key: &str) -> Result<StateValue> {
    connection
        .prepare_cached("SELECT plugin, key, value, sum FROM state WHERE plugin = ?1 AND key = ?2")?
        .query_row(params![plugin, key], |row| {
            check_sum(row, 3)?;
            row.get(2)
        })
        .optional()
}

/// Returns keys in the order of their bytes.
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

/// Calls `visit` with each key of a list, in the order of their bytes, until it returns false.
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

/// A plugin's state as it will be after the changes of an append that were checked so far.
pub(super) struct PlannedState<'c> {
    writes: BTreeMap<&'c str, StateValue>,
    bytes: u64,
}

/// What the changes of an append write, by plugin.
pub(super) type PlannedStates<'c> = BTreeMap<&'c PluginName, PlannedState<'c>>;

impl<'c> PlannedState<'c> {
    /// Plans a value for a key whose value has so many bytes before; none when there is no such key.
    fn put(&mut self, key: &'c str, value: StateValue, was: Option<u64>) {
        let of = |value: u64| key.len() as u64 + value;
        self.bytes -= was.map_or(0, of).min(self.bytes);
        self.bytes += value.as_ref().map_or(0, |value| of(value.len() as u64));
        self.writes.insert(key, value);
    }

    /// Returns the value that a key has after the changes so far.
    fn value(&self, connection: &Connection, plugin: &str, key: &str) -> Result<StateValue> {
        match self.writes.get(key) {
            Some(value) => Ok(value.clone()),
            None => get(connection, plugin, key),
        }
    }
}

impl WriterCache {
    /// Returns what the changes write. The inner error is the answer to the append when a change saw
    /// values that have changed, or would make the state too large. Each row that a change saw or
    /// writes is looked at once, however many changes there are.
    pub(super) fn check_state<'c>(
        &self,
        connection: &Connection,
        changes: &'c [Arc<StateChange>],
    ) -> Result<std::result::Result<PlannedStates<'c>, Appended>> {
        let mut planned = PlannedStates::new();
        for (index, change) in changes.iter().enumerate() {
            let state = match planned.entry(&change.plugin) {
                Entry::Occupied(state) => state.into_mut(),
                Entry::Vacant(none) => none.insert(PlannedState {
                    writes: BTreeMap::new(),
                    bytes: self.bytes_of_state(connection, &change.plugin)?,
                }),
            };
            if !is_current(connection, change, state)? {
                return Ok(Err(Appended::StateChanged(index)));
            }
            let before = state.bytes;
            let plugin = change.plugin.as_str();
            for (key, counter) in &change.counters {
                let was = state.value(connection, plugin, key)?;
                let Some(sum) = counter.after(was.as_deref()) else {
                    return Ok(Err(Appended::StateChanged(index)));
                };
                if counter.delta != 0 {
                    let was = was.map(|value| value.len() as u64);
                    state.put(key, Some(sum.to_string().into()), was);
                }
            }
            for (key, value) in &change.writes {
                let was = match state.writes.get(key.as_str()) {
                    Some(value) => value.as_ref().map(|value| value.len() as u64),
                    None => stored_bytes(connection, plugin, key)?,
                };
                state.put(key, value.clone(), was);
            }
            // A change that makes the state smaller is always taken.
            if state.bytes > change.bytes_max && state.bytes > before {
                return Ok(Err(Appended::StateFull(index)));
            }
        }
        Ok(Ok(planned))
    }

    /// Writes what [`Self::check_state`] returned.
    pub(super) fn write_state(
        &mut self,
        connection: &Connection,
        planned: PlannedStates<'_>,
    ) -> Result<()> {
        for (plugin, state) in planned {
            self.state_bytes.insert(plugin.clone(), state.bytes);
            let plugin = plugin.as_str();
            for (key, value) in state.writes {
                match value {
                    Some(value) => connection
                        .prepare_cached("INSERT OR REPLACE INTO state VALUES (?1, ?2, ?3, ?4)")?
                        .execute(params![
                            plugin,
                            key,
                            value,
                            sum_of(params![plugin, key, value])?
                        ])?,
                    None => connection
                        .prepare_cached("DELETE FROM state WHERE plugin = ?1 AND key = ?2")?
                        .execute(params![plugin, key])?,
                };
            }
        }
        Ok(())
    }

    /// Returns the bytes of the keys and values of a plugin.
    fn bytes_of_state(&self, connection: &Connection, plugin: &PluginName) -> Result<u64> {
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

/// Returns the bytes of the value of a key; none when there is no such key.
fn stored_bytes(connection: &Connection, plugin: &str, key: &str) -> Result<Option<u64>> {
    let bytes: Option<i64> = connection
        .prepare_cached("SELECT octet_length(value) FROM state WHERE plugin = ?1 AND key = ?2")?
        .query_row(params![plugin, key], |row| row.get(0))
        .optional()?;
    Ok(bytes.map(i64::unsigned_abs))
}

/// Returns true when a call would see the same values again, after the writes of earlier changes of
/// the same append.
fn is_current(
    connection: &Connection,
    change: &StateChange,
    state: &PlannedState<'_>,
) -> Result<bool> {
    let plugin = change.plugin.as_str();
    for (key, seen) in &change.reads {
        if state.value(connection, plugin, key)? != *seen {
            return Ok(false);
        }
    }
    for list in &change.lists {
        if is_in_list(&state.writes, &list.query) || !is_same_list(connection, plugin, list)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns true when a list may contain one of the written keys.
fn is_in_list(written: &BTreeMap<&str, StateValue>, query: &StateQuery) -> bool {
    let prefix = query.prefix.as_str();
    let from = match query.after.as_deref() {
        Some(after) if after >= prefix => Bound::Excluded(after),
        Some(_) | None => Bound::Included(prefix),
    };
    let next = written.range::<str, _>((from, Bound::Unbounded)).next();
    next.is_some_and(|(key, _)| query.covers(key))
}

/// Returns true when a list still has the same keys.
fn is_same_list(connection: &Connection, plugin: &str, list: &StateList) -> Result<bool> {
    let (mut seen, mut is_same) = (list.keys.iter(), true);
    each_key(connection, plugin, &list.query, |key| {
        is_same = seen.next().is_some_and(|seen| seen == key);
        is_same
    })?;
    Ok(is_same && seen.next().is_none())
}
