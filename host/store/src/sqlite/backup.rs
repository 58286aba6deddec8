//! Copies of the database: of one that is written to, and of one that no process has open.
//!
//! SQLite's backup begins again when another connection writes. So the connection of the writer
//! copies, some pages between two transactions: what the same connection writes meanwhile goes into
//! the copy as well. Whoever makes the backup asks for each step and adapts its size, so that no
//! append waits for long. The copy is flushed to the disk from another thread, piece by piece, so
//! that it does not fill the memory of the system with pages that a later fsync waits for.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_failpoint::failpoint;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use super::clock::now;
use super::connection::open_writer;
use super::disk::{disk_room, low_mark};
use super::error::describe;
use super::file::folder;
use super::job::{BackupJob, BackupStep, Job};
use super::read::count_events;
use super::runs::forget_runs;
use super::writer::Writer;
use crate::backup::{BackupError, BackupSummary};
use crate::error::StoreError;
use crate::in_place::beside;
use crate::queue::Queue;

/// The suffix of the copy while it is made beside the store. The next open removes such a file, so
/// the name is none that people give to a copy of theirs.
const DRAFT_SUFFIX: &str = "unfinished-backup";

/// The pages of the first step, and the fewest and the most of any other.
const PAGES_FIRST: u16 = 64;
const PAGES_MIN: u16 = 4;
const PAGES_MAX: u16 = 512;

/// A step that holds the writer up for longer is followed by one of half the size; one that takes
/// less than a quarter of this, by one of twice the size.
const STEP_TIME: Duration = Duration::from_millis(2);

/// The bytes that are copied before they are flushed to the disk.
const FLUSH_BYTES: u64 = 8 << 20;

/// The pause after a step for which the database was locked, and the number of such steps in a row
/// after which the backup fails. Only another program can lock the database of a writer.
const LOCKED_PAUSE: Duration = Duration::from_millis(50);
const LOCKED_MAX: u32 = 200;

/// The name in the table `meta` of the time of a backup, in milliseconds. Only a backup has it.
pub(super) const BACKUP_AT: &str = "backup_at";

impl Writer<'_> {
    /// Makes a backup: does its steps, and everything that comes in between. Returns when the backup
    /// is complete, has failed or was given up, or when there are no more jobs.
    pub(super) fn back_up(&mut self, jobs: &mut mpsc::UnboundedReceiver<Job>, first: BackupJob) {
        // A step or an end of a backup that has failed: its answer is that there is none.
        let BackupJob::Begin { mut copy, reply } = first else { return };
        if let Some(lost) = self.health.lost() {
            return drop(reply.send(Err(lost)));
        }
        let source = self.connection;
        let backup = match Backup::new(source, &mut copy) {
            Ok(backup) => backup,
            Err(error) => return drop(reply.send(Err(describe(error)))),
        };
        if reply.send(Ok(())).is_err() {
            return;
        }
        while let Some(first) = jobs.blocking_recv() {
            let (pages, reply) = match self.turn(jobs, first) {
                // What another process writes would begin the copy again and again.
                Some(BackupJob::Step { .. }) if self.health.lost().is_some() => return,
                Some(BackupJob::Step { pages, reply }) => (pages, reply),
                Some(BackupJob::Begin { reply, .. }) => {
                    let _ = reply.send(Err(StoreError::Invalid("one backup is made at a time")));
                    continue;
                }
                Some(BackupJob::End) => return,
                None => continue,
            };
            let began = Instant::now();
            let step = backup.step(i32::from(pages));
            let took = began.elapsed();
            metrics::histogram!("amends_store_backup_step_seconds").record(took);
            let is_over =
                !matches!(step, Ok(StepResult::More | StepResult::Busy | StepResult::Locked));
            if is_over {
                drop(backup);
                // Closed before the answer, because the file is opened anew then.
                let end = copy.close().map_err(|(_, error)| error);
                let _ = reply.send(step.and(end).map(|()| BackupStep::Done));
                return;
            }
            let left = u64::from(backup.progress().remaining.unsigned_abs());
            let is_locked = !matches!(step, Ok(StepResult::More));
            let _ = reply.send(Ok(BackupStep::More { left, took, is_locked }));
        }
    }
}

/// Copies the database that a writer writes to. Blocks meanwhile. Ends early, with an error, when
/// `is_cancelled` says so. The returned file has no name.
pub(super) fn copy_while_written(
    queue: &Arc<Queue<Job>>,
    path: &Path,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<(File, BackupSummary), BackupError> {
    let began = Instant::now();
    let draft = Draft::create(beside(path, DRAFT_SUFFIX))?;
    let bytes = fs::metadata(path).map_or(0, |found| found.len());
    check_room(path, bytes)?;
    failpoint("store.backup.begun");
    let (reply, ready) = oneshot::channel();
    queue.push(Job::Backup(BackupJob::Begin { copy: draft.connect()?, reply }));
    ready.blocking_recv().map_err(|_| StoreError::Closed)??;
    let running = Running { queue, path, draft: &draft };
    let result = running.copy(is_cancelled);
    // Of no effect when the backup is complete or has failed.
    queue.push(Job::Backup(BackupJob::End));
    result?;
    failpoint("store.backup.copied");
    let summary = complete(&draft, Stamp::Now, began)?;
    failpoint("store.backup.complete");
    let Draft { name, file } = draft;
    // The content lives as long as the file is open.
    drop(name);
    Ok((file, summary))
}

/// Copies a database that no process has open into a new file, and makes the file durable. Blocks
/// meanwhile. When it fails, the file is not there.
pub(super) fn copy_unused(
    source: &Connection,
    target: PathBuf,
    stamp: Stamp,
) -> Result<BackupSummary, BackupError> {
    let began = Instant::now();
    let mut draft = Draft::create(target)?;
    let mut copy = draft.connect()?;
    let backup = Backup::new(source, &mut copy).map_err(|error| draft.failed(error))?;
    let mut locked = 0;
    loop {
        let step = backup.step(i32::from(PAGES_MAX));
        let step = step.map_err(|error| draft.failed_step(error))?;
        if step == StepResult::Done {
            break;
        }
        if step != StepResult::More {
            locked += 1;
            if locked > LOCKED_MAX {
                return Err(draft.failed("another program keeps the store locked"));
            }
            std::thread::sleep(LOCKED_PAUSE);
        }
    }
    drop(backup);
    copy.close().map_err(|(_, error)| draft.failed(error))?;
    let summary = complete(&draft, stamp, began)?;
    draft.file.sync_all().map_err(|error| draft.failed(error))?;
    draft.name.is_kept = true;
    Ok(summary)
}

/// Removes what a process that was killed has left of a backup beside its store.
pub(super) fn remove_draft(path: &Path) {
    remove_files(&beside(path, DRAFT_SUFFIX));
}

/// A backup that has begun.
struct Running<'d> {
    queue: &'d Arc<Queue<Job>>,
    path: &'d Path,
    draft: &'d Draft,
}

impl Running<'_> {
    /// Asks the writer for one step after the other, until the copy is complete.
    fn copy(&self, is_cancelled: &dyn Fn() -> bool) -> Result<(), BackupError> {
        let (mut pages, mut copied, mut locked) = (PAGES_FIRST, 0, 0);
        loop {
            if is_cancelled() {
                return Err(StoreError::Closed.into());
            }
            let (reply, done) = oneshot::channel();
            self.queue.push(Job::Backup(BackupJob::Step { pages, reply }));
            let step = done.blocking_recv().map_err(|_| StoreError::Closed)?;
            let (left, took, is_locked) =
                match step.map_err(|error| self.draft.failed_step(error))? {
                    BackupStep::Done => return Ok(()),
                    BackupStep::More { left, took, is_locked } => (left, took, is_locked),
                };
            failpoint("store.backup.copying");
            if is_locked {
                locked += 1;
                if locked > LOCKED_MAX {
                    return Err(self.draft.failed("another program keeps the store locked"));
                }
                std::thread::sleep(LOCKED_PAUSE);
                continue;
            }
            locked = 0;
            copied += u64::from(pages) * PAGE_BYTES;
            if copied >= FLUSH_BYTES {
                self.draft.file.sync_data().map_err(|error| self.draft.failed(error))?;
                check_room(self.path, left * PAGE_BYTES)?;
                copied = 0;
            }
            pages = next_pages(pages, took);
        }
    }
}

/// The usual size of a page, which counts only for how often the copy is flushed.
const PAGE_BYTES: u64 = 4 << 10;

/// Returns the pages of the step after one that took this long.
fn next_pages(pages: u16, took: Duration) -> u16 {
    if took > STEP_TIME {
        (pages / 2).max(PAGES_MIN)
    } else if took < STEP_TIME / 4 {
        (pages * 2).min(PAGES_MAX)
    } else {
        pages
    }
}

/// Fails when the disk of the store would be nearly full after this many more bytes.
fn check_room(path: &Path, needed_bytes: u64) -> Result<(), BackupError> {
    let folder = folder(path);
    let Some(room) = disk_room(folder) else { return Ok(()) };
    let free_bytes = room.free_bytes;
    if free_bytes >= needed_bytes.saturating_add(low_mark(room.total_bytes)) {
        return Ok(());
    }
    Err(BackupError::NoRoom { folder: folder.to_owned(), free_bytes, needed_bytes })
}

/// The time that a copy says it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stamp {
    /// Now: the copy is a backup.
    Now,
    /// That of its source.
    AsIs,
}

/// Makes a database of its own of the copy: one that needs no log beside it. Says what it holds.
fn complete(draft: &Draft, stamp: Stamp, began: Instant) -> Result<BackupSummary, BackupError> {
    let failed = |error: rusqlite::Error| draft.failed(error);
    let connection = draft.connect()?;
    // The header of the copy says that there is a log, as that of the store does.
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0))
        .map_err(failed)?;
    if mode != "delete" {
        return Err(draft.failed(format!("its journal mode is {mode}")));
    }
    let at = now();
    if stamp == Stamp::Now {
        connection
            .execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", (BACKUP_AT, at.as_millis()))
            .map_err(failed)?;
        forget_runs(&connection).map_err(failed)?;
    }
    let events = if connection.table_exists(None, "appends").map_err(failed)? {
        count_events(&connection).map_err(failed)?
    } else {
        // Schema 1 had a row for each event.
        let sql = "SELECT coalesce(max(position), 0) FROM events";
        connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(failed)?.unsigned_abs()
    };
    let sagas: i64 =
        connection.query_row("SELECT count(*) FROM sagas", [], |row| row.get(0)).map_err(failed)?;
    connection.close().map_err(|(_, error)| failed(error))?;
    let bytes = draft.file.metadata().map_err(|error| draft.failed(error))?.len();
    Ok(BackupSummary { bytes, events, sagas: sagas.unsigned_abs(), at, took: began.elapsed() })
}

/// A copy that is being made. It is removed when it is dropped.
struct Draft {
    name: DraftName,
    /// Open to the end: closing it would release the locks of SQLite on the file.
    file: File,
}

/// The name of a copy, and of the files beside it. They are removed when this is dropped.
struct DraftName {
    path: PathBuf,
    is_kept: bool,
}

impl Draft {
    /// Makes an empty file, which only its owner may read. Replaces what an earlier backup left.
    fn create(path: PathBuf) -> Result<Self, BackupError> {
        remove_files(&path);
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        match file {
            Ok(file) => Ok(Self { name: DraftName { path, is_kept: false }, file }),
            Err(error) => Err(BackupError::Copy { path, source: Arc::new(error) }),
        }
    }

    /// Opens the copy. What it writes is flushed by its owner alone.
    fn connect(&self) -> Result<Connection, BackupError> {
        let connect = || {
            let connection = open_writer(&self.name.path)?;
            connection.pragma_update(None, "synchronous", "OFF")?;
            // 1 MiB: the rest is written at once, so that the last step has little to write.
            connection.pragma_update(None, "cache_size", -1_024)?;
            Ok(connection)
        };
        connect().map_err(|error: rusqlite::Error| self.failed(error))
    }

    /// Makes the error of a step: the store is damaged, or the copy cannot be written.
    fn failed_step(&self, error: rusqlite::Error) -> BackupError {
        if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) {
            return describe(error).into();
        }
        self.failed(error)
    }

    fn failed(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BackupError {
        BackupError::copy(&self.name.path, source)
    }
}

impl Drop for DraftName {
    fn drop(&mut self) {
        if !self.is_kept {
            remove_files(&self.path);
        }
    }
}

/// Removes a database and everything that SQLite puts beside one.
pub(super) fn remove_files(path: &Path) {
    for file in [path.to_owned(), beside(path, "journal"), beside(path, "wal"), beside(path, "shm")]
    {
        let _ = fs::remove_file(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_adapts_to_the_time_that_the_one_before_took() {
        let ms = Duration::from_millis;
        assert_eq!(next_pages(64, ms(3)), 32);
        assert_eq!(next_pages(64, ms(1)), 64);
        assert_eq!(next_pages(64, Duration::from_micros(100)), 128);
        assert_eq!(next_pages(PAGES_MIN, ms(100)), PAGES_MIN);
        assert_eq!(next_pages(PAGES_MAX, ms(0)), PAGES_MAX);
    }
}
