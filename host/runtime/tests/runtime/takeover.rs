//! Another host takes the shards over, and a clock that is behind.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::{
    Call, Definition, Failure, Outcome, Payload, Saga, SagaStatus, StepKind, StepSpec, StepStatus,
    Timestamp, Verb, why,
};
use amends_runtime::{
    BreakerSettings, Faults, OnOpen, OperateError, RuntimeConfig, RuntimeError, StallReason,
    StartError, now,
};
use amends_sandbox::Answer;
use amends_store::conformance::whole_stream;
use amends_store::{Append, AppendReply, Appended, ShardId, Store, StoreError, Stream};
use amends_tests::{Behaviour, Component};
use futures::FutureExt as _;
use tokio::sync::Semaphore;

use crate::place::hooked::{Hooked, Next};
use crate::place::{
    Place, SOON, ada, definition, lists, order, request, start, step, until, until_some,
};

/// A store whose calls are held until there are permits, and how many calls have begun.
fn held(
    store: Arc<dyn Store>,
    hook: impl Fn(&Next, Append, AppendReply) + Send + Sync + 'static,
) -> (Arc<Hooked>, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (permits, begun) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut hooked = Hooked::new(store, hook);
    let (gate, count) = (Arc::clone(&permits), Arc::clone(&begun));
    hooked.before_list = Box::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            Ok(())
        }
        .boxed()
    });
    (Arc::new(hooked), permits, begun)
}

/// How far the clock of the host before was ahead.
const AHEAD: Duration = Duration::from_hours(1);

/// Appends as a host does whose clock is ahead.
fn ahead(next: &Next, append: Append, reply: AppendReply) {
    next.append_then(Append { at: append.at.after(AHEAD), ..append }, reply);
}

/// The new owner does not know what came of a call that the old one has in flight, as after a crash.
/// What the old one hears of it is recorded nowhere. The old one forgets its sagas without quarantine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_in_flight_at_a_takeover_is_unknown_to_the_new_owner() {
    let place = Place::new();
    place.write("test", &lists().build());
    let (store, permits, begun) = held(place.store(), Next::append_then);
    let older = place.run(store, vec![order()], RuntimeConfig::default()).await;
    let id = start(&older, "order").await;
    until("the call is in flight", || begun.load(Ordering::SeqCst) == 1).await;

    let store = place.take_over();
    let newer = place.run(Arc::clone(&store), vec![order()], RuntimeConfig::default()).await;
    let ended = newer.wait(id, SOON).await.unwrap().unwrap().saga;
    assert_eq!(ended.status(), SagaStatus::Completed, "{:?}", ended.reason());
    assert_eq!(ended.steps().next().unwrap().attempts, 2, "the first is unknown");
    let log = whole_stream(&*store, Stream::Saga(id)).await;

    permits.add_permits(1);
    until("the old owner has no saga", || older.live_bytes() == 0).await;
    assert_eq!(older.quarantined(), []);
    let refused = older.start(&ada(), request("order")).await;
    let is_lost = matches!(refused, Err(StartError::Store(StoreError::LostOwnership(_))));
    assert!(is_lost, "{refused:?}");
    older.operate(&ada(), id, Verb::Pause, "to see".to_owned()).await.unwrap_err();
    assert_eq!(whole_stream(&*store, Stream::Saga(id)).await, log);
    assert_eq!(older.stop(SOON).await, 0);
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
}

/// The answer to an append comes when the lease is over, and the lease is renewed later. Until then another host may
/// have the saga, so the call does not begin, and an order that changes nothing is not answered from memory.
#[tokio::test]
async fn nothing_is_done_from_memory_while_the_lease_is_over() {
    let place = Place::new();
    place.write("test", &lists().build());
    let (store, permits, begun) = held(place.store(), Next::append_then);
    permits.add_permits(1);
    let lease = Arc::clone(&store.lease);
    let host = place.run(store, vec![order()], RuntimeConfig::default()).await;
    lease.store(false, Ordering::SeqCst);
    let id = start(&host, "order").await;
    let waits = until_some("the call waits", || async {
        let state = host.state(id).await.unwrap().unwrap();
        state.stalls.first().map(ToString::to_string)
    });
    assert!(waits.await.contains("its lease is over"));
    host.operate(&ada(), id, Verb::Pause, "to see".to_owned()).await.unwrap();
    let again = host.operate(&ada(), id, Verb::Pause, "to see".to_owned()).await;
    assert!(again.is_err(), "{again:?}");
    host.operate(&ada(), id, Verb::Resume, "to see".to_owned()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(begun.load(Ordering::SeqCst), 0);

    lease.store(true, Ordering::SeqCst);
    let ended = host.wait(id, SOON).await.unwrap().unwrap().saga;
    assert_eq!(ended.status(), SagaStatus::Completed, "{:?}", ended.reason());
    assert_eq!(ended.steps().next().unwrap().attempts, 1);
    assert_eq!(begun.load(Ordering::SeqCst), 1);
}

/// The host before had a clock that was an hour ahead. Its saga goes on as fast as another one, and the
/// times in its log do not go back.
#[tokio::test]
async fn the_time_of_a_saga_does_not_go_back() {
    let place = Place::new();
    place.write("test", &lists().build());
    let (store, _permits, begun) = held(place.store(), ahead);
    let host = place.run(store.clone(), vec![order()], RuntimeConfig::default()).await;
    let id = start(&host, "order").await;
    until("the call is in flight", || begun.load(Ordering::SeqCst) == 1).await;
    host.stop(Duration::ZERO).await;
    store.close().await.unwrap();
    drop(host);

    let fails =
        Component { execute: Behaviour::Retryable, version: "2.0.0", ..Component::default() };
    place.write("test", &fails.build());
    let store = place.store();
    let host = place.run(Arc::clone(&store), vec![order()], RuntimeConfig::default()).await;
    let ended = host.wait(id, SOON).await.unwrap().unwrap().saga;
    assert!(ended.has_ended(), "{:?}", ended.status());
    let log = whole_stream(&*store, Stream::Saga(id)).await;
    assert!(log.len() > 4, "{log:?}");
    assert!(log.is_sorted_by_key(|event| event.at), "{log:?}");
    assert!(log.last().unwrap().at.since(log[0].at) < SOON);
}

/// The service behind every call: it fails once, and works from then on.
#[derive(Debug, Default)]
struct Carrier {
    called_at: Mutex<Vec<Timestamp>>,
}

impl Faults for Carrier {
    fn instead(&self, _: &Saga, _: &Call) -> Option<Outcome> {
        let mut called_at = self.called_at.lock().unwrap();
        called_at.push(now());
        Some(if called_at.len() == 1 {
            Outcome::Retryable(Failure::new("busy", "try later"))
        } else {
            Outcome::Succeeded(Payload::null())
        })
    }

    fn told(&self, _: &Saga, _: &Call, answer: &Answer) -> Outcome {
        answer.outcome.clone()
    }
}

/// The retry of the saga is due by its own time, which a reader compares it with. Its breaker stays open
/// by the time of the host.
#[tokio::test]
async fn a_saga_whose_time_is_ahead_waits_for_a_breaker_by_the_time_of_the_host() {
    const OPEN_FOR: Duration = Duration::from_secs(2);
    let place = Place::new();
    place.write("test", &lists().build());
    let carrier = "carrier".parse().unwrap();
    let kind = StepKind::Call {
        plugin: "test".parse().unwrap(),
        service: Some("carrier".parse().unwrap()),
    };
    let retry = order().steps()[0].retry.clone();
    let definitions = || -> Vec<Definition> {
        vec![definition(
            "order",
            vec![StepSpec { retry: retry.clone(), ..step("ship", kind.clone()) }],
        )]
    };
    let (store, _permits, begun) = held(place.store(), ahead);
    let host = place.run(store.clone(), definitions(), RuntimeConfig::default()).await;
    let id = start(&host, "order").await;
    until("the call is in flight", || begun.load(Ordering::SeqCst) == 1).await;
    host.stop(Duration::ZERO).await;
    store.close().await.unwrap();
    drop(host);

    let service = Arc::<Carrier>::default();
    let faults: Arc<dyn Faults> = Arc::<Carrier>::clone(&service);
    let settings = BreakerSettings {
        failures: Some(1),
        rate: None,
        open_for: OPEN_FOR,
        half_open: 1,
        on_open: OnOpen::Wait,
    };
    let breakers = BTreeMap::from([(carrier, settings)]);
    let config = RuntimeConfig { breakers, faults: Some(faults), ..RuntimeConfig::default() };
    let store = place.store();
    let host = place.run(Arc::clone(&store), definitions(), config).await;
    let (closes_at, state) = until_some("it waits for the breaker", || async {
        let state = host.state(id).await.unwrap().unwrap();
        let stall = state.stalls.first()?;
        let StallReason::BreakerOpen { until, .. } = stall.reason else { panic!("{stall}") };
        Some((until.unwrap(), state))
    })
    .await;
    assert!(closes_at.since(now()) <= OPEN_FOR, "{closes_at}");
    assert!(state.now.since(now()) + SOON > AHEAD, "{}", state.now);
    // By the clock of the host it would be due in an hour.
    let told = why(&state.saga, state.now);
    assert_eq!(told.next_at, None, "{}", told.sentence);
    assert!(told.sentence.contains("is due to be tried again"), "{}", told.sentence);

    let ended = host.wait(id, SOON).await.unwrap().unwrap();
    assert_eq!(ended.saga.status(), SagaStatus::Completed, "{:?}", ended.saga.reason());
    let called_at = service.called_at.lock().unwrap().clone();
    assert_eq!(called_at.len(), 2, "{called_at:?}");
    assert!(called_at[1] >= closes_at, "{called_at:?}: it is open until {closes_at}");
    let log = whole_stream(&*store, Stream::Saga(id)).await;
    let last_at = log.last().unwrap().at;
    assert!(ended.now >= last_at);
    assert!(host.state(id).await.unwrap().unwrap().now >= last_at, "as it is read from the store");
}

/// Answers of a store that were not told yet, and whom they are for.
type Answers = Vec<(Result<Appended, StoreError>, AppendReply)>;

/// A call and an append are under way when a shard is lost and gained again. Nothing of the saga as it was
/// before goes on: the call is unknown, as after a crash, and the answer of the append is no answer to
/// what the saga has appended since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_when_a_shard_is_lost_does_not_meet_it_when_it_is_gained_again() {
    for is_durable in [true, false] {
        let place = Place::new();
        place.write("test", &lists().build());
        let kept = Arc::<Mutex<Answers>>::default();
        let keeps_next = Arc::<AtomicBool>::default();
        let (keep, keeps) = (Arc::clone(&kept), Arc::clone(&keeps_next));
        let hook = move |next: &Next, append: Append, reply: AppendReply| {
            let Stream::Saga(id) = append.stream else { return next.append_then(append, reply) };
            if !keeps.swap(false, Ordering::SeqCst) {
                next.append_then(append, reply);
            } else if is_durable {
                let keep = Arc::clone(&keep);
                let answered = move |result| keep.lock().unwrap().push((result, reply));
                next.append_then(append, AppendReply::new(answered));
            } else {
                let lost = StoreError::LostOwnership(ShardId::of(id));
                keep.lock().unwrap().push((Err(lost), reply));
            }
        };
        let (store, permits, begun) = held(place.store(), hook);
        let regains = Arc::clone(&store.regains);
        let host = place.run(store.clone(), vec![order()], RuntimeConfig::default()).await;
        let id = start(&host, "order").await;
        until("the call is in flight", || begun.load(Ordering::SeqCst) == 1).await;

        keeps_next.store(true, Ordering::SeqCst);
        let note = |host: amends_runtime::Host| async move {
            host.operate(&ada(), id, Verb::Note, "to see".to_owned()).await
        };
        let ordered = tokio::spawn(note(host.clone()));
        until("its append is under way", || kept.lock().unwrap().len() == 1).await;
        regains.store(true, Ordering::SeqCst);
        until("it is called again", || begun.load(Ordering::SeqCst) == 2).await;

        let (result, reply) = kept.lock().unwrap().remove(0);
        reply.send(result);
        match ordered.await.unwrap() {
            Ok(state) if is_durable => assert_eq!(state.saga.id(), id),
            Err(OperateError::Runtime(RuntimeError::Store(StoreError::LostOwnership(_))))
                if !is_durable => {}
            other => panic!("{other:?}"),
        }
        // The first call comes back, and nobody waits for it.
        permits.add_permits(1);
        until("it is back", || permits.available_permits() == 0).await;
        let state = note(host.clone()).await.unwrap();
        let view = state.saga.steps().next().unwrap();
        assert_eq!((view.status, view.attempts), (StepStatus::Running, 2));
        permits.add_permits(1);
        let ended = host.wait(id, SOON).await.unwrap().unwrap().saga;
        assert_eq!(ended.status(), SagaStatus::Completed, "{:?}", ended.reason());
        let log = whole_stream(&*store, Stream::Saga(id)).await;
        let kinds = log.iter().map(|event| event.kind.as_str());
        let kinds: Vec<_> = kinds.filter(|kind| *kind != "operator.noted").collect();
        assert_eq!(
            kinds,
            [
                "saga.started",
                "step.started",
                "step.unknown",
                "step.started",
                "step.succeeded",
                "saga.completed"
            ]
        );
        assert_eq!(host.quarantined(), []);
        assert_eq!(host.stop(SOON).await, 0);
    }
}
