//! The schema of the key file.

use rusqlite::Connection;

/// The schema version that this build reads and writes.
const SCHEMA_VERSION: i64 = 2;

/// The application id of key files, "Amnk" (`PRAGMA application_id`).
const APPLICATION_ID: i64 = 0x416d_6e6b;

const TABLES: &str = "
    -- secret: of the keyed digests of subjects and of inputs.
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    -- The keys of subjects. mac: the keyed digest of the subject; NULL once its values are to be erased,
    -- so that later sagas of the subject get another key.
    CREATE TABLE subjects (
        id  BLOB PRIMARY KEY,
        mac BLOB UNIQUE,
        key BLOB NOT NULL,
        at  INTEGER NOT NULL
    ) WITHOUT ROWID;
    -- The erasures. state: begun, done (the key of the subject is gone), or recorded (in the log). mac:
    -- the keyed digest of the subject until the erasure is over, so that a second order finds it.
    CREATE TABLE erasures (
        subject_key BLOB PRIMARY KEY,
        at          INTEGER NOT NULL,
        who         TEXT NOT NULL,
        reason      TEXT NOT NULL,
        erased      INTEGER NOT NULL,
        waiting     INTEGER NOT NULL,
        state       TEXT NOT NULL,
        mac         BLOB
    ) WITHOUT ROWID;
    -- The data keys of sagas that may still be undone, of subjects whose key is gone. until: when the
    -- time to undo ends; NULL when that is not known.
    CREATE TABLE pending (
        saga        BLOB PRIMARY KEY,
        subject_key BLOB NOT NULL,
        key         BLOB NOT NULL,
        until       INTEGER
    ) WITHOUT ROWID;
    CREATE INDEX pending_subject ON pending (subject_key);
    ";

/// Prepares a connection: what is deleted is overwritten, and a transaction is durable when it is
/// committed. The journal is emptied after each, so that it keeps no key.
pub(crate) fn prepare(connection: &Connection) -> rusqlite::Result<Result<bool, String>> {
    connection.execute_batch(
        "PRAGMA secure_delete = ON; PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = EXTRA;",
    )?;
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (version, application) = (pragma("user_version")?, pragma("application_id")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        return Ok(Ok(true));
    }
    if application != APPLICATION_ID {
        return Ok(Err("it is a SQLite database of another program".to_owned()));
    }
    if version == 1 {
        connection.execute_batch(
            "BEGIN IMMEDIATE; ALTER TABLE erasures ADD COLUMN mac BLOB; PRAGMA user_version = 2; COMMIT;",
        )?;
        return Ok(Ok(false));
    }
    if version != SCHEMA_VERSION {
        return Ok(Err(format!(
            "its schema version is {version}, and this build knows {SCHEMA_VERSION}; run the version \
             that wrote it"
        )));
    }
    Ok(Ok(false))
}

/// Makes the tables of a new file, in one transaction.
pub(crate) fn create(connection: &Connection, secret: &[u8]) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {TABLES}
         PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
    ))?;
    connection.execute("INSERT INTO meta VALUES ('secret', ?1)", [secret])?;
    connection.execute_batch("COMMIT")
}
