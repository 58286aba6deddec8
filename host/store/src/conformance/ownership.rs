//! Who may write: shards, and two handles on one store.

use std::collections::BTreeSet;
use std::sync::Arc;

use amends_engine::{StateChange, Version};
use futures::future::join_all;

use super::fixture::{at, digest, event, saga_id, start, then, whole_log, whole_stream};
use super::location::{StoreLocation, TestStore};
use super::state::state_change;
use crate::{
    Append, AppendReply, Appended, BlobKind, Fatal, OwnershipEvent, ShardId, StartKey, StoreError,
    Stream,
};

/// Until the store has noticed that another handle has taken it over.
async fn lost(store: &TestStore) -> Vec<ShardId> {
    for _ in 0..2_000 {
        let mut lost = Vec::new();
        for event in store.ownership().tick().await.unwrap() {
            match event {
                OwnershipEvent::Lost(id) => lost.push(id),
                OwnershipEvent::Gained(shard) => panic!("gained {}", shard.id()),
            }
        }
        if !lost.is_empty() {
            return lost;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the store does not notice that it was taken over");
}

/// The first tick of a store that nobody else owns gains all shards; a shard that is dropped is
/// gained again; a later owner has a larger epoch.
pub async fn gains_every_shard_once(location: &dyn StoreLocation) {
    let store = location.open_store().await.unwrap();
    let gained = |events: Vec<OwnershipEvent>| -> Vec<_> {
        let shard = |event| match event {
            OwnershipEvent::Gained(shard) => shard,
            OwnershipEvent::Lost(id) => panic!("lost {id}"),
        };
        events.into_iter().map(shard).collect()
    };
    let mut shards = gained(store.ownership().tick().await.unwrap());
    let ids: BTreeSet<_> = shards.iter().map(|shard| shard.id()).collect();
    assert!(ids.iter().copied().eq(ShardId::all()));
    assert_eq!(shards.len(), ids.len());
    assert!(gained(store.ownership().tick().await.unwrap()).is_empty());
    let dropped = shards.pop().unwrap().id();
    let again = gained(store.ownership().tick().await.unwrap());
    assert_eq!(again.iter().map(|shard| shard.id()).collect::<Vec<_>>(), [dropped]);
    store.close().await.unwrap();

    let later = location.open_store().await.unwrap();
    let later = gained(later.ownership().tick().await.unwrap());
    assert!(later[0].epoch() > shards[0].epoch());
}

/// A shard takes no append to a saga of another shard, nor to a stream of no saga.
pub async fn appends_only_to_the_sagas_of_a_shard(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let shard = store.shards.of(saga_id(1)).unwrap();
    let other = (2..1_000).find(|number| ShardId::of(saga_id(*number)) != shard.id()).unwrap();
    for wrong in [start(other), Append { stream: Stream::Deploys, row: None, ..start(1) }] {
        let refused = shard.append(wrong.clone()).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
        let (reply, answer) = tokio::sync::oneshot::channel();
        shard.append_then(wrong, AppendReply::new(|result| drop(reply.send(result))));
        let refused = answer.await.unwrap();
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    }
    shard.append(start(1)).await.unwrap();
    assert_eq!(whole_log(&*store).await.len(), 1);
}

/// The streams of no saga are appended to without a shard, and a saga is not. State changes with a
/// saga or with the stream of a plugin.
pub async fn shares_the_streams_of_no_saga(location: &dyn StoreLocation) {
    let store = location.open_store().await.unwrap();
    let change = || vec![Arc::new(state_change(&[], &[("a", Some("1"))]))];
    let to = |stream: Stream, state: Vec<Arc<StateChange>>| Append {
        stream,
        row: None,
        state,
        ..start(1)
    };
    let (plugin, service) = ("inventory".parse().unwrap(), "carrier".parse().unwrap());
    let (plugin, service) = (Stream::Plugin(plugin), Stream::Service(service));
    for stream in [
        Stream::Deploys,
        Stream::Erasures,
        Stream::Tokens,
        Stream::Audit,
        plugin.clone(),
        service.clone(),
    ] {
        let done = store.log().append_shared(to(stream, Vec::new())).await;
        assert!(matches!(done, Ok(Appended::Done { .. })), "{done:?}");
    }
    let again = store.log().append_shared(to(Stream::Deploys, Vec::new())).await;
    assert!(matches!(again, Err(StoreError::Conflict { .. })), "{again:?}");
    let changed = Append { expected: Version(1), ..to(plugin.clone(), change()) };
    let done = store.state().change(changed).await;
    assert!(matches!(done, Ok(Appended::Done { .. })), "{done:?}");
    let refused = [
        store.log().append_shared(start(2)).await,
        store.log().append_shared(to(plugin, change())).await,
        store.state().change(to(service, change())).await,
        store.log().append_shared(to(Stream::Tokens, change())).await,
        store.log().append_shared(to(Stream::Audit, change())).await,
        store.state().change(Append { state: change(), ..start(2) }).await,
    ];
    for refused in refused {
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    }
    assert_eq!(whole_log(&*store).await.len(), 7);
}

/// Once another handle has the store, the older one writes nothing: no event, no start key, no
/// state, no stream that hosts share, no blob.
pub async fn refuses_what_lost_ownership(location: &dyn StoreLocation) {
    let older = location.open().await.unwrap();
    older.append(start(1)).await.unwrap();
    let newer = location.take_over().await.unwrap();
    let start_key = Some(StartKey { key: "k".to_owned(), payload_digest: digest(1) });
    let change = || vec![Arc::new(state_change(&[], &[("a", Some("1"))]))];
    for append in [
        then(1, 1),
        start(2),
        Append { start_key, ..start(3) },
        Append { state: change(), ..start(4) },
    ] {
        let saga = append.stream.saga().unwrap();
        let refused = older.append(append).await;
        let is_lost =
            matches!(refused, Err(StoreError::LostOwnership(of)) if of == ShardId::of(saga));
        assert!(is_lost, "{refused:?}");
    }
    let deploys = Append { stream: Stream::Deploys, row: None, ..start(1) };
    let plugin = Stream::Plugin("inventory".parse().unwrap());
    let changed = Append { stream: plugin, row: None, state: change(), ..start(1) };
    for refused in [
        older.log().append_shared(deploys).await.map(drop),
        older.state().change(changed).await.map(drop),
        older.blobs().put(BlobKind::Component, "a".to_owned(), digest(1), at(1), vec![1]).await,
    ] {
        assert!(matches!(refused, Err(StoreError::Fatal(Fatal::Fenced))), "{refused:?}");
    }
    assert!(lost(&older).await.into_iter().eq(ShardId::all()));
    let over = older.ownership().tick().await;
    assert!(matches!(over, Err(StoreError::Fatal(Fatal::Fenced))), "{over:?}");

    assert_eq!(whole_log(&*newer).await.len(), 1);
    assert_eq!(newer.sagas().key("k".to_owned()).await.unwrap(), None);
    let inventory = "inventory".parse().unwrap();
    assert_eq!(newer.state().value(inventory, "a".to_owned()).await.unwrap(), None);
    assert!(newer.blobs().list(BlobKind::Component).await.unwrap().is_empty());
    newer.append(then(1, 1)).await.unwrap();
    assert_eq!(newer.maintenance().verify().await.unwrap(), Vec::<String>::new());
    older.close().await.unwrap();
    newer.append(then(1, 2)).await.unwrap();
}

/// What the older owner had decided and not appended is refused; the new owner decides again on what
/// is durable, and nothing of that is lost.
pub async fn loses_nothing_when_taken_over_between_decide_and_append(location: &dyn StoreLocation) {
    let older = location.open().await.unwrap();
    older.append(start(1)).await.unwrap();
    let decided = Append { events: vec![event(7)], ..then(1, 1) };
    let newer = location.take_over().await.unwrap();
    let known = whole_stream(&*newer, Stream::Saga(saga_id(1))).await;
    assert_eq!(known.len(), 1);
    newer.append(Append { events: vec![event(8)], ..then(1, 1) }).await.unwrap();
    let refused = older.append(decided).await;
    assert!(matches!(refused, Err(StoreError::LostOwnership(_))), "{refused:?}");
    let log = whole_stream(&*newer, Stream::Saga(saga_id(1))).await;
    assert_eq!(
        log.iter().map(|event| event.data.as_str()).collect::<Vec<_>>(),
        [known[0].data.as_str(), &event(8).data]
    );
    assert!(log.is_sorted_by_key(|event| event.at));
}

/// Of appends that are under way at the takeover, each that is acknowledged is there, and each that
/// is refused is not.
pub async fn loses_nothing_when_taken_over_with_appends_under_way(location: &dyn StoreLocation) {
    const APPENDS: u32 = 1_000;
    let older = location.open().await.unwrap();
    older.append(start(APPENDS)).await.unwrap();
    let pending: Vec<_> = (0..APPENDS).map(|number| older.append(start(number))).collect();
    let newer = location.take_over().await.unwrap();
    let results = join_all(pending).await;
    let late: Vec<_> =
        (0..APPENDS).map(|number| older.append(start(APPENDS + 1 + number))).collect();
    for result in join_all(late).await {
        assert!(matches!(result, Err(StoreError::LostOwnership(_))), "{result:?}");
    }
    let mut done = 1;
    for (result, number) in results.into_iter().zip(0..) {
        let is_there = newer.sagas().row(saga_id(number)).await.unwrap().is_some();
        match result {
            Ok(Appended::Done { .. }) => assert!(is_there, "{number} is lost"),
            Err(StoreError::LostOwnership(_)) => assert!(!is_there, "{number} was refused"),
            other => panic!("{other:?}"),
        }
        done += usize::from(is_there);
    }
    assert_eq!(whole_log(&*newer).await.len(), done);
    assert_eq!(newer.maintenance().verify().await.unwrap(), Vec::<String>::new());
}
