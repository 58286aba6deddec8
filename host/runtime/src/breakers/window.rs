//! The calls of the last seconds, counted.

use std::time::Duration;

use amends_engine::Timestamp;

/// Parts of a window. It forgets one part at once, so it is off by a tenth at most.
const PARTS: u8 = 10;

/// How many calls ended in the time just past, and how many of them failed. Takes the same memory
/// whatever the number of calls.
#[derive(Debug)]
pub(super) struct Window {
    part_ms: i64,
    parts: [Part; PARTS as usize],
}

/// The calls of one part of the time.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    /// Which, counted from the epoch.
    number: i64,
    count: Count,
}

/// Calls, and those of them that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Count {
    pub(super) calls: u32,
    pub(super) failed: u32,
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        let length_ms = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
        Self { part_ms: (length_ms / i64::from(PARTS)).max(1), parts: Default::default() }
    }

    pub(super) fn add(&mut self, failed: bool, at: Timestamp) {
        let number = self.number(at);
        let part = &mut self.parts[index(number)];
        // A clock that was set back counts into the part that is there.
        if part.number < number {
            *part = Part { number, count: Count::default() };
        }
        part.count.calls = part.count.calls.saturating_add(1);
        part.count.failed = part.count.failed.saturating_add(u32::from(failed));
    }

    pub(super) fn count(&self, at: Timestamp) -> Count {
        let oldest = self.number(at) - i64::from(PARTS) + 1;
        let parts = self.parts.iter().filter(|part| part.number >= oldest);
        parts.fold(Count::default(), |sum, part| Count {
            calls: sum.calls.saturating_add(part.count.calls),
            failed: sum.failed.saturating_add(part.count.failed),
        })
    }

    pub(super) fn clear(&mut self) {
        self.parts = Default::default();
    }

    fn number(&self, at: Timestamp) -> i64 {
        at.as_millis().div_euclid(self.part_ms)
    }
}

/// Where a part stands: a new one takes the place of the one that is a whole window older.
fn index(number: i64) -> usize {
    usize::try_from(number.rem_euclid(i64::from(PARTS))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_what_is_older_than_it_is_long() {
        let at = |millis: i64| Timestamp::from_millis(1_767_225_600_000 + millis);
        let mut window = Window::new(Duration::from_secs(10));
        let count = |calls, failed| Count { calls, failed };
        assert_eq!(window.count(at(0)), count(0, 0));
        window.add(true, at(0));
        window.add(false, at(999));
        window.add(true, at(5_000));
        assert_eq!(window.count(at(9_999)), count(3, 2));
        assert_eq!(window.count(at(10_000)), count(1, 1), "a part at once");
        window.add(false, at(10_000));
        assert_eq!(window.count(at(10_000)), count(2, 1), "in the place of the first");
        assert_eq!(window.count(at(1_000_000)), count(0, 0));
        window.clear();
        assert_eq!(window.count(at(10_000)), count(0, 0));
    }

    #[test]
    fn a_clock_that_is_set_back_loses_no_call() {
        let mut window = Window::new(Duration::from_secs(10));
        window.add(true, Timestamp::from_millis(25_000));
        window.add(true, Timestamp::from_millis(15_000));
        let count = window.count(Timestamp::from_millis(25_000));
        assert_eq!(count, Count { calls: 2, failed: 2 });
    }
}
