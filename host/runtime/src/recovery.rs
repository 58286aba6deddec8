//! What a host does before it goes on: checks its plugins and loads what is live.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::{
    Command, Definition, Event, PluginName, Saga, SagaId, SagaStatus, StepName, Target, Timestamp,
    Version, commands,
};
use amends_keys::{FoundKey, Keys};
use amends_registry::Registry;
use amends_store::{
    Append, EVENT_UNREADABLE, LiveSaga, LiveSagas, NewEvent, OwnedShards, SagaFailure, SagaRow,
    ShardId, Store, StoreError, StoredEvent, Stream, failures,
};

use crate::definitions::Definitions;
use crate::error::RuntimeError;
use crate::limits::SAGAS_PER_READ;
use crate::saga_state::{Loaded, RowState};
use crate::unseal::open_live_log;

/// A saga that cannot be read. Nothing touches it, and it does not stop the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The saga.
    pub id: SagaId,
    /// Why it cannot be read.
    pub reason: String,
}

/// The sagas that nothing touches: those that could not be read, and those that could not be
/// stepped since.
#[derive(Debug, Default)]
pub(crate) struct Quarantine(Mutex<BTreeMap<SagaId, String>>);

impl Quarantine {
    pub(crate) fn add(&self, id: SagaId, reason: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, reason);
    }

    /// Lets a saga go; `then` is done before anybody can learn of that. Whether it was there.
    pub(crate) fn release(&self, id: SagaId, then: impl FnOnce()) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let was_there = all.remove(&id).is_some();
        if was_there {
            then();
        }
        was_there
    }

    /// Forgets the sagas of a shard that another host owns.
    pub(crate) fn forget(&self, shard: ShardId) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|id, _| ShardId::of(*id) != shard);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn reason(&self, id: SagaId) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    pub(crate) fn list(&self) -> Vec<Quarantined> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(id, reason)| Quarantined { id: *id, reason: reason.clone() }).collect()
    }
}

#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) sagas: Vec<Loaded>,
    pub(crate) quarantined: Vec<Quarantined>,
}

/// What a host finds in its store when it starts, counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Sagas that have not ended and do not wait.
    sagas: usize,
    /// Of them, those that are being undone.
    compensating: usize,
    /// Those that need an operator.
    blocked: usize,
    /// Those that an operator holds.
    paused: usize,
    /// Calls of components that were cut off with the host before: nobody knows yet what came of them.
    calls_cut_off: usize,
    /// Sagas that nothing touches.
    quarantined: usize,
}

impl Recovered {
    pub(crate) fn found(&self) -> Found {
        let mut found = Found { quarantined: self.quarantined.len(), ..Found::default() };
        for Loaded { saga, .. } in &self.sagas {
            found.sagas += 1;
            match saga.status() {
                SagaStatus::Compensating => found.compensating += 1,
                SagaStatus::Blocked => found.blocked += 1,
                SagaStatus::Paused => found.paused += 1,
                SagaStatus::Running
                | SagaStatus::Waiting
                | SagaStatus::Completed
                | SagaStatus::Compensated
                | SagaStatus::Abandoned => {}
            }
            let is_call = |command: &Command| match command {
                Command::Run(call) => matches!(call.target, Target::Plugin(_)),
                Command::Start(_) | Command::CancelChild(_) | Command::Wake(_) => false,
            };
            found.calls_cut_off += commands(saga).filter(is_call).count();
        }
        found
    }
}

impl Found {
    /// `waiting`: the sagas of the store that wait.
    pub(crate) fn log(self, waiting: u64) {
        let Self { sagas, compensating, blocked, paused, calls_cut_off, quarantined } = self;
        tracing::info!(
            sagas = sagas as u64 + waiting,
            compensating,
            blocked,
            paused,
            calls_cut_off,
            quarantined,
            waiting,
            "the host goes on with the sagas of its store"
        );
    }
}

/// Loads every live saga of some shards. Those that wait are loaded when the clock or somebody wakes them.
pub(crate) async fn recover(
    store: &dyn Store,
    (definitions, keys): (&Definitions, &Keys),
    shards: &[ShardId],
) -> Result<Recovered, RuntimeError> {
    let mut recovered = Recovered { sagas: Vec::new(), quarantined: Vec::new() };
    let mut after = None;
    loop {
        let which = LiveSagas::NotWaiting;
        let page = store.sagas().live(shards.to_vec(), which, after, SAGAS_PER_READ).await?;
        let Some(last) = page.last() else { return Ok(recovered) };
        after = Some(last.id);
        for live in page {
            let id = live.id;
            match read(live, store, (definitions, keys)).await {
                Ok(saga) => recovered.sagas.push(saga),
                // That is no fault of the saga.
                Err(RuntimeError::Store(error)) if !matches!(error, StoreError::Damaged { .. }) => {
                    return Err(error.into());
                }
                Err(error @ RuntimeError::Keys(_)) => return Err(error),
                Err(error) => {
                    let reason = error.to_string();
                    tracing::error!(saga_id = %id, reason, "saga is quarantined");
                    recovered.quarantined.push(Quarantined { id, reason });
                }
            }
        }
    }
}

/// Folds a saga that was read.
///
/// # Errors
/// When it cannot be read, or the store fails.
pub(crate) async fn read(
    LiveSaga { id, content }: LiveSaga,
    store: &dyn Store,
    (definitions, keys): (&Definitions, &Keys),
) -> Result<Loaded, RuntimeError> {
    let (row, log) = content.map_err(|message| RuntimeError::Unreadable { saga: id, message })?;
    let definition = definitions.pinned(id, row.definition_digest, store).await?;
    let (opened, found) = open_live_log(keys, id, &log).await?;
    if found == Some(FoundKey::Missing) {
        // Its steps would be called without the values, and what they answer would be lost.
        let message = "the key of its personal values is not in the key file, and it was not erased; \
                       restore the newest backup of the key file, then restart the host";
        return Err(RuntimeError::Unreadable { saga: id, message: message.to_owned() });
    }
    let mut saga = replay(id, definition, &opened)?;
    if found == Some(FoundKey::Erased) {
        saga.set_erased();
    }
    let key = found.and_then(FoundKey::key);
    let last_at = last_at(saga.started_at(), &log);
    Ok(Loaded { saga, last_at, row: RowState::from(&row), key })
}

/// The latest time in a log. Earlier versions wrote times that went back with the clock.
pub(crate) fn last_at(began: Timestamp, log: &[StoredEvent]) -> Timestamp {
    log.iter().map(|event| event.at).fold(began, Timestamp::max)
}

/// Writes a log as that of a new saga, for a host that is not started yet: it goes on from there.
///
/// # Errors
/// When the log cannot be read, or the store fails.
pub async fn import(
    shards: &OwnedShards,
    id: SagaId,
    definition: Arc<Definition>,
    log: &[StoredEvent],
) -> Result<(), RuntimeError> {
    let saga = replay(id, definition, log)?;
    let all = log.iter().map(|stored| decode(id, stored)).collect::<Result<Vec<_>, _>>()?;
    let failed = failures(&all, |_, _| None);
    let mut expected = Version(0);
    for decided in log.chunk_by(|one, next| one.at == next.at) {
        let events = decided
            .iter()
            .map(|event| NewEvent { kind: event.kind.clone().into(), data: event.data.clone() });
        let append = Append {
            stream: Stream::Saga(id),
            expected,
            at: decided[0].at,
            events: events.collect(),
            // With the last: until then it is no saga.
            row: (expected.plus(decided.len()) == saga.version()).then(|| SagaRow::of(&saga)),
            failures: failures_of(&failed, expected, decided.len()),
            start_key: None,
            state: Vec::new(),
        };
        shards.append(append).await?;
        expected = expected.plus(decided.len());
    }
    Ok(())
}

/// Returns the failures among some events of a log: `length` after the version `before`.
fn failures_of(all: &[SagaFailure], before: Version, length: usize) -> Vec<SagaFailure> {
    let first = usize::try_from(before.0).unwrap_or(usize::MAX);
    let among = all.iter().filter_map(|failure| {
        let event = failure.event.checked_sub(first).filter(|event| *event < length)?;
        Some(SagaFailure { event, ..failure.clone() })
    });
    among.collect()
}

/// Folds a stored log, or the first page of one.
pub(crate) fn replay(
    id: SagaId,
    definition: Arc<Definition>,
    log: &[StoredEvent],
) -> Result<Saga, RuntimeError> {
    let first = log.first().map(|stored| decode(id, stored)).transpose()?;
    let first = first.iter().map(|event| (log[0].at, event));
    let mut saga = amends_engine::replay(id, definition, first)
        .map_err(|error| RuntimeError::Unreadable { saga: id, message: error.to_string() })?;
    go_on(&mut saga, log.get(1..).unwrap_or_default())?;
    Ok(saga)
}

/// Folds a later page of a stored log.
pub(crate) fn go_on(saga: &mut Saga, page: &[StoredEvent]) -> Result<(), RuntimeError> {
    let id = saga.id();
    for stored in page {
        let event = decode(id, stored)?;
        amends_engine::evolve(saga, stored.at, &event)
            .map_err(|error| RuntimeError::Unreadable { saga: id, message: error.to_string() })?;
    }
    Ok(())
}

fn decode(id: SagaId, stored: &StoredEvent) -> Result<Event, RuntimeError> {
    let unreadable = |why: &str| {
        let message = format!("event {}: {why}", stored.version.0);
        RuntimeError::Unreadable { saga: id, message }
    };
    if stored.kind == EVENT_UNREADABLE {
        return Err(unreadable(&stored.data));
    }
    Event::decode(&stored.kind, &stored.data).map_err(|error| unreadable(&error.to_string()))
}

/// Every plugin that a definition in force needs is there and exports what is wanted of it.
pub(crate) fn check_plugins(
    definitions: &[Definition],
    plugins: &Registry,
    folder: &Path,
) -> Result<(), RuntimeError> {
    for definition in definitions {
        for step in definition.steps() {
            let check = Check { definition, step: &step.name, plugins, folder };
            if let Some(plugin) = step.plugin() {
                check.exports(plugin, "action", "name a plugin that exports it")?;
            }
            if let Some(plugin) = step.undo_plugin() {
                check.exports(
                    plugin,
                    "undo",
                    "set undo = false, or name an undo plugin: undo = { plugin = \"…\" }",
                )?;
            }
        }
    }
    Ok(())
}

struct Check<'a> {
    definition: &'a Definition,
    step: &'a StepName,
    plugins: &'a Registry,
    folder: &'a Path,
}

impl Check<'_> {
    fn exports(
        &self,
        plugin: &PluginName,
        export: &'static str,
        remedy: &'static str,
    ) -> Result<(), RuntimeError> {
        let Some(component) = self.plugins.active(plugin) else {
            return Err(RuntimeError::PluginMissing {
                definition: self.definition.name().clone(),
                step: self.step.clone(),
                plugin: plugin.clone(),
                refused: self
                    .plugins
                    .info(plugin)
                    .and_then(|info| info.rejections.into_iter().next())
                    .map(|rejection| rejection.reason),
                folder: self.folder.display().to_string(),
            });
        };
        let there = match export {
            "action" => component.exports.execute,
            _ => component.exports.compensate,
        };
        if there {
            return Ok(());
        }
        Err(RuntimeError::ExportMissing {
            definition: self.definition.name().clone(),
            step: self.step.clone(),
            plugin: plugin.clone(),
            export,
            remedy,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use amends_store::conformance::{TestStore, saga_id, start};
    use amends_store::{Durability, SqliteStore};

    use super::*;

    #[tokio::test]
    async fn a_row_that_cannot_be_read_stops_no_recovery() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("amends.db");
        let store = SqliteStore::open(&path, Durability::Full).unwrap();
        let store = TestStore::of(Arc::new(store)).await.unwrap();
        for number in 0..3 {
            store.append(start(number)).await.unwrap();
        }
        let damage = "UPDATE sagas SET status = 'lost' WHERE id = ?1";
        let connection = rusqlite::Connection::open(&path).unwrap();
        assert_eq!(connection.execute(damage, [saga_id(1).as_bytes()]).unwrap(), 1);
        let shards: Vec<_> = ShardId::all().collect();
        let definitions = Definitions::publish(Vec::new(), &*store).await.unwrap();
        let keys = Keys::in_memory().unwrap();
        let recovered = recover(&*store, (&definitions, &keys), &shards).await.unwrap();
        // The others come as far as their definition, which nobody has put into this store.
        let words = ["pinned to definition", "its row: status: `lost` is not", "pinned to"];
        assert_eq!(recovered.quarantined.len(), words.len());
        for ((quarantined, words), number) in recovered.quarantined.iter().zip(words).zip(0..) {
            assert_eq!(quarantined.id, saga_id(number));
            assert!(quarantined.reason.contains(words), "{}", quarantined.reason);
        }
        store.close().await.unwrap();
    }
}
