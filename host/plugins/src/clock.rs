//! The sandbox's clock: a thread that counts the engine's epochs while calls are polled, and sleeps
//! otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

use crate::error::PluginError;

/// A call that computes gives way this often, so that a loop without end costs its own time only.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Ticks without a call after which the clock sleeps: to wake it costs a call some microseconds, and
/// ticks that nobody needs cost a fiftieth of a core.
const TICKS_UNNEEDED_MAX: u32 = 100;

/// Ends with the last of its clones.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    state: Arc<State>,
    ticker: Arc<Ticker>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether a call has been polled since the last tick.
    is_needed: AtomicBool,
    is_asleep: AtomicBool,
    has_ended: AtomicBool,
}

#[derive(Debug)]
struct Ticker {
    state: Arc<State>,
    thread: Thread,
}

impl Clock {
    pub(crate) fn new(engine: &Engine) -> Result<Self, PluginError> {
        let (engine, state) = (engine.weak(), Arc::<State>::default());
        let counted = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("amends-epoch".to_owned())
            .spawn(move || counted.count(&engine))
            .map_err(|error| PluginError::Sandbox(error.to_string()))?;
        let thread = thread.thread().clone();
        Ok(Self { ticker: Arc::new(Ticker { state: Arc::clone(&state), thread }), state })
    }

    /// To be called whenever something is about to compute; that it does is met within a tick or two.
    pub(crate) fn need(&self) {
        // Mostly that is known, and then no other thread is disturbed.
        if !self.state.is_needed.load(Ordering::Relaxed) {
            self.state.is_needed.store(true, Ordering::SeqCst);
            if self.state.is_asleep.load(Ordering::SeqCst) {
                self.ticker.thread.unpark();
            }
        }
    }
}

impl State {
    fn count(&self, engine: &EngineWeak) {
        let mut unneeded = 0;
        while !self.has_ended.load(Ordering::SeqCst) {
            std::thread::park_timeout(TICK);
            let Some(engine) = engine.upgrade() else { return };
            engine.increment_epoch();
            drop(engine);
            unneeded = if self.is_needed.swap(false, Ordering::SeqCst) { 0 } else { unneeded + 1 };
            if unneeded >= TICKS_UNNEEDED_MAX {
                self.sleep();
                unneeded = 0;
            }
        }
    }

    /// Until the clock is needed or has ended.
    fn sleep(&self) {
        self.is_asleep.store(true, Ordering::SeqCst);
        // Whoever says so after this looks sees that it sleeps.
        while !self.is_needed.load(Ordering::SeqCst) && !self.has_ended.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.is_asleep.store(false, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.has_ended.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    /// What is stopped by the clock: a loop without end.
    fn is_stopped(engine: &Engine, clock: &Clock) {
        let module = wat::parse_str("(module (func (export \"spin\") (loop (br 0))))").unwrap();
        let module = wasmtime::Module::new(engine, module).unwrap();
        let mut store = wasmtime::Store::new(engine, ());
        store.set_epoch_deadline(3);
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
        let spin = instance.get_typed_func::<(), ()>(&mut store, "spin").unwrap();
        clock.need();
        assert!(spin.call(&mut store, ()).is_err());
    }

    #[test]
    fn it_sleeps_when_nothing_computes_and_wakes_when_something_does() {
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        let engine = Engine::new(&config).unwrap();
        let clock = Clock::new(&engine).unwrap();
        for _ in 0..3 {
            while !clock.state.is_asleep.load(Ordering::SeqCst) {
                std::thread::sleep(TICK);
            }
            is_stopped(&engine, &clock);
        }
        let state = Arc::clone(&clock.state);
        drop(clock);
        // The thread has the other one, and ends.
        while Arc::strong_count(&state) > 1 {
            std::thread::sleep(TICK);
        }
    }
}
