//! What does not depend on the mood of the machine: instructions of the hot paths, and what a saga
//! costs the store. A change that makes one dearer says so here, by committing the new figure.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// Instructions of one time, as callgrind counts them.
const INSTRUCTIONS: [(&str, u64); 7] = [
    ("decide", 5_576),
    ("evolve", 1_422),
    ("commands", 1_614),
    ("encode", 6_494),
    ("saga of 3 steps", 57_941),
    ("saga of 100 steps", 8_871_316),
    ("append", 47_666),
];

/// How much more or less it may be, in percent: compilers and system libraries differ a little.
const MARGIN: u64 = 10;

/// Times that are counted, after as many that only warm up.
const TIMES: u32 = 200;

/// Of a saga that completes and of one that is undone: events, appends (each a row of the log),
/// fsyncs when it is alone, and bytes that the file grows by.
const STORED: [(&str, [f64; 4]); 2] =
    [("happy", [8.0, 4.0, 4.0, 1_350.0]), ("compensating", [13.0, 6.0, 6.0, 2_650.0])];

#[test]
fn hot_paths_take_as_many_instructions_as_is_committed() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        amends_tests::skipped("instructions", "valgrind is not installed");
        return;
    }
    let mut found = Vec::new();
    for (what, committed) in INSTRUCTIONS {
        let count = (instructions(what, 2 * TIMES) - instructions(what, TIMES)) / u64::from(TIMES);
        println!("{what}: {count} instructions, {committed} are committed");
        if count.abs_diff(committed) * 100 > committed * MARGIN {
            found.push(format!("{what}: {count}, not {committed}"));
        }
    }
    assert!(
        found.is_empty(),
        "instructions of a release build on x86-64; commit the new figures if they are meant: \
         {found:#?}"
    );
}

fn instructions(what: &str, times: u32) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(target().join("examples").join("counts"))
        .args([what, &times.to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {text}");
    let count =
        text.lines().find_map(|line| line.split("Collected : ").nth(1)?.trim().parse().ok());
    count.unwrap_or_else(|| panic!("{what}: no count in {text}"))
}

#[test]
fn a_saga_costs_the_store_what_is_committed() {
    let output = Command::new(target().join("amends"))
        .args(["bench", "--mode", "in-process", "--clients", "1", "--seconds", "1"])
        // Without waiting for the disk: what is counted is how often it would be.
        .args(["--durability", "relaxed", "--stored", "3000", "-o", "json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), STORED.len());
    for (run, (outcome, [events, appends, fsyncs, bytes])) in runs.iter().zip(STORED) {
        assert_eq!(run["outcome"], outcome);
        let figure = |name: &str| run[name].as_f64().unwrap();
        let is = |name: &str, committed: f64, margin: f64| {
            let found = figure(name);
            println!("{outcome}: {name} {found}, {committed} are committed");
            assert!((found - committed).abs() <= committed * margin, "{outcome}: {name} {found}");
        };
        is("events_per_saga", events, 0.0);
        // At the edges of the time that is measured, one or two sagas are cut.
        is("appends_per_saga", appends, 0.02);
        is("fsyncs_per_saga", fsyncs, 0.02);
        is("bytes_per_saga", bytes, 0.15);
    }
}

/// Where the binary and the examples are: where `tests/run` says, or beside the folder of this test.
fn target() -> PathBuf {
    std::env::var_os("AMENDS_TEST_BINARIES").map_or_else(
        || std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned(),
        PathBuf::from,
    )
}
