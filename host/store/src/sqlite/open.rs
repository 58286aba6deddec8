//! Opens the database for writing: creates it, migrates it, takes it over.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use amends_engine::Position;
use rusqlite::Connection;

use super::acknowledged::Lost;
use super::backup::remove_draft;
use super::connection::{begin, open_writer};
use super::error::describe_open;
use super::failures::learn_failures;
use super::file::{exists, file_error, folder};
use super::read::count_events;
use super::runs::begin_run;
use super::saga_life::learn_longest_life;
use super::schema::{MIGRATIONS, check_tables, check_version, migrate};
use super::start_delay::learn_start_delay;
use crate::config::Durability;
use crate::error::OpenError;
use crate::in_place::beside;

/// Opens the database for writing, creates it when there is none, and migrates it. Refuses one that
/// lacks events which the lock file says were acknowledged.
pub(super) fn open(
    path: &Path,
    lock: &File,
    durability: Durability,
) -> Result<Connection, OpenError> {
    remove_draft(path);
    if !exists(path)? {
        create(path)?;
    }
    let failed = |error: rusqlite::Error| describe_open(path, error);
    let connection = open_writer(path).map_err(failed)?;
    let version = check_version(&connection, path)?;
    match (Lost::find(lock, &connection).map_err(failed)?, durability) {
        (None, Durability::Full | Durability::Relaxed) => {}
        (Some(lost), Durability::Full) => return Err(lost.to_error(path)),
        // A machine that stopped may have lost them, as the config says.
        (Some(Lost { acknowledged, last }), Durability::Relaxed) => tracing::error!(
            path = %path.display(), acknowledged = acknowledged.0, last = last.0,
            "acknowledged events are lost: with durability = \"relaxed\", a machine that stops may \
             lose the latest"
        ),
    }
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Relaxed => "NORMAL",
    };
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", synchronous).map_err(failed)?;
    // 16 MiB, so that the pages that appends touch stay in memory.
    connection.pragma_update(None, "cache_size", -16_384).map_err(failed)?;
    // After a burst of writes the log is cut back to 64 MiB.
    connection.pragma_update(None, "journal_size_limit", 64 << 20).map_err(failed)?;
    migrate(&connection, &MIGRATIONS, version).map_err(failed)?;
    check_tables(&connection, path)?;
    learn_start_delay(&connection).map_err(failed)?;
    learn_longest_life(&connection).map_err(failed)?;
    learn_failures(&connection).map_err(failed)?;
    Ok(connection)
}

/// Creates a database under another name and then renames it. So a crash leaves no incomplete
/// database, and an empty file always means that content was lost.
fn create(path: &Path) -> Result<(), OpenError> {
    let draft = beside(path, "new");
    for leftover in [&draft, &beside(&draft, "journal")] {
        match fs::remove_file(leftover) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(file_error(leftover, error)),
        }
    }
    // SQLite creates the files beside a database with the same mode.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .map_err(|error| file_error(&draft, error))?;
    let failed = |error: rusqlite::Error| describe_open(path, error);
    let connection = open_writer(&draft).map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    migrate(&connection, &MIGRATIONS, 0).map_err(failed)?;
    connection.close().map_err(|(_, error)| failed(error))?;
    fs::rename(&draft, path).map_err(|error| file_error(path, error))?;
    let folder = folder(path);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| file_error(folder, error))
}

/// A database that this process has taken over.
pub(super) struct TakenOver {
    /// The fence that this process has set.
    pub(super) fence: i64,
    /// A random number that the archive files have which this process writes.
    pub(super) run: i64,
    /// The position of the last event. From here on only this process assigns positions.
    pub(super) position: Position,
}

/// Takes the database over from any process that had it before. Raises the fence, so that the other
/// process can no longer write.
pub(super) fn take_over(connection: &Connection, path: &Path) -> Result<TakenOver, OpenError> {
    let failed = |error: rusqlite::Error| describe_open(path, error);
    let transaction = begin(connection).map_err(failed)?;
    let raise = "UPDATE meta SET value = value + 1 WHERE name = 'fence' RETURNING value";
    let fence = transaction.query_row(raise, [], |row| row.get(0)).map_err(failed)?;
    let run = begin_run(&transaction, fence).map_err(failed)?;
    let position = Position(count_events(&transaction).map_err(failed)?);
    transaction.commit().map_err(failed)?;
    Ok(TakenOver { fence, run, position })
}
