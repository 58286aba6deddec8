//! The rows of a saga in the projections, derived from its events alone.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use amends_engine::{
    Definition, Digest, Event, Position, SagaEvent, SagaId, Timestamp, Version, replay,
};
use rusqlite::{Connection, Result};

use super::clock::now;
use super::column::readable;
use super::read;
use crate::append::StartKey;
use crate::archive::START_KEY_RETENTION;
use crate::blob::BlobKind;
use crate::saga_failure::{SagaFailure, failures};
use crate::saga_row::SagaRow;

/// The most definitions that are kept compiled. Sagas that follow each other are mostly of a few.
const DEFINITIONS_KEPT_MAX: usize = 64;

/// The events that end a saga.
const END_KINDS: [&str; 3] = ["saga.completed", "saga.compensated", "saga.abandoned"];

/// What the projections should have of a saga.
pub(super) struct DerivedSaga {
    pub(super) row: SagaRow,
    /// The version of the saga that this is derived from.
    pub(super) version: Version,
    /// The last failure of each step and call with the position of its event, in the order of the log.
    pub(super) failures: Vec<(Position, SagaFailure)>,
    /// The key that started the saga, and when.
    pub(super) start_key: Option<(StartKey, Timestamp)>,
    /// True when the key may have been removed: keys of archived sagas are, so long after their end, and
    /// a saga may have come back since.
    pub(super) may_lack_key: bool,
    /// The bytes of its events.
    pub(super) bytes: usize,
}

/// The definitions that sagas are pinned to, as far as they were read.
#[derive(Default)]
pub(super) struct PinnedDefinitions(HashMap<Digest, std::result::Result<Arc<Definition>, String>>);

impl PinnedDefinitions {
    /// Returns a definition. The inner error says why it cannot be read.
    fn get(
        &mut self,
        connection: &Connection,
        digest: Digest,
    ) -> Result<std::result::Result<Arc<Definition>, String>> {
        if let Some(known) = self.0.get(&digest) {
            return Ok(known.clone());
        }
        let stored = readable(read::blob(connection, BlobKind::Definition, digest), "bytes")?;
        let definition = stored
            .and_then(|bytes| {
                bytes.ok_or_else(|| format!("its definition {digest} is not in the store"))
            })
            .and_then(|bytes| {
                Definition::from_canonical(&String::from_utf8_lossy(&bytes))
                    .map_err(|error| format!("its definition {digest} cannot be read: {error}"))
            })
            .map(Arc::new);
        if self.0.len() >= DEFINITIONS_KEPT_MAX {
            self.0.clear();
        }
        self.0.insert(digest, definition.clone());
        Ok(definition)
    }
}

/// Derives the rows of a saga. The inner error says why its events cannot be folded, for people.
pub(super) fn derive(
    connection: &Connection,
    definitions: &mut PinnedDefinitions,
    id: SagaId,
) -> Result<std::result::Result<DerivedSaga, String>> {
    let log = match read::readable_log(connection, id)? {
        Ok(log) => log,
        Err(reason) => return Ok(Err(reason)),
    };
    let bytes = log.iter().map(|event| event.data.len()).sum();
    let mut events = Vec::with_capacity(log.len());
    for stored in &log {
        match Event::decode(&stored.kind, &stored.data) {
            Ok(event) => events.push(event),
            Err(error) => return Ok(Err(format!("its event {}: {error}", stored.version.0))),
        }
    }
    let Some(Event::Saga(SagaEvent::Started(started))) = events.first() else {
        return Ok(Err("its log does not begin with saga.started".to_owned()));
    };
    let definition = match definitions.get(connection, started.definition_digest)? {
        Ok(definition) => definition,
        Err(reason) => return Ok(Err(reason)),
    };
    let times = log.iter().map(|stored| stored.at);
    let folded = catch_unwind(AssertUnwindSafe(|| {
        replay(id, definition, times.zip(&events)).map_err(|error| error.to_string())
    }));
    let saga = match folded {
        Ok(Ok(saga)) => saga,
        Ok(Err(reason)) => return Ok(Err(reason)),
        Err(_) => return Ok(Err("its events break an invariant of the engine".to_owned())),
    };
    let mut last = BTreeMap::new();
    for failure in failures(&events, |_, _| None) {
        let key = (failure.step.clone(), failure.call);
        last.insert(key, (log[failure.event].position, failure));
    }
    let mut failures: Vec<_> = last.into_values().collect();
    failures.sort_by_key(|(position, _)| *position);
    let start_key = started
        .key
        .as_deref()
        .map(|key| (StartKey::of(key, &started.definition, &started.input), saga.started_at()));
    // The first end: a saga that has come back may go on.
    let ended = log.iter().find(|stored| END_KINDS.contains(&stored.kind.as_str()));
    let may_lack_key = ended.is_some_and(|end| end.at < now().before(START_KEY_RETENTION));
    let (row, version) = (SagaRow::of(&saga), saga.version());
    Ok(Ok(DerivedSaga { row, version, failures, start_key, may_lack_key, bytes }))
}
