//! Appends: what is written, in which order, and what is refused.

use amends_engine::Version;
use futures::future::join_all;

use super::fixture::{digest, event, row, saga_id, start, then, whole_log, whole_stream};
use super::location::StoreLocation;
use super::model::stored;
use crate::append::EVENT_BYTES_MAX;
use crate::{
    APPENDS_WAITING_MAX, Append, Appended, Cursor, NewEvent, PageBudget, StartKey, StoreError,
    Stream,
};

/// Events come back as they went in, whole and in pages.
pub async fn appends_and_reads_back(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let first = Append { events: vec![event(1), event(2)], ..start(1) };
    let second = Append { events: vec![event(3)], ..then(1, 2) };
    let done = store.append(first.clone()).await.unwrap();
    assert_eq!(done, Appended::Done { version: Version(2) });
    let done = store.append(second.clone()).await.unwrap();
    assert_eq!(done, Appended::Done { version: Version(3) });

    let expected: Vec<_> = [stored(&first, 1), stored(&second, 3)].concat();
    let stream = Stream::Saga(saga_id(1));
    let read = whole_stream(&*store, stream.clone()).await;
    assert_eq!(read, expected);
    assert_eq!(whole_log(&*store).await, expected);
    assert_eq!(
        store.log().stream(stream.clone(), Version(1), PageBudget::items(1)).await.unwrap(),
        expected[1..2]
    );
    assert_eq!(store.log().stream(stream, Version(3), PageBudget::items(100)).await.unwrap(), []);
    assert_eq!(
        store.log().follow(expected[1].cursor(), PageBudget::items(100)).await.unwrap().events,
        expected[2..]
    );
    assert_eq!(store.sagas().row(saga_id(1)).await.unwrap(), Some(row(1)));
    assert_eq!(store.sagas().row(saga_id(2)).await.unwrap(), None);
    let nothing = whole_stream(&*store, Stream::Saga(saga_id(2))).await;
    assert_eq!(nothing, []);
}

/// A version that the stream does not have is refused, and nothing is written.
pub async fn refuses_another_version(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    store.append(start(1)).await.unwrap();
    store.append(then(1, 1)).await.unwrap();
    for wrong in [0, 1, 3, u64::MAX >> 1] {
        let mut changed = row(1);
        changed.reason = Some("must not be seen".to_owned());
        let append = Append { row: Some(changed), ..then(1, wrong) };
        match store.append(append).await {
            Err(StoreError::Conflict { stream, expected, actual }) => {
                assert_eq!(stream, Stream::Saga(saga_id(1)));
                assert_eq!((expected, actual), (Version(wrong), Version(2)));
            }
            other => panic!("expected {wrong} at version 2: {other:?}"),
        }
    }
    let missing = store.append(then(2, 1)).await;
    assert!(matches!(missing, Err(StoreError::Conflict { actual: Version(0), .. })), "{missing:?}");
    assert_eq!(store.sagas().row(saga_id(1)).await.unwrap(), Some(row(1)));
    assert_eq!(whole_log(&*store).await.len(), 2);
}

/// Versions count by stream, positions over all; a plugin's stream is no saga's, and those of
/// deploys, erasures, tokens and the audit are no plugin's.
pub async fn keeps_streams_apart(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let plugin = |name: &str, expected| Append {
        stream: Stream::Plugin(name.parse().unwrap()),
        row: None,
        ..then(1, expected)
    };
    let shared = [
        ("deploys", Stream::Deploys),
        ("erasures", Stream::Erasures),
        ("tokens", Stream::Tokens),
        ("audit", Stream::Audit),
    ];
    let appends = [start(1), plugin("inventory", 0), start(2), plugin("inventory", 1)];
    // A plugin may have the name of a shared stream.
    let shared_appends = shared.clone().map(|(name, stream)| {
        let of_plugin = plugin(name, 0);
        [of_plugin.clone(), Append { stream, ..of_plugin }]
    });
    let appends = appends.into_iter().chain(shared_appends.into_iter().flatten());
    let mut expected = Vec::new();
    for (append, position) in appends.zip(1..) {
        store.append(append.clone()).await.unwrap();
        expected.extend(stored(&append, position));
    }
    assert_eq!(whole_log(&*store).await, expected);
    let stream = Stream::Plugin("inventory".parse().unwrap());
    let read = whole_stream(&*store, stream).await;
    assert_eq!(read, [expected[1].clone(), expected[3].clone()]);
    for ((_, stream), position) in shared.into_iter().zip((5..).step_by(2)) {
        let read = whole_stream(&*store, stream).await;
        assert_eq!(read, [expected[position].clone()]);
    }
}

/// Appends of one stream that are handed in without waiting are written in that order.
pub async fn orders_appends_of_one_stream(location: &dyn StoreLocation) {
    const APPENDS: u32 = 500;
    let store = location.open().await.unwrap();
    let pending: Vec<_> = (0..APPENDS)
        .map(|number| {
            let events = vec![event(number)];
            store.append(Append { events, ..then(1, u64::from(number)) })
        })
        .collect();
    // Polled from the last to the first: the order is that of the calls.
    for (number, pending) in pending.into_iter().enumerate().rev() {
        let number = number as u64;
        let version = Version(number + 1);
        assert_eq!(pending.await.unwrap(), Appended::Done { version });
    }
    let read = whole_stream(&*store, Stream::Saga(saga_id(1))).await;
    let data: Vec<_> = read.into_iter().map(|event| event.data).collect();
    assert_eq!(data, (0..APPENDS).map(|number| event(number).data).collect::<Vec<_>>());
}

/// Of writers that know the same version one wins, and the others hear of it.
pub async fn lets_one_of_many_writers_win(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    store.append(start(1)).await.unwrap();
    let results = join_all((0..50).map(|_| store.append(then(1, 1)))).await;
    let won = results.iter().filter(|result| result.is_ok()).count();
    let lost = results.iter().filter(|result| matches!(result, Err(StoreError::Conflict { .. })));
    assert_eq!((won, lost.count()), (1, 49));
    assert_eq!(whole_log(&*store).await.len(), 2);
}

/// A refused append does not harm those that are written with it.
pub async fn refuses_one_append_alone(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let appends = (0..300).map(|number| match number % 3 {
        0 => start(number),
        1 => then(number, 7),
        _ => Append { events: Vec::new(), ..start(number) },
    });
    let results = join_all(appends.map(|append| store.append(append))).await;
    for (result, number) in results.iter().zip(0..) {
        match number % 3 {
            0 => assert!(matches!(result, Ok(Appended::Done { .. })), "{number}: {result:?}"),
            1 => {
                assert!(matches!(result, Err(StoreError::Conflict { .. })), "{number}: {result:?}");
            }
            _ => assert!(matches!(result, Err(StoreError::Invalid(_))), "{number}: {result:?}"),
        }
    }
    let log = whole_log(&*store).await;
    let positions: Vec<_> = log.iter().map(|event| event.position.0).collect();
    assert_eq!(positions, (1..=100).collect::<Vec<_>>());
}

/// What no store could keep whole is refused before it is tried.
pub async fn refuses_what_breaks_a_rule(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let key = || Some(StartKey { key: "k".into(), payload_digest: digest(1) });
    let plugin = Stream::Plugin("inventory".parse().unwrap());
    let mut huge = event(1);
    huge.data = "1".repeat(EVENT_BYTES_MAX + 1);
    let broken = [
        Append { events: Vec::new(), ..start(1) },
        Append { events: vec![huge], ..start(1) },
        Append { events: vec![NewEvent { kind: "Step started".into(), ..event(1) }], ..start(1) },
        Append { row: Some(row(2)), ..start(1) },
        Append { stream: plugin.clone(), ..start(1) },
        Append { stream: plugin, row: None, start_key: key(), ..start(1) },
        Append { start_key: key(), ..then(1, 1) },
    ];
    for append in broken {
        let result = store.append(append).await;
        assert!(matches!(result, Err(StoreError::Invalid(_))), "{result:?}");
    }
    assert_eq!(whole_log(&*store).await, []);
}

/// 1 MiB in one event, and many of them at once.
pub async fn keeps_large_payloads(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let data = |number: u32| format!("\"{}\"", number.to_string().repeat(1 << 20));
    let pending: Vec<_> = (0..8)
        .map(|number| {
            let mut append = start(number);
            append.events[0].data = data(number);
            store.append(append)
        })
        .collect();
    for result in join_all(pending).await {
        result.unwrap();
    }
    for number in 0..8 {
        let read = whole_stream(&*store, Stream::Saga(saga_id(number))).await;
        assert!(read[0].data == data(number), "payload {number} has changed");
    }
}

/// An append is on its way once it is asked for, also when nobody waits for it.
pub async fn appends_when_the_future_is_dropped(location: &dyn StoreLocation) {
    let appends = u32::try_from(APPENDS_WAITING_MAX).unwrap();
    let store = location.open().await.unwrap();
    for number in 0..appends {
        drop(store.append(start(number)));
    }
    store.close().await.unwrap();
    let store = location.open().await.unwrap();
    let log = whole_log(&*store).await;
    assert_eq!(log.len(), appends as usize);
}

/// When more is asked for than the store keeps, callers wait, and all of it is written.
pub async fn lets_callers_wait_for_room(location: &dyn StoreLocation) {
    let appends = u32::try_from(APPENDS_WAITING_MAX).unwrap() * 2;
    let store = location.open().await.unwrap();
    // All are asked for before the first of them is waited for.
    let pending: Vec<_> = (0..appends).map(|number| store.append(start(number))).collect();
    for result in join_all(pending).await {
        result.unwrap();
    }
    assert_eq!(whole_log(&*store).await.len(), appends as usize);
}

/// Whoever watches the head hears of each append, at the latest when the appender does.
pub async fn moves_the_head(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let mut head = store.log().head();
    assert_eq!(*head.borrow_and_update(), Cursor::START);
    for number in 1..=20 {
        store.append(start(number)).await.unwrap();
        // The head may be late.
        let end_now = store.log().end().await.unwrap();
        head.changed().await.unwrap();
        let end = store.log().follow(Cursor::START, PageBudget::items(100)).await.unwrap().next;
        assert_eq!((*head.borrow_and_update(), end_now), (end, end));
    }
    let end = *head.borrow();
    assert_eq!(whole_log(&*store).await.last().unwrap().cursor(), end);
    store.close().await.unwrap();
    let store = location.open().await.unwrap();
    assert_eq!(*store.log().head().borrow(), end);
}
