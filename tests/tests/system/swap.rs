//! Hot swap of an undo while sagas run.

use std::process::Stdio;
use std::time::SystemTime;

use serde_json::Value;

use crate::ledger::{self, of_type};
use crate::place::{Place, example};

/// A build with another version: the committed component with another text in its manifest.
pub(crate) fn another_version(component: &[u8]) -> Vec<u8> {
    let (old, new) = (b"0.1.0", b"0.1.1");
    let mut bytes = component.to_vec();
    let places: Vec<_> =
        (0..bytes.len() - old.len()).filter(|at| bytes[*at..].starts_with(old)).collect();
    assert!(!places.is_empty(), "the version is not in the component");
    for place in places {
        bytes[place..place + new.len()].copy_from_slice(new);
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
