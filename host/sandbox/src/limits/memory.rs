//! How much memory guests have together, and how much of it a call holds.
//!
//! A call begins with as much as calls of its plugin have needed lately, and takes more as its
//! memories and tables grow. A call that finds no more memory is stopped. If it has sent no request, it
//! counts as not begun, and it begins again when there is more room than it asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use amends_engine::Direction;

use crate::limits::budget::{Budget, Held, Share};

/// One in so many bytes is for instances that wait to be used again: calls need not wait for them.
const IDLE_PART: usize = 8;

/// Of the memory of calls, one in so many bytes is kept for undos.
const KEPT_PART: usize = 8;

/// What a call needs is forgotten by so much with each that needs less: a few large calls must not
/// make all later ones wait for as much.
const FORGOTTEN_PART: usize = 8;

/// The memory of all guests of a host.
pub(crate) struct Memory {
    calls: Arc<Budget>,
    idle: Arc<Budget>,
}

/// What one plugin has of it, and what its calls need.
pub struct PluginMemory {
    calls: Arc<Share>,
    idle: Arc<Share>,
    /// The most that one call may have, memories and tables.
    call_max: usize,
    /// Bytes that a call has needed lately.
    need: AtomicUsize,
}

/// The memory that one call holds; given back when it is dropped.
#[derive(Debug)]
pub struct CallMemory(pub(crate) Held);

impl Memory {
    /// `max`: bytes of all guests together.
    pub(crate) fn new(max: u64) -> Self {
        let max = usize::try_from(max).unwrap_or(usize::MAX).min(usize::MAX / 4);
        let idle = max / IDLE_PART;
        let calls = max - idle;
        Self { calls: Budget::new(calls, calls / KEPT_PART), idle: Budget::new(idle, 0) }
    }

    /// `call_max`: what the plugin's settings allow a call.
    pub(crate) fn of_plugin(&self, call_max: usize) -> PluginMemory {
        PluginMemory {
            calls: self.calls.share(),
            idle: self.idle.share(),
            call_max: call_max.min(self.calls.one_max()),
            need: AtomicUsize::new(0),
        }
    }

    /// Bytes that guests have now.
    pub(crate) fn used(&self) -> usize {
        self.calls.used() + self.idle.used()
    }
}

/// The most that one call can have of so many bytes for all guests.
#[must_use]
pub fn call_memory_max(memory_bytes_max: u64) -> u64 {
    Memory::new(memory_bytes_max).calls.one_max() as u64
}

impl PluginMemory {
    /// For who shares with nobody.
    #[must_use]
    pub fn alone() -> Self {
        let memory = Budget::unlimited();
        let (calls, idle) = (memory.share(), memory.share());
        Self { calls, idle, call_max: memory.one_max(), need: AtomicUsize::new(0) }
    }

    /// Takes as much as a call is likely to need; or has what `wake` makes called once, when there may
    /// be room. Of several that wait with the same number, one is told.
    pub fn take(
        &self,
        direction: Direction,
        number: usize,
        wake: impl FnOnce() -> Box<dyn FnOnce() + Send>,
    ) -> Option<CallMemory> {
        let need = self.need.load(Ordering::Relaxed);
        self.calls.take_or_wait(direction, need, number, wake).map(CallMemory)
    }

    /// Nothing yet, for a call that nobody has taken memory for.
    pub(crate) fn nothing(&self, direction: Direction) -> Held {
        Held::nothing(&self.calls, direction)
    }

    /// The place of an instance that waits to be used again; none when those that wait have enough.
    pub(crate) fn rest(&self, bytes: usize) -> Option<Held> {
        let mut held = Held::nothing(&self.idle, Direction::Execute);
        held.grow_to(bytes).then_some(held)
    }

    /// The most that one call may have, memories and tables.
    pub(crate) fn call_max(&self) -> usize {
        self.call_max
    }

    /// A call has needed so many bytes.
    pub(crate) fn needed(&self, bytes: usize) {
        let known = self.need.load(Ordering::Relaxed);
        let need = bytes.max(known - known / FORGOTTEN_PART);
        if need != known {
            self.need.store(need, Ordering::Relaxed);
        }
    }

    /// A call wanted so many bytes and found no room. Twice as many are waited for: of several that
    /// grow at once and stop one another, few begin again.
    pub(crate) fn wanted(&self, bytes: usize) {
        let need = bytes.saturating_mul(2).min(self.call_max);
        self.need.fetch_max(need, Ordering::Relaxed);
    }
}
