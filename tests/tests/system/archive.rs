//! The archive: moved by the command line and by the host, read like any saga, and whole whenever the
//! host dies in the middle.

use std::collections::BTreeSet;
use std::fs;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use crate::place::{Host, Place, example, stderr, stdout};

/// The failpoints of a move to the archive, in their order.
pub(crate) const MOVE_POINTS: [&str; 7] = [
    "store.archive.writing",
    "store.archive.written",
    "store.archive.named",
    "store.archive.verified",
    "store.archive.recorded",
    "store.archive.removing",
    "store.archive.removed",
];

/// All of them: the last one is hit when a saga comes back.
pub(crate) const ARCHIVE_POINTS: [&str; 8] = [
    MOVE_POINTS[0],
    MOVE_POINTS[1],
    MOVE_POINTS[2],
    MOVE_POINTS[3],
    MOVE_POINTS[4],
    MOVE_POINTS[5],
    MOVE_POINTS[6],
    "store.archive.brought_back",
];

/// How long a host may live on with its failpoint set.
const HIT_LIMIT: Duration = Duration::from_secs(20);

/// A place whose sagas are past their retention as soon as they have ended, with the example's orders,
/// and their ids.
fn settled() -> (Place, Vec<String>) {
    settled_in("archive", &[])
}

/// The same, with this archive and environment.
pub(crate) fn settled_in(archive: &str, environment: &[(&str, &str)]) -> (Place, Vec<String>) {
    let place = Place::example();
    let config = fs::read_to_string(place.path("amends.toml")).unwrap();
    let store = format!("[store]\nretention = \"1ms\"\narchive = \"{archive}\"\n");
    fs::write(place.path("amends.toml"), config.replace("[store]\n", &store)).unwrap();
    let host = place.run_with_env(environment);
    let ids = start_orders(&place);
    host.settle();
    assert_eq!(host.stop(), Some(0));
    (place, ids)
}

/// Starts the orders, each once however often this is called. Returns their ids.
pub(crate) fn start_orders(place: &Place) -> Vec<String> {
    let orders = example().join("orders.ndjson");
    let orders = orders.to_str().unwrap();
    let start =
        ["start", "order-fulfillment", "--input", orders, "--each", "--key", "k", "-o", "ids"];
    done(&place.amends(&start)).lines().map(str::to_owned).collect()
}

/// Asserts that a verb succeeded, and returns what it printed.
pub(crate) fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_str(&done(output)).unwrap()
}

pub(crate) fn archived(place: &Place) -> Vec<String> {
    let ids = done(&place.amends(&["list", "--archived", "-o", "ids"]));
    ids.lines().map(str::to_owned).collect()
}

pub(crate) fn stored(host: &Host) -> Vec<String> {
    host.sagas().iter().map(|saga| saga["id"].as_str().unwrap().to_owned()).collect()
}

/// Each saga is in the store or archived, and not both.
pub(crate) fn each_is_there_once(place: &Place, host: &Host, ids: &[String], what: &str) {
    let mut found = [stored(host), archived(place)].concat();
    found.sort();
    let mut all = ids.to_vec();
    all.sort();
    assert_eq!(found, all, "{what}");
}

/// What the host says of some sagas: their view and their events.
pub(crate) fn told(host: &Host, ids: &[String]) -> Vec<(Value, Value)> {
    let view = |id: &String| {
        let mut view = host.get(&format!("/v1/sagas/{id}"));
        view.as_object_mut().unwrap().remove("archived");
        (view, host.get(&format!("/v1/sagas/{id}/events?limit=1000")))
    };
    ids.iter().step_by(97).map(view).collect()
}

/// The host dies at each point of a move. Each saga is in the store or archived then, and reads as before.
pub(crate) fn dies_at_each_point(
    (place, ids): (&Place, &[String]),
    environment: &[(&str, &str)],
    archive: &str,
) {
    let host = place.run_with_env(environment);
    let before = told(&host, ids);
    assert_eq!(host.stop(), Some(0));
    for point in MOVE_POINTS {
        // Those that are hit for each frame, saga or transaction: the host dies in the middle.
        let is_often = ["writing", "removing", "removed"].iter().any(|word| point.ends_with(word));
        let action = if is_often { "2*off->return" } else { "return" };
        let failpoints = format!("{point}={action}");
        let host = place.spawn_with_env(&[environment, &[("FAILPOINTS", &failpoints)]].concat());
        host.until("it is ready", || place.amends(&["list", "--limit", "1"]).status.success());
        assert!(!place.amends(&["store", "archive"]).status.success(), "{point} was not hit");
        assert!(host.aborted(HIT_LIMIT).is_some(), "{point} was not hit");
        let host = place.run_with_env(environment);
        each_is_there_once(place, &host, ids, point);
        assert_eq!(told(&host, ids), before, "{point}");
        assert_eq!(host.stop(), Some(0));
        let verify = ["store", "verify", "data/amends.db", "--archive", archive];
        done(&place.command(&verify).envs(environment.iter().copied()).output().unwrap());
    }
}

#[test]
fn a_move_that_dies_loses_and_doubles_nothing() {
    let (place, ids) = settled();
    let host = place.run();
    let before = told(&host, &ids);
    assert_eq!(host.stop(), Some(0));
    dies_at_each_point((&place, &ids), &[], "archive");

    let host = place.run();
    let pass = json(&place.amends(&["store", "archive", "-o", "json"]));
    assert!(pass["sagas"].as_u64().unwrap() > 0 && pass["unreadable"] == 0, "{pass}");
    assert_eq!(stored(&host), Vec::<String>::new());
    each_is_there_once(&place, &host, &ids, "at the end");
    assert_eq!(told(&host, &ids), before);
    // Every file has a row: what the crashes left is gone.
    let stats = json(&place.amends(&["store", "stats", "-o", "json"]));
    let files = fs::read_dir(place.path("archive")).unwrap().count();
    assert_eq!(stats["archived"]["segments"], files);
    assert_eq!(stats["archived"]["sagas"], ids.len());
    // A start with its key still answers with the saga.
    let again: BTreeSet<_> = start_orders(&place).into_iter().collect();
    assert_eq!(again, ids.iter().cloned().collect());
    assert_eq!(stored(&host), Vec::<String>::new());
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn an_archived_saga_is_read_by_its_id_and_brought_back() {
    let (place, ids) = settled();
    let host = place.run();
    done(&place.amends(&["store", "archive"]));
    let id = ids[5].as_str();
    let shown = done(&place.amends(&["get", &id[id.len() - 8..]]));
    assert!(shown.contains(id) && shown.contains("archived"), "{shown}");
    assert!(done(&place.amends(&["history", id])).contains("saga.started"));
    assert!(done(&place.amends(&["why", id])).contains("archived"));
    for verb in ["compensate", "note"] {
        let refused = place.amends(&[verb, id, "--reason", "to see"]);
        assert_eq!(refused.status.code(), Some(1));
        let said = stderr(&refused);
        assert!(said.contains("is archived") && said.contains("--bring-back"), "{said}");
    }
    for counts in [&["--count"][..], &["--group-by", "status"]] {
        let refused = place.amends(&[&["list", "--archived"][..], counts].concat());
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains("--archived -o ids | wc -l"), "{}", stderr(&refused));
    }
    let page = host.get("/v1/sagas?archived=true&limit=3");
    assert_eq!(page["items"].as_array().unwrap().len(), 3);
    assert_eq!(page["items"][0]["archived"], true);
    let next = page["next_cursor"].as_str().unwrap();
    let page = host.get(&format!("/v1/sagas?archived=true&limit=1000&cursor={next}"));
    assert_eq!(page["items"].as_array().unwrap().len(), ids.len() - 3);
    assert_eq!(host.stop(), Some(0));

    let host = place.spawn_with(&format!("{}=return", ARCHIVE_POINTS[7]));
    host.until("it is ready", || place.amends(&["list", "--limit", "1"]).status.success());
    let end = &id[id.len() - 12..];
    assert!(!place.amends(&["store", "archive", "--bring-back", end]).status.success());
    assert!(host.aborted(HIT_LIMIT).is_some(), "it was not hit");
    let host = place.run();
    assert_eq!(stored(&host), [id]);
    each_is_there_once(&place, &host, &ids, "brought back");
    // Once more is no error.
    done(&place.amends(&["store", "archive", "--bring-back", end]));
    assert_eq!(host.stop(), Some(0));

    let verify = ["store", "verify", "data/amends.db", "--archive", "archive"];
    done(&place.amends(&verify));
    let file = fs::read_dir(place.path("archive")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&file).unwrap();
    bytes[1_000] ^= 1;
    fs::write(&file, bytes).unwrap();
    let found = place.amends(&verify);
    assert_eq!(found.status.code(), Some(1));
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(
        stdout(&found).contains(name) && stdout(&found).contains("frame 1"),
        "{}",
        stdout(&found)
    );
    let unchecked = done(&place.amends(&["store", "verify", "data/amends.db"]));
    assert!(unchecked.contains("not checked: 1 archive file"), "{unchecked}");

    // A start with the key of a saga that cannot be read says how that has ended.
    let host = place.run();
    let orders = example().join("orders.ndjson");
    let again = ["start", "order-fulfillment", "--input", orders.to_str().unwrap()];
    let again = [&again[..], &["--each", "--key", "k", "-o", "jsonl"]].concat();
    let started = done(&place.amends(&again));
    let statuses: BTreeSet<_> = started
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|saga| saga["status"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(statuses, ["compensated".to_owned(), "completed".to_owned()].into());
    assert_eq!(host.stop(), Some(0));
}
