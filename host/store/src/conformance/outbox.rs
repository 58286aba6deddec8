//! Subscriptions: their cursors and their dead letters.

use amends_engine::Version;

use super::fixture::{at, saga_id, start, then};
use super::location::{StoreLocation, TestStore};
use crate::{Cursor, DeadLetter, PageBudget, Stream, SubscriptionChange, SubscriptionRow};

fn change(cursor: Cursor, dead: Vec<DeadLetter>, delivered: Vec<Cursor>) -> SubscriptionChange {
    let disabled = None;
    SubscriptionChange { name: "billing".to_owned(), cursor, disabled, dead, delivered }
}

fn letter(place: Cursor, attempts: u32) -> DeadLetter {
    DeadLetter {
        place,
        stream: Stream::Saga(saga_id(1)),
        version: Version(2),
        kind: "step.succeeded".to_owned(),
        at: at(7),
        attempts,
        error: "the receiver answered 400: \"no\"".to_owned(),
    }
}

/// The places before, between and after the events of the log.
async fn places(store: &TestStore) -> Vec<Cursor> {
    let mut places = vec![Cursor::START];
    loop {
        let from = places[places.len() - 1];
        let page = store.log().follow(from, PageBudget::items(1)).await.unwrap();
        if page.events.is_empty() {
            return places;
        }
        places.push(page.next);
    }
}

/// A cursor and dead letters are there again after a reopen, and each subscription has its own.
pub async fn keeps_subscriptions(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    store.append(start(1)).await.unwrap();
    store.append(then(1, 1)).await.unwrap();
    store.append(start(2)).await.unwrap();
    let places = places(&store).await;
    assert_eq!(places.len(), 4);
    assert_eq!(store.outbox().subscription("billing".to_owned()).await.unwrap(), None);
    let both = vec![letter(places[2], 1), letter(places[0], 4)];
    store.outbox().save(change(places[3], both, Vec::new())).await.unwrap();
    let other = SubscriptionChange {
        name: "audit".to_owned(),
        disabled: Some("410: gone".to_owned()),
        ..change(places[1], vec![letter(places[0], 9)], Vec::new())
    };
    store.outbox().save(other).await.unwrap();
    store.close().await.unwrap();

    let store = location.open().await.unwrap();
    let row = SubscriptionRow { cursor: places[3], disabled: None, dead_letters: 2 };
    assert_eq!(store.outbox().subscription("billing".to_owned()).await.unwrap(), Some(row));
    let of = |after, limit| store.outbox().dead_letters("billing".to_owned(), after, limit);
    let all = vec![letter(places[0], 4), letter(places[2], 1)];
    assert_eq!(of(None, 10).await.unwrap(), all);
    assert_eq!(of(None, 1).await.unwrap(), all[..1]);
    assert_eq!(of(Some(places[0]), 10).await.unwrap(), all[1..]);
    // One is replaced and the other removed, and the cursor goes back.
    let again = change(places[1], vec![letter(places[2], 5)], vec![places[0]]);
    store.outbox().save(again).await.unwrap();
    assert_eq!(of(None, 10).await.unwrap(), [letter(places[2], 5)]);
    let row = store.outbox().subscription("audit".to_owned()).await.unwrap().unwrap();
    assert_eq!((row.cursor, row.dead_letters), (places[1], 1));
    assert_eq!(row.disabled.as_deref(), Some("410: gone"));
}

/// A process that has lost the store cannot move a cursor: the other one has delivered since.
pub async fn refuses_cursors_of_a_lost_store(location: &dyn StoreLocation) {
    let old = location.open().await.unwrap();
    old.append(start(1)).await.unwrap();
    let places = places(&old).await;
    let new = location.take_over().await.unwrap();
    new.outbox().save(change(places[1], Vec::new(), Vec::new())).await.unwrap();
    let late = change(places[0], vec![letter(places[0], 1)], Vec::new());
    old.outbox().save(late).await.unwrap_err();
    let row = SubscriptionRow { cursor: places[1], disabled: None, dead_letters: 0 };
    assert_eq!(new.outbox().subscription("billing".to_owned()).await.unwrap(), Some(row));
}
