//! Exit codes.

/// Everything is done.
pub const EXIT_DONE: u8 = 0;

/// Something is wrong. (2, wrong usage, is clap's.)
pub const EXIT_ERROR: u8 = 1;

/// The host wants another token.
pub(crate) const EXIT_AUTH: u8 = 3;

/// There is no such saga, definition or plugin.
pub const EXIT_NOT_FOUND: u8 = 4;

/// The saga was undone.
pub const EXIT_COMPENSATED: u8 = 5;

/// The saga needs an operator.
pub const EXIT_BLOCKED: u8 = 6;

/// The wait ended before the saga rested.
pub const EXIT_WAIT_ENDED: u8 = 7;

/// Interrupted by the user.
pub const EXIT_INTERRUPTED: u8 = 130;

/// What stopped a verb, and the code to exit with.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    /// The exit code.
    pub exit: u8,
    /// For the user.
    pub message: String,
}

/// The code that says how a saga rests.
pub(crate) fn of_status(status: &str) -> u8 {
    match status {
        "completed" => EXIT_DONE,
        "compensated" | "abandoned" => EXIT_COMPENSATED,
        "blocked" => EXIT_BLOCKED,
        _ => EXIT_WAIT_ENDED,
    }
}
