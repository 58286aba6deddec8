//! Whether the store takes writes: told at once, and logged when that ends, once a minute while it lasts,
//! and when it comes back, however many appends fail in between.
//!
//! Deliberately absent: a wait of the writer. Every append is tried, so the first that finds room is
//! written.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::{StoreError, StoreHealth};

/// Writes must have worked for so long before the store is well again.
const QUIET: Duration = Duration::from_millis(500);

/// The same at most: it doubles with every trouble that comes soon after the last one, so that a
/// write that never fits does not have everybody woken twice a second.
const QUIET_MAX: Duration = Duration::from_secs(8);

/// A trouble comes soon after the last one within so long.
const SOON: Duration = Duration::from_mins(1);

/// How often it is logged that the trouble goes on: the log may be on the same disk.
const REMINDER: Duration = Duration::from_mins(1);

/// What the writer knows and tells of its own state.
pub(super) struct Health {
    told: watch::Sender<StoreHealth>,
    trouble: Option<Trouble>,
    quiet: Duration,
    /// When the last trouble was over.
    over_at: Option<Instant>,
}

/// A time in which writes fail.
struct Trouble {
    began: Instant,
    failed_at: Instant,
    /// When it was last logged.
    logged_at: Instant,
    /// Transactions that failed.
    failures: u64,
    word: &'static str,
}

impl Health {
    pub(super) fn new(told: watch::Sender<StoreHealth>) -> Self {
        Self { told, trouble: None, quiet: QUIET, over_at: None }
    }

    pub(super) const fn is_in_trouble(&self) -> bool {
        self.trouble.is_some()
    }

    /// Why it never will write again.
    pub(super) fn lost(&self) -> Option<StoreError> {
        match &*self.told.borrow() {
            StoreHealth::Lost(error) => Some(error.clone()),
            StoreHealth::Well | StoreHealth::NoWrites(_) => None,
        }
    }

    /// A transaction was written.
    pub(super) fn worked(&mut self) {
        let Some(trouble) = &self.trouble else { return };
        if trouble.failed_at.elapsed() < self.quiet {
            return;
        }
        let (failures, took) = (trouble.failures, trouble.began.elapsed());
        tracing::info!(failures, seconds = took.as_secs_f64(), "the store takes writes again");
        self.trouble = None;
        self.over_at = Some(Instant::now());
        self.told.send_replace(StoreHealth::Well);
    }

    /// A transaction failed, all of it.
    pub(super) fn failed(&mut self, error: &StoreError) {
        if error.is_fatal() {
            return lose(&self.told, error);
        }
        count(error);
        let (now, word) = (Instant::now(), error.word());
        if let Some(trouble) = &mut self.trouble {
            trouble.failures += 1;
            trouble.failed_at = now;
            if trouble.word == word {
                if trouble.is_reminded(now) {
                    let (failures, took) = (trouble.failures, now.duration_since(trouble.began));
                    tracing::error!(failures, seconds = took.as_secs(), %error, "the store still takes no writes");
                }
                return;
            }
            (trouble.word, trouble.logged_at) = (word, now);
        } else {
            let is_soon = self.over_at.is_some_and(|at| at.elapsed() < SOON);
            self.quiet = if is_soon { (self.quiet * 2).min(QUIET_MAX) } else { QUIET };
            let trouble = Trouble { began: now, failed_at: now, logged_at: now, failures: 1, word };
            self.trouble = Some(trouble);
        }
        tracing::error!(%error, "the store takes no writes; it looks by itself whether it can again");
        self.told.send_replace(StoreHealth::NoWrites(error.clone()));
    }
}

impl Trouble {
    /// Whether it is time to log it again; then it counts as logged.
    fn is_reminded(&mut self, now: Instant) -> bool {
        let is_time = now.duration_since(self.logged_at) >= REMINDER;
        if is_time {
            self.logged_at = now;
        }
        is_time
    }
}

/// Tells that the store is lost; the first reason stands.
pub(super) fn lose(told: &watch::Sender<StoreHealth>, error: &StoreError) {
    count(error);
    let is_first = told.send_if_modified(|health| {
        let is_first = !matches!(health, StoreHealth::Lost(_));
        if is_first {
            *health = StoreHealth::Lost(error.clone());
        }
        is_first
    });
    if is_first {
        tracing::error!(%error, "the store is lost to this process");
    }
}

fn count(error: &StoreError) {
    metrics::counter!("amends_store_failed_total", "reason" => error.word()).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_that_lasts_is_logged_once_a_minute() {
        let now = Instant::now();
        let mut trouble =
            Trouble { began: now, failed_at: now, logged_at: now, failures: 1, word: "full" };
        let seconds = (1..200).filter(|seconds| {
            let at = now + Duration::from_secs(*seconds);
            // However many fail in it.
            (0..100).filter(|_| trouble.is_reminded(at)).count() > 0
        });
        assert_eq!(seconds.collect::<Vec<_>>(), [60, 120, 180]);
    }
}
