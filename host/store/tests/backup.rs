//! Backups of files, their check, and their restore.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

mod temporary_file;

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amends_store::conformance::{StoreLocation as _, TestStore, saga_id, start, then, whole_log};
use amends_store::{
    Durability, OpenError, RestoreError, SqliteStore, StoppedStore, StoreError, check_file, restore,
};
use futures::future::join_all;
use rusqlite::Connection;
use temporary_file::TemporaryFile;

/// A closed store with this many sagas of two events each.
async fn filled(place: &TemporaryFile, sagas: u32) -> PathBuf {
    let store = place.open().await.unwrap();
    let starts: Vec<_> = (0..sagas).map(|number| store.append(start(number))).collect();
    for started in starts {
        started.await.unwrap();
    }
    for number in 0..sagas {
        store.append(then(number, 1)).await.unwrap();
    }
    store.close().await.unwrap();
    place.path()
}

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

/// A backup of a stopped store.
fn backup_of(path: &Path) -> PathBuf {
    let backup = path.with_file_name("backup.db");
    let store = StoppedStore::open(&url(path)).unwrap();
    store.back_up(&backup, false).unwrap();
    backup
}

/// The names in the folder of a file.
fn beside(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn open(path: &Path) -> TestStore {
    let store = SqliteStore::open(path, Durability::Full).unwrap();
    TestStore::of(Arc::new(store)).await.unwrap()
}

#[tokio::test]
async fn a_backup_of_a_stopped_store_is_one_file_that_needs_no_log() {
    let place = TemporaryFile::new();
    let path = filled(&place, 50).await;
    let before = fs::read(&path).unwrap();
    let backup = backup_of(&path);
    assert!(fs::read(&path).unwrap() == before, "the store was changed");
    assert_eq!(beside(&path), ["amends.db", "amends.db-lock", "backup.db"]);
    // Read and write version 1: no write-ahead log.
    assert_eq!(fs::read(&backup).unwrap()[18..20], [1, 1]);
    let check = check_file(&backup, None).unwrap();
    assert_eq!((check.events, check.sagas, &check.findings[..]), (100, 50, &[][..]));
    assert!(check.backup_at.is_some());
    assert_eq!(beside(&path), ["amends.db", "amends.db-lock", "backup.db"]);

    let store = StoppedStore::open(&url(&path)).unwrap();
    store.back_up(&backup, false).unwrap_err();
    store.back_up(&backup, true).unwrap();
    assert!(matches!(StoppedStore::open(&url(&path)), Err(OpenError::InUse(_))));
    drop(store);
    let refused = StoppedStore::open(&url(&path.with_file_name("none.db"))).err().unwrap();
    assert!(refused.to_string().contains("there is no store"), "{refused}");
    assert_eq!(beside(&path), ["amends.db", "amends.db-lock", "backup.db"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_go_on_beside_a_backup() {
    let place = TemporaryFile::new();
    let store = place.open().await.unwrap();
    // All at once, so that they share transactions.
    for started in join_all((0..20_000).map(|number| store.append(start(number)))).await {
        started.unwrap();
    }
    let copying = tokio::spawn({
        let store = store.clone();
        async move { store.maintenance().back_up().await.unwrap().summary }
    });
    let mut number = 20_000;
    while !copying.is_finished() {
        store.append(start(number)).await.unwrap();
        number += 1;
    }
    let summary = copying.await.unwrap();
    // It ended beside the load, and appends went on.
    assert!(summary.events >= 20_000 && number > 20_000, "{summary:?}, {number}");
    assert_eq!(beside(&place.path()).iter().filter(|name| name.contains("backup")).count(), 0);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_restored_store_goes_on_where_the_backup_was() {
    let place = TemporaryFile::new();
    let path = filled(&place, 20).await;
    let backup = backup_of(&path);
    let store = open(&path).await;
    store.append(start(100)).await.unwrap();
    let shut = restore(&backup, &url(&path), true).unwrap_err();
    assert!(matches!(shut, RestoreError::Open(OpenError::InUse(_))), "{shut}");
    store.close().await.unwrap();

    let refused = restore(&backup, &url(&path), false).unwrap_err();
    assert!(matches!(refused, RestoreError::Exists(_)), "{refused}");
    let restored = restore(&backup, &url(&path), true).unwrap();
    assert_eq!((restored.check.events, restored.check.sagas), (40, 20));
    let store = open(&path).await;
    let log = whole_log(&*store).await;
    assert_eq!(log.len(), 40);
    assert_eq!(store.sagas().row(saga_id(100)).await.unwrap(), None);
    store.append(then(3, 2)).await.unwrap();
    store.close().await.unwrap();
    // The old one is whole, too.
    let old = check_file(&restored.replaced.unwrap(), None).unwrap();
    assert_eq!((old.events, &old.findings[..]), (41, &[][..]));

    // Where there is no store, nothing is replaced, and folders are made.
    let other = path.with_file_name("other").join("amends.db");
    assert_eq!(restore(&backup, &url(&other), false).unwrap().replaced, None);
    assert_eq!(beside(&other), ["amends.db", "amends.db-lock"]);
}

/// A copy that people made beside the store is theirs, and a backup never takes the place of a store:
/// a host may have it open.
#[tokio::test]
async fn no_backup_replaces_a_store_or_a_copy_of_others() {
    let place = TemporaryFile::new();
    let path = filled(&place, 3).await;
    for name in ["amends.db-backup", "amends.db-restored"] {
        fs::copy(&path, path.with_file_name(name)).unwrap();
    }
    let before = beside(&path);
    let store = StoppedStore::open(&url(&path)).unwrap();
    let refused = store.back_up(&path, true).unwrap_err();
    let text = std::error::Error::source(&refused).unwrap().to_string();
    assert!(text.contains("is a store, because"), "{text}");
    drop(store);
    let store = open(&path).await;
    drop(store.maintenance().back_up().await.unwrap());
    store.close().await.unwrap();
    let backup = backup_of(&path);
    restore(&backup, &url(&path), true).unwrap();
    let after = beside(&path);
    assert!(before.iter().all(|name| after.contains(name)), "{before:?}, {after:?}");
    let store = check_file(&path, None).unwrap();
    assert_eq!((store.events, store.backup_at, &store.findings[..]), (6, None, &[][..]));
}

/// As long as a process that did not see the lock is in a transaction, the old store cannot be fenced:
/// nothing is restored.
#[tokio::test]
async fn nothing_is_restored_while_the_old_store_cannot_be_fenced() {
    let place = TemporaryFile::new();
    let path = filled(&place, 3).await;
    let backup = backup_of(&path);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = restore(&backup, &url(&path), true).unwrap_err();
    assert!(matches!(refused, RestoreError::Open(OpenError::Store(_))), "{refused:?}");
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    assert_eq!(beside(&path), ["amends.db", "amends.db-lock", "backup.db"]);
    restore(&backup, &url(&path), true).unwrap();
}

/// A host that did not see the lock, such as one that was paused on another machine, writes nothing
/// after a restore, neither into the old file nor into the new one.
#[tokio::test]
async fn a_paused_host_is_fenced_by_a_restore() {
    let place = TemporaryFile::new();
    let path = filled(&place, 20).await;
    let backup = backup_of(&path);
    // Each start raises the fence, past that of the backup.
    for _ in 0..3 {
        open(&path).await.close().await.unwrap();
    }
    let paused = open(&path).await;
    paused.append(start(100)).await.unwrap();
    fs::remove_file(path.with_file_name("amends.db-lock")).unwrap();
    let replaced = restore(&backup, &url(&path), true).unwrap().replaced.unwrap();
    let refused = paused.append(start(101)).await.unwrap_err();
    assert!(matches!(refused, StoreError::LostOwnership(_) | StoreError::Fatal(_)), "{refused}");
    let fence = |path: &Path| -> i64 {
        let fence = "SELECT value FROM meta WHERE name = 'fence'";
        Connection::open(path).unwrap().query_row(fence, [], |row| row.get(0)).unwrap()
    };
    assert!(fence(&path) > fence(&replaced) + 1_000, "{} {}", fence(&path), fence(&replaced));
    let store = open(&path).await;
    assert_eq!(whole_log(&*store).await.len(), 40);
}

/// Writes over some bytes of a file.
fn damage(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

#[tokio::test]
async fn a_check_names_the_page_the_table_and_the_saga_that_is_damaged() {
    let place = TemporaryFile::new();
    let path = filled(&place, 200).await;
    let backup = backup_of(&path);
    let saga = saga_id(7).to_string();
    let connection = Connection::open(&backup).unwrap();
    let change =
        "UPDATE appends SET events = '[[\"step.done\",{}]]' WHERE stream = ?1 AND version = 2";
    assert_eq!(connection.execute(change, [saga_id(7).as_bytes()]).unwrap(), 1);
    drop(connection);
    let findings = check_file(&backup, None).unwrap().findings.join("\n");
    assert!(findings.contains(&saga) && findings.contains("step.done"), "{findings}");

    let connection = Connection::open(&backup).unwrap();
    connection.execute("DELETE FROM appends WHERE position = 9", []).unwrap();
    let tree = "SELECT rootpage FROM sqlite_schema WHERE name = 'sagas'";
    let page: u64 =
        connection.query_row(tree, [], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned();
    drop(connection);
    let findings = check_file(&backup, None).unwrap().findings.join("\n");
    assert!(findings.contains("1 events before the append are missing"), "{findings}");

    damage(&backup, (page - 1) * 4_096 + 12, &[0xff; 64]);
    let findings = check_file(&backup, None).unwrap().findings.join("\n");
    assert!(findings.contains("table sagas: Tree"), "{findings}");
    let refused = restore(&backup, &url(&path.with_file_name("new.db")), false).unwrap_err();
    assert!(matches!(refused, RestoreError::Damaged { .. }), "{refused}");
    assert!(!path.with_file_name("new.db").exists());
}

#[tokio::test]
async fn a_restore_refuses_what_is_no_sound_store_of_this_version() {
    let place = TemporaryFile::new();
    let path = filled(&place, 20).await;
    let backup = backup_of(&path);
    let before = fs::read(&path).unwrap();
    let refused = |change: &dyn Fn(&Path), word: &str| {
        let copy = path.with_file_name("changed.db");
        fs::copy(&backup, &copy).unwrap();
        change(&copy);
        let error = restore(&copy, &url(&path), true).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    };
    let sql = |sql: &'static str| {
        move |path: &Path| Connection::open(path).unwrap().execute_batch(sql).unwrap()
    };
    refused(&sql("PRAGMA user_version = 99"), "schema version 99");
    refused(&sql("PRAGMA application_id = 7"), "another program");
    refused(&sql("DROP TABLE state"), "table state is missing");
    refused(&|path| fs::write(path, "no store").unwrap(), "not a SQLite database");
    refused(
        &|path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        },
        "the end of it is missing",
    );
    assert!(fs::read(&path).unwrap() == before, "the store was changed");
    assert_eq!(beside(&path), ["amends.db", "amends.db-lock", "backup.db", "changed.db"]);
}

/// What a store looks like after a crash between two steps of a restore: the old store with a second
/// name. A host refuses it, and the next restore goes through.
#[tokio::test]
async fn a_restore_that_was_killed_can_be_repeated() {
    let place = TemporaryFile::new();
    let path = filled(&place, 20).await;
    let backup = backup_of(&path);
    let second = path.with_file_name("amends.db-replaced-20260301T093000.000Z");
    fs::hard_link(&path, &second).unwrap();
    let refused = SqliteStore::open(&path, Durability::Full).err().unwrap().to_string();
    assert!(refused.contains("2 names"), "{refused}");
    let refused = restore(&backup, &url(&path), false).unwrap_err();
    assert!(matches!(refused, RestoreError::Exists(_)), "{refused}");
    assert!(!second.exists(), "the second name is still there");
    restore(&backup, &url(&path), true).unwrap();
    assert_eq!(check_file(&path, None).unwrap().findings, Vec::<String>::new());
}
