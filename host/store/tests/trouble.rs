//! A database in trouble: connections that are cut, answers that are lost, servers that refuse. Nothing that was
//! acknowledged is lost, nothing that was refused is there, and nothing is there twice.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

mod database;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use amends_engine::Version;
use amends_store::conformance::{TestStore, at, saga_id, start, then, whole_log, whole_stream};
use amends_store::{
    Append, Appended, BlobKind, Durability, OpenError, PostgresStore, StoreError, StoreHealth,
    Stream,
};
use database::{Database, connect};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::Client;

/// Ends every connection to a database but the one that asks.
const END_ALL: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                       WHERE datname = $1 AND pid <> pg_backend_pid()";

async fn open(url: &str) -> TestStore {
    let store = PostgresStore::open(url, Durability::Full).unwrap();
    TestStore::of(Arc::new(store)).await.unwrap()
}

/// Waits until the store takes writes.
async fn well(store: &TestStore) {
    let mut health = store.maintenance().health();
    let well = health.wait_for(|health| matches!(health, StoreHealth::Well));
    drop(tokio::time::timeout(Duration::from_secs(30), well).await.expect("it stays ill").unwrap());
}

/// Appends until it is there, and returns how often that was refused. A conflict is an append of which
/// an earlier try is there although it was refused.
async fn insist(store: &TestStore, append: &Append) -> u32 {
    let mut refused = 0;
    loop {
        match store.append(append.clone()).await {
            Ok(Appended::Done { .. }) => return refused,
            Err(StoreError::Unavailable { .. }) => {
                refused += 1;
                assert!(refused < 10_000, "it does not end");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            other => panic!("{refused} refused before: {other:?}"),
        }
    }
}

/// Connections are ended at random while many sagas go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loses_and_doubles_nothing_when_connections_are_ended() {
    const SAGAS: u32 = 40;
    let Some(database) = Database::new() else { return };
    let store = open(&database.url()).await;
    let admin = connect(&database.admin()).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let refused = Arc::new(AtomicU32::new(0));
    let sagas: Vec<_> = (0..SAGAS)
        .map(|number| {
            let (store, is_over) = (store.clone(), Arc::clone(&is_over));
            let refused = Arc::clone(&refused);
            tokio::spawn(async move {
                refused.fetch_add(insist(&store, &start(number)).await, Ordering::Relaxed);
                let mut version = 1;
                while !is_over.load(Ordering::Relaxed) {
                    let more = insist(&store, &then(number, version)).await;
                    refused.fetch_add(more, Ordering::Relaxed);
                    version += 1;
                }
                version
            })
        })
        .collect();
    let began = Instant::now();
    let mut ended = 0_i64;
    // Not at the same place of a transaction each time.
    for pause in (0_u64..).map(|number| 40 + number * 37 % 61) {
        if began.elapsed() > Duration::from_secs(6) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
        ended += admin.query_one(END_ALL, &[&database.name]).await.unwrap().get::<_, i64>(0);
    }
    is_over.store(true, Ordering::Relaxed);
    let mut events = 0;
    for (number, saga) in (0..).zip(sagas) {
        let version = saga.await.unwrap();
        events += version;
        let log = whole_stream_of(&store, number).await;
        let versions: Vec<_> = log.iter().map(|version| version.0).collect();
        assert_eq!(versions, (1..=version).collect::<Vec<_>>(), "saga {number}");
    }
    assert!(ended > 10 && refused.load(Ordering::Relaxed) > 0, "{ended} ended");
    well(&store).await;
    let log = whole_log_of(&store).await;
    assert_eq!(log as u64, events);
    assert_eq!(verified(&store).await, Vec::<String>::new());
    store.close().await.unwrap();
}

/// Reads until it works: a connection that reads may have been ended, too.
async fn whole_stream_of(store: &TestStore, number: u32) -> Vec<Version> {
    for _ in 0..5 {
        let read = store.log().stream(
            Stream::Saga(saga_id(number)),
            Version(0),
            amends_store::PageBudget::items(1),
        );
        if read.await.is_ok() {
            break;
        }
    }
    let log = whole_stream(&**store, Stream::Saga(saga_id(number))).await;
    log.into_iter().map(|event| event.version).collect()
}

async fn whole_log_of(store: &TestStore) -> usize {
    let log = whole_log(&**store).await;
    assert!(log.iter().zip(1..).all(|(event, position)| event.position.0 == position), "a gap");
    log.len()
}

async fn verified(store: &TestStore) -> Vec<String> {
    store.maintenance().verify().await.unwrap()
}

/// What a proxy does to the next transaction.
const PASS: u32 = 0;
/// It passes `COMMIT` on, and cuts the connection instead of passing the answer back.
const SWALLOW_ANSWER: u32 = 1;
/// It cuts the connection before it passes `COMMIT` on.
const SWALLOW_COMMIT: u32 = 2;
/// It passes nothing back and cuts nothing, until it passes again.
const HOLD_ANSWER: u32 = 3;

/// A proxy between a store and its database, at a port of its own.
struct Proxy {
    port: u16,
    todo: Arc<AtomicU32>,
    /// How many transactions it has done that to.
    done: Arc<AtomicU32>,
    /// True while it takes no connection.
    is_shut: Arc<AtomicBool>,
}

impl Proxy {
    async fn new(database: &Database) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (todo, done) = (Arc::new(AtomicU32::new(PASS)), Arc::new(AtomicU32::new(0)));
        let is_shut = Arc::new(AtomicBool::new(false));
        let proxy = Self {
            port,
            todo: Arc::clone(&todo),
            done: Arc::clone(&done),
            is_shut: Arc::clone(&is_shut),
        };
        let server = database.address();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if is_shut.load(Ordering::SeqCst) {
                    continue;
                }
                let server = TcpStream::connect(server).await.unwrap();
                tokio::spawn(pass(client, server, Arc::clone(&todo), Arc::clone(&done)));
            }
        });
        proxy
    }
}

/// Returns true when what a client sends ends a transaction. It sends that last, in one piece with what comes before.
fn has_commit(sent: &[u8]) -> bool {
    sent.windows(7).any(|window| window == b"COMMIT\0")
}

/// Passes bytes between a client and a server, and does to a transaction what is to be done.
async fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    todo: Arc<AtomicU32>,
    done: Arc<AtomicU32>,
) {
    let (mut sent, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let (mut is_held, mut tail) = (false, Vec::new());
    loop {
        tokio::select! {
            read = client.read(&mut sent) => {
                let Ok(count @ 1..) = read else { return };
                let sent = &sent[..count];
                // A word may be cut in two.
                tail.extend_from_slice(sent);
                let is_commit = has_commit(&tail);
                tail.drain(..tail.len().saturating_sub(6));
                let todo = if is_commit { todo.swap(PASS, Ordering::SeqCst) } else { PASS };
                if todo != PASS {
                    done.fetch_add(1, Ordering::SeqCst);
                }
                match todo {
                    SWALLOW_COMMIT => return,
                    SWALLOW_ANSWER => {
                        server.write_all(sent).await.unwrap();
                        // Until the server has committed and says so.
                        let mut answers = Vec::new();
                        while !answers.windows(7).any(|window| window == b"COMMIT\0") {
                            let Ok(count @ 1..) = server.read(&mut answered).await else { return };
                            answers.extend_from_slice(&answered[..count]);
                        }
                        return;
                    }
                    HOLD_ANSWER => is_held = true,
                    _ => {}
                }
                if server.write_all(sent).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut answered), if !is_held => {
                let Ok(count @ 1..) = read else { return };
                if client.write_all(&answered[..count]).await.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(Duration::from_secs(1)), if is_held => return,
        }
    }
}

/// An append whose answer was lost is answered with the truth: it is there when it was committed, and it is not
/// when it was not. It is never there twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_with_the_truth_when_the_answer_is_lost() {
    const TRIES: u32 = 12;
    let Some(database) = Database::new() else { return };
    let proxy = Proxy::new(&database).await;
    let store = open(&database.url_over(proxy.port)).await;
    let direct = connect(&database.url()).await.unwrap();
    store.append(start(0)).await.unwrap();
    for number in 1..=TRIES {
        let todo = [SWALLOW_ANSWER, SWALLOW_COMMIT, HOLD_ANSWER][number as usize % 3];
        proxy.todo.store(todo, Ordering::SeqCst);
        let before = proxy.done.load(Ordering::SeqCst);
        let key = amends_store::StartKey {
            key: format!("key-{number}"),
            payload_digest: amends_engine::Digest::of(b"payload"),
        };
        let append = Append { start_key: Some(key.clone()), ..start(number) };
        let answer = store.append(append.clone()).await;
        assert_eq!(proxy.done.load(Ordering::SeqCst), before + 1, "the proxy did nothing");
        let is_there = count(&direct, "SELECT count(*) FROM sagas WHERE key IS NULL").await
            == i64::from(number) + 1;
        match (todo, answer) {
            (SWALLOW_ANSWER | HOLD_ANSWER, Ok(Appended::Done { version: Version(1) })) => {
                assert!(is_there, "{number} is acknowledged and lost");
            }
            (SWALLOW_COMMIT, Err(StoreError::Unavailable { .. })) => {
                assert!(!is_there, "{number} is refused and there");
                well(&store).await;
                store.append(append.clone()).await.unwrap();
            }
            (todo, other) => panic!("{number}, {todo}: {other:?}"),
        }
        // The same again is the same saga, whatever became of the answer.
        let again = store.append(append).await.unwrap();
        assert_eq!(again, Appended::Duplicate(saga_id(number)));
        insist(&store, &then(number, 1)).await;
    }
    well(&store).await;
    assert_eq!(whole_log_of(&store).await, 1 + 2 * TRIES as usize);
    assert_eq!(verified(&store).await, Vec::<String>::new());
    // The same of what is no append.
    for (number, todo) in (1..).zip([SWALLOW_ANSWER, SWALLOW_COMMIT]) {
        proxy.todo.store(todo, Ordering::SeqCst);
        let digest = amends_engine::Digest::of(&[number]);
        let put =
            store.blobs().put(BlobKind::Component, "a".to_owned(), digest, at(1), vec![number]);
        let answer = put.await;
        let there = store.blobs().get(BlobKind::Component, digest).await.unwrap().is_some();
        assert_eq!(answer.is_ok(), there, "{answer:?}");
        assert_eq!(there, todo == SWALLOW_ANSWER);
        well(&store).await;
    }
    store.close().await.unwrap();
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// An answer is lost, and before the store can ask, another one takes over: what was committed is said to be, and what
/// was not is lost ownership.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_with_the_truth_when_taken_over_meanwhile() {
    for todo in [SWALLOW_ANSWER, SWALLOW_COMMIT] {
        let Some(database) = Database::new() else { return };
        let proxy = Proxy::new(&database).await;
        let older = open(&database.url_over(proxy.port)).await;
        older.append(start(0)).await.unwrap();
        proxy.is_shut.store(true, Ordering::SeqCst);
        proxy.todo.store(todo, Ordering::SeqCst);
        let unheard = tokio::spawn(older.append(then(0, 1)));
        while proxy.done.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Others are refused at once, and not held up.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let refused = older.append(start(7)).await;
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
        let health = older.maintenance().health().borrow().clone();
        assert!(matches!(health, StoreHealth::NoWrites(_)), "{health:?}");

        let newer = open(&database.url()).await;
        let version = whole_stream_of(&newer, 0).await.len() as u64;
        newer.append(then(0, version)).await.unwrap();
        proxy.is_shut.store(false, Ordering::SeqCst);
        let answer = unheard.await.unwrap();
        if todo == SWALLOW_ANSWER {
            assert!(matches!(answer, Ok(Appended::Done { version: Version(2) })), "{answer:?}");
            assert_eq!(version, 2);
        } else {
            assert!(matches!(answer, Err(StoreError::LostOwnership(_))), "{answer:?}");
            assert_eq!(version, 1);
        }
        let late = older.append(then(0, version + 1)).await;
        assert!(matches!(late, Err(StoreError::LostOwnership(_))), "{late:?}");
        assert_eq!(whole_log_of(&newer).await as u64, version + 1);
        older.close().await.unwrap();
        newer.close().await.unwrap();
    }
}

/// A server that takes no connection, or no writes, is no loss: the store says so, and goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_on_when_the_trouble_is_over() {
    let Some(database) = Database::new() else { return };
    let admin = connect(&database.admin()).await.unwrap();
    let proxy = Proxy::new(&database).await;
    let store = open(&database.url_over(proxy.port)).await;
    store.append(start(0)).await.unwrap();
    let name = &database.name;
    for (begin, end) in [
        // Too many connections.
        (
            format!("ALTER DATABASE {name} CONNECTION LIMIT 0"),
            format!("ALTER DATABASE {name} CONNECTION LIMIT -1"),
        ),
        // As after a failover to a server that is no primary yet.
        (
            format!("ALTER DATABASE {name} SET default_transaction_read_only = on"),
            format!("ALTER DATABASE {name} RESET default_transaction_read_only"),
        ),
        // The network is gone.
        (String::new(), String::new()),
    ] {
        admin.batch_execute(&begin).await.unwrap();
        proxy.is_shut.store(begin.is_empty(), Ordering::SeqCst);
        admin.query_one(END_ALL, &[name]).await.unwrap();
        let version = whole_version(&admin, &database).await;
        // Refused at once; or, when its connection ends after it was sent, answered when the database says whether
        // it is there.
        let first = tokio::spawn(store.append(then(0, version)));
        // A superuser is not limited.
        if !begin.contains("LIMIT") {
            let mut health = store.maintenance().health();
            let ill = health.wait_for(|health| matches!(health, StoreHealth::NoWrites(_)));
            drop(tokio::time::timeout(Duration::from_secs(30), ill).await.expect("well").unwrap());
        }
        admin.batch_execute(&end).await.unwrap();
        proxy.is_shut.store(false, Ordering::SeqCst);
        well(&store).await;
        match first.await.unwrap() {
            Ok(Appended::Done { .. }) => {}
            Err(StoreError::Unavailable { .. }) => drop(insist(&store, &then(0, version)).await),
            other => panic!("{begin}: {other:?}"),
        }
    }
    assert_eq!(whole_log_of(&store).await, 4);
    store.close().await.unwrap();
}

/// A database that lacks what was acknowledged is not gone on with: it was restored, or another server has
/// taken over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_not_on_with_a_database_of_the_past() {
    let Some(database) = Database::new() else { return };
    let store = open(&database.url()).await;
    store.append(start(1)).await.unwrap();
    let client = connect(&database.url()).await.unwrap();
    for number in 2..5 {
        store.append(start(number)).await.unwrap();
    }
    client
        .batch_execute(
            "DELETE FROM appends WHERE batch IN (SELECT batch FROM batches WHERE total > 2);
             DELETE FROM batches WHERE total > 2",
        )
        .await
        .unwrap();
    let admin = connect(&database.admin()).await.unwrap();
    admin.query_one(END_ALL, &[&database.name]).await.unwrap();
    let refused = store.append(start(9)).await;
    let refused = match refused {
        // The connection was not known to be cut.
        Err(StoreError::Unavailable { .. }) => store.append(start(9)).await,
        refused => refused,
    };
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("2 events that were acknowledged are not there any more"), "{said}");
    let health = store.maintenance().health().borrow().clone();
    assert!(matches!(health, StoreHealth::Lost(_)), "{health:?}");
    store.close().await.unwrap();
}

/// An answer is lost, and the database that is there then is one of the past.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_a_lost_append_to_a_database_of_the_past() {
    let Some(database) = Database::new() else { return };
    let proxy = Proxy::new(&database).await;
    let store = open(&database.url_over(proxy.port)).await;
    for number in 1..4 {
        store.append(start(number)).await.unwrap();
    }
    let client = connect(&database.url()).await.unwrap();
    let past = "DELETE FROM appends WHERE batch IN (SELECT batch FROM batches WHERE total > 1);
                DELETE FROM batches WHERE total > 1";
    client.batch_execute(past).await.unwrap();
    proxy.todo.store(SWALLOW_COMMIT, Ordering::SeqCst);
    let refused = store.append(start(9)).await;
    assert!(matches!(refused, Err(StoreError::Fatal(_))), "{refused:?}");
    store.close().await.unwrap();
}

/// The version of saga 0, whatever connections the store has.
async fn whole_version(_: &Client, database: &Database) -> u64 {
    let url = database.url();
    for _ in 0..50 {
        if let Ok(client) = connect(&url).await {
            let sql = "SELECT max(version) FROM appends";
            if let Ok(row) = client.query_one(sql, &[]).await {
                return row.get::<_, i64>(0).unsigned_abs();
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the database does not answer");
}

fn refused(url: &str) -> String {
    let error = PostgresStore::open(url, Durability::Full).err().expect("it is refused");
    assert!(
        matches!(error, OpenError::Postgres { .. } | OpenError::NewerSchema { .. }),
        "{error:?}"
    );
    error.to_string()
}

/// A database that cannot be a store is refused in words, and stays as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_what_is_no_store() {
    let Some(database) = Database::new() else { return };
    let url = database.url();
    let client = connect(&url).await.unwrap();
    client.batch_execute("CREATE TABLE customers (name text)").await.unwrap();
    let said = refused(&url);
    assert!(said.contains("tables of another program, such as `customers`"), "{said}");
    client.batch_execute("DROP TABLE customers; CREATE TABLE meta (name text)").await.unwrap();
    assert!(refused(&url).contains("tables of another program, such as `meta`"));
    client.batch_execute("DROP TABLE meta").await.unwrap();

    let store = open(&url).await;
    store.append(start(1)).await.unwrap();
    store.close().await.unwrap();
    client.batch_execute("ALTER TABLE schedules RENAME TO others").await.unwrap();
    assert!(refused(&url).contains("lacks its table `schedules`"));
    client.batch_execute("ALTER TABLE others RENAME TO schedules").await.unwrap();
    client.batch_execute("UPDATE meta SET value = 99 WHERE name = 'schema'").await.unwrap();
    assert!(refused(&url).contains("has schema version 99, this version of Amends knows 2"));
    client.batch_execute("UPDATE meta SET value = 2 WHERE name = 'schema'").await.unwrap();
    let store = open(&url).await;
    assert_eq!(whole_log_of(&store).await, 1);
    store.close().await.unwrap();

    let missing = format!("{url}_missing");
    let said = refused(&missing);
    assert!(said.contains("does not exist") && said.contains("createdb"), "{said}");
    let nobody = refused("postgres://nobody:secret@127.0.0.1:1/amends");
    assert!(nobody.contains("cannot be reached") && !nobody.contains("secret"), "{nobody}");
}

/// A copy of the tables knows none of the runs of the original, whose archive files it must not remove.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_begins_with_no_runs() {
    let Some(database) = Database::new() else { return };
    let client = connect(&database.url()).await.unwrap();
    let mut runs = Vec::new();
    for is_copied in [false, false, true] {
        if is_copied {
            let copy = "ALTER TABLE meta RENAME TO original;
                        CREATE TABLE meta (LIKE original INCLUDING ALL);
                        INSERT INTO meta SELECT * FROM original; DROP TABLE original";
            client.batch_execute(copy).await.unwrap();
        }
        open(&database.url()).await.close().await.unwrap();
        runs.push(count(&client, "SELECT count(*) FROM meta WHERE name LIKE 'run/%'").await);
    }
    assert_eq!(runs, [1, 2, 1]);
}

/// Hosts that start at once with an empty database make its tables once, and the last one has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn makes_the_tables_once() {
    let Some(database) = Database::new() else { return };
    let url = database.url();
    let opening = (0..4).map(|_| {
        let url = url.clone();
        tokio::task::spawn_blocking(move || PostgresStore::open(&url, Durability::Full))
    });
    let opened: Vec<_> = futures::future::join_all(opening.collect::<Vec<_>>()).await;
    let stores: Vec<_> = opened.into_iter().filter_map(|opened| opened.unwrap().ok()).collect();
    assert!(!stores.is_empty());
    let mut writes = 0;
    for store in stores {
        let store: Arc<dyn amends_store::Store> = Arc::new(store);
        // One that has noticed already that it was taken over owns nothing.
        if let Ok(store) = TestStore::of(Arc::clone(&store)).await {
            writes += u32::from(store.append(start(1)).await.is_ok());
        }
        store.close().await.unwrap();
    }
    assert_eq!(writes, 1);
}

/// `golden/postgres-1.sql` was written by the first version with a store in PostgreSQL. Its data is kept, and the log
/// goes on after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brings_the_first_schema_up_to_date() {
    let Some(database) = Database::new() else { return };
    let client = connect(&database.url()).await.unwrap();
    client.batch_execute(include_str!("golden/postgres-1.sql")).await.unwrap();
    let store = open(&database.url()).await;
    let log = whole_log(&*store).await;
    let kinds: Vec<_> = log.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds.len(), 17);
    assert!(log.iter().zip(1..).all(|(event, position)| event.position.0 == position), "a gap");
    assert_eq!(kinds[14], "step.failed");
    assert_eq!(verified(&store).await, Vec::<String>::new());
    assert_eq!(store.maintenance().events().await.unwrap(), 17);
    let key = store.sagas().key("k3".to_owned()).await.unwrap().unwrap().0;
    let live = amends_store::conformance::live_page(&*store, None, 10).await;
    assert_eq!(live.iter().map(|saga| saga.id).collect::<Vec<_>>(), [key]);
    // What goes on is after what was there, in the same stream and in the log.
    let goes_on = Append { stream: Stream::Saga(key), row: None, ..then(1, 2) };
    store.append(goes_on).await.unwrap();
    store.append(start(1)).await.unwrap();
    assert_eq!(whole_log_of(&store).await, 19);
    let failed = amends_store::SagaQuery {
        failure: amends_store::FailureQuery {
            code: Some("signal_timeout".to_owned()),
            ..amends_store::FailureQuery::default()
        },
        limit: 5,
        ..amends_store::SagaQuery::default()
    };
    assert_eq!(store.sagas().list(failed).await.unwrap().len(), 1);
    store.close().await.unwrap();
    let store = open(&database.url()).await;
    assert_eq!(whole_log_of(&store).await, 19);
    store.close().await.unwrap();
}

/// Texts that PostgreSQL itself does not take are stored and found all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_texts_that_the_database_would_refuse() {
    let Some(database) = Database::new() else { return };
    let store = open(&database.url()).await;
    let text = "a\0b\u{fdd0}";
    let mut append = start(1);
    let row = append.row.as_mut().unwrap();
    row.reason = Some(text.to_owned());
    row.tags.insert("tag".to_owned(), text.to_owned());
    row.key = Some(text.to_owned());
    append.start_key = Some(amends_store::StartKey {
        key: text.to_owned(),
        payload_digest: amends_engine::Digest::of(b""),
    });
    let expected = row.clone();
    store.append(append).await.unwrap();
    assert_eq!(store.sagas().row(saga_id(1)).await.unwrap(), Some(expected.clone()));
    let key = store.sagas().key(text.to_owned()).await.unwrap();
    assert_eq!(key.map(|(saga, _)| saga), Some(saga_id(1)));
    let query = amends_store::SagaQuery {
        tags: vec![("tag".to_owned(), text.to_owned())],
        limit: 2,
        ..amends_store::SagaQuery::default()
    };
    assert_eq!(store.sagas().list(query).await.unwrap(), [expected]);
    store.close().await.unwrap();
}
