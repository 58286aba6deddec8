//! What the host says of itself, so that a person on call need not guess: signals, starts, orders.

use std::fs;
use std::process::{Command, Stdio};

use amends_tests::{Behaviour, Component};
use rustix::process::Signal;
use serde_json::Value;

use crate::place::{Host, Place, agent, binary, stderr, stdout};

/// `gate` waits for a signal, `spin` has a call in flight until its timeout of a minute, `stuck` is
/// blocked at once: its undo is refused.
fn place() -> Place {
    let place = Place::empty();
    let component = |name, execute, compensate| {
        let component = Component { name, execute, compensate, ..Component::default() };
        fs::write(place.plugin(name), component.build()).unwrap();
    };
    component("good", Behaviour::Effect, Behaviour::Permanent);
    component("bad", Behaviour::Permanent, Behaviour::Done);
    component("spin", Behaviour::Spin, Behaviour::Spin);
    place.config(
        "[[saga]]\nname = \"gate\"\n[[saga.step]]\nname = \"gate\"\nwait = \"approved\"\n\
         [[saga]]\nname = \"spin\"\n[[saga.step]]\nname = \"spin\"\nplugin = \"spin\"\n\
         timeout = \"60s\"\n\
         [[saga]]\nname = \"stuck\"\n[[saga.step]]\nname = \"good\"\nplugin = \"good\"\n\
         [[saga.step]]\nname = \"bad\"\nplugin = \"bad\"\n",
    );
    place
}

fn start(place: &Place, definition: &str) -> String {
    let output = place.amends(&["start", definition, "--input", "{}", "-o", "ids"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stdout(&output).trim().to_owned()
}

/// The lines of the log with this message.
fn lines(host: &Host, message: &str) -> Vec<Value> {
    let log = host.log();
    let parsed = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|line| line["message"].as_str().is_some_and(|it| it.contains(message))).collect()
}

#[test]
fn a_hangup_is_said_and_the_host_goes_on() {
    let place = place();
    let host = place.run();
    let gate = start(&place, "gate");
    for times in 1..=2 {
        host.signal(Signal::HUP);
        host.until("it says so", || lines(&host, "SIGHUP: nothing is reloaded").len() == times);
    }
    assert_eq!(lines(&host, "SIGHUP")[0]["level"], "WARN");
    assert_eq!(host.get(&format!("/v1/sagas/{gate}"))["status"], "waiting");
    assert_eq!(host.stop(), Some(0));
}

/// As when the terminal is closed in which it runs: nobody reads its log any more.
#[test]
fn a_host_goes_on_whose_log_nobody_reads() {
    let place = place();
    let mut child = Command::new(binary("amends"))
        .arg("run")
        .arg(place.path("amends.toml"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    let url = format!("http://127.0.0.1:{}/readyz", place.port);
    let is_ready = || agent().get(&url).call().is_ok_and(|answer| answer.status() == 200);
    let began = std::time::Instant::now();
    while !is_ready() {
        assert!(began.elapsed() < crate::place::SOON, "it is not ready");
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    crate::place::signal(&child, Signal::HUP);
    let stuck = start(&place, "stuck");
    while !stdout(&place.amends(&["why", &stuck])).contains("It is blocked") {
        assert!(began.elapsed() < crate::place::SOON, "it is not blocked");
    }
    assert!(is_ready());
    crate::place::signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_start_says_what_it_goes_on_with() {
    let place = place();
    let host = place.run();
    let said = |host: &Host| {
        let lines = lines(host, "the host goes on with the sagas of its store");
        assert_eq!(lines.len(), 1, "{}", host.log().join("\n"));
        let names = ["sagas", "compensating", "blocked", "paused", "calls_cut_off", "quarantined"];
        names.map(|name| lines[0][name].as_u64().unwrap())
    };
    assert_eq!(said(&host), [0; 6]);
    start(&place, "gate");
    let held = start(&place, "gate");
    let paused = place.amends(&["pause", &held, "--reason", "the price"]);
    assert_eq!(paused.status.code(), Some(0), "{}", stderr(&paused));
    start(&place, "spin");
    let stuck = start(&place, "stuck");
    host.until("it is blocked", || host.get(&format!("/v1/sagas/{stuck}"))["status"] == "blocked");
    host.kill();
    let host = place.run();
    assert_eq!(said(&host), [4, 0, 1, 1, 1, 0]);
}

/// A start that compiles takes up to half a minute: it says so, and is not taken for dead.
#[test]
fn a_host_that_compiles_at_its_start_says_so() {
    let place = place();
    let bytes = fs::read(place.plugin("good")).unwrap();
    let digest = amends_engine::Digest::of(&bytes).to_string().replace("sha256:", "");
    let host = place.spawn_with(&format!("plugins.load.before=return({digest})"));
    let ask = |path: &str| {
        let answer = agent().get(host.url(path)).call();
        answer.ok().map(|mut answer| {
            let retry = answer.headers().get("retry-after").is_some();
            let text = answer.body_mut().read_to_string().unwrap();
            (answer.status().as_u16(), retry, serde_json::from_str::<Value>(&text).unwrap())
        })
    };
    let words = "2 of 3 plugins are loaded, compiling good (";
    host.until("it says what it compiles", || {
        let detail = ask("/readyz").map(|(_, _, body)| body["detail"].clone());
        detail.is_some_and(|detail| detail.as_str().unwrap().contains(words))
    });
    for path in ["/readyz", "/v1/sagas", "/metrics"] {
        let (status, retry, problem) = ask(path).unwrap();
        assert_eq!((status, retry, &problem["code"]), (503, true, &"starting".into()), "{problem}");
    }
    assert_eq!(ask("/healthz").unwrap().0, 200);
    let list = place.amends(&["list"]);
    assert_eq!(list.status.code(), Some(1));
    assert!(stderr(&list).contains("the host is starting: 2 of 3"), "{}", stderr(&list));
    let compiling = lines(&host, "compiling");
    assert!(compiling.iter().any(|line| line["plugin"] == "good"), "{compiling:?}");
    host.kill();
    let host = place.run();
    assert_eq!(ask_status(&host, "/v1/sagas"), 200);
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_check_says_what_it_compiles_when_that_takes_long() {
    let place = Place::empty();
    fs::write(place.plugin("slow"), amends_tests::live_locals()).unwrap();
    place.config("[[saga]]\nname = \"slow\"\n[[saga.step]]\nname = \"one\"\nplugin = \"slow\"\n");
    let check = place.amends(&["check", "amends.toml"]);
    assert!(stderr(&check).contains("compiling slow ("), "{}", stderr(&check));
    assert!(!stdout(&check).contains("compiling"), "{}", stdout(&check));
}

fn ask_status(host: &Host, path: &str) -> u16 {
    agent().get(host.url(path)).call().unwrap().status().as_u16()
}
