//! The store of a stopped host is copied into PostgreSQL, and a host goes on there: with every kind of saga, and with
//! all that a store keeps beside them. A copy that dies is no store.

#[path = "../../../host/store/tests/database/own_server.rs"]
#[allow(dead_code, reason = "shared with the tests of the store")]
mod own_server;

use std::fs;
use std::process::Output;
use std::time::Duration;

use amends_tests::{Behaviour, Component};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::place::{Host, Place, stderr, stdout};
use own_server::OwnServer;

/// The failpoints of a copy.
pub(crate) const COPY_POINTS: [&str; 4] =
    ["store.copy.marked", "store.copy.table", "store.copy.compared", "store.copy.done"];

const SAGAS: &str = r#"
[plugin.kept]
state = true
state_personal = false

[[saga]]
name = "done"
[[saga.step]]
name = "kept"
plugin = "kept"

[[saga]]
name = "undone"
[[saga.step]]
name = "kept"
plugin = "kept"
[[saga.step]]
name = "no"
plugin = "no"
after = ["kept"]

[[saga]]
name = "stuck"
[[saga.step]]
name = "stays"
plugin = "stays"
undo = { retry = { attempts = 1 } }
[[saga.step]]
name = "no"
plugin = "no"

[[saga]]
name = "gate"
[[saga.step]]
name = "approval"
wait = "approved"

[[saga]]
name = "late"
[[saga.step]]
name = "pause"
sleep = "20h"

[[saga]]
name = "person"
subject = "input.customer"
personal = ["input.address"]
[[saga.step]]
name = "kept"
plugin = "kept"
input = "input"

[[saga]]
name = "changed"
[[saga.step]]
name = "approval"
wait = "approved"

[[schedule]]
name = "often"
definition = "gate"
cron = "0 0 1 1 *"
timezone = "UTC"
overlap = "skip"

[[subscription]]
name = "billing"
url = "http://127.0.0.1:9/nobody"
secrets = [{ file = "secret" }]
definitions = ["gate"]
"#;

fn place() -> Place {
    let place = Place::empty();
    let (done, no) = (Behaviour::Effect, Behaviour::Permanent);
    for (name, execute, compensate) in [("kept", done, done), ("no", no, done), ("stays", done, no)]
    {
        let component = Component { name, execute, compensate, ..Component::default() };
        fs::write(place.plugin(name), component.build()).unwrap();
    }
    fs::write(place.path("secret"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLjGK").unwrap();
    place.config(SAGAS);
    place
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

fn start(place: &Place, definition: &str) -> String {
    let input = json!({"customer": "c-81", "address": "Kirchengasse 47/3"}).to_string();
    let start = ["start", definition, "--input", &input, "-o", "ids", "--key", definition];
    done(&place.amends(&start)).trim().to_owned()
}

fn status(host: &Host, id: &str) -> String {
    host.get(&format!("/v1/sagas/{id}"))["status"].as_str().unwrap_or("none").to_owned()
}

/// Starts a saga, and waits until it has a status.
fn becomes(place: &Place, host: &Host, definition: &str, right: &str) -> String {
    let id = start(place, definition);
    host.until(right, || status(host, &id) == right);
    id
}

/// All that the host says of a saga; of one that it cannot read, why it cannot.
fn picture(place: &Place, host: &Host, id: &str) -> Vec<String> {
    let view = place.amends(&["get", id, "-o", "json"]);
    let events = host.get(&format!("/v1/sagas/{id}/events?limit=1000"));
    let history = stdout(&place.amends(&["history", id, "-o", "json"]));
    vec![history, stdout(&view) + &stderr(&view), events.to_string()]
}

/// All that the host says of its store beside sagas.
fn beside(place: &Place, host: &Host) -> Vec<String> {
    let events = host.get("/v1/events?limit=1000");
    let plugins = host.get("/v1/plugins");
    let plugins: Vec<_> =
        plugins["items"].as_array().unwrap().iter().map(|plugin| &plugin["history"]).collect();
    let dead = host.get("/v1/subscriptions/billing/dead-letters");
    let state = done(&place.amends(&["state", "list", "kept", "-o", "json"]));
    vec![events.to_string(), json!(plugins).to_string(), dead.to_string(), state]
}

/// Takes the definition of a saga away, so that nobody can read the saga.
fn lose_definition(place: &Place, digest: &Value) {
    let connection = Connection::open(place.path("data/amends.db")).unwrap();
    let digest = digest.as_str().unwrap().trim_start_matches("sha256:");
    let sql = format!("DELETE FROM blobs WHERE kind = 'definition' AND digest = x'{digest}'");
    assert_eq!(connection.execute(&sql, []).unwrap(), 1, "{digest}");
}

#[test]
fn a_host_goes_on_in_the_copy() {
    let Some(mut server) = OwnServer::new() else {
        return amends_tests::skipped("store copy", "PostgreSQL is not installed");
    };
    server.start();
    let target = format!("{}/postgres", server.url());
    let place = place();
    let short = [("AMENDS_STORE_RETENTION", "1s")];
    let host = place.run_with_env(&short);
    let archived = becomes(&place, &host, "undone", "compensated");
    std::thread::sleep(Duration::from_millis(1_200));
    // Once the subscription has passed its events.
    host.until("it is archived", || {
        done(&place.amends(&["store", "archive"]));
        host.get(&format!("/v1/sagas/{archived}"))["archived"] == json!(true)
    });
    let mut ids = vec![archived.clone()];
    for (definition, right) in [
        ("done", "completed"),
        ("stuck", "blocked"),
        ("gate", "waiting"),
        ("late", "waiting"),
        ("person", "completed"),
        ("changed", "waiting"),
    ] {
        ids.push(becomes(&place, &host, definition, right));
    }
    done(&place.amends(&["state", "set", "kept", "stock", "7"]));
    let erased = done(&place.amends(&["erase", "--subject", "c-81", "--reason", "asked"]));
    assert!(erased.contains("erased") || erased.contains("saga"), "{erased}");
    let digest = host.get(&format!("/v1/sagas/{}", ids[6]))["definition_digest"].clone();
    assert_eq!(host.stop(), Some(0));
    lose_definition(&place, &digest);
    place.config(&SAGAS.replace("name = \"changed\"", "name = \"changed-since\""));

    let host = place.run();
    let before: Vec<_> = ids.iter().map(|id| picture(&place, &host, id)).collect();
    let others = beside(&place, &host);
    assert!(before[0][1].contains("archived"), "{}", before[0][1]);
    assert!(before[6][1].contains("quarantined"), "{}", before[6][1]);
    assert!(!before[5][2].contains("Kirchengasse"), "{}", before[5][2]);
    let while_it_runs = place.amends(&["store", "copy", "sqlite:data/amends.db", &target]);
    assert_eq!(while_it_runs.status.code(), Some(1));
    assert!(
        stderr(&while_it_runs).contains("a host has the source open"),
        "{}",
        stderr(&while_it_runs)
    );
    assert_eq!(host.stop(), Some(0));

    let copied = place.amends(&["store", "copy", "sqlite:data/amends.db", &target]);
    let told = done(&copied);
    assert!(told.contains("6 sagas, 1 that are archived or deleted"), "{told}");
    assert!(told.contains("amends.db-keys"), "{told}");
    let keys = "keys = \"data/amends.db-keys\"\n[plugins]";
    let config = fs::read_to_string(place.path("amends.toml")).unwrap();
    fs::write(place.path("amends.toml"), config.replace("[plugins]", keys)).unwrap();
    let here = [("AMENDS_STORE_URL", target.as_str())];
    let host = place.run_with_env(&here);
    for (id, before) in ids.iter().zip(before) {
        assert_eq!(picture(&place, &host, id), before, "{id}");
    }
    assert_eq!(beside(&place, &host), others);
    // It goes on where it stood.
    done(&place.amends(&["signal", &ids[3], "approved"]));
    host.until("it goes on", || status(&host, &ids[3]) == "completed");
    assert_eq!(start(&place, "done"), ids[1], "the key is forgotten");
    let retried = place.amends(&["skip", &ids[2], "--step", "stays", "--reason", "by hand"]);
    done(&retried);
    host.until("it is undone", || status(&host, &ids[2]) == "compensated");
    done(&place.amends(&["store", "archive", "--bring-back", &archived]));
    assert_eq!(host.stop(), Some(0));
    // The source is not used any more, and the copy is not copied over.
    let again = place.amends(&["store", "copy", "sqlite:data/amends.db", &target]);
    assert!(stderr(&again).contains("is a store already"), "{}", stderr(&again));
}

#[test]
fn a_copy_that_dies_is_no_store() {
    let Some(mut server) = OwnServer::new() else {
        return amends_tests::skipped("store copy", "PostgreSQL is not installed");
    };
    server.start();
    let target = format!("{}/postgres", server.url());
    let place = place();
    let host = place.run();
    let id = becomes(&place, &host, "gate", "waiting");
    assert_eq!(host.stop(), Some(0));
    let copy = ["store", "copy", "sqlite:data/amends.db", &target];
    let here = [("AMENDS_STORE_URL", target.as_str())];
    for point in COPY_POINTS {
        let mut copying = place.command(&copy);
        let died = copying.env("FAILPOINTS", format!("{point}=return")).output().unwrap();
        assert_eq!(died.status.code(), None, "{point}: {}", stderr(&died));
        if point == "store.copy.done" {
            continue;
        }
        let (code, log) = place.spawn_with_env(&here).ended_logged();
        assert_eq!(code, Some(1), "{point}");
        let log = log.join("\n");
        assert!(log.contains("is a copy that was not finished"), "{point}: {log}");
    }
    // The last one had done all but say so.
    let host = place.run_with_env(&here);
    assert_eq!(status(&host, &id), "waiting");
    assert_eq!(host.stop(), Some(0));
    for (source, target, code, words) in [
        ("sqlite:data/amends.db", "sqlite:other.db", 2, "no PostgreSQL database"),
        ("sqlite:nothing.db", target.as_str(), 1, "there is no store"),
        (target.as_str(), target.as_str(), 1, "PostgreSQL's own tools"),
    ] {
        let refused = place.amends(&["store", "copy", source, target]);
        assert_eq!(refused.status.code(), Some(code), "{}", stderr(&refused));
        assert!(stderr(&refused).contains(words), "{}", stderr(&refused));
    }
}
