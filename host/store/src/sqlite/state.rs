//! Plugins' state: the table, and what was last read or handed in of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::PluginName;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::write::Books;
use crate::state::{StateChange, StateQuery};
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
    let mut statement = connection.prepare_cached(
        "SELECT key FROM state WHERE plugin = ?1 AND key >= ?2 AND key > ?3 ORDER BY key LIMIT ?4",
    )?;
    let after = query.after.as_deref().unwrap_or_default();
    let limit = i64::try_from(query.limit()).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![plugin, query.prefix, after, limit])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        let key: String = row.get(0)?;
        if !key.starts_with(&query.prefix) {
            break;
        }
        keys.push(key);
    }
    Ok(keys)
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
}

impl StateCache {
    pub(super) fn get(&self, plugin: &PluginName, key: &str) -> Option<Value> {
        let known = self.lock();
        known.values.get(plugin)?.get(key).cloned()
    }

    /// What was read; what was handed in meanwhile is newer.
    pub(super) fn read(&self, plugin: &PluginName, key: &str, value: Value) {
        if self.get(plugin, key).is_none() {
            self.lock().put(plugin, key, value);
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
        let mut known = self.lock();
        for change in changes {
            let Some(values) = known.values.get_mut(&change.plugin) else { continue };
            for key in change.reads.keys().chain(change.writes.keys()) {
                values.remove(key);
            }
        }
    }

    pub(super) fn clear(&self) {
        *self.lock() = Known::default();
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
            *self = Self::default();
        }
        if let Some(values) = self.values.get_mut(plugin) {
            values.insert(key.to_owned(), value);
        } else {
            self.values.insert(plugin.clone(), HashMap::from([(key.to_owned(), value)]));
        }
    }
}

impl Books {
    /// Whether every change is of what is there now; the first that is not, or that would be too
    /// much, is the answer.
    pub(super) fn check_state(
        &mut self,
        connection: &Connection,
        changes: &[StateChange],
    ) -> Result<Option<Appended>> {
        for (index, change) in changes.iter().enumerate() {
            if !is_current(connection, change, &changes[..index])? {
                return Ok(Some(Appended::StateChanged(index)));
            }
            let bytes = self.bytes(connection, &change.plugin, &changes[..=index])?;
            // What makes it smaller is always taken.
            if bytes > change.bytes_max
                && bytes > self.bytes(connection, &change.plugin, &changes[..index])?
            {
                return Ok(Some(Appended::StateFull(index)));
            }
        }
        Ok(None)
    }

    pub(super) fn write_state(
        &mut self,
        connection: &Connection,
        changes: &[StateChange],
    ) -> Result<()> {
        // Before anything is written: it counts from what is there.
        let bytes = |change: &StateChange| {
            Ok((change.plugin.clone(), self.bytes(connection, &change.plugin, changes)?))
        };
        let bytes = changes.iter().map(bytes).collect::<Result<Vec<_>>>()?;
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

    /// Bytes of the keys and values of a plugin after the changes.
    fn bytes(
        &self,
        connection: &Connection,
        plugin: &PluginName,
        changes: &[StateChange],
    ) -> Result<u64> {
        let changes = changes.iter().filter(|change| change.plugin == *plugin);
        let writes: BTreeMap<_, _> = changes.flat_map(|change| &change.writes).collect();
        let known = self.state_bytes.get(plugin);
        let plugin = plugin.as_str();
        let mut bytes = match known {
            Some(bytes) => *bytes,
            None => connection.query_row(
                "SELECT coalesce(sum(octet_length(key) + octet_length(value)), 0) FROM state
                 WHERE plugin = ?1",
                [plugin],
                |row| row.get::<_, i64>(0).map(i64::unsigned_abs),
            )?,
        };
        for (key, value) in writes {
            let before: Option<i64> = connection
                .prepare_cached(
                    "SELECT octet_length(value) FROM state WHERE plugin = ?1 AND key = ?2",
                )?
                .query_row(params![plugin, key], |row| row.get(0))
                .optional()?;
            let of = |value: u64| key.len() as u64 + value;
            bytes -= before.map_or(0, |before| of(before.unsigned_abs())).min(bytes);
            bytes += value.as_ref().map_or(0, |value| of(value.len() as u64));
        }
        Ok(bytes)
    }
}

/// Whether a call would see the same again, after the changes of the same append before it.
fn is_current(
    connection: &Connection,
    change: &StateChange,
    before: &[StateChange],
) -> Result<bool> {
    let plugin = change.plugin.as_str();
    let before = || before.iter().filter(|other| other.plugin == change.plugin);
    for (key, seen) in &change.reads {
        let now = match before().rev().find_map(|other| other.writes.get(key)) {
            Some(written) => written.clone(),
            None => get(connection, plugin, key)?,
        };
        if now != *seen {
            return Ok(false);
        }
    }
    for list in &change.lists {
        let mut written = before().flat_map(|other| other.writes.keys());
        if written.any(|key| list.query.covers(key))
            || keys(connection, plugin, &list.query)? != list.keys
        {
            return Ok(false);
        }
    }
    Ok(true)
}
