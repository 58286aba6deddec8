//! Subscriptions: a host that is killed, and a receiver that is made of the official libraries, fails and is
//! away for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::place::{Host, Place, agent, example, repository, stderr, stdout};
use crate::python::python_with;

/// Orders of each round, and rounds that end with a kill.
const ORDERS: usize = 150;
const KILLS: usize = 3;

const OLD_SECRET: &str = "whsec_b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQtb2xk";
const NEW_SECRET: &str = "whsec_bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3";

/// What `pip` installs for the receiver.
const LIBRARIES: [&str; 2] = ["cloudevents==2.2.0", "standardwebhooks==1.1.0"];

struct Receiver(Child);

impl Receiver {
    fn start(port: u16, file: &Path) -> Self {
        let script = repository().join("tests/tests/system/subscriptions/receiver.py");
        let child = Command::new(python_with("receiver", &LIBRARIES).join("python"))
            .arg(script)
            .arg(port.to_string())
            .arg(file)
            .env("RECEIVER_SECRET", NEW_SECRET)
            .stdin(Stdio::null())
            // It says that its peer was killed.
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn config(place: &Place, port: u16) {
    let path = place.path("amends.toml");
    let subscription = |name: &str, more: &str| {
        format!(
            "\n[[subscription]]\nname = \"{name}\"\nurl = \"http://127.0.0.1:{port}/hook\"\n\
             secrets = [{{ env = \"OLD_SECRET\" }}, {{ env = \"NEW_SECRET\" }}]\nfrom = \"start\"\n\
             source = \"/{name}\"\npause_max = \"1s\"\n{more}\n"
        )
    };
    let all = subscription("all", "batch = { events = 20 }");
    let some = "definitions = [\"order-fulfillment\"]\ntypes = [\"saga.*\", \"step.failed\"]";
    let text = fs::read_to_string(&path).unwrap() + &all + &subscription("some", some);
    fs::write(path, text).unwrap();
}

fn run(place: &Place) -> Host {
    place.run_with_env(&[("OLD_SECRET", OLD_SECRET), ("NEW_SECRET", NEW_SECRET)])
}

/// The id that a receiver sees.
fn id(event: &Value) -> String {
    let name = |key: &str| event[key].as_str();
    let subject = match (name("saga"), name("plugin"), name("service")) {
        (Some(saga), _, _) => saga.to_owned(),
        (None, Some(plugin), _) => format!("plugin/{plugin}"),
        (None, None, Some(service)) => format!("service/{service}"),
        (None, None, None) => "deploys".to_owned(),
    };
    format!("{subject}/{}", event["version"])
}

fn is_in_some(event: &Value) -> bool {
    let kind = event["type"].as_str().unwrap();
    !event["saga"].is_null() && (kind.starts_with("saga.") || kind == "step.failed")
}

/// Nothing is missing and nothing is foreign, the data are those of the log, and within a subject the first
/// deliveries are in order. Returns how many deliveries were repetitions.
fn compare(came: &[&Value], wanted: &BTreeMap<String, &Value>) -> usize {
    let (mut seen, mut last) = (BTreeSet::new(), BTreeMap::new());
    for event in came {
        let id = event["id"].as_str().unwrap();
        let original = wanted.get(id).unwrap_or_else(|| panic!("{id} is not wanted"));
        assert_eq!(event["data"], original["data"], "{id}");
        assert_eq!(event["type"], original["type"], "{id}");
        let version: u64 = event["sequence"].as_str().unwrap().parse().unwrap();
        assert_eq!(original["version"], version, "{id}");
        if seen.insert(id.to_owned()) {
            let before = last.insert(event["subject"].as_str().unwrap(), version);
            assert!(before < Some(version), "{id} came after {before:?}");
        }
    }
    let missing: Vec<_> = wanted.keys().filter(|id| !seen.contains(*id)).collect();
    assert!(missing.is_empty(), "{} are missing, such as {:?}", missing.len(), missing[0]);
    came.len() - seen.len()
}

#[test]
fn a_receiver_misses_nothing_over_kills_and_outages() {
    let place = Place::example();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    config(&place, port);
    let orders = fs::read_to_string(example().join("orders.ndjson")).unwrap();
    let lines: Vec<_> = orders.lines().collect();
    let file = place.path("received.ndjson");
    python_with("receiver", &LIBRARIES);
    let mut receiver = None;
    for round in 0..=KILLS {
        let host = run(&place);
        let input = place.path("orders.ndjson");
        fs::write(&input, lines[round * ORDERS..(round + 1) * ORDERS].join("\n")).unwrap();
        let input = input.to_str().unwrap();
        let start = ["start", "order-fulfillment", "--input", input, "--each", "--wait", "120s"];
        if round < KILLS {
            // In the first round there is no receiver yet.
            let mut client =
                place.command(&start).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(1_500));
            host.kill();
            let _ = client.wait();
            receiver = Some(Receiver::start(port, &file));
            continue;
        }
        let output = place.amends(&start);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        host.settle();
        // The receiver is away once more, while the host has events for it.
        drop(receiver.take());
        std::thread::sleep(Duration::from_secs(2));
        receiver = Some(Receiver::start(port, &file));
        let is_done = || {
            let all = host.get("/v1/subscriptions");
            all["items"].as_array().unwrap().iter().all(|item| item["lag_events"] == 0)
        };
        host.until("the end of the subscriptions", is_done);
        check(&place, &host, &file);
        assert_eq!(host.stop(), Some(0));
    }
    drop(receiver);
}

fn check(place: &Place, host: &Host, file: &Path) {
    let events = host.events();
    let text = fs::read_to_string(file).unwrap();
    let came: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let wrong: Vec<_> = came.iter().filter(|event| !event["wrong"].is_null()).collect();
    assert!(wrong.is_empty(), "the libraries refuse {} requests: {}", wrong.len(), wrong[0]);
    let of =
        |source: &str| came.iter().filter(|event| event["source"] == source).collect::<Vec<_>>();
    let wanted: BTreeMap<_, _> = events.iter().map(|event| (id(event), event)).collect();
    assert_eq!(wanted.len(), events.len(), "two events have one id");
    let repeated = compare(&of("/all"), &wanted);
    let wanted = wanted.into_iter().filter(|(_, event)| is_in_some(event)).collect();
    let again = compare(&of("/some"), &wanted);
    println!("{} deliveries, {repeated} and {again} repeated", came.len());
    assert!(of("/some").iter().all(|event| event["definition"] == "order-fulfillment"));

    let output = place.amends(&["subscription", "list", "-o", "json"]);
    let listed: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let listed_names: Vec<_> =
        listed.as_array().unwrap().iter().map(|item| &item["name"]).collect();
    assert_eq!(listed_names, ["all", "some"]);
    assert_eq!((&listed[0]["state"], &listed[0]["dead_letters"]), (&"active".into(), &0.into()));
    let reason = ["--reason", "none is dead"];
    let redrive = |name| place.amends(&[&["subscription", "redrive", name][..], &reason].concat());
    assert_eq!(redrive("some").status.code(), Some(0));
    assert_eq!(redrive("another").status.code(), Some(4));
    let metrics = crate::place::text(&host.url("/metrics"));
    assert!(
        metrics.contains("amends_subscription_lag_events{subscription=\"all\"} 0"),
        "{metrics}"
    );
    assert!(metrics.contains("amends_subscription_delivered_total{subscription=\"some\"}"));
    filters(host, wanted);
}

/// The same filters, by asking. Every page is bounded, also one of which nothing is wanted.
fn filters(host: &Host, wanted: BTreeMap<String, &Value>) {
    let query = "/v1/events?definition=order-fulfillment&type=saga.*,step.failed&limit=200";
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = host.get(&format!("{query}{cursor}"));
        found.extend(page["items"].as_array().unwrap().iter().map(id));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(found.len(), wanted.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted.keys().cloned().collect());

    let (mut found, mut cursor) = (BTreeSet::new(), String::new());
    loop {
        let mut answer = agent()
            .get(host.url(&format!("{query}{cursor}")))
            .header("accept", "application/cloudevents-batch+json")
            .call()
            .unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "application/cloudevents-batch+json");
        cursor = format!("&cursor={}", header("amends-next-cursor"));
        let events: Vec<Value> = answer.body_mut().read_json().unwrap();
        if events.is_empty() {
            break;
        }
        found.extend(events.iter().map(|event| event["id"].as_str().unwrap().to_owned()));
    }
    assert_eq!(found, wanted.into_keys().collect());

    let all = host.events().len();
    let (mut pages, mut cursor) = (0, String::new());
    loop {
        let page = host.get(&format!("/v1/events?type=no.such.type{cursor}"));
        assert_eq!(page["items"].as_array().unwrap().len(), 0);
        pages += 1;
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert!(pages <= all / 10_000 + 1, "{pages} pages for {all} events");
}

/// A receiver that answers each request with this status, and is gone when the test ends.
fn refuse(status: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 8_192]);
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

#[test]
fn dead_letters_are_listed_with_what_the_receiver_said() {
    let place = Place::empty();
    place.config(&format!(
        "[[saga]]\nname = \"nap\"\n[[saga.step]]\nname = \"nap\"\nsleep = \"1ms\"\n\
         [[subscription]]\nname = \"billing\"\nurl = \"http://127.0.0.1:{}/hook\"\n\
         types = [\"saga.completed\"]\nattempts_max = 1\n",
        refuse("400 Bad Request")
    ));
    let host = place.run();
    let none = place.amends(&["subscription", "dead-letters", "billing"]);
    assert_eq!(stdout(&none), "billing has no dead letters\n");
    let mut sagas = BTreeSet::new();
    for _ in 0..3 {
        let started = place.amends(&["start", "nap", "--wait", "20s", "-o", "ids"]);
        assert_eq!(started.status.code(), Some(0), "{}", stderr(&started));
        sagas.insert(stdout(&started).trim().to_owned());
    }
    host.until("the dead letters", || {
        host.get("/v1/subscriptions/billing/dead-letters")["items"].as_array().unwrap().len() == 3
    });
    let (mut found, mut cursor) = (BTreeSet::new(), String::new());
    loop {
        let page = host.get(&format!("/v1/subscriptions/billing/dead-letters?limit=1{cursor}"));
        let [letter] = page["items"].as_array().unwrap().as_slice() else { panic!("{page}") };
        assert_eq!((&letter["type"], &letter["attempts"]), (&"saga.completed".into(), &1.into()));
        assert!(letter["error"].as_str().unwrap().contains("400"), "{letter}");
        // The place leads to the event.
        let place = letter["place"].as_str().unwrap();
        let event = &host.get(&format!("/v1/events?limit=1&cursor={place}"))["items"][0];
        assert_eq!((&event["saga"], &event["version"]), (&letter["saga"], &letter["version"]));
        found.insert(letter["saga"].as_str().unwrap().to_owned());
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(found, sagas);
    let listed = place.amends(&["subscription", "dead-letters", "billing", "-o", "ids"]);
    assert_eq!(stdout(&listed).lines().map(str::to_owned).collect::<BTreeSet<_>>(), sagas);
    let table = stdout(&place.amends(&["subscription", "dead-letters", "billing"]));
    assert!(table.contains("saga.completed") && table.contains("400"), "{table}");
    assert_eq!(place.amends(&["subscription", "dead-letters", "other"]).status.code(), Some(4));
}

/// A receiver that wants no more answers 410. A redrive says that its subscription is active again.
#[test]
fn a_redrive_of_a_disabled_subscription_says_that_it_is_active_again() {
    let place = Place::empty();
    place.config(&format!(
        "[[saga]]\nname = \"nap\"\n[[saga.step]]\nname = \"nap\"\nsleep = \"1ms\"\n\
         [[subscription]]\nname = \"billing\"\nurl = \"http://127.0.0.1:{}/hook\"\n",
        refuse("410 Gone")
    ));
    let host = place.run();
    let redrive = ["subscription", "redrive", "billing", "--reason", "it is back"];
    let said = stdout(&place.amends(&redrive));
    assert!(said.contains("0 dead letters are sent again") && !said.contains("active"), "{said}");
    assert!(place.amends(&["start", "nap"]).status.success());
    host.until("it is disabled", || {
        host.get("/v1/subscriptions")["items"][0]["state"] == "disabled"
    });
    let said = stdout(&place.amends(&redrive));
    assert!(said.contains("billing was disabled and is active again, "), "{said}");
    assert_eq!(host.stop(), Some(0));
}
