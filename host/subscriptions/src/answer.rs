//! What became of a request.

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

/// What became of a request to a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The receiver has the events.
    Delivered,
    /// The receiver wants no more events (410).
    Gone(String),
    /// The receiver does not have the events, or nobody knows.
    Failed {
        /// What went wrong, in words.
        error: String,
        /// True when the receiver could not be reached or is overloaded: it said nothing about the events.
        is_away: bool,
        /// How long the receiver has the host wait.
        retry_after: Option<Duration>,
    },
}

impl Answer {
    pub(crate) const fn failed(
        error: String,
        is_away: bool,
        retry_after: Option<Duration>,
    ) -> Self {
        Self::Failed { error, is_away, retry_after }
    }
}

/// An error and what it follows from, in one line.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Some libraries repeat the cause in the error.
        if !text.ends_with(&said) {
            let _ = write!(text, ": {said}");
        }
        cause = error.source();
    }
    text
}
