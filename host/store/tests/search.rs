//! The search by failures when its tables are damaged: they have nothing that the events do not have.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod temporary_file;

use amends_store::conformance::{
    StoreLocation as _, TestStore, failing, saga_id, start, then_failing,
};
use amends_store::{FailureQuery, FailureText, SagaQuery};
use rusqlite::Connection;
use temporary_file::TemporaryFile;

/// The sagas whose failures have this word.
async fn found(store: &TestStore) -> Vec<amends_engine::SagaId> {
    let failure = FailureQuery { text: FailureText::new("route"), ..FailureQuery::default() };
    let query = SagaQuery { failure, limit: 100, ..SagaQuery::default() };
    let mut found: Vec<_> =
        store.sagas().list(query).await.unwrap().into_iter().map(|row| row.id).collect();
    found.sort();
    found
}

async fn fail(store: &TestStore, number: u32) {
    store.append(start(number)).await.unwrap();
    store.append(then_failing(number, 1, &failing(number))).await.unwrap();
}

#[tokio::test]
async fn a_damaged_index_of_words_is_made_anew_by_the_next_start() {
    for damage in [
        "DELETE FROM failure_texts_data WHERE id = 10",
        "UPDATE failure_texts_data SET block = x'ffffffff' WHERE id = 10",
        "UPDATE failure_texts_data SET block = x'00'",
    ] {
        let place = TemporaryFile::new();
        let store = place.open().await.unwrap();
        for number in 0..5 {
            fail(&store, number).await;
        }
        store.close().await.unwrap();
        assert!(Connection::open(place.path()).unwrap().execute(damage, []).unwrap() > 0);

        let store = place.open().await.unwrap();
        for number in 5..9 {
            fail(&store, number).await;
        }
        assert_eq!(found(&store).await, (0..9).map(saga_id).collect::<Vec<_>>(), "{damage}");
        assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
        store.close().await.unwrap();
    }
}

/// A store of an earlier version has no such tables, and one saga of it may be damaged.
#[tokio::test]
async fn what_is_damaged_keeps_no_store_from_being_opened() {
    for damage in [
        "UPDATE sagas SET ended_at = 1.5 WHERE id IN (SELECT id FROM sagas LIMIT 1)",
        "UPDATE sagas SET ended_at = 9223372036854775807, started_at = -5
         WHERE id IN (SELECT id FROM sagas LIMIT 1)",
        // One more event than the position of the next append allows.
        "UPDATE appends SET events = substr(events, 1, length(events) - 1) || ','
         || substr(events, 2)
         WHERE position = (SELECT min(position) FROM appends WHERE version > 1)",
    ] {
        let place = TemporaryFile::new();
        let store = place.open().await.unwrap();
        for number in 0..5 {
            fail(&store, number).await;
        }
        store.close().await.unwrap();
        let connection = Connection::open(place.path()).unwrap();
        let forget = "DELETE FROM meta WHERE name IN ('failures', 'longest_life')";
        assert!(connection.execute(forget, []).unwrap() > 0);
        assert_eq!(connection.execute(damage, []).unwrap(), 1, "{damage}");
        drop(connection);
        let store = place.open().await.unwrap();
        assert!(found(&store).await.len() >= 4, "{damage}");
        fail(&store, 5).await;
        store.close().await.unwrap();
    }
}

/// A connection that has read the index of words does not check what it knew of it then.
#[tokio::test]
async fn a_check_beside_appends_and_searches_finds_nothing() {
    let place = TemporaryFile::new();
    let store = place.open().await.unwrap();
    for number in 0..200 {
        fail(&store, number).await;
        found(&store).await;
        if number % 10 == 0 {
            assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
        }
    }
    store.close().await.unwrap();
}
