//! The sandbox's clock: a thread that counts the engine's epochs, fast while calls are polled and slowly
//! otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

use crate::error::SandboxError;

/// A call that computes gives way this often, so that a loop without end costs its own time only.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Ticks without a call after which the clock slows down: to wake it costs a call some microseconds, and
/// ticks that nobody needs cost a fiftieth of a core.
const TICKS_UNNEEDED_MAX: u32 = 100;

/// Between two ticks of a clock that nobody needs. It never stops: a call sets its next tick when it
/// goes on, which may be long after it said that it needs the clock.
const SLOW_TICK: Duration = Duration::from_millis(100);

/// Its thread ends when it finds the engine gone.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    state: Arc<State>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct State {
    /// Whether a call has been polled since the last tick.
    is_needed: AtomicBool,
    is_slow: AtomicBool,
}

impl Clock {
    pub(crate) fn new(engine: &Engine) -> Result<Self, SandboxError> {
        let (engine, state) = (engine.weak(), Arc::<State>::default());
        let counted = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("amends-epoch".to_owned())
            .spawn(move || counted.count(&engine))
            .map_err(|error| SandboxError::SetUp(error.to_string()))?;
        Ok(Self { state, thread: thread.thread().clone() })
    }

    /// To be called whenever something is about to compute.
    pub(crate) fn need(&self) {
        // Mostly that is known, and then no other thread is disturbed. Who sees it as the clock takes it
        // away has as many ticks before him as the clock makes without being needed.
        if !self.state.is_needed.load(Ordering::Relaxed) {
            self.state.is_needed.store(true, Ordering::SeqCst);
            if self.state.is_slow.load(Ordering::SeqCst) {
                self.thread.unpark();
            }
        }
    }
}

impl State {
    fn count(&self, engine: &EngineWeak) {
        let mut unneeded = 0;
        loop {
            if unneeded < TICKS_UNNEEDED_MAX {
                std::thread::park_timeout(TICK);
            } else {
                self.is_slow.store(true, Ordering::SeqCst);
                // Whoever says so after this looks sees that it is slow, and wakes it.
                if !self.is_needed.load(Ordering::SeqCst) {
                    std::thread::park_timeout(SLOW_TICK);
                }
                self.is_slow.store(false, Ordering::SeqCst);
            }
            let Some(engine) = engine.upgrade() else { return };
            engine.increment_epoch();
            let is_needed = self.is_needed.swap(false, Ordering::SeqCst);
            unneeded = if is_needed { 0 } else { unneeded.saturating_add(1) };
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    /// How long a loop without end computes before it has met three ticks.
    fn spin(engine: &Engine, clock: &Clock) -> Duration {
        let module = wat::parse_str("(module (func (export \"spin\") (loop (br 0))))").unwrap();
        let module = wasmtime::Module::new(engine, module).unwrap();
        let mut store = wasmtime::Store::new(engine, ());
        let clock = clock.clone();
        let (stopped, is_stopped) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
            let spin = instance.get_typed_func::<(), ()>(&mut store, "spin").unwrap();
            store.set_epoch_deadline(3);
            clock.need();
            let began = std::time::Instant::now();
            let end = spin.call(&mut store, ());
            stopped.send((end.is_err(), began.elapsed())).unwrap();
        });
        let (is_stopped, took) = is_stopped.recv_timeout(Duration::from_mins(1)).unwrap();
        assert!(is_stopped);
        took
    }

    #[test]
    fn it_is_slow_when_nothing_computes_and_fast_when_something_does() {
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        let engine = Engine::new(&config).unwrap();
        let clock = Clock::new(&engine).unwrap();
        let mut shortest = Duration::MAX;
        for round in 0..20 {
            let until_slow = TICK * TICKS_UNNEEDED_MAX * 2;
            // Also at the moment at which it is about to slow down.
            std::thread::sleep(TICK * TICKS_UNNEEDED_MAX + TICK * round);
            if round == 0 {
                std::thread::sleep(until_slow);
                assert!(clock.state.is_slow.load(Ordering::SeqCst));
            }
            shortest = shortest.min(spin(&engine, &clock));
        }
        // At its slowest it would be three of these.
        assert!(shortest < SLOW_TICK * 2, "{shortest:?}");
        let state = Arc::clone(&clock.state);
        drop((clock, engine));
        // When the thread has ended, nobody else has the state.
        for _ in 0..60_000 {
            if Arc::strong_count(&state) == 1 {
                return;
            }
            std::thread::sleep(TICK);
        }
        panic!("the clock goes on");
    }
}
