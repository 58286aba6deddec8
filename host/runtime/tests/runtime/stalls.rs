//! A saga that waits for several things goes on with each when that comes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use amends_engine::{
    BackoffSpec, Call, Definition, DefinitionSpec, Direction, Failure, Outcome, Payload, RetrySpec,
    Saga, SagaId, SagaStatus, ServiceName, StepKind, StepSpec, StepStatus,
};
use amends_runtime::{
    BreakerSettings, Faults, Host, OnOpen, RoomKey, RuntimeConfig, Stall, StallReason,
};
use amends_sandbox::Answer;
use amends_tests::{Behaviour, Component};
use futures::FutureExt as _;
use tokio::sync::Semaphore;

use crate::place::hooked::Hooked;
use crate::place::{Place, SOON, definition, lists, start, step, until, until_some};

/// The service behind the calls of plugin `test`: it works or it does not.
#[derive(Debug, Default)]
struct Carrier(AtomicBool);

impl Faults for Carrier {
    fn instead(&self, _: &Saga, call: &Call) -> Option<Outcome> {
        if call.service != Some(service("carrier")) {
            return None;
        }
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

fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

/// A step that comes after none. Those of plugin `spin` never end by themselves.
fn of_service(name: &str, plugin: &str, of: &str, attempts: u32) -> StepSpec {
    let plugin = plugin.parse().unwrap();
    let pauses = if attempts > 1 { vec![Duration::from_millis(10)] } else { Vec::new() };
    StepSpec {
        timeout: Duration::from_secs(2),
        retry: RetrySpec { attempts, backoff: BackoffSpec::Listed(pauses) },
        ..step(name, StepKind::Call { plugin, service: Some(service(of)) })
    }
}

fn definitions() -> Vec<Definition> {
    let hall = || of_service("a", "spin", "hall", 1);
    let carrier = || of_service("b", "test", "carrier", 1_000);
    let all = [
        ("hold", vec![hall()]),
        ("call", vec![carrier()]),
        ("both", vec![hall(), carrier()]),
        ("both-turned", vec![carrier(), hall()]),
    ];
    all.map(|(name, steps)| definition(name, steps)).into()
}

async fn host(place: &Place, carrier: &Arc<Carrier>, open_for: Duration) -> Host {
    place.write("spin", &Component { execute: Behaviour::Spin, ..named("spin") }.build());
    place.write("test", &named("test").build());
    let settings = BreakerSettings {
        failures: Some(1),
        rate: None,
        open_for,
        half_open: 1,
        on_open: OnOpen::Wait,
    };
    let faults: Arc<dyn Faults> = Arc::<Carrier>::clone(carrier);
    let config = RuntimeConfig {
        breakers: BTreeMap::from([(service("carrier"), settings)]),
        concurrency: BTreeMap::from([(service("hall"), 1)]),
        faults: Some(faults),
        ..RuntimeConfig::default()
    };
    place.run(place.store(), definitions(), config).await
}

fn named(name: &'static str) -> Component<'static> {
    Component { name, ..Component::default() }
}

async fn status(host: &Host, id: SagaId, step: &str) -> StepStatus {
    let state = host.state(id).await.unwrap().unwrap();
    state.saga.steps().find(|view| view.name.as_str() == step).unwrap().status
}

/// A saga of `definition`, when it waits for room and for the breaker.
async fn waiting(host: &Host, definition: &str) -> SagaId {
    start(host, "call").await;
    until("it opens", || host.breakers()[0].state == "open").await;
    let hold = start(host, "hold").await;
    until_some("the room is taken", || async {
        (status(host, hold, "a").await == StepStatus::Running).then_some(())
    })
    .await;
    let id = start(host, definition).await;
    until_some("it waits for both", || async {
        let stalls = host.state(id).await.unwrap().unwrap().stalls;
        let mut reasons = stalls.iter().map(|stall| &stall.reason);
        let room = reasons.clone().any(|reason| matches!(reason, StallReason::NoRoom(_)));
        let breaker = reasons.any(|reason| matches!(reason, StallReason::BreakerOpen { .. }));
        (room && breaker).then_some(())
    })
    .await;
    id
}

#[tokio::test]
async fn room_wakes_a_saga_that_waits_for_a_breaker_too() {
    for definition in ["both", "both-turned"] {
        let (place, carrier) = (Place::new(), Arc::<Carrier>::default());
        let host = host(&place, &carrier, Duration::from_hours(1)).await;
        let id = waiting(&host, definition).await;
        until_some("the call that has room begins", || async {
            (status(&host, id, "a").await != StepStatus::Pending).then_some(())
        })
        .await;
        assert_eq!(host.breakers()[0].state, "open", "{definition}");
        host.stop(Duration::ZERO).await;
    }
}

#[tokio::test]
async fn a_breaker_wakes_a_saga_that_waits_for_room_too() {
    for definition in ["both", "both-turned"] {
        let (place, carrier) = (Place::new(), Arc::<Carrier>::default());
        let host = host(&place, &carrier, Duration::from_secs(1)).await;
        let id = waiting(&host, definition).await;
        // Another one holds the room next, and so on: none is ever free for long.
        for _ in 0..20 {
            start(&host, "hold").await;
        }
        carrier.0.store(true, Ordering::SeqCst);
        until_some("the call of the service that is back ends", || async {
            (status(&host, id, "b").await == StepStatus::Succeeded).then_some(())
        })
        .await;
        host.stop(Duration::ZERO).await;
    }
}

/// Two calls of other sagas hold a room each, until there is a permit for them: the hall first.
#[tokio::test]
async fn each_step_waits_for_its_own_room_and_goes_on_alone() {
    let place = Place::new();
    place.write("held", &Component { name: "held", ..lists() }.build());
    place.write("test", &named("test").build());
    let (permits, held) = (Arc::new(Semaphore::new(0)), Arc::<AtomicUsize>::default());
    let mut store = Hooked::new(place.store(), |store, append, reply| {
        store.append_then(append, reply);
    });
    let (free, count) = (Arc::clone(&permits), Arc::clone(&held));
    store.before_list = Box::new(move || {
        let free = Arc::clone(&free);
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            free.acquire().await.unwrap().forget();
            Ok(())
        }
        .boxed()
    });
    let call = |name, plugin: &str, of| {
        let (plugin, service) = (plugin.parse().unwrap(), Some(service(of)));
        step(name, StepKind::Call { plugin, service })
    };
    let definitions = vec![
        definition("hold-hall", vec![call("hold", "held", "hall")]),
        definition("hold-yard", vec![call("hold", "held", "yard")]),
        definition(
            "order",
            vec![call("a", "test", "hall"), call("b", "test", "yard"), call("c", "test", "hall")],
        ),
    ];
    let config = RuntimeConfig {
        concurrency: BTreeMap::from([(service("hall"), 1), (service("yard"), 1)]),
        ..RuntimeConfig::default()
    };
    let host = place.run(Arc::new(store), definitions, config).await;
    start(&host, "hold-hall").await;
    until("the hall is taken", || held.load(Ordering::SeqCst) == 1).await;
    start(&host, "hold-yard").await;
    until("the yard is taken", || held.load(Ordering::SeqCst) == 2).await;

    let id = start(&host, "order").await;
    let stalls = async || host.state(id).await.unwrap().unwrap().stalls;
    let stall = |name: &str, of| Stall {
        step: name.parse().unwrap(),
        direction: Direction::Execute,
        reason: StallReason::NoRoom(RoomKey::Service(service(of))),
    };
    assert_eq!(stalls().await, [stall("a", "hall"), stall("b", "yard"), stall("c", "hall")]);

    permits.add_permits(1);
    until_some("those of the hall go on", || async {
        let (a, c) = (status(&host, id, "a").await, status(&host, id, "c").await);
        (a == StepStatus::Succeeded && c == StepStatus::Succeeded).then_some(())
    })
    .await;
    assert_eq!(status(&host, id, "b").await, StepStatus::Pending);
    assert_eq!(stalls().await, [stall("b", "yard")]);

    permits.add_permits(1);
    let state = host.wait(id, SOON).await.unwrap().unwrap();
    assert_eq!(state.saga.status(), SagaStatus::Completed);
    assert!(state.stalls.is_empty());
}

/// The service is away for longer than a saga has attempts: those of the breaker do not count.
#[tokio::test]
async fn tries_of_a_breaker_use_up_no_attempts() {
    let (place, carrier) = (Place::new(), Arc::<Carrier>::default());
    place.write("test", &named("test").build());
    let settings = BreakerSettings {
        failures: Some(2),
        rate: None,
        open_for: Duration::from_millis(50),
        half_open: 1,
        on_open: OnOpen::Wait,
    };
    let faults: Arc<dyn Faults> = Arc::<Carrier>::clone(&carrier);
    let config = RuntimeConfig {
        breakers: BTreeMap::from([(service("carrier"), settings)]),
        faults: Some(faults),
        ..RuntimeConfig::default()
    };
    let spec = DefinitionSpec {
        name: "call".parse().unwrap(),
        deadline: None,
        compensate_within: None,
        index: std::collections::BTreeMap::new(),
        subject: None,
        personal: Vec::new(),
        steps: vec![of_service("b", "test", "carrier", 3)],
    };
    let definitions = vec![Definition::new(spec).unwrap()];
    let host = place.run(place.store(), definitions, config).await;
    let id = start(&host, "call").await;
    let attempts = async || {
        let state = host.state(id).await.unwrap().unwrap();
        assert!(!state.saga.has_ended(), "{:?}", state.saga.reason());
        state.saga.steps().next().unwrap().attempts
    };
    until_some("it was tried more often than it has attempts", || async {
        (attempts().await >= 8).then_some(())
    })
    .await;
    carrier.0.store(true, Ordering::SeqCst);
    let state = host.wait(id, SOON).await.unwrap().unwrap();
    assert_eq!(state.saga.status(), SagaStatus::Completed);
}
