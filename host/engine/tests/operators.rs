//! What an operator may do, one verb at a time, and what follows.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod host;

use std::time::Duration;

use amends_engine::{
    Direction, Failure, Fate, Input, Outcome, Payload, SagaStatus, StepKind, StepStatus, Verb,
    activity_in_brief, arguments, awaits, commands, decide_on, exposure, idempotency_key,
    pivot_first, step_input, undo_plan, why, why_withheld,
};

use host::{Host, diamond, done, permanent, retry as retries, retryable, serial, step, unknown};

fn retry(step: Option<&str>) -> Verb {
    Verb::Retry { step: step.map(|step| step.parse().unwrap()), input: None, digest: None }
}

fn skip(step: Option<&str>) -> Verb {
    Verb::Skip { step: step.map(|step| step.parse().unwrap()), undo: false }
}

/// The same about the undo.
#[allow(clippy::wildcard_enum_match_arm, reason = "a test that cannot go on fails")]
fn of_undo(verb: Verb) -> Verb {
    match verb {
        Verb::Skip { step, .. } => Verb::Skip { step, undo: true },
        Verb::Resolve { step, happened, output, evidence, .. } => {
            Verb::Resolve { step, happened, output, evidence, undo: true }
        }
        other => panic!("{other:?} is not about a step"),
    }
}

fn resolve(step: Option<&str>, happened: bool, output: Option<&str>) -> Verb {
    Verb::Resolve {
        step: step.map(|step| step.parse().unwrap()),
        happened,
        output: output.map(|output| Payload::parse(output).unwrap()),
        evidence: "ticket 7".to_owned(),
        undo: false,
    }
}

/// A saga whose undo of b failed for good.
fn blocked() -> Host {
    let mut host = Host::start(serial());
    host.answer("a", done()).answer("b", done()).answer("c", permanent());
    host.answer("b", permanent());
    assert_eq!(host.saga.status(), SagaStatus::Blocked);
    host.told();
    host
}

#[test]
fn a_blocked_undo_is_tried_again_with_all_its_attempts() {
    let mut host = blocked();
    host.order(retry(None));
    assert_eq!(host.told(), ["operator.retried b", "undo.started b 2"]);
    assert_eq!(host.saga.status(), SagaStatus::Compensating);
    host.answer("b", retryable());
    assert_eq!(host.told(), ["undo.failed b 2 again"], "attempts count anew");
    host.tick(100).answer("b", done());
    let told = ["undo.started b 3", "undo.succeeded b 3", "undo.started a 1"];
    assert_eq!(host.told(), told);
    host.answer("a", done());
    assert_eq!(host.saga.status(), SagaStatus::Compensated);
}

#[test]
fn an_edited_input_is_what_the_call_is_given_from_then_on() {
    let mut host = blocked();
    let input = Some(Payload::parse(r#"{"by":"hand"}"#).unwrap());
    host.order(Verb::Retry {
        step: Some("b".parse().unwrap()),
        input: input.clone(),
        digest: None,
    });
    let call = host.running().remove(0);
    let (given, output) = arguments(&host.saga, &call).unwrap();
    assert_eq!(Some(given), input);
    assert!(output.is_some(), "what the step answered is still known");
}

#[test]
fn what_was_undone_by_hand_is_resolved_with_evidence() {
    let mut host = blocked();
    host.order(resolve(None, true, None));
    assert_eq!(host.told(), ["operator.resolved b", "undo.started a 1"]);
    host.answer("a", done());
    assert_eq!(host.saga.status(), SagaStatus::Compensated);
    let host = blocked();
    let evidence = " ".to_owned();
    let without = Verb::Resolve { step: None, happened: true, output: None, evidence, undo: false };
    assert!(host.refused(without).contains("there is no evidence"));
}

#[test]
fn an_undo_that_is_skipped_lets_its_effect_stand_and_the_saga_says_so() {
    let mut host = blocked();
    host.order(skip(Some("b")));
    assert_eq!(host.told(), ["operator.skipped b", "undo.started a 1"]);
    host.answer("a", done());
    assert_eq!(host.told(), ["undo.succeeded a 1", "saga.abandoned"]);
    assert_eq!(host.saga.status(), SagaStatus::Abandoned);
    let standing: Vec<_> = exposure(&host.saga).into_iter().map(|it| it.step.to_string()).collect();
    assert_eq!(standing, ["b"]);
}

#[test]
fn of_two_blocked_undos_one_must_be_named_and_a_retry_takes_both() {
    let mut host = Host::start(diamond());
    host.answer("a", done()).answer("l", done()).answer("r", done());
    host.answer("j", permanent()).answer("l", permanent()).answer("r", permanent()).told();
    assert!(host.refused(skip(None)).contains("name one of l, r"));
    assert!(host.refused(skip(Some("a"))).contains("a is succeeded"));
    assert!(host.refused(skip(Some("x"))).contains("the saga has no step `x`"));
    host.order(skip(Some("l")));
    assert_eq!(host.told(), ["operator.skipped l", "saga.blocked r"], "it stays blocked");
    host.order(resolve(None, true, None));
    assert_eq!(host.told(), ["operator.resolved r", "undo.started a 1"]);
    let mut host = Host::start(diamond());
    host.answer("a", done()).answer("l", done()).answer("r", done());
    host.answer("j", permanent()).answer("l", permanent()).answer("r", permanent()).told();
    host.order(retry(None));
    assert_eq!(host.told()[..2], ["operator.retried l", "operator.retried r"]);
}

#[test]
fn what_backs_off_is_tried_again_at_once() {
    let mut host = Host::start(serial());
    host.answer("a", retryable()).told();
    host.order(retry(None));
    assert_eq!(host.told(), ["operator.retried a", "step.started a 2"]);
    assert!(host.refused(retry(None)).contains("no call of the saga has failed"));
}

#[test]
fn a_paused_saga_begins_no_call_and_settles_what_is_in_flight() {
    let mut host = Host::start(serial());
    host.order(Verb::Pause).answer("a", done()).told();
    assert_eq!(host.saga.status(), SagaStatus::Paused);
    assert!(host.running().is_empty());
    host.tick(60_000);
    assert_eq!(host.told(), [""; 0]);
    assert!(why(&host.saga, host.now).sentence.contains("paused by ada: a mistake"));
    assert_eq!(why(&host.saga, host.now).verbs, ["resume", "cancel", "abandon"]);
    host.order(Verb::Pause).order(Verb::Resume);
    assert_eq!(host.told(), ["operator.resumed", "step.started b 1"], "pausing twice is once");
    assert!(host.refused(Verb::Resume).contains("not paused"));
}

#[test]
fn a_saga_that_is_given_up_takes_nothing_any_more() {
    let mut host = Host::start(serial());
    host.answer("a", done()).told();
    host.order(Verb::Abandon);
    assert_eq!(host.told(), ["operator.abandoned", "saga.abandoned"]);
    assert_eq!(commands(&host.saga).count(), 0);
    let step = "b".parse().unwrap();
    let (direction, outcome) = (Direction::Execute, done());
    host.feed(Input::Outcome {
        step,
        direction,
        attempt: 1,
        outcome,
        probe: None,
        emitted: Vec::new(),
    });
    assert_eq!(host.told(), [""; 0], "a late result changes nothing");
    assert!(host.refused(retry(None)).contains("the saga is abandoned"));
    let effects = exposure(&host.saga);
    let effects: Vec<_> = effects.iter().map(|it| (it.step.as_str(), it.is_certain)).collect();
    assert_eq!(effects, [("a", true), ("b", false)]);
}

#[test]
fn a_completed_saga_is_compensated_within_the_time_that_its_definition_gives() {
    let mut host = Host::start(serial());
    host.answer("a", done()).answer("b", done()).answer("c", done()).told();
    assert!(host.refused(Verb::Cancel).contains("it can be compensated"));
    let plan: Vec<_> =
        undo_plan(&host.saga).into_iter().map(|it| (it.wave, it.step.to_string())).collect();
    assert_eq!(plan, [(1, "c".to_owned()), (2, "b".to_owned()), (3, "a".to_owned())]);
    let mut late = Host::start(serial());
    late.answer("a", done()).answer("b", done()).answer("c", done());
    late.now = late.now.after(Duration::from_hours(2));
    assert!(late.refused(Verb::Compensate).contains("it could be compensated until"));
    host.order(Verb::Compensate);
    let told = ["operator.compensated", "compensation.started compensated", "undo.started c 1"];
    assert_eq!(host.told(), told);
    assert_eq!(host.saga.ended_at(), None);
    host.answer("c", done()).answer("b", done()).answer("a", done());
    assert_eq!(host.saga.status(), SagaStatus::Compensated);
}

/// A saga whose last step failed for good, past the pivot.
fn past_pivot() -> Host {
    let mut steps = serial();
    steps[1].pivot = true;
    steps[2].undo = None;
    let mut host = Host::start(steps);
    host.answer("a", done()).answer("b", done()).answer("c", permanent()).told();
    assert_eq!(host.saga.status(), SagaStatus::Blocked);
    assert!(host.refused(Verb::Cancel).contains("past its pivot"));
    assert!(host.refused(Verb::Compensate).contains("past its pivot"));
    host
}

#[test]
fn past_the_pivot_a_failed_step_is_tried_again_skipped_or_resolved() {
    let mut host = past_pivot();
    host.order(retry(None)).answer("c", done());
    assert_eq!(host.saga.status(), SagaStatus::Completed);
    let mut host = past_pivot();
    host.order(skip(None));
    assert_eq!(host.told(), ["operator.skipped c", "saga.completed"]);
    let mut host = past_pivot();
    assert!(host.refused(resolve(None, false, None)).contains("no step"));
    host.order(resolve(None, true, Some(r#"{"label":"L-1"}"#)));
    assert_eq!(host.saga.output().unwrap().as_str(), r#"{"label":"L-1"}"#);
}

#[test]
fn a_pivot_that_may_have_happened_is_resolved_either_way() {
    let unknown_pivot = || {
        let mut steps = serial();
        steps[1].pivot = true;
        steps[1].undo = None;
        steps[1].retry.attempts = 1;
        steps[1].retry.backoff = amends_engine::BackoffSpec::Listed(Vec::new());
        steps[2].undo = None;
        let mut host = Host::start(steps);
        host.answer("a", done()).answer("b", unknown()).told();
        assert_eq!(host.saga.status(), SagaStatus::Blocked);
        host
    };
    let mut host = unknown_pivot();
    host.order(resolve(None, true, Some("7")));
    assert_eq!(host.told(), ["operator.resolved b", "step.started c 1"], "it goes on");
    let mut host = unknown_pivot();
    host.order(resolve(None, false, None));
    assert_eq!(host.told(), ["operator.resolved b", "undo.started a 1"], "it comes undone");
    let mut host = unknown_pivot();
    host.order(retry(None));
    assert_eq!(host.told(), ["operator.retried b", "step.started b 2"]);
    host.cancel();
    assert_eq!(host.told(), ["operator.cancelled"], "nobody can tell yet");
    host.answer("b", done()).answer("c", done());
    assert_eq!(host.saga.status(), SagaStatus::Completed, "the pivot happened");
}

#[test]
fn a_component_that_can_tell_what_happened_is_believed() {
    let probed = |outcome, fate| Input::Outcome {
        step: "a".parse().unwrap(),
        direction: Direction::Execute,
        attempt: 2,
        outcome,
        probe: Some(fate),
        emitted: Vec::new(),
    };
    let timeout = || Failure::new("timeout", "no answer within 5s");
    let mut host = Host::start(serial());
    host.answer("a", unknown()).tick(100).told();
    host.now = host.now.after(Duration::from_secs(5));
    host.feed(probed(Outcome::Retryable(timeout()), Fate::DidNotHappen));
    let told = ["step.failed a 2", "compensation.started a step_failed", "saga.compensated"];
    assert_eq!(host.told(), told, "neither attempt happened, so there is nothing to undo");
    let mut host = Host::start(serial());
    host.answer("a", unknown()).tick(100).told();
    host.feed(probed(done(), Fate::Happened));
    assert_eq!(host.told(), ["step.succeeded a 2"]);
}

/// The request of a host that was killed may still be on its way when its component looks.
#[test]
fn that_a_call_did_not_happen_is_believed_when_its_timeout_has_passed() {
    let looked = |step: &str, direction, attempt| Input::Outcome {
        step: step.parse().unwrap(),
        direction,
        attempt,
        outcome: Outcome::Retryable(Failure::new("host_stopped", "the host stopped")),
        probe: Some(Fate::DidNotHappen),
        emitted: Vec::new(),
    };
    let mut host = Host::start(serial());
    host.told();
    host.now = host.now.after(Duration::from_millis(4_999));
    host.feed(looked("a", Direction::Execute, 1));
    assert_eq!(host.told(), ["step.unknown a 1 again"]);
    host.tick(100).told();
    host.feed(looked("a", Direction::Execute, 2));
    let told = ["step.unknown a 2", "compensation.started a step_unknown"];
    assert_eq!(host.told(), told, "it may yet come, so it is undone");
    let a = host.saga.step(&"a".parse().unwrap()).unwrap();
    assert!(a.error.unwrap().message.contains("believed when the call's timeout has passed"));
    // A later look that is believed is about every attempt.
    let mut host = Host::start(serial());
    host.feed(looked("a", Direction::Execute, 1));
    host.tick(100).told();
    host.now = host.now.after(Duration::from_secs(5));
    host.feed(looked("a", Direction::Execute, 2));
    assert_eq!(host.told()[0], "step.failed a 2");
    // An undo is the same: nobody knows yet whether the effect still stands.
    let mut host = blocked();
    host.order(retry(None));
    host.feed(looked("b", Direction::Compensate, 2));
    assert_eq!(host.told()[2..], ["undo.failed b 2 again"]);
    let effects = exposure(&host.saga);
    assert!(effects.iter().any(|effect| effect.step.as_str() == "b" && !effect.is_certain));
}

fn edit(step: &str) -> Verb {
    let input = Payload::parse(r#"{"by":"hand"}"#).ok();
    Verb::Retry { step: step.parse().ok(), input, digest: None }
}

/// A service refuses a key that it knows with another body.
#[test]
fn an_edited_input_goes_with_a_new_key_unless_an_effect_may_stand() {
    let key = |host: &Host| {
        let call = host.running().remove(0);
        idempotency_key(host.saga.id(), &call.step, call.direction, call.generation)
    };
    // It waits to be tried again, and no effect of it stands.
    let mut host = Host::start(serial());
    let first = key(&host);
    host.answer("a", retryable()).order(edit("a"));
    let second = key(&host);
    assert_ne!(second, first);
    host.answer("a", retryable()).order(edit("a"));
    assert_ne!(key(&host), second, "each edit begins a key");
    // Without an edit the key stays.
    let mut host = Host::start(serial());
    host.answer("a", retryable()).order(retry(None));
    assert_eq!(key(&host), first);
    // Nobody knows whether it happened.
    let mut host = Host::start(serial());
    host.answer("a", unknown()).order(edit("a"));
    assert_eq!(key(&host), first);
    // Past the pivot it failed for good.
    let mut host = past_pivot();
    host.order(edit("c"));
    assert_eq!(host.running().remove(0).generation, 1);
    // An undo has keys of its own.
    let mut host = blocked();
    host.order(edit("b"));
    let call = host.running().remove(0);
    assert_eq!((call.direction, call.generation), (Direction::Compensate, 1));
    host.answer("b", unknown()).order(edit("b"));
    assert_eq!(host.running().remove(0).generation, 1);
}

#[test]
fn what_nobody_says_that_a_step_gave_is_not_known() {
    let mut host = Host::start(serial());
    host.answer("a", unknown()).order(resolve(None, true, None));
    assert_eq!(host.told().last().unwrap(), "step.started b 1");
    host.answer("b", permanent());
    let call = host.running().remove(0);
    assert_eq!(arguments(&host.saga, &call).unwrap().1, None, "its undo finds out by the input");
    // What is said to be null is null.
    let mut host = Host::start(serial());
    host.answer("a", unknown()).order(resolve(None, true, Some("null")));
    host.answer("b", permanent());
    let call = host.running().remove(0);
    assert_eq!(arguments(&host.saga, &call).unwrap().1, Some(Payload::null()));
}

#[test]
fn a_saga_is_undone_with_its_parent_whatever_its_own_window() {
    let mut host = Host::start(serial());
    host.answer("a", done()).answer("b", done()).answer("c", done());
    host.now = host.now.after(Duration::from_hours(2));
    assert!(host.refused(Verb::Compensate).contains("it could be compensated until"));
    host.order(Verb::CompensateWithParent);
    assert_eq!(host.saga.status(), SagaStatus::Compensating);
    let mut host = past_pivot();
    host.order(retry(None)).answer("c", done());
    assert!(host.refused(Verb::CompensateWithParent).contains("past its pivot"));
}

#[test]
fn who_cancels_a_saga_whose_pivot_is_unknown_is_told_what_comes_first() {
    let mut steps = serial();
    steps[1].pivot = true;
    steps[2].undo = None;
    let mut host = Host::start(steps);
    host.answer("a", done()).answer("b", unknown());
    assert_eq!(pivot_first(&host.saga), None);
    host.cancel();
    let words = pivot_first(&host.saga).unwrap();
    assert!(words.contains("its pivot b may have happened and is tried again first"), "{words}");
    assert!(why(&host.saga, host.now).sentence.contains(&words));
    host.tick(100);
    assert!(pivot_first(&host.saga).unwrap().contains("its pivot b is in flight"));
    host.answer("b", done()).answer("c", done());
    assert_eq!(host.saga.status(), SagaStatus::Completed);
    assert_eq!(pivot_first(&host.saga), None);
}

#[test]
fn a_refused_step_fails_without_an_attempt_and_an_undo_cannot_be_refused() {
    let refuse = |step: &str| Input::Refuse {
        step: step.parse().unwrap(),
        error: Failure::new("breaker_open", "the breaker is open"),
    };
    let mut host = Host::start(serial());
    host.answer("a", retryable()).told();
    host.feed(refuse("a"));
    assert_eq!(host.told(), [""; 0], "it is not due yet");
    host.now = host.now.after(Duration::from_millis(100));
    host.feed(refuse("a"));
    let told = ["step.failed a 1", "compensation.started a step_failed", "saga.compensated"];
    assert_eq!(host.told(), told);
    let mut host = blocked();
    host.order(retry(None)).answer("b", retryable());
    host.now = host.now.after(Duration::from_millis(100));
    host.told();
    host.feed(refuse("b"));
    assert_eq!(host.told(), [""; 0]);
    let b = host.saga.steps().find(|step| step.name.as_str() == "b").unwrap();
    assert_eq!(b.status, StepStatus::UndoBackingOff);
}

#[test]
fn why_tells_the_whole_chain_and_what_would_help() {
    let host = blocked();
    let why = why(&host.saga, host.now);
    for part in [
        "the undo of b failed: no: it is not possible",
        "being undone because c failed: no: it is not possible",
        "the undo of a waits for that",
    ] {
        assert!(why.sentence.contains(part), "{}", why.sentence);
    }
    assert_eq!(why.verbs, ["retry", "resolve", "skip", "pause", "abandon"]);
    assert_eq!(why.next_at, None);
}

#[test]
fn whether_an_effect_stands_is_not_certain_after_an_undo_that_nobody_heard_of() {
    let certain = |host: &Host| -> Vec<(String, bool)> {
        let stands = exposure(&host.saga).into_iter();
        stands.map(|effect| (effect.step.to_string(), effect.is_certain)).collect()
    };
    let blocked = |first: fn() -> Outcome, last: fn() -> Outcome| {
        let mut host = Host::start(serial());
        host.answer("a", done()).answer("b", permanent());
        host.answer("a", first()).tick(100).answer("a", last());
        assert_eq!(host.saga.status(), SagaStatus::Blocked);
        certain(&host)
    };
    assert_eq!(blocked(retryable, retryable), [("a".to_owned(), true)]);
    assert_eq!(
        blocked(unknown, retryable),
        [("a".to_owned(), false)],
        "the first may have undone it"
    );
    assert_eq!(blocked(retryable, unknown), [("a".to_owned(), false)]);
}

/// What a call that was running brings must not be done: no event of the saga would say so.
#[test]
fn nobody_waits_for_a_call_of_a_saga_that_was_given_up() {
    let mut host = Host::start(serial());
    let call = host.running().remove(0);
    let is_awaited = |host: &Host| awaits(&host.saga, &call.step, call.direction, call.attempt);
    assert!(is_awaited(&host));
    host.order(Verb::Abandon);
    assert!(!is_awaited(&host));
}

/// As of one that was refunded by hand.
#[test]
fn a_saga_takes_a_note_in_every_status_and_nothing_else_changes() {
    let mut host = Host::start(serial());
    let noted = |host: &mut Host| {
        host.told();
        let before = (host.saga.status(), host.saga.ended_at(), commands(&host.saga).count());
        host.order(Verb::Note);
        assert_eq!(host.told(), ["operator.noted"]);
        let after = (host.saga.status(), host.saga.ended_at(), commands(&host.saga).count());
        assert_eq!(after, before);
        let note = host.saga.note().unwrap();
        assert_eq!((note.who.as_str(), note.reason.as_str()), ("ada", "a mistake"));
        assert_eq!(note.at, host.now);
        before.0
    };
    assert_eq!(noted(&mut host), SagaStatus::Running);
    host.order(Verb::Pause);
    assert_eq!(noted(&mut host), SagaStatus::Paused);
    host.order(Verb::Resume);
    host.answer("a", done()).answer("b", done()).answer("c", done()).tick(5_000);
    assert_eq!(noted(&mut host), SagaStatus::Completed);
    host.order(Verb::Compensate);
    assert_eq!(noted(&mut host), SagaStatus::Compensating);
    host.answer("c", done()).answer("b", done()).answer("a", done()).tick(5_000);
    assert_eq!(noted(&mut host), SagaStatus::Compensated);
    let mut host = Host::start(serial());
    host.order(Verb::Abandon);
    assert_eq!(noted(&mut host), SagaStatus::Abandoned);
}

/// "Charged twice": whoever has the service's ledger can look.
#[test]
fn an_ended_saga_says_which_attempts_were_unknown_and_by_which_key_they_are_known() {
    let mut host = Host::start(serial());
    let sentence = |host: &Host| why(&host.saga, host.now).sentence;
    let key = |host: &Host, step: &str, direction| {
        idempotency_key(host.saga.id(), &step.parse().unwrap(), direction, 0)
    };
    host.answer("a", done());
    host.answer("b", unknown()).tick(100_000);
    host.answer("b", done()).answer("c", done());
    assert_eq!(
        sentence(&host),
        format!(
            "It is completed: every step is done. 1 of 2 attempts of b ended unknown; all were sent \
             with the idempotency key {}.",
            key(&host, "b", Direction::Execute)
        )
    );
    host.order(Verb::Compensate).answer("c", done()).answer("b", done());
    host.answer("a", unknown()).tick(100_000);
    host.answer("a", done());
    let told = sentence(&host);
    let undone = format!(
        "1 of 2 attempts to undo a ended unknown; all were sent with the idempotency key {}.",
        key(&host, "a", Direction::Compensate)
    );
    assert!(told.contains("1 of 2 attempts of b") && told.contains(&undone), "{told}");
    let mut host = Host::start(serial());
    host.answer("a", done()).answer("b", done()).answer("c", done());
    assert_eq!(sentence(&host), "It is completed: every step is done.");
}

#[test]
fn a_saga_without_a_trace_context_has_one_that_follows_from_its_id() {
    let host = Host::start(serial());
    let traceparent = host.saga.traceparent().into_owned();
    let id = host.saga.id().to_string().replace('-', "");
    assert_eq!(traceparent, format!("00-{id}-{}-01", &id[16..]));
    assert_eq!(host.saga.trace_id(), id);
    assert_eq!(host.saga.started().traceparent, None, "what is recorded is what the caller gave");
}

#[test]
fn the_input_of_a_step_is_what_its_call_was_given() {
    let mut host = Host::start(serial());
    let given = |host: &Host| {
        let call = host.running().remove(0);
        let (input, _) = arguments(&host.saga, &call).unwrap();
        (call.step, input)
    };
    let (a, first) = given(&host);
    host.answer("a", done());
    let (b, second) = given(&host);
    host.answer("b", permanent());
    assert_eq!(step_input(&host.saga, &a), Some(first.clone()));
    assert_eq!(step_input(&host.saga, &b), Some(second));
    assert_eq!(step_input(&host.saga, &"x".parse().unwrap()), None);
    // One that an operator edited is that.
    let mut host = Host::start(serial());
    host.answer("a", retryable());
    let edited = Payload::parse(r#"{"n":2}"#).unwrap();
    host.order(Verb::Retry { step: None, input: Some(edited.clone()), digest: None });
    assert_eq!(step_input(&host.saga, &a), Some(edited));
    assert_ne!(first.as_str(), r#"{"n":2}"#);
}

/// Its plugin is gone, its service is away, or, as here, its saga is held.
#[test]
fn an_undo_that_cannot_begin_is_skipped_or_resolved_when_the_order_says_that_it_is_meant() {
    for (verb, status) in [
        (skip(None), StepStatus::UndoSkipped),
        (resolve(Some("a"), true, None), StepStatus::Undone),
        (resolve(None, false, None), StepStatus::Undone),
    ] {
        let mut host = Host::start(serial());
        host.answer("a", done()).order(Verb::Pause).answer("b", permanent());
        assert!(host.running().is_empty());
        let told = why(&host.saga, host.now);
        let verbs = told.verbs;
        assert!(verbs.contains(&"skip") && verbs.contains(&"resolve"), "{verbs:?}");
        assert_eq!(told.undos, ["a".parse().unwrap()]);
        // Whoever gives it looked at the saga before it was undone, and means the step.
        assert!(host.refused(verb.clone()).contains("--undo"), "{verb:?}");
        host.order(of_undo(verb));
        assert_eq!(host.saga.step(&"a".parse().unwrap()).unwrap().status, status);
    }
    // One that runs, or waits for another undo, is not.
    let mut host = Host::start(serial());
    host.answer("a", done()).answer("b", done()).answer("c", permanent());
    for step in ["a", "b"] {
        let refused = host.refused(of_undo(skip(Some(step))));
        assert!(refused.contains("there is nothing to skip"), "{step}");
    }
}

/// An operator has found out what a step gave; meanwhile the saga is undone.
#[test]
fn the_result_of_a_step_does_not_say_that_its_undo_was_done() {
    let blocked = blocked();
    let mut held = Host::start(serial());
    held.answer("a", done()).order(Verb::Pause).answer("b", permanent());
    for (mut host, step) in [(blocked, "b"), (held, "a")] {
        for undo in [false, true] {
            let order = resolve(Some(step), true, Some(r#"{"n":1}"#));
            let order = if undo { of_undo(order) } else { order };
            assert!(!host.refused(order).is_empty());
        }
        host.order(of_undo(resolve(Some(step), true, None)));
        assert_eq!(host.saga.step(&step.parse().unwrap()).unwrap().status, StepStatus::Undone);
    }
}

/// An order meets the saga as the clock has made it: what it was about may be over, and an undo due that
/// nobody has seen.
#[test]
fn an_order_is_not_taken_for_an_undo_that_became_due_with_it() {
    let mut host = Host::start_with(serial(), Some(Duration::from_secs(1)), "{}");
    host.answer("a", done()).answer("b", unknown()).told();
    host.now = host.now.after(Duration::from_mins(1));
    for verb in [resolve(Some("b"), true, None), resolve(None, true, None), skip(Some("a"))] {
        let mut saga = host.saga.clone();
        let order = amends_engine::Input::Operate(host::order(verb));
        let refused = decide_on(&mut saga, host.now, order).refused;
        assert!(refused.is_some(), "{refused:?}");
    }
}

/// What `exposure` counts is not denied by the sentence.
#[test]
fn a_compensated_saga_says_what_stands_of_steps_without_an_undo() {
    let mut steps = serial();
    (steps[0].undo, steps[1].undo) = (None, None);
    let mut host = Host::start(steps);
    host.answer("a", done()).answer("b", unknown()).tick(100).answer("b", unknown());
    assert_eq!(host.saga.status(), SagaStatus::Compensated);
    let stands: Vec<_> = exposure(&host.saga).into_iter().map(|it| it.is_certain).collect();
    assert_eq!(stands, [true, false]);
    let told = why(&host.saga, host.now).sentence;
    let words = "It is compensated: all that has an undo is undone. Without an undo, the effect of a \
                 stands, the effect of b may stand. It was undone because b is unknown";
    assert!(told.starts_with(words), "{told}");
    let mut host = Host::start(serial());
    host.answer("a", done()).answer("b", permanent()).answer("a", done());
    let told = why(&host.saga, host.now).sentence;
    assert!(told.starts_with("It is compensated: no effect stands. It was undone"), "{told}");
}

#[test]
fn a_call_that_hangs_and_one_that_is_due_are_told_apart() {
    let mut steps = serial();
    let kind =
        StepKind::Call { plugin: "a".parse().unwrap(), service: Some("carrier".parse().unwrap()) };
    steps[0].kind = kind;
    let mut host = Host::start(steps);
    let began = host.now;
    let told = |host: &Host| why(&host.saga, host.now);
    assert_eq!(
        told(&host).sentence,
        format!(
            "It is running: attempt 1 of a is in flight to service `carrier` since {began}, its timeout \
             is 5s."
        )
    );
    host.answer("a", unknown());
    let next = host.now.after(Duration::from_millis(100));
    assert!(told(&host).sentence.contains(&format!("will be tried again at {next}")));
    assert_eq!(told(&host).next_at, Some(next));
    // Its time comes, and something holds it back.
    host.now = next;
    assert!(told(&host).sentence.contains("is due to be tried again, attempt 2 of 2"));
    assert_eq!(told(&host).next_at, None, "what is due does not wait for a time");
    let brief = activity_in_brief(&host.saga, host.now).unwrap();
    assert!(brief.starts_with("a is due again, 2 of 2"), "{brief}");
    host.tick(0);
    let sentence = told(&host).sentence;
    let (began, after) = (format!("since {next}, its timeout is 5s"), " (the attempt before: ");
    assert!(sentence.contains(&began) && sentence.contains(after), "{sentence}");
}

#[test]
fn a_blocked_saga_names_the_key_of_the_calls_that_came_to_nothing() {
    let host = blocked();
    let key = idempotency_key(host.saga.id(), &"b".parse().unwrap(), Direction::Compensate, 0);
    let told = why(&host.saga, host.now).sentence;
    let words = format!(
        "b answered {{\"ok\":true}}. The only attempt to undo b failed; it was sent with the idempotency \
         key {key}."
    );
    assert!(told.ends_with(&words), "{told}");
    let withheld = why_withheld(&host.saga, host.now).sentence;
    assert_eq!(withheld, told.replace("{\"ok\":true}", "\"[withheld]\""));
    let mut host = blocked();
    host.order(retry(None)).answer("b", unknown()).tick(100).answer("b", permanent());
    let told = why(&host.saga, host.now).sentence;
    assert!(told.contains("1 of 3 attempts to undo b ended unknown; all were sent with"), "{told}");
}

#[test]
fn who_settled_a_step_by_hand_stays_with_it() {
    let mut host = blocked();
    let by_hand = |host: &Host, step: &str| {
        let step = host.saga.step(&step.parse().unwrap()).unwrap();
        step.by_hand.map(|by_hand| format!("{}: {}", by_hand.who, by_hand.reason))
    };
    assert_eq!(by_hand(&host, "b"), None);
    host.order(resolve(None, true, None));
    let said = "ada: a mistake; known by ticket 7";
    assert_eq!(by_hand(&host, "b").as_deref(), Some(said));
    assert_eq!(by_hand(&host, "a"), None);
    host.answer("a", done());
    let told = why(&host.saga, host.now).sentence;
    assert!(told.contains(&format!("b counts as undone by word of {said}.")), "{told}");
    let mut host = blocked();
    host.order(skip(Some("b"))).answer("a", done());
    assert_eq!(by_hand(&host, "b").as_deref(), Some("ada: a mistake"));
    let told = why(&host.saga, host.now).sentence;
    let words =
        "What is left: the effect of b stands. The undo of b was skipped by ada: a mistake.";
    assert!(told.starts_with("It is abandoned: ") && told.contains(words), "{told}");
    // A call that is made after it says more than who was before it.
    let mut host = Host::start(serial());
    host.answer("a", unknown()).order(resolve(Some("a"), false, None));
    assert_eq!(by_hand(&host, "a").as_deref(), Some(said));
    host.tick(100).answer("a", done());
    assert_eq!(by_hand(&host, "a"), None);
    let mut host = Host::start(serial());
    host.answer("a", unknown()).order(resolve(Some("a"), true, Some("1")));
    assert_eq!(by_hand(&host, "a").as_deref(), Some(said));
    host.answer("b", permanent()).answer("a", Outcome::NothingToUndo);
    assert_eq!(by_hand(&host, "a"), None, "a component has undone it");
    let a = host.saga.step(&"a".parse().unwrap()).unwrap();
    assert!(a.undid_nothing);
}

#[test]
fn a_paused_saga_says_what_comes_when_it_is_resumed() {
    let mut host = Host::start(serial());
    host.answer("a", done()).order(Verb::Pause).order(Verb::Cancel);
    assert_eq!(host.saga.status(), SagaStatus::Paused);
    host.answer("b", done());
    let told = why(&host.saga, host.now).sentence;
    let words = "; then it goes on being undone because it was cancelled by ada: a mistake.";
    assert!(told.ends_with(words), "{told}");
    let brief = activity_in_brief(&host.saga, host.now).unwrap();
    assert!(brief.starts_with("paused by ada: a mistake"), "{brief}");
    host.order(Verb::Resume);
    let told = why(&host.saga, host.now).sentence;
    assert!(told.starts_with("It is being undone because it was cancelled by ada: "), "{told}");
    // One that waits for an operator besides.
    let mut host = blocked();
    host.order(Verb::Pause);
    let told = why(&host.saga, host.now).sentence;
    assert!(told.contains("; after that it needs an operator: the undo of b failed"), "{told}");
}

#[test]
fn what_is_due_already_does_not_hide_the_next_time() {
    let mut steps = vec![step("a", &[]), step("b", &[])];
    steps[0].retry = retries(3, &[100]);
    steps[1].retry = retries(3, &[5_000]);
    let mut host = Host::start(steps);
    host.answer("a", retryable()).answer("b", retryable());
    let next = host.now.after(Duration::from_secs(5));
    // The breaker of a holds it back.
    host.now = host.now.after(Duration::from_millis(200));
    assert_eq!(why(&host.saga, host.now).next_at, Some(next));
}
