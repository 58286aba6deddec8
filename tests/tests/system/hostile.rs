//! Hostile and broken plugins in a host that serves others.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use amends_tests::{Behaviour, Bomb, Component, Expect, HOSTILE, Hostile, bombs, live_locals};
use serde_json::Value;

use crate::place::{Host, MemoryGroup, Place, agent, stdout};

/// How often each of them is tried at once.
const TIMES: usize = 3;

fn place() -> Place {
    let place = Place::empty();
    let write = |name: &str, component: Component<'_>| {
        fs::write(place.plugin(name), Component { name, ..component }.build()).unwrap();
    };
    write("good", Component::default());
    let mut config = String::from(
        "[plugin.keeps-secret]\nsecrets = { api_key = { file = \"secret\" } }\n\
         [[saga]]\nname = \"good\"\n[[saga.step]]\nname = \"one\"\nplugin = \"good\"\n",
    );
    fs::write(place.path("secret"), "not for others").unwrap();
    for hostile in HOSTILE {
        let Hostile { name, config: granted, .. } = hostile;
        fs::write(place.plugin(name), hostile.build()).unwrap();
        let _ = writeln!(config, "[plugin.{name}]\n{granted}");
        if !matches!(hostile.expect, Expect::Refused(_)) {
            // Only what never ends meets it, however busy the machine is.
            let is_endless = matches!(hostile.expect, Expect::Stopped("timeout", _));
            let timeout = if is_endless { "300ms" } else { "30s" };
            let _ = write!(
                config,
                "[[saga]]\nname = \"{name}\"\n\
                 [[saga.step]]\nname = \"first\"\nplugin = \"good\"\n\
                 [[saga.step]]\nname = \"bad\"\nplugin = \"{name}\"\ntimeout = \"{timeout}\"\n\
                 retry = {{ attempts = 2, backoff = [\"10ms\"] }}\n"
            );
        }
    }
    place.config(&config);
    place
}

/// Runs so many sagas that mean no harm, and answers how long the slowest but one percent took.
fn good(place: &Place, host: &Host) -> Duration {
    fs::write(place.path("good.ndjson"), "{}\n".repeat(500)).unwrap();
    let good = ["start", "good", "--input", "good.ndjson", "--each", "--wait", "-o", "ids"];
    let good = place.amends(&good);
    assert_eq!(good.status.code(), Some(0), "{}", crate::place::stderr(&good));
    let ids = stdout(&good);
    let mut times: Vec<_> = ids
        .lines()
        .map(|id| {
            let saga = host.get(&format!("/v1/sagas/{id}"));
            assert_eq!(saga["status"], "completed", "{saga}");
            let at =
                |field: &str| saga[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
            Duration::try_from(at("ended_at") - at("started_at")).unwrap()
        })
        .collect();
    assert_eq!(times.len(), 500);
    times.sort();
    times[times.len() * 99 / 100]
}

/// Starts a saga and answers how it rests.
fn started(url: &str, definition: &str) -> Value {
    let request = serde_json::json!({"definition": definition, "input": {}});
    agent().post(url).send_json(request).unwrap().body_mut().read_json().unwrap()
}

#[test]
fn each_hostile_component_is_stopped_and_others_go_on() {
    assert!(HOSTILE.len() >= 30);
    let place = place();
    let host = place.run();
    let quiet = good(&place, &host);
    let before = host.memory_mib();
    let called = || HOSTILE.iter().filter(|one| !matches!(one.expect, Expect::Refused(_)));
    let start = |name: fn(&Hostile) -> &'static str| {
        let mut clients = Vec::new();
        for hostile in called() {
            for _ in 0..TIMES {
                let (url, name) = (host.url("/v1/sagas?wait=60s"), name(hostile));
                clients.push((hostile, std::thread::spawn(move || started(&url, name))));
            }
        }
        clients
    };
    // As many that mean no harm take their time too.
    let clients = start(|_| "good");
    let among = good(&place, &host);
    for (_, client) in clients {
        assert_eq!(client.join().unwrap()["status"], "completed");
    }
    let clients = start(|hostile| hostile.name);
    let beside = good(&place, &host);
    for (hostile, client) in clients {
        let (saga, name) = (client.join().unwrap(), hostile.name);
        let Expect::Stopped(code, words) = hostile.expect else {
            assert_eq!(saga["status"], "completed", "{name}: {saga}");
            continue;
        };
        assert_eq!(saga["status"], "compensated", "{name}: {saga}");
        let reason = saga["reason"].as_str().unwrap();
        assert!(reason.contains(code) && reason.contains(words), "{name}: {reason}");
        assert!(!reason.contains('\n') && reason.len() < 600, "{name}: {reason}");
        // Nobody knows whether it happened, so it was undone too.
        assert_eq!(saga["steps"][1]["status"], "undone", "{saga}");
        assert_eq!(saga["steps"][0]["status"], "undone", "{saga}");
    }
    for hostile in HOSTILE {
        let Expect::Refused(words) = hostile.expect else { continue };
        // No definition needs it, so the host is ready before it has looked at it.
        let refusal = || {
            let plugins = host.get("/v1/plugins");
            let mut plugins = plugins["items"].as_array().unwrap().iter();
            let plugin = plugins.find(|one| one["name"] == hostile.name);
            plugin.map(|one| one["last_rejection"]["reason"].clone()).filter(Value::is_string)
        };
        host.until("it is refused", || refusal().is_some());
        let reason = refusal().unwrap();
        assert!(reason.as_str().unwrap().contains(words), "{}: {reason}", hostile.name);
    }
    let after = host.memory_mib();
    println!(
        "p99 of others {quiet:?} quiet, {among:?} beside as many good ones, {beside:?} beside these; \
         memory {before} to {after} MiB"
    );
    // The largest that a call may have here is 256 MiB, and none of it stays.
    assert!(after < before + 150, "memory {before} to {after} MiB");
    assert!(beside < Duration::from_secs(3), "others waited: {quiet:?} to {beside:?}");
    let metrics = crate::place::text(&host.url("/metrics"));
    assert!(metrics.contains("amends_plugin_traps_total{plugin=\"trap\"}"), "{metrics}");
    let log = host.log();
    let chatty = log.iter().filter(|line| line.contains("\"plugin\":\"chatty\""));
    assert!(chatty.count() <= TIMES * 2 * 101, "a call's log lines have a limit");
    assert_eq!(host.stop(), Some(0));
}

/// With those that take all tables, all memory and the writer's time, and files that nobody should
/// look at: a host of a gibibyte neither ends nor keeps others waiting.
#[test]
fn all_of_them_at_once_leave_a_host_of_a_gibibyte_to_others() {
    let place = place();
    let mut config = fs::read_to_string(place.path("amends.toml")).unwrap();
    let crowds = crowds();
    for (name, component, granted, _) in &crowds {
        fs::write(place.plugin(name), component).unwrap();
        let _ = write!(
            config,
            "[plugin.{name}]\n{granted}\n[[saga]]\nname = \"{name}\"\n[[saga.step]]\nname = \"bad\"\n\
             plugin = \"{name}\"\ntimeout = \"100s\"\nretry = {{ attempts = 1 }}\n"
        );
    }
    fs::write(place.path("amends.toml"), config).unwrap();
    let group = MemoryGroup::new(1 << 30);
    let host = group.as_ref().map_or_else(
        || place.run_with_env(&[("AMENDS_MEMORY_MAX", "512MiB")]),
        |group| place.run_in(group),
    );
    crate::rooms::import_keys(&place);
    let quiet = good(&place, &host);

    let mut files = bombs();
    let bomb = |name, bytes, words| Bomb { name, bytes, words };
    files.push(bomb("live locals", live_locals(), "memory"));
    files.push(bomb("core module", Component::default().core_module(), "core module"));
    files.push(bomb("name of another", Component::default().build(), "and the plugin is"));
    for (number, file) in files.iter().enumerate() {
        fs::write(place.plugin(&format!("file-{number}")), &file.bytes).unwrap();
    }
    let hostile = HOSTILE.iter().filter(|one| !matches!(one.expect, Expect::Refused(_)));
    let hostile = hostile.map(|one| (one.name, TIMES));
    let crowds = crowds.iter().map(|(name, .., count)| (*name, *count));
    let clients: Vec<_> = hostile
        .chain(crowds)
        .flat_map(|(name, count)| std::iter::repeat_n(name, count))
        .map(|name| {
            let url = host.url("/v1/sagas?wait=110s");
            (name, std::thread::spawn(move || started(&url, name)))
        })
        .collect();
    let beside = good(&place, &host);
    for (name, client) in clients {
        let saga = client.join().unwrap();
        let is_over = ["completed", "compensated"].contains(&saga["status"].as_str().unwrap());
        assert!(is_over, "{name}: {saga}");
    }
    for (number, file) in files.iter().enumerate() {
        let name = format!("file-{number}");
        host.until(file.name, || crate::inspection::refusal(&host, &name).is_some());
        let reason = crate::inspection::refusal(&host, &name).unwrap();
        assert!(reason.contains(file.words), "{}: {reason}", file.name);
    }
    let after = good(&place, &host);
    let peak = host.memory_peak_mib();
    println!(
        "p99 of others {quiet:?} quiet, {beside:?} beside all of them, {after:?} afterwards; the host had \
         {peak} MiB at most, its group {:?}",
        group.as_ref().map(MemoryGroup::peak_mib)
    );
    assert!(peak < 1 << 10, "the host had {peak} MiB");
    assert!(beside < Duration::from_secs(3), "others waited: {quiet:?} to {beside:?}");
    assert_eq!(host.stop(), Some(0));
}

/// Those of which many calls at once take from others: name, component, config, calls.
fn crowds() -> [(&'static str, Vec<u8>, &'static str, usize); 3] {
    [
        ("tables", crate::rooms::tables(), "concurrency = 64", 56),
        ("heavy", crate::rooms::heavy(), "concurrency = 64", 64),
        ("lists", crate::rooms::lists(), crate::rooms::LISTS_CONFIG, 8),
    ]
}

/// Of each alone, so that it is seen which of them others have to wait for.
#[test]
fn others_go_on_beside_twelve_callers_of_any_hostile_component() {
    let place = place();
    let host = place.run();
    let mut quiet: Vec<_> = (0..5).map(|_| good(&place, &host)).collect();
    quiet.sort();
    println!("p99 of others {:?} quiet, {:?} at worst; beside:", quiet[2], quiet[4]);
    for hostile in HOSTILE.iter().filter(|one| !matches!(one.expect, Expect::Refused(_))) {
        let (calls, is_over) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let callers: Vec<_> = (0..12)
            .map(|_| {
                let (url, name) = (host.url("/v1/sagas?wait=60s"), hostile.name);
                let (calls, is_over) = (Arc::clone(&calls), Arc::clone(&is_over));
                std::thread::spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        let saga = started(&url, name);
                        assert!(saga["ended_at"].is_string(), "{name}: {saga}");
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(50));
        let beside = good(&place, &host);
        is_over.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.join().unwrap();
        }
        println!("{:>20} {beside:?}, {} sagas", hostile.name, calls.load(Ordering::Relaxed));
        assert!(beside < Duration::from_secs(1), "{}: {beside:?}", hostile.name);
    }
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn each_broken_file_is_refused_with_its_reason_and_sagas_go_on() {
    let place = place();
    let host = place.run();
    let good = fs::read(place.plugin("good")).unwrap();
    let text = |text: &str| wat::parse_str(text).unwrap();
    let broken = [
        (b"fn main() {}".to_vec(), "it is not WebAssembly"),
        (good[..good.len() / 2].to_vec(), "it is incomplete"),
        (text("(component)"), "it does not export amends:saga/manifest"),
        (
            Component { world: "undo-only", name: "good", ..Component::default() }.build(),
            "it does not export amends:saga/action; a definition calls it",
        ),
        (
            text(r#"(component (import "wasi:keyvalue/store@0.2.0" (instance)))"#),
            "it imports wasi:keyvalue/store@0.2.0, which is not granted",
        ),
    ];
    for (bytes, words) in broken {
        fs::write(place.plugin("good"), bytes).unwrap();
        host.until(words, || {
            let plugin = host.get("/v1/plugins/good");
            plugin["last_rejection"]["reason"].as_str().is_some_and(|reason| reason.contains(words))
        });
        // The log is read by another thread.
        host.until("the log says it", || {
            host.log().iter().any(|line| line.contains("component is refused"))
        });
        let output = place.amends(&["start", "good", "--wait"]);
        assert_eq!(output.status.code(), Some(0), "{words}: {}", stdout(&output));
    }
    let output = place.amends(&["plugin", "list"]);
    assert!(stdout(&output).contains("good"), "{}", stdout(&output));
    assert_eq!(host.stop(), Some(0));
    // A restart with the bad file in place goes on with the last good one.
    let host = place.run();
    let output = place.amends(&["start", "good", "--wait"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_plugin_that_nobody_has_is_named_at_the_start() {
    let place = place();
    fs::remove_file(place.plugin("trap")).unwrap();
    let host = place.spawn();
    host.until("it says why", || {
        host.log().join("\n").contains("plugin `trap` has no component that can serve")
    });
    assert_eq!(host.ended(), Some(1));
    fs::write(place.plugin("trap"), "not a component").unwrap();
    let host = place.spawn();
    host.until("it says why", || {
        host.log().join("\n").contains("its file is refused: it is not WebAssembly")
    });
    assert_eq!(host.ended(), Some(1));
}

/// A pause can be over before the append that records it is durable.
#[test]
fn pauses_shorter_than_an_append_wake_their_sagas() {
    let place = Place::empty();
    let trap = Component { name: "trap", execute: Behaviour::Trap, ..Component::default() };
    fs::write(place.plugin("trap"), trap.build()).unwrap();
    place.config(
        "[[saga]]\nname = \"trap\"\n[[saga.step]]\nname = \"one\"\nplugin = \"trap\"\n\
         retry = { attempts = 6, backoff = [\"1ms\"] }\n",
    );
    let host = place.run();
    fs::write(place.path("lines"), "{}\n".repeat(300)).unwrap();
    let output = place.amends(&["start", "trap", "--input", "lines", "--each", "--wait"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    assert!(stdout(&output).contains("300  compensated"), "{}", stdout(&output));
    assert_eq!(host.stop(), Some(0));
}

/// Who is called at night sees what was thrown: in `why`, in the saga as JSON, and in the log beside the
/// saga and the step.
#[test]
fn what_a_component_threw_is_told_everywhere() {
    let place = place();
    let host = place.run();
    let saga = started(&host.url("/v1/sagas?wait=30s"), "thrown");
    let thrown = "TypeError: order.seats is undefined";
    let bad = &saga["steps"][1];
    assert_eq!(bad["error"]["code"], "trap", "{saga}");
    assert!(bad["error"]["message"].as_str().unwrap().ends_with(thrown), "{bad}");
    let said = &bad["error"]["details"]["said"];
    assert_eq!(*said, serde_json::json!([thrown, "  execute@plugin.js:7:3"]), "{bad}");
    let id = saga["id"].as_str().unwrap();
    let of_step = |line: &&String| line.contains(id) && line.contains("\"step\":\"bad\"");
    let log = host.log();
    let lines: Vec<_> = log.iter().filter(of_step).collect();
    assert!(lines.iter().any(|line| line.contains("\\\"stream\\\":\\\"stderr\\\"")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("the component was stopped")), "{lines:?}");
    host.stop();
}
