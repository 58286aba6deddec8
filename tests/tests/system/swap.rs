//! Hot swap of an undo while sagas run.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use amends_tests::Component;
use serde_json::Value;

use crate::ledger::{self, of_type};
use crate::place::{Host, Place, example, text};

/// A build with another version: the committed component with another text in its manifest.
pub(crate) fn another_version(component: &[u8]) -> Vec<u8> {
    with_version(component, *b"0.1.1")
}

fn with_version(component: &[u8], new: [u8; 5]) -> Vec<u8> {
    let old = b"0.1.0";
    let mut bytes = component.to_vec();
    let places: Vec<_> =
        (0..bytes.len() - old.len()).filter(|at| bytes[*at..].starts_with(old)).collect();
    assert!(!places.is_empty(), "the version is not in the component");
    for place in places {
        bytes[place..place + new.len()].copy_from_slice(&new);
    }
    bytes
}

#[test]
fn an_undo_is_swapped_while_a_thousand_sagas_run() {
    let place = Place::example();
    let host = place.run();
    let orders = example().join("orders.ndjson");
    let start =
        ["start", "order-fulfillment", "--input", orders.to_str().unwrap(), "--each", "--wait"];
    let run = || place.command(&start).stdout(Stdio::null()).spawn().unwrap();
    let first = run();
    let undone = |digest: &Value| {
        let events = host.events();
        events
            .iter()
            .filter(|event| event["type"] == "undo.started" && event["data"]["step"] == "inventory")
            .filter(|event| event["data"]["digest"] == *digest)
            .count()
    };
    let old = host.get("/v1/plugins/inventory-release")["digest"].clone();
    host.until("undos run", || undone(&old) > 3);
    let new = another_version(&std::fs::read(place.plugin("inventory-release")).unwrap());
    let written_at = SystemTime::now();
    std::fs::write(place.plugin("inventory-release"), &new).unwrap();
    host.until("the new one is active", || {
        host.get("/v1/plugins/inventory-release")["version"] == "0.1.1"
    });
    println!("active {:?} after the file was written", written_at.elapsed().unwrap());
    let plugin = host.get("/v1/plugins/inventory-release");
    let digest = plugin["digest"].clone();
    assert_ne!(digest, old);
    assert_eq!(plugin["history"].as_array().unwrap().len(), 2);
    // The first thousand may have ended by then.
    let second = run();
    for mut client in [first, second] {
        assert_eq!(client.wait().unwrap().code(), Some(0), "a saga did not end");
    }
    let events = host.events();
    let found = ledger::check(&events);
    assert_eq!(found.completed + found.compensated, 2_000);
    ledger::check_effects(&events, &host.log());
    let events: Vec<&Value> = events.iter().collect();
    let activated = of_type(&events, "plugin.activated")
        .find(|event| event["data"]["components"][0]["digest"] == digest)
        .expect("the activation is an event");
    let component = &activated["data"]["components"][0];
    assert_eq!(component["plugin"], "inventory-release");
    assert_eq!((&component["previous"], &activated["data"]["cause"]), (&old, &"file".into()));
    let undos: Vec<_> = of_type(&events, "undo.started")
        .filter(|event| event["data"]["step"] == "inventory")
        .collect();
    let (before, after): (Vec<&Value>, Vec<&Value>) =
        undos.into_iter().partition(|undo| undo["data"]["digest"] == old);
    assert!(before.len() > 3 && after.len() > 20, "{} and {}", before.len(), after.len());
    assert!(after.iter().all(|undo| undo["data"]["digest"] == digest));
    // Undos that were admitted in the moment of the swap apart, the order is that of the log.
    let last_old = before.iter().map(|undo| undo["position"].as_u64().unwrap()).max().unwrap();
    let late = after.iter().filter(|undo| undo["position"].as_u64().unwrap() < last_old).count();
    assert!(late <= 64, "the old one served on: {late} new undos before the last old one");
    assert_eq!(host.stop(), Some(0));
}

/// Sagas that are started at once while components are swapped.
const FEW: usize = 200;

/// Components in memory.
fn loaded(host: &Host) -> usize {
    let metrics = text(&host.url("/metrics"));
    let line = metrics.lines().find_map(|line| line.strip_prefix("amends_plugin_components "));
    line.map_or(0, |count| count.parse().unwrap())
}

#[test]
fn fifty_swaps_good_and_bad_harm_no_saga_and_leave_no_code() {
    let place = Place::example();
    let host = place.run();
    let orders = std::fs::read_to_string(example().join("orders.ndjson")).unwrap();
    let few: Vec<_> = orders.lines().take(FEW).collect();
    std::fs::write(place.path("few.ndjson"), few.join("\n")).unwrap();
    let few = || {
        let start = ["start", "order-fulfillment", "--input", "few.ndjson", "--each", "--wait"];
        let client = place.command(&start).stdout(Stdio::null()).status();
        assert_eq!(client.unwrap().code(), Some(0), "a saga did not end");
    };
    few();
    host.until("code is counted", || loaded(&host) > 0);
    let (before, memory_before) = (loaded(&host), host.memory_mib());
    let first = std::fs::read(place.plugin("inventory-release")).unwrap();
    let bad = [
        b"no component".to_vec(),
        first[..first.len() / 2].to_vec(),
        Component { describe: Some("unreachable"), ..Component::default() }.build(),
        Component { world: "step-only", ..Component::default() }.build(),
    ];
    let is_over = AtomicBool::new(false);
    let times = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut times = 1;
            while !is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                few();
                times += 1;
                // A component is compiled when nobody else wants the processor: leave it some.
                std::thread::sleep(began.elapsed());
            }
            times
        });
        for number in 0..50 {
            let plugin = || host.get("/v1/plugins/inventory-release");
            if number % 2 == 0 {
                let mut bytes = with_version(&first, *b"0.1.1");
                bytes.extend(section(number));
                let digest = amends_engine::Digest::of(&bytes).to_string();
                std::fs::write(place.plugin("inventory-release"), bytes).unwrap();
                host.until("it is active", || plugin()["digest"] == digest);
            } else {
                let refused = plugin()["rejections"].as_array().unwrap().len();
                let bad = &bad[number / 2 % bad.len()];
                std::fs::write(place.plugin("inventory-release"), bad).unwrap();
                host.until("it is refused", || {
                    plugin()["rejections"].as_array().unwrap().len() > refused
                });
            }
        }
        is_over.store(true, Ordering::Relaxed);
        load.join().unwrap()
    });
    let events = host.events();
    let found = ledger::check(&events);
    assert_eq!(found.completed + found.compensated, times * FEW);
    ledger::check_effects(&events, &host.log());
    let all: Vec<&Value> = events.iter().collect();
    assert_eq!(of_type(&all, "plugin.rejected").count(), 25);
    let undos = of_type(&all, "undo.started").filter(|undo| undo["data"]["step"] == "inventory");
    let by: std::collections::BTreeSet<_> =
        undos.map(|undo| undo["data"]["digest"].to_string()).collect();
    assert!(by.len() > 10, "{} components undid something", by.len());
    let began = Instant::now();
    host.until("the code of the others is freed", || loaded(&host) == before);
    println!(
        "{} sagas; code freed {:?} after the last; memory {memory_before} MiB before, {} MiB after",
        times * FEW,
        began.elapsed(),
        host.memory_mib()
    );
    assert_eq!(host.stop(), Some(0));
}

/// A custom section, which says nothing to anybody.
fn section(number: usize) -> Vec<u8> {
    vec![0, 3, 1, b'x', u8::try_from(number).unwrap()]
}
