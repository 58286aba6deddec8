//! What can go wrong in a store, and who can act.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::{Position, Version};

use crate::shard_id::ShardId;
use crate::stream::Stream;

/// How long a caller waits before it tries again what the store could not do.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The error of the database or of the operating system from which an error of the store follows.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// The reason why the store rejected or failed a request. Each variant says who can act.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The stream has another version than the caller expected. Caller: read it again.
    #[error("{stream} is at version {}, not {}", .actual.0, .expected.0)]
    Conflict {
        /// The stream.
        stream: Stream,
        /// The version that the caller expected.
        expected: Version,
        /// The version that the stream has.
        actual: Version,
    },
    /// Another process owns the shard. Caller: forget the sagas of the shard; the owner goes on with
    /// them.
    #[error("another process has taken over shard {0}")]
    LostOwnership(ShardId),
    /// The store could not do it now, and nothing was written. Caller: try again.
    #[error("{obstacle}{}", cause_of(*obstacle, source))]
    Unavailable {
        /// What is in the way.
        obstacle: Obstacle,
        /// How long to wait before the next try.
        retry_after: Duration,
        /// The error of the database.
        source: Cause,
    },
    /// The input breaks a rule of the store. Caller: it has a bug.
    #[error("it cannot be stored: {0}")]
    Invalid(&'static str),
    /// What is stored cannot be read, and this request depends on it. Nothing was written, and other
    /// requests are not affected. Operator: restore a copy.
    #[error("what is stored cannot be read: {source}; restore a copy")]
    Damaged {
        /// What is wrong.
        source: Cause,
    },
    /// The store is closed. Caller: it called too late. An append gets this error too when the writer
    /// panics before it answers. Such an append may be durable. The health of the store is
    /// [`Fatal::WriterEnded`] then: the process has to end, and its next start reads what is durable.
    #[error("the store is closed")]
    Closed,
    /// This process writes nothing any more. Operator.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// What keeps the store from doing something now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The database reports an error. Operator: look at the disk.
    #[error("the database failed")]
    Database,
    /// The disk is full. Operator: free some space.
    #[error("the disk is full")]
    Full,
    /// A file of the database cannot be opened or written. Operator: look at its rights.
    #[error("the file of the store cannot be used")]
    File,
    /// A read took longer than this and was ended. Caller: ask for less.
    #[error("the read took longer than {} s and was ended; ask for less at once", .0.as_secs())]
    TooLong(Duration),
}

/// Why a process writes nothing any more.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fatal {
    /// Another process has taken the store over. Operator: stop one of them.
    #[error("another process has taken the store over; this one must stop")]
    Fenced,
    /// The database is damaged. Operator: restore a copy.
    #[error("{} cannot be used: {source}; restore a copy or name another file", .path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        source: Cause,
    },
    /// The thread that writes has ended unexpectedly. Operator: start the host again.
    #[error("the store's writer has ended unexpectedly; start the host again")]
    WriterEnded,
}

/// The reason why a store cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names no store that this build has. Operator.
    #[error(
        "`{0}` is not a store: use \"sqlite:FILE\", such as \"sqlite:data/amends.db\", or \
         \"postgres://USER@HOST/DATABASE\""
    )]
    Url(String),
    /// The URL of a PostgreSQL database cannot be used. Operator.
    #[error(
        "the URL of the database is not understood: {0}; write \"postgres://USER@HOST/DATABASE\""
    )]
    PostgresUrl(String),
    /// A PostgreSQL database cannot be used. Operator.
    #[error("the database `{place}` {what}")]
    Postgres {
        /// The URL of the database, without the password.
        place: String,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// The URL names a PostgreSQL store, for what only a store in a file can do. Operator.
    #[error(
        "this is done with PostgreSQL's own tools for a store in PostgreSQL, such as `pg_dump` and \
         `pg_restore`"
    )]
    NotOfPostgres,
    /// Another process uses the store. Operator.
    #[error("{} is in use by another process; stop that one, or name another file", .0.display())]
    InUse(PathBuf),
    /// The store was written by a newer version. Operator.
    #[error(
        "{} has schema version {found}, this version of Amends knows {known}; use the newer \
         version, nothing was changed", .path.display()
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest schema version that this build knows.
        known: i64,
    },
    /// The file is not a database of Amends, or it is damaged. Operator: restore a copy.
    #[error(
        "{} cannot be used: {source}; restore a copy or name another file, nothing was changed",
        .path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        source: Cause,
    },
    /// The store lacks events that were acknowledged: its log was cut off, or an older copy is in its
    /// place. Operator: restore a backup, or accept the loss.
    #[error(
        "{} ends with event {}, but event {} was acknowledged: the end of its log (-wal) is missing, \
         or an older copy is in its place; restore a backup with `amends store restore`, or remove {} \
         to go on without these events", .path.display(), .last.0, .acknowledged.0, .lock.display()
    )]
    Behind {
        /// The database.
        path: PathBuf,
        /// Its lock file, which says what was acknowledged.
        lock: PathBuf,
        /// The last event that was acknowledged.
        acknowledged: Position,
        /// The last event that the database has.
        last: Position,
    },
    /// The settings of the archive's bucket, which the environment has, cannot be used. Operator.
    #[error("the archive {place} cannot be used: {wrong}")]
    Archive {
        /// The bucket.
        place: String,
        /// What is wrong.
        wrong: String,
    },
    /// The file or its folder cannot be created or opened. Operator.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        source: Cause,
    },
    /// The database cannot be used now, such as on a full disk. Operator: try again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Returns the end of the sentence that says what is in the way.
fn cause_of(obstacle: Obstacle, source: &Cause) -> String {
    match obstacle {
        Obstacle::Database | Obstacle::Full | Obstacle::File => format!(": {source}"),
        // The database says only that the read was ended.
        Obstacle::TooLong(_) => String::new(),
    }
}

impl StoreError {
    /// Makes the error of a request that the store could not do now.
    pub fn unavailable(
        obstacle: Obstacle,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        let source = Cause::from(source.into());
        Self::Unavailable { obstacle, retry_after: RETRY_AFTER, source }
    }

    /// Returns true when this process will never write again: another process owns the store, the
    /// database is damaged, or the writer has ended.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Fatal(_))
    }

    /// Returns how long to wait before the next try.
    #[must_use]
    pub const fn retry_after(&self) -> Duration {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            Self::Conflict { .. }
            | Self::LostOwnership(_)
            | Self::Invalid(_)
            | Self::Damaged { .. }
            | Self::Closed
            | Self::Fatal(_) => RETRY_AFTER,
        }
    }

    /// Returns one word that names the error, for metrics and for programs.
    #[must_use]
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "conflict",
            Self::LostOwnership(_) => "lost_ownership",
            Self::Unavailable { obstacle: Obstacle::Database, .. } => "database",
            Self::Unavailable { obstacle: Obstacle::Full, .. } => "full",
            Self::Unavailable { obstacle: Obstacle::File, .. } => "file",
            Self::Unavailable { obstacle: Obstacle::TooLong(_), .. } => "too_long",
            Self::Invalid(_) => "invalid",
            Self::Damaged { .. } | Self::Fatal(Fatal::Damaged { .. }) => "damaged",
            Self::Closed => "closed",
            Self::Fatal(Fatal::Fenced) => "fenced",
            Self::Fatal(Fatal::WriterEnded) => "writer_ended",
        }
    }
}

impl OpenError {
    /// Makes the error of a file that is no store, or is damaged.
    pub(crate) fn damaged(
        path: impl Into<PathBuf>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Damaged { path: path.into(), source: Cause::from(source.into()) }
    }

    /// Makes the error of a file or folder that cannot be created or opened.
    pub(crate) fn file(
        path: impl Into<PathBuf>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::File { path: path.into(), source: Cause::from(source.into()) }
    }
}
