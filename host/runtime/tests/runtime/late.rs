//! Calls whose answer is not taken as it comes: their saga waits for another one, or what they saw has
//! changed meanwhile.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use amends_engine::{
    BackoffSpec, RetrySpec, SagaStatus, StateChange, StepKind, StepSpec, StepStatus, UndoSpec, Verb,
};
use amends_runtime::RuntimeConfig;
use amends_store::{Append, Appended, Obstacle, StoreError};
use futures::FutureExt as _;
use tokio::sync::{Barrier, Semaphore};

use amends_tests::{Behaviour, Component};

use crate::place::hooked::Hooked;
use crate::place::{Place, SOON, ada, definition, lists, order, start, step, until};

/// The calls of a host, which are held one by one.
#[derive(Default)]
struct Calls {
    begun: AtomicUsize,
    first: Gate,
    others: Gate,
}

/// Nobody passes without a permit.
struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

/// The first call of a saga is under way while the saga is quarantined, taken up again and called a
/// second time: what comes of the first, or that it did not begin, is nothing to the second.
#[tokio::test]
async fn a_call_from_before_a_quarantine_has_no_other_made_twice() {
    for begins in [true, false] {
        let (place, calls) = (Place::new(), Arc::new(Calls::default()));
        place.write("test", &lists().build());
        let refuses = Arc::new(AtomicBool::new(false));
        let once = Arc::clone(&refuses);
        let mut store = Hooked::new(place.store(), move |store, append, reply| {
            if once.swap(false, Ordering::SeqCst) {
                reply.send(Err(StoreError::Invalid("on purpose")));
            } else {
                store.append_then(append, reply);
            }
        });
        let held = Arc::clone(&calls);
        store.before_list = Box::new(move || {
            let calls = Arc::clone(&held);
            let is_first = calls.begun.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                let gate = if is_first { &calls.first } else { &calls.others };
                gate.0.acquire().await.unwrap().forget();
                let fails = StoreError::unavailable(Obstacle::Database, "on purpose");
                if is_first && !begins { Err(fails) } else { Ok(()) }
            }
            .boxed()
        });
        let (store, config) = (Arc::new(store), RuntimeConfig::default());
        let host = place.run(store, vec![order()], config).await;
        let id = start(&host, "order").await;
        let order = async |verb| host.operate(&ada(), id, verb, "to see".to_owned()).await;
        let begun = || calls.begun.load(Ordering::SeqCst);
        until("the first call is under way", || begun() == 1).await;
        refuses.store(true, Ordering::SeqCst);
        order(Verb::Pause).await.unwrap_err();
        until("the saga is quarantined", || host.quarantine_reason(id).is_some()).await;
        order(Verb::Resume).await.unwrap();
        until("the second call is under way", || begun() == 2).await;

        calls.first.0.add_permits(1);
        // It is back by then; one that did not begin would begin after half a second.
        tokio::time::sleep(Duration::from_secs(1)).await;
        order(Verb::Pause).await.unwrap();
        order(Verb::Resume).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(begun(), 2, "a call is made a second time");
        calls.others.0.add_permits(10);
        let ended = host.wait(id, SOON).await.unwrap().unwrap().saga;
        assert_eq!(ended.status(), SagaStatus::Completed, "{:?}", ended.reason());
        assert_eq!(ended.steps().next().unwrap().attempts, 2);
        assert_eq!(host.stop(SOON).await, 0, "a call is counted that is over");
    }
}

/// A component whose `execute` sends a request and takes down in its state that it did. One that finds
/// that taken down sends nothing, and says that it is not possible.
fn sends(port: u16) -> Component<'static> {
    let authority = format!("127.0.0.1:{port}");
    let length = authority.len();
    let imports = format!(
        "(import \"amends:saga/state@1.1.0\" \"get\" (func $get (param i32 i32 i32)))
         (import \"amends:saga/state@1.1.0\" \"set\" (func $set (param i32 i32 i32 i32)))
         (import \"wasi:http/types@0.2.0\" \"[constructor]fields\" (func $fields (result i32)))
         (import \"wasi:http/types@0.2.0\" \"[constructor]outgoing-request\"
            (func $request (param i32) (result i32)))
         (import \"wasi:http/types@0.2.0\" \"[method]outgoing-request.set-scheme\"
            (func $scheme (param i32 i32 i32 i32 i32) (result i32)))
         (import \"wasi:http/types@0.2.0\" \"[method]outgoing-request.set-authority\"
            (func $authority (param i32 i32 i32 i32) (result i32)))
         (import \"wasi:http/types@0.2.0\" \"[method]outgoing-request.set-path-with-query\"
            (func $path (param i32 i32 i32 i32) (result i32)))
         (import \"wasi:http/outgoing-handler@0.2.0\" \"handle\"
            (func $handle (param i32 i32 i32 i32)))
         (data (i32.const 8192) \"/{authority}\")"
    );
    // The key is `no`, the value `{{\"n\":0}}`; a failure is laid out as in `amends_tests`.
    let execute = format!(
        "(local $sent i32)
         (call $get (i32.const 3060) (i32.const 2) (i32.const 9000))
         (if (i32.load8_u (i32.const 9000)) (then
            (i32.store8 (i32.const 2048) (i32.const 1))
            (i32.store8 (i32.const 2056) (i32.const 0))
            (i32.store (i32.const 2064) (i32.const 3060))
            (i32.store (i32.const 2068) (i32.const 2))
            (i32.store (i32.const 2072) (i32.const 3064))
            (i32.store (i32.const 2076) (i32.const 18))
            (return (i32.const 2048))))
         (call $set (i32.const 3060) (i32.const 2) (i32.const 3100) (i32.const 7))
         (local.set $sent (call $request (call $fields)))
         (drop (call $scheme (local.get $sent) (i32.const 1) (i32.const 0) (i32.const 0)
            (i32.const 0)))
         (drop (call $authority (local.get $sent) (i32.const 1) (i32.const 8193)
            (i32.const {length})))
         (drop (call $path (local.get $sent) (i32.const 1) (i32.const 8192) (i32.const 1)))
         (call $handle (local.get $sent) (i32.const 0) (i32.const 0) (i32.const 9000))
         (if (i32.load8_u (i32.const 9000)) (then unreachable))
         (i32.const 2048)"
    );
    Component {
        imports: String::leak(imports),
        execute: Behaviour::Text(String::leak(execute)),
        ..Component::default()
    }
}

/// Two calls of one saga see the same state, so one of them runs again; it had sent a request, and its
/// second run says that it did not happen and never will. Nobody knows that, so it is undone.
#[tokio::test]
async fn what_a_call_sent_whose_result_was_not_taken_is_undone() {
    // It never answers, and has not to: the component does not wait for that.
    let carrier = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = carrier.local_addr().unwrap().port();
    let mut place = Place::new();
    place.allow_hosts = vec![format!("http://127.0.0.1:{port}").parse().unwrap()];
    place.write("test", &sends(port).build());
    let plugin = || "test".parse().unwrap();
    let backoff = BackoffSpec::Listed(vec![Duration::from_millis(10)]);
    let retry = || RetrySpec { attempts: 2, backoff: backoff.clone() };
    let both = ["one", "two"].map(|name| {
        let undo = UndoSpec { plugin: Some(plugin()), timeout: SOON, retry: retry() };
        let call = StepKind::Call { plugin: plugin(), service: None };
        StepSpec { retry: retry(), undo: Some(undo), ..step(name, call) }
    });
    let orders = vec![definition("order", both.into())];
    // What the second run says is refused once more: the first is not forgotten for that.
    let refuses = AtomicBool::new(true);
    let mut store = Hooked::new(place.store(), move |store, append: Append, reply| {
        let only_saw = |change: &Arc<StateChange>| change.writes.is_empty();
        let is_second = !append.state.is_empty() && append.state.iter().all(only_saw);
        if is_second && refuses.swap(false, Ordering::SeqCst) {
            reply.send(Ok(Appended::StateChanged(0)));
        } else {
            store.append_then(append, reply);
        }
    });
    // Neither call goes on before both have read.
    let (have_read, reads) = (Arc::new(Barrier::new(2)), AtomicUsize::new(0));
    store.after_value = Box::new(move || {
        let (have_read, is_first) =
            (Arc::clone(&have_read), reads.fetch_add(1, Ordering::SeqCst) < 2);
        async move {
            if is_first {
                have_read.wait().await;
            }
        }
        .boxed()
    });
    let host = place.run(Arc::new(store), orders, RuntimeConfig::default()).await;
    let id = start(&host, "order").await;
    let ended = host.wait(id, SOON).await.unwrap().unwrap().saga;
    assert_eq!(ended.status(), SagaStatus::Compensated, "{:?}", ended.reason());
    for step in ended.steps() {
        assert_eq!(step.status, StepStatus::Undone, "{}: {:?}", step.name, step.error);
    }
    assert_eq!(ended.steps().map(|step| step.attempts).sum::<u32>(), 3, "one is tried once more");
}

/// How often a call is run again for changed state is counted for each call.
#[tokio::test]
async fn calls_that_run_again_do_not_use_up_what_others_may() {
    let place = Place::new();
    place.write("test", &lists().build());
    let left = Arc::new(AtomicUsize::new(120));
    let refusing = Arc::clone(&left);
    let store = Hooked::new(place.store(), move |store, append: Append, reply| {
        let less = |left: usize| left.checked_sub(1);
        let refuses = || refusing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
        if !append.state.is_empty() && refuses() {
            reply.send(Ok(Appended::StateChanged(0)));
        } else {
            store.append_then(append, reply);
        }
    });
    let call = || StepKind::Call { plugin: "test".parse().unwrap(), service: None };
    let orders = vec![definition("order", vec![step("one", call()), step("two", call())])];
    let host = place.run(Arc::new(store), orders, RuntimeConfig::default()).await;
    let id = start(&host, "order").await;
    let ended = host.wait(id, SOON).await.unwrap().unwrap().saga;
    assert_eq!(ended.status(), SagaStatus::Completed, "{:?}", ended.reason());
    assert_eq!(left.load(Ordering::SeqCst), 0);
    for step in ended.steps() {
        assert_eq!(step.attempts, 1, "{}: {:?}", step.name, step.error);
    }
}

/// A call whose state is changed by others each time is not run for ever.
#[tokio::test]
async fn a_call_that_always_runs_again_is_unknown_in_the_end() {
    let place = Place::new();
    place.write("test", &lists().build());
    let refused = Arc::new(AtomicUsize::new(0));
    let refusing = Arc::clone(&refused);
    let store = Hooked::new(place.store(), move |store, append: Append, reply| {
        if append.state.is_empty() {
            store.append_then(append, reply);
        } else {
            refusing.fetch_add(1, Ordering::SeqCst);
            reply.send(Ok(Appended::StateChanged(0)));
        }
    });
    let call = StepKind::Call { plugin: "test".parse().unwrap(), service: None };
    let retry = RetrySpec { attempts: 1, ..RetrySpec::default() };
    let orders = vec![definition("order", vec![StepSpec { retry, ..step("step", call) }])];
    let host = place.run(Arc::new(store), orders, RuntimeConfig::default()).await;
    let id = start(&host, "order").await;
    let ended = host.wait(id, SOON).await.unwrap().unwrap().saga;
    let step = ended.steps().next().unwrap();
    assert_eq!(step.error.unwrap().code, "state_conflict");
    assert_eq!(refused.load(Ordering::SeqCst), 101);
}
