//! Values that components mark as personal: `x-amends-personal` in their schemas. They are sealed as those
//! that the definition names, and a component whose marks could not be kept is refused.

use std::fs;

use amends_tests::{Behaviour, Component};
use serde_json::{Value, json};

use crate::erase::{PLANTED, answers, done, erase, found, found_in, input, state};
use crate::place::{Host, Place, stderr, stdout, text};

/// The saga names no personal value: the components do.
const SAGAS: &str = r#"
[[saga]]
name = "order"
subject = "input.customer_id"
[[saga.step]]
name = "copy"
plugin = "copy"
input = "input"
[[saga.step]]
name = "approval"
wait = "approved"
[[saga.step]]
name = "label"
plugin = "label"
input = { text = "input.customer.name + ' ' + steps.copy.output.address.street", count = "input.quantity" }

[[saga]]
name = "refused"
subject = "input.customer_id"
[[saga.step]]
name = "copy"
plugin = "copy"
input = "input"
[[saga.step]]
name = "never"
plugin = "label"
when = "input.account"
"#;

/// What the component `copy` takes and gives: it gives back what it takes.
fn copied() -> String {
    json!({
        "type": "object",
        "properties": {
            "customer": {"$ref": "#/$defs/person"},
            "address": {"properties": {"street": {"type": "string", "x-amends-personal": true}}},
            "account": {"anyOf": [{"type": "null"}, {"x-amends-personal": true}]},
            "phone": {"type": "integer", "x-amends-personal": true},
            "contacts": {"items": {"properties": {"email": {"x-amends-personal": true}}}},
            "labels": {"additionalProperties": {"x-amends-personal": true}},
        },
        "$defs": {"person": {"x-amends-personal": true, "properties": {"name": {"type": "string"}}}},
    })
    .to_string()
}

fn component(name: &str, version: &str, schema: &str) -> Vec<u8> {
    let echo = Behaviour::Echo;
    Component { name, version, schema, execute: echo, ..Component::default() }.build()
}

fn place(sagas: &str) -> Place {
    let place = Place::empty();
    fs::write(place.plugin("copy"), component("copy", "1.0.0", &copied())).unwrap();
    fs::write(place.plugin("label"), component("label", "1.0.0", "{}")).unwrap();
    place.config(sagas);
    place
}

fn start(place: &Place, definition: &str) -> String {
    // One of the planted values is of a step that this test has not.
    let input = input().to_string();
    done(&place.amends(&["start", definition, "--input", &input, "-o", "ids"])).trim().to_owned()
}

/// How many of the values the input has.
fn planted() -> usize {
    found(&input().to_string()).len()
}

fn kinds(host: &Host, id: &str) -> Vec<String> {
    let events = host.get(&format!("/v1/sagas/{id}/events"));
    let events = events["items"].as_array().unwrap().iter();
    events.map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn marked_values_are_sealed_and_erased_as_those_that_are_named() {
    let place = place(SAGAS);
    let host = place.run();
    let (order, refused) = (start(&place, "order"), start(&place, "refused"));
    let status = |id: &str| host.get(&format!("/v1/sagas/{id}"))["status"].clone();
    host.until("one waits", || status(&order) == "waiting" && status(&refused) == "compensated");
    // Both have them, and an error of the second one has the account in it.
    assert_eq!(found(&answers(&place, &host, &[&order, &refused])).len(), planted());
    assert_eq!(host.get(&format!("/v1/sagas/{refused}"))["status"], "compensated");
    assert_eq!(found(&text(&host.url("/v1/events"))), [""; 0]);
    assert_eq!(found_in(&place.path("")), [""; 0]);
    let events = host.get(&format!("/v1/sagas/{order}/events"));
    assert_eq!(events["items"][1]["type"], "saga.marked", "{events}");
    let marked = events["items"][1]["data"]["personal"].as_array().unwrap().clone();
    let marked: Vec<_> = marked.iter().map(|place| place.as_str().unwrap()).collect();
    for place in ["input.customer", "input.contacts.email", "steps.copy.output.address.street"] {
        assert!(marked.contains(&place), "{marked:?}");
    }
    let bundle = done(&place.amends(&["store", "export", &order]));
    assert_eq!(found(&bundle), [""; 0]);
    assert_eq!(host.kill().len().min(1), 1);

    // A component with more marks serves from here on: also what this saga goes on with is sealed.
    let host = place.run();
    let schema = json!({"properties": {"text": {"type": "string", "x-amends-personal": true}}});
    let file = place.path("label-2.wasm");
    fs::write(&file, component("label", "2.0.0", &schema.to_string())).unwrap();
    let named = format!("label={}", file.display());
    done(&place.amends(&["plugin", "deploy", &named, "--reason", "it says what is personal"]));
    fs::remove_file(&file).unwrap();
    done(&place.amends(&["signal", &order, "approved"]));
    host.settle();
    assert_eq!(host.get(&format!("/v1/sagas/{order}"))["status"], "completed");
    let marks = kinds(&host, &order).into_iter().filter(|kind| kind == "saga.marked").count();
    assert_eq!(marks, 2, "{:?}", kinds(&host, &order));
    let label = host.get(&format!("/v1/sagas/{order}"))["steps"][2]["output"]["text"].clone();
    assert_eq!(label, format!("{} {}", PLANTED[0], PLANTED[1]));
    let shown = done(&place.amends(&["history", &order]));
    assert!(shown.contains("personal from here on: "), "{shown}");
    assert_eq!(found(&text(&host.url("/v1/events"))), [""; 0]);
    assert_eq!(found_in(&place.path("")), [""; 0]);

    let erased: Value = serde_json::from_str(&done(&erase(&place))).unwrap();
    assert_eq!((&erased["erased"], &erased["waiting"]), (&json!(2), &json!(0)));
    assert_eq!((state(&host, &order), state(&host, &refused)), (json!("erased"), json!("erased")));
    assert_eq!(found(&answers(&place, &host, &[&order, &refused])), [""; 0]);
    assert_eq!(host.stop(), Some(0));
    done(&place.amends(&["store", "verify", "data/amends.db"]));
}

#[test]
fn a_component_whose_marks_cannot_be_kept_is_refused() {
    let place = Place::empty();
    fs::write(place.plugin("copy"), component("copy", "0.9.0", "{}")).unwrap();
    let saga = "[[saga]]\nname = \"plain\"\nindex = { street = \"input.address.street\" }\n\
                [[saga.step]]\nname = \"copy\"\nplugin = \"copy\"\ninput = \"input\"\n";
    place.config(saga);
    let host = place.run();
    let file = place.path("copy-2.wasm");
    fs::write(&file, component("copy", "1.0.0", &copied())).unwrap();
    let named = format!("copy={}", file.display());
    let refused = place.amends(&["plugin", "deploy", &named]);
    let said = one_line(&(stdout(&refused) + &stderr(&refused)));
    assert_ne!(refused.status.code(), Some(0), "{said}");
    for words in ["the saga `plain` has no subject", "indexes as `street`"] {
        assert!(said.contains(words), "{said}");
    }
    // Nothing has changed, and sagas start.
    let input = input().to_string();
    let start = || place.amends(&["start", "plain", "--input", &input, "-o", "ids"]);
    done(&start());
    host.settle();
    // By force it serves, and what it marks is never recorded in clear.
    done(&place.amends(&["plugin", "deploy", &named, "--force", "--reason", "test"]));
    let refused = start();
    assert_ne!(refused.status.code(), Some(0));
    assert!(stderr(&refused).contains("has no subject"), "{}", stderr(&refused));
    let list = host.get("/v1/sagas");
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn check_refuses_a_config_whose_components_mark_what_could_not_be_sealed() {
    let on = "[[on]]\nname = \"orders\"\nevent = \"order.placed\"\nstart = \"order\"\n\
              tags = { to = \"event.data.address.street\" }\n";
    let cases = [
        (
            SAGAS.replacen("subject = \"input.customer_id\"\n", "", 1),
            "the saga `order` has no subject",
        ),
        (
            SAGAS.replacen(
                "[[saga.step]]",
                "index = { to = \"input.address.street\" }\n[[saga.step]]",
                1,
            ),
            "`input.address.street` indexes as `to`",
        ),
        (format!("{SAGAS}\n{on}"), "`event.data.address.street` reads a personal value of `order`"),
    ];
    for (sagas, words) in cases {
        let place = place(&sagas);
        let output = place.amends(&["check", "amends.toml"]);
        let said = one_line(&(stdout(&output) + &stderr(&output)));
        assert_ne!(output.status.code(), Some(0), "{words}: {said}");
        assert!(said.contains(words), "{words}: {said}");
    }
    done(&place(SAGAS).amends(&["check", "amends.toml"]));
    // A mark that says nothing is most likely a slip.
    let sound = place(SAGAS);
    let slip = r#"{"properties":{"a":{"x-amends-personal":"yes"}}}"#;
    fs::write(sound.plugin("label"), component("label", "1.0.0", slip)).unwrap();
    let output = sound.amends(&["check", "amends.toml"]);
    let said = one_line(&(stdout(&output) + &stderr(&output)));
    assert!(!output.status.success() && said.contains("write true or false"), "{said}");
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
