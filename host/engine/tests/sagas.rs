//! The rules of a saga, one by one, as examples: what happens, and the facts that follow.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod host;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::{
    BackoffSpec, Direction, Emitted, Event, Failure, Input, InputSpec, Outcome, PAYLOAD_BYTES_MAX,
    Payload, RetrySpec, SagaId, SagaStatus, Start, StepSpec, Timestamp, Verb, arguments, commands,
    evolve, idempotency_key, permits, start, why,
};

use host::{Host, diamond, done, order, permanent, retryable, serial, step, unknown};

#[test]
fn three_steps_are_four_appends() {
    let mut host = Host::start(serial());
    assert_eq!(host.told(), ["saga.started", "step.started a 1"]);
    host.answer("a", done());
    assert_eq!(host.told(), ["step.succeeded a 1", "step.started b 1"]);
    host.answer("b", done());
    assert_eq!(host.told(), ["step.succeeded b 1", "step.started c 1"]);
    host.answer("c", done());
    assert_eq!(host.told(), ["step.succeeded c 1", "saga.completed"]);
    assert_eq!(host.saga.output().unwrap().as_str(), r#"{"ok":true}"#);
    assert_eq!(commands(&host.saga).count(), 0);
}

#[test]
fn branches_run_at_once_and_join() {
    let mut host = Host::start(diamond());
    host.answer("a", done()).told();
    assert_eq!(host.running().len(), 2);
    host.answer("r", done());
    assert_eq!(host.told(), ["step.succeeded r 1"]);
    host.answer("l", done());
    assert_eq!(host.told(), ["step.succeeded l 1", "step.started j 1"]);
}

#[test]
fn a_permanent_failure_undoes_in_reverse_and_not_the_step_itself() {
    let mut host = Host::start(serial());
    host.answer("a", done()).answer("b", done()).told();
    host.answer("c", permanent());
    let told = ["step.failed c 1", "compensation.started c step_failed", "undo.started b 1"];
    assert_eq!(host.told(), told);
    host.answer("b", done());
    assert_eq!(host.told(), ["undo.succeeded b 1", "undo.started a 1"]);
    host.answer("a", Outcome::NothingToUndo);
    assert_eq!(host.told(), ["undo.succeeded a 1", "saga.compensated"]);
}

#[test]
fn branches_are_undone_at_once_after_what_was_built_on_them() {
    let mut host = Host::start(diamond());
    host.answer("a", done()).answer("l", done()).answer("r", done()).told();
    host.answer("j", permanent());
    let undos: Vec<_> =
        host.told().into_iter().filter(|word| word.starts_with("undo.started")).collect();
    assert_eq!(undos, ["undo.started l 1", "undo.started r 1"]);
    host.answer("l", done());
    assert_eq!(host.told(), ["undo.succeeded l 1"], "a waits for r as well");
    host.answer("r", done());
    assert_eq!(host.told(), ["undo.succeeded r 1", "undo.started a 1"]);
}

#[test]
fn a_branch_in_flight_settles_before_it_is_undone() {
    let mut host = Host::start(diamond());
    host.answer("a", done()).answer("l", permanent()).told();
    assert_eq!(host.running().len(), 1, "r is still running");
    host.answer("r", done());
    assert_eq!(host.told(), ["step.succeeded r 1", "undo.started r 1"]);
    host.answer("r", done());
    assert_eq!(host.told(), ["undo.succeeded r 1", "undo.started a 1"]);
}

/// Twenty outputs before a step are as much as its expressions may read, and more; one that names some
/// of them reads those.
#[test]
fn an_expression_reads_the_outputs_that_it_names() {
    let names: Vec<_> = (0..20).map(|number| format!("s{number}")).collect();
    let output = format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX - 2));
    for (expression, status, code) in [
        ("size(steps.s3.output) + size(steps.s4.output)", "running", None),
        ("size(steps)", "failed", Some("expression_limit")),
    ] {
        let mut steps: Vec<_> = names.iter().map(|name| step(name, &[])).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let input = Some(InputSpec::Whole(expression.to_owned()));
        steps.push(StepSpec { input, ..step("last", &names) });
        let mut host = Host::start(steps);
        for name in &names {
            host.answer(name, Outcome::Succeeded(Payload::parse(&output).unwrap()));
        }
        let last = host.saga.step(&"last".parse().unwrap()).unwrap();
        assert_eq!(last.status.as_str(), status, "{expression}");
        assert_eq!(last.error.as_ref().map(|error| error.code.as_str()), code, "{expression}");
    }
}

#[test]
fn a_retryable_failure_is_tried_again_after_its_pause() {
    let mut host = Host::start(serial());
    host.told();
    host.answer("a", retryable());
    assert_eq!(host.told(), ["step.failed a 1 again"]);
    assert_eq!(host.saga.status(), SagaStatus::Waiting);
    assert_eq!(host.saga.wake_at(), Some(Timestamp::from_millis(1_100)));
    host.tick(99);
    assert!(host.told().is_empty());
    host.tick(1);
    assert_eq!(host.told(), ["step.started a 2"]);
    host.answer("a", retryable());
    assert_eq!(host.told()[..2], ["step.failed a 2", "compensation.started a step_failed"]);
    assert_eq!(host.saga.status(), SagaStatus::Compensated);
}

#[test]
fn a_guest_may_ask_for_a_longer_pause_but_not_for_ever() {
    let mut host = Host::start(serial());
    let mut failure = Failure::new("busy", "come back");
    failure.retry_after_ms = Some(5_000);
    host.answer("a", Outcome::Retryable(failure.clone()));
    assert_eq!(host.saga.wake_at(), Some(Timestamp::from_millis(6_000)));
    let mut host = Host::start(serial());
    failure.retry_after_ms = Some(u64::MAX);
    host.answer("a", Outcome::Retryable(failure));
    let limit = Timestamp::from_millis(1_000).after(Duration::from_hours(24));
    assert_eq!(host.saga.wake_at(), Some(limit));
}

#[test]
fn an_unknown_step_is_undone_too_and_without_an_output() {
    let mut host = Host::start(serial());
    host.answer("a", done()).answer("b", unknown()).tick(100).told();
    host.answer("b", unknown());
    let told = ["step.unknown b 2", "compensation.started b step_unknown", "undo.started b 1"];
    assert_eq!(host.told(), told);
    let call = host.running().remove(0);
    let (input, output) = arguments(&host.saga, &call).unwrap();
    assert!(input.as_str().contains(r#""input":{"n":1}"#), "{input:?}");
    assert_eq!(output, None);
}

#[test]
fn a_failure_after_an_unknown_attempt_stays_unknown() {
    let mut host = Host::start(serial());
    host.answer("a", unknown()).tick(100).told();
    host.answer("a", permanent());
    let told = ["step.unknown a 2", "compensation.started a step_unknown", "undo.started a 1"];
    assert_eq!(host.told(), told);
}

#[test]
fn an_undo_is_retried_by_its_own_policy_and_then_blocks() {
    let mut host = Host::start(serial());
    host.answer("a", done()).answer("b", done()).answer("c", permanent()).told();
    host.answer("b", unknown());
    assert_eq!(host.told(), ["undo.failed b 1 again"]);
    host.tick(100).answer("b", retryable());
    assert_eq!(host.told(), ["undo.started b 2", "undo.blocked b 2", "saga.blocked b"]);
    assert_eq!(host.saga.status(), SagaStatus::Blocked);
    assert_eq!(commands(&host.saga).count(), 0, "a waits for b, b for an operator");
    let why = why(&host.saga, host.now);
    assert!(why.sentence.contains("the undo of b failed: busy: try later"), "{}", why.sentence);
}

#[test]
fn a_blocked_branch_does_not_hold_the_other() {
    let mut host = Host::start(diamond());
    host.answer("a", done()).answer("l", done()).answer("r", done());
    host.answer("j", permanent()).told();
    host.answer("l", permanent());
    assert_eq!(host.told(), ["undo.blocked l 1", "saga.blocked l"]);
    host.answer("r", done());
    assert_eq!(host.told(), ["undo.succeeded r 1"]);
    assert_eq!(host.saga.status(), SagaStatus::Blocked);
}

#[test]
fn steps_that_are_not_wanted_are_skipped_and_not_undone() {
    let mut steps = serial();
    steps[1].when = Some("input.n > 1".to_owned());
    let mut host = Host::start(steps);
    host.told();
    host.answer("a", done());
    assert_eq!(host.told(), ["step.succeeded a 1", "step.skipped b", "step.started c 1"]);
    host.answer("c", permanent());
    let told = ["step.failed c 1", "compensation.started c step_failed", "undo.started a 1"];
    assert_eq!(host.told(), told);
}

#[test]
fn inputs_are_mapped_and_the_same_on_every_attempt() {
    let mut steps = serial();
    let fields = [("ok", "steps.a.output.ok"), ("twice", "input.n * 2"), ("id", "saga.id")];
    let fields = fields.map(|(name, source)| (name.to_owned(), source.to_owned()));
    steps[1].input = Some(InputSpec::Fields(fields.into()));
    let mut host = Host::start(steps);
    host.answer("a", done());
    let input = |host: &Host| arguments(&host.saga, &host.running()[0]).unwrap().0;
    let first = input(&host);
    let expected = format!(r#"{{"id":"{}","ok":true,"twice":2}}"#, host.saga.id());
    assert_eq!(first.as_str(), expected);
    host.answer("b", retryable()).tick(100);
    assert_eq!(input(&host), first);
}

#[test]
fn an_expression_that_cannot_be_computed_fails_the_step_before_it_is_called() {
    for (when, code) in [("input.missing > 1", "when_failed"), ("input.n", "when_failed")] {
        let mut steps = serial();
        steps[1].when = Some(when.to_owned());
        let mut host = Host::start(steps);
        host.told();
        host.answer("a", done());
        assert_eq!(host.told()[1], "step.failed b 0", "{when}");
        let step = host.saga.steps().nth(1).unwrap();
        assert_eq!(step.error.unwrap().code, code);
    }
    let mut steps = serial();
    steps[1].input = Some(InputSpec::Whole("steps.a.output.missing".to_owned()));
    let mut host = Host::start(steps);
    host.answer("a", done());
    assert_eq!(host.saga.steps().nth(1).unwrap().error.unwrap().code, "input_failed");
}

/// A definition in force whose expression costs too much for what a caller sends: it is loaded, and
/// the step fails for good, in the settling that would otherwise never end.
#[test]
fn an_expression_that_costs_too_much_fails_the_step() {
    let list = serde_json::json!((0..8_000).collect::<Vec<_>>());
    let input = serde_json::json!({"a": list}).to_string();
    let source = "input.a.all(x, input.a.exists(y, y == 7999 - x))".to_owned();
    let fails = |steps: Vec<_>| {
        let mut host = Host::start_with(steps, None, &input);
        host.answer("a", done());
        let step = host.saga.steps().nth(1).unwrap();
        let error = step.error.unwrap();
        assert_eq!((error.code.as_str(), step.status.as_str()), ("expression_limit", "failed"));
        let words = ["takes more than 250000 steps", "input.a.exists(y", "compute it in a plugin"];
        assert!(words.iter().all(|words| error.message.contains(words)), "{}", error.message);
    };
    let mut steps = serial();
    steps[1].when = Some(source.clone());
    fails(steps);
    let mut steps = serial();
    steps[1].input = Some(InputSpec::Whole(format!("{{'found': {source}}}")));
    fails(steps);
}

#[test]
fn the_deadline_undoes_what_has_not_completed() {
    let mut host = Host::start_with(serial(), Some(Duration::from_secs(1)), "{}");
    host.answer("a", done()).told();
    host.tick(1_000);
    assert_eq!(host.told(), ["compensation.started deadline"], "b is in flight and settles");
    host.answer("b", retryable());
    assert_eq!(host.told(), ["step.failed b 1", "undo.started a 1"], "no other attempt");
    host.answer("a", done());
    assert_eq!(host.saga.status(), SagaStatus::Compensated);
}

#[test]
fn a_deadline_that_passed_while_the_host_was_down_counts() {
    let mut host = Host::start_with(serial(), Some(Duration::from_secs(1)), "{}");
    host.answer("a", done()).told();
    host.now = host.now.after(Duration::from_secs(90));
    host.answer("b", done());
    // The deadline is seen first, then the result is taken as it is, and undone.
    let told = ["compensation.started deadline", "step.succeeded b 1", "undo.started b 1"];
    assert_eq!(host.told(), told);
}

#[test]
fn cancel_undoes_and_a_second_cancel_does_nothing() {
    let mut host = Host::start(serial());
    host.answer("a", done()).told();
    host.cancel();
    assert_eq!(host.told(), ["operator.cancelled", "compensation.started cancelled"]);
    host.cancel();
    assert!(host.told().is_empty());
    assert!(permits(&host.saga, host.now, &order(Verb::Cancel)).is_ok());
}

#[test]
fn past_the_pivot_nothing_is_undone_and_a_failure_blocks() {
    let mut steps = serial();
    steps[1].pivot = true;
    steps[2].undo = None;
    let mut host = Host::start_with(steps, Some(Duration::from_secs(1)), "{}");
    host.answer("a", done()).answer("b", done()).told();
    assert!(
        permits(&host.saga, host.now, &order(Verb::Cancel))
            .unwrap_err()
            .to_string()
            .contains("past its pivot")
    );
    host.cancel().tick(10_000);
    assert!(host.told().is_empty(), "neither cancel nor the deadline acts");
    host.answer("c", permanent());
    assert_eq!(host.told(), ["step.failed c 1", "saga.blocked c"]);
    let reason = host.saga.reason().unwrap();
    assert_eq!(
        reason,
        "c failed: no: it is not possible. It is after the pivot, so nothing is undone"
    );
}

#[test]
fn a_cancel_waits_for_the_pivot_that_is_in_flight() {
    let pivot = || {
        let mut steps = serial();
        steps[1].pivot = true;
        steps[2].undo = None;
        let mut host = Host::start(steps);
        host.answer("a", done()).cancel().told();
        host
    };
    let mut host = pivot();
    host.answer("b", done());
    assert_eq!(host.told(), ["step.succeeded b 1", "step.started c 1"], "it went through");
    let mut host = pivot();
    host.answer("b", permanent());
    assert_eq!(host.told()[..2], ["step.failed b 1", "compensation.started b step_failed"]);
}

#[test]
fn late_and_repeated_results_change_nothing() {
    let mut host = Host::start(serial());
    host.answer("a", retryable()).tick(100).told();
    let result = |attempt| Input::Outcome {
        step: "a".parse().unwrap(),
        direction: Direction::Execute,
        attempt,
        probe: None,
        outcome: done(),
        emitted: Vec::new(),
    };
    host.feed(result(1));
    host.feed(result(3));
    assert!(host.told().is_empty());
    host.feed(result(2));
    assert_eq!(host.told(), ["step.succeeded a 2"]);
    host.feed(result(2));
    assert!(host.told().is_empty());
}

#[test]
fn an_end_is_an_end() {
    let mut host = Host::start(vec![step("a", &[])]);
    host.answer("a", done()).cancel().tick(1_000_000);
    assert_eq!(host.saga.status(), SagaStatus::Completed);
    assert!(permits(&host.saga, host.now, &order(Verb::Cancel)).is_err());
    let event = Event::decode("saga.compensated", "{}").unwrap();
    let before = host.saga.version();
    let error = evolve(&mut host.saga, host.now, &event).unwrap_err();
    assert!(error.to_string().ends_with("which cannot be: the saga is completed"), "{error}");
    assert_eq!(host.saga.version(), before);
}

#[test]
fn backoff_grows_to_its_limit_and_its_jitter_is_the_same_every_time() {
    let pauses = |seed: u8| {
        let mut steps = vec![step("a", &[])];
        let (initial, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let backoff = BackoffSpec::Exponential { initial, factor: 3.0, max, jitter: 0.5 };
        steps[0].retry = RetrySpec { attempts: 5, backoff };
        let mut host = Host::start(steps);
        host.saga = {
            let definition = Arc::clone(host.saga.definition());
            let id = SagaId::from_parts(host.now, &[seed; 10]);
            let input = Payload::null();
            let what = Start {
                id,
                definition,
                input,
                key: None,
                tags: BTreeMap::new(),
                traceparent: None,
                start_at: None,
                parent: None,
                sealed_key: None,
                who: None,
                personal: Vec::new(),
            };
            start(host.now, what).0
        };
        host.admit();
        let mut pauses = Vec::new();
        for _ in 0..4 {
            host.answer("a", retryable());
            let wake = host.saga.wake_at().unwrap();
            pauses.push(u64::try_from(wake.since(host.now).as_millis()).unwrap());
            host.now = wake;
            host.tick(0);
        }
        pauses
    };
    let one = pauses(1);
    assert_eq!(one, pauses(1));
    assert_ne!(one, pauses(2));
    for (pause, full) in one.iter().zip([100, 300, 900, 1_000]) {
        assert!((full / 2..=full).contains(pause), "{one:?}");
    }
}

#[test]
fn the_idempotency_key_is_of_saga_step_and_direction() {
    let saga = |byte| SagaId::from_bytes([byte; 16]);
    let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
    let keys = [
        idempotency_key(saga(1), &a, Direction::Execute, 0),
        idempotency_key(saga(2), &a, Direction::Execute, 0),
        idempotency_key(saga(1), &b, Direction::Execute, 0),
        idempotency_key(saga(1), &a, Direction::Compensate, 0),
    ];
    // Golden: calls of an earlier version must be recognised by the services that they reached.
    assert_eq!(keys[0], "1fe1b1838a6e296a3013dba352051582");
    let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), 4);
}

/// What a plugin tells stands in the stream behind the event of its call, and only if that
/// succeeded; nothing follows from it.
#[test]
fn what_a_plugin_tells_is_kept_when_its_call_succeeds() {
    let mut host = Host::start(serial());
    host.told();
    let answer = |attempt, outcome| Input::Outcome {
        step: "a".parse().unwrap(),
        direction: Direction::Execute,
        attempt,
        outcome,
        probe: None,
        emitted: vec![Emitted {
            kind: "order.checked".parse().unwrap(),
            data: Payload::parse("[1]").unwrap(),
        }],
    };
    host.feed(answer(1, retryable()));
    assert_eq!(host.told(), ["step.failed a 1 again"]);
    host.tick(100).told();
    host.feed(answer(1, done()));
    assert!(host.told().is_empty(), "a late answer tells nothing");
    host.feed(answer(2, done()));
    assert_eq!(host.told(), ["step.succeeded a 2", "order.checked"]);
    host.admit();
    assert_eq!(host.told(), ["step.started b 1"]);
}
