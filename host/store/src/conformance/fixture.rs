//! Sagas and events to store. Each is a function of a number, so that checks need no randomness.

use std::collections::BTreeMap;

use amends_engine::{DefinitionName, Digest, SagaId, SagaStatus, Timestamp, Version};

use crate::{
    Append, Cursor, LiveSaga, LiveSagas, NewEvent, PageBudget, SagaRow, ShardId, Store,
    StoredEvent, Stream,
};

/// 2026-01-01T00:00:00Z.
const BASE_MS: i64 = 1_767_225_600_000;

/// A time: this many seconds after a fixed one.
#[must_use]
pub fn at(second: u32) -> Timestamp {
    Timestamp::from_millis(BASE_MS + i64::from(second) * 1_000)
}

/// The id of a saga that starts at second `number`.
#[must_use]
pub fn saga_id(number: u32) -> SagaId {
    let mut random = [0; 10];
    // Spread, as random bytes are: the order is by time alone.
    random[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
    random[6..].copy_from_slice(&number.to_be_bytes());
    SagaId::from_parts(at(number), &random)
}

/// Returns the digest of a number, as text.
pub(super) fn digest(number: u32) -> Digest {
    Digest::of(number.to_string().as_bytes())
}

/// The name of a definition.
#[must_use]
pub fn definition(name: &str) -> DefinitionName {
    name.parse().unwrap()
}

/// An event with some data.
#[must_use]
pub fn event(number: u32) -> NewEvent {
    NewEvent {
        kind: "step.succeeded".into(),
        data: format!(r#"{{"number":{number},"text":"naïve 💊 \u0000 \" end"}}"#),
    }
}

/// The row of a saga that has just started.
#[must_use]
pub fn row(number: u32) -> SagaRow {
    SagaRow {
        id: saga_id(number),
        definition: definition("order-fulfillment"),
        definition_digest: Digest::of(b"order-fulfillment"),
        status: SagaStatus::Running,
        reason: None,
        started_at: at(number),
        ended_at: None,
        deadline_at: Some(at(number + 1_000)),
        wake_at: None,
        tags: BTreeMap::new(),
        index: BTreeMap::new(),
        key: None,
        subject_key: None,
    }
}

/// The first append of a saga: one event and its row.
#[must_use]
pub fn start(number: u32) -> Append {
    Append {
        stream: Stream::Saga(saga_id(number)),
        expected: Version(0),
        at: at(number),
        events: vec![NewEvent { kind: "saga.started".into(), ..event(number) }],
        row: Some(row(number)),
        failures: Vec::new(),
        start_key: None,
        state: Vec::new(),
    }
}

/// A later append of a saga: one event.
#[must_use]
pub fn then(number: u32, expected: u64) -> Append {
    Append { expected: Version(expected), row: None, ..start(number) }
}

/// Every event of a store, page by page.
pub async fn whole_log(store: &dyn Store) -> Vec<StoredEvent> {
    let (mut log, mut from) = (Vec::new(), Cursor::START);
    loop {
        let page = store.log().follow(from, PageBudget::items(u32::MAX)).await.unwrap();
        if page.events.is_empty() {
            return log;
        }
        from = page.next;
        log.extend(page.events);
    }
}

/// A page of the live sagas of all shards.
pub async fn live_page(store: &dyn Store, after: Option<SagaId>, items: u32) -> Vec<LiveSaga> {
    let (shards, budget) = (ShardId::all().collect(), PageBudget::items(items));
    store.sagas().live(shards, LiveSagas::All, after, budget).await.unwrap()
}

/// Every event of a stream, page by page.
pub async fn whole_stream(store: &dyn Store, stream: Stream) -> Vec<StoredEvent> {
    let mut log: Vec<StoredEvent> = Vec::new();
    loop {
        let after = log.last().map_or(Version(0), |last| last.version);
        let page =
            store.log().stream(stream.clone(), after, PageBudget::items(u32::MAX)).await.unwrap();
        if page.is_empty() {
            return log;
        }
        log.extend(page);
    }
}
