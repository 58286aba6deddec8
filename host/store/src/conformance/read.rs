//! What is derived from appends, and blobs.

use amends_engine::{Position, SagaId, SagaStatus, Version};
use futures::future::join_all;

use super::fixture::{at, definition, digest, live_page, row, saga_id, start, then, whole_log};
use super::location::{StoreLocation, TestStore};
use super::model::Model;
use crate::append::EVENT_BYTES_MAX;
use crate::saga_row::LIVE_PAGE_BYTES_MAX;
use crate::stored_event::EVENTS_PAGE_BYTES_MAX;
use crate::{
    Append, BlobKind, Cursor, DigestPart, IdPart, LiveSaga, LiveSagas, NewEvent, PageBudget,
    SagaQuery, SagaRow, ShardId, StartKey, Stream,
};

/// Seconds after its id was made at which a saga may start: a day.
const LATE: u32 = 86_400;

/// Sagas of each status, of two definitions, with tags, some of them late.
async fn fill(store: &TestStore, sagas: u32) -> Model {
    let mut model = Model::default();
    // Not in the order of their ids.
    for number in (0..sagas).map(|number| number * 7 % sagas) {
        let mut append = start(number);
        let row = append.row.as_mut().unwrap();
        row.status = SagaStatus::ALL[number as usize % SagaStatus::ALL.len()];
        row.ended_at = row.status.is_end().then(|| at(number + 5));
        if number % 8 == 4 {
            // Long after its id was made.
            row.started_at = at(number + LATE);
        }
        if number % 3 == 0 {
            row.definition = definition("refund");
            row.definition_digest = digest(number % 2);
        }
        row.tags.insert("customer".to_owned(), (number % 5).to_string());
        if number % 2 == 0 {
            row.tags.insert("colour".to_owned(), "blå".to_owned());
        }
        model.append(&append).unwrap();
        store.append(append).await.unwrap();
    }
    model
}

/// Each filter, each pair of them, and pages: the same sagas as by looking at every row.
pub async fn lists_by_each_filter(location: &dyn StoreLocation) {
    const SAGAS: u32 = 80;
    let store = location.open().await.unwrap();
    let model = fill(&store, SAGAS).await;
    let status_sets = [
        vec![],
        vec![SagaStatus::Blocked],
        vec![SagaStatus::Completed, SagaStatus::Running, SagaStatus::Completed],
        SagaStatus::ALL.to_vec(),
    ];
    let definitions = [None, Some("refund"), Some("order-fulfillment"), Some("nothing")];
    // Those of two definitions of one name, and one that the store does not have.
    for number in 0..2 {
        let (kind, name) = (BlobKind::Definition, "refund".to_owned());
        store.blobs().put(kind, name, digest(number), at(0), b"{}".to_vec()).await.unwrap();
    }
    let part = |digest: amends_engine::Digest| {
        let text = digest.to_string();
        DigestPart::new(&text[..text.len() - 40]).unwrap()
    };
    let digests = [None, Some(part(digest(0))), Some(part(digest(1))), Some(part(digest(7)))];
    let tags = [None, Some(("customer", "3")), Some(("colour", "blå")), Some(("colour", "red"))];
    let late = at(SAGAS / 2 + LATE);
    let times = [None, Some(at(0)), Some(at(SAGAS / 2)), Some(at(SAGAS)), Some(late)];
    let after_late = SagaQuery { started_after: Some(late), limit: 100, ..SagaQuery::default() };
    assert!(!model.list(&after_late).is_empty(), "no saga starts late");
    let befores = [None, Some(saga_id(SAGAS / 3)), Some(saga_id(0))];
    let mut found = 0;
    for statuses in &status_sets {
        for name in definitions {
            for tag in tags {
                for (started_after, definition_digest) in
                    times.into_iter().flat_map(|time| digests.iter().map(move |it| (time, it)))
                {
                    for before in befores {
                        let query = SagaQuery {
                            statuses: statuses.clone(),
                            definition: name.map(definition),
                            definition_digest: definition_digest.clone(),
                            tags: tag
                                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                                .into_iter()
                                .collect(),
                            started_after,
                            before,
                            limit: 13,
                            ..SagaQuery::default()
                        };
                        let listed = store.sagas().list(query.clone()).await.unwrap();
                        found += listed.len();
                        assert_eq!(listed, model.list(&query), "{query:?}");
                    }
                }
            }
        }
    }
    assert!(found > 100, "the filters let too little through to show anything: {found}");

    let mut query =
        SagaQuery { statuses: status_sets[2].clone(), limit: 7, ..SagaQuery::default() };
    let mut paged = Vec::new();
    loop {
        let page = store.sagas().list(query.clone()).await.unwrap();
        let Some(last) = page.last() else { break };
        query.before = Some(last.id);
        paged.extend(page);
    }
    let all = SagaQuery { before: None, limit: u32::MAX, ..query };
    assert_eq!(paged, model.list(&all));
}

/// A saga is found by the beginning of its id and by its end, whatever the case and the hyphens,
/// and sagas that started before a time by that, along with the other filters.
pub async fn lists_by_part_of_an_id_and_before_a_time(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let model = fill(&store, 40).await;
    let id = saga_id(17).to_string();
    let upper = id.to_uppercase().replace('-', "");
    let parts =
        [&id, &id[..8], &id[..13], &id[28..], &id[24..], &upper[..11], &upper[21..], "12345678"];
    let ids: Vec<_> = parts.iter().map(|part| Some(IdPart::new(part).unwrap())).collect();
    let (mut found, mut several) = (0, 0);
    for id in ids.into_iter().chain([None]) {
        for started_before in [None, Some(at(0)), Some(at(18)), Some(at(LATE + 17))] {
            for tag in [None, Some(("customer".to_owned(), "2".to_owned()))] {
                for before in [None, Some(saga_id(30))] {
                    let name = tag.as_ref().map(|_| definition("order-fulfillment"));
                    let query = SagaQuery {
                        statuses: if before.is_some() { SagaStatus::ALL.to_vec() } else { vec![] },
                        definition: name,
                        tags: tag.clone().into_iter().collect(),
                        started_before,
                        id: id.clone(),
                        before,
                        limit: 7,
                        ..SagaQuery::default()
                    };
                    let listed = store.sagas().list(query.clone()).await.unwrap();
                    found += usize::from(listed.len() == 1);
                    several += usize::from(listed.len() > 1);
                    assert_eq!(listed, model.list(&query), "{query:?}");
                }
            }
        }
    }
    assert!(found > 10 && several > 10, "it shows little: {found}, {several}");
    for wrong in ["", "1234567", "1234567g", &"0".repeat(33)] {
        assert_eq!(IdPart::new(wrong), None, "{wrong}");
    }
}

/// A saga is found by the key that started it, along with the other filters. A key that started
/// nothing finds nothing.
pub async fn lists_by_start_key(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let mut model = fill(&store, 20).await;
    for number in 20..24 {
        let key = format!("order {number}%_");
        let mut append = start(number);
        append.start_key = Some(StartKey { key: key.clone(), payload_digest: digest(1) });
        let row = append.row.as_mut().unwrap();
        row.key = Some(key);
        row.tags.insert("customer".to_owned(), (number % 2).to_string());
        model.append(&append).unwrap();
        store.append(append).await.unwrap();
    }
    let id = saga_id(21).to_string();
    let parts = [&id[..8], &id[28..], "12345678"].map(|part| Some(IdPart::new(part).unwrap()));
    let mut found = 0;
    for key in ["order 21%_", "order 21", "order 2", "", "order 99"] {
        for id in parts.iter().cloned().chain([None]) {
            for tag in [None, Some(("customer".to_owned(), "1".to_owned()))] {
                for statuses in [vec![], vec![SagaStatus::Blocked], SagaStatus::ALL.to_vec()] {
                    for before in [None, Some(saga_id(22)), Some(saga_id(3))] {
                        let query = SagaQuery {
                            statuses: statuses.clone(),
                            key: Some(key.to_owned()),
                            tags: tag.clone().into_iter().collect(),
                            id: id.clone(),
                            before,
                            limit: 7,
                            ..SagaQuery::default()
                        };
                        let listed = store.sagas().list(query.clone()).await.unwrap();
                        found += listed.len();
                        assert_eq!(listed, model.list(&query), "{query:?}");
                    }
                }
            }
        }
    }
    assert!(found > 10, "it shows little: {found}");
}

/// Recovery sees every saga that has not ended, with its whole log, and no other.
pub async fn finds_live_sagas(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let mut model = fill(&store, 40).await;
    for (number, version) in [(0, 1), (0, 2), (1, 1), (5, 1)] {
        model.append(&then(number, version)).unwrap();
        store.append(then(number, version)).await.unwrap();
    }
    let expected = model.live();
    let contents = || expected.iter().map(|saga| saga.content.as_ref().unwrap());
    assert!(contents().any(|(row, _)| row.status == SagaStatus::Blocked));
    assert!(contents().any(|(_, events)| events.len() == 3));
    // Now each event has its position, which PostgreSQL gives a moment after the append.
    drop(whole_log(&*store).await);
    assert_eq!(live_page(&*store, None, u32::MAX).await, expected);
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = live_page(&*store, after, 7).await;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        paged.extend(page);
    }
    assert_eq!(paged, expected);
    for shard in ShardId::all() {
        let budget = PageBudget::items(u32::MAX);
        let of_shard = store.sagas().live(vec![shard], LiveSagas::All, None, budget).await.unwrap();
        let is_of_shard = |saga: &&LiveSaga| ShardId::of(saga.id) == shard;
        assert!(of_shard.iter().eq(expected.iter().filter(is_of_shard)));
        let which = LiveSagas::NotWaiting;
        let not_waiting = store.sagas().live(vec![shard], which, None, budget).await.unwrap();
        let waits = |saga: &&LiveSaga| {
            saga.content.as_ref().is_ok_and(|(row, _)| row.status == SagaStatus::Waiting)
        };
        let others = expected.iter().filter(is_of_shard).filter(|saga| !waits(saga));
        assert!(not_waiting.iter().eq(others));
    }
    let read = store.sagas().read(vec![saga_id(5), saga_id(1_000), saga_id(0)]).await.unwrap();
    let of = |id| LiveSaga {
        id,
        content: Ok((model.saga(id).unwrap().clone(), model.events(&Stream::Saga(id)))),
    };
    assert_eq!(read, [5, 0].map(|number| of(saga_id(number))));

    let mut ended = row(0);
    ended.status = SagaStatus::Completed;
    ended.ended_at = Some(at(9));
    store.append(Append { row: Some(ended), ..then(0, 3) }).await.unwrap();
    assert_eq!(live_page(&*store, None, u32::MAX).await, expected[1..]);
}

/// The sagas that wait are found by the time that the clock wakes them, and by their ids, as long as
/// they wait.
pub async fn finds_waiting_sagas(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let mut model = fill(&store, 40).await;
    let wakes = |number: u32| (!number.is_multiple_of(3)).then(|| at(100 - number));
    let mut changes = Vec::new();
    for number in 0..40 {
        let waiting =
            SagaRow { status: SagaStatus::Waiting, wake_at: wakes(number), ..row(number) };
        // It waits; then it goes on, or wakes later.
        changes.push(Append { row: Some(waiting.clone()), at: at(number + 7), ..then(number, 1) });
        let later = match number % 4 {
            0 => SagaRow { status: SagaStatus::Running, ..waiting },
            1 => SagaRow { wake_at: Some(at(50 + number)), ..waiting },
            _ => continue,
        };
        changes.push(Append { row: Some(later), ..then(number, 2) });
    }
    for append in changes {
        model.append(&append).unwrap();
        store.append(append).await.unwrap();
    }
    let all: Vec<_> = ShardId::all().collect();
    let waiting = store.sagas().waiting(all.clone(), None, u32::MAX).await.unwrap();
    assert_eq!(waiting, model.waiting());
    assert_eq!(store.sagas().count_waiting().await.unwrap(), waiting.len() as u64);
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = store.sagas().waiting(all.clone(), after, 7).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        paged.extend(page);
    }
    assert_eq!(paged, waiting);
    for until in [at(0), at(70), at(80), at(1_000)] {
        let expected = model.due(until);
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = store.sagas().due(all.clone(), until, after, 3).await.unwrap();
            after = page.last().copied().or(after);
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, expected);
    }
    assert!(model.due(at(1_000)).len() > 10, "it shows little");
    for shard in ShardId::all() {
        let of = |id: SagaId| ShardId::of(id) == shard;
        let due = store.sagas().due(vec![shard], at(1_000), None, u32::MAX).await.unwrap();
        assert!(due.into_iter().eq(model.due(at(1_000)).into_iter().filter(|(_, id)| of(*id))));
        let found = store.sagas().waiting(vec![shard], None, u32::MAX).await.unwrap();
        assert!(found.into_iter().eq(waiting.iter().copied().filter(|(id, _)| of(*id))));
    }
}

/// A page of live sagas ends once its events are large, and the next goes on behind it.
pub async fn limits_pages_of_live_sagas_by_bytes(location: &dyn StoreLocation) {
    const SAGAS: u32 = 9;
    let store = location.open().await.unwrap();
    let large = format!("\"{}\"", "x".repeat(EVENT_BYTES_MAX - 2));
    let per_page = LIVE_PAGE_BYTES_MAX / EVENT_BYTES_MAX;
    for number in 0..SAGAS {
        let mut append = start(number);
        append.events[0].data.clone_from(&large);
        store.append(append).await.unwrap();
    }
    let (mut ids, mut pages, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let page = live_page(&*store, after, 1_000).await;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        pages.push(page.len());
        ids.extend(page.iter().map(|saga| saga.id));
    }
    assert!(ids.into_iter().eq((0..SAGAS).map(saga_id)));
    assert_eq!(pages, [per_page, per_page, SAGAS as usize - 2 * per_page]);
}

/// A page of events ends before it is too large, has one event at least, and the next goes on
/// behind it: of a stream and of the log, over appends of one event and of many.
pub async fn limits_pages_of_events_by_bytes(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let sized = |bytes: usize| NewEvent {
        kind: "step.succeeded".into(),
        data: format!("\"{}\"", "x".repeat(bytes - 2)),
    };
    let (small, half, large) = (16, EVENTS_PAGE_BYTES_MAX / 2, EVENTS_PAGE_BYTES_MAX + (1 << 20));
    // One append, then one an event.
    let together = [half, half, small, large, small];
    let apart = [large, large, half, half, half];
    let events = together.map(sized).to_vec();
    store.append(Append { events, ..start(1) }).await.unwrap();
    for (bytes, expected) in apart.into_iter().zip(5..) {
        store.append(Append { events: vec![sized(bytes)], ..then(1, expected) }).await.unwrap();
    }
    let expected = [
        vec![half, half],
        vec![small],
        vec![large],
        vec![small],
        vec![large],
        vec![large],
        vec![half, half],
        vec![half],
    ];
    let (mut of_stream, mut of_log) = (Vec::new(), Vec::new());
    let (mut version, mut cursor) = (Version(0), Cursor::START);
    loop {
        let page = store
            .log()
            .stream(Stream::Saga(saga_id(1)), version, PageBudget::items(1_000))
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        version = last.version;
        of_stream.push(page.iter().map(|event| event.data.len()).collect::<Vec<_>>());
    }
    loop {
        let page = store.log().follow(cursor, PageBudget::items(1_000)).await.unwrap();
        if page.events.is_empty() {
            break;
        }
        cursor = page.next;
        of_log.push(page.events.iter().map(|event| event.data.len()).collect::<Vec<_>>());
    }
    assert_eq!(of_stream, expected);
    assert_eq!(of_log, expected);
    // The limit in items ends a page before that in bytes does.
    let page = store.log().follow(Cursor::START, PageBudget::items(1)).await.unwrap();
    assert_eq!(page.events.iter().map(|event| event.version.0).collect::<Vec<_>>(), [1]);
    // So does a smaller limit in bytes; one event it always has.
    let budget = PageBudget { items: 10, bytes: half };
    let page = store.log().follow(Cursor::START, budget).await.unwrap();
    assert_eq!(page.events.len(), 1);
    let page = store.log().stream(Stream::Saga(saga_id(1)), Version(3), budget).await.unwrap();
    assert_eq!(page.iter().map(|event| event.version.0).collect::<Vec<_>>(), [4]);
}

/// A later row changes what may change; what a saga began with stays.
pub async fn follows_rows(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let mut first = row(1);
    first.tags.insert("customer".to_owned(), "7".to_owned());
    first.key = Some("k".to_owned());
    // Its row comes with its second append.
    store.append(Append { row: None, ..start(1) }).await.unwrap();
    assert_eq!(store.sagas().row(first.id).await.unwrap(), None);
    store.append(Append { row: Some(first.clone()), ..then(1, 1) }).await.unwrap();
    assert_eq!(store.sagas().row(first.id).await.unwrap().as_ref(), Some(&first));

    let mut later = first.clone();
    later.status = SagaStatus::Compensated;
    later.reason = Some("out of stock".to_owned());
    later.ended_at = Some(at(60));
    later.deadline_at = None;
    later.wake_at = Some(at(61));
    let mut handed_in = later.clone();
    handed_in.tags.clear();
    handed_in.key = None;
    handed_in.definition = definition("other");
    store.append(Append { row: Some(handed_in), ..then(1, 2) }).await.unwrap();
    assert_eq!(store.sagas().row(first.id).await.unwrap().as_ref(), Some(&later));
    let tags = vec![("customer".to_owned(), "7".to_owned())];
    let query = SagaQuery { tags, limit: 10, ..SagaQuery::default() };
    assert_eq!(store.sagas().list(query).await.unwrap(), [later.clone()]);

    // An append without a row leaves it.
    store.append(then(1, 3)).await.unwrap();
    assert_eq!(store.sagas().row(first.id).await.unwrap(), Some(later));
}

/// The counts are those of the rows.
pub async fn counts_by_status(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    assert!(store.sagas().counts().await.unwrap().is_empty());
    let model = fill(&store, 45).await;
    assert_eq!(store.sagas().counts().await.unwrap(), model.counts());
}

/// Bytes come back by kind and digest; the first to keep them names them.
pub async fn keeps_blobs(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let component = |name: &str, number: u32, bytes: &[u8]| {
        let (name, bytes) = (name.to_owned(), bytes.to_vec());
        store.blobs().put(BlobKind::Component, name, digest(number), at(number), bytes)
    };
    let large: Vec<u8> = (0..3 << 20).map(|byte: u32| byte.to_be_bytes()[2]).collect();
    component("shipment", 2, &large).await.unwrap();
    component("inventory", 1, b"\0asm").await.unwrap();
    component("again", 1, b"\0asm").await.unwrap();
    component("empty", 3, b"").await.unwrap();
    let name = "order-fulfillment".to_owned();
    store.blobs().put(BlobKind::Definition, name, digest(1), at(1), b"{}".to_vec()).await.unwrap();
    store.close().await.unwrap();

    let store = location.open().await.unwrap();
    let blob = |kind, number| store.blobs().get(kind, digest(number));
    assert_eq!(blob(BlobKind::Component, 1).await.unwrap().as_deref(), Some(&b"\0asm"[..]));
    assert!(blob(BlobKind::Component, 2).await.unwrap() == Some(large), "the bytes have changed");
    assert_eq!(blob(BlobKind::Component, 3).await.unwrap(), Some(Vec::new()));
    assert_eq!(blob(BlobKind::Definition, 1).await.unwrap().as_deref(), Some(&b"{}"[..]));
    assert_eq!(blob(BlobKind::Definition, 2).await.unwrap(), None);
    let rows = store.blobs().list(BlobKind::Component).await.unwrap();
    let rows: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.digest, row.at)).collect();
    let expected = [("inventory", 1), ("shipment", 2), ("empty", 3)];
    assert_eq!(rows, expected.map(|(name, number)| (name, digest(number), at(number))));
    let sizes = store.blobs().list(BlobKind::Component).await.unwrap();
    let sizes: Vec<_> = sizes.iter().map(|row| row.bytes_len).collect();
    assert_eq!(sizes, [4, 3 << 20, 0]);
}

/// A blob that was stored or renewed since somebody decided to remove it stays.
pub async fn removes_blobs_that_nobody_renewed(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let blobs = store.blobs();
    let kind = BlobKind::Component;
    let put = |number, second| {
        let (name, bytes) = (format!("plugin-{number}"), vec![0; 100_000]);
        blobs.put(kind, name, digest(number), at(second), bytes)
    };
    for number in 1..=3 {
        put(number, 10).await.unwrap();
    }
    assert!(blobs.renew(kind, digest(2), at(20)).await.unwrap());
    assert!(!blobs.renew(BlobKind::Definition, digest(2), at(20)).await.unwrap());
    put(3, 20).await.unwrap();
    // A time that is earlier renews nothing.
    assert!(blobs.renew(kind, digest(2), at(1)).await.unwrap());
    for number in 1..=3 {
        assert!(!blobs.remove(kind, digest(number), at(10)).await.unwrap(), "{number}");
        let is_removed = blobs.remove(kind, digest(number), at(20)).await.unwrap();
        assert_eq!(is_removed, number == 1, "{number}");
    }
    assert!(!blobs.remove(kind, digest(1), at(20)).await.unwrap(), "it is removed already");
    assert!(!blobs.renew(kind, digest(1), at(30)).await.unwrap());
    assert_eq!(blobs.get(kind, digest(1)).await.unwrap(), None);
    assert_eq!(blobs.get(kind, digest(2)).await.unwrap(), Some(vec![0; 100_000]));
    let names: Vec<_> = blobs.list(kind).await.unwrap().into_iter().map(|row| row.name).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

/// A saga was live from its start until its end, and since its start when it has not ended.
pub async fn knows_whether_a_saga_was_live(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let any = |from, until| store.sagas().was_any_live(at(from), at(until));
    assert!(!any(0, 10_000).await.unwrap(), "there is none");
    store.append(start(100)).await.unwrap();
    let ended = SagaRow { status: SagaStatus::Completed, ended_at: Some(at(200)), ..row(100) };
    store.append(Append { row: Some(ended), ..then(100, 1) }).await.unwrap();
    for (from, until, was_live) in
        [(0, 100, false), (0, 101, true), (120, 130, true), (200, 300, true), (201, 300, false)]
    {
        assert_eq!(any(from, until).await.unwrap(), was_live, "{from} to {until}");
    }
    store.append(start(400)).await.unwrap();
    for (from, until, was_live) in [(201, 400, false), (201, 401, true), (9_000, 9_001, true)] {
        assert_eq!(any(from, until).await.unwrap(), was_live, "{from} to {until}");
    }
}

/// Readers of the log miss nothing: what they see is all up to the last position they see, and
/// at least what the head has promised.
pub async fn reads_no_gap_while_writing(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let writer = store.clone();
    let writing = tokio::spawn(async move {
        for round in 0..40 {
            let appends = (0..50).map(|number| writer.append(start(round * 50 + number)));
            for result in join_all(appends).await {
                result.unwrap();
            }
        }
    });
    let (mut cursor, mut position, mut reads) = (Cursor::START, Position(0), 0_u32);
    while position < Position(2_000) {
        let promised = *store.log().head().borrow();
        let page = store.log().follow(cursor, PageBudget::items(100)).await.unwrap();
        for event in &page.events {
            assert_eq!(event.position.0, position.0 + 1, "a gap in the log");
            position = event.position;
        }
        cursor = page.next;
        let is_promised = page.events.len() == 100 || cursor.0 >= promised.0;
        assert!(is_promised, "{cursor} read, {promised} promised");
        reads += 1;
        assert!(reads < 1_000_000, "the log does not move on");
    }
    writing.await.unwrap();
}
