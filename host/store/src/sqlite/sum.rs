//! Checksums of rows: what is read has to be what was written.
//!
//! SQLite notices damage of its own structure, and not of a number or a text within it. So a row that no
//! other row can be compared with has the CRC-32 of its other columns, in the column `sum`. A single bit
//! that flips always changes it. Rows of versions before it have no sum, and are not checked.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Result, Row, ToSql};

use super::column::unreadable;

/// The column of the sum.
pub(super) const SUM: &str = "sum";

/// The tables with a column `sum` and the other columns, in the order of the sum. `appends` is read in
/// another place, row by row.
pub(super) const SUMMED: [(&str, &str); 6] = [
    ("state", "plugin, key, value"),
    // The digest is the sum of the bytes.
    ("blobs", "kind, digest, name, at"),
    ("start_keys", "key, saga, payload_digest, at"),
    ("subscriptions", "name, position, disabled"),
    ("dead_letters", "subscription, place, stream, version, type, at, attempts, error"),
    ("schedules", "name, pattern, decided_until, started_at, saga, skipped_at, skipped_reason"),
];

/// Returns the sum of the values of a row that is to be written.
pub(super) fn sum_of(values: &[&dyn ToSql]) -> Result<u32> {
    let mut sum = crc32fast::Hasher::new();
    for value in values {
        match value.to_sql()? {
            ToSqlOutput::Borrowed(value) => add(&mut sum, value),
            ToSqlOutput::Owned(value) => add(&mut sum, ValueRef::from(&value)),
            // No such value is written.
            _ => {}
        }
    }
    Ok(sum.finalize())
}

/// Checks the sum of a row, which is in column `count`, after the columns that it is of. A row without a
/// sum passes.
pub(super) fn check_sum(row: &Row<'_>, count: usize) -> Result<()> {
    let Some(written) = row.get::<_, Option<u32>>(count)? else { return Ok(()) };
    let mut sum = crc32fast::Hasher::new();
    for column in 0..count {
        add(&mut sum, row.get_ref(column)?);
    }
    if sum.finalize() == written {
        return Ok(());
    }
    Err(unreadable(count, "the row is not what was written"))
}

fn add(sum: &mut crc32fast::Hasher, value: ValueRef<'_>) {
    // The first byte is the type, so that no value of another type has the same sum.
    match value {
        ValueRef::Null => sum.update(b"n"),
        ValueRef::Integer(number) => {
            sum.update(b"i");
            sum.update(&number.to_le_bytes());
        }
        ValueRef::Real(number) => {
            sum.update(b"r");
            sum.update(&number.to_le_bytes());
        }
        ValueRef::Text(text) => {
            sum.update(b"t");
            sum.update(text);
        }
        ValueRef::Blob(bytes) => {
            sum.update(b"b");
            sum.update(bytes);
        }
    }
}

/// Checks every sum of a table of [`SUMMED`]. Each finding names the row by its first two columns.
pub(super) fn check_table(
    connection: &Connection,
    (table, columns): (&str, &str),
    findings: &mut Vec<String>,
    findings_max: usize,
) -> Result<()> {
    let mut statement = connection.prepare(&format!("SELECT {columns}, {SUM} FROM {table}"))?;
    let count = statement.column_count() - 1;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if check_sum(row, count).is_ok() {
            continue;
        }
        let key = |column| match row.get_ref(column) {
            Ok(ValueRef::Text(text)) => String::from_utf8_lossy(text).into_owned(),
            Ok(ValueRef::Integer(number)) => number.to_string(),
            Ok(_) | Err(_) => "?".to_owned(),
        };
        let key = amends_engine::on_one_line(&format!("{} {}", key(0), key(1))).into_owned();
        findings.push(format!("the row `{key}` of {table} is not what was written"));
        if findings.len() >= findings_max {
            break;
        }
    }
    Ok(())
}
