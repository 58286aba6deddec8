//! What the host says of itself, so that a person on call need not guess: signals, starts, orders.

use std::fs;
use std::process::{Command, Stdio};

use amends_tests::{Behaviour, Component, Fault, FaultKind};
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

/// One step that is unknown twice and then done, and one whose first answer is refused until its input
/// is edited.
fn charged() -> Place {
    let place = Place::empty();
    let fault = Fault { kind: FaultKind::Trap, attempts: 2, has_effect: true, element: None };
    let paid = Component { name: "pay", execute: Behaviour::Fault(fault), ..Component::default() };
    fs::write(place.plugin("pay"), paid.build()).unwrap();
    let schema = "{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\"}},\
                  \"required\":[\"n\"]}";
    let execute = Behaviour::Echo;
    let strict = Component { name: "strict", schema, execute, ..Component::default() };
    fs::write(place.plugin("strict"), strict.build()).unwrap();
    place.config(
        "[[saga]]\nname = \"charge\"\n[[saga.step]]\nname = \"pay\"\nplugin = \"pay\"\n\
         pivot = true\nundo = false\ninput = { n = \"input.n\" }\n\
         retry = { attempts = 3, backoff = [\"10ms\"] }\n\
         [[saga.step]]\nname = \"mail\"\nplugin = \"strict\"\nundo = false\n\
         input = { n = \"input.mail\" }\n",
    );
    place
}

/// Whoever has the service's ledger, which it keeps by key, can tell what was done: the key stands
/// wherever the call is told of.
#[test]
fn the_key_and_the_trace_of_a_call_stand_wherever_it_is_told_of() {
    let place = charged();
    let host = place.run();
    let input = "{\"n\": 7, \"mail\": 8}";
    let output = place.amends(&["start", "charge", "--input", input, "--wait", "-o", "ids"]);
    let id = stdout(&output).trim().to_owned();
    let saga = host.get(&format!("/v1/sagas/{id}"));
    assert_eq!(saga["status"], "completed", "{saga}");
    let (pay, mail) = (&saga["steps"][0], &saga["steps"][1]);
    let key = pay["idempotency_key"].as_str().unwrap();
    assert_ne!(mail["idempotency_key"], pay["idempotency_key"]);
    assert_eq!(saga["trace_id"], id.replace('-', ""));
    // What the component was called with is what it logged.
    let effects: Vec<_> = lines(&host, &format!("done effect={key}"));
    assert_eq!(effects.len(), 3, "{}", host.log().join("\n"));
    let calls: Vec<_> =
        lines(&host, "call ").into_iter().filter(|it| it["step"] == "pay").collect();
    assert_eq!(calls.len(), 3, "{calls:?}");
    for line in effects.iter().chain(&calls) {
        assert_eq!(line["idempotency_key"], key, "{line}");
        assert_eq!(line["trace_id"], saga["trace_id"], "{line}");
    }
    // The history has it for each call.
    let events = host.get(&format!("/v1/sagas/{id}/events?limit=1000"));
    let events = events["items"].as_array().unwrap();
    let started: Vec<_> = events.iter().filter(|event| event["type"] == "step.started").collect();
    assert_eq!(started.len(), 4);
    for event in &started {
        let step = if event["data"]["step"] == "pay" { pay } else { mail };
        assert_eq!(event["idempotency_key"], step["idempotency_key"], "{event}");
        // From any cursor on, and as the saga is watched.
        let version = event["version"].as_u64().unwrap();
        let page = format!("/v1/sagas/{id}/events?cursor={}&limit=1", version - 1);
        assert_eq!(host.get(&page)["items"][0], **event);
    }
    let watched = crate::place::text(&host.url(&format!("/v1/sagas/{id}/watch")));
    assert_eq!(watched.matches(key).count(), 3, "{watched}");
    assert_eq!(pay["input"], serde_json::json!({"n": 7}));
    assert_eq!(mail["input"], serde_json::json!({"n": 8}));
    let why = stdout(&place.amends(&["why", &id]));
    let words = format!(
        "2 of 3 attempts of pay ended unknown; all were sent with the idempotency key {key}."
    );
    assert!(why.contains(&words), "{why}");
}

#[test]
fn an_input_that_the_component_refuses_is_refused_before_it_is_recorded() {
    let place = charged();
    let host = place.run();
    let input = "{\"n\": 7, \"mail\": \"eight\"}";
    let output = place.amends(&["start", "charge", "--input", input, "--wait", "-o", "ids"]);
    let id = stdout(&output).trim().to_owned();
    let events = || {
        let events = host.get(&format!("/v1/sagas/{id}/events?limit=1000"));
        events["items"].as_array().unwrap().clone()
    };
    let before = events();
    let saga = host.get(&format!("/v1/sagas/{id}"));
    assert_eq!(saga["steps"][1]["input"], serde_json::json!({"n": "eight"}), "{saga}");
    let retry = |input: &str, more: &[&str]| {
        let retry = ["retry", &id, "--step", "mail", "--input", input, "--reason", "a typo"];
        place.amends(&[&retry[..], more].concat())
    };
    let refused = retry("{\"to\": 8}", &[]);
    assert_eq!(refused.status.code(), Some(1));
    let told = stderr(&refused);
    assert!(told.contains("does not fit the input schema of strict"), "{told}");
    assert!(told.contains("\"n\" is a required property"), "{told}");
    assert_eq!(events().len(), before.len(), "nothing is recorded");
    let taken = retry("{\"n\": 8}", &["--as", "grace"]);
    assert_eq!(taken.status.code(), Some(0), "{}", stderr(&taken));
    host.until("it goes on", || host.get(&format!("/v1/sagas/{id}"))["status"] == "completed");
    let saga = host.get(&format!("/v1/sagas/{id}"));
    assert_eq!(saga["steps"][1]["input"], serde_json::json!({"n": 8}));
    // Another input goes with another key, and the history has both.
    let events = events();
    let keys: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "step.started" && event["data"]["step"] == "mail")
        .map(|event| event["idempotency_key"].clone())
        .collect();
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1]);
    assert_eq!(keys[1], saga["steps"][1]["idempotency_key"]);
    let retried = events.iter().find(|event| event["type"] == "operator.retried").unwrap();
    assert_eq!(retried["data"]["who"], "grace@127.0.0.1");
}

#[test]
fn an_ended_saga_takes_a_note_and_a_signal_says_who_sent_it() {
    let place = place();
    let host = place.run();
    let gate = start(&place, "gate");
    let sent = place.amends(&["signal", &gate, "approved", "--payload", "1", "--as", "grace"]);
    assert_eq!(sent.status.code(), Some(0), "{}", stderr(&sent));
    host.until("it ends", || host.get(&format!("/v1/sagas/{gate}"))["status"] == "completed");
    let before = host.get(&format!("/v1/sagas/{gate}"));
    let note = ["note", &gate, "--reason", "refunded by hand, ticket 44"];
    let noted = place.amends(&note);
    assert_eq!(noted.status.code(), Some(0), "{}", stderr(&noted));
    let words = "note     refunded by hand, ticket 44 (ada@127.0.0.1, ";
    for output in [&noted, &place.amends(&["get", &gate])] {
        assert!(stdout(output).contains(words), "{}", stdout(output));
    }
    let history = stdout(&place.amends(&["history", &gate]));
    assert!(history.contains("operator.noted"), "{history}");
    assert!(history.contains("ada@127.0.0.1: refunded by hand, ticket 44"), "{history}");
    let events = host.get(&format!("/v1/sagas/{gate}/events?limit=1000"));
    let events = events["items"].as_array().unwrap();
    let signal = events.iter().find(|event| event["type"] == "signal.received").unwrap();
    assert_eq!(signal["data"]["who"], "grace@127.0.0.1");
    // Nothing else changed, also not after a restart.
    host.kill();
    let host = place.run();
    let mut after = host.get(&format!("/v1/sagas/{gate}"));
    assert_eq!(after["note"]["reason"], "refunded by hand, ticket 44");
    after["version"] = before["version"].clone();
    after.as_object_mut().unwrap().remove("note");
    assert_eq!(after, before);
}

/// In flight when its plugin lost its grants: the undo cannot be called, and a person can see to it.
#[test]
fn an_undo_whose_plugin_is_lost_says_why_and_can_be_seen_to() {
    let place = Place::empty();
    let keeps = Component {
        name: "hotel",
        needs: &["state"],
        execute: Behaviour::Text(
            "(call $set (i32.const 3060) (i32.const 2) (i32.const 3000) (i32.const 11))
             (i32.const 2048)",
        ),
        imports: "(import \"amends:saga/state@1.1.0\" \"set\"
                  (func $set (param i32 i32 i32 i32)))",
        ..Component::default()
    };
    fs::write(place.plugin("hotel"), keeps.build()).unwrap();
    let bad = Component { name: "bad", execute: Behaviour::Permanent, ..Component::default() };
    fs::write(place.plugin("bad"), bad.build()).unwrap();
    let saga = |plugin: &str| {
        format!(
            "[[saga]]\nname = \"trip\"\n[[saga.step]]\nname = \"room\"\nplugin = \"{plugin}\"\n\
             [[saga.step]]\nname = \"gate\"\nwait = \"approved\"\n\
             [[saga.step]]\nname = \"bad\"\nplugin = \"bad\"\n"
        )
    };
    place.config(&format!("[plugin.hotel]\nstate = true\n{}", saga("hotel")));
    let host = place.run();
    let trips = [start(&place, "trip"), start(&place, "trip"), start(&place, "trip")];
    for trip in &trips {
        let path = format!("/v1/sagas/{trip}");
        host.until("it waits", || host.get(&path)["status"] == "waiting");
    }
    assert_eq!(host.stop(), Some(0));
    // Renamed in the folder and the config, and the grant is gone.
    fs::remove_file(place.plugin("hotel")).unwrap();
    place.config(&saga("bad"));
    let host = place.run();
    for trip in &trips {
        let signal = ["signal", trip, "approved", "--payload", "1"];
        assert_eq!(place.amends(&signal).status.code(), Some(0));
    }
    let why = |trip: &str| stdout(&place.amends(&["why", trip]));
    host.until("it says why", || {
        let why = why(&trips[0]);
        why.contains("waits for plugin `hotel`, which nothing serves")
            && why.contains("imports amends:saga/state")
            && why.contains("not granted")
    });
    let told = why(&trips[0]);
    assert!(told.contains("resolve") && told.contains("skip"), "{told}");
    host.until("they are listed", || {
        let stuck = host.get("/v1/sagas?stuck=true");
        let stuck = stuck["items"].as_array().unwrap().clone();
        stuck.len() == trips.len()
            && stuck.iter().all(|saga| saga["reason"].as_str().unwrap().contains("not granted"))
    });
    let by_hand = ["--evidence", "the hotel says so", "--reason", "cancelled by phone"];
    assert!(told.contains("the undo of room is due: resolve or skip with --step room --undo"));
    // Whoever does not say so means the step, which is no longer what the saga is about.
    let resolve = [&["resolve", &trips[0]][..], &by_hand].concat();
    let refused = place.amends(&resolve);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("--undo"), "{}", stderr(&refused));
    let resolve = place.amends(&[&resolve[..], &["--undo"]].concat());
    assert_eq!(resolve.status.code(), Some(0), "{}", stderr(&resolve));
    let reason = "we pay for it";
    let skip = ["skip", &trips[1], "--step", "room", "--undo", "--reason", reason];
    let skip = place.amends(&skip);
    assert_eq!(skip.status.code(), Some(0), "{}", stderr(&skip));
    let status = |trip: &str| host.get(&format!("/v1/sagas/{trip}"))["status"].clone();
    host.until("both end", || {
        status(&trips[0]) == "compensated" && status(&trips[1]) == "abandoned"
    });
    // The third is undone when the plugin is granted its state again.
    assert_eq!(host.stop(), Some(0));
    place.config(&format!("[plugin.hotel]\nstate = true\n{}", saga("bad")));
    let host = place.run();
    let path = format!("/v1/sagas/{}", trips[2]);
    host.until("it is undone", || host.get(&path)["status"] == "compensated");
}

#[test]
fn a_dry_run_counts_what_would_be_taken() {
    let place = place();
    let host = place.run();
    start(&place, "gate");
    let stuck = start(&place, "stuck");
    host.until("it is blocked", || host.get(&format!("/v1/sagas/{stuck}"))["status"] == "blocked");
    let retry = ["retry", "--status", "waiting,blocked", "--reason", "it is back", "--dry-run"];
    let told = stdout(&place.amends(&retry));
    assert!(told.contains("retry would act on 1 of 2 sagas; nothing is done yet"), "{told}");
    assert!(told.contains("no call of the saga has failed"), "{told}");
    assert!(told.contains(&stuck), "{told}");
    let json = place.amends(&[&retry[..], &["-o", "json"]].concat());
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["found"], &json["refused"]), (&2.into(), &1.into()), "{json}");
    let path = format!("/v1/sagas/{stuck}");
    let saga = || host.get(&path);
    assert_eq!(saga()["status"], "blocked");
    // In a query, where it once stood, it is refused: passed over, the order would be done.
    let version = saga()["version"].clone();
    let status = |query: &str, body: &str| {
        let url = host.url(&format!("{path}/retry{query}"));
        let request = agent().post(url).header("content-type", "application/json");
        request.send(body).unwrap().status().as_u16()
    };
    assert_eq!(status("", "{\"reason\": \"it is back\", \"dry_run\": true}"), 200);
    assert_eq!(status("", "{\"reason\": \"it is back\", \"dry_run\": null}"), 422);
    assert_eq!(status("?dry_run=true", "{\"reason\": \"it is back\"}"), 400);
    assert_eq!(saga()["version"], version, "nothing was done");
}

#[test]
fn a_dry_run_goes_at_the_rate_of_the_order() {
    let place = place();
    let host = place.run();
    for _ in 0..3 {
        start(&place, "gate");
    }
    host.until("all wait", || host.sagas().iter().all(|saga| saga["status"] == "waiting"));
    let pause = ["pause", "--status", "waiting", "--reason", "to see", "--dry-run", "--rate", "10"];
    let began = std::time::Instant::now();
    let told = stdout(&place.amends(&pause));
    assert!(told.contains("pause would act on 3 sagas; nothing is done yet"), "{told}");
    let took = began.elapsed();
    assert!(took >= std::time::Duration::from_millis(200), "{took:?}");
}
