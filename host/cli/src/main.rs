//! `amends`: hosts sagas, and talks to a host.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Held to the end: dropped, it takes the failpoints back.
    #[cfg(feature = "failpoints")]
    let _failpoints = amends_failpoint::set_up();
    amends::run_command_line()
}
