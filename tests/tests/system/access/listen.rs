//! Where a host with access control may listen.

use std::fs;
use std::net::TcpStream;

use serde_json::json;

use super::asker::{ADMIN, ADMIN_VARIABLE, AUTH, Asker, make, run};
use crate::place::{Place, agent, stderr, stdout};

const SAGA: &str = "[[saga]]\nname = \"nap\"\n[[saga.step]]\nname = \"nap\"\nsleep = \"1s\"\n";

/// A host that listens there, with more keys of `[host]` and more tables.
fn place(listen: &str, host: &str, more: &str) -> Place {
    let place = Place::empty();
    place.config(&format!("{more}{SAGA}"));
    let path = place.path("amends.toml");
    let text = fs::read_to_string(&path).unwrap();
    let (usual, other) =
        ("[host]\nlisten = \"127.0.0.1:", format!("[host]\n{host}listen = \"{listen}:"));
    assert!(text.contains(usual), "{text}");
    fs::write(&path, text.replace(usual, &other)).unwrap();
    place
}

#[test]
fn a_host_off_loopback_needs_access_control_and_tls() {
    let proxy = "tls = \"proxy\"\n";
    for (listen, host, more, words) in [
        ("0.0.0.0", "", "", &["that needs access control", "add [auth]", "tls = \"proxy\""][..]),
        ("0.0.0.0", proxy, "", &["that needs access control", "add [auth]"]),
        (
            "0.0.0.0",
            "",
            AUTH,
            &["that needs a certificate of the host or a proxy", "tls = \"proxy\""],
        ),
        (
            "10.0.0.1",
            "",
            AUTH,
            &["that needs a certificate of the host or a proxy", "listen on 127.0.0.1:"],
        ),
        ("127.0.0.1", "tls = \"yes\"\n", AUTH, &["`yes` is not allowed here", "\"proxy\""]),
        ("127.0.0.1", "", "[auth]\nadmin_token = \"written out\"\n", &["{ env = \"NAME\" }"]),
    ] {
        let place = place(listen, host, more);
        for verb in ["check", "run"] {
            let mut command = place.command(&[verb, "amends.toml"]);
            let output = command.env(ADMIN_VARIABLE.0, ADMIN).output().unwrap();
            let said = stdout(&output) + &stderr(&output);
            assert!(!output.status.success(), "{listen} {host}{more}: {said}");
            for words in words {
                assert!(said.contains(words), "{words}: {said}");
            }
        }
    }
}

#[test]
fn a_token_of_the_config_is_there_and_long() {
    let place = place("127.0.0.1", "", AUTH);
    let said = |token: Option<&str>| {
        let mut command = place.command(&["run", "amends.toml"]);
        command.env_remove(ADMIN_VARIABLE.0);
        let output = command.envs(token.map(|token| (ADMIN_VARIABLE.0, token))).output().unwrap();
        assert!(!output.status.success(), "{token:?}");
        stdout(&output) + &stderr(&output)
    };
    let missing = said(None);
    assert!(missing.contains("`AMENDS_ADMIN_TOKEN` is not set"), "{missing}");
    let short = said(Some("short-and-secret"));
    assert!(short.contains("fewer than 32 bytes"), "{short}");
    assert!(!short.contains("short-and-secret"), "{short}");
}

#[test]
fn behind_a_proxy_a_host_listens_everywhere_and_asks_everybody() {
    let url = "public_url = \"https://amends.example\"\n";
    let place = place("0.0.0.0", &format!("tls = \"proxy\"\n{url}"), AUTH);
    let host = run(&place);
    // Loopback is every address that begins with 127.
    assert!(TcpStream::connect(("127.0.0.2", place.port)).is_ok());
    Asker::default().get(&host, "/v1/me").is_refused(401, "token_missing");
    let token = make(&host, "screen", &["viewer"], false);
    let me = Asker::with(&token).get(&host, "/v1/me").done();
    assert_eq!((&me["who"], &me["access_control"]), (&json!("screen@127.0.0.1"), &json!(true)));
    // As a proxy sends it.
    let request = agent().get(host.url("/v1/me")).header("host", "amends.example");
    let request = request.header("authorization", format!("Bearer {token}"));
    assert_eq!(request.call().unwrap().status(), 200);
    // Who can reach the host may ask how it is, and nothing else.
    for path in ["/healthz", "/readyz", "/", "/v1/openapi.json"] {
        assert_eq!(Asker::default().get(&host, path).status, 200, "{path}");
    }
    Asker::default().get(&host, "/metrics").is_refused(401, "token_missing");
    assert_eq!(host.stop(), Some(0));
}
