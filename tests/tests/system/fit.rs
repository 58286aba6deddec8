//! Components that are held against the definitions before they become active: what `check` calls an
//! error is refused, whichever way they come.

use std::fs;
use std::process::Output;

use amends_tests::{Behaviour, Component};
use serde_json::{Value, json};

use crate::place::{Host, Place, stderr, stdout};

/// What a payment takes in all versions that fit the definition, and one field more.
const AMOUNT: &str =
    r#"{"type":"object","required":["amount"],"properties":{"amount":{"type":"integer"}}}"#;
const CUSTOMER: &str = r#"{"type":"object","required":["amount","customer_id"],"properties":{"amount":{"type":"integer"},"customer_id":{"type":"string"}}}"#;

/// What it answers: as a Rust type is described, which takes fields that it does not know.
const CHARGE: &str =
    r#"{"type":"object","required":["charge_id"],"properties":{"charge_id":{"type":"string"}}}"#;
const RENAMED: &str =
    r#"{"type":"object","required":["payment_id"],"properties":{"payment_id":{"type":"string"}}}"#;
const RENAMED_AND_MORE: &str = r#"{"type":"object","required":["payment_id"],"properties":{"payment_id":{"type":"string"},"rest":{}}}"#;
const NUMBER: &str =
    r#"{"type":"object","required":["charge_id"],"properties":{"charge_id":{"type":"integer"}}}"#;
/// Fits the definition; one field more, which nobody reads.
const MORE: &str = r#"{"type":"object","required":["charge_id"],"properties":{"charge_id":{"type":"string"},"rest":{}}}"#;

const TICKET: &str = r#"{"type":"object","properties":{"charge":{"type":"string"}}}"#;

/// What every payment answers, whatever it says that it does: `{"charge_id":"c"}`.
const CHARGED: &str = r#"(data (i32.const 8192) "{\22charge_id\22:\22c\22}")"#;
const ANSWERS: Behaviour = Behaviour::Text(
    "(i32.store offset=8 (i32.const 2048) (i32.const 8192))
     (i32.store offset=12 (i32.const 2048) (i32.const 17))
     (i32.const 2048)",
);

fn payment(version: &str, input: &str, output: &str) -> Vec<u8> {
    Component {
        name: "payment",
        version,
        schema: input,
        output_schema: Some(output),
        imports: CHARGED,
        execute: ANSWERS,
        ..Component::default()
    }
    .build()
}

fn other(name: &str, input: &str, output: &str) -> Vec<u8> {
    Component { name, schema: input, output_schema: Some(output), ..Component::default() }.build()
}

/// A trip: a payment, which `refund` undoes, a wait, and a ticket that reads the payment's answer.
fn place() -> Place {
    let place = Place::empty();
    fs::write(place.plugin("payment"), payment("1.0.0", AMOUNT, CHARGE)).unwrap();
    fs::write(place.plugin("refund"), other("refund", "{}", CHARGE)).unwrap();
    fs::write(place.plugin("ticket"), other("ticket", TICKET, "{}")).unwrap();
    place.config(DEFINITION);
    place
}

const DEFINITION: &str = "[[saga]]\nname = \"trip\"\n\
    [[saga.step]]\nname = \"pay\"\nplugin = \"payment\"\nundo = \"refund\"\n\
    input = { amount = \"input.amount\" }\n\
    [[saga.step]]\nname = \"wait\"\nwait = { signal = \"go\" }\n\
    [[saga.step]]\nname = \"ticket\"\nplugin = \"ticket\"\n\
    input = { charge = \"steps.pay.output.charge_id\" }\n";

fn version(host: &Host) -> Value {
    host.get("/v1/plugins/payment")["version"].clone()
}

/// Hands the component in.
fn deploy(place: &Place, bytes: &[u8], arguments: &[&str]) -> Output {
    fs::write(place.path("payment.wasm"), bytes).unwrap();
    place.amends(&[&["plugin", "deploy", "payment.wasm"], arguments].concat())
}

fn exit(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn a_component_that_definitions_do_not_fit_is_refused_whichever_way_it_comes() {
    let place = place();
    let host = place.run();
    let cases = [
        (
            payment("2.0.0", CUSTOMER, CHARGE),
            "saga trip, step pay, input: `customer_id` is missing, which the plugin `payment` needs \
             (add an expression, such as customer_id = \"input.customer_id\")",
            "saga.trip.step.pay.input: `customer_id` is missing",
        ),
        (
            payment("2.0.1", AMOUNT, RENAMED),
            "saga trip, step pay, undo: the undo `refund` may not be able to read the output of \
             `payment`: it needs `charge_id`, which is not said to be in it",
            "saga.trip.step.ticket.input.charge: `steps.pay.output.charge_id`: `steps.pay.output` is \
             not said to have a field `charge_id`\n    help: it has `payment_id`",
        ),
        (
            payment("2.0.2", AMOUNT, NUMBER),
            "step ticket, input.charge: `steps.pay.output.charge_id` is a number, and the plugin \
             `ticket` takes text (make it text: string(steps.pay.output.charge_id))",
            "saga.trip.step.pay.undo: the undo `refund` cannot read the output of `payment`",
        ),
    ];
    for (bytes, reason, line) in &cases {
        let dry = deploy(&place, bytes, &["--dry-run"]);
        let told = stdout(&dry);
        assert_eq!(exit(&dry), 1, "{told}");
        assert!(told.contains(&format!("payment: error: {line}")), "{line}: {told}");
        assert!(told.contains("this would be refused without --force"), "{told}");
        // A copy into the folder.
        fs::write(place.plugin("payment"), bytes).unwrap();
        let digest = amends_engine::Digest::of(bytes).to_string();
        host.until("it is refused", || {
            let plugin = host.get("/v1/plugins/payment");
            plugin["last_rejection"]["digest"] == digest
        });
        let plugin = host.get("/v1/plugins/payment");
        let kept = plugin["last_rejection"]["reason"].as_str().unwrap();
        assert!(kept.contains(reason), "{reason}: {kept}");
        for arguments in [&[][..], &["--canary", "10"]] {
            let refused = deploy(&place, bytes, arguments);
            assert_eq!(exit(&refused), 1);
            assert!(stderr(&refused).contains(reason), "{reason}: {}", stderr(&refused));
        }
        assert_eq!(version(&host), "1.0.0");
        let is_told =
            |line: &&String| line.contains("component is refused") && line.contains(&digest);
        let log = host.log();
        assert_eq!(log.iter().filter(is_told).count(), 1, "{log:?}");
    }
    // What is forced is taken, and a dry run says so.
    let (bytes, ..) = &cases[0];
    let force = ["--force", "--reason", "ticket 9"];
    let dry = deploy(&place, bytes, &[&force[..], &["--dry-run"]].concat());
    assert!(exit(&dry) == 0 && stdout(&dry).contains("this would be taken"), "{}", stdout(&dry));
    assert_eq!(exit(&deploy(&place, bytes, &force)), 0);
    let plugin = host.get("/v1/plugins/payment");
    assert_eq!(
        (&plugin["version"], &plugin["history"][0]["reason"]),
        (&json!("2.0.0"), &json!("ticket 9"))
    );
    // What is as bad as what serves is not refused, and is told.
    let as_bad = deploy(&place, &payment("2.0.3", CUSTOMER, CHARGE), &["--dry-run"]);
    assert_eq!(exit(&as_bad), 0, "{}", stdout(&as_bad));
    assert!(stdout(&as_bad).contains("payment: warning: saga.trip.step.pay.input: `customer_id`"));
    // So it is when the words tell of one field more: an expression reads what nobody describes.
    assert_eq!(exit(&deploy(&place, &payment("2.0.4", AMOUNT, RENAMED), &force)), 0);
    let told = deploy(&place, &payment("2.0.5", AMOUNT, RENAMED_AND_MORE), &["--dry-run"]);
    let text = stdout(&told);
    assert_eq!(exit(&told), 0, "{text}");
    assert!(text.contains("help: it has `payment_id`, `rest`"), "{text}");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn what_fits_is_taken_and_what_comes_together_is_held_together() {
    let place = place();
    let host = place.run();
    let more = deploy(&place, &payment("1.1.0", AMOUNT, MORE), &["--dry-run", "-o", "json"]);
    assert_eq!(exit(&more), 0, "{}", stderr(&more));
    let told: Value = serde_json::from_str(&stdout(&more)).unwrap();
    assert_eq!(told["components"][0]["flaws"], json!([]), "{told}");
    // Both sides of a change at once: the ticket does not ask for the charge any more than before,
    // so only the undo is helped by it.
    fs::write(place.path("payment.wasm"), payment("2.0.0", AMOUNT, RENAMED)).unwrap();
    fs::write(place.path("refund.wasm"), other("refund", "{}", RENAMED)).unwrap();
    let deploy = ["plugin", "deploy", "payment.wasm", "refund.wasm", "--dry-run", "-o", "json"];
    let both = place.amends(&deploy);
    assert_eq!(exit(&both), 1);
    let told: Value = serde_json::from_str(&stdout(&both)).unwrap();
    let flaws = told["components"][0]["flaws"].as_array().unwrap();
    let keys: Vec<_> = flaws.iter().map(|flaw| (&flaw["step"], &flaw["key"])).collect();
    assert_eq!(keys, [(&json!("ticket"), &json!("input.charge"))], "{told}");
    assert!(told["components"][0]["refusal"].as_str().unwrap().contains("step ticket"), "{told}");
    assert_eq!(told["components"][1]["flaws"], json!([]), "{told}");
    assert_eq!(version(&host), "1.0.0");
    assert_eq!(host.stop(), Some(0));
}

/// Sagas in flight go on by the definition that they began with.
#[test]
fn the_older_definitions_of_sagas_in_flight_count_until_their_steps_are_done() {
    let place = place();
    let host = place.run();
    let input = r#"{"amount":1}"#;
    let output = place.amends(&["start", "trip", "--input", input, "-o", "ids"]);
    let id = stdout(&output).trim().to_owned();
    host.until("it waits", || host.get(&format!("/v1/sagas/{id}"))["status"] == "waiting");
    assert_eq!(host.stop(), Some(0));
    // The definition gives the new field now, and its ticket reads none.
    let without = DEFINITION.replace("input = { charge = \"steps.pay.output.charge_id\" }\n", "");
    let newer = without.replace(
        "amount = \"input.amount\" }",
        "amount = \"input.amount\", customer_id = \"input.customer_id\" }",
    );
    place.config(&newer);
    let host = place.run();
    // The payment of the saga is done: what it takes matters to no saga in flight.
    let dry = deploy(&place, &payment("2.0.0", CUSTOMER, CHARGE), &["--dry-run"]);
    assert_eq!(exit(&dry), 0, "{}", stdout(&dry));
    // Its ticket is still to come.
    let ticket = r#"{"type":"object","required":["seat"],"properties":{"charge":{},"seat":{}}}"#;
    fs::write(place.path("ticket.wasm"), other("ticket", ticket, "{}")).unwrap();
    let dry = ["plugin", "deploy", "ticket.wasm", "--dry-run"];
    let told = place.amends(&dry);
    let text = stdout(&told);
    let words = "saga.trip.step.ticket.input (an older definition, of sagas in flight): `seat` is \
                 missing";
    assert!(exit(&told) == 1 && text.contains(words), "{text}");
    place.amends(&["cancel", &id, "--reason", "test"]);
    host.settle();
    let told = place.amends(&dry);
    let text = stdout(&told);
    assert!(text.contains("this would be refused"), "{text}{}", stderr(&told));
    assert!(!text.contains("older definition"), "{text}");
    assert_eq!(host.stop(), Some(0));
}

/// A saga that is being undone executes none of its later steps, also while an undo blocks it.
#[test]
fn a_component_that_mends_an_undo_need_not_fit_steps_that_are_never_reached() {
    let place = Place::empty();
    let payment = |version, input, compensate| {
        Component {
            name: "payment",
            version,
            schema: input,
            output_schema: Some(CHARGE),
            imports: CHARGED,
            execute: ANSWERS,
            compensate,
            ..Component::default()
        }
        .build()
    };
    let first = payment("1.0.0", AMOUNT, Behaviour::Permanent);
    fs::write(place.plugin("payment"), first).unwrap();
    let definition = |input: &str| {
        let of = |name: &str| {
            let plugin = "plugin = \"payment\"";
            format!("[[saga.step]]\nname = \"{name}\"\n{plugin}\ninput = {{ {input} }}\n")
        };
        let wait = "[[saga.step]]\nname = \"wait\"\nwait = { signal = \"go\" }\n";
        format!("[[saga]]\nname = \"trip\"\n{}{wait}{}", of("pay"), of("rest"))
    };
    let amount = "amount = \"input.amount\"";
    place.config(&definition(amount));
    let host = place.run();
    let output = place.amends(&["start", "trip", "--input", r#"{"amount":1}"#, "-o", "ids"]);
    let id = stdout(&output).trim().to_owned();
    let is = |host: &Host, status: &str| host.get(&format!("/v1/sagas/{id}"))["status"] == status;
    host.until("it waits", || is(&host, "waiting"));
    place.amends(&["cancel", &id, "--reason", "test"]);
    host.until("its undo blocks it", || is(&host, "blocked"));
    assert_eq!(host.stop(), Some(0));
    // The definition gives the new field now; `rest` of the saga, which is still to come, would not.
    place.config(&definition(&format!("{amount}, customer_id = \"input.customer_id\"")));
    let host = place.run();
    host.until("it is blocked as before", || is(&host, "blocked"));
    let mended = payment("2.0.0", CUSTOMER, Behaviour::Done);
    let told = deploy(&place, &mended, &["--dry-run"]);
    assert_eq!(exit(&told), 0, "{}{}", stdout(&told), stderr(&told));
    assert_eq!(host.stop(), Some(0));
}
