//! Hostile and broken plugins in a host that serves others.

use std::fmt::Write as _;
use std::fs;

use amends_tests::{Behaviour, Component};
use serde_json::Value;

use crate::place::{Place, stdout};

const HOSTILE: [(&str, Behaviour, &str, &str); 5] = [
    ("spin", Behaviour::Spin, "timeout", "did not answer within its timeout of 300ms"),
    ("allocate", Behaviour::Allocate, "memory_limit", "may have 64 MiB"),
    ("trap", Behaviour::Trap, "trap", "panicked or aborted"),
    ("recurse", Behaviour::Recurse, "trap", "stack overflow"),
    ("huge", Behaviour::Huge, "output_limit", "make it answer less"),
];

fn place() -> Place {
    let place = Place::empty();
    let write = |name: &str, component: Component<'_>| {
        fs::write(place.plugin(name), Component { name, ..component }.build()).unwrap();
    };
    write("good", Component::default());
    let mut sagas = String::from(
        "[plugin.huge]\nmemory_max = \"256MiB\"\n\
         [[saga]]\nname = \"good\"\n[[saga.step]]\nname = \"one\"\nplugin = \"good\"\n",
    );
    for (name, behaviour, _, _) in HOSTILE {
        write(name, Component { execute: behaviour, ..Component::default() });
        let _ = write!(
            sagas,
            "[[saga]]\nname = \"{name}\"\n\
             [[saga.step]]\nname = \"first\"\nplugin = \"good\"\n\
             [[saga.step]]\nname = \"bad\"\nplugin = \"{name}\"\ntimeout = \"300ms\"\n\
             retry = {{ attempts = 2, backoff = [\"10ms\"] }}\n"
        );
    }
    place.config(&sagas);
    place
}

#[test]
fn each_hostile_plugin_gives_a_clear_message_and_others_go_on() {
    let place = place();
    let host = place.run();
    let mut clients = Vec::new();
    for (name, ..) in HOSTILE {
        for _ in 0..8 {
            let start = ["start", name, "--wait", "-o", "json"];
            let client = place.command(&start).stdout(std::process::Stdio::piped()).spawn();
            clients.push((name, client.unwrap()));
        }
    }
    let lines = "{}\n".repeat(200);
    fs::write(place.path("good.ndjson"), lines).unwrap();
    let good = place.amends(&["start", "good", "--input", "good.ndjson", "--each", "--wait"]);
    assert_eq!(good.status.code(), Some(0), "{}", stdout(&good));
    for (name, client) in clients {
        let output = client.wait_with_output().unwrap();
        let saga: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(5), "{name}: {saga}");
        let expected = HOSTILE.iter().find(|hostile| hostile.0 == name).unwrap();
        let reason = saga["reason"].as_str().unwrap();
        assert!(reason.contains(expected.2) && reason.contains(expected.3), "{name}: {reason}");
        // Nobody knows whether it happened, so it was undone too.
        assert_eq!(saga["steps"][1]["status"], "undone", "{saga}");
        assert_eq!(saga["steps"][0]["status"], "undone", "{saga}");
    }
    let metrics = crate::place::agent()
        .get(host.url("/metrics"))
        .call()
        .unwrap()
        .body_mut()
        .read_to_string()
        .unwrap();
    assert!(metrics.contains("amends_plugin_traps_total{plugin=\"trap\"}"), "{metrics}");
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
            text(r#"(component (import "wasi:sockets/network@0.2.0" (instance)))"#),
            "it imports wasi:sockets/network@0.2.0, which is not granted",
        ),
    ];
    for (bytes, words) in broken {
        fs::write(place.plugin("good"), bytes).unwrap();
        host.until(words, || {
            let plugin = host.get("/v1/plugins/good");
            plugin["last_rejection"]["reason"].as_str().is_some_and(|reason| reason.contains(words))
        });
        assert!(host.log().iter().any(|line| line.contains("component is refused")));
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
