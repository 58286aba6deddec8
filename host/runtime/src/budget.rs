//! Bytes that something may take together, and who holds how many of them.
//!
//! A budget refuses who asks first ([`Budget::try_hold`]) and nobody else: what must go on takes
//! what it needs ([`Budget::hold`]), also past the limit.
//!
//! Deliberately absent: waiting for room. Whoever is refused is told, and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A limit, and how much of it is taken.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, used: AtomicUsize::new(0) })
    }

    /// So many bytes, if there is room for them.
    pub(crate) fn try_hold(self: &Arc<Self>, bytes: usize) -> Option<HeldBytes> {
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(HeldBytes { budget: Arc::clone(self), bytes })
    }

    /// So many bytes, whether or not there is room for them.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> HeldBytes {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        HeldBytes { budget: Arc::clone(self), bytes }
    }

    /// Whether there is room for so many more.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.used().checked_add(bytes).is_some_and(|sum| sum <= self.bytes_max)
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// Bytes of a budget; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    budget: Arc<Budget>,
    bytes: usize,
}

impl HeldBytes {
    /// Holds so many from now on, whether or not there is room for them.
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            self.budget.used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.budget.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    #[test]
    fn a_budget_refuses_past_its_limit_and_nothing_that_must_go_on() {
        let budget = Budget::new(10);
        let mut first = budget.try_hold(6).unwrap();
        assert!(budget.try_hold(5).is_none());
        let second = budget.try_hold(4).unwrap();
        let third = budget.hold(7);
        assert_eq!(budget.used(), 17);
        assert!(budget.try_hold(0).is_none(), "it is past its limit");
        first.set(1);
        drop(third);
        assert_eq!(budget.used(), 5);
        first.set(8);
        drop((first, second));
        assert_eq!(budget.used(), 0);
        assert!(budget.try_hold(usize::MAX).is_none());
    }
}
