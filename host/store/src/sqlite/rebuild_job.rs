//! What the writer does of a rebuild: a few sagas, or rows, in each transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::{SagaId, Version};
use amends_failpoint::failpoint;
use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use super::append::{put_key, put_row};
use super::column::to_integer;
use super::error::is_constraint;
use super::failures::{is_corrupt, put_failure, remove_failures};
use super::read::{Stray, has_other_owner, remove_stray};
use super::saga_index::remove_index;
use super::statements::Statements;
use super::writer_cache::WriterCache;
use crate::derived::DerivedSaga;
use crate::error::StoreError;
use crate::rebuild::Projection;
use crate::stream::Stream;

/// The name of the note in `meta` that words may be wrong.
const WORDS_WRONG: &str = "words_wrong";

/// A part of a rebuild. Whoever rebuilds waits for each answer.
pub(super) struct RebuildJob {
    pub(super) task: RebuildTask,
    pub(super) reply: oneshot::Sender<Result<RebuildDone, StoreError>>,
}

/// What is to be written.
pub(super) enum RebuildTask {
    /// Puts these rows in the place of those of their sagas. `are_words_wrong`: words may be indexed that
    /// the texts of these sagas did not have.
    Sagas { sagas: Vec<DerivedSaga>, are_words_wrong: bool },
    /// Removes rows that no saga has.
    Strays(Projection, Vec<Stray>),
    /// Indexes the words of failures anew, when they are not those of the texts.
    Words,
}

/// What came of a part.
#[derive(Debug, Clone, Default)]
pub(super) struct RebuildDone {
    /// The sagas, or rows, that were written or removed.
    pub(super) count: u64,
    /// The sagas that have more events than they were derived from: nothing of them was written.
    pub(super) changed: Vec<SagaId>,
    /// The sagas whose rows contradict those of others, with the reason: they stay as they are.
    pub(super) unwritten: Vec<(SagaId, String)>,
    /// How long the writer was held up, without the commit.
    pub(super) took: Duration,
}

impl WriterCache {
    /// Does a part of a rebuild within a transaction. The inner error concerns this part alone, of
    /// which nothing is written then. The outer error is a failure of the database.
    pub(super) fn rebuild(
        &mut self,
        connection: &Connection,
        task: &RebuildTask,
    ) -> rusqlite::Result<Result<RebuildDone, StoreError>> {
        let began = Instant::now();
        connection.execute_batch("SAVEPOINT rebuild")?;
        let done = match task {
            RebuildTask::Sagas { sagas, are_words_wrong } => {
                note_words(connection, *are_words_wrong)
                    .and_then(|()| self.replace_all(connection, sagas))
            }
            RebuildTask::Strays(table, strays) => remove_strays(connection, *table, strays),
            RebuildTask::Words => index_words(connection),
        };
        let done = match done {
            Ok(done) => Ok(RebuildDone { took: began.elapsed(), ..done }),
            Err(error) if is_constraint(&error) => {
                connection.execute_batch("ROLLBACK TO rebuild")?;
                Err(StoreError::Damaged { source: Arc::new(error) })
            }
            Err(error) => return Err(error),
        };
        connection.execute_batch("RELEASE rebuild")?;
        Ok(done)
    }

    fn replace_all(
        &mut self,
        connection: &Connection,
        sagas: &[DerivedSaga],
    ) -> rusqlite::Result<RebuildDone> {
        let mut done = RebuildDone::default();
        for saga in sagas {
            let id = saga.row.id;
            let version: Option<i64> = connection
                .prepare_cached("SELECT max(version) FROM appends WHERE stream = ?1")?
                .query_row([id.as_bytes()], |row| row.get(0))?;
            if version.map(|version| Version(version.unsigned_abs())) == Some(saga.version) {
                connection.execute_batch("SAVEPOINT saga")?;
                match self.replace(connection, saga) {
                    Ok(()) => done.count += 1,
                    Err(error) if is_constraint(&error) => {
                        connection.execute_batch("ROLLBACK TO saga")?;
                        done.unwritten.push((id, format!("its rows cannot be written: {error}")));
                    }
                    Err(error) => return Err(error),
                }
                connection.execute_batch("RELEASE saga")?;
                failpoint("store.rebuild.replaced");
            } else if version.is_some() {
                done.changed.push(id);
            }
        }
        Ok(done)
    }

    /// Writes the rows of a saga anew, with the functions that append them.
    fn replace(&mut self, connection: &Connection, saga: &DerivedSaga) -> rusqlite::Result<()> {
        let DerivedSaga { row, failures, start_key, may_lack_key, .. } = saga;
        let id = row.id.as_bytes();
        // Tags that only the table has are found as strays.
        let old_tags = "DELETE FROM saga_tags WHERE saga = ?1 AND (name, value) IN
            (SELECT own.key, own.value FROM sagas,
                 json_each(CASE json_valid(sagas.tags) WHEN 1 THEN sagas.tags END) AS own
             WHERE sagas.id = ?1)";
        connection.prepare_cached(old_tags)?.execute([id])?;
        for (name, value) in &row.tags {
            let tag = "DELETE FROM saga_tags WHERE name = ?1 AND value = ?2 AND saga = ?3";
            connection.prepare_cached(tag)?.execute(params![name, value, id])?;
        }
        remove_index(connection, row.id)?;
        remove_failures(connection, row.id)?;
        connection.prepare_cached("DELETE FROM sagas WHERE id = ?1")?.execute([id])?;
        put_row(&mut Statements::new(connection), row, true)?;
        for (position, failure) in failures {
            // Damage may have given the row of this event to another saga.
            let other = "DELETE FROM failures WHERE position = ?1";
            connection.prepare_cached(other)?.execute([to_integer(position.0)])?;
            put_failure(connection, row.id, *position, failure)?;
        }
        if let Some((start_key, at)) = start_key
            && !has_other_owner(connection, &start_key.key, row.id)?
            && (!may_lack_key || has_key(connection, &start_key.key)?)
        {
            put_key(connection, start_key, &Stream::Saga(row.id), *at)?;
        }
        // Last, because it is remembered beside the transaction.
        self.note_life(connection, row)
    }
}

fn remove_strays(
    connection: &Connection,
    table: Projection,
    strays: &[Stray],
) -> rusqlite::Result<RebuildDone> {
    let mut done = RebuildDone::default();
    note_words(connection, table == Projection::Failures)?;
    for stray in strays {
        done.count += remove_stray(connection, table, stray)? as u64;
    }
    Ok(done)
}

fn has_key(connection: &Connection, key: &str) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM start_keys WHERE key = ?1")?.exists([key])
}

/// Notes in the transaction that replaces texts that their words may be indexed wrongly. The note stays
/// until [`index_words`], also when this rebuild ends before.
fn note_words(connection: &Connection, are_wrong: bool) -> rusqlite::Result<()> {
    if are_wrong {
        connection
            .prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, 1)")?
            .execute([WORDS_WRONG])?;
    }
    Ok(())
}

/// When words may be wrong, compares the index of words with the texts, and makes it anew when it has
/// others.
fn index_words(connection: &Connection) -> rusqlite::Result<RebuildDone> {
    let noted = connection.execute("DELETE FROM meta WHERE name = ?1", [WORDS_WRONG])?;
    if noted > 0 {
        let check = "INSERT INTO failure_texts (failure_texts, rank) VALUES ('integrity-check', 1)";
        match connection.execute(check, []) {
            Err(error) if is_corrupt(&error) => {
                let rebuild = "INSERT INTO failure_texts (failure_texts) VALUES ('rebuild')";
                connection.execute(rebuild, [])?;
            }
            checked => {
                checked?;
            }
        }
    }
    Ok(RebuildDone::default())
}
