//! What the writer looks at before it decides about the appends of a batch.
//!
//! Only this host writes to the sagas of its shards while it has the fence, which the transaction compares. So what was
//! read of them before the transaction is still so in it. Plugins' state is read within the transaction, under its
//! locks. What else another host may write meanwhile fails the transaction by a key that is there already, and is then
//! looked at again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use amends_engine::{Digest, PluginName, SagaId, StateQuery, Version};
use futures::future::try_join_all;
use futures::try_join;
use uuid::Uuid;

use super::connection::Pg;
use super::error::Result;
use super::text::{read_text, saga_of, stored_text, stream_text, uuid_of};
use crate::append::Append;
use crate::stream::Stream;

/// What is known of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct StreamState {
    pub(super) version: Version,
    /// The saga has a row.
    pub(super) has_row: bool,
    /// The saga has ended, so another host may be about to move it to the archive.
    pub(super) has_ended: bool,
    /// The saga is in the archive, so that nothing is appended to it.
    pub(super) is_archived: bool,
}

/// A key of a plugin's state.
pub(super) type StateKey = (PluginName, String);

/// The place of a list among the appends of a batch: those of the append, the change and the list.
pub(super) type ListPlace = (usize, usize, usize);

/// What the appends of a batch depend on. The plan of a batch changes it as it goes on.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) streams: HashMap<Stream, StreamState>,
    pub(super) keys: HashMap<String, (SagaId, Digest)>,
    pub(super) values: HashMap<StateKey, Option<Arc<str>>>,
    pub(super) lists: HashMap<ListPlace, Vec<String>>,
    pub(super) state_bytes: HashMap<PluginName, u64>,
    /// The sagas that nobody has looked at, because their first append says that they are new. One that has events
    /// fails the transaction by its key, and one that is archived has to.
    pub(super) assumed_new: Vec<Uuid>,
}

/// Looks at all that some appends depend on and that the writer does not know, in one round trip. With `assumes_new`,
/// it does not look at sagas that begin.
pub(super) async fn look_up(
    pg: &Pg,
    appends: &[&Append],
    streams: &HashMap<Stream, StreamState>,
    state_bytes: &HashMap<PluginName, u64>,
    assumes_new: bool,
) -> Result<Seen> {
    let mut seen = Seen::default();
    let (mut sagas, mut others, mut keys) = (HashSet::new(), HashSet::new(), HashSet::new());
    let (mut state, mut plugins, mut lists) = (HashSet::new(), HashSet::new(), Vec::new());
    for (number, append) in appends.iter().enumerate() {
        match (streams.get(&append.stream), append.stream.saga()) {
            (Some(known), _) => drop(seen.streams.insert(append.stream.clone(), *known)),
            // What is looked at for a later append of the saga replaces this.
            (None, Some(saga)) if assumes_new && append.expected == Version(0) => {
                seen.streams.insert(append.stream.clone(), StreamState::default());
                seen.assumed_new.push(uuid_of(saga));
            }
            (None, Some(saga)) => drop(sagas.insert(uuid_of(saga))),
            (None, None) => drop(others.insert(append.stream.clone())),
        }
        keys.extend(append.start_key.iter().map(|key| stored_text(&key.key)));
        for (at, change) in append.state.iter().enumerate() {
            let plugin = &change.plugin;
            match state_bytes.get(plugin) {
                Some(bytes) => drop(seen.state_bytes.insert(plugin.clone(), *bytes)),
                None => drop(plugins.insert(plugin.clone())),
            }
            let of_change = change.reads.keys().chain(change.written());
            state.extend(of_change.map(|key| (plugin.clone(), key.clone())));
            let of_change = change.lists.iter().enumerate();
            lists.extend(of_change.map(|(list, one)| ((number, at, list), plugin, &one.query)));
        }
    }
    let lists = lists.into_iter().map(|(place, plugin, query)| async move {
        Ok((place, state_keys(pg, plugin, query).await?))
    });
    let (of_sagas, of_others, of_keys, of_state, of_plugins, of_lists) = try_join!(
        look_at_sagas(pg, sagas.into_iter().collect()),
        look_at_streams(pg, others.into_iter().collect()),
        look_at_keys(pg, keys.into_iter().collect()),
        look_at_state(pg, state.into_iter().collect()),
        look_at_bytes(pg, plugins.into_iter().collect()),
        try_join_all(lists),
    )?;
    seen.streams.extend(of_sagas);
    seen.streams.extend(of_others);
    seen.keys = of_keys;
    seen.values = of_state;
    seen.state_bytes.extend(of_plugins);
    seen.lists = of_lists.into_iter().collect();
    Ok(seen)
}

async fn look_at_sagas(pg: &Pg, ids: Vec<Uuid>) -> Result<Vec<(Stream, StreamState)>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = "SELECT u.id,
            (SELECT a.version FROM appends a WHERE a.saga = u.id ORDER BY a.first DESC LIMIT 1),
            (SELECT s.ended_at IS NOT NULL FROM sagas s WHERE s.id = u.id),
            (SELECT x.version FROM archived x WHERE x.saga = u.id)
        FROM unnest($1::uuid[]) AS u(id)";
    let rows = pg.query(sql, &[&ids]).await?;
    rows.iter()
        .map(|row| {
            let version: Option<i64> = row.try_get(1)?;
            let (ended, archived): (Option<bool>, Option<i64>) = (row.try_get(2)?, row.try_get(3)?);
            let state = StreamState {
                version: Version(version.or(archived).unwrap_or(0).unsigned_abs()),
                has_row: ended.is_some(),
                has_ended: ended.unwrap_or(false),
                is_archived: version.is_none() && archived.is_some(),
            };
            Ok((Stream::Saga(saga_of(row.try_get(0)?)), state))
        })
        .collect()
}

async fn look_at_streams(pg: &Pg, streams: Vec<Stream>) -> Result<Vec<(Stream, StreamState)>> {
    if streams.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<_> = streams.iter().map(stream_text).collect();
    let sql = "SELECT u.number,
            (SELECT a.version FROM appends a WHERE a.stream = u.name ORDER BY a.first DESC LIMIT 1)
        FROM unnest($1::text[]) WITH ORDINALITY AS u(name, number)";
    let rows = pg.query(sql, &[&names]).await?;
    rows.iter()
        .map(|row| {
            let number = usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or(1) - 1;
            let version: Option<i64> = row.try_get(1)?;
            let version = Version(version.unwrap_or(0).unsigned_abs());
            Ok((streams[number].clone(), StreamState { version, ..StreamState::default() }))
        })
        .collect()
}

async fn look_at_keys(pg: &Pg, keys: Vec<String>) -> Result<HashMap<String, (SagaId, Digest)>> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = "SELECT key, saga, payload_digest FROM start_keys WHERE key = ANY($1)";
    let rows = pg.query(sql, &[&keys]).await?;
    rows.iter()
        .map(|row| {
            let known = (saga_of(row.try_get(1)?), super::columns::digest(row, 2)?);
            Ok((read_text(row.try_get(0)?), known))
        })
        .collect()
}

async fn look_at_state(
    pg: &Pg,
    keys: Vec<StateKey>,
) -> Result<HashMap<StateKey, Option<Arc<str>>>> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let plugins: Vec<_> = keys.iter().map(|(plugin, _)| plugin.as_str()).collect();
    let names: Vec<_> = keys.iter().map(|(_, key)| stored_text(key)).collect();
    let sql = "SELECT u.number, s.value FROM unnest($1::text[], $2::text[]) WITH ORDINALITY
               AS u(plugin, key, number) JOIN state s ON s.plugin = u.plugin AND s.key = u.key";
    let rows = pg.query(sql, &[&plugins, &names]).await?;
    let mut found = HashMap::with_capacity(keys.len());
    for row in &rows {
        let number = usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or(1) - 1;
        let value = read_text(row.try_get(1)?);
        let _ = found.insert(keys[number].clone(), Some(Arc::from(value)));
    }
    for key in keys {
        found.entry(key).or_default();
    }
    Ok(found)
}

async fn look_at_bytes(pg: &Pg, plugins: Vec<PluginName>) -> Result<Vec<(PluginName, u64)>> {
    let of_plugin = |plugin: PluginName| async move {
        let sql = "SELECT coalesce(sum(octet_length(key) + octet_length(value)), 0)::int8
                   FROM state WHERE plugin = $1";
        let row = pg.first(sql, &[&plugin.as_str()]).await?;
        let bytes: i64 = row.map_or(Ok(0), |row| row.try_get(0))?;
        Ok((plugin, bytes.unsigned_abs()))
    };
    try_join_all(plugins.into_iter().map(of_plugin)).await
}

/// Returns keys of a plugin's state in the order of their bytes.
pub(super) async fn state_keys(
    pg: &Pg,
    plugin: &PluginName,
    query: &StateQuery,
) -> Result<Vec<String>> {
    let sql = "SELECT key FROM state WHERE plugin = $1 AND key >= $2 AND key > $3
               AND starts_with(key, $2) ORDER BY key LIMIT $4";
    let after = query.after.as_deref().unwrap_or_default();
    let limit = i64::try_from(query.limit()).unwrap_or(i64::MAX);
    let (prefix, after) = (stored_text(&query.prefix), stored_text(after));
    let rows = pg.query(sql, &[&plugin.as_str(), &prefix, &after, &limit]).await?;
    rows.iter().map(|row| Ok(read_text(row.try_get(0)?))).collect()
}
