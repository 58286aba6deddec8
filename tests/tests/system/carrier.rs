//! The carriers' service and its ledger: what sagas did outside of this host.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::client::read;
use crate::place::{Place, binary, example, get, stderr};

pub(crate) const TOKEN: &str = "carrier-token-4711";

/// The service, which goes on while the host is killed.
pub(crate) struct Carrier {
    child: Child,
    url: String,
}

impl Carrier {
    pub(crate) fn start(faults: &[&str]) -> Self {
        let mut child = Command::new(binary("carrier"))
            .args(["--listen", "127.0.0.1:0", "--seed", "7", "--token-env", "TOKEN"])
            .args(faults)
            .env("TOKEN", TOKEN)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("carrier listens on ").unwrap().to_owned();
        Self { child, url }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let request = crate::place::agent().get(format!("{}{path}", self.url));
        let answer = request.header("authorization", format!("Bearer {TOKEN}")).call();
        answer.unwrap().body_mut().read_json().unwrap()
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example, whose labels come from the service.
pub(crate) fn place(carrier: &Carrier) -> Place {
    place_with(&carrier.url)
}

fn place_with(url: &str) -> Place {
    let place = Place::example();
    fs::write(place.path("token"), TOKEN).unwrap();
    let config = fs::read_to_string(place.path("amends.toml")).unwrap();
    let shipment = "[plugin.shipment]\n";
    let granted = format!(
        "{shipment}settings = {{ carrier = \"{url}\" }}\n\
         secrets = {{ carrier_token = {{ file = \"token\" }} }}\nrequest_timeout = \"300ms\"\n"
    );
    let called = "plugin = \"shipment\"\n\
                  undo = { retry = { attempts = 30, initial = \"20ms\", max = \"100ms\" } }\n";
    let config = config
        .replace(shipment, &granted)
        .replace("http://127.0.0.1:7171", url)
        .replace("plugin = \"shipment\"\n", called);
    assert!(config.contains(called) && config.contains(&granted), "{config}");
    fs::write(place.path("amends.toml"), config).unwrap();
    place
}

/// 1,000 orders, a tenth of the calls failing, stalling, losing their answer or arriving twice,
/// and three kill -9: one label for each order that was shipped, none for one that was undone.
#[test]
fn the_ledger_has_one_label_for_each_order_that_was_shipped() {
    let carrier = Carrier::start(&[
        "--fail",
        "0.1",
        "--stall",
        "0.1",
        "--stall-for",
        "600ms",
        "--lose",
        "0.1",
        "--duplicate",
        "0.1",
    ]);
    let place = place(&carrier);
    let orders = example().join("orders.ndjson");
    let start =
        ["start", "order-fulfillment", "--input", orders.to_str().unwrap(), "--each", "--key", "k"];
    for delay_ms in [150, 400, 900] {
        let host = place.run();
        let client = place.command(&start).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        std::thread::sleep(Duration::from_millis(delay_ms));
        host.kill();
        client.unwrap().wait().unwrap();
    }
    let host = place.run();
    let output = place.amends(&[&start[..], &["--wait", "120s"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    host.settle();
    // What is still stalled on its way to the ledger.
    std::thread::sleep(Duration::from_secs(1));

    let mut ledger: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for entry in carrier.get("/ledger").as_array().unwrap() {
        let order = entry["order_id"].as_str().unwrap().to_owned();
        ledger.entry(order).or_default().push(entry.clone());
    }
    let (mut shipped, mut undone) = (0, 0);
    for saga in host.sagas() {
        let saga = get(&host.url(&format!("/v1/sagas/{}", saga["id"].as_str().unwrap())));
        let order = saga["input"]["order_id"].as_str().unwrap();
        let labels: Vec<_> = ledger.get(order).into_iter().flatten().collect();
        let issued = labels.iter().filter(|entry| entry["status"] == "issued");
        let step = &saga["steps"][2];
        match saga["status"].as_str().unwrap() {
            "completed" if step["status"] == "succeeded" => {
                let issued: Vec<_> = issued.map(|entry| &entry["label"]).collect();
                assert_eq!(issued, [&step["output"]["label"]], "{order}: {labels:?}");
                assert_eq!(labels.len(), 1, "{order}: {labels:?}");
                shipped += 1;
            }
            "completed" => assert!(labels.is_empty(), "{order} was collected: {labels:?}"),
            "compensated" => {
                assert_eq!(issued.count(), 0, "{order}: {labels:?}");
                undone += usize::from(!labels.is_empty());
            }
            other => panic!("{order} is {other}: {saga}"),
        }
    }
    let stats = carrier.get("/stats");
    println!("{shipped} shipped, {undone} labels cancelled, {stats}");
    assert!(shipped > 500, "{shipped} shipped");
    for fault in ["failed", "stalled", "lost", "duplicated"] {
        assert!(stats[fault].as_u64().unwrap() > 20, "{stats}");
    }
    assert_eq!(host.stop(), Some(0));
}

/// A host that is not allowed is named with what would allow it, where the person on call looks.
#[test]
fn a_refused_host_is_told_with_the_key_that_would_allow_it() {
    let carrier = Carrier::start(&[]);
    let place = place(&carrier);
    let config = fs::read_to_string(place.path("amends.toml")).unwrap();
    let allowed = format!("allow_hosts = [\"{}\"]", carrier.url);
    let config = config.replace(&allowed, "allow_hosts = [\"https://other.example\"]");
    fs::write(place.path("amends.toml"), config).unwrap();
    let host = place.run();
    let order = example().join("order.json");
    let start = ["start", "order-fulfillment", "--input", order.to_str().unwrap(), "--wait"];
    let output = place.amends(&[&start[..], &["-o", "json"]].concat());
    let saga: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(saga["status"], "compensated", "{saga}");
    let reason = saga["reason"].as_str().unwrap();
    let words = format!("add \"{}\" to allow_hosts in [plugin.shipment]", carrier.url);
    assert!(reason.contains("not_sent") && reason.contains(&words), "{reason}");
    assert_eq!(carrier.get("/stats")["labels"], 0);
    assert_eq!(host.stop(), Some(0));
}

/// Answers one request; its head, in small letters.
fn answer(mut stream: TcpStream) -> String {
    let head = read(&stream);
    let body = r#"{"label":"LBL-1","cancelled":true}"#;
    let head_of_answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json";
    write!(stream, "{head_of_answer}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    head
}

/// Some services refuse a DELETE with a body of unknown length.
#[test]
fn a_request_without_a_body_is_sent_without_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = place_with(&format!("http://{}", listener.local_addr().unwrap()));
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let kept = Arc::clone(&heads);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let head = answer(stream.unwrap());
            kept.lock().unwrap().push(head);
        }
    });
    let host = place.run();
    let order = example().join("order.json");
    let start = ["start", "order-fulfillment", "--input", order.to_str().unwrap(), "--wait"];
    let output = place.amends(&[&start[..], &["-o", "ids"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let compensate = place.amends(&["compensate", &id, "--reason", "sent back"]);
    assert_eq!(compensate.status.code(), Some(0), "{}", stderr(&compensate));
    host.until("it is undone", || host.get(&format!("/v1/sagas/{id}"))["status"] == "compensated");
    let heads = heads.lock().unwrap();
    let head = |method: &str| heads.iter().find(|head| head.starts_with(method)).unwrap().clone();
    assert!(head("post ").contains("content-length: "), "{heads:?}");
    let undo = head("delete ");
    assert!(!undo.contains("transfer-encoding") && !undo.contains("content-length"), "{undo}");
}
