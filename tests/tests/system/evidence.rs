//! Evidence of a saga: what a host signs, and what of it somebody without a host can check.

use std::fs;
use std::process::{Command, Output};

use amends_tests::{Behaviour, Component};
use serde_json::{Value, json};

use crate::access::asker::{ADMIN, AUTH, Asker, make, run};
use crate::archive::{archived, done};
use crate::cli::fed;
use crate::place::{Host, Place, repository, stderr, stdout};
use crate::signed::keygen;

/// `order` is compensated after its signal; `parent` runs it.
const SAGAS: &str = "
[[saga]]
name = \"order\"
[[saga.step]]
name = \"pack\"
plugin = \"pack\"
input = \"input\"
[[saga.step]]
name = \"approval\"
wait = \"approved\"
[[saga.step]]
name = \"ship\"
plugin = \"ship\"
input = \"input\"

[[saga]]
name = \"parent\"
[[saga.step]]
name = \"order\"
saga = \"order\"
";

const VERIFY: [&str; 4] = ["evidence", "verify", "--key", "host.pub"];

/// A host with a key, and with components that the key `release` has signed.
fn place(more: &str) -> Place {
    let place = Place::empty();
    let release = keygen(&place, "release");
    keygen(&place, "host");
    for (name, execute) in [("pack", Behaviour::Echo), ("ship", Behaviour::Permanent)] {
        let component = Component { name, version: "1.4.0", execute, ..Component::default() };
        fs::write(place.plugin(name), component.build()).unwrap();
        let file = format!("plugins/{name}.wasm");
        done(&place.amends(&["plugin", "sign", &file, "--key", "release.key"]));
    }
    place.config(&format!("{more}{SAGAS}"));
    put(&place, "host", "evidence_key = { file = \"host.key\" }");
    put(&place, "plugins", &format!("trusted_keys = [\"{release}\"]"));
    place
}

/// Puts a line into a table of the config.
fn put(place: &Place, table: &str, line: &str) {
    let text = fs::read_to_string(place.path("amends.toml")).unwrap();
    let head = format!("[{table}]\n");
    assert!(text.contains(&head), "{text}");
    fs::write(place.path("amends.toml"), text.replace(&head, &format!("{head}{line}\n"))).unwrap();
}

fn start(place: &Place, definition: &str) -> String {
    let input = "{\"city\":\"Z\u{fc}rich\"}";
    let started = place.amends(&["start", definition, "--input", input, "-o", "ids"]);
    done(&started).trim().to_owned()
}

/// Has an order fail and come undone.
fn undo(place: &Place, host: &Host, id: &str) {
    done(&place.amends(&["signal", id, "approved"]));
    host.until("it is compensated", || {
        host.get(&format!("/v1/sagas/{id}"))["status"] == "compensated"
    });
}

/// What evidence says on its lines of one kind.
fn of_kind(text: &str, kind: &str) -> Vec<Value> {
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|mut line| line.get_mut(kind).map(Value::take)).collect()
}

fn verify(place: &Place, text: &str) -> Output {
    fed(place, &[&VERIFY[..], &["-"]].concat(), text)
}

/// Asserts that evidence is refused, and returns why.
#[track_caller]
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", stdout(output));
    stderr(output)
}

/// The verifier that the book has.
fn verifier() -> String {
    let page = repository().join("host/docs/src/how-to/evidence.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("verify.py <<'END'\n").unwrap();
    rest.split("\nEND\n").next().unwrap().to_owned()
}

/// Runs the verifier that the book has.
fn python(place: &Place, text: &str, key: &str) -> Output {
    fs::write(place.path("python.evidence"), text).unwrap();
    let mut command = Command::new("python3");
    command.args(["-c", &verifier(), "python.evidence", key]);
    command.current_dir(place.path("")).output().unwrap()
}

#[test]
fn a_compensated_saga_is_proved_without_a_host() {
    let place = place("");
    let host = place.run();
    let id = start(&place, "order");
    host.until("it waits", || host.get(&format!("/v1/sagas/{id}"))["status"] == "waiting");
    let early = done(&place.amends(&["evidence", &id]));
    undo(&place, &host, &id);
    done(&place.amends(&["evidence", &id, "-o", "order.evidence"]));
    let again = place.amends(&["evidence", &id, "-o", "order.evidence"]);
    assert!(refused(&again).contains("order.evidence exists"));
    done(&place.amends(&["evidence", &id, "--out", "order.evidence", "--replace"]));

    let text = fs::read_to_string(place.path("order.evidence")).unwrap();
    let heads = of_kind(&text, "evidence");
    let [head] = &heads[..] else { panic!("{text}") };
    assert_eq!((&head["status"], &head["ended"]), (&json!("compensated"), &json!(true)));
    assert_eq!(
        (&head["asked_by"], &head["access_control"]),
        (&json!("ada@127.0.0.1"), &json!(false))
    );
    assert_eq!(head["definition"], host.get(&format!("/v1/sagas/{id}/definition")));
    // As the API shows them, and each says of which saga it is.
    let mut events = of_kind(&text, "event");
    for event in &mut events {
        let of = event.as_object_mut().unwrap().remove("saga");
        assert_eq!(of, Some(json!(id)), "{event}");
    }
    let shown = host.get(&format!("/v1/sagas/{id}/events?limit=1000"));
    assert_eq!(json!(events), shown["items"]);
    let comment = fs::read_to_string(place.path("release.pub")).unwrap();
    let release = comment.lines().next().unwrap().rsplit(' ').next().unwrap();
    let components = of_kind(&text, "component");
    assert_eq!(components.len(), 2, "{text}");
    for (component, plugin) in components.iter().zip(["pack", "ship"]) {
        let digest = host.get(&format!("/v1/plugins/{plugin}"))["digest"].clone();
        let expected = json!({
            "plugin": plugin, "digest": digest, "version": "1.4.0", "signed_by": [release],
            "unchecked": [],
        });
        assert_eq!(*component, expected);
    }
    assert_eq!(of_kind(&text, "audit"), Vec::<Value>::new(), "the host asks nobody who they are");

    // Nobody needs the host for the rest.
    assert_eq!(host.stop(), Some(0));
    let told = done(&place.amends(&[&VERIFY[..], &["order.evidence"]].concat()));
    for words in ["of order has ended as compensated", &id, &format!("{} events", events.len())] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let told = done(&verify(&place, &early));
    assert!(told.contains("has not ended and is waiting"), "{told}");
    for (evidence, status) in [(&text, "compensated"), (&early, "waiting")] {
        let agreed = done(&python(&place, evidence, "host.pub"));
        assert!(agreed.contains(&format!("saga {id}: {status}, ")), "{agreed}");
    }
}

#[test]
fn what_was_done_to_evidence_is_told_with_its_line() {
    let place = place("");
    let host = place.run();
    let id = start(&place, "order");
    undo(&place, &host, &id);
    let text = done(&place.amends(&["evidence", &id]));
    assert_eq!(host.stop(), Some(0));
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let without = |number: usize| [&lines[..number - 1], &lines[number..]].concat().concat();
    let mut swapped = lines.clone();
    swapped.swap(3, 4);
    let last = lines.len();
    let half = &text[..text.floor_char_boundary(text.len() / 2)];
    for (changed, line) in [
        (text.replace("Z\u{fc}rich", "Zurich"), 2),
        (text.replacen("\"compensated\"", "\"completed\"", 1), 1),
        (without(1), 1),
        (without(5), 5),
        (without(last), last),
        (swapped.concat(), 4),
        (text[..text.len() - 1].to_owned(), last),
        (half.to_owned(), half.lines().count()),
        (format!("{text}{{}}\n"), last + 1),
        (text.replace("\"lines\":", "\"lines\":1"), last),
    ] {
        let told = refused(&verify(&place, &changed));
        assert!(told.contains(&format!("proves nothing: line {line}: ")), "{line}: {told}");
        let other = python(&place, &changed, "host.pub");
        assert_ne!(other.status.code(), Some(0), "{line}: {}", stdout(&other));
    }
    fs::write(place.path("order.evidence"), &text).unwrap();
    let other = place.amends(&["evidence", "verify", "--key", "release.pub", "order.evidence"]);
    let told = refused(&other);
    assert!(told.contains(&format!("line {last}: it is signed by key ")), "{told}");
    assert_ne!(python(&place, &text, "release.pub").status.code(), Some(0));
    let secret = place.amends(&["evidence", "verify", "--key", "host.key", "order.evidence"]);
    assert!(refused(&secret).contains("host.key has no public key in its second line"));
}

#[test]
fn the_evidence_of_an_archived_saga_has_the_same_events() {
    let place = place("");
    put(&place, "store", "retention = \"1ms\"\narchive = \"archive\"");
    let host = place.run();
    let id = start(&place, "order");
    undo(&place, &host, &id);
    let before = done(&place.amends(&["evidence", &id]));
    done(&place.amends(&["store", "archive"]));
    assert_eq!(archived(&place), std::slice::from_ref(&id));
    let after = done(&place.amends(&["evidence", &id]));
    assert_eq!(of_kind(&after, "event"), of_kind(&before, "event"));
    assert_eq!(of_kind(&after, "evidence")[0]["status"], "compensated");
    for text in [before, after] {
        done(&verify(&place, &text));
    }
}

#[test]
fn the_sagas_that_a_saga_has_started_are_named() {
    let place = place("");
    let host = place.run();
    let id = start(&place, "parent");
    let events = || host.get(&format!("/v1/sagas/{id}/events"))["items"].clone();
    host.until("its step runs", || events().as_array().unwrap().len() > 1);
    let child = events()
        .as_array()
        .unwrap()
        .iter()
        .find_map(|event| event["data"]["child"].as_str().map(str::to_owned));
    let text = done(&place.amends(&["evidence", &id]));
    assert_eq!(of_kind(&text, "children"), [json!([child.unwrap()])]);
    assert_eq!(of_kind(&text, "component"), Vec::<Value>::new());
    done(&verify(&place, &text));
}

#[test]
fn evidence_is_for_those_who_see_payloads_and_the_audit_has_it() {
    let place = place(AUTH);
    let host = run(&place);
    let admin = Asker::with(ADMIN);
    let viewer = make(&host, "screen", &["viewer"], false);
    let auditor = make(&host, "auditor", &["viewer"], true);
    let start = || {
        let saga = admin.post(&host, "/v1/sagas", &json!({"definition": "order", "input": {}}));
        let saga = saga.done();
        saga["id"].as_str().unwrap().to_owned()
    };
    let (id, other) = (start(), start());
    for id in [&other, &id] {
        let reason = json!({"reason": "ordered twice"});
        admin.on_behalf_of("grace").post(&host, &format!("/v1/sagas/{id}/cancel"), &reason).done();
    }
    let path = format!("/v1/sagas/{id}/evidence");
    Asker::default().get(&host, &path).is_refused(401, "token_missing");
    Asker::with(&viewer).get(&host, &path).is_refused(403, "permission_missing");
    let shown = Asker::with(&auditor).on_behalf_of("ada").get(&host, &path);
    assert_eq!(shown.status, 200, "{}", shown.text);
    let text = shown.text;
    let head = &of_kind(&text, "evidence")[0];
    assert_eq!(head["asked_by"], "auditor@127.0.0.1 on behalf of ada");
    assert_eq!(head["access_control"], json!(true));
    // Those of the other saga are not there. The last one is the request for this evidence.
    let entries = of_kind(&text, "audit");
    let told: Vec<_> = entries
        .iter()
        .map(|entry| {
            let word = |key: &str| entry[key].as_str().unwrap();
            format!("{}: {} {}", word("who"), word("operation"), entry["status"])
        })
        .collect();
    assert_eq!(
        told,
        [
            "admin_token@127.0.0.1 on behalf of grace: cancel_saga 200",
            "screen@127.0.0.1: get_evidence 403",
            "auditor@127.0.0.1 on behalf of ada: get_evidence 200",
        ]
    );
    let all = admin.get(&host, "/v1/audit?after=0&limit=1000").done();
    let all = all["items"].as_array().unwrap();
    for entry in &entries {
        assert!(all.contains(entry), "the audit has not {entry}");
    }
    let events = of_kind(&text, "event");
    let ordered = events.iter().find(|event| event["type"] == "operator.cancelled");
    let who = "admin_token@127.0.0.1 on behalf of grace";
    assert!(ordered.is_some_and(|event| event["data"]["who"] == who), "{text}");
    done(&verify(&place, &text));
    let by_viewer =
        place.command(&["evidence", &id]).env("AMENDS_TOKEN", &viewer).output().unwrap();
    assert_eq!(by_viewer.status.code(), Some(3), "{}", stderr(&by_viewer));
}

#[test]
fn a_host_without_a_key_says_how_it_gets_one() {
    let place = Place::empty();
    place.config("[[saga]]\nname = \"gate\"\n[[saga.step]]\nname = \"a\"\nwait = \"b\"\n");
    let host = place.run();
    let id = done(&place.amends(&["start", "gate", "-o", "ids"])).trim().to_owned();
    let path = format!("/v1/sagas/{id}/evidence");
    Asker::default().get(&host, &path).is_refused(409, "no_evidence_key");
    let told = refused(&place.amends(&["evidence", &id, "-o", "order.evidence"]));
    assert!(told.contains("evidence_key = { file = \"host.key\" }"), "{told}");
    assert!(!place.path("order.evidence").exists());
}
