//! Components that are handed in: what they would change, all or none, the way back, and who undoes
//! what an earlier one did.

use std::fs;
use std::process::Output;

use amends_tests::{Behaviour, Component};
use serde_json::Value;

use crate::place::{Host, Place, agent, stderr, stdout};

/// Reads whatever was answered.
const ANY: &str = "{}";

/// Does not read `{"ok":true}`, which is what these components answer.
const LABELLED: &str = r#"{"type":"object","required":["label"],"properties":{"label":{}}}"#;

fn component(name: &str, version: &str, schema: &str) -> Vec<u8> {
    Component { name, version, schema, ..Component::default() }.build()
}

/// Sagas that pack, then wait.
fn place() -> Place {
    let place = Place::empty();
    for name in ["pack", "other"] {
        fs::write(place.plugin(name), component(name, "1.0.0", ANY)).unwrap();
    }
    place.config(
        "[[saga]]\nname = \"order\"\n\
         [[saga.step]]\nname = \"pack\"\nplugin = \"pack\"\n\
         [[saga.step]]\nname = \"other\"\nplugin = \"other\"\n\
         [[saga.step]]\nname = \"wait\"\nwait = { signal = \"go\" }\n",
    );
    place
}

/// A saga that has packed.
fn packed(place: &Place, host: &Host) -> String {
    let output = place.amends(&["start", "order", "-o", "ids"]);
    let id = stdout(&output).trim().to_owned();
    host.until("it waits", || host.get(&format!("/v1/sagas/{id}"))["status"] == "waiting");
    id
}

fn version(host: &Host, name: &str) -> String {
    host.get(&format!("/v1/plugins/{name}"))["version"].as_str().unwrap().to_owned()
}

fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stdout(output)
}

fn plugin_digest(bytes: &[u8]) -> String {
    amends_engine::Digest::of(bytes).to_string()
}

/// What it is refused with.
fn refused(output: &Output, exit: i32) -> String {
    assert_eq!(output.status.code(), Some(exit), "{}", stdout(output));
    stderr(output)
}

/// The start of the undo of the step `pack`.
fn undo_of_pack(host: &Host, id: &str) -> Value {
    let events = host.get(&format!("/v1/sagas/{id}/events"));
    let events = events["items"].as_array().unwrap().iter();
    let mut undos =
        events.filter(|event| event["type"] == "undo.started" && event["data"]["step"] == "pack");
    let undo = undos.next().expect("it is undone");
    undo["data"].clone()
}

#[test]
fn what_an_undo_could_not_read_is_refused_and_pinned_when_it_is_forced() {
    let place = place();
    let host = place.run();
    let first = host.get("/v1/plugins/pack")["digest"].clone();
    let id = packed(&place, &host);
    let labelled = component("pack", "2.0.0", LABELLED);
    fs::write(place.path("new.wasm"), &labelled).unwrap();
    let deploy = |arguments: &[&str]| {
        place.amends(&[&["plugin", "deploy", "pack=new.wasm"], arguments].concat())
    };

    let dry = deploy(&["--dry-run"]);
    assert_eq!(dry.status.code(), Some(1), "{}", stderr(&dry));
    let told = stdout(&dry);
    for words in ["pack: 1 recorded output of", &id, "\"label\" is a required", "without --force"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!(version(&host, "pack"), "1.0.0");
    assert_eq!(host.get("/v1/plugins/pack")["rejections"], serde_json::json!([]), "a dry run");

    let told = refused(&deploy(&[]), 1);
    let words = format!("have recorded, 1 in all (pack of {id}: ");
    assert!(told.contains(&words), "{told}");
    refused(&deploy(&["--force"]), 2);
    // A file is held against them as well.
    fs::write(place.plugin("pack"), &labelled).unwrap();
    host.until("it is refused", || {
        host.log().iter().any(|line| line.contains("component is refused"))
    });
    let versions = done(&place.amends(&["plugin", "versions", "pack"]));
    assert!(versions.contains("refused") && versions.contains("active"), "{versions}");
    assert_eq!(version(&host, "pack"), "1.0.0");

    // Nor does a rollback get around it.
    done(&deploy(&["--force", "--reason", "ticket 6"]));
    done(&place.amends(&["plugin", "rollback", "pack", "--reason", "x"]));
    let back = ["plugin", "rollback", "pack", "--to", &plugin_digest(&labelled), "--reason", "x"];
    assert!(refused(&place.amends(&back), 1).contains("with --force"));
    assert_eq!(version(&host, "pack"), "1.0.0");

    let told = done(&deploy(&["--force", "--reason", "ticket 7"]));
    assert!(told.contains("active from now on"), "{told}");
    assert_eq!(version(&host, "pack"), "2.0.0");
    let plugin = host.get("/v1/plugins/pack");
    assert_eq!(plugin["history"][0]["reason"], "ticket 7", "{plugin}");
    assert_eq!(plugin["history"][0]["who"], "ada@127.0.0.1", "{plugin}");
    done(&place.amends(&["cancel", &id, "--reason", "test"]));
    host.settle();
    assert_eq!(host.get(&format!("/v1/sagas/{id}"))["status"], "compensated");
    let undo = undo_of_pack(&host, &id);
    assert_eq!(undo["digest"], first, "{undo}");
    let note = undo["note"].as_str().unwrap();
    assert!(note.contains("served by the component that executed the step"), "{note}");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn an_undo_that_reads_what_was_recorded_is_the_new_ones() {
    let place = place();
    let host = place.run();
    let id = packed(&place, &host);
    fs::write(place.path("pack.wasm"), component("pack", "1.1.0", ANY)).unwrap();
    let told = done(&place.amends(&["plugin", "deploy", "pack.wasm", "-o", "json"]));
    let told: Value = serde_json::from_str(&told).unwrap();
    let one = &told["components"][0];
    assert_eq!((&one["sagas"], &one["to_undo"]), (&1.into(), &1.into()), "{told}");
    assert_eq!(one["definitions"], serde_json::json!(["order"]));
    done(&place.amends(&["cancel", &id, "--reason", "test"]));
    host.settle();
    let undo = undo_of_pack(&host, &id);
    assert_eq!((&undo["digest"], &undo["note"]), (&one["digest"], &Value::Null), "{undo}");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn several_are_deployed_all_or_none_as_one_event() {
    let place = place();
    let host = place.run();
    fs::write(place.path("pack.wasm"), component("pack", "1.1.0", ANY)).unwrap();
    fs::write(place.path("other.wasm"), "no component").unwrap();
    let deploy = ["plugin", "deploy", "pack.wasm", "other.wasm"];
    let told = refused(&place.amends(&deploy), 1);
    assert!(told.contains("plugin other: it is not WebAssembly"), "{told}");
    assert_eq!((version(&host, "pack"), version(&host, "other")), ("1.0.0".into(), "1.0.0".into()));

    let slip = place.amends(&["plugin", "deploy", "slip=other.wasm"]);
    assert!(refused(&slip, 1).contains("plugin slip: it is not WebAssembly"));
    let names = done(&place.amends(&["plugin", "list", "-o", "ids"]));
    assert_eq!(names, "other\npack\n", "nothing is kept of a name that nobody knows");
    let request = agent().post(host.url("/v1/plugins:deploy")).header("amends-request", "1");
    let mut response = request.send("x").unwrap();
    let problem: Value = response.body_mut().read_json().unwrap();
    assert_eq!((response.status().as_u16(), &problem["code"]), (400, &"bad_form".into()));

    // Slips, which would be found out at the next saga: a name, and a component of another plugin.
    fs::write(place.path("other.wasm"), component("other", "3.0.0", ANY)).unwrap();
    for (slip, words) in [
        ("pakc=pack.wasm", "no such plugin, and no definition uses it; there are other, pack"),
        ("pack=other.wasm", "says that it is `other`, what serves says `pack`"),
    ] {
        for more in [&[][..], &["--dry-run"]] {
            let told = refused(&place.amends(&[&["plugin", "deploy", slip], more].concat()), 1);
            assert!(told.contains(words), "{slip}: {told}");
        }
    }
    let twice = ["plugin", "deploy", "other.wasm", "other=pack.wasm"];
    for _ in 0..20 {
        let told = refused(&place.amends(&twice), 1);
        assert!(told.contains("two components for plugin `other`"), "not the connection: {told}");
    }
    done(&place.amends(&deploy));
    assert_eq!((version(&host, "pack"), version(&host, "other")), ("1.1.0".into(), "3.0.0".into()));
    let last = host.events().pop().unwrap();
    assert_eq!(last["type"], "plugin.activated");
    let names = ["pack", "other"].map(Value::from);
    let components = last["data"]["components"].as_array().unwrap().iter();
    assert_eq!(components.map(|one| one["plugin"].clone()).collect::<Vec<_>>(), names);

    let back = ["plugin", "rollback", "other", "--reason", "it is slow"];
    let told = done(&place.amends(&back));
    assert!(told.contains("other: version 1.0.0 serves again"), "{told}");
    let unknown = ["plugin", "rollback", "nobody", "--reason", "x"];
    refused(&place.amends(&unknown), 4);
    assert_eq!(host.stop(), Some(0));
    // The folder had 1.0.0 of both all the time.
    let host = place.run();
    assert_eq!((version(&host, "pack"), version(&host, "other")), ("1.1.0".into(), "1.0.0".into()));
    let versions = done(&place.amends(&["plugin", "versions", "other", "-o", "json"]));
    let versions: Vec<Value> = serde_json::from_str(&versions).unwrap();
    let causes: Vec<_> = versions.iter().map(|one| one["cause"].clone()).collect();
    assert_eq!(causes, ["rollback".into(), "deploy".into(), Value::Null, "file".into()]);
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn an_operator_chooses_the_component_of_an_undo_that_is_blocked() {
    let place = place();
    let host = place.run();
    let first = host.get("/v1/plugins/pack")["digest"].as_str().unwrap().to_owned();
    let other = host.get("/v1/plugins/other")["digest"].as_str().unwrap().to_owned();
    let id = packed(&place, &host);
    let bad = Component {
        compensate: Behaviour::Permanent,
        name: "pack",
        version: "2.0.0",
        ..Component::default()
    };
    fs::write(place.path("pack.wasm"), bad.build()).unwrap();
    done(&place.amends(&["plugin", "deploy", "pack.wasm"]));
    let status = || host.get(&format!("/v1/sagas/{id}"))["status"].clone();
    done(&place.amends(&["cancel", &id, "--reason", "test"]));
    host.until("it is blocked", || status() == "blocked");

    let retry = |digest: &str, more: &[&str]| {
        let verb = ["retry", &id, "--digest", digest, "--reason", "ticket 9: 2.0.0 cannot"];
        place.amends(&[&verb, more].concat())
    };
    refused(&retry(&first, &[]), 2);
    let told = refused(&retry(&other, &["--step", "pack"]), 1);
    let words = format!("{other} never served a plugin of the step `pack`");
    assert!(told.contains(&words) && told.contains("amends plugin versions pack"), "{told}");
    refused(&retry("sha256:12", &["--step", "pack"]), 1);
    let told = refused(&retry("sha256:0123456789ab", &["--step", "pack"]), 1);
    assert!(told.contains("no component that serves or served a plugin begins with"), "{told}");
    assert_eq!(status(), "blocked");

    // As the tables print it.
    done(&retry(&first[.."sha256:".len() + 12], &["--step", "pack"]));
    host.settle();
    assert_eq!(status(), "compensated");
    let events = host.get(&format!("/v1/sagas/{id}/events"));
    let events = events["items"].as_array().unwrap().iter();
    let of = |kind| events.clone().rfind(move |event| event["type"] == kind).unwrap();
    assert_eq!(of("operator.retried")["data"]["digest"], *first);
    let is_undo =
        |event: &&Value| event["type"] == "undo.started" && event["data"]["step"] == "pack";
    let undo = &events.clone().rfind(is_undo).unwrap()["data"];
    let note = "served by the component that ada@127.0.0.1 chose: ticket 9: 2.0.0 cannot";
    assert_eq!((&undo["digest"], &undo["note"]), (&first.into(), &note.into()), "{undo}");
    assert_eq!(host.stop(), Some(0));
}
