//! A saga whose personal values are erased: a call that needs one of them blocks it and does not begin.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod host;

use std::collections::BTreeMap;
use std::time::Duration;

use amends_engine::{
    Call, DefinitionSpec, Direction, EachSpec, Event, InputSpec, Outcome, Payload, SagaStatus,
    StepKind, StepName, StepSpec, StepStatus, Target, UndoSpec, Verb, WaitSpec, arguments,
    commands, idempotency_key, replay, why,
};

use host::{Host, done, permanent, retryable, step};

/// What the runtime reads of a saga whose key is gone.
const INPUT: &str = r#"{"id":"c-81","order":7,"name":"[erased]","to":"[erased]","mails":[{"at":"[erased]","kind":"home"}]}"#;

fn definition(steps: Vec<StepSpec>) -> DefinitionSpec {
    DefinitionSpec {
        name: "test".parse().unwrap(),
        deadline: None,
        compensate_within: Some(Duration::from_hours(1)),
        index: BTreeMap::new(),
        subject: Some("input.id".to_owned()),
        personal: vec!["input.name".to_owned(), "input.to".to_owned()],
        steps,
    }
}

/// A step whose input is computed by an expression.
fn given(name: &str, after: &[&str], input: &str) -> StepSpec {
    let fields = BTreeMap::from([("given".to_owned(), input.to_owned())]);
    StepSpec { input: Some(InputSpec::Fields(fields)), ..step(name, after) }
}

/// Starts a saga whose key goes after its start.
fn start(steps: Vec<StepSpec>) -> Host {
    let mut host = Host::start_spec(definition(steps), INPUT, None);
    host.saga.set_erased();
    host.told();
    host
}

/// `a` needs nothing that is erased, `b` needs the name.
fn serial() -> Vec<StepSpec> {
    vec![given("a", &[], "input.order"), given("b", &["a"], "input.name")]
}

fn of(step: &str) -> StepName {
    step.parse().unwrap()
}

fn retry(step: &str, input: Option<&str>) -> Verb {
    let input = input.map(|input| Payload::parse(input).unwrap());
    Verb::Retry { step: Some(of(step)), input, digest: None }
}

fn resolve(step: &str, output: Option<&str>) -> Verb {
    let output = output.map(|output| Payload::parse(output).unwrap());
    let evidence = "their invoice".to_owned();
    Verb::Resolve { step: Some(of(step)), happened: true, output, evidence, undo: false }
}

#[test]
fn a_step_that_needs_an_erased_value_blocks_the_saga_and_is_not_called() {
    let mut host = start(serial());
    host.answer("a", done());
    assert_eq!(host.told(), ["step.succeeded a 1", "saga.blocked b"]);
    assert_eq!(host.saga.status(), SagaStatus::Blocked);
    assert_eq!(commands(&host.saga).count(), 0);
    host.tick(60_000);
    assert_eq!(host.told(), [""; 0], "it is said once");
    let why = why(&host.saga, host.now);
    assert!(
        why.sentence.starts_with(
            "It is blocked and needs an operator: b does not begin, because it needs values of the \
             subject `c-81` that were erased; resolve or skip it"
        ),
        "{}",
        why.sentence
    );
    let key = idempotency_key(host.saga.id(), &"b".parse().unwrap(), Direction::Execute, 0);
    assert!(why.sentence.contains(&format!("would carry the idempotency key {key}")));
    assert_eq!(why.verbs, ["retry", "resolve", "skip", "cancel", "pause", "abandon"]);
}

#[test]
fn the_subject_is_named_by_its_key_when_it_is_erased_itself() {
    let mut spec = definition(serial());
    spec.subject = Some("input.name".to_owned());
    let mut host = Host::start_spec(spec, INPUT, None);
    host.saga.set_erased();
    host.answer("a", done());
    assert!(host.saga.reason().unwrap().contains("needs values of its subject that were erased"));
}

#[test]
fn an_operator_moves_a_step_that_lacks_values() {
    let mut host = start(serial());
    host.answer("a", done()).told();
    host.order(retry("b", None));
    assert_eq!(host.told(), ["operator.retried b", "saga.blocked b"]);
    host.order(retry("b", Some(r#"{"given":"Ada"}"#)));
    assert_eq!(host.told(), ["operator.retried b", "step.started b 1"]);
    let call = host.running().remove(0);
    assert_eq!(call.generation, 0, "a call from after a backup may have had this key");
    assert_eq!(arguments(&host.saga, &call).unwrap().0.as_str(), r#"{"given":"Ada"}"#);

    let mut host = start(serial());
    host.answer("a", done()).told();
    host.order(resolve("b", Some("7")));
    assert_eq!(host.told(), ["operator.resolved b", "saga.completed"]);
    assert_eq!(host.saga.output().unwrap().as_str(), "7");

    let mut host = start(serial());
    host.answer("a", done()).told();
    host.order(Verb::Skip { step: None, undo: false });
    assert_eq!(host.told(), ["operator.skipped b", "saga.completed"]);

    let mut host = start(serial());
    host.answer("a", done()).told();
    host.cancel();
    let told = ["operator.cancelled", "compensation.started cancelled", "undo.started a 1"];
    assert_eq!(host.told(), told);
    assert_eq!(host.saga.status(), SagaStatus::Compensating);
    assert!(!host.saga.reason().unwrap().contains("erased"));
}

#[test]
fn an_undo_that_needs_an_erased_value_blocks_the_saga_and_the_others_run() {
    let compensated = || {
        let mut steps = serial();
        steps.push(given("c", &["b"], "input.order"));
        let mut host = Host::start_spec(definition(steps), INPUT, None);
        host.answer("a", done()).answer("b", done()).answer("c", done());
        assert_eq!(host.saga.status(), SagaStatus::Completed);
        host.saga.set_erased();
        host.told();
        host.order(Verb::Compensate).answer("c", done());
        let told = host.told();
        let end = ["undo.started c 1", "undo.succeeded c 1", "saga.blocked b"];
        assert_eq!(told[told.len() - 3..], end);
        host
    };
    let host = compensated();
    let sentence = why(&host.saga, host.now).sentence;
    assert!(sentence.contains("the undo of b does not begin"), "{sentence}");
    assert!(sentence.contains("The call to undo b would carry"), "{sentence}");
    assert_eq!(host.saga.step(&of("b")).unwrap().status, StepStatus::Succeeded);

    let mut host = compensated();
    host.order(resolve("b", None));
    assert_eq!(host.told(), ["operator.resolved b", "undo.started a 1"]);
    host.answer("a", done());
    assert_eq!(host.saga.status(), SagaStatus::Compensated);

    let mut host = compensated();
    host.order(Verb::Skip { step: Some(of("b")), undo: false }).answer("a", done());
    assert_eq!(host.saga.status(), SagaStatus::Abandoned);

    let mut host = compensated();
    host.order(retry("b", Some(r#"{"given":"Ada"}"#)));
    assert_eq!(host.told(), ["operator.retried b", "undo.started b 1"]);
    assert_eq!(host.running()[0].generation, 0);
}

#[test]
fn an_undo_needs_what_its_step_answered() {
    let mut host = Host::start_spec(definition(serial()), INPUT, None);
    let answer = Payload::parse(r#"{"iban":"[erased]"}"#).unwrap();
    host.answer("a", Outcome::Succeeded(answer)).answer("b", permanent());
    assert_eq!(host.running()[0].direction, Direction::Compensate, "the key is there");
    let mut cut_off = host.saga.clone();
    cut_off.set_erased();
    let call = host.running().remove(0);
    assert!(arguments(&host.saga, &call).is_ok());
    assert!(arguments(&cut_off, &call).unwrap_err().contains("erased"), "nobody is asked about it");
}

#[test]
fn a_step_that_backs_off_lacks_values_and_no_timer_wakes_it() {
    let mut host = Host::start_spec(definition(serial()), INPUT, None);
    host.answer("a", done()).answer("b", retryable());
    assert!(host.saga.wake_at().is_some());
    host.saga.set_erased();
    host.told();
    host.tick(1);
    assert_eq!(host.told(), ["saga.blocked b"]);
    assert_eq!(host.saga.wake_at(), None);
    assert_eq!(commands(&host.saga).count(), 0);
    host.tick(60_000);
    assert_eq!(host.told(), [""; 0]);
}

#[test]
fn of_two_steps_that_lack_values_one_is_moved_and_the_saga_stays_blocked() {
    let l = given("l", &["a"], "input.name");
    let r = given("r", &["a"], "'to ' + input.to");
    let free = given("free", &["a"], "input.order");
    let mut host = start(vec![given("a", &[], "input.order"), l, r, free]);
    host.answer("a", done());
    let told = ["step.succeeded a 1", "saga.blocked l", "saga.blocked r", "step.started free 1"];
    assert_eq!(host.told(), told);
    assert!(host.refused(Verb::Skip { step: None, undo: false }).contains("name one of l, r"));
    host.order(resolve("r", Some("1")));
    assert_eq!(host.told(), ["operator.resolved r", "saga.blocked l"]);
    host.answer("free", done()).order(resolve("l", Some("1")));
    assert_eq!(host.saga.status(), SagaStatus::Completed);
}

/// An expression over an erased value must not decide: it would fail the step, or skip it.
#[test]
fn nothing_is_decided_by_an_erased_value() {
    let all = || step("b", &["a"]);
    let reads = [
        given("b", &["a"], "input.to.street"),
        given("b", &["a"], "size(input.name)"),
        given("b", &["a"], "size(input.mails)"),
        given("b", &["a"], "input[\"name\"]"),
        given("b", &["a"], "input.mails.map(mail, mail.at)"),
        given("b", &["a"], "input.mails[0].at"),
        given("b", &["a"], "steps.a.output.iban"),
        StepSpec { input: Some(InputSpec::Whole("input".to_owned())), ..all() },
        StepSpec { when: Some("input.name == 'Ada'".to_owned()), ..given("b", &["a"], "1") },
        StepSpec {
            each: Some(EachSpec { list: "input.mails".to_owned(), concurrency: 1 }),
            ..given("b", &["a"], "item.kind")
        },
        StepSpec {
            kind: StepKind::Wait { wait: WaitSpec { signal: "s".parse().unwrap(), timeout: None } },
            when: Some("has(input.to.street)".to_owned()),
            undo: None,
            ..all()
        },
        all(),
    ];
    let answer = Payload::parse(r#"{"iban":"[erased]","ok":true}"#).unwrap();
    for read in reads {
        let what = format!("{read:?}");
        let mut host = start(vec![given("a", &[], "input.order"), read]);
        host.answer("a", Outcome::Succeeded(answer.clone()));
        assert_eq!(host.told(), ["step.succeeded a 1", "saga.blocked b"], "{what}");
    }
    for free in ["input.id", "input.mails[0].kind", "steps.a.output.ok", "input.order + 1"] {
        let mut host = start(vec![given("a", &[], "input.order"), given("b", &["a"], free)]);
        host.answer("a", Outcome::Succeeded(answer.clone()));
        assert_eq!(host.told(), ["step.succeeded a 1", "step.started b 1"], "{free}");
    }
}

#[test]
fn the_undo_of_a_saga_that_a_step_ran_needs_no_values() {
    let runs = given("b", &["a"], "input.name");
    let undo = runs.undo.clone().map(|undo| UndoSpec { plugin: None, ..undo });
    let kind = StepKind::Saga { saga: "child".parse().unwrap() };
    let runs = StepSpec { kind, undo, ..runs };
    let steps = vec![given("a", &[], "input.order"), runs];
    let mut host = start(steps.clone());
    host.answer("a", done());
    assert_eq!(host.told(), ["step.succeeded a 1", "saga.blocked b"]);
    let mut host = Host::start_spec(definition(steps), INPUT, None);
    host.answer("a", done()).answer("b", done());
    host.saga.set_erased();
    host.told();
    host.order(Verb::Compensate);
    let is_undo = |call: &Call| {
        call.direction == Direction::Compensate && matches!(call.target, Target::Saga { .. })
    };
    assert!(host.running().iter().all(is_undo) && host.running().len() == 1);
}

#[test]
fn elements_lack_values_one_by_one() {
    let each = EachSpec { list: "[1, 2]".to_owned(), concurrency: 1 };
    let listed = StepSpec { each: Some(each), ..given("b", &["a"], "item") };
    let steps = vec![given("a", &[], "input.order"), listed];
    let mut host = Host::start_spec(definition(steps), INPUT, None);
    host.answer("a", done());
    assert_eq!(host.log.last().unwrap().1.kind(), "step.started");
    host.log.pop();
    // What was recorded of the elements reads as erased, too.
    for (_, event) in &mut host.log {
        let data = event.data().replace(r#""items":[1,2]"#, r#""items":["[erased]",2]"#);
        *event = Event::decode(&event.kind(), &data).unwrap();
    }
    let log = host.log.iter().map(|(at, event)| (*at, event));
    host.saga = replay(host.saga.id(), host.saga.definition().clone(), log).unwrap();
    host.saga.set_erased();
    host.told();
    host.tick(1);
    assert_eq!(host.told(), ["saga.blocked b[0]"]);
    host.order(resolve("b[0]", Some("1"))).answer("b[1]", done());
    assert_eq!(host.saga.status(), SagaStatus::Completed);
}

/// What the log says does not depend on whether the key is gone.
#[test]
fn a_log_of_a_blocked_saga_is_read_without_its_key() {
    let mut host = start(serial());
    host.answer("a", done());
    let read = |host: &Host| {
        let log = host.log.iter().map(|(at, event)| (*at, event));
        replay(host.saga.id(), host.saga.definition().clone(), log).unwrap()
    };
    let saga = read(&host);
    assert_eq!((saga.status(), saga.wake_at()), (SagaStatus::Blocked, None));
    assert_eq!(commands(&saga).count(), 0);
    assert_eq!(why(&saga, host.now), why(&host.saga, host.now));
    host.order(resolve("b", Some("7")));
    assert_eq!(read(&host).status(), SagaStatus::Completed);
}
