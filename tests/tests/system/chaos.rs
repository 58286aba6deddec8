//! `amends chaos`: what it finds, and what it does not.

use std::fs;

use amends_tests::{Behaviour, Component};
use serde_json::Value;

use crate::place::{Place, example, stderr, stdout};

/// The answer of `chaos`, and its exit code.
fn chaos(place: &Place, input: &str) -> (Value, Option<i32>) {
    let config = place.path("amends.toml");
    let chaos = ["chaos", config.to_str().unwrap(), "--input", input, "-o", "json"];
    let output = place.amends(&chaos);
    let answer = serde_json::from_slice(&output.stdout);
    let answer = answer.unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)));
    (answer, output.status.code())
}

fn findings(answer: &Value) -> Vec<&str> {
    answer["findings"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect()
}

#[test]
fn the_example_passes_with_every_fault() {
    let place = Place::example();
    let orders = example().join("orders.ndjson");
    let (answer, code) = chaos(&place, orders.to_str().unwrap());
    assert_eq!((code, findings(&answer)), (Some(0), Vec::new()));
    // Each step in five ways, each undo in three.
    assert_eq!(answer["trials"].as_array().unwrap().len(), 3 * (5 + 3), "{answer}");
    assert!(answer["crashes"].as_u64().unwrap() > 50, "{answer}");
    let table = place.amends(&[
        "chaos",
        place.path("amends.toml").to_str().unwrap(),
        "--input",
        orders.to_str().unwrap(),
    ]);
    assert!(stdout(&table).contains("nothing found: every saga ended as it must"));
}

/// One saga of three steps, in which one plugin is broken.
fn broken(component: &Component<'_>) -> Place {
    let place = Place::empty();
    let good = Component { name: "good", ..Component::default() };
    fs::write(place.plugin("good"), good.build()).unwrap();
    fs::write(place.plugin("broken"), component.build()).unwrap();
    place.config(
        "[[saga]]\nname = \"three\"\n\
         [[saga.step]]\nname = \"a\"\nplugin = \"good\"\n\
         [[saga.step]]\nname = \"b\"\nplugin = \"broken\"\n\
         [[saga.step]]\nname = \"c\"\nplugin = \"good\"\n",
    );
    fs::write(place.path("input.json"), "{}").unwrap();
    place
}

#[test]
fn a_step_that_is_not_idempotent_is_found() {
    let execute = Behaviour::Attempt;
    let place = broken(&Component { name: "broken", execute, ..Component::default() });
    let (answer, code) = chaos(&place, place.path("input.json").to_str().unwrap());
    let found = findings(&answer);
    assert_eq!(code, Some(1), "{answer}");
    assert_eq!(found.len(), 1, "{found:?}");
    let words = "b reply lost: not idempotent: the same key answered {\"n\":1} and then {\"n\":2}";
    assert!(found[0].contains(words), "{found:?}");
}

#[test]
fn an_undo_that_does_not_undo_is_found() {
    let compensate = Behaviour::Permanent;
    let place = broken(&Component { name: "broken", compensate, ..Component::default() });
    let (answer, code) = chaos(&place, place.path("input.json").to_str().unwrap());
    let found = findings(&answer);
    assert_eq!(code, Some(1), "{answer}");
    let words = "the saga is blocked: the undo of b failed: no: it is not possible";
    assert!(found.iter().any(|one| one.contains("c fails for good") && one.contains(words)));
    assert!(found.iter().any(|one| one.contains("compensated with no fault: blocked")));
}

#[test]
fn undos_before_a_pivot_are_tried_and_those_behind_it_are_named() {
    let place = Place::empty();
    let good = Component { name: "good", ..Component::default() };
    fs::write(place.plugin("good"), good.build()).unwrap();
    let compensate = Behaviour::Permanent;
    let broken = Component { name: "broken", compensate, ..Component::default() };
    fs::write(place.plugin("broken"), broken.build()).unwrap();
    place.config(
        "[[saga]]\nname = \"pivots\"\n\
         [[saga.step]]\nname = \"a\"\nplugin = \"broken\"\n\
         [[saga.step]]\nname = \"b\"\nplugin = \"good\"\n\
         [[saga.step]]\nname = \"pay\"\nplugin = \"good\"\npivot = true\n\
         [[saga.step]]\nname = \"c\"\nplugin = \"good\"\nundo = false\n",
    );
    fs::write(place.path("input.json"), "{}").unwrap();
    let (answer, code) = chaos(&place, place.path("input.json").to_str().unwrap());
    assert_eq!(code, Some(1), "{answer}");
    let trials = answer["trials"].as_array().unwrap();
    let undos = trials.iter().filter(|trial| trial["direction"] == "compensate");
    let undone: std::collections::BTreeSet<_> =
        undos.map(|trial| trial["step"].as_str().unwrap()).collect();
    assert_eq!(undone, ["a", "b"].into(), "{answer}");
    assert_eq!(answer["undos_not_tried"], serde_json::json!(["pay"]));
    // What is wrong with an undo before the pivot is found; nothing else is.
    let found = findings(&answer);
    let is_of_a = |one: &&str| one.contains("no: it is not possible");
    assert!(!found.is_empty() && found.iter().all(is_of_a), "{found:?}");
}

/// A parent whose child has a pivot with the name of a step of the parent: a child has the tags of its
/// parent, and the faults of the parent are not meant for it.
fn parent_of_a_namesake(component: &Component<'_>) -> Place {
    let place = broken(component);
    place.config(
        "[[saga]]\nname = \"outer\"\n\
         [[saga.step]]\nname = \"run\"\nsaga = \"inner\"\ninput = \"input\"\nundo = false\n\
         [[saga.step]]\nname = \"a\"\nplugin = \"broken\"\n\
         [[saga.step]]\nname = \"pay\"\nplugin = \"good\"\n\
         [[saga]]\nname = \"inner\"\n\
         [[saga.step]]\nname = \"pay\"\nplugin = \"good\"\npivot = true\n",
    );
    place
}

#[test]
fn a_child_with_a_pivot_and_a_step_of_the_same_name_gives_no_finding() {
    let place = parent_of_a_namesake(&Component { name: "broken", ..Component::default() });
    let (answer, code) = chaos(&place, place.path("input.json").to_str().unwrap());
    assert_eq!((findings(&answer), code), (Vec::new(), Some(0)), "{answer}");
    // The parent has two steps that call a plugin; the pivot of the child has no undo to try.
    assert_eq!(answer["trials"].as_array().unwrap().len(), 2 * (5 + 3), "{answer}");
    let child = &answer["children"][0];
    assert_eq!(child["trials"].as_array().unwrap().len(), 5, "{answer}");
}

/// Only a parent whose own `pay` fails comes to the undo of `a`: were it that of the child, `a` would not
/// have begun.
#[test]
fn a_fault_hits_the_parent_and_not_a_step_of_the_same_name_in_its_child() {
    let compensate = Behaviour::Permanent;
    let component = Component { name: "broken", compensate, ..Component::default() };
    let place = parent_of_a_namesake(&component);
    let (answer, code) = chaos(&place, place.path("input.json").to_str().unwrap());
    assert_eq!(code, Some(1), "{answer}");
    let found = findings(&answer);
    let words = "the saga is blocked: the undo of a failed: no: it is not possible";
    for kind in ["fails for good", "always lost", "never arrives"] {
        let call = format!("pay {kind}");
        assert!(found.iter().any(|one| one.contains(&call) && one.contains(words)), "{found:?}");
    }
    assert!(found.iter().all(|one| one.contains("no: it is not possible")), "{found:?}");
    assert_eq!(findings(&answer["children"][0]), Vec::<&str>::new(), "{answer}");
}

#[test]
fn the_definitions_that_steps_run_are_tried_with_what_they_were_given() {
    let execute = Behaviour::Attempt;
    let place = broken(&Component { name: "broken", execute, ..Component::default() });
    place.config(
        "[[saga]]\nname = \"outer\"\n\
         [[saga.step]]\nname = \"run\"\nsaga = \"inner\"\ninput = { given = \"input.n\" }\n\
         [[saga]]\nname = \"inner\"\n\
         [[saga.step]]\nname = \"one\"\nplugin = \"broken\"\n",
    );
    fs::write(place.path("input.json"), "{\"n\":1}").unwrap();
    let (answer, code) = chaos(&place, place.path("input.json").to_str().unwrap());
    assert_eq!((code, findings(&answer)), (Some(1), Vec::new()), "{answer}");
    let child = &answer["children"][0];
    assert_eq!(child["definition"], "inner");
    assert!(findings(child)[0].contains("one reply lost: not idempotent"), "{child}");
    assert_eq!(answer["ok"], false);
}

/// Takes the next number from its state: what a call wrote whose reply was lost was thrown away, so that
/// another call may take another number.
#[test]
fn a_number_from_the_state_is_no_fault_of_a_plugin() {
    const STATE: &str = "(import \"amends:saga/state@1.1.0\" \"set\"
        (func $set (param i32 i32 i32 i32)))";
    const WRITES: &str =
        "(call $set (i32.const 3060) (i32.const 2) (i32.const 3000) (i32.const 11))
         (i32.store8 (i32.const 3105) (i32.add (i32.const 48) (local.get 6)))
         (i32.store offset=8 (i32.const 2048) (i32.const 3100))
         (i32.store offset=12 (i32.const 2048) (i32.const 7))
         (i32.const 2048)";
    let place = broken(&Component {
        name: "broken",
        execute: Behaviour::Text(WRITES),
        imports: STATE,
        needs: &["state"],
        ..Component::default()
    });
    place.config(
        "[plugin.broken]\nstate = true\n[[saga]]\nname = \"one\"\n\
         [[saga.step]]\nname = \"a\"\nplugin = \"broken\"\n",
    );
    let (answer, code) = chaos(&place, place.path("input.json").to_str().unwrap());
    assert_eq!((code, findings(&answer)), (Some(0), Vec::new()), "{answer}");
}
