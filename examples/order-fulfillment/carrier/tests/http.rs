//! The service from outside: the real binary on a port of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A carrier that runs as long as this lives.
struct Carrier {
    process: Child,
    /// `http://127.0.0.1:PORT`
    url: String,
    agent: ureq::Agent,
}

impl Carrier {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_carrier"))
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the carrier starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("it was piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let url = line.trim_end().strip_prefix("carrier listens on ").expect(&line).to_owned();
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .into();
        Self { process, url, agent }
    }

    fn get(&self, path: &str) -> (u16, Value) {
        read(self.agent.get(format!("{}{path}", self.url)).call().expect("an answer"))
    }

    fn post_label(&self, key: &str, reference: &str) -> Result<(u16, Value), ureq::Error> {
        let request = self.agent.post(format!("{}/labels", self.url));
        request.header("idempotency-key", key).send_json(parcel(reference)).map(read)
    }

    fn delete_label(&self, key: &str, reference: &str) -> Result<(u16, Value), ureq::Error> {
        let request = self.agent.delete(format!("{}/labels/{reference}", self.url));
        request.header("idempotency-key", key).call().map(read)
    }

    fn change_faults(&self, change: &Value) -> (u16, Value) {
        let request = self.agent.post(format!("{}/faults", self.url));
        read(request.send_json(change).expect("an answer"))
    }

    /// Sends bytes as they are and gives all that comes back.
    fn raw(&self, request: &str) -> Vec<u8> {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        // Closed or reset, it makes no difference.
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.url.trim_start_matches("http://")).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        stream
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        // Fails when it has ended, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn parcel(reference: &str) -> Value {
    json!({
        "reference": reference,
        "order_id": "ORD-1",
        "carrier": "letter-mail",
        "weight_g": 140,
        "insured": true,
    })
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, response.body_mut().read_json().expect("JSON"))
}

/// `POST /labels` as bytes, with `headers` that end in CRLF each.
fn raw_post(version: &str, headers: &str, reference: &str) -> String {
    let body = parcel(reference).to_string();
    let length = body.len();
    format!(
        "POST /labels {version}\r\nhost: carrier\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

#[test]
fn issues_shows_and_cancels() {
    let carrier = Carrier::start(&[]);
    let label = json!({ "label": "CP-000001", "reference": "LBL-1", "carrier": "letter-mail" });
    assert_eq!(carrier.post_label("k1", "LBL-1").expect("answered"), (201, label.clone()));
    assert_eq!(carrier.post_label("k1", "LBL-1").expect("answered"), (200, label));
    let (status, refusal) = carrier.post_label("k1", "LBL-2").expect("answered");
    assert_eq!((status, &refusal["code"]), (422, &json!("key_reused")));

    let (status, shown) = carrier.get("/labels/LBL-1");
    assert_eq!((status, &shown["status"]), (200, &json!("issued")));
    assert_eq!(carrier.get("/labels/LBL-2").0, 404);

    for _ in 0..2 {
        let answer = carrier.delete_label("u1", "LBL-1").expect("answered");
        assert_eq!(answer, (200, json!({ "cancelled": true })));
    }
    assert_eq!(carrier.get("/labels/LBL-1").1["status"], "cancelled");
    let entry = json!([{
        "key": "k1",
        "reference": "LBL-1",
        "order_id": "ORD-1",
        "label": "CP-000001",
        "status": "cancelled",
        "requests": 3,
        "traceparent": null,
    }]);
    assert_eq!(carrier.get("/ledger"), (200, entry));
    let counts = json!({
        "requests": 5,
        "failed": 0,
        "stalled": 0,
        "lost": 0,
        "duplicated": 0,
        "labels": 1,
        "cancelled": 1,
    });
    assert_eq!(carrier.get("/stats"), (200, counts));
}

#[test]
fn refuses_a_label_that_comes_after_its_cancellation() {
    let carrier = Carrier::start(&[]);
    let answer = carrier.delete_label("u1", "LBL-1").expect("answered");
    assert_eq!(answer, (200, json!({ "cancelled": false })));
    let (status, refusal) = carrier.post_label("k1", "LBL-1").expect("answered");
    assert_eq!((status, &refusal["code"]), (409, &json!("cancelled")));
    assert_eq!(carrier.get("/ledger").1, json!([]));
}

#[test]
fn a_request_that_fails_has_no_effect() {
    let carrier = Carrier::start(&["--fail", "1"]);
    let (status, refusal) = carrier.post_label("k1", "LBL-1").expect("answered");
    assert_eq!((status, &refusal["code"]), (503, &json!("unavailable")));
    assert_eq!(carrier.delete_label("u1", "LBL-1").expect("answered").0, 503);
    assert_eq!(carrier.get("/ledger").1, json!([]));
    assert_eq!(carrier.change_faults(&json!({ "fail": 0 })).0, 200);
    assert_eq!(carrier.post_label("k1", "LBL-1").expect("answered").0, 201, "no tombstone");
}

#[test]
fn a_lost_answer_has_its_effect() {
    let carrier = Carrier::start(&["--lose", "1"]);
    carrier.post_label("k1", "LBL-1").expect_err("lost");
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let answer = carrier.raw(&raw_post(version, "idempotency-key: k1\r\n", "LBL-1"));
        assert_eq!(String::from_utf8_lossy(&answer), "", "not even a status");
    }
    assert_eq!(carrier.get("/ledger").1[0]["requests"], 3);
    carrier.delete_label("u1", "LBL-1").expect_err("lost");
    assert_eq!(carrier.get("/labels/LBL-1").1["status"], "cancelled");
    assert_eq!(carrier.get("/stats").1["lost"], 4);
}

#[test]
fn a_duplicate_leaves_one_label() {
    let carrier = Carrier::start(&["--duplicate", "1"]);
    assert_eq!(carrier.post_label("k1", "LBL-1").expect("answered").0, 201);
    let ledger = carrier.get("/ledger").1;
    assert_eq!(ledger.as_array().map(Vec::len), Some(1));
    assert_eq!(ledger[0]["requests"], 2);
    let answer = carrier.delete_label("u1", "LBL-1").expect("answered");
    assert_eq!(answer, (200, json!({ "cancelled": true })));
    let stats = carrier.get("/stats").1;
    assert_eq!((&stats["duplicated"], &stats["cancelled"]), (&json!(2), &json!(1)));
}

#[test]
fn a_stalled_request_has_its_effect_without_its_caller() {
    let carrier = Carrier::start(&["--stall", "1", "--stall-for", "300ms"]);
    send_stalled_and_leave(&carrier, "k1", "LBL-1");
    assert_eq!(carrier.get("/ledger").1, json!([]), "not before the stall is over");
    wait_until(|| carrier.get("/labels/LBL-1").0 == 200);
}

#[test]
fn a_stalled_request_issues_nothing_after_its_cancellation() {
    let carrier = Carrier::start(&["--stall", "1", "--stall-for", "1s"]);
    send_stalled_and_leave(&carrier, "k1", "LBL-1");
    // When this one has its label, the first has been handled.
    send_stalled_and_leave(&carrier, "k2", "LBL-2");
    assert_eq!(carrier.change_faults(&json!({ "stall": 0 })).0, 200);
    let answer = carrier.delete_label("u1", "LBL-1").expect("answered");
    wait_until(|| carrier.get("/labels/LBL-2").0 == 200);
    let shown = carrier.get("/labels/LBL-1");
    // On a machine so slow that the label came first, it was cancelled.
    let came_first = answer.1["cancelled"] == true;
    assert!(
        if came_first { shown.1["status"] == "cancelled" } else { shown.0 == 404 },
        "{shown:?}"
    );
}

/// `POST /labels` whose caller closes the connection as soon as the request stalls.
fn send_stalled_and_leave(carrier: &Carrier, key: &str, reference: &str) {
    let stalled = || carrier.get("/stats").1["stalled"].as_u64();
    let before = stalled();
    let mut stream = carrier.connect();
    let request = raw_post("HTTP/1.1", &format!("idempotency-key: {key}\r\n"), reference);
    stream.write_all(request.as_bytes()).expect("sent");
    wait_until(|| stalled() > before);
}

#[test]
fn wants_its_token_everywhere() {
    let carrier =
        Carrier::start_with(&["--token-env", "CARRIER_TOKEN"], &[("CARRIER_TOKEN", "s3cret")]);
    for path in ["/healthz", "/ledger", "/stats", "/faults", "/labels/LBL-1", "/nothing"] {
        assert_eq!(carrier.get(path).0, 401, "{path}");
    }
    assert_eq!(carrier.post_label("k1", "LBL-1").expect("answered").0, 401);
    for (value, status) in [
        ("Bearer s3cret", 200),
        ("bearer s3cret", 200),
        ("Bearer s3creT", 401),
        ("Bearer s3cre", 401),
        ("Bearer s3crets", 401),
        ("Basic s3cret", 401),
        ("s3cret", 401),
    ] {
        let request = carrier.agent.get(format!("{}/healthz", carrier.url));
        let answer = read(request.header("authorization", value).call().expect("an answer"));
        assert_eq!(answer.0, status, "{value}");
    }
}

#[test]
fn refuses_what_is_malformed() {
    let carrier = Carrier::start(&[]);
    let refused = |body: &str, key: Option<&str>| {
        let mut request = carrier.agent.post(format!("{}/labels", carrier.url));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        read(request.send(body).expect("an answer")).0
    };
    let whole = parcel("LBL-1").to_string();
    assert_eq!(refused(&whole, None), 400);
    assert_eq!(refused(&whole, Some("")), 400);
    assert_eq!(refused(&whole, Some(&"k".repeat(256))), 400);
    assert_eq!(refused("{", Some("k1")), 400);
    assert_eq!(refused("{}", Some("k1")), 400);
    assert_eq!(refused(&parcel("").to_string(), Some("k1")), 400);
    assert_eq!(refused(&parcel(&"ü".repeat(65)).to_string(), Some("k1")), 400);
    assert_eq!(refused(&parcel(&"ü".repeat(64)).to_string(), Some("k1")), 201);
    assert_eq!(refused(&format!("{whole}{}", " ".repeat(64 << 10)), Some("k2")), 413);
    assert_eq!(carrier.get("/ledger").1.as_array().map(Vec::len), Some(1));
    assert_eq!(carrier.get("/stats").1["requests"], 1);
    assert_eq!(carrier.get("/nothing").0, 404);
    assert_eq!(carrier.get("/labels").0, 405);
}

#[test]
fn changes_its_faults_while_it_runs() {
    let carrier = Carrier::start(&["--lose", "0.5"]);
    let (status, answer) = carrier.change_faults(&json!({ "fail": 0.25, "stall_ms": 20 }));
    let present =
        json!({ "fail": 0.25, "stall": 0.0, "stall_ms": 20, "lose": 0.5, "duplicate": 0.0 });
    assert_eq!((status, &answer), (200, &present));
    for wrong in [
        json!({ "lose": 2 }),
        json!({ "lose": "often" }),
        json!({ "lost": 1 }),
        json!({ "lose": 1, "stall_ms": 600_001 }),
    ] {
        assert_eq!(carrier.change_faults(&wrong).0, 400, "{wrong}");
    }
    assert_eq!(carrier.get("/faults"), (200, present));
}

#[test]
fn keeps_the_trace_of_the_first_request() {
    let carrier = Carrier::start(&[]);
    for trace in ["00-a", "00-b"] {
        let headers =
            format!("idempotency-key: k1\r\ntraceparent: {trace}\r\nconnection: close\r\n");
        carrier.raw(&raw_post("HTTP/1.1", &headers, "LBL-1"));
    }
    assert_eq!(carrier.get("/ledger").1[0]["traceparent"], "00-a");
}

/// Also while a request stalls and a connection is open.
#[test]
fn ends_cleanly_when_told() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut carrier = Carrier::start(&["--stall", "1", "--stall-for", "60s"]);
        let mut stream = carrier.connect();
        let request = raw_post("HTTP/1.1", "idempotency-key: k1\r\n", "LBL-1");
        stream.write_all(request.as_bytes()).expect("sent");
        wait_until(|| carrier.get("/stats").1["stalled"] == 1);
        let process = rustix::process::Pid::from_child(&carrier.process);
        rustix::process::kill_process(process, signal).expect("told");
        let mut status = None;
        wait_until(|| {
            status = carrier.process.try_wait().expect("a status");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
    }
}

#[test]
fn says_what_is_wrong_with_its_arguments() {
    for (arguments, message) in [
        (&["--fail", "1.5"][..], "from 0 to 1"),
        (&["--lose", "-0.5"], "from 0 to 1"),
        (&["--stall-for", "3"], "500ms or 3s"),
        (&["--listen", "0.0.0.0:0"], "loopback only"),
        (&["--listen", "localhost"], "such as 127.0.0.1:7171"),
        (&["--token-env", "CARRIER_TOKEN_THAT_IS_NOT_SET"], "CARRIER_TOKEN_THAT_IS_NOT_SET"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_carrier"))
            .args(arguments)
            .output()
            .expect("the carrier starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(message), "{arguments:?}: {said}");
    }
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(30), "it never came");
        std::thread::sleep(Duration::from_millis(5));
    }
}
