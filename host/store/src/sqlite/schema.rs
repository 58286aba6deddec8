//! The schema of the database, and how earlier schemas become this one.

use std::path::Path;

use rusqlite::Connection;

use super::error::describe_open;
use crate::error::OpenError;

/// The schema version that this build reads and writes.
pub(crate) const SCHEMA_VERSION: i64 = 12;

/// The application id of our databases, "Amnd" (`PRAGMA application_id`). Other SQLite files do not
/// have it.
const APPLICATION_ID: i64 = 0x416d_6e64;

/// The tables of failures, which are derived from events.
pub(super) const FAILURE_TABLES: &str = "
    -- The last failure of each step (or element) and call of a saga. Derived from events; can be
    -- rebuilt. position: that of its event. step: empty when a block has none. element: -1 when the
    -- step is none of a list. call: execute, compensate, or block, which has no code.
    CREATE TABLE failures (
        position INTEGER PRIMARY KEY,
        saga     BLOB NOT NULL,
        step     TEXT NOT NULL,
        element  INTEGER NOT NULL,
        call     TEXT NOT NULL,
        code     TEXT NOT NULL,
        digest   BLOB,
        text     TEXT NOT NULL
    );
    CREATE UNIQUE INDEX failures_saga ON failures (saga, step, element, call);
    CREATE INDEX failures_step ON failures (step, saga);
    CREATE INDEX failures_code ON failures (code, saga);
    CREATE INDEX failures_digest ON failures (digest, saga) WHERE digest IS NOT NULL;
    -- The words of the texts.
    CREATE VIRTUAL TABLE failure_texts USING fts5 (
        text, content = 'failures', content_rowid = 'position', detail = 'full',
        tokenize = 'unicode61 remove_diacritics 0'
    );
    CREATE TRIGGER failures_inserted AFTER INSERT ON failures BEGIN
        INSERT INTO failure_texts (rowid, text) VALUES (new.position, new.text);
    END;
    CREATE TRIGGER failures_deleted AFTER DELETE ON failures BEGIN
        INSERT INTO failure_texts (failure_texts, rowid, text)
            VALUES ('delete', old.position, old.text);
    END;
    ";

/// The migrations: number N brings schema version N-1 to N. A released migration never changes.
pub(super) const MIGRATIONS: [&str; 12] = [
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
    "
    -- A host that starts reads no saga that waits, so those have indexes of their own: by id, and by
    -- the time at which the clock wakes them. With the status in them, SQLite need not look at the
    -- rows to count.
    DROP INDEX sagas_live;
    CREATE INDEX sagas_live ON sagas (id) WHERE ended_at IS NULL AND status <> 'waiting';
    CREATE INDEX sagas_waiting ON sagas (status, id) WHERE status = 'waiting';
    CREATE INDEX sagas_due ON sagas (status, wake_at, id)
        WHERE status = 'waiting' AND wake_at IS NOT NULL;
    ",
    "
    -- The files of the archive. first, last: the ids of sagas.
    CREATE TABLE segments (
        id     INTEGER PRIMARY KEY,
        file   TEXT NOT NULL,
        digest BLOB NOT NULL,
        first  BLOB NOT NULL,
        last   BLOB NOT NULL,
        sagas  INTEGER NOT NULL,
        events INTEGER NOT NULL,
        bytes  INTEGER NOT NULL,
        at     INTEGER NOT NULL
    );
    -- What is left of sagas that went to the archive, or that were deleted (segment is NULL then).
    CREATE TABLE archived (
        saga       BLOB PRIMARY KEY,
        version    INTEGER NOT NULL,
        segment    INTEGER,
        definition TEXT NOT NULL,
        status     TEXT NOT NULL,
        started_at INTEGER NOT NULL,
        ended_at   INTEGER NOT NULL,
        key        TEXT
    ) WITHOUT ROWID;
    CREATE INDEX archived_keys ON archived (saga) WHERE key IS NOT NULL;
    -- Says which files of an archive folder are those of this store.
    INSERT INTO meta VALUES ('store_id', random());
    ",
    "
    -- position: every event up to it is delivered, filtered out, or a dead letter.
    CREATE TABLE subscriptions (
        name     TEXT PRIMARY KEY,
        position INTEGER NOT NULL,
        disabled TEXT
    ) WITHOUT ROWID;
    -- place: the position before the event, which stays in the log.
    CREATE TABLE dead_letters (
        subscription TEXT NOT NULL,
        place        INTEGER NOT NULL,
        stream       NOT NULL,
        version      INTEGER NOT NULL,
        type         TEXT NOT NULL,
        at           INTEGER NOT NULL,
        attempts     INTEGER NOT NULL,
        error        TEXT NOT NULL,
        PRIMARY KEY (subscription, place)
    ) WITHOUT ROWID;
    ",
    FAILURE_TABLES,
    "
    -- decided_until: each time of the pattern up to it has started its saga, or was skipped.
    CREATE TABLE schedules (
        name           TEXT PRIMARY KEY,
        pattern        TEXT NOT NULL,
        decided_until  INTEGER NOT NULL,
        started_at     INTEGER,
        saga           BLOB,
        skipped_at     INTEGER,
        skipped_reason TEXT
    ) WITHOUT ROWID;
    ",
    "
    -- index_values: a JSON object, as in the first event of the saga.
    ALTER TABLE sagas ADD COLUMN index_values TEXT;
    -- The same values, to find sagas by them. value: a text, a number, or the bytes 00 and 01 for
    -- false and true. SQLite sorts numbers before texts before bytes, and keeps them apart. Derived
    -- from events; can be rebuilt.
    CREATE TABLE saga_index (
        name  TEXT NOT NULL,
        value NOT NULL,
        saga  BLOB NOT NULL,
        PRIMARY KEY (name, value, saga)
    ) WITHOUT ROWID;
    CREATE INDEX saga_index_saga ON saga_index (saga, name);
    ",
    "
    -- sum: the CRC-32 of the other columns of the row; NULL of a row from before.
    ALTER TABLE appends ADD COLUMN sum INTEGER;
    ALTER TABLE state ADD COLUMN sum INTEGER;
    ALTER TABLE blobs ADD COLUMN sum INTEGER;
    ALTER TABLE start_keys ADD COLUMN sum INTEGER;
    ALTER TABLE subscriptions ADD COLUMN sum INTEGER;
    ALTER TABLE dead_letters ADD COLUMN sum INTEGER;
    ALTER TABLE schedules ADD COLUMN sum INTEGER;
    -- Each run has a number of its own, 'run/FENCE'.
    DELETE FROM meta WHERE name = 'store_id';
    ",
    "
    -- subject_key: the 16 bytes of the id of the key with which the personal values of the saga are
    -- sealed; NULL when it has none. Derived from events; can be rebuilt.
    ALTER TABLE sagas ADD COLUMN subject_key BLOB;
    ALTER TABLE archived ADD COLUMN subject_key BLOB;
    CREATE INDEX sagas_subject_key ON sagas (subject_key, id) WHERE subject_key IS NOT NULL;
    CREATE INDEX archived_subject_key ON archived (subject_key) WHERE subject_key IS NOT NULL;
    ",
];

/// The tables of a database of [`SCHEMA_VERSION`].
pub(super) const TABLES: [&str; 15] = [
    "meta",
    "appends",
    "sagas",
    "saga_tags",
    "saga_index",
    "start_keys",
    "blobs",
    "state",
    "segments",
    "archived",
    "subscriptions",
    "dead_letters",
    "failures",
    "failure_texts",
    "schedules",
];

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
