//! What lists and searches read is rebuilt from the events, beside the host that writes it and in the
//! store of a stopped one, also when the host dies meanwhile.

use std::process::Output;
use std::time::Duration;

use rusqlite::types::Value as Column;
use serde_json::Value;

use crate::place::{Host, Place, example, stderr, stdout};

/// The failpoints of a rebuild.
pub(crate) const REBUILD_POINTS: [&str; 2] = ["store.rebuild.replaced", "store.rebuild.written"];

/// How long a host may live on with its failpoint set.
const HIT_LIMIT: Duration = Duration::from_secs(20);

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

fn start_orders(place: &Place, key: &str) {
    let orders = example().join("orders.ndjson");
    let orders = orders.to_str().unwrap();
    done(&place.amends(&[
        "start",
        "order-fulfillment",
        "--input",
        orders,
        "--each",
        "--key",
        key,
        "--tag",
        "shop=north",
        "-o",
        "ids",
    ]));
}

/// Makes what lists read wrong for half of the sagas, as somebody may who writes into the database.
fn spoil(place: &Place) {
    let store = rusqlite::Connection::open(place.path("data/amends.db")).unwrap();
    store.busy_timeout(Duration::from_secs(10)).unwrap();
    let half = "(SELECT id FROM sagas WHERE ended_at IS NOT NULL AND substr(hex(id), 32) < '8')";
    for sql in [
        format!("UPDATE sagas SET status = 'abandoned', reason = 'none' WHERE id IN {half}"),
        format!("DELETE FROM saga_tags WHERE saga IN {half}"),
        format!("DELETE FROM failures WHERE saga IN {half}"),
        format!("DELETE FROM start_keys WHERE saga IN {half}"),
        "INSERT INTO saga_tags VALUES ('shop', 'south', zeroblob(16))".to_owned(),
    ] {
        assert!(store.execute(&sql, []).unwrap() > 0, "{sql}");
    }
}

/// Every row of what lists and searches read.
fn dump(place: &Place) -> Vec<Vec<Column>> {
    let store = rusqlite::Connection::open(place.path("data/amends.db")).unwrap();
    let mut dump = Vec::new();
    for sql in [
        "SELECT * FROM sagas ORDER BY id",
        "SELECT * FROM saga_tags ORDER BY name, value, saga",
        "SELECT * FROM failures ORDER BY position",
        "SELECT rowid FROM failure_texts WHERE failure_texts MATCH 'code' ORDER BY rowid",
        "SELECT * FROM start_keys ORDER BY key",
    ] {
        let mut statement = store.prepare(sql).unwrap();
        let columns = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
        dump.extend(statement.query_map([], row).unwrap().map(Result::unwrap));
    }
    dump
}

fn rebuilt(place: &Place, arguments: &[&str]) -> Value {
    let arguments = [&["store", "rebuild", "-o", "json"], arguments].concat();
    serde_json::from_str(&done(&place.amends(&arguments))).unwrap()
}

fn verify(place: &Place) -> Output {
    place.amends(&["store", "verify", "data/amends.db"])
}

/// A place whose orders have ended.
fn settled() -> (Place, Host) {
    let place = Place::example();
    let host = place.run();
    start_orders(&place, "k");
    host.settle();
    (place, host)
}

#[test]
fn a_restore_mends_what_lists_read() {
    let (place, host) = settled();
    let before = dump(&place);
    assert_eq!(host.stop(), Some(0));
    spoil(&place);
    done(&place.amends(&["store", "backup", "b.db", "--config", "amends.toml"]));
    let verified = place.amends(&["store", "verify", "b.db"]);
    assert_eq!(verified.status.code(), Some(1));
    let said = stdout(&verified);
    assert!(said.contains("`amends store rebuild` mends that"), "{said}");
    let restore = ["store", "restore", "b.db", "--config", "amends.toml", "--replace"];
    let told = done(&place.amends(&restore));
    assert!(told.contains("is written anew from the events"), "{told}");
    assert!(told.contains("1000 sagas compared with the events"), "{told}");
    assert_eq!(dump(&place), before);
    assert!(done(&verify(&place)).contains("nothing is damaged; 1000 sagas"));
}

#[test]
fn a_rebuild_beside_the_host_gives_what_was_there() {
    let (place, host) = settled();
    let before = dump(&place);
    spoil(&place);
    assert_ne!(dump(&place), before);
    let total = rebuilt(&place, &[]);
    assert_eq!(dump(&place), before);
    assert_eq!((total["sagas"].as_u64(), total["removed"].as_u64()), (Some(1_000), Some(1)));
    assert!(total["rebuilt"].as_u64() > Some(100), "{total}");
    let again = rebuilt(&place, &[]);
    assert_eq!((again["rebuilt"].as_u64(), again["removed"].as_u64()), (Some(0), Some(0)));

    // Under load: orders come in, and what was spoiled is mended.
    spoil(&place);
    std::thread::scope(|scope| {
        let orders = scope.spawn(|| start_orders(&place, "more"));
        while !orders.is_finished() {
            rebuilt(&place, &[]);
        }
    });
    host.settle();
    rebuilt(&place, &[]);
    assert_eq!(rebuilt(&place, &[])["rebuilt"], 0);
    assert_eq!(host.stop(), Some(0));
    let told = done(&verify(&place));
    assert!(told.contains("nothing is damaged; 2000 sagas"), "{told}");

    // In the store of a stopped host.
    let sound = dump(&place);
    spoil(&place);
    let output = verify(&place);
    let told = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("column status: it is `abandoned`, and by its events it is `"), "{told}");
    assert!(told.contains("more differences of the projections"), "{told}");
    assert!(rebuilt(&place, &["--config", "amends.toml"])["rebuilt"].as_u64() > Some(100));
    assert_eq!(dump(&place), sound);
    assert_eq!(verify(&place).status.code(), Some(0));
    let told = done(&place.amends(&["store", "rebuild", "--config", "amends.toml"]));
    assert_eq!(
        told,
        "2000 sagas compared with the events: 0 rebuilt, and 0 rows of no saga removed\n"
    );
}

/// A file of an earlier schema is checked for damage, and not compared with its events.
#[test]
fn what_verify_does_not_compare_is_said() {
    let place = Place::example();
    let old = rusqlite::Connection::open(place.path("old.db")).unwrap();
    old.execute_batch(include_str!("../../../host/store/tests/golden/version-1.sql")).unwrap();
    drop(old);
    let told = stdout(&place.amends(&["store", "verify", "old.db"]));
    let not = "the projections were not compared: the file has schema 1, this version compares ";
    assert!(told.contains(not), "{told}");
    let told = stdout(&place.amends(&["store", "verify", "old.db", "-o", "json"]));
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["projections_compared"], false, "{told}");
}

#[test]
fn a_host_that_dies_in_a_rebuild_goes_on_and_the_next_one_does_the_rest() {
    let (place, host) = settled();
    let before = dump(&place);
    assert_eq!(host.stop(), Some(0));
    for point in REBUILD_POINTS {
        let mut host = place.spawn_with(&format!("{point}=2*off->return"));
        assert!(host.becomes_ready());
        spoil(&place);
        let output = place.amends(&["store", "rebuild"]);
        assert_eq!(output.status.code(), Some(1), "{point}: {}", stdout(&output));
        assert!(host.aborted(HIT_LIMIT).is_some(), "{point} was not hit");
        assert_ne!(dump(&place), before, "{point}");
        let host = place.run();
        rebuilt(&place, &[]);
        assert_eq!(host.stop(), Some(0));
        assert_eq!(dump(&place), before, "{point}");
        assert_eq!(verify(&place).status.code(), Some(0), "{point}");
    }
    let output = place.amends(&["store", "rebuild", "--config", "nothing.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let _host = place.run();
    let output = place.amends(&["store", "rebuild", "--config", "amends.toml"]);
    assert!(stderr(&output).contains("a host has the store"), "{}", stderr(&output));
}
