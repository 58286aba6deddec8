//! Work to be counted: does one thing so many times. `tests/counts.rs` runs it under callgrind and
//! compares the instructions of one time with what is committed.
//!
//! `counts WHAT TIMES`

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::{
    BackoffSpec, Command, Definition, DefinitionSpec, Digest, Direction, Event, Input, Outcome,
    Payload, RetrySpec, Saga, SagaId, Start, StepKind, StepName, StepSpec, Timestamp, UndoSpec,
    Version, commands, decide, decide_on, evolve, start,
};
use amends_store::{Append, Durability, NewEvent, OwnedShards, SqliteStore, Store as _, Stream};

const AT: Timestamp = Timestamp::from_millis(1_767_225_600_000);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap();
    let times: u32 = arguments.next().unwrap().parse().unwrap();
    let (definition, long) = (definition(3), definition(100));
    match what.as_str() {
        "decide" => {
            let (saga, _) = started(&definition);
            repeat(times, || {
                let decided = decide(&saga, AT, outcome(&definition.steps()[0].name));
                assert_eq!(decided.len(), 1);
                decided
            });
        }
        "evolve" => {
            let (saga, _) = started(&definition);
            let decided = decide(&saga, AT, outcome(&definition.steps()[0].name));
            repeat(times, || {
                let mut saga = saga.clone();
                evolve(&mut saga, AT, &decided[0]).unwrap();
                saga
            });
        }
        "commands" => {
            let (saga, _) = started(&definition);
            repeat(times, || commands(&saga).count());
        }
        "encode" => {
            let (_, events) = started(&definition);
            repeat(times, || events.iter().map(Event::data).collect::<Vec<_>>());
        }
        "saga of 3 steps" => repeat(times, || run(&definition)),
        "saga of 100 steps" => repeat(times, || run(&long)),
        "append" => append(times, &definition),
        other => panic!("`{other}` is nothing that is counted"),
    }
}

fn repeat<T>(times: u32, mut work: impl FnMut() -> T) {
    for _ in 0..times {
        drop(black_box(work()));
    }
}

/// Steps one after the other, each with an undo.
fn definition(steps: usize) -> Arc<Definition> {
    let timeout = Duration::from_secs(30);
    let retry =
        || RetrySpec { attempts: 3, backoff: BackoffSpec::Listed(vec![Duration::from_secs(1)]) };
    let name = |step: usize| -> StepName { format!("step-{step}").parse().unwrap() };
    let step = |step: usize| StepSpec {
        name: name(step),
        kind: StepKind::Call { plugin: "trivial".parse().unwrap(), service: None },
        after: step.checked_sub(1).map(name).into_iter().collect(),
        each: None,
        when: None,
        input: None,
        timeout,
        retry: retry(),
        undo: Some(UndoSpec { plugin: None, timeout, retry: retry() }),
        pivot: false,
    };
    Arc::new(
        Definition::new(DefinitionSpec {
            name: "order".parse().unwrap(),
            deadline: None,
            compensate_within: None,
            index: std::collections::BTreeMap::new(),
            subject: None,
            personal: Vec::new(),
            steps: (0..steps).map(step).collect(),
        })
        .unwrap(),
    )
}

fn outcome(step: &StepName) -> Input {
    Input::Outcome {
        step: step.clone(),
        direction: Direction::Execute,
        attempt: 1,
        outcome: Outcome::Succeeded(Payload::parse(r#"{"number":"N-0011223344556677"}"#).unwrap()),
        emitted: Vec::new(),
        probe: None,
    }
}

/// A saga whose first step was admitted, and the events of its first append.
fn started(definition: &Arc<Definition>) -> (Saga, Vec<Event>) {
    let (mut saga, mut events) = start(
        AT,
        Start {
            id: SagaId::from_parts(AT, &[7; 10]),
            definition: Arc::clone(definition),
            input: Payload::parse(r#"{"order_id":"ORD-2026-000001"}"#).unwrap(),
            key: None,
            tags: BTreeMap::new(),
            traceparent: None,
            start_at: None,
            parent: None,
            sealed_key: None,
            who: None,
            personal: Vec::new(),
        },
    );
    events.extend(admit(&mut saga));
    (saga, events)
}

/// As a shard does.
fn admit(saga: &mut Saga) -> Vec<Event> {
    let due: Vec<_> = commands(saga)
        .filter_map(|command| match command {
            Command::Start(due) => Some(due),
            Command::Run(_) | Command::CancelChild(_) | Command::Wake(_) => None,
        })
        .collect();
    due.into_iter()
        .flat_map(|due| {
            let (step, direction) = (due.step, due.direction);
            let digest = Digest::from_bytes([1; 32]);
            let input = Input::Admit { step, direction, digest, note: None, is_trial: false };
            decide_on(saga, AT, input).events
        })
        .collect()
}

/// A whole saga, decided on and encoded as a shard does it, without store and calls.
fn run(definition: &Arc<Definition>) -> usize {
    let (mut saga, events) = started(definition);
    let mut bytes: usize = events.iter().map(|event| event.data().len()).sum();
    for step in definition.steps() {
        let mut draft = saga.clone();
        let mut events = decide_on(&mut draft, AT, outcome(&step.name)).events;
        events.extend(admit(&mut draft));
        bytes += events.iter().map(|event| event.data().len()).sum::<usize>();
        saga = draft;
        assert!(saga.has_ended() || commands(&saga).count() > 0);
    }
    assert!(saga.has_ended());
    bytes
}

/// Appends to one stream after the other, each in a transaction of its own.
fn append(times: u32, definition: &Arc<Definition>) {
    let (_, events) = started(definition);
    let events: Vec<_> =
        events.iter().map(|event| NewEvent { kind: event.kind(), data: event.data() }).collect();
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("amends.db"), Durability::Relaxed).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let shards = OwnedShards::gain(store.ownership()).await.unwrap();
        for number in 0..times {
            let mut random = [0; 10];
            random[..4].copy_from_slice(&number.to_be_bytes());
            let append = Append {
                stream: Stream::Saga(SagaId::from_parts(AT, &random)),
                expected: Version(0),
                at: AT,
                events: events.clone(),
                row: None,
                failures: Vec::new(),
                start_key: None,
                state: Vec::new(),
            };
            shards.append(append).await.unwrap();
        }
        store.close().await.unwrap();
    });
}
