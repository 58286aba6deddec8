//! Calls that are durable and could not begin, because their host lacked something.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amends_engine::{
    Definition, SagaId, SagaStatus, ServiceName, StepKind, StepStatus, Verb, Version,
};
use amends_runtime::{BreakerSettings, Host, OnOpen, RuntimeConfig, Stall, StallReason, now};
use amends_store::{Append, NewEvent, Obstacle, PageBudget, Store, StoreError, Stream};
use futures::FutureExt as _;
use serde_json::json;

use crate::place::hooked::{Hooked, Next};
use crate::place::{Place, SOON, ada, definition, lists, start, step, until, until_some};

/// Long enough that nothing is tried by itself.
const OPEN_FOR: Duration = Duration::from_hours(1);

/// A call that did not begin for what the machine lacks begins within this.
const TRIED_AGAIN: Duration = Duration::from_millis(700);

/// The store of a host, whose state cannot be read for as long as it is told so.
#[derive(Default)]
struct State {
    /// Calls that tried to begin.
    tried: AtomicUsize,
    /// How many of the next ones do not begin.
    fails: AtomicUsize,
}

impl State {
    fn on(self: &Arc<Self>, store: Arc<dyn Store>) -> Arc<dyn Store> {
        let this = Arc::clone(self);
        let hook = |store: &Next, append, reply| store.append_then(append, reply);
        let mut hooked = Hooked::new(store, hook);
        hooked.before_list = Box::new(move || {
            this.tried.fetch_add(1, Ordering::SeqCst);
            let left = |fails: usize| fails.checked_sub(1);
            let fails = this.fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok();
            let error = StoreError::unavailable(Obstacle::Database, "on purpose");
            async move { if fails { Err(error) } else { Ok(()) } }.boxed()
        });
        Arc::new(hooked)
    }

    fn tried(&self) -> usize {
        self.tried.load(Ordering::SeqCst)
    }

    fn fail(&self, times: usize) {
        self.fails.store(times, Ordering::SeqCst);
    }
}

fn carrier() -> ServiceName {
    "carrier".parse().unwrap()
}

/// `order` calls the service once.
fn order() -> Definition {
    let call = StepKind::Call { plugin: "test".parse().unwrap(), service: Some(carrier()) };
    definition("order", vec![step("ship", call)])
}

async fn host(place: &Place, store: &Arc<dyn Store>, on_open: OnOpen) -> Host {
    place.write("test", &lists().build());
    let settings = BreakerSettings {
        failures: Some(1),
        rate: None,
        open_for: OPEN_FOR,
        half_open: 1,
        on_open,
    };
    let breakers = BTreeMap::from([(carrier(), settings)]);
    let config = RuntimeConfig { breakers, ..RuntimeConfig::default() };
    place.run(Arc::clone(store), vec![order()], config).await
}

/// Opens the breaker as another host of the store would, or closes it.
async fn record(store: &Arc<dyn Store>, opened_for: Option<Duration>) {
    let stream = Stream::Service(carrier());
    let known =
        store.log().stream(stream.clone(), Version(0), PageBudget::items(10)).await.unwrap();
    let (kind, data) = match opened_for {
        Some(time) => {
            let until = now().after(time);
            let data = json!({"until": until, "failures": 1, "error": "busy: try later"});
            ("breaker.opened", data.to_string())
        }
        None => ("breaker.closed", "{}".to_owned()),
    };
    let expected = known.last().map_or(Version(0), |last| last.version);
    let events = vec![NewEvent { kind: kind.into(), data }];
    let append = Append::shared(stream, expected, now(), events);
    store.log().append_shared(append).await.unwrap();
}

async fn status(host: &Host, id: SagaId) -> StepStatus {
    host.state(id).await.unwrap().unwrap().saga.steps().next().unwrap().status
}

async fn ended(host: &Host, id: SagaId) -> SagaStatus {
    host.wait(id, SOON).await.unwrap().unwrap().saga.status()
}

/// A half-open breaker lets one call try, and that one does not begin: it, or a saga that waits for
/// the breaker, tries in its place, and what comes of that closes the breaker.
#[tokio::test]
async fn the_trial_of_a_call_that_did_not_begin_goes_to_another() {
    for sagas in [1, 2] {
        let (place, state) = (Place::new(), Arc::<State>::default());
        let store = state.on(place.store());
        record(&store, Some(Duration::from_millis(300))).await;
        let host = host(&place, &store, OnOpen::Wait).await;
        state.fail(1);
        let mut ids = Vec::new();
        for _ in 0..sagas {
            ids.push(start(&host, "order").await);
        }
        for id in ids {
            assert_eq!(ended(&host, id).await, SagaStatus::Completed, "{:?}", host.breakers());
        }
        assert_eq!(state.tried(), sagas + 1);
        assert_eq!(host.breakers()[0].state, "closed");
    }
}

/// As a call does that has not been started.
#[tokio::test]
async fn a_call_that_did_not_begin_meets_the_breaker_when_it_begins() {
    for on_open in [OnOpen::Wait, OnOpen::Fail] {
        let (place, state) = (Place::new(), Arc::<State>::default());
        let store = state.on(place.store());
        let host = host(&place, &store, on_open).await;
        state.fail(usize::MAX);
        let id = start(&host, "order").await;
        until("it is tried", || state.tried() > 0).await;
        record(&store, Some(OPEN_FOR)).await;
        until("the breaker is open", || host.breakers()[0].state == "open").await;
        if on_open == OnOpen::Fail {
            let saga = host.wait(id, SOON).await.unwrap().unwrap().saga;
            assert_eq!(saga.status(), SagaStatus::Compensated, "{:?}", saga.reason());
            assert!(saga.reason().unwrap().contains("breaker_open"), "{:?}", saga.reason());
            continue;
        }
        until_some("it waits for the breaker", || async {
            let stalls = host.state(id).await.unwrap().unwrap().stalls;
            let is_open = |stall: &Stall| matches!(stall.reason, StallReason::BreakerOpen { .. });
            stalls.iter().any(is_open).then_some(())
        })
        .await;
        state.fail(0);
        let tried = state.tried();
        tokio::time::sleep(TRIED_AGAIN).await;
        assert_eq!(state.tried(), tried, "it began while the breaker is open");
        record(&store, None).await;
        assert_eq!(ended(&host, id).await, SagaStatus::Completed);
    }
}

/// Between the orders to pause and to resume no call begins, also none that is durable already.
#[tokio::test]
async fn a_call_that_did_not_begin_is_held_while_its_saga_is_paused() {
    let (place, state) = (Place::new(), Arc::<State>::default());
    let store = state.on(place.store());
    let host = host(&place, &store, OnOpen::Wait).await;
    state.fail(usize::MAX);
    let id = start(&host, "order").await;
    until("it is tried", || state.tried() > 0).await;
    let order = async |verb| {
        let reason = "the carrier asks for it".to_owned();
        host.operate(&ada(), id, verb, reason).await.unwrap();
    };
    order(Verb::Pause).await;
    // One that was under way by then is over.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let tried = state.tried();
    state.fail(0);
    tokio::time::sleep(2 * TRIED_AGAIN).await;
    assert_eq!(state.tried(), tried, "it began while its saga is paused");
    assert_eq!(status(&host, id).await, StepStatus::Running);
    order(Verb::Resume).await;
    assert_eq!(ended(&host, id).await, SagaStatus::Completed);
    assert_eq!(state.tried(), tried + 1);
}
