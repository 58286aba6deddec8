//! The archive: sagas that leave the database, and are found all the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use amends_engine::{IndexValue, Position, SagaId, SagaStatus, Version};

use super::fixture::{at, digest, event, row, saga_id, start, then, whole_log, whole_stream};
use super::location::{StoreLocation, TestStore};
use crate::{
    Append, Appended, ArchiveError, ArchiveSummary, EndedContent, ImportedSaga, PageBudget,
    SagaQuery, SagaRow, StartKey, Store, StoreError, StoredEvent, Stream, ToArchive,
};

/// The row of a saga that has completed, with a tag and a key.
fn ended_row(number: u32) -> SagaRow {
    SagaRow {
        status: SagaStatus::Completed,
        ended_at: Some(at(number + 1)),
        tags: [("number".to_owned(), number.to_string())].into(),
        index: [("number".parse().unwrap(), IndexValue::Number(number.into()))].into(),
        key: Some(format!("key-{number}")),
        ..row(number)
    }
}

/// The start of a saga with a key.
fn keyed(number: u32) -> Append {
    let key = format!("key-{number}");
    let start_key = Some(StartKey { key, payload_digest: digest(number) });
    let row = SagaRow { status: SagaStatus::Running, ended_at: None, ..ended_row(number) };
    Append { start_key, row: Some(row), ..start(number) }
}

/// Starts a saga and lets it complete: three events in two appends.
async fn complete(store: &TestStore, number: u32) {
    store.append(keyed(number)).await.unwrap();
    let end = then(number, 1);
    let events = vec![event(number), event(number + 1)];
    store.append(Append { events, row: Some(ended_row(number)), ..end }).await.unwrap();
}

fn alone(numbers: impl IntoIterator<Item = u32>) -> Vec<ToArchive> {
    numbers.into_iter().map(|number| to_archive(number, None)).collect()
}

/// A saga as [`complete`] leaves it.
fn to_archive(number: u32, after: Option<SagaId>) -> ToArchive {
    ToArchive { id: saga_id(number), version: Version(3), after, is_late: false }
}

/// Where a saga is found, and all of it: in the database first, as readers do.
async fn found(store: &dyn Store, id: SagaId) -> Option<(bool, SagaRow, Vec<StoredEvent>)> {
    if let Some(row) = store.sagas().row(id).await.unwrap() {
        let events = whole_stream(store, Stream::Saga(id)).await;
        if !events.is_empty() {
            return Some((false, row, events));
        }
    }
    let saga = store.archive().read(id).await.unwrap()?;
    Some((true, saga.row, saga.events))
}

/// Archived sagas leave the index and the log, and are read back as they were.
pub async fn archives_and_reads_back(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    for number in 0..30 {
        complete(&store, number).await;
    }
    store.append(start(30)).await.unwrap();
    let mut before = Vec::new();
    for number in 0..30 {
        before.push(found(&*store, saga_id(number)).await.unwrap());
    }
    // Of those that ended before second 20, page by page.
    let (mut ended, mut after) = (Vec::new(), None);
    loop {
        let page = store.archive().ended(at(20), after, PageBudget::items(7)).await.unwrap();
        ended.extend(page.sagas);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let ids: Vec<_> = ended.iter().map(|saga| saga.id).collect();
    assert_eq!(ids, (0..19).map(saga_id).collect::<Vec<_>>());
    let EndedContent { row: first_row, first, last } = ended[0].content.clone().unwrap();
    assert_eq!((first_row, &first), (before[0].1.clone(), &before[0].2[0]));
    assert_eq!(Some(&last), before[0].2.last());

    let moved = store.archive().archive(alone(0..19)).await.unwrap();
    let ArchiveSummary { sagas, events, segments, changed, .. } = moved.clone();
    assert_eq!((sagas, events, segments, changed), (19, 57, 1, 0), "{moved:?}");
    for number in 0..19 {
        let id = saga_id(number);
        assert_eq!(store.sagas().row(id).await.unwrap(), None);
        assert_eq!(whole_stream(&*store, Stream::Saga(id)).await, []);
        let (is_archived, row, events) = found(&*store, id).await.unwrap();
        assert!(is_archived);
        assert_eq!((&row, &events), (&before[number as usize].1, &before[number as usize].2));
        let tombstone = store.archive().tombstone(id).await.unwrap().unwrap();
        assert_eq!((tombstone.version, tombstone.ended_at), (Version(3), at(number + 1)));
        assert_eq!((tombstone.key, tombstone.file.is_some()), (row.key, true));
    }
    assert!(!found(&*store, saga_id(25)).await.unwrap().0);
    assert_eq!(store.archive().read(saga_id(25)).await.unwrap(), None);
    assert_eq!(store.archive().tombstone(saga_id(99)).await.unwrap(), None);
    // Neither by tag nor in a list, and the rest is as it was.
    let tags = vec![("number".to_owned(), "3".to_owned())];
    let by_tag = SagaQuery { tags, limit: 10, ..SagaQuery::default() };
    assert_eq!(store.sagas().list(by_tag).await.unwrap(), []);
    let all = SagaQuery { limit: 100, ..SagaQuery::default() };
    assert_eq!(store.sagas().list(all.clone()).await.unwrap().len(), 12);
    assert_eq!(whole_log(&*store).await.len(), 11 * 3 + 1);
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    assert_eq!(store.maintenance().events().await.unwrap(), 91);
    let survey = store.maintenance().survey().await.unwrap();
    let archived = survey.archived;
    assert_eq!((archived.sagas, archived.events, archived.segments), (19, 57, 1));
    assert!(archived.bytes > 0 && survey.sagas_total() == 12, "{survey:?}");
    let counted: u64 = survey.types.iter().map(|count| count.events).sum();
    assert_eq!((counted, survey.events_sampled), (34, 34), "{survey:?}");
    // The list, by its cursor.
    let mut query = SagaQuery { limit: 8, ..SagaQuery::default() };
    let mut listed = Vec::new();
    loop {
        let page = store.archive().list(query.clone()).await.unwrap();
        let Some(last) = page.last() else { break };
        query.before = Some(last.id);
        listed.extend(page.into_iter().map(|saga| saga.id));
    }
    assert_eq!(listed, (0..19).rev().map(saga_id).collect::<Vec<_>>());
    let compensated = SagaQuery { statuses: vec![SagaStatus::Compensated], ..all.clone() };
    assert_eq!(store.archive().list(compensated).await.unwrap(), []);
    store.close().await.unwrap();

    let store = location.open().await.unwrap();
    let (_, row, events) = found(&*store, saga_id(7)).await.unwrap();
    assert_eq!((&row, &events), (&before[7].1, &before[7].2));
    store.close().await.unwrap();
}

/// An archived saga takes no event, its key still answers with it, and no position is given twice.
pub async fn keeps_versions_keys_and_positions_of_archived_sagas(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    for number in 0..5 {
        complete(&store, number).await;
    }
    // The last positions are those of archived sagas.
    assert_eq!(store.archive().archive(alone(0..5)).await.unwrap().sagas, 5);
    assert_eq!(whole_log(&*store).await, []);
    store.close().await.unwrap();

    let store = location.open().await.unwrap();
    for expected in [0, 1, 3] {
        let refused = store.append(then(2, expected)).await;
        let is_conflict = matches!(
            refused,
            Err(StoreError::Conflict { actual: Version(3), expected: Version(wanted), .. })
                if wanted == expected
        );
        assert!(is_conflict, "{refused:?}");
    }
    let again = Append { stream: Stream::Saga(saga_id(50)), row: None, ..keyed(2) };
    assert_eq!(store.append(again).await.unwrap(), Appended::Duplicate(saga_id(2)));
    let known = store.sagas().key("key-2".to_owned()).await.unwrap();
    assert_eq!(known, Some((saga_id(2), digest(2))));
    store.append(start(60)).await.unwrap();
    let log = whole_log(&*store).await;
    assert_eq!((log.len(), log[0].position), (1, Position(16)));
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    // A key goes when its saga is old enough; the tombstone stays.
    assert_eq!(store.archive().remove_keys(at(3)).await.unwrap(), 2);
    assert_eq!(store.sagas().key("key-1".to_owned()).await.unwrap(), None);
    assert!(store.sagas().key("key-2".to_owned()).await.unwrap().is_some());
    let tombstone = store.archive().tombstone(saga_id(1)).await.unwrap().unwrap();
    assert_eq!((tombstone.key, tombstone.version), (None, Version(3)));
    store.close().await.unwrap();
}

/// What may not leave stays: a saga that was changed meanwhile, one that has not ended, and one whose
/// parent is still there.
pub async fn archives_parents_first_and_nothing_that_goes_on(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    for number in 0..4 {
        complete(&store, number).await;
    }
    store.append(start(4)).await.unwrap();
    // 1 is the child of 0, which stays; 3 is the child of 2, which goes.
    let child = |number, parent| to_archive(number, Some(saga_id(parent)));
    let mut sagas = alone([2, 4, 77]);
    sagas.extend([child(3, 2), child(1, 0)]);
    let moved = store.archive().archive(sagas).await.unwrap();
    assert_eq!((moved.sagas, moved.changed), (2, 1), "{moved:?}");
    // What a subscription has not delivered may have come between the choice and the move.
    let changed = ToArchive { version: Version(2), ..to_archive(0, None) };
    let unmoved = store.archive().archive(vec![changed]).await.unwrap();
    assert_eq!((unmoved.sagas, unmoved.changed), (0, 1), "{unmoved:?}");
    let unreadable: Vec<_> = moved.unreadable.iter().map(|(id, _)| *id).collect();
    assert_eq!(unreadable, [saga_id(4), saga_id(77)], "{moved:?}");
    for (number, is_archived) in [(0, false), (1, false), (2, true), (3, true), (4, false)] {
        assert_eq!(found(&*store, saga_id(number)).await.unwrap().0, is_archived, "{number}");
    }
    let again = store.archive().archive(alone([0, 2])).await.unwrap();
    assert_eq!(again.sagas, 1, "{again:?}");
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    store.close().await.unwrap();
}

/// A saga that is brought back is as it was before, and goes on.
pub async fn brings_archived_sagas_back(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    for number in 0..3 {
        complete(&store, number).await;
    }
    let before = (found(&*store, saga_id(1)).await.unwrap(), whole_log(&*store).await);
    store.archive().archive(alone(0..3)).await.unwrap();
    for number in 0..3 {
        assert!(store.archive().bring_back(saga_id(number)).await.unwrap());
    }
    assert!(!store.archive().bring_back(saga_id(1)).await.unwrap());
    assert_eq!((found(&*store, saga_id(1)).await.unwrap(), whole_log(&*store).await), before);
    let tags = vec![("number".to_owned(), "1".to_owned())];
    let by_tag = SagaQuery { tags, limit: 10, ..SagaQuery::default() };
    assert_eq!(store.sagas().list(by_tag).await.unwrap().len(), 1);
    store.append(then(1, 3)).await.unwrap();
    assert_eq!(whole_log(&*store).await.last().unwrap().position, Position(10));
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    let survey = store.maintenance().survey().await.unwrap();
    assert_eq!((survey.archived.sagas, survey.archived.events), (0, 0));
    // And archived again, with its new event, into another file.
    let longer = ToArchive { version: Version(4), ..to_archive(1, None) };
    assert_eq!(store.archive().archive(vec![longer]).await.unwrap().sagas, 1);
    assert_eq!(found(&*store, saga_id(1)).await.unwrap().2.len(), 4);
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    store.close().await.unwrap();
}

/// A saga that ended elsewhere, with its start and its end.
fn imported(number: u32, key: Option<&str>) -> ImportedSaga {
    let row = SagaRow { key: key.map(str::to_owned), ..ended_row(number) };
    let digest = digest(number);
    ImportedSaga {
        row,
        events: vec![(at(number), event(number)), (at(number + 1), event(number + 1))],
        start_key: key.map(|key| StartKey { key: key.to_owned(), payload_digest: digest }),
    }
}

/// A saga of another host is in the archive once, and is not in the log. It takes neither the id nor the key
/// of another saga, and does not come back.
pub async fn imports_a_saga_once(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    complete(&store, 1).await;
    let log = whole_log(&*store).await;
    let archive = store.archive();
    assert!(archive.import(imported(7, Some("key-7"))).await.unwrap());
    // With the key of another saga, which keeps it.
    assert!(archive.import(imported(8, Some("key-1"))).await.unwrap());
    for taken in [7, 8, 1] {
        assert!(!archive.import(imported(taken, None)).await.unwrap(), "{taken}");
    }
    let unfinished = SagaRow { status: SagaStatus::Running, ended_at: None, ..row(9) };
    for wrong in [
        ImportedSaga { events: Vec::new(), ..imported(9, None) },
        ImportedSaga { row: unfinished, ..imported(9, None) },
    ] {
        let error = archive.import(wrong).await.unwrap_err();
        assert!(matches!(error, ArchiveError::Store(StoreError::Invalid(_))), "{error}");
    }
    assert_eq!(whole_log(&*store).await, log);
    assert_eq!(store.sagas().row(saga_id(7)).await.unwrap(), None);
    let (is_archived, row, events) = found(&*store, saga_id(7)).await.unwrap();
    assert!(is_archived);
    assert_eq!(row, imported(7, Some("key-7")).row);
    let told: Vec<_> =
        events.iter().map(|event| (event.version.0, event.at, &event.data)).collect();
    let data = [event(7).data, event(8).data];
    assert_eq!(told, [(1, at(7), &data[0]), (2, at(8), &data[1])]);
    let key = |name: &str| store.sagas().key(name.to_owned());
    assert_eq!(key("key-7").await.unwrap().map(|(saga, _)| saga), Some(saga_id(7)));
    assert_eq!(key("key-1").await.unwrap().map(|(saga, _)| saga), Some(saga_id(1)));
    let tombstones = archive.list(SagaQuery { limit: 9, ..SagaQuery::default() }).await.unwrap();
    let listed: Vec<_> = tombstones.iter().map(|one| (one.id, one.key.as_deref())).collect();
    assert_eq!(listed, [(saga_id(8), None), (saga_id(7), Some("key-7"))]);
    let error = archive.bring_back(saga_id(7)).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Imported(id) if id == saga_id(7)), "{error}");
    // A start with its id is refused, and what comes next has a position of its own.
    assert!(store.append(start(7)).await.is_err());
    store.append(start(20)).await.unwrap();
    let last = whole_log(&*store).await.last().unwrap().position;
    assert!(last > Position(3));
    let survey = store.maintenance().survey().await.unwrap();
    assert_eq!((survey.archived.sagas, survey.archived.events), (2, 4));
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    store.close().await.unwrap();

    let store = location.open().await.unwrap();
    assert_eq!(found(&*store, saga_id(8)).await.unwrap().2.len(), 2);
    store.append(start(21)).await.unwrap();
    assert_eq!(whole_log(&*store).await.last().unwrap().position, Position(last.0 + 1));
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    store.close().await.unwrap();
}

/// While sagas are archived and others append, a reader finds each saga at any moment, with all its
/// events; and only one move runs at a time.
pub async fn finds_each_saga_while_it_is_archived(location: &dyn StoreLocation) {
    const SAGAS: u32 = 600;
    let store = location.open().await.unwrap();
    for number in 0..SAGAS {
        store.append(keyed(number)).await.unwrap();
    }
    let ends: Vec<_> = (0..SAGAS)
        .map(|number| store.append(Append { row: Some(ended_row(number)), ..then(number, 1) }))
        .collect();
    for end in ends {
        end.await.unwrap();
    }
    let (is_over, appended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let reader = tokio::spawn({
        let (store, is_over) = (store.clone(), Arc::clone(&is_over));
        async move {
            let mut seen = BTreeSet::new();
            for number in (0..SAGAS).cycle() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let (is_archived, _, events) =
                    found(&*store, saga_id(number)).await.expect("a saga is lost");
                assert_eq!(events.len(), 2, "{number}");
                seen.insert(is_archived);
            }
            seen
        }
    });
    let writer = tokio::spawn({
        let (store, is_over, appended) =
            (store.clone(), Arc::clone(&is_over), Arc::clone(&appended));
        async move {
            while !is_over.load(Ordering::Relaxed) {
                let number = 10_000 + appended.fetch_add(1, Ordering::Relaxed);
                store.append(start(number)).await.unwrap();
            }
        }
    });
    let of_two_events = || -> Vec<_> {
        (0..SAGAS)
            .map(|number| ToArchive { version: Version(2), ..to_archive(number, None) })
            .collect()
    };
    let mut first = store.archive().archive(of_two_events());
    let _ = futures::poll!(&mut first);
    let second = store.archive().archive(of_two_events()).await;
    assert!(matches!(second, Err(ArchiveError::UnderWay)), "{second:?}");
    let moved = first.await.unwrap();
    is_over.store(true, Ordering::Relaxed);
    assert_eq!((moved.sagas, moved.changed), (u64::from(SAGAS), 0), "{moved:?}");
    assert!(!reader.await.unwrap().is_empty());
    writer.await.unwrap();
    assert!(appended.load(Ordering::Relaxed) > 0, "no append went on beside it");
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    store.close().await.unwrap();
}
