//! The rows that the appends of a batch write, a statement for each table.

use std::collections::{BTreeMap, HashMap};

use amends_engine::{Digest, SagaId, StepName, Timestamp};
use serde::Serialize;
use uuid::Uuid;

use super::connection::Value;
use super::seen::StateKey;
use super::text::{index_key, stored_text, stream_text, uuid_of, uuid_of_key};
use crate::append::{Append, StartKey};
use crate::events_text::events_column;
use crate::failure_query::words;
use crate::saga_failure::SagaFailure;
use crate::saga_row::SagaRow;
use crate::shard_id::ShardId;

/// A statement with its values.
pub(super) struct Write {
    pub(super) sql: &'static str,
    pub(super) values: Vec<Value>,
}

/// The most bytes of a word by which failures are found. A longer one is compared whole afterwards.
const LEXEME_BYTES_MAX: usize = 200;

/// What is written of one saga.
struct SagaWrite {
    /// The saga has no row yet.
    is_new: bool,
    row: SagaRow,
}

/// The rows of a batch, as far as it was planned.
#[derive(Default)]
pub(super) struct Rows {
    appends: AppendRows,
    sagas: HashMap<SagaId, SagaWrite>,
    failures: BTreeMap<(SagaId, Option<StepName>, &'static str), (i64, SagaFailure)>,
    keys: Vec<(StartKey, SagaId, Timestamp)>,
    /// Start keys are put in the place of those that are there. Otherwise one that is there fails the transaction.
    replaces_keys: bool,
    state: BTreeMap<StateKey, Option<std::sync::Arc<str>>>,
}

/// The columns of the appends.
#[derive(Default)]
struct AppendRows {
    lasts: Vec<i64>,
    sagas: Vec<Option<Uuid>>,
    streams: Vec<Option<String>>,
    firsts: Vec<i64>,
    versions: Vec<i64>,
    times: Vec<i64>,
    events: Vec<String>,
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Rows {
    /// Adds an append whose last event has a number in the batch. `has_row` says whether its saga has one.
    pub(super) fn add(&mut self, append: &Append, last: i64, has_row: bool) {
        let saga = append.stream.saga();
        let events = integer(append.events.len() as u64);
        let rows = &mut self.appends;
        rows.lasts.push(last);
        rows.sagas.push(saga.map(uuid_of));
        rows.streams.push(saga.is_none().then(|| stream_text(&append.stream)));
        rows.firsts.push(integer(append.expected.0) + 1);
        rows.versions.push(integer(append.expected.0) + events);
        rows.times.push(append.at.as_millis());
        rows.events.push(stored_text(&events_column(&append.events)));
        if let Some(row) = &append.row {
            self.put_row(row, !has_row);
        }
        let Some(saga) = saga else { return };
        for failure in &append.failures {
            let version = integer(append.expected.0) + 1 + integer(failure.event as u64);
            self.add_failure(saga, version, failure.clone());
        }
        if let Some(key) = &append.start_key {
            self.keys.push((key.clone(), saga, append.at));
        }
    }

    /// Adds a failure by the version of its event.
    pub(super) fn add_failure(&mut self, saga: SagaId, version: i64, failure: SagaFailure) {
        let key = (saga, failure.step.clone(), failure.call.as_str());
        self.failures.insert(key, (version, failure));
    }

    /// Puts a start key in the place of one that may be there.
    pub(super) fn replace_key(&mut self, key: StartKey, saga: SagaId, at: Timestamp) {
        self.replaces_keys = true;
        self.keys.push((key, saga, at));
    }

    /// Adds the row of a saga. What a saga began with is that of its first row.
    pub(super) fn put_row(&mut self, row: &SagaRow, is_new: bool) {
        if let Some(write) = self.sagas.get_mut(&row.id) {
            let first = &mut write.row;
            first.status = row.status;
            first.reason.clone_from(&row.reason);
            first.ended_at = row.ended_at;
            first.deadline_at = row.deadline_at;
            first.wake_at = row.wake_at;
        } else {
            self.sagas.insert(row.id, SagaWrite { is_new, row: row.clone() });
        }
    }

    /// Adds a value of a plugin's state.
    pub(super) fn put_state(&mut self, key: StateKey, value: Option<std::sync::Arc<str>>) {
        self.state.insert(key, value);
    }

    /// Returns the statements, in an order in which they may run.
    pub(super) fn into_writes(self) -> Vec<Write> {
        let mut writes = Vec::new();
        let mut add = |sql: &'static str, values: Vec<Value>| writes.push(Write { sql, values });
        let rows = self.appends;
        if !rows.lasts.is_empty() {
            add(
                "INSERT INTO appends (last, saga, stream, first, version, at, events)
                 SELECT * FROM unnest($1::int8[], $2::uuid[], $3::text[], $4::int8[], $5::int8[],
                     $6::int8[], $7::text[])",
                vec![
                    Box::new(rows.lasts),
                    Box::new(rows.sagas),
                    Box::new(rows.streams),
                    Box::new(rows.firsts),
                    Box::new(rows.versions),
                    Box::new(rows.times),
                    Box::new(rows.events),
                ],
            );
        }
        let (new, changed): (Vec<_>, Vec<_>) =
            self.sagas.into_values().partition(|write| write.is_new);
        insert_sagas(&new, &mut add);
        update_sagas(&changed, &mut add);
        put_failures(self.failures, &mut add);
        put_keys(&self.keys, self.replaces_keys, &mut add);
        put_state(self.state, &mut add);
        writes
    }
}

fn insert_sagas(new: &[SagaWrite], add: &mut impl FnMut(&'static str, Vec<Value>)) {
    if new.is_empty() {
        return;
    }
    let rows = || new.iter().map(|write| &write.row);
    let time = |time: Option<Timestamp>| time.map(Timestamp::as_millis);
    let text = |text: &Option<String>| text.as_deref().map(stored_text);
    let shard = |row: &SagaRow| i16::try_from(ShardId::of(row.id).number()).unwrap_or(i16::MAX);
    let subject_key = |row: &SagaRow| row.subject_key.map(uuid_of_key);
    let digest = |row: &SagaRow| row.definition_digest.as_bytes().to_vec();
    add(
        "INSERT INTO sagas (id, shard, definition, definition_digest, status, reason, started_at, ended_at,
             deadline_at, wake_at, tags, key, index_values, subject_key)
         SELECT * FROM unnest($1::uuid[], $2::int2[], $3::text[], $4::bytea[], $5::text[], $6::text[],
             $7::int8[], $8::int8[], $9::int8[], $10::int8[], $11::text[], $12::text[], $13::text[], $14::uuid[])",
        vec![
            Box::new(rows().map(|row| uuid_of(row.id)).collect::<Vec<_>>()),
            Box::new(rows().map(shard).collect::<Vec<_>>()),
            Box::new(rows().map(|row| row.definition.to_string()).collect::<Vec<_>>()),
            Box::new(rows().map(digest).collect::<Vec<_>>()),
            Box::new(rows().map(|row| row.status.as_str()).collect::<Vec<_>>()),
            Box::new(rows().map(|row| text(&row.reason)).collect::<Vec<_>>()),
            Box::new(rows().map(|row| row.started_at.as_millis()).collect::<Vec<_>>()),
            Box::new(rows().map(|row| time(row.ended_at)).collect::<Vec<_>>()),
            Box::new(rows().map(|row| time(row.deadline_at)).collect::<Vec<_>>()),
            Box::new(rows().map(|row| time(row.wake_at)).collect::<Vec<_>>()),
            Box::new(rows().map(|row| json(&row.tags)).collect::<Vec<_>>()),
            Box::new(rows().map(|row| text(&row.key)).collect::<Vec<_>>()),
            Box::new(rows().map(|row| json(&row.index)).collect::<Vec<_>>()),
            Box::new(rows().map(subject_key).collect::<Vec<_>>()),
        ],
    );
    let tags = || rows().flat_map(|row| row.tags.iter().map(|tag| (row.id, tag)));
    if tags().next().is_some() {
        add(
            "INSERT INTO saga_tags SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[])
             ON CONFLICT DO NOTHING",
            vec![
                Box::new(tags().map(|(_, (name, _))| stored_text(name)).collect::<Vec<_>>()),
                Box::new(tags().map(|(_, (_, value))| stored_text(value)).collect::<Vec<_>>()),
                Box::new(tags().map(|(id, _)| uuid_of(id)).collect::<Vec<_>>()),
            ],
        );
    }
    let index = || rows().flat_map(|row| row.index.iter().map(|value| (row.id, value)));
    if index().next().is_some() {
        add(
            "INSERT INTO saga_index SELECT * FROM unnest($1::text[], $2::bytea[], $3::uuid[])
             ON CONFLICT DO NOTHING",
            vec![
                Box::new(index().map(|(_, (name, _))| name.to_string()).collect::<Vec<_>>()),
                Box::new(index().map(|(_, (_, value))| index_key(value)).collect::<Vec<_>>()),
                Box::new(index().map(|(id, _)| uuid_of(id)).collect::<Vec<_>>()),
            ],
        );
    }
}

fn update_sagas(changed: &[SagaWrite], add: &mut impl FnMut(&'static str, Vec<Value>)) {
    if changed.is_empty() {
        return;
    }
    let rows = || changed.iter().map(|write| &write.row);
    let time = |time: Option<Timestamp>| time.map(Timestamp::as_millis);
    let text = |text: &Option<String>| text.as_deref().map(stored_text);
    add(
        "UPDATE sagas SET status = u.status, reason = u.reason, ended_at = u.ended_at,
             deadline_at = u.deadline_at, wake_at = u.wake_at
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int8[], $5::int8[], $6::int8[])
             AS u(id, status, reason, ended_at, deadline_at, wake_at)
         WHERE sagas.id = u.id",
        vec![
            Box::new(rows().map(|row| uuid_of(row.id)).collect::<Vec<_>>()),
            Box::new(rows().map(|row| row.status.as_str()).collect::<Vec<_>>()),
            Box::new(rows().map(|row| text(&row.reason)).collect::<Vec<_>>()),
            Box::new(rows().map(|row| time(row.ended_at)).collect::<Vec<_>>()),
            Box::new(rows().map(|row| time(row.deadline_at)).collect::<Vec<_>>()),
            Box::new(rows().map(|row| time(row.wake_at)).collect::<Vec<_>>()),
        ],
    );
}

/// The failures of some sagas, by saga, step and call, with the versions of their events.
type Failures = BTreeMap<(SagaId, Option<StepName>, &'static str), (i64, SagaFailure)>;

fn put_failures(failures: Failures, add: &mut impl FnMut(&'static str, Vec<Value>)) {
    if failures.is_empty() {
        return;
    }
    let all: Vec<_> =
        failures.into_iter().map(|((saga, ..), (at, failure))| (saga, at, failure)).collect();
    let rows = || all.iter().map(|(_, _, failure)| failure);
    let step = |failure: &SagaFailure| failure.step.as_ref().map_or("", StepName::step).to_owned();
    let digest = |failure: &SagaFailure| {
        failure.digest.as_ref().map(Digest::as_bytes).map(|bytes| bytes.to_vec())
    };
    add(
        "INSERT INTO failures (version, saga, step, element, call, code, digest, text, words, lexemes)
         SELECT u.version, u.saga, u.step, u.element, u.call, u.code, u.digest, u.text, u.words,
             array_to_tsvector(array_remove(string_to_array(u.lexemes, ' '), ''))
         FROM unnest($1::int8[], $2::uuid[], $3::text[], $4::int8[], $5::text[], $6::text[], $7::bytea[],
             $8::text[], $9::text[], $10::text[])
             AS u(version, saga, step, element, call, code, digest, text, words, lexemes)
         ON CONFLICT (saga, step, element, call) DO UPDATE SET version = excluded.version,
             code = excluded.code, digest = excluded.digest, text = excluded.text,
             words = excluded.words, lexemes = excluded.lexemes",
        vec![
            Box::new(all.iter().map(|(_, at, _)| *at).collect::<Vec<_>>()),
            Box::new(all.iter().map(|(saga, ..)| uuid_of(*saga)).collect::<Vec<_>>()),
            Box::new(rows().map(step).collect::<Vec<_>>()),
            Box::new(rows().map(|failure| element_of(failure.step.as_ref())).collect::<Vec<_>>()),
            Box::new(rows().map(|failure| failure.call.as_str()).collect::<Vec<_>>()),
            Box::new(rows().map(|failure| stored_text(&failure.code)).collect::<Vec<_>>()),
            Box::new(rows().map(digest).collect::<Vec<_>>()),
            Box::new(rows().map(|failure| stored_text(&failure.text)).collect::<Vec<_>>()),
            Box::new(rows().map(|failure| words_column(&failure.text)).collect::<Vec<_>>()),
            Box::new(rows().map(|failure| lexemes(&failure.text)).collect::<Vec<_>>()),
        ],
    );
}

fn put_keys(
    keys: &[(StartKey, SagaId, Timestamp)],
    replaces: bool,
    add: &mut impl FnMut(&'static str, Vec<Value>),
) {
    if keys.is_empty() {
        return;
    }
    let sql = if replaces {
        "INSERT INTO start_keys
         SELECT * FROM unnest($1::text[], $2::uuid[], $3::bytea[], $4::int8[])
         ON CONFLICT (key) DO UPDATE SET saga = excluded.saga,
             payload_digest = excluded.payload_digest, at = excluded.at"
    } else {
        "INSERT INTO start_keys
         SELECT * FROM unnest($1::text[], $2::uuid[], $3::bytea[], $4::int8[])"
    };
    add(
        sql,
        vec![
            Box::new(keys.iter().map(|(key, ..)| stored_text(&key.key)).collect::<Vec<_>>()),
            Box::new(keys.iter().map(|(_, saga, _)| uuid_of(*saga)).collect::<Vec<_>>()),
            Box::new(
                keys.iter()
                    .map(|(key, ..)| key.payload_digest.as_bytes().to_vec())
                    .collect::<Vec<_>>(),
            ),
            Box::new(keys.iter().map(|(_, _, at)| at.as_millis()).collect::<Vec<_>>()),
        ],
    );
}

fn put_state(
    state: BTreeMap<StateKey, Option<std::sync::Arc<str>>>,
    add: &mut impl FnMut(&'static str, Vec<Value>),
) {
    let columns = |state: &[(StateKey, Option<std::sync::Arc<str>>)]| {
        let plugins = state.iter().map(|((plugin, _), _)| plugin.to_string()).collect::<Vec<_>>();
        let keys = state.iter().map(|((_, key), _)| stored_text(key)).collect::<Vec<_>>();
        (plugins, keys)
    };
    let (put, gone): (Vec<_>, Vec<_>) = state.into_iter().partition(|(_, value)| value.is_some());
    if !put.is_empty() {
        let (plugins, keys) = columns(&put);
        let values = put.iter().filter_map(|(_, value)| value.as_deref().map(stored_text));
        let values = values.collect::<Vec<_>>();
        add(
            "INSERT INTO state SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
             ON CONFLICT (plugin, key) DO UPDATE SET value = excluded.value",
            vec![Box::new(plugins), Box::new(keys), Box::new(values)],
        );
    }
    if !gone.is_empty() {
        let (plugins, keys) = columns(&gone);
        add(
            "DELETE FROM state USING unnest($1::text[], $2::text[]) AS u(plugin, key)
             WHERE state.plugin = u.plugin AND state.key = u.key",
            vec![Box::new(plugins), Box::new(keys)],
        );
    }
}

/// Returns the column of a map: its JSON, or none when it is empty.
pub(super) fn json<N: Serialize, V: Serialize>(map: &BTreeMap<N, V>) -> Option<String> {
    let json = (!map.is_empty()).then(|| serde_json::to_string(map).unwrap_or_default());
    json.map(|json| stored_text(&json))
}

/// Returns the column `element` of a step: -1 when it is none of a list.
pub(super) fn element_of(step: Option<&StepName>) -> i64 {
    let number = step.and_then(StepName::number);
    number.map_or(-1, |number| i64::try_from(number).unwrap_or(i64::MAX))
}

/// Returns the words of a text, each between spaces.
pub(super) fn words_column(text: &str) -> String {
    words(text).iter().fold(" ".to_owned(), |column, word| format!("{column}{word} "))
}

/// Returns the beginnings of the words of a text, by which it is found.
pub(super) fn lexemes(text: &str) -> String {
    let words = words(text);
    let cut: Vec<_> = words.iter().map(|word| lexeme(word)).collect();
    cut.join(" ")
}

/// Returns the beginning of a word.
pub(super) fn lexeme(word: &str) -> &str {
    &word[..word.floor_char_boundary(LEXEME_BYTES_MAX)]
}
