//! `amends token`, `amends me`, `amends audit`, and how a token is shown, against a host that is made here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::{Value, json};

const TOKEN: &str = "amends_k3Jq9ZbX0a_secret";

/// A request that a host got.
struct Asked {
    /// `GET /v1/me HTTP/1.1`.
    line: String,
    /// The value of `authorization`, if there was one.
    authorization: Option<String>,
    body: String,
}

/// A host that answers every request with this. Returns its address, and the requests as they come.
fn host(status: u16, head: &'static str, answer: Value) -> (String, Receiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            serve(stream.unwrap(), status, head, &answer.to_string(), &sender);
        }
    });
    (address, receiver)
}

fn serve(mut stream: TcpStream, status: u16, head: &str, answer: &str, asked: &Sender<Asked>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut authorization, mut length) = (String::new(), None, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if first.is_empty() {
            line.clone_into(&mut first);
        }
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().unwrap();
            }
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                authorization = Some(value.to_owned());
            }
            Some(_) | None => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    // A test that has its answer looks at no more.
    let _ = asked.send(Asked { line: first, authorization, body });
    let length = answer.len();
    let head = format!("content-type: application/json\r\nconnection: close\r\n{head}");
    let text = format!("HTTP/1.1 {status} Told\r\n{head}content-length: {length}\r\n\r\n{answer}");
    stream.write_all(text.as_bytes()).unwrap();
}

fn view(state: &str) -> Value {
    json!({
        "id": "k3Jq9ZbX0a", "name": "shop", "roles": ["service", "viewer"], "payloads": true,
        "namespaces": ["default"], "state": state, "created_by": "ops@127.0.0.1", "created_at": "2026-01-02T03:04:05.678Z",
        "expires_at": null, "last_used_at": "2026-01-03T00:00:00.000Z", "revoked": null,
    })
}

/// Runs the binary with this token in the environment and nothing else.
fn amends(arguments: &[&str], token: Option<&str>) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
    command.args(arguments).env_clear();
    if let Some(token) = token {
        command.env("AMENDS_TOKEN", token);
    }
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn a_new_token_stands_alone_in_a_pipe() {
    let mut made = view("active");
    made["token"] = json!(TOKEN);
    let (address, asked) = host(201, "", made);
    let new = ["--host", address.as_str(), "token", "new", "shop", "--role", "service,viewer"];
    let more = ["--payloads", "--expires", "90d"];
    let (code, stdout, stderr) = amends(&[&new[..], &more[..]].concat(), Some("admin"));
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), &*format!("{TOKEN}\n"), ""));
    let request = asked.recv().unwrap();
    assert_eq!(request.line, "POST /v1/tokens HTTP/1.1");
    assert_eq!(request.authorization.as_deref(), Some("Bearer admin"));
    let body: Value = serde_json::from_str(&request.body).unwrap();
    let told = json!({
        "name": "shop", "roles": ["service", "viewer"], "payloads": true, "expires_in": "90d",
    });
    assert_eq!(body, told);

    let (code, stdout, _) = amends(&[&new[..], &["-o", "json"]].concat(), None);
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (code, &answer["token"], &answer["id"]),
        (Some(0), &json!(TOKEN), &json!("k3Jq9ZbX0a"))
    );
    assert_eq!(asked.recv().unwrap().authorization, None);

    // For `token new`, the flag says which namespaces the token is for.
    let (code, _, stderr) = amends(&[&new[..], &["--namespace", "till,billing"]].concat(), None);
    assert_eq!(code, Some(0), "{stderr}");
    let body: Value = serde_json::from_str(&asked.recv().unwrap().body).unwrap();
    assert_eq!(body["namespaces"], json!(["till", "billing"]));
    let (code, _, stderr) = amends(&["token", "list", "--namespace", "till"], None);
    assert!(code == Some(2) && stderr.contains("--namespace changes nothing"), "{stderr}");

    // The token would be made, and nobody would have it.
    let (code, stdout, stderr) = amends(&[&new[..], &["-o", "ids"]].concat(), None);
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
    assert!(asked.try_recv().is_err(), "the host was asked");
    let (code, _, stderr) = amends(&["token", "new", "shop"], None);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--role <ROLE>"), "{stderr}");
}

#[test]
fn tokens_are_listed_and_revoked() {
    let (address, asked) = host(200, "", json!({"items": [view("active")]}));
    let (code, stdout, stderr) = amends(&["token", "list", "--host", &address], Some("admin"));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let lines: Vec<_> = stdout.lines().collect();
    let columns = lines[0].split("  ").map(str::trim).filter(|column| !column.is_empty());
    let columns: Vec<_> = columns.collect();
    let named = ["NAME", "ID", "ROLES", "PAYLOADS", "NAMESPACES", "STATE", "LAST USED", "EXPIRES"];
    assert_eq!(columns, named);
    assert!(lines[1].starts_with("shop") && lines[1].ends_with("never"), "{stdout}");
    let request = asked.recv().unwrap();
    assert_eq!(request.line, "GET /v1/tokens HTTP/1.1");
    assert_eq!(request.authorization.as_deref(), Some("Bearer admin"));
    let (_, stdout, _) = amends(&["token", "list", "--host", &address, "-o", "ids"], None);
    assert_eq!(stdout, "k3Jq9ZbX0a\n");

    let (address, asked) = host(200, "", view("revoked"));
    let revoke = ["token", "revoke", "shop", "--reason", "it leaked", "--host", address.as_str()];
    let (code, stdout, stderr) = amends(&revoke, Some("admin"));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("shop (k3Jq9ZbX0a) is revoked"), "{stdout}");
    let request = asked.recv().unwrap();
    assert_eq!(request.line, "POST /v1/tokens/shop/revoke HTTP/1.1");
    assert_eq!(request.body, r#"{"reason":"it leaked"}"#);
}

#[test]
fn a_caller_sees_who_they_are() {
    let me = |has_access_control: bool| {
        json!({
            "who": "shop@127.0.0.1", "access_control": has_access_control, "roles": ["viewer"],
            "permissions": ["read"], "namespaces": ["default"], "expires_at": null,
        })
    };
    let (address, _asked) = host(200, "", me(true));
    let (code, stdout, stderr) = amends(&["me", "--host", &address], Some(TOKEN));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let words: Vec<_> = stdout.split_whitespace().collect();
    assert_eq!(words[5..], ["shop@127.0.0.1", "viewer", "read", "default", "never"], "{stdout}");
    let (address, _asked) = host(200, "", me(false));
    let (_, stdout, _) = amends(&["me", "--host", &address], None);
    assert!(stdout.starts_with("shop@127.0.0.1: the host has no access control"), "{stdout}");
}

#[test]
fn the_audit_is_a_table_of_who_asked_for_what() {
    let entry = |version: u32, who: Option<&str>, status: Option<u16>, count: Option<u32>| {
        let operation = who.map(|_| "cancel_saga");
        let code = status.is_none_or(|status| status >= 400).then_some("saga_unknown");
        json!({
            "version": version, "type": "audit.recorded", "at": "2026-01-02T03:04:05.678Z",
            "who": who, "token": null, "roles": [], "address": "10.0.0.7", "operation": operation,
            "target": who.map(|_| "/v1/sagas/7/cancel"), "status": status, "code": code,
            "count": count, "since": null, "chain": null,
        })
    };
    let entries = [
        entry(7, Some("ada@10.0.0.7"), Some(200), None),
        entry(8, Some("eve@10.0.0.7"), Some(404), None),
        entry(9, None, None, Some(12)),
    ];
    let (address, asked) = host(200, "", json!({"items": entries}));
    let audit = ["audit", "--host", address.as_str()];
    let (code, stdout, stderr) = amends(&[&audit[..], &["--limit", "3"]].concat(), Some("admin"));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(asked.recv().unwrap().line, "GET /v1/audit?limit=3 HTTP/1.1");
    let rows: Vec<Vec<_>> = stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["ENTRY", "AT", "WHO", "OPERATION", "OUTCOME", "TARGET"]);
    let at = "2026-01-02T03:04:05.678Z";
    assert_eq!(rows[1], ["7", at, "ada@10.0.0.7", "cancel_saga", "200", "/v1/sagas/7/cancel"]);
    assert_eq!(rows[2][4..], ["404", "saga_unknown", "/v1/sagas/7/cancel"]);
    assert_eq!(rows[3][..5], ["9", at, "10.0.0.7", "saga_unknown", "12"], "{stdout}");

    let (code, stdout, _) = amends(&[&audit[..], &["--after", "6", "-o", "ids"]].concat(), None);
    assert_eq!((code, stdout.as_str()), (Some(0), "7\n8\n9\n"));
    assert_eq!(asked.recv().unwrap().line, "GET /v1/audit?limit=1000&after=6 HTTP/1.1");
    for wrong in [&["--limit", "0"][..], &["--limit", "1001"], &["--limit", "1", "--after", "1"]] {
        let (code, _, stderr) = amends(&[&audit[..], wrong].concat(), None);
        assert_eq!(code, Some(2), "{stderr}");
    }
}

#[test]
fn a_host_that_asks_for_a_token_is_answered_by_what_to_do() {
    let problem = |status: u16, code: &str| {
        json!({
            "type": format!("urn:amends:problem:{code}"), "title": "Error", "status": status,
            "code": code, "detail": "no", "remedy": "send the header authorization: Bearer TOKEN",
        })
    };
    for (status, code, told) in [
        (401, "token_missing", "set AMENDS_TOKEN to a token of this host"),
        (401, "token_revoked", "set AMENDS_TOKEN (or --token) to another token"),
        (403, "permission_missing", "`amends me` says what the token may do"),
    ] {
        let (address, _asked) = host(status, "", problem(status, code));
        for verb in ["list", "me"] {
            let (exit, stdout, stderr) = amends(&[verb, "--host", &address], None);
            assert_eq!((exit, stdout.as_str()), (Some(3), ""), "{stderr}");
            assert!(stderr.starts_with("error: no\n  help: ") && stderr.contains(told), "{stderr}");
        }
    }
}

#[test]
fn a_token_that_no_header_can_say_is_not_printed() {
    for arguments in [&["me"][..], &["me", "--token", "hunter2 and more"]] {
        let (code, _, stderr) = amends(arguments, Some("hunter2\nand more"));
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains("AMENDS_TOKEN") && !stderr.contains("hunter2"), "{stderr}");
    }
}

/// The token would go to an address that nobody named, and an order would become a question.
#[test]
fn a_redirect_is_not_followed() {
    let (elsewhere, asked_there) = host(200, "", json!({"items": []}));
    let location = format!("location: http://{elsewhere}/v1/tokens/shop/revoke\r\n");
    let (address, _asked) = host(301, location.leak(), json!({}));
    let revoke = ["token", "revoke", "shop", "--reason", "why", "--host", address.as_str()];
    let (code, _, stderr) = amends(&revoke, Some(TOKEN));
    assert_eq!(code, Some(1), "{stderr}");
    let told =
        format!("it says http://{elsewhere}/v1/tokens/shop/revoke\n  help: give the address");
    assert!(stderr.contains(&told), "{stderr}");
    assert!(asked_there.try_recv().is_err(), "the redirect was followed");
}

/// Nothing at the address speaks TLS, so nothing is sent.
#[test]
fn an_encrypted_address_is_never_asked_in_plain_text() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let first = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut first = [0];
        stream.read_exact(&mut first).map(|()| first[0]).ok()
    });
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.pem");
    let run = |certificates: Option<&std::path::Path>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
        command.args(["me", "--host", &address]).env_clear().env("AMENDS_TOKEN", TOKEN);
        if let Some(file) = certificates {
            command.env("SSL_CERT_FILE", file);
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, stderr) = run(Some(&missing));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("no client for HTTPS") && stderr.contains("SSL_CERT_FILE"), "{stderr}");
    let (code, stderr) = run(None);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("SSL_CERT_FILE"), "{stderr}");
    if !stderr.contains("no client for HTTPS") {
        assert!(stderr.contains("cannot be reached: "), "{stderr}");
        assert_eq!(first.join().unwrap(), Some(0x16), "the first byte of a TLS handshake");
    }
}
