//! A bit that flips in the file of a store is found, when it changes anything that is read.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

mod temporary_file;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use amends_engine::{Digest, StateChange, Version};
use amends_store::conformance::{TestStore, at, saga_id, start, then};
use amends_store::{
    Append, BlobKind, DeadLetter, Durability, ScheduleRow, SqliteStore, StartKey, Stream,
    SubscriptionChange, check_file,
};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};
use temporary_file::TemporaryFile;

/// The tables whose rows are compared with nothing else.
const TABLES: [&str; 7] =
    ["appends", "start_keys", "blobs", "state", "subscriptions", "dead_letters", "schedules"];

/// Flips of one run. A flip takes a few milliseconds.
const FLIPS: usize = 1_500;

type Rows = Vec<Vec<Value>>;

/// A closed store with rows in each of the tables.
async fn fill(place: &TemporaryFile) {
    let store = SqliteStore::open(&place.path(), Durability::Relaxed).unwrap();
    let store = TestStore::of(Arc::new(store)).await.unwrap();
    for number in 0..60 {
        let key = format!("order-{number}");
        let payload_digest = Digest::of(key.as_bytes());
        let start_key = Some(StartKey { key, payload_digest });
        store.append(Append { start_key, ..start(number) }).await.unwrap();
        let value: Option<Arc<str>> = Some(format!("{{\"left\":{number}}}").into());
        let change = StateChange {
            plugin: "inventory".parse().unwrap(),
            reads: BTreeMap::new(),
            lists: Vec::new(),
            counters: [].into(),
            writes: [(format!("item-{number}"), value)].into(),
            bytes_max: 1 << 20,
        };
        store.append(Append { state: vec![Arc::new(change)], ..then(number, 1) }).await.unwrap();
    }
    for number in 0..5_u8 {
        let bytes = vec![number; 3_000];
        let (digest, name) = (Digest::of(&bytes), format!("plugin-{number}"));
        store.blobs().put(BlobKind::Component, name, digest, at(1), bytes).await.unwrap();
        let letter = |place: u8| DeadLetter {
            place: place.to_string().parse().unwrap(),
            stream: Stream::Saga(saga_id(u32::from(place))),
            version: Version(1),
            kind: "saga.started".to_owned(),
            at: at(1),
            attempts: 12,
            error: "the receiver answered 400 Bad Request".to_owned(),
        };
        let change = SubscriptionChange {
            name: format!("billing-{number}"),
            cursor: "40".parse().unwrap(),
            disabled: None,
            dead: (0..10).map(letter).collect(),
            delivered: Vec::new(),
        };
        store.outbox().save(change).await.unwrap();
        let row = ScheduleRow {
            name: format!("nightly-{number}"),
            pattern: "0 3 * * * Europe/Vienna".to_owned(),
            decided_until: at(100),
            started: Some((at(99), saga_id(7))),
            skipped: Some((at(98), "the one before runs".to_owned())),
        };
        store.schedules().save_schedule(row).await.unwrap();
    }
    store.close().await.unwrap();
}

/// Every row of a table; none when the file cannot be read.
fn rows(path: &Path, table: &str) -> Option<Rows> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).ok()?;
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
    statement.query_map([], row).ok()?.collect::<Result<_, _>>().ok()
}

#[tokio::test]
async fn a_flipped_bit_that_changes_a_row_is_found() {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = seed.subsec_nanos() | 1;
    let place = TemporaryFile::new();
    fill(&place).await;
    assert_eq!(check_file(&place.path(), None).unwrap().findings, Vec::<String>::new());
    let sound = fs::read(place.path()).unwrap();
    let before = TABLES.map(|table| rows(&place.path(), table).unwrap());
    assert!(before.iter().all(|rows| rows.len() >= 5), "a table is nearly empty");
    let copy = place.path().with_file_name("copy.db");
    let (mut random, mut changed) = (seed, [0; TABLES.len()]);
    for _ in 0..FLIPS {
        // Xorshift, as Marsaglia has it.
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let bit = random as usize % (sound.len() * 8);
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&copy, bytes).unwrap();
        let mut is_changed = false;
        for (index, table) in TABLES.iter().enumerate() {
            if rows(&copy, table).as_ref() != Some(&before[index]) {
                changed[index] += 1;
                is_changed = true;
            }
        }
        // What cannot be opened is refused by name.
        if is_changed && let Ok(check) = check_file(&copy, None) {
            assert!(!check.findings.is_empty(), "seed {seed}: bit {bit} is not found");
        }
    }
    assert!(changed.iter().all(|count| *count > 0), "seed {seed}: {changed:?}");
}
