//! The writer: it alone writes to the database, on a thread of its own.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use tokio::sync::watch;

use super::acknowledged::Acknowledged;
use super::error::describe_write;
use super::upkeep::Upkeep;
use super::writer_cache::WriterCache;
use crate::error::StoreError;
use crate::health::Health;
use crate::maintenance::StoreStats;
use crate::paging::Cursor;

/// The owner of the file for writing. The thread of the writer holds the connection and the lock
/// that keeps other processes from opening the file.
pub(super) struct Writer<'c> {
    /// Borrowed, so that a backup can use it between the transactions of the writer.
    pub(super) connection: &'c Connection,
    pub(super) acknowledged: &'c Acknowledged,
    pub(super) path: PathBuf,
    /// The fence that this process set when it took the file over.
    pub(super) fence: i64,
    pub(super) cache: WriterCache,
    /// The end of the log, for readers.
    pub(super) head: watch::Sender<Cursor>,
    pub(super) stats: Arc<Mutex<StoreStats>>,
    pub(super) health: Health,
    pub(super) upkeep: Upkeep,
}

impl Writer<'_> {
    /// Returns the fence that the database has now.
    pub(super) fn read_fence(&self) -> Result<i64, StoreError> {
        read_fence(self.connection).map_err(|error| describe_write(&self.path, error))
    }
}

/// Returns the fence of a database. A process may write only while it is the one that it has set.
pub(super) fn read_fence(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE name = 'fence'")?
        .query_row([], |row| row.get(0))
}
