//! What a store may hold: any bytes in the place of a log or of a definition lead to an error or to
//! a state, never to a panic.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod host;

use std::sync::Arc;
use std::time::Duration;

use amends_engine::{
    Call, Command, Definition, DefinitionSpec, Digest, EachSpec, Event, Fate, Input, Order, Saga,
    SagaEvent, SagaId, Start, StepKind, StepSpec, Timestamp, Verb, WaitSpec, arguments, commands,
    decide, evolve, exposure, permits, replay, start, undo_plan, why,
};
use amends_fuzz::{Random, Shape, Target, change_json};

/// What the log of one saga is read with, and how long it is at most.
const LOG_BYTES_MAX: usize = 64 << 10;

const TIME_MAX: Duration = Duration::from_secs(2);

const ID: [u8; 16] = *b"\x01\x98\xc0\xde\0\0\x70\0\x80\0\0\0\0\0\0\x01";

fn definition(steps: Vec<StepSpec>) -> Arc<Definition> {
    let spec = DefinitionSpec {
        name: "test".parse().unwrap(),
        deadline: Some(Duration::from_hours(1)),
        compensate_within: Some(Duration::from_hours(1)),
        index: std::collections::BTreeMap::new(),
        subject: None,
        personal: Vec::new(),
        steps,
    };
    Arc::new(Definition::new(spec).unwrap())
}

/// One of each kind of step, and each kind of graph.
fn definitions() -> Vec<Arc<Definition>> {
    let wait = |name: &str, after: &[&str]| StepSpec {
        kind: StepKind::Wait {
            wait: WaitSpec {
                signal: "approved".parse().unwrap(),
                timeout: Some(Duration::from_secs(5)),
            },
        },
        undo: None,
        ..host::step(name, after)
    };
    let sleep = StepSpec {
        kind: StepKind::Sleep { sleep: Duration::from_secs(1) },
        undo: None,
        ..host::step("s", &["w"])
    };
    let child = StepSpec {
        kind: StepKind::Saga { saga: "child".parse().unwrap() },
        undo: host::step("c", &[])
            .undo
            .map(|undo| amends_engine::UndoSpec { plugin: None, ..undo }),
        ..host::step("c", &["s"])
    };
    let each = EachSpec { list: "input.items".to_owned(), concurrency: 2 };
    let list = StepSpec { each: Some(each), ..host::step("l", &["a"]) };
    let pivot = StepSpec { pivot: true, undo: None, ..host::step("p", &["l"]) };
    let after = StepSpec {
        undo: None,
        when: Some("steps.l.output[0].ok == true".to_owned()),
        ..host::step("z", &["p"])
    };
    vec![
        definition(host::serial()),
        definition(host::diamond()),
        definition(vec![wait("w", &[]), sleep, child]),
        definition(vec![host::step("a", &[]), list, pivot, after]),
    ]
}

/// A line of a log: its time, its type and its data.
fn line(at: Timestamp, kind: &str, data: &str) -> String {
    format!("{} {kind} {data}\n", at.as_millis())
}

/// A saga with a life of its own: calls that end in each way, signals, operators, clocks that are set.
fn life(definition: &Arc<Definition>, random: &mut Random) -> String {
    let mut now = Timestamp::from_millis(1_772_357_400_000);
    let input = amends_engine::Payload::parse(r#"{"items":[{"n":1},{"n":2},{"n":3}]}"#).unwrap();
    let what = Start {
        id: SagaId::from_bytes(ID),
        definition: Arc::clone(definition),
        input,
        key: Some("key".to_owned()),
        tags: [("region".to_owned(), "north".to_owned())].into(),
        traceparent: None,
        start_at: None,
        parent: None,
        sealed_key: None,
        who: None,
        personal: Vec::new(),
    };
    let (mut saga, events) = start(now, what);
    let mut text: String =
        events.iter().map(|event| line(now, &event.kind(), &event.data())).collect();
    for _ in 0..40 {
        let input = happening(&saga, now, random);
        for event in decide(&saga, now, input) {
            evolve(&mut saga, now, &event).unwrap();
            text += &line(now, &event.kind(), &event.data());
        }
        now = if random.once_in(20) {
            Timestamp::from_millis(now.as_millis() - 60_000)
        } else {
            now.after(Duration::from_millis(random.below(2_000) as u64))
        };
    }
    text
}

fn happening(saga: &Saga, now: Timestamp, random: &mut Random) -> Input {
    let all: Vec<Command> = commands(saga).collect();
    if !all.is_empty() && !random.once_in(6) {
        return match random.pick(&all).clone() {
            Command::Start(due) if due.at.is_none_or(|at| at <= now) => Input::Admit {
                step: due.step,
                direction: due.direction,
                digest: Digest::of(b"x"),
                note: None,
                is_trial: random.once_in(8),
            },
            Command::Run(call) => answered(call, random),
            Command::Start(_) | Command::Wake(_) | Command::CancelChild(_) => Input::Tick,
        };
    }
    let name = saga.steps().map(|step| step.name.clone()).nth(random.below(4));
    let payload = || amends_engine::Payload::parse(r#"{"by":"ada"}"#).unwrap();
    let verb = match random.below(12) {
        0 => Verb::Cancel,
        1 => Verb::Compensate,
        2 => Verb::Pause,
        3..=4 => Verb::Resume,
        5..=6 => Verb::Retry {
            step: name,
            input: random.once_in(2).then(payload),
            digest: random.once_in(2).then(|| Digest::of(b"y")),
        },
        7 => Verb::Skip { step: name, undo: random.once_in(2) },
        8 => Verb::Resolve {
            step: name,
            happened: random.once_in(2),
            output: random.once_in(2).then(payload),
            evidence: "seen".to_owned(),
            undo: random.once_in(2),
        },
        9 if random.once_in(4) => Verb::Abandon,
        9 if random.once_in(3) => Verb::Note,
        _ => {
            return Input::Signal {
                name: "approved".parse().unwrap(),
                id: random.once_in(2).then(|| "one".to_owned()),
                payload: payload(),
                who: random.once_in(2).then(|| "ada@127.0.0.1".to_owned()),
            };
        }
    };
    Input::Operate(host::order(verb))
}

fn answered(call: Call, random: &mut Random) -> Input {
    let outcome = match random.below(6) {
        0 => host::permanent(),
        1 => host::retryable(),
        2 => host::unknown(),
        _ => host::done(),
    };
    Input::Outcome {
        step: call.step,
        direction: call.direction,
        attempt: call.attempt,
        outcome,
        probe: random.once_in(8).then_some(Fate::DidNotHappen),
        emitted: Vec::new(),
    }
}

/// Changes the data of one event, and leaves it JSON.
fn change_log(random: &mut Random, input: &mut Vec<u8>, words: &[&str]) {
    let lines: Vec<&[u8]> = input.split_inclusive(|byte| *byte == b'\n').collect();
    if lines.is_empty() {
        return;
    }
    let chosen = random.below(lines.len());
    let Some(data) = lines[chosen].splitn(3, |byte| *byte == b' ').nth(2) else { return };
    let mut changed = data.to_vec();
    if change_json(random, &mut changed, words) {
        let before = &lines[chosen][..lines[chosen].len() - data.len()];
        let changed = [before, &changed, b"\n"].concat();
        let (earlier, later) = (lines[..chosen].concat(), lines[chosen + 1..].concat());
        *input = [earlier, changed, later].concat();
    }
}

#[test]
fn any_log_is_an_error_or_a_state() {
    let definitions = definitions();
    let mut random = Random::new(1);
    let mut seeds: Vec<Vec<u8>> = (0..24)
        .map(|number| life(&definitions[number % definitions.len()], &mut random).into_bytes())
        .collect();
    let golden = include_str!("golden/events.ndjson").lines();
    let golden = golden.map(|line| format!("1772357400000 {line}\n"));
    seeds.push(golden.collect::<String>().into_bytes());
    let digests: Vec<String> = definitions.iter().map(|one| one.digest().to_string()).collect();
    let mut words: Vec<&str> = Event::KINDS.to_vec();
    words.extend([
        "a",
        "b",
        "c",
        "l",
        "l[0]",
        "l[2]",
        "l[18446744073709551615]",
        "p",
        "z",
        "w",
        "s",
        "retryable",
        "permanent",
        "unknown",
        "happened",
        "did_not_happen",
        "unclear",
        "step_failed",
        "deadline",
        "cancelled",
        "step",
        "attempt",
        "output",
        "retry_at",
        "digest",
        "child",
        "trial",
        "probe",
        "items",
        "until",
        "note",
        "class",
        "error",
        "payload",
        "order.made",
        "2026-03-01T09:30:00.000Z",
        "9999-12-30T22:00:00Z",
        "-009999-01-02T01:59:59Z",
        "9223372036854775807",
        "-9223372036854775808",
        "01980000-0000-7000-8000-000000000000",
    ]);
    words.extend(digests.iter().map(String::as_str));
    Target {
        name: "events",
        seeds,
        words: &words,
        shape: Shape::Own(change_log),
        bytes_max: LOG_BYTES_MAX,
        time_max: TIME_MAX,
    }
    .run(|input| read_log(&definitions, input));
}

/// Reads what can be read of a log, and looks at the saga as a host does.
fn read_log(definitions: &[Arc<Definition>], input: &[u8]) -> String {
    let mut outcome = String::new();
    let mut accepted: Vec<(Timestamp, Event)> = Vec::new();
    let mut saga: Option<Saga> = None;
    for text in String::from_utf8_lossy(input).lines() {
        let mut parts = text.splitn(3, ' ');
        let at = parts.next().and_then(|at| at.parse().ok()).unwrap_or_default();
        let at = Timestamp::from_millis(at);
        let (kind, data) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let event = match Event::decode(kind, data) {
            Ok(event) => event,
            Err(error) => {
                outcome = error.to_string();
                continue;
            }
        };
        assert_same(&event);
        if let Some(saga) = &mut saga {
            let before = saga.version();
            match evolve(saga, at, &event) {
                Ok(()) => accepted.push((at, event)),
                Err(error) => {
                    assert_eq!(saga.version(), before);
                    outcome = error.message;
                }
            }
        } else if let Event::Saga(SagaEvent::Started(started)) = &event {
            let digest = started.definition_digest;
            let definition = definitions.iter().find(|one| one.digest() == digest);
            let definition = definition.unwrap_or(&definitions[0]);
            match replay(SagaId::from_bytes(ID), Arc::clone(definition), [(at, &event)]) {
                Ok(new) => {
                    saga = Some(new);
                    accepted.push((at, event));
                }
                Err(error) => outcome = error.message,
            }
        }
    }
    let Some(saga) = saga else { return outcome };
    let log = accepted.iter().map(|(at, event)| (*at, event));
    let again = replay(saga.id(), Arc::clone(saga.definition()), log).unwrap();
    assert_eq!(format!("{saga:?}"), format!("{again:?}"), "an event that was refused changed it");
    look(&saga, accepted.last().map(|(at, _)| *at).unwrap_or_default());
    let states: Vec<_> = saga.steps().map(|step| step.status.to_string()).collect();
    format!("{} {} {outcome}", saga.status(), states.join(" "))
}

/// What was read is written so that it is read as the same.
fn assert_same(event: &Event) {
    let (kind, data) = (event.kind(), event.data());
    let again = Event::decode(&kind, &data);
    assert_eq!(again.as_ref(), Ok(event), "{kind} {data}");
    assert!(!data.contains('\n'), "{data}");
}

/// All that a host asks of a saga that it has read.
fn look(saga: &Saga, at: Timestamp) {
    let _ = (saga.wake_at(), saga.output(), saga.reason(), saga.deadline_at(), saga.memory_bytes());
    let _ = (undo_plan(saga), exposure(saga), why(saga, at));
    for command in commands(saga) {
        if let Command::Run(call) = command {
            // That it has no input is an answer.
            let _ = arguments(saga, &call);
        }
    }
    for event in decide(saga, at, Input::Tick) {
        assert_same(&event);
    }
    for verb in
        [Verb::Cancel, Verb::Compensate, Verb::Pause, Verb::Resume, Verb::Note, Verb::Abandon]
    {
        let order: Order = host::order(verb);
        let _ = permits(saga, at, &order);
        for event in decide(saga, at, Input::Operate(order)) {
            assert_same(&event);
        }
    }
}

#[test]
fn any_definition_is_an_error_or_one_with_a_canonical_form() {
    let mut seeds: Vec<Vec<u8>> =
        definitions().iter().map(|one| one.canonical().into_bytes()).collect();
    seeds.push(include_bytes!("golden/definition.json").to_vec());
    let words = [
        "name",
        "deadline",
        "compensate_within",
        "steps",
        "plugin",
        "service",
        "wait",
        "signal",
        "timeout",
        "sleep",
        "saga",
        "after",
        "each",
        "list",
        "concurrency",
        "when",
        "input",
        "retry",
        "attempts",
        "backoff",
        "listed",
        "exponential",
        "initial",
        "factor",
        "max",
        "jitter",
        "undo",
        "pivot",
        "input.a == 1",
        "steps.a.output",
        "item.n",
        "index",
        "[1,2].map(x, x)",
        "a",
        "b",
        "c",
        "'",
        "input",
        "has(input.x)",
    ];
    Target {
        name: "definitions",
        seeds,
        words: &words,
        shape: Shape::Json,
        bytes_max: LOG_BYTES_MAX,
        time_max: TIME_MAX,
    }
    .run(|input| match Definition::from_canonical(&String::from_utf8_lossy(input)) {
        Ok(definition) => {
            let canonical = definition.canonical();
            let again = Definition::from_canonical(&canonical).unwrap();
            assert_eq!(again.spec(), definition.spec());
            assert_eq!((again.canonical(), again.digest()), (canonical, definition.digest()));
            format!("{} steps", "x".repeat(definition.steps().len()))
        }
        Err(error) => error,
    });
}
