//! Sagas that wait for long leave memory, and come back when something happens to them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::{
    Definition, Payload, RetrySpec, SagaId, SagaStatus, Start, StepKind, StepSpec, Timestamp,
    UndoSpec, Verb, Version, WaitSpec,
};
use amends_runtime::{
    DeployError, DeployRequest, Host, OperateError, RuntimeConfig, RuntimeError, import, now,
};
use amends_store::conformance::whole_stream;
use amends_store::{OwnedShards, Store, StoreError, StoredEvent, Stream};
use amends_tests::Component;
use futures::future::join_all;

use crate::place::{Place, SOON, ada, definition, start, step, until, until_some};

/// Far longer than a saga waits in memory.
const LONG: Duration = Duration::from_hours(1);

fn wait(signal: &str) -> StepKind {
    StepKind::Wait { wait: WaitSpec { signal: signal.parse().unwrap(), timeout: None } }
}

fn after(name: &str, kind: StepKind, before: &str) -> StepSpec {
    StepSpec { after: vec![before.parse().unwrap()], ..step(name, kind) }
}

/// `gate` waits for a signal and then for another; `nap` sleeps for an hour; `order` calls plugin `test`
/// and then waits; `family` runs a `gate`.
fn definitions() -> Vec<Definition> {
    let call = StepKind::Call { plugin: "test".parse().unwrap(), service: None };
    let undo = UndoSpec {
        plugin: Some("test".parse().unwrap()),
        timeout: SOON,
        retry: RetrySpec::default(),
    };
    let gate = StepKind::Saga { saga: "gate".parse().unwrap() };
    vec![
        definition(
            "gate",
            vec![step("first", wait("first")), after("then", wait("then"), "first")],
        ),
        definition("nap", vec![step("nap", StepKind::Sleep { sleep: LONG })]),
        definition(
            "order",
            vec![
                StepSpec { undo: Some(undo), ..step("ship", call) },
                after("wait", wait("approved"), "ship"),
            ],
        ),
        definition("family", vec![step("gate", gate)]),
    ]
}

async fn run(place: &Place, store: &Arc<dyn Store>) -> Host {
    place.write("test", &Component::default().build());
    place.run(Arc::clone(store), definitions(), RuntimeConfig::default()).await
}

async fn signal(host: &Host, id: SagaId, name: &str, number: u32) -> Result<(), OperateError> {
    let number = Some(number.to_string());
    host.signal(&ada(), id, name.parse().unwrap(), number, Payload::null()).await.map(drop)
}

async fn order(host: &Host, id: SagaId, verb: Verb) -> SagaStatus {
    host.operate(&ada(), id, verb, "to see".to_owned()).await.unwrap().saga.status()
}

async fn memory_is_empty(host: &Host) {
    until("no saga is in memory", || host.live_bytes() == 0).await;
}

async fn ends(host: &Host, id: SagaId) -> SagaStatus {
    host.wait(id, SOON).await.unwrap().unwrap().saga.status()
}

/// Writes the log of a saga that began then, before a host runs.
async fn began(store: &Arc<dyn Store>, shards: &OwnedShards, name: &str, at: Timestamp) -> SagaId {
    let mut definitions = definitions().into_iter();
    let definition = definitions.find(|definition| definition.name().as_str() == name).unwrap();
    let definition = Arc::new(definition);
    let id = SagaId::from_parts(at, &[7, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let start = Start {
        id,
        definition: Arc::clone(&definition),
        input: Payload::null(),
        key: None,
        tags: std::collections::BTreeMap::new(),
        traceparent: None,
        start_at: None,
        parent: None,
        sealed_key: None,
        who: None,
        personal: Vec::new(),
    };
    let (_, events) = amends_engine::start(at, start);
    let stored = (1..).zip(events).map(|(version, event)| StoredEvent {
        position: amends_engine::Position(0),
        stream: Stream::Saga(id),
        version: Version(version),
        at,
        kind: event.kind().into_owned(),
        data: event.data(),
    });
    import(shards, id, definition, &stored.collect::<Vec<_>>()).await.unwrap();
    assert_eq!(store.sagas().row(id).await.unwrap().unwrap().status, SagaStatus::Waiting);
    id
}

#[tokio::test]
async fn signals_and_orders_bring_a_saga_back() {
    let place = Place::new();
    let store = place.store();
    let host = run(&place, &store).await;
    let id = start(&host, "gate").await;
    memory_is_empty(&host).await;
    let state = host.state(id).await.unwrap().unwrap();
    assert_eq!(state.saga.status(), SagaStatus::Waiting);
    memory_is_empty(&host).await;

    assert_eq!(order(&host, id, Verb::Pause).await, SagaStatus::Paused);
    assert!(host.live_bytes() > 0, "a paused saga stays");
    assert_eq!(order(&host, id, Verb::Resume).await, SagaStatus::Waiting);
    memory_is_empty(&host).await;
    // What is refused changes nothing, and the saga does not stay for it.
    let refused = host.operate(&ada(), id, Verb::Abandon, "to see".to_owned()).await;
    let is_refused = matches!(refused, Ok(_) | Err(OperateError::Refused(_)));
    assert!(is_refused, "{refused:?}");

    let id = start(&host, "gate").await;
    memory_is_empty(&host).await;
    // It is kept for the second step, and the saga goes on to wait for the first.
    signal(&host, id, "then", 1).await.unwrap();
    memory_is_empty(&host).await;
    signal(&host, id, "first", 2).await.unwrap();
    assert_eq!(ends(&host, id).await, SagaStatus::Completed);

    let id = start(&host, "gate").await;
    memory_is_empty(&host).await;
    order(&host, id, Verb::Cancel).await;
    assert_eq!(ends(&host, id).await, SagaStatus::Compensated);
    let nobody = SagaId::from_parts(now(), &[1; 10]);
    let refused = signal(&host, nobody, "first", 1).await;
    assert!(matches!(refused, Err(OperateError::NotFound(id)) if id == nobody), "{refused:?}");
    assert_eq!(host.wait(nobody, SOON).await.unwrap().map(|state| state.saga.id()), None);
    memory_is_empty(&host).await;
}

/// Who waits for it is told of its end, and it leaves memory again when they no longer wait.
#[tokio::test]
async fn a_saga_stays_in_memory_for_who_waits_for_it() {
    let place = Place::new();
    let store = place.store();
    let host = run(&place, &store).await;
    let [one, other] = [start(&host, "gate").await, start(&host, "gate").await];
    memory_is_empty(&host).await;
    let waits = {
        let host = host.clone();
        tokio::spawn(async move { ends(&host, one).await })
    };
    let short = host.wait(other, Duration::from_millis(100)).await.unwrap().unwrap();
    assert_eq!(short.saga.status(), SagaStatus::Waiting);
    until("they are in memory", || host.live_bytes() > 0).await;
    for name in ["first", "then"] {
        signal(&host, one, name, 1).await.unwrap();
    }
    assert_eq!(waits.await.unwrap(), SagaStatus::Completed);
    memory_is_empty(&host).await;
}

/// A child that waits stays with its parent, so that the parent hears of its end; also over a restart.
#[tokio::test]
async fn a_parent_hears_of_a_child_that_waits() {
    let place = Place::new();
    let store = place.store();
    let host = run(&place, &store).await;
    let parent = start(&host, "family").await;
    let child_of = async |host: &Host| {
        let saga = host.state(parent).await.unwrap()?.saga;
        let child = saga.step(&"gate".parse().unwrap())?.child?;
        let status = host.state(child).await.unwrap()?.saga.status();
        (status == SagaStatus::Waiting).then_some(child)
    };
    let child = until_some("its child waits", || child_of(&host)).await;
    signal(&host, child, "first", 1).await.unwrap();
    host.stop(SOON).await;
    let host = run(&place, &store).await;
    signal(&host, child, "then", 1).await.unwrap();
    assert_eq!(ends(&host, parent).await, SagaStatus::Completed);
    memory_is_empty(&host).await;
}

/// A host that starts reads none of the sagas that wait; the clock and signals find each.
#[tokio::test]
async fn a_host_starts_without_the_sagas_that_wait() {
    let place = Place::new();
    let store = place.store();
    let shards = OwnedShards::gain(store.ownership()).await.unwrap();
    let ago = |ago: Duration| Timestamp::from_millis(now().as_millis()).before(ago);
    let soon = Duration::from_secs(3);
    let overdue = began(&store, &shards, "nap", ago(LONG + LONG)).await;
    let due = began(&store, &shards, "nap", ago(LONG.saturating_sub(soon))).await;
    let later = began(&store, &shards, "nap", ago(LONG / 2)).await;
    let gate = began(&store, &shards, "gate", ago(LONG)).await;
    drop(shards);
    let host = run(&place, &store).await;
    for id in [overdue, due] {
        until_some("it ends", async || {
            let row = store.sagas().row(id).await.unwrap().unwrap();
            (row.status == SagaStatus::Completed).then_some(())
        })
        .await;
    }
    let row = store.sagas().row(due).await.unwrap().unwrap();
    assert!(row.ended_at.unwrap().since(row.started_at) >= LONG, "{row:?}");
    memory_is_empty(&host).await;
    for (name, number) in [("first", 1), ("then", 2)] {
        signal(&host, gate, name, number).await.unwrap();
    }
    assert_eq!(ends(&host, gate).await, SagaStatus::Completed);
    let state = host.state(later).await.unwrap().unwrap();
    assert_eq!(state.saga.status(), SagaStatus::Waiting);
    memory_is_empty(&host).await;
}

/// The clock of the host before was ahead by a day. Its saga waits for an hour from now at most, and not
/// for a day and an hour: so it is in memory, where its own time goes on.
#[tokio::test]
async fn a_saga_whose_time_is_ahead_is_in_memory() {
    let place = Place::new();
    let store = place.store();
    let shards = OwnedShards::gain(store.ownership()).await.unwrap();
    let ahead = now().after(Duration::from_hours(24));
    let id = began(&store, &shards, "nap", ahead).await;
    drop(shards);
    let host = run(&place, &store).await;
    until("it is in memory", || host.live_bytes() > 0).await;
    let state = host.state(id).await.unwrap().unwrap();
    assert!(state.now >= ahead, "{} {ahead}", state.now);
    // Longer than between two looks for sagas that may leave.
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(host.live_bytes() > 0, "it stays");
}

/// Many signals, orders and waits meet the sagas while they come and go: each is done once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_while_sagas_come_and_go_is_done_once() {
    const SAGAS: usize = 8;
    const SIGNALS: u32 = 60;
    let place = Place::new();
    let store = place.store();
    let host = run(&place, &store).await;
    let ids = join_all((0..SAGAS).map(|_| start(&host, "gate"))).await;
    memory_is_empty(&host).await;
    let signals = (0..SIGNALS).flat_map(|number| ids.iter().map(move |id| (*id, number)));
    let tasks = signals.map(|(id, number)| {
        let host = host.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(u64::from(number % 20))).await;
            // The same signal twice is one; somebody waits for a moment, and somebody looks.
            let (one, again) =
                (signal(&host, id, "then", number), signal(&host, id, "then", number));
            let (one, again) = futures::join!(one, again);
            one.unwrap();
            again.unwrap();
            host.wait(id, Duration::from_millis(1)).await.unwrap().unwrap();
            host.operate(&ada(), id, Verb::Note, number.to_string()).await.unwrap();
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(host.quarantined(), []);
    for id in ids {
        let log = whole_stream(&*store, Stream::Saga(id)).await;
        let count = |kind: &str| log.iter().filter(|event| event.kind == kind).count();
        assert_eq!(count("signal.received"), SIGNALS as usize);
        assert_eq!(count("operator.noted"), SIGNALS as usize);
        signal(&host, id, "first", SIGNALS).await.unwrap();
        assert_eq!(ends(&host, id).await, SagaStatus::Completed);
    }
    memory_is_empty(&host).await;
}

/// The new owner has the sagas that wait; the old one does nothing to them any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_host_takes_over_what_waits() {
    let place = Place::new();
    let older = run(&place, &place.store()).await;
    let id = start(&older, "gate").await;
    memory_is_empty(&older).await;
    let store = place.take_over();
    let newer = run(&place, &store).await;
    signal(&newer, id, "first", 1).await.unwrap();
    let refused = signal(&older, id, "then", 2).await;
    let is_lost = matches!(
        refused,
        Err(OperateError::Runtime(RuntimeError::Store(StoreError::LostOwnership(_))))
    );
    assert!(is_lost, "{refused:?}");
    assert_eq!(older.quarantined(), []);
    signal(&newer, id, "then", 2).await.unwrap();
    assert_eq!(ends(&newer, id).await, SagaStatus::Completed);
}

/// What a waiting saga has recorded counts for a deploy, and what it leaves counts as exposure.
#[tokio::test]
async fn a_deploy_looks_at_sagas_that_wait() {
    let place = Place::new();
    let store = place.store();
    let host = run(&place, &store).await;
    let id = start(&host, "order").await;
    until_some("it waits", async || {
        let row = store.sagas().row(id).await.unwrap().unwrap();
        (row.status == SagaStatus::Waiting).then_some(())
    })
    .await;
    memory_is_empty(&host).await;
    assert_eq!(host.exposure().await.unwrap().len(), 1);
    let picky =
        Component { schema: r#"{"type":"array"}"#, version: "2.0.0", ..Component::default() };
    let request = DeployRequest {
        components: vec![("test".parse().unwrap(), picky.build())],
        reason: None,
        is_forced: false,
        is_dry_run: false,
        canary: None,
    };
    let refused = host.deploy(&ada(), request).await;
    let Err(DeployError::Rejected { rejection, .. }) = refused else { panic!("{refused:?}") };
    assert!(rejection.to_string().contains(&id.to_string()), "{rejection}");
}

/// A waiting saga whose log is damaged stops no start, and is quarantined when somebody asks for it.
#[tokio::test]
async fn a_damaged_saga_that_waits_is_quarantined_when_it_is_read() {
    let place = Place::new();
    let store = place.store();
    let host = run(&place, &store).await;
    let [read, signalled] = [start(&host, "gate").await, start(&host, "gate").await];
    memory_is_empty(&host).await;
    host.close().await.unwrap();
    place.change("UPDATE appends SET events = '#' || events WHERE typeof(stream) = 'blob'");
    let store = place.store();
    let host = run(&place, &store).await;
    host.state(read).await.unwrap_err();
    let refused = signal(&host, signalled, "first", 1).await;
    assert!(matches!(refused, Err(OperateError::Quarantined(_))), "{refused:?}");
    let mut ids: Vec<_> = host.quarantined().into_iter().map(|one| one.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [read.min(signalled), read.max(signalled)]);
}

/// How much memory this process has.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// Half of the sagas wait for a signal, half for the clock. `AMENDS_WAITING_SAGAS` says how many; with
/// a million this takes minutes, and the times and sizes that it prints are a measurement:
///
/// ```text
/// AMENDS_WAITING_SAGAS=1000000 tests/run -p amends-runtime --test runtime sagas_that_wait -- --nocapture
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "it is there to print")]
async fn sagas_that_wait_take_no_memory_and_answer_after_a_restart() {
    const AT_ONCE: usize = 512;
    const SAGAS_MIN: usize = 4 * AT_ONCE;
    let sagas = std::env::var("AMENDS_WAITING_SAGAS").map_or(SAGAS_MIN, |n| n.parse().unwrap());
    assert!(sagas >= SAGAS_MIN, "at least {SAGAS_MIN}, to choose among them whom to signal");
    let timers = sagas.min(20 * AT_ONCE);
    let second = StepKind::Sleep { sleep: Duration::from_secs(1) };
    let all = || {
        let mut all = definitions();
        all.push(definition("second", vec![step("second", second.clone())]));
        all
    };
    let place = Place::new();
    place.write("test", &Component::default().build());
    let (store, config) = (place.store(), RuntimeConfig::default());
    place.run(Arc::clone(&store), all(), config.clone()).await.close().await.unwrap();
    drop(store);
    let began = Instant::now();
    let store = place.store();
    let host = place.run(Arc::clone(&store), all(), config.clone()).await;
    println!("ready after {:?} without any saga, {} MiB", began.elapsed(), resident_mib());
    let (began, mut gates) = (Instant::now(), Vec::new());
    for _ in 0..sagas / (2 * AT_ONCE) {
        let some = (0..2 * AT_ONCE)
            .map(|number| start(&host, if number % 2 == 0 { "gate" } else { "nap" }));
        gates.extend(join_all(some).await.into_iter().step_by(2));
    }
    println!("{sagas} started in {:?}, {} MiB", began.elapsed(), resident_mib());
    memory_is_empty(&host).await;
    println!("none is in memory, {} MiB", resident_mib());
    host.close().await.unwrap();
    drop(host);
    drop(store);

    let began = Instant::now();
    let store = place.store();
    println!("store opened after {:?}", began.elapsed());
    let host = place.run(Arc::clone(&store), all(), config).await;
    println!("ready after {:?}, {} MiB", began.elapsed(), resident_mib());
    let mut took = Vec::new();
    for id in gates.iter().step_by(gates.len() / 200) {
        let began = Instant::now();
        signal(&host, *id, "first", 1).await.unwrap();
        took.push(began.elapsed());
    }
    took.sort_unstable();
    println!("signal: p50 {:?}, longest {:?}", took[took.len() / 2], took[took.len() - 1]);
    let began = Instant::now();
    let naps = async {
        for _ in 0..timers / AT_ONCE {
            join_all((0..AT_ONCE).map(|_| start(&host, "second"))).await;
        }
    };
    naps.await;
    println!("timers of a second started in {:?}", began.elapsed());
    memory_is_empty(&host).await;
    println!("they have fired after {:?}, {} MiB", began.elapsed(), resident_mib());
    let began = Instant::now();
    assert!(host.exposure().await.unwrap().is_empty());
    println!("exposure of all in {:?}, {} MiB", began.elapsed(), resident_mib());
    assert_eq!(store.sagas().count_waiting().await.unwrap(), 2 * gates.len() as u64);
}
