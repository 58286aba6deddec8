//! Backups, and the survey of a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use amends_engine::SagaStatus;

use super::fixture::{at, event, row, saga_id, start, whole_log};
use super::location::{StoreLocation, TestStore};
use crate::{Append, BackupError, BlobKind, SagaQuery, SagaRow};

/// A store that makes no backups says who does.
async fn refuses_backups(store: &TestStore) {
    let refused = store.maintenance().back_up().await;
    assert!(matches!(refused, Err(BackupError::Elsewhere)), "{refused:?}");
}

/// A backup that is made while others append has everything that was answered before it began, and
/// the events of the log up to some position: no append is torn, and none is missing before it.
pub async fn backs_up_a_prefix_of_the_log_while_it_is_written(location: &dyn StoreLocation) {
    const BEFORE: u32 = 3_000;
    let store = location.open().await.unwrap();
    if !location.makes_backups() {
        return refuses_backups(&store).await;
    }
    let starts: Vec<_> = (0..BEFORE).map(|number| store.append(start(number))).collect();
    for started in starts {
        started.await.unwrap();
    }
    // Content of its own size, so that the copy takes many steps.
    let bytes: Vec<u8> = (0..4 << 20).map(|at: u32| at.to_le_bytes()[1]).collect();
    let digest = amends_engine::Digest::of(&bytes);
    store
        .blobs()
        .put(BlobKind::Component, "large".to_owned(), digest, at(1), bytes.clone())
        .await
        .unwrap();
    let (is_over, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(BEFORE)));
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (store, is_over, next) = (store.clone(), Arc::clone(&is_over), Arc::clone(&next));
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    // Two events each: a torn append would show.
                    let one = start(number);
                    let events = vec![one.events[0].clone(), event(number)];
                    store.append(Append { events, ..one }).await.unwrap();
                }
            })
        })
        .collect();
    let known = store.log().head().borrow().0;
    let backup = store.maintenance().back_up().await.unwrap();
    let summary = backup.summary;
    is_over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let log = whole_log(&*store).await;
    assert!(known >= u64::from(BEFORE) && summary.events >= known, "{known} {summary:?}");
    assert!(log.len() as u64 > summary.events || log.len() as u64 > u64::from(BEFORE), "no load");

    let copy = TestStore::of(location.open_backup(backup).await.unwrap()).await.unwrap();
    assert_eq!(copy.maintenance().verify().await.unwrap(), Vec::<String>::new());
    let copied = whole_log(&*copy).await;
    assert_eq!(copied.len() as u64, summary.events);
    assert_eq!(copied[..], log[..copied.len()], "the backup is no prefix of the log");
    let counts = copy.sagas().counts().await.unwrap();
    assert_eq!(counts.values().sum::<u64>(), summary.sagas);
    assert_eq!(copy.blobs().get(BlobKind::Component, digest).await.unwrap(), Some(bytes));
    // It is a store of its own, which goes on.
    copy.append(start(next.load(Ordering::Relaxed))).await.unwrap();
    copy.close().await.unwrap();
    store.close().await.unwrap();
}

/// While a backup exists, another one is refused; after it, the next one is made.
pub async fn makes_one_backup_at_a_time(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    if !location.makes_backups() {
        return refuses_backups(&store).await;
    }
    store.append(start(1)).await.unwrap();
    let first = store.maintenance().back_up().await.unwrap();
    let second = store.maintenance().back_up().await;
    assert!(matches!(second, Err(BackupError::UnderWay)), "{second:?}");
    store.append(start(2)).await.unwrap();
    drop(first);
    let third = store.maintenance().back_up().await.unwrap();
    assert_eq!((third.summary.events, third.summary.sagas), (2, 2));
    // One that nobody waits for ends by itself.
    drop(third);
    let mut unheard = store.maintenance().back_up();
    let _ = futures::poll!(&mut unheard);
    drop(unheard);
    loop {
        match store.maintenance().back_up().await {
            Ok(_) => break,
            Err(BackupError::UnderWay) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => panic!("{error}"),
        }
    }
    store.close().await.unwrap();
}

/// A survey counts sagas by definition and status, and events by type and month.
pub async fn surveys_what_it_holds(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let empty = store.maintenance().survey().await.unwrap();
    assert_eq!((empty.events, empty.sagas_total(), empty.oldest_live), (0, 0, None));
    assert_eq!((empty.types, empty.months, empty.growth), (vec![], vec![], None));
    // Sagas 0 to 9 complete, 10 to 14 are compensated, 15 is blocked, 16 to 19 run.
    for number in 0..20 {
        let status = match number {
            0..10 => SagaStatus::Completed,
            10..15 => SagaStatus::Compensated,
            15 => SagaStatus::Blocked,
            _ => SagaStatus::Running,
        };
        let ended_at = status.is_end().then(|| at(number + 1));
        store.append(start(number)).await.unwrap();
        let row = SagaRow { status, ended_at, ..row(number) };
        let end = Append { row: Some(row), ..super::fixture::then(number, 1) };
        store.append(end).await.unwrap();
    }
    let survey = store.maintenance().survey().await.unwrap();
    assert_eq!((survey.events, survey.events_sampled, survey.sagas_total()), (40, 40, 20));
    let of = |status| {
        let counts = survey.sagas.iter().filter(|count| count.status == status);
        counts.map(|count| count.sagas).sum::<u64>()
    };
    for (status, sagas) in [
        (SagaStatus::Completed, 10),
        (SagaStatus::Compensated, 5),
        (SagaStatus::Blocked, 1),
        (SagaStatus::Running, 4),
        (SagaStatus::Waiting, 0),
    ] {
        assert_eq!(of(status), sagas, "{status:?}: {:?}", survey.sagas);
        let query = SagaQuery { statuses: vec![status], limit: 100, ..SagaQuery::default() };
        assert_eq!(store.sagas().list(query).await.unwrap().len() as u64, sagas);
    }
    assert_eq!(survey.types.iter().map(|count| count.events).sum::<u64>(), 40);
    assert_eq!(survey.oldest_live, Some((saga_id(15), at(15))));
    assert_eq!(store.sagas().oldest_live().await.unwrap(), survey.oldest_live);
    let months = (
        survey.months.iter().map(|month| month.sagas).sum::<u64>(),
        survey.months.iter().map(|month| month.events).sum::<u64>(),
    );
    assert_eq!(months, (20, 40), "{:?}", survey.months);
    let first = survey.months.iter().find(|month| month.sagas > 0).unwrap();
    assert_eq!((first.year, first.month, first.events), (2026, 1, 40));
    store.close().await.unwrap();
}
