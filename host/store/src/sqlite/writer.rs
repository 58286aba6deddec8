//! The writer: it alone writes to the database, on a thread of its own.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use tokio::sync::watch;

use super::error::describe_write;
use super::health::Health;
use super::upkeep::Upkeep;
use super::writer_cache::WriterCache;
use crate::error::StoreError;
use crate::maintenance::StoreStats;
use crate::paging::Cursor;

/// The owner of the file for writing. The fields are dropped in this order, so the lock outlives
/// the connection.
pub(super) struct Writer {
    pub(super) connection: Connection,
    /// The lock that keeps other processes from opening the file.
    #[expect(dead_code, reason = "held, not read")]
    pub(super) lock: File,
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

impl Writer {
    /// Returns the fence that the database has now.
    pub(super) fn read_fence(&self) -> Result<i64, StoreError> {
        read_fence(&self.connection).map_err(|error| describe_write(&self.path, error))
    }
}

/// Returns the fence of a database. A process may write only while it is the one that it has set.
pub(super) fn read_fence(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE name = 'fence'")?
        .query_row([], |row| row.get(0))
}
