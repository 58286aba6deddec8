//! Closing, opening again, and how many transactions it takes.

use amends_engine::Version;
use futures::future::join_all;

use super::fixture::{at, digest, row, saga_id, start, then, whole_log, whole_stream};
use super::location::StoreLocation;
use crate::{
    Append, BackupError, BlobKind, Cursor, LiveSagas, PageBudget, SagaQuery, ShardId, StoreError,
    Stream,
};

/// What was acknowledged is there after a reopen, and the store goes on where it was.
pub async fn keeps_everything_over_a_reopen(location: &dyn StoreLocation) {
    let mut expected = Vec::new();
    for round in 0..5_u32 {
        let store = location.open().await.unwrap();
        assert_eq!(whole_log(&*store).await, expected);
        for append in [start(round), then(round, 1), then(0, u64::from(round) + 2)] {
            store.append(append).await.unwrap();
        }
        expected = whole_log(&*store).await;
        assert_eq!(expected.len(), (round as usize + 1) * 3);
        assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
        store.close().await.unwrap();
    }
    let store = location.open().await.unwrap();
    let events = whole_stream(&*store, Stream::Saga(saga_id(0))).await;
    assert_eq!(events.len(), 7);
    for round in 0..5 {
        assert_eq!(store.sagas().row(saga_id(round)).await.unwrap(), Some(row(round)));
    }
}

/// A closed store refuses; closing twice is closing once.
pub async fn refuses_when_closed(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    store.append(start(1)).await.unwrap();
    let (first, second) = tokio::join!(store.close(), store.close());
    first.unwrap();
    second.unwrap();
    store.close().await.unwrap();
    macro_rules! refused {
        ($($call:expr),* $(,)?) => {$(
            let result = $call.await;
            assert!(
                matches!(result, Err(StoreError::Closed)),
                "{}: {result:?}", stringify!($call),
            );
        )*};
    }
    refused!(
        store.append(start(2)),
        store.ownership().tick(),
        store.log().stream(Stream::Saga(saga_id(1)), Version(0), PageBudget::items(1)),
        store.log().follow(Cursor::START, PageBudget::items(1)),
        store.sagas().row(saga_id(1)),
        store.sagas().list(SagaQuery { limit: 1, ..SagaQuery::default() }),
        store.sagas().live(ShardId::all().collect(), LiveSagas::All, None, PageBudget::items(1)),
        store.sagas().read(vec![saga_id(1)]),
        store.sagas().due(ShardId::all().collect(), at(1), None, 1),
        store.sagas().waiting(ShardId::all().collect(), None, 1),
        store.sagas().count_waiting(),
        store.sagas().key("k".to_owned()),
        store.blobs().put(BlobKind::Component, "a".to_owned(), digest(1), at(1), vec![1]),
        store.blobs().get(BlobKind::Component, digest(1)),
        store.blobs().list(BlobKind::Component),
        store.sagas().counts(),
        store.maintenance().verify(),
        store.maintenance().survey(),
    );
    let backup = store.maintenance().back_up().await;
    assert!(matches!(backup, Err(BackupError::Store(StoreError::Closed))), "{backup:?}");
    // The first is still there, and the file is free.
    let store = location.open().await.unwrap();
    assert_eq!(whole_log(&*store).await.len(), 1);
}

/// Appends that wait share transactions; one that is alone does not wait for others.
pub async fn commits_in_groups(location: &dyn StoreLocation) {
    const APPENDS: u32 = 2_000;
    let store = location.open().await.unwrap();
    for number in 0..3 {
        store.append(start(number)).await.unwrap();
    }
    let alone = store.maintenance().stats();
    assert_eq!((alone.appends, alone.events, alone.transactions), (3, 3, 3));
    let appends = (3..APPENDS).map(|number| {
        let append = start(number);
        store.append(Append { events: vec![append.events[0].clone(); 2], ..append })
    });
    for result in join_all(appends).await {
        result.unwrap();
    }
    let stats = store.maintenance().stats();
    assert_eq!(stats.appends, u64::from(APPENDS));
    assert_eq!(stats.events, u64::from(APPENDS) * 2 - 3);
    assert!(stats.transactions < stats.appends / 2, "{stats:?}");
}
