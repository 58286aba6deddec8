//! The archive of a file: what is in its folder, and what is said when that is damaged.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

mod temporary_file;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amends_engine::{SagaStatus, Version};
use amends_store::conformance::{TestStore, at, row, saga_id, start, then, whole_stream};
use amends_store::{
    Append, ArchiveError, ArchivePlace, Durability, PageBudget, SagaRow, SqliteStore, StoppedStore,
    Stream, ToArchive, check_file, restore,
};
use rusqlite::Connection;
use temporary_file::TemporaryFile;

async fn open(path: &Path, archive: Option<PathBuf>) -> TestStore {
    let store = SqliteStore::open(path, Durability::Relaxed)
        .unwrap()
        .with_archive(archive.map(ArchivePlace::from).as_ref());
    let store = store.unwrap();
    TestStore::of(Arc::new(store)).await.unwrap()
}

fn folder(place: &TemporaryFile) -> PathBuf {
    place.path().with_file_name("archive")
}

/// Completes sagas of two events.
async fn fill(store: &TestStore, numbers: std::ops::Range<u32>) {
    for number in numbers {
        store.append(start(number)).await.unwrap();
        let ended_at = Some(at(number + 1));
        let row = SagaRow { status: SagaStatus::Completed, ended_at, ..row(number) };
        store.append(Append { row: Some(row), ..then(number, 1) }).await.unwrap();
    }
}

fn alone(numbers: std::ops::Range<u32>) -> Vec<ToArchive> {
    let version = Version(2);
    numbers
        .map(|number| ToArchive { id: saga_id(number), version, after: None, is_late: false })
        .collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn without_an_archive_sagas_are_deleted_and_their_tombstones_stay() {
    let place = TemporaryFile::new();
    let store = open(&place.path(), None).await;
    fill(&store, 0..5).await;
    let moved = store.archive().archive(alone(0..3)).await.unwrap();
    assert_eq!((moved.sagas, moved.segments), (3, 0));
    assert!(!folder(&place).exists());
    let tombstone = store.archive().tombstone(saga_id(1)).await.unwrap().unwrap();
    assert_eq!((tombstone.file, tombstone.version), (None, Version(2)));
    for error in [
        store.archive().read(saga_id(1)).await.unwrap_err(),
        store.archive().bring_back(saga_id(1)).await.unwrap_err(),
    ] {
        assert!(matches!(error, ArchiveError::Deleted { .. }), "{error}");
    }
    store.append(then(1, 2)).await.unwrap_err();
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_damaged_or_missing_file_is_named() {
    let place = TemporaryFile::new();
    let archive = folder(&place);
    let store = open(&place.path(), Some(archive.clone())).await;
    fill(&store, 0..200).await;
    store.archive().archive(alone(0..100)).await.unwrap();
    store.archive().archive(alone(100..200)).await.unwrap();
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    store.close().await.unwrap();
    let in_folder = archive.clone().into();
    let check = || check_file(&place.path(), Some(&in_folder)).unwrap();
    assert_eq!((check().findings, check().segments, check().sagas), (vec![], 2, 0));

    let [first, second] = &files(&archive)[..] else { panic!("two files are there") };
    let sound = fs::read(first).unwrap();
    let mut bytes = sound.clone();
    // In the first frame of sagas, behind that of the header.
    bytes[600] ^= 4;
    fs::write(first, &bytes).unwrap();
    let store = open(&place.path(), Some(archive.clone())).await;
    let error = store.archive().read(saga_id(3)).await.unwrap_err();
    assert!(
        matches!(&error, ArchiveError::Damaged { file, .. } if Path::new(file) == first),
        "{error}"
    );
    assert_eq!(store.archive().read(saga_id(150)).await.unwrap().unwrap().events.len(), 2);
    fs::rename(second, second.with_extension("gone")).unwrap();
    let error = store.archive().read(saga_id(150)).await.unwrap_err();
    assert!(
        matches!(&error, ArchiveError::File { file, .. } if Path::new(file) == second),
        "{error}"
    );
    let told = store.maintenance().verify().await.unwrap().join("\n");
    store.close().await.unwrap();
    let findings = check().findings.join("\n");
    assert_eq!(findings, told);
    assert!(findings.contains("frame 1: its checksum does not match"), "{findings}");
    for file in [first, second] {
        assert!(findings.contains(file.to_str().unwrap()), "{findings}");
    }

    fs::rename(second.with_extension("gone"), second).unwrap();
    // Another sound segment under the name of this one.
    fs::copy(second, first).unwrap();
    let findings = check().findings.join("\n");
    assert!(findings.contains("its hash is not the one"), "{findings}");
    assert!(findings.contains(&format!("saga {} is not in it", saga_id(3))), "{findings}");
    fs::write(first, sound).unwrap();
    assert_eq!(check().findings, Vec::<String>::new());

    // Without the folder, the file that has a saga is named.
    let store = open(&place.path(), None).await;
    let error = store.archive().read(saga_id(3)).await.unwrap_err();
    assert!(matches!(error, ArchiveError::NoFolder { .. }), "{error}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn events_that_are_missing_and_were_not_archived_are_found() {
    let place = TemporaryFile::new();
    let store = open(&place.path(), Some(folder(&place))).await;
    fill(&store, 0..10).await;
    store.archive().archive(alone(2..5)).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(check_file(&place.path(), None).unwrap().findings, Vec::<String>::new());
    let connection = Connection::open(place.path()).unwrap();
    let gone = "DELETE FROM appends WHERE stream = ?1";
    connection.execute(gone, [saga_id(7).as_bytes()]).unwrap();
    drop(connection);
    let findings = check_file(&place.path(), None).unwrap().findings.join("\n");
    assert!(findings.contains("8 events of the log are missing, and 6 were"), "{findings}");
}

#[tokio::test]
async fn files_that_a_crash_left_are_removed_and_those_of_others_stay() {
    let place = TemporaryFile::new();
    let archive = folder(&place);
    let store = open(&place.path(), Some(archive.clone())).await;
    fill(&store, 0..4).await;
    store.archive().archive(alone(0..1)).await.unwrap();
    let known = files(&archive);
    store.close().await.unwrap();
    // As if a process had ended before it recorded the file.
    let connection = Connection::open(place.path()).unwrap();
    let runs = "SELECT value FROM meta WHERE name GLOB 'run/*' LIMIT 1";
    let run: i64 = connection.query_row(runs, [], |row| row.get(0)).unwrap();
    drop(connection);
    let orphan = archive.join("segment-0-0-0.amends.zst");
    fs::copy(&known[0], &orphan).unwrap();
    let draft = archive.join(format!("{:016x}.amends.zst-part", run.cast_unsigned()));
    fs::write(&draft, b"the beginning").unwrap();
    let foreign = archive.join("notes.txt");
    fs::write(&foreign, b"mine").unwrap();
    let unreadable = archive.join("segment-1-1-1.amends.zst");
    fs::write(&unreadable, b"what is it?").unwrap();
    // That of another store, in the same folder by mistake.
    let other_place = TemporaryFile::new();
    let other = open(&other_place.path(), Some(archive.clone())).await;
    fill(&other, 50..52).await;
    other.archive().archive(alone(50..52)).await.unwrap();
    other.close().await.unwrap();
    assert_eq!(files(&archive).len(), 6);

    let store = open(&place.path(), Some(archive.clone())).await;
    store.archive().archive(alone(1..2)).await.unwrap();
    assert!(!orphan.exists() && !draft.exists());
    assert!(foreign.exists() && unreadable.exists() && known[0].exists());
    assert_eq!(files(&archive).len(), 5, "{:?}", files(&archive));
    store.close().await.unwrap();
    let other = open(&other_place.path(), Some(archive.clone())).await;
    assert!(other.archive().read(saga_id(51)).await.unwrap().is_some());
    other.close().await.unwrap();
}

/// A host that runs on a copy of the store, with the same folder, removes nothing of the original.
#[tokio::test]
async fn a_copy_of_a_store_removes_no_file_of_the_original() {
    let place = TemporaryFile::new();
    let (path, archive) = (place.path(), folder(&place));
    let store = open(&path, Some(archive.clone())).await;
    fill(&store, 0..10).await;
    store.archive().archive(alone(0..2)).await.unwrap();
    let backup = store.maintenance().back_up().await.unwrap();
    let copies = ["of-a-backup.db", "of-a-file.db"].map(|name| path.with_file_name(name));
    std::io::copy(&mut &backup.file, &mut fs::File::create_new(&copies[0]).unwrap()).unwrap();
    drop(backup);
    store.close().await.unwrap();
    fs::copy(&path, &copies[1]).unwrap();
    let store = open(&path, Some(archive.clone())).await;
    store.archive().archive(alone(2..4)).await.unwrap();
    store.close().await.unwrap();
    let before = files(&archive);
    for copy in copies {
        let other = open(&copy, Some(archive.clone())).await;
        other.archive().archive(alone(6..7)).await.unwrap();
        other.close().await.unwrap();
    }
    assert!(before.iter().all(|file| file.exists()), "{before:?}: {:?}", files(&archive));
    let store = open(&path, Some(archive)).await;
    assert!(store.archive().read(saga_id(3)).await.unwrap().is_some());
    store.close().await.unwrap();
}

/// A store that was restored from a backup finds what was archived before it, archives again what was
/// archived since, and leaves the files of the store that it replaced.
#[tokio::test]
async fn a_restored_store_goes_on_with_its_archive() {
    let place = TemporaryFile::new();
    let (path, archive) = (place.path(), folder(&place));
    let url = format!("sqlite:{}", path.display());
    let store = open(&path, Some(archive.clone())).await;
    fill(&store, 0..10).await;
    store.archive().archive(alone(0..3)).await.unwrap();
    store.close().await.unwrap();
    let backup = path.with_file_name("backup.db");
    StoppedStore::open(&url).unwrap().back_up(&backup, false).unwrap();
    let check = check_file(&backup, Some(&archive.clone().into())).unwrap();
    assert_eq!((check.events, check.sagas, check.findings), (20, 7, vec![]));
    let store = open(&path, Some(archive.clone())).await;
    store.archive().archive(alone(3..6)).await.unwrap();
    store.close().await.unwrap();
    restore(&backup, &url, true).unwrap();

    let store = open(&path, Some(archive.clone())).await;
    assert!(store.archive().read(saga_id(1)).await.unwrap().is_some());
    assert_eq!(whole_stream(&*store, Stream::Saga(saga_id(4))).await.len(), 2);
    store.archive().archive(alone(3..6)).await.unwrap();
    assert!(store.archive().read(saga_id(4)).await.unwrap().is_some());
    assert_eq!(files(&archive).len(), 3, "the file of the replaced store stays");
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named_and_stops_no_other() {
    let place = TemporaryFile::new();
    let store = open(&place.path(), Some(folder(&place))).await;
    fill(&store, 0..6).await;
    let connection = Connection::open(place.path()).unwrap();
    for (sql, number) in [
        ("UPDATE sagas SET status = 'lost' WHERE id = ?1", 1),
        ("UPDATE appends SET events = '[[' WHERE stream = ?1 AND version = 2", 2),
        ("DELETE FROM appends WHERE stream = ?1 AND version = 1", 3),
    ] {
        assert_eq!(connection.execute(sql, [saga_id(number).as_bytes()]).unwrap(), 1);
    }
    let page = store.archive().ended(at(100), None, PageBudget::items(10)).await.unwrap();
    let unreadable: Vec<_> =
        page.sagas.iter().filter(|saga| saga.content.is_err()).map(|saga| saga.id).collect();
    assert_eq!((page.sagas.len(), unreadable), (6, vec![saga_id(1), saga_id(2)]));
    let moved = store.archive().archive(alone(0..6)).await.unwrap();
    assert_eq!(moved.sagas, 3);
    let told: Vec<_> = moved.unreadable.iter().map(|(id, why)| (*id, why.as_str())).collect();
    for ((id, why), (number, words)) in told.iter().zip([
        (1, "its row: status"),
        (2, "its event 2: events"),
        (3, "its event 1 is missing"),
    ]) {
        assert_eq!(*id, saga_id(number));
        assert!(why.starts_with(words), "{why}");
    }
    store.close().await.unwrap();
}

/// The pages of archived sagas are used again: the file does not grow by what follows.
#[tokio::test]
async fn the_space_of_archived_sagas_is_used_again() {
    let place = TemporaryFile::new();
    let store = open(&place.path(), Some(folder(&place))).await;
    fill(&store, 0..2_000).await;
    let before = store.maintenance().survey().await.unwrap();
    store.archive().archive(alone(0..2_000)).await.unwrap();
    let freed = store.maintenance().survey().await.unwrap();
    assert!(freed.free_bytes > before.bytes / 3, "{freed:?}");
    fill(&store, 2_000..3_500).await;
    let after = store.maintenance().survey().await.unwrap();
    assert!(after.bytes <= freed.bytes + freed.bytes / 10, "{} {}", freed.bytes, after.bytes);
    store.close().await.unwrap();
}
