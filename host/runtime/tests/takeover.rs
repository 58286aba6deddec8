//! Another host takes the shards over, and a clock that is behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod place;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amends_engine::{SagaStatus, Verb};
use amends_runtime::{RuntimeConfig, StartError};
use amends_store::conformance::whole_stream;
use amends_store::{Append, AppendReply, Store, StoreError, Stream};
use amends_tests::{Behaviour, Component};
use futures::FutureExt as _;
use tokio::sync::Semaphore;

use place::hooked::{Hooked, Next};
use place::{Place, SOON, ada, lists, order, request, start, until};

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

/// The host before had a clock that was an hour ahead. Its saga goes on as fast as another one, and the
/// times in its log do not go back.
#[tokio::test]
async fn the_time_of_a_saga_does_not_go_back() {
    const AHEAD: Duration = Duration::from_hours(1);
    let place = Place::new();
    place.write("test", &lists().build());
    let ahead = |next: &Next, append: Append, reply: AppendReply| {
        next.append_then(Append { at: append.at.after(AHEAD), ..append }, reply);
    };
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
