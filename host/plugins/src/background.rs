//! Threads for what computes long and nobody waits for: checking and compiling a component that is
//! to replace one that serves.

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::PluginError;

/// How much they give way (`nice(2)`): all the way. With calls on every core they have a
/// fiftieth of one, and the code of a small component is there within some seconds; no call waits
/// for more than a turn of theirs.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 19;

/// As many as there are cores, for nothing else may be to be done.
pub(crate) fn threads() -> Result<ThreadPool, PluginError> {
    ThreadPoolBuilder::new()
        .thread_name(|number| format!("amends-compile-{number}"))
        .start_handler(|_| give_way())
        .build()
        .map_err(|error| PluginError::Sandbox(error.to_string()))
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
