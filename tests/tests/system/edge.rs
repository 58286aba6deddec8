//! The edge of the HTTP API: a host that speaks TLS itself, how it gets a new certificate, and how often somebody may
//! ask.

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use crate::access::asker::{ADMIN, ADMIN_VARIABLE, AUTH, Asker, make, run};
use crate::place::{Host, Place, SOON, agent, stderr, stdout};
use crate::tls::Authority;

const SAGA: &str =
    "[[saga]]\nname = \"gate\"\n[[saga.step]]\nname = \"approval\"\nwait = \"approved\"\n";

/// A place whose host has a certificate of this authority.
struct Edge {
    place: Place,
    authority: Authority,
    client: Client,
}

/// A client that trusts the authority.
struct Client {
    trust: Arc<ClientConfig>,
    port: u16,
}

impl Edge {
    fn new() -> Self {
        let (place, authority) = (Place::empty(), Authority::new());
        place.config(&format!("{AUTH}{SAGA}"));
        let path = place.path("amends.toml");
        let text = fs::read_to_string(&path).unwrap();
        let usual = "[host]\nlisten = \"127.0.0.1:";
        assert!(text.contains(usual), "{text}");
        // Other machines reach it, without a proxy.
        let tls = "[host]\ntls = { certificate = \"tls/host.pem\", key = \"tls/host.key\" }\n\
                   listen = \"0.0.0.0:";
        fs::write(&path, text.replace(usual, tls)).unwrap();
        fs::create_dir(place.path("tls")).unwrap();
        fs::write(place.path("roots.pem"), authority.certificate.pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client { trust: Arc::new(trust), port: place.port };
        let edge = Self { place, authority, client };
        edge.write(&edge.signed());
        edge
    }

    /// A new certificate and its key, in PEM.
    fn signed(&self) -> (String, String) {
        let (certificate, key) = self.authority.signed();
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes both into the files that the config names, one after the other.
    fn write(&self, (certificate, key): &(String, String)) {
        fs::write(self.place.path("tls/host.pem"), certificate).unwrap();
        fs::write(self.place.path("tls/host.key"), key).unwrap();
    }

    /// Starts the host and waits until it is ready.
    fn run(&self) -> Host {
        let host = self.place.spawn_with_env(&[ADMIN_VARIABLE]);
        host.until("it is ready", || self.client.status("/readyz") == Some(200));
        host
    }

    /// The command line, over https.
    fn amends(&self, arguments: &[&str]) -> Output {
        let mut command = self.place.command(arguments);
        command.env("AMENDS_HOST", format!("https://localhost:{}", self.place.port));
        command.env("AMENDS_TOKEN", ADMIN).env("SSL_CERT_FILE", self.place.path("roots.pem"));
        command.output().unwrap()
    }
}

impl Client {
    fn connect(&self) -> io::Result<Https> {
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::clone(&self.trust), name).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(SOON))?;
        Ok(Https(StreamOwned::new(connection, stream)))
    }

    /// The status of the answer to a request with the token of the config, on a connection of its own.
    fn status(&self, path: &str) -> Option<u16> {
        Some(self.connect().ok()?.get(path).ok()?.0)
    }

    /// The certificate that a new connection gets.
    fn served(&self) -> Vec<u8> {
        let mut https = self.connect().unwrap();
        https.get("/healthz").unwrap();
        https.0.conn.peer_certificates().unwrap()[0].to_vec()
    }
}

/// A connection with TLS.
struct Https(StreamOwned<ClientConnection, TcpStream>);

impl Https {
    /// Asks on this connection, which stays open; the status and the body.
    fn get(&mut self, path: &str) -> io::Result<(u16, String)> {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n");
        let request = format!("{head}authorization: Bearer {ADMIN}\r\n\r\n");
        self.0.write_all(request.as_bytes())?;
        let mut said = Vec::new();
        loop {
            if let Some(answer) = whole(&String::from_utf8_lossy(&said)) {
                return Ok(answer);
            }
            let mut buffer = [0; 4_096];
            match self.0.read(&mut buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                length => said.extend_from_slice(&buffer[..length]),
            }
        }
    }
}

/// The status and the body of an answer, when all of it is there.
fn whole(text: &str) -> Option<(u16, String)> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    (body.len() == length.parse::<usize>().unwrap()).then(|| (status, body.to_owned()))
}

/// What the host says until it closes the connection, and how long that takes.
fn to_the_end(port: u16, text: &[u8]) -> (String, Duration) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(text).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut said = Vec::new();
    if let Err(error) = stream.read_to_end(&mut said) {
        let is_late = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!is_late, "the connection is still open");
    }
    (String::from_utf8_lossy(&said).into_owned(), began.elapsed())
}

/// The lines of the log with this message.
fn lines(log: &[String], message: &str) -> Vec<Value> {
    let parsed = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|line| line["message"].as_str().is_some_and(|it| it.contains(message))).collect()
}

#[test]
fn a_host_with_a_certificate_takes_https_and_nothing_else() {
    let edge = Edge::new();
    let host = edge.run();
    let port = edge.place.port;
    let output = edge.amends(&["me"]);
    assert!(stdout(&output).contains("admin_token@127.0.0.1"), "{}", stderr(&output));
    let output = edge.amends(&["start", "gate", "-o", "ids"]);
    assert!(output.status.success(), "{}", stderr(&output));
    // Whoever does not trust the authority sends no token.
    let mut command = edge.place.command(&["me"]);
    command.env("AMENDS_HOST", format!("https://localhost:{port}")).env("AMENDS_TOKEN", ADMIN);
    fs::write(edge.place.path("others.pem"), Authority::new().certificate.pem()).unwrap();
    let output = command.env("SSL_CERT_FILE", edge.place.path("others.pem")).output().unwrap();
    assert!(!output.status.success(), "{}", stdout(&output));
    assert!(stderr(&output).contains("cannot be reached"), "{}", stderr(&output));

    let mut answer = agent().get(host.url("/v1/me")).call().unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((answer.status().as_u16(), &problem["code"]), (400, &json!("https_only")), "{text}");
    let told = to_the_end(port, b"GET /v1/sagas HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert!(told.0.contains("connection: close") && told.0.contains("https_only"), "{}", told.0);
    assert!(told.1 < Duration::from_secs(10), "{:?}", told.1);
    // A record of a handshake that is none.
    let told = to_the_end(port, b"\x16\x03\x01\x00\x05hello");
    assert!(told.1 < Duration::from_secs(10), "{:?}", told.1);
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_handshake_that_does_not_end_is_not_waited_for() {
    let edge = Edge::new();
    let client = &edge.client;
    let host = edge.run();
    let port = edge.place.port;
    let before = host.descriptors();
    let silent: [&'static [u8]; 3] =
        [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"];
    let waiting: Vec<_> = silent
        .into_iter()
        .flat_map(|text| [text; 5])
        .map(|text| std::thread::spawn(move || to_the_end(port, text)))
        .collect();
    // Nobody else waits for them.
    let began = Instant::now();
    assert_eq!(client.status("/v1/me"), Some(200));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for one in waiting {
        let (said, time) = one.join().unwrap();
        assert_eq!(said, "");
        assert!(time >= Duration::from_secs(9), "a client may take a moment: {time:?}");
    }
    host.until("their connections are closed", || host.descriptors() <= before + 2);
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_new_certificate_comes_while_every_request_is_answered() {
    let edge = Edge::new();
    let client = &edge.client;
    // As Kubernetes mounts a secret: a link of a folder is exchanged.
    let at = |name: &str| edge.place.path(&format!("tls/{name}"));
    let exchange = |name: &str, (certificate, key): &(String, String)| {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("host.pem"), certificate).unwrap();
        fs::write(at(name).join("host.key"), key).unwrap();
        symlink(name, at("next")).unwrap();
        fs::rename(at("next"), at("data")).unwrap();
    };
    for file in ["host.pem", "host.key"] {
        fs::remove_file(at(file)).unwrap();
        symlink(format!("data/{file}"), at(file)).unwrap();
    }
    exchange("1", &edge.signed());
    let host = edge.run();
    let first = client.served();
    let mut kept = client.connect().unwrap();
    assert_eq!(kept.get("/v1/me").unwrap().0, 200);

    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let told = client.connect().and_then(|mut https| https.get("/v1/me"));
                    let is_answered = told.as_ref().is_ok_and(|(status, _)| *status == 200);
                    if !is_answered {
                        is_over.store(true, Ordering::Relaxed);
                    }
                    assert!(is_answered, "{told:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        exchange("2", &edge.signed());
        let began = Instant::now();
        while client.served() == first && began.elapsed() < SOON && !is_over.load(Ordering::Relaxed)
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_ne!(client.served(), first);
    assert!(answered.load(Ordering::Relaxed) > 10, "{answered:?}");
    // A connection keeps what it began with.
    assert_eq!(kept.get("/v1/me").unwrap().0, 200);
    assert_eq!(lines(&host.log(), "the certificate was read again").len(), 1);
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_certificate_that_cannot_be_used_leaves_the_one_before_in_service() {
    let edge = Edge::new();
    let client = &edge.client;
    let host = edge.run();
    let first = client.served();
    let (_, other) = edge.signed();
    fs::write(edge.place.path("tls/host.key"), other).unwrap();
    let broken = "the new certificate cannot be used";
    host.until("it says so", || !lines(&host.log(), broken).is_empty());
    // Some more looks at the same files.
    std::thread::sleep(Duration::from_secs(7));
    let told = lines(&host.log(), broken);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["level"], "ERROR");
    let error = told[0]["error"].as_str().unwrap();
    assert!(error.contains("host.key is not that of the first certificate in"), "{error}");
    assert_eq!(client.served(), first);

    // Whoever says that there is a new one does not wait for the next look.
    edge.write(&edge.signed());
    host.signal(Signal::HUP);
    host.until("the new one is in service", || client.served() != first);
    assert_eq!(lines(&host.log(), "SIGHUP: the certificate is read again").len(), 1);
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_host_does_not_start_with_a_certificate_that_cannot_be_used() {
    let edge = Edge::new();
    let (good, key) = edge.signed();
    let (_, other) = edge.signed();
    for (files, words) in [
        ((&good, &other), "host.key is not that of the first certificate in"),
        ((&key, &key), "host.pem has no certificate in PEM"),
        ((&good, &good), "host.key has no private key in PEM"),
    ] {
        edge.write(&(files.0.clone(), files.1.clone()));
        let host = edge.place.spawn_with_env(&[ADMIN_VARIABLE]);
        let (code, log) = host.ended_logged();
        let log = log.join("\n");
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(words) && log.contains("help: tls in [host] names"), "{log}");
    }
    fs::remove_file(edge.place.path("tls/host.pem")).unwrap();
    let (code, log) = edge.place.spawn_with_env(&[ADMIN_VARIABLE]).ended_logged();
    let log = log.join("\n");
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("host.tls.certificate: there is no file"), "{log}");
    // Whoever checks a config need not have the key of the host that runs it.
    let checked = edge.place.command(&["check", "amends.toml"]).output().unwrap();
    assert!(checked.status.success(), "{}", stdout(&checked));
    assert!(stdout(&checked).contains("warning: host.tls.certificate"), "{}", stdout(&checked));
}

/// The entries of the audit.
fn entries(host: &Host) -> Vec<Value> {
    let page = Asker::with(ADMIN).get(host, "/v1/audit?after=0&limit=1000").done();
    page["items"].as_array().unwrap().clone()
}

#[test]
fn a_token_that_asks_too_often_is_told_to_wait_and_nobody_else_is() {
    const FLOOD: usize = 300;
    let place = Place::empty();
    place.config(&format!("{AUTH}rate = {{ per_second = 1, burst = 20 }}\n{SAGA}"));
    let host = run(&place);
    let shop = make(&host, "shop", &["operator"], false);
    let grace = make(&host, "grace", &["operator"], false);
    let client = agent();
    let note = |host: &Host, token: &str| {
        let request = client.post(host.url("/v1/sagas/0198c0de-0000-7000-8000-000000000000/note"));
        let request = request.header("authorization", format!("Bearer {token}"));
        request.send_json(json!({"reason": "a test"})).unwrap()
    };
    let mut refused = 0;
    for _ in 0..FLOOD {
        let mut answer = note(&host, &shop);
        let after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap());
        let after = after.map(|value| value.parse::<u64>().unwrap());
        if answer.status() == 404 {
            assert_eq!(after, None);
            continue;
        }
        assert_eq!(answer.status(), 429);
        assert!(after.is_some_and(|seconds| (1..=21).contains(&seconds)), "{after:?}");
        let problem: Value = answer.body_mut().read_json().unwrap();
        assert_eq!(problem["code"], "rate_limited");
        assert!(problem["detail"].as_str().unwrap().contains("`shop`"), "{problem}");
        refused += 1;
    }
    assert!(refused > 0, "the host has answered all of {FLOOD} requests");
    // The person on call has another token, and whoever watches the host has no rate.
    Asker::with(&grace).get(&host, "/v1/sagas").done();
    for path in ["/healthz", "/readyz"].repeat(50) {
        assert_eq!(Asker::with(&shop).get(&host, path).status, 200, "{path}");
    }
    assert_eq!(host.stop(), Some(0));
    // The audit counts them, and has no entry for each.
    let host = run(&place);
    let entries = entries(&host);
    let counted = entries.iter().filter(|entry| entry["code"] == "rate_limited");
    let counted: u64 = counted.map(|entry| entry["count"].as_u64().unwrap()).sum();
    assert_eq!(counted, refused, "{entries:?}");
    // The command line waits until it may ask.
    while note(&host, &shop).status() != 429 {}
    let listed = place.command(&["list"]).env("AMENDS_TOKEN", &shop).output().unwrap();
    assert!(listed.status.success(), "{}", stderr(&listed));
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_flood_without_tokens_is_told_to_wait_and_tokens_are_not() {
    let place = Place::empty();
    place.config(&format!("{AUTH}{SAGA}"));
    let host = run(&place);
    let (client, began) = (agent(), Instant::now());
    // A sender of events may show another thing than a token, and is refused later.
    for (method, path, body) in [("GET", "/v1/me", ""), ("POST", "/v1/on/nothing", "{}")] {
        let refused = loop {
            assert!(began.elapsed() < SOON, "nobody is told to wait");
            let request = ureq::http::Request::builder().method(method).uri(host.url(path));
            let request = request.header("authorization", "Bearer nonsense");
            let request = request.header("content-type", "application/cloudevents+json");
            let mut answer = client.run(request.body(body).unwrap()).unwrap();
            let text = answer.body_mut().read_to_string().unwrap();
            match answer.status().as_u16() {
                401 => assert!(text.contains("token_wrong"), "{text}"),
                _ => break (answer.status().as_u16(), text),
            }
        };
        assert!(refused.0 == 429 && refused.1.contains("rate_limited"), "{path}: {refused:?}");
    }
    // From the same address.
    Asker::with(ADMIN).get(&host, "/v1/me").done();
    assert_eq!(Asker::default().get(&host, "/readyz").status, 200);
    assert_eq!(host.stop(), Some(0));
}
