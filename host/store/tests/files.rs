//! What SQLite's store makes of the files that it finds.

#![allow(clippy::wildcard_enum_match_arm, reason = "whatever else it is, it is wrong")]
#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

mod temporary_file;

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amends_engine::Version;
use amends_store::conformance::{
    self, StoreLocation as _, TestStore, at, live_page, saga_id, start, then, whole_log,
    whole_stream,
};
use amends_store::{
    Append, Cursor, Durability, EVENT_UNREADABLE, NewEvent, OpenError, PageBudget, SagaQuery,
    SqliteStore, Store as _, StoreConfig, StoreError, StoredEvent, Stream, check_file, restore,
};
use futures::FutureExt as _;
use rusqlite::Connection;
use temporary_file::TemporaryFile;

fn open(path: &Path) -> Result<TestStore, OpenError> {
    let store = SqliteStore::open(path, Durability::Full)?;
    Ok(TestStore::of(Arc::new(store)).now_or_never().expect("shards are gained at once")?)
}

/// The error, which must name the file.
fn refusal(path: &Path) -> OpenError {
    let error = open(path).err().expect("the file is refused");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    error
}

/// Refused as damaged for this reason, and left as it is.
fn damaged(path: &Path, reason: &str) {
    let before = fs::read(path).ok();
    match refusal(path) {
        OpenError::Damaged { source, .. } => {
            assert!(source.to_string().contains(reason), "{source}");
        }
        other => panic!("{other:?}"),
    }
    assert!(fs::read(path).ok() == before, "the file was changed");
}

/// A closed store with some sagas.
async fn filled(place: &TemporaryFile, sagas: u32) -> PathBuf {
    let store = place.open().await.unwrap();
    let pending: Vec<_> = (0..sagas).map(|number| store.append(start(number))).collect();
    for append in pending {
        append.await.unwrap();
    }
    store.close().await.unwrap();
    place.path()
}

fn change(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn refuses_a_newer_version() {
    let place = TemporaryFile::new();
    let path = filled(&place, 10).await;
    change(&path, "PRAGMA user_version = 99; PRAGMA journal_mode = DELETE");
    let before = fs::read(&path).unwrap();
    match refusal(&path) {
        OpenError::NewerSchema { found: 99, known: 12, .. } => {}
        other => panic!("{other:?}"),
    }
    let text = refusal(&path).to_string();
    assert!(text.contains("version 99") && text.contains("use the newer version"), "{text}");
    assert!(fs::read(&path).unwrap() == before, "the file was changed");
}

#[tokio::test]
async fn refuses_what_is_no_database_of_ours() {
    let place = TemporaryFile::new();
    let path = place.path();
    fs::write(&path, "These are minutes of a meeting.\n".repeat(100)).unwrap();
    damaged(&path, "not a SQLite database");
    fs::write(&path, "short").unwrap();
    damaged(&path, "not a SQLite database");
    fs::write(&path, "").unwrap();
    damaged(&path, "empty");
    fs::remove_file(&path).unwrap();
    change(&path, "CREATE TABLE notes (text TEXT)");
    damaged(&path, "another program");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    damaged(&path, "not a file");
}

#[tokio::test]
async fn reports_a_truncated_file() {
    let place = TemporaryFile::new();
    let path = filled(&place, 500).await;
    let length = fs::metadata(&path).unwrap().len();
    assert!(length > 40_000, "{length}");
    for keep in [length - 1, length / 2, 4_096, 150] {
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(keep).unwrap();
        damaged(&path, "the end of it is missing");
    }
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(50).unwrap();
    damaged(&path, "not a SQLite database");
}

/// The files of a store as a kill leaves them: the latest commits are in the log alone.
#[tokio::test]
async fn reports_acknowledged_events_that_are_lost() {
    let place = TemporaryFile::new();
    let store = place.open().await.unwrap();
    for number in 0..50 {
        store.append(start(number)).await.unwrap();
    }
    let events = whole_log(&*store).await.len();
    let killed = |keep: u64| {
        let folder = tempfile::tempdir().unwrap();
        for suffix in ["", "-wal", "-lock"] {
            let name = format!("amends.db{suffix}");
            fs::copy(place.path().with_file_name(&name), folder.path().join(name)).unwrap();
        }
        let log =
            fs::OpenOptions::new().write(true).open(folder.path().join("amends.db-wal")).unwrap();
        log.set_len(log.metadata().unwrap().len().min(keep)).unwrap();
        folder
    };
    let whole = killed(u64::MAX);
    let found = open(&whole.path().join("amends.db")).unwrap();
    assert_eq!(whole_log(&*found).await.len(), events);
    drop(found);
    let length = fs::metadata(place.path().with_file_name("amends.db-wal")).unwrap().len();
    for keep in [length - 1, length / 2, 4_096, 32, 0] {
        let folder = killed(keep);
        let path = folder.path().join("amends.db");
        let check = check_file(&path, None).unwrap();
        let said = format!("but event {events} was acknowledged");
        assert!(check.findings.iter().any(|found| found.contains(&said)), "{:?}", check.findings);
        let error = refusal(&path);
        assert!(error.to_string().contains(&said), "{error}");
        let OpenError::Behind { acknowledged, last, lock, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(acknowledged.0, events as u64);
        assert!(last < acknowledged);
        // With `relaxed` a machine that stops may lose the latest commits.
        let relaxed = SqliteStore::open(&path, Durability::Relaxed).unwrap();
        relaxed.close().await.unwrap();
        open(&path).err().expect("they are lost still");
        // As the error says.
        fs::remove_file(lock).unwrap();
        let found = open(&path).unwrap();
        assert_eq!(whole_log(&*found).await.len() as u64, last.0);
        drop(found);
    }
    // What is restored in this place may be older.
    let folder = killed(0);
    let (path, backup) = (folder.path().join("amends.db"), place.path().with_extension("backup"));
    let older = TemporaryFile::new();
    let older = filled(&older, 3).await;
    fs::copy(&older, &backup).unwrap();
    restore(&backup, &format!("sqlite:{}", path.display()), true).unwrap();
    assert_eq!(whole_log(&*open(&path).unwrap()).await.len(), 3);
}

#[tokio::test]
async fn reports_missing_parts() {
    let place = TemporaryFile::new();
    let path = filled(&place, 10).await;
    change(&path, "PRAGMA journal_mode = DELETE; DROP TABLE start_keys");
    match refusal(&path) {
        OpenError::Damaged { source, .. } => {
            assert!(source.to_string().contains("start_keys"), "{source}");
        }
        other => panic!("{other:?}"),
    }
    fs::remove_file(&path).unwrap();
    fs::write(path.with_extension("db-wal"), "the last appends").unwrap();
    match refusal(&path) {
        OpenError::Damaged { source, .. } => {
            assert!(source.to_string().contains("its log"), "{source}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!path.exists(), "a new database was made");
}

#[tokio::test]
async fn reports_damage_inside() {
    let place = TemporaryFile::new();
    let path = filled(&place, 2_000).await;
    // All but the first pages become noise.
    let mut file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    let from = 16 * 4_096;
    content[from..].iter_mut().zip(0_u32..).for_each(|(byte, number)| {
        *byte = number.wrapping_mul(2_654_435_761).to_be_bytes()[0];
    });
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&content).unwrap();
    drop(file);
    // The opening looks at little; whatever meets the damage must say so.
    let error = match open(&path) {
        Err(error) => error,
        Ok(store) => {
            if let Ok(findings) = store.maintenance().verify().await {
                assert!(!findings.is_empty(), "damage was not found");
            }
            let budget = PageBudget::items(u32::MAX);
            let read = store.log().follow(Cursor::START, budget).await;
            read.expect_err("noise was read as events").into()
        }
    };
    let is_damaged = |error: &OpenError| {
        matches!(error, OpenError::Damaged { .. } | OpenError::Store(StoreError::Damaged { .. }))
    };
    assert!(is_damaged(&error), "{error:?}");
}

/// Versions before kept no word of sagas that start long after their ids were made.
#[tokio::test]
async fn learns_how_late_sagas_started_in_a_store_from_before() {
    let place = TemporaryFile::new();
    let store = place.open().await.unwrap();
    let mut late = start(1);
    late.row.as_mut().unwrap().started_at = at(86_400);
    for append in [start(0), late, start(2)] {
        store.append(append).await.unwrap();
    }
    store.close().await.unwrap();
    change(&place.path(), "DELETE FROM meta WHERE name = 'start_delay'");
    let store = place.open().await.unwrap();
    let started_after = Some(at(80_000));
    let query = SagaQuery { started_after, limit: 10, ..SagaQuery::default() };
    let found: Vec<_> =
        store.sagas().list(query).await.unwrap().into_iter().map(|row| row.id).collect();
    assert_eq!(found, [saga_id(1)]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn verify_finds_what_does_not_fit() {
    let place = TemporaryFile::new();
    let store = place.open().await.unwrap();
    for number in 0..3 {
        store.append(start(number)).await.unwrap();
        store.append(then(number, 1)).await.unwrap();
        store.append(then(number, 2)).await.unwrap();
    }
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    change(&place.path(), "DELETE FROM appends WHERE position = 5");
    let findings = store.maintenance().verify().await.unwrap();
    assert_eq!(findings, [format!("saga {} has 2 events, but its last version is 3", saga_id(1))]);
    change(&place.path(), "DELETE FROM appends WHERE position IN (4, 6)");
    let findings = store.maintenance().verify().await.unwrap();
    assert_eq!(findings, ["1 sagas of the projection have no events"]);
}

/// Each kind of damage to one saga: the others are read, and it has a reason.
#[tokio::test]
async fn one_saga_that_cannot_be_read_stops_no_other() {
    let damage = [
        ("UPDATE sagas SET status = 'lost'", "its row: status: `lost` is not a status of a saga"),
        ("UPDATE sagas SET tags = '{'", "its row: tags: EOF while parsing"),
        ("UPDATE sagas SET tags = x'00'", "tags"),
        ("UPDATE sagas SET definition_digest = x'00'", "its row: definition_digest: "),
        ("UPDATE sagas SET key = CAST(x'ff' AS TEXT)", "its row: key: invalid utf-8"),
        ("UPDATE appends SET events = CAST(x'ff' AS TEXT)", "its event 1: events: invalid utf-8"),
        ("UPDATE appends SET events = '[[1]]'", "its event 1: events: "),
        (
            "UPDATE appends SET events = replace(events, 'saga.started', 'saga.startee')",
            "its event 1: events: the event type `saga.startee` is not known",
        ),
        ("UPDATE appends SET version = 'x'", "its event 1: "),
    ];
    for (sql, words) in damage {
        let place = TemporaryFile::new();
        let path = filled(&place, 5).await;
        let column = if sql.contains("sagas") { "id" } else { "stream" };
        let id = saga_id(2);
        let connection = Connection::open(&path).unwrap();
        let changed = connection.execute(&format!("{sql} WHERE {column} = ?1"), [id.as_bytes()]);
        assert_eq!(changed, Ok(1), "{sql}");
        drop(connection);
        let store = place.open().await.unwrap();
        let live = live_page(&*store, None, 100).await;
        assert!(live.iter().map(|saga| saga.id).eq((0..5).map(saga_id)), "{sql}");
        for saga in live {
            match saga.content {
                Ok((row, events)) => {
                    assert!(row.id == saga.id && events.len() == 1, "{sql}");
                    assert_ne!(saga.id, id, "{sql}");
                }
                Err(reason) => {
                    assert_eq!(saga.id, id, "{sql}");
                    assert!(reason.contains(words), "{sql}: {reason}");
                }
            }
        }
        // A page is full without it, and the next goes on behind it.
        let mut query = SagaQuery { limit: 3, ..SagaQuery::default() };
        let page = store.sagas().list(query.clone()).await.unwrap();
        let numbers = if column == "id" { [4, 3, 1] } else { [4, 3, 2] };
        assert!(page.iter().map(|row| row.id).eq(numbers.map(saga_id)), "{sql}: {page:?}");
        query.before = page.last().map(|row| row.id);
        let rest = store.sagas().list(query).await.unwrap();
        assert_eq!(rest.last().map(|row| row.id), Some(saga_id(0)), "{sql}");
    }
}

#[tokio::test]
async fn a_row_whose_id_is_none_is_passed_over() {
    let place = TemporaryFile::new();
    let path = filled(&place, 3).await;
    change(&path, "UPDATE sagas SET id = substr(id, 1, 15) WHERE id = (SELECT max(id) FROM sagas)");
    let store = place.open().await.unwrap();
    assert_eq!(live_page(&*store, None, 100).await.len(), 2);
    let all = SagaQuery { limit: 100, ..SagaQuery::default() };
    assert_eq!(store.sagas().list(all).await.unwrap().len(), 2);
}

#[tokio::test]
async fn refuses_a_file_in_use() {
    let place = TemporaryFile::new();
    let store = place.open().await.unwrap();
    assert!(matches!(refusal(&place.path()), OpenError::InUse(_)));
    // Nothing of it harms the one that has it.
    store.append(start(1)).await.unwrap();
    store.close().await.unwrap();
    let lock = place.path().with_extension("db-lock");
    assert!(lock.exists(), "the lock is beside the file");
    let store = place.open().await.unwrap();
    assert_eq!(whole_log(&*store).await.len(), 1);
}

#[tokio::test]
async fn stops_writing_when_fenced() {
    let place = TemporaryFile::new();
    let store = place.open().await.unwrap();
    store.append(start(1)).await.unwrap();
    // What another host does that does not see the lock.
    change(&place.path(), "UPDATE meta SET value = value + 1 WHERE name = 'fence'");
    for number in 2..4 {
        let result = store.append(start(number)).await;
        assert!(matches!(result, Err(StoreError::LostOwnership(_))), "{result:?}");
    }
    assert_eq!(whole_log(&*store).await.len(), 1);
    store.close().await.unwrap();
    let store = place.open().await.unwrap();
    store.append(start(2)).await.unwrap();
}

#[tokio::test]
async fn makes_missing_folders() {
    let place = TemporaryFile::new();
    let path = place.path().with_file_name("data").join("deep").join("amends.db");
    let store = open(&path).unwrap();
    store.append(start(1)).await.unwrap();
    store.close().await.unwrap();
    let beside: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        !beside.iter().any(|name| name.contains("-wal") || name.contains("-new")),
        "{beside:?}"
    );

    // A file where a folder should be.
    let error = open(&path.join("amends.db")).err().expect("no folder can be made there");
    assert!(matches!(error, OpenError::File { .. }), "{error:?}");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}

#[tokio::test]
async fn a_half_made_database_is_made_again() {
    let place = TemporaryFile::new();
    // What a crash in the first moments leaves.
    fs::write(place.path().with_extension("db-new"), "half").unwrap();
    let store = place.open().await.unwrap();
    store.append(start(1)).await.unwrap();
    store.close().await.unwrap();
    assert!(!place.path().with_extension("db-new").exists());
}

#[tokio::test]
async fn urls_name_stores() {
    let place = TemporaryFile::new();
    let config = |url: &str| StoreConfig {
        url: url.to_owned(),
        durability: Durability::Relaxed,
        archive: None,
    };
    let store = amends_store::open(&config(&format!("sqlite:{}", place.path().display()))).unwrap();
    let store = TestStore::of(store).await.unwrap();
    store.append(start(1)).await.unwrap();
    store.close().await.unwrap();
    assert!(place.path().exists());
    let error = |url: &str| amends_store::open(&config(url)).err().expect("it is refused");
    let postgres = error("postgres://user:secret@127.0.0.1:1/db");
    assert!(matches!(postgres, OpenError::Postgres { .. }), "{postgres:?}");
    let said = postgres.to_string();
    assert!(said.contains("`postgres://user@127.0.0.1:1/db` cannot be reached"), "{said}");
    assert!(!said.contains("secret"), "{said}");
    for url in ["sqlite:", "sqlite::memory:", "mysql://host/db", "amends.db"] {
        assert!(matches!(error(url), OpenError::Url(_)), "{url}");
    }
}

/// `golden/version-1.sql` was written by the first release. Whatever comes later reads it, and
/// none changes what the first migration makes.
#[tokio::test]
async fn reads_version_1() {
    let place = TemporaryFile::new();
    change(&place.path(), include_str!("golden/version-1.sql"));
    let store = place.open().await.unwrap();
    let mut model = conformance::Model::default();
    for append in version_1() {
        model.append(&append).unwrap();
    }
    assert_eq!(whole_log(&*store).await, model.log());
    let all = SagaQuery { limit: 100, ..SagaQuery::default() };
    assert_eq!(store.sagas().list(all.clone()).await.unwrap(), model.list(&all));
    let tagged =
        SagaQuery { tags: vec![("customer".to_owned(), "Zoë".to_owned())], limit: 100, ..all };
    assert_eq!(store.sagas().list(tagged.clone()).await.unwrap(), model.list(&tagged));
    assert_eq!(live_page(&*store, None, 100).await, model.live());
    assert_eq!(store.sagas().key("order-1".to_owned()).await.unwrap(), model.key("order-1"));
    let stream = Stream::Plugin("inventory".parse().unwrap());
    let events = whole_stream(&*store, stream.clone()).await;
    assert_eq!(events, model.events(&stream));
    let blob = amends_engine::Digest::of(b"\0asm");
    let bytes = store.blobs().get(amends_store::BlobKind::Component, blob).await.unwrap();
    assert_eq!(bytes.as_deref(), Some(&b"\0asm"[..]));
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    store.append(then(1, 2)).await.unwrap();
    store.close().await.unwrap();

    let fresh = TemporaryFile::new();
    fresh.open().await.unwrap().close().await.unwrap();
    assert_eq!(schema(&place.path()), schema(&fresh.path()));
}

/// What stands in `golden/version-1.sql`, with one component.
fn version_1() -> Vec<Append> {
    let mut keyed = start(1);
    let payload_digest = amends_engine::Digest::of(b"payload");
    keyed.start_key = Some(amends_store::StartKey { key: "order-1".to_owned(), payload_digest });
    let row = keyed.row.as_mut().unwrap();
    row.key = Some("order-1".to_owned());
    row.tags.insert("customer".to_owned(), "Zoë".to_owned());
    let mut ended = then(2, 1);
    let mut row = conformance::row(2);
    row.status = amends_engine::SagaStatus::Compensated;
    row.reason = Some("the carrier said \"no\"".to_owned());
    row.ended_at = Some(conformance::at(7));
    ended.row = Some(row);
    let activated = NewEvent { kind: "plugin.activated".into(), ..conformance::event(4) };
    let stream = Stream::Plugin("inventory".parse().unwrap());
    let plugin = Append { stream, events: vec![activated], row: None, ..start(4) };
    vec![keyed, start(2), then(1, 1), ended, plugin]
}

/// The text of everything that the schema has, without blanks and comments.
fn schema(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut query =
        connection.prepare("SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY name").unwrap();
    let texts = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
    texts.map(|text| text.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// A second host is kept out whatever it calls the file by.
#[cfg(unix)]
#[tokio::test]
async fn the_lock_is_of_the_file() {
    let place = TemporaryFile::new();
    let store = place.open().await.unwrap();
    store.append(start(1)).await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let symbolic = elsewhere.path().join("other.db");
    std::os::unix::fs::symlink(place.path(), &symbolic).unwrap();
    match open(&symbolic).err() {
        Some(OpenError::InUse(_)) => {}
        other => panic!("{other:?}"),
    }
    let folder = elsewhere.path().join("folder");
    std::os::unix::fs::symlink(place.path().parent().unwrap(), &folder).unwrap();
    match open(&folder.join("amends.db")).err() {
        Some(OpenError::InUse(_)) => {}
        other => panic!("{other:?}"),
    }
    let hard = place.path().with_file_name("hard.db");
    fs::hard_link(place.path(), &hard).unwrap();
    match refusal(&hard) {
        OpenError::File { source, .. } => {
            assert!(source.to_string().contains("2 names"), "{source}");
        }
        other => panic!("{other:?}"),
    }
    // Nothing of it harms the one that has it.
    store.append(start(2)).await.unwrap();
    store.close().await.unwrap();
    fs::remove_file(&hard).unwrap();

    // By the link it is the same file, with the same log and lock.
    let store = open(&symbolic).unwrap();
    assert_eq!(whole_log(&*store).await.len(), 2);
    assert!(matches!(refusal(&place.path()), OpenError::InUse(_)));
    store.close().await.unwrap();
    let nowhere = elsewhere.path().join("nowhere.db");
    std::os::unix::fs::symlink(elsewhere.path().join("gone.db"), &nowhere).unwrap();
    match refusal(&nowhere) {
        OpenError::File { source, .. } => {
            assert!(source.to_string().contains("symbolic"), "{source}");
        }
        other => panic!("{other:?}"),
    }
}

/// Whatever the umask: it is set once, for the whole process, so this is a process of its own.
#[cfg(unix)]
#[tokio::test]
async fn files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    const CHILD: &str = "AMENDS_TEST_OPEN";
    let modes = |path: &Path| {
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let beside = |suffix: &str| mode(&path.with_extension(format!("db-{suffix}")));
        let files = [mode(path), beside("wal"), beside("shm"), beside("lock")];
        (files, mode(path.parent().unwrap()))
    };
    if let Some(path) = std::env::var_os(CHILD) {
        let path = PathBuf::from(path);
        let store = open(&path).unwrap();
        store.append(start(1)).await.unwrap();
        assert_eq!(modes(&path), ([0o600; 4], 0o700));
        store.close().await.unwrap();
        return;
    }
    let place = TemporaryFile::new();
    let path = place.path().with_file_name("data").join("amends.db");
    let test = "files_are_their_owners_alone";
    let status = std::process::Command::new("sh")
        .args([
            "-c",
            "umask 000; exec \"$0\" \"$@\"",
            std::env::current_exe().unwrap().to_str().unwrap(),
        ])
        .args([test, "--exact", "--test-threads=1"])
        .env(CHILD, &path)
        .status();
    assert!(status.unwrap().success());

    // Of an earlier version: others lose what they may, the group keeps it.
    for name in ["amends.db", "amends.db-lock"] {
        let file = path.with_file_name(name);
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let store = open(&path).unwrap();
    store.append(start(2)).await.unwrap();
    assert_eq!(modes(&path).0, [0o640; 4], "{:?}", modes(&path).0);
    store.close().await.unwrap();
}

/// Whoever reads page by page comes to the end, whatever stands in the place of a version.
#[tokio::test]
async fn an_append_without_a_version_is_told_once() {
    for version in ["'x'", "x'00'", "1e300", "1.5", "-7"] {
        let place = TemporaryFile::new();
        let store = place.open().await.unwrap();
        store.append(start(1)).await.unwrap();
        store.append(then(1, 1)).await.unwrap();
        store.append(then(1, 2)).await.unwrap();
        change(&place.path(), &format!("UPDATE appends SET version = {version} WHERE version = 2"));
        let mut found: Vec<StoredEvent> = Vec::new();
        loop {
            let after = found.last().map_or(Version(0), |last| last.version);
            let page = store
                .log()
                .stream(Stream::Saga(saga_id(1)), after, PageBudget::items(1))
                .await
                .unwrap();
            let Some(event) = page.first() else { break };
            assert!(event.version > after, "{version}: {:?} after {after:?}", event.version);
            found.extend(page);
            assert!(found.len() < 10, "{version}: it does not end");
        }
        let unreadable = found.iter().filter(|event| event.kind == EVENT_UNREADABLE).count();
        // A version before the first is read by nobody who asks for what is after it.
        assert_eq!(unreadable, usize::from(version != "-7"), "{version}: {found:?}");
        assert_eq!(found.len() - unreadable, 2, "{version}: {found:?}");
        // Whoever reads all of it is told in any case.
        let live = live_page(&*store, None, 10).await;
        let reason = live[0].content.as_ref().unwrap_err();
        assert!(reason.contains("version"), "{version}: {reason}");
        store.close().await.unwrap();
    }
}

/// It would break the line in which it is sent to whoever watches the saga.
#[tokio::test]
async fn an_event_whose_type_is_none_cannot_be_read() {
    for kind in ["a\\nevent: saga.completed", "", "A", "é"] {
        let place = TemporaryFile::new();
        let store = place.open().await.unwrap();
        store.append(start(1)).await.unwrap();
        change(&place.path(), &format!("UPDATE appends SET events = '[[\"{kind}\",{{}}]]'"));
        let events = whole_stream(&*store, Stream::Saga(saga_id(1))).await;
        assert_eq!(events[0].kind, EVENT_UNREADABLE, "{kind}");
        assert!(events[0].data.contains("is not known"), "{}", events[0].data);
        store.close().await.unwrap();
    }
}

/// An append ends with its version and position, so that neither is less than how many it has.
#[tokio::test]
async fn an_append_that_begins_before_the_first_cannot_be_read() {
    let place = TemporaryFile::new();
    let store = place.open().await.unwrap();
    store.append(start(1)).await.unwrap();
    store.append(start(2)).await.unwrap();
    let two = "[[\"order.a\",{}],[\"order.b\",{}]]";
    change(&place.path(), &format!("UPDATE appends SET events = '{two}' WHERE position = 1"));
    let log = whole_log(&*store).await;
    let kinds: Vec<_> = log.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, [EVENT_UNREADABLE, "saga.started"]);
    assert!(log[0].data.contains("its 2 events"), "{}", log[0].data);
    store.close().await.unwrap();
}
