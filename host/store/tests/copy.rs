//! A store in a file is copied into a database, where it is the same store; or nothing of it is there.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

mod database;

use std::path::PathBuf;
use std::sync::Arc;

use amends_engine::{Digest, IndexValue, SagaStatus, StateQuery, SubjectKeyId, Version};
use amends_store::conformance::{
    TestStore, at, event, row, saga_id, start, state_change, then, whole_log, whole_stream,
};
use amends_store::{
    Append, Appended, BlobKind, CopyError, CopyProgress, CopySummary, Cursor, DeadLetter,
    Durability, FailedCall, FailureQuery, NewEvent, OpenError, PageBudget, PostgresStore,
    SagaFailure, SagaQuery, SagaRow, ScheduleRow, SqliteStore, StartKey, StoppedStore, Stream,
    SubscriptionChange, ToArchive, copy_store,
};
use database::{Database, connect};
use tempfile::TempDir;

/// Sagas that have ended: the first of them go to the archive.
const ENDED: u32 = 12;
const ARCHIVED: u32 = 5;
/// All sagas.
const SAGAS: u32 = 30;

/// A text that PostgreSQL itself does not take.
const TEXT: &str = "naïve \0 \u{fdd0} 💊";

/// A store in a file, with its archive.
struct Source {
    folder: TempDir,
}

impl Source {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("amends.db")
    }

    fn archive(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.path().display())
    }

    async fn open(&self) -> TestStore {
        let store = SqliteStore::open(&self.path(), Durability::Relaxed).unwrap();
        let store = store.with_archive(Some(&self.archive().into())).unwrap();
        TestStore::of(Arc::new(store)).await.unwrap()
    }

    async fn open_copy(&self, url: &str) -> TestStore {
        let store = PostgresStore::open(url, Durability::Relaxed).unwrap();
        let store = store.with_archive(Some(&self.archive().into())).unwrap();
        TestStore::of(Arc::new(store)).await.unwrap()
    }
}

fn key(number: u32) -> StartKey {
    let payload_digest = Digest::of(&number.to_le_bytes());
    StartKey { key: format!("{TEXT}{number}"), payload_digest }
}

fn full_row(number: u32) -> SagaRow {
    let has_ended = number < ENDED;
    let values = [
        ("whole", IndexValue::Number(i64::MAX.into())),
        ("real", IndexValue::Number(serde_json::Number::from_f64(-0.5).unwrap())),
        ("text", IndexValue::Text(TEXT.to_owned())),
        ("bool", IndexValue::Bool(number.is_multiple_of(2))),
    ];
    SagaRow {
        status: if has_ended { SagaStatus::Compensated } else { SagaStatus::Waiting },
        reason: Some(TEXT.to_owned()),
        ended_at: has_ended.then(|| at(number + 1)),
        wake_at: (!has_ended).then(|| at(number + 500)),
        tags: [("tag".to_owned(), TEXT.to_owned()), ("n".to_owned(), number.to_string())].into(),
        index: values.map(|(name, value)| (name.parse().unwrap(), value)).into(),
        key: Some(key(number).key),
        subject_key: number
            .is_multiple_of(3)
            .then(|| SubjectKeyId::from_bytes(u128::from(number).to_be_bytes())),
        ..row(number)
    }
}

async fn put_saga(store: &TestStore, number: u32) {
    let first = SagaRow {
        status: SagaStatus::Running,
        reason: None,
        ended_at: None,
        wake_at: None,
        ..full_row(number)
    };
    let state = state_change(&[], &[(&format!("ä 💊 {number}"), Some("\"x\""))]);
    let opening = Append {
        row: Some(first),
        start_key: Some(key(number)),
        state: vec![Arc::new(state)],
        ..start(number)
    };
    let begun = store.append(opening).await;
    assert!(matches!(begun, Ok(Appended::Done { .. })), "{begun:?}");
    let failure = SagaFailure {
        event: 1,
        step: Some("pay".parse().unwrap()),
        call: FailedCall::Execute,
        code: format!("declined-{number}"),
        text: format!("the card was declined, {TEXT}"),
        digest: Some(Digest::of(b"component")),
    };
    let events = vec![event(1), event(2), NewEvent { kind: "step.failed".into(), ..event(3) }];
    let row = Some(full_row(number));
    store.append(Append { events, row, failures: vec![failure], ..then(number, 1) }).await.unwrap();
}

/// Fills a store with everything that one can have.
async fn fill(store: &TestStore) {
    for number in 0..SAGAS {
        put_saga(store, number).await;
    }
    for (number, stream) in [
        (0, Stream::Deploys),
        (1, Stream::Plugin("inventory".parse().unwrap())),
        (2, Stream::Service("carrier".parse().unwrap())),
        (3, Stream::Erasures),
        (4, Stream::Tokens),
        (5, Stream::Audit),
    ] {
        let kind = match stream {
            Stream::Deploys => "plugin.activated",
            Stream::Plugin(_) => "operator.state_changed",
            Stream::Service(_) => "operator.breaker_opened",
            Stream::Erasures | Stream::Saga(_) => "operator.erased",
            Stream::Tokens => "token.created",
            Stream::Audit => "audit.recorded",
        };
        let events = vec![NewEvent { kind: kind.into(), ..event(number) }];
        let append = Append { stream, events, row: None, ..start(number) };
        store.log().append_shared(append).await.unwrap();
    }
    let bytes: Vec<u8> = (0..100_000_u32).map(|number| (number % 251) as u8).collect();
    for (kind, name) in [(BlobKind::Component, "pay"), (BlobKind::Definition, "order")] {
        let (digest, bytes) = (Digest::of(&bytes), bytes.clone());
        store.blobs().put(kind, name.to_owned(), digest, at(3), bytes).await.unwrap();
    }
    let from = store.log().follow(Cursor::START, PageBudget::items(7)).await.unwrap().next;
    let letter = DeadLetter {
        place: from,
        stream: Stream::Saga(saga_id(8)),
        version: Version(2),
        kind: "step.succeeded".to_owned(),
        at: at(7),
        attempts: 4,
        error: TEXT.to_owned(),
    };
    let billing = SubscriptionChange {
        name: "billing".to_owned(),
        cursor: from,
        disabled: Some(TEXT.to_owned()),
        dead: vec![letter],
        delivered: Vec::new(),
    };
    store.outbox().save(billing).await.unwrap();
    let schedule = ScheduleRow {
        name: "nightly".to_owned(),
        pattern: "0 3 * * * Europe/Vienna".to_owned(),
        decided_until: at(900),
        started: Some((at(800), saga_id(2))),
        skipped: Some((at(700), "the host was stopped".to_owned())),
    };
    store.schedules().save_schedule(schedule).await.unwrap();
    let to_archive = |number| ToArchive {
        id: saga_id(number),
        version: Version(4),
        after: None,
        is_late: false,
    };
    let archived = store.archive().archive((0..ARCHIVED).map(to_archive).collect()).await.unwrap();
    assert_eq!(archived.sagas, u64::from(ARCHIVED));
}

/// All that a store says of what it has, as text.
async fn picture(store: &TestStore) -> String {
    let query = SagaQuery { limit: 1_000, ..SagaQuery::default() };
    let failed = FailureQuery {
        text: amends_store::FailureText::new("declined"),
        ..FailureQuery::default()
    };
    let failed = SagaQuery { failure: failed, ..query.clone() };
    let tagged = SagaQuery { tags: vec![("tag".to_owned(), TEXT.to_owned())], ..query.clone() };
    let mut said = vec![
        format!("{:?}", whole_log(&**store).await),
        format!("{:?}", store.sagas().list(query.clone()).await.unwrap()),
        format!("{:?}", store.sagas().list(failed).await.unwrap()),
        format!("{:?}", store.sagas().list(tagged).await.unwrap()),
        format!("{:?}", store.archive().list(query).await.unwrap()),
        format!("{:?}", store.outbox().subscription("billing".to_owned()).await.unwrap()),
        format!("{:?}", store.outbox().dead_letters("billing".to_owned(), None, 10).await.unwrap()),
        format!("{:?}", store.schedules().schedule("nightly".to_owned()).await.unwrap()),
        format!("{:?}", store.maintenance().events().await.unwrap()),
        format!("{:?}", store.sagas().counts().await.unwrap()),
    ];
    for kind in [BlobKind::Component, BlobKind::Definition] {
        for blob in store.blobs().list(kind).await.unwrap() {
            let bytes = store.blobs().get(kind, blob.digest).await.unwrap();
            said.push(format!("{blob:?} {:?}", bytes.map(|bytes| Digest::of(&bytes))));
        }
    }
    let keys = StateQuery { prefix: String::new(), after: None, limit: 100 };
    let plugin = || "inventory".parse().unwrap();
    for key in store.state().keys(plugin(), keys).await.unwrap() {
        let value = store.state().value(plugin(), key.clone()).await.unwrap();
        said.push(format!("{key:?} {value:?}"));
    }
    for number in 0..SAGAS {
        let key = store.sagas().key(key(number).key).await.unwrap();
        said.push(format!(
            "{number}: {key:?} {:?}",
            store.sagas().row(saga_id(number)).await.unwrap()
        ));
        if number < ARCHIVED {
            let archived = store.archive().read(saga_id(number)).await.unwrap().unwrap();
            said.push(format!("{:?} {:?}", archived.row, archived.events));
        } else {
            said.push(format!("{:?}", whole_stream(&**store, Stream::Saga(saga_id(number))).await));
        }
    }
    said.join("\n")
}

async fn copy(source: &Source, target: &str) -> Result<CopySummary, CopyError> {
    copy_store(&StoppedStore::open(&source.url()).unwrap(), target, |_| {}).await
}

/// The copy says the same as the source, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_the_same_store() {
    let Some(database) = Database::new() else { return };
    let source = Source::new();
    let store = source.open().await;
    fill(&store).await;
    let before = picture(&store).await;
    store.close().await.unwrap();
    let mut told = Vec::new();
    let stopped = StoppedStore::open(&source.url()).unwrap();
    let copied =
        copy_store(&stopped, &database.url(), |progress| told.push(progress)).await.unwrap();
    drop(stopped);
    assert_eq!((copied.sagas, copied.archived), (u64::from(SAGAS - ARCHIVED), u64::from(ARCHIVED)));
    assert_eq!(copied.events, u64::from(SAGAS * 4 + 6));
    assert_eq!(
        (told[0], told.last().copied()),
        (CopyProgress::Checking, Some(CopyProgress::Comparing))
    );

    let copy = source.open_copy(&database.url()).await;
    let after = picture(&copy).await;
    for (before, after) in before.lines().zip(after.lines()) {
        assert_eq!(before, after);
    }
    assert_eq!(before, after);
    assert_eq!(copy.maintenance().verify().await.unwrap(), Vec::<String>::new());
    // A reader goes on where it was, and sees what comes after.
    let place = copy.outbox().subscription("billing".to_owned()).await.unwrap().unwrap().cursor;
    let number = SAGAS - 1;
    copy.append(then(number, 4)).await.unwrap();
    copy.append(start(SAGAS)).await.unwrap();
    let rest = copy.log().follow(place, PageBudget::items(1_000)).await.unwrap().events;
    let last: Vec<_> = rest.iter().rev().take(2).map(|event| event.position.0).collect();
    assert_eq!(last, [copied.events + 2, copied.events + 1]);
    // The same start is a duplicate, an archived saga comes back, and one more goes.
    let again = Append { start_key: Some(key(3)), ..start(99) };
    assert_eq!(copy.append(again).await.unwrap(), Appended::Duplicate(saga_id(3)));
    assert!(copy.archive().bring_back(saga_id(1)).await.unwrap());
    let one = ToArchive { id: saga_id(ARCHIVED), version: Version(4), after: None, is_late: false };
    assert_eq!(copy.archive().archive(vec![one]).await.unwrap().sagas, 1);
    assert!(copy.archive().read(saga_id(ARCHIVED)).await.unwrap().is_some());
    assert_eq!(copy.maintenance().verify().await.unwrap(), Vec::<String>::new());
    copy.close().await.unwrap();
    // The source is as it was.
    let store = source.open().await;
    assert_eq!(picture(&store).await, before);
    store.close().await.unwrap();
}

fn refusal(url: &str) -> String {
    PostgresStore::open(url, Durability::Full).err().expect("it is refused").to_string()
}

/// Whatever moment a copy is cut at, there is no store; and the next copy begins anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_cut_is_no_store() {
    let Some(database) = Database::new() else { return };
    let source = Source::new();
    let store = source.open().await;
    for number in 0..1_200 {
        store.append(start(number)).await.unwrap();
    }
    let before = whole_log(&*store).await;
    store.close().await.unwrap();
    // Checking comes before anything is written.
    for cut_at in 2..=4 {
        let stopped = StoppedStore::open(&source.url()).unwrap();
        let (mut told, stop) = (0, tokio::sync::Notify::new());
        let url = database.url();
        let copying = copy_store(&stopped, &url, |_| {
            told += 1;
            if told == cut_at {
                stop.notify_one();
            }
        });
        tokio::select! {
            biased;
            () = stop.notified() => {}
            done = copying => panic!("it was not cut at {cut_at}: {done:?}"),
        }
        let said = refusal(&database.url());
        assert!(said.contains("a copy that was not finished; run `amends store copy`"), "{said}");
    }
    let client = connect(&database.url()).await.unwrap();
    let rows = client.query_one("SELECT count(*) FROM appends", &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), 0);
    copy(&source, &database.url()).await.unwrap();
    let copied = source.open_copy(&database.url()).await;
    assert_eq!(whole_log(&*copied).await, before);
    copied.close().await.unwrap();
}

/// What must not be copied, or copied into, is refused, and stays as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_what_would_be_no_copy() {
    let Some(database) = Database::new() else { return };
    let source = Source::new();
    let store = source.open().await;
    store.append(start(1)).await.unwrap();
    // A host has the source.
    assert!(matches!(StoppedStore::open(&source.url()), Err(OpenError::InUse(_))));
    store.close().await.unwrap();
    // A host has the target open, and has written nothing yet.
    let host = source.open_copy(&database.url()).await;
    let said = copy(&source, &database.url()).await.unwrap_err().to_string();
    assert!(said.contains("is open in a host"), "{said}");
    // The target is a store.
    host.append(start(7)).await.unwrap();
    host.close().await.unwrap();
    let said = copy(&source, &database.url()).await.unwrap_err().to_string();
    assert!(said.contains("is a store already (its table `appends` has rows)"), "{said}");
    let host = source.open_copy(&database.url()).await;
    assert_eq!(whole_log(&*host).await.len(), 1);
    host.close().await.unwrap();
    // The source is damaged.
    let connection = rusqlite::Connection::open(source.path()).unwrap();
    connection.execute("UPDATE appends SET at = at + 1", []).unwrap();
    drop(connection);
    let Some(empty) = Database::new() else { return };
    let error = copy(&source, &empty.url()).await.unwrap_err();
    assert!(matches!(error, CopyError::Damaged { .. }), "{error}");
    // So nothing was begun, and a host may use the database.
    let host = source.open_copy(&empty.url()).await;
    assert!(whole_log(&*host).await.is_empty());
    host.close().await.unwrap();
    // The target is no database.
    let said =
        copy(&source, "postgres://nobody:secret@127.0.0.1:1/x").await.unwrap_err().to_string();
    assert!(said.contains("cannot be reached") && !said.contains("secret"), "{said}");
}
