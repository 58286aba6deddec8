//! The rows of a saga in the projections, computed from its events and its definition.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use amends_engine::{
    Definition, Digest, Event, Position, SagaEvent, SagaId, Timestamp, Version, replay,
};

use crate::append::StartKey;
use crate::archive::START_KEY_RETENTION;
use crate::saga_failure::{SagaFailure, failures};
use crate::saga_row::SagaRow;
use crate::stored_event::StoredEvent;

/// The events that end a saga.
const END_KINDS: [&str; 3] = ["saga.completed", "saga.compensated", "saga.abandoned"];

/// What the projections should have of a saga.
pub(crate) struct DerivedSaga {
    pub(crate) row: SagaRow,
    /// The version of the saga that this is derived from.
    pub(crate) version: Version,
    /// The last failure of each step and call with the position of its event, in the order of the log.
    pub(crate) failures: Vec<(Position, SagaFailure)>,
    /// The key that started the saga, and when.
    pub(crate) start_key: Option<(StartKey, Timestamp)>,
    /// True when the key may have been removed: keys of archived sagas are, so long after their end, and
    /// a saga may have come back since.
    pub(crate) may_lack_key: bool,
    /// The bytes of its events.
    pub(crate) bytes: usize,
}

/// The events of a saga, decoded.
pub(crate) struct DecodedLog {
    log: Vec<StoredEvent>,
    events: Vec<Event>,
    /// The definition that the saga is pinned to.
    pub(crate) definition: Digest,
}

/// Decodes the events of a saga. An error says why they are none, for people.
pub(crate) fn decode(log: Vec<StoredEvent>) -> Result<DecodedLog, String> {
    let mut events = Vec::with_capacity(log.len());
    for stored in &log {
        match Event::decode(&stored.kind, &stored.data) {
            Ok(event) => events.push(event),
            Err(error) => return Err(format!("its event {}: {error}", stored.version.0)),
        }
    }
    let Some(Event::Saga(SagaEvent::Started(started))) = events.first() else {
        return Err("its log does not begin with saga.started".to_owned());
    };
    let definition = started.definition_digest;
    Ok(DecodedLog { log, events, definition })
}

/// Derives the rows of a saga. An error says why its events cannot be folded, for people.
pub(crate) fn derive(
    id: SagaId,
    decoded: &DecodedLog,
    definition: Arc<Definition>,
    now: Timestamp,
) -> Result<DerivedSaga, String> {
    let DecodedLog { log, events, .. } = decoded;
    let Some(Event::Saga(SagaEvent::Started(started))) = events.first() else {
        return Err("its log does not begin with saga.started".to_owned());
    };
    let times = log.iter().map(|stored| stored.at);
    let folded = catch_unwind(AssertUnwindSafe(|| {
        replay(id, definition, times.zip(events)).map_err(|error| error.to_string())
    }));
    let saga =
        folded.unwrap_or_else(|_| Err("its events break an invariant of the engine".to_owned()))?;
    let mut last = BTreeMap::new();
    for failure in failures(events, |_, _| None) {
        let key = (failure.step.clone(), failure.call);
        last.insert(key, (log[failure.event].position, failure));
    }
    let mut failures: Vec<_> = last.into_values().collect();
    failures.sort_by_key(|(position, _)| *position);
    let start_key = StartKey::of_started(started).map(|key| (key, saga.started_at()));
    // The first end: a saga that has come back may go on.
    let ended = log.iter().find(|stored| END_KINDS.contains(&stored.kind.as_str()));
    let may_lack_key = ended.is_some_and(|end| end.at < now.before(START_KEY_RETENTION));
    let bytes = log.iter().map(|event| event.data.len()).sum();
    let (row, version) = (SagaRow::of(&saga), saga.version());
    Ok(DerivedSaga { row, version, failures, start_key, may_lack_key, bytes })
}
