//! What the writer sees to between transactions: whether it can write again and still may, how long
//! the log (`-wal`) and how old the reads are, and what room the disk has.
//!
//! SQLite copies the log into the database by itself, and begins it anew when no reader uses it.
//! Readers that overlap keep it from that for ever (its documentation calls it checkpoint
//! starvation), so past a size the writer waits for a moment without any.

use std::fs;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, mpsc};

use super::schema::{self, BUSY_WAIT, describe};
use super::write::{Job, Writer};
use super::{READERS_MAX, Readers};
use crate::{DiskRoom, StoreError};

/// How often the writer looks.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// Every so many looks it measures the disk and reads the fence: each 5 s.
const LOOKS_PER_MEASURE: u32 = 10;

/// The log is cut back when it has more bytes: two transactions of the largest usual size. SQLite
/// begins it anew at some 4 MiB by itself when no reader is in the way.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// How long writes wait at once for reads to end that are in the way of that.
const CUT_WAIT: Duration = Duration::from_millis(100);

/// How long before it is tried again, when a read was in the way all the same.
const CUT_PAUSE: Duration = Duration::from_secs(5);

/// A read takes at most so long: while it lasts, the log grows.
const READ_TIME_MAX: Duration = Duration::from_secs(30);

/// How long new reads, also those of guests' calls, wait for the reads that run. They wait a second more
/// when those have to be ended.
const HELD_BACK_MAX: Duration = Duration::from_secs(2);

/// When the log has so many times what it should, a read that runs longer than others are held back is
/// ended.
const LOG_FAR_TOO_LONG: u64 = 4;

/// The disk is nearly full with less room than this part of it, and than [`DISK_FREE_LOW`].
const DISK_FREE_PART: u64 = 20;

/// A large disk is nearly full with less room than this: a busy host writes some 10 MiB a second, so
/// that is a minute or two.
const DISK_FREE_LOW: u64 = 1 << 30;

/// What a test has otherwise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) look_pause: Duration,
    pub(super) log_bytes_max: u64,
    pub(super) read_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { look_pause: LOOK_PAUSE, log_bytes_max: LOG_BYTES_MAX, read_time_max: READ_TIME_MAX }
    }
}

type AllReaders = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// What is kept from look to look.
pub(super) struct Upkeep {
    limits: Limits,
    readers: Arc<Readers>,
    looks: u32,
    /// Bytes that were written since the last look.
    written: u64,
    /// Resolves when none of our reads runs; those that come after wait.
    no_reads: Option<AllReaders>,
    no_reads_since: Instant,
    cut_after: Option<Instant>,
    /// That a reader holds the log was said.
    is_held: bool,
    /// That the disk is nearly full was said.
    is_low: bool,
}

impl Upkeep {
    pub(super) fn new(limits: Limits, readers: Arc<Readers>) -> Self {
        Self {
            limits,
            readers,
            looks: 0,
            written: 0,
            no_reads: None,
            no_reads_since: Instant::now(),
            cut_after: None,
            is_held: false,
            is_low: false,
        }
    }

    /// Whether the log should be looked at now that so much more was written: it may be too long, or
    /// reads are held back for it.
    pub(super) fn wrote(&mut self, bytes: usize) -> bool {
        self.written += bytes as u64;
        self.written > self.limits.log_bytes_max / 2 || self.no_reads.is_some()
    }

    /// The log has so few bytes that there is nothing to be done.
    fn note_cut(&mut self, bytes: u64) {
        self.no_reads = None;
        self.cut_after = None;
        if std::mem::take(&mut self.is_held) {
            tracing::info!(bytes, "the store's log is short again");
        }
    }
}

/// Has the writer look from time to time, until it has ended.
pub(super) fn keep_looking(jobs: &mpsc::WeakUnboundedSender<Job>, limits: Limits) {
    let waits = Arc::new(());
    loop {
        std::thread::sleep(limits.look_pause);
        let Some(jobs) = jobs.upgrade().filter(|jobs| !jobs.is_closed()) else { return };
        // One at a time: a writer that stalls must not find a thousand of them.
        if Arc::strong_count(&waits) == 1 {
            drop(jobs.send(Job::Look { _waits: Arc::clone(&waits) }));
        }
    }
}

impl Writer {
    pub(super) fn look(&mut self) {
        if self.health.lost().is_some() {
            // Nobody cuts the log any more, so reads need not wait for that.
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
            // A host that has nothing to write must learn of it too.
            match self.read_fence() {
                Ok(fence) if fence != self.fence => self.health.failed(&StoreError::Fenced),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the fence cannot be read"),
            }
        }
    }

    /// Writes something, to see whether that can be done: nobody else may have anything to write.
    fn probe(&self) -> Result<(), StoreError> {
        let failed = |error: rusqlite::Error| describe(&self.path, &error);
        let transaction = schema::begin(&self.connection).map_err(failed)?;
        if self.read_fence()? != self.fence {
            return Err(StoreError::Fenced);
        }
        // Another value each time: SQLite does not write one that is the same.
        let sql = "INSERT INTO meta VALUES ('probe', 1)
                   ON CONFLICT (name) DO UPDATE SET value = value + 1";
        transaction.execute(sql, []).map_err(failed)?;
        transaction.commit().map_err(failed)
    }

    /// Cuts the log back when it is too long: at once if no read is in the way for a moment, else
    /// when none of ours runs.
    pub(super) fn cut_log(&mut self) {
        self.upkeep.written = 0;
        let bytes = schema::log_bytes(&self.path);
        if bytes <= self.upkeep.limits.log_bytes_max {
            return self.upkeep.note_cut(bytes);
        }
        if self.upkeep.cut_after.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let Some(no_reads) = &mut self.upkeep.no_reads else {
            if cut(&self.connection, CUT_WAIT) {
                return self.upkeep.note_cut(0);
            }
            let permits = Arc::clone(&self.upkeep.readers.permits);
            self.upkeep.no_reads = Some(Box::pin(permits.acquire_many_owned(READERS_MAX)));
            self.upkeep.no_reads_since = Instant::now();
            return;
        };
        match no_reads.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permits) => {
                let is_cut = cut(&self.connection, Duration::ZERO);
                drop(permits);
                if is_cut {
                    return self.upkeep.note_cut(0);
                }
            }
            // One of ours that takes longer must not hold up the others.
            Poll::Pending if self.upkeep.no_reads_since.elapsed() < HELD_BACK_MAX => return,
            Poll::Pending => {
                if bytes / LOG_FAR_TOO_LONG > self.upkeep.limits.log_bytes_max {
                    self.upkeep.readers.end_reads_longer_than(HELD_BACK_MAX);
                    // That is a matter of moments, but for a check of the store, which goes on.
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
                log = %schema::log_path(&self.path).display(),
                "a reader keeps the store's log from being cut back, so it grows; if that is another \
                 program, end its transaction (`fuser` on the database file names it)"
            );
        }
    }

    /// Bytes of the store and of the disk, as gauges; a warning when the disk is nearly full.
    fn measure(&mut self) {
        let bytes = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        gauge("amends_store_bytes", bytes);
        gauge("amends_store_wal_bytes", schema::log_bytes(&self.path));
        let Ok(disk) = rustix::fs::statvfs(&self.path) else { return };
        let (free, total) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
        gauge("amends_disk_free_bytes", free);
        let is_low = free < (total / DISK_FREE_PART).min(DISK_FREE_LOW);
        let room = DiskRoom { free_bytes: free, total_bytes: total, is_low };
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).disk = Some(room);
        if is_low && !self.upkeep.is_low {
            tracing::warn!(
                free_bytes = free,
                disk_bytes = total,
                "the disk of the store is nearly full; when it is full, no saga goes on"
            );
        }
        self.upkeep.is_low = is_low;
    }
}

/// Copies the log into the database and empties it, unless a read is in the way for so long.
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

#[expect(clippy::cast_precision_loss, reason = "bytes of a disk, to some 2^52")]
fn gauge(name: &'static str, bytes: u64) {
    metrics::gauge!(name).set(bytes as f64);
}
