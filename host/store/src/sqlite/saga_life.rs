//! How long sagas live.
//!
//! A saga that ended after some time began before that time, by its life at most. So a search by the
//! time of the end needs to look at a range of ids only, and needs no index by that time, which each
//! end would pay for. The table `meta` has the longest life, rounded up to a power of two, so that
//! few ends change it.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _};

use super::writer_cache::WriterCache;
use crate::saga_row::SagaRow;

/// The life that needs no record.
const LIFE_USUAL: Duration = Duration::from_mins(10);

/// Computes the longest life of all sagas, once: earlier versions did not write it down.
pub(super) fn learn_longest_life(connection: &Connection) -> rusqlite::Result<()> {
    if known(connection)?.is_some() {
        return Ok(());
    }
    let mut longest = 0;
    for table in ["sagas NOT INDEXED", "archived"] {
        // A damaged row has any values.
        let sql = format!(
            "SELECT CAST(coalesce(max(ended_at - started_at), 0) AS INTEGER) FROM {table}
             WHERE typeof(ended_at) = 'integer' AND typeof(started_at) = 'integer'"
        );
        longest = longest.max(connection.query_row(&sql, [], |row| row.get(0))?);
    }
    remember(connection, longest)
}

/// Returns the longest life of any saga that has ended, in milliseconds; at least [`LIFE_USUAL`].
pub(super) fn longest_life(connection: &Connection) -> rusqlite::Result<i64> {
    Ok(known(connection)?.unwrap_or(0).max(usual()))
}

impl WriterCache {
    /// Writes the life of a saga that has ended down when it is the longest.
    pub(super) fn note_life(
        &mut self,
        connection: &Connection,
        row: &SagaRow,
    ) -> rusqlite::Result<()> {
        let Some(ended_at) = row.ended_at else { return Ok(()) };
        let life = ended_at.as_millis().saturating_sub(row.started_at.as_millis());
        if life <= self.longest_life.unwrap_or_else(usual) {
            return Ok(());
        }
        remember(connection, life)?;
        self.longest_life = Some(longest_life(connection)?);
        Ok(())
    }
}

fn usual() -> i64 {
    i64::try_from(LIFE_USUAL.as_millis()).unwrap_or(i64::MAX)
}

fn known(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE name = 'longest_life'")?
        .query_row([], |row| row.get(0))
        .optional()
}

/// Writes a life down, unless a longer one is there.
fn remember(connection: &Connection, life: i64) -> rusqlite::Result<()> {
    let rounded = life.max(0).unsigned_abs().next_power_of_two();
    connection
        .prepare_cached(
            "INSERT INTO meta VALUES ('longest_life', ?1)
             ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        )?
        .execute([i64::try_from(rounded).unwrap_or(i64::MAX)])?;
    Ok(())
}
