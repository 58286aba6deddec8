//! What a test says without a failure: above all that it cannot run on this machine.

use std::io::Write as _;

/// Says on standard error that `what` was not tested, and because of what: `SKIPPED: WHAT: WHY`. The
/// check of the repository fails on such a line.
///
/// `println!` would not do: the test harness shows what a test printed only when the test fails.
pub fn skipped(what: &str, why: &str) {
    let line = format!("SKIPPED: {what}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Says something on standard error, also of a test that passes.
pub fn say(what: &str) {
    let _ = std::io::stderr().write_all(format!("{what}\n").as_bytes());
}
