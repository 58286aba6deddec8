//! Whether the whole store is consistent.

use rusqlite::{Connection, ErrorCode, Result};

use super::projections::compare_projections;
use crate::sqlite::stream_column::stream;

/// Finds the streams whose number of events is not their last version.
pub(super) const GAPS: &str = "
    SELECT stream, sum(length) AS count, max(version) AS last FROM (
        SELECT stream, version,
            CASE json_valid(events) WHEN 1 THEN json_array_length(events) ELSE 0 END AS length
        FROM appends)
    GROUP BY stream HAVING count != last";

/// Reads the whole store. Each finding is a sentence.
pub(crate) fn verify(connection: &Connection) -> Result<Vec<String>> {
    let snapshot = connection.unchecked_transaction()?;
    // Without a query of this transaction, FTS5 compares the index with what this connection knew of it
    // before. An error is found by the check itself.
    let refresh = "SELECT 1 FROM failure_texts WHERE failure_texts MATCH 'a' LIMIT 1";
    let _ = snapshot.prepare(refresh).and_then(|mut refresh| refresh.exists([]));
    let mut findings: Vec<String> = snapshot
        .prepare("PRAGMA integrity_check")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_>>()?;
    findings.retain(|finding| finding != "ok");
    let gaps = snapshot
        .prepare(GAPS)?
        .query_map([], |row| {
            let (stream, events, last) = (stream(row, 0)?, row.get(1)?, row.get(2)?);
            let (events, last): (i64, i64) = (events, last);
            Ok(format!("{stream} has {events} events, but its last version is {last}"))
        })?
        .collect::<Result<Vec<_>>>()?;
    findings.extend(gaps);
    let orphans: i64 = snapshot.query_row(
        "SELECT count(*) FROM sagas WHERE NOT EXISTS
         (SELECT 1 FROM appends WHERE stream = sagas.id)",
        [],
        |row| row.get(0),
    )?;
    if orphans > 0 {
        findings.push(format!("{orphans} sagas of the projection have no events"));
    }
    let compared = match compare_projections(&snapshot) {
        // Such as the index of words, which the check above has named.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
            findings.push(format!("the projections cannot be read to the end: {error}"));
            return Ok(findings);
        }
        compared => compared?,
    };
    if let Some((id, reason)) = compared.first_not_folded {
        let sagas = compared.not_folded;
        tracing::warn!(sagas, saga_id = %id, reason, "sagas are not compared with their events");
    }
    findings.extend(compared.findings);
    Ok(findings)
}
