//! The schema of the database, and how earlier schemas become this one.
//!
//! The tables are those of the SQLite store, and mean the same. What differs: the id of a saga is a `uuid`, an
//! append has the version of its first event as well, its place is that in a batch, and who writes is in the
//! tables `hosts`, `lanes` and `shards` (`host/ARCHITECTURE.md` says how).

use super::connection::Pg;
use super::error::{Failure, Result};

/// The schema version that this build reads and writes.
pub(super) const SCHEMA_VERSION: i64 = 2;

/// The value of `application` in `meta`: "Amnd". No other program's table has it.
const APPLICATION_ID: i64 = 0x416d_6e64;

/// The number of the advisory lock of whoever makes or changes the schema.
const SCHEMA_LOCK: i64 = APPLICATION_ID;

/// The migrations: number N brings schema version N-1 to N. A released migration never changes.
const MIGRATIONS: [&str; 2] = [
    r#"
    CREATE TABLE meta (name text COLLATE "C" PRIMARY KEY, value int8 NOT NULL);

    -- The fence of each connection that writes. A transaction locks its row and compares the epoch; only
    -- whoever takes over changes it, and whoever connects again. run: a random number of the process that has
    -- taken it over. backend: the process of the server that serves the connection.
    CREATE TABLE lanes (
        host int4 NOT NULL, lane int2 NOT NULL, epoch int8 NOT NULL, run int8 NOT NULL, backend int4,
        PRIMARY KEY (host, lane)
    ) WITH (fillfactor = 10);
    INSERT INTO lanes VALUES (0, 0, 0, 0, NULL);
    -- Which host owns a shard, and how often that has changed.
    CREATE TABLE shards (id int2 PRIMARY KEY, host int4 NOT NULL, epoch int8 NOT NULL);
    INSERT INTO shards SELECT number, 0, 0 FROM generate_series(0, 63) AS number;
    -- A row for each transaction of a lane, by which a host learns whether one was committed when the
    -- answer is lost. position: that of the last event.
    CREATE TABLE batches (
        host int4 NOT NULL, lane int2 NOT NULL, batch int8 NOT NULL, epoch int8 NOT NULL,
        position int8 NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (host, lane, batch)
    );

    -- A row for each append. position, version: those of its last event. first: the version of its first
    -- event, so that two appends after the same version cannot both be there. saga: none for a stream of
    -- no saga, which is in stream. events: a JSON array of its events, each the array of type and data.
    CREATE TABLE appends (
        position int8 PRIMARY KEY,
        saga     uuid,
        stream   text COLLATE "C",
        first    int8 NOT NULL,
        version  int8 NOT NULL,
        at       int8 NOT NULL,
        events   text NOT NULL,
        CHECK ((saga IS NULL) <> (stream IS NULL))
    );
    CREATE UNIQUE INDEX appends_saga ON appends (saga, first) WHERE saga IS NOT NULL;
    CREATE UNIQUE INDEX appends_stream ON appends (stream, first) WHERE stream IS NOT NULL;

    -- Derived from events; can be rebuilt. tags, index_values: JSON objects. subject_key: the id of the
    -- key with which the personal values of the saga are sealed.
    CREATE TABLE sagas (
        id                uuid PRIMARY KEY,
        shard             int2 NOT NULL,
        definition        text COLLATE "C" NOT NULL,
        definition_digest bytea NOT NULL,
        status            text COLLATE "C" NOT NULL,
        reason            text,
        started_at        int8 NOT NULL,
        ended_at          int8,
        deadline_at       int8,
        wake_at           int8,
        tags              text,
        key               text COLLATE "C",
        index_values      text,
        subject_key       uuid
    ) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
    CREATE INDEX sagas_definition ON sagas (definition, id);
    CREATE INDEX sagas_live ON sagas (id) WHERE ended_at IS NULL AND status <> 'waiting';
    CREATE INDEX sagas_waiting ON sagas (id) WHERE status = 'waiting';
    CREATE INDEX sagas_due ON sagas (wake_at, id) WHERE status = 'waiting' AND wake_at IS NOT NULL;
    CREATE INDEX sagas_rare ON sagas (status, id)
        WHERE status <> 'running' AND status <> 'waiting' AND status <> 'completed';
    CREATE INDEX sagas_subject_key ON sagas (subject_key, id) WHERE subject_key IS NOT NULL;
    CREATE TABLE saga_tags (
        name text COLLATE "C" NOT NULL, value text COLLATE "C" NOT NULL, saga uuid NOT NULL,
        PRIMARY KEY (name, value, saga)
    );
    CREATE INDEX saga_tags_saga ON saga_tags (saga);
    -- value: bytes that sort as the values of one kind do.
    CREATE TABLE saga_index (
        name text COLLATE "C" NOT NULL, value bytea NOT NULL, saga uuid NOT NULL,
        PRIMARY KEY (name, value, saga)
    );
    CREATE INDEX saga_index_saga ON saga_index (saga, name);
    CREATE TABLE start_keys (
        key            text COLLATE "C" PRIMARY KEY,
        saga           uuid NOT NULL,
        payload_digest bytea NOT NULL,
        at             int8 NOT NULL
    );
    -- The last failure of each step (or element) and call of a saga. position: that of its event. step:
    -- empty when a block has none. element: -1 when the step is none of a list. words: those of the
    -- text, each between spaces. lexemes: the same, to find them by.
    CREATE TABLE failures (
        position int8 NOT NULL,
        saga     uuid NOT NULL,
        step     text COLLATE "C" NOT NULL,
        element  int8 NOT NULL,
        call     text COLLATE "C" NOT NULL,
        code     text COLLATE "C" NOT NULL,
        digest   bytea,
        text     text NOT NULL,
        words    text COLLATE "C" NOT NULL,
        lexemes  tsvector NOT NULL,
        PRIMARY KEY (saga, step, element, call)
    );
    CREATE INDEX failures_position ON failures (position);
    CREATE INDEX failures_step ON failures (step, saga);
    -- A code may be long.
    CREATE INDEX failures_code ON failures USING hash (code);
    CREATE INDEX failures_digest ON failures (digest, saga) WHERE digest IS NOT NULL;
    CREATE INDEX failures_lexemes ON failures USING gin (lexemes);

    CREATE TABLE state (
        plugin text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL, value text NOT NULL,
        PRIMARY KEY (plugin, key)
    ) WITH (fillfactor = 60);
    CREATE TABLE blobs (
        kind text COLLATE "C" NOT NULL, digest bytea NOT NULL, name text NOT NULL, at int8 NOT NULL,
        bytes bytea NOT NULL,
        PRIMARY KEY (kind, digest)
    );
    CREATE TABLE segments (
        id int8 GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
        file text COLLATE "C" NOT NULL, digest bytea NOT NULL, first uuid NOT NULL, last uuid NOT NULL,
        sagas int8 NOT NULL, events int8 NOT NULL, bytes int8 NOT NULL, at int8 NOT NULL
    );
    CREATE TABLE archived (
        saga       uuid PRIMARY KEY,
        version    int8 NOT NULL,
        segment    int8,
        definition text COLLATE "C" NOT NULL,
        status     text COLLATE "C" NOT NULL,
        started_at int8 NOT NULL,
        ended_at   int8 NOT NULL,
        key        text COLLATE "C",
        subject_key uuid
    );
    CREATE INDEX archived_keys ON archived (saga) WHERE key IS NOT NULL;
    CREATE INDEX archived_subject_key ON archived (subject_key) WHERE subject_key IS NOT NULL;
    CREATE TABLE subscriptions (
        name text COLLATE "C" PRIMARY KEY, position int8 NOT NULL, disabled text
    );
    CREATE TABLE dead_letters (
        subscription text COLLATE "C" NOT NULL, place int8 NOT NULL, stream text NOT NULL,
        version int8 NOT NULL, type text NOT NULL, at int8 NOT NULL, attempts int8 NOT NULL,
        error text NOT NULL,
        PRIMARY KEY (subscription, place)
    );
    CREATE TABLE schedules (
        name text COLLATE "C" PRIMARY KEY, pattern text NOT NULL, decided_until int8 NOT NULL,
        started_at int8, saga uuid, skipped_at int8, skipped_reason text
    );
"#,
    r#"
    -- A row for each process that has the store open, until it leaves or another host takes its shards over. Its
    -- number is never used again. name: none before the process has joined. run: a random number of the process,
    -- which the archive files have that it writes.
    CREATE TABLE hosts (
        id int8 GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
        name text COLLATE "C" UNIQUE, address text NOT NULL DEFAULT '', run int8 NOT NULL,
        lease_until timestamptz NOT NULL, started_at timestamptz NOT NULL DEFAULT clock_timestamp()
    ) WITH (fillfactor = 50);

    -- The fence of each connection that writes. A transaction locks its row and compares the epoch. Whoever takes
    -- over removes the row; its own host raises the epoch when it connects again. backend: the process of the
    -- server that serves the connection.
    DROP TABLE lanes;
    CREATE TABLE lanes (
        host int8 NOT NULL, lane int2 NOT NULL, epoch int8 NOT NULL, backend int4,
        PRIMARY KEY (host, lane)
    ) WITH (fillfactor = 10);
    ALTER TABLE shards ALTER COLUMN host TYPE int8, ALTER COLUMN host DROP NOT NULL;
    UPDATE shards SET host = NULL;

    -- A row for each transaction of a lane. By (host, lane, number), a host learns whether one was committed when
    -- the answer is lost. batch: taken within the transaction, so it is larger than that of each batch which had
    -- been committed before. events: how many it has. total: how many the host has written with it. position: the
    -- number of events before it in the log; none until it has its place there.
    DROP TABLE batches;
    CREATE SEQUENCE batch_numbers;
    CREATE TABLE batches (
        batch int8 PRIMARY KEY DEFAULT nextval('batch_numbers'),
        host int8 NOT NULL, lane int2 NOT NULL, number int8 NOT NULL, epoch int8 NOT NULL,
        events int8 NOT NULL, total int8 NOT NULL, position int8,
        at timestamptz NOT NULL DEFAULT clock_timestamp()
    ) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
    CREATE UNIQUE INDEX batches_number ON batches (host, lane, number);
    CREATE UNIQUE INDEX batches_position ON batches (position) WHERE position IS NOT NULL;
    CREATE INDEX batches_unplaced ON batches (batch) WHERE position IS NULL AND events > 0;
    CREATE INDEX batches_empty ON batches (batch) WHERE events = 0;
    -- What there is already is one batch, whose events have the positions that they had.
    INSERT INTO meta VALUES ('position', (SELECT coalesce(max(position), 0) FROM appends))
        ON CONFLICT (name) DO UPDATE SET value = greatest(meta.value, excluded.value);
    INSERT INTO batches (batch, host, lane, number, epoch, events, total, position)
        SELECT 0, 0, 0, 0, 0, value, value, 0 FROM meta WHERE name = 'position' AND value > 0;

    -- The last failures are told by the versions of their events. number: of the row, by which all are walked.
    ALTER TABLE failures ADD COLUMN version int8;
    UPDATE failures SET version = coalesce((SELECT appends.version - (appends.position - failures.position)
        FROM appends WHERE appends.saga = failures.saga AND appends.position >= failures.position
        ORDER BY appends.position LIMIT 1), 0);
    ALTER TABLE failures ALTER COLUMN version SET NOT NULL, DROP COLUMN position,
        ADD COLUMN number int8 GENERATED BY DEFAULT AS IDENTITY;
    CREATE UNIQUE INDEX failures_number ON failures (number);

    -- batch, last: the batch of the append, and the number of its last event in it.
    ALTER TABLE appends RENAME COLUMN position TO last;
    ALTER TABLE appends ADD COLUMN batch int8 NOT NULL DEFAULT 0;
    ALTER TABLE appends DROP CONSTRAINT appends_pkey;
    ALTER TABLE appends ADD PRIMARY KEY (batch, last);
    ALTER TABLE appends ALTER COLUMN batch SET DEFAULT currval('batch_numbers');
"#,
];

/// The tables of a database of [`SCHEMA_VERSION`].
pub(super) const TABLES: [&str; 18] = [
    "meta",
    "hosts",
    "lanes",
    "shards",
    "batches",
    "appends",
    "sagas",
    "saga_tags",
    "saga_index",
    "start_keys",
    "failures",
    "state",
    "blobs",
    "segments",
    "archived",
    "subscriptions",
    "dead_letters",
    "schedules",
];

/// What a database is to this build.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Its schema is that of this build now.
    Ready,
    /// A newer version of Amends has written it.
    Newer(i64),
    /// It is of another program, or damaged. In words, which follow "the database".
    Other(String),
}

/// Creates the tables in an empty database, and brings those of an earlier version up to date. Of
/// several hosts that start at once, one does it and the others wait.
pub(super) async fn bring_up_to_date(pg: &Pg) -> Result<Found> {
    pg.execute("SELECT pg_advisory_lock($1)", &[&SCHEMA_LOCK]).await?;
    let found = migrate(pg).await;
    // A connection that is lost has no lock any more.
    let _ = pg.execute("SELECT pg_advisory_unlock($1)", &[&SCHEMA_LOCK]).await;
    found
}

/// Returns the names of the tables and views where unqualified names lead to.
async fn relations(pg: &Pg) -> Result<Vec<String>> {
    let sql = "SELECT relname::text FROM pg_class
               WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')";
    pg.query(sql, &[]).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

async fn migrate(pg: &Pg) -> Result<Found> {
    if !pg.exists("SELECT 1 WHERE current_schema() IS NOT NULL", &[]).await? {
        return Ok(Found::Other("has no schema in which this user may create tables".to_owned()));
    }
    let there = relations(pg).await?;
    let has = |name: &str| there.iter().any(|table| table == name);
    let version = if has("meta") { version(pg).await? } else { None };
    let from = match version {
        None if there.is_empty() => 0,
        None => {
            let what = format!("has tables of another program, such as `{}`", there[0]);
            return Ok(Found::Other(what));
        }
        Some(version) if version > SCHEMA_VERSION => return Ok(Found::Newer(version)),
        Some(version) => version,
    };
    for (done, migration) in (0..).zip(MIGRATIONS) {
        if done < from {
            continue;
        }
        let version = done + 1;
        pg.batch(&format!(
            "BEGIN; {migration};
             INSERT INTO meta VALUES ('application', {APPLICATION_ID}), ('schema', {version})
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value;
             COMMIT;"
        ))
        .await?;
    }
    let there = relations(pg).await?;
    let missing = TABLES.iter().find(|name| !there.iter().any(|table| table == *name));
    Ok(missing.map_or(Found::Ready, |name| Found::Other(format!("lacks its table `{name}`"))))
}

/// Returns the schema version; none when the table `meta` is that of another program.
async fn version(pg: &Pg) -> Result<Option<i64>> {
    let sql = "SELECT schema.value FROM meta AS schema, meta AS application
               WHERE schema.name = 'schema' AND application.name = 'application'
               AND application.value = $1";
    match pg.first(sql, &[&APPLICATION_ID]).await {
        Ok(row) => Ok(row.map(|row| row.try_get(0)).transpose()?),
        // Its columns have other names or types.
        Err(Failure::Database(error)) if error.as_db_error().is_some() => Ok(None),
        Err(error) => Err(error),
    }
}
