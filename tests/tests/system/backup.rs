//! Backup, check and restore of a store, by the command line and over HTTP, also when the host or the
//! command line dies in the middle.

use std::fs;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use crate::ledger;
use crate::place::{Place, example, stderr, stdout};

/// The failpoints of a backup in the host, of a copy that gets its name, and of a restore.
pub(crate) const BACKUP_POINTS: [&str; 4] =
    ["store.backup.begun", "store.backup.copying", "store.backup.copied", "store.backup.complete"];
pub(crate) const DRAFT_POINTS: [&str; 2] = ["store.draft.complete", "store.draft.named"];
pub(crate) const RESTORE_POINTS: [&str; 4] = [
    "store.restore.copied",
    "store.restore.linked",
    "store.restore.aside",
    "store.restore.renamed",
];

/// How long a process may live on with its failpoint set.
const HIT_LIMIT: Duration = Duration::from_secs(20);

/// Starts orders, and returns when all are accepted.
fn start_orders(place: &Place, key: &str) {
    let orders = example().join("orders.ndjson");
    let output = place.amends(&[
        "start",
        "order-fulfillment",
        "--input",
        orders.to_str().unwrap(),
        "--each",
        "--key",
        key,
        "-o",
        "ids",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
}

/// Asserts that a verb succeeded, and returns what it printed.
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

/// Asserts that a verb failed with exit code 1 and says this.
fn refused(output: &Output, words: &str) {
    assert_eq!(output.status.code(), Some(1), "{}", stdout(output));
    assert!(stderr(output).contains(words), "{words}: {}", stderr(output));
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&done(output)).unwrap()
}

/// The names of files beside the config and beside the store that contain a word.
fn files(place: &Place, word: &str) -> Vec<String> {
    let folders = [place.path("."), place.path("data")];
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(word)).collect()
}

#[test]
fn a_backup_under_load_is_restored_and_goes_on() {
    let place = Place::example();
    let host = place.run();
    let backup = std::thread::scope(|scope| {
        let starting = scope.spawn(|| start_orders(&place, "k"));
        std::thread::sleep(Duration::from_millis(300));
        let backup = json(&place.amends(&["store", "backup", "b.db", "-o", "json"]));
        starting.join().unwrap();
        backup
    });
    assert!(backup["sagas"].as_u64().unwrap() > 0, "{backup}");
    refused(&place.amends(&["store", "backup", "b.db"]), "b.db exists");
    done(&place.amends(&["store", "backup", "later.db"]));
    let verified = json(&place.amends(&["store", "verify", "b.db", "-o", "json"]));
    assert_eq!((&verified["events"], &verified["sagas"]), (&backup["events"], &backup["sagas"]));
    assert_eq!(verified["findings"], Value::Array(Vec::new()));
    host.settle();

    // What the running host says is what the stopped store says, but for its log.
    let counted = |stats: &Value| {
        let mut stats = stats.clone();
        for moving in ["wal_bytes", "bytes", "free_bytes", "growth"] {
            stats.as_object_mut().unwrap().remove(moving);
        }
        stats
    };
    let stats = json(&place.amends(&["store", "stats", "-o", "json"]));
    let sagas = host.sagas();
    assert_eq!(stats["sagas"], sagas.len());
    assert_eq!(stats["events"], host.events().len());
    for item in stats["sagas_by_status"].as_array().unwrap() {
        let is_counted = |saga: &&Value| {
            saga["status"] == item["status"] && saga["definition"] == item["definition"]
        };
        assert_eq!(item["sagas"], sagas.iter().filter(is_counted).count(), "{item}");
    }
    done(&place.amends(&["store", "stats"]));
    let config = ["--config", "amends.toml"];
    let restore = [&["store", "restore", "b.db"][..], &config].concat();
    refused(&place.amends(&restore), "a host has the store");
    refused(&place.amends(&["store", "verify", "data/amends.db"]), "a host has this store");
    assert_eq!(host.stop(), Some(0));
    let stopped = json(&place.amends(&[&["store", "stats", "-o", "json"][..], &config].concat()));
    assert_eq!(counted(&stopped), counted(&stats));
    done(&place.amends(&[&["store", "backup", "stopped.db"][..], &config].concat()));
    done(&place.amends(&["store", "verify", "stopped.db"]));

    refused(&place.amends(&restore), "there is a store already");
    let told = done(&place.amends(&[&restore[..], &["--replace"]].concat()));
    assert!(told.contains("-replaced-") && told.contains("unknown to this store"), "{told}");
    let host = place.run();
    host.settle();
    let events = host.events();
    let found = ledger::check(&events);
    assert_eq!(Some((found.completed + found.compensated) as u64), backup["sagas"].as_u64());
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_backup_whose_host_or_client_dies_leaves_no_file_under_its_name() {
    let place = Place::example();
    let host = place.run();
    start_orders(&place, "k");
    host.settle();
    assert_eq!(host.stop(), Some(0));
    for point in BACKUP_POINTS {
        let host = place.spawn_with(&format!("{point}=return"));
        host.until("it is ready", || place.amends(&["list", "--limit", "1"]).status.success());
        refused(&place.amends(&["store", "backup", "b.db"]), "");
        assert!(host.aborted(HIT_LIMIT).is_some(), "{point} was not hit");
        assert_eq!(files(&place, "b.db"), Vec::<String>::new(), "{point}");
        let host = place.run();
        assert_eq!(files(&place, "amends.db-unfinished"), Vec::<String>::new(), "{point}");
        assert_eq!(host.stop(), Some(0));
    }
    let host = place.run();
    for (point, is_there) in
        [("cli.backup.writing", false), (DRAFT_POINTS[0], false), (DRAFT_POINTS[1], true)]
    {
        let mut command = place.command(&["store", "backup", "b.db"]);
        let output = command.env("FAILPOINTS", format!("{point}=return")).output().unwrap();
        assert_eq!(output.status.code(), None, "{point} was not hit: {}", stderr(&output));
        assert_eq!(place.path("b.db").exists(), is_there, "{point}");
    }
    done(&place.amends(&["store", "verify", "b.db"]));
    // Whoever was cut off keeps nobody from the next backup.
    done(&place.amends(&["store", "backup", "b.db", "--replace"]));
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_restore_that_dies_is_repeated_and_makes_no_empty_store() {
    let place = Place::example();
    let host = place.run();
    start_orders(&place, "k");
    host.settle();
    let sagas = host.sagas().len();
    done(&place.amends(&["store", "backup", "b.db"]));
    assert_eq!(host.stop(), Some(0));
    let restore = ["store", "restore", "b.db", "--config", "amends.toml", "--replace"];
    for point in RESTORE_POINTS {
        let mut command = place.command(&restore);
        let failpoints = format!("{point}=return");
        let output = command.env("FAILPOINTS", failpoints).output().unwrap();
        assert_eq!(output.status.code(), None, "{point} was not hit: {}", stderr(&output));
        // A host goes on with the whole store, or refuses to start.
        let mut host = place.spawn();
        if host.becomes_ready() {
            assert_eq!(host.sagas().len(), sagas, "{point}");
            assert_eq!(host.stop(), Some(0));
        } else {
            let (_, log) = host.ended_logged();
            assert!(log.join("\n").contains("2 names"), "{point}: {}", log.join("\n"));
        }
        done(&place.amends(&restore));
        done(&place.amends(&["store", "verify", "data/amends.db"]));
    }
    let host = place.run();
    assert_eq!(host.sagas().len(), sagas);
    assert_eq!(host.stop(), Some(0));
}
