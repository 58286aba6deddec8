//! Personal values: sealed in everything that is stored, shown as long as they are kept, erased when no
//! undo may need them any more.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use amends_tests::{Behaviour, Component};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use serde_json::{Value, json};

use crate::place::{Host, Place, stderr, stdout, text};

/// The failpoints of keys and of an erasure.
pub(crate) const KEY_POINTS: [&str; 7] = [
    "keys.subject.durable",
    ERASE_POINTS[0],
    ERASE_POINTS[1],
    ERASE_POINTS[2],
    ERASE_POINTS[3],
    ERASE_POINTS[4],
    "keys.settled",
];

/// Those of an erasure that is asked for, in their order.
const ERASE_POINTS: [&str; 5] = [
    "keys.retired",
    "runtime.erase.counted",
    "keys.erasing",
    "keys.erased",
    "runtime.erase.recorded",
];

/// How long a host may live on with its failpoint set.
const HIT_LIMIT: Duration = Duration::from_secs(20);

/// The values, as they stand in JSON or in a text.
pub(crate) const PLANTED: [&str; 10] = [
    "Ada Byron-Vexley",
    "Kirchengasse 47/3",
    "AT61 1904 3002 3457",
    "436641234567",
    "ada.vexley@planted.example",
    "Ludwigstrasse 9",
    "DE02 1203 0000 0000 2020",
    "1815-12-10",
    "Žofie Nováková",
    "passport P-77120",
];

const SAGAS: &str = r#"
[[saga]]
name = "order"
subject = "input.customer_id"
personal = ["input.customer", "input.address.street", "input.account", "input.phone", "input.contacts.email", "input.labels", "steps.signed.output.iban"]
compensate_within = "1h"
[[saga.step]]
name = "copy"
plugin = "good"
[[saga.step]]
name = "signed"
wait = "signed"

[[saga]]
name = "refused"
subject = "input.customer_id"
personal = ["input.customer", "input.address.street", "input.account", "input.phone", "input.contacts.email", "input.labels"]
[[saga.step]]
name = "copy"
plugin = "good"
[[saga.step]]
name = "never"
plugin = "good"
when = "input.account"
"#;

fn place(sagas: &str) -> Place {
    let place = Place::empty();
    let good = Component { name: "good", execute: Behaviour::Echo, ..Component::default() };
    fs::write(place.plugin("good"), good.build()).unwrap();
    place.config(sagas);
    place
}

pub(crate) fn input() -> Value {
    json!({
        "customer_id": "c-81",
        "customer": { "name": PLANTED[0], "born": PLANTED[7], "partner": PLANTED[8] },
        "address": { "street": PLANTED[1], "country": "AT" },
        "account": PLANTED[2],
        "phone": 436_641_234_567_u64,
        "contacts": [{ "email": PLANTED[4] }, { "email": "ada@short.example" }],
        "labels": { "at": [PLANTED[5]], "document": PLANTED[9] },
        "quantity": 3,
    })
}

pub(crate) fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

fn start(place: &Place, definition: &str) -> String {
    let input = input().to_string();
    done(&place.amends(&["start", definition, "--input", &input, "-o", "ids"])).trim().to_owned()
}

/// Starts an order and signs it, and starts one that is refused. Returns their ids when they have ended.
fn orders(place: &Place, host: &Host) -> (String, String) {
    let (order, refused) = (start(place, "order"), start(place, "refused"));
    let payload = json!({ "iban": PLANTED[6] }).to_string();
    done(&place.amends(&["signal", &order, "signed", "--payload", &payload]));
    host.settle();
    let reason = format!("{} called", PLANTED[0]);
    done(&place.amends(&["note", &order, "--reason", &reason]));
    (order, refused)
}

pub(crate) fn erase(place: &Place) -> Output {
    place.amends(&["erase", "--subject", "c-81", "--reason", "request 118", "-o", "json"])
}

/// Everything that the host says about sagas.
pub(crate) fn answers(place: &Place, host: &Host, ids: &[&str]) -> String {
    let mut all = String::new();
    for id in ids {
        for path in ["", "/events", "/why", "/undo-plan", "/exposure"] {
            all += &text(&host.url(&format!("/v1/sagas/{id}{path}")));
        }
        all += &done(&place.amends(&["history", id, "-o", "json"]));
    }
    for path in ["/v1/sagas", "/v1/events", "/v1/sagas?archived=true", "/v1/erasures"] {
        all += &text(&host.url(path));
    }
    all
}

/// The planted values that a text has.
pub(crate) fn found(text: &str) -> Vec<&'static str> {
    PLANTED.into_iter().filter(|planted| text.contains(planted)).collect()
}

/// The planted values in the bytes of all files below a folder.
pub(crate) fn found_in(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(found_in(&path));
        } else if let Ok(bytes) = fs::read(&path) {
            let is_in =
                |planted: &str| bytes.windows(planted.len()).any(|at| at == planted.as_bytes());
            let here = PLANTED.iter().filter(|planted| is_in(planted));
            all.extend(here.map(|planted| format!("{}: {planted}", path.display())));
        }
    }
    all
}

pub(crate) fn state(host: &Host, id: &str) -> Value {
    host.get(&format!("/v1/sagas/{id}"))["personal"]["state"].clone()
}

#[test]
fn personal_values_are_sealed_shown_and_erased_after_the_undo() {
    let place = place(SAGAS);
    let host = place.run();
    let (order, refused) = orders(&place, &host);
    let cancelled = start(&place, "order");
    let reason = format!("{} called", PLANTED[0]);
    done(&place.amends(&["cancel", &cancelled, "--reason", &reason]));
    host.settle();
    let why = text(&host.url(&format!("/v1/sagas/{refused}")));
    assert_eq!(host.get(&format!("/v1/sagas/{refused}"))["status"], "compensated");
    assert!(why.contains(PLANTED[2]), "{why}");
    assert_eq!(found(&answers(&place, &host, &[&order, &refused])).len(), PLANTED.len());
    let listed = host.get("/v1/sagas");
    let reasons: Vec<_> =
        listed["items"].as_array().unwrap().iter().map(|item| &item["reason"]).collect();
    // The error of an expression shows no value, so it is readable.
    assert_eq!(reasons[0], "[sealed]");
    assert!(reasons[1].as_str().unwrap().contains("not true or false"), "{listed}");
    assert_eq!(reasons[2], &Value::Null);
    assert!(!text(&host.url("/v1/events")).contains(PLANTED[0]));
    assert_eq!(found_in(&place.path("")), [""; 0]);
    // What failed is found by its code, not by what the message says.
    let by_text = ["list", "--text", "AT61", "-o", "ids"];
    assert_eq!(done(&place.amends(&by_text)), "");
    let keys = fs::metadata(place.path("data/amends.db-keys")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&keys.permissions()) & 0o777, 0o600);
    assert_eq!(host.stop(), Some(0));

    let host = place.run();
    assert_eq!(state(&host, &order), "sealed");
    let erased: Value = serde_json::from_str(&done(&erase(&place))).unwrap();
    assert_eq!((&erased["erased"], &erased["waiting"]), (&json!(2), &json!(1)));
    assert_eq!(erased["sagas"][0]["id"], order.as_str());
    // A second order is the same erasure, as long as one waits.
    let again: Value = serde_json::from_str(&done(&erase(&place))).unwrap();
    assert_eq!(again["subject_key"], erased["subject_key"]);
    let named = ["erase", "--subject", "c-81", "--reason", "c-81 wrote to us"];
    assert!(stderr(&place.amends(&named)).contains("the reason names the subject"));
    let other = place.amends(&["erase", "--subject", "C-81", "--reason", "request 119"]);
    assert_eq!(other.status.code(), Some(4), "{}", stderr(&other));
    assert!(erased["sagas"][0]["until"].is_string(), "{erased}");
    assert_eq!((state(&host, &order), state(&host, &refused)), (json!("waiting"), json!("erased")));
    assert_eq!(found(&answers(&place, &host, &[&refused])), [""; 0]);
    assert_eq!(host.kill().len().min(1), 1);

    // The undo still has the values, also after a restart; then they go.
    let host = place.run();
    assert_eq!(found(&answers(&place, &host, &[&order])).len(), PLANTED.len());
    let bundle = done(&place.amends(&["store", "export", &order]));
    assert_eq!(found(&bundle), [""; 0]);
    let bundle = done(&place.amends(&["store", "export", &order, "--personal"]));
    assert!(bundle.contains(PLANTED[1]));
    done(&place.amends(&["compensate", &order, "--reason", "sent back"]));
    host.settle();
    let listed = host.get("/v1/erasures");
    let counts = ["erased", "erased_later", "waiting"].map(|name| &listed["items"][0][name]);
    assert_eq!(counts, [&json!(2), &json!(1), &json!(0)], "{listed}");
    let words = done(&place.amends(&["erase", "--list"]));
    assert!(words.contains("those of 1 saga were erased later"), "{words}");
    assert_eq!(state(&host, &order), "erased");
    let all = answers(&place, &host, &[&order, &refused]);
    assert_eq!(found(&all), [""; 0]);
    assert!(all.contains("[erased]"));
    assert_eq!(host.get(&format!("/v1/sagas/{order}"))["status"], "compensated");
    assert_eq!(host.get(&format!("/v1/sagas/{order}"))["input"]["quantity"], 3);
    let shown = done(&place.amends(&["get", &order]));
    assert!(shown.contains("its personal values are erased"), "{shown}");
    let events = host.events();
    let told: Vec<_> = events.iter().filter(|event| event["type"] == "subject.erased").collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["data"]["reason"], "request 118");

    // The subject may come again, with another key.
    let again = start(&place, "order");
    assert_eq!(state(&host, &again), "sealed");
    done(&place.amends(&["store", "backup", "copy.db"]));
    assert_eq!(found_in(&place.path("")), [""; 0]);
    assert_eq!(host.stop(), Some(0));
    done(&place.amends(&["store", "verify", "data/amends.db"]));
}

#[test]
fn archived_values_are_sealed_and_erased() {
    let place = place(SAGAS);
    let config = fs::read_to_string(place.path("amends.toml")).unwrap();
    let config = config.replace("[store]\n", "[store]\nretention = \"1ms\"\n");
    let config = config.replace("compensate_within = \"1h\"", "compensate_within = \"1ms\"");
    fs::write(place.path("amends.toml"), config).unwrap();
    let host = place.run();
    let (order, refused) = orders(&place, &host);
    done(&place.amends(&["store", "archive"]));
    done(&place.amends(&["store", "export", "--parquet", "tables"]));
    let withheld = columns(&place.path("tables"));
    assert!(withheld.contains("[erased]") && found(&withheld).is_empty(), "{withheld}");
    done(&place.amends(&["store", "export", "--parquet", "all", "--personal"]));
    assert_eq!(found(&columns(&place.path("all"))).len(), PLANTED.len());
    fs::remove_dir_all(place.path("all")).unwrap();
    assert_eq!(host.get("/v1/sagas")["items"], json!([]));
    assert_eq!(found(&text(&host.url(&format!("/v1/sagas/{order}")))).len(), PLANTED.len());
    let erased: Value = serde_json::from_str(&done(&erase(&place))).unwrap();
    assert_eq!((&erased["erased"], &erased["waiting"]), (&json!(2), &json!(0)));
    assert_eq!(found(&answers(&place, &host, &[&order, &refused])), [""; 0]);
    assert_eq!(found_in(&place.path("")), [""; 0]);
    let again = erase(&place);
    assert_eq!(again.status.code(), Some(4), "its erasure is over");
    let again: Value = serde_json::from_str(&stdout(&again)).unwrap();
    assert_eq!(again["subject_key"], Value::Null);
    assert_eq!(host.stop(), Some(0));
    done(&place.amends(&["store", "verify", "data/amends.db"]));
}

/// The texts of all columns of the tables in a folder.
fn columns(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let file = fs::File::open(entry.unwrap().path()).unwrap();
        let table = SerializedFileReader::new(file).unwrap();
        for row in table.get_row_iter(None).unwrap() {
            all += &row.unwrap().to_string();
        }
    }
    all
}

/// The keys are lost, or they are those of another store.
#[test]
fn a_store_without_its_keys_runs_no_step_with_erased_values() {
    let place = place(SAGAS);
    let host = place.run();
    let waits = start(&place, "order");
    host.until("the saga waits", || host.get(&format!("/v1/sagas/{waits}"))["status"] == "waiting");
    assert_eq!(host.stop(), Some(0));
    let (keys, kept) = (place.path("data/amends.db-keys"), place.path("kept"));
    fs::rename(&keys, &kept).unwrap();
    let refused = place.amends(&["run", "amends.toml"]);
    assert_ne!(refused.status.code(), Some(0));
    assert!(stderr(&refused).contains("the key file"), "{}", stderr(&refused));
    assert!(!keys.exists(), "no other file comes into its place");

    // Those of another store.
    fs::create_dir(place.path("elsewhere")).unwrap();
    let config = fs::read_to_string(place.path("amends.toml")).unwrap();
    let other = config.replace("data/amends.db", "elsewhere/amends.db");
    fs::write(place.path("amends.toml"), &other).unwrap();
    let host = place.run();
    start(&place, "order");
    assert_eq!(host.stop(), Some(0));
    fs::copy(place.path("elsewhere/amends.db-keys"), &keys).unwrap();
    fs::write(place.path("amends.toml"), &config).unwrap();
    let host = place.run();
    let signal = ["signal", &waits, "signed", "--payload", "{}"];
    assert_ne!(place.amends(&signal).status.code(), Some(0));
    let saga = host.get(&format!("/v1/sagas/{waits}"));
    assert_eq!(saga["status"], "quarantined", "{saga}");
    assert_eq!(host.stop(), Some(0));

    fs::copy(&kept, &keys).unwrap();
    let host = place.run();
    done(&place.amends(&signal));
    host.settle();
    assert_eq!(host.get(&format!("/v1/sagas/{waits}"))["status"], "completed");
    // A key file from before an erasure opens nothing that was erased.
    fs::copy(&keys, place.path("older")).unwrap();
    done(&place.amends(&["compensate", &waits, "--reason", "sent back"]));
    host.settle();
    done(&erase(&place));
    assert_eq!(host.stop(), Some(0));
    fs::copy(place.path("older"), &keys).unwrap();
    let host = place.run();
    assert_eq!(found(&answers(&place, &host, &[&waits])), [""; 0]);
    assert_eq!(state(&host, &waits), "erased");
    assert_eq!(host.stop(), Some(0));
}

/// A saga of which one step needs no personal value, and the next one all of them.
const LATE: &str = r#"
[[saga]]
name = "late"
subject = "input.customer_id"
personal = ["input.customer", "input.address.street", "input.account", "input.phone", "input.contacts.email", "input.labels"]
[[saga.step]]
name = "count"
plugin = "good"
input = { quantity = "input.quantity" }
[[saga.step]]
name = "signed"
wait = "signed"
[[saga.step]]
name = "copy"
plugin = "good"
when = "input.customer.name != \"\""
"#;

const LACKS: &str = "needs values of the subject `c-81` that were erased; resolve or skip it";

/// The types of the events of a saga, each with the step that it is about.
fn told(host: &Host, id: &str) -> Vec<String> {
    let page = host.get(&format!("/v1/sagas/{id}/events"));
    let word = |event: &Value| {
        let step = event["data"]["step"].as_str().unwrap_or_default();
        format!("{} {step}", event["type"].as_str().unwrap()).trim_end().to_owned()
    };
    page["items"].as_array().unwrap().iter().map(word).collect()
}

fn why(place: &Place, id: &str) -> String {
    let words = done(&place.amends(&["why", id]));
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A backup from before the erasure comes back, and the key file is the one of now.
#[test]
fn a_restored_saga_whose_values_were_erased_is_blocked_before_its_call() {
    let place = place(LATE);
    let host = place.run();
    let id = start(&place, "late");
    host.until("it waits", || host.get(&format!("/v1/sagas/{id}"))["status"] == "waiting");
    done(&place.amends(&["store", "backup", "copy.db"]));
    let signal = ["signal", &id, "signed", "--payload", "{}"];
    done(&place.amends(&signal));
    host.settle();
    let erased: Value = serde_json::from_str(&done(&erase(&place))).unwrap();
    assert_eq!(erased["erased"], 1);
    assert_eq!(host.stop(), Some(0));
    let restore = ["store", "restore", "copy.db", "--config", "amends.toml", "--replace"];
    done(&place.amends(&restore));

    let host = place.run();
    assert_eq!(state(&host, &id), "erased");
    done(&place.amends(&signal));
    host.settle();
    let blocked = told(&host, &id);
    assert_eq!(blocked.last().unwrap(), "saga.blocked copy");
    assert!(!blocked.contains(&"step.started copy".to_owned()), "{blocked:?}");
    assert!(why(&place, &id).contains(LACKS), "{}", why(&place, &id));
    assert_eq!(host.get("/v1/sagas?status=blocked")["items"][0]["id"], id.as_str());
    assert_eq!(host.kill().len().min(1), 1);

    let host = place.run();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(told(&host, &id), blocked, "it is said once");
    assert!(why(&place, &id).contains(LACKS), "{}", why(&place, &id));
    let known = ["--evidence", "their list", "--result", "{\"found\":1}", "--reason", "looked up"];
    done(&place.amends(&[&["resolve", &id][..], &known].concat()));
    host.settle();
    assert_eq!(host.get(&format!("/v1/sagas/{id}"))["status"], "completed");
    assert_eq!(host.stop(), Some(0));
    done(&place.amends(&["store", "verify", "data/amends.db"]));
}

#[test]
fn an_undo_whose_values_were_erased_is_blocked_and_the_others_run() {
    let place = place(LATE);
    let host = place.run();
    let id = start(&place, "late");
    done(&place.amends(&["signal", &id, "signed", "--payload", "{}"]));
    host.settle();
    done(&erase(&place));
    assert_eq!(state(&host, &id), "erased");
    done(&place.amends(&["compensate", &id, "--reason", "sent back"]));
    host.until("it is blocked", || host.get(&format!("/v1/sagas/{id}"))["status"] == "blocked");
    let blocked = told(&host, &id);
    assert_eq!(blocked[blocked.len() - 2..], ["compensation.started", "saga.blocked copy"]);
    let said = why(&place, &id);
    assert!(said.contains("the undo of copy does not begin, because it") && said.contains(LACKS));
    assert_eq!(host.stop(), Some(0));

    let host = place.run();
    assert_eq!(host.get(&format!("/v1/sagas/{id}"))["status"], "blocked");
    assert_eq!(told(&host, &id), blocked);
    let known = ["--evidence", "the copy is gone", "--reason", "thrown away"];
    done(&place.amends(&[&["resolve", &id][..], &known].concat()));
    host.settle();
    assert_eq!(host.get(&format!("/v1/sagas/{id}"))["status"], "compensated");
    let all = told(&host, &id);
    assert!(all.contains(&"undo.succeeded count".to_owned()), "{all:?}");
    assert!(!all.contains(&"undo.started copy".to_owned()), "{all:?}");
    assert_eq!(host.stop(), Some(0));
    done(&place.amends(&["store", "verify", "data/amends.db"]));
}

/// A saga began before its definition had a subject, and its start is repeated after that.
#[test]
fn a_start_is_repeated_after_its_definition_got_a_subject() {
    let clear = SAGAS
        .replace("subject = \"input.customer_id\"\n", "")
        .lines()
        .filter(|line| !line.starts_with("personal"))
        .collect::<Vec<_>>()
        .join("\n");
    let place = place(&clear);
    let key = |input: &Value| {
        let input = input.to_string();
        place.amends(&["start", "order", "--input", &input, "--key", "k", "-o", "ids"])
    };
    let host = place.run();
    let first = done(&key(&input()));
    assert_eq!(host.stop(), Some(0));
    place.config(SAGAS);
    let host = place.run();
    assert_eq!(done(&key(&input())), first);
    assert_ne!(key(&json!({"customer_id": "c-81"})).status.code(), Some(0));
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_start_without_its_subject_is_refused() {
    let place = place(SAGAS);
    let host = place.run();
    let output = place.amends(&["start", "order", "--input", r#"{"customer_id":7}"#]);
    assert_ne!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("`input.customer_id` gives no text"), "{}", stderr(&output));
    // The same key and input is the same saga, and another input is refused.
    let key = |input: &Value| {
        let input = input.to_string();
        place.amends(&["start", "order", "--input", &input, "--key", "k", "-o", "ids"])
    };
    let first = done(&key(&input()));
    assert_eq!(done(&key(&input())), first);
    assert_ne!(key(&json!({"customer_id": "c-81"})).status.code(), Some(0));
    assert_eq!(host.stop(), Some(0));
    let host = place.run();
    assert_eq!(done(&key(&input())), first);
    assert_eq!(host.stop(), Some(0));
    done(&place.amends(&["store", "verify", "data/amends.db"]));
}

#[test]
fn a_text_that_looks_sealed_is_only_a_text() {
    let place = place(SAGAS);
    let host = place.run();
    let order = start(&place, "order");
    let stored = host.events();
    let started = stored.iter().find(|event| event["type"] == "saga.started").unwrap();
    let sealed = started["data"]["input"]["account"].as_str().unwrap();
    assert!(sealed.starts_with("amends:sealed:1:"), "{sealed}");
    let mut other = input();
    other["quantity"] = json!(sealed);
    let input = other.to_string();
    let id = done(&place.amends(&["start", "order", "--input", &input, "-o", "ids"]));
    let view = host.get(&format!("/v1/sagas/{}", id.trim()));
    assert_eq!(view["input"], other);
    assert_eq!(host.get(&format!("/v1/sagas/{order}"))["input"]["account"], PLANTED[2]);
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_crash_at_any_moment_loses_no_key_that_an_undo_needs() {
    for point in ERASE_POINTS {
        let place = place(SAGAS);
        let host = place.run();
        let (order, refused) = orders(&place, &host);
        assert_eq!(host.stop(), Some(0));
        let mut host = place.spawn_with(&format!("{point}=return"));
        assert!(host.becomes_ready(), "{point}");
        let _ = erase(&place);
        assert!(host.aborted(HIT_LIMIT).is_some(), "{point} was not hit");
        let host = place.run();
        let listed = host.get("/v1/erasures");
        let item = &listed["items"][0];
        assert_eq!(
            (&item["erased"], &item["waiting"]),
            (&json!(1), &json!(1)),
            "{point}: {listed}"
        );
        assert_eq!(state(&host, &order), "waiting", "{point}");
        assert_eq!(state(&host, &refused), "erased", "{point}");
        assert_eq!(
            host.get(&format!("/v1/sagas/{order}"))["input"]["account"],
            PLANTED[2],
            "{point}"
        );
        assert!(host.events().iter().any(|event| event["type"] == "subject.erased"), "{point}");
        assert_eq!(host.stop(), Some(0));
    }
}

#[test]
fn a_crash_around_a_start_or_the_last_key_leaves_both_files_sound() {
    let place = place(SAGAS);
    let mut host = place.spawn_with("keys.subject.durable=return");
    assert!(host.becomes_ready());
    let started = place.amends(&["start", "order", "--input", &input().to_string()]);
    assert_ne!(started.status.code(), Some(0));
    assert!(host.aborted(HIT_LIMIT).is_some());
    let host = place.run();
    let (order, _) = orders(&place, &host);
    done(&erase(&place));
    assert_eq!(host.stop(), Some(0));
    let mut host = place.spawn_with("keys.settled=return");
    assert!(host.becomes_ready());
    done(&place.amends(&["compensate", &order, "--reason", "sent back"]));
    assert!(host.aborted(HIT_LIMIT).is_some());
    let host = place.run();
    host.settle();
    assert_eq!(host.get("/v1/erasures")["items"][0]["waiting"], 0);
    assert_eq!(state(&host, &order), "erased");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn check_refuses_what_could_not_be_sealed() {
    let cases = [
        (
            SAGAS.replace(
                "compensate_within",
                "index = { street = \"input.address.street\" }\ncompensate_within",
            ),
            "indexes a personal value as `street`",
        ),
        (
            SAGAS.replace(
                "compensate_within",
                "index = { street = \"input['address'].street\" }\ncompensate_within",
            ),
            "indexes a personal value as `street`",
        ),
        (
            SAGAS.replace(
                "compensate_within",
                "index = { mail = \"input.contacts.map(c, c.email)[0]\" }\ncompensate_within",
            ),
            "indexes a personal value as `mail`",
        ),
        (
            SAGAS.replacen("subject = \"input.customer_id\"\n", "", 1),
            "sealed with the key of a subject",
        ),
        (SAGAS.replace("steps.signed.output", "steps.sign.output"), "`sign`, which does not exist"),
        (SAGAS.replace("\"input.account\"", "\"account\""), "`account` is no path to a value"),
        (
            format!("{SAGAS}\n[plugin.good]\nstate = true\n"),
            "the plugin `good` keeps state, in which personal values would not be sealed",
        ),
        (
            format!(
                "{SAGAS}\n[[saga]]\nname = \"family\"\nsubject = \"input.id\"\n[[saga.step]]\nname = \
                 \"child\"\nsaga = \"plain\"\n[[saga]]\nname = \"plain\"\n[[saga.step]]\nname = \"one\"\n\
                 plugin = \"good\"\n"
            ),
            "`family` has a subject and `plain` has none",
        ),
        (
            format!(
                "{SAGAS}\n[[saga]]\nname = \"family\"\n[[saga.step]]\nname = \"child\"\nsaga = \
                 \"order\"\n"
            ),
            "`order` has a subject and `family`, which runs it, has none",
        ),
        (
            format!(
                "{SAGAS}\n[[saga]]\nname = \"family\"\nsubject = \"input.id\"\n[[saga.step]]\nname = \
                 \"child\"\nsaga = \"some\"\n[[saga]]\nname = \"some\"\nsubject = \
                 \"input.id\"\n[[saga.step]]\nname = \"one\"\nplugin = \"good\"\n"
            ),
            "`some` names none in its input",
        ),
        (
            format!(
                "{SAGAS}\n[[on]]\nname = \"orders\"\nevent = \"order.placed\"\nstart = \"order\"\n\
                 tags = {{ to = \"event.data.address.street\" }}\n"
            ),
            "`event.data.address.street` reads a personal value of `order`",
        ),
    ];
    for (sagas, words) in cases {
        let place = place(&sagas);
        let output = place.amends(&["check", "amends.toml"]);
        let said = stdout(&output) + &stderr(&output);
        assert_ne!(output.status.code(), Some(0), "{words}: {said}");
        assert!(
            said.split_whitespace().collect::<Vec<_>>().join(" ").contains(words),
            "{words}: {said}"
        );
    }
    let sound = format!("{SAGAS}\n[plugin.good]\nstate = true\nstate_personal = false\n");
    done(&place(&sound).amends(&["check", "amends.toml"]));
}
