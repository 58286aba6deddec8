//! The key file: a small SQLite database. Every call blocks.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use amends_engine::{Digest, SagaId, SubjectKeyId, Timestamp};
use amends_failpoint::failpoint;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::cipher::{DataKey, KEY_BYTES, SecretKey, random};
use crate::error::KeyError;
use crate::schema::{create, prepare};

/// An erasure of the values of one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// The key of the subject.
    pub subject_key: SubjectKeyId,
    /// When it was asked for.
    pub at: Timestamp,
    /// Who asked for it.
    pub who: String,
    /// The reason that they gave.
    pub reason: String,
    /// The sagas whose values were erased at once.
    pub erased: u64,
    /// The sagas whose values could not be erased at once, because an undo may need them.
    pub waiting: u64,
    /// Of those, the ones that still wait.
    pub still_waiting: u64,
    /// True once the key of the subject is gone.
    pub is_done: bool,
}

/// An erasure that the log has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasedBefore {
    /// The key of the subject.
    pub subject_key: SubjectKeyId,
    /// When it was recorded.
    pub at: Timestamp,
    /// Who asked for it.
    pub who: String,
    /// The reason that they gave.
    pub reason: String,
}

/// The data key of a saga that may still be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingKey {
    /// The saga.
    pub saga: SagaId,
    /// The key of its values.
    pub key: DataKey,
    /// When the time to undo it ends; none when that is not known.
    pub until: Option<Timestamp>,
}

/// A saga whose values are to be erased when it can no longer be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingSaga {
    /// The saga.
    pub saga: SagaId,
    /// The key of its subject, which is gone.
    pub subject_key: SubjectKeyId,
    /// When the time to undo it ends, as far as that was known when it was last looked at.
    pub until: Option<Timestamp>,
}

/// An open key file.
#[derive(Debug)]
pub(crate) struct KeyFile {
    path: PathBuf,
    connection: Connection,
    pub(crate) secret: SecretKey,
    /// Held while the file is open; the system releases it with the process.
    _lock: Option<File>,
}

const ERASURE_COLUMNS: &str = "erasures.subject_key, at, who, reason, erased, waiting, state,
    (SELECT count(*) FROM pending WHERE pending.subject_key = erasures.subject_key)";

/// Forgets whose erasures those were that are over.
const FORGET_SUBJECTS: &str = "UPDATE erasures SET mac = NULL
    WHERE mac IS NOT NULL AND state = 'recorded'
    AND NOT EXISTS (SELECT 1 FROM pending WHERE pending.subject_key = erasures.subject_key)";

impl KeyFile {
    /// Opens a file, or makes it. Nobody but its owner can read it.
    pub(crate) fn open(path: &Path) -> Result<Self, KeyError> {
        let failed = |error: std::io::Error| KeyError::file(path, error);
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        }
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push("-lock");
        let mut open = OpenOptions::new();
        open.create(true).truncate(false).write(true).mode(0o600);
        let lock = open.open(&lock_path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(KeyError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // SQLite would make it as the umask says.
        let _ = open.open(path).map_err(failed)?;
        let connection = Connection::open(path).map_err(|error| KeyError::file(path, error))?;
        Self::new(path.to_owned(), connection, Some(lock))
    }

    /// Makes keys that go with the process.
    pub(crate) fn in_memory() -> Result<Self, KeyError> {
        let path = PathBuf::from(":memory:");
        let connection =
            Connection::open_in_memory().map_err(|error| KeyError::file(&path, error))?;
        Self::new(path, connection, None)
    }

    fn new(path: PathBuf, connection: Connection, lock: Option<File>) -> Result<Self, KeyError> {
        let failed = |error: rusqlite::Error| KeyError::file(&path, error);
        let is_new = prepare(&connection)
            .map_err(failed)?
            .map_err(|message| KeyError::file(&path, message))?;
        if is_new {
            create(&connection, SecretKey::random()?.as_bytes()).map_err(failed)?;
        }
        let secret = connection
            .query_row("SELECT value FROM meta WHERE name = 'secret'", [], |row| row.get(0))
            .map_err(failed)?;
        let secret = SecretKey::from_bytes(secret);
        Ok(Self { path, connection, secret, _lock: lock })
    }

    fn failed(&self, error: rusqlite::Error) -> KeyError {
        // A transaction that failed is open.
        let _ = self.connection.execute_batch("ROLLBACK");
        KeyError::file(&self.path, error)
    }

    fn run<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, KeyError> {
        work(&self.connection).map_err(|error| self.failed(error))
    }

    /// Runs changes in one transaction, which is durable when this returns.
    fn change<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, KeyError> {
        self.run(|connection| {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            let done = work(connection)?;
            connection.execute_batch("COMMIT")?;
            Ok(done)
        })
    }

    /// Returns the key of the subject with this digest. Makes one when it has none.
    pub(crate) fn subject(
        &self,
        mac: &Digest,
        at: Timestamp,
    ) -> Result<(SubjectKeyId, SecretKey), KeyError> {
        let known = self.run(|connection| {
            connection
                .prepare_cached("SELECT id, key FROM subjects WHERE mac = ?1")?
                .query_row([mac.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })?;
        if let Some((id, key)) = known {
            return Ok((SubjectKeyId::from_bytes(id), SecretKey::from_bytes(key)));
        }
        let (id, key) = (random::<16>()?, SecretKey::random()?);
        self.change(|connection| {
            connection.execute(
                "INSERT INTO subjects VALUES (?1, ?2, ?3, ?4)",
                params![id, mac.as_bytes(), key.as_bytes(), at.as_millis()],
            )
        })?;
        failpoint("keys.subject.durable");
        Ok((SubjectKeyId::from_bytes(id), key))
    }

    /// Returns a key of a subject; none when it is gone.
    pub(crate) fn subject_key(&self, id: SubjectKeyId) -> Result<Option<SecretKey>, KeyError> {
        let key: Option<[u8; KEY_BYTES]> = self.run(|connection| {
            connection
                .prepare_cached("SELECT key FROM subjects WHERE id = ?1")?
                .query_row([id.as_bytes()], |row| row.get(0))
                .optional()
        })?;
        Ok(key.map(SecretKey::from_bytes))
    }

    /// Returns the data key of a saga that waits for its erasure.
    pub(crate) fn pending_key(&self, saga: SagaId) -> Result<Option<DataKey>, KeyError> {
        let key: Option<[u8; KEY_BYTES]> = self.run(|connection| {
            connection
                .prepare_cached("SELECT key FROM pending WHERE saga = ?1")?
                .query_row([saga.as_bytes()], |row| row.get(0))
                .optional()
        })?;
        Ok(key.map(|key| DataKey(SecretKey::from_bytes(key))))
    }

    /// Begins to erase: no later saga of the subject gets its key. Returns the key; none when there is
    /// none. An erasure that is not over is the one that it returns.
    pub(crate) fn retire(
        &self,
        mac: &Digest,
        (who, reason, at): (&str, &str, Timestamp),
    ) -> Result<Option<SubjectKeyId>, KeyError> {
        let retired = self.change(|connection| {
            let find = |sql: &str| {
                let id =
                    connection.query_row(sql, [mac.as_bytes()], |row| row.get::<_, [u8; 16]>(0));
                id.optional()
            };
            let Some(id) = find("SELECT id FROM subjects WHERE mac = ?1")? else {
                let under_way = "SELECT subject_key FROM erasures WHERE mac = ?1 ORDER BY at DESC";
                return Ok(find(under_way)?.map(SubjectKeyId::from_bytes));
            };
            connection.execute("UPDATE subjects SET mac = NULL WHERE id = ?1", [id])?;
            connection.execute(
                "INSERT INTO erasures VALUES (?1, ?2, ?3, ?4, 0, 0, 'begun', ?5)",
                params![id, at.as_millis(), who, reason, mac.as_bytes()],
            )?;
            Ok(Some(SubjectKeyId::from_bytes(id)))
        })?;
        failpoint("keys.retired");
        Ok(retired)
    }

    /// Takes in the erasures that the log has. Returns how many of them begin again, because the key is
    /// there.
    pub(crate) fn erased_before(&self, erased: &[ErasedBefore]) -> Result<u64, KeyError> {
        self.change(|connection| {
            let mut again = 0;
            for one in erased {
                let id = one.subject_key.as_bytes();
                let key = connection
                    .prepare_cached("UPDATE subjects SET mac = NULL WHERE id = ?1")?
                    .execute([id])?;
                let state = if key > 0 { "begun" } else { "recorded" };
                let new = connection
                    .prepare_cached(
                        "INSERT INTO erasures VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, NULL)
                         ON CONFLICT (subject_key) DO NOTHING",
                    )?
                    .execute(params![id, one.at.as_millis(), one.who, one.reason, state])?;
                again += u64::from(new > 0 && key > 0);
            }
            Ok(again)
        })
    }

    /// Deletes the key of a subject. The data keys of sagas that may still be undone stay.
    pub(crate) fn finish(
        &self,
        id: SubjectKeyId,
        erased: u64,
        pending: &[PendingKey],
    ) -> Result<(), KeyError> {
        self.change(|connection| {
            for one in pending {
                connection
                    .prepare_cached("INSERT OR REPLACE INTO pending VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![
                        one.saga.as_bytes(),
                        id.as_bytes(),
                        one.key.0.as_bytes(),
                        one.until.map(Timestamp::as_millis),
                    ])?;
            }
            connection.execute("DELETE FROM subjects WHERE id = ?1", [id.as_bytes()])?;
            let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
            connection.execute(
                "UPDATE erasures SET erased = ?2, waiting = ?3, state = 'done'
                 WHERE subject_key = ?1 AND state = 'begun'",
                params![id.as_bytes(), count(erased), count(pending.len() as u64)],
            )?;
            failpoint("keys.erasing");
            Ok(())
        })?;
        failpoint("keys.erased");
        Ok(())
    }

    /// Returns erasures by state, the oldest first.
    pub(crate) fn erasures(&self, state: Option<&str>) -> Result<Vec<Erasure>, KeyError> {
        self.run(|connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {ERASURE_COLUMNS} FROM erasures WHERE ?1 IS NULL OR state = ?1
                 ORDER BY at, subject_key"
            ))?;
            statement.query_map([state], erasure)?.collect()
        })
    }

    /// Returns the erasure of a key of a subject, if it was erased.
    pub(crate) fn erasure(&self, id: SubjectKeyId) -> Result<Option<Erasure>, KeyError> {
        self.run(|connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {ERASURE_COLUMNS} FROM erasures WHERE subject_key = ?1"
                ))?
                .query_row([id.as_bytes()], erasure)
                .optional()
        })
    }

    /// Notes that an erasure is in the log.
    pub(crate) fn recorded(&self, id: SubjectKeyId) -> Result<(), KeyError> {
        self.change(|connection| {
            connection.execute(
                "UPDATE erasures SET state = 'recorded' WHERE subject_key = ?1 AND state = 'done'",
                [id.as_bytes()],
            )?;
            connection.execute(FORGET_SUBJECTS, [])?;
            Ok(())
        })
    }

    /// Returns up to `limit` sagas that wait for their erasure, by ascending id after `after`.
    pub(crate) fn pending(
        &self,
        after: Option<SagaId>,
        limit: u32,
    ) -> Result<Vec<PendingSaga>, KeyError> {
        let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        self.run(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT saga, subject_key, until FROM pending WHERE saga > ?1 ORDER BY saga LIMIT ?2",
            )?;
            let rows = statement.query_map(params![after, limit], |row| {
                Ok(PendingSaga {
                    saga: SagaId::from_bytes(row.get(0)?),
                    subject_key: SubjectKeyId::from_bytes(row.get(1)?),
                    until: row.get::<_, Option<i64>>(2)?.map(Timestamp::from_millis),
                })
            })?;
            rows.collect()
        })
    }

    /// Deletes the data keys of sagas, and notes until when others wait.
    pub(crate) fn settle(
        &self,
        gone: &[SagaId],
        waits: &[(SagaId, Option<Timestamp>)],
    ) -> Result<(), KeyError> {
        self.change(|connection| {
            for saga in gone {
                connection
                    .prepare_cached("DELETE FROM pending WHERE saga = ?1")?
                    .execute([saga.as_bytes()])?;
            }
            for (saga, until) in waits {
                connection
                    .prepare_cached("UPDATE pending SET until = ?2 WHERE saga = ?1")?
                    .execute(params![saga.as_bytes(), until.map(Timestamp::as_millis)])?;
            }
            connection.execute(FORGET_SUBJECTS, [])?;
            Ok(())
        })?;
        failpoint("keys.settled");
        Ok(())
    }
}

fn erasure(row: &Row<'_>) -> rusqlite::Result<Erasure> {
    let count = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
    Ok(Erasure {
        subject_key: SubjectKeyId::from_bytes(row.get(0)?),
        at: Timestamp::from_millis(row.get(1)?),
        who: row.get(2)?,
        reason: row.get(3)?,
        erased: count(4)?,
        waiting: count(5)?,
        is_done: row.get::<_, String>(6)? != "begun",
        still_waiting: count(7)?,
    })
}
