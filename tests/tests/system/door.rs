//! Whose requests a host answers at all: what they are addressed to, where they come from, and of
//! which type they are.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use amends_tests::Component;
use serde_json::{Value, json};

use crate::place::{Host, Place};

fn place(more: &str) -> Place {
    let place = Place::empty();
    fs::write(place.plugin("pack"), Component { name: "pack", ..Component::default() }.build())
        .unwrap();
    place.config(
        "[plugin.pack]\nstate = true\n\
         [[saga]]\nname = \"good\"\n[[saga.step]]\nname = \"pack\"\nplugin = \"pack\"\n",
    );
    let config = fs::read_to_string(place.path("amends.toml")).unwrap();
    fs::write(place.path("amends.toml"), config.replace("[host]\n", &format!("[host]\n{more}")))
        .unwrap();
    place
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["code"].as_str().unwrap_or_default().to_owned()
    }

    fn has(&self, line: &str) -> bool {
        self.head.to_ascii_lowercase().lines().any(|other| other == line)
    }
}

/// Sends these very bytes. The connection is to end with the answer.
fn send(place: &Place, request: &str) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", place.port)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no answer to {request}: {answer}"));
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// A request with these header lines besides the usual.
fn ask(place: &Place, method: &str, path: &str, lines: &str, body: &str) -> Answer {
    let length = body.len();
    send(
        place,
        &format!(
            "{method} {path} HTTP/1.1\r\n{lines}connection: close\r\n\
             content-length: {length}\r\n\r\n{body}"
        ),
    )
}

/// Each method on each route that the host describes, and some that it does not.
fn routes(host: &Host) -> Vec<(String, String)> {
    let document = host.get("/v1/openapi.json");
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(route, methods): (&String, &Value)| {
        let path = route
            .replace("/v1/plugins/{name}", "/v1/plugins/pack")
            .replace("{id}", "0198c0de-0000-7000-8000-000000000000")
            .replace("{name}", "pack")
            .replace("{key}", "stock/7");
        let methods = methods.as_object().unwrap().keys();
        methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
    };
    let mut routes: Vec<_> = paths.iter().flat_map(of_path).collect();
    assert!(routes.len() > 30, "{routes:?}");
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/v1/openapi.json"),
        ("GET", "/v1/none"),
        ("POST", "/v1/none"),
        ("PATCH", "/v1/sagas"),
        ("OPTIONS", "/v1/sagas:batch"),
        ("HEAD", "/healthz"),
    ] {
        routes.push((method.to_owned(), path.to_owned()));
    }
    routes
}

/// What no route answers, by the header lines.
fn refused(place: &Place) -> Vec<(String, u16, &'static str)> {
    let port = place.port;
    let own = format!("host: 127.0.0.1:{port}\r\n");
    let host = |text: &str| format!("host: {text}\r\n");
    let mut refused = vec![
        (String::new(), 400, "bad_host"),
        (own.repeat(2), 400, "bad_host"),
        (format!("{own}{}", host("evil.example")), 400, "bad_host"),
        (host("evil example"), 400, "bad_host"),
        (host("eve@localhost"), 400, "bad_host"),
        (host(""), 400, "bad_host"),
    ];
    for name in [
        "evil.example",
        "rebind.example:7070",
        "localhost.evil.example",
        "evil.localhost",
        "0.0.0.0",
        "10.0.0.1",
        "[::]",
        "[::ffff:10.0.0.1]",
        "2130706433",
    ] {
        refused.push((host(name), 421, "wrong_host"));
    }
    for origin in [
        "http://evil.example",
        "null",
        "https://127.0.0.1",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "file://",
        "http://localhost",
    ] {
        refused.push((format!("{own}origin: {origin}\r\n"), 403, "cross_site"));
    }
    let twice = format!("{own}origin: http://127.0.0.1:{port}\r\norigin: http://evil.example\r\n");
    refused.push((twice, 403, "cross_site"));
    for site in ["cross-site", "same-site", "nonsense"] {
        refused.push((format!("{own}sec-fetch-site: {site}\r\n"), 403, "cross_site"));
        for (mode, dest) in [("no-cors", "image"), ("navigate", "iframe"), ("cors", "document")] {
            let lines = format!(
                "{own}sec-fetch-site: {site}\r\nsec-fetch-mode: {mode}\r\nsec-fetch-dest: {dest}\r\n"
            );
            refused.push((lines, 403, "cross_site"));
        }
    }
    refused
}

#[test]
fn no_route_answers_another_name_or_another_site() {
    let place = place("");
    let host = place.run();
    let before = host.events();
    let mut wrong = Vec::new();
    for (method, path) in routes(&host) {
        for (lines, status, code) in refused(&place) {
            let lines = format!("{lines}content-type: application/json\r\namends-request: 1\r\n");
            let answer = ask(&place, &method, &path, &lines, "{\"reason\":\"evil\"}");
            let is_code = method == "HEAD" || answer.code() == code;
            if answer.status != status || !is_code {
                wrong.push(format!("{method} {path} {lines:?}: {} {}", answer.status, answer.body));
            }
        }
    }
    assert!(wrong.is_empty(), "{} answers, such as {}", wrong.len(), wrong[0]);
    assert_eq!(host.events(), before);
}

#[test]
fn what_the_host_is_called_on_its_machine_is_answered() {
    let place = place("public_url = \"https://Amends.Example.com\"\n");
    let _host = place.run();
    let port = place.port;
    let body = json!({"definition": "good"}).to_string();
    for lines in [
        format!("host: 127.0.0.1:{port}\r\n"),
        "host: 127.0.0.1\r\n".to_owned(),
        "host: localhost:8080\r\n".to_owned(),
        "host: LocalHost\r\n".to_owned(),
        "host: 127.8.9.10:1\r\n".to_owned(),
        format!("host: [::1]:{port}\r\n"),
        "host: amends.example.com\r\n".to_owned(),
        "host: AMENDS.example.com:443\r\n".to_owned(),
        // A page of the host's own: on this machine, and through a proxy that keeps the name or not.
        "host: localhost:8080\r\norigin: http://localhost:8080\r\nsec-fetch-site: same-origin\r\n"
            .to_owned(),
        "host: amends.example.com\r\norigin: https://amends.example.com\r\n".to_owned(),
        "host: 127.0.0.1:1\r\norigin: https://amends.example.com\r\n".to_owned(),
        "host: localhost\r\nsec-fetch-site: none\r\n".to_owned(),
    ] {
        let json = format!("{lines}content-type: application/json; charset=utf-8\r\n");
        let started = ask(&place, "POST", "/v1/sagas", &json, &body);
        assert_eq!(started.status, 202, "{lines:?}: {}", started.body);
        assert_eq!(ask(&place, "GET", "/v1/sagas", &lines, "").status, 200, "{lines:?}");
    }
    // Somebody's link to the host.
    let link = "host: localhost\r\nsec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\n\
                sec-fetch-dest: document\r\n";
    assert_eq!(ask(&place, "GET", "/v1/sagas", link, "").status, 200);
    let posted = format!("{link}content-type: application/json\r\n");
    assert_eq!(ask(&place, "POST", "/v1/sagas", &posted, &body).code(), "cross_site");
    // HTTP/1.0 knows no Host, and browsers do not speak it.
    assert_eq!(send(&place, "GET /healthz HTTP/1.0\r\n\r\n").status, 200);
    // A request as to a proxy: what it is for is named twice.
    let target = "GET http://evil.example/v1/sagas HTTP/1.1\r\nconnection: close\r\n";
    assert_eq!(send(&place, &format!("{target}host: evil.example\r\n\r\n")).code(), "wrong_host");
    assert_eq!(send(&place, &format!("{target}host: localhost\r\n\r\n")).code(), "bad_host");
    let target = "GET http://localhost/v1/sagas HTTP/1.1\r\nconnection: close\r\n";
    assert_eq!(send(&place, &format!("{target}host: localhost\r\n\r\n")).status, 200);
}

#[test]
fn what_a_form_can_send_is_never_taken() {
    let place = place("");
    let host = place.run();
    let before = host.events();
    let own = format!("host: 127.0.0.1:{}\r\n", place.port);
    let form = "--x\r\ncontent-disposition: form-data; name=\"pack\"\r\n\r\nbytes\r\n--x--\r\n";
    let mut posts = 0;
    for (method, path) in routes(&host) {
        if method != "POST" || path == "/v1/none" {
            continue;
        }
        posts += 1;
        let is_upload = path.ends_with("deploy") || path.ends_with("rehearse");
        let (status, code, right) = match &*path {
            _ if is_upload => (403, "request_header_missing", "`amends-request: 1`"),
            "/v1/sagas:batch" | "/v1/plugins/pack/state:import" | "/v1/store/import" => {
                (415, "not_ndjson", "`content-type: application/x-ndjson`")
            }
            "/v1/on/pack" => (415, "not_an_event", "`content-type: application/cloudevents+json`"),
            _ => (415, "not_json", "`content-type: application/json`"),
        };
        for kind in [
            "",
            "content-type: text/plain\r\n",
            "content-type: text/plain; x=application/json\r\n",
            "content-type: application/x-www-form-urlencoded\r\n",
            "content-type: multipart/form-data; boundary=x\r\n",
        ] {
            let path =
                if path == "/v1/store/import" { format!("{path}?reason=x") } else { path.clone() };
            let answer = ask(&place, "POST", &path, &format!("{own}{kind}"), form);
            let told = (answer.status, answer.code());
            assert_eq!(told, (status, code.to_owned()), "{path} {kind:?}: {}", answer.body);
            let body: Value = serde_json::from_str(&answer.body).unwrap();
            assert!(body["remedy"].as_str().unwrap().contains(right), "{body}");
        }
    }
    assert!(posts > 12, "{posts}");
    assert_eq!(host.events(), before);
    // A type alone is not enough where a form can send it, nor is the header alone.
    let header = format!("{own}amends-request: 1\r\n");
    let told = ask(&place, "POST", "/v1/plugins:deploy", &header, form);
    assert_eq!((told.status, &*told.code()), (400, "bad_form"), "{}", told.body);
}

#[test]
fn every_answer_says_what_browsers_may_do_with_it() {
    let place = place("");
    let host = place.run();
    let own = format!("host: 127.0.0.1:{}\r\n", place.port);
    let mut statuses = std::collections::BTreeSet::new();
    let mut look = |what: &str, answer: &Answer| {
        for line in [
            "x-content-type-options: nosniff",
            "cross-origin-resource-policy: same-origin",
            "cache-control: no-store",
        ] {
            assert!(answer.has(line), "{what}: {line} is not in\n{}", answer.head);
        }
        assert_eq!(answer.head.matches("cache-control").count(), 1, "{}", answer.head);
        let opened = answer.head.to_ascii_lowercase().contains("access-control-");
        assert!(!opened, "{what}: {}", answer.head);
        statuses.insert(answer.status);
    };
    for (method, path) in routes(&host) {
        look(&path, &ask(&place, &method, &path, &own, "{}"));
        look(&path, &ask(&place, &method, &path, "", "{}"));
        look(&path, &ask(&place, &method, &path, "host: evil.example\r\n", "{}"));
        look(&path, &ask(&place, &method, &path, &format!("{own}origin: null\r\n"), "{}"));
    }
    let json = format!("{own}content-type: application/json\r\n");
    let started = ask(&place, "POST", "/v1/sagas?wait=30s", &json, r#"{"definition":"good"}"#);
    look("a start", &started);
    let saga: Value = serde_json::from_str(&started.body).unwrap();
    let watch = format!("/v1/sagas/{}/watch", saga["id"].as_str().unwrap());
    let watched = ask(&place, "GET", &watch, &own, "");
    assert!(watched.has("content-type: text/event-stream"), "{}", watched.head);
    look("a watch", &watched);
    for status in [200, 202, 400, 403, 404, 405, 415, 421] {
        assert!(statuses.contains(&status), "{status} is not in {statuses:?}");
    }
    let about = ask(&place, "GET", "/", &own, "");
    assert!(about.body.contains("/v1/openapi.json"), "{}", about.body);
}
