//! The tables `subscriptions` and `dead_letters`.

use amends_engine::{Timestamp, Version};
use rusqlite::{Connection, OptionalExtension as _, Result, Row, params};

use super::column::{readable, to_integer};
use super::stream_column::stream;
use super::sum::sum_of;
use crate::outbox::{DeadLetter, SubscriptionChange, SubscriptionRow};
use crate::paging::Cursor;

/// Returns what is kept of a subscription.
pub(super) fn subscription(connection: &Connection, name: &str) -> Result<Option<SubscriptionRow>> {
    let mut statement = connection.prepare_cached(
        "SELECT position, disabled,
             (SELECT count(*) FROM dead_letters WHERE subscription = name)
         FROM subscriptions WHERE name = ?1",
    )?;
    statement
        .query_row([name], |row| {
            Ok(SubscriptionRow {
                cursor: Cursor(row.get::<_, i64>(0)?.unsigned_abs()),
                disabled: row.get(1)?,
                dead_letters: row.get::<_, i64>(2)?.unsigned_abs(),
            })
        })
        .optional()
}

const DEAD_LETTER_COLUMNS: &str = "place, stream, version, type, at, attempts, error";

/// Returns dead letters of a subscription after a place. One that cannot be read is left out, so that
/// it keeps no other from being sent again.
pub(super) fn dead_letters(
    connection: &Connection,
    name: &str,
    after: Option<Cursor>,
    limit: u32,
) -> Result<Vec<DeadLetter>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {DEAD_LETTER_COLUMNS} FROM dead_letters
         WHERE subscription = ?1 AND place > ?2 ORDER BY place"
    ))?;
    let after = after.map_or(-1, |place| to_integer(place.0));
    let mut rows = statement.query(params![name, after])?;
    let mut letters = Vec::new();
    while letters.len() < limit as usize
        && let Some(row) = rows.next()?
    {
        match readable(dead_letter(row), DEAD_LETTER_COLUMNS)? {
            Ok(letter) => letters.push(letter),
            Err(reason) => {
                tracing::error!(subscription = name, reason, "a dead letter cannot be read");
            }
        }
    }
    Ok(letters)
}

fn dead_letter(row: &Row<'_>) -> Result<DeadLetter> {
    Ok(DeadLetter {
        place: Cursor(row.get::<_, i64>(0)?.unsigned_abs()),
        stream: stream(row, 1)?,
        version: Version(row.get::<_, i64>(2)?.unsigned_abs()),
        kind: row.get(3)?,
        at: Timestamp::from_millis(row.get(4)?),
        attempts: row.get(5)?,
        error: row.get(6)?,
    })
}

/// Writes a change, within a transaction of the writer.
pub(super) fn save(connection: &Connection, change: &SubscriptionChange) -> Result<()> {
    let SubscriptionChange { name, cursor, disabled, dead, delivered } = change;
    connection
        .prepare_cached("INSERT OR REPLACE INTO subscriptions VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            name,
            to_integer(cursor.0),
            disabled,
            sum_of(params![name, to_integer(cursor.0), disabled])?
        ])?;
    let mut remove = connection
        .prepare_cached("DELETE FROM dead_letters WHERE subscription = ?1 AND place = ?2")?;
    for place in delivered {
        remove.execute(params![name, to_integer(place.0)])?;
    }
    let mut add = connection.prepare_cached(
        "INSERT OR REPLACE INTO dead_letters VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for letter in dead {
        let DeadLetter { place, stream, version, kind, at, attempts, error } = letter;
        let (place, version) = (to_integer(place.0), to_integer(version.0));
        let at = at.as_millis();
        let sum = sum_of(params![name, place, stream, version, kind, at, attempts, error])?;
        add.execute(params![name, place, stream, version, kind, at, attempts, error, sum])?;
    }
    Ok(())
}
