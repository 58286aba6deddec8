//! `amends plugin test`: mistakes that authors make, each planted in a component.

use std::fs;

use amends_tests::{Behaviour, Component};
use serde_json::Value;

use crate::place::{repository, stderr, stdout};
use crate::project::{built, made, one_at_a_time, path, run};

/// The results by check, of the first input.
fn tested(component: &Component<'_>, more: &[&str]) -> (Option<i32>, Value) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.wasm");
    fs::write(&file, component.build()).unwrap();
    let output = run(&[&["plugin", "test", path(&file), "-o", "json"], more].concat());
    let all = serde_json::from_str(&stdout(&output));
    let all: Value = all.unwrap_or_else(|_| panic!("{}", stderr(&output)));
    (output.status.code(), all)
}

fn result<'v>(all: &'v Value, check: &str) -> (&'v str, &'v str) {
    let checks = all["checks"].as_array().unwrap();
    let found = checks.iter().find(|one| one["check"] == check);
    let found = found.unwrap_or_else(|| panic!("no check `{check}`"));
    (found["result"].as_str().unwrap(), found["why"].as_str().unwrap())
}

const INPUT: [&str; 2] = ["--input", "{}"];

#[track_caller]
fn finds(component: &Component<'_>, check: &str, words: &str) {
    let (code, all) = tested(component, &INPUT);
    let (result, why) = result(&all, check);
    assert_eq!((code, result), (Some(1), "failed"), "{check}: {why}");
    assert!(why.contains(words), "{why}");
}

#[test]
fn a_sound_component_passes() {
    let (code, all) = tested(&Component::default(), &INPUT);
    assert_eq!(code, Some(0), "{all:#}");
    for check in ["manifest", "execute", "the same call again", "undo", "undo twice"] {
        assert_eq!(result(&all, check).0, "ok", "{check}");
    }
    assert_eq!(result(&all, "an input without a field").0, "skipped");
    assert_eq!(result(&all, "probe").0, "skipped");
}

#[test]
fn an_undo_that_fails_when_there_is_nothing_is_found() {
    let component = Component { compensate: Behaviour::Permanent, ..Component::default() };
    finds(&component, "undo of what never happened", "must succeed, else the saga is blocked");
    let component = Component { compensate: Behaviour::Trap, ..Component::default() };
    finds(&component, "undo", "unknown");
}

#[test]
fn another_answer_to_the_same_key_is_found() {
    let component = Component { execute: Behaviour::Attempt, ..Component::default() };
    finds(&component, "the same call again", "{\"n\":1} and then answered {\"n\":2}");
}

#[test]
fn an_answer_beside_the_schema_is_found() {
    let schema = "{\"required\":[\"total\"]}";
    let component = Component { schema, ..Component::default() };
    let (code, all) = tested(&component, &["--input", "{\"total\":1}"]);
    assert_eq!((code, result(&all, "execute").0), (Some(1), "failed"));
    let words = "invalid_output: the output does not fit the schema of test";
    assert!(result(&all, "execute").1.contains(words));
    // The input fits; without the field it is refused.
    assert_eq!(result(&all, "manifest").0, "ok");
    assert_eq!(result(&all, "an input without a field").0, "ok");
}

#[test]
fn a_manifest_that_is_wrong_is_found() {
    finds(&Component { version: "1.2", ..Component::default() }, "manifest", "SemVer");
    let schema = "{\"type\":\"string\"}";
    let component = Component { schema, execute: Behaviour::Echo, ..Component::default() };
    finds(&component, "manifest", "input 1 does not fit");
    // An example is an input.
    let schema = "{\"type\":\"object\",\"examples\":[7]}";
    let (code, all) = tested(&Component { schema, ..Component::default() }, &[]);
    assert_eq!((code, result(&all, "manifest").0), (Some(1), "failed"));
}

#[test]
fn parts_of_a_step_have_the_checks_that_apply() {
    let (code, all) = tested(&Component { world: "undo-only", ..Component::default() }, &INPUT);
    assert_eq!((code, result(&all, "execute").0), (Some(0), "skipped"));
    assert_eq!(result(&all, "undo of what never happened").0, "ok");
    let (code, all) = tested(&Component { world: "step-only", ..Component::default() }, &INPUT);
    assert_eq!((code, result(&all, "execute").0), (Some(0), "ok"));
    assert_eq!(result(&all, "undo").0, "skipped");
}

#[test]
fn without_an_input_it_says_how_to_give_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.wasm");
    fs::write(&file, Component::default().build()).unwrap();
    let output = run(&["plugin", "test", path(&file)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--input JSON|FILE"), "{}", stderr(&output));
}

#[test]
fn a_config_says_what_is_granted() {
    let inventory = repository().join("plugins/inventory.wasm");
    let config = repository().join("examples/order-fulfillment/amends.toml");
    let order = "{\"order_id\": \"7\", \"warehouse\": \"north\", \"drug\": {\"name\": \"metformin\", \
                 \"form\": \"tablet\", \"strength_mg\": 500, \"quantity\": 60}}";
    let test = ["plugin", "test", path(&inventory), "--input", order];
    let granted = run(&[&test[..], &["--config", path(&config)]].concat());
    assert_eq!(granted.status.code(), Some(0), "{}", stdout(&granted));
    assert!(stdout(&granted).contains("what it keeps is as before"), "{}", stdout(&granted));
    // Without the setting that the stock comes from there is nothing to reserve.
    let bare = run(&test);
    assert_eq!(bare.status.code(), Some(1));
    assert!(stdout(&bare).contains("out_of_stock"), "{}", stdout(&bare));

    let inspect = ["plugin", "inspect", path(&inventory), "--config", path(&config)];
    let told = stdout(&run(&inspect));
    assert!(told.contains("it would be served"), "{told}");
    assert!(
        told.contains("amends:saga/events@1.1.0") == told.contains("refused: no events"),
        "{told}"
    );
    let seats = Component { needs: &["state"], ..Component::default() };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.wasm");
    fs::write(&file, seats.build()).unwrap();
    let told = stdout(&run(&["plugin", "inspect", path(&file), "--config", path(&config)]));
    assert!(
        told.contains("it would be refused: it needs state; grant it by state = true"),
        "{told}"
    );
}

/// A project in C with one change to its source.
fn finds_in_project(from: &str, to: &str, check: &str, words: &str) {
    let _one = one_at_a_time();
    let folder = made("seats-planted", "c");
    let source = fs::read_to_string(folder.join("plugin.c")).unwrap();
    assert_eq!(source.matches(from).count(), 1, "{from}");
    fs::write(folder.join("plugin.c"), source.replace(from, to)).unwrap();
    let Some(component) = built(&folder) else { return };
    let output = run(&["plugin", "test", path(&component), "-o", "json"]);
    let all: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let (result, why) = result(&all, check);
    assert_eq!((output.status.code(), result), (Some(1), "failed"), "{check}: {why}");
    assert!(why.contains(words), "{why}");
}

#[test]
fn an_effect_that_each_attempt_has_anew_is_found() {
    let counted = "booking_of(call, booking);\n    booking[8] = (char)('0' + call->attempt);\n    \
                   plugin_string_t key;\n    plugin_string_set(&key, booking);\n    // Called again";
    let plain = "booking_of(call, booking);\n    plugin_string_t key;\n    \
                 plugin_string_set(&key, booking);\n    // Called again";
    finds_in_project(plain, counted, "the same call again", "not idempotent");
}

#[test]
fn an_undo_that_relies_on_the_output_is_found() {
    let relies = "if (!maybe_output || !amends_saga_state_delete(&key)) {";
    let plain = "if (!amends_saga_state_delete(&key)) {";
    let words = "it found nothing to undo, and the step had happened";
    finds_in_project(plain, relies, "undo after a lost answer", words);
}

#[test]
fn an_undo_of_what_never_happened_that_changes_something_is_found() {
    let nothing = "ret->tag = EXPORTS_AMENDS_SAGA_UNDO_UNDONE_NOTHING;";
    let changes = format!("amends_saga_state_set(&key, input);\n        {nothing}");
    finds_in_project(nothing, &changes, "undo of what never happened", "what was never done");
}
