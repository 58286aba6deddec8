//! How often sagas may be started in a namespace.
//!
//! Sagas that a step starts are not counted: each belongs to a saga that was.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// How many sagas may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartRateSettings {
    /// Starts a second, in the long run.
    pub per_second: NonZeroU32,
    /// Starts that may come at once after a pause.
    pub burst: NonZeroU32,
}

/// Counts starts: the generic cell rate algorithm.
pub(crate) struct StartRate(DefaultDirectRateLimiter);

impl StartRate {
    pub(crate) fn new(settings: StartRateSettings) -> Self {
        let StartRateSettings { per_second, burst } = settings;
        Self(RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst)))
    }

    /// Counts a start. Returns how long it should have waited; none when it may go on.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let until = self.0.check().err()?;
        Some(until.wait_time_from(self.0.clock().now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_past_the_rate_wait() {
        let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let rate = StartRate::new(StartRateSettings { per_second: number(1), burst: number(3) });
        for _ in 0..3 {
            assert_eq!(rate.wait(), None);
        }
        let wait = rate.wait();
        assert!(wait.is_some_and(|wait| wait <= Duration::from_secs(1)), "{wait:?}");
    }
}
