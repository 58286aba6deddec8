//! The schema of the database, and how earlier schemas become this one.

use std::path::Path;

use rusqlite::Connection;

use super::error::describe_open;
use crate::error::OpenError;

/// The schema version that this build reads and writes.
pub const SCHEMA_VERSION: i64 = 4;

/// The application id of our databases, "Amnd" (`PRAGMA application_id`). Other SQLite files do not
/// have it.
const APPLICATION_ID: i64 = 0x416d_6e64;

/// The migrations: number N brings schema version N-1 to N. A released migration never changes.
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

/// The tables of a database of [`SCHEMA_VERSION`].
const TABLES: [&str; 7] = ["meta", "appends", "sagas", "saga_tags", "start_keys", "blobs", "state"];

/// Returns the schema version of a database, 0 for a new one. Fails when the database is of another
/// program or newer than this build.
pub(super) fn check_version(connection: &Connection, path: &Path) -> Result<i64, OpenError> {
    let failed = |error: rusqlite::Error| describe_open(path, error);
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let version = pragma("user_version").map_err(failed)?;
    let application = pragma("application_id").map_err(failed)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    if tables > 0 && application != APPLICATION_ID {
        return Err(OpenError::damaged(path, "it is a SQLite database of another program"));
    }
    if tables > 0 && version < 1 {
        return Err(OpenError::damaged(path, "it has no schema version"));
    }
    if version > SCHEMA_VERSION {
        let (found, known) = (version, SCHEMA_VERSION);
        return Err(OpenError::NewerSchema { path: path.to_owned(), found, known });
    }
    Ok(version)
}

/// Fails when a table is missing.
pub(super) fn check_tables(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    for table in TABLES {
        let there =
            connection.table_exists(None, table).map_err(|error| describe_open(path, error))?;
        if !there {
            return Err(OpenError::damaged(path, format!("its table {table} is missing")));
        }
    }
    Ok(())
}

/// Runs the migrations after schema version `from`. Each is a transaction of its own, so a crash
/// leaves the version before it or the version after it.
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
