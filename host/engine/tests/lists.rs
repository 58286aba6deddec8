//! Steps that run once for each element of a list.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod host;

use amends_engine::{
    Direction, ELEMENTS_MAX, EachSpec, InputSpec, Outcome, Payload, SagaId, SagaStatus, StepKind,
    StepSpec, StepStatus, Target, UndoSpec, Verb, arguments, exposure, idempotency_key, undo_plan,
    why,
};

use host::{Host, done, permanent, retryable, serial, step, unknown};

fn each(list: &str, concurrency: usize) -> EachSpec {
    EachSpec { list: list.to_owned(), concurrency }
}

/// a, then b for each of `input.items`, then c.
fn list(concurrency: usize) -> Vec<StepSpec> {
    let mut steps = serial();
    steps[1].each = Some(each("input.items", concurrency));
    steps
}

fn start(steps: Vec<StepSpec>, input: &str) -> Host {
    let mut host = Host::start_with(steps, None, input);
    host.answer("a", done()).told();
    host
}

fn answered(text: &str) -> Outcome {
    Outcome::Succeeded(Payload::parse(text).unwrap())
}

fn status(host: &Host, step: &str) -> StepStatus {
    host.saga.step(&step.parse().unwrap()).unwrap().status
}

#[test]
fn it_calls_once_an_element_and_answers_the_list_of_what_they_answer() {
    let mut host = Host::start_with(list(16), None, r#"{"items":["x","y","z"]}"#);
    host.answer("a", done());
    let told = [
        "step.succeeded a 1",
        "step.expanded b",
        "step.started b[0] 1",
        "step.started b[1] 1",
        "step.started b[2] 1",
    ];
    assert_eq!(host.told()[2..], told);
    assert_eq!(host.saga.status(), SagaStatus::Running);
    let told = why(&host.saga, host.now).sentence;
    assert!(
        told.contains("0 of 3 elements of b are done; attempt 1 of b[0] is in flight"),
        "{told}"
    );
    let inputs: Vec<_> =
        host.running().iter().map(|call| arguments(&host.saga, call).unwrap().0).collect();
    let input = inputs[1].as_str();
    assert!(input.ends_with(r#""item":"y","steps":{"a":{"output":{"ok":true}}}}"#), "{input}");
    assert!(input.starts_with(r#"{"index":1,"input":{"items":"#), "{input}");
    host.answer("b[2]", answered("3")).answer("b[0]", answered("1"));
    assert_eq!(host.told(), ["step.succeeded b[2] 1", "step.succeeded b[0] 1"]);
    host.answer("b[1]", answered("2"));
    let told = ["step.succeeded b[1] 1", "step.succeeded b 0", "step.started c 1"];
    assert_eq!(host.told(), told);
    let b = host.saga.step(&"b".parse().unwrap()).unwrap();
    assert_eq!(b.output.unwrap().as_str(), "[1,2,3]");
    host.answer("c", done());
    assert_eq!(host.saga.status(), SagaStatus::Completed);
    let names: Vec<_> = host.saga.steps().map(|step| step.name.to_string()).collect();
    assert_eq!(names, ["a", "b", "b[0]", "b[1]", "b[2]", "c"]);
}

#[test]
fn no_more_elements_are_under_way_than_may_be() {
    let mut host = start(list(2), r#"{"items":[1,2,3,4]}"#);
    let running = |host: &Host| -> Vec<String> {
        host.running().iter().map(|call| call.step.to_string()).collect()
    };
    assert_eq!(running(&host), ["b[0]", "b[1]"]);
    host.answer("b[1]", retryable());
    assert_eq!(running(&host), ["b[0]"], "one that is tried again keeps its place");
    host.tick(100);
    assert_eq!(running(&host), ["b[0]", "b[1]"]);
    host.answer("b[0]", done());
    assert_eq!(running(&host), ["b[1]", "b[2]"]);
    host.cancel();
    for element in ["b[1]", "b[2]"] {
        host.answer(element, done());
    }
    assert_eq!(running(&host), ["b[0]", "b[1]"], "undone by twos as well");
    host.answer("b[0]", retryable());
    assert_eq!(running(&host), ["b[1]"]);
    host.answer("b[1]", permanent());
    assert_eq!(running(&host), ["b[2]"], "one that is blocked holds up no other");
}

#[test]
fn one_that_fails_has_those_that_succeeded_undone_before_what_came_before_them() {
    let mut host = start(list(3), r#"{"items":[1,2,3,4]}"#);
    host.answer("b[1]", permanent()).answer("b[0]", done()).told();
    assert_eq!(status(&host, "b"), StepStatus::Undoing);
    host.answer("b[2]", unknown());
    assert_eq!(host.told(), ["step.unknown b[2] 1", "undo.started b[2] 1"]);
    assert_eq!(status(&host, "b[3]"), StepStatus::Pending, "no element begins");
    assert_eq!(
        host.saga.reason().unwrap(),
        "b[1] failed: no: it is not possible",
        "the element is named"
    );
    host.answer("b[0]", done());
    assert_eq!(host.told(), ["undo.succeeded b[0] 1"], "a waits for all of them");
    host.answer("b[2]", Outcome::NothingToUndo);
    assert_eq!(host.told(), ["undo.succeeded b[2] 1", "undo.started a 1"]);
    host.answer("a", done());
    assert_eq!(host.saga.status(), SagaStatus::Compensated);
    assert_eq!(status(&host, "b"), StepStatus::Undone);
    assert_eq!(status(&host, "b[1]"), StepStatus::Failed);
}

#[test]
fn the_plan_and_what_stands_name_each_element() {
    let mut host = start(list(3), r#"{"items":["x","y"]}"#);
    host.answer("b[0]", done()).answer("b[1]", done()).answer("c", done());
    let plan = undo_plan(&host.saga);
    let plan: Vec<_> = plan.iter().map(|undo| (undo.step.as_str(), undo.wave)).collect();
    assert_eq!(plan, [("c", 1), ("b[0]", 2), ("b[1]", 2), ("a", 3)]);
    let stands = exposure(&host.saga);
    let stands: Vec<_> = stands.iter().map(|effect| effect.step.as_str()).collect();
    assert_eq!(stands, ["a", "c", "b[0]", "b[1]"]);
}

#[test]
fn the_undo_of_one_that_blocks_is_resolved_by_its_name() {
    let mut host = start(list(3), r#"{"items":["x","y"]}"#);
    host.answer("b[0]", done()).answer("b[1]", done());
    host.answer("c", permanent()).answer("b[1]", permanent()).answer("b[0]", done());
    assert_eq!(host.saga.status(), SagaStatus::Blocked);
    assert_eq!(status(&host, "b"), StepStatus::UndoBlocked);
    let told = why(&host.saga, host.now).sentence;
    assert!(told.contains("the undo of b[1] failed: no: it is not possible"), "{told}");
    assert!(told.contains("the undo of a waits for that"), "{told}");
    assert_eq!(why(&host.saga, host.now).verbs, ["retry", "resolve", "skip", "pause", "abandon"]);
    let resolve = |step: &str| Verb::Resolve {
        step: Some(step.parse().unwrap()),
        happened: true,
        output: None,
        evidence: "seen".to_owned(),
        undo: false,
    };
    assert_eq!(
        host.refused(resolve("b")),
        "b is undo_blocked, so there is nothing to resolve; name one of b[1]"
    );
    assert!(host.refused(resolve("b[7]")).starts_with("the saga has no step `b[7]`"));
    host.order(resolve("b[1]")).answer("a", done());
    assert_eq!(host.saga.status(), SagaStatus::Compensated);
}

#[test]
fn where_several_are_blocked_the_verbs_for_one_of_them_are_told() {
    let mut host = start(list(3), r#"{"items":["x","y"]}"#);
    host.answer("b[0]", done()).answer("b[1]", done());
    host.answer("c", permanent()).answer("b[1]", permanent()).answer("b[0]", permanent());
    assert_eq!(why(&host.saga, host.now).verbs, ["retry", "resolve", "skip", "pause", "abandon"]);
}

#[test]
fn an_empty_list_is_done_at_once() {
    let mut host = Host::start_with(list(3), None, r#"{"items":[]}"#);
    host.answer("a", done());
    let told = ["step.expanded b", "step.succeeded b 0", "step.started c 1"];
    assert_eq!(host.told()[3..], told);
    assert_eq!(host.saga.step(&"b".parse().unwrap()).unwrap().output.unwrap().as_str(), "[]");
}

#[test]
fn what_is_no_list_or_too_long_fails_before_any_call() {
    let error = |steps: Vec<StepSpec>, input: &str| {
        let mut host = Host::start_with(steps, None, input);
        host.answer("a", done());
        assert_eq!(
            host.told()[3..],
            ["step.failed b 0", "compensation.started b step_failed", "undo.started a 1"]
        );
        host.saga.step(&"b".parse().unwrap()).unwrap().error.unwrap().clone()
    };
    assert_eq!(error(list(3), r#"{"items":"x"}"#).message, "each: it gives a text, not a list");
    assert!(error(list(3), "{}").message.starts_with("each: `input.items`: "));
    let long: Vec<_> = (0..=ELEMENTS_MAX).collect();
    let message = error(list(3), &format!(r#"{{"items":{long:?}}}"#)).message;
    assert_eq!(message, "each: 1001 elements, at most 1000 are allowed in one saga");
    let mut steps = list(3);
    steps[1].input = Some(InputSpec::Whole("item.drug".to_owned()));
    let failure = error(steps, r#"{"items":[{"drug":"x"},{}]}"#);
    assert_eq!(failure.code, "input_failed");
    assert!(failure.message.starts_with("input of element 1: "), "{}", failure.message);
}

#[test]
fn what_they_answer_together_may_be_too_much() {
    let mut host = start(list(2), r#"{"items":[1,2]}"#);
    let large = format!("\"{}\"", "x".repeat(600_000));
    host.answer("b[0]", answered(&large)).answer("b[1]", answered(&large));
    let told = host.told();
    assert_eq!(told[2..4], ["step.failed b 0", "compensation.started b step_failed"]);
    assert!(host.saga.reason().unwrap().contains("output_too_large"), "{:?}", host.saga.reason());
    host.answer("b[0]", done()).answer("b[1]", done()).answer("a", done());
    assert_eq!(host.saga.status(), SagaStatus::Compensated);
}

#[test]
fn each_element_has_a_key_and_a_saga_of_its_own() {
    let id = SagaId::from_bytes([1; 16]);
    let key = |step: &str| idempotency_key(id, &step.parse().unwrap(), Direction::Execute, 0);
    assert_ne!(key("b[0]"), key("b[1]"));
    assert_ne!(key("b[0]"), key("b"));
    let mut steps = list(2);
    let undo = steps[1].undo.clone().map(|undo| UndoSpec { plugin: None, ..undo });
    let kind = StepKind::Saga { saga: "child".parse().unwrap() };
    steps[1] = StepSpec { kind, undo, ..steps[1].clone() };
    let host = start(steps, r#"{"items":[1,2]}"#);
    let ids: Vec<_> = host
        .running()
        .iter()
        .map(|call| match call.target {
            Target::Saga { id, .. } => id.unwrap(),
            Target::Plugin(_) => panic!("it runs a saga"),
        })
        .collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
    let shown = host.saga.steps().filter_map(|step| step.child);
    assert_eq!(shown.collect::<Vec<_>>(), ids);
}

#[test]
fn past_the_pivot_an_element_blocks_alone_and_is_tried_again() {
    let mut steps = list(2);
    steps[0].pivot = true;
    for step in &mut steps[1..] {
        step.undo = None;
    }
    let mut host = start(steps, r#"{"items":[1,2,3]}"#);
    host.answer("b[0]", permanent()).answer("b[1]", done()).told();
    assert_eq!(host.saga.status(), SagaStatus::Blocked);
    host.answer("b[2]", done());
    assert_eq!(host.told(), ["step.succeeded b[2] 1"]);
    host.order(Verb::Retry { step: None, input: None, digest: None });
    host.answer("b[0]", done()).answer("c", done());
    assert_eq!(host.saga.status(), SagaStatus::Completed);
}

#[test]
fn a_name_with_a_number_is_an_element_and_no_other() {
    let parse = |text: &str| text.parse::<amends_engine::StepName>();
    let name = parse("b[12]").unwrap();
    assert_eq!((name.step(), name.number(), name.to_string()), ("b", Some(12), "b[12]".to_owned()));
    assert_eq!((parse("b").unwrap().step(), parse("b").unwrap().number()), ("b", None));
    for wrong in ["b[", "b[]", "b[01]", "b[-1]", "b[+1]", "b[1]]", "b[1]x", "[1]", "B[1]", "b]"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    let mut plain = step("b", &[]);
    plain.name = name;
    let spec = amends_engine::DefinitionSpec {
        name: "test".parse().unwrap(),
        deadline: None,
        compensate_within: None,
        index: std::collections::BTreeMap::new(),
        subject: None,
        personal: Vec::new(),
        steps: vec![plain],
    };
    let errors = amends_engine::Definition::new(spec).unwrap_err();
    assert!(errors[0].to_string().contains("`b[12]` is the name of an element"), "{errors:?}");
}
