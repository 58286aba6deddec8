//! How long lists take when there are many sagas:
//! `cargo bench -p amends-store --features conformance --bench list`.
//! The best of five, because other programs share the machine; what is found is checked too.

#![allow(clippy::unwrap_used, reason = "a benchmark says by a panic what does not hold")]

#[path = "../tests/temporary_file/mod.rs"]
mod temporary_file;

use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::SagaStatus;
use amends_store::conformance::{
    StoreLocation as _, TestStore, at, definition, live_page, saga_id, start,
};
use amends_store::{Durability, SagaQuery, SqliteStore};
use futures::future::join_all;
use temporary_file::TemporaryFile;

const SAGAS: u32 = 50_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let place = TemporaryFile::new();
    let store = SqliteStore::open(&place.path(), Durability::Relaxed).unwrap();
    let store = TestStore::of(Arc::new(store)).await.unwrap();
    fill(&store).await;
    // As a host finds it that has just started.
    store.close().await.unwrap();
    let store = place.open().await.unwrap();

    let all = SagaQuery { limit: 100, ..SagaQuery::default() };
    let status = |statuses: &[SagaStatus]| SagaQuery { statuses: statuses.to_vec(), ..all.clone() };
    let named =
        |name: &str, query: SagaQuery| SagaQuery { definition: Some(definition(name)), ..query };
    let tagged = |name: &str, value: &str, query: SagaQuery| SagaQuery {
        tags: vec![(name.to_owned(), value.to_owned())],
        ..query
    };
    let (blocked, completed) = (&[SagaStatus::Blocked][..], &[SagaStatus::Completed][..]);
    let since =
        |second: u32, query: SagaQuery| SagaQuery { started_after: Some(at(second)), ..query };
    let before =
        |number: u32, query: SagaQuery| SagaQuery { before: Some(saga_id(number)), ..query };
    let queries = [
        ("all", all.clone(), 100),
        ("the last page", before(50, all.clone()), 50),
        ("completed", status(completed), 100),
        ("blocked: 5", status(blocked), 5),
        ("paused: none", status(&[SagaStatus::Paused]), 0),
        ("each status", status(SagaStatus::ALL), 100),
        ("a common definition", named("order-fulfillment", all.clone()), 100),
        ("a rare definition", named("refund", all.clone()), 50),
        ("a rare definition, completed", named("refund", status(completed)), 50),
        ("a common definition, blocked", named("order-fulfillment", status(blocked)), 5),
        (
            "a common definition, paused",
            named("order-fulfillment", status(&[SagaStatus::Paused])),
            0,
        ),
        ("a rare tag", tagged("customer", "77", all.clone()), 50),
        ("a common tag", tagged("country", "no", all.clone()), 100),
        ("a common tag, completed", tagged("country", "no", status(completed)), 100),
        ("no such tag", tagged("country", "se", all.clone()), 0),
        ("after the last", since(SAGAS, all.clone()), 0),
        ("after the middle, blocked", since(SAGAS / 2, status(blocked)), 2),
        ("a page after the middle", before(SAGAS / 2 + 50, since(SAGAS / 2, all.clone())), 49),
    ];
    for (name, query, expected) in queries {
        let mut best = Duration::MAX;
        // The best of some: other programs share the machine.
        for _ in 0..5 {
            let started = Instant::now();
            let found = store.sagas().list(query.clone()).await.unwrap();
            best = best.min(started.elapsed());
            assert_eq!(found.len(), expected, "{name}");
        }
        eprintln!("{name}: {best:?}");
    }

    let mut best = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        assert_eq!(live_page(&*store, None, 1_000).await.len(), 5);
        best = best.min(started.elapsed());
    }
    eprintln!("live: {best:?}");
}

/// Of each 10,000 sagas one is blocked and the others are completed; 10 are refunds.
async fn fill(store: &TestStore) {
    for first in (0..SAGAS).step_by(1_000) {
        let appends = (first..first + 1_000).map(|number| {
            let mut append = start(number);
            let row = append.row.as_mut().unwrap();
            let is_blocked = number % 10_000 == 1_001;
            row.status = if is_blocked { SagaStatus::Blocked } else { SagaStatus::Completed };
            row.ended_at = (!is_blocked).then(|| at(number + 1));
            if number % 1_000 == 0 {
                row.definition = definition("refund");
            }
            row.tags.insert("customer".to_owned(), (number % 1_000).to_string());
            row.tags.insert("country".to_owned(), "no".to_owned());
            store.append(append)
        });
        for result in join_all(appends.collect::<Vec<_>>()).await {
            result.unwrap();
        }
    }
}
