//! A canary: which sagas it serves, what is counted of its calls, and what follows from the counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use amends_engine::{Digest, Outcome, SagaId, Timestamp};
use amends_sandbox::LoadedComponent;
use serde::{Deserialize, Serialize};

/// Calls that a canary is judged by, at least, when nothing else is said: one that fails now and then
/// is not taken for one that fails always.
const CALLS_MIN_DEFAULT: u32 = 100;
const CALLS_MAX: u32 = 1_000_000;

/// How much worse it may be, when nothing else is said.
const MARGIN_DEFAULT: f64 = 5.0;

/// How a component is tried on a share of the sagas.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CanarySpec {
    /// The share of the sagas that it serves, by their ids, in percent.
    pub share: f64,
    /// It is taken back when its rate of failed calls, or of calls of unknown outcome (traps, limits
    /// and timeouts), is more than this above that of the active component, in percentage points.
    pub margin: f64,
    /// Calls that it is judged by at least. It is taken back before that when so many fail that the
    /// others could not make up for it.
    pub calls_min: u32,
    /// It becomes the active component by itself after so many calls; none: an operator has to say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promote_after: Option<u32>,
}

impl CanarySpec {
    /// With what is usual where nothing is said.
    ///
    /// # Errors
    /// Which of them is out of its range, and what the range is.
    pub fn new(
        share: f64,
        margin: Option<f64>,
        calls_min: Option<u32>,
        promote_after: Option<u32>,
    ) -> Result<Self, String> {
        let margin = margin.unwrap_or(MARGIN_DEFAULT);
        let calls_min = calls_min.or(promote_after.map(|calls| calls.min(CALLS_MIN_DEFAULT)));
        let calls_min = calls_min.unwrap_or(CALLS_MIN_DEFAULT);
        let share_max = 99.0;
        if !(0.01..=share_max).contains(&share) {
            return Err(format!(
                "the share is from 0.01 to {share_max} percent of the sagas, and not {share}: the \
                 active component must serve the others, to be held against"
            ));
        }
        if !(0.0..100.0).contains(&margin) {
            return Err(format!("the margin is from 0 to under 100 points, and not {margin}"));
        }
        if !(1..=CALLS_MAX).contains(&calls_min) {
            return Err(format!("it is judged by 1 to {CALLS_MAX} calls, and not {calls_min}"));
        }
        if promote_after.is_some_and(|calls| !(calls_min..=CALLS_MAX).contains(&calls)) {
            return Err(format!(
                "it can be promoted after {calls_min} calls, by which it is judged, to {CALLS_MAX}"
            ));
        }
        Ok(Self { share, margin, calls_min, promote_after })
    }

    /// Whether it serves a saga: always the same ones, and other ones for another component.
    pub(crate) fn takes(&self, digest: Digest, saga: SagaId) -> bool {
        let eight = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
        let [.., saga] = saga.as_bytes().as_chunks::<8>().0 else { return false };
        let [digest, ..] = digest.as_bytes().as_chunks::<8>().0 else { return false };
        // The finalizer of SplitMix64: every bit of both counts.
        let mut mixed = eight(saga) ^ eight(digest);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let place = u32::try_from(mixed % 10_000).unwrap_or_default();
        f64::from(place) < self.share * 100.0
    }
}

/// A canary as a reader sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct CanaryInfo {
    /// The component.
    pub digest: Digest,
    /// Its version.
    pub version: String,
    /// When it began to serve.
    pub at: Timestamp,
    /// How it is tried.
    pub spec: CanarySpec,
    /// Who asked for it.
    pub who: Option<String>,
    /// The reason that was given.
    pub reason: Option<String>,
    /// What was counted: of one that runs, by this host so far.
    pub tally: Tally,
    /// How it ended; none while it runs.
    pub ended: Option<CanaryEnd>,
}

/// The end of a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanaryEnd {
    /// When it ended.
    pub at: Timestamp,
    /// Whether it became the active component.
    pub is_promoted: bool,
    /// Who ended it; none: the host by itself, by what it counted.
    pub who: Option<String>,
    /// The reason that was given.
    pub reason: Option<String>,
}

/// What came of calls since a canary began: its own, and of those that the active component served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Calls that the canary served.
    pub canary: CallCounts,
    /// Calls that the active component served.
    pub active: CallCounts,
}

/// What came of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CallCounts {
    /// How many calls there were.
    pub calls: u64,
    /// Those that did not succeed.
    pub failed: u64,
    /// Of those, the ones of which nobody knows what came: traps, limits, timeouts.
    pub unknown: u64,
}

/// A canary that runs.
pub(crate) struct Canary {
    pub(crate) info: CanaryInfo,
    pub(crate) is_forced: bool,
    /// None while it is not loaded here: the active component serves its share too.
    pub(crate) component: Option<Arc<LoadedComponent>>,
    pub(crate) counts: Arc<Counts>,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) canary: Counted,
    pub(crate) active: Counted,
    /// The end of the canary is being recorded.
    pub(crate) is_decided: AtomicBool,
}

#[derive(Default)]
pub(crate) struct Counted {
    calls: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
}

/// A canary, and when it began: one component may be tried more than once.
pub(crate) type Run = (Digest, Timestamp);

/// What a call counts for.
pub(crate) struct Trial {
    pub(crate) counts: Arc<Counts>,
    pub(crate) spec: CanarySpec,
    pub(crate) canary: Run,
    pub(crate) is_canary: bool,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    TakeBack(String),
    Promote(String),
}

impl Counts {
    pub(crate) fn tally(&self) -> Tally {
        Tally { canary: self.canary.read(), active: self.active.read() }
    }
}

impl Counted {
    pub(crate) fn add(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Succeeded(_) | Outcome::NothingToUndo => {}
            Outcome::Permanent(_) | Outcome::Retryable(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Unknown(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.unknown.fetch_add(1, Ordering::Relaxed);
            }
        }
        // Last: a reader sees no failure without its call more than for a moment.
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> CallCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (failed, unknown) = (read(&self.failed), read(&self.unknown));
        CallCounts { calls: read(&self.calls).max(failed), failed, unknown }
    }
}

impl Tally {
    /// What follows from it by itself.
    pub(crate) fn verdict(&self, spec: &CanarySpec) -> Option<Verdict> {
        let Self { canary, active } = self;
        // As many of the active component as its share of the sagas gives by then, or as it is judged by.
        let others = f64::from(spec.calls_min) * ((100.0 - spec.share) / spec.share).min(1.0);
        #[expect(clippy::cast_precision_loss, reason = "counts of calls")]
        if (active.calls as f64) < others {
            return None;
        }
        let failed = ("failed", canary.failed, active.failed);
        let unknown = ("ended with an unknown outcome", canary.unknown, active.unknown);
        for (what, of_canary, of_active) in [failed, unknown] {
            let allowed = rate(of_active, active.calls) + spec.margin / 100.0;
            // Counts are far below 2^53.
            #[expect(clippy::cast_precision_loss, reason = "counts of calls")]
            let max = allowed * canary.calls.max(u64::from(spec.calls_min)) as f64;
            #[expect(clippy::cast_precision_loss, reason = "counts of calls")]
            if of_canary as f64 > max {
                let told = |count, calls| {
                    format!("{:.1} %, {count} of {calls}", 100.0 * rate(count, calls))
                };
                return Some(Verdict::TakeBack(format!(
                    "of its calls {} {what}, of the active component's {}: more than {} points worse",
                    told(of_canary, canary.calls),
                    told(of_active, active.calls),
                    spec.margin
                )));
            }
        }
        // Where nearly all calls fail, nothing can be told.
        let can_tell = rate(active.failed, active.calls) + spec.margin / 100.0 < 1.0;
        let is_due = |after: &u32| can_tell && canary.calls >= u64::from(*after);
        let after = spec.promote_after.filter(is_due)?;
        let CallCounts { calls, failed, .. } = canary;
        Some(Verdict::Promote(format!(
            "{failed} of its {calls} calls failed, and it was to be promoted after {after}"
        )))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of calls are far below 2^53")]
fn rate(count: u64, calls: u64) -> f64 {
    count as f64 / calls.max(1) as f64
}

impl Canary {
    pub(crate) fn digest(&self) -> Digest {
        self.info.digest
    }

    pub(crate) fn info(&self) -> CanaryInfo {
        CanaryInfo { tally: self.counts.tally(), ..self.info.clone() }
    }

    /// The component, while it is known from the stream alone.
    pub(crate) fn missing(&self) -> Option<Digest> {
        self.component.is_none().then_some(self.info.digest)
    }

    /// Takes its component, if this is that.
    pub(crate) fn loaded(&mut self, component: &Arc<LoadedComponent>) {
        if self.missing() == Some(component.digest) {
            self.component = Some(Arc::clone(component));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    fn counts(calls: u64, failed: u64, unknown: u64) -> CallCounts {
        CallCounts { calls, failed, unknown }
    }

    fn told(canary: CallCounts, active: CallCounts, spec: &CanarySpec) -> &'static str {
        match (Tally { canary, active }).verdict(spec) {
            None => "none",
            Some(Verdict::TakeBack(reason)) if reason.contains("unknown") => "unknown",
            Some(Verdict::TakeBack(_)) => "failed",
            Some(Verdict::Promote(_)) => "promote",
        }
    }

    #[test]
    fn it_is_taken_back_when_it_is_worse_by_more_than_the_margin() {
        let spec = CanarySpec::new(10.0, Some(5.0), Some(100), Some(1_000)).unwrap();
        let good = counts(900, 0, 0);
        for (canary, active, expected) in [
            (counts(0, 0, 0), counts(0, 0, 0), "none"),
            // Five of the first hundred may fail, however early they come.
            (counts(5, 5, 0), good, "none"),
            (counts(6, 6, 0), good, "failed"),
            (counts(100, 5, 0), good, "none"),
            (counts(101, 6, 0), good, "failed"),
            // What fails for the active component as well says nothing against it.
            (counts(200, 25, 0), counts(900, 90, 0), "none"),
            (counts(200, 31, 0), counts(900, 90, 0), "failed"),
            // As many fail, but they trap.
            (counts(200, 20, 20), counts(900, 90, 0), "unknown"),
            (counts(999, 3, 0), good, "none"),
            (counts(1_000, 3, 0), good, "promote"),
            (counts(1_000, 60, 0), good, "failed"),
            // Nothing to hold it against yet, or nothing that tells.
            (counts(50, 50, 0), counts(99, 0, 0), "none"),
            (counts(1_000, 1_000, 0), counts(900, 900, 0), "none"),
        ] {
            assert_eq!(told(canary, active, &spec), expected, "{canary:?} {active:?}");
        }
        let by_hand = CanarySpec::new(10.0, None, None, None).unwrap();
        assert_eq!((by_hand.margin, by_hand.calls_min), (MARGIN_DEFAULT, CALLS_MIN_DEFAULT));
        assert_eq!(told(counts(9_999, 0, 0), good, &by_hand), "none");
        let quick = CanarySpec::new(10.0, None, None, Some(20)).unwrap();
        assert_eq!(quick.calls_min, 20);
    }

    #[test]
    fn a_share_is_of_the_sagas_and_the_same_ones_always() {
        let saga = |number: u32| {
            let random = Digest::of(&number.to_be_bytes());
            SagaId::from_bytes(*random.as_bytes().first_chunk().unwrap())
        };
        let sagas: Vec<SagaId> = (0..20_000).map(saga).collect();
        for share in [0.5, 10.0, 50.0, 99.0] {
            let spec = CanarySpec::new(share, None, None, None).unwrap();
            let of = |digest: Digest| sagas.iter().filter(|id| spec.takes(digest, **id)).count();
            let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
            let expected = share * 200.0;
            for digest in [one, other] {
                let found = f64::from(u32::try_from(of(digest)).unwrap());
                assert!((found - expected).abs() < 0.2 * expected.max(100.0), "{share}: {found}");
            }
            let both = sagas.iter().filter(|id| spec.takes(one, **id) && spec.takes(other, **id));
            assert!(both.count() < of(one), "other components, other sagas");
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_the_range() {
        for (share, margin, calls, promote, word) in [
            (0.0, None, None, None, "0.01 to 99"),
            (100.0, None, None, None, "0.01 to 99"),
            (f64::NAN, None, None, None, "0.01 to 99"),
            (5.0, Some(-1.0), None, None, "0 to under 100"),
            (5.0, Some(100.0), None, None, "0 to under 100"),
            (5.0, None, Some(0), None, "1 to 1000000"),
            (5.0, None, Some(1_000_001), None, "1 to 1000000"),
            (5.0, None, Some(50), Some(49), "after 50 calls"),
            (5.0, None, None, Some(1_000_001), "to 1000000"),
        ] {
            let refused = CanarySpec::new(share, margin, calls, promote).unwrap_err();
            assert!(refused.contains(word), "{refused}");
        }
    }
}
