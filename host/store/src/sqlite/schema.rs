//! The file: its lock, its settings, its schema and how that came about.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::Read as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

use amends_engine::{Position, SagaId, Timestamp};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::read::delay_of;
use crate::StoreError;
use crate::types::Durability;

/// The schema that this version reads and writes.
pub const SCHEMA_VERSION: i64 = 4;

/// `amends.db-lock` is locked while `amends.db` is open.
pub const LOCK_SUFFIX: &str = "lock";

/// What a file's mode permits to everybody but its owner and group.
const OTHERS: u32 = 0o007;

/// How long a connection waits for the lock of another program that writes to the file.
pub(super) const BUSY_WAIT: Duration = Duration::from_secs(5);

/// "Amnd": tells a database of ours from any other SQLite file (`PRAGMA application_id`).
const APPLICATION_ID: i64 = 0x416d_6e64;

/// Migration N brings version N-1 to N. Once released, none is ever changed.
pub(super) const MIGRATIONS: [&str; 4] = [
    "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('fence', 0);

    -- stream: the 16 bytes of a saga's id, or a plugin's name as text.
    CREATE TABLE events (
        position INTEGER PRIMARY KEY,
        stream   NOT NULL,
        version  INTEGER NOT NULL,
        at       INTEGER NOT NULL,
        type     TEXT NOT NULL,
        data     TEXT NOT NULL
    );
    CREATE UNIQUE INDEX events_stream ON events (stream, version);

    -- Derived from events; can be rebuilt.
    CREATE TABLE sagas (
        id                BLOB PRIMARY KEY,
        definition        TEXT NOT NULL,
        definition_digest BLOB NOT NULL,
        status            TEXT NOT NULL,
        reason            TEXT,
        started_at        INTEGER NOT NULL,
        ended_at          INTEGER,
        deadline_at       INTEGER,
        wake_at           INTEGER,
        tags              TEXT,
        key               TEXT
    ) WITHOUT ROWID;
    CREATE INDEX sagas_live ON sagas (id) WHERE ended_at IS NULL;
    CREATE INDEX sagas_status ON sagas (status, id);
    CREATE INDEX sagas_definition ON sagas (definition, status, id);
    CREATE TABLE saga_tags (
        name  TEXT NOT NULL,
        value TEXT NOT NULL,
        saga  BLOB NOT NULL,
        PRIMARY KEY (name, value, saga)
    ) WITHOUT ROWID;

    CREATE TABLE start_keys (
        key            TEXT PRIMARY KEY,
        saga           BLOB NOT NULL,
        payload_digest BLOB NOT NULL,
        at             INTEGER NOT NULL
    ) WITHOUT ROWID;

    CREATE TABLE blobs (
        kind   TEXT NOT NULL,
        digest BLOB NOT NULL,
        name   TEXT NOT NULL,
        at     INTEGER NOT NULL,
        bytes  BLOB NOT NULL,
        PRIMARY KEY (kind, digest)
    );
    ",
    "
    -- A row for each append. `position` and `version` are those of its last event; `events` is a
    -- JSON array of its events, each the array of its type and its data.
    CREATE TABLE appends (
        position INTEGER PRIMARY KEY,
        stream   NOT NULL,
        version  INTEGER NOT NULL,
        at       INTEGER NOT NULL,
        events   TEXT NOT NULL
    );
    INSERT INTO appends
        SELECT position, stream, version, at, '[[\"' || type || '\",' || data || ']]' FROM events;
    CREATE UNIQUE INDEX appends_stream ON appends (stream, version);
    DROP TABLE events;

    -- A saga that completes without a turn is in `sagas_live` while it is live, and in
    -- `sagas_definition`; nothing else changes with its status.
    DROP INDEX sagas_status;
    DROP INDEX sagas_definition;
    CREATE INDEX sagas_definition ON sagas (definition, id);
    CREATE INDEX sagas_rare ON sagas (status, id)
        WHERE status NOT IN ('running', 'waiting', 'completed');
    ",
    "
    -- What plugins keep, by plugin. Not derived: it is written with the event of the call that
    -- changed it. value: JSON.
    CREATE TABLE state (
        plugin TEXT NOT NULL,
        key    TEXT NOT NULL,
        value  TEXT NOT NULL,
        PRIMARY KEY (plugin, key)
    ) WITHOUT ROWID;
    ",
    "
    -- `NOT IN` makes a table of its list for each row that is written; this says the same without.
    DROP INDEX sagas_rare;
    CREATE INDEX sagas_rare ON sagas (status, id)
        WHERE status <> 'running' AND status <> 'waiting' AND status <> 'completed';
    ",
];

/// What a database of `SCHEMA_VERSION` has.
const TABLES: [&str; 7] = ["meta", "appends", "sagas", "saga_tags", "start_keys", "blobs", "state"];

/// The file that a path leads to, so that it has one lock and one log whatever it is called by. Its
/// folder is made when there is none.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    let folder = folder(path);
    // Nobody else's business: what is made here is its owner's alone, whatever the umask.
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        StoreError::File {
            path: folder.to_owned(),
            message: format!("the folder of the store cannot be made: {error}; set url in [store], or --store-url"),
        }
    })?;
    let failed = |message: String| StoreError::File { path: path.to_owned(), message };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let folder = folder.canonicalize().map_err(|error| file_error(folder, &error))?;
            return Ok(path.file_name().map_or_else(|| folder.clone(), |name| folder.join(name)));
        }
        Err(error) => return Err(file_error(path, &error)),
    };
    let resolved = path.canonicalize().map_err(|error| {
        if found.is_symlink() {
            failed("it is a symbolic link to a file that is not there".to_owned())
        } else {
            file_error(path, &error)
        }
    })?;
    let links =
        fs::metadata(&resolved).map_or(1, |found| if found.is_file() { found.nlink() } else { 1 });
    if links > 1 {
        return Err(failed(format!(
            "the file has {links} names (hard links), and by each it would have a lock and a log of \
             its own; remove the others (`find -samefile` lists them)"
        )));
    }
    Ok(resolved)
}

/// Takes the lock that one process holds while it uses the file, which [`resolve`] has found. The
/// system lets go of it when the process ends, however it ends.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let lock_path = beside(path, LOCK_SUFFIX);
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&lock_path)
        .map_err(|error| file_error(&lock_path, &error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => return Err(file_error(&lock_path, &error)),
    }
    Ok(lock)
}

/// A file that is certainly no store: nothing is made beside it, and nothing of it is changed.
pub(super) fn refuse_other_file(path: &Path) -> Result<(), StoreError> {
    let damaged = |message: &str| {
        Err(StoreError::Damaged { path: path.to_owned(), message: message.to_owned() })
    };
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => return damaged("it is not a file"),
        // One that is empty may be about to be written.
        Ok(found) if found.len() > 0 => {}
        Ok(_) | Err(_) => return Ok(()),
    }
    let mut begin = [0; MAGIC.len()];
    match File::open(path).and_then(|mut file| file.read_exact(&mut begin)) {
        Ok(()) if begin == *MAGIC => Ok(()),
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            Err(file_error(path, &error))
        }
        Ok(()) | Err(_) => damaged(NO_DATABASE),
    }
}

/// What the file of a database begins with: <https://www.sqlite.org/fileformat.html>, section 1.3.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

const NO_DATABASE: &str = "it is not a SQLite database";

/// A store that an earlier version made may be read by everybody. What its group may is left as it
/// is: somebody may have wanted that, for copies.
pub(super) fn keep_from_others(path: &Path) {
    for file in [path.to_owned(), log_path(path), beside(path, "shm"), beside(path, LOCK_SUFFIX)] {
        take_from_others(&file);
    }
}

fn take_from_others(file: &Path) {
    let Ok(found) = fs::metadata(file) else { return };
    let mode = found.permissions().mode() & 0o7777;
    if mode & OTHERS == 0 {
        return;
    }
    match fs::set_permissions(file, Permissions::from_mode(mode & !OTHERS)) {
        Ok(()) => tracing::info!(file = %file.display(), "others may no longer read this file"),
        Err(error) => tracing::warn!(
            file = %file.display(), %error,
            "others may read this file, and the host cannot change that; chmod o= takes it from them"
        ),
    }
}

/// Opens the file for writing, makes it when there is none, and migrates it.
pub(super) fn open(path: &Path, durability: Durability) -> Result<Connection, StoreError> {
    if !is_there(path)? {
        create(path)?;
    }
    let failed = |error: rusqlite::Error| describe(path, &error);
    // No `SQLITE_OPEN_CREATE`: a file that is gone is not made anew here.
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let version = check_version(&connection, path)?;
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Relaxed => "NORMAL",
    };
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", synchronous).map_err(failed)?;
    // 16 MiB: the pages that appends touch stay in memory.
    connection.pragma_update(None, "cache_size", -16_384).map_err(failed)?;
    // 64 MiB: after a burst the log is cut back to it.
    connection.pragma_update(None, "journal_size_limit", 64 << 20).map_err(failed)?;
    migrate(&connection, &MIGRATIONS, version).map_err(failed)?;
    check_tables(&connection, path)?;
    learn_start_delay(&connection).map_err(failed)?;
    Ok(connection)
}

/// Versions before this one did not write down how late sagas started: once, all are looked at.
fn learn_start_delay(connection: &Connection) -> rusqlite::Result<()> {
    let known = "SELECT count(*) FROM meta WHERE name = 'start_delay'";
    if connection.query_row(known, [], |row| row.get::<_, i64>(0))? > 0 {
        return Ok(());
    }
    let mut statement = connection.prepare("SELECT id, started_at FROM sagas")?;
    let mut delays = statement.query_map([], |row| {
        let id = row.get(0).map(SagaId::from_bytes);
        // A row that cannot be read is not listed.
        Ok(id.map_or(0, |id| delay_of(id, Timestamp::from_millis(row.get(1).unwrap_or(0)))))
    })?;
    let longest =
        delays.try_fold(0, |longest, delay| delay.map(|delay: i64| longest.max(delay)))?;
    remember_start_delay(connection, longest)
}

/// That a saga started so many milliseconds after its id was made.
pub(super) fn remember_start_delay(connection: &Connection, delay: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO meta VALUES ('start_delay', ?1)
             ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        )?
        .execute([delay])?;
    Ok(())
}

/// Opens the file for reading.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let failed = |error: rusqlite::Error| describe(path, &error);
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_WAIT).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Else a statement is compiled anew whenever its values change, in case another plan be better.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failed)?;
    Ok(connection)
}

/// Makes a new database under another name and then renames it, so that a crash leaves no
/// half-made one, and an empty file is always one that has lost its content.
fn create(path: &Path) -> Result<(), StoreError> {
    let draft = beside(path, "new");
    for leftover in [&draft, &beside(&draft, "journal")] {
        match fs::remove_file(leftover) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(file_error(leftover, &error)),
        }
    }
    // SQLite gives the mode of the database to the files that it makes beside it.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .map_err(|error| file_error(&draft, &error))?;
    let failed = |error: rusqlite::Error| describe(path, &error);
    let connection = connect(&draft, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    migrate(&connection, &MIGRATIONS, 0).map_err(failed)?;
    connection.close().map_err(|(_, error)| failed(error))?;
    fs::rename(&draft, path).map_err(|error| file_error(path, &error))?;
    let folder = folder(path);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| file_error(folder, &error))
}

/// Takes the database over: raises the fence, so that whoever had it before can no longer write to
/// it, and reads the position of the last event, after which nobody but this process gives any.
pub(super) fn take_over(
    connection: &Connection,
    path: &Path,
) -> Result<(i64, Position), StoreError> {
    let failed = |error: rusqlite::Error| describe(path, &error);
    let transaction = begin(connection).map_err(failed)?;
    let raise = "UPDATE meta SET value = value + 1 WHERE name = 'fence' RETURNING value";
    let fence = transaction.query_row(raise, [], |row| row.get(0)).map_err(failed)?;
    let last = "SELECT coalesce(max(position), 0) FROM appends";
    let position: i64 = transaction.query_row(last, [], |row| row.get(0)).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok((fence, Position(u64::try_from(position).unwrap_or(0))))
}

/// A transaction that writes; rolled back when it is dropped.
pub(super) fn begin(connection: &Connection) -> rusqlite::Result<Transaction<'_>> {
    Transaction::new_unchecked(connection, TransactionBehavior::Immediate)
}

/// Says what a database error means for an operator.
pub(super) fn describe(path: &Path, error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Damaged { path: path.to_owned(), message: error.to_string() }
        }
        Some(ErrorCode::DiskFull) => StoreError::Full(error.to_string()),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            StoreError::File { path: path.to_owned(), message: error.to_string() }
        }
        // Not from SQLite: what it read is nothing that we wrote.
        None if is_unreadable(error) => {
            StoreError::Damaged { path: path.to_owned(), message: error.to_string() }
        }
        Some(_) | None => StoreError::Database(error.to_string()),
    }
}

/// What was read is nothing that we wrote, and only that: the database itself works.
pub(super) fn is_unreadable(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..)
    )
}

/// Before SQLite sees a file: is there one, is it a database, and is all of it there? SQLite
/// would make an empty database of an empty file, and finds a cut only when it reads there.
fn is_there(path: &Path) -> Result<bool, StoreError> {
    let damaged = |message: &str| {
        Err(StoreError::Damaged { path: path.to_owned(), message: message.to_owned() })
    };
    let wal_length = log_bytes(path);
    let length = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return damaged("it is not a file"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && wal_length == 0 => {
            return Ok(false);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return damaged("it is missing, but its log (-wal) is there");
        }
        Err(error) => return Err(file_error(path, &error)),
    };
    if length == 0 {
        return damaged("it is empty");
    }
    let mut header = [0; 100];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    if read.is_err() || !header.starts_with(MAGIC) {
        return damaged(NO_DATABASE);
    }
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    let pages = u64::from(u32::from_be_bytes([header[28], header[29], header[30], header[31]]));
    if wal_length == 0 && length < pages * page_bytes {
        return damaged("the end of it is missing");
    }
    Ok(true)
}

fn check_version(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let failed = |error: rusqlite::Error| describe(path, &error);
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let version = pragma("user_version").map_err(failed)?;
    let application = pragma("application_id").map_err(failed)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    if tables > 0 && application != APPLICATION_ID {
        let message = "it is a SQLite database of another program".to_owned();
        return Err(StoreError::Damaged { path: path.to_owned(), message });
    }
    if tables > 0 && version < 1 {
        let message = "it has no schema version".to_owned();
        return Err(StoreError::Damaged { path: path.to_owned(), message });
    }
    if version > SCHEMA_VERSION {
        let (found, known) = (version, SCHEMA_VERSION);
        return Err(StoreError::NewerSchema { path: path.to_owned(), found, known });
    }
    Ok(version)
}

fn check_tables(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    for table in TABLES {
        let there = connection.table_exists(None, table).map_err(|error| describe(path, &error))?;
        if !there {
            let message = format!("its table {table} is missing");
            return Err(StoreError::Damaged { path: path.to_owned(), message });
        }
    }
    Ok(())
}

/// Each migration is a transaction: a crash leaves the version before it or the one after it.
pub(super) fn migrate(
    connection: &Connection,
    migrations: &[&str],
    from: i64,
) -> rusqlite::Result<()> {
    for (done, migration) in (0_i64..).zip(migrations) {
        if done < from {
            continue;
        }
        let to = done + 1;
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {migration};
             PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {to}; COMMIT;"
        ))?;
    }
    Ok(())
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The log of the database.
pub(super) fn log_path(path: &Path) -> PathBuf {
    beside(path, "wal")
}

pub(super) fn log_bytes(path: &Path) -> u64 {
    fs::metadata(log_path(path)).map_or(0, |metadata| metadata.len())
}

/// `amends.db-wal`, `amends.db-lock`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-");
    name.push(suffix);
    PathBuf::from(name)
}

fn file_error(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::File { path: path.to_owned(), message: error.to_string() }
}
