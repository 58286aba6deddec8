//! How long the host waits for a peer that is slow.
//!
//! Only the time counts in which the host waits and nothing moves; what the host itself takes does
//! not. Whether that is a body that does not come or an answer that is not read is not known here.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// How long a peer may let the host wait, at first and at most. A connection that breaks without a
/// word is as long as this in the way of others; a network that stalls for a moment is not.
pub(crate) const WAITED_MAX: Duration = Duration::from_secs(30);

/// Bytes that earn a peer one more second. A peer that is slower in the long run is cut off after
/// [`WAITED_MAX`]; a modem of the nineties is not much slower.
pub(crate) const BYTES_PER_SECOND_MIN: u32 = 16 << 10;

/// The waiting that a peer has left.
#[derive(Debug)]
pub(crate) struct Pace {
    left: Duration,
    /// When the host began to wait.
    since: Option<Instant>,
    /// Made when the host waits for the first time, which most requests never have it do.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { left: WAITED_MAX, since: None, sleep: None }
    }
}

impl Pace {
    /// Ends a wait: so many bytes have come or gone.
    pub(crate) fn moved(&mut self, bytes: usize) {
        let waited = self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.left = left_after(self.left, waited, bytes);
    }

    /// Goes on waiting; ready when the peer has let the host wait for too long.
    pub(crate) fn poll_used_up(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.since.get_or_insert_with(Instant::now) + self.left;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(context)
    }
}

fn left_after(left: Duration, waited: Duration, bytes: usize) -> Duration {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let earned = Duration::from_secs(u64::from(bytes)) / BYTES_PER_SECOND_MIN;
    (left.saturating_sub(waited) + earned).min(WAITED_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a peer is waited for that lets so many bytes move every ten seconds; none: for ever.
    fn waited_for(bytes: usize) -> Option<Duration> {
        let (pause, mut left) = (Duration::from_secs(10), WAITED_MAX);
        let mut waited = Duration::ZERO;
        for _ in 0..10_000 {
            if left <= pause {
                return Some(waited + left);
            }
            waited += pause;
            left = left_after(left, pause, bytes);
        }
        None
    }

    #[test]
    fn a_peer_earns_time_by_what_it_moves() {
        let enough = 10 * BYTES_PER_SECOND_MIN as usize;
        assert_eq!(waited_for(0), Some(WAITED_MAX));
        assert!(waited_for(1).is_some_and(|waited| waited < WAITED_MAX * 2));
        assert!(waited_for(enough / 2).is_some_and(|waited| waited <= WAITED_MAX * 2));
        assert!(waited_for(enough * 9 / 10).is_some());
        assert_eq!(waited_for(enough), None);
        assert_eq!(
            left_after(WAITED_MAX, Duration::ZERO, usize::MAX),
            WAITED_MAX,
            "no more than at first"
        );
    }
}
