//! Schedules: up to which time each has been decided.

use super::fixture::{at, saga_id};
use super::location::StoreLocation;
use crate::ScheduleRow;

fn new(name: &str) -> ScheduleRow {
    ScheduleRow {
        name: name.to_owned(),
        pattern: "0 2 * * * UTC".to_owned(),
        decided_until: at(3),
        started: None,
        skipped: None,
    }
}

/// What a schedule has decided is there again after a reopen, and each schedule has its own.
pub async fn keeps_schedules(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    assert_eq!(store.schedules().schedule("nightly".to_owned()).await.unwrap(), None);
    store.schedules().save_schedule(new("nightly")).await.unwrap();
    store.schedules().save_schedule(new("hourly")).await.unwrap();
    let later = ScheduleRow {
        decided_until: at(9),
        started: Some((at(8), saga_id(7))),
        skipped: Some((at(9), "its saga is running".to_owned())),
        ..new("nightly")
    };
    store.schedules().save_schedule(later.clone()).await.unwrap();
    store.close().await.unwrap();

    let store = location.open().await.unwrap();
    assert_eq!(store.schedules().schedule("nightly".to_owned()).await.unwrap(), Some(later));
    let other = store.schedules().schedule("hourly".to_owned()).await.unwrap();
    assert_eq!(other, Some(new("hourly")));
}

/// A process that has lost the store decides nothing: the other one has decided since.
pub async fn refuses_schedules_of_a_lost_store(location: &dyn StoreLocation) {
    let old = location.open().await.unwrap();
    let newer = location.take_over().await.unwrap();
    newer.schedules().save_schedule(new("nightly")).await.unwrap();
    let late = ScheduleRow { decided_until: at(1), ..new("nightly") };
    old.schedules().save_schedule(late).await.unwrap_err();
    let row = newer.schedules().schedule("nightly".to_owned()).await.unwrap();
    assert_eq!(row, Some(new("nightly")));
}
