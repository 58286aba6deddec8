//! How often somebody may ask: the holder of a token, and an address from which no token comes that counts.
//!
//! A rate belongs to a token. So a program that asks too often is refused, and nobody else: the person on call has
//! another token. Requests about the host's health have no rate.

use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::Clock as _;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::error::{ApiError, retry_after};
use crate::network::network_of;

/// Requests a second without a token that counts, from one address: a program with a wrong token is told so, and a
/// flood is told to wait.
const REFUSED_PER_SECOND: u32 = 100;

/// So many of them may come at once.
const REFUSED_AT_ONCE: u32 = 2_000;

/// So many tokens or addresses are told apart. All others that come in the same seconds share one rate, so that a flood
/// from everywhere takes no more memory.
const RATES_MAX: usize = 10_000;

/// The pause before those that have not asked lately are looked for again.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// The rates of a host.
pub(crate) struct Rates {
    /// By the name of a token. None: any number of requests.
    tokens: Option<Rate<String>>,
    /// By the address, of requests without a token that counts.
    refused: Rate<IpAddr>,
}

impl Default for Rates {
    fn default() -> Self {
        let [per_second, at_once] = [REFUSED_PER_SECOND, REFUSED_AT_ONCE]
            .map(|number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN));
        // Nobody asks from this address.
        let others = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self { tokens: None, refused: Rate::new(per_second, at_once, others) }
    }
}

impl Rates {
    /// Makes rates with one for each token: requests a second, and how many may come at once.
    pub(crate) fn of_tokens(per_second: NonZeroU32, at_once: NonZeroU32) -> Self {
        // No token has an empty name.
        let tokens = Some(Rate::new(per_second, at_once, String::new()));
        Self { tokens, ..Self::default() }
    }

    /// Counts a request of the holder of a token, or of a person whom a proxy names. Returns its refusal when it comes
    /// too soon. `kind` is the word for which of them it is.
    pub(crate) fn refuse_holder(&self, kind: &str, name: &str) -> Option<ApiError> {
        let wait = self.tokens.as_ref()?.wait(&name.to_owned())?;
        let detail =
            format!("more requests come from the {kind} `{name}` than `rate` in [auth] allows");
        Some(rate_limited(detail, wait))
    }

    /// Counts a request without a token that counts. Returns another refusal when too many come from its address.
    pub(crate) fn refuse_address(&self, address: IpAddr) -> Option<ApiError> {
        let wait = self.refused.wait(&network_of(address))?;
        let detail = format!("too many requests without a token that counts come from {address}");
        Some(rate_limited(detail, wait))
    }
}

fn rate_limited(detail: String, wait: Duration) -> ApiError {
    ApiError::new(429, "rate_limited", detail)
        .with_remedy("send fewer requests a second, and try again after the time in Retry-After")
        .with_retry_after(retry_after(wait))
}

/// A rate of requests for each key: the generic cell rate algorithm.
struct Rate<K: Hash + Eq + Clone> {
    cells: DefaultKeyedRateLimiter<K>,
    /// The key of those that find no room of their own.
    others: K,
    /// When keys were last removed that have not asked lately.
    swept: Mutex<Instant>,
}

impl<K: Hash + Eq + Clone> Rate<K> {
    fn new(per_second: NonZeroU32, at_once: NonZeroU32, others: K) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(at_once);
        Self { cells: RateLimiter::keyed(quota), others, swept: Mutex::new(Instant::now()) }
    }

    /// Counts a request. Returns how long it should have waited; none when it may go on.
    fn wait(&self, key: &K) -> Option<Duration> {
        let key = if self.is_full() { &self.others } else { key };
        let until = self.cells.check_key(key).err()?;
        Some(until.wait_time_from(self.cells.clock().now()))
    }

    fn is_full(&self) -> bool {
        if self.cells.len() < RATES_MAX {
            return false;
        }
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.elapsed() >= SWEEP_PAUSE {
            *swept = Instant::now();
            self.cells.retain_recent();
            self.cells.shrink_to_fit();
        }
        self.cells.len() >= RATES_MAX
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    fn number(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    #[test]
    fn a_token_that_asks_too_often_is_refused_and_no_other() {
        let rates = Rates::of_tokens(number(1), number(3));
        for _ in 0..3 {
            assert!(rates.refuse_holder("token", "shop").is_none());
        }
        let problem = rates.refuse_holder("token", "shop").unwrap();
        assert_eq!((problem.status(), problem.code()), (429, "rate_limited"));
        assert!(rates.refuse_holder("token", "grace").is_none());
        assert!(Rates::default().refuse_holder("token", "shop").is_none(), "no rate is set");
    }

    #[test]
    fn a_rate_comes_back() {
        let rate = Rate::new(number(20), number(1), 0_u32);
        assert_eq!(rate.wait(&7), None);
        let wait = rate.wait(&7).unwrap();
        assert!(wait <= Duration::from_millis(50), "{wait:?}");
        std::thread::sleep(wait);
        assert_eq!(rate.wait(&7), None);
    }

    #[test]
    fn keys_past_the_limit_share_a_rate() {
        let rate = Rate::new(number(1), number(2), 0_u32);
        for key in 1..=u32::try_from(RATES_MAX).unwrap() {
            assert_eq!(rate.wait(&key), None);
        }
        // Both are others, which have one request more.
        assert_eq!([20_001, 20_002].map(|key| rate.wait(&key)), [None, None]);
        assert!(rate.wait(&20_003).is_some());
        assert!(rate.cells.len() <= RATES_MAX + 1, "{}", rate.cells.len());
    }

    #[test]
    fn retry_after_is_in_whole_seconds() {
        for (wait, seconds) in [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2"), (90_000, "90")] {
            assert_eq!(retry_after(Duration::from_millis(wait)), seconds);
        }
    }
}
