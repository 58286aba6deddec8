//! The events of ended sagas as tables: `store export --parquet`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::PathBuf;

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::RowAccessor as _;
use serde_json::Value;

use crate::archive::{done, settled_in, start_orders, stored};
use crate::place::{Host, Place, stderr};

/// One row: definition, version, time, type, step and data.
type Row = (String, i64, i64, String, Option<String>, String);

/// The rows of a table, by saga.
fn rows(file: &PathBuf) -> BTreeMap<String, Vec<Row>> {
    let reader = SerializedFileReader::new(File::open(file).unwrap()).unwrap();
    let mut rows: BTreeMap<_, Vec<Row>> = BTreeMap::new();
    for row in reader.get_row_iter(None).unwrap() {
        let row = row.unwrap();
        let text = |column| row.get_string(column).unwrap().clone();
        rows.entry(text(0)).or_default().push((
            text(1),
            row.get_long(2).unwrap(),
            row.get_timestamp_millis(3).unwrap(),
            text(4),
            row.get_string(5).ok().cloned(),
            text(6),
        ));
    }
    rows
}

fn files(place: &Place) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.path("tables")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The table says of a saga what the API says.
fn is_told_alike(host: &Host, id: &str, rows: &[Row]) {
    let events = host.get(&format!("/v1/sagas/{id}/events?limit=1000"));
    let events = events["items"].as_array().unwrap();
    assert_eq!(events.len(), rows.len(), "{id}");
    for (event, (definition, version, at, kind, step, data)) in events.iter().zip(rows) {
        assert_eq!(definition, "order-fulfillment");
        assert_eq!(
            (&event["version"], &event["type"]),
            (&(*version).into(), &kind.as_str().into())
        );
        let time: amends_engine::Timestamp = event["at"].as_str().unwrap().parse().unwrap();
        assert_eq!(time.as_millis(), *at);
        let told = event["step"].as_str().or_else(|| event["data"]["step"].as_str());
        assert_eq!(told, step.as_deref());
        assert_eq!(event["data"], serde_json::from_str::<Value>(data).unwrap());
    }
}

#[test]
fn ended_and_archived_sagas_are_in_the_table_of_their_month() {
    let (place, archived) = settled_in("archive", &[]);
    let host = place.run();
    done(&place.amends(&["store", "archive"]));
    assert_eq!(stored(&host), Vec::<String>::new());
    // One more that is in the store, and one that has not ended.
    let order = crate::place::example().join("order.json");
    let start = ["start", "order-fulfillment", "--input", order.to_str().unwrap(), "-o", "ids"];
    let ended = done(&place.amends(&[&start[..], &["--wait"]].concat())).trim().to_owned();
    let later = done(&place.amends(&[&start[..], &["--at", "1h"]].concat())).trim().to_owned();

    let told = done(&place.amends(&["store", "export", "--parquet", "tables"]));
    // A month may end while this test runs.
    let found = files(&place);
    assert!((1..=2).contains(&found.len()), "{found:?}");
    assert_eq!(told.lines().count(), found.len());
    let all: BTreeMap<_, _> = found.iter().flat_map(rows).collect();
    let mut wanted: BTreeSet<_> = archived.iter().cloned().collect();
    assert!(wanted.insert(ended) && !all.contains_key(&later));
    assert_eq!(all.keys().cloned().collect::<BTreeSet<_>>(), wanted);
    for (id, rows) in all.iter().step_by(97) {
        is_told_alike(&host, id, rows);
    }
    // A key that was used starts no other saga, so the next export has the same.
    assert_eq!(start_orders(&place).len(), archived.len());

    let again = place.amends(&["store", "export", "--parquet", "tables"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("exists"), "{}", stderr(&again));
    done(&place.amends(&["store", "export", "--parquet", "tables", "--replace"]));
    assert_eq!(found.iter().flat_map(rows).collect::<BTreeMap<_, _>>(), all);
    let month = ["store", "export", "--parquet", "tables", "--month", "2001-01"];
    assert!(done(&place.amends(&month)).contains("no saga ended in 2001-01"));
    // Nothing but the tables is left.
    assert_eq!(files(&place), found);
    assert_eq!(host.stop(), Some(0));
}
