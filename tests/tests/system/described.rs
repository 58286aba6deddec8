//! The OpenAPI document and the host: whether one is valid, and whether the other does as it says.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::access::asker::{ADMIN, ADMIN_VARIABLE, AUTH, Asker, make};
use crate::place::{Host, Place, agent, example, stderr, stdout};
use crate::python::python_with;

/// A validator of documents, and a program that makes requests of a document and judges the answers by it.
const LIBRARIES: [&str; 2] = ["openapi-spec-validator==0.9.0", "schemathesis==4.32.5"];

/// What the answers are judged by. Left out is whether each request that the document permits is accepted: what
/// operators may do depends on the saga.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance,response_headers_conformance,negative_data_rejection,\
                      unsupported_method,missing_required_header,use_after_free";

/// The file with what is the same in all requests.
const SETTINGS: &str = "schemathesis.toml";

/// Something of everything that has a name in the config.
const MORE: &str = r#"
[service.carrier]
breaker = { failures = 5, open_for = "60s" }

[[schedule]]
name = "nightly"
cron = "0 3 * * *"
timezone = "Europe/Vienna"
definition = "order-fulfillment"

[[on]]
name = "orders"
event = "order.*"
start = "order-fulfillment"

[[subscription]]
name = "shop"
url = "http://127.0.0.1:9/hook"
secrets = [{ env = "SHOP_SECRET" }]
"#;

const SECRET: &str = "whsec_b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQtb2xk";

/// The roles that a token can have. The one that can do most comes last.
const ROLES: [&str; 5] = ["viewer", "operator", "deployer", "service", "admin"];

/// The validator and the maker of requests.
fn programs() -> PathBuf {
    python_with("described", &LIBRARIES)
}

/// A place with the example, and a host on it with more in its config.
fn host_with(more: &str) -> (Place, Host) {
    let place = Place::example();
    let config = place.path("amends.toml");
    let text = fs::read_to_string(&config).unwrap();
    assert!(!text.contains("[service.carrier]"), "{text}");
    fs::write(&config, text + MORE + more).unwrap();
    let host = place.run_with_env(&[("SHOP_SECRET", SECRET), ADMIN_VARIABLE]);
    (place, host)
}

/// Has a validator read the document that the host serves.
fn validate(place: &Place, host: &Host) {
    let document = place.path("openapi.json");
    fs::write(&document, host.get("/v1/openapi.json").to_string()).unwrap();
    let output =
        Command::new(programs().join("openapi-spec-validator")).arg(&document).output().unwrap();
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
}

/// Makes sagas that end in different ways, and writes down one of them for every operation on a saga.
fn sagas(place: &Place, host: &Host) {
    let order = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(example().join(name)).unwrap()).unwrap()
    };
    let inputs = [order("order.json"), order("order-undeliverable.json"), json!({})];
    let started = inputs.map(|input| {
        let body = json!({ "definition": "order-fulfillment", "input": input });
        // A host without access control does not look at the token.
        let saga = Asker::with(ADMIN).post(host, "/v1/sagas?wait=30s", &body).body;
        saga["id"].as_str().unwrap().to_owned()
    });
    let settings = format!("[parameters]\n\"path.id\" = \"{}\"\n", started[0]);
    fs::write(place.path(SETTINGS), settings).unwrap();
}

/// Makes requests of the document that the host serves, and judges the answers.
fn request(place: &Place, host: &Host, checks: &str, more: &[&str]) -> Output {
    let seed = std::env::var("AMENDS_API_SEED").unwrap_or_else(|_| "7".to_owned());
    Command::new(programs().join("schemathesis"))
        .arg("--config-file")
        .arg(place.path(SETTINGS))
        .arg("run")
        .arg(host.url("/v1/openapi.json"))
        .args(["--checks", checks])
        // It does not end while its saga goes on.
        .args(["--exclude-operation-id", "watch_saga"])
        // It cannot write NDJSON.
        .args(["--exclude-operation-id-regex", "^(start_sagas|import_state|import_saga)$"])
        .args(["--request-timeout", "30", "--continue-on-failure", "--warnings", "off"])
        .args(["--seed", &seed])
        .args(more)
        .current_dir(place.path(""))
        .output()
        .unwrap()
}

#[test]
fn the_document_is_valid_and_the_host_does_as_it_says() {
    let (place, host) = host_with("");
    validate(&place, &host);
    sagas(&place, &host);
    let more =
        ["--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--max-time", "40"];
    let output = request(&place, &host, CHECKS, &more);
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    assert_eq!(agent().get(host.url("/readyz")).call().unwrap().status(), 200);
}

/// Each answer of 2xx is asked for again without the token and with another one, and has to be refused then.
#[test]
fn a_host_with_access_control_does_as_the_document_says_to_each_role() {
    let (place, host) = host_with(AUTH);
    validate(&place, &host);
    sagas(&place, &host);
    let checks = format!("{CHECKS},ignored_auth");
    for role in ROLES {
        // The others get answers from which the payloads are withheld.
        let token = make(&host, role, &[role], role == "admin");
        // The check `ignored_auth` takes away the header of this name, and looks at the case of its letters.
        let header = format!("Authorization: Bearer {token}");
        let more = ["--phases", "coverage", "--max-time", "12", "--header", header.as_str()];
        let output = request(&place, &host, &checks, &more);
        assert!(output.status.success(), "{role}: {}{}", stdout(&output), stderr(&output));
        // That it was the token of the role which was judged.
        let me = Asker::with(&token).get(&host, "/v1/me").done();
        assert_eq!(me["roles"], json!([role]));
    }
    assert_eq!(agent().get(host.url("/readyz")).call().unwrap().status(), 200);
}
