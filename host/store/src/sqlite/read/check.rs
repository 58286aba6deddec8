//! What is damaged in a file: by page, table and saga. Damage ends no check but the one that met it.

use amends_engine::{Digest, SagaId, on_one_line};
use rusqlite::{Connection, Result};

use super::archived::{archived_events, last_position};
use super::projections::compare_projections;
use crate::sqlite::append_columns::{APPEND_COLUMNS, append_events};
use crate::sqlite::column::{id_text, readable};
use crate::sqlite::schema::{SCHEMA_VERSION, TABLES};
use crate::sqlite::stream_column::stream;
use crate::sqlite::sum::{SUM, SUMMED, check_table};

/// The most findings of one check. More would say nothing new.
const FINDINGS_MAX: usize = 100;

/// The schema version since which a row has all events of an append.
const APPENDS_SINCE: i64 = 2;

/// The schema version since which rows have sums.
pub(crate) const SUMS_SINCE: i64 = 11;

/// What a file holds and what is wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) events: u64,
    pub(crate) sagas: u64,
    /// The files of the archive.
    pub(crate) segments: u64,
    /// How many sagas were not compared with the projections, with the first of them and why.
    pub(crate) not_folded: Option<(u64, (SagaId, String))>,
    pub(crate) findings: Vec<String>,
    /// How many of the findings a rebuild mends.
    pub(crate) mendable: usize,
}

/// Reads a whole file of some schema version.
pub(crate) fn check(connection: &Connection, schema: i64) -> Content {
    let mut content = Content::default();
    content.run("its pages", |findings, _| pages(connection, findings));
    if schema == SCHEMA_VERSION {
        content.run("its tables", |findings, _| tables(connection, findings));
        let mut segments = 0;
        content.run("the table segments", |_, _| {
            let sql = "SELECT count(*) FROM segments";
            segments = connection.query_row(sql, [], |row| row.get::<_, i64>(0))?.unsigned_abs();
            Ok(())
        });
        content.segments = segments;
    }
    if schema >= SUMS_SINCE {
        for table in SUMMED {
            content.run(&format!("the table {}", table.0), |findings, _| {
                check_table(connection, table, findings, FINDINGS_MAX)
            });
        }
        content.run("the table blobs", |findings, _| blobs(connection, findings));
    }
    if schema >= APPENDS_SINCE {
        content
            .run("the table appends", |findings, events| log(connection, schema, findings, events));
        content.run("the streams", |findings, _| streams(connection, findings));
        content.run("the table sagas", |findings, _| rows(connection, findings));
    } else {
        content.run("the table events", |_, events| {
            let sql = "SELECT count(*) FROM events";
            *events = connection.query_row(sql, [], |row| row.get::<_, i64>(0))?.unsigned_abs();
            Ok(())
        });
    }
    if schema == SCHEMA_VERSION {
        let (mut not_folded, mut mendable) = (None, 0);
        content.run("the projections", |findings, _| {
            let compared = compare_projections(connection)?;
            findings.extend(compared.findings);
            mendable = compared.mendable;
            not_folded = compared.first_not_folded.map(|first| (compared.not_folded, first));
            Ok(())
        });
        (content.not_folded, content.mendable) = (not_folded, mendable);
    }
    let mut sagas = 0;
    content.run("the table sagas", |_, _| {
        sagas = connection
            .query_row("SELECT count(*) FROM sagas NOT INDEXED", [], |row| row.get::<_, i64>(0))?
            .unsigned_abs();
        Ok(())
    });
    content.sagas = sagas;
    content
}

impl Content {
    /// Runs one check. An error that ends it is a finding.
    fn run(&mut self, what: &str, check: impl FnOnce(&mut Vec<String>, &mut u64) -> Result<()>) {
        if let Err(error) = check(&mut self.findings, &mut self.events) {
            let finding = format!("{what} cannot be read to the end: {error}");
            if !self.findings.contains(&finding) {
                self.findings.push(finding);
            }
        }
    }
}

/// Has SQLite check every page, index and constraint. It names trees by their first page; the table
/// or index that begins there is added.
fn pages(connection: &Connection, findings: &mut Vec<String>) -> Result<()> {
    let mut statement = connection.prepare("PRAGMA integrity_check")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        let lines = text.lines().filter(|line| *line != "ok" && !line.starts_with("***"));
        findings.extend(lines.map(|line| match name_of_tree(connection, line) {
            Some(name) => format!("{name}: {line}"),
            None => line.to_owned(),
        }));
    }
    Ok(())
}

/// Returns the table or index that a line of the check of pages is about.
fn name_of_tree(connection: &Connection, line: &str) -> Option<String> {
    let page: i64 = line.strip_prefix("Tree ")?.split(' ').next()?.parse().ok()?;
    let sql = "SELECT type || ' ' || name FROM sqlite_schema WHERE rootpage = ?1";
    connection.query_row(sql, [page], |row| row.get(0)).ok()
}

fn tables(connection: &Connection, findings: &mut Vec<String>) -> Result<()> {
    for table in TABLES {
        if !connection.table_exists(None, table)? {
            findings.push(format!("the table {table} is missing"));
        }
    }
    Ok(())
}

/// Reads every append, in the order of the log: each has to be readable, and positions have no gaps.
fn log(
    connection: &Connection,
    schema: i64,
    findings: &mut Vec<String>,
    events: &mut u64,
) -> Result<()> {
    let columns = if schema >= SUMS_SINCE {
        APPEND_COLUMNS.to_owned()
    } else {
        APPEND_COLUMNS.replace(SUM, "NULL")
    };
    let mut statement =
        connection.prepare(&format!("SELECT {columns} FROM appends ORDER BY position"))?;
    let mut rows = statement.query([])?;
    let archived = archived_events(connection)?;
    let (mut last, mut missing): (i64, u64) = (0, 0);
    let mut found = 0;
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => break,
            Err(error) => {
                findings.push(format!("no append after position {last} can be read: {error}"));
                return Ok(());
            }
        };
        let position: i64 = row.get(0)?;
        let appended = readable(append_events(row), APPEND_COLUMNS)?;
        let count = appended.as_ref().map_or(0, |events| i64::try_from(events.len()).unwrap_or(0));
        let gap = position.saturating_sub(last).saturating_sub(count);
        // What was archived left a gap; whether that is all of it is known at the end.
        missing += u64::try_from(gap).unwrap_or(0);
        last = position;
        *events = position.unsigned_abs();
        let wrong = match appended {
            Err(reason) => format!("the append cannot be read: {reason}"),
            Ok(_) if position < 1 => "its position is none".to_owned(),
            Ok(_) if gap < 0 || gap > 0 && archived == 0 => {
                format!("{gap} events before the append are missing")
            }
            Ok(_) => continue,
        };
        if found < FINDINGS_MAX {
            let of = stream(row, 1).map_or_else(|_| id_text(row), |stream| stream.to_string());
            findings.push(format!("{of}, position {position}: {wrong}"));
        }
        found += 1;
    }
    let end = last_position(connection)?.0;
    missing += end.saturating_sub(last.unsigned_abs());
    *events = end;
    if archived > 0 && missing != archived {
        findings.push(format!(
            "{missing} events of the log are missing, and {archived} were archived or deleted"
        ));
    }
    if found > FINDINGS_MAX {
        findings.push(format!("{} more appends are damaged", found - FINDINGS_MAX));
    }
    Ok(())
}

/// The bytes of a blob have to be those of its digest.
fn blobs(connection: &Connection, findings: &mut Vec<String>) -> Result<()> {
    let mut statement = connection.prepare("SELECT kind, digest, name, bytes FROM blobs")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, name): (String, String) = (row.get(0)?, row.get(2)?);
        let bytes = row.get_ref(3)?.as_blob()?;
        if Digest::of(bytes) != Digest::from_bytes(row.get(1)?) {
            let name = on_one_line(&name);
            findings.push(format!("the bytes of a {kind} of `{name}` are not those of its digest"));
        }
    }
    Ok(())
}

/// The number of events of a stream has to be its version.
fn streams(connection: &Connection, findings: &mut Vec<String>) -> Result<()> {
    let mut statement = connection.prepare(super::verify::GAPS)?;
    let mut rows = statement.query([])?;
    let mut found = 0;
    while let Some(row) = rows.next()?
        && found < FINDINGS_MAX
    {
        let of = stream(row, 0).map_or_else(|_| id_text(row), |stream| stream.to_string());
        let (events, last) = (row.get_ref(1)?, row.get_ref(2)?);
        let number = |value: rusqlite::types::ValueRef<'_>| value.as_i64().unwrap_or(-1);
        let (events, last) = (number(events), number(last));
        findings.push(format!("{of} has {events} events, but its last version is {last}"));
        found += 1;
    }
    Ok(())
}

/// A row of the projection has to have events.
fn rows(connection: &Connection, findings: &mut Vec<String>) -> Result<()> {
    let mut statement = connection.prepare(
        "SELECT id FROM sagas WHERE NOT EXISTS (SELECT 1 FROM appends WHERE stream = sagas.id)
         LIMIT 100",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        findings.push(format!("saga {} has a row and no events", id_text(row)));
    }
    Ok(())
}
