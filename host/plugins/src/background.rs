//! Threads for what computes long and nobody waits for: checking and compiling a component that is
//! to replace one that serves, and rehearsing it.

use rayon::ThreadPoolBuilder;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

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
        .start_handler(|_| lower_priority())
        .build()
        .map_err(|error| Rejection::Compile(format!("no threads to compile on: {error}")))?
        .install(work)
}

/// Runs work on a thread of its own, of the lowest priority; inside a tokio runtime. None when there
/// is no thread to be had, or the work panics. When this is dropped, so is the work.
pub async fn give_way<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let (mut reply, answer) = oneshot::channel();
    let runtime = Handle::current();
    std::thread::Builder::new()
        .name("amends-rehearse".to_owned())
        .spawn(move || {
            lower_priority();
            let done = runtime.block_on(async {
                tokio::select! {
                    done = work => Some(done),
                    () = reply.closed() => None,
                }
            });
            if let Some(done) = done {
                let _ = reply.send(done);
            }
        })
        .inspect_err(|error| tracing::warn!(%error, "no thread to work on"))
        .ok()?;
    answer.await.ok()
}

#[cfg(target_os = "linux")]
fn lower_priority() {
    // On Linux a thread has a priority of its own, by its own id. Without it, it is as before.
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), NICENESS) {
        tracing::debug!(%error, "what nobody waits for has the priority of calls");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}
