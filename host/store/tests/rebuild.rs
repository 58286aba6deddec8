//! Projections that were spoiled in the file: a check names each, and a rebuild mends it, also when the
//! process is killed meanwhile.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod temporary_file;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use amends_engine::SagaId;
use amends_store::conformance::{
    StoreLocation as _, TestStore, put_definition, real_definition, real_saga, rebuild_all,
    saga_id, start,
};
use amends_store::{
    Durability, RebuildError, RebuildPlace, RestoreError, SqliteStore, StoppedStore, check_file,
    restore,
};
use rusqlite::Connection;
use rusqlite::types::Value;
use temporary_file::TemporaryFile;

const SAGAS: u32 = 24;

/// Each thing that is spoiled, with what the finding says. Saga 2 is blocked, so it has failures.
const SPOILED: [(&str, &str); 27] = [
    (
        "UPDATE sagas SET definition = 'other' WHERE id = ?1",
        "table sagas, column definition: it is `other`",
    ),
    (
        "UPDATE sagas SET definition_digest = zeroblob(32) WHERE id = ?1",
        "sagas, column definition_digest",
    ),
    (
        "UPDATE sagas SET status = 'running' WHERE id = ?1",
        "column status: it is `running`, and by its events it is `blocked`",
    ),
    ("UPDATE sagas SET status = 'lost' WHERE id = ?1", "sagas, column status: `lost` is not"),
    ("UPDATE sagas SET reason = NULL WHERE id = ?1", "column reason: it is empty"),
    ("UPDATE sagas SET started_at = 1 WHERE id = ?1", "column started_at: it is 1,"),
    (
        "UPDATE sagas SET ended_at = 7 WHERE id = ?1",
        "column ended_at: it is 7, and by its events it is empty",
    ),
    ("UPDATE sagas SET deadline_at = NULL WHERE id = ?1", "column deadline_at"),
    ("UPDATE sagas SET wake_at = 5 WHERE id = ?1", "column wake_at"),
    ("UPDATE sagas SET tags = NULL WHERE id = ?1", "sagas, column tags"),
    ("UPDATE sagas SET tags = '{' WHERE id = ?1", "sagas, column tags: EOF"),
    ("UPDATE sagas SET key = 'other' WHERE id = ?1", "sagas, column key: it is `other`"),
    ("UPDATE sagas SET index_values = NULL WHERE id = ?1", "sagas, column index_values"),
    ("DELETE FROM sagas WHERE id = ?1", "table sagas: there is no row, and it has events"),
    ("DELETE FROM saga_tags WHERE saga = ?1", "table saga_tags: the tag `country=0` is missing"),
    (
        "UPDATE saga_tags SET value = '7' WHERE saga = ?1",
        "table saga_tags: there is the row `country`, `7`",
    ),
    (
        "DELETE FROM saga_index WHERE saga = ?1 AND name = 'total'",
        "table saga_index: `total` is missing",
    ),
    (
        "UPDATE saga_index SET value = 3 WHERE saga = ?1 AND name = 'total'",
        "saga_index, `total`, column value: it is 3, and by its events it is 2",
    ),
    ("INSERT INTO saga_index VALUES ('more', 1, ?1)", "table saga_index: `more` is 1"),
    (
        "DELETE FROM failures WHERE saga = ?1 AND step = 'pay'",
        "table failures, step `pay`, call `execute`: the row is missing",
    ),
    (
        "UPDATE failures SET code = 'other' WHERE saga = ?1 AND step = 'pay'",
        "failures, step `pay`, call `execute`, column code: it is `other`",
    ),
    (
        "UPDATE failures SET text = 'other' WHERE saga = ?1 AND step = 'pay'",
        "column text: it is `other`",
    ),
    (
        "UPDATE failures SET position = 999999 WHERE saga = ?1 AND step = 'pay'",
        "column position: it is 999999",
    ),
    (
        "INSERT INTO failure_texts (failure_texts, rowid, text) SELECT 'delete', position, text FROM failures WHERE saga = ?1 AND step = 'pay'",
        "its words are not in the index of words",
    ),
    ("DELETE FROM start_keys WHERE saga = ?1", "table start_keys, key `key-2`: the row is missing"),
    (
        "UPDATE start_keys SET payload_digest = zeroblob(32) WHERE saga = ?1",
        "key `key-2`, column payload_digest",
    ),
    (
        "UPDATE start_keys SET key = 'other' WHERE saga = ?1",
        "table start_keys: there is the row `other`",
    ),
];

/// Rows that name a saga that is not there.
const STRAYS: [(&str, &str); 3] = [
    (
        "INSERT INTO saga_tags VALUES ('a', 'b', zeroblob(16))",
        "table saga_tags: there is the row `a`, `b`",
    ),
    (
        "INSERT INTO saga_index VALUES ('a', 'b', zeroblob(16))",
        "table saga_index: there is the row `a`, `b`",
    ),
    (
        "INSERT INTO failures VALUES (999999, zeroblob(16), 'a', -1, 'execute', 'b', NULL, 'c')",
        "table failures: there is the row 999999",
    ),
];

async fn fill(store: &TestStore) {
    let definition = Arc::new(real_definition());
    put_definition(&**store, &definition).await;
    for number in 0..SAGAS {
        for append in real_saga(&definition, number) {
            store.append(append).await.unwrap();
        }
    }
}

/// Every row of the projections, and what the index of words finds.
fn dump(path: &Path) -> BTreeMap<&'static str, Vec<Vec<Value>>> {
    let connection = Connection::open(path).unwrap();
    let tables = [
        ("sagas", "SELECT * FROM sagas ORDER BY id"),
        ("saga_tags", "SELECT * FROM saga_tags ORDER BY name, value, saga"),
        ("saga_index", "SELECT * FROM saga_index ORDER BY name, value, saga"),
        ("failures", "SELECT * FROM failures ORDER BY position"),
        (
            "words",
            "SELECT rowid FROM failure_texts WHERE failure_texts MATCH 'route' ORDER BY rowid",
        ),
        (
            "others",
            "SELECT rowid FROM failure_texts WHERE failure_texts MATCH 'other' ORDER BY rowid",
        ),
        ("start_keys", "SELECT * FROM start_keys ORDER BY key"),
    ];
    let read = |sql: &str| {
        let mut statement = connection.prepare(sql).unwrap();
        let columns = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
        statement.query_map([], row).unwrap().map(Result::unwrap).collect()
    };
    tables.into_iter().map(|(name, sql)| (name, read(sql))).collect()
}

fn spoil(path: &Path, sql: &str) {
    let connection = Connection::open(path).unwrap();
    let id = saga_id(2);
    let rows = if sql.contains("?1") {
        connection.execute(sql, [id.as_bytes()])
    } else {
        connection.execute(sql, [])
    };
    assert!(rows.unwrap() > 0 || sql.contains("failure_texts"), "{sql}");
}

#[tokio::test]
async fn each_spoiled_column_is_named_and_mended() {
    let place = TemporaryFile::new();
    let store = place.open().await.unwrap();
    fill(&store).await;
    let sound = dump(&place.path());
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    for (sql, told) in SPOILED.into_iter().chain(STRAYS) {
        spoil(&place.path(), sql);
        let findings = store.maintenance().verify().await.unwrap();
        assert!(findings.iter().any(|finding| finding.contains(told)), "{sql}: {findings:#?}");
        let of =
            if sql.contains("?1") { format!("saga {}", saga_id(2)) } else { "saga 0000".into() };
        assert!(findings.iter().all(|finding| finding.contains(&of)), "{sql}: {findings:#?}");
        let done = rebuild_all(&*store).await;
        assert_eq!(done.unreadable, [], "{sql}");
        assert!(done.rebuilt + done.removed > 0, "{sql}");
        assert_eq!(dump(&place.path()), sound, "{sql}");
        assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new(), "{sql}");
    }
    store.close().await.unwrap();

    // All at once, in the file of a stopped host.
    for (sql, _) in SPOILED.into_iter().chain(STRAYS) {
        // What was spoiled before may be gone.
        let connection = Connection::open(place.path()).unwrap();
        let id = saga_id(2);
        let _ = if sql.contains("?1") {
            connection.execute(sql, [id.as_bytes()])
        } else {
            connection.execute(sql, [])
        };
    }
    let check = check_file(&place.path(), None).unwrap();
    assert!(check.findings.len() > 5, "{:#?}", check.findings);
    assert_eq!(check.not_folded, None);
    let store = place.open().await.unwrap();
    rebuild_all(&*store).await;
    store.close().await.unwrap();
    assert_eq!(dump(&place.path()), sound);
    assert_eq!(check_file(&place.path(), None).unwrap().findings, Vec::<String>::new());
}

/// A backup in which only projections are wrong is restored, and one with damaged events is not.
#[tokio::test]
async fn a_backup_that_a_rebuild_mends_is_restored() {
    let place = TemporaryFile::new();
    let store = place.open().await.unwrap();
    fill(&store).await;
    store.close().await.unwrap();
    let sound = dump(&place.path());
    let url = |path: &Path| format!("sqlite:{}", path.display());
    let backup = place.path().with_file_name("backup.db");
    StoppedStore::open(&url(&place.path())).unwrap().back_up(&backup, false).unwrap();
    for sql in [
        "UPDATE sagas SET status = 'running' WHERE id = ?1",
        "DELETE FROM saga_tags WHERE saga = ?1",
        "INSERT INTO saga_tags VALUES ('a', 'b', zeroblob(16))",
    ] {
        spoil(&backup, sql);
    }
    let check = check_file(&backup, None).unwrap();
    assert!(check.mendable >= 3 && !check.is_damaged(), "{:#?}", check.findings);
    let path = place.path().with_file_name("new.db");
    assert_eq!(restore(&backup, &url(&path), false).unwrap().check.mendable, check.mendable);
    let store = SqliteStore::open(&path, Durability::Full).unwrap();
    let store = TestStore::of(Arc::new(store)).await.unwrap();
    rebuild_all(&*store).await;
    store.close().await.unwrap();
    assert_eq!(dump(&path), sound);

    let first = "(SELECT min(position) FROM appends WHERE stream = ?1)";
    spoil(&backup, &format!("UPDATE appends SET events = '[]' WHERE position = {first}"));
    assert!(check_file(&backup, None).unwrap().is_damaged());
    let refused = restore(&backup, &url(&place.path().with_file_name("other.db")), false);
    assert!(matches!(refused, Err(RestoreError::Damaged { .. })), "{refused:?}");
}

/// The rows of a saga whose events cannot be folded stay as they are, and it is named.
#[tokio::test]
async fn what_cannot_be_read_stays_as_it_is() {
    let place = TemporaryFile::new();
    let store = place.open().await.unwrap();
    fill(&store).await;
    // Its definition is in no store.
    let mut stranger = start(50);
    stranger.row.as_mut().unwrap().tags.insert("country".to_owned(), "9".to_owned());
    store.append(stranger).await.unwrap();
    spoil(&place.path(), "UPDATE sagas SET tags = NULL WHERE tags LIKE '%9%'");
    spoil(&place.path(), "UPDATE sagas SET status = 'running' WHERE id = ?1");
    let before = dump(&place.path());
    let done = rebuild_all(&*store).await;
    assert_eq!((done.rebuilt, done.removed), (1, 0));
    assert_eq!(done.unreadable.len(), 1);
    assert_eq!(done.unreadable[0].0, saga_id(50));
    let after = dump(&place.path());
    assert_eq!(after["saga_tags"], before["saga_tags"]);
    store.close().await.unwrap();
    let check = check_file(&place.path(), None).unwrap();
    assert_eq!(
        check.not_folded.as_ref().map(|(sagas, (id, _))| (*sagas, *id)),
        Some((1, saga_id(50)))
    );
}

/// Sagas whose events are not found, as when an index is damaged, keep all that they have: a row that went
/// would be missing, and a start key that went would let its order run twice.
#[tokio::test]
async fn what_has_no_events_is_never_removed() {
    let place = TemporaryFile::new();
    let store = place.open().await.unwrap();
    fill(&store).await;
    spoil(&place.path(), "DELETE FROM appends WHERE stream = ?1");
    spoil(&place.path(), "UPDATE sagas SET tags = NULL, key = 'other' WHERE id = ?1");
    let key = "INSERT INTO start_keys VALUES ('a', zeroblob(16), zeroblob(32), 1, NULL)";
    spoil(&place.path(), key);
    let before = dump(&place.path());
    let findings = store.maintenance().verify().await.unwrap();
    let told = "table start_keys: there is a row, and no events";
    assert!(findings.iter().any(|finding| finding.contains(told)), "{findings:#?}");
    let done = rebuild_all(&*store).await;
    assert_eq!((done.rebuilt, done.removed), (0, 0));
    let unreadable: Vec<_> = done.unreadable.iter().map(|(id, _)| *id).collect();
    // Its key is not that of its row, so it is named once more.
    assert_eq!(unreadable, [saga_id(2), SagaId::from_bytes([0; 16]), saga_id(2)]);
    assert!(done.unreadable[0].1.contains("a row and no events"), "{:?}", done.unreadable);
    assert_eq!(dump(&place.path()), before);
    store.close().await.unwrap();
}

/// Rows are looked at a page after another, whatever bytes their keys have, and each page ends.
#[tokio::test]
async fn many_strays_are_found_page_by_page() {
    let place = TemporaryFile::new();
    let store = place.open().await.unwrap();
    fill(&store).await;
    let sound = dump(&place.path());
    for sql in [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 800)
         INSERT INTO saga_tags SELECT CAST(x'ff' || i AS TEXT), CAST(x'c3' AS TEXT), zeroblob(16)
         FROM n",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
         INSERT INTO saga_index SELECT hex(zeroblob(900)) || i, i * 0.1, zeroblob(16) FROM n",
        "INSERT INTO saga_index SELECT 'a', i, zeroblob(16) FROM
         (SELECT 1 AS i UNION SELECT 1.5 UNION SELECT 'x' UNION SELECT x'00')",
    ] {
        spoil(&place.path(), sql);
    }
    let findings = store.maintenance().verify().await.unwrap();
    assert_eq!(findings.len(), 101);
    assert_eq!(findings[100], "1104 more differences of the projections");
    let done = rebuild_all(&*store).await;
    assert_eq!((done.rebuilt, done.removed, done.unreadable.len()), (0, 1_204, 0));
    assert_eq!(dump(&place.path()), sound);
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    store.close().await.unwrap();
}

/// Rows that two sagas have in each other's place are given back by one rebuild.
#[tokio::test]
async fn swapped_failures_are_given_back() {
    let place = TemporaryFile::new();
    let store = place.open().await.unwrap();
    fill(&store).await;
    let sound = dump(&place.path());
    let connection = Connection::open(place.path()).unwrap();
    let swap = "UPDATE failures SET saga = ?2 WHERE saga = ?1 AND step = 'pay'";
    for (from, to) in [(2, 90), (8, 2), (90, 8)] {
        let ids = [saga_id(from), saga_id(to)].map(|id| id.as_bytes().to_vec());
        assert_eq!(connection.execute(swap, ids).unwrap(), 1);
    }
    assert_ne!(dump(&place.path()), sound);
    rebuild_all(&*store).await;
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    assert_eq!(dump(&place.path()), sound);
    store.close().await.unwrap();
}

/// A saga that cannot be written is named, and the others are rebuilt.
#[tokio::test]
async fn one_saga_that_cannot_be_written_stops_no_other() {
    let place = TemporaryFile::new();
    let store = place.open().await.unwrap();
    fill(&store).await;
    let sound = dump(&place.path());
    let connection = Connection::open(place.path()).unwrap();
    let refuse = format!(
        "CREATE TRIGGER refused BEFORE INSERT ON sagas WHEN hex(new.id) = '{}'
         BEGIN SELECT RAISE(ABORT, 'refused'); END;
         UPDATE sagas SET status = 'completed', reason = 'none'",
        saga_id(2).as_bytes().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().concat()
    );
    connection.execute_batch(&refuse).unwrap();
    let done = rebuild_all(&*store).await;
    assert_eq!(done.rebuilt, u64::from(SAGAS) - 1);
    assert_eq!(done.unreadable.len(), 1);
    assert_eq!(done.unreadable[0].0, saga_id(2));
    assert!(done.unreadable[0].1.contains("cannot be written: refused"), "{:?}", done.unreadable);
    connection.execute_batch("DROP TRIGGER refused").unwrap();
    assert_eq!(rebuild_all(&*store).await.rebuilt, 1);
    assert_eq!(dump(&place.path()), sound);
    store.close().await.unwrap();
}

/// Slices take turns: a second one at the same time is refused, so readers are left for sagas.
#[tokio::test]
async fn one_slice_is_done_at_a_time() {
    let place = TemporaryFile::new();
    let store = place.open().await.unwrap();
    fill(&store).await;
    let maintenance = store.maintenance();
    let mut is_refused = false;
    // The first one may be done before the second one is asked for.
    while !is_refused {
        let slices =
            (maintenance.rebuild(RebuildPlace::START), maintenance.rebuild(RebuildPlace::START));
        let (first, second) = tokio::join!(slices.0, slices.1);
        first.unwrap();
        is_refused = matches!(second, Err(RebuildError::UnderWay));
    }
    rebuild_all(&*store).await;
    store.close().await.unwrap();
}

/// Names the file to the child: this same test, in a process of its own.
const CHILD: &str = "AMENDS_STORE_TEST_CHILD";

/// A process that is killed in the middle of a rebuild leaves each saga with its old rows or its new
/// ones, and the next rebuild does the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_rebuild_is_begun_again() {
    if let Some(path) = std::env::var_os(CHILD) {
        rebuild_until_killed(Path::new(&path)).await;
    }
    let place = TemporaryFile::new();
    let store = place.open().await.unwrap();
    fill(&store).await;
    store.close().await.unwrap();
    let sound = dump(&place.path());
    for lines in [0, 1, 5] {
        let connection = Connection::open(place.path()).unwrap();
        connection.execute("UPDATE sagas SET status = 'completed', reason = 'none'", []).unwrap();
        connection.execute("DELETE FROM failures WHERE step = 'reserve'", []).unwrap();
        // The words of the texts that were there before stay indexed.
        connection.execute("UPDATE failures SET text = 'other'", []).unwrap();
        connection.execute("DELETE FROM saga_tags", []).unwrap();
        drop(connection);
        kill_after(&place.path(), lines);
        let store = place.open().await.unwrap();
        rebuild_all(&*store).await;
        assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
        store.close().await.unwrap();
        assert_eq!(dump(&place.path()), sound);
    }
}

/// Starts a child, and kills it after so many lines.
fn kill_after(path: &Path, lines: usize) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["a_killed_rebuild_is_begun_again", "--exact", "--nocapture"])
        .env(CHILD, path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stderr.take().unwrap()).lines();
    for _ in 0..lines {
        output.next().unwrap().unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Rebuilds and spoils again, and writes a line for each slice.
async fn rebuild_until_killed(path: &Path) -> ! {
    let store = SqliteStore::open(path, Durability::Full).unwrap();
    let store = TestStore::of(Arc::new(store)).await.unwrap();
    loop {
        let mut next = Some(RebuildPlace::START);
        while let Some(from) = next {
            next = store.maintenance().rebuild(from).await.unwrap().next;
            eprintln!("a slice");
        }
        let connection = Connection::open(path).unwrap();
        connection.execute("UPDATE sagas SET status = 'completed'", []).unwrap();
        connection.execute("UPDATE failures SET text = 'other'", []).unwrap();
    }
}
