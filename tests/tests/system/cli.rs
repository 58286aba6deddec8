//! The command line: what it prints and how it exits.

use std::fs;
use std::io::Write as _;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::place::{Place, example, stderr, stdout};

/// An id that no saga has.
const UNKNOWN: &str = "0198c0de-0000-7000-8000-000000000000";

/// The command line with this text on its standard input.
pub(crate) fn fed(place: &Place, arguments: &[&str], text: &str) -> Output {
    let mut child = place
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    let place = Place::example();
    let host = place.run();
    let code = |arguments: &[&str]| place.amends(arguments).status.code();
    assert_eq!(code(&["list"]), Some(0));
    assert_eq!(code(&["check", "amends.toml"]), Some(0));
    assert_eq!(code(&["lift"]), Some(2));
    assert_eq!(code(&["start"]), Some(2));
    assert_eq!(code(&["get", "0198c0de-0000-7000-8000-000000000000"]), Some(4));
    assert_eq!(code(&["why", "seven"]), Some(1), "it is no id");
    assert_eq!(code(&["start", "nothing"]), Some(4));
    assert_eq!(code(&["start", "order-fulfillment", "--input", "{"]), Some(1));
    assert_eq!(host.stop(), Some(0));
    let output = place.amends(&["list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot be reached"), "{}", stderr(&output));
    assert!(stderr(&output).contains("is it running"), "{}", stderr(&output));
}

#[test]
fn a_tag_and_a_key_are_found_as_they_were_given() {
    let place = Place::example();
    let _host = place.run();
    let order = example().join("order.json");
    let order = ["order-fulfillment", "--input", order.to_str().unwrap(), "-o", "ids"];
    let output = place.amends(&[&["start", "--tag", "shop=a:b"], &order[..]].concat());
    let id = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    place.amends(&[&["start"], &order[..]].concat());
    for tag in ["shop=a:b", "shop:a:b"] {
        let found = place.amends(&["list", "--tag", tag, "-o", "ids"]);
        assert_eq!(stdout(&found), id, "{tag}: {}", stderr(&found));
    }
    let keyed = [&["start", "--key", "order 7&8"], &order[..]].concat();
    let keyed = stdout(&place.amends(&keyed));
    assert_eq!(stdout(&place.amends(&["list", "--key", "order 7&8", "-o", "ids"])), keyed);
    let other = ["list", "--key", "order 7&8", "--tag", "shop=a:b", "-o", "ids"];
    assert_eq!(stdout(&place.amends(&other)), "");
    let output = place.amends(&["list", "--tag", "shop"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("write NAME=VALUE or NAME:VALUE"), "{}", stderr(&output));
}

#[test]
fn a_list_that_ends_early_says_so() {
    let place = Place::example();
    let _host = place.run();
    let order = example().join("order-undeliverable.json");
    let orders = fs::read_to_string(order).unwrap().replace('\n', " ");
    fs::write(place.path("orders.ndjson"), format!("{orders}\n").repeat(51)).unwrap();
    let start = ["start", "order-fulfillment", "--each", "--input", "orders.ndjson", "--wait"];
    assert_eq!(place.amends(&start).status.code(), Some(0));
    let rows = |output: &Output| {
        stdout(output).lines().filter(|line| line.contains("order-fulfillment")).count()
    };
    let output = place.amends(&["list"]);
    assert_eq!(rows(&output), 50);
    let told = "the newest 50, and there are more: --limit 0 lists all\n";
    assert_eq!(stderr(&output), told);
    let output = place.amends(&["list", "--limit", "0"]);
    assert_eq!((rows(&output), stderr(&output).as_str()), (51, ""));
    // What goes into a pipe is complete.
    let output = place.amends(&["list", "-o", "ids"]);
    assert_eq!((stdout(&output).lines().count(), stderr(&output).as_str()), (51, ""));
    let output = place.amends(&["list", "--limit", "51"]);
    assert_eq!((rows(&output), stderr(&output).as_str()), (51, ""));
}

#[test]
fn ids_go_from_one_verb_to_the_next() {
    let place = Place::example();
    let _host = place.run();
    let order = example().join("order-undeliverable.json");
    let order = order.to_str().unwrap();
    for _ in 0..3 {
        place.amends(&["start", "order-fulfillment", "--input", order, "--wait"]);
    }
    let ids = stdout(&place.amends(&["list", "--status", "compensated", "-o", "ids"]));
    assert_eq!(ids.lines().count(), 3);
    for verb in ["get", "why", "history"] {
        let output = fed(&place, &[verb, "-"], &ids);
        assert_eq!(output.status.code(), Some(0), "{verb}");
        let text = stdout(&output);
        assert!(ids.lines().all(|id| text.contains(id)) || verb == "history", "{verb}: {text}");
    }
    let watched = place.amends(&["watch", ids.lines().next().unwrap()]);
    assert!(stdout(&watched).contains("saga.compensated"), "{}", stdout(&watched));
}

#[test]
fn watch_follows_the_sagas_that_it_reads_one_after_another() {
    let place = Place::example();
    let _host = place.run();
    let started = |order: &str| {
        let order = example().join(order);
        let order = order.to_str().unwrap();
        let start = ["start", "order-fulfillment", "--input", order, "-o", "ids"];
        stdout(&place.amends(&start))
    };
    let (good, bad) = (started("order.json"), started("order-undeliverable.json"));
    let output = fed(&place, &["watch", "-", "-o", "jsonl"], &(bad.clone() + &good));
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(5), "one was compensated: {text}{}", stderr(&output));
    let at = |kind: &str| text.find(kind).unwrap_or_else(|| panic!("no {kind}: {text}"));
    assert!(at("saga.compensated") < at("saga.completed"), "{text}");
    let output = fed(&place, &["watch", "-", "-o", "ids"], &(good.clone() + &bad));
    let mut ids: Vec<_> = stdout(&output).lines().map(str::to_owned).collect();
    ids.dedup();
    assert_eq!(ids, [good.trim(), bad.trim()]);
    // A line of many histories says whose it is.
    let output = fed(&place, &["history", "-", "-o", "jsonl"], &(good.clone() + &bad));
    let lines = stdout(&output);
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut sagas: Vec<_> = lines.map(|event| event["saga"].as_str().unwrap().to_owned()).collect();
    sagas.dedup();
    assert_eq!(sagas, [good.trim(), bad.trim()]);
    let unknown = format!("{UNKNOWN}\n{good}");
    let output = fed(&place, &["watch", "-"], &unknown);
    assert_eq!(output.status.code(), Some(4));
    assert!(stdout(&output).contains("saga.completed"), "it goes on: {}", stdout(&output));
}

#[test]
fn verbs_on_many_ids_go_on_past_those_that_fail() {
    let place = Place::example();
    let _host = place.run();
    let order = example().join("order.json");
    let start = ["start", "order-fulfillment", "--input", order.to_str().unwrap(), "--wait"];
    let id = stdout(&place.amends(&[&start[..], &["-o", "ids"]].concat())).trim().to_owned();
    let ids = format!("{UNKNOWN}\n{id}\n");
    for verb in ["get", "why", "history"] {
        let output = fed(&place, &[verb, "-", "-o", "ids"], &ids);
        assert_eq!(output.status.code(), Some(4), "{verb}: all that failed were not found");
        assert_eq!(stdout(&output).trim(), id, "{verb}: {}", stderr(&output));
        let told = stderr(&output);
        assert!(told.starts_with(&format!("{UNKNOWN}: there is no saga")), "{verb}: {told}");
    }
    // Both fail; a conflict weighs more.
    let output = fed(&place, &["cancel", "-", "--reason", "late"], &ids);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    for id in [UNKNOWN, &id] {
        assert!(stderr(&output).contains(&format!("{id}: ")), "{}", stderr(&output));
    }
    let output = fed(&place, &["cancel", "-", "--reason", "late"], &format!("{UNKNOWN}\n"));
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn a_host_that_is_gone_is_told_once() {
    let place = Place::empty();
    let output = fed(&place, &["get", "-"], &format!("{UNKNOWN}\n").repeat(3));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output).matches("cannot be reached").count(), 1, "{}", stderr(&output));
}

#[test]
fn a_pipe_that_is_closed_ends_a_verb_quietly() {
    let place = Place::example();
    let _host = place.run();
    let order = example().join("order.json");
    let start = ["start", "order-fulfillment", "--input", order.to_str().unwrap(), "--wait"];
    let id = stdout(&place.amends(&[&start[..], &["-o", "ids"]].concat())).trim().to_owned();
    let verbs: [&[&str]; 9] = [
        &["list"],
        &["list", "-o", "ids"],
        &["get", &id],
        &["get", &id, "-o", "json"],
        &["history", &id],
        &["why", &id],
        &["watch", &id],
        &["check", "amends.toml"],
        &["completions", "bash"],
    ];
    for verb in verbs {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = place.command(verb).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(stderr(&output), "", "{verb:?}");
        assert_eq!(output.status.code(), Some(141), "{verb:?}: as SIGPIPE is told by a shell");
    }
}

#[test]
fn every_verb_has_a_help_with_an_example() {
    let place = Place::empty();
    let help = stdout(&place.amends(&["--help"]));
    let verbs: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.len() >= 11, "{verbs:?}");
    for verb in verbs {
        let help = stdout(&place.amends(&[verb, "--help"]));
        let expected = format!("  amends {verb}");
        assert!(help.contains("\nExample") && help.contains(&expected), "{verb}: {help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&place.amends(&["completions", shell]));
        assert!(script.contains("amends") && script.lines().count() > 20, "{shell}");
    }
}

#[test]
fn a_plugin_file_can_be_inspected_without_a_host() {
    let place = Place::example();
    let file = place.plugin("inventory-release");
    let output = place.amends(&["plugin", "inspect", file.to_str().unwrap()]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for word in ["inventory-release", "compensate", "sha256:"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    std::fs::write(place.path("broken.wasm"), "no").unwrap();
    let output = place.amends(&["plugin", "inspect", "broken.wasm"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("it is not WebAssembly"), "{}", stderr(&output));
}

#[test]
fn an_unreadable_store_is_reported_and_left_alone() {
    let place = Place::example();
    std::fs::create_dir(place.path("data")).unwrap();
    std::fs::write(place.path("data/amends.db"), "These are minutes of a meeting.\n".repeat(100))
        .unwrap();
    let before = std::fs::read(place.path("data/amends.db")).unwrap();
    let host = place.spawn();
    host.until("it says why", || host.log().join("\n").contains("not a SQLite database"));
    assert_eq!(host.ended(), Some(9));
    assert_eq!(std::fs::read(place.path("data/amends.db")).unwrap(), before);
}
