//! Dependencies point down, towards the engine.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::place::repository;

/// From the bottom up: each may depend on those before it.
const LAYERS: [&str; 15] = [
    "amends-engine",
    "amends-api-types",
    "amends-failpoint",
    "amends-telemetry",
    "amends-store",
    "amends-keys",
    "amends-sandbox",
    "amends-registry",
    "amends-subscriptions",
    "amends-peers",
    "amends-runtime",
    "amends-config",
    "amends-workbench",
    "amends-api",
    "amends",
];

/// What a crate must not depend on: crates of the host, although they are below it, and what the command
/// line is made of. The API reaches the store through `Host` only, so that whoever asks for a change is
/// recorded with it.
const NOT: [(&str, &str); 6] = [
    ("amends-sandbox", "amends-store"),
    ("amends-api", "amends-store"),
    ("amends-api", "amends-config"),
    ("amends-api", "amends-workbench"),
    ("amends-workbench", "clap"),
    ("amends-workbench", "comfy-table"),
];

/// These crates are pure: a client or a simulator can have them without a host.
const PURE: [&str; 2] = ["amends-engine", "amends-api-types"];

/// What a pure crate must never reach, not even through others.
const FORBIDDEN: [&str; 8] =
    ["tokio", "rusqlite", "wasmtime", "axum", "reqwest", "rand", "notify", "tracing"];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        // Other platforms' packages need not be there.
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn dependencies_point_down_only() {
    let metadata = metadata();
    let mut found = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some(layer) = LAYERS.iter().position(|layer| *layer == name) else { continue };
        found += 1;
        for dependency in package["dependencies"].as_array().unwrap() {
            // A test may look wherever it wants.
            if dependency["kind"] == "dev" {
                continue;
            }
            let on = dependency["name"].as_str().unwrap();
            assert!(!NOT.contains(&(name, on)), "{name} depends on {on}");
            if on.starts_with("amends") {
                let below = LAYERS.iter().position(|layer| *layer == on);
                assert!(below.is_some_and(|below| below < layer), "{name} depends on {on}");
            }
        }
    }
    assert_eq!(found, LAYERS.len());
}

#[test]
fn a_pure_crate_reaches_no_clock_no_disk_and_no_network() {
    let metadata = metadata();
    let packages: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap()))
        .collect();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    for pure in PURE {
        let id = packages.iter().find(|(_, name)| **name == pure).unwrap().0;
        let reached = reached(id, &nodes);
        assert!(reached.len() > 5, "the graph was not read");
        for id in reached {
            let name = packages[id];
            assert!(!FORBIDDEN.contains(&name), "{pure} reaches {name}");
        }
    }
}

/// What a package depends on, also through others; build and test dependencies do not count.
fn reached<'m>(id: &'m str, nodes: &BTreeMap<&str, &'m Value>) -> Vec<&'m str> {
    let (mut reached, mut open) = (Vec::new(), vec![id]);
    while let Some(id) = open.pop() {
        for dependency in nodes[id]["deps"].as_array().unwrap() {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            let on = dependency["pkg"].as_str().unwrap();
            if kinds.iter().any(|kind| kind["kind"].is_null()) && !reached.contains(&on) {
                reached.push(on);
                open.push(on);
            }
        }
    }
    reached
}
