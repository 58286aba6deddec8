//! Steps that run once for each element of a list, with the example's plugins.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ledger;
use crate::place::{Host, Place, agent, example, stderr, stdout};

/// The example, and `bulk`: each step of it for each order of a list.
fn place() -> Place {
    let place = Place::example();
    let config = fs::read_to_string(place.path("amends.toml")).unwrap();
    let mut bulk = String::from("\n[[saga]]\nname = \"bulk\"\n");
    for (step, more) in [
        ("prescription", "input = \"item\""),
        ("inventory", "input = \"item\"\nundo = \"inventory-release\""),
        (
            "shipment",
            "input = { order_id = \"item.order_id\", address = \"item.address\", \
             weight_g = \"steps.prescription.output[index].weight_g\", \
             cold_chain = \"steps.prescription.output[index].cold_chain\" }",
        ),
    ] {
        let _ = write!(
            bulk,
            "[[saga.step]]\nname = \"{step}\"\nplugin = \"{step}\"\n{more}\n\
             each = {{ list = \"input.orders\", concurrency = 3 }}\n\
             retry = {{ attempts = 20, backoff = [\"20ms\"] }}\n"
        );
    }
    fs::write(place.path("amends.toml"), config + &bulk).unwrap();
    place
}

/// Orders that go through.
fn orders(count: usize) -> Vec<Value> {
    let text = fs::read_to_string(example().join("order.json")).unwrap();
    let order: Value = serde_json::from_str(&text).unwrap();
    let numbered = |number: usize| {
        let mut order = order.clone();
        order["order_id"] = format!("ORD-{number}").into();
        order
    };
    (0..count).map(numbered).collect()
}

fn undeliverable() -> Value {
    let text = fs::read_to_string(example().join("order-undeliverable.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn start(place: &Place, definition: &str, orders: &[Value]) -> (Option<i32>, String) {
    let input = json!({"orders": orders}).to_string();
    let output = place.amends(&["start", definition, "--input", &input, "--wait", "-o", "json"]);
    (output.status.code(), stdout(&output) + &stderr(&output))
}

fn step<'a>(saga: &'a Value, name: &str) -> &'a Value {
    let mut steps = saga["steps"].as_array().unwrap().iter();
    steps.find(|step| step["name"] == name).unwrap_or_else(|| panic!("no {name} in {saga}"))
}

#[test]
fn a_step_is_done_for_each_element_and_gives_the_list_of_outputs() {
    let place = place();
    let host = place.run();
    let (code, text) = start(&place, "bulk", &orders(5));
    assert_eq!(code, Some(0), "{text}");
    let saga: Value = serde_json::from_str(&text).unwrap();
    let names: Vec<_> =
        saga["steps"].as_array().unwrap().iter().map(|step| &step["name"]).collect();
    assert_eq!(names[..3], ["prescription", "prescription[0]", "prescription[1]"]);
    assert_eq!(names.len(), 3 + 3 * 5);
    let shipments = step(&saga, "shipment")["output"].as_array().unwrap().clone();
    assert_eq!(shipments.len(), 5);
    assert_eq!(shipments[4], step(&saga, "shipment[4]")["output"]);
    assert_eq!(saga["output"], json!(shipments));
    let table = stdout(&place.amends(&["get", saga["id"].as_str().unwrap()]));
    assert!(table.contains("shipment[4]"), "{table}");
    ledger::check_effects(&host.events(), &host.log());
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn one_element_that_fails_has_the_others_undone() {
    let place = place();
    let host = place.run();
    let mut some = orders(5);
    some[2] = undeliverable();
    let (code, text) = start(&place, "bulk", &some);
    assert_eq!(code, Some(5), "{text}");
    let saga: Value = serde_json::from_str(&text).unwrap();
    assert!(saga["reason"].as_str().unwrap().starts_with("shipment[2] failed: undeliverable"));
    assert_eq!(step(&saga, "shipment[2]")["status"], "failed");
    for name in ["prescription", "prescription[0]", "prescription[4]", "inventory", "inventory[3]"]
    {
        assert_eq!(step(&saga, name)["status"], "undone", "{text}");
    }
    // No inventory is released while a label stands, no prescription voided while stock is held.
    let events = host.events();
    let events: Vec<&Value> = events.iter().collect();
    let undone: Vec<_> = ledger::of_type(&events, "undo.succeeded")
        .map(|event| event["data"]["step"].as_str().unwrap().split('[').next().unwrap())
        .collect();
    let mut waves = undone.clone();
    waves.dedup();
    assert!(waves.ends_with(&["inventory", "prescription"]) && waves.len() <= 3, "{undone:?}");
    ledger::check_effects(&host.events(), &host.log());
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_saga_is_run_for_each_element_and_all_are_undone_together() {
    let place = place();
    let host = place.run();
    let (code, text) = start(&place, "order-batch", &orders(6));
    assert_eq!(code, Some(0), "{text}");
    let mut some = orders(6);
    some[5] = undeliverable();
    let (code, text) = start(&place, "order-batch", &some);
    assert_eq!(code, Some(5), "{text}");
    let saga: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(step(&saga, "order[0]")["status"], "undone", "{text}");
    let child = step(&saga, "order[0]")["child"].as_str().unwrap();
    assert_eq!(host.get(&format!("/v1/sagas/{child}"))["status"], "compensated");
    let events = host.events();
    let found = ledger::check(&events);
    assert_eq!((found.completed, found.compensated), (6, 6));
    ledger::check_effects(&events, &host.log());
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn lists_go_on_where_they_were_when_the_host_is_killed() {
    let place = place();
    let mut host = place.run();
    let mut log = Vec::new();
    let began = Instant::now();
    for number in 0..30 {
        let mut some = orders(12);
        if number % 3 == 0 {
            some[number % 12] = undeliverable();
        }
        let body = json!({"definition": "bulk", "input": {"orders": some}});
        agent().post(host.url("/v1/sagas")).send_json(&body).unwrap();
        if number % 10 == 9 {
            // Somewhere among the calls of those that were just started.
            std::thread::sleep(Duration::from_millis(
                3 * u64::from(began.elapsed().subsec_micros() % 7),
            ));
            log.extend(host.kill());
            host = place.run();
        }
    }
    host.settle();
    log.extend(host.log());
    ledger::check_effects(&host.events(), &log);
    let sagas = host.sagas();
    let count = |status: &str| sagas.iter().filter(|saga| saga["status"] == status).count();
    assert_eq!((count("completed"), count("compensated")), (20, 10));
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn an_element_is_repaired_by_its_name_and_planned_and_shown_as_one() {
    let place = place();
    let host = place.run();
    let (_, text) = start(&place, "bulk", &orders(2));
    let saga: Value = serde_json::from_str(&text).unwrap();
    let id = saga["id"].as_str().unwrap();
    let plan = stdout(&place.amends(&["undo-plan", id]));
    for name in ["shipment[1]", "inventory[0]", "prescription[1]"] {
        assert!(plan.contains(name), "{plan}");
    }
    let exposure = host.get(&format!("/v1/sagas/{id}/exposure")).to_string();
    assert!(
        exposure.contains("\"shipment[0]\"") && !exposure.contains("\"shipment\""),
        "{exposure}"
    );
    // Nothing releases stock any more, so the undo of each element waits to be tried again.
    fs::write(place.plugin("inventory-release"), broken_undo()).unwrap();
    host.until("the broken undo is active", || {
        host.get("/v1/plugins/inventory-release")["history"].as_array().unwrap().len() > 1
    });
    let done = |arguments: &[&str]| {
        let output = place.amends(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    };
    done(&["compensate", id, "--reason", "returned"]);
    host.until("it is blocked", || host.get(&format!("/v1/sagas/{id}"))["status"] == "blocked");
    let why = stdout(&place.amends(&["why", id]));
    assert!(why.contains("the undos of prescription[") && why.contains("wait for that"), "{why}");
    for element in ["inventory[0]", "inventory[1]"] {
        host.until("each is blocked", || {
            step(&host.get(&format!("/v1/sagas/{id}")), element)["status"] == "undo_blocked"
        });
        done(&[
            "resolve",
            id,
            "--step",
            element,
            "--evidence",
            "ticket 7",
            "--reason",
            "released by hand",
        ]);
    }
    host.until("it is compensated", || {
        host.get(&format!("/v1/sagas/{id}"))["status"] == "compensated"
    });
    let history = stdout(&place.amends(&["history", id]));
    assert!(history.contains("inventory[1]") && history.contains("ticket 7"), "{history}");
    assert_eq!(host.stop(), Some(0));
}

/// An undo that says no for good.
fn broken_undo() -> Vec<u8> {
    let compensate = amends_tests::Behaviour::Permanent;
    let component = amends_tests::Component {
        name: "inventory-release",
        world: "undo-only",
        compensate,
        ..amends_tests::Component::default()
    };
    component.build()
}

#[test]
fn chaos_tries_each_element() {
    let place = place();
    let orders = json!({"orders": orders(2)}).to_string();
    fs::write(place.path("orders.ndjson"), orders).unwrap();
    let output =
        place.amends(&["chaos", "amends.toml", "--definition", "bulk", "--input", "orders.ndjson"]);
    let text = stdout(&output) + &stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("inventory, undo") && text.contains("nothing found"), "{text}");
}

#[test]
fn a_list_that_is_none_is_told_and_nothing_was_called() {
    let place = place();
    let host: Host = place.run();
    let input = json!({"orders": "all"}).to_string();
    let output = place.amends(&["start", "bulk", "--input", &input, "--wait"]);
    assert_eq!(output.status.code(), Some(5));
    let text = stdout(&output);
    assert!(text.contains("each: it gives a text, not a list"), "{text}");
    let events = host.events();
    assert!(events.iter().all(|event| event["type"] != "step.started"), "{events:?}");
    assert_eq!(host.stop(), Some(0));
}
