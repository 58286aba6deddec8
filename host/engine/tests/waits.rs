//! Steps that wait for a signal or a time, and steps that run another saga.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod host;

use std::time::Duration;

use amends_engine::{
    CLOCK_TOLERANCE, Command, Decision, Event, Input, Payload, SagaId, SagaStatus, StepKind,
    StepSpec, Target, Timestamp, UndoSpec, Verb, WaitSpec, activity_in_brief, commands, decide_on,
    permits_signal, why,
};

use host::{Host, done, order, permanent, retryable, serial, step, unknown};

/// a, then b of another kind, then c.
fn with(kind: StepKind) -> Vec<StepSpec> {
    let mut steps = serial();
    let undo = match kind {
        StepKind::Saga { .. } => {
            steps[1].undo.clone().map(|undo| UndoSpec { plugin: None, ..undo })
        }
        StepKind::Call { .. } | StepKind::Wait { .. } | StepKind::Sleep { .. } => None,
    };
    steps[1] = StepSpec { kind, undo, ..step("b", &["a"]) };
    steps
}

fn wait(timeout_ms: Option<u64>) -> StepKind {
    let timeout = timeout_ms.map(Duration::from_millis);
    StepKind::Wait { wait: WaitSpec { signal: "approved".parse().unwrap(), timeout } }
}

#[test]
fn a_step_waits_for_its_signal_and_answers_what_that_says() {
    let mut host = Host::start(with(wait(Some(1_000))));
    host.answer("a", done());
    assert_eq!(host.told()[2..], ["step.succeeded a 1", "step.waiting b"]);
    assert_eq!(host.saga.status(), SagaStatus::Waiting);
    let told = why(&host.saga, host.now);
    assert!(told.sentence.contains("b waits for the signal `approved` until"), "{}", told.sentence);
    assert_eq!(told.next_at, Some(host.now.after(Duration::from_secs(1))));
    assert_eq!(told.verbs, ["signal", "resolve", "skip", "cancel", "pause", "abandon"]);
    let brief = format!("b waits for signal approved until {}", told.next_at.unwrap());
    assert_eq!(activity_in_brief(&host.saga, host.now), Some(brief));
    host.signal("approved", None, r#"{"by":"grace"}"#);
    assert_eq!(host.told(), ["signal.received", "step.succeeded b 0", "step.started c 1"]);
    let b = host.saga.steps().nth(1).unwrap();
    assert_eq!(b.output.unwrap().as_str(), r#"{"by":"grace"}"#);
}

#[test]
fn a_signal_that_comes_early_is_kept_and_a_second_one_of_its_id_dropped() {
    let mut host = Host::start(with(wait(None)));
    host.signal("approved", Some("7"), "1").signal("approved", Some("7"), "2").told();
    host.answer("a", done());
    let told = ["step.succeeded a 1", "step.waiting b", "step.succeeded b 0", "step.started c 1"];
    assert_eq!(host.told(), told);
    assert_eq!(host.saga.steps().nth(1).unwrap().output.unwrap().as_str(), "1");
    host.signal("approved", Some("7"), "3");
    assert_eq!(host.told(), [""; 0], "also after a step has taken it");
}

#[test]
fn the_deadline_is_not_told_as_what_comes_next() {
    let deadline = Duration::from_mins(1);
    let mut host = Host::start_with(with(wait(None)), Some(deadline), "{}");
    let ends = host.now.after(deadline);
    let told = why(&host.saga, host.now);
    assert_eq!((told.next_at, told.deadline_at), (None, Some(ends)), "a is in flight");
    assert_eq!(host.saga.wake_at(), Some(ends));
    assert!(!told.verbs.contains(&"signal"), "nothing waits for it yet: {:?}", told.verbs);
    host.answer("a", done()).told();
    let brief = activity_in_brief(&host.saga, host.now);
    assert_eq!(brief.as_deref(), Some("b waits for signal approved"));
    host.cancel().answer("a", done());
    let told = why(&host.saga, host.now);
    assert_eq!((told.next_at, told.deadline_at, told.verbs), (None, None, vec![]));
    assert_eq!(activity_in_brief(&host.saga, host.now), None, "it has ended");
}

#[test]
fn a_call_that_is_tried_again_says_when_first() {
    let mut host = Host::start(with(wait(None)));
    host.answer("a", retryable());
    let at = host.now.after(Duration::from_millis(100));
    let brief = format!("a again at {at}, 2 of 2: busy: try later");
    assert_eq!(activity_in_brief(&host.saga, host.now), Some(brief));
}

#[test]
fn a_signal_that_does_not_come_in_time_fails_its_step() {
    let mut host = Host::start(with(wait(Some(1_000))));
    host.answer("a", done()).told();
    host.tick(999);
    assert_eq!(host.told(), [""; 0]);
    host.tick(1);
    let told = ["step.failed b 0", "compensation.started b step_failed", "undo.started a 1"];
    assert_eq!(host.told(), told);
    host.signal("approved", None, "1");
    assert_eq!(host.told(), [""; 0]);
    let refused = permits_signal(&host.saga, &"approved".parse().unwrap()).unwrap_err();
    assert!(refused.to_string().contains("will wait for `approved` any more"), "{refused}");
}

/// The host has not noticed yet that the time is up.
#[test]
fn what_comes_after_a_wait_has_timed_out_is_refused_and_what_came_before_is_not() {
    let late = || {
        let mut host = Host::start(with(wait(Some(1_000))));
        host.answer("a", done()).told();
        host.now = host.now.after(Duration::from_secs(1));
        host
    };
    let evidence = "by phone".to_owned();
    let inputs = [
        Input::Signal {
            name: "approved".parse().unwrap(),
            id: None,
            payload: Payload::null(),
            who: None,
        },
        Input::Operate(order(Verb::Skip { step: None, undo: false })),
        Input::Operate(order(Verb::Resolve {
            step: None,
            happened: true,
            output: None,
            evidence,
            undo: false,
        })),
    ];
    for input in inputs {
        let mut host = late();
        let decision = decide_on(&mut host.saga, host.now, input);
        let kinds: Vec<_> = decision.events.iter().map(Event::kind).collect();
        assert_eq!(kinds, ["step.failed", "compensation.started"]);
        assert!(decision.refused.is_some());
    }
    let mut host = late();
    let decision = decide_on(&mut host.saga, host.now, Input::Operate(order(Verb::Pause)));
    assert_eq!(decision.events.last().unwrap().kind(), "operator.paused");
    assert_eq!(decision.refused, None);
    // The same signal again is no new one.
    let mut host = Host::start(with(wait(Some(1_000))));
    host.answer("a", done()).signal("approved", Some("7"), "1").told();
    let (name, id) = ("approved".parse().unwrap(), Some("7".to_owned()));
    let again = Input::Signal { name, id, payload: Payload::null(), who: None };
    assert_eq!(decide_on(&mut host.saga, host.now, again), Decision::default());
}

#[test]
fn a_saga_that_completes_by_the_clock_refuses_to_be_cancelled() {
    let mut steps = with(StepKind::Sleep { sleep: Duration::from_secs(1) });
    steps.truncate(2);
    let mut host = Host::start(steps);
    host.answer("a", done()).told();
    host.now = host.now.after(Duration::from_secs(1));
    let decision = decide_on(&mut host.saga, host.now, Input::Operate(order(Verb::Cancel)));
    assert_eq!(host.saga.status(), SagaStatus::Completed);
    let refused = decision.refused.unwrap().to_string();
    assert!(refused.contains("the saga is completed"), "{refused}");
    assert!(decision.events.iter().all(|event| !event.kind().starts_with("operator.")));
}

#[test]
fn a_clock_that_was_ahead_holds_no_wait_and_no_sleep() {
    let hour = Duration::from_hours(1);
    for kind in [wait(Some(1_000)), StepKind::Sleep { sleep: Duration::from_secs(1) }] {
        let mut host = Host::start(with(kind));
        let right = host.now;
        host.now = right.after(hour);
        host.answer("a", done()).told();
        host.now = right.after(Duration::from_millis(500));
        host.tick(0);
        assert_eq!(host.told(), ["saga.retimed"]);
        assert_eq!(host.saga.wake_at(), Some(right.after(Duration::from_millis(1_500))));
        host.tick(999);
        assert_eq!(host.told(), [""; 0], "it waits for all of its time, and no longer");
        host.tick(1);
        assert_ne!(host.told(), [""; 0]);
    }
    // Clocks go back a little all the time.
    let mut host = Host::start(with(wait(Some(10_000))));
    let right = host.now;
    host.now = right.after(CLOCK_TOLERANCE);
    host.answer("a", done()).told();
    host.now = right;
    host.tick(0);
    assert_eq!(host.told(), [""; 0]);
    // What was set before the clock went wrong stays.
    let mut steps = vec![step("x", &[])];
    steps.extend(with(StepKind::Sleep { sleep: Duration::from_hours(2) }));
    let mut host = Host::start(steps);
    host.answer("a", done());
    let (right, until) = (host.now, host.saga.wake_at());
    host.now = right.after(hour);
    host.answer("x", retryable()).told();
    host.now = right;
    host.tick(0);
    assert_eq!(host.told(), ["saga.retimed"]);
    host.tick(100);
    assert_eq!(host.told(), ["step.started x 2"]);
    assert_eq!(host.saga.wake_at(), until);
}

#[test]
fn a_clock_that_was_ahead_holds_no_retry_no_undo_and_no_deadline() {
    let hour = Duration::from_hours(1);
    let mut host = Host::start_with(serial(), Some(Duration::from_mins(1)), "1");
    let right = host.now;
    host.now = right.after(Duration::from_secs(30));
    host.answer("a", done()).answer("b", done()).answer("c", permanent()).told();
    host.now = right.after(hour);
    host.answer("b", retryable()).told();
    host.now = right.after(Duration::from_secs(31));
    host.tick(0);
    assert_eq!(host.told(), ["saga.retimed"]);
    host.tick(100);
    assert_eq!(host.told(), ["undo.started b 2"]);
    // A saga that was started while the clock was ahead.
    let mut host = Host::start_with(serial(), Some(Duration::from_mins(1)), "1");
    let (ahead, deadline) = (host.now, host.saga.deadline_at().unwrap());
    assert_eq!(deadline, ahead.after(Duration::from_mins(1)));
    host.now = Timestamp::from_millis(ahead.as_millis() - 3_600_000);
    host.tick(0);
    assert_eq!(host.saga.deadline_at(), Some(host.now.after(Duration::from_mins(1))));
}

#[test]
fn a_saga_with_a_start_time_begins_then_and_its_deadline_counts_from_then() {
    let (hour, minute) = (Duration::from_hours(1), Duration::from_mins(1));
    let mut host = Host::start_later(serial(), Some(minute), "1", Some(hour));
    let start_at = host.now.after(hour);
    assert_eq!(host.told(), ["saga.started"]);
    assert_eq!(host.saga.status(), SagaStatus::Waiting);
    assert_eq!(host.saga.deadline_at(), Some(start_at.after(minute)));
    assert_eq!((host.saga.start_at(), host.saga.wake_at()), (Some(start_at), Some(start_at)));
    let told = why(&host.saga, host.now);
    assert!(told.sentence.contains(&format!("it starts at {start_at}")), "{}", told.sentence);
    assert_eq!(told.next_at, Some(start_at));
    host.tick(3_599_999);
    assert_eq!(host.told(), [""; 0]);
    host.tick(1);
    assert_eq!(host.told(), ["saga.due", "step.started a 1"]);
    assert_eq!((host.saga.start_at(), host.saga.status()), (None, SagaStatus::Running));
    // A time that has passed is none.
    let mut host = Host::start_later(serial(), None, "1", Some(Duration::ZERO));
    assert_eq!(host.told(), ["saga.started", "step.started a 1"]);
}

#[test]
fn a_saga_that_is_cancelled_before_its_start_makes_no_call() {
    let mut host = Host::start_later(serial(), None, "1", Some(Duration::from_hours(1)));
    host.cancel();
    let told = [
        "saga.started",
        "operator.cancelled",
        "compensation.started cancelled",
        "saga.compensated",
    ];
    assert_eq!(host.told(), told);
    // A start that comes while the saga is paused does not begin a call.
    let mut host = Host::start_later(serial(), None, "1", Some(Duration::from_hours(1)));
    host.order(Verb::Pause);
    host.tick(3_600_000);
    assert_eq!(host.told(), ["saga.started", "operator.paused", "saga.due"]);
    host.order(Verb::Resume);
    assert_eq!(host.told(), ["operator.resumed", "step.started a 1"]);
}

#[test]
fn a_clock_that_was_ahead_holds_no_start() {
    let hour = Duration::from_hours(1);
    let mut host = Host::start_later(serial(), None, "1", Some(hour));
    host.now = Timestamp::from_millis(host.now.as_millis() - 24 * 3_600_000);
    host.tick(0);
    assert_eq!(host.told(), ["saga.started", "saga.retimed"]);
    assert_eq!(host.saga.start_at(), Some(host.now.after(hour)));
}

#[test]
fn a_signal_that_nothing_waits_for_is_refused() {
    let host = Host::start(with(wait(None)));
    let refused = permits_signal(&host.saga, &"paid".parse().unwrap()).unwrap_err().to_string();
    assert!(refused.contains("no step of the saga waits for `paid`; it waits for approved"));
    let mut host = Host::start(with(wait(None)));
    for number in 0..256 + 10 {
        host.signal("approved", Some(&number.to_string()), "1");
    }
    let refused = permits_signal(&host.saga, &"approved".parse().unwrap()).unwrap_err();
    assert!(refused.to_string().contains("256 signals came already"));
}

#[test]
fn a_step_sleeps_and_cancelling_ends_that() {
    let sleep = StepKind::Sleep { sleep: Duration::from_mins(10) };
    let mut host = Host::start(with(sleep.clone()));
    host.answer("a", done()).told();
    host.tick(599_999);
    assert_eq!(host.told(), [""; 0]);
    host.tick(1);
    assert_eq!(host.told(), ["step.succeeded b 0", "step.started c 1"]);
    let mut host = Host::start(with(sleep));
    host.answer("a", done()).told();
    host.cancel();
    let told = [
        "operator.cancelled",
        "compensation.started cancelled",
        "step.failed b 0",
        "undo.started a 1",
    ];
    assert_eq!(host.told(), told);
}

#[test]
fn a_wait_can_be_skipped_or_answered_by_hand() {
    let mut host = Host::start(with(wait(None)));
    host.answer("a", done()).told();
    host.order(Verb::Skip { step: None, undo: false });
    assert_eq!(host.told(), ["operator.skipped b", "step.started c 1"]);
}

#[test]
fn a_saga_that_a_step_runs_is_the_same_however_often_it_is_asked_for() {
    let mut host = Host::start(with(StepKind::Saga { saga: "child".parse().unwrap() }));
    host.now = host.now.after(Duration::from_hours(1));
    host.answer("a", done()).told();
    let child = |host: &Host| match host.running().remove(0).target {
        Target::Saga { definition, id } => (definition.to_string(), id.unwrap()),
        Target::Plugin(plugin) => panic!("{plugin}"),
    };
    let (name, id) = child(&host);
    assert_eq!(name, "child");
    assert_eq!(id, host.saga.id().child(&"b".parse().unwrap(), 1, host.now));
    assert_ne!(id, host.saga.id().child(&"b".parse().unwrap(), 2, host.now));
    let started = SagaId::from_parts(host.now, &[0; 10]);
    assert_eq!(
        id.as_bytes()[..6],
        started.as_bytes()[..6],
        "its time is its own, not its parent's"
    );
    // A UUIDv7 as every id: version 7, variant 10.
    assert_eq!((id.as_bytes()[6] >> 4, id.as_bytes()[8] >> 6), (7, 0b10));
    assert!(why(&host.saga, host.now).sentence.contains(&format!("b runs as saga {id}")));
    host.answer("b", done()).answer("c", permanent());
    assert_eq!(child(&host).1, id, "it is undone by compensating that saga");
}

/// Its effects stand and nobody undoes them: another one would do them twice.
#[test]
fn a_saga_that_was_given_up_is_not_started_again_by_another_attempt() {
    let kind = StepKind::Saga { saga: "child".parse().unwrap() };
    let mut host = Host::start(with(kind.clone()));
    host.answer("a", done()).told();
    host.answer("b", unknown());
    assert_eq!(host.told()[..2], ["step.unknown b 1", "compensation.started b step_unknown"]);
    let child = |host: &Host| match host.running().remove(0).target {
        Target::Saga { id, .. } => id.unwrap(),
        Target::Plugin(plugin) => panic!("{plugin}"),
    };
    let id = host.saga.id().child(&"b".parse().unwrap(), 1, host.now);
    assert_eq!(child(&host), id);
    host.answer("b", permanent());
    assert_eq!(host.saga.status(), SagaStatus::Blocked);

    let mut steps = with(kind);
    (steps[1].pivot, steps[1].undo, steps[2].undo) = (true, None, None);
    let mut host = Host::start(steps);
    host.answer("a", done()).answer("b", unknown());
    assert_eq!(host.saga.status(), SagaStatus::Blocked);
    host.order(Verb::Retry { step: None, input: None, digest: None });
    assert_eq!(child(&host), host.saga.id().child(&"b".parse().unwrap(), 1, host.now));
}

#[test]
fn a_saga_that_a_step_runs_is_cancelled_with_its_parent() {
    let mut host = Host::start(with(StepKind::Saga { saga: "child".parse().unwrap() }));
    host.answer("a", done()).cancel();
    let id = host.saga.id().child(&"b".parse().unwrap(), 1, host.now);
    assert!(commands(&host.saga).any(|command| command == Command::CancelChild(id)));
    host.answer("b", permanent()).told();
    assert!(!commands(&host.saga).any(|command| command == Command::CancelChild(id)));
    host.answer("a", done());
    assert_eq!(host.saga.status(), SagaStatus::Compensated);
}
