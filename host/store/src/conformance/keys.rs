//! Start keys: one key, one saga.

use std::sync::Arc;

use futures::future::join_all;

use super::fixture::{digest, saga_id, start, then, whole_log};
use super::location::StoreLocation;
use super::state::state_change;
use crate::{Append, Appended, SagaQuery, StartKey, StoreError};

fn keyed(number: u32, key: &str, payload: u32) -> Append {
    let start_key = StartKey { key: key.to_owned(), payload_digest: digest(payload) };
    let mut append = Append { start_key: Some(start_key), ..start(number) };
    append.row.as_mut().unwrap().key = Some(key.to_owned());
    append
}

/// A known key writes nothing and names its saga, also after a reopen.
pub async fn starts_once_for_a_key(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    assert_eq!(store.sagas().key("order-7".to_owned()).await.unwrap(), None);
    assert!(matches!(store.append(keyed(1, "order-7", 1)).await, Ok(Appended::Done { .. })));
    // A start without a row has a key as well.
    let bare = Append { row: None, ..keyed(2, "bare", 1) };
    assert!(matches!(store.append(bare).await, Ok(Appended::Done { .. })));
    store.close().await.unwrap();

    let store = location.open().await.unwrap();
    let first = saga_id(1);
    // The saga itself, and another one.
    for number in [1, 3] {
        let same = store.append(keyed(number, "order-7", 1)).await.unwrap();
        assert_eq!(same, Appended::Duplicate(first));
        let other = store.append(keyed(number, "order-7", 2)).await.unwrap();
        assert_eq!(other, Appended::KeyReused(first));
    }
    assert_eq!(store.sagas().key("order-7".to_owned()).await.unwrap(), Some((first, digest(1))));
    assert_eq!(store.sagas().key("bare".to_owned()).await.unwrap(), Some((saga_id(2), digest(1))));
    assert_eq!(store.sagas().row(saga_id(3)).await.unwrap(), None);
    assert_eq!(whole_log(&*store).await.len(), 2);
}

/// A start that is refused says nothing about its saga to the appends of the same transaction.
pub async fn looks_at_a_saga_beside_a_refused_start(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    assert!(matches!(store.append(keyed(1, "order-7", 1)).await, Ok(Appended::Done { .. })));
    store.close().await.unwrap();

    let store = location.open().await.unwrap();
    // While the first is written, the others wait and become one transaction.
    let group = [start(10), keyed(1, "order-7", 1), then(1, 1), start(11)];
    let results = join_all(group.map(|append| store.append(append))).await;
    assert!(matches!(results[0], Ok(Appended::Done { .. })), "{results:?}");
    assert!(matches!(results[1], Ok(Appended::Duplicate(_))), "{results:?}");
    assert!(matches!(results[2], Ok(Appended::Done { .. })), "{results:?}");
    assert!(matches!(results[3], Ok(Appended::Done { .. })), "{results:?}");
    store.close().await.unwrap();

    let store = location.open().await.unwrap();
    let group = [start(12), start(1), start(13)];
    let results = join_all(group.map(|append| store.append(append))).await;
    assert!(matches!(results[0], Ok(Appended::Done { .. })), "{results:?}");
    let is_right =
        |error: &StoreError| matches!(error, StoreError::Conflict { actual, .. } if actual.0 == 2);
    assert!(results[1].as_ref().is_err_and(is_right), "{results:?}");
    assert!(matches!(results[2], Ok(Appended::Done { .. })), "{results:?}");
    assert_eq!(whole_log(&*store).await.len(), 6);
    store.close().await.unwrap();

    // It saw a value that was never there, and its version is wrong: the version is what counts.
    let store = location.open().await.unwrap();
    let saw = Arc::new(state_change(&[("absent", Some("1"))], &[]));
    let refused = store.append(Append { state: vec![saw], ..start(1) }).await;
    assert!(refused.as_ref().is_err_and(is_right), "{refused:?}");
}

/// 100 starts at once with one key: one saga.
pub async fn starts_once_for_a_key_in_parallel(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let starts = (0..100).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { store.append(keyed(number, "one", 1)).await.unwrap() })
    });
    let results = join_all(starts).await;
    let all = store.sagas().list(SagaQuery { limit: 1_000, ..SagaQuery::default() }).await.unwrap();
    assert_eq!(all.len(), 1);
    let mut done = 0;
    for result in results {
        match result.unwrap() {
            Appended::Done { .. } => done += 1,
            Appended::Duplicate(id) => assert_eq!(id, all[0].id),
            Appended::KeyReused(id) => panic!("the payload is the same: {id}"),
            Appended::StateChanged(_) | Appended::StateFull(_) => panic!("it has no state"),
        }
    }
    assert_eq!(done, 1);
    assert_eq!(whole_log(&*store).await.len(), 1);
}

/// A start that is refused does not take its key.
pub async fn leaves_the_key_of_a_refused_start(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    store.append(start(1)).await.unwrap();
    let refused = store.append(keyed(1, "free", 1)).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    assert_eq!(store.sagas().key("free".to_owned()).await.unwrap(), None);
    assert!(matches!(store.append(keyed(2, "free", 2)).await, Ok(Appended::Done { .. })));
    assert!(matches!(store.append(then(2, 1)).await, Ok(Appended::Done { .. })));
    assert_eq!(store.sagas().key("free".to_owned()).await.unwrap(), Some((saga_id(2), digest(2))));
}
