//! A limited amount that all plugins of a host share, such as bytes of memory or places for looking up
//! names.
//!
//! One rule divides it: a plugin may hold at most as much as it leaves free (dynamic thresholds:
//! Choudhury and Hahne, 1998). So one plugin alone holds at most a half, and two plugins that want
//! everything hold a third each. There is always something left for the next plugin. A plugin that holds
//! nothing may begin with three quarters of what is free, so that a large call finds room beside a plugin
//! that took its half. A part is kept for undos. It is counted apart, so what the executes of a plugin
//! hold takes nothing from its undos.
//!
//! Deliberately absent: a queue. Whoever finds no room is woken when there is enough, and asks again.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amends_engine::Direction;
use tokio::sync::Notify;

/// A plugin that holds nothing leaves at least one in so many of what was free.
const LEFT_PART: usize = 4;

/// So much of something.
pub(crate) struct Budget {
    max: usize,
    /// For undos only.
    kept: usize,
    state: Mutex<State>,
    /// Something was given back.
    freed: Notify,
}

#[derive(Default)]
struct State {
    used: usize,
    /// Who wants to hear when there is room: once for each share, direction and number.
    waiting: BTreeMap<(usize, Direction, usize), Waiting>,
}

struct Waiting {
    share: Arc<Share>,
    amount: usize,
    wake: Box<dyn FnOnce() + Send>,
}

/// What one plugin has of a budget.
pub(crate) struct Share {
    budget: Arc<Budget>,
    /// What its calls hold: those that execute, those that compensate. Written under the budget's
    /// lock.
    used: [AtomicUsize; 2],
}

/// What one call holds of a budget; given back when it is dropped.
pub(crate) struct Held {
    share: Arc<Share>,
    direction: Direction,
    amount: usize,
}

impl Budget {
    pub(crate) fn new(max: usize, kept: usize) -> Arc<Self> {
        Arc::new(Self { max, kept, state: Mutex::default(), freed: Notify::new() })
    }

    /// One that is never used up, for who shares with nobody.
    pub(crate) fn unlimited() -> Arc<Self> {
        Self::new(usize::MAX / 4, 0)
    }

    /// The most that one call may hold: a third, which a plugin that holds nothing gets beside one that
    /// took its half.
    pub(crate) fn one_max(&self) -> usize {
        (self.max - self.kept) / 3
    }

    /// What all hold together.
    pub(crate) fn used(&self) -> usize {
        self.lock().used
    }

    pub(crate) fn share(self: &Arc<Self>) -> Arc<Share> {
        Arc::new(Share {
            budget: Arc::clone(self),
            used: [AtomicUsize::new(0), AtomicUsize::new(0)],
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fits(&self, state: &State, share: &Share, direction: Direction, more: usize) -> bool {
        let limit = match direction {
            Direction::Execute => self.max - self.kept,
            Direction::Compensate => self.max,
        };
        let own = share.used(direction).load(Ordering::Relaxed);
        let left = limit.checked_sub(state.used).and_then(|free| free.checked_sub(more));
        left.is_some_and(|left| {
            own.saturating_add(more) <= left || own == 0 && more <= (LEFT_PART - 1) * left
        })
    }

    /// Takes it, if there is room.
    fn take(&self, state: &mut State, share: &Share, direction: Direction, more: usize) -> bool {
        let fits = more == 0 || self.fits(state, share, direction, more);
        if fits {
            state.used += more;
            share.used(direction).fetch_add(more, Ordering::Relaxed);
        }
        fits
    }

    fn give_back(&self, share: &Share, direction: Direction, amount: usize) {
        if amount == 0 {
            return;
        }
        let mut state = self.lock();
        state.used -= amount;
        share.used(direction).fetch_sub(amount, Ordering::Relaxed);
        let fit = |(_, direction, _): &(usize, Direction, usize), waiting: &Waiting| {
            self.fits(&state, &waiting.share, *direction, waiting.amount)
        };
        let found: Vec<_> = state
            .waiting
            .iter()
            .filter(|(key, waiting)| fit(key, waiting))
            .map(|(key, _)| *key)
            .collect();
        let woken: Vec<_> = found.iter().filter_map(|key| state.waiting.remove(key)).collect();
        drop(state);
        self.freed.notify_waiters();
        for waiting in woken {
            (waiting.wake)();
        }
    }
}

impl Share {
    /// Whether its plugin holds nothing of it, so that it is others who do.
    pub(crate) fn is_free(&self) -> bool {
        self.used.iter().all(|used| used.load(Ordering::Relaxed) == 0)
    }

    fn used(&self, direction: Direction) -> &AtomicUsize {
        match direction {
            Direction::Execute => &self.used[0],
            Direction::Compensate => &self.used[1],
        }
    }

    /// Takes so much; or has what `wake` makes called once, when there may be room for it. Of several
    /// that wait with the same number, one is told.
    pub(crate) fn take_or_wait(
        self: &Arc<Self>,
        direction: Direction,
        amount: usize,
        number: usize,
        wake: impl FnOnce() -> Box<dyn FnOnce() + Send>,
    ) -> Option<Held> {
        let mut state = self.budget.lock();
        if self.budget.take(&mut state, self, direction, amount) {
            return Some(Held { share: Arc::clone(self), direction, amount });
        }
        let key = (Arc::as_ptr(self).addr(), direction, number);
        let known = state.waiting.get(&key).map_or(usize::MAX, |known| known.amount);
        let (share, wake, amount) = (Arc::clone(self), wake(), amount.min(known));
        state.waiting.insert(key, Waiting { share, amount, wake });
        None
    }

    /// Takes so much as soon as there is room. May be dropped at any time.
    pub(crate) async fn take(self: &Arc<Self>, direction: Direction, amount: usize) -> Held {
        let mut held = Held::nothing(self, direction);
        loop {
            let mut freed = pin!(self.budget.freed.notified());
            // Before it is tried, so that what is given back in between is not missed.
            freed.as_mut().enable();
            if held.grow_to(amount) {
                return held;
            }
            freed.await;
        }
    }
}

impl Held {
    pub(crate) fn nothing(share: &Arc<Share>, direction: Direction) -> Self {
        Self { share: Arc::clone(share), direction, amount: 0 }
    }

    /// Whether it holds so much now; it holds what it held when there is no room for more.
    pub(crate) fn grow_to(&mut self, amount: usize) -> bool {
        let Some(more) = amount.checked_sub(self.amount) else { return true };
        let budget = &self.share.budget;
        let fits = budget.take(&mut budget.lock(), &self.share, self.direction, more);
        if fits {
            self.amount = amount;
        }
        fits
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.share.budget.give_back(&self.share, self.direction, self.amount);
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("amount", &self.amount).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use Direction::{Compensate, Execute};

    use super::*;

    /// As much as it can get, one by one.
    fn all(share: &Arc<Share>, direction: Direction) -> Held {
        let mut held = Held::nothing(share, direction);
        while held.grow_to(held.amount + 1) {}
        held
    }

    #[test]
    fn each_may_hold_as_much_as_it_leaves_to_others() {
        let budget = Budget::new(120, 20);
        let shares: Vec<_> = (0..4).map(|_| budget.share()).collect();
        let held = all(&shares[0], Execute);
        assert_eq!(held.amount, 50, "half of what is not kept for undos");
        assert_eq!(budget.one_max(), 33);
        let next: Vec<_> = shares[1..].iter().map(|share| all(share, Execute).amount).collect();
        assert_eq!(next, [25, 25, 25], "each found as much when it was given back");
        let both = (all(&shares[1], Execute), all(&shares[2], Execute));
        assert_eq!((both.0.amount, both.1.amount), (25, 12));
        // What executes hold is not what undos of the same plugin hold.
        assert_eq!(all(&shares[0], Compensate).amount, (120 - 87) / 2);
        drop((held, both));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn whoever_waits_is_woken_when_there_is_enough() {
        let budget = Budget::new(100, 0);
        let (greedy, other) = (budget.share(), budget.share());
        let woken = Arc::new(AtomicUsize::new(0));
        let wait = |amount| {
            let woken = Arc::clone(&woken);
            let wake = || {
                Box::new(move || {
                    let _ = woken.fetch_add(1, Ordering::SeqCst);
                }) as Box<_>
            };
            other.take_or_wait(Execute, amount, 1, wake)
        };
        let count = || woken.load(Ordering::SeqCst);
        let take = || greedy.take_or_wait(Execute, 10, 0, || Box::new(|| ()));
        let mut held: Vec<_> = (0..5).map(|_| take().unwrap()).collect();
        assert!(take().is_none());
        let one = wait(10);
        assert!(wait(40).is_none() && wait(50).is_none(), "the one that wants least is told");
        held.truncate(4);
        assert_eq!(count(), 0, "10 would be left, and 50 be held");
        held.truncate(0);
        assert_eq!(count(), 1);
        assert!(wait(50).is_none(), "40 would be left, and 60 be held");
        drop(one);
        assert_eq!(count(), 2, "it holds nothing: three quarters of what is free");
        assert_eq!(wait(75).map(|held| held.amount), Some(75));
        assert!(wait(76).is_none());
    }

    #[test]
    fn the_largest_call_finds_room_beside_a_plugin_that_takes_all_it_can() {
        let budget = Budget::new(1_000, 100);
        let (greedy, other) = (budget.share(), budget.share());
        let held = all(&greedy, Execute);
        assert_eq!(held.amount, 450);
        let found = other.take_or_wait(Execute, budget.one_max(), 0, || Box::new(|| ()));
        assert_eq!(found.map(|held| held.amount), Some(300));
    }

    #[tokio::test]
    async fn a_task_waits_for_room() {
        let budget = Budget::new(2, 0);
        let (share, other) = (budget.share(), budget.share());
        let held = share.take(Execute, 1).await;
        let waits = tokio::spawn(async move { other.take(Execute, 1).await.amount });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        drop(held);
        assert_eq!(waits.await.unwrap(), 1);
    }
}
