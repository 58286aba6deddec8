//! The main job: an order goes through, or comes undone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use amends_tests::Component;
use serde_json::Value;

use crate::ledger;
use crate::place::{Place, example, stderr, stdout};

#[test]
fn a_thousand_orders_complete_or_come_undone() {
    let place = Place::example();
    let host = place.run();
    let orders = example().join("orders.ndjson");
    let output = place.amends(&[
        "start",
        "order-fulfillment",
        "--input",
        orders.to_str().unwrap(),
        "--each",
        "--wait",
    ]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    assert!(text.starts_with("1000 of 1000 sagas of order-fulfillment started"), "{text}");
    let events = host.events();
    let found = ledger::check(&events);
    ledger::check_effects(&events, &host.log());
    assert_eq!(found.completed + found.compensated, 1_000);
    assert!(text.contains(&format!("{}  completed", found.completed)), "{text}");
    // Compensations of each kind that the orders have.
    let events: Vec<&Value> = events.iter().collect();
    for (step, code) in [
        ("prescription", "prescription_expired"),
        ("prescription", "no_fills_left"),
        ("inventory", "out_of_stock"),
        ("shipment", "undeliverable_address"),
    ] {
        let failed = ledger::of_type(&events, "step.failed").filter(|event| {
            event["data"]["step"] == step && event["data"]["error"]["code"] == code
        });
        assert!(failed.count() > 10, "no {step} failed with {code}");
    }
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn an_order_that_goes_through_exits_with_0_and_prints_the_saga() {
    let place = Place::example();
    let _host = place.run();
    let order = example().join("order.json");
    let start = ["start", "order-fulfillment", "--input", order.to_str().unwrap(), "--wait"];
    let output = place.amends(&start);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    for word in ["completed", "prescription", "inventory", "shipment", "succeeded"] {
        assert!(text.contains(word), "{text}");
    }
    let output = place.amends(&[&start[..], &["-o", "json"]].concat());
    let saga: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(saga["status"], "completed");
    assert!(saga["output"]["label"].is_string(), "{saga}");
}

#[test]
fn an_order_that_cannot_be_delivered_exits_with_5_and_is_undone_in_reverse() {
    let place = Place::example();
    let _host = place.run();
    let order = example().join("order-undeliverable.json");
    let start =
        ["start", "order-fulfillment", "--input", order.to_str().unwrap(), "--wait", "-o", "ids"];
    let output = place.amends(&start);
    assert_eq!(output.status.code(), Some(5), "{}{}", stdout(&output), stderr(&output));
    let id = stdout(&output).trim().to_owned();
    let output = place.amends(&["history", &id, "-o", "jsonl"]);
    assert_eq!(output.status.code(), Some(0));
    let told: Vec<String> = stdout(&output)
        .lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            let step = event["data"]["step"].as_str().unwrap_or_default();
            format!("{} {step}", event["type"].as_str().unwrap()).trim().to_owned()
        })
        .collect();
    assert_eq!(
        told,
        [
            "saga.started",
            "step.started prescription",
            "step.succeeded prescription",
            "order.prescription_created",
            "step.started inventory",
            "step.succeeded inventory",
            "step.started shipment",
            "step.failed shipment",
            "compensation.started shipment",
            "undo.started inventory",
            "undo.succeeded inventory",
            "undo.started prescription",
            "undo.succeeded prescription",
            "order.prescription_voided",
            "saga.compensated",
        ]
    );
    let output = place.amends(&["why", &id]);
    let why = stdout(&output);
    assert!(why.contains("no effect stands") && why.contains("undeliverable_address"), "{why}");
}

/// The outcomes of some come while those of others are being made durable.
#[test]
fn steps_that_run_at_once_are_each_called_once() {
    let place = Place::empty();
    fs::write(place.plugin("good"), Component { name: "good", ..Component::default() }.build())
        .unwrap();
    let mut saga = String::from("[[saga]]\nname = \"wide\"\n");
    for step in 0..8 {
        let _ =
            write!(saga, "[[saga.step]]\nname = \"step-{step}\"\nplugin = \"good\"\nafter = []\n");
    }
    place.config(&saga);
    let host = place.run();
    fs::write(place.path("lines"), "{}\n".repeat(100)).unwrap();
    let output = place.amends(&["start", "wide", "--input", "lines", "--each", "--wait"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    let mut calls: BTreeMap<String, u32> = BTreeMap::new();
    for line in host.log().iter().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if line["message"] == "call ended" {
            *calls.entry(format!("{} {}", line["saga_id"], line["step"])).or_default() += 1;
        }
    }
    assert_eq!(calls.len(), 800);
    let again = calls.iter().find(|(_, calls)| **calls > 1);
    assert_eq!(again, None, "the same attempt was made again");
    assert_eq!(host.stop(), Some(0));
}
