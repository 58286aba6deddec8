//! The number of the last event that was acknowledged, kept beside the database.
//!
//! A database whose log (`-wal`) was cut off opens without complaint, only without the latest commits:
//! to SQLite the log ends where its checksums stop to fit. The same holds for an older copy that
//! somebody put in its place. The host would give the positions of the lost events once more, and run
//! the lost sagas a second time. So the lock file says how far the log went.
//!
//! The number is written after each commit, before the callers are answered, and is not synced. After
//! a kill it is exact. After a power failure it may be too low, and then it finds less; it is never
//! too high while commits are durable.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use amends_engine::Position;
use rusqlite::Connection;

use super::file::LOCK_SUFFIX;
use super::read::last_position;
use crate::error::OpenError;
use crate::in_place::beside;

/// What stands before the number.
const LABEL: &str = "acknowledged ";

/// The digits of the number, so that each one fills the place of the one before.
const DIGITS: usize = 20;

/// The lock file of a database that this process has open.
pub(super) struct Acknowledged(File);

impl Acknowledged {
    pub(super) fn new(lock: File) -> Self {
        Self(lock)
    }

    /// Writes down that the events up to this position are acknowledged. A number that cannot be
    /// written is only missed when a log is cut off.
    pub(super) fn write(&self, position: Position) {
        let mut line = [0; LABEL.len() + DIGITS + 1];
        let written = writeln!(line.as_mut_slice(), "{LABEL}{:0DIGITS$}", position.0)
            .and_then(|()| self.0.write_all_at(&line, 0));
        if let Err(error) = written {
            tracing::debug!(%error, "the lock file does not say how many events are acknowledged");
        }
    }

    /// Forgets the number: another store comes into this place.
    pub(super) fn forget(lock: &File) -> std::io::Result<()> {
        lock.set_len(0)?;
        // A power cut must not bring the number of the old store back beside the new one.
        lock.sync_all()
    }
}

/// The events that were acknowledged and are no longer in the database.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) acknowledged: Position,
    pub(super) last: Position,
}

impl Lost {
    /// Compares the database with what its lock file says.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(super) fn find(lock: &File, connection: &Connection) -> rusqlite::Result<Option<Self>> {
        let Some(acknowledged) = read(lock) else { return Ok(None) };
        let last = last_position(connection)?;
        Ok((acknowledged > last).then_some(Self { acknowledged, last }))
    }

    /// Returns what the start of a host says.
    pub(super) fn to_error(&self, path: &Path) -> OpenError {
        OpenError::Behind {
            path: path.to_owned(),
            lock: beside(path, LOCK_SUFFIX),
            acknowledged: self.acknowledged,
            last: self.last,
        }
    }
}

/// Reads the number. None when there is none: no event was acknowledged yet, an earlier version wrote the
/// store, or somebody removed the file.
fn read(lock: &File) -> Option<Position> {
    let mut line = [0; LABEL.len() + DIGITS];
    lock.read_exact_at(&mut line, 0).ok()?;
    let number = std::str::from_utf8(&line).ok()?.strip_prefix(LABEL)?;
    number.parse().ok().map(Position)
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (acknowledged, last) = (self.acknowledged.0, self.last.0);
        write!(
            f,
            "the log ends with event {last}, but event {acknowledged} was acknowledged: the end of the \
             -wal is missing, or the file is an older copy"
        )
    }
}
