//! Rebuilds: projections that are not what the events say, and become that beside appends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::{
    BackoffSpec, Call, Command, Definition, DefinitionSpec, Digest, Direction, Event, Failure,
    IndexValue, Input, Outcome, Payload, RetrySpec, Saga, SagaStatus, Start, StepKind, StepSpec,
    Timestamp, UndoSpec, Version, commands, decide_on,
};

use super::fixture::{at, saga_id, whole_stream};
use super::location::{StoreLocation, TestStore};
use crate::{
    Append, BlobKind, FailureQuery, FailureText, GroupBy, IndexCondition, NewEvent, RebuildPlace,
    RebuildSlice, SagaQuery, SagaRow, ShardId, StartKey, Store, Stream, ToArchive, failures,
};

/// A definition of three steps with undos, whose sagas are found by their customer and total.
#[must_use]
pub fn real_definition() -> Definition {
    let step = |name: &str, after: &[&str]| StepSpec {
        name: name.parse().unwrap(),
        kind: StepKind::Call { plugin: name.parse().unwrap(), service: None },
        after: after.iter().map(|name| name.parse().unwrap()).collect(),
        each: None,
        when: None,
        input: None,
        timeout: Duration::from_secs(1),
        retry: RetrySpec {
            attempts: 2,
            backoff: BackoffSpec::Listed(vec![Duration::from_mins(1)]),
        },
        undo: Some(UndoSpec {
            plugin: Some(name.parse().unwrap()),
            timeout: Duration::from_secs(1),
            retry: RetrySpec::default(),
        }),
        pivot: false,
    };
    let gross = ("gross", "double(input.total) * 1.19");
    let index = [("customer", "input.customer"), ("total", "input.total"), gross];
    let index = index.map(|(name, source)| (name.parse().unwrap(), source.to_owned()));
    Definition::new(DefinitionSpec {
        name: "order-fulfillment".parse().unwrap(),
        deadline: Some(Duration::from_hours(24)),
        compensate_within: None,
        index: index.into(),
        subject: None,
        personal: Vec::new(),
        steps: vec![step("reserve", &[]), step("pay", &["reserve"]), step("ship", &["pay"])],
    })
    .unwrap()
}

/// Puts the definition into a store, as a host does.
pub async fn put_definition(store: &dyn Store, definition: &Definition) {
    let (name, digest) = (definition.name().to_string(), definition.digest());
    let bytes = definition.canonical().into_bytes();
    store.blobs().put(BlobKind::Definition, name, digest, at(0), bytes).await.unwrap();
}

/// The appends of a saga as a host makes them: by its number it completes, is compensated, blocked,
/// waits, or is in flight.
#[must_use]
pub fn real_saga(definition: &Arc<Definition>, number: u32) -> Vec<Append> {
    let mut now = at(number);
    let key = format!("key-{number}");
    let input = format!(r#"{{"customer":"C-{}","total":{}}}"#, number % 3, number);
    let start = Start {
        id: saga_id(number),
        definition: Arc::clone(definition),
        input: Payload::parse(&input).unwrap(),
        key: Some(key.clone()),
        tags: BTreeMap::from([("country".to_owned(), (number % 2).to_string())]),
        traceparent: None,
        start_at: None,
        parent: None,
        sealed_key: None,
        who: None,
        personal: Vec::new(),
    };
    let start_key = StartKey::of(&key, definition.name(), &start.input);
    let (mut saga, mut events) = amends_engine::start(now, start);
    let (mut before, mut appends) = (None, Vec::new());
    loop {
        admit(&mut saga, now, &mut events);
        appends.push(append_of(before.as_ref(), now, &events, &saga));
        before = Some(saga.clone());
        let running = commands(&saga).find_map(|command| match command {
            Command::Run(call) => Some(call),
            Command::Start(_) | Command::CancelChild(_) | Command::Wake(_) => None,
        });
        let Some(call) = running.filter(|_| number % 6 != 5) else { break };
        now = now.after(Duration::from_millis(1_500));
        let input = Input::Outcome {
            outcome: outcome(number, &call),
            step: call.step,
            direction: call.direction,
            attempt: call.attempt,
            probe: None,
            emitted: Vec::new(),
        };
        events = decide_on(&mut saga, now, input).events;
    }
    appends[0].start_key = Some(start_key);
    appends
}

fn admit(saga: &mut Saga, now: Timestamp, events: &mut Vec<Event>) {
    loop {
        let due = commands(saga).find_map(|command| match command {
            Command::Start(due) if due.at.is_none_or(|at| at <= now) => Some(due),
            Command::Start(_) | Command::Run(_) | Command::CancelChild(_) | Command::Wake(_) => {
                None
            }
        });
        let Some(due) = due else { return };
        let digest = Digest::of(due.step.as_str().as_bytes());
        let (step, direction) = (due.step, due.direction);
        let input = Input::Admit { step, direction, digest, note: None, is_trial: false };
        events.extend(decide_on(saga, now, input).events);
    }
}

fn outcome(number: u32, call: &Call) -> Outcome {
    let failure = || Failure::new("no_route", format!("No route to 10.0.0.{}, naïve", number % 4));
    match (number % 6, call.step.as_str(), call.direction) {
        (1 | 2, "pay", Direction::Execute) => Outcome::Permanent(failure()),
        (2, "reserve", Direction::Compensate) => {
            Outcome::Permanent(Failure::new("gone", "the warehouse is gone"))
        }
        (3, "pay", Direction::Execute) => Outcome::Retryable(failure()),
        (4, "pay", Direction::Execute) => Outcome::Unknown(failure()),
        _ => Outcome::Succeeded(Payload::parse("{}").unwrap()),
    }
}

fn append_of(before: Option<&Saga>, now: Timestamp, events: &[Event], saga: &Saga) -> Append {
    let failures = failures(events, |step, direction| {
        let step = before?.step(step)?;
        match direction {
            Direction::Execute => step.digest,
            Direction::Compensate => step.undo_digest,
        }
    });
    let event = |event: &Event| NewEvent { kind: event.kind(), data: event.data() };
    Append {
        stream: Stream::Saga(saga.id()),
        expected: before.map_or(Version(0), Saga::version),
        at: now,
        events: events.iter().map(event).collect(),
        row: Some(SagaRow::of(saga)),
        failures,
        start_key: None,
        state: Vec::new(),
    }
}

/// Gives the appends of a saga what their events do not say.
fn spoil(appends: &mut [Append], number: u32) {
    for append in appends {
        if let Some(row) = append.row.as_mut() {
            match number % 7 {
                0 => row.status = SagaStatus::Waiting,
                1 => (row.reason, row.wake_at) = (Some("no reason".to_owned()), Some(at(1))),
                2 => row.tags = BTreeMap::from([("country".to_owned(), "9".to_owned())]),
                3 => {
                    let other = IndexValue::Text("C-99".to_owned());
                    row.index = BTreeMap::from([("customer".parse().unwrap(), other)]);
                }
                4 => row.definition = "another".parse().unwrap(),
                5 => (row.key, row.ended_at, row.deadline_at) = (None, Some(at(9)), None),
                _ => append.row = None,
            }
        }
        for failure in &mut append.failures {
            "unheard of".clone_into(&mut failure.text);
        }
        if number.is_multiple_of(2) {
            append.failures.clear();
        }
        // Blocked: a saga that ended long ago may have no key.
        if number % 6 == 2 {
            append.start_key = None;
        }
    }
}

/// Does every slice of a rebuild, and returns what they did.
pub async fn rebuild_all(store: &dyn Store) -> RebuildSlice {
    let (mut total, mut next) = (RebuildSlice::default(), Some(RebuildPlace::START));
    while let Some(place) = next {
        // As whoever writes the place down.
        let place = place.to_string().parse().unwrap();
        let slice = store.maintenance().rebuild(place).await.unwrap();
        total.sagas += slice.sagas;
        total.rebuilt += slice.rebuilt;
        total.removed += slice.removed;
        total.unreadable.extend(slice.unreadable);
        next = slice.next;
    }
    total
}

/// All that the projections of a store answer.
async fn dump(store: &dyn Store, sagas: u32) -> Vec<String> {
    let index = store.sagas();
    let all = SagaQuery { limit: u32::MAX, ..SagaQuery::default() };
    let failure = |failure| SagaQuery { failure, ..all.clone() };
    let words = |text| failure(FailureQuery { text: FailureText::new(text), ..Default::default() });
    let mut queries = vec![
        all.clone(),
        words("route"),
        words("unheard"),
        words("warehouse gone"),
        failure(FailureQuery { code: Some("gone".to_owned()), ..FailureQuery::default() }),
        failure(FailureQuery { step: "pay".parse().ok(), ..FailureQuery::default() }),
        SagaQuery { tags: vec![("country".to_owned(), "1".to_owned())], ..all.clone() },
        SagaQuery { tags: vec![("country".to_owned(), "9".to_owned())], ..all.clone() },
        SagaQuery { ended_after: Some(at(20)), ..all.clone() },
    ];
    for condition in ["customer=C-1", "customer=C-99", "total>=10"] {
        let index = vec![IndexCondition::parse(condition).unwrap()];
        queries.push(SagaQuery { index, ..all.clone() });
    }
    for status in SagaStatus::ALL {
        queries.push(SagaQuery { statuses: vec![*status], ..all.clone() });
    }
    let mut dump = Vec::new();
    for query in queries {
        dump.push(format!("{:?}", index.list(query.clone()).await.unwrap()));
    }
    let by = vec![GroupBy::Definition, GroupBy::Step, GroupBy::Code, GroupBy::Reason];
    dump.push(format!("{:?}", index.groups(all, by).await.unwrap()));
    let shards: Vec<_> = ShardId::all().collect();
    let waiting = index.waiting(shards.clone(), None, u32::MAX).await.unwrap();
    let due = index.due(shards, at(1_000_000), None, u32::MAX).await.unwrap();
    dump.push(format!("{waiting:?} {due:?} {:?}", index.counts().await.unwrap()));
    for number in 0..sagas {
        dump.push(format!("{:?}", index.key(format!("key-{number}")).await.unwrap()));
    }
    dump
}

const SAGAS: u32 = 84;

/// Rows that are not what the events say are found by a check, and are that after a rebuild: equal to
/// those of a store in which nothing was wrong. A second rebuild writes nothing.
pub async fn rebuilds_what_differs(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let definition = Arc::new(real_definition());
    put_definition(&*store, &definition).await;
    for number in 0..SAGAS {
        let mut appends = real_saga(&definition, number);
        if number % 3 != 0 {
            spoil(&mut appends, number);
        }
        for append in appends {
            store.append(append).await.unwrap();
        }
    }
    let wrong = dump(&*store, SAGAS).await;
    assert!(!store.maintenance().verify().await.unwrap().is_empty());
    let first = rebuild_all(&*store).await;
    assert!(first.rebuilt > 40, "{first:?}");
    assert_eq!((first.sagas, first.unreadable.len()), (SAGAS.into(), 0));
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    let rebuilt = dump(&*store, SAGAS).await;
    assert_ne!(rebuilt, wrong);
    let second = rebuild_all(&*store).await;
    assert_eq!((second.rebuilt, second.removed), (0, 0));
    assert_eq!(dump(&*store, SAGAS).await, rebuilt);
    store.close().await.unwrap();
    drop(store);

    // What a store has in which nothing was ever wrong.
    let store = location.open_empty().await.unwrap();
    put_definition(&*store, &definition).await;
    for number in 0..SAGAS {
        for append in real_saga(&definition, number) {
            store.append(append).await.unwrap();
        }
    }
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    assert_eq!(dump(&*store, SAGAS).await, rebuilt);
    store.close().await.unwrap();
}

/// A saga that comes back from the archive after its start key was removed has no key, and that is right.
pub async fn leaves_the_keys_that_were_removed(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let definition = Arc::new(real_definition());
    put_definition(&*store, &definition).await;
    for append in real_saga(&definition, 0) {
        store.append(append).await.unwrap();
    }
    let id = saga_id(0);
    let events = whole_stream(&*store, Stream::Saga(id)).await;
    let version = events.last().unwrap().version;
    let saga = ToArchive { id, version, after: None, is_late: false };
    assert_eq!(store.archive().archive(vec![saga]).await.unwrap().sagas, 1);
    assert_eq!(store.archive().remove_keys(at(1_000)).await.unwrap(), 1);
    assert!(store.archive().bring_back(id).await.unwrap());
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    let done = rebuild_all(&*store).await;
    assert_eq!((done.rebuilt, done.removed, done.unreadable.len()), (0, 0, 0));
    assert_eq!(store.sagas().key("key-0".to_owned()).await.unwrap(), None);
    store.close().await.unwrap();
}

/// A rebuild beside sagas that start and go on leaves each with the rows of its log.
pub async fn rebuilds_beside_appends(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let definition = Arc::new(real_definition());
    put_definition(&*store, &definition).await;
    let mut rest = Vec::new();
    for number in 0..SAGAS {
        let mut appends = real_saga(&definition, number).into_iter();
        let mut first: Vec<_> = appends.by_ref().take(1).collect();
        spoil(&mut first, number);
        store.append(first.remove(0)).await.unwrap();
        rest.push(appends.collect::<Vec<_>>());
    }
    let writer = tokio::spawn({
        let (store, definition) = (store.clone(), Arc::clone(&definition));
        async move { go_on(&store, &definition, rest).await }
    });
    while !writer.is_finished() {
        rebuild_all(&*store).await;
    }
    writer.await.unwrap();
    rebuild_all(&*store).await;
    assert_eq!(store.maintenance().verify().await.unwrap(), Vec::<String>::new());
    let rebuilt = dump(&*store, 2 * SAGAS).await;
    store.close().await.unwrap();
    drop(store);

    let store = location.open_empty().await.unwrap();
    put_definition(&*store, &definition).await;
    for number in 0..2 * SAGAS {
        for append in real_saga(&definition, number) {
            store.append(append).await.unwrap();
        }
    }
    assert_eq!(dump(&*store, 2 * SAGAS).await, rebuilt);
    store.close().await.unwrap();
}

/// Appends what is left of some sagas, in turn, and as many new ones.
async fn go_on(store: &TestStore, definition: &Arc<Definition>, mut rest: Vec<Vec<Append>>) {
    rest.extend((SAGAS..2 * SAGAS).map(|number| real_saga(definition, number)));
    while rest.iter().any(|appends| !appends.is_empty()) {
        for appends in &mut rest {
            if !appends.is_empty() {
                store.append(appends.remove(0)).await.unwrap();
            }
        }
    }
}
