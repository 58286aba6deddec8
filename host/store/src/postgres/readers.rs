//! Connections that read.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::Pg;
use super::error::{Failure, READ_TIME_MAX, Result};
use super::place::Place;
use crate::error::{Obstacle, StoreError};

/// The most reads at once, each on a connection of its own.
pub(super) const READERS_MAX: u32 = 4;

/// The connections that read.
pub(super) struct Readers {
    place: Place,
    /// Where connections are served.
    runtime: Handle,
    /// Connections that no read uses now.
    idle: Mutex<Vec<Pg>>,
    /// One permit for each read that may run.
    pub(super) permits: Arc<Semaphore>,
}

impl Readers {
    /// Makes the readers of a database. Connections are made when reads need them.
    pub(super) fn new(place: Place, runtime: Handle) -> Self {
        let permits = Arc::new(Semaphore::new(READERS_MAX as usize));
        Self { place, runtime, idle: Mutex::default(), permits }
    }

    /// Closes the connections that no read uses.
    pub(super) fn close_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Waits for a connection.
    pub(super) async fn lease(self: &Arc<Self>) -> std::result::Result<Lease, StoreError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| StoreError::Closed)?;
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(pg) if pg.client.is_closed() => {}
                Some(pg) => return Ok(Lease { readers: Arc::clone(self), pg, _permit: permit }),
                None => break,
            }
        }
        let limit = READ_TIME_MAX.as_millis();
        // Reads of a time that overlap are of one snapshot each.
        let setup = format!(
            "SET statement_timeout = {limit}; SET client_min_messages = warning; SET jit = off;
             SET default_transaction_isolation = 'repeatable read'; SET default_transaction_read_only = on;
             SET idle_in_transaction_session_timeout = {limit}"
        );
        let pg = self.connect(&setup).await?;
        Ok(Lease { readers: Arc::clone(self), pg, _permit: permit })
    }

    /// Makes a connection, which is served where the others are.
    pub(super) async fn connect(&self, setup: &str) -> std::result::Result<Pg, StoreError> {
        let (place, setup) = (self.place.clone(), setup.to_owned());
        match self.runtime.spawn(async move { Pg::connect(&place, &setup).await }).await {
            Ok(Ok(pg)) => Ok(pg),
            Ok(Err(failure)) => Err(failure.into()),
            Err(error) => Err(StoreError::unavailable(Obstacle::Database, error)),
        }
    }
}

/// A connection that a read uses. When it is dropped without [`Lease::finish`], the connection is closed:
/// nobody knows what it is in the middle of.
pub(super) struct Lease {
    readers: Arc<Readers>,
    pg: Pg,
    _permit: OwnedSemaphorePermit,
}

impl Deref for Lease {
    type Target = Pg;

    fn deref(&self) -> &Pg {
        &self.pg
    }
}

impl Lease {
    /// Gives the connection back when the read worked, and returns its result.
    pub(super) fn finish<T>(self, result: Result<T>) -> std::result::Result<T, StoreError> {
        let Self { readers, pg, _permit } = self;
        match result {
            Ok(found) => {
                readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(pg);
                Ok(found)
            }
            Err(failure) => {
                // Those that wait for their next read were most likely cut with it.
                if failure.is_lost() {
                    readers.close_idle();
                }
                Err(failure.into())
            }
        }
    }
}

/// Begins a transaction, so that several statements read one snapshot.
pub(super) async fn begin(pg: &Pg) -> Result<()> {
    pg.batch("BEGIN").await
}

/// Ends it.
pub(super) async fn end(pg: &Pg) -> Result<()> {
    pg.batch("COMMIT").await
}

/// Makes the failure of a value that this store never writes.
pub(super) fn unreadable(what: impl Into<String>) -> Failure {
    Failure::Unreadable(what.into())
}
