//! `amends`: hosts sagas, and talks to a host.

#![allow(clippy::print_stderr, reason = "a command line prints its errors")]

use std::process::ExitCode;

use amends::commands::{Cli, EXIT_PIPE_CLOSED, PipeClosed, of_error, run, shown};
use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Held to the end: dropped, it takes the failpoints back.
    #[cfg(feature = "failpoints")]
    let _failpoints = amends_failpoint::set_up();
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
