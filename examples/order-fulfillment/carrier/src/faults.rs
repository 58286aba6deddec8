//! What goes wrong on purpose, and how often: the same seed and the same order of requests give
//! the same faults. Nothing is done about them here; see `http`.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A request stalls at most this long: ten minutes are past any caller's patience.
pub(crate) const STALL_MS_MAX: u64 = 600_000;

/// At most this many requests stall at a time, for each keeps some kilobytes after its caller
/// left; one more fails.
const STALLED_MAX: usize = 10_000;

/// How likely something is: 0 for never to 1 for always.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub(crate) struct Probability(f64);

impl TryFrom<f64> for Probability {
    type Error = String;

    fn try_from(number: f64) -> Result<Self, String> {
        let within = (0.0..=1.0).contains(&number);
        within.then_some(Self(number)).ok_or_else(|| not_a_probability(&number.to_string()))
    }
}

impl From<Probability> for f64 {
    fn from(probability: Probability) -> Self {
        probability.0
    }
}

impl FromStr for Probability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| not_a_probability(text)).and_then(|number: f64| number.try_into())
    }
}

fn not_a_probability(text: &str) -> String {
    format!("`{text}` is not a probability: write a number from 0 to 1, such as 0.05")
}

/// How likely each fault is, as `GET /faults` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Chances {
    /// 503, and no effect.
    pub(crate) fail: Probability,
    /// The effect comes late.
    pub(crate) stall: Probability,
    /// How late: at most [`STALL_MS_MAX`].
    pub(crate) stall_ms: u64,
    /// The effect, and no answer.
    pub(crate) lose: Probability,
    /// Handled twice.
    pub(crate) duplicate: Probability,
}

/// The body of `POST /faults`: what is not in it stays as it is.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    fail: Option<Probability>,
    stall: Option<Probability>,
    stall_ms: Option<u64>,
    lose: Option<Probability>,
    duplicate: Option<Probability>,
}

/// What happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Requests that a fault was drawn for.
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    pub(crate) stalled: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
}

/// What is to become of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Refused as unavailable, without an effect.
    Fail,
    /// Handled.
    Handle {
        /// How long to wait before it.
        stall: Option<Duration>,
        /// Whether its answer gets lost.
        lose: bool,
        /// Whether it arrives twice.
        duplicate: bool,
    },
}

/// Draws what becomes of each request, and counts it.
#[derive(Debug)]
pub(crate) struct Faults {
    chances: Chances,
    random: Random,
    counts: Counts,
    /// Requests that wait now.
    stalled_now: usize,
}

impl Faults {
    /// With these chances from the start.
    pub(crate) fn new(chances: Chances, seed: u64) -> Self {
        Self { chances, random: Random(seed), counts: Counts::default(), stalled_now: 0 }
    }

    /// For the next request. One that is to stall ends with [`Self::end_stall`].
    pub(crate) fn draw(&mut self) -> Fate {
        // Four draws whatever comes of them, so that changing one chance moves none of the others.
        let fail = self.random.happens(self.chances.fail);
        let stall = self.random.happens(self.chances.stall);
        let lose = self.random.happens(self.chances.lose);
        let duplicate = self.random.happens(self.chances.duplicate);
        self.counts.requests += 1;
        if fail || stall && self.stalled_now >= STALLED_MAX {
            self.counts.failed += 1;
            return Fate::Fail;
        }
        self.counts.stalled += u64::from(stall);
        self.counts.lost += u64::from(lose);
        self.counts.duplicated += u64::from(duplicate);
        self.stalled_now += usize::from(stall);
        let stall = stall.then(|| Duration::from_millis(self.chances.stall_ms));
        Fate::Handle { stall, lose, duplicate }
    }

    /// A request that stalled goes on.
    pub(crate) fn end_stall(&mut self) {
        self.stalled_now = self.stalled_now.saturating_sub(1);
    }

    /// Takes what `change` has; all of it, or nothing.
    ///
    /// # Errors
    /// Says what is wrong when a request would stall too long.
    pub(crate) fn change(&mut self, change: Change) -> Result<(), String> {
        let before = self.chances;
        self.chances = Chances {
            fail: change.fail.unwrap_or(before.fail),
            stall: change.stall.unwrap_or(before.stall),
            stall_ms: change.stall_ms.map_or(Ok(before.stall_ms), check_stall_ms)?,
            lose: change.lose.unwrap_or(before.lose),
            duplicate: change.duplicate.unwrap_or(before.duplicate),
        };
        Ok(())
    }

    /// The present ones.
    pub(crate) fn chances(&self) -> Chances {
        self.chances
    }

    /// Since the start.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }
}

/// Reads how long a request stalls, such as `500ms` or `3s`, into milliseconds.
///
/// # Errors
/// Says what is wrong when the text is anything else, or longer than [`STALL_MS_MAX`].
pub(crate) fn parse_stall_ms(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!("`{text}` is not a duration: write a whole number and ms or s, such as 500ms or 3s")
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    check_stall_ms(number.saturating_mul(unit_ms))
}

fn check_stall_ms(stall_ms: u64) -> Result<u64, String> {
    let within = stall_ms <= STALL_MS_MAX;
    within.then_some(stall_ms).ok_or_else(|| format!("a stall is at most {STALL_MS_MAX} ms"))
}

/// `SplitMix64` (Steele, Lea and Flood, 2014): small, and the same everywhere.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    /// The upper half over 2^32 is at least 0 and below 1: never at 0, always at 1.
    fn happens(&mut self, probability: Probability) -> bool {
        let [a, b, c, d, ..] = self.next().to_be_bytes();
        f64::from(u32::from_be_bytes([a, b, c, d])) < probability.0 * 4_294_967_296.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chances(number: f64) -> Chances {
        let probability = Probability(number);
        Chances {
            fail: Probability(0.0),
            stall: probability,
            stall_ms: 3_000,
            lose: probability,
            duplicate: probability,
        }
    }

    fn fates(seed: u64) -> Vec<Fate> {
        let mut faults = Faults::new(chances(0.5), seed);
        (0..200).map(|_| faults.draw()).collect()
    }

    #[test]
    fn nothing_goes_wrong_at_0() {
        let mut faults = Faults::new(chances(0.0), 7);
        let handled = Fate::Handle { stall: None, lose: false, duplicate: false };
        assert!((0..1_000).all(|_| faults.draw() == handled));
        assert_eq!(faults.counts(), Counts { requests: 1_000, ..Counts::default() });
    }

    #[test]
    fn everything_goes_wrong_at_1() {
        let mut faults = Faults::new(chances(1.0), 7);
        let stall = Some(Duration::from_secs(3));
        let handled = Fate::Handle { stall, lose: true, duplicate: true };
        assert!((0..1_000).all(|_| faults.draw() == handled));
        let Ok(()) = faults.change(Change { fail: Some(Probability(1.0)), ..Change::default() })
        else {
            panic!("refused")
        };
        assert!((0..1_000).all(|_| faults.draw() == Fate::Fail));
        let counts = faults.counts();
        assert_eq!((counts.failed, counts.stalled, counts.lost), (1_000, 1_000, 1_000));
    }

    #[test]
    fn a_seed_repeats() {
        assert_eq!(fates(42), fates(42));
        assert_ne!(fates(42), fates(43));
    }

    #[test]
    fn happens_about_as_often_as_it_says() {
        let mut faults = Faults::new(Chances { stall: Probability(0.0), ..chances(0.2) }, 1);
        for _ in 0..10_000 {
            faults.draw();
        }
        let counts = faults.counts();
        assert!((1_800..2_200).contains(&counts.lost), "{counts:?}");
        assert!((1_800..2_200).contains(&counts.duplicated), "{counts:?}");
    }

    #[test]
    fn no_more_stall_than_there_is_room_for() {
        let mut faults = Faults::new(chances(1.0), 7);
        for _ in 0..STALLED_MAX {
            assert_ne!(faults.draw(), Fate::Fail);
        }
        assert_eq!(faults.draw(), Fate::Fail);
        faults.end_stall();
        assert_ne!(faults.draw(), Fate::Fail);
    }

    #[test]
    fn a_change_is_all_or_nothing() {
        let mut faults = Faults::new(chances(0.5), 7);
        let lose = Some(Probability(0.25));
        let too_long = Change { lose, stall_ms: Some(STALL_MS_MAX + 1), ..Change::default() };
        assert!(faults.change(too_long).is_err());
        assert_eq!(faults.chances(), chances(0.5));
        assert_eq!(faults.change(Change { lose, ..Change::default() }), Ok(()));
        assert_eq!(faults.chances(), Chances { lose: Probability(0.25), ..chances(0.5) });
    }

    #[test]
    fn reads_probabilities() {
        for (text, number) in [("0", 0.0), ("1", 1.0), ("0.05", 0.05), ("1e-3", 0.001)] {
            assert_eq!(text.parse(), Ok(Probability(number)));
        }
        for text in ["", "-0.1", "1.01", "NaN", "inf", "5%"] {
            let message = Probability::from_str(text).err();
            assert!(message.is_some_and(|message| message.contains("from 0 to 1")), "{text}");
        }
    }

    #[test]
    fn reads_durations() {
        assert_eq!(parse_stall_ms("500ms"), Ok(500));
        assert_eq!(parse_stall_ms("3s"), Ok(3_000));
        for text in ["", "3", "s", "1.5s", "-1s", "3 s", "99999999999999999999s", "601s", "1h"] {
            assert!(parse_stall_ms(text).is_err(), "{text}");
        }
    }
}
