//! The index values of a saga: computed once of its input, and never in the way of its start.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::sync::Arc;

use amends_engine::{
    Definition, Event, IndexValue, Payload, SagaEvent, SagaId, SagaStarted, Start, Timestamp,
    replay, start,
};
use serde_json::{Value, json};

fn definition(index: &Value) -> Arc<Definition> {
    let mut spec = json!({
        "name": "order",
        "steps": [{
            "name": "one", "sleep": 1000, "after": [], "timeout": 1000,
            "retry": { "attempts": 1, "backoff": { "listed": [] } },
        }],
    });
    if !index.is_null() {
        spec["index"] = index.clone();
    }
    Arc::new(Definition::from_canonical(&spec.to_string()).unwrap())
}

/// The event with which a saga of this input starts.
fn started(index: &Value, input: &Value) -> SagaStarted {
    let at = Timestamp::from_millis(1_767_225_600_000);
    let definition = definition(index);
    let (id, input) = (SagaId::from_parts(at, &[7; 10]), Payload::from_value(input).unwrap());
    let (saga, events) = start(
        at,
        Start {
            id,
            definition: Arc::clone(&definition),
            input,
            key: None,
            tags: BTreeMap::new(),
            traceparent: None,
            start_at: None,
            parent: None,
            sealed_key: None,
            who: None,
            personal: Vec::new(),
        },
    );
    let Some(Event::Saga(SagaEvent::Started(fact))) = events.first() else { panic!("{events:?}") };
    // What was computed once is in the log, and is not computed again.
    let log = events.iter().map(|event| (at, event));
    assert_eq!(replay(id, definition, log).unwrap().started().index, fact.index);
    assert_eq!(saga.started().index, fact.index);
    fact.clone()
}

fn values(index: &Value, input: &Value) -> Value {
    serde_json::to_value(started(index, input).index).unwrap()
}

#[test]
fn values_are_computed_of_the_input() {
    let index = json!({
        "customer": "input.customer.id",
        "total": "input.items.map(item, item.price).sum()",
        "gift": "has(input.note)",
    });
    let input = json!({"customer": {"id": "C-81"}, "items": [{"price": 1.5}, {"price": 2.5}]});
    assert_eq!(values(&index, &input), json!({"customer": "C-81", "gift": false, "total": 4}));
    let kept = started(&index, &input).index;
    assert_eq!(kept[&"gift".parse().unwrap()], IndexValue::Bool(false));
}

#[test]
fn what_cannot_be_indexed_has_no_value_and_refuses_no_start() {
    let index = json!({
        "a": "input.a", "b": "input.missing", "c": "input.list[7]", "d": "1 / input.zero",
        "e": "input.list", "f": "input", "g": "input.none", "h": "input.long", "i": "input.fits",
    });
    let input = json!({
        "a": "kept", "list": [1], "zero": 0, "none": null, "long": "ä".repeat(129),
        "fits": "ä".repeat(128),
    });
    assert_eq!(values(&index, &input), json!({"a": "kept", "i": "ä".repeat(128)}));
    assert_eq!(values(&index, &json!("no object")), json!({"f": "no object"}));
    // One that is too dear has none, whatever it would give.
    let dear = json!({"a": "input.map(x, input.map(y, x + y).size()).size()", "b": "'b'"});
    let numbers: Vec<_> = (0..2_000).collect();
    assert_eq!(values(&dear, &json!(numbers)).get("a"), None);
}

#[test]
fn a_definition_without_an_index_is_written_as_before() {
    let text = started(&json!(null), &json!({"a": 1}));
    assert!(!Event::from(text).data().contains("index"));
    let plain = definition(&json!(null));
    assert!(!plain.canonical().contains("index"));
    assert_eq!(plain.digest(), definition(&json!({})).digest());
    assert_ne!(plain.digest(), definition(&json!({"a": "input.a"})).digest());
}
