//! Connections that read, and the limit on how long a read may take.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, InterruptHandle};
use tokio::sync::Semaphore;

use super::connection::open_reader;
use super::error::describe;
use crate::error::{Obstacle, StoreError};

/// The most reads at once. Reads are short, and more of them would only share two cores.
pub(super) const READERS_MAX: u32 = 4;

/// The connections that read.
pub(super) struct Readers {
    path: PathBuf,
    /// Connections that no read uses now.
    idle: Mutex<Vec<Connection>>,
    /// One permit for each read that may run.
    pub(super) permits: Arc<Semaphore>,
    /// The reads under way whose time is limited.
    running: Mutex<Vec<RunningRead>>,
}

/// One read under way.
struct RunningRead {
    number: u64,
    began: Instant,
    interrupt: InterruptHandle,
    /// True once the read was interrupted because it took too long.
    is_ended: bool,
}

impl Readers {
    /// Makes the readers of the database at `path`. Connections are opened when reads need them.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle: Mutex::new(Vec::new()),
            permits: Arc::new(Semaphore::new(READERS_MAX as usize)),
            running: Mutex::new(Vec::new()),
        }
    }

    /// Closes the connections that no read uses.
    pub(super) fn close_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Runs a query on a connection of its own; blocks meanwhile. When `is_limited`, a query that
    /// takes too long is interrupted.
    pub(super) fn run<T>(
        &self,
        is_limited: bool,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open_reader(&self.path).map_err(describe)?,
        };
        let number = is_limited.then(|| self.begin(&connection));
        let result = query(&connection);
        let ended = number.and_then(|number| self.end(number));
        let result = result.map_err(|error| match (error.sqlite_error_code(), ended) {
            (Some(ErrorCode::OperationInterrupted), Some(took)) => {
                StoreError::unavailable(Obstacle::TooLong(took), error)
            }
            _ => describe(error),
        });
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result
    }

    /// Lists a read as running, and returns its number.
    fn begin(&self, connection: &Connection) -> u64 {
        let (began, interrupt) = (Instant::now(), connection.get_interrupt_handle());
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let number = running.iter().map(|read| read.number + 1).max().unwrap_or(0);
        running.push(RunningRead { number, began, interrupt, is_ended: false });
        number
    }

    /// Removes a read from the list, after which nobody interrupts its connection. Returns how long
    /// the read took if it was interrupted.
    fn end(&self, number: u64) -> Option<Duration> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let at = running.iter().position(|read| read.number == number)?;
        let read = running.swap_remove(at);
        read.is_ended.then(|| read.began.elapsed())
    }

    /// Interrupts the reads that have taken longer than `limit`.
    pub(super) fn end_reads_longer_than(&self, limit: Duration) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for read in running.iter_mut().filter(|read| read.began.elapsed() > limit) {
            read.is_ended = true;
            read.interrupt.interrupt();
        }
    }
}
