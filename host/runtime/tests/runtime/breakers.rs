//! Two hosts of one store share their circuit breakers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amends_engine::{
    BackoffSpec, Call, Definition, Failure, Outcome, Payload, RetrySpec, Saga, SagaId, SagaStatus,
    ServiceName, StepKind, StepSpec, Version,
};
use amends_runtime::{
    BreakerError, BreakerInfo, BreakerSettings, Faults, Host, OnOpen, RuntimeConfig, StallReason,
    StartError, now,
};
use amends_sandbox::Answer;
use amends_store::{
    Append, NewEvent, Obstacle, PageBudget, ShardId, ShardOwner, Store, StoreError, Stream,
};
use amends_tests::Component;

use crate::place::hooked::{Hooked, Next};
use crate::place::{Place, SOON, ada, definition, request, step, until, until_some};

/// Long enough that nothing is tried by itself.
const OPEN_FOR: Duration = Duration::from_hours(1);

/// The service behind every call: it works or it does not.
#[derive(Debug, Default)]
struct Service(AtomicBool);

impl Faults for Service {
    fn instead(&self, _: &Saga, _: &Call) -> Option<Outcome> {
        Some(if self.0.load(Ordering::SeqCst) {
            Outcome::Succeeded(Payload::null())
        } else {
            Outcome::Retryable(Failure::new("busy", "try later"))
        })
    }

    fn told(&self, _: &Saga, _: &Call, answer: &Answer) -> Outcome {
        answer.outcome.clone()
    }
}

fn carrier() -> ServiceName {
    "carrier".parse().unwrap()
}

/// `order` calls the service once, as often as it must.
fn order() -> Definition {
    let backoff = BackoffSpec::Listed(vec![Duration::from_millis(10)]);
    let retry = RetrySpec { attempts: 100, backoff };
    let call = StepKind::Call { plugin: "test".parse().unwrap(), service: Some(carrier()) };
    definition("order", vec![StepSpec { retry, ..step("ship", call) }])
}

fn breaker(host: &Host) -> BreakerInfo {
    host.breakers().remove(0)
}

#[tokio::test]
async fn what_opens_or_closes_for_one_host_does_for_the_other() {
    let place = Place::new();
    place.write("test", &Component::default().build());
    let (store, service) = (place.store(), Arc::new(Service::default()));
    let settings = BreakerSettings {
        failures: Some(3),
        rate: None,
        open_for: OPEN_FOR,
        half_open: 1,
        on_open: OnOpen::Wait,
    };
    let run = |owns: fn(ShardId) -> bool| {
        let mut part = Hooked::new(Arc::clone(&store), Next::append_then);
        let owner = move |shard| if owns(shard) { ShardOwner::This } else { ShardOwner::Nobody };
        part.owners = Box::new(owner);
        let faults: Arc<dyn Faults> = Arc::<Service>::clone(&service);
        let breakers = BTreeMap::from([(carrier(), settings)]);
        let config = RuntimeConfig { breakers, faults: Some(faults), ..RuntimeConfig::default() };
        place.run(Arc::new(part), vec![order()], config)
    };
    let one = run(|shard| shard.number().is_multiple_of(2)).await;
    let other = run(|shard| shard.number() % 2 == 1).await;

    let first = start_own(&one).await;
    until("it opens", || breaker(&one).state == "open").await;
    until("it is open for the other", || breaker(&other).state == "open").await;
    assert_eq!(breaker(&other), breaker(&one));
    assert_eq!(breaker(&other).last_error.as_deref(), Some("busy: try later"));

    // A saga of the other host waits for it, without an attempt.
    let second = start_own(&other).await;
    let stalled = until_some("it waits", || async {
        let state = other.state(second).await.unwrap().unwrap();
        state.stalls.into_iter().next().map(|stall| (stall, state.saga))
    });
    let (stall, saga) = stalled.await;
    assert!(matches!(stall.reason, StallReason::BreakerOpen { .. }), "{stall}");
    assert_eq!(saga.steps().next().unwrap().attempts, 0);

    // A third host closes it.
    service.0.store(true, Ordering::SeqCst);
    let stream = || Stream::Service(carrier());
    let known = store.log().stream(stream(), Version(0), PageBudget::items(10)).await.unwrap();
    let kinds: Vec<_> = known.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["breaker.opened"], "the other host wrote nothing");
    let closed = NewEvent { kind: "breaker.closed".into(), data: "{}".to_owned() };
    let append = Append::shared(stream(), known[0].version, now(), vec![closed]);
    store.log().append_shared(append).await.unwrap();
    for (host, id) in [(&one, first), (&other, second)] {
        let state = host.wait(id, SOON).await.unwrap().unwrap();
        assert_eq!(state.saga.status(), SagaStatus::Completed);
        assert_eq!((breaker(host).state, breaker(host).failures), ("closed", 0));
    }
}

/// Starts a saga whose shard the host owns.
async fn start_own(host: &Host) -> SagaId {
    loop {
        match host.start(&ada(), request("order")).await {
            Ok(started) => return started.id,
            Err(StartError::Store(StoreError::LostOwnership(_))) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// An operator is not told that it is done when it would be forgotten with the host.
#[tokio::test]
async fn an_order_that_cannot_be_written_says_so() {
    let place = Place::new();
    place.write("test", &Component::default().build());
    let is_full = Arc::new(AtomicBool::new(false));
    let full = Arc::clone(&is_full);
    let store: Arc<dyn Store> =
        Arc::new(Hooked::new(place.store(), move |store, append, reply| {
            if matches!(append.stream, Stream::Service(_)) && full.load(Ordering::SeqCst) {
                reply.send(Err(StoreError::unavailable(Obstacle::Full, "no room")));
            } else {
                store.append_then(append, reply);
            }
        }));
    let breakers = BTreeMap::from([(carrier(), BreakerSettings::BY_HAND)]);
    let config = RuntimeConfig { breakers, ..RuntimeConfig::default() };
    let host = place.run(Arc::clone(&store), vec![order()], config).await;
    is_full.store(true, Ordering::SeqCst);
    let order = host.open_breaker(&ada(), &carrier(), "it moves house".to_owned(), None).await;
    let refused = order.unwrap_err();
    assert!(
        matches!(refused, BreakerError::NotWritten(StoreError::Unavailable { .. })),
        "{refused}"
    );
    // It counts all the same, and is written when there is room.
    assert_eq!(breaker(&host).state, "open");
    let kinds = || async {
        let events = store
            .log()
            .stream(Stream::Service(carrier()), Version(0), PageBudget::items(10))
            .await
            .unwrap();
        events.into_iter().map(|event| event.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds().await, [""; 0]);
    is_full.store(false, Ordering::SeqCst);
    let closed =
        host.close_breaker(&ada(), &carrier(), "it is back".to_owned()).await.unwrap().unwrap();
    assert_eq!(closed.state, "closed");
    assert_eq!(
        kinds().await,
        ["breaker.opened", "breaker.closed"],
        "in the order in which they came"
    );
    let other = "other".parse().unwrap();
    assert!(host.open_breaker(&ada(), &other, "x".to_owned(), None).await.unwrap().is_none());
}
