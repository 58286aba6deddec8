//! The life of tokens: they are made, used, survive the host, expire and are revoked.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Output;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use regex::Regex;
use serde_json::{Value, json};

use super::asker::{ADMIN, AUTH, Asker, make, revoke, run};
use crate::place::{Host, Place, agent, stderr, stdout};

/// A stream whose token has ended ends within this long. Machines are shared.
const ENDED_WITHIN: Duration = Duration::from_secs(15);

const SAGA: &str =
    "[[saga]]\nname = \"gate\"\n[[saga.step]]\nname = \"approval\"\nwait = \"approved\"\n";

fn place() -> Place {
    let place = Place::empty();
    place.config(&format!("{AUTH}{SAGA}"));
    place
}

/// The command line, with a token.
fn amends(place: &Place, token: &str, arguments: &[&str]) -> Output {
    place.command(arguments).env("AMENDS_TOKEN", token).output().unwrap()
}

/// What it printed; it is done.
fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

/// The only token in a text.
fn token_in(text: &str) -> String {
    let token = Regex::new("amends_[0-9A-Za-z]{10}_[0-9A-Za-z]{49}").unwrap();
    let found: Vec<_> = token.find_iter(text).collect();
    assert_eq!(found.len(), 1, "{text}");
    found[0].as_str().to_owned()
}

fn listed(host: &Host) -> Vec<Value> {
    let page = Asker::with(ADMIN).get(host, "/v1/tokens").done();
    page["items"].as_array().unwrap().clone()
}

/// The newest token of this name.
fn named(host: &Host, name: &str) -> Value {
    listed(host).into_iter().find(|token| token["name"] == name).unwrap()
}

/// The files below a folder that have one of these texts.
fn files_with(folder: &Path, texts: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files_with(&path, texts));
        } else if let Ok(bytes) = fs::read(&path) {
            let has = |text: &&str| bytes.windows(text.len()).any(|at| at == text.as_bytes());
            let found = texts.iter().filter(|text| has(text));
            all.extend(found.map(|text| format!("{}: {text}", path.display())));
        }
    }
    all
}

#[test]
fn tokens_survive_a_restart_and_end_when_they_are_revoked() {
    let place = place();
    let host = run(&place);
    let new = ["token", "new", "grace", "--role", "operator", "--payloads", "--expires", "90d"];
    let grace = token_in(&done(&amends(&place, ADMIN, &new)));
    let shop = make(&host, "shop", &["service"], false);
    let made = named(&host, "grace");
    assert_eq!(made["created_by"], "admin_token@127.0.0.1 on behalf of ada");
    assert_eq!((&made["roles"], &made["payloads"]), (&json!(["operator"]), &json!(true)));
    assert_eq!((&made["state"], &made["last_used_at"]), (&json!("active"), &Value::Null));
    assert!(made["expires_at"].is_string() && made["revoked"].is_null(), "{made}");
    assert_eq!(made["id"], grace["amends_".len()..].split('_').next().unwrap());

    let me = Asker::with(&grace).get(&host, "/v1/me").done();
    assert_eq!((&me["who"], &me["access_control"]), (&json!("grace@127.0.0.1"), &json!(true)));
    assert_eq!(me["permissions"], json!(["read", "payloads", "start", "operate"]));
    assert_eq!(me["expires_at"], made["expires_at"]);
    let told = done(&amends(&place, &grace, &["me"]));
    assert!(told.contains("grace") && told.contains("operator"), "{told}");
    host.until("the use is recorded", || named(&host, "grace")["last_used_at"].is_string());
    assert_eq!(named(&host, "shop")["last_used_at"], Value::Null);
    let before = listed(&host);
    assert_eq!(host.kill().len().min(1), 1);

    let host = run(&place);
    assert_eq!(listed(&host), before);
    let saga = Asker::with(&shop).post(&host, "/v1/sagas", &json!({"definition": "gate"})).done();
    let table = done(&amends(&place, ADMIN, &["token", "list"]));
    for words in ["grace", "operator", "shop", "service"] {
        assert!(table.contains(words), "{words}: {table}");
    }
    let said = ["token", "revoke", "shop", "--reason", "it was in a repository"];
    done(&amends(&place, ADMIN, &said));
    Asker::with(&shop).get(&host, "/v1/me").is_refused(401, "token_revoked");
    let revoked = named(&host, "shop")["revoked"].clone();
    assert_eq!(revoked["who"], "admin_token@127.0.0.1 on behalf of ada");
    assert_eq!(revoked["reason"], "it was in a repository");
    assert_eq!(host.stop(), Some(0));

    let host = run(&place);
    Asker::with(&shop).get(&host, "/v1/me").is_refused(401, "token_revoked");
    assert_eq!(named(&host, "shop")["revoked"], revoked);
    // What it started goes on.
    let path = format!("/v1/sagas/{}", saga["id"].as_str().unwrap());
    assert_eq!(Asker::with(&grace).get(&host, &path).done()["status"], "waiting");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_token_is_found_nowhere() {
    let place = place();
    let host = run(&place);
    let tokens = ["grace", "shop"].map(|name| make(&host, name, &["admin"], true));
    for token in &tokens {
        for path in ["/v1/me", "/v1/tokens", "/v1/events?limit=1000", "/v1/none"] {
            let text = Asker::with(token).get(&host, path).text;
            assert!(tokens.iter().all(|token| !text.contains(token.as_str())), "{text}");
        }
        // Not even a slip of one, in words or in the log.
        let slip = &token[..token.len() - 1];
        let text = Asker::with(slip).get(&host, "/v1/me").text;
        assert!(!text.contains(slip), "{text}");
    }
    host.until("the uses are recorded", || {
        listed(&host).iter().all(|token| token["last_used_at"].is_string())
    });
    revoke(&host, "shop");
    Asker::with(&tokens[1]).get(&host, "/v1/me").is_refused(401, "token_revoked");
    let secrets: Vec<&str> = tokens.iter().map(|token| &token[18..61]).chain([ADMIN]).collect();
    let log = host.log().join("\n");
    assert!(secrets.iter().all(|secret| !log.contains(secret)), "{log}");
    // As it is while the host runs, and as it leaves it.
    assert_eq!(files_with(&place.path(""), &secrets), [""; 0]);
    let (exit, log) = host.stop_logged();
    assert_eq!(exit, Some(0));
    assert!(secrets.iter().all(|secret| !log.join("\n").contains(secret)), "{log:?}");
    assert_eq!(files_with(&place.path(""), &secrets), [""; 0]);
    // That files are searched at all.
    assert_ne!(files_with(&place.path("data"), &["token.created"]), [""; 0]);
}

#[test]
fn what_cannot_be_made_or_revoked_is_refused() {
    let place = place();
    let host = run(&place);
    let admin = Asker::with(ADMIN);
    let new = |body: Value| admin.post(&host, "/v1/tokens", &body);
    let (roles, long) = (["viewer"], "n".repeat(64));
    for name in ["a", "A-1_b.c", &long] {
        assert_eq!(new(json!({"name": name, "roles": roles})).status, 201, "{name}");
        new(json!({"name": name, "roles": ["admin"]})).is_refused(409, "token_name_taken");
    }
    let longer = format!("{long}n");
    for name in ["", " ", "a b", "a@b", "ä", "a\nb", "admin_token", &longer] {
        let refused = new(json!({"name": name, "roles": roles}));
        refused.is_refused(400, "bad_name");
    }
    for body in [
        json!({"name": "b", "roles": []}),
        json!({"name": "b", "roles": ["king"]}),
        json!({"name": "b", "roles": ["Admin"]}),
        json!({"name": "b", "roles": ["payloads"]}),
        json!({"name": "b", "roles": roles, "expires_in": "soon"}),
        json!({"name": "b", "roles": roles, "permissions": ["administer"]}),
        json!({"name": "b"}),
    ] {
        let refused = new(body);
        assert!(matches!(refused.status, 400 | 422), "{}", refused.text);
    }
    assert_eq!(listed(&host).len(), 3);

    let revoke_as =
        |named: &str, body: Value| admin.post(&host, &format!("/v1/tokens/{named}/revoke"), &body);
    revoke_as("nobody", json!({"reason": "a test"})).is_refused(404, "token_unknown");
    // The token of the config is none of the store.
    revoke_as("admin_token", json!({"reason": "a test"})).is_refused(404, "token_unknown");
    revoke_as("a", json!({"reason": " "})).is_refused(400, "reason_missing");
    let first = named(&host, "a")["id"].as_str().unwrap().to_owned();
    assert_eq!(revoke_as(&first, json!({"reason": "a test"})).done()["state"], "revoked");
    // Its name is free, its id stays its own.
    assert_eq!(new(json!({"name": "a", "roles": roles})).status, 201);
    assert_ne!(named(&host, "a")["id"], first.as_str());
    revoke_as(&first, json!({"reason": "again"})).is_refused(404, "token_unknown");
    revoke_as("a", json!({"reason": "a test"})).done();
    let states: Vec<_> = listed(&host).iter().map(|token| token["state"].clone()).collect();
    assert_eq!(states.iter().filter(|state| **state == "revoked").count(), 2, "{states:?}");
    assert_eq!(states.len(), 4);
}

#[test]
fn the_command_line_says_what_a_token_is_refused() {
    let place = place();
    let host = run(&place);
    let viewer = make(&host, "screen", &["viewer"], false);
    let refused = |output: &Output, words: &str| {
        assert_eq!(output.status.code(), Some(3), "{}{}", stdout(output), stderr(output));
        assert!(stderr(output).contains(words), "{words}: {}", stderr(output));
    };
    let nobody = place.command(&["list"]).env_remove("AMENDS_TOKEN").output().unwrap();
    refused(&nobody, "token");
    refused(&amends(&place, "nonsense", &["list"]), "token");
    done(&amends(&place, &viewer, &["list"]));
    let saga = Asker::with(ADMIN).post(&host, "/v1/sagas", &json!({"definition": "gate"})).done();
    let id = saga["id"].as_str().unwrap();
    refused(&amends(&place, &viewer, &["cancel", id, "--reason", "a test"]), "operate");
    refused(&amends(&place, &viewer, &["start", "gate"]), "start");
    refused(&amends(&place, &viewer, &["token", "list"]), "administer");
    let new = ["token", "new", "me-too", "--role", "admin"];
    refused(&amends(&place, &viewer, &new), "administer");
    assert_eq!(listed(&host).len(), 1);
    let unknown = ["token", "revoke", "nobody", "--reason", "a test"];
    let output = amends(&place, ADMIN, &unknown);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    revoke(&host, "screen");
    refused(&amends(&place, &viewer, &["list"]), "revoked");
}

/// Reads a stream until it ends; says when.
fn reader(host: &Host, token: &str, path: &str) -> Receiver<()> {
    let request = agent().get(host.url(path)).header("accept", "text/event-stream");
    let request = request.header("authorization", format!("Bearer {token}"));
    let response = request.call().unwrap();
    assert_eq!(response.status(), 200, "{path}");
    let (end, ended) = channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = response.into_body().into_reader().read_to_end(&mut text);
        let _ = end.send(());
    });
    ended
}

#[test]
fn a_stream_ends_with_its_token() {
    let place = place();
    let host = run(&place);
    let saga = Asker::with(ADMIN).post(&host, "/v1/sagas", &json!({"definition": "gate"})).done();
    let paths =
        [format!("/v1/sagas/{}/watch", saga["id"].as_str().unwrap()), "/v1/events".to_owned()];
    let streams = |token: &str| paths.each_ref().map(|path| reader(&host, token, path));
    let ends = |streams: [Receiver<()>; 2]| {
        for (ended, path) in streams.iter().zip(&paths) {
            assert!(ended.recv_timeout(ENDED_WITHIN).is_ok(), "{path} goes on");
        }
    };
    let [stays, goes] = ["stays", "goes"].map(|name| make(&host, name, &["viewer"], false));
    let (of_config, of_stays, of_goes) = (streams(ADMIN), streams(&stays), streams(&goes));
    revoke(&host, "goes");
    ends(of_goes);

    let body = json!({"name": "short", "roles": ["viewer"], "expires_in": "5s"});
    let short = Asker::with(ADMIN).post(&host, "/v1/tokens", &body).done();
    ends(streams(short["token"].as_str().unwrap()));
    // Those of others go on, until their own end.
    for ended in of_config.iter().chain(&of_stays) {
        assert!(ended.try_recv().is_err(), "a stream has ended");
    }
    revoke(&host, "stays");
    ends(of_stays);
    assert!(of_config.iter().all(|ended| ended.try_recv().is_err()), "a stream has ended");
    assert_eq!(host.stop(), Some(0));
    ends(of_config);
}
