//! The audit of a host with access control: who asked for what, what became of it, and that nobody changes it unseen.
//!
//! Deliberately absent: several hosts. `--test cluster` has them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::access::asker::{ADMIN, AUTH, Asker, make, revoke, run};
use crate::place::{Host, Place, stderr, stdout};

/// An id that no saga has.
const UNKNOWN: &str = "0198c0de-0000-7000-8000-000000000000";

const SAGA: &str =
    "[[saga]]\nname = \"gate\"\n[[saga.step]]\nname = \"approval\"\nwait = \"approved\"\n";

fn place() -> Place {
    let place = Place::empty();
    place.config(&format!("{AUTH}{SAGA}"));
    place
}

/// All entries of the audit.
fn entries(host: &Host) -> Vec<Value> {
    let page = Asker::with(ADMIN).get(host, "/v1/audit?after=0&limit=1000").done();
    page["items"].as_array().unwrap().clone()
}

/// Who asked for which operation, and the outcome.
fn told(entries: &[Value]) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let entry = |entry: &Value| {
        let (who, operation) = (word(&entry["who"]), word(&entry["operation"]));
        format!("{who}: {operation} {} {}", entry["status"], word(&entry["code"]))
    };
    entries.iter().map(entry).collect()
}

fn start(asker: Asker<'_>, host: &Host) -> String {
    let saga = asker.post(host, "/v1/sagas", &json!({"definition": "gate"})).done();
    saga["id"].as_str().unwrap().to_owned()
}

/// The command line with the token of the config; what it says, and whether it is content.
fn amends(place: &Place, arguments: &[&str]) -> (String, Option<i32>) {
    let output = place.command(arguments).env("AMENDS_TOKEN", ADMIN).output().unwrap();
    (stdout(&output) + &stderr(&output), output.status.code())
}

#[test]
fn what_somebody_asks_for_is_recorded_with_what_becomes_of_it() {
    let place = place();
    let host = run(&place);
    let operator = make(&host, "on-call", &["operator"], false);
    let viewer = make(&host, "screen", &["viewer"], false);
    let (admin, holder) = (Asker::with(ADMIN), Asker::with(&operator));
    let screen = Asker::with(&viewer);
    let reason = json!({"reason": "a test"});
    let of = |id: &str, verb: &str| format!("/v1/sagas/{id}/{verb}");

    // The log of the saga says who started it, and who sent the signal.
    let id = start(holder.on_behalf_of("ada"), &host);
    let events = admin.get(&host, &of(&id, "events")).done();
    assert_eq!(events["items"][0]["data"]["who"], "on-call@127.0.0.1 on behalf of ada");
    let other = start(holder, &host);
    holder.post(&host, &of(&other, "signals/approved"), &json!({})).done();
    // So these are recorded when they are refused or fail.
    let unknown = json!({"definition": "nothing"});
    holder.post(&host, "/v1/sagas", &unknown).is_refused(404, "definition_unknown");
    screen.post(&host, "/v1/sagas", &unknown).is_refused(403, "permission_missing");
    let signal = of(&id, "signals/approved");
    screen.post(&host, &signal, &json!({})).is_refused(403, "permission_missing");

    holder.on_behalf_of("ada").post(&host, &of(&id, "note"), &reason).done();
    holder.post(&host, &of(UNKNOWN, "cancel?x=1"), &reason).is_refused(400, "bad_query");
    screen.post(&host, &of(&id, "cancel"), &reason).is_refused(403, "permission_missing");
    holder.put(&host, "/v1/sagas", &reason).is_refused(405, "method_not_allowed");
    revoke(&host, "screen");
    // What only reads is not recorded, also when it is refused, but for a backup and evidence.
    holder.get(&host, "/v1/sagas").done();
    holder.get(&host, "/v1/tokens").is_refused(403, "permission_missing");
    holder.get(&host, "/v1/store/backup").is_refused(403, "permission_missing");
    assert_eq!(amends(&place, &["store", "backup", "b.db"]).1, Some(0));

    let entries = entries(&host);
    let (on_call, config) = ("on-call@127.0.0.1", "admin_token@127.0.0.1");
    assert_eq!(
        told(&entries),
        [
            format!("{config}: create_token 201 -"),
            format!("{config}: create_token 201 -"),
            format!("{on_call}: start_saga 404 definition_unknown"),
            "screen@127.0.0.1: start_saga 403 permission_missing".to_owned(),
            "screen@127.0.0.1: send_signal 403 permission_missing".to_owned(),
            format!("{on_call} on behalf of ada: note_on_saga 200 -"),
            format!("{on_call}: cancel_saga 400 bad_query"),
            "screen@127.0.0.1: cancel_saga 403 permission_missing".to_owned(),
            format!("{on_call}: - 405 method_not_allowed"),
            format!("{config}: revoke_token 200 -"),
            format!("{on_call}: back_up_store 403 permission_missing"),
            format!("{config}: back_up_store 200 -"),
        ]
    );
    let [first, .., refused, _, _, _, _, _] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((&first["token"], &first["roles"]), (&Value::Null, &json!(["admin"])));
    assert_eq!(refused["target"], of(UNKNOWN, "cancel?x=1"));
    assert_eq!((&refused["address"], &refused["count"]), (&json!("127.0.0.1"), &Value::Null));
    assert_eq!(refused["token"], operator["amends_".len()..].split('_').next().unwrap());
    assert_eq!(refused["roles"], json!(["operator"]));
    let versions = entries.iter().map(|entry| entry["version"].as_u64().unwrap());
    assert!(versions.eq(1..=12), "{entries:?}");
    // The backup has all that was recorded before it.
    let (said, code) = amends(&place, &["store", "verify", "b.db", "-o", "json"]);
    let verified: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &verified["audit_entries"]), (Some(0), &json!(11)), "{said}");
    assert_eq!(verified["audit_chain"], entries[10]["chain"]);
}

#[test]
fn the_audit_is_shown_to_those_who_administer() {
    let place = place();
    let host = run(&place);
    let admin = Asker::with(ADMIN);
    let viewer = make(&host, "screen", &["viewer", "operator", "deployer"], true);
    let id = start(admin, &host);
    for _ in 0..4 {
        let note = format!("/v1/sagas/{id}/note");
        admin.post(&host, &note, &json!({"reason": "a test"})).done();
    }
    Asker::with(&viewer).get(&host, "/v1/audit").is_refused(403, "permission_missing");
    let numbers = |query: &str| {
        let page = admin.get(&host, &format!("/v1/audit{query}")).done();
        let items = page["items"].as_array().unwrap().iter();
        let numbers: Vec<_> = items.map(|entry| entry["version"].as_u64().unwrap()).collect();
        (numbers, page["next_cursor"].clone())
    };
    assert_eq!(numbers(""), ((1..=5).collect(), Value::Null));
    assert_eq!(numbers("?limit=2"), (vec![4, 5], Value::Null));
    assert_eq!(numbers("?limit=2&after=0"), (vec![1, 2], json!("2")));
    assert_eq!(numbers("?limit=2&cursor=2"), (vec![3, 4], json!("4")));
    assert_eq!(numbers("?limit=2&cursor=4"), (vec![5], Value::Null));
    assert_eq!(numbers("?after=9"), (Vec::new(), Value::Null));
    for wrong in ["?limit=0", "?limit=1001", "?after=x", "?cursor=x", "?who=ada"] {
        assert_eq!(admin.get(&host, &format!("/v1/audit{wrong}")).status, 400, "{wrong}");
    }
    // Those who may read everything else see that there are entries.
    for token in [ADMIN, &viewer] {
        let log = Asker::with(token).get(&host, "/v1/events?type=audit.*&limit=1000").done();
        let items = log["items"].as_array().unwrap();
        assert_eq!(items.len(), 5, "{log}");
        assert!(items.iter().all(|event| event["data"] == "[withheld]"), "{log}");
    }
    let (said, code) = amends(&place, &["audit", "--limit", "1"]);
    assert_eq!((code, said.lines().count()), (Some(0), 2), "{said}");
    for words in ["admin_token@127.0.0.1", "note_on_saga", "200", &id] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let (said, _) = amends(&place, &["audit", "--after", "0", "-o", "ids"]);
    assert_eq!(said, "1\n2\n3\n4\n5\n");
}

/// Changes the store of a stopped host, as somebody may who writes into the database and knows its format: a row
/// without a checksum is one of an early version.
fn change(place: &Place, sql: &str) {
    let store = rusqlite::Connection::open(place.path("data/amends.db")).unwrap();
    assert_eq!(store.execute(sql, []).unwrap(), 1, "{sql}");
}

#[test]
fn a_changed_or_removed_entry_is_found() {
    let place = place();
    let host = run(&place);
    let admin = Asker::with(ADMIN);
    let id = start(admin, &host);
    for user in ["ada", "eve", "ada", "eve"] {
        let note = format!("/v1/sagas/{id}/note");
        admin.on_behalf_of(user).post(&host, &note, &json!({"reason": "a test"})).done();
    }
    let chain = entries(&host)[3]["chain"].as_str().unwrap().to_owned();
    let of_host = || amends(&place, &["audit", "--verify"]);
    let fits = format!("the audit fits up to entry 4, which has the chain {chain}\n");
    assert_eq!(of_host(), (fits, Some(0)));
    assert_eq!(host.stop(), Some(0));
    let verify = || amends(&place, &["store", "verify", "data/amends.db"]);
    let (said, code) = verify();
    assert_eq!(code, Some(0), "{said}");
    let fits = format!("the audit fits up to entry 4, which has the chain {chain}");
    assert!(said.contains("nothing is damaged") && said.contains(&fits), "{said}");

    let rename = |from: &str, to: &str| {
        let events = format!("replace(events, 'of {from}', 'of {to}')");
        let entry = "stream = 'audit/' AND version = 2";
        change(&place, &format!("UPDATE appends SET events = {events}, sum = NULL WHERE {entry}"));
    };
    rename("eve", "bob");
    let (said, code) = verify();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("the audit entry 2 does not fit to the one before it"), "{said}");
    assert!(said.contains(": 1 finding;"), "nothing else shows it: {said}");
    let host = run(&place);
    let (said, code) = of_host();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("the audit entry 2 does not fit to the one before it"), "{said}");
    assert!(said.contains("\nthe audit fits up to entry 1, "), "{said}");
    let check = Asker::with(ADMIN).get(&host, "/v1/audit:verify").done();
    assert_eq!(check["entries"], 1, "{check}");
    assert_eq!(host.stop(), Some(0));
    rename("bob", "eve");
    let (said, code) = verify();
    assert_eq!(code, Some(0), "{said}");

    change(&place, "DELETE FROM appends WHERE stream = 'audit/' AND version = 3");
    let (said, code) = verify();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the audit entry 3 is missing\n"), "{said}");
}

#[test]
fn requests_without_a_token_that_counts_are_a_few_entries() {
    const REQUESTS: usize = 1_000;
    let place = place();
    let host = run(&place);
    let nobody = Asker::default();
    for _ in 0..REQUESTS {
        nobody.post(&host, "/v1/sagas", &json!({})).is_refused(401, "token_missing");
    }
    Asker::with("nonsense").get(&host, "/v1/me").is_refused(401, "token_wrong");
    // Recorded each minute, and when the host ends.
    assert_eq!(host.stop(), Some(0));
    let host = run(&place);
    let entries = entries(&host);
    assert!(entries.len() <= 10, "{entries:?}");
    let mut counts = BTreeMap::new();
    for entry in &entries {
        assert_eq!((&entry["type"], &entry["who"]), (&json!("audit.refused"), &Value::Null));
        assert_eq!(entry["address"], "127.0.0.1");
        let count = entry["count"].as_u64().unwrap();
        *counts.entry(entry["code"].as_str().unwrap()).or_insert(0) += count;
    }
    let expected = [("token_missing", REQUESTS as u64), ("token_wrong", 1)];
    assert_eq!(counts, BTreeMap::from(expected));
    let (said, _) = amends(&place, &["audit"]);
    assert!(said.contains("1 request without a token that counts"), "{said}");
    assert_eq!(host.stop(), Some(0));
    let (said, code) = amends(&place, &["store", "verify", "data/amends.db"]);
    assert_eq!(code, Some(0), "{said}");
}

/// Somebody who sends an order and hangs up leaves an entry as well, when the order was carried out.
#[test]
fn who_does_not_wait_for_the_answer_is_recorded() {
    const ORDERS: usize = 50;
    let place = place();
    let host = run(&place);
    let admin = Asker::with(ADMIN);
    let id = start(admin, &host);
    let body = "{\"reason\": \"a test\"}";
    let request = format!(
        "POST /v1/sagas/{id}/note HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nauthorization: Bearer {ADMIN}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        place.port,
        body.len()
    );
    for _ in 0..ORDERS {
        let mut stream = TcpStream::connect(("127.0.0.1", place.port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
    }
    // A host that has the requests reads them within this time, or never.
    std::thread::sleep(Duration::from_secs(1));
    let noted = || {
        let log = admin.get(&host, "/v1/events?type=operator.noted&limit=1000").done();
        log["items"].as_array().unwrap().len()
    };
    host.until("each order that was carried out is recorded", || {
        let noted = noted();
        let entries = entries(&host);
        let recorded = entries.iter().filter(|entry| entry["operation"] == "note_on_saga");
        recorded.count() >= noted
    });
}

#[test]
fn without_access_control_there_is_no_audit() {
    let place = Place::empty();
    place.config(SAGA);
    let host = place.run();
    let anybody = Asker::default();
    let id = start(anybody, &host);
    anybody.post(&host, &format!("/v1/sagas/{id}/note"), &json!({"reason": "a test"})).done();
    anybody.get(&host, "/v1/audit").is_refused(409, "auth_off");
    // Entries of another time, or of other hosts of the store, can be checked.
    let check = anybody.get(&host, "/v1/audit:verify").done();
    assert_eq!(check, json!({"entries": 0, "chain": null, "finding": null}));
    let log = anybody.get(&host, "/v1/events?limit=1000").done();
    let events = log["items"].as_array().unwrap();
    assert!(events.iter().all(|event| !event["type"].as_str().unwrap().starts_with("audit")));
    assert_eq!(events[0]["data"]["who"], Value::Null, "{log}");
}
