//! `amends`: hosts sagas, and talks to a host.

#![allow(clippy::print_stderr, reason = "a command line prints its errors")]

use std::process::ExitCode;

use amends::commands::{Cli, EXIT_ERROR, EXIT_PIPE_CLOSED, Failed, PipeClosed, run, shown};
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
            eprintln!("{}", shown(&format!("error: {error:#}")));
            let exit = error.downcast_ref::<Failed>().map_or(EXIT_ERROR, |failed| failed.exit);
            ExitCode::from(exit)
        }
    }
}
