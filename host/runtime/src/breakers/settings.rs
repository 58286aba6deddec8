//! When a breaker opens, and what it tells readers and calls.

use std::time::Duration;

use amends_engine::{ServiceName, Timestamp};

/// When a breaker opens and what a step does that finds it open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// It opens after this many failures in a row; none: however many there are.
    pub failures: Option<u32>,
    /// It opens when so many of the calls of the last seconds failed.
    pub rate: Option<RateSettings>,
    /// It stays open for so long.
    pub open_for: Duration,
    /// So many calls may then try at once, and so many must succeed to close it; at least 1.
    pub half_open: u32,
    /// What a step does that finds it open.
    pub on_open: OnOpen,
}

impl BreakerSettings {
    /// The settings of a service that has no `breaker` in the config: only an operator opens it.
    pub const BY_HAND: Self = Self {
        failures: None,
        rate: None,
        open_for: Duration::from_mins(1),
        half_open: 1,
        on_open: OnOpen::Wait,
    };
}

/// When a breaker opens for the part of the calls that failed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateSettings {
    /// The part that opens it; more than 0, at most 1.
    pub failure_rate: f64,
    /// Of the calls that ended in so long a time.
    pub window: Duration,
    /// When there were at least so many; fewer say too little.
    pub calls_min: u32,
}

impl RateSettings {
    /// The window when the config does not say: long enough for a few calls, short enough to see
    /// that a service has just come to fail.
    pub const WINDOW_DEFAULT: Duration = Duration::from_secs(10);

    /// The calls when the config does not say: of fewer, a handful of failures would be a rate.
    pub const CALLS_MIN_DEFAULT: u32 = 20;
}

/// What a step does that finds its breaker open. An undo always waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnOpen {
    /// Waits, without using an attempt.
    #[default]
    Wait,
    /// The step fails.
    Fail,
}

/// A breaker as a reader sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerInfo {
    /// The service.
    pub service: ServiceName,
    /// `closed`, `open` or `half_open`.
    pub state: &'static str,
    /// How many calls in a row have failed.
    pub failures: u32,
    /// The calls that count for the rate, and those of them that failed; none without a rate.
    pub counted: Option<(u32, u32)>,
    /// Until when no call begins, while it is open.
    pub open_until: Option<Timestamp>,
    /// What the last failure was.
    pub last_error: Option<String>,
    /// Who opened it by hand, and why, while it is open for that.
    pub by_hand: Option<ByHand>,
    /// When it opens, and for how long.
    pub settings: BreakerSettings,
}

/// Whether a call may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// What came of it is reported with this.
    Go(Ticket),
    /// Not before then, and then only if no other calls are trying.
    /// None: until an operator closes the breaker.
    Wait { until: Option<Timestamp> },
    /// The step fails.
    Fail { until: Option<Timestamp> },
}

/// What a breaker knows a call by that it has let begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// How often the breaker had changed by then: what began before says nothing of what is now.
    pub(super) generation: u64,
    /// In which round of tries it was let begin: one of before has given its place away.
    pub(super) round: u64,
    /// It tries whether the service works again.
    pub(crate) is_trial: bool,
}

/// Who opened a breaker, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByHand {
    /// The operator who opened it.
    pub who: String,
    /// The reason that the operator gave.
    pub reason: String,
}
