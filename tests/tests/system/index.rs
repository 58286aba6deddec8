//! How sagas are found by what the business calls them.

use std::fs;

use amends_tests::{Behaviour, Component};
use serde_json::{Value, json};

use crate::place::{Place, stderr, stdout};

const INDEX: &str = "index = { customer = \"input.customer\", total = \"input.total\", \
                     gift = \"has(input.gift) && input.gift\" }";

fn place(index: &str) -> Place {
    let place = Place::empty();
    let component = Component { name: "good", execute: Behaviour::Echo, ..Component::default() };
    fs::write(place.plugin("good"), component.build()).unwrap();
    place.config(&sagas(index));
    place
}

/// `order` is indexed, and `family` runs it. `other` has a name that `order` has as well.
fn sagas(index: &str) -> String {
    format!(
        "[[saga]]\nname = \"order\"\n{index}\n[[saga.step]]\nname = \"one\"\nplugin = \"good\"\n\
         [[saga]]\nname = \"family\"\n[[saga.step]]\nname = \"child\"\nsaga = \"order\"\n\
         input = \"input\"\n\
         [[saga]]\nname = \"other\"\nindex = {{ customer = \"input.who\", place = \"input.place\" }}\n\
         [[saga.step]]\nname = \"one\"\nplugin = \"good\"\n"
    )
}

fn start(place: &Place, definition: &str, input: &Value) -> String {
    let input = input.to_string();
    let output = place.amends(&["start", definition, "--input", &input, "--wait", "-o", "ids"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stdout(&output).trim().to_owned()
}

fn found(place: &Place, arguments: &[&str]) -> Vec<String> {
    let output = place.amends(&[&["list", "-o", "ids"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    stdout(&output).lines().map(str::to_owned).collect()
}

#[test]
fn sagas_are_found_by_values_of_their_input() {
    let place = place(INDEX);
    let host = place.run();
    let long = "x".repeat(257);
    let small = start(&place, "order", &json!({"customer": "C-81", "total": 99.5, "gift": true}));
    let large = start(&place, "order", &json!({"customer": "C-81", "total": 100}));
    let text = start(&place, "order", &json!({"customer": 81, "total": "100"}));
    // What is not there, or is nothing to find by, is not indexed, and starts all the same.
    let none = start(&place, "order", &json!({"customer": [1], "gift": null}));
    let cut = start(&place, "order", &json!({"customer": long, "total": 1e300}));
    let other = start(&place, "other", &json!({"who": "C-81", "place": "Graz"}));
    let family = start(&place, "family", &json!({"customer": "C-82", "total": 7}));
    let child = host.get(&format!("/v1/sagas/{family}"))["steps"][0]["child"].clone();
    let child = child.as_str().unwrap();
    let check = || {
        let cases: &[(&[&str], &[&str])] = &[
            (&["--where", "customer=C-81"], &[&other, &large, &small]),
            (&["--where", "customer=C-81", "--definition", "order"], &[&large, &small]),
            (&["--where", "customer=C-81", "--where", "total>=100"], &[&large]),
            (&["--where", "total>=100"], &[&cut, &large]),
            (&["--where", "total>=100", "--where", "total<1000"], &[&large]),
            (&["--where", "total=100"], &[&text, &large]),
            (&["--where", "total=\"100\""], &[&text]),
            (&["--where", "customer=81"], &[&text]),
            (&["--where", "customer^=C-"], &[child, &other, &large, &small]),
            (&["--where", "customer=C-82"], &[child]),
            (&["--where", "gift=true"], &[&small]),
            (&["--where", "gift=false"], &[child, &cut, &text, &large]),
            (&["--where", "place=Graz"], &[&other]),
            (&["--where", "customer=C-81", "--status", "blocked"], &[]),
            (&["--where", "customer^=xx"], &[]),
        ];
        for (arguments, ids) in cases {
            assert_eq!(found(&place, arguments), *ids, "{arguments:?}");
        }
    };
    check();
    let view = host.get(&format!("/v1/sagas/{small}"));
    assert_eq!(view["index"], json!({"customer": "C-81", "gift": true, "total": 99.5}));
    assert_eq!(host.get(&format!("/v1/sagas/{none}"))["index"], Value::Null);
    let shown = stdout(&place.amends(&["get", &small]));
    assert!(shown.contains("index    customer=C-81, gift=true, total=99.5\n"), "{shown}");
    let count = place.amends(&["list", "--where", "customer=C-81", "--count"]);
    assert_eq!(stdout(&count), "3\n");
    let arguments = ["list", "--where", "total>1", "--group-by", "customer", "-o", "json"];
    let groups: Value = serde_json::from_str(&stdout(&place.amends(&arguments))).unwrap();
    let largest = &groups["groups"][0];
    assert_eq!((&largest["by"], &largest["sagas"]), (&json!({"customer": "C-81"}), &json!(2)));
    assert_eq!(groups["sagas"], 4);
    // Pages of one.
    let page = host.get("/v1/sagas?limit=1&where=customer%3DC-81&where=total%3E%3D1");
    assert_eq!(page["items"][0]["id"], *large);
    let cursor = page["next_cursor"].as_str().unwrap();
    let page = host
        .get(&format!("/v1/sagas?limit=1&where=customer%3DC-81&where=total%3E1&cursor={cursor}"));
    assert_eq!((&page["items"][0]["id"], &page["next_cursor"]), (&json!(small), &Value::Null));
    assert_eq!(page["items"][0]["index"]["customer"], "C-81");
    host.kill();
    let host = place.run();
    check();

    // Another index is for sagas that start from now on.
    assert_eq!(host.stop(), Some(0));
    place.config(&sagas("index = { customer = \"'all'\", total = \"input.total\" }"));
    let _host = place.run();
    assert_eq!(found(&place, &["--where", "customer=C-81"]), [&*other, &large, &small]);
    let later = start(&place, "order", &json!({"total": 3}));
    assert_eq!(found(&place, &["--where", "customer=all"]), [later]);
}

#[test]
fn a_condition_that_is_wrong_says_what_would_be_right() {
    let place = place(INDEX);
    let host = place.run();
    let many: Vec<_> = (0..17).flat_map(|_| ["--where", "total=1"]).collect();
    let many = [&["list"], many.as_slice()].concat();
    for (arguments, told) in [
        (&["list", "--where", "custmer=7"][..], "there are customer, gift, place, total"),
        (&["list", "--where", "customer"], "write NAME=VALUE"),
        (&["list", "--where", "Customer=7"], "is not a name"),
        (&["list", "--where", "total=\"1"], "not a text in quotes"),
        (&["list", "--where", "total=1", "--archived"], "cannot be used with"),
        (&["list", "--group-by", "custmer"], "there are customer, gift, place, total"),
        (&many, "17 conditions"),
    ] {
        let output = place.amends(arguments);
        assert_ne!(output.status.code(), Some(0), "{arguments:?}");
        assert!(stderr(&output).contains(told), "{arguments:?}: {}", stderr(&output));
    }
    assert_eq!(host.stop(), Some(0));
    let place = Place::empty();
    place.config("[[saga]]\nname = \"nap\"\n[[saga.step]]\nname = \"one\"\nsleep = \"1s\"\n");
    let _host = place.run();
    let output = place.amends(&["list", "--where", "customer=7"]);
    assert!(stderr(&output).contains("declare some in the config"), "{}", stderr(&output));
}
