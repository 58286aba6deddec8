//! Access control of hosts that share a store: a token and its end are known to all of them, and a request that is
//! passed on is that of its caller.

use std::time::{Duration, Instant};

use amends_runtime::check_audit;
use amends_store::{Durability, PostgresStore, Store as _};
use serde_json::{Value, json};

use crate::ALONE;
use crate::asker::{ADMIN, ADMIN_VARIABLE, AUTH, Answer, Asker, make};
use crate::hosts::{Node, until_shared};
use crate::place::{Host, Place, agent};
use crate::server::Server;

/// How long it may take until another host knows of a token, or of its end. The book says a second; machines are
/// shared.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

/// Stands in the payloads of the saga.
const MARK: &str = "planted-4711";

const WITHHELD: &str = "[withheld]";

/// Who is recorded of the operator.
const WHO: &str = "on-call@127.0.0.1 on behalf of ada";

/// Starts with a key: more than one host owns by chance.
const KEYS: usize = 12;

const SAGA: &str = "
[[saga]]
name = \"gate\"
[[saga.step]]
name = \"approval\"
wait = \"approved\"
";

/// Waits until something holds; how long that took.
fn until(what: &str, holds: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < KNOWN_WITHIN, "not within {KNOWN_WITHIN:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

fn has_status(host: &Host, token: &str, status: u16) -> bool {
    Asker::with(token).get(host, "/v1/me").status == status
}

/// Makes a token at one host and waits until another one knows it.
fn make_for((here, other): (&Host, &Host), name: &str, roles: &[&str], payloads: bool) -> String {
    let token = make(here, name, roles, payloads);
    assert!(has_status(here, &token, 200), "the host that made it knows it");
    let took = until("the other host knows the token", || has_status(other, &token, 200));
    println!("the token `{name}` was known to the other host after {took:?}");
    token
}

/// The tokens of a test, by what they may do.
struct Tokens {
    /// `service`.
    service: String,
    /// `viewer`.
    viewer: String,
    /// `viewer`, with payloads.
    auditor: String,
    /// `operator`.
    operator: String,
}

/// Checks what an answer shows of a saga.
#[track_caller]
fn check(answer: &Answer, payloads: bool) {
    let input = &answer.body["input"];
    let expected = if payloads { json!({"text": MARK}) } else { json!(WITHHELD) };
    assert_eq!(input, &expected, "{}", answer.text);
    assert_eq!(answer.text.contains(MARK), payloads, "{}", answer.text);
}

/// All events of a saga, as the watch sends them until the saga ends.
fn watched(host: &Host, token: &str, saga: &str) -> String {
    let request = agent().get(host.url(&format!("/v1/sagas/{saga}/watch")));
    let request = request.header("authorization", format!("Bearer {token}"));
    let mut response = request.call().unwrap();
    let text = response.body_mut().read_to_string().unwrap();
    assert_eq!(response.status(), 200, "{text}");
    text
}

/// Starts a saga at one host and asks the other one for it, which passes the requests on. Its id, when it has ended.
fn ask_the_other(a: &Host, b: &Host, tokens: &Tokens) -> String {
    let Tokens { service, viewer, auditor, operator } = tokens;
    let [service, viewer, auditor, operator] =
        [service, viewer, auditor, operator].map(|token| Asker::with(token));
    let body = json!({"definition": "gate", "input": {"text": MARK}});
    let saga = service.post(a, "/v1/sagas", &body);
    assert_eq!(saga.status, 202, "{}", saga.text);
    check(&saga, false);
    let id = saga.body["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/sagas/{id}");
    check(&viewer.get(b, &path), false);
    check(&viewer.get(b, &format!("{path}?wait=100ms")), false);
    check(&auditor.get(b, &path), true);
    service.get(b, &path).is_refused(403, "permission_missing");
    Asker::default().get(b, &path).is_refused(401, "token_missing");
    // For this one the host asks the other one itself.
    let list = viewer.get(b, "/v1/sagas?activity=true").done();
    assert!(list["items"][0]["activity"].is_string(), "{list}");

    let (note, reason) = (format!("{path}/note"), json!({"reason": "seen"}));
    viewer.post(b, &note, &reason).is_refused(403, "permission_missing");
    let noted = operator.on_behalf_of("ada").post(b, &note, &reason);
    assert_eq!(noted.status, 200, "{}", noted.text);
    check(&noted, false);
    assert_eq!(noted.body["note"]["who"], WHO);
    // The host that runs the saga refuses it, and the other one records that.
    let resumed = operator.post(b, &format!("{path}/resume"), &reason);
    resumed.is_refused(409, "wrong_state");

    let approved = format!("{path}/signals/approved");
    let signal = json!({"payload": {"text": MARK}});
    viewer.post(b, &approved, &signal).is_refused(403, "permission_missing");
    let saga = id.as_str();
    let [of_viewer, of_auditor] = std::thread::scope(|scope| {
        let watch = |token| scope.spawn(move || watched(b, token, saga));
        let watches = [&tokens.viewer, &tokens.auditor].map(|token| watch(token.as_str()));
        operator.on_behalf_of("ada").post(b, &approved, &signal).done();
        watches.map(|watch| watch.join().unwrap())
    });
    assert!(!of_viewer.contains(MARK), "{of_viewer}");
    assert!(of_auditor.contains(MARK), "{of_auditor}");
    let ended = viewer.get(b, &format!("{path}?wait=30s"));
    assert_eq!(ended.body["status"], "completed", "{}", ended.text);
    check(&ended, false);
    assert_eq!(ended.body["output"], WITHHELD);
    id
}

#[test]
fn a_token_counts_at_every_host_and_a_request_that_is_passed_on_is_its_holders() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(server) = Server::start() else { return };
    let config = format!("{AUTH}{SAGA}");
    let mut nodes =
        ["node-a", "node-b"].map(|name| Node::new(name, Place::empty(), &server, &config));
    for node in &mut nodes {
        node.token = Some(ADMIN);
        node.start_with(&[ADMIN_VARIABLE]);
    }
    until_shared(&[&nodes[0], &nodes[1]]);
    let [a, b] = nodes.each_ref().map(|node| node.host.as_ref().unwrap());
    let tokens = Tokens {
        service: make_for((a, b), "shop", &["service"], false),
        viewer: make_for((b, a), "screen", &["viewer"], false),
        auditor: make_for((a, b), "audit", &["viewer"], true),
        operator: make_for((b, a), "on-call", &["operator"], false),
    };
    // A name that one host has given is taken at the other one.
    let body = json!({"name": "audit", "roles": ["viewer"]});
    let admin = Asker::with(ADMIN);
    admin.post(b, "/v1/tokens", &body).is_refused(409, "token_name_taken");

    let id = ask_the_other(a, b, &tokens);
    let events = admin.get(b, &format!("/v1/sagas/{id}/events")).done();
    let signals = events["items"].as_array().unwrap().iter();
    let signals: Vec<_> = signals.filter(|event| event["type"] == "signal.received").collect();
    assert_eq!(signals[0]["data"]["who"], WHO, "{events}");
    assert_eq!(signals.len(), 1);
    // Either host owns some of the keys.
    for key in 0..KEYS {
        let body = json!({"definition": "gate", "input": {"text": MARK}, "key": key.to_string()});
        let saga = Asker::with(&tokens.service).post(b, "/v1/sagas", &body);
        assert_eq!(saga.status, 202, "{}", saga.text);
        check(&saga, false);
    }

    // An end is known as a beginning is.
    let reason = json!({"reason": "a test"});
    for (here, other, name, token) in
        [(b, a, "screen", &tokens.viewer), (a, b, "audit", &tokens.auditor)]
    {
        admin.post(here, &format!("/v1/tokens/{name}/revoke"), &reason).done();
        let holder = Asker::with(token);
        holder.get(here, "/v1/me").is_refused(401, "token_revoked");
        let took = until("the other host refuses it", || has_status(other, token, 401));
        println!("the end of `{name}` was known to the other host after {took:?}");
        holder.get(other, "/v1/me").is_refused(401, "token_revoked");
    }
    // Each request is recorded once, by the host that it was sent to.
    let audits = [a, b].map(|host| Asker::with(ADMIN).get(host, "/v1/audit?after=0&limit=1000"));
    let [audit, same] = audits.map(Answer::done);
    assert_eq!(recorded(&audit), recorded(&same));
    assert_eq!(
        recorded(&audit),
        [
            "screen@127.0.0.1: note_on_saga 403 permission_missing",
            "on-call@127.0.0.1 on behalf of ada: note_on_saga 200",
            "on-call@127.0.0.1: resume_saga 409 wrong_state",
            "screen@127.0.0.1: send_signal 403 permission_missing",
            "admin_token@127.0.0.1: revoke_token 200",
            "admin_token@127.0.0.1: revoke_token 200",
        ]
    );
    let entries = audit["items"].as_array().unwrap().len() as u64;
    let check = Asker::with(ADMIN).get(a, "/v1/audit:verify").done();
    assert_eq!(check["finding"], Value::Null);
    assert!(check["entries"].as_u64() >= Some(entries), "{check}");
    for node in &mut nodes {
        node.stop();
    }
    // What both of them wrote is one chain. Requests without a token are recorded when a host ends.
    let store = PostgresStore::open(&server.url(), Durability::Full).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let check = runtime.block_on(check_audit(&store)).unwrap();
    runtime.block_on(store.close()).unwrap();
    assert_eq!(check.finding(), None);
    assert!(check.entries() >= entries, "{} of {entries}", check.entries());
}

/// What became of the requests of an audit, but for those for a token.
fn recorded(audit: &Value) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let entries = audit["items"].as_array().unwrap().iter();
    let entries = entries.filter(|entry| entry["type"] == "audit.recorded");
    let entries = entries.filter(|entry| entry["operation"] != "create_token");
    entries
        .map(|entry| {
            let (who, operation) = (word(&entry["who"]), word(&entry["operation"]));
            let code = entry["code"].as_str().map_or(String::new(), |code| format!(" {code}"));
            format!("{who}: {operation} {}{code}", entry["status"])
        })
        .collect()
}
