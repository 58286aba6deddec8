//! The document against the file that clients are made from, and what every operation says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::breaks::breaks;
use crate::router::routes;

fn document() -> Value {
    let mut document = serde_json::to_value(routes().1).unwrap();
    document["info"]["version"] = json!("VERSION");
    document
}

/// The committed document: clients are made from it, and a change of it is a change of the API, to be looked at.
#[test]
fn the_document_is_the_one_that_clients_know() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let (known, now) = (serde_json::from_str(&text).unwrap(), document());
    let broken = breaks(&known, &now);
    if std::env::var_os("AMENDS_API_UPDATE")
        .is_some_and(|value| broken.is_empty() || value == "break")
    {
        std::fs::write(&path, format!("{now:#}\n")).unwrap();
        return;
    }
    assert!(
        broken.is_empty(),
        "this breaks clients of the API (AMENDS_API_UPDATE=break writes openapi.json all the same, and \
         CHANGELOG has to say what clients must change):\n{}",
        broken.join("\n")
    );
    assert!(
        known == now,
        "the API has changed and breaks no client: AMENDS_API_UPDATE=1 writes openapi.json"
    );
}

#[test]
fn every_operation_says_what_it_is() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let name = format!("{method} {path}");
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{name}: {id} is the id of another operation too");
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
            for (status, answer) in operation["responses"].as_object().unwrap() {
                let is_described =
                    answer["description"].as_str().is_some_and(|text| !text.is_empty());
                assert!(is_described || !answer["$ref"].is_null(), "{name}, {status}");
            }
            assert!(
                !operation["responses"]["default"].is_null(),
                "{name} says nothing of problems"
            );
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let of_path = parameters.filter(|parameter| parameter["in"] == "path");
            let named: BTreeSet<_> = of_path
                .map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap()))
                .collect();
            let in_path: BTreeSet<_> =
                path.split('/').filter(|part| part.starts_with('{')).map(until_its_end).collect();
            assert_eq!(named, in_path, "{name}");
        }
    }
    assert!(ids.len() > 50, "{}", ids.len());
}

#[test]
fn the_header_with_a_person_is_described_in_the_same_words_everywhere() {
    let document = document();
    let paths = document["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|operations| operations.as_object().unwrap().values());
    let parameters = operations.filter_map(|operation| operation["parameters"].as_array());
    let of_user = parameters.flatten().filter(|parameter| parameter["name"] == "amends-user");
    let said: Vec<_> = of_user.map(|parameter| parameter["description"].as_str()).collect();
    assert!(said.len() > 20, "{said:?}");
    assert!(said.iter().all(|said| *said == Some(super::USER)), "{said:?}");
}

#[test]
fn operations_that_need_a_token_say_how_they_refuse() {
    let refusals = |document: &Value, needs_token: bool| {
        let paths = document["paths"].as_object().unwrap().values();
        let operations = paths.flat_map(|operations| operations.as_object().unwrap().values());
        let of = operations.filter(|operation| {
            let security = operation["security"].as_array();
            security.is_some_and(|security| !security.contains(&json!({}))) == needs_token
        });
        let answers = of.map(|operation| {
            ["401", "403"].map(|status| operation["responses"][status]["$ref"].clone())
        });
        answers.collect::<Vec<_>>()
    };
    let with = document();
    let expected = ["TokenRefused", "PermissionMissing"]
        .map(|name| json!(format!("#/components/responses/{name}")));
    let told = refusals(&with, true);
    assert!(told.len() > 50 && told.iter().all(|told| *told == expected), "{told:?}");
    let silent = [Value::Null, Value::Null];
    assert!(refusals(&with, false).iter().all(|told| *told == silent));
    let without = serde_json::to_value(super::without_security(routes().1)).unwrap();
    assert!(refusals(&without, false).iter().all(|told| *told == silent));
    assert!(refusals(&without, true).is_empty());
}

/// `{name}:verb` has the parameter `{name}`.
fn until_its_end(segment: &str) -> String {
    segment.split_inclusive('}').next().unwrap_or_default().to_owned()
}

/// A small document with everything that the comparison looks at.
fn small() -> Value {
    json!({
        "paths": {"/v1/things": {"post": {
            "operationId": "make_thing",
            "parameters": [
                {"in": "query", "name": "limit", "schema": {"type": "integer", "maximum": 10}},
            ],
            "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Body"}}}},
            "responses": {"200": {"content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Thing"}},
            }}},
        }}},
        "components": {"schemas": {
            "Body": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string"},
                "kind": {"type": "string", "enum": ["a", "b"]},
            }},
            "Thing": {"type": "object", "required": ["id"], "properties": {
                "id": {"type": "string", "format": "uuid"},
                "state": {"type": "string", "enum": ["new", "old"]},
                "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}},
            }},
        }},
    })
}

/// A change of a part of a document.
type Change = fn(&mut Value);

#[test]
fn what_breaks_a_client_is_found() {
    let operation = "/paths/~1v1~1things/post";
    let body = "/components/schemas/Body";
    let thing = "/components/schemas/Thing";
    let changes: [(&str, String, Change, &str); 12] = [
        ("path", "/paths".to_owned(), |paths| *paths = json!({}), "POST /v1/things is gone"),
        (
            "id",
            operation.to_owned(),
            |it| it["operationId"] = json!("thing"),
            "another operationId",
        ),
        ("parameter", operation.to_owned(), |it| it["parameters"] = json!([]), "limit of POST"),
        (
            "limit",
            format!("{operation}/parameters/0/schema"),
            |it| it["maximum"] = json!(5),
            "another maximum",
        ),
        (
            "required",
            format!("{operation}/parameters/0"),
            |it| it["required"] = json!(true),
            "required now",
        ),
        ("answer", format!("{operation}/responses"), |it| *it = json!({}), "answer 200 of POST"),
        (
            "body",
            body.to_owned(),
            |it| it["required"] = json!(["name", "kind"]),
            "`kind` in the body",
        ),
        (
            "key",
            format!("{body}/properties"),
            |it| *it = json!({"name": {"type": "string"}}),
            "is gone",
        ),
        ("word", format!("{body}/properties/kind"), |it| it["enum"] = json!(["a"]), "fewer words"),
        ("absent", thing.to_owned(), |it| it["required"] = json!([]), "may be absent now"),
        (
            "type",
            format!("{thing}/properties/id"),
            |it| it["type"] = json!("integer"),
            "another type",
        ),
        (
            "item",
            format!("{thing}/properties/parts"),
            |it| it["items"] = json!({"type": "string"}),
            "an item of `parts`",
        ),
    ];
    for (name, place, change, said) in changes {
        let mut new = small();
        change(new.pointer_mut(&place).unwrap());
        let found = breaks(&small(), &new);
        assert!(found.iter().any(|sentence| sentence.contains(said)), "{name}: {found:?}");
    }
}

#[test]
fn what_breaks_no_client_is_permitted() {
    let mut new = small();
    new["paths"]["/v1/more"] = json!({"get": {"operationId": "more", "responses": {}}});
    let operation = &mut new["paths"]["/v1/things"]["post"];
    operation["parameters"].as_array_mut().unwrap().push(json!({"in": "query", "name": "new"}));
    operation["responses"]["202"] = json!({});
    let schemas = &mut new["components"]["schemas"];
    schemas["Body"]["required"] = json!([]);
    schemas["Body"]["properties"]["more"] = json!({"type": "string"});
    schemas["Body"]["properties"]["kind"]["enum"] = json!(["a", "b", "c"]);
    schemas["Thing"]["properties"]["state"]["enum"] = json!(["new", "old", "older"]);
    schemas["Thing"]["properties"]["more"] = json!({"type": "string"});
    assert_eq!(breaks(&small(), &new), Vec::<String>::new());
}
