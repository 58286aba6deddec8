//! How long a component computes, apart from how long its call takes.
//!
//! It is looked at whenever the sandbox's clock ticks while the component computes; then the call
//! gives way and is polled again. A call that never meets a tick costs no look at all.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use wasmtime::{Store, StoreContextMut, UpdateDeadline};

use crate::limits::clock::{Clock, TICK};
use crate::settings::PluginSettings;
use crate::stopped::Stopped;

thread_local! {
    /// The turn of the call that this thread is polling; none for one that has not met a tick yet.
    static TURN: Cell<Option<Turn>> = const { Cell::new(None) };
    static HAS_TICKED: Cell<bool> = const { Cell::new(false) };
    /// Whether a call that this thread has polled computes long and goes on to; until somebody asks.
    static COMPUTES_LONG: Cell<bool> = const { Cell::new(false) };
}

/// What a call has computed since its first tick when it is one that computes long: 1 to 2 ms with what
/// came before, and nothing of it waiting.
const LONG: Duration = Duration::from_micros(500);

/// What is known of how long the calls of a component compute.
pub(crate) struct Meter {
    clock: Clock,
    /// Whether the one that came last did for long; at once when one does.
    computes_long: AtomicBool,
}

/// A call whose processor time is counted.
pub(crate) struct Metered<'a, F> {
    call: F,
    meter: &'a Meter,
    /// What it has computed since its first tick, in turns that are over; none before that.
    computed: Option<Duration>,
}

/// A call is polled by one thread without a pause.
#[derive(Clone, Copy)]
struct Turn {
    /// What the call had computed before, since its first tick.
    before: Duration,
    /// What the thread's clock of processor time showed.
    began: Duration,
}

impl Turn {
    /// What the call has computed by now, since its first tick.
    fn computed(self) -> Duration {
        self.before + thread_time().saturating_sub(self.began)
    }
}

impl Meter {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self { clock: clock.clone(), computes_long: AtomicBool::new(false) }
    }

    /// For calls that say nothing about others of the component.
    pub(crate) fn apart(&self) -> Self {
        Self::new(&self.clock)
    }

    pub(crate) fn metered<F>(&self, call: F) -> Metered<'_, F> {
        Metered { call, meter: self, computed: None }
    }

    pub(crate) fn computes_long(&self) -> bool {
        self.computes_long.load(Ordering::Relaxed)
    }

    /// Written when it changes only: workers share it.
    fn set(&self, computes_long: bool) {
        if self.computes_long() != computes_long {
            self.computes_long.store(computes_long, Ordering::Relaxed);
        }
    }
}

/// Has whoever polls this call poll it where it gives way to others, as one that computes long: by all
/// that is known it will.
pub(crate) async fn give_way_first() {
    // Where a call gets as far as it can by itself, nobody asks whether it computes long; in its task
    // somebody does. One that is polled otherwise goes on where it is.
    let mut times = 0..2;
    poll_fn(|context| {
        if times.next().is_none() {
            return Poll::Ready(());
        }
        COMPUTES_LONG.set(true);
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Whether the future that this thread has just polled is a call that computes long and is not over:
/// others need not wait for it, and it should be polled where it gives way to them. Says so once.
pub(crate) fn take_computes_long() -> bool {
    COMPUTES_LONG.take()
}

impl<F: Future + Unpin> Future for Metered<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let turn = self.computed.map(|before| Turn { before, began: thread_time() });
        TURN.set(turn);
        HAS_TICKED.set(false);
        self.meter.clock.need();
        let polled = Pin::new(&mut self.call).poll(context);
        TURN.set(None);
        let has_ticked = HAS_TICKED.get();
        self.computed = turn.map(Turn::computed).or(has_ticked.then_some(Duration::ZERO));
        if self.computed.is_some_and(|computed| computed >= LONG) {
            // Now, so that others of the component that have begun do not take as long to show it.
            self.meter.set(true);
        } else if polled.is_ready() {
            self.meter.set(false);
        }
        if has_ticked {
            COMPUTES_LONG.set(polled.is_pending() && self.meter.computes_long());
        }
        polled
    }
}

/// Counts what the store's calls compute, and stops one that computes for longer than its settings allow.
pub(crate) fn count<T: 'static>(store: &mut Store<T>, settings: fn(&T) -> &PluginSettings) {
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |store: StoreContextMut<'_, T>| {
        tick(settings(store.data())).map_err(wasmtime::Error::new)
    });
}

fn tick(settings: &PluginSettings) -> Result<UpdateDeadline, Stopped> {
    HAS_TICKED.set(true);
    // The first one is met somewhere in the tick.
    let used = TICK + TURN.get().map_or(Duration::ZERO, Turn::computed);
    let max = settings.cpu_max;
    if used > max {
        let message = format!(
            "the component computed for longer than {max:?}; raise cpu_max in [{}] or make it compute \
             less",
            settings.section()
        );
        return Err(Stopped::new("cpu_limit", message));
    }
    Ok(UpdateDeadline::Yield(1))
}

#[cfg(target_os = "linux")]
fn thread_time() -> Duration {
    time_of(rustix::time::ClockId::ThreadCPUTime)
}

/// What all threads of this process have computed.
#[cfg(target_os = "linux")]
pub(crate) fn processor_time() -> Duration {
    time_of(rustix::time::ClockId::ProcessCPUTime)
}

#[cfg(target_os = "linux")]
fn time_of(clock: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn processor_time() -> Duration {
    thread_time()
}

/// Elsewhere what passes while a thread polls is taken for what it computes.
#[cfg(not(target_os = "linux"))]
fn thread_time() -> Duration {
    use std::sync::LazyLock;
    use std::time::Instant;
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGAN.elapsed()
}
