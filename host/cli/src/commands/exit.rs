//! Exit codes.

use amends_workbench::plugin::oci::{OciError, OciErrorKind};

/// Everything is done.
pub(crate) const EXIT_DONE: u8 = 0;

/// Something is wrong.
pub(crate) const EXIT_ERROR: u8 = 1;

/// Wrong usage; what clap exits with as well.
pub(crate) const EXIT_USAGE: u8 = 2;

/// The host asks for a token, or for one that may do more.
pub(crate) const EXIT_AUTH: u8 = 3;

/// There is no such saga, definition or plugin.
pub(crate) const EXIT_NOT_FOUND: u8 = 4;

/// The saga was undone.
pub(crate) const EXIT_COMPENSATED: u8 = 5;

/// The saga needs an operator.
pub(crate) const EXIT_BLOCKED: u8 = 6;

/// The wait ended before the saga rested.
pub(crate) const EXIT_WAIT_ENDED: u8 = 7;

/// The rehearsal found that something differs.
pub(crate) const EXIT_DIFFERS: u8 = 8;

/// The host has lost its store: another process took it over, it is damaged, or its writer failed.
pub(crate) const EXIT_STORE_LOST: u8 = 9;

/// Interrupted by the user.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

/// Nobody reads the output any more: 128 and the number of SIGPIPE, as a shell tells it of other
/// programs.
pub(crate) const EXIT_PIPE_CLOSED: u8 = 141;

/// What stopped a verb, and the code to exit with.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failed {
    /// The exit code.
    pub(crate) exit: u8,
    /// For the user.
    pub(crate) message: String,
}

impl Failed {
    /// Says what is wrong, and what would be right.
    pub(crate) fn with_help(exit: u8, wrong: &str, right: &str) -> Self {
        Self { exit, message: format!("{wrong}\n  help: {right}") }
    }
}

/// Nobody reads the output any more. Nothing is to be said about it: whoever closed it knows.
#[derive(Debug, thiserror::Error)]
#[error("the output is closed")]
pub(crate) struct PipeClosed;

/// The code to exit with after an error.
#[must_use]
pub(crate) fn of_error(error: &anyhow::Error) -> u8 {
    let of_registry = || {
        error.downcast_ref::<OciError>().map(|error| match error.kind {
            OciErrorKind::Login => EXIT_AUTH,
            OciErrorKind::NotFound => EXIT_NOT_FOUND,
            OciErrorKind::Other => EXIT_ERROR,
        })
    };
    let failed = error.downcast_ref::<Failed>().map(|failed| failed.exit);
    failed.or_else(of_registry).unwrap_or(EXIT_ERROR)
}

/// Returns true when the host said that it does not have what was asked for, or has it no more.
pub(crate) fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failed>().is_some_and(|failed| failed.exit == EXIT_NOT_FOUND)
}

/// Of the codes of two sagas, the one that wants to be looked at first.
pub(crate) fn worse(one: u8, other: u8) -> u8 {
    /// The worst first. What is not in it is an error like any other.
    const ORDER: [u8; 7] = [
        EXIT_ERROR,
        EXIT_AUTH,
        EXIT_NOT_FOUND,
        EXIT_BLOCKED,
        EXIT_WAIT_ENDED,
        EXIT_COMPENSATED,
        EXIT_DONE,
    ];
    let rank = |code: u8| ORDER.iter().position(|other| *other == code).unwrap_or(0);
    if rank(other) < rank(one) { other } else { one }
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
