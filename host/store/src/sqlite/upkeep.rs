//! What the writer keeps from one look to the next, and when it looks.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, mpsc};

use super::job::Job;
use super::readers::Readers;

/// The pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// The size above which the log is cut back, in bytes: two transactions of the largest usual size.
/// SQLite itself restarts the log at some 4 MiB when no reader is in the way.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// The longest time that a read may take. The log grows while a read lasts.
const READ_TIME_MAX: Duration = Duration::from_secs(30);

/// The limits that tests change.
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

/// Resolves with the permits of all readers, so when no read runs.
type AllReaders = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// What the writer keeps from one look to the next.
pub(super) struct Upkeep {
    pub(super) limits: Limits,
    pub(super) readers: Arc<Readers>,
    /// The number of looks so far.
    pub(super) looks: u32,
    /// The bytes that were written since the last look.
    pub(super) written: u64,
    /// Resolves when none of our reads runs. New reads wait while this exists.
    pub(super) no_reads: Option<AllReaders>,
    /// Since when new reads wait.
    pub(super) no_reads_since: Instant,
    /// The log is not cut again before this time.
    pub(super) cut_after: Option<Instant>,
    /// True once a warning said that a reader holds the log.
    pub(super) is_held: bool,
    /// True once a warning said that the disk is nearly full.
    pub(super) is_low: bool,
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

    /// Counts written bytes. Returns true when the writer should look at the log now: it may be too
    /// long, or new reads wait until it is cut.
    pub(super) fn wrote(&mut self, bytes: usize) -> bool {
        self.written += bytes as u64;
        self.written > self.limits.log_bytes_max / 2 || self.no_reads.is_some()
    }

    /// Records that the log is short enough.
    pub(super) fn note_cut(&mut self, bytes: u64) {
        self.no_reads = None;
        self.cut_after = None;
        if std::mem::take(&mut self.is_held) {
            tracing::info!(bytes, "the store's log is short again");
        }
    }
}

/// Queues a look from time to time, until the writer has ended.
pub(super) fn keep_looking(jobs: &mpsc::WeakUnboundedSender<Job>, limits: Limits) {
    let waits = Arc::new(());
    loop {
        std::thread::sleep(limits.look_pause);
        let Some(jobs) = jobs.upgrade().filter(|jobs| !jobs.is_closed()) else { return };
        // One at a time, so that a stalled writer does not find a thousand looks.
        if Arc::strong_count(&waits) == 1 {
            drop(jobs.send(Job::Look { _waits: Arc::clone(&waits) }));
        }
    }
}
