//! Whether the whole store is consistent.

use rusqlite::{Connection, Result};

use crate::sqlite::stream_column::stream;

/// Reads the whole store. Each finding is a sentence.
pub(crate) fn verify(connection: &Connection) -> Result<Vec<String>> {
    let mut findings: Vec<String> = connection
        .prepare("PRAGMA integrity_check")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_>>()?;
    findings.retain(|finding| finding != "ok");
    let gaps = connection
        .prepare(
            "SELECT stream, sum(length) AS count, max(version) AS last FROM (
                 SELECT stream, version,
                     CASE json_valid(events) WHEN 1 THEN json_array_length(events) ELSE 0 END AS length
                 FROM appends)
             GROUP BY stream HAVING count != last",
        )?
        .query_map([], |row| {
            let (stream, events, last) = (stream(row, 0)?, row.get(1)?, row.get(2)?);
            let (events, last): (i64, i64) = (events, last);
            Ok(format!("{stream} has {events} events, but its last version is {last}"))
        })?
        .collect::<Result<Vec<_>>>()?;
    findings.extend(gaps);
    let orphans: i64 = connection.query_row(
        "SELECT count(*) FROM sagas WHERE NOT EXISTS
         (SELECT 1 FROM appends WHERE stream = sagas.id)",
        [],
        |row| row.get(0),
    )?;
    if orphans > 0 {
        findings.push(format!("{orphans} sagas of the projection have no events"));
    }
    Ok(findings)
}
