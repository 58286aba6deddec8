//! Pages in a real browser that try everything on a host that is none of their business.

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use amends_tests::{Behaviour, Component};
use serde_json::{Value, json};

use crate::place::{Host, Place, agent};

/// The browser tries some hundred requests; machines are shared.
const REPORT_TIME_MAX: Duration = Duration::from_mins(5);

const SCRIPT: &str = include_str!("browser/attack.js");

/// `pack` keeps state and undoes, `slow` waits for an hour.
fn place() -> Place {
    let place = Place::empty();
    fs::write(place.plugin("pack"), component("1.0.0")).unwrap();
    place.config(
        "[plugin.pack]\nstate = true\n\
         [[saga]]\nname = \"good\"\n[[saga.step]]\nname = \"pack\"\nplugin = \"pack\"\n\
         [[saga]]\nname = \"slow\"\n[[saga.step]]\nname = \"pack\"\nplugin = \"pack\"\n\
         [[saga.step]]\nname = \"pause\"\nsleep = \"1h\"\n",
    );
    place
}

fn component(version: &'static str) -> Vec<u8> {
    Component { name: "pack", version, execute: Behaviour::Done, ..Component::default() }.build()
}

/// A request on a route, as somebody would make it who means harm.
fn attack(method: &str, route: &str, saga: &str) -> Value {
    let path = route
        .replace("/v1/plugins/{name}", "/v1/plugins/pack")
        .replace("{id}", saga)
        .replace("{name}", "approved")
        .replace("{key}", "stock/evil");
    let (query, body) = match route {
        "/v1/plugins:deploy" => ("?force=true&reason=evil", "{}"),
        "/v1/sagas" | "/v1/sagas:batch" => ("", r#"{"definition":"good"}"#),
        "/v1/plugins/{name}/state:import" => ("", r#"{"key":"stock/evil","value":666}"#),
        "/v1/sagas/{id}/signals/{name}" => ("", r#"{"payload":"evil"}"#),
        _ => ("", r#"{"reason":"evil"}"#),
    };
    let query = if method == "POST" { query } else { "" };
    let is_upload = matches!(route, "/v1/plugins:deploy" | "/v1/plugins:rehearse");
    json!({"method": method, "path": format!("{path}{query}"), "body": body, "upload": is_upload})
}

/// A request on each route that the host describes, and on some that it does not.
fn attacks(host: &Host, saga: &str) -> Vec<Value> {
    let document = host.get("/v1/openapi.json");
    let paths = document["paths"].as_object().unwrap().iter();
    let mut attacks: Vec<Value> = paths
        .flat_map(|(route, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(|method| attack(&method.to_uppercase(), route, saga))
        })
        .collect();
    assert!(attacks.len() > 30, "{attacks:?}");
    for path in ["/", "/v1/openapi.json", "/v1/none"] {
        attacks.push(attack("GET", path, saga));
    }
    attacks
}

/// Serves the page, and passes everything else on to the host, as a name does that was the page's own
/// and points to this machine by now.
struct Attacker {
    script: String,
    component: Vec<u8>,
    host_port: u16,
    reports: Sender<Value>,
}

impl Attacker {
    /// Answers on this address until the test is over.
    fn listen(self, listener: TcpListener) {
        let attacker = Arc::new(self);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let attacker = Arc::clone(&attacker);
                std::thread::spawn(move || attacker.answer(&stream));
            }
        });
    }

    /// One request; the connection ends with its answer.
    fn answer(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if lower.starts_with("connection:") {
                continue;
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let answer = |kind: &str, body: &[u8]| {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\
                 content-length: {length}\r\n\r\n"
            );
            (&*stream).write_all(&[head.as_bytes(), body].concat()).ok()
        };
        match head.split(' ').nth(1)? {
            "/attack" => {
                let page = format!("<!doctype html><body><script>{}</script>", self.script);
                answer("text/html", page.as_bytes())
            }
            "/attack/component.wasm" => answer("application/wasm", &self.component),
            "/attack/report" => {
                let _ = self.reports.send(serde_json::from_slice(&body).unwrap());
                answer("text/plain", b"")
            }
            _ => {
                let mut host = TcpStream::connect(("127.0.0.1", self.host_port)).ok()?;
                let head = format!("{head}connection: close\r\n\r\n");
                host.write_all(&[head.as_bytes(), &body].concat()).ok()?;
                std::io::copy(&mut host, &mut &*stream).ok().map(|_| ())
            }
        }
    }
}

/// A browser without a window, which ends with the test.
struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Opens an address; none when there is no browser on this machine. Names are resolved as `rules`
    /// say.
    fn open(url: &str, rules: &str) -> Option<Self> {
        let profile = tempfile::tempdir().unwrap();
        let spawned = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--disable-background-networking", "--disable-component-update"])
            .args(["--disable-sync", "--no-first-run", "--no-proxy-server"])
            .arg("--disable-default-apps")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--host-resolver-rules={rules}"))
            .arg(url)
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match spawned {
            Ok(child) => Some(Self { child, _profile: profile }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                amends_tests::skipped("pages in a browser", "chromium is not installed");
                None
            }
            Err(error) => panic!("chromium does not start: {error}"),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that somebody could have changed.
fn everything(host: &Host) -> Value {
    let mut plugins = host.get("/v1/plugins");
    let state = host.get("/v1/plugins/pack/state");
    for plugin in plugins["items"].as_array_mut().unwrap() {
        plugin.as_object_mut().unwrap().remove("last_rejection");
    }
    json!({"events": host.events(), "sagas": host.sagas(), "plugins": plugins, "state": state})
}

/// Has a page of this address try everything; what it could read.
fn try_everything(place: &Place, host: &Host, name: &str, bases: &[String]) -> Option<Vec<Value>> {
    let saga = json!({"definition": "slow"}).to_string();
    let started = agent().post(host.url("/v1/sagas"));
    let mut started =
        started.header("content-type", "application/json").send(saga.as_str()).unwrap();
    let started: Value = started.body_mut().read_json().unwrap();
    host.until("the saga waits", || {
        host.get(&format!("/v1/sagas/{}", started["id"].as_str().unwrap()))["status"] == "waiting"
    });
    let attacks = attacks(host, started["id"].as_str().unwrap());
    let (bases, count) = (json!(bases), attacks.len());
    let (reports, reported): (_, Receiver<Value>) = channel();
    let script = format!("const HOSTS = {bases}, ATTACKS = {};\n{SCRIPT}", json!(attacks));
    let component = component("6.6.6");
    // The host's port on another loopback address: to the browser a name that points to it by now.
    let listener = TcpListener::bind(("127.0.0.2", place.port)).unwrap();
    Attacker { script, component, host_port: place.port, reports }.listen(listener);
    let before = everything(host);
    let url = format!("http://{name}:{}/attack", place.port);
    let _browser = Browser::open(&url, &format!("MAP {name} 127.0.0.2"))?;
    let report = reported.recv_timeout(REPORT_TIME_MAX).expect("the page does not report");
    let sent = report["sent"].as_u64().unwrap();
    assert!(sent > 2 * count as u64, "the page tried {sent} requests only");
    let after = everything(host);
    for what in ["events", "sagas", "plugins", "state"] {
        assert_eq!(after[what], before[what], "{what} after {sent} requests");
    }
    Some(report["read"].as_array().unwrap().clone())
}

#[test]
fn a_page_of_another_site_does_nothing_and_reads_nothing() {
    let place = place();
    let host = place.run();
    let bases = ["127.0.0.1", "localhost"].map(|name| format!("http://{name}:{}", place.port));
    let read = try_everything(&place, &host, "evil.example", &bases);
    assert_eq!(read.unwrap_or_default(), Vec::<Value>::new());
}

#[test]
fn a_page_whose_name_points_to_the_host_by_now_does_nothing_and_reads_refusals() {
    let place = place();
    let host = place.run();
    let own = [format!("http://rebind.example:{}", place.port)];
    let Some(read) = try_everything(&place, &host, "rebind.example", &own) else { return };
    // To the browser they are the page's own, so it sees what is answered.
    assert!(!read.is_empty(), "the page reached the host");
    for text in read {
        assert!(text.as_str().unwrap().contains("urn:amends:problem:wrong_host"), "{text}");
    }
}
