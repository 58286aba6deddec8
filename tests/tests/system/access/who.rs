//! Who is recorded: the name of the token, the address, and on whose behalf its holder asked.

use serde_json::{Value, json};

use super::asker::{ADMIN, AUTH, Asker, make, run};
use crate::place::{Host, Place, stderr};

const SAGAS: &str = "
[service.carrier]
breaker = { failures = 5, open_for = \"60s\" }

[[saga]]
name = \"gate\"

[[saga.step]]
name = \"approval\"
wait = { signal = \"approved\", timeout = \"2h\" }
";

fn place(auth: &str) -> Place {
    let place = Place::empty();
    place.config(&format!("{auth}{SAGAS}"));
    place
}

fn start(asker: Asker<'_>, host: &Host) -> String {
    let saga = asker.post(host, "/v1/sagas", &json!({"definition": "gate"})).done();
    saga["id"].as_str().unwrap().to_owned()
}

/// Who is recorded with the events of a type, in the order of the log.
fn whos(asker: Asker<'_>, host: &Host, kind: &str) -> Vec<String> {
    let log = asker.get(host, &format!("/v1/events?limit=1000&type={kind}")).done();
    let events = log["items"].as_array().unwrap().iter();
    events.map(|event| event["data"]["who"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn who_is_the_token_and_on_behalf_of_whom() {
    let place = place(AUTH);
    let host = run(&place);
    let token = make(&host, "on-call", &["operator"], false);
    let (admin, holder) = (Asker::with(ADMIN), Asker::with(&token));
    let id = start(holder, &host);
    let note = format!("/v1/sagas/{id}/note");
    let reason = json!({"reason": "seen"});
    holder.post(&host, &note, &reason).done();
    holder.on_behalf_of("ada").post(&host, &note, &reason).done();
    // A name that looks like another caller's is on whose behalf, and nothing else.
    holder.on_behalf_of("admin_token@10.0.0.1").post(&host, &note, &reason).done();
    holder.on_behalf_of("  ").post(&host, &note, &reason).done();
    admin.on_behalf_of("grace").post(&host, &note, &reason).done();
    let noted = whos(admin, &host, "operator.noted");
    assert_eq!(
        noted,
        [
            "on-call@127.0.0.1",
            "on-call@127.0.0.1 on behalf of ada",
            "on-call@127.0.0.1 on behalf of admin_token@10.0.0.1",
            "on-call@127.0.0.1",
            "admin_token@127.0.0.1 on behalf of grace",
        ]
    );
    // What the saga shows is what is recorded.
    let saga = admin.get(&host, &format!("/v1/sagas/{id}")).done();
    assert_eq!(saga["note"]["who"], noted[4].as_str());

    let signals = format!("/v1/sagas/{id}/signals/approved");
    holder.on_behalf_of("ada").post(&host, &signals, &json!({})).done();
    assert_eq!(whos(admin, &host, "signal.received"), [noted[1].as_str()]);
    let open = json!({"reason": "it is away", "for": "1h"});
    holder.on_behalf_of("ada").post(&host, "/v1/breakers/carrier/open", &open).done();
    assert_eq!(whos(admin, &host, "breaker.opened"), [noted[1].as_str()]);
    let body = json!({"name": "shop", "roles": ["service"]});
    let made = admin.on_behalf_of("grace").post(&host, "/v1/tokens", &body).done();
    assert_eq!(made["created_by"], noted[4].as_str());
    let made_by = whos(admin, &host, "token.created");
    assert_eq!(made_by, ["admin_token@127.0.0.1", noted[4].as_str()]);

    // The command line sends the name of the user.
    let id = start(holder, &host);
    let mut pause = place.command(&["pause", &id, "--reason", "the price is wrong"]);
    let output = pause.env("AMENDS_TOKEN", &token).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(whos(admin, &host, "operator.paused"), [noted[1].as_str()]);
    assert!(host.log().iter().all(|line| !line.contains(&token)));
}

#[test]
fn without_access_control_everything_is_as_before() {
    let place = place("");
    let host = place.run();
    let anybody = Asker::default();
    let id = start(anybody, &host);
    let note = format!("/v1/sagas/{id}/note");
    let reason = json!({"reason": "seen"});
    anybody.post(&host, &note, &reason).done();
    anybody.on_behalf_of("ada").post(&host, &note, &reason).done();
    // Nobody looks at a token.
    Asker::with("nonsense").on_behalf_of("ada").post(&host, &note, &reason).done();
    let noted = whos(anybody, &host, "operator.noted");
    assert_eq!(noted, ["127.0.0.1", "ada@127.0.0.1", "ada@127.0.0.1"]);
    let me = anybody.on_behalf_of("ada").get(&host, "/v1/me").done();
    let permissions = ["read", "payloads", "start", "operate", "deploy", "administer"];
    let expected = json!({
        "who": "ada@127.0.0.1", "access_control": false, "roles": [], "permissions": permissions,
        "namespaces": ["default"], "expires_at": Value::Null,
    });
    assert_eq!(me, expected);
    let body = json!({"name": "shop", "roles": ["service"]});
    anybody.post(&host, "/v1/tokens", &body).is_refused(409, "auth_off");
    anybody.get(&host, "/v1/tokens").is_refused(409, "auth_off");
    anybody.post(&host, "/v1/tokens/shop/revoke", &reason).is_refused(409, "auth_off");
}
