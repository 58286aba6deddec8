//! What needs a look inside: a full disk, and migrations that do not exist yet.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use amends_engine::{SagaId, SagaStatus, StateList, Timestamp, Version};
use futures::future::{BoxFuture, join_all};
use rusqlite::Connection;

use super::archive_job::ArchiveTask;
use super::job::Job;
use super::upkeep::Limits;
use super::{SqliteStore, file, open, read, schema};
use crate::conformance::{at, row, saga_id, start, state_change, then, whole_log, whole_stream};
use crate::queue::QueuedJob as _;
use crate::{
    Append, AppendReply, Appended, Cursor, Durability, Fatal, LiveSagas, NewEvent, Obstacle,
    OpenError, PageBudget, SagaRow, Store as _, StoreError, StoreHealth, Stream, ToArchive,
};

impl SqliteStore {
    /// Appends to any stream: what is tested here does not depend on who owns a shard.
    fn append(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        self.queue.append(append, None)
    }
}

fn append(number: u8, bytes: usize) -> Append {
    let event = NewEvent { kind: Cow::Borrowed("step.started"), data: "1".repeat(bytes) };
    Append {
        stream: Stream::Saga(SagaId::from_bytes([number; 16])),
        expected: Version(0),
        at: Timestamp::from_millis(1),
        events: vec![event],
        row: None,
        failures: Vec::new(),
        start_key: None,
        state: Vec::new(),
    }
}

/// A store that may use so many pages.
fn limited(path: &Path, pages: u32) -> SqliteStore {
    let lock = file::lock(path).unwrap();
    let connection = open::open(path, &lock, Durability::Full).unwrap();
    connection.pragma_update(None, "max_page_count", pages).unwrap();
    SqliteStore::start(path, lock, connection, Limits::default()).unwrap()
}

fn with_limits(path: &Path, limits: Limits) -> SqliteStore {
    let lock = file::lock(path).unwrap();
    let connection = open::open(path, &lock, Durability::Relaxed).unwrap();
    SqliteStore::start(path, lock, connection, limits).unwrap()
}

/// A saga that was read from the archive, came back meanwhile, went on and was archived again, does not come
/// back as it was read.
#[tokio::test]
async fn what_was_read_of_a_saga_that_moved_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("amends.db"), Durability::Relaxed).unwrap();
    let row = |number: u32| SagaRow {
        status: SagaStatus::Completed,
        ended_at: Some(at(number + 1)),
        ..row(number)
    };
    let id = saga_id(1);
    let of =
        |version| vec![ToArchive { id, version: Version(version), after: None, is_late: false }];
    store.append(Append { row: Some(row(1)), ..start(1) }).await.unwrap();
    store.archive().archive(of(1)).await.unwrap();
    let stale = store.returning(id).await.unwrap().unwrap();
    assert!(store.archive().bring_back(id).await.unwrap());
    store.append(Append { row: Some(row(1)), ..then(1, 1) }).await.unwrap();
    store.archive().archive(of(2)).await.unwrap();
    let done = store.archive_job(ArchiveTask::BringBack(Box::new(stale))).await.unwrap();
    assert_eq!(done.count, 0);
    assert!(store.archive().bring_back(id).await.unwrap());
    assert_eq!(whole_stream(&store, Stream::Saga(id)).await.len(), 2);
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_fails_a_transaction_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("amends.db");
    let store = limited(&path, 100);
    let head = store.log().head();
    store.append(append(1, 10)).await.unwrap();
    let full = store.append(append(2, 1 << 20)).await;
    assert!(
        matches!(full, Err(StoreError::Unavailable { obstacle: Obstacle::Full, .. })),
        "{full:?}"
    );
    assert_eq!(*head.borrow(), Cursor(1));
    let health = store.maintenance().health().borrow().clone();
    assert!(
        matches!(
            health,
            StoreHealth::NoWrites(StoreError::Unavailable { obstacle: Obstacle::Full, .. })
        ),
        "{health:?}"
    );

    // Whoever shares the transaction hears of the same, and nothing of it is there. The writer is
    // held until all of them wait for it, so that they do share one.
    let foreign = Connection::open(&path).unwrap();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let first = store.append(append(3, 10));
    std::thread::sleep(std::time::Duration::from_millis(50));
    let group: Vec<_> = (4..20)
        .map(|number| store.append(append(number, if number == 10 { 1 << 20 } else { 10 })))
        .collect();
    let blob = store.blobs().put(
        crate::BlobKind::Component,
        "late".to_owned(),
        amends_engine::Digest::of(b"late"),
        Timestamp::from_millis(1),
        b"late".to_vec(),
    );
    foreign.execute_batch("ROLLBACK").unwrap();
    drop(foreign);
    first.await.unwrap();
    for result in join_all(group).await {
        assert!(
            matches!(result, Err(StoreError::Unavailable { obstacle: Obstacle::Full, .. })),
            "{result:?}"
        );
    }
    let blob = blob.await;
    assert!(
        matches!(blob, Err(StoreError::Unavailable { obstacle: Obstacle::Full, .. })),
        "{blob:?}"
    );
    assert_eq!(whole_log(&store).await.len(), 2);

    // It goes on, with no gap, and says so.
    store.append(append(10, 10)).await.unwrap();
    let log = whole_log(&store).await;
    let positions: Vec<_> = log.iter().map(|event| event.position.0).collect();
    assert_eq!(positions, [1, 2, 3]);
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    let mut health = store.maintenance().health();
    let well = health.wait_for(|health| matches!(health, StoreHealth::Well));
    tokio::time::timeout(std::time::Duration::from_mins(1), well).await.unwrap().unwrap();
    store.close().await.unwrap();
}

/// A panic of the writer: nobody waits for ever, and everybody hears why.
#[tokio::test]
async fn a_writer_that_ends_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("amends.db"), Durability::Full).unwrap();
    store.queue.push(Job::append(append(1, 10), None, AppendReply::new(|_| panic!("on purpose"))));
    let mut health = store.maintenance().health();
    let lost = health.wait_for(|health| matches!(health, StoreHealth::Lost(_)));
    let lost = tokio::time::timeout(std::time::Duration::from_mins(1), lost).await.unwrap();
    let lost = lost.unwrap().clone();
    assert!(matches!(lost, StoreHealth::Lost(StoreError::Fatal(Fatal::WriterEnded))), "{lost:?}");
    let late = store.append(append(2, 10)).await;
    assert!(matches!(late, Err(StoreError::Fatal(Fatal::WriterEnded))), "{late:?}");
    store.close().await.unwrap();
}

/// What the old host commits while the new one waits for its lock has its position before those of
/// the new one.
#[tokio::test]
async fn the_position_is_read_under_the_fence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("amends.db");
    let old = with_limits(&path, Limits::default());
    old.append(append(1, 10)).await.unwrap();
    let old_writes = Connection::open(&path).unwrap();
    old_writes
        .execute_batch(
            "BEGIN IMMEDIATE;
             INSERT INTO appends VALUES (2, x'02020202020202020202020202020202', 1, 1,
                 '[[\"step.started\",1]]', NULL)",
        )
        .unwrap();
    // As a host that does not see the lock.
    let lock = tempfile::tempfile().unwrap();
    let connection = open::open(&path, &lock, Durability::Relaxed).unwrap();
    let opened = std::thread::spawn({
        let path = path.clone();
        move || SqliteStore::start(&path, lock, connection, Limits::default())
    });
    std::thread::sleep(std::time::Duration::from_millis(500));
    old_writes.execute_batch("COMMIT").unwrap();
    let new = opened.join().unwrap().unwrap();
    new.append(append(3, 10)).await.unwrap();
    let log = whole_log(&new).await;
    let positions: Vec<_> = log.iter().map(|event| event.position.0).collect();
    assert_eq!(positions, [1, 2, 3]);
    // The old one learns of it also when it has nothing to write.
    let mut health = old.maintenance().health();
    let lost = health
        .wait_for(|health| matches!(health, StoreHealth::Lost(StoreError::Fatal(Fatal::Fenced))));
    tokio::time::timeout(std::time::Duration::from_mins(1), lost).await.unwrap().unwrap();
    new.close().await.unwrap();
}

/// What the log has at most while 25 MiB are appended and at each moment somebody reads.
async fn longest_log(limits: Limits) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("amends.db");
    let store = std::sync::Arc::new(with_limits(&path, limits));
    store.append(append(0, 10)).await.unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (store, stop) = (std::sync::Arc::clone(&store), std::sync::Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    // Holds its snapshot for longer than writes wait for it.
                    let read = store.query(|connection| {
                        let snapshot = connection.unchecked_transaction()?;
                        snapshot.query_row("SELECT count(*) FROM appends", [], |_| Ok(()))?;
                        std::thread::sleep(std::time::Duration::from_millis(150));
                        Ok(())
                    });
                    read.await.unwrap();
                }
            })
        })
        .collect();
    let mut longest = 0;
    for number in 1..=100 {
        store.append(append(number, 256 << 10)).await.unwrap();
        longest = longest.max(file::log_bytes(&path));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    store.close().await.unwrap();
    longest
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_overlap_do_not_make_the_log_grow() {
    let alone = longest_log(Limits { log_bytes_max: u64::MAX, ..Limits::default() }).await;
    let cut = longest_log(Limits { log_bytes_max: 2 << 20, ..Limits::default() }).await;
    // SQLite alone never begins it anew. While reads are waited for, appends go on.
    assert!(alone > 24 << 20, "the readers do not overlap: {alone}");
    assert!(cut < 16 << 20, "{cut}");
}

#[tokio::test]
async fn a_read_that_takes_too_long_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("amends.db");
    let short = std::time::Duration::from_millis(50);
    let limits = Limits { look_pause: short, read_time_max: short, ..Limits::default() };
    let store = with_limits(&path, limits);
    let endless =
        "WITH RECURSIVE all_of_them(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM all_of_them)
                   SELECT count(*) FROM all_of_them";
    let read = store.query(move |connection| connection.query_row(endless, [], |_| Ok(()))).await;
    assert!(
        matches!(read, Err(StoreError::Unavailable { obstacle: Obstacle::TooLong(_), .. })),
        "{read:?}"
    );
    // Its connection is as good as new.
    store.append(append(1, 10)).await.unwrap();
    assert_eq!(whole_log(&store).await.len(), 1);
    store.close().await.unwrap();
}

/// A path that was mistyped: whatever it leads to is left as it is, and nothing is put beside it.
#[test]
fn what_is_no_store_is_not_touched() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (text, other) = (folder.path().join("text"), folder.path().join("other"));
    std::fs::write(&text, "[host]\nname = \"amends\"\n").unwrap();
    let connection = Connection::open(&other).unwrap();
    connection.execute_batch("CREATE TABLE theirs (id)").unwrap();
    drop(connection);
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    for name in ["text", "other", "folder"] {
        let path = folder.path().join(name);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let before = std::fs::metadata(&path).unwrap();
        let refused = SqliteStore::open(&path, Durability::Relaxed).err().unwrap();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{name}: {refused}");
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!(after.permissions(), before.permissions(), "{name}");
        assert_eq!(after.modified().unwrap(), before.modified().unwrap(), "{name}");
    }
    for name in ["text-lock", "folder-lock"] {
        assert!(!folder.path().join(name).exists(), "{name}");
    }
}

/// A store whose log may have 2 MiB, and a read of it that takes minutes and has begun.
async fn with_long_read(
    path: &Path,
    read_time_max: std::time::Duration,
) -> (std::sync::Arc<SqliteStore>, tokio::task::JoinHandle<Result<(), StoreError>>) {
    let look_pause = std::time::Duration::from_millis(50);
    let limits = Limits { look_pause, read_time_max, log_bytes_max: 2 << 20 };
    let store = std::sync::Arc::new(with_limits(path, limits));
    store.append(append(0, 10)).await.unwrap();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let reading = std::sync::Arc::clone(&store);
    let long = tokio::spawn(async move {
        let long = "WITH RECURSIVE many(x) AS
                        (SELECT 1 UNION ALL SELECT x + 1 FROM many WHERE x < 1000000000)
                    SELECT count(*) FROM many";
        let read = reading.query(move |connection| {
            let snapshot = connection.unchecked_transaction()?;
            snapshot.query_row("SELECT count(*) FROM appends", [], |_| Ok(()))?;
            begun.send(()).unwrap();
            snapshot.query_row(long, [], |_| Ok(()))
        });
        read.await
    });
    has_begun.await.unwrap();
    (store, long)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_takes_long_holds_up_the_others_for_a_moment_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("amends.db");
    let (store, long) = with_long_read(&path, std::time::Duration::from_secs(20)).await;
    for number in 1..=12 {
        store.append(append(number, 256 << 10)).await.unwrap();
    }
    // It has looked at the log by then, and holds reads back.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(!whole_log(&*store).await.is_empty());
    assert!(!long.is_finished(), "the others waited for it to end");
    assert!(matches!(
        long.await.unwrap(),
        Err(StoreError::Unavailable { obstacle: Obstacle::TooLong(_), .. })
    ));
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_takes_long_is_ended_when_the_log_has_grown_too_far() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("amends.db");
    let (store, long) = with_long_read(&path, std::time::Duration::from_hours(1)).await;
    for number in 1..=60 {
        store.append(append(number, 256 << 10)).await.unwrap();
    }
    assert!(matches!(
        long.await.unwrap(),
        Err(StoreError::Unavailable { obstacle: Obstacle::TooLong(_), .. })
    ));
    store.close().await.unwrap();
    assert_eq!(file::log_bytes(&path), 0);
}

/// An append that has lost its version has a place in its stream all the same: whoever reads page
/// by page comes past it, and to the end.
#[tokio::test]
async fn a_stream_is_read_to_its_end_whatever_is_damaged() {
    for damaged in 1..=3_u32 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("amends.db");
        let store = SqliteStore::open(&path, Durability::Relaxed).unwrap();
        for number in 0..3 {
            let mut append = append(1, 10);
            append.expected = Version(2 * number);
            append.events.push(append.events[0].clone());
            store.append(append).await.unwrap();
        }
        let connection = Connection::open(&path).unwrap();
        let damage = "UPDATE appends SET version = 'lost' WHERE version = ?1";
        assert_eq!(connection.execute(damage, [2 * damaged]).unwrap(), 1);
        let stream = append(1, 10).stream;
        let (mut found, mut after) = (Vec::new(), Version(0));
        for limit in [1, 1, 1, 1, 1, 1, 1] {
            for event in
                store.log().stream(stream.clone(), after, PageBudget::items(limit)).await.unwrap()
            {
                assert!(event.version > after, "{event:?}");
                after = event.version;
                found.push((event.version.0, event.position.0, event.kind == "event.unreadable"));
            }
        }
        let lost = u64::from(2 * damaged);
        let expected = (1..=6).filter(|number| *number != lost).map(|number| {
            let is_lost = number + 1 == lost;
            // Its position is that of its last event.
            (number, if is_lost { lost } else { number }, is_lost)
        });
        assert_eq!(found, expected.collect::<Vec<_>>(), "append {damaged}");
        let whole = whole_stream(&store, stream).await;
        assert_eq!(whole.len(), found.len());
        let log = whole_log(&store).await;
        let positions: Vec<_> = log.iter().map(|event| event.position.0).collect();
        assert_eq!(positions, found.iter().map(|(_, position, _)| *position).collect::<Vec<_>>());
        store.close().await.unwrap();
    }
}

const LOST: &str = "event.unreadable";

/// A damaged type is none of a plugin's own: its first word is this host's.
#[tokio::test]
async fn an_event_whose_type_is_damaged_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("amends.db");
    let store = SqliteStore::open(&path, Durability::Relaxed).unwrap();
    let deploy = Append { stream: Stream::Deploys, ..append(1, 10) };
    for append in [append(1, 10), deploy.clone()] {
        store.append(append).await.unwrap();
    }
    let connection = Connection::open(&path).unwrap();
    let kinds = async |kind: &str| {
        let events = format!("[[\"{kind}\",{{}}]]");
        connection.execute("UPDATE appends SET events = ?1, sum = NULL", [events]).unwrap();
        let mut kinds = Vec::new();
        for event in whole_log(&store).await {
            let read = whole_stream(&store, event.stream.clone()).await;
            assert_eq!(read[0].kind, event.kind, "{:?}", event.stream);
            kinds.push(event.kind);
        }
        kinds
    };
    assert_eq!(kinds("step.succeedeX").await, [LOST, LOST]);
    // Nobody knows here what the types of deploys are.
    assert_eq!(kinds("step.succeedee").await, [LOST, "step.succeedee"]);
    assert_eq!(kinds("saga").await, [LOST, "saga"]);
    for kind in ["step.succeeded", "order.made"] {
        assert_eq!(kinds(kind).await, [kind, kind]);
    }
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

/// Each query for live sagas walks the index of what it is asked for, and sorts nothing.
#[test]
fn queries_for_live_sagas_walk_their_indexes_only() {
    let (_folder, path) = database();
    let connection = open::open(&path, &file::lock(&path).unwrap(), Durability::Full).unwrap();
    let plan = |query: &str| {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
        let details = statement.raw_query().mapped(|row| row.get::<_, String>("detail"));
        details.map(|detail| detail.unwrap()).collect::<Vec<_>>().join("; ")
    };
    let all = plan(&read::live_query(LiveSagas::All));
    let not_waiting = plan(&read::live_query(LiveSagas::NotWaiting));
    let (due, waiting) = (plan(read::due_query()), plan(read::waiting_query()));
    for plan in [&all, &not_waiting, &due, &waiting] {
        assert!(!plan.contains("TEMP B-TREE") && !plan.contains("SCAN"), "{plan}");
    }
    assert!(all.contains("sagas_live") && all.contains("sagas_waiting"), "{all}");
    assert!(not_waiting.contains("sagas_live") && !not_waiting.contains("sagas_waiting"));
    assert!(due.contains("sagas_due"), "{due}");
    assert!(due.contains("COVERING") && waiting.contains("COVERING"), "{due} {waiting}");
    assert!(waiting.contains("appends_stream"), "{waiting}");
}

/// A transaction takes less of what takes long to look at again.
#[test]
fn what_an_append_saw_counts_for_its_transaction() {
    let job =
        |state| Job::append(Append { state, ..append(1, 10) }, None, AppendReply::new(|_| ()));
    let plain = job(Vec::new()).bytes();
    let query = amends_engine::StateQuery { limit: 1_000, ..Default::default() };
    let list = StateList { query, keys: vec!["k".to_owned(); 999] };
    let mut seen = state_change(&[("a", Some("1"))], &[]);
    seen.lists = vec![list; 9];
    assert!(job(vec![seen.into()]).bytes() > plain + 9_000 * 200);
}
