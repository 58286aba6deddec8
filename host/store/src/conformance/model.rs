//! A store of a few maps, to compare a real one with: what it does is what is right.

use std::collections::BTreeMap;
use std::sync::Arc;

use amends_engine::{
    Digest, PluginName, Position, SagaId, SagaStatus, StateList, StateQuery, StepName, Timestamp,
    Version,
};

use crate::{
    Append, Appended, FailedCall, FailureQuery, GroupBy, LiveSaga, SagaFailure, SagaGroup,
    SagaGroups, SagaQuery, SagaRow, StoreError, StoredEvent, Stream,
};

/// What a store must hold.
#[derive(Debug, Clone, Default)]
pub struct Model {
    log: Vec<StoredEvent>,
    rows: BTreeMap<SagaId, SagaRow>,
    /// The last failure of each step and call.
    failures: BTreeMap<(SagaId, Option<StepName>, FailedCall), SagaFailure>,
    keys: BTreeMap<String, (SagaId, Digest)>,
    state: BTreeMap<(PluginName, String), Arc<str>>,
}

impl Model {
    /// As [`Shard::append`](crate::Shard::append).
    ///
    /// # Errors
    /// As there.
    pub fn append(&mut self, append: &Append) -> Result<Appended, StoreError> {
        append.check()?;
        if let Some(start_key) = &append.start_key
            && let Some((saga, digest)) = self.keys.get(&start_key.key)
        {
            let same = *digest == start_key.payload_digest;
            return Ok(if same { Appended::Duplicate(*saga) } else { Appended::KeyReused(*saga) });
        }
        let actual = Version(self.events(&append.stream).len() as u64);
        if actual != append.expected {
            let (stream, expected) = (append.stream.clone(), append.expected);
            return Err(StoreError::Conflict { stream, expected, actual });
        }
        let mut state = self.state.clone();
        for (index, change) in append.state.iter().enumerate() {
            let key = |key: &String| (change.plugin.clone(), key.clone());
            let is_read =
                |(name, seen): (&String, &Option<Arc<str>>)| state.get(&key(name)) == seen.as_ref();
            // A list is not compared with what the same append writes of it before.
            let before = append.state[..index].iter();
            let written: Vec<_> = before
                .filter(|other| other.plugin == change.plugin)
                .flat_map(|other| {
                    let added = other.counters.iter().filter(|(_, counter)| counter.delta != 0);
                    other.writes.keys().chain(added.map(|(key, _)| key))
                })
                .collect();
            let is_listed = |list: &StateList| {
                !written.iter().any(|key| list.query.covers(key))
                    && list.keys == keys(&state, &change.plugin, &list.query)
            };
            if !change.reads.iter().all(is_read) || !change.lists.iter().all(is_listed) {
                return Ok(Appended::StateChanged(index));
            }
            let bytes = |state: &BTreeMap<(PluginName, String), Arc<str>>| {
                let of_plugin = state.iter().filter(|((plugin, _), _)| *plugin == change.plugin);
                of_plugin.map(|((_, key), value)| key.len() + value.len()).sum::<usize>() as u64
            };
            let before = bytes(&state);
            for (name, counter) in &change.counters {
                let value = state.get(&key(name)).map(Arc::clone);
                let Some(sum) = counter.after(value.as_deref()) else {
                    return Ok(Appended::StateChanged(index));
                };
                if counter.delta != 0 {
                    state.insert(key(name), sum.to_string().into());
                }
            }
            for (name, value) in &change.writes {
                match value {
                    Some(value) => drop(state.insert(key(name), Arc::clone(value))),
                    None => drop(state.remove(&key(name))),
                }
            }
            if bytes(&state) > change.bytes_max.max(before) {
                return Ok(Appended::StateFull(index));
            }
        }
        self.state = state;
        self.log.extend(stored(append, self.log.len() as u64 + 1));
        if let Some(row) = &append.row {
            let first = self.rows.entry(row.id).or_insert_with(|| row.clone());
            first.status = row.status;
            first.reason.clone_from(&row.reason);
            first.ended_at = row.ended_at;
            first.deadline_at = row.deadline_at;
            first.wake_at = row.wake_at;
        }
        if let Stream::Saga(id) = &append.stream {
            for failure in &append.failures {
                let key = (*id, failure.step.clone(), failure.call);
                self.failures.insert(key, failure.clone());
            }
        }
        if let (Some(start_key), Stream::Saga(id)) = (&append.start_key, &append.stream) {
            self.keys.insert(start_key.key.clone(), (*id, start_key.payload_digest));
        }
        Ok(Appended::Done { version: actual.plus(append.events.len()) })
    }

    /// The value of a key of a plugin's state.
    #[must_use]
    pub fn state(&self, plugin: &PluginName, key: &str) -> Option<Arc<str>> {
        self.state.get(&(plugin.clone(), key.to_owned())).cloned()
    }

    /// Keys of a plugin's state.
    #[must_use]
    pub fn state_keys(&self, plugin: &PluginName, query: &StateQuery) -> Vec<String> {
        keys(&self.state, plugin, query)
    }

    /// All events of a stream.
    #[must_use]
    pub fn events(&self, stream: &Stream) -> Vec<StoredEvent> {
        self.log.iter().filter(|event| event.stream == *stream).cloned().collect()
    }

    /// All events.
    #[must_use]
    pub fn log(&self) -> &[StoredEvent] {
        &self.log
    }

    /// As [`SagaIndex::row`](crate::SagaIndex::row).
    #[must_use]
    pub fn saga(&self, id: SagaId) -> Option<&SagaRow> {
        self.rows.get(&id)
    }

    /// As [`SagaIndex::key`](crate::SagaIndex::key).
    #[must_use]
    pub fn key(&self, key: &str) -> Option<(SagaId, Digest)> {
        self.keys.get(key).copied()
    }

    /// As [`SagaIndex::list`](crate::SagaIndex::list).
    #[must_use]
    pub fn list(&self, query: &SagaQuery) -> Vec<SagaRow> {
        let has_failure = |id| {
            let mut failures = self.failures.iter().filter(|((saga, ..), _)| *saga == id);
            query.failure.is_empty() || failures.any(|(_, failure)| query.failure.fits(failure))
        };
        let matches = |row: &&SagaRow| {
            query.fits(row)
                && has_failure(row.id)
                && query.before.is_none_or(|before| row.id < before)
        };
        let limit = query.limit as usize;
        self.rows.values().rev().filter(matches).take(limit).cloned().collect()
    }

    /// As [`SagaIndex::groups`](crate::SagaIndex::groups).
    #[must_use]
    pub fn groups(&self, query: &SagaQuery, by: &[GroupBy]) -> SagaGroups {
        let mut groups: BTreeMap<Vec<Option<String>>, SagaGroup> = BTreeMap::new();
        let listed = self.list(query);
        for row in &listed {
            let values: Vec<_> = by.iter().map(|by| self.value(query, row, by)).collect();
            let first = || SagaGroup {
                values: values.clone(),
                sagas: 0,
                oldest: row.started_at,
                example: row.id,
            };
            let group = groups.entry(values.clone()).or_insert_with(first);
            group.sagas += 1;
            // The newest comes first.
            (group.oldest, group.example) = (row.started_at, row.id);
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.sagas));
        SagaGroups { sagas: listed.len() as u64, groups, more: 0 }
    }

    fn value(&self, query: &SagaQuery, row: &SagaRow, by: &GroupBy) -> Option<String> {
        let sought = FailureQuery { text: None, ..query.failure.clone() };
        let failures = self.failures.iter().filter(|((saga, ..), failure)| {
            *saga == row.id && failure.call != FailedCall::Block && sought.fits(failure)
        });
        // All failures of a saga are of one append here.
        let last = failures.map(|(_, failure)| failure).max_by_key(|failure| failure.event);
        match by {
            GroupBy::Status => Some(row.status.as_str().to_owned()),
            GroupBy::Definition => Some(row.definition.to_string()),
            GroupBy::Reason => row.reason.clone(),
            GroupBy::Step => last.map(|failure| {
                let undo = if failure.call == FailedCall::Compensate { " undo" } else { "" };
                let step = failure.step.as_ref().map_or("", |step| step.step());
                format!("{step}{undo}")
            }),
            GroupBy::Code => last.map(|failure| failure.code.clone()),
            GroupBy::Index(name) => row.index.get(name).map(ToString::to_string),
        }
    }

    /// As [`SagaIndex::live`](crate::SagaIndex::live), without a limit.
    #[must_use]
    pub fn live(&self) -> Vec<LiveSaga> {
        let live = self.rows.values().filter(|row| row.ended_at.is_none());
        let content = |row: &SagaRow| Ok((row.clone(), self.events(&Stream::Saga(row.id))));
        live.map(|row| LiveSaga { id: row.id, content: content(row) }).collect()
    }

    /// As [`SagaIndex::waiting`](crate::SagaIndex::waiting), without a limit.
    #[must_use]
    pub fn waiting(&self) -> Vec<(SagaId, Timestamp)> {
        let latest = |id| self.events(&Stream::Saga(id)).iter().map(|event| event.at).max();
        let waiting = self.rows.values().filter(|row| is_waiting(row));
        waiting.map(|row| (row.id, latest(row.id).unwrap_or_default())).collect()
    }

    /// As [`SagaIndex::due`](crate::SagaIndex::due), without a limit.
    #[must_use]
    pub fn due(&self, until: Timestamp) -> Vec<(Timestamp, SagaId)> {
        let waiting = self.rows.values().filter(|row| is_waiting(row));
        let due = waiting.filter_map(|row| Some((row.wake_at.filter(|at| *at <= until)?, row.id)));
        let mut due: Vec<_> = due.collect();
        due.sort_unstable();
        due
    }

    /// As [`SagaIndex::counts`](crate::SagaIndex::counts).
    #[must_use]
    pub fn counts(&self) -> BTreeMap<SagaStatus, u64> {
        let mut counts = BTreeMap::new();
        for row in self.rows.values() {
            *counts.entry(row.status).or_insert(0) += 1;
        }
        counts
    }
}

/// The events of an append as they are stored when the first is at `position`.
pub(super) fn stored(append: &Append, position: u64) -> Vec<StoredEvent> {
    let event = |(event, offset): (&crate::NewEvent, u64)| StoredEvent {
        position: Position(position + offset),
        stream: append.stream.clone(),
        version: Version(append.expected.0 + offset + 1),
        at: append.at,
        kind: event.kind.clone().into_owned(),
        data: event.data.clone(),
    };
    append.events.iter().zip(0..).map(event).collect()
}

fn is_waiting(row: &SagaRow) -> bool {
    row.status == SagaStatus::Waiting && row.ended_at.is_none()
}

fn keys(
    state: &BTreeMap<(PluginName, String), Arc<str>>,
    plugin: &PluginName,
    query: &StateQuery,
) -> Vec<String> {
    let of_plugin = state.keys().filter(|(owner, key)| owner == plugin && query.covers(key));
    of_plugin.map(|(_, key)| key.clone()).take(query.limit()).collect()
}
