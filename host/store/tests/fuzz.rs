//! Rows that nobody of ours wrote: any value in any column is an error or a reason, and what stands
//! beside it is read as before.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]
#![allow(clippy::wildcard_enum_match_arm, reason = "whatever else it is, it is wrong")]

mod temporary_file;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::{Digest, Position, SagaStatus, StateQuery, Timestamp, Version};
use amends_fuzz::{Random, Shape, Target, change_json};
use amends_store::conformance::{
    TestStore, at, live_page, row, saga_id, start, state_change, then, whole_stream,
};
use amends_store::{
    Append, Appended, BlobKind, Cursor, DeadLetter, Durability, EVENT_UNREADABLE, LiveSaga,
    NewEvent, PageBudget, SagaQuery, SagaRow, SqliteStore, StartKey, StoredEvent, Stream,
    SubscriptionChange,
};
use rusqlite::Connection;
use rusqlite::types::Value;
use temporary_file::TemporaryFile;

const TIME_MAX: Duration = Duration::from_secs(2);

/// The saga whose rows nobody touches.
const SOUND: u32 = 3;

/// Tables, and what orders their rows and leaves out those of [`SOUND`].
const TABLES: [(&str, &str, &str); 8] = [
    ("appends", "rowid", "stream <> ?1"),
    ("sagas", "id", "id <> ?1"),
    ("saga_tags", "name, value, saga", "saga <> ?1"),
    ("start_keys", "key", "saga <> ?1"),
    ("blobs", "rowid", "?1 = ?1"),
    ("state", "plugin, key", "?1 = ?1"),
    ("subscriptions", "name", "?1 = ?1"),
    ("dead_letters", "subscription, place", "?1 = ?1"),
];

fn streams() -> Vec<Stream> {
    vec![
        Stream::Saga(saga_id(0)),
        Stream::Saga(saga_id(1)),
        Stream::Saga(saga_id(2)),
        Stream::Plugin("inventory".parse().unwrap()),
        Stream::Service("carrier".parse().unwrap()),
        Stream::Deploys,
        Stream::Erasures,
        Stream::Tokens,
        Stream::Audit,
    ]
}

/// A store with rows of every kind, and a copy of them.
struct Rows {
    place: TemporaryFile,
    store: TestStore,
    /// Another program that writes to the file.
    other: Connection,
    sound: (SagaRow, Vec<StoredEvent>),
    /// Sagas that were started since.
    started: u32,
}

impl Rows {
    async fn new() -> Self {
        let place = TemporaryFile::new();
        // Nothing of it needs to outlive a power cut.
        let store = SqliteStore::open(&place.path(), Durability::Relaxed).unwrap();
        let store = TestStore::of(Arc::new(store)).await.unwrap();
        for number in 0..=SOUND {
            let mut first = start(number);
            let row = first.row.as_mut().unwrap();
            row.tags = [("region".to_owned(), "north".to_owned())].into();
            row.key = Some(format!("key-{number}"));
            row.wake_at = Some(at(number + 60));
            let key = row.key.clone().unwrap();
            first.start_key = Some(StartKey { key, payload_digest: Digest::of(b"payload") });
            let stock = format!("stock/{number}");
            first.state = vec![state_change(&[], &[(&stock, Some("{\"n\":1}"))]).into()];
            store.append(first).await.unwrap();
            let mut more = then(number, 1);
            more.events.push(NewEvent { kind: "order.made".into(), data: "{}".to_owned() });
            store.append(more).await.unwrap();
        }
        let ended = SagaRow {
            status: SagaStatus::Completed,
            ended_at: Some(at(90)),
            wake_at: None,
            ..row(2)
        };
        store.append(Append { row: Some(ended), ..then(2, 3) }).await.unwrap();
        for stream in &streams()[3..] {
            let append = Append { stream: stream.clone(), row: None, ..start(7) };
            store.append(append).await.unwrap();
        }
        for kind in [BlobKind::Component, BlobKind::Definition] {
            let bytes = b"bytes".to_vec();
            store
                .blobs()
                .put(kind, "name".to_owned(), Digest::of(&bytes), at(1), bytes)
                .await
                .unwrap();
        }
        let letter = |stream| DeadLetter {
            place: Cursor::START,
            stream,
            version: Version(1),
            kind: "step.failed".to_owned(),
            at: at(1),
            attempts: 3,
            error: "no".to_owned(),
        };
        let change = SubscriptionChange {
            name: "name".to_owned(),
            cursor: Cursor::START,
            disabled: Some("gone".to_owned()),
            dead: vec![letter(streams()[0].clone())],
            delivered: Vec::new(),
        };
        store.outbox().save(change).await.unwrap();
        let other = Connection::open(place.path()).unwrap();
        other.execute_batch("PRAGMA synchronous = OFF").unwrap();
        for (table, ..) in TABLES {
            let copy = format!("CREATE TEMP TABLE copy_{table} AS SELECT * FROM main.{table}");
            other.execute_batch(&copy).unwrap();
        }
        let sound = (
            store.sagas().row(saga_id(SOUND)).await.unwrap().unwrap(),
            whole_stream(&*store, Stream::Saga(saga_id(SOUND))).await,
        );
        Self { place, store, other, sound, started: 1_000 }
    }

    /// Puts the rows back as they were, and changes them as the lines say. True when positions may
    /// have changed.
    fn change(&self, text: &str) -> bool {
        let changes = self.other.unchecked_transaction().unwrap();
        for (table, ..) in TABLES {
            let back = format!(
                "DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM copy_{table}"
            );
            changes.execute_batch(&back).unwrap();
        }
        let mut moved = false;
        for line in text.lines() {
            let Some((table, order, is_other, number, column, value)) = change_of(line) else {
                continue;
            };
            let which = format!("SELECT {order} FROM {table} WHERE {is_other} LIMIT 1 OFFSET ?2");
            let sql =
                format!("UPDATE OR IGNORE {table} SET {column} = ?3 WHERE ({order}) = ({which})");
            let id = saga_id(SOUND);
            // A column that there is not, or a null that may not be.
            if changes.execute(&sql, (&id.as_bytes()[..], number, value)).is_ok() {
                moved |= column == "position";
            }
        }
        changes.commit().unwrap();
        moved
    }

    async fn look(&mut self, text: &str) -> String {
        let moved = self.change(text);
        let mut outcome = String::new();
        let (mut log, mut from) = (Vec::<StoredEvent>::new(), Cursor::START);
        loop {
            let page = self.store.log().follow(from, PageBudget::items(3)).await.unwrap();
            if page.events.is_empty() {
                break;
            }
            let after = log.last().map_or(Position(0), |last| last.position);
            assert!(page.events.iter().all(|event| event.position > after), "{page:?}");
            from = page.next;
            log.extend(page.events);
            assert!(log.len() < 1_000, "the log does not end");
        }
        Self::assert_events(&log, &mut outcome);
        for stream in streams() {
            self.read_stream(stream, &mut outcome).await;
        }
        self.read_sagas(&mut outcome).await;
        self.read_rest(&mut outcome).await;
        self.assert_sound().await;
        self.append(moved, &mut outcome).await;
        outcome
    }

    fn assert_events(events: &[StoredEvent], outcome: &mut String) {
        for event in events {
            let of_type = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_');
            assert!(event.kind.bytes().all(of_type) && !event.kind.is_empty(), "{event:?}");
            let data = serde_json::from_str::<serde_json::Value>(&event.data);
            if event.kind == EVENT_UNREADABLE {
                let _ = write!(outcome, " {}", data.unwrap()["reason"].as_str().unwrap());
            } else {
                serde_json::from_str::<&serde_json::value::RawValue>(&event.data).unwrap();
            }
        }
    }

    async fn read_stream(&self, stream: Stream, outcome: &mut String) {
        let mut found: Vec<StoredEvent> = Vec::new();
        loop {
            let after = found.last().map_or(Version(0), |last| last.version);
            let page =
                self.store.log().stream(stream.clone(), after, PageBudget::items(2)).await.unwrap();
            if page.is_empty() {
                break;
            }
            assert!(page.iter().all(|event| event.version > after), "{after:?}: {page:?}");
            found.extend(page);
            assert!(found.len() < 1_000, "{stream} does not end");
        }
        Self::assert_events(&found, outcome);
    }

    async fn read_sagas(&self, outcome: &mut String) {
        let mut after = None;
        let mut live: Vec<LiveSaga> = Vec::new();
        loop {
            let page = live_page(&*self.store, after, 2).await;
            let Some(last) = page.last() else { break };
            assert!(page.iter().all(|saga| Some(saga.id) > after), "{page:?}");
            after = Some(last.id);
            live.extend(page);
        }
        let sound = live.iter().find(|saga| saga.id == saga_id(SOUND)).unwrap();
        assert_eq!(sound.content.as_ref().unwrap(), &self.sound);
        for saga in live {
            if let Err(reason) = saga.content {
                let _ = write!(outcome, " {reason}");
            }
        }
        let definition = Some("order-fulfillment".parse().unwrap());
        for query in [
            SagaQuery::default(),
            SagaQuery { definition, ..SagaQuery::default() },
            SagaQuery {
                tags: vec![("region".to_owned(), "north".to_owned())],
                ..SagaQuery::default()
            },
            SagaQuery { statuses: SagaStatus::ALL.to_vec(), ..SagaQuery::default() },
            SagaQuery { statuses: vec![SagaStatus::Running], ..SagaQuery::default() },
            SagaQuery { started_after: Some(at(1)), ..SagaQuery::default() },
        ] {
            let mut query = SagaQuery { limit: 2, ..query };
            let mut found = Vec::new();
            loop {
                let page = self.store.sagas().list(query.clone()).await.unwrap();
                let Some(last) = page.last() else { break };
                assert!(query.before.is_none_or(|before| page.iter().all(|row| row.id < before)));
                query.before = Some(last.id);
                found.extend(page);
                assert!(found.len() < 100, "the list does not end");
            }
            assert!(found.contains(&self.sound.0), "{query:?}: {found:?}");
        }
    }

    /// Answers and errors are both fine.
    async fn read_rest(&self, outcome: &mut String) {
        let mut told = |what: &str, error: Option<String>| {
            if let Some(error) = error {
                let _ = write!(outcome, " {what}: {error}");
            }
        };
        for number in 0..SOUND {
            let found = self.store.sagas().row(saga_id(number)).await;
            told("saga", found.err().map(|error| error.to_string()));
            let found = self.store.sagas().key(format!("key-{number}")).await;
            told("key", found.err().map(|error| error.to_string()));
            let found = self
                .store
                .state()
                .value("inventory".parse().unwrap(), format!("stock/{number}"))
                .await;
            told("state", found.err().map(|error| error.to_string()));
        }
        let query = StateQuery { limit: 10, ..StateQuery::default() };
        let found = self.store.state().keys("inventory".parse().unwrap(), query).await;
        told("keys", found.err().map(|error| error.to_string()));
        for kind in [BlobKind::Component, BlobKind::Definition] {
            told("blobs", self.store.blobs().list(kind).await.err().map(|error| error.to_string()));
            let found = self.store.blobs().get(kind, Digest::of(b"bytes")).await;
            told("blob", found.err().map(|error| error.to_string()));
        }
        let found = self.store.outbox().subscription("name".to_owned()).await;
        told("subscription", found.err().map(|error| error.to_string()));
        let found = self.store.outbox().dead_letters("name".to_owned(), None, 10).await;
        told("dead letters", found.err().map(|error| error.to_string()));
        told("counts", self.store.sagas().counts().await.err().map(|error| error.to_string()));
        match self.store.maintenance().verify().await {
            Ok(findings) => findings.into_iter().for_each(|finding| told("found", Some(finding))),
            Err(error) => told("verify", Some(error.to_string())),
        }
    }

    async fn assert_sound(&self) {
        let id = saga_id(SOUND);
        assert_eq!(self.store.sagas().row(id).await.unwrap().as_ref(), Some(&self.sound.0));
        let events = whole_stream(&*self.store, Stream::Saga(id)).await;
        assert_eq!(events, self.sound.1);
        let found = self.store.sagas().key(format!("key-{SOUND}")).await.unwrap();
        assert_eq!(found, Some((id, Digest::of(b"payload"))));
    }

    /// Whatever stands there, a new saga is taken.
    async fn append(&mut self, moved: bool, outcome: &mut String) {
        for number in 0..SOUND {
            if let Err(error) = self.store.append(then(number, 9)).await {
                let _ = write!(outcome, " append: {error}");
            }
        }
        self.started += 1;
        let appended = self.store.append(start(self.started)).await;
        // It may have been given a position that another row has now.
        assert!(moved || matches!(appended, Ok(Appended::Done { .. })), "{appended:?}");
        if self.started.is_multiple_of(500) {
            let health = format!("{:?}", *self.store.maintenance().health().borrow());
            assert!(moved || health == "Well", "{health}");
        }
    }
}

/// `appends 2 version i:-5`: the value of a column of the third of the rows that may be changed.
#[allow(clippy::type_complexity, reason = "the parts of one line")]
fn change_of(line: &str) -> Option<(&'static str, &'static str, &'static str, u32, &str, Value)> {
    let mut parts = line.splitn(4, ' ');
    let table = parts.next()?;
    let (table, order, is_other) = TABLES.into_iter().find(|(name, ..)| *name == table)?;
    let number = parts.next()?.parse().ok()?;
    let column = parts.next()?;
    let is_column =
        !column.is_empty() && column.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let (kind, text) = parts.next()?.split_once(':')?;
    let value = match kind {
        "i" => Value::Integer(text.parse().ok()?),
        "r" => Value::Real(text.parse().ok()?),
        "t" => Value::Text(text.to_owned()),
        "x" => Value::Blob(
            (0..text.len() / 2)
                .map(|at| u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok())
                .collect::<Option<_>>()?,
        ),
        "n" => Value::Null,
        _ => return None,
    };
    is_column.then_some((table, order, is_other, number, column, value))
}

/// Changes the JSON of one value, where it is some.
fn change_value(random: &mut Random, input: &mut Vec<u8>, words: &[&str]) {
    let lines: Vec<&[u8]> = input.split_inclusive(|byte| *byte == b'\n').collect();
    if lines.is_empty() {
        return;
    }
    let chosen = random.below(lines.len());
    let Some(at) = lines[chosen].windows(3).position(|three| three == b" t:") else { return };
    let mut changed = lines[chosen][at + 3..].to_vec();
    if change_json(random, &mut changed, words) {
        let changed = [&lines[chosen][..at + 3], &changed, b"\n"].concat();
        let (earlier, later) = (lines[..chosen].concat(), lines[chosen + 1..].concat());
        *input = [earlier, changed, later].concat();
    }
}

#[test]
fn any_row_is_read_or_says_why_not() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut rows = runtime.block_on(Rows::new());
    let id =
        saga_id(1).as_bytes().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let seeds: Vec<String> = vec![
        "appends 1 events t:[[\"step.started\",{\"step\":\"a\",\"attempt\":1}],[\"order.made\",{}]]\n"
            .to_owned(),
        "appends 0 version i:9\nappends 2 position i:77\nappends 3 at i:-1\n".to_owned(),
        "appends 4 stream t:inventory\nappends 5 version t:x\nappends 1 position i:-7\n".to_owned(),
        format!("appends 6 stream x:{id}\nappends 2 events x:ff\nappends 0 events n:\n"),
        "sagas 0 status t:running\nsagas 1 tags t:{\"region\":\"north\"}\nsagas 2 key n:\n".to_owned(),
        format!("sagas 0 id x:{id}\nsagas 1 started_at i:0\nsagas 2 ended_at r:1.5\n"),
        "sagas 0 definition t:A b\nsagas 1 definition_digest x:00\nsagas 2 reason x:ff\n".to_owned(),
        "sagas 0 wake_at i:9223372036854775807\nsagas 1 deadline_at t:x\n".to_owned(),
        format!("saga_tags 0 saga x:{id}\nsaga_tags 1 name t:x\nsaga_tags 2 value x:ff\n"),
        "start_keys 0 saga x:00\nstart_keys 1 payload_digest t:x\nstart_keys 2 at t:x\n".to_owned(),
        "blobs 0 digest x:00\nblobs 1 at t:x\nblobs 0 name x:ff\nblobs 1 bytes t:x\n".to_owned(),
        "state 0 value t:{}\nstate 1 value x:ff\nstate 2 key x:ff\nstate 0 plugin t:A b\n".to_owned(),
        "appends 9 events t:[]\nappends 8 events t:[[\"a\\nb\",1]]\n".to_owned(),
    ];
    let words = [
        "appends",
        "sagas",
        "saga_tags",
        "start_keys",
        "blobs",
        "state",
        "position",
        "stream",
        "version",
        "at",
        "events",
        "id",
        "definition",
        "definition_digest",
        "status",
        "reason",
        "started_at",
        "ended_at",
        "deadline_at",
        "wake_at",
        "tags",
        "key",
        "name",
        "value",
        "saga",
        "payload_digest",
        "kind",
        "digest",
        "bytes",
        "plugin",
        "i:",
        "r:",
        "t:",
        "x:",
        "n:",
        "i:0",
        "i:-1",
        "i:9223372036854775807",
        "i:-9223372036854775808",
        "x:ff",
        "x:00",
        "t:",
        "r:1.5",
        "completed",
        "running",
        "t:service/carrier",
        "t:deploys/",
        &id,
    ];
    Target {
        name: "rows",
        seeds: seeds.into_iter().map(String::into_bytes).collect(),
        words: &words,
        shape: Shape::Own(change_value),
        bytes_max: 16 << 10,
        time_max: TIME_MAX,
    }
    .run(|input| runtime.block_on(rows.look(&String::from_utf8_lossy(input))));
    let _ = (Timestamp::default(), &rows.place);
}
