//! Why an expression has no value, in words.

use std::fmt::{self, Display, Write as _};

use crate::payload::PayloadError;

/// The longest reason, in bytes: the CEL library writes whole values into its errors.
const REASON_BYTES_MAX: usize = 500;

/// The reason why an expression has no value. The words are for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpressionError {
    /// The expression cannot be computed with this input.
    #[error("{0}")]
    Failed(String),
    /// The evaluation exceeds its limit of steps or bytes.
    #[error("{0}")]
    Limit(String),
}

impl ExpressionError {
    /// Returns the code of the failure: `otherwise`, unless a limit was exceeded.
    pub(crate) fn code(&self, otherwise: &'static str) -> &'static str {
        match self {
            Self::Failed(_) => otherwise,
            Self::Limit(_) => "expression_limit",
        }
    }
}

/// Makes the error for a recorded payload that has no value.
pub(super) fn unreadable(name: &str, error: &PayloadError) -> ExpressionError {
    ExpressionError::Failed(format!("what was recorded as `{name}` has no value: {error}"))
}

/// The beginning of a text that may be very long. The rest is never written.
pub(super) struct Shortened(String);

impl Shortened {
    /// Returns the beginning of a text.
    pub(super) fn of(text: &dyn Display) -> String {
        let mut short = Self(String::new());
        if write!(short, "{text}").is_err() {
            short.0.push('…');
        }
        short.0
    }
}

impl fmt::Write for Shortened {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let left = REASON_BYTES_MAX.saturating_sub(self.0.len());
        if more.len() <= left {
            self.0.push_str(more);
            return Ok(());
        }
        let end = (0..=left).rev().find(|end| more.is_char_boundary(*end));
        self.0.push_str(&more[..end.unwrap_or(0)]);
        Err(fmt::Error)
    }
}
