//! Secrets: whatever their plugin says, they stand nowhere.

use std::fmt::Write as _;
use std::fs;

use amends_tests::{Behaviour, Component};

use crate::place::{Place, stderr, stdout, text};

/// Ten of them, with what makes texts hard to search: quotes, blanks, other alphabets.
const SECRETS: [&str; 10] = [
    "sk-live-0123456789",
    "correct horse battery",
    "\"quoted\" and \\slashed\\",
    "pässwörter-zählen",
    "p%40ss/word?x=y",
    "eyJhbGciOiJIUzI1NiJ9.e30.abc",
    "line-one\nline-two",
    "hunter2-hunter2",
    "密码密码密码",
    "-----BEGIN KEY-----abcdef",
];

const IMPORTS: &str = "
    (import \"amends:saga/config@1.1.0\" \"secret\" (func $secret (param i32 i32 i32)))
    (import \"amends:saga/state@1.1.0\" \"set\" (func $set (param i32 i32 i32 i32)))
    (import \"amends:saga/events@1.1.0\" \"emit\" (func $emit (param i32 i32 i32 i32)))";

/// Reads the secret `api_key` and says it: in a line of the log, its message and a field of it.
/// The secret is at `$at`, `$length` bytes; as JSON at 12,000, two bytes more.
const SAY: &str = "
    (i64.store (i32.const 8192) (i64.const 0x79656b5f697061))
    (call $secret (i32.const 8192) (i32.const 7) (i32.const 9000))
    (if (i32.eqz (i32.load8_u (i32.const 9000))) (then unreachable))
    (local.set $at (i32.load (i32.const 9004)))
    (local.set $length (i32.load (i32.const 9008)))
    (i32.store8 (i32.const 12000) (i32.const 34))
    (memory.copy (i32.const 12001) (local.get $at) (local.get $length))
    (i32.store8 (i32.add (i32.const 12001) (local.get $length)) (i32.const 34))
    (i32.store (i32.const 9100) (i32.const 3060))
    (i32.store (i32.const 9104) (i32.const 2))
    (i32.store (i32.const 9108) (local.get $at))
    (i32.store (i32.const 9112) (local.get $length))
    (call $log (i32.const 3) (local.get $at) (local.get $length) (i32.const 9100) (i32.const 1))";

/// Says it in an event, in its state and in its answer, all of them JSON.
fn tells() -> String {
    format!(
        "{SAY}
         (i64.store (i32.const 8192) (i64.const 0x6c6c612e61))
         (call $emit (i32.const 8192) (i32.const 5) (i32.const 12000)
            (i32.add (local.get $length) (i32.const 2)))
         (call $set (i32.const 3060) (i32.const 2) (i32.const 12000)
            (i32.add (local.get $length) (i32.const 2)))
         (i32.store offset=8 (i32.const 2048) (i32.const 12000))
         (i32.store offset=12 (i32.const 2048) (i32.add (local.get $length) (i32.const 2)))
         (i32.const 2048)"
    )
}

/// Fails with it, in code and message.
fn fails() -> String {
    format!(
        "{SAY}
         (i32.store8 (i32.const 2048) (i32.const 1))
         (i32.store8 offset=8 (i32.const 2048) (i32.const 0))
         (i32.store offset=16 (i32.const 2048) (local.get $at))
         (i32.store offset=20 (i32.const 2048) (local.get $length))
         (i32.store offset=24 (i32.const 2048) (local.get $at))
         (i32.store offset=28 (i32.const 2048) (local.get $length))
         (i32.const 2048)"
    )
}

fn place() -> Place {
    let place = Place::empty();
    let (tells, fails): (&'static str, &'static str) = (tells().leak(), fails().leak());
    let mut config = String::new();
    for (number, secret) in SECRETS.iter().enumerate() {
        fs::write(place.path(&format!("secret-{number}")), secret).unwrap();
        for (does, text) in [("tells", tells), ("fails", fails)] {
            let name = &*format!("{does}-{number}").leak();
            let execute = Behaviour::Text(text);
            let component = Component { name, imports: IMPORTS, execute, ..Component::default() };
            fs::write(place.plugin(name), component.build()).unwrap();
            let _ = write!(
                config,
                "[plugin.{name}]\nstate = true\nevents = true\n\
                 secrets = {{ api_key = {{ file = \"secret-{number}\" }} }}\n\
                 [[saga]]\nname = \"{name}\"\n\
                 [[saga.step]]\nname = \"one\"\nplugin = \"{name}\"\nretry = {{ attempts = 1 }}\n"
            );
        }
    }
    place.config(&config);
    place
}

#[test]
fn ten_planted_secrets_are_found_nowhere() {
    let place = place();
    let host = place.run();
    let mut said = String::new();
    for number in 0..SECRETS.len() {
        for does in ["tells", "fails"] {
            let name = format!("{does}-{number}");
            let output = place.amends(&["start", &name, "--wait", "-o", "json"]);
            let _ = write!(said, "{}{}", stdout(&output), stderr(&output));
            // A secret that is no JSON cannot be an event, and that is told without it as well.
        }
    }
    let ids = stdout(&place.amends(&["list", "-o", "ids", "--limit", "100"]));
    assert_eq!(ids.lines().count(), 2 * SECRETS.len());
    for id in ids.lines() {
        for verb in ["get", "history", "why", "undo-plan"] {
            for format in ["table", "json"] {
                let output = place.amends(&[verb, id, "-o", format]);
                let _ = write!(said, "{}{}", stdout(&output), stderr(&output));
            }
        }
        for path in ["", "/events", "/why", "/undo-plan"] {
            said += &text(&host.url(&format!("/v1/sagas/{id}{path}")));
        }
    }
    for path in [
        "/v1/events?after=0&limit=1000",
        "/v1/sagas",
        "/v1/plugins",
        "/v1/definitions",
        "/v1/breakers",
        "/v1/openapi.json",
        "/v1/plugins/tells-0",
        "/v1/plugins/tells-0/state",
        "/v1/plugins/tells-7/state",
        "/metrics",
    ] {
        said += &text(&host.url(path));
    }
    for arguments in [
        &["check", "amends.toml"][..],
        &["check", "amends.toml", "-o", "json"],
        &["plugin", "list"],
        &["plugin", "inspect", "plugins/tells-0.wasm"],
        &["state", "list", "tells-0"],
        &["exposure"],
    ] {
        let output = place.amends(arguments);
        let _ = write!(said, "{}{}", stdout(&output), stderr(&output));
    }
    let (exit, log) = host.stop_logged();
    assert_eq!(exit, Some(0));
    said += &log.join("\n");
    // The store itself, and what is beside it.
    let mut bytes = said.into_bytes();
    for entry in fs::read_dir(place.path("data")).unwrap() {
        bytes.extend(fs::read(entry.unwrap().path()).unwrap());
    }
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    for secret in SECRETS {
        let json = serde_json::Value::from(secret).to_string();
        for form in [secret, &json[1..json.len() - 1], &format!("{secret:?}")] {
            assert!(!has(form), "{form} is there");
        }
    }
    for said in ["[secret api_key]", "the plugin said a secret of its own", "a.all"] {
        assert!(has(said), "{said} is not there: nothing was tried");
    }
    for place in ["an answer", "an event", "a failure", "its state", "a log line"] {
        let warning = log.iter().find(|line| line.contains(&format!("\"place\":\"{place}\"")));
        let warning = warning.unwrap_or_else(|| panic!("no warning of {place}"));
        assert!(warning.contains("\"saga_id\"") && warning.contains("\"step\""), "{warning}");
    }
}
