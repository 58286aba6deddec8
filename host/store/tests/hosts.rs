//! Several hosts on one PostgreSQL database: who owns what, what becomes of it when a host comes, leaves, stops or dies,
//! and what they write at once.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

mod database;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use amends_engine::{
    CounterChange, PluginName, SagaId, StateChange, StateList, StateQuery, Timestamp, Version,
};
use amends_store::conformance::{at, event, saga_id, start, then, whole_log, whole_stream};
use amends_store::{
    Append, Appended, Cursor, Durability, Epoch, Fatal, HostInfo, OwnedShards, OwnershipEvent,
    PageBudget, PostgresStore, ShardId, ShardOwner, StartKey, Store, StoreError, StoredEvent,
    Stream,
};
use database::{Database, connect};
use futures::future::{BoxFuture, join_all};
use tokio::task::JoinHandle;

/// How long a takeover may take.
const TAKEOVER_TIME_MAX: Duration = Duration::from_secs(8);

/// A host, whose ticks go on until it is stopped.
struct Node {
    name: &'static str,
    store: Arc<dyn Store>,
    shards: Arc<Mutex<OwnedShards>>,
    /// What it has lost so far.
    lost: Arc<Mutex<BTreeSet<ShardId>>>,
    ticks: JoinHandle<()>,
}

fn info(name: &str) -> HostInfo {
    HostInfo { name: name.to_owned(), address: format!("http://{name}:7070") }
}

impl Node {
    async fn join(database: &Database, name: &'static str) -> Self {
        let url = database.url();
        let store =
            tokio::task::spawn_blocking(move || PostgresStore::open(&url, Durability::Full));
        let store: Arc<dyn Store> = Arc::new(store.await.unwrap().unwrap());
        store.ownership().join(info(name));
        let (shards, lost) = (Arc::<Mutex<OwnedShards>>::default(), Arc::default());
        let ticks = tokio::spawn(tick(Arc::clone(&store), Arc::clone(&shards), Arc::clone(&lost)));
        Self { name, store, shards, lost, ticks }
    }

    /// Stops the ticks: the host is as one that does not run.
    fn stop(&self) {
        self.ticks.abort();
    }

    fn go_on(&mut self) {
        let (store, shards) = (Arc::clone(&self.store), Arc::clone(&self.shards));
        self.ticks = tokio::spawn(tick(store, shards, Arc::clone(&self.lost)));
    }

    fn owned(&self) -> BTreeSet<ShardId> {
        self.shards.lock().unwrap().ids().collect()
    }

    fn epoch(&self, saga: SagaId) -> Option<Epoch> {
        self.shards.lock().unwrap().of(saga).map(amends_store::Shard::epoch)
    }

    fn append(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        match append.stream {
            Stream::Saga(_) => self.shards.lock().unwrap().append(append),
            Stream::Plugin(_) => self.store.state().change(append),
            Stream::Service(_)
            | Stream::Deploys
            | Stream::Erasures
            | Stream::Tokens
            | Stream::Audit => self.store.log().append_shared(append),
        }
    }

    /// Returns numbers of sagas whose shards it owns, from a number on.
    fn numbers(&self, from: u32) -> impl Iterator<Item = u32> + use<> {
        let owned = self.owned();
        (from..).filter(move |number| owned.contains(&ShardId::of(saga_id(*number))))
    }

    async fn close(self) {
        self.ticks.abort();
        self.store.close().await.unwrap();
    }
}

async fn tick(
    store: Arc<dyn Store>,
    shards: Arc<Mutex<OwnedShards>>,
    lost: Arc<Mutex<BTreeSet<ShardId>>>,
) {
    loop {
        match store.ownership().tick().await {
            Ok(events) => {
                for event in events {
                    match event {
                        OwnershipEvent::Gained(shard) => shards.lock().unwrap().insert(shard),
                        OwnershipEvent::Lost(id) => {
                            lost.lock().unwrap().insert(id);
                            drop(shards.lock().unwrap().remove(id));
                        }
                    }
                }
            }
            Err(StoreError::Closed | StoreError::Fatal(_)) => return,
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until something holds.
async fn until(what: &str, limit: Duration, holds: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

/// Waits until some hosts have all shards between them, each a part.
async fn shared(nodes: &[&Node]) {
    let is_shared = || {
        let owned: Vec<_> = nodes.iter().map(|node| node.owned()).collect();
        let all: BTreeSet<_> = owned.iter().flatten().copied().collect();
        let count: usize = owned.iter().map(BTreeSet::len).sum();
        all.len() == 64 && count == 64 && owned.iter().all(|owned| owned.len() >= 10)
    };
    until("the shards are shared", Duration::from_secs(15), is_shared).await;
}

/// Each host owns a part, says who owns the others, and a host that comes takes only its own part.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_owns_its_part_and_a_join_moves_few() {
    let Some(database) = Database::new() else { return };
    let one = Node::join(&database, "one").await;
    until("one has all", TAKEOVER_TIME_MAX, || one.owned().len() == 64).await;
    assert!(one.store.ownership().others().is_empty());
    let two = Node::join(&database, "two").await;
    shared(&[&one, &two]).await;
    assert_eq!(*one.lost.lock().unwrap(), two.owned());
    let before = [one.owned(), two.owned()];
    let three = Node::join(&database, "three").await;
    shared(&[&one, &two, &three]).await;
    let nodes = [&one, &two, &three];
    for (node, before) in nodes.iter().zip(&before) {
        assert!(
            node.owned().is_subset(before),
            "{} gained from another than the new host",
            node.name
        );
    }
    let moved = three.owned().len();
    assert!((10..=40).contains(&moved), "{moved} of 64 moved");
    // All say the same of who owns what, once each has looked.
    let agree = || {
        nodes.iter().all(|node| {
            let others: BTreeSet<_> =
                node.store.ownership().others().into_iter().map(|host| host.name).collect();
            others.len() == 2
                && ShardId::all().all(|shard| {
                    let owner = nodes.iter().find(|node| node.owned().contains(&shard)).unwrap();
                    let is = node.store.ownership().owner_of(shard);
                    if owner.name == node.name {
                        is == ShardOwner::This
                    } else {
                        is == ShardOwner::Other(info(owner.name))
                    }
                })
        })
    };
    until("all agree", Duration::from_secs(5), agree).await;
    assert_eq!(nodes.iter().filter(|node| leads(&*node.store)).count(), 1);
    // Each writes to its own alone, and reads all.
    for (number, node) in (0..).zip(nodes) {
        let own = node.numbers(1_000 * number).next().unwrap();
        node.append(start(own)).await.unwrap();
        for other in nodes {
            let read = whole_stream(&*other.store, Stream::Saga(saga_id(own))).await;
            assert_eq!(read.len(), 1);
        }
    }
    for node in [one, two, three] {
        node.close().await;
    }
}

/// A host that leaves with appends under way loses none of them, and the other has its shards at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaves_at_once_with_appends_under_way() {
    const APPENDS: usize = 1_000;
    let Some(database) = Database::new() else { return };
    let (one, two) = (Node::join(&database, "one").await, Node::join(&database, "two").await);
    shared(&[&one, &two]).await;
    let numbers: Vec<_> = two.numbers(0).take(APPENDS).collect();
    let pending: Vec<_> = numbers.iter().map(|number| two.append(start(*number))).collect();
    two.close().await;
    let took = until("one has all", Duration::from_secs(2), || one.owned().len() == 64).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    for (number, result) in numbers.iter().zip(join_all(pending).await) {
        assert!(matches!(result, Ok(Appended::Done { .. })), "{number}: {result:?}");
    }
    let log = whole_log(&*one.store).await;
    assert_eq!(log.len(), APPENDS);
    // It goes on with them.
    for number in &numbers {
        one.append(then(*number, 1)).await.unwrap();
    }
    assert_eq!(one.store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    one.close().await;
}

/// Shards move between hosts that are being written to: nothing is lost, doubled or refused wrongly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hands_over_under_load() {
    const SAGAS: u32 = 200;
    let Some(database) = Database::new() else { return };
    let one = Arc::new(Node::join(&database, "one").await);
    until("one has all", TAKEOVER_TIME_MAX, || one.owned().len() == 64).await;
    let nodes = Arc::new(Mutex::new(vec![Arc::clone(&one)]));
    let is_over = Arc::new(AtomicBool::new(false));
    let writing: Vec<_> = (0..SAGAS)
        .map(|number| {
            let (nodes, is_over) = (Arc::clone(&nodes), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut version = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let shard = ShardId::of(saga_id(number));
                    let owner = nodes
                        .lock()
                        .unwrap()
                        .iter()
                        .find(|node| node.owned().contains(&shard))
                        .cloned();
                    let append = if version == 0 { start(number) } else { then(number, version) };
                    let answer = match owner {
                        Some(node) => node.append(append).await,
                        None => Err(StoreError::LostOwnership(shard)),
                    };
                    match answer {
                        Ok(Appended::Done { .. }) => version += 1,
                        // It moves. `Invalid`: it has been lost since it was looked for.
                        Err(StoreError::LostOwnership(_) | StoreError::Invalid(_)) => {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        other => panic!("saga {number}: {other:?}"),
                    }
                }
                version
            })
        })
        .collect();
    let mut joined = Vec::new();
    for name in ["two", "three"] {
        let node = Arc::new(Node::join(&database, name).await);
        nodes.lock().unwrap().push(Arc::clone(&node));
        joined.push(node);
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    shared(&[&one, &joined[0], &joined[1]]).await;
    let two = nodes.lock().unwrap().remove(1);
    drop(joined.remove(0));
    two.ticks.abort();
    two.store.close().await.unwrap();
    until("two is gone", Duration::from_secs(5), || {
        one.owned().len() + joined[0].owned().len() == 64
    })
    .await;
    is_over.store(true, Ordering::Relaxed);
    let mut events = 0;
    for (number, saga) in (0..).zip(writing) {
        let version = saga.await.unwrap();
        let stream = whole_stream(&*one.store, Stream::Saga(saga_id(number))).await;
        let versions: Vec<_> = stream.iter().map(|event| event.version.0).collect();
        assert_eq!(versions, (1..=version).collect::<Vec<_>>(), "saga {number}");
        events += version;
    }
    let log = whole_log(&*one.store).await;
    assert_eq!(log.len() as u64, events);
    assert!(log.iter().zip(1..).all(|(event, position)| event.position.0 == position), "a gap");
    assert_eq!(one.store.maintenance().verify().await.unwrap(), Vec::<String>::new());
}

/// A host that stands still for longer than its lease is taken over, writes nothing when it goes on, and joins again by
/// itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_stood_still_writes_nothing_and_joins_again() {
    let Some(database) = Database::new() else { return };
    let one = Node::join(&database, "one").await;
    let mut two = Node::join(&database, "two").await;
    shared(&[&one, &two]).await;
    // As long as both run, nothing moves.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let of_two = two.owned();
    assert_eq!(one.owned().len() + of_two.len(), 64);
    let number = two.numbers(0).next().unwrap();
    two.append(start(number)).await.unwrap();
    let epoch = two.epoch(saga_id(number)).unwrap();
    two.stop();
    let took = until("one has all", TAKEOVER_TIME_MAX, || one.owned().len() == 64).await;
    assert!(took > Duration::from_secs(4), "a lease is kept: {took:?}");
    one.append(then(number, 1)).await.unwrap();
    // Its shards are still in its memory.
    let late = two.append(then(number, 1)).await;
    assert!(matches!(late, Err(StoreError::LostOwnership(_))), "{late:?}");
    let stale = two.append(then(number, 2)).await;
    assert!(matches!(stale, Err(StoreError::LostOwnership(_))), "{stale:?}");
    assert_eq!(whole_log(&*one.store).await.len(), 2);
    // What is of no shard is written again, without a restart.
    let deploys = Append { stream: Stream::Deploys, row: None, ..start(1) };
    let mut tries = 0;
    while let Err(error) = two.append(deploys.clone()).await {
        assert!(matches!(error, StoreError::Unavailable { .. }) && tries < 100, "{error:?}");
        tries += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    two.go_on();
    until("it has lost all", Duration::from_secs(3), || {
        of_two.is_subset(&two.lost.lock().unwrap())
    })
    .await;
    shared(&[&one, &two]).await;
    assert_eq!(two.owned(), of_two);
    assert!(two.epoch(saga_id(number)).unwrap() > epoch);
    two.append(then(number, 2)).await.unwrap();
    for node in [one, two] {
        node.close().await;
    }
}

/// A host whose transaction does not end is taken over all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takes_over_from_a_connection_that_holds_its_lane() {
    let Some(database) = Database::new() else { return };
    let (one, two) = (Node::join(&database, "one").await, Node::join(&database, "two").await);
    shared(&[&one, &two]).await;
    two.stop();
    // As a host that was stopped in the middle of a transaction; but no time limit ends it.
    let stuck = connect(&format!("{}?application_name=amends", database.url())).await.unwrap();
    stuck
        .batch_execute(
            "SET idle_in_transaction_session_timeout = 0; BEGIN;
             UPDATE lanes SET backend = pg_backend_pid()
                 WHERE host = (SELECT id FROM hosts WHERE name = 'two'); COMMIT; BEGIN;
             SELECT 1 FROM lanes WHERE host = (SELECT id FROM hosts WHERE name = 'two') FOR UPDATE",
        )
        .await
        .unwrap();
    until("one has all", Duration::from_secs(10), || one.owned().len() == 64).await;
    assert!(stuck.simple_query("SELECT 1").await.is_err(), "its connection was ended");
    for node in [one, two] {
        node.close().await;
    }
}

/// Of two processes with one name, the later one goes on, and the earlier one ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_later_of_one_name_goes_on() {
    let Some(database) = Database::new() else { return };
    let first = Node::join(&database, "one").await;
    until("the first has all", TAKEOVER_TIME_MAX, || first.owned().len() == 64).await;
    first.append(start(1)).await.unwrap();
    let second = Node::join(&database, "one").await;
    // It need not wait for the end of a lease.
    until("the second has all", Duration::from_secs(3), || second.owned().len() == 64).await;
    let refused = first.append(then(1, 1)).await;
    let is_refused = matches!(refused, Err(StoreError::LostOwnership(_) | StoreError::Invalid(_)));
    assert!(is_refused, "{refused:?}");
    let fenced = || async {
        let tick = first.store.ownership().tick().await;
        matches!(tick, Err(StoreError::Fatal(Fatal::Fenced)))
    };
    let began = Instant::now();
    while !fenced().await {
        assert!(began.elapsed() < Duration::from_secs(5), "the first does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    second.append(then(1, 1)).await.unwrap();
    for node in [first, second] {
        node.close().await;
    }
}

/// All connections of all hosts are cut: nobody is taken over, because nobody was away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_taken_over_when_the_database_was_away() {
    let Some(database) = Database::new() else { return };
    let (one, two) = (Node::join(&database, "one").await, Node::join(&database, "two").await);
    shared(&[&one, &two]).await;
    let before = [one.owned(), two.owned()];
    let admin = connect(&database.admin()).await.unwrap();
    let name = &database.name;
    admin.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await.unwrap();
    let end_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    admin.query(end_all, &[name]).await.unwrap();
    // Longer than a lease.
    tokio::time::sleep(Duration::from_secs(7)).await;
    admin.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!([one.owned(), two.owned()], before);
    assert!(one.lost.lock().unwrap().is_subset(&before[1]) && two.lost.lock().unwrap().is_empty());
    let number = two.numbers(0).next().unwrap();
    two.append(start(number)).await.unwrap();
    for node in [one, two] {
        node.close().await;
    }
}

/// A random number that a test can repeat.
fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

/// Eight writers on three hosts with delays of their own: whoever follows the log, from whichever host and from
/// whenever on, sees each event once, in one order, without a gap. An effect comes after its cause, also when the clock of
/// its host is 10 s behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_log_without_gaps_and_with_causes_first() {
    const WRITERS: u32 = 8;
    const APPENDS: u64 = 120;
    let Some(database) = Database::new() else { return };
    let mut nodes = Vec::new();
    for name in ["one", "two", "three"] {
        nodes.push(Arc::new(Node::join(&database, name).await));
    }
    shared(&[&nodes[0], &nodes[1], &nodes[2]]).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let followers: Vec<_> = nodes
        .iter()
        .zip([0, 100, 600])
        .map(|(node, wait)| {
            let (store, is_over) = (Arc::clone(&node.store), Arc::clone(&is_over));
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(wait)).await;
                follow_all(&*store, &is_over).await
            })
        })
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let nodes = nodes.clone();
            tokio::spawn(async move {
                let mut seed = u64::from(writer) * 7_919 + 17;
                // A saga on each host: the append to one is the cause of that to the next.
                let sagas: Vec<_> = nodes
                    .iter()
                    .map(|node| node.numbers(1_000 * (writer + 1)).next().unwrap())
                    .collect();
                for number in 0..APPENDS {
                    let on = usize::try_from(number).unwrap() % nodes.len();
                    let round = number / nodes.len() as u64;
                    let saga = sagas[on];
                    let mut append = if round == 0 { start(saga) } else { then(saga, round) };
                    // The second host's clock is behind.
                    let behind = if on == 1 { 10_000 } else { 0 };
                    append.at = Timestamp::from_millis(
                        at(5_000).as_millis() + i64::try_from(number).unwrap() - behind,
                    );
                    append.events[0].data = format!(r#"{{"writer":{writer},"number":{number}}}"#);
                    nodes[on].append(append).await.unwrap();
                    let pause = next(&mut seed) % 12;
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    is_over.store(true, Ordering::SeqCst);
    let mut logs = Vec::new();
    for follower in followers {
        logs.push(follower.await.unwrap());
    }
    let log = &logs[0];
    assert_eq!(log.len() as u64, u64::from(WRITERS) * APPENDS);
    assert!(logs.iter().all(|other| other == log), "followers see another log");
    let mut last = BTreeMap::<u64, u64>::new();
    for (event, position) in log.iter().zip(1..) {
        assert_eq!(event.position.0, position, "a gap");
        let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
        let (writer, number) = (data["writer"].as_u64().unwrap(), data["number"].as_u64().unwrap());
        let before = last.insert(writer, number);
        assert_eq!(before.map_or(0, |before| before + 1), number, "an effect is before its cause");
    }
    let head = *nodes[2].store.log().head().borrow();
    let end =
        nodes[0].store.log().follow(Cursor::START, PageBudget::items(u32::MAX)).await.unwrap();
    assert!(head.events_until(end.next) < u64::MAX);
    assert_eq!(nodes[0].store.maintenance().verify().await.unwrap(), Vec::<String>::new());
}

/// Reads on until all is over and there is nothing more.
async fn follow_all(store: &dyn Store, is_over: &AtomicBool) -> Vec<StoredEvent> {
    let (mut log, mut cursor) = (Vec::new(), Cursor::START);
    loop {
        let was_over = is_over.load(Ordering::SeqCst);
        let page = store.log().follow(cursor, PageBudget::items(50)).await.unwrap();
        if page.events.is_empty() && was_over {
            return log;
        }
        cursor = page.next;
        log.extend(page.events);
    }
}

/// The head moves on a host that writes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_head_moves_on_every_host() {
    let Some(database) = Database::new() else { return };
    let (one, two) = (Node::join(&database, "one").await, Node::join(&database, "two").await);
    shared(&[&one, &two]).await;
    let mut head = two.store.log().head();
    head.borrow_and_update();
    one.append(start(one.numbers(0).next().unwrap())).await.unwrap();
    let changed = tokio::time::timeout(Duration::from_secs(2), head.changed()).await;
    changed.expect("the head does not move").unwrap();
    let end = two.store.log().follow(Cursor::START, PageBudget::items(9)).await.unwrap().next;
    assert_eq!(*head.borrow(), end);
    for node in [one, two] {
        node.close().await;
    }
}

/// A place that one host has given is behind the end of no other host, however little time has passed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_is_that_of_all_hosts() {
    let Some(database) = Database::new() else { return };
    let (one, two) = (Node::join(&database, "one").await, Node::join(&database, "two").await);
    shared(&[&one, &two]).await;
    for number in one.numbers(0).take(20) {
        one.append(start(number)).await.unwrap();
        let budget = PageBudget::items(1_000);
        let given = one.store.log().follow(Cursor::START, budget).await.unwrap().next;
        let end = two.store.log().end().await.unwrap();
        assert_eq!(end.events_until(given), 0, "{given} is behind {end}");
    }
    for node in [one, two] {
        node.close().await;
    }
}

fn inventory() -> PluginName {
    "inventory".parse().unwrap()
}

fn leads(store: &dyn Store) -> bool {
    store.ownership().owner_of(ShardId::LEADER) == ShardOwner::This
}

fn change(reads: &[(&str, Option<&str>)], writes: &[(&str, &str)]) -> StateChange {
    let reads = reads.iter().map(|(key, value)| ((*key).to_owned(), value.map(Arc::from)));
    let writes = writes.iter().map(|(key, value)| ((*key).to_owned(), Some(Arc::from(*value))));
    StateChange {
        plugin: inventory(),
        bytes_max: 1 << 20,
        counters: [].into(),
        reads: reads.collect(),
        lists: Vec::new(),
        writes: writes.collect(),
    }
}

fn with(append: Append, change: StateChange) -> Append {
    Append { state: vec![Arc::new(change)], ..append }
}

/// Two hosts want the last pieces at once, with many at a time each: each piece is given once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gives_the_last_pieces_once_over_two_hosts() {
    let Some(database) = Database::new() else { return };
    let (one, two) = (Node::join(&database, "one").await, Node::join(&database, "two").await);
    shared(&[&one, &two]).await;
    let first = one.numbers(0).next().unwrap();
    one.append(with(start(first), change(&[], &[("stock", "20")]))).await.unwrap();
    let nodes = [Arc::new(one), Arc::new(two)];
    let wanted: Vec<_> = nodes
        .iter()
        .flat_map(|node| {
            node.numbers(1_000)
                .take(40)
                .map(|number| (Arc::clone(node), number))
                .collect::<Vec<_>>()
        })
        .map(|(node, number)| tokio::spawn(take_one(node, number)))
        .collect();
    let got = join_all(wanted).await.into_iter().filter(|got| *got.as_ref().unwrap()).count();
    assert_eq!(got, 20);
    for node in &nodes {
        let left = node.store.state().value(inventory(), "stock".to_owned()).await.unwrap();
        assert_eq!(left.as_deref(), Some("0"));
        let query = StateQuery { prefix: "taken/".to_owned(), after: None, limit: 100 };
        assert_eq!(node.store.state().keys(inventory(), query).await.unwrap().len(), 20);
    }
}

/// Two hosts add to one counter at once: the sum has each of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adds_to_one_counter_over_two_hosts() {
    const EACH: u32 = 60;
    let Some(database) = Database::new() else { return };
    let (one, two) = (Node::join(&database, "one").await, Node::join(&database, "two").await);
    shared(&[&one, &two]).await;
    let first = one.numbers(0).next().unwrap();
    one.append(with(start(first), change(&[], &[("sold", "0")]))).await.unwrap();
    let add = |node: &Node, number: u32| {
        let counter = CounterChange { delta: 1, ..CounterChange::default() };
        let counters = [("sold".to_owned(), counter)].into();
        let change = StateChange { counters, ..change(&[], &[]) };
        node.append(with(start(number), change))
    };
    let numbers = |node: &Node| node.numbers(1_000).take(EACH as usize).collect::<Vec<_>>();
    for (of_one, of_two) in numbers(&one).into_iter().zip(numbers(&two)) {
        for added in join_all([add(&one, of_one), add(&two, of_two)]).await {
            assert!(matches!(added, Ok(Appended::Done { .. })), "{added:?}");
        }
    }
    let sum = one.store.state().value(inventory(), "sold".to_owned()).await.unwrap();
    assert_eq!(sum.as_deref(), Some(&*(2 * EACH).to_string()));
    for node in [one, two] {
        node.close().await;
    }
}

async fn take_one(node: Arc<Node>, number: u32) -> bool {
    loop {
        let stock =
            node.store.state().value(inventory(), "stock".to_owned()).await.unwrap().unwrap();
        let left = stock.parse::<u32>().unwrap().checked_sub(1);
        let seen = [("stock", Some(&*stock))];
        let change = match left {
            Some(left) => {
                change(&seen, &[("stock", &left.to_string()), (&format!("taken/{number}"), "1")])
            }
            None => change(&seen, &[]),
        };
        match node.append(with(start(number), change)).await.unwrap() {
            Appended::Done { .. } => return left.is_some(),
            Appended::StateChanged(0) => {}
            other @ (Appended::Duplicate(_)
            | Appended::KeyReused(_)
            | Appended::StateChanged(_)
            | Appended::StateFull(_)) => panic!("{other:?}"),
        }
    }
}

/// Calls on two hosts see that a list is empty and each adds a key: one of them alone is the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_have_no_phantoms_over_two_hosts() {
    const ROUNDS: u32 = 30;
    let Some(database) = Database::new() else { return };
    let (one, two) = (Node::join(&database, "one").await, Node::join(&database, "two").await);
    shared(&[&one, &two]).await;
    let mut contended = 0;
    for round in 0..ROUNDS {
        let listed = |number: u32| {
            let prefix = format!("room-{round}/");
            let query = StateQuery { prefix: prefix.clone(), after: None, limit: 10 };
            let mut listed = change(&[], &[(&format!("{prefix}{number}"), "1")]);
            listed.lists = vec![StateList { query, keys: Vec::new() }];
            with(start(number), listed)
        };
        let appends: Vec<_> = [&one, &two]
            .into_iter()
            .flat_map(|node| {
                let numbers = node.numbers(1_000 * (round + 1)).take(3);
                numbers.map(|number| node.append(listed(number))).collect::<Vec<_>>()
            })
            .collect();
        let results = join_all(appends).await;
        let done = results.iter().filter(|result| matches!(result, Ok(Appended::Done { .. })));
        assert_eq!(done.count(), 1, "{results:?}");
        let changed =
            results.iter().filter(|result| matches!(result, Ok(Appended::StateChanged(0))));
        contended += changed.count();
    }
    assert_eq!(contended, 5 * ROUNDS as usize);
    for node in [one, two] {
        node.close().await;
    }
}

/// What every host writes, with conflict and retry: the stream of deploys, and a start key that two hosts see at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_streams_and_keys_have_one_winner() {
    const ROUNDS: u32 = 40;
    let Some(database) = Database::new() else { return };
    let (one, two) = (Node::join(&database, "one").await, Node::join(&database, "two").await);
    shared(&[&one, &two]).await;
    for round in 0..ROUNDS {
        let deploys = || Append {
            stream: Stream::Deploys,
            row: None,
            expected: Version(u64::from(round)),
            ..start(1)
        };
        let (first, second) = (one.append(deploys()), two.append(deploys()));
        // Others of the same batch are not refused with it.
        let others: Vec<_> = [&one, &two]
            .into_iter()
            .map(|node| node.append(start(node.numbers(1_000 * (round + 1)).next().unwrap())))
            .collect();
        let results = [first.await, second.await];
        let done = results.iter().filter(|result| matches!(result, Ok(Appended::Done { .. })));
        let lost =
            results.iter().filter(|result| matches!(result, Err(StoreError::Conflict { .. })));
        assert_eq!((done.count(), lost.count()), (1, 1), "{results:?}");
        for other in join_all(others).await {
            assert!(matches!(other, Ok(Appended::Done { .. })), "{other:?}");
        }
        let key = || StartKey {
            key: format!("key-{round}"),
            payload_digest: amends_engine::Digest::of(b"payload"),
        };
        let keyed = |node: &Node| {
            let number = node.numbers(100_000 + 1_000 * round).next().unwrap();
            node.append(Append { start_key: Some(key()), ..start(number) })
        };
        let results = join_all([keyed(&one), keyed(&two)]).await;
        let done = results.iter().filter(|result| matches!(result, Ok(Appended::Done { .. })));
        let known = results.iter().filter(|result| matches!(result, Ok(Appended::Duplicate(_))));
        assert_eq!((done.count(), known.count()), (1, 1), "{results:?}");
    }
    let deploys = whole_stream(&*two.store, Stream::Deploys).await;
    assert_eq!(deploys.len(), ROUNDS as usize);
    // A host that has written none of the last ones goes on from what the other wrote.
    let next = Append { stream: Stream::Deploys, row: None, events: vec![event(7)], ..then(1, 40) };
    two.append(next).await.unwrap();
    assert_eq!(one.store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    for node in [one, two] {
        node.close().await;
    }
}

/// Sagas of another host are archived, and what their owner appends at the same moment is in the store or refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archives_sagas_of_other_hosts_or_leaves_them() {
    const SAGAS: usize = 60;
    let Some(database) = Database::new() else { return };
    let (one, two) = (Node::join(&database, "one").await, Node::join(&database, "two").await);
    shared(&[&one, &two]).await;
    let (leader, other) = if leads(&*one.store) { (&one, &two) } else { (&two, &one) };
    let refused = other.store.archive().archive(Vec::new()).await;
    assert!(refused.is_err(), "{refused:?}");
    let numbers: Vec<_> = other.numbers(0).take(SAGAS).collect();
    let mut sagas = Vec::new();
    for number in &numbers {
        let mut append = start(*number);
        let row = append.row.as_mut().unwrap();
        (row.status, row.ended_at) = (amends_engine::SagaStatus::Completed, Some(at(*number)));
        other.append(append).await.unwrap();
        let (id, version) = (saga_id(*number), Version(1));
        sagas.push(amends_store::ToArchive { id, version, after: None, is_late: false });
    }
    // No folder: they are deleted, and leave their tombstones.
    let archiving = leader.store.archive().archive(sagas);
    let appending = async {
        let mut answers = Vec::new();
        for number in &numbers {
            answers.push(other.append(then(*number, 1)).await);
        }
        answers
    };
    let (archived, answers) = tokio::join!(archiving, appending);
    let archived = archived.unwrap();
    let mut stayed = 0;
    for (number, answer) in numbers.iter().zip(answers) {
        let is_archived = one.store.archive().tombstone(saga_id(*number)).await.unwrap().is_some();
        let events = whole_stream(&*one.store, Stream::Saga(saga_id(*number))).await.len();
        match answer {
            Ok(Appended::Done { .. }) => {
                assert!(!is_archived && events == 2, "{number}: {events}");
                stayed += 1;
            }
            Err(StoreError::Conflict { .. }) => assert!(is_archived && events == 0, "{number}"),
            other => panic!("{number}: {other:?}"),
        }
    }
    assert_eq!((archived.sagas, archived.changed), ((SAGAS - stayed) as u64, stayed as u64));
    assert_eq!(one.store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    for node in [one, two] {
        node.close().await;
    }
}
