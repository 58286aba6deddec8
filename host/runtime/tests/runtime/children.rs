//! What becomes of a saga that a step runs when its parent is undone before it is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use amends_engine::{
    Definition, Payload, RetrySpec, SagaId, SagaStatus, StepKind, StepSpec, UndoSpec, Verb,
    Version, WaitSpec,
};
use amends_runtime::{Host, RuntimeConfig};
use amends_store::{Append, AppendReply, Obstacle, Store, StoreError};
use tokio::sync::Semaphore;

use crate::place::hooked::{Hooked, Next};
use crate::place::{Place, SOON, ada, definition, start, step, until, until_some};

/// `parent` runs `child`, which waits for a signal that never comes.
fn definitions() -> Vec<Definition> {
    let undo = UndoSpec { plugin: None, timeout: SOON, retry: RetrySpec::default() };
    let child = StepKind::Saga { saga: "child".parse().unwrap() };
    let wait = WaitSpec { signal: "approved".parse().unwrap(), timeout: None };
    [("parent", child, Some(undo)), ("child", StepKind::Wait { wait }, None)]
        .map(|(name, kind, undo)| definition(name, vec![StepSpec { undo, ..step("step", kind) }]))
        .into()
}

/// What becomes of the append that starts a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Starts {
    /// It fails.
    Refused,
    /// It is done once there is a permit.
    Held,
    /// So it is, and then said to have failed.
    AnswerLost,
}

impl Starts {
    /// A store in which the start of a child goes like this once there is a permit, and is counted.
    fn on(self, store: Arc<dyn Store>, permits: Arc<Semaphore>, seen: Arc<AtomicUsize>) -> Hooked {
        let hook = move |store: &Next, append: Append, reply: AppendReply| {
            let row = append.row.as_ref().filter(|_| append.expected == Version(0));
            if row.is_none_or(|row| row.definition.as_str() != "child") {
                return store.append_then(append, reply);
            }
            let (store, permits) = (store.clone(), Arc::clone(&permits));
            seen.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let failed = Err(StoreError::unavailable(Obstacle::Database, "the disk is full"));
                if self == Self::Refused {
                    return reply.send(failed);
                }
                permits.acquire().await.unwrap().forget();
                let appended = store.append(append).await;
                reply.send(if self == Self::AnswerLost { failed } else { appended });
            });
        };
        Hooked::new(store, hook)
    }
}

/// A saga `parent` whose child is about to be started, and what a test has of it.
struct Trial {
    runtime: Host,
    store: Arc<dyn Store>,
    permits: Arc<Semaphore>,
    seen: Arc<AtomicUsize>,
    parent: SagaId,
    place: Place,
}

impl Trial {
    async fn new(starts: Starts) -> Self {
        let place = Place::new();
        let (permits, seen) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let store = place.store();
        let hooked = starts.on(Arc::clone(&store), Arc::clone(&permits), Arc::clone(&seen));
        let runtime = place.run(Arc::new(hooked), definitions(), RuntimeConfig::default()).await;
        let parent = start(&runtime, "parent").await;
        until("the child is being started", || seen.load(Ordering::SeqCst) > 0).await;
        Self { runtime, store, permits, seen, parent, place }
    }

    async fn cancel(&self) {
        let reason = "ordered twice".to_owned();
        self.runtime.operate(&ada(), self.parent, Verb::Cancel, reason).await.unwrap();
    }

    async fn ends(&self, id: SagaId) -> SagaStatus {
        self.runtime.wait(id, SOON).await.unwrap().unwrap().saga.status()
    }

    /// As the parent's log says.
    async fn child(&self) -> SagaId {
        let state = self.runtime.state(self.parent).await.unwrap().unwrap();
        state.saga.step(&"step".parse().unwrap()).unwrap().child.unwrap()
    }
}

#[tokio::test]
async fn a_child_that_was_never_started_is_not_started_for_a_parent_that_is_undone() {
    let trial = Trial::new(Starts::Refused).await;
    trial.cancel().await;
    assert_eq!(trial.ends(trial.parent).await, SagaStatus::Compensated);
    let seen = trial.seen.load(Ordering::SeqCst);
    assert_eq!(trial.store.sagas().row(trial.child().await).await.unwrap(), None);
    tokio::time::sleep(RETRY).await;
    assert_eq!(trial.seen.load(Ordering::SeqCst), seen, "nothing tries to start it any more");
}

#[tokio::test]
async fn a_child_whose_start_was_under_way_is_undone() {
    for starts in [Starts::Held, Starts::AnswerLost] {
        let trial = Trial::new(starts).await;
        trial.cancel().await;
        trial.permits.add_permits(1);
        assert_eq!(trial.ends(trial.parent).await, SagaStatus::Compensated, "{starts:?}");
        assert_eq!(trial.ends(trial.child().await).await, SagaStatus::Compensated, "{starts:?}");
    }
}

#[tokio::test]
async fn a_child_goes_on_whose_definition_is_no_longer_in_the_config() {
    let trial = Trial::new(Starts::Held).await;
    trial.permits.add_permits(1);
    let (runtime, child) = (&trial.runtime, trial.child().await);
    until_some("the child is there", || async { trial.store.sagas().row(child).await.unwrap() })
        .await;
    runtime.stop(SOON).await;
    let store = Arc::clone(&trial.store);
    let runtime = trial.place.run(store, Vec::new(), RuntimeConfig::default()).await;
    // What its parent's call would do is done by then.
    tokio::time::sleep(RETRY).await;
    let signal = "approved".parse().unwrap();
    runtime.signal(&ada(), child, signal, None, Payload::null()).await.unwrap();
    for id in [child, trial.parent] {
        let state = runtime.wait(id, SOON).await.unwrap().unwrap();
        assert_eq!(state.saga.status(), SagaStatus::Completed, "{:?}", state.saga.reason());
    }
}

/// The window of a definition is for operators.
#[tokio::test]
async fn a_child_is_undone_with_its_parent_after_its_own_window() {
    let mut definitions: Vec<_> =
        definitions().iter().map(|definition| definition.spec().clone()).collect();
    let go = WaitSpec { signal: "go".parse().unwrap(), timeout: None };
    let next = StepSpec {
        name: "next".parse().unwrap(),
        kind: StepKind::Wait { wait: go },
        after: vec!["step".parse().unwrap()],
        undo: None,
        ..definitions[0].steps[0].clone()
    };
    definitions[0].steps.push(next);
    definitions[1].compensate_within = Some(Duration::from_millis(1));
    let definitions = definitions.into_iter().map(|spec| Definition::new(spec).unwrap());
    let place = Place::new();
    let (store, config) = (place.store(), RuntimeConfig::default());
    let runtime = place.run(store, definitions.collect(), config).await;
    let parent = start(&runtime, "parent").await;
    let child = || async {
        let state = runtime.state(parent).await.unwrap().unwrap();
        state.saga.step(&"step".parse().unwrap()).unwrap().child
    };
    let child = until_some("the child is called", child).await;
    until_some("the child is there", || async { runtime.state(child).await.unwrap() }).await;
    let signal = "approved".parse().unwrap();
    runtime.signal(&ada(), child, signal, None, Payload::null()).await.unwrap();
    let ended = runtime.wait(child, SOON).await.unwrap().unwrap();
    assert_eq!(ended.saga.status(), SagaStatus::Completed);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let order = async |id, verb| runtime.operate(&ada(), id, verb, "a mistake".to_owned()).await;
    let refused = order(child, Verb::Compensate).await.unwrap_err();
    assert!(refused.to_string().contains("it could be compensated until"), "{refused}");
    order(parent, Verb::Cancel).await.unwrap();
    for id in [parent, child] {
        let state = runtime.wait(id, SOON).await.unwrap().unwrap();
        let status = runtime.state(id).await.unwrap().unwrap().saga.status();
        assert_eq!(status, SagaStatus::Compensated, "{:?}", state.saga.reason());
    }
}

/// Whoever starts a child tries again after a second.
const RETRY: Duration = Duration::from_millis(1_500);

/// A child that cannot be stepped does not hear that its parent is undone; it hears of it as soon as an
/// operator has it taken up again.
#[tokio::test]
async fn a_child_that_is_quarantined_is_undone_once_it_is_taken_up_again() {
    let place = Place::new();
    let refuses = Arc::new(AtomicBool::new(false));
    let once = Arc::clone(&refuses);
    let store = Hooked::new(place.store(), move |store: &Next, append, reply| {
        if once.swap(false, Ordering::SeqCst) {
            reply.send(Err(StoreError::Invalid("on purpose")));
        } else {
            store.append_then(append, reply);
        }
    });
    let config = RuntimeConfig::default();
    let runtime = place.run(Arc::new(store), definitions(), config).await;
    let parent = start(&runtime, "parent").await;
    let child = until_some("its child waits", async || {
        let saga = runtime.state(parent).await.unwrap()?.saga;
        let child = saga.step(&"step".parse().unwrap())?.child?;
        let status = runtime.state(child).await.unwrap()?.saga.status();
        (status == SagaStatus::Waiting).then_some(child)
    })
    .await;
    let order = async |id, verb| runtime.operate(&ada(), id, verb, "to see".to_owned()).await;
    refuses.store(true, Ordering::SeqCst);
    order(child, Verb::Pause).await.unwrap_err();
    until("the child is quarantined", || runtime.quarantine_reason(child).is_some()).await;
    order(parent, Verb::Cancel).await.unwrap();
    tokio::time::sleep(RETRY).await;
    let status = runtime.state(parent).await.unwrap().unwrap().saga.status();
    assert_eq!(status, SagaStatus::Compensating, "it waits for its child");
    order(child, Verb::Resume).await.unwrap();
    for id in [child, parent] {
        let ended = runtime.wait(id, SOON).await.unwrap().unwrap().saga;
        assert_eq!(ended.status(), SagaStatus::Compensated, "{:?}", ended.reason());
    }
}
