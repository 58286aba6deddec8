//! What an error of the database means for a caller and for an operator.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use crate::error::{Cause, Obstacle, StoreError};
use crate::shard_id::ShardId;

/// The longest time that a read may take.
pub(super) const READ_TIME_MAX: Duration = Duration::from_secs(30);

/// How long an answer may take. The server ends a statement sooner, unless it stands still itself.
pub(super) const ANSWER_TIME_MAX: Duration = Duration::from_secs(45);

/// The codes of a deadlock, of transactions that cannot be put in an order, and of a lock that was waited for in vain.
pub(super) const LOCKED: [&str; 3] = ["40P01", "40001", "55P03"];

/// Why a statement, or what was read, is of no use.
#[derive(Debug)]
pub(super) enum Failure {
    /// The database reports an error, or the connection broke.
    Database(tokio_postgres::Error),
    /// A stored value has a form that this store never writes. In words.
    Unreadable(String),
    /// Another host has taken over the shard whose owner alone may do this.
    NotOwner(ShardId),
    /// No answer has come within [`ANSWER_TIME_MAX`].
    Silent,
}

pub(super) type Result<T> = std::result::Result<T, Failure>;

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

/// An error of the database in words. It names the code, and no value of a statement.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Said(String);

/// Returns what the database, or the operating system, said.
pub(super) fn said(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let hint = db.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
        return format!("{}{hint} [{}]", db.message(), db.code().code());
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// Makes a cause of words.
pub(super) fn cause(what: impl Into<String>) -> Cause {
    Arc::new(Said(what.into()))
}

/// Waits for an answer of the database.
pub(super) async fn answer<T>(
    answer: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    match timeout(ANSWER_TIME_MAX, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Failure::Silent),
    }
}

impl Failure {
    /// Returns true when nothing more comes over the connection. What was sent last may have been done.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Self::Unreadable(_) | Self::NotOwner(_) => false,
            Self::Silent => true,
            Self::Database(error) => match error.code() {
                None => true,
                // Such as an order to end, which may come after the commit and before its answer.
                Some(code) => {
                    let class = &code.code()[..2];
                    class == "08"
                        || code.code().starts_with("57P")
                        || *code == SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
                }
            },
        }
    }

    /// Returns true when a value of the batch is in the way, or a row that is there.
    pub(super) fn is_of_values(&self) -> bool {
        self.code().is_some_and(|code| matches!(&code[..2], "22" | "23" | "54"))
    }

    /// Returns true when another transaction had a lock for too long, or waited for one in a circle.
    pub(super) fn is_of_locks(&self) -> bool {
        self.code().is_some_and(|code| LOCKED.contains(&code))
    }

    /// Returns the code, if the database reported the error.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Unreadable(_) | Self::NotOwner(_) | Self::Silent => None,
            Self::Database(error) => error.code().map(SqlState::code),
        }
    }

    /// Returns the failure in words.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Unreadable(what) => what.clone(),
            Self::NotOwner(shard) => StoreError::LostOwnership(*shard).to_string(),
            Self::Silent => format!("the database has not answered for {ANSWER_TIME_MAX:?}"),
            Self::Database(error) => said(error),
        }
    }
}

impl From<Failure> for StoreError {
    /// Converts a failure into an error that says who can act.
    fn from(failure: Failure) -> Self {
        if let Failure::NotOwner(shard) = failure {
            return Self::LostOwnership(shard);
        }
        let words = failure.words();
        let obstacle = match failure.code() {
            _ if matches!(failure, Failure::Unreadable(_)) => {
                return Self::Damaged { source: cause(words) };
            }
            // Disk full, and out of memory.
            Some("53100") => Obstacle::Full,
            // A statement that took too long, or was cancelled.
            Some("57014") => Obstacle::TooLong(READ_TIME_MAX),
            // Data of the database itself is damaged.
            Some("XX001" | "XX002") => return Self::Damaged { source: cause(words) },
            Some(_) | None => Obstacle::Database,
        };
        Self::unavailable(obstacle, Said(words))
    }
}
