//! What a definition may not be: each mistake is told with its step, its key and its remedy.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use amends_engine::{
    BackoffSpec, Definition, DefinitionSpec, InputSpec, RetrySpec, STEPS_MAX, StepKind, StepSpec,
    TIMEOUT_DEFAULT, UndoSpec,
};

fn step(name: &str, after: &[&str]) -> StepSpec {
    StepSpec {
        each: None,
        name: name.parse().unwrap(),
        kind: StepKind::Call { plugin: "plugin".parse().unwrap(), service: None },
        after: after.iter().map(|name| name.parse().unwrap()).collect(),
        when: None,
        input: None,
        timeout: TIMEOUT_DEFAULT,
        retry: RetrySpec::default(),
        undo: Some(UndoSpec {
            plugin: Some("plugin".parse().unwrap()),
            timeout: TIMEOUT_DEFAULT,
            retry: RetrySpec::default(),
        }),
        pivot: false,
    }
}

fn serial() -> DefinitionSpec {
    let steps = vec![step("a", &[]), step("b", &["a"]), step("c", &["b"])];
    DefinitionSpec {
        name: "three".parse().unwrap(),
        deadline: None,
        compensate_within: None,
        index: std::collections::BTreeMap::new(),
        subject: None,
        personal: Vec::new(),
        steps,
    }
}

/// The mistakes of the serial definition after a change, one a line.
fn mistakes(change: impl FnOnce(&mut DefinitionSpec)) -> String {
    let mut spec = serial();
    change(&mut spec);
    let errors = Definition::new(spec).expect_err("it is taken");
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn listed(attempts: u32, pauses: &[u64]) -> RetrySpec {
    let pauses = pauses.iter().copied().map(Duration::from_secs).collect();
    RetrySpec { attempts, backoff: BackoffSpec::Listed(pauses) }
}

fn exponential(initial: u64, factor: f64, max: u64, jitter: f64) -> RetrySpec {
    let (initial, max) = (Duration::from_secs(initial), Duration::from_secs(max));
    let backoff = BackoffSpec::Exponential { initial, factor, max, jitter };
    RetrySpec { attempts: 3, backoff }
}

macro_rules! refused {
    ($($name:ident: $change:expr => $told:literal;)*) => {$(
        #[test]
        fn $name() {
            let told = mistakes($change);
            assert!(told.contains($told), "{told}");
        }
    )*};
}

refused! {
    no_steps: |spec| spec.steps.clear() => "a saga without steps does nothing; add a [[saga.step]]";
    two_of_a_name: |spec| spec.steps[1] = step("a", &[]) =>
        "step a, name: two steps are named `a`";
    no_such_step: |spec| spec.steps[2] = step("c", &["d"]) =>
        "step c, after: there is no step `d` in three; the steps are a, b, c";
    after_itself: |spec| spec.steps[2] = step("c", &["c"]) => "the step comes after itself";
    a_cycle: |spec| spec.steps[0] = step("a", &["c"]) => "the steps wait for each other: ";
    no_time: |spec| spec.steps[0].timeout = Duration::ZERO => "a timeout is between 1ms and 1h";
    no_attempts: |spec| spec.steps[0].retry = listed(0, &[]) => "attempts = 0";
    no_pauses: |spec| spec.steps[0].retry = listed(2, &[]) => "backoff is an empty list";
    a_pause_never_reached: |spec| spec.steps[0].retry = listed(2, &[1, 2]) =>
        "backoff lists 2 pauses, but 2 attempts have only 1 between them";
    a_shrinking_pause: |spec| spec.steps[0].retry = exponential(1, 0.5, 9, 0.0) => "factor = 0.5";
    too_much_jitter: |spec| spec.steps[0].retry = exponential(1, 2.0, 9, 1.5) => "jitter = 1.5";
    initial_past_max: |spec| spec.steps[0].retry = exponential(9, 2.0, 1, 0.0) =>
        "initial is longer than max";
    an_undo_that_never_retries_right: |spec| {
        let undo = spec.steps[1].undo.as_mut().unwrap();
        undo.retry = listed(0, &[]);
    } => "step b, undo.retry: attempts = 0";
    no_deadline: |spec| spec.deadline = Some(Duration::ZERO) => "deadline: the deadline is not";
    two_pivots: |spec| { spec.steps[0].pivot = true; spec.steps[1].pivot = true; } =>
        "step b, pivot: `a` is the pivot already";
    beside_the_pivot: |spec| { spec.steps[1].pivot = true; spec.steps[2] = step("c", &["a"]); } =>
        "the step runs beside the pivot `b`";
    an_undo_past_the_pivot: |spec| spec.steps[1].pivot = true =>
        "step c, undo: nothing is undone after the pivot `b`";
    not_an_expression: |spec| spec.steps[1].when = Some("input.".to_owned()) =>
        "step b, when: `input.` is not a CEL expression";
    an_unknown_name: |spec| spec.steps[1].when = Some("order.ok".to_owned()) =>
        "`order.ok` uses `order`, which is not known here";
    a_step_that_is_not_done_before: |spec| {
        spec.steps[1].input = Some(InputSpec::Whole("steps.c.output".to_owned()));
    } => "reads step `c`: `c` is after `b`, so `b` cannot read it; move `c` before this step";
    a_step_that_does_not_exist: |spec| {
        spec.steps[1].input = Some(InputSpec::Whole("steps[\"z\"].output".to_owned()));
    } => "reads step `z`, which does not exist";
}

#[test]
fn a_definition_has_at_most_as_many_steps_as_a_set_holds() {
    let spec = |steps: usize| DefinitionSpec {
        name: "many".parse().unwrap(),
        deadline: None,
        compensate_within: None,
        index: std::collections::BTreeMap::new(),
        subject: None,
        personal: Vec::new(),
        steps: (0..steps).map(|index| step(&format!("s{index}"), &[])).collect(),
    };
    assert!(Definition::new(spec(STEPS_MAX)).is_ok());
    let errors = Definition::new(spec(STEPS_MAX + 1)).unwrap_err();
    assert_eq!(errors[0].message, "129 steps, at most 128 are allowed");
}

#[test]
fn every_mistake_is_told_at_once() {
    let told = mistakes(|spec| {
        spec.steps[0].timeout = Duration::ZERO;
        spec.steps[1].retry = listed(0, &[]);
        spec.steps[2] = step("c", &["d"]);
    });
    assert_eq!(told.lines().count(), 3, "{told}");
}

#[test]
fn a_definition_is_identified_by_all_that_it_says() {
    let plain = Definition::new(serial()).unwrap();
    let read = Definition::from_canonical(&plain.canonical()).unwrap();
    assert_eq!(read.digest(), plain.digest());
    let mut other = serial();
    other.steps[2].timeout += Duration::from_millis(1);
    assert_ne!(Definition::new(other).unwrap().digest(), plain.digest());
}

#[test]
fn the_canonical_form_of_earlier_versions_is_read() {
    let golden = include_str!("golden/definition.json").trim_end();
    let definition = Definition::from_canonical(golden).unwrap();
    assert_eq!(definition.canonical(), golden, "the stored form changed: old digests are lost");
}
