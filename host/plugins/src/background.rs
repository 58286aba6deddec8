//! Threads for what computes long and nobody waits for: checking and compiling a component that is
//! to replace one that serves.

use rayon::ThreadPoolBuilder;

use crate::error::Rejection;

/// How much they give way (`nice(2)`): all the way. With calls on every core they have a
/// fiftieth of one, and the code of a small component is there within some seconds; no call waits
/// for more than a turn of theirs.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 19;

/// Blocks until it is done, on as many threads as there are cores: nothing else may be to be done.
/// They are made for this and end with it, for it is rare.
pub(crate) fn run<T: Send>(
    work: impl FnOnce() -> Result<T, Rejection> + Send,
) -> Result<T, Rejection> {
    ThreadPoolBuilder::new()
        .thread_name(|number| format!("amends-compile-{number}"))
        .start_handler(|_| give_way())
        .build()
        .map_err(|error| Rejection::Compile(format!("no threads to compile on: {error}")))?
        .install(work)
}

#[cfg(target_os = "linux")]
fn give_way() {
    // On Linux a thread has a priority of its own, by its own id. Without it, it is as before.
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), NICENESS) {
        tracing::debug!(%error, "components are compiled with the priority of calls");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_way() {}
