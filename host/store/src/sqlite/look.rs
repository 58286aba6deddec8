//! What the writer does between transactions. It checks whether it can write again and still may,
//! how long the log (`-wal`) is, how old the reads are, and how much space the disk has.
//!
//! SQLite copies the log into the database by itself, and restarts the log when no reader uses it.
//! Reads that overlap prevent that for ever (its documentation calls this checkpoint starvation).
//! So when the log is too long, the writer waits for a moment without any read.

use std::fs;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::connection::{BUSY_WAIT, begin};
use super::disk::disk_room;
use super::error::describe_write;
use super::file::{log_bytes, log_path};
use super::readers::READERS_MAX;
use super::writer::Writer;
use crate::error::{Fatal, StoreError};

/// The writer measures the disk and reads the fence at every tenth look, so each 5 s.
const LOOKS_PER_MEASURE: u32 = 10;

/// How long the writer waits at first for the reads that prevent it from cutting the log.
const CUT_WAIT: Duration = Duration::from_millis(100);

/// The pause before the next attempt to cut the log, after a read prevented it.
const CUT_PAUSE: Duration = Duration::from_secs(5);

/// How long new reads, also those of guests' calls, wait for running reads to end. They wait one
/// second more when running reads have to be interrupted.
const HELD_BACK_MAX: Duration = Duration::from_secs(2);

/// When the log is this many times as long as allowed, reads that run longer than [`HELD_BACK_MAX`]
/// are interrupted.
const LOG_FAR_TOO_LONG: u64 = 4;

impl Writer<'_> {
    /// Does everything that is due between transactions.
    pub(super) fn look(&mut self) {
        if self.health.lost().is_some() {
            // Nothing cuts the log any more, so reads need not wait for it.
            self.upkeep.no_reads = None;
            return;
        }
        self.upkeep.readers.end_reads_longer_than(self.upkeep.limits.read_time_max);
        if self.health.is_in_trouble() {
            match self.probe() {
                Ok(()) => self.health.worked(),
                Err(error) => self.health.failed(&error),
            }
        }
        self.cut_log();
        let looks = self.upkeep.looks;
        self.upkeep.looks = looks.wrapping_add(1);
        if looks.is_multiple_of(LOOKS_PER_MEASURE) {
            self.measure();
            // A host that has nothing to write must also learn that it lost the store.
            match self.read_fence() {
                Ok(fence) if fence != self.fence => self.health.failed(&Fatal::Fenced.into()),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the fence cannot be read"),
            }
        }
    }

    /// Writes a value, to see whether writes work again. Callers may have nothing to write.
    fn probe(&self) -> Result<(), StoreError> {
        let failed = |error: rusqlite::Error| describe_write(&self.path, error);
        let transaction = begin(self.connection).map_err(failed)?;
        if self.read_fence()? != self.fence {
            return Err(Fatal::Fenced.into());
        }
        // Another value each time, because SQLite does not write an equal value.
        let sql = "INSERT INTO meta VALUES ('probe', 1)
                   ON CONFLICT (name) DO UPDATE SET value = value + 1";
        transaction.execute(sql, []).map_err(failed)?;
        transaction.commit().map_err(failed)
    }

    /// Cuts the log back when it is too long: at once if no read prevents it for a moment, else
    /// when no read of this process runs.
    pub(super) fn cut_log(&mut self) {
        self.upkeep.written = 0;
        let bytes = log_bytes(&self.path);
        if bytes <= self.upkeep.limits.log_bytes_max {
            return self.upkeep.note_cut(bytes);
        }
        if self.upkeep.cut_after.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let Some(no_reads) = &mut self.upkeep.no_reads else {
            if cut(self.connection, CUT_WAIT) {
                return self.upkeep.note_cut(0);
            }
            let permits = Arc::clone(&self.upkeep.readers.permits);
            self.upkeep.no_reads = Some(Box::pin(permits.acquire_many_owned(READERS_MAX)));
            self.upkeep.no_reads_since = Instant::now();
            return;
        };
        match no_reads.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permits) => {
                let is_cut = cut(self.connection, Duration::ZERO);
                drop(permits);
                if is_cut {
                    return self.upkeep.note_cut(0);
                }
            }
            // A read of ours that takes longer must not delay the others.
            Poll::Pending if self.upkeep.no_reads_since.elapsed() < HELD_BACK_MAX => return,
            Poll::Pending => {
                if bytes / LOG_FAR_TOO_LONG > self.upkeep.limits.log_bytes_max {
                    self.upkeep.readers.end_reads_longer_than(HELD_BACK_MAX);
                    // They end within moments. Only a check of the whole store is not interrupted.
                    if self.upkeep.no_reads_since.elapsed() < HELD_BACK_MAX + CUT_WAIT * 10 {
                        return;
                    }
                }
            }
        }
        self.upkeep.no_reads = None;
        self.upkeep.cut_after = Some(Instant::now() + CUT_PAUSE);
        if !std::mem::replace(&mut self.upkeep.is_held, true) {
            tracing::warn!(
                bytes,
                log = %log_path(&self.path).display(),
                "a reader keeps the store's log from being cut back, so it grows; if that is another \
                 program, end its transaction (`fuser` on the database file names it)"
            );
        }
    }

    /// Measures the store and the disk, and warns when the disk is nearly full.
    fn measure(&mut self) {
        let bytes = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        let wal_bytes = log_bytes(&self.path);
        let room = disk_room(&self.path);
        {
            let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
            (stats.bytes, stats.wal_bytes) = (Some(bytes), Some(wal_bytes));
            stats.disk = room.or(stats.disk);
        }
        let Some(room) = room else { return };
        if room.is_low && !self.upkeep.is_low {
            tracing::warn!(
                free_bytes = room.free_bytes,
                disk_bytes = room.total_bytes,
                "the disk of the store is nearly full; when it is full, no saga goes on"
            );
        }
        self.upkeep.is_low = room.is_low;
    }
}

/// Copies the log into the database and empties it. Returns false when a read prevented that for
/// longer than `wait`.
fn cut(connection: &Connection, wait: Duration) -> bool {
    let _ = connection.busy_timeout(wait);
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    let is_busy = connection.query_row(checkpoint, [], |row| row.get::<_, bool>(0));
    let _ = connection.busy_timeout(BUSY_WAIT);
    if let Err(error) = &is_busy {
        tracing::debug!(%error, "the store's log cannot be cut back");
    }
    matches!(is_busy, Ok(false))
}
