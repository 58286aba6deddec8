//! Lists of sagas by what failed in them, by several tags, and by when they ended.

use amends_engine::{
    Event, Failure, FailureClass, SagaBlocked, SagaId, SagaStatus, StepFailed, StepName,
    StepStarted, StepUnknown, UndoBlocked, UndoStarted, Version,
};

use super::fixture::{at, definition, digest, row, saga_id, start, whole_stream};
use super::location::{StoreLocation, TestStore};
use super::model::Model;
use crate::{
    Append, DigestPart, FailureQuery, FailureText, GROUPS_MAX, GroupBy, NewEvent, SagaQuery, Store,
    Stream, ToArchive, failures,
};

/// A failure of a step, and perhaps of its undo, so that the saga is blocked. All of it is a function
/// of the number.
#[must_use]
pub fn failing(number: u32) -> Vec<Event> {
    let step = |name: &str| -> StepName { name.parse().unwrap() };
    let first = step(["payment", "seat[3]", "seat[11]"][number as usize % 3]);
    let error = Failure::new(
        ["declined", "carrier_down"][number as usize % 2],
        format!("No route to 10.0.0.{}, naïve", number % 4),
    );
    let (attempt, class) = (1, FailureClass::Retryable);
    let started = StepStarted {
        step: first.clone(),
        attempt,
        digest: digest(number % 5),
        child: None,
        trial: false,
    };
    let (retry_at, probe) = (None, None);
    let mut events = vec![Event::from(started)];
    events.push(if number % 4 == 1 {
        StepUnknown { step: first.clone(), attempt, error: error.clone(), retry_at, probe }.into()
    } else {
        let error = error.clone();
        StepFailed { step: first.clone(), attempt, class, error, retry_at, probe }.into()
    });
    if number.is_multiple_of(2) {
        let (step, digest) = (step("inventory"), digest(7));
        events.extend([
            UndoStarted { step: step.clone(), attempt, digest, note: None, trial: false }.into(),
            UndoBlocked { step: step.clone(), attempt, class, error, probe: None }.into(),
            SagaBlocked { step: Some(step), reason: format!("undo {number} failed") }.into(),
        ]);
    }
    events
}

/// Returns an append of these events to a saga.
#[must_use]
pub fn then_failing(number: u32, version: u64, events: &[Event]) -> Append {
    let new = |event: &Event| NewEvent { kind: event.kind(), data: event.data() };
    Append {
        expected: Version(version),
        events: events.iter().map(new).collect(),
        failures: failures(events, |_, _| None),
        row: None,
        ..start(number)
    }
}

/// Sagas of which every second has failures, with tags; some have ended.
async fn fill(store: &TestStore, sagas: u32) -> Model {
    let mut model = Model::default();
    for number in 0..sagas {
        let mut begin = start(number);
        let tags = &mut begin.row.as_mut().unwrap().tags;
        tags.insert("customer".to_owned(), (number % 3).to_string());
        tags.insert("country".to_owned(), (number % 2).to_string());
        let mut appends = vec![begin];
        if number.is_multiple_of(2) {
            let events = failing(number / 2);
            let is_blocked = number % 4 == 0;
            let status = if is_blocked { SagaStatus::Blocked } else { SagaStatus::Compensated };
            // Some live for long, the others for seconds.
            let life = if number % 10 == 6 { 50_000 } else { number };
            let ended_at = (!is_blocked).then(|| at(number + life));
            let changed = row(number);
            let row = Some(crate::SagaRow { status, ended_at, ..changed });
            appends.push(Append { row, ..then_failing(number, 1, &events) });
        }
        for append in appends {
            model.append(&append).unwrap();
            store.append(append).await.unwrap();
        }
    }
    model
}

fn queries() -> Vec<FailureQuery> {
    let step = |name: &str| FailureQuery { step: name.parse().ok(), ..FailureQuery::default() };
    let code = |code: &str| FailureQuery { code: Some(code.to_owned()), ..FailureQuery::default() };
    let text =
        |text: &str| FailureQuery { text: FailureText::new(text), ..FailureQuery::default() };
    let part = |number, digits: usize| {
        let text = digest(number).to_string();
        let digest = DigestPart::new(&text["sha256:".len()..][..digits]);
        assert!(digest.is_some());
        FailureQuery { digest, ..FailureQuery::default() }
    };
    vec![
        FailureQuery::default(),
        step("payment"),
        step("seat"),
        step("seat[3]"),
        step("inventory"),
        step("nothing"),
        code("carrier_down"),
        code(""),
        text("NO route"),
        text("10.0.0.2"),
        text("naïve carri*"),
        text("undo 4 failed"),
        text("nothing"),
        part(3, 8),
        part(3, 9),
        part(7, 64),
        part(99, 8),
        // The step failed with one code and the undo with another word: not of one failure.
        FailureQuery { code: code("declined").code, ..step("inventory") },
        FailureQuery { digest: part(7, 8).digest, ..step("payment") },
        FailureQuery { code: code("declined").code, ..text("0.0.2") },
        FailureQuery { digest: part(7, 8).digest, step: step("inventory").step, ..text("route") },
    ]
}

/// Each filter on failures alone and with others, in pages: the same sagas as by looking at all.
pub async fn lists_by_failures(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let model = fill(&store, 60).await;
    let tag = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let tags =
        [vec![], vec![tag("customer", "1")], vec![tag("customer", "1"), tag("country", "0")]];
    let statuses = [vec![], vec![SagaStatus::Blocked, SagaStatus::Running]];
    let (mut found, mut failed) = (0, 0);
    for failure in queries() {
        for tags in &tags {
            for statuses in &statuses {
                for name in [None, Some(definition("order-fulfillment"))] {
                    let mut query = SagaQuery {
                        statuses: statuses.clone(),
                        definition: name,
                        tags: tags.clone(),
                        failure: failure.clone(),
                        limit: 4,
                        ..SagaQuery::default()
                    };
                    let mut paged = Vec::new();
                    loop {
                        let page = store.sagas().list(query.clone()).await.unwrap();
                        assert_eq!(page, model.list(&query), "{query:?}");
                        let Some(last) = page.last() else { break };
                        query.before = Some(last.id);
                        paged.extend(page);
                    }
                    found += paged.len();
                    failed += usize::from(!failure.is_empty() && !paged.is_empty());
                }
            }
        }
    }
    assert!(found > 500 && failed > 60, "it shows little: {found}, {failed}");
    store.close().await.unwrap();
}

/// A page that is read later has no saga of an earlier page, and misses none that was there, while
/// sagas fail and are retried.
pub async fn keeps_cursors_while_sagas_fail(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    fill(&store, 40).await;
    let failure = FailureQuery { code: Some("carrier_down".to_owned()), ..FailureQuery::default() };
    let mut query = SagaQuery { failure, limit: 3, ..SagaQuery::default() };
    let all = store.sagas().list(SagaQuery { limit: 100, ..query.clone() }).await.unwrap();
    assert!(all.len() > 6, "{all:?}");
    let (mut paged, mut next) = (Vec::new(), 41);
    loop {
        let page = store.sagas().list(query.clone()).await.unwrap();
        let Some(last) = page.last() else { break };
        query.before = Some(last.id);
        paged.extend(page);
        // A newer saga fails, and one of the page fails again.
        store.append(start(next)).await.unwrap();
        store.append(then_failing(next, 1, &failing(1))).await.unwrap();
        next += 2;
    }
    assert_eq!(paged, all);
    store.close().await.unwrap();
}

/// A failure replaces the one before of the same step and call, for every filter.
pub async fn keeps_the_last_failure_of_a_call(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let event = |code: &str| {
        let error = Failure::new(code, format!("because of {code}"));
        let (step, class) = ("payment".parse().unwrap(), FailureClass::Retryable);
        Event::from(StepFailed { step, attempt: 0, class, error, retry_at: None, probe: None })
    };
    store.append(start(1)).await.unwrap();
    store.append(then_failing(1, 1, &[event("first"), event("second")])).await.unwrap();
    store.append(then_failing(1, 3, &[event("third")])).await.unwrap();
    for (word, is_found) in [("first", false), ("second", false), ("third", true)] {
        let text = FailureText::new(&format!("because {word}"));
        let by_text = FailureQuery { text, ..FailureQuery::default() };
        let by_code = FailureQuery { code: Some(word.to_owned()), ..FailureQuery::default() };
        for failure in [by_text, by_code] {
            let query = SagaQuery { failure, limit: 9, ..SagaQuery::default() };
            assert_eq!(store.sagas().list(query).await.unwrap().len(), usize::from(is_found));
        }
    }
    // A failure is of an event of a saga.
    let mut wrong = then_failing(1, 4, &[event("fourth")]);
    wrong.events.truncate(0);
    wrong.events.push(super::event(1));
    wrong.failures[0].event = 1;
    assert!(matches!(store.append(wrong).await, Err(crate::StoreError::Invalid(_))));
    store.close().await.unwrap();
}

/// Sagas are found by when they ended, also those that lived for long, here and in the archive.
pub async fn lists_by_end(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let model = fill(&store, 60).await;
    let times =
        [None, Some(at(0)), Some(at(40)), Some(at(100)), Some(at(50_010)), Some(at(90_000))];
    let mut found = 0;
    for ended_after in times {
        for ended_before in times {
            for failure in [FailureQuery::default(), queries()[2].clone()] {
                let query = SagaQuery {
                    ended_after,
                    ended_before,
                    failure,
                    limit: 100,
                    ..SagaQuery::default()
                };
                let listed = store.sagas().list(query.clone()).await.unwrap();
                assert_eq!(listed, model.list(&query), "{query:?}");
                found += listed.len();
            }
        }
    }
    assert!(found > 100, "it shows little: {found}");
    let sought = SagaQuery { ended_after: Some(at(50_000)), limit: 100, ..SagaQuery::default() };
    let late: Vec<_> = model.list(&sought).into_iter().map(|row| row.id).collect();
    assert!(!late.is_empty());
    let mut all = Vec::new();
    for id in &late {
        all.push(to_archive(&*store, *id).await);
    }
    assert_eq!(store.archive().archive(all).await.unwrap().sagas, late.len() as u64);
    let listed = store.archive().list(sought.clone()).await.unwrap();
    assert_eq!(listed.into_iter().map(|saga| saga.id).collect::<Vec<_>>(), late);
    let before = SagaQuery { ended_before: Some(at(50_000)), ended_after: None, ..sought };
    assert_eq!(store.archive().list(before).await.unwrap(), []);
    store.close().await.unwrap();
}

/// A saga as it is, to be archived.
async fn to_archive(store: &dyn Store, id: SagaId) -> ToArchive {
    let events = whole_stream(store, Stream::Saga(id)).await;
    let version = events.last().map_or(Version(0), |event| event.version);
    ToArchive { id, version, after: None, is_late: false }
}

/// The failures of an archived saga leave with it and come back with it.
pub async fn archives_failures(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let model = fill(&store, 30).await;
    let (ended, blocked) = (saga_id(22), saga_id(20));
    let all = vec![to_archive(&*store, ended).await, to_archive(&*store, blocked).await];
    assert_eq!(store.archive().archive(all).await.unwrap().sagas, 1);
    for is_back in [false, true] {
        if is_back {
            assert!(store.archive().bring_back(ended).await.unwrap());
        }
        for failure in queries() {
            let query = SagaQuery { failure, limit: 100, ..SagaQuery::default() };
            let mut expected = model.list(&query);
            expected.retain(|row| is_back || row.id != ended);
            assert_eq!(store.sagas().list(query).await.unwrap(), expected);
        }
    }
    store.close().await.unwrap();
}

/// Counts by each thing that sagas have in common, and by pairs, with filters: the same as by looking
/// at all sagas.
pub async fn counts_groups(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let model = fill(&store, 60).await;
    let mut by_sets: Vec<Vec<GroupBy>> = GroupBy::WORDS.into_iter().map(|by| vec![by]).collect();
    by_sets.extend([
        vec![],
        vec![GroupBy::Step, GroupBy::Code],
        vec![GroupBy::Status, GroupBy::Code],
    ]);
    let mut several = 0;
    for failure in queries() {
        for statuses in [vec![], vec![SagaStatus::Blocked, SagaStatus::Running]] {
            for tags in [vec![], vec![("customer".to_owned(), "1".to_owned())]] {
                let query = SagaQuery {
                    statuses: statuses.clone(),
                    failure: failure.clone(),
                    tags,
                    limit: u32::MAX,
                    ..SagaQuery::default()
                };
                for by in &by_sets {
                    let found = store.sagas().groups(query.clone(), by.clone()).await.unwrap();
                    let expected = model.groups(&query, by);
                    assert_eq!(found, expected, "{by:?} {query:?}");
                    several += usize::from(found.groups.len() > 1);
                }
            }
        }
    }
    assert!(several > 30, "it shows little: {several}");
    store.close().await.unwrap();
}

/// More groups than an answer has are counted, and the largest are in it.
pub async fn limits_groups(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let groups = u32::try_from(GROUPS_MAX).unwrap() + 20;
    for number in 0..groups + 5 {
        let mut append = start(number);
        // The first six have one reason.
        append.row.as_mut().unwrap().reason = Some(format!("reason {}", number.saturating_sub(5)));
        store.append(append).await.unwrap();
    }
    let all = SagaQuery { limit: 1, ..SagaQuery::default() };
    let found = store.sagas().groups(all, vec![GroupBy::Reason]).await.unwrap();
    assert_eq!((found.sagas, found.more), (u64::from(groups) + 5, 20));
    assert_eq!(found.groups.len(), GROUPS_MAX);
    let largest = &found.groups[0];
    assert_eq!((largest.sagas, largest.example, largest.oldest), (6, saga_id(0), at(0)));
    assert_eq!(largest.values, [Some("reason 0".to_owned())]);
    store.close().await.unwrap();
}
