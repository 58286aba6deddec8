//! What the log of a store must say about the example's sagas, whatever happened to the host.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The definition whose sagas are checked; a parent of one is not.
const DEFINITION: &str = "order-fulfillment";
const STEPS: [&str; 3] = ["prescription", "inventory", "shipment"];

/// What was found, by how the sagas ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) completed: usize,
    pub(crate) compensated: usize,
}

/// Checks every saga's events: each effect once, undone once if at all, in reverse.
///
/// The effects of the reference plugins are the numbers that they issue: a prescription, a
/// reservation, a label. Each comes from the idempotency key, so a number that two sagas have, or
/// two numbers that one step has, is an effect that was lost or doubled.
pub(crate) fn check(events: &[Value]) -> Found {
    let mut sagas: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    let mut last = 0;
    for event in events {
        let position = event["position"].as_u64().unwrap();
        assert_eq!(position, last + 1, "the order of the store has a gap");
        last = position;
        if let Some(id) = event["saga"].as_str() {
            sagas.entry(id).or_default().push(event);
        }
    }
    let mut found = Found::default();
    let mut numbers = BTreeSet::new();
    for (id, events) in sagas {
        if events[0]["data"]["definition"] != DEFINITION {
            continue;
        }
        for (version, event) in (1..).zip(&events) {
            assert_eq!(event["version"], version, "saga {id} has a gap");
        }
        match events.last().unwrap()["type"].as_str().unwrap() {
            "saga.completed" => {
                check_completed(id, &events);
                found.completed += 1;
            }
            "saga.compensated" => {
                check_compensated(id, &events);
                found.compensated += 1;
            }
            other => panic!("saga {id} ends with {other}"),
        }
        for event in recorded(&events) {
            let number = number(&event["data"]["output"]);
            assert!(numbers.insert(number.to_owned()), "{number} was issued twice");
        }
    }
    found
}

fn check_completed(id: &str, events: &[&Value]) {
    for step in STEPS {
        let done = times(events, "step.succeeded", step) + times(events, "step.skipped", step);
        assert_eq!(done, 1, "saga {id} is completed, {step} was done {done} times");
    }
    assert_eq!(of_type(events, "undo.started").count(), 0, "saga {id}");
}

fn check_compensated(id: &str, events: &[&Value]) {
    for step in STEPS {
        let final_unknown = of_type(events, "step.unknown")
            .filter(|event| event["data"]["step"] == step && event["data"]["retry_at"].is_null())
            .count();
        let stood = times(events, "step.succeeded", step) + final_unknown;
        let undone = times(events, "undo.succeeded", step);
        assert!(stood <= 1, "saga {id}: {step} happened {stood} times");
        assert_eq!(undone, stood, "saga {id}: {step} happened {stood} times, undone {undone}");
    }
    let undone: Vec<_> = of_type(events, "undo.succeeded")
        .map(|event| event["data"]["step"].as_str().unwrap())
        .collect();
    let mut reverse: Vec<_> = STEPS.into_iter().filter(|step| undone.contains(step)).collect();
    reverse.reverse();
    assert_eq!(undone, reverse, "saga {id} was undone in another order");
}

/// The steps and elements that succeeded and have an effect: a wait has none, nor has a step over
/// a list, and a saga that a step runs is checked by itself.
fn recorded<'e>(events: &[&'e Value]) -> impl Iterator<Item = &'e Value> {
    of_type(events, "step.succeeded").filter(|event| {
        let step = event["data"]["step"].as_str().unwrap().split('[').next();
        STEPS.iter().any(|known| step == Some(known)) && !event["data"]["output"].is_array()
    })
}

/// The number that stands for an effect.
fn number(output: &Value) -> &str {
    ["prescription_number", "reservation_id", "label"]
        .iter()
        .find_map(|name| output[name].as_str())
        .unwrap_or_else(|| panic!("no number in {output}"))
}

/// Compares the log of the store with what the plugins wrote when they were called: nothing that
/// is recorded did not happen, nothing that happened is missing from the record, no attempt was
/// made twice, and what was undone was not done again after it.
pub(crate) fn check_effects(events: &[Value], log: &[String]) {
    let mut effects: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let (started, mut made) = (attempts(events), BTreeSet::new());
    let lines: Vec<Value> = log.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for line in lines.iter().filter(|line| line["target"] == "plugin") {
        let what = line["message"].as_str().unwrap_or_default();
        let fields = line["fields"].as_str().unwrap_or("{}");
        let fields: Value = serde_json::from_str(fields).unwrap();
        let Some(number) = fields["effect"].as_str() else { continue };
        // A reservation is state, which is done when it is recorded and not when it is told: what
        // the books say of it is checked beside them (`stock`).
        if number.starts_with("RSV-") {
            continue;
        }
        let direction = if is_undo(what) { "undo" } else { "do" };
        effects.entry(number.to_owned()).or_default().push(direction);
        let text = |field: &str| line[field].as_str().unwrap_or_else(|| panic!("{field}: {line}"));
        let attempt = line["attempt"].as_u64().unwrap();
        let call = (text("saga_id"), text("step"), direction, attempt);
        assert!(started.contains(&call), "{number}: {call:?} was made and is not recorded");
        assert!(made.insert((number.to_owned(), direction, attempt)), "{call:?} was made twice");
    }
    let sagas = events.iter().filter(|event| event["type"] == "saga.started").count();
    assert!(effects.len() >= sagas / 2, "the plugins' ledger is empty");
    let events: Vec<&Value> = events.iter().collect();
    let undone: BTreeSet<_> = of_type(&events, "undo.succeeded").map(saga_step).collect();
    let mut standing = BTreeSet::new();
    for event in recorded(&events) {
        let number = number(&event["data"]["output"]);
        if number.starts_with("RSV-") {
            continue;
        }
        assert!(effects.contains_key(number), "{number} is recorded and never happened");
        if !undone.contains(&saga_step(event)) {
            standing.insert(number);
        }
    }
    for (number, calls) in &effects {
        if standing.contains(number.as_str()) {
            assert!(calls.iter().all(|call| *call == "do"), "{number} stands and was undone");
        } else {
            // Done and recorded as undone, or done by a call whose end nobody heard of.
            assert_eq!(calls.last(), Some(&"undo"), "{number} was left standing: {calls:?}");
        }
    }
}

fn saga_step(event: &Value) -> (Option<&str>, Option<&str>) {
    (event["saga"].as_str(), event["data"]["step"].as_str())
}

/// Every attempt that is recorded: the saga, the step, `do` or `undo`, its number.
fn attempts(events: &[Value]) -> BTreeSet<(&str, &str, &str, u64)> {
    let started = events.iter().filter_map(|event| {
        let direction = match event["type"].as_str()? {
            "step.started" => "do",
            "undo.started" => "undo",
            _ => return None,
        };
        let data = &event["data"];
        let attempt = data["attempt"].as_u64().unwrap();
        Some((event["saga"].as_str()?, data["step"].as_str()?, direction, attempt))
    });
    started.collect()
}

fn is_undo(what: &str) -> bool {
    ["released", "voided", "cancelled"].iter().any(|word| what.ends_with(word))
}

pub(crate) fn of_type<'e>(events: &[&'e Value], kind: &str) -> impl Iterator<Item = &'e Value> {
    events.iter().copied().filter(move |event| event["type"] == kind)
}

fn times(events: &[&Value], kind: &str, step: &str) -> usize {
    of_type(events, kind).filter(|event| event["data"]["step"] == step).count()
}

mod tests {
    use serde_json::json;

    use super::*;

    /// A saga whose one step took two attempts, the first of which was cut off, and what its
    /// plugin wrote in each.
    fn twice_tried() -> (Vec<Value>, Vec<String>) {
        let event = |kind: &str, data: Value| json!({"type": kind, "saga": "s", "data": data});
        let attempt = |attempt: u64| json!({"step": "prescription", "attempt": attempt});
        let events = vec![
            event("saga.started", json!({})),
            event("step.started", attempt(1)),
            event("step.unknown", attempt(1)),
            event("step.started", attempt(2)),
            event(
                "step.succeeded",
                json!({"step": "prescription", "attempt": 2, "output": {"prescription_number": "RX-1"}}),
            ),
            event("saga.completed", json!({})),
        ];
        (events, [1, 2].map(line).to_vec())
    }

    fn line(attempt: u64) -> String {
        json!({
            "target": "plugin", "message": "prescription issued", "fields": "{\"effect\":\"RX-1\"}",
            "saga_id": "s", "step": "prescription", "attempt": attempt,
        })
        .to_string()
    }

    #[test]
    fn two_attempts_are_no_offence() {
        let (events, log) = twice_tried();
        check_effects(&events, &log);
    }

    #[test]
    #[should_panic(expected = "was made twice")]
    fn an_attempt_that_is_made_twice_is_found() {
        let (events, mut log) = twice_tried();
        log.push(line(2));
        check_effects(&events, &log);
    }

    #[test]
    #[should_panic(expected = "is not recorded")]
    fn an_attempt_that_is_not_recorded_is_found() {
        let (events, mut log) = twice_tried();
        log.push(line(3));
        check_effects(&events, &log);
    }
}
