//! How far a verb about many sagas is, on a terminal.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use amends_engine::Timestamp;

use super::{from_now, span};

/// After so long without one more that is done, those in flight are said to wait, and no time is told
/// that is left: it is not known.
const STILL: Duration = Duration::from_secs(3);

/// A rate says something once so many are done and so long has passed.
const DONE_MIN: u64 = 10;
const ELAPSED_MIN: Duration = Duration::from_secs(1);

/// A bar on standard error, drawn only on a terminal and only in the foreground.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// How many are asked for at once.
    at_once: u64,
    began: Instant,
    last_done: Instant,
    /// When one of those in flight goes on, as was told last.
    next_at: Option<Timestamp>,
}

impl Progress {
    /// Of so many sagas, of which so many at once are in flight.
    pub(crate) fn new(sagas: u64, at_once: u64) -> Self {
        Self::of(sagas, at_once, "sagas")
    }

    /// Of so many of something, of which so many at once are in flight.
    pub(crate) fn of(count: u64, at_once: u64, what: &str) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            let style =
                ProgressStyle::with_template(&format!("{{bar:24}} {{pos}}/{{len}} {what}{{msg}}"));
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(count).with_style(style)
        } else {
            ProgressBar::hidden()
        };
        let now = Instant::now();
        Self { bar, at_once, began: now, last_done: now, next_at: None }
    }

    /// One more is done.
    pub(crate) fn inc(&mut self) {
        self.last_done = Instant::now();
        self.next_at = None;
        self.bar.inc(1);
        self.draw();
    }

    /// So many more are done.
    pub(crate) fn advance(&mut self, sagas: u64) {
        self.last_done = Instant::now();
        self.bar.inc(sagas);
        self.draw();
    }

    /// One that is in flight goes on at that time.
    pub(crate) fn goes_on_at(&mut self, at: Timestamp) {
        self.next_at = Some(at);
    }

    /// Tells how it stands, also when nothing moves. Called about once a second.
    pub(crate) fn draw(&self) {
        if !is_in_foreground() {
            // A shell writes there by now.
            self.bar.set_draw_target(ProgressDrawTarget::hidden());
            return;
        }
        let (done, all) = (self.bar.position(), self.bar.length().unwrap_or(0));
        let waiting = all.saturating_sub(done).min(self.at_once);
        self.bar.set_message(words(&Standing {
            done,
            all,
            waiting,
            elapsed: self.began.elapsed(),
            still: self.last_done.elapsed(),
            next: self.next_at.and_then(|at| upcoming(at, amends_runtime::now())),
        }));
    }

    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// `in 42s`; a time that has passed says nothing.
fn upcoming(at: Timestamp, now: Timestamp) -> Option<String> {
    (at > now).then(|| from_now(at, now))
}

struct Standing {
    done: u64,
    all: u64,
    waiting: u64,
    elapsed: Duration,
    /// Since the last one was done.
    still: Duration,
    next: Option<String>,
}

/// What is behind the count: how many a second and how long it takes yet, where both are known.
fn words(standing: &Standing) -> String {
    let Standing { done, all, waiting, elapsed, still, next } = standing;
    if *still > STILL && *waiting > 0 {
        let next = next.as_ref().map_or_else(String::new, |next| format!(", next attempt {next}"));
        return format!(", {waiting} wait{next}");
    }
    if *done < DONE_MIN || *elapsed < ELAPSED_MIN {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, reason = "it is shown with one decimal")]
    let (rate, left) = {
        let rate = *done as f64 / elapsed.as_secs_f64();
        (rate, all.saturating_sub(*done) as f64 / rate)
    };
    let rate = if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") };
    let left = span(Duration::from_secs(
        Duration::try_from_secs_f64(left).map_or(0, |left| left.as_secs()),
    ));
    let left = if left == "0ms" {
        String::new()
    } else {
        format!(", about {} left", left.replace(".0s", "s"))
    };
    format!(", {rate}/s{left}")
}

/// Whether this process may write to its terminal without being in the way of another. Where that
/// cannot be told, it may.
fn is_in_foreground() -> bool {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return true };
    // The name, in brackets, may have blanks: state, parent, group, session, terminal, its group.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let (group, foreground) = (fields.nth(2), fields.nth(2));
    foreground.is_none() || foreground == Some("-1") || group == foreground
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_no_time_that_it_cannot_know() {
        let seconds = Duration::from_secs;
        let standing = |done: u64, elapsed, still, next: Option<&str>| {
            let next = next.map(str::to_owned);
            let waiting = (1_000 - done).min(64);
            words(&Standing { done, all: 1_000, waiting, elapsed, still, next })
        };
        assert_eq!(standing(1, seconds(0), seconds(0), None), "");
        assert_eq!(standing(343, seconds(17), seconds(0), None), ", 20/s, about 32s left");
        assert_eq!(standing(40, seconds(16), seconds(1), None), ", 2.5/s, about 6m 24s left");
        assert_eq!(standing(779, seconds(60), seconds(9), None), ", 64 wait");
        let next = Some("in 42s");
        assert_eq!(standing(990, seconds(60), seconds(9), next), ", 10 wait, next attempt in 42s");
        assert_eq!(standing(1_000, seconds(60), seconds(9), None), ", 17/s");
    }

    #[test]
    fn an_attempt_whose_time_has_passed_is_not_the_next_one() {
        let at = Timestamp::from_millis;
        assert_eq!(upcoming(at(43_000), at(1_000)).as_deref(), Some("in 42s"));
        assert_eq!(upcoming(at(1_000), at(1_000)), None);
        assert_eq!(upcoming(at(1_000), at(21_000)), None);
        let mut bar = Progress::new(2, 2);
        bar.goes_on_at(at(1_000));
        bar.goes_on_at(at(2_000));
        assert_eq!(bar.next_at, Some(at(2_000)));
    }
}
