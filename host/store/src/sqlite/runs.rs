//! The runs of a store: each open begins one. Archive files say which run wrote them.

use rusqlite::{Connection, Result};

/// The runs of a store that are remembered: archive files that an earlier one left are never removed.
const RUNS_MAX: i64 = 256;

/// Writes down that a run begins, and returns its number.
pub(super) fn begin_run(connection: &Connection, fence: i64) -> Result<i64> {
    connection.execute(
        "DELETE FROM meta WHERE name GLOB 'run/*' AND CAST(substr(name, 5) AS INTEGER) <= ?1",
        [fence - RUNS_MAX],
    )?;
    let begin = "INSERT OR REPLACE INTO meta VALUES ('run/' || ?1, random()) RETURNING value";
    connection.query_row(begin, [fence], |row| row.get(0))
}

/// Forgets the runs, in a copy: what they wrote since may be part of the original.
pub(super) fn forget_runs(connection: &Connection) -> Result<()> {
    connection.execute("DELETE FROM meta WHERE name GLOB 'run/*'", []).map(|_| ())
}

/// Returns the numbers of the runs of this store. A copy of the store begins with none.
pub(super) fn runs(connection: &Connection) -> Result<Vec<i64>> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE name GLOB 'run/*'")?
        .query_map([], |row| row.get(0))?
        .collect()
}
