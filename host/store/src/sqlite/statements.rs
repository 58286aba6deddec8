//! The statements that run for each append.

use rusqlite::{CachedStatement, Connection, Params};

/// The statements that run for each append. Each is looked up at most once in a transaction.
pub(super) struct Statements<'c> {
    pub(super) connection: &'c Connection,
    insert_append: Option<CachedStatement<'c>>,
    insert_saga: Option<CachedStatement<'c>>,
    update_saga: Option<CachedStatement<'c>>,
}

impl<'c> Statements<'c> {
    /// Makes an empty set for one transaction.
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self { connection, insert_append: None, insert_saga: None, update_saga: None }
    }

    /// Inserts a row of the table `appends`.
    pub(super) fn insert_append(&mut self, row: impl Params) -> rusqlite::Result<usize> {
        let sql = "INSERT INTO appends VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        execute(self.connection, &mut self.insert_append, sql, row)
    }

    /// Inserts a row of the table `sagas`.
    pub(super) fn insert_saga(&mut self, row: impl Params) -> rusqlite::Result<usize> {
        let sql = "INSERT INTO sagas VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,
                   ?13)";
        execute(self.connection, &mut self.insert_saga, sql, row)
    }

    /// Updates a row of the table `sagas`, and returns how many rows that changed.
    pub(super) fn update_saga(&mut self, row: impl Params) -> rusqlite::Result<usize> {
        let sql = "UPDATE sagas SET status = ?2, reason = ?3, ended_at = ?4, deadline_at = ?5,
                   wake_at = ?6 WHERE id = ?1";
        execute(self.connection, &mut self.update_saga, sql, row)
    }
}

/// Runs a statement, which is looked up the first time. Returns how many rows it changed.
fn execute<'c>(
    connection: &'c Connection,
    found: &mut Option<CachedStatement<'c>>,
    sql: &str,
    values: impl Params,
) -> rusqlite::Result<usize> {
    match found {
        Some(statement) => statement.execute(values),
        none => none.insert(connection.prepare_cached(sql)?).execute(values),
    }
}
