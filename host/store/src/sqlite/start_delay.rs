//! How long after the making of its id a saga started.
//!
//! An id contains the time at which it was made, and its saga starts a little later. So a search by
//! time needs to look at a range of ids only. Most sagas start within [`START_DELAY`]. The table
//! `meta` has the longest delay when one was longer.

use amends_engine::{SagaId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _};

use crate::id_time::START_DELAY;
pub(super) use crate::id_time::{delay_of, first_id, last_id};

/// Computes the longest delay of all sagas, once: earlier versions did not write delays down.
pub(super) fn learn_start_delay(connection: &Connection) -> rusqlite::Result<()> {
    let known = "SELECT count(*) FROM meta WHERE name = 'start_delay'";
    if connection.query_row(known, [], |row| row.get::<_, i64>(0))? > 0 {
        return Ok(());
    }
    let mut statement = connection.prepare("SELECT id, started_at FROM sagas")?;
    let mut delays = statement.query_map([], |row| {
        let id = row.get(0).map(SagaId::from_bytes);
        // Lists leave out a row that cannot be read, so its delay does not matter.
        Ok(id.map_or(0, |id| delay_of(id, Timestamp::from_millis(row.get(1).unwrap_or(0)))))
    })?;
    let longest =
        delays.try_fold(0, |longest, delay| delay.map(|delay: i64| longest.max(delay)))?;
    remember_start_delay(connection, longest)
}

/// Writes a delay down when it is longer than [`START_DELAY`].
pub(super) fn note_start_delay(connection: &Connection, delay: i64) -> rusqlite::Result<()> {
    if u128::try_from(delay).is_ok_and(|delay| delay > START_DELAY.as_millis()) {
        remember_start_delay(connection, delay)?;
    }
    Ok(())
}

/// Writes down that a saga started this many milliseconds after the making of its id.
fn remember_start_delay(connection: &Connection, delay: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO meta VALUES ('start_delay', ?1)
             ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        )?
        .execute([delay])?;
    Ok(())
}

/// Returns the longest delay of any saga in milliseconds, at least [`START_DELAY`]. Delays become
/// long when a saga waits for room before it starts. Early versions also gave a child the time of
/// its parent.
pub(super) fn start_delay(connection: &Connection) -> rusqlite::Result<i64> {
    let usual = i64::try_from(START_DELAY.as_millis()).unwrap_or(i64::MAX);
    let longest: Option<i64> = connection
        .prepare_cached("SELECT value FROM meta WHERE name = 'start_delay'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(longest.unwrap_or(0).max(usual))
}
