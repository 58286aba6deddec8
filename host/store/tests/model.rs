//! Random appends in random groups, on the store and on a model of it.
//!
//! `AMENDS_SEED` sets the seed; a failure prints it.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

mod database;
mod temporary_file;

use std::sync::Arc;

use amends_engine::{
    CounterChange, Digest, SagaStatus, StateChange, StateList, StateQuery, Version,
};
use amends_store::conformance::{
    Model, StoreLocation, at, definition, event, live_page, row, saga_id, start, whole_log,
    whole_stream,
};
use amends_store::{Append, SagaQuery, ShardId, StartKey, StoreError, Stream};
use futures::future::join_all;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use temporary_file::TemporaryFile;

/// Few, so that appends meet.
const SAGAS: u32 = 6;
const PLUGINS: &[&str] = &["inventory", "shipment"];
const KEYS: &[&str] = &["a", "ab", "b"];

#[derive(Debug, Clone)]
enum Step {
    /// Handed in together.
    Appends(Vec<Append>),
    Reopen,
    /// Another handle takes the store over while this one is open.
    TakeOver,
}

#[test]
fn does_as_the_model() {
    let make = || Some(Box::new(TemporaryFile::new()) as Box<dyn StoreLocation>);
    compare_many(64, make);
}

/// The same histories on PostgreSQL, fewer of them: each makes a database.
#[test]
fn postgres_does_as_the_model() {
    compare_many(16, || Some(Box::new(database::Database::new()?) as Box<dyn StoreLocation>));
}

fn compare_many(cases: u32, make: impl Fn() -> Option<Box<dyn StoreLocation>>) {
    let seed = std::env::var("AMENDS_SEED").map_or(1, |seed| seed.parse().unwrap());
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let steps = proptest::collection::vec(step(), 1..20);
    let result = TestRunner::new(config).run(&steps, |steps| {
        // There is no server, and that was said.
        if let Some(place) = make() {
            runtime.block_on(compare(&*place, steps));
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("AMENDS_SEED={seed}: {error}");
    }
}

async fn compare(place: &dyn StoreLocation, steps: Vec<Step>) {
    let mut store = place.open().await.unwrap();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Appends(mut appends) => {
                for append in &mut appends {
                    // 1,000 and more: that much above the version that it has now.
                    if append.expected.0 >= 1_000 {
                        let now = model.events(&append.stream).len() as u64;
                        append.expected.0 = append.expected.0 - 1_000 + now;
                    }
                }
                let results = join_all(appends.iter().map(|append| store.append(append.clone())));
                for (result, append) in results.await.into_iter().zip(&appends) {
                    same(result, model.append(append));
                }
            }
            Step::Reopen => {
                store.close().await.unwrap();
                store = place.open().await.unwrap();
            }
            Step::TakeOver => {
                let older = std::mem::replace(&mut store, place.take_over().await.unwrap());
                let expected = model.events(&Stream::Saga(saga_id(0))).len() as u64;
                let late = Append { expected: Version(expected), ..start(0) };
                let refused = older.append(late).await;
                assert!(matches!(refused, Err(StoreError::LostOwnership(_))), "{refused:?}");
                older.close().await.unwrap();
            }
        }
    }
    assert_eq!(whole_log(&*store).await, model.log());
    for number in 0..SAGAS {
        let id = saga_id(number);
        assert_eq!(store.sagas().row(id).await.unwrap().as_ref(), model.saga(id));
        let stream = Stream::Saga(id);
        let events = whole_stream(&*store, stream.clone()).await;
        assert_eq!(events, model.events(&stream));
        let key = number.to_string();
        assert_eq!(store.sagas().key(key.clone()).await.unwrap(), model.key(&key));
        let tags = vec![("customer".to_owned(), key)];
        let query = SagaQuery { tags, limit: 3, ..SagaQuery::default() };
        assert_eq!(store.sagas().list(query.clone()).await.unwrap(), model.list(&query));
    }
    for status in SagaStatus::ALL {
        let query = SagaQuery { statuses: vec![*status], limit: 4, ..SagaQuery::default() };
        assert_eq!(store.sagas().list(query.clone()).await.unwrap(), model.list(&query));
        let query = SagaQuery { definition: Some(definition("refund")), ..query };
        assert_eq!(store.sagas().list(query.clone()).await.unwrap(), model.list(&query));
    }
    assert_eq!(live_page(&*store, None, u32::MAX).await, model.live());
    let all = || ShardId::all().collect::<Vec<_>>();
    let waiting = store.sagas().waiting(all(), None, u32::MAX).await.unwrap();
    assert_eq!(waiting, model.waiting());
    for until in [at(0), at(u32::MAX)] {
        let due = store.sagas().due(all(), until, None, u32::MAX).await.unwrap();
        assert_eq!(due, model.due(until));
    }
    assert_eq!(store.sagas().counts().await.unwrap(), model.counts());
    for plugin in PLUGINS {
        let plugin: amends_engine::PluginName = plugin.parse().unwrap();
        let all = StateQuery { limit: 10, ..StateQuery::default() };
        let keys = store.state().keys(plugin.clone(), all.clone()).await.unwrap();
        assert_eq!(keys, model.state_keys(&plugin, &all));
        for key in KEYS {
            let value = store.state().value(plugin.clone(), (*key).to_owned()).await.unwrap();
            assert_eq!(value, model.state(&plugin, key));
        }
    }
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    store.close().await.unwrap();
}

fn same(
    stored: Result<amends_store::Appended, StoreError>,
    expected: Result<amends_store::Appended, StoreError>,
) {
    match (stored, expected) {
        (Ok(stored), Ok(expected)) => assert_eq!(stored, expected),
        (Err(stored), Err(expected)) => assert_eq!(stored.to_string(), expected.to_string()),
        (stored, expected) => panic!("{stored:?}, but the model says {expected:?}"),
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => proptest::collection::vec(append(), 1..12).prop_map(Step::Appends),
        1 => Just(Step::Reopen),
        1 => Just(Step::TakeOver),
    ]
}

fn append() -> impl Strategy<Value = Append> {
    let key = proptest::option::weighted(0.3, (0..SAGAS, 0..2_u8));
    // Mostly the version that the stream has, or one that it has later in the same group.
    let expected = prop_oneof![4 => 1_000..1_003_u64, 1 => 0..3_u64];
    let changed = proptest::option::weighted(0.7, change());
    let state = prop_oneof![2 => Just(Vec::new()), 1 => proptest::collection::vec(state(), 1..3)];
    (0..SAGAS, any::<bool>(), expected, 0..4_u32, changed, key, state).prop_map(
        |(number, is_plugin, expected, events, changed, key, state)| {
            let id = saga_id(number);
            let stream = if is_plugin && number == 0 {
                Stream::Plugin("inventory".parse().unwrap())
            } else {
                Stream::Saga(id)
            };
            let start_key = key.map(|(key, payload)| StartKey {
                key: key.to_string(),
                payload_digest: Digest::of(&[payload]),
            });
            // A key goes with a start.
            let expected = Version(if start_key.is_some() { 0 } else { expected });
            let row = changed.map(|change| {
                let mut row = row(number);
                change.apply(&mut row);
                row
            });
            let events = (0..events).map(event).collect();
            let failures = Vec::new();
            Append { stream, expected, at: at(number), events, row, failures, start_key, state }
        },
    )
}

/// Few keys and values, so that what is seen is often so.
fn state() -> impl Strategy<Value = Arc<StateChange>> {
    let plugin = proptest::sample::select(PLUGINS).prop_map(|name| name.parse().unwrap());
    let value = || prop_oneof![Just(None), Just(Some("1".into())), Just(Some("22".into()))];
    let key = || proptest::sample::select(KEYS).prop_map(str::to_owned);
    let values = |most| proptest::collection::btree_map(key(), value(), 0..most);
    let listed = proptest::sample::subsequence(KEYS.to_vec(), 0..=KEYS.len());
    let list = (proptest::sample::select(&["", "a"][..]), 1..4_u32, listed).prop_map(
        |(prefix, limit, keys)| {
            let query = StateQuery { prefix: prefix.to_owned(), after: None, limit };
            StateList { query, keys: keys.into_iter().map(str::to_owned).collect() }
        },
    );
    let lists = proptest::option::weighted(0.2, list);
    let bytes_max = proptest::sample::select(&[4, 1_000][..]);
    let counter = (-1..12_i64, -1..2_i64, 0..40_i64).prop_map(|(delta, low, high)| CounterChange {
        delta,
        low,
        high,
    });
    let counters = proptest::collection::btree_map(key(), counter, 0..2);
    (plugin, values(2), lists, values(3), counters, bytes_max).prop_map(
        |(plugin, reads, list, writes, counters, bytes_max)| {
            let lists = list.into_iter().collect();
            Arc::new(StateChange { plugin, reads, lists, writes, counters, bytes_max })
        },
    )
}

#[derive(Debug, Clone)]
struct Change {
    status: SagaStatus,
    customer: u32,
    is_refund: bool,
}

impl Change {
    fn apply(&self, row: &mut amends_store::SagaRow) {
        row.status = self.status;
        row.ended_at = self.status.is_end().then(|| at(99));
        row.wake_at = Some(at(self.customer));
        row.reason = self.is_refund.then(|| "refund".to_owned());
        row.tags.insert("customer".to_owned(), self.customer.to_string());
        if self.is_refund {
            row.definition = definition("refund");
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let status = proptest::sample::select(SagaStatus::ALL);
    (status, 0..SAGAS, any::<bool>()).prop_map(|(status, customer, is_refund)| Change {
        status,
        customer,
        is_refund,
    })
}

/// The strategy reaches what it is for: without this the comparison could compare nothing.
#[test]
fn the_random_appends_reach_every_answer() {
    let config = Config { rng_seed: RngSeed::Fixed(1), ..Config::default() };
    let mut runner = TestRunner::new(config);
    let mut seen = std::collections::BTreeSet::new();
    // As many short histories as the comparison has: a key meets its stream at the start only.
    for _ in 0..64 {
        let mut model = Model::default();
        for _ in 0..50 {
            let mut append = append().new_tree(&mut runner).unwrap().current();
            if append.expected.0 >= 1_000 {
                append.expected.0 += model.events(&append.stream).len() as u64 - 1_000;
            }
            seen.insert(match model.append(&append) {
                Ok(amends_store::Appended::Done { .. }) => "done",
                Ok(amends_store::Appended::Duplicate(_)) => "duplicate",
                Ok(amends_store::Appended::KeyReused(_)) => "key reused",
                Ok(amends_store::Appended::StateChanged(_)) => "state changed",
                Ok(amends_store::Appended::StateFull(_)) => "state full",
                Err(StoreError::Conflict { .. }) => "conflict",
                Err(StoreError::Invalid(_)) => "invalid",
                Err(other) => panic!("{other}"),
            });
        }
    }
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        ["conflict", "done", "duplicate", "invalid", "key reused", "state changed", "state full"]
    );
}
