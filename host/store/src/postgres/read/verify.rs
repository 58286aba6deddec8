//! Whether the whole store is consistent.

use crate::postgres::columns::{count, maybe_text, saga};
use crate::postgres::connection::Pg;
use crate::postgres::error::Result;
use crate::postgres::projections::compare_projections;
use crate::postgres::readers::{begin, end};
use crate::postgres::text::read_stream;
use crate::stream::Stream;

/// The most streams that one check names.
const GAPS_MAX: i64 = 100;

/// Finds the streams whose appends do not follow one another.
const GAPS: &str = "SELECT saga, stream, sum(version - first + 1)::int8 AS events, max(version)
    FROM appends GROUP BY saga, stream
    HAVING sum(version - first + 1) <> max(version) OR min(first) <> 1 LIMIT $1";

/// Reads the whole store. Each finding is a sentence. The database checks its pages itself, when it has checksums
/// (`initdb --data-checksums`).
pub(in crate::postgres) async fn verify(pg: &Pg) -> Result<Vec<String>> {
    // Reads the whole store, so its time is not limited.
    pg.batch("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0").await?;
    pg.be_patient();
    begin(pg).await?;
    let findings = findings(pg).await?;
    end(pg).await?;
    Ok(findings)
}

/// The same, in the transaction that the connection is in.
pub(in crate::postgres) async fn findings(pg: &Pg) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for row in pg.query(GAPS, &[&GAPS_MAX]).await? {
        let stream = match maybe_text(&row, 1)? {
            Some(name) => read_stream(&name)?,
            None => Stream::Saga(saga(&row, 0)?),
        };
        let (events, last) = (count(&row, 2)?, count(&row, 3)?);
        findings.push(format!("{stream} has {events} events, but its last version is {last}"));
    }
    let sql = "SELECT count(*) FROM sagas WHERE NOT EXISTS
               (SELECT 1 FROM appends WHERE appends.saga = sagas.id)";
    let orphans = pg.first(sql, &[]).await?.map_or(Ok(0), |row| count(&row, 0))?;
    if orphans > 0 {
        findings.push(format!("{orphans} sagas of the projection have no events"));
    }
    for (sql, what) in [
        (
            "SELECT count(*) FROM archived WHERE segment IS NOT NULL
             AND segment NOT IN (SELECT id FROM segments)",
            "archived sagas have a segment that the store does not know",
        ),
        (
            "SELECT count(*) FROM appends WHERE NOT EXISTS
                 (SELECT 1 FROM batches WHERE batches.batch = appends.batch)",
            "appends are in a batch that the store does not know, so they have no place in the log",
        ),
        (
            "SELECT count(*) FROM (SELECT position, lag(position + events) OVER (ORDER BY position) AS before
                 FROM batches WHERE position IS NOT NULL) AS placed WHERE position < before",
            "batches have the same places in the log as others",
        ),
        (
            "SELECT count(*) FROM archived WHERE saga IN (SELECT id FROM sagas)",
            "sagas are in the store and archived at once",
        ),
    ] {
        let wrong = pg.first(sql, &[]).await?.map_or(Ok(0), |row| count(&row, 0))?;
        if wrong > 0 {
            findings.push(format!("{wrong} {what}"));
        }
    }
    findings.extend(compare_projections(pg).await?);
    Ok(findings)
}
