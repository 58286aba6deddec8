//! A saga whose log is full: it is blocked, never ended, and an order lets it go on.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod host;

use amends_engine::{
    EachSpec, Input, LOG_EVENTS_LONG, Outcome, PAYLOAD_BYTES_MAX, Payload, SagaStatus, StepKind,
    StepSpec, Verb, WaitSpec, permits_signal, why,
};

use host::{Host, done, retry, retryable, serial};

const EVENTS_MAX: u64 = 50_000;
const EVENTS_MORE: u64 = 5_000;

/// a, then b for each of 60 elements, each of which fails again and again, then c.
fn fails_often() -> Host {
    let mut steps = serial();
    let list = format!("{:?}", (0..60).collect::<Vec<_>>());
    steps[1].each = Some(EachSpec { list, concurrency: 60 });
    steps[1].retry = retry(1_000, &[1]);
    let mut host = Host::start(steps);
    host.answer("a", done());
    host
}

/// Lets each call fail until no call runs, or the log has `events`.
fn fail_until(host: &mut Host, events: u64) {
    while host.saga.version().0 < events {
        let running = host.running();
        if running.is_empty() {
            return;
        }
        for call in running {
            host.answer(call.step.as_str(), retryable());
        }
        host.tick(1);
    }
}

fn version(host: &Host) -> u64 {
    host.saga.version().0
}

#[test]
fn a_saga_with_a_full_log_is_blocked_and_goes_on_by_order() {
    let mut host = fails_often();
    assert!(!why(&host.saga, host.now).sentence.contains("is long"));
    fail_until(&mut host, LOG_EVENTS_LONG);
    let told = why(&host.saga, host.now).sentence;
    assert!(told.contains("Its log is long: it has 10"), "{told}");
    assert!(told.contains("is full at 50000."), "{told}");

    host.told();
    fail_until(&mut host, u64::MAX);
    // No call begins, and what ran is recorded: at most one outcome a call, and the block.
    assert!((EVENTS_MAX..EVENTS_MAX + 62).contains(&version(&host)), "{}", version(&host));
    assert_eq!(host.saga.status(), SagaStatus::Blocked);
    let told = why(&host.saga, host.now);
    assert!(
        told.sentence.starts_with(
            "It is blocked and needs an operator: its log is full: it has 50000 events and "
        ),
        "{}",
        told.sentence
    );
    assert_eq!(told.verbs, ["retry", "resume", "cancel", "pause", "abandon"]);
    let words = host.told();
    assert_eq!(words.iter().filter(|word| *word == "saga.blocked").count(), 1);
    let before = version(&host);
    host.tick(10_000).tick(100_000);
    assert_eq!(version(&host), before, "time alone adds nothing");

    // Notes and a pause allow nothing.
    host.order(Verb::Note).order(Verb::Pause);
    assert!(host.running().is_empty());
    host.order(Verb::Resume);
    assert_eq!(host.saga.status(), SagaStatus::Running);
    assert_eq!(host.running().len(), 60);
    let resumed = version(&host);
    fail_until(&mut host, u64::MAX);
    assert_eq!(host.saga.status(), SagaStatus::Blocked);
    let more = version(&host) - resumed;
    assert!((EVENTS_MORE - 62..EVENTS_MORE + 62).contains(&more), "{more}");
}

#[test]
fn a_saga_with_a_full_log_is_undone_by_order() {
    let mut host = fails_often();
    fail_until(&mut host, u64::MAX);
    host.cancel();
    assert_eq!(host.saga.status(), SagaStatus::Compensating);
    host.answer("a", done());
    assert_eq!(host.saga.status(), SagaStatus::Compensated);
}

#[test]
fn a_saga_whose_last_call_fills_its_log_completes() {
    let mut host = fails_often();
    fail_until(&mut host, EVENTS_MAX - 200);
    for _ in 0..2 {
        for call in host.running() {
            host.answer(call.step.as_str(), done());
        }
    }
    assert_eq!(host.saga.status(), SagaStatus::Completed);
}

#[test]
fn a_log_is_full_by_its_bytes_too() {
    let mut steps = serial();
    steps[0].retry = retry(1_000, &[1_000]);
    steps.push(waiting_step());
    let mut host = Host::start(steps);
    let payload = format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX - 2));
    let edited = Verb::Retry {
        step: Some("a".parse().unwrap()),
        input: Some(Payload::parse(&payload).unwrap()),
        digest: None,
    };
    let mut edits = 0;
    while !host.running().is_empty() {
        host.answer("a", retryable()).order(edited.clone());
        edits += 1;
    }
    assert_eq!(edits, 64);
    assert_eq!(host.saga.status(), SagaStatus::Blocked);
    let refused = permits_signal(&host.saga, &"go".parse().unwrap()).unwrap_err().to_string();
    assert!(refused.contains("the log of the saga is full"), "{refused}");
    host.order(Verb::Resume);
    assert!(permits_signal(&host.saga, &"go".parse().unwrap()).is_ok());
    host.answer("a", done());
    assert_eq!(host.running()[0].step.as_str(), "b");
}

fn waiting_step() -> StepSpec {
    let wait = WaitSpec { signal: "go".parse().unwrap(), timeout: None };
    StepSpec { kind: StepKind::Wait { wait }, undo: None, ..host::step("w", &["c"]) }
}

#[test]
fn what_ran_when_the_log_became_full_is_recorded() {
    let mut host = fails_often();
    fail_until(&mut host, EVENTS_MAX - 60);
    let running = host.running();
    assert!(!running.is_empty());
    for call in &running {
        let (step, direction, attempt) = (call.step.clone(), call.direction, call.attempt);
        let outcome = Outcome::Succeeded(Payload::null());
        let emitted = Vec::new();
        host.feed(Input::Outcome { step, direction, attempt, outcome, probe: None, emitted });
    }
    for call in &running {
        let step = host.saga.step(&call.step).unwrap();
        assert_eq!(step.status.as_str(), "succeeded", "{}", call.step);
    }
}
