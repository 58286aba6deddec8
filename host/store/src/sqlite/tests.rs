//! What needs a look inside: a full disk, and migrations that do not exist yet.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use amends_engine::{Position, SagaId, Timestamp, Version};
use futures::future::join_all;
use rusqlite::Connection;

use super::state::StateCache;
use super::write::Job;
use super::{SqliteStore, read, schema};
use crate::conformance::state_change;
use crate::{Append, AppendReply, Durability, NewEvent, StateList, Store as _, StoreError, Stream};

fn append(number: u8, bytes: usize) -> Append {
    let event = NewEvent { kind: Cow::Borrowed("step.started"), data: "1".repeat(bytes) };
    Append {
        stream: Stream::Saga(SagaId::from_bytes([number; 16])),
        expected: Version(0),
        at: Timestamp::from_millis(1),
        events: vec![event],
        row: None,
        start_key: None,
        state: Vec::new(),
    }
}

/// A store that may use so many pages.
fn limited(path: &Path, pages: u32) -> SqliteStore {
    let lock = schema::lock(path).unwrap();
    let connection = schema::open(path, Durability::Full).unwrap();
    connection.pragma_update(None, "max_page_count", pages).unwrap();
    SqliteStore::start(path, lock, connection).unwrap()
}

#[tokio::test]
async fn a_full_disk_fails_a_transaction_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("amends.db");
    let store = limited(&path, 100);
    let head = store.head();
    store.append(append(1, 10)).await.unwrap();
    let full = store.append(append(2, 1 << 20)).await;
    match &full {
        Err(StoreError::Database(message)) => assert!(message.contains("full"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(*head.borrow(), Position(1));

    // Whoever shares the transaction hears of it too, and nothing of it is there.
    let group: Vec<_> = (3..20)
        .map(|number| store.append(append(number, if number == 10 { 1 << 20 } else { 10 })))
        .collect();
    let results = join_all(group).await;
    let failed = results.iter().filter(|result| result.is_err()).count();
    assert!(results[7].is_err(), "{:?}", results[7]);
    let log = store.log(Position(0), 100).await.unwrap();
    assert_eq!(log.len(), 1 + results.len() - failed);

    // It goes on, with no gap.
    store.append(append(10, 10)).await.unwrap();
    let log = store.log(Position(0), 100).await.unwrap();
    let positions: Vec<_> = log.iter().map(|event| event.position.0).collect();
    assert_eq!(positions, (1..=log.len() as u64).collect::<Vec<_>>());
    assert_eq!(store.verify().await.unwrap(), Vec::<String>::new());
    store.close().await.unwrap();
}

fn database() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("any.db");
    (folder, path)
}

fn version(connection: &Connection) -> i64 {
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

/// As `.cargo/config.toml` has it.
#[test]
fn sqlite_is_compiled_without_statistics_of_memory() {
    let (_folder, path) = database();
    let connection = Connection::open(path).unwrap();
    let mut options = connection.prepare("PRAGMA compile_options").unwrap();
    let options = options.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let options: Vec<_> = options.map(Result::unwrap).collect();
    assert!(options.contains(&"DEFAULT_MEMSTATUS=0".to_owned()), "{options:?}");
}

#[test]
fn migrations_run_in_order_and_once() {
    let (_folder, path) = database();
    let connection = Connection::open(path).unwrap();
    let first = "CREATE TABLE a (x)";
    let second = "ALTER TABLE a ADD COLUMN y; INSERT INTO a VALUES (1, 2)";
    let third = "UPDATE a SET y = y + 1";
    schema::migrate(&connection, &[first], 0).unwrap();
    assert_eq!(version(&connection), 1);
    schema::migrate(&connection, &[first, second, third], 1).unwrap();
    assert_eq!(version(&connection), 3);
    schema::migrate(&connection, &[first, second, third], 3).unwrap();
    let y: i64 = connection.query_row("SELECT y FROM a", [], |row| row.get(0)).unwrap();
    assert_eq!(y, 3);
}

#[test]
fn a_migration_that_fails_leaves_the_version_before_it() {
    let (_folder, path) = database();
    let connection = Connection::open(&path).unwrap();
    let broken = "CREATE TABLE b (x); INSERT INTO nothing VALUES (1)";
    let error = schema::migrate(&connection, &["CREATE TABLE a (x)", broken], 0);
    assert!(error.is_err(), "{error:?}");
    drop(connection);
    let connection = Connection::open(&path).unwrap();
    assert_eq!(version(&connection), 1);
    assert!(connection.table_exists(None, "a").unwrap());
    assert!(!connection.table_exists(None, "b").unwrap());
}

#[test]
fn the_live_query_walks_the_live_sagas_only() {
    let (_folder, path) = database();
    drop(schema::lock(&path).unwrap());
    let connection = schema::open(&path, Durability::Full).unwrap();
    let plan: String = connection
        .query_row(
            &format!("EXPLAIN QUERY PLAN {}", read::live_query()),
            [Vec::<u8>::new()],
            |row| row.get("detail"),
        )
        .unwrap();
    assert!(plan.contains("sagas_live"), "{plan}");
}

/// A reader that read before others were refused, and hands in what it read after that.
#[test]
fn a_value_that_was_read_before_others_were_forgotten_is_not_kept() {
    let (cache, plugin) = (StateCache::default(), "inventory".parse().unwrap());
    let changes = [state_change(&[], &[("a", Some("2"))])];
    let old = || Some("1".into());
    let forgotten = cache.forgotten();
    cache.hand_in(&changes);
    cache.read(&plugin, "a", old(), forgotten);
    assert_eq!(cache.get(&plugin, "a"), Some(Some("2".into())), "what was handed in is newer");
    for forget in [(|cache, changes| cache.forget(changes)) as Forget, |cache, _| cache.clear()] {
        let forgotten = cache.forgotten();
        forget(&cache, &changes);
        cache.read(&plugin, "a", old(), forgotten);
        assert_eq!(cache.get(&plugin, "a"), None, "it may be older than what was forgotten");
        cache.read(&plugin, "a", old(), cache.forgotten());
        assert_eq!(cache.get(&plugin, "a"), Some(old()));
    }
}

type Forget = fn(&StateCache, &[crate::StateChange]);

/// A transaction takes less of what takes long to look at again.
#[test]
fn what_an_append_saw_counts_for_its_transaction() {
    let job = |state| Job::append(Append { state, ..append(1, 10) }, AppendReply::new(|_| ()));
    let plain = job(Vec::new()).bytes();
    let query = crate::StateQuery { limit: 1_000, ..Default::default() };
    let list = StateList { query, keys: vec!["k".to_owned(); 999] };
    let mut seen = state_change(&[("a", Some("1"))], &[]);
    seen.lists = vec![list; 9];
    assert!(job(vec![seen]).bytes() > plain + 9_000 * 200);
}
