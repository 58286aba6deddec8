//! What a host holds is bounded in bytes, and what must go on is never refused for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use amends_engine::{
    Definition, Payload, SagaId, SagaStatus, Start, StepKind, StepSpec, Verb, Version, WaitSpec,
};
use amends_runtime::{
    Host, OperateError, RuntimeConfig, STARTS_WAITING_MAX, StartError, StartRequest, import,
};
use amends_store::{
    APPENDS_WAITING_MAX, Append, AppendReply, OwnedShards, Store, StoredEvent, Stream,
};
use futures::future::join_all;

use crate::place::hooked::{Hooked, Next};
use crate::place::{Place, SOON, ada, definition, step, until, until_some};

const MIB: usize = 1 << 20;

/// What a payload has at most, and room for what is around it in the input of a step.
const LARGE: usize = MIB - 1_000;

fn step_after(name: &str, after: Option<&str>, kind: StepKind) -> StepSpec {
    let after = after.into_iter().map(|before| before.parse().unwrap()).collect();
    StepSpec { after, ..step(name, kind) }
}

/// As long as a saga may wait and stays in memory, nearly.
const NEAR: Duration = Duration::from_secs(29);

/// `family` sleeps and then runs `child`, which sleeps; `gate` waits for two signals, and `near` does
/// so in memory.
fn definitions() -> Vec<Definition> {
    let sleep = || StepKind::Sleep { sleep: Duration::from_millis(1) };
    let wait = |signal: &str, timeout| StepKind::Wait {
        wait: WaitSpec { signal: signal.parse().unwrap(), timeout },
    };
    let gate = |timeout| {
        vec![
            step_after("first", None, wait("first", timeout)),
            step_after("then", Some("first"), wait("then", timeout)),
        ]
    };
    let child = StepKind::Saga { saga: "child".parse().unwrap() };
    [
        ("family", vec![step_after("nap", None, sleep()), step_after("child", Some("nap"), child)]),
        ("child", vec![step_after("nap", None, sleep())]),
        ("gate", gate(None)),
        ("near", gate(Some(NEAR))),
    ]
    .map(|(name, steps)| definition(name, steps))
    .into()
}

fn text(bytes: usize) -> Payload {
    Payload::parse(&format!("\"{}\"", "x".repeat(bytes - 2))).unwrap()
}

async fn start(runtime: &Host, input: Payload) -> Result<SagaId, StartError> {
    start_of("gate", runtime, input).await
}

async fn start_near(runtime: &Host, input: Payload) -> Result<SagaId, StartError> {
    start_of("near", runtime, input).await
}

async fn start_of(definition: &str, runtime: &Host, input: Payload) -> Result<SagaId, StartError> {
    let request = StartRequest {
        definition: definition.to_owned(),
        input,
        key: None,
        tags: BTreeMap::new(),
        traceparent: None,
        start_at: None,
    };
    Ok(runtime.start(&ada(), request).await?.id)
}

async fn signal(
    runtime: &Host,
    id: SagaId,
    name: &str,
    signal_id: &str,
    payload: Payload,
) -> Result<(), OperateError> {
    let signal_id = Some(signal_id.to_owned());
    runtime.signal(&ada(), id, name.parse().unwrap(), signal_id, payload).await.map(drop)
}

async fn cancel(runtime: &Host, id: SagaId) -> Result<(), OperateError> {
    runtime.operate(&ada(), id, Verb::Cancel, "ordered twice".to_owned()).await.map(drop)
}

fn limited(live_bytes_max: usize) -> RuntimeConfig {
    RuntimeConfig { live_bytes_max, ..RuntimeConfig::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parents_whose_children_find_no_room_end() {
    const PARENTS: u64 = 5_000;
    const AT_ONCE: u64 = 500;
    let place = Place::new();
    let store = place.store();
    let definitions_of_logs: Vec<Arc<Definition>> =
        definitions().into_iter().map(Arc::new).collect();
    // They began a minute ago, and their host died before their sleep was over.
    let at = amends_engine::Timestamp::from_millis(amends_runtime::now().as_millis() - 60_000);
    let shards = OwnedShards::gain(store.ownership()).await.unwrap();
    for chunk in 0..PARENTS / AT_ONCE {
        let imports = (0..AT_ONCE).map(|number| {
            let mut random = [0; 10];
            let number = chunk * AT_ONCE + number;
            random[2..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            let start = Start {
                id: SagaId::from_parts(at, &random),
                definition: Arc::clone(&definitions_of_logs[0]),
                input: Payload::null(),
                key: None,
                tags: BTreeMap::new(),
                traceparent: None,
                start_at: None,
                parent: None,
                sealed_key: None,
                who: None,
                personal: Vec::new(),
            };
            let (saga, events) = amends_engine::start(at, start);
            let stored = (1..).zip(events).map(|(version, event)| StoredEvent {
                position: amends_engine::Position(0),
                stream: Stream::Saga(saga.id()),
                version: Version(version),
                at,
                kind: event.kind().into_owned(),
                data: event.data(),
            });
            let log: Vec<_> = stored.collect();
            let (shards, definition) = (&shards, Arc::clone(saga.definition()));
            async move { import(shards, saga.id(), definition, &log).await.unwrap() }
        });
        join_all(imports).await;
    }
    drop(shards);
    // A megabyte, of which the parents alone have many times as much.
    let runtime = place.run(Arc::clone(&store), definitions(), limited(MIB)).await;
    let refused =
        until_some("the host is full", async || start(&runtime, Payload::null()).await.err());
    let refused = refused.await;
    assert!(matches!(refused, StartError::Overloaded(_)), "{refused:?}");
    let began = Instant::now();
    loop {
        let counts = store.sagas().counts().await.unwrap();
        if counts.get(&SagaStatus::Completed) == Some(&(2 * PARENTS)) {
            break;
        }
        assert!(began.elapsed() < Duration::from_mins(9), "they do not end: {counts:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    until("nothing is held for sagas that have ended", || runtime.live_bytes() == 0).await;
    start(&runtime, Payload::null()).await.unwrap();
}

#[tokio::test]
async fn live_sagas_hold_no_more_bytes_than_they_may() {
    let place = Place::new();
    let store = place.store();
    let runtime = place.run(Arc::clone(&store), definitions(), limited(8 * MIB)).await;
    let mut live = Vec::new();
    let refused = loop {
        match start_near(&runtime, text(LARGE)).await {
            Ok(id) => live.push(id),
            Err(error) => break error,
        }
        assert!(runtime.live_bytes() <= 8 * MIB, "{}", runtime.live_bytes());
        assert!(live.len() < 100, "there is no end of room");
    };
    assert!(matches!(refused, StartError::Overloaded(_)), "{refused:?}");
    assert!(live.len() >= 6, "{}", live.len());
    // A start needs room for its event as well, so there may be room for a signal yet.
    let mut signals = 0;
    let refused = loop {
        match signal(&runtime, live[0], "then", &signals.to_string(), text(LARGE)).await {
            Ok(()) => signals += 1,
            Err(error) => break error,
        }
        assert!(signals < 3 && runtime.live_bytes() <= 8 * MIB, "{}", runtime.live_bytes());
    };
    assert!(matches!(refused, OperateError::Overloaded(_)), "{refused:?}");
    // What is small has room, and so has what gives room back: the first has both of its signals
    // and completes.
    signal(&runtime, live[0], "first", "0", Payload::null()).await.unwrap();
    for id in live.into_iter().skip(1) {
        cancel(&runtime, id).await.unwrap();
    }
    until("all is given back", || runtime.live_bytes() == 0).await;
    start_near(&runtime, text(LARGE)).await.unwrap();
}

/// Nothing but signals lets go of what waiting sagas hold.
#[tokio::test]
async fn a_host_that_is_full_of_waiting_sagas_takes_what_they_wait_for() {
    let place = Place::new();
    let store = place.store();
    let runtime = place.run(Arc::clone(&store), definitions(), limited(MIB)).await;
    let mut live = Vec::new();
    while runtime.live_bytes() <= MIB {
        match start_near(&runtime, Payload::null()).await {
            Ok(id) => live.push(id),
            Err(_) if live.len() > 10 => break,
            Err(error) => panic!("{error}"),
        }
    }
    let refused = signal(&runtime, live[0], "then", "0", text(LARGE)).await;
    assert!(
        matches!(refused, Err(OperateError::Overloaded(_))),
        "nobody waits for it: {refused:?}"
    );
    // They wait for no longer than `NEAR`, and a slow disk does not take a large payload for each by then.
    let others = live.split_off(16.min(live.len()));
    for id in live {
        signal(&runtime, id, "first", "0", text(LARGE)).await.unwrap();
        signal(&runtime, id, "then", "0", Payload::null()).await.unwrap();
        let ended = runtime.wait(id, SOON).await.unwrap().unwrap();
        assert_eq!(ended.saga.status(), SagaStatus::Completed);
    }
    for id in others {
        cancel(&runtime, id).await.unwrap();
    }
    until("all is given back", || runtime.live_bytes() == 0).await;
}

#[tokio::test]
async fn signals_of_one_saga_are_limited_in_bytes_and_counted_as_its_log_has_them() {
    let place = Place::new();
    let store = place.store();
    let runtime = place.run(Arc::clone(&store), definitions(), RuntimeConfig::default()).await;
    let ids = [
        start_near(&runtime, text(10_000)).await.unwrap(),
        start_near(&runtime, text(2)).await.unwrap(),
    ];
    for number in 0..8 {
        signal(&runtime, ids[0], "then", &number.to_string(), text(LARGE)).await.unwrap();
    }
    let refused = signal(&runtime, ids[0], "then", "8", text(LARGE)).await;
    assert!(matches!(refused, Err(OperateError::Overloaded(_))), "{refused:?}");
    // One that came before is taken, and does nothing.
    signal(&runtime, ids[0], "then", "3", text(LARGE)).await.unwrap();
    // The other saga has room of its own.
    signal(&runtime, ids[1], "then", "1", text(LARGE)).await.unwrap();
    let before = runtime.live_bytes();
    assert!(before > 9 * LARGE && before < 9 * MIB + 50_000, "{before}");
    runtime.stop(SOON).await;

    let runtime = place.run(Arc::clone(&store), definitions(), RuntimeConfig::default()).await;
    // Somebody waits for them, so they are read.
    let waits = ids.map(|id| {
        let runtime = runtime.clone();
        tokio::spawn(async move { runtime.wait(id, SOON).await.unwrap().unwrap() })
    });
    until("both are read", || runtime.live_bytes() >= before).await;
    assert_eq!(runtime.live_bytes(), before, "counted anew it is the same");
    for id in ids {
        signal(&runtime, id, "first", "0", Payload::null()).await.unwrap();
    }
    for ended in join_all(waits).await {
        assert_eq!(ended.unwrap().saga.status(), SagaStatus::Completed);
    }
    until("all is given back", || runtime.live_bytes() == 0).await;
}

/// A store whose disk stalls while it is told to: it keeps what is handed in.
#[derive(Clone, Default)]
struct Stall {
    is_stalled: Arc<AtomicBool>,
    kept: Arc<Mutex<Vec<(Next, Append, AppendReply)>>>,
}

impl Stall {
    fn on(&self, store: Arc<dyn Store>) -> Hooked {
        let stall = self.clone();
        let hook = move |store: &Next, append: Append, reply: AppendReply| {
            if stall.is_stalled.load(Ordering::SeqCst) {
                stall.kept.lock().unwrap().push((store.clone(), append, reply));
            } else {
                store.append_then(append, reply);
            }
        };
        Hooked::new(store, hook)
    }

    fn begin(&self) {
        self.is_stalled.store(true, Ordering::SeqCst);
    }

    fn end(&self) {
        self.is_stalled.store(false, Ordering::SeqCst);
        for (store, append, reply) in std::mem::take(&mut *self.kept.lock().unwrap()) {
            store.append_then(append, reply);
        }
    }

    fn kept_starts(&self) -> usize {
        let kept = self.kept.lock().unwrap();
        kept.iter().filter(|(_, append, _)| append.expected == Version(0)).count()
    }

    fn kept(&self) -> (usize, usize) {
        let kept = self.kept.lock().unwrap();
        (kept.len(), kept.iter().map(|(_, append, _)| append.bytes()).sum())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_disk_makes_no_memory_grow_and_holds_up_no_order_for_ever() {
    const BUDGET: usize = 32 * MIB;
    const STARTS: usize = 64;
    let place = Place::new();
    let (store, stall) = (place.store(), Stall::default());
    let hooked = Arc::new(stall.on(Arc::clone(&store)));
    let runtime = place.run(hooked, definitions(), limited(BUDGET)).await;
    let waiting: Vec<_> = join_all((0..100).map(|_| start(&runtime, text(1_000)))).await;
    let waiting: Vec<_> = waiting.into_iter().map(Result::unwrap).collect();

    stall.begin();
    let starts: Vec<_> = (0..STARTS)
        .map(|_| {
            let runtime = runtime.clone();
            tokio::spawn(async move { start(&runtime, text(LARGE)).await })
        })
        .collect();
    let orders: Vec<_> = waiting
        .iter()
        .map(|id| {
            let (runtime, id) = (runtime.clone(), *id);
            tokio::spawn(async move { cancel(&runtime, id).await })
        })
        .collect();
    let refused = |starts: &[tokio::task::JoinHandle<_>]| {
        starts.iter().filter(|start| start.is_finished()).count()
    };
    until("each start is refused, or is with the store", || {
        refused(&starts) + stall.kept_starts() == STARTS
    })
    .await;
    let (_, bytes) = stall.kept();
    assert!(bytes <= BUDGET && runtime.live_bytes() <= BUDGET, "{bytes} {}", runtime.live_bytes());
    let refused_now = refused(&starts);
    assert!(refused_now < STARTS - 6, "there is room for some: {refused_now}");

    stall.end();
    let starts = join_all(starts).await.into_iter().map(Result::unwrap);
    let (started, refused): (Vec<_>, Vec<_>) = starts.partition(Result::is_ok);
    assert_eq!(refused.len(), refused_now);
    for error in refused {
        assert!(matches!(error, Err(StartError::Overloaded(_))), "{error:?}");
    }
    for order in join_all(orders).await {
        order.unwrap().unwrap();
    }
    for id in started.into_iter().map(Result::unwrap) {
        cancel(&runtime, id).await.unwrap();
    }
    until("all is given back", || runtime.live_bytes() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_disk_is_given_only_so_many_appends() {
    const SAGAS: usize = 2 * (APPENDS_WAITING_MAX + STARTS_WAITING_MAX);
    let place = Place::new();
    let (store, stall) = (place.store(), Stall::default());
    let hooked = Arc::new(stall.on(Arc::clone(&store)));
    let runtime = place.run(hooked, definitions(), RuntimeConfig::default()).await;
    let mut live = Vec::new();
    while live.len() < SAGAS {
        let some = join_all((0..256).map(|_| start(&runtime, Payload::null()))).await;
        live.extend(some.into_iter().map(Result::unwrap));
    }

    stall.begin();
    // Something happens to each of them at once.
    let orders: Vec<_> = live
        .iter()
        .map(|id| {
            let (runtime, id) = (runtime.clone(), *id);
            tokio::spawn(async move { cancel(&runtime, id).await })
        })
        .collect();
    until("the store has as many as it is given", || stall.kept().0 > APPENDS_WAITING_MAX / 2)
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(stall.kept().0 <= APPENDS_WAITING_MAX, "{}", stall.kept().0);
    // New ones wait outside, and are refused when those are too many.
    let starts: Vec<_> = (0..2 * STARTS_WAITING_MAX)
        .map(|_| {
            let runtime = runtime.clone();
            tokio::spawn(async move { start(&runtime, Payload::null()).await })
        })
        .collect();
    until("some are refused", || starts.iter().any(tokio::task::JoinHandle::is_finished)).await;
    assert!(stall.kept().0 <= APPENDS_WAITING_MAX, "{}", stall.kept().0);

    stall.end();
    for order in join_all(orders).await {
        order.unwrap().unwrap();
    }
    let starts: Vec<_> = join_all(starts).await.into_iter().map(Result::unwrap).collect();
    assert!(starts.iter().filter(|start| start.is_ok()).count() >= STARTS_WAITING_MAX / 2);
    for start in starts {
        assert!(matches!(start, Ok(_) | Err(StartError::Overloaded(_))), "{start:?}");
    }
}
