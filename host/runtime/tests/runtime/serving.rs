//! An undo whose component has to be looked for holds up no other saga.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amends_engine::{
    Definition, Digest, RetrySpec, SagaId, SagaStatus, StepKind, StepSpec, StepStatus, UndoSpec,
    Verb, Version, WaitSpec,
};
use amends_runtime::{Host, RuntimeConfig, Stall, StallReason, now};
use amends_store::{Append, BlobKind, NewEvent, PageBudget, Store, StoreError, Stream};
use amends_tests::Component;
use futures::FutureExt as _;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::place::hooked::Hooked;
use crate::place::{Place, SOON, ada, definition, start, step, until_some};

/// An order, and what belongs to another plugin, are answered within this.
const AT_ONCE: Duration = Duration::from_secs(5);

/// The component of a plugin; one whose schema is `{}` reads what any other answers.
fn component(
    name: &'static str,
    version: &'static str,
    schema: &'static str,
) -> Component<'static> {
    Component { name, version, schema, ..Component::default() }
}

fn step_after(name: &str, kind: StepKind, after: Option<&str>) -> StepSpec {
    let plugin = match &kind {
        StepKind::Call { plugin, .. } => Some(plugin.clone()),
        StepKind::Wait { .. } | StepKind::Sleep { .. } | StepKind::Saga { .. } => None,
    };
    let undo = |plugin| UndoSpec { plugin, timeout: SOON, retry: RetrySpec::default() };
    StepSpec {
        undo: plugin.map(|plugin| undo(Some(plugin))),
        after: after.into_iter().map(|before| before.parse().unwrap()).collect(),
        ..step(name, kind)
    }
}

/// `order` waits when plugin `test` has done its step; `other` is of plugin `other`.
fn definitions() -> Vec<Definition> {
    let call = |plugin: &str| StepKind::Call { plugin: plugin.parse().unwrap(), service: None };
    let wait = WaitSpec { signal: "approved".parse().unwrap(), timeout: None };
    let wait = StepKind::Wait { wait };
    let order =
        vec![step_after("ship", call("test"), None), step_after("wait", wait, Some("ship"))];
    let other = vec![step_after("step", call("other"), None)];
    vec![definition("order", order), definition("other", other)]
}

/// Has a component serve plugin `test`, as another host of the store would.
async fn activate(store: &Arc<dyn Store>, component: &Component<'_>) -> Digest {
    let bytes = component.build();
    let digest = Digest::of(&bytes);
    store.blobs().put(BlobKind::Component, "test".to_owned(), digest, now(), bytes).await.unwrap();
    let known =
        store.log().stream(Stream::Deploys, Version(0), PageBudget::items(100)).await.unwrap();
    let of_test = |event: &&amends_store::StoredEvent| event.data.contains(r#""plugin":"test""#);
    let last = known.iter().rfind(of_test).unwrap();
    let mut data: serde_json::Value = serde_json::from_str(&last.data).unwrap();
    data["components"][0]["digest"] = digest.to_string().into();
    data["components"][0]["version"] = component.version.into();
    let events = vec![NewEvent { kind: last.kind.clone().into(), data: data.to_string() }];
    let expected = known.last().unwrap().version;
    let append = Append::shared(Stream::Deploys, expected, now(), events);
    store.log().append_shared(append).await.unwrap();
    digest
}

/// A host of one worker, on which a saga is being undone whose step the first component executed. The
/// second serves, and the bytes of the first are not to be had without a permit.
struct Trial {
    host: Host,
    store: Arc<dyn Store>,
    first: Digest,
    permits: Arc<Semaphore>,
    /// Whether the bytes of the first cannot be read.
    is_unreadable: Arc<AtomicBool>,
    id: SagaId,
    place: Place,
}

impl Trial {
    async fn new() -> Self {
        let place = Place::new();
        let (store, first) = (place.store(), component("test", "1.0.0", "{}").build());
        place.write("test", &first);
        place.write("other", &component("other", "1.0.0", "{}").build());
        let config = || RuntimeConfig { workers: 1, ..RuntimeConfig::default() };
        let host = place.run(Arc::clone(&store), definitions(), config()).await;
        let id = start(&host, "order").await;
        until_some("the step is done", || async {
            let state = host.state(id).await.unwrap().unwrap();
            let status = state.saga.step(&"ship".parse().unwrap()).unwrap().status;
            (status == StepStatus::Succeeded).then_some(())
        })
        .await;
        host.stop(SOON).await;

        // It cannot read what the first one answered.
        let second = component("test", "2.0.0", r#"{"type":"string"}"#);
        activate(&store, &second).await;
        place.write("test", &second.build());
        let mut hooked = Hooked::new(Arc::clone(&store), |store, append, reply| {
            store.append_then(append, reply);
        });
        let (permits, first) = (Arc::new(Semaphore::new(0)), Digest::of(&first));
        let is_unreadable = Arc::new(AtomicBool::new(false));
        let (held, unreadable) = (Arc::clone(&permits), Arc::clone(&is_unreadable));
        hooked.before_blob = Box::new(move |digest| {
            let (held, unreadable) = (Arc::clone(&held), Arc::clone(&unreadable));
            async move {
                if digest == first {
                    held.acquire().await.unwrap().forget();
                    if unreadable.load(Ordering::SeqCst) {
                        return Err(StoreError::Invalid("as when no descriptor is left"));
                    }
                }
                Ok(())
            }
            .boxed()
        });
        let host = place.run(Arc::new(hooked), definitions(), config()).await;
        let ada = ada();
        let order = host.operate(&ada, id, Verb::Cancel, "sent back".to_owned());
        timeout(AT_ONCE, order).await.expect("the worker does not answer").unwrap();
        Self { host, store, first, permits, is_unreadable, id, place }
    }

    /// Which component undid the step.
    async fn undone_by(&self) -> Digest {
        let state = self.host.wait(self.id, SOON).await.unwrap().unwrap();
        assert_eq!(state.saga.status(), SagaStatus::Compensated, "{:?}", state.saga.reason());
        let log = self
            .store
            .log()
            .stream(Stream::Saga(self.id), Version(0), PageBudget::items(100))
            .await
            .unwrap();
        let started = log.iter().find(|event| event.kind == "undo.started").unwrap();
        let data: serde_json::Value = serde_json::from_str(&started.data).unwrap();
        data["digest"].as_str().unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn a_worker_does_not_wait_for_the_component_of_an_undo() {
    let trial = Trial::new().await;
    let host = &trial.host;
    let stalls = timeout(AT_ONCE, host.state(trial.id)).await.unwrap().unwrap().unwrap().stalls;
    let [Stall { reason: StallReason::ComponentSought(_), .. }] = stalls.as_slice() else {
        panic!("{stalls:?}");
    };
    let other = timeout(AT_ONCE, start(host, "other")).await.expect("the worker waits");
    let ended = host.wait(other, AT_ONCE).await.unwrap().unwrap();
    assert_eq!(ended.saga.status(), SagaStatus::Completed);
    trial.permits.add_permits(1);
    assert_eq!(trial.undone_by().await, trial.first);
}

/// What is active when it is asked for counts, not what was when the search began.
#[tokio::test]
async fn a_component_that_comes_to_serve_meanwhile_undoes_the_step() {
    let trial = Trial::new().await;
    let third = component("test", "3.0.0", "{}").build();
    trial.place.write("test", &third);
    assert_eq!(trial.undone_by().await, Digest::of(&third));
}

/// What the host cannot load for a moment is not passed over.
#[tokio::test]
async fn an_undo_waits_for_a_component_that_cannot_be_loaded_now() {
    let trial = Trial::new().await;
    trial.is_unreadable.store(true, Ordering::SeqCst);
    // Three searches fail.
    trial.permits.add_permits(3);
    until_some("they have failed", || async {
        (trial.permits.available_permits() == 0).then_some(())
    })
    .await;
    trial.is_unreadable.store(false, Ordering::SeqCst);
    trial.permits.add_permits(1);
    assert_eq!(trial.undone_by().await, trial.first);
}
