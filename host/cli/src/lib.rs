//! The `amends` binary as a library: one module for each verb. Visible are the command line as a whole,
//! and the lint, which a test feeds many files in one process.

#![allow(clippy::print_stderr, reason = "a command line prints its errors")]

mod commands;

use std::process::ExitCode;

use clap::Parser as _;

use commands::{Cli, EXIT_PIPE_CLOSED, PipeClosed, of_error, run, shown};

pub use commands::Format;
pub use commands::check::check_file;

/// Reads the command line of this process, runs its verb, and prints the error that stopped the verb.
/// Returns the code to exit with; wrong usage ends the process here.
#[must_use]
pub fn run_command_line() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) if error.is::<PipeClosed>() => ExitCode::from(EXIT_PIPE_CLOSED),
        Err(error) => {
            eprintln!("{}", shown(&format!("error: {}", sentence(&error))));
            ExitCode::from(of_error(&error))
        }
    }
}

/// An error and its causes. A cause that the text before it names already is not said twice.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::sentence;

    #[test]
    fn a_cause_is_said_once() {
        let cause = anyhow::anyhow!("no room");
        assert_eq!(
            sentence(&cause.context("the disk is full: no room")),
            "the disk is full: no room"
        );
        let cause = anyhow::anyhow!("no room").context("the store");
        assert_eq!(sentence(&cause), "the store: no room");
    }
}
