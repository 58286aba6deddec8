//! Calls that come back when their saga waits for another one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod place;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use amends_engine::{
    BackoffSpec, Definition, Order, RetrySpec, SagaStatus, StepKind, StepSpec, Verb,
};
use amends_runtime::RuntimeConfig;
use amends_store::StoreError;
use futures::FutureExt as _;
use tokio::sync::Semaphore;

use place::hooked::Hooked;
use place::{Place, SOON, definition, lists, start, step, until};

/// One step of plugin `test`, with an attempt more than it needs.
fn order() -> Definition {
    let call = StepKind::Call { plugin: "test".parse().unwrap(), service: None };
    let backoff = BackoffSpec::Listed(vec![Duration::from_millis(10)]);
    let retry = RetrySpec { attempts: 3, backoff };
    definition("order", vec![StepSpec { retry, ..step("step", call) }])
}

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
                let fails = StoreError::Database("on purpose".to_owned());
                if is_first && !begins { Err(fails) } else { Ok(()) }
            }
            .boxed()
        });
        let (store, config) = (Arc::new(store), RuntimeConfig::default());
        let host = place.run(store, vec![order()], config).await;
        let id = start(&host, "order").await;
        let order = async |verb| {
            let (who, reason) = ("ada".to_owned(), "to see".to_owned());
            host.operate(id, Order { who, reason, verb }).await
        };
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
