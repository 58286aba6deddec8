//! Threads of low priority for components that compute for long.
//!
//! Rehearsals run at the lowest priority, because no saga waits for them. Calls that compute for long run
//! at a priority between that and the normal one.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::Poll;

use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::limits::meter::take_computes_long;

/// How much they give way (`nice(2)`): all the way. With calls on every core they have a
/// fiftieth of one, and the code of a small component is there within some seconds; no call waits
/// for more than a turn of theirs.
const NICENESS: i32 = 19;

/// How much a call gives way that computes long: others go first, and beside as many of them as there
/// are cores it has a tenth of one.
const CALL_NICENESS: i32 = 10;

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
            lower_priority(NICENESS);
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

/// Polls a call of a component in this task, and from when it computes long on threads of a lower
/// priority. When this is dropped, so is the call.
///
/// # Panics
/// When the call does, or outside a tokio runtime.
pub async fn giving_way<T: Send + 'static>(mut call: Pin<Box<dyn Future<Output = T> + Send>>) -> T {
    let quick = poll_fn(|context| {
        // What another call left, whom nobody asked.
        let _ = take_computes_long();
        match call.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if take_computes_long() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    if let Some(done) = quick.await {
        return done;
    }
    let Some(long_calls) = long_calls() else { return call.await };
    // What it opens and waits for (connections, clocks) stays with this runtime, whose threads do not
    // give way: only what it computes is moved.
    let here = Handle::current();
    let call = poll_fn(move |context| {
        let _entered = here.enter();
        call.as_mut().poll(context)
    });
    let mut task = Aborting(long_calls.spawn(call));
    match (&mut task.0).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Nobody but this aborts it, when it is dropped.
        Err(_) => std::future::pending().await,
    }
}

/// A task that ends when nobody waits for it any more.
struct Aborting<T>(JoinHandle<T>);

impl<T> Drop for Aborting<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// None when no threads are to be had.
fn long_calls() -> Option<&'static Handle> {
    // Of the process and not of a host: it has nothing to end, and costs nothing while nothing is in it.
    static RUNTIME: LazyLock<Option<Runtime>> = LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread()
            .thread_name("amends-long")
            .on_thread_start(|| lower_priority(CALL_NICENESS))
            .enable_all()
            .build()
            .inspect_err(|error| tracing::warn!(%error, "no threads for calls that compute long"))
            .ok()
    });
    RUNTIME.as_ref().map(Runtime::handle)
}

#[cfg(target_os = "linux")]
fn lower_priority(niceness: i32) {
    // On Linux a thread has a priority of its own, by its own id. Without it, it is as before.
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), niceness) {
        tracing::debug!(%error, "what should give way has the priority of calls");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority(_niceness: i32) {}
