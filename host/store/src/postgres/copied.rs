//! An empty database that becomes the copy of another store.
//!
//! A mark in `meta` says that a copy was begun, and no host opens a database that has it. All rows are written and
//! compared in one transaction, which removes the mark. So a copy is there whole, or nothing of it is.

use std::pin::Pin;

use blake3::Hasher;
use bytes::BytesMut;
use futures::TryStreamExt as _;
use tokio_postgres::Row;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use super::connection::Pg;
use super::error::{Failure, Result};
use super::open::{UNFINISHED_COPY, connect, describe, refused};
use super::place::{Place, read_url};
use super::read::findings;
use super::rows::{lexemes, words_column};
use super::text::{index_key, stored_text, stream_text};
use crate::copied_row::{Cell, CopiedCounts, CopiedTable};
use crate::error::OpenError;

/// What the session of a copy begins with. Its statements take as long as they take.
const SETUP: &str =
    "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET jit = off;
    SET client_min_messages = warning; SET lock_timeout = '10s'; SET synchronous_commit = on;
    SET client_connection_check_interval = '1s';
    SET default_transaction_isolation = 'read committed'";

/// The number of the advisory lock of whoever copies into a database: "AmCp".
const COPY_LOCK: i64 = 0x416d_4370;

/// The batch that all events are in. Its place is before all others, so each event has the position that it had.
const BATCH: i64 = 0;

/// The table that failures are copied into first: the words by which they are found have a type of their own.
const FAILURES_DRAFT: &str = "
    CREATE TEMP TABLE copied_failures (
        version int8, saga uuid, step text, element int8, call text, code text, digest bytea, text text, words text,
        lexemes text
    ) ON COMMIT DROP";

const FAILURES: &str = "
    INSERT INTO failures (version, saga, step, element, call, code, digest, text, words, lexemes)
    SELECT version, saga, step, element, call, code, digest, text, words,
        array_to_tsvector(array_remove(string_to_array(lexemes, ' '), ''))
    FROM copied_failures";

/// The columns of a table, in the order of the cells of its rows, and their types.
struct Columns {
    names: &'static str,
    types: &'static [Type],
}

const INT: Type = Type::INT8;
const TEXT: Type = Type::TEXT;
const BYTES: Type = Type::BYTEA;
const ID: Type = Type::UUID;

fn columns_of(table: CopiedTable) -> Columns {
    let (names, types): (_, &'static [Type]) = match table {
        CopiedTable::Appends => (
            "batch, last, saga, stream, first, version, at, events",
            &[INT, INT, ID, TEXT, INT, INT, INT, TEXT],
        ),
        CopiedTable::Sagas => (
            "id, shard, definition, definition_digest, status, reason, started_at, ended_at, deadline_at, wake_at, \
             tags, key, index_values, subject_key",
            &[ID, Type::INT2, TEXT, BYTES, TEXT, TEXT, INT, INT, INT, INT, TEXT, TEXT, TEXT, ID],
        ),
        CopiedTable::SagaTags => ("name, value, saga", &[TEXT, TEXT, ID]),
        CopiedTable::SagaIndex => ("name, value, saga", &[TEXT, BYTES, ID]),
        CopiedTable::StartKeys => ("key, saga, payload_digest, at", &[TEXT, ID, BYTES, INT]),
        CopiedTable::Failures => (
            "version, saga, step, element, call, code, digest, text",
            &[INT, ID, TEXT, INT, TEXT, TEXT, BYTES, TEXT],
        ),
        CopiedTable::State => ("plugin, key, value", &[TEXT, TEXT, TEXT]),
        CopiedTable::Blobs => ("kind, digest, name, at, bytes", &[TEXT, BYTES, TEXT, INT, BYTES]),
        CopiedTable::Segments => (
            "id, file, digest, first, last, sagas, events, bytes, at",
            &[INT, TEXT, BYTES, ID, ID, INT, INT, INT, INT],
        ),
        CopiedTable::Archived => (
            "saga, version, segment, definition, status, started_at, ended_at, key, subject_key",
            &[ID, INT, INT, TEXT, TEXT, INT, INT, TEXT, ID],
        ),
        CopiedTable::Subscriptions => ("name, position, disabled", &[TEXT, INT, TEXT]),
        CopiedTable::DeadLetters => (
            "subscription, place, stream, version, type, at, attempts, error",
            &[TEXT, INT, TEXT, INT, TEXT, INT, INT, TEXT],
        ),
        CopiedTable::Schedules => (
            "name, pattern, decided_until, started_at, saga, skipped_at, skipped_reason",
            &[TEXT, TEXT, INT, INT, ID, INT, TEXT],
        ),
    };
    Columns { names, types }
}

/// A value as the database has it.
#[derive(Debug)]
enum Stored {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
    Id(Uuid),
}

impl Stored {
    /// Converts a value for a column of a type.
    fn of(cell: Cell, column: &Type) -> Result<Self> {
        Ok(match cell {
            Cell::Null => Self::Null,
            Cell::Integer(number) => Self::Integer(number),
            Cell::Text(text) => Self::Text(stored_text(&text)),
            Cell::Stream(stream) => Self::Text(stream_text(&stream)),
            Cell::Index(value) => Self::Bytes(index_key(&value)),
            Cell::Bytes(bytes) if *column == ID => {
                let id = Uuid::from_slice(&bytes);
                Self::Id(id.map_err(|_| Failure::Unreadable("an id has not 16 bytes".to_owned()))?)
            }
            Cell::Bytes(bytes) => Self::Bytes(bytes),
        })
    }

    /// Reads a column.
    fn read(row: &Row, column: usize, kind: &Type) -> Result<Self> {
        let stored = match *kind {
            Type::INT8 => row.try_get::<_, Option<i64>>(column)?.map(Self::Integer),
            Type::INT2 => {
                row.try_get::<_, Option<i16>>(column)?.map(|number| Self::Integer(number.into()))
            }
            Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(column)?.map(Self::Bytes),
            Type::UUID => row.try_get::<_, Option<Uuid>>(column)?.map(Self::Id),
            _ => row.try_get::<_, Option<String>>(column)?.map(Self::Text),
        };
        Ok(stored.unwrap_or(Self::Null))
    }

    fn add_to(&self, hash: &mut Hasher) {
        // The first byte is the type, and the length follows, so that no two rows have the same bytes.
        let mut add = |kind: u8, bytes: &[u8]| {
            hash.update(&[kind]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        match self {
            Self::Null => add(b'n', &[]),
            Self::Integer(number) => add(b'i', &number.to_le_bytes()),
            Self::Text(text) => add(b't', text.as_bytes()),
            Self::Bytes(bytes) => add(b'b', bytes),
            Self::Id(id) => add(b'u', id.as_bytes()),
        }
    }
}

impl ToSql for Stored {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Integer(number) if *kind == Type::INT2 => {
                i16::try_from(*number)?.to_sql(kind, out)
            }
            Self::Integer(number) => number.to_sql(kind, out),
            Self::Text(text) => text.to_sql(kind, out),
            Self::Bytes(bytes) => bytes.to_sql(kind, out),
            Self::Id(id) => id.to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// The rows of a table, counted and added up, in any order.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Digest {
    rows: u64,
    sum: u128,
}

impl Digest {
    fn add(&mut self, row: &[Stored]) {
        let mut hash = Hasher::new();
        for value in row {
            value.add_to(&mut hash);
        }
        let mut part = [0; 16];
        part.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        self.rows += 1;
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(part));
    }
}

/// A table that is being written.
struct TableWriter {
    table: CopiedTable,
    types: Vec<Type>,
    writer: Pin<Box<BinaryCopyInWriter>>,
    digest: Digest,
}

/// A database that is becoming a copy. When it is dropped before [`CopyTarget::finish`], nothing of the copy stays.
pub(crate) struct CopyTarget {
    place: Place,
    pg: Pg,
    writer: Option<TableWriter>,
    /// The tables that were written.
    digests: Vec<(CopiedTable, Digest)>,
}

impl CopyTarget {
    /// Connects to a database, and looks whether it may become a copy. It is as before.
    ///
    /// # Errors
    /// When the database cannot be used, is a store already, a host has it open, or another copy into it is under way.
    pub(crate) async fn connect(url: &str) -> std::result::Result<Self, OpenError> {
        let place = read_url(url)?;
        let pg = connect(&place, SETUP).await?;
        pg.be_patient();
        let target = Self { place, pg, writer: None, digests: Vec::new() };
        let locked = lock(&target.pg).await;
        target.accept(target.told(locked)?)?;
        let obstacle = obstacle(&target.pg).await;
        target.accept(target.told(obstacle)?)?;
        Ok(target)
    }

    /// Marks the database as a copy that is not finished, and begins.
    ///
    /// # Errors
    /// As for [`Self::connect`].
    pub(crate) async fn begin(&self) -> std::result::Result<(), OpenError> {
        let marked = mark(&self.pg).await;
        self.accept(self.told(marked)?)?;
        self.told(self.pg.batch("BEGIN").await)
    }

    fn accept(&self, obstacle: Option<String>) -> std::result::Result<(), OpenError> {
        obstacle.map_or(Ok(()), |what| Err(refused(&self.place, what)))
    }

    /// Begins to write a table.
    pub(crate) async fn begin_table(
        &mut self,
        table: CopiedTable,
    ) -> std::result::Result<(), OpenError> {
        let begun = TableWriter::new(&self.pg, table).await;
        self.writer = Some(self.told(begun)?);
        Ok(())
    }

    /// Writes a row of the table.
    pub(crate) async fn write(&mut self, row: Vec<Cell>) -> std::result::Result<(), OpenError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let written = writer.write(row).await;
        self.told(written)
    }

    /// Ends the table.
    pub(crate) async fn end_table(&mut self) -> std::result::Result<(), OpenError> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let table = writer.table;
        let ended = writer.end(&self.pg).await;
        self.digests.push((table, self.told(ended)?));
        Ok(())
    }

    /// Writes what a store counts apart from its rows.
    pub(crate) async fn put_counts(
        &self,
        counts: CopiedCounts,
    ) -> std::result::Result<(), OpenError> {
        self.told(put_counts(&self.pg, counts).await)
    }

    /// Compares what the database has with what was written, and checks that it is consistent. Each finding is a
    /// sentence.
    pub(crate) async fn verify(&self) -> std::result::Result<Vec<String>, OpenError> {
        self.told(verify(&self.pg, &self.digests).await)
    }

    /// Makes the copy a store.
    pub(crate) async fn finish(self) -> std::result::Result<(), OpenError> {
        self.told(finish(&self.pg).await)
    }

    fn told<T>(&self, result: Result<T>) -> std::result::Result<T, OpenError> {
        result.map_err(|failure| describe(&self.place, &failure))
    }
}

/// Keeps other copies out while the connection lasts. One that was cut ends within some seconds. Returns why it cannot
/// be.
async fn lock(pg: &Pg) -> Result<Option<String>> {
    match pg.execute("SELECT pg_advisory_lock($1)", &[&COPY_LOCK]).await {
        Err(failure) if failure.is_of_locks() => {
            Ok(Some("is the target of another copy that is under way".to_owned()))
        }
        locked => locked.map(|_| None),
    }
}

/// Returns why the database may not become a copy.
async fn obstacle(pg: &Pg) -> Result<Option<String>> {
    // A process without a name has not begun, or is a tool.
    let live = "SELECT 1 FROM hosts WHERE name IS NOT NULL AND lease_until > clock_timestamp()";
    if pg.exists(live, &[]).await? {
        return Ok(Some("is open in a host; stop it, and name an empty database".to_owned()));
    }
    for table in CopiedTable::ALL {
        let name = table.name();
        if pg.exists(&format!("SELECT 1 FROM {name} LIMIT 1"), &[]).await? {
            let what =
                format!("is a store already (its table `{name}` has rows); name an empty database");
            return Ok(Some(what));
        }
    }
    Ok(None)
}

/// Marks an empty database as a copy that is not finished. Returns why it may not become one.
async fn mark(pg: &Pg) -> Result<Option<String>> {
    // No host registers meanwhile, and one that does so later sees the mark.
    pg.batch("BEGIN; LOCK TABLE hosts IN SHARE ROW EXCLUSIVE MODE").await?;
    let obstacle = obstacle(pg).await?;
    if obstacle.is_none() {
        let mark = "INSERT INTO meta VALUES ($1, 1) ON CONFLICT (name) DO NOTHING";
        pg.execute(mark, &[&UNFINISHED_COPY]).await?;
        // A host that stands still writes nothing when it goes on.
        pg.batch("DELETE FROM lanes; UPDATE shards SET host = NULL; DELETE FROM hosts").await?;
    }
    pg.batch("COMMIT").await?;
    Ok(obstacle)
}

impl TableWriter {
    async fn new(pg: &Pg, table: CopiedTable) -> Result<Self> {
        let Columns { names, types } = columns_of(table);
        let mut types = types.to_vec();
        let sql = if table == CopiedTable::Failures {
            pg.batch(FAILURES_DRAFT).await?;
            types.extend([TEXT, TEXT]);
            format!("COPY copied_failures ({names}, words, lexemes) FROM STDIN BINARY")
        } else {
            format!("COPY {} ({names}) FROM STDIN BINARY", table.name())
        };
        let sink = pg.client.copy_in(&sql).await?;
        let writer = Box::pin(BinaryCopyInWriter::new(sink, &types));
        Ok(Self { table, types, writer, digest: Digest::default() })
    }

    async fn write(&mut self, mut cells: Vec<Cell>) -> Result<()> {
        if self.table == CopiedTable::Appends {
            cells.insert(0, Cell::Integer(BATCH));
        }
        let words = match cells.last() {
            Some(Cell::Text(text)) if self.table == CopiedTable::Failures => {
                vec![Stored::Text(words_column(text)), Stored::Text(lexemes(text))]
            }
            Some(_) | None => Vec::new(),
        };
        let expected = columns_of(self.table).types.len();
        if cells.len() != expected {
            let name = self.table.name();
            let what = format!("a row of {name} has {} values, and not {expected}", cells.len());
            return Err(Failure::Unreadable(what));
        }
        let stored = cells.into_iter().zip(&self.types).map(|(cell, kind)| Stored::of(cell, kind));
        let mut row = stored.collect::<Result<Vec<_>>>()?;
        self.digest.add(&row);
        row.extend(words);
        let values: Vec<_> = row.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        Ok(self.writer.as_mut().write(&values).await?)
    }

    async fn end(mut self, pg: &Pg) -> Result<Digest> {
        self.writer.as_mut().finish().await?;
        if self.table == CopiedTable::Failures {
            pg.batch(FAILURES).await?;
        }
        Ok(self.digest)
    }
}

async fn put_counts(pg: &Pg, counts: CopiedCounts) -> Result<()> {
    let CopiedCounts { last_position, start_delay, longest_life } = counts;
    let batch = "INSERT INTO batches (batch, host, lane, number, epoch, events, total, position)
                 SELECT $2::int8, 0, 0, 0, 0, $1::int8, $1::int8, 0 WHERE $1::int8 > 0";
    pg.execute(batch, &[&last_position, &BATCH]).await?;
    let put = "INSERT INTO meta VALUES ('position', $1::int8), ('start_delay', $2::int8), ('longest_life', $3::int8)
               ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    pg.execute(put, &[&last_position, &start_delay, &longest_life]).await?;
    let number = "SELECT setval(pg_get_serial_sequence('segments', 'id'), max(id))
                  FROM segments HAVING max(id) IS NOT NULL";
    pg.query(number, &[]).await?;
    pg.batch("ANALYZE").await
}

async fn verify(pg: &Pg, digests: &[(CopiedTable, Digest)]) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (table, written) in digests {
        let found = read_back(pg, *table).await?;
        if found != *written {
            wrong.push(format!(
                "the table {} was written with {} rows, and is read with {} rows or with other values",
                table.name(),
                written.rows,
                found.rows
            ));
        }
    }
    wrong.extend(findings(pg).await?);
    Ok(wrong)
}

async fn read_back(pg: &Pg, table: CopiedTable) -> Result<Digest> {
    let Columns { names, types } = columns_of(table);
    let sql = format!("SELECT {names} FROM {}", table.name());
    let none: [&(dyn ToSql + Sync); 0] = [];
    let mut rows = std::pin::pin!(pg.client.query_raw(&sql, none).await?);
    let mut digest = Digest::default();
    while let Some(row) = rows.try_next().await? {
        let read = |(column, kind)| Stored::read(&row, column, kind);
        digest.add(&types.iter().enumerate().map(read).collect::<Result<Vec<_>>>()?);
    }
    Ok(digest)
}

async fn finish(pg: &Pg) -> Result<()> {
    pg.execute("DELETE FROM meta WHERE name = $1", &[&UNFINISHED_COPY]).await?;
    pg.batch("COMMIT").await
}
