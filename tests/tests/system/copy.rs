//! The store of a stopped host is copied into PostgreSQL, and a host goes on there. A copy that dies is no store.

#[path = "../../../host/store/tests/database/own_server.rs"]
#[allow(dead_code, reason = "shared with the tests of the store")]
mod own_server;

use std::process::Output;

use crate::place::{Host, Place, stderr, stdout};
use own_server::OwnServer;

/// The failpoints of a copy.
pub(crate) const COPY_POINTS: [&str; 4] =
    ["store.copy.marked", "store.copy.table", "store.copy.compared", "store.copy.done"];

const SAGAS: &str = r#"
[[saga]]
name = "gate"
[[saga.step]]
name = "approval"
wait = "approved"
"#;

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

fn status(host: &Host, id: &str) -> String {
    host.get(&format!("/v1/sagas/{id}"))["status"].as_str().unwrap_or("none").to_owned()
}

#[test]
fn a_copy_that_dies_is_no_store() {
    let Some(mut server) = OwnServer::new() else {
        return amends_tests::skipped("store copy", "PostgreSQL is not installed");
    };
    server.start();
    let target = format!("{}/postgres", server.url());
    let place = Place::empty();
    place.config(SAGAS);
    let host = place.run();
    let start = ["start", "gate", "--input", "{}", "-o", "ids", "--key", "gate"];
    let id = done(&place.amends(&start)).trim().to_owned();
    host.until("it waits", || status(&host, &id) == "waiting");
    assert_eq!(host.stop(), Some(0));
    let copy = ["store", "copy", "sqlite:data/amends.db", &target];
    let here = [("AMENDS_STORE_URL", target.as_str())];
    for point in COPY_POINTS {
        let mut copying = place.command(&copy);
        let died = copying.env("FAILPOINTS", format!("{point}=return")).output().unwrap();
        assert_eq!(died.status.code(), None, "{point}: {}", stderr(&died));
        if point == "store.copy.done" {
            continue;
        }
        let (code, log) = place.spawn_with_env(&here).ended_logged();
        assert_eq!(code, Some(1), "{point}");
        let log = log.join("\n");
        assert!(log.contains("is a copy that was not finished"), "{point}: {log}");
    }
    // The last one had done all but say so.
    let host = place.run_with_env(&here);
    assert_eq!(status(&host, &id), "waiting");
    assert_eq!(done(&place.amends(&start)).trim(), id, "the key is forgotten");
    done(&place.amends(&["signal", &id, "approved"]));
    host.until("it goes on", || status(&host, &id) == "completed");
    assert_eq!(host.stop(), Some(0));
    for (source, target, code, words) in [
        ("sqlite:data/amends.db", "sqlite:other.db", 2, "no PostgreSQL database"),
        ("sqlite:nothing.db", target.as_str(), 1, "there is no store"),
        (target.as_str(), target.as_str(), 1, "PostgreSQL's own tools"),
    ] {
        let refused = place.amends(&["store", "copy", source, target]);
        assert_eq!(refused.status.code(), Some(code), "{}", stderr(&refused));
        assert!(stderr(&refused).contains(words), "{}", stderr(&refused));
    }
}
