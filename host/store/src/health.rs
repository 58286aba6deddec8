//! Whether the store takes writes.
//!
//! A change is reported at once. The log has a line when writes begin to fail, one a minute while
//! they fail, and one when they work again, however many appends fail in between.
//!
//! Deliberately absent: a pause of the writer. Every append is tried, so the first one that fits is
//! written.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::error::StoreError;
use crate::maintenance::StoreHealth;

/// How long writes must have worked before the store is well again.
const QUIET: Duration = Duration::from_millis(500);

/// The longest such time. It doubles with every trouble that follows soon after the last one. So a
/// write that never fits does not wake all callers twice a second.
const QUIET_MAX: Duration = Duration::from_secs(8);

/// The time within which a trouble counts as soon after the last one.
const SOON: Duration = Duration::from_mins(1);

/// The pause between log lines about a trouble that lasts: the log may be on the same disk.
const REMINDER: Duration = Duration::from_mins(1);

/// What the writer knows and reports of its own health.
pub(crate) struct Health {
    reported: watch::Sender<StoreHealth>,
    trouble: Option<Trouble>,
    quiet: Duration,
    /// When the last trouble was over.
    over_at: Option<Instant>,
}

/// A period in which writes fail.
struct Trouble {
    began: Instant,
    failed_at: Instant,
    /// When the trouble was last logged.
    logged_at: Instant,
    /// The number of transactions that failed.
    failures: u64,
    word: &'static str,
}

impl Health {
    /// Makes the health of a store that takes writes.
    pub(crate) fn new(reported: watch::Sender<StoreHealth>) -> Self {
        // From 0 on, so that the first failure is an increase.
        for reason in ["database", "full", "file", "damaged", "fenced", "writer_ended"] {
            metrics::counter!("amends_store_failed_total", "reason" => reason).increment(0);
        }
        Self { reported, trouble: None, quiet: QUIET, over_at: None }
    }

    /// Returns true while writes fail.
    pub(crate) const fn is_in_trouble(&self) -> bool {
        self.trouble.is_some()
    }

    /// Returns the reason why the writer never will write again, if there is one.
    pub(crate) fn lost(&self) -> Option<StoreError> {
        match &*self.reported.borrow() {
            StoreHealth::Lost(error) => Some(error.clone()),
            StoreHealth::Well | StoreHealth::NoWrites(_) => None,
        }
    }

    /// Records that a transaction was written.
    pub(crate) fn worked(&mut self) {
        let Some(trouble) = &self.trouble else { return };
        if trouble.failed_at.elapsed() < self.quiet {
            return;
        }
        let (failures, took) = (trouble.failures, trouble.began.elapsed());
        tracing::info!(failures, seconds = took.as_secs_f64(), "the store takes writes again");
        self.trouble = None;
        self.over_at = Some(Instant::now());
        self.reported.send_replace(StoreHealth::Well);
    }

    /// Records that a transaction failed as a whole.
    pub(crate) fn failed(&mut self, error: &StoreError) {
        if error.is_fatal() {
            return lose(&self.reported, error);
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
        self.reported.send_replace(StoreHealth::NoWrites(error.clone()));
    }
}

impl Trouble {
    /// Returns true when it is time to log the trouble again, and then counts it as logged.
    fn is_reminded(&mut self, now: Instant) -> bool {
        let is_time = now.duration_since(self.logged_at) >= REMINDER;
        if is_time {
            self.logged_at = now;
        }
        is_time
    }
}

/// Reports that the store is lost. The first reason stays.
pub(crate) fn lose(reported: &watch::Sender<StoreHealth>, error: &StoreError) {
    count(error);
    let is_first = reported.send_if_modified(|health| {
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
