//! What is left of dead letters when the file is damaged.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod temporary_file;

use amends_engine::Version;
use amends_store::conformance::{at, saga_id};
use amends_store::{DeadLetter, Durability, SqliteStore, Store as _, Stream, SubscriptionChange};
use rusqlite::Connection;
use temporary_file::TemporaryFile;

#[tokio::test]
async fn a_dead_letter_that_cannot_be_read_keeps_no_other_from_being_read() {
    let place = TemporaryFile::new();
    let store = SqliteStore::open(&place.path(), Durability::Relaxed).unwrap();
    let letter = |number: u32| DeadLetter {
        place: number.to_string().parse().unwrap(),
        stream: Stream::Saga(saga_id(number)),
        version: Version(1),
        kind: "saga.started".to_owned(),
        at: at(number),
        attempts: 12,
        error: "400".to_owned(),
    };
    let change = SubscriptionChange {
        name: "billing".to_owned(),
        cursor: letter(9).place,
        disabled: None,
        dead: (1..=4).map(letter).collect(),
        delivered: Vec::new(),
    };
    store.outbox().save(change).await.unwrap();
    let damage = "UPDATE dead_letters SET stream = x'00' WHERE place IN (1, 3)";
    assert_eq!(Connection::open(place.path()).unwrap().execute(damage, []).unwrap(), 2);
    let read = |after, limit| store.outbox().dead_letters("billing".to_owned(), after, limit);
    assert_eq!(read(None, 1).await.unwrap(), [letter(2)]);
    assert_eq!(read(Some(letter(2).place), 10).await.unwrap(), [letter(4)]);
    assert_eq!(read(Some(letter(4).place), 10).await.unwrap(), []);
    store.close().await.unwrap();
}
