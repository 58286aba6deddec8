//! What has become of the events of each rule, as operators see it.

use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::settings::EventRule;
use crate::limits::EVENT_PLANS_AT_ONCE;

/// Characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 500;

/// How many events came since the host started, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventCounts {
    /// They started a saga.
    pub started: u64,
    /// They had started their saga before.
    pub repeated: u64,
    /// They became a signal, or had become one before.
    pub signalled: u64,
    /// They are of another type.
    pub ignored: u64,
    /// They are wrong, or the saga does not take the signal.
    pub refused: u64,
    /// They could not be taken now, for a reason that passes.
    pub failed: u64,
}

impl EventCounts {
    /// Returns how many came.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self { started, repeated, signalled, ignored, refused, failed } = self;
        started + repeated + signalled + ignored + refused + failed
    }
}

/// How a rule stands.
#[derive(Debug, Clone)]
pub struct EventRuleStatus {
    /// The rule.
    pub rule: Arc<EventRule>,
    /// How many events came since the host started.
    pub counts: EventCounts,
    /// The last error since then, and when it was.
    pub last_error: Option<(String, Timestamp)>,
    /// True while no events can come, because their server or stream is away.
    pub is_away: bool,
}

/// What became of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Started,
    Repeated,
    Signalled,
    Ignored,
    Refused,
    Failed,
}

impl Outcome {
    const fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Repeated => "repeated",
            Self::Signalled => "signalled",
            Self::Ignored => "ignored",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Told {
    counts: EventCounts,
    last_error: Option<(String, Timestamp)>,
    is_away: bool,
}

/// The rules of a host, and what they did.
#[derive(Debug)]
pub(crate) struct EventRules {
    rules: Vec<(Arc<EventRule>, Mutex<Told>)>,
    plans: Arc<Semaphore>,
}

impl EventRules {
    pub(crate) fn new(rules: Vec<Arc<EventRule>>) -> Self {
        let rules = rules.into_iter().map(|rule| (rule, Mutex::default())).collect();
        Self { rules, plans: Arc::new(Semaphore::new(EVENT_PLANS_AT_ONCE)) }
    }

    /// Waits until one more thread may evaluate expressions, and returns its place. Nothing closes the
    /// semaphore, so there is always one.
    pub(crate) async fn place_for_plan(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.plans).acquire_owned().await.ok()
    }

    /// Returns the rule of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<EventRule>> {
        self.rules.iter().map(|(rule, _)| rule).find(|rule| rule.name == name)
    }

    /// Counts an event.
    pub(crate) fn count(&self, name: &str, outcome: Outcome) {
        let Some((rule, told)) = self.rules.iter().find(|(rule, _)| rule.name == name) else {
            return;
        };
        let counts = &mut told.lock().unwrap_or_else(PoisonError::into_inner).counts;
        let count = match outcome {
            Outcome::Started => &mut counts.started,
            Outcome::Repeated => &mut counts.repeated,
            Outcome::Signalled => &mut counts.signalled,
            Outcome::Ignored => &mut counts.ignored,
            Outcome::Refused => &mut counts.refused,
            Outcome::Failed => &mut counts.failed,
        };
        *count += 1;
        let labels = [("on", rule.name.clone()), ("result", outcome.word().to_owned())];
        metrics::counter!("amends_on_events_total", &labels).increment(1);
    }

    /// Keeps the last error of a rule.
    pub(crate) fn tell(&self, name: &str, error: &str, at: Timestamp) {
        let Some((_, told)) = self.rules.iter().find(|(rule, _)| rule.name == name) else { return };
        let error: String = error.chars().take(ERROR_CHARS_MAX).collect();
        tracing::debug!(on = name, error, "an event is not taken");
        told.lock().unwrap_or_else(PoisonError::into_inner).last_error = Some((error, at));
    }

    /// Keeps whether events can come. Returns true when that has changed.
    pub(crate) fn set_away(&self, name: &str, is_away: bool) -> bool {
        let Some((_, told)) = self.rules.iter().find(|(rule, _)| rule.name == name) else {
            return false;
        };
        let told = &mut told.lock().unwrap_or_else(PoisonError::into_inner).is_away;
        std::mem::replace(told, is_away) != is_away
    }

    /// Returns how each rule stands, in the order of the config.
    pub(crate) fn list(&self) -> Vec<EventRuleStatus> {
        let status = |(rule, told): &(Arc<EventRule>, Mutex<Told>)| {
            let Told { counts, last_error, is_away } =
                told.lock().unwrap_or_else(PoisonError::into_inner).clone();
            EventRuleStatus { rule: Arc::clone(rule), counts, last_error, is_away }
        };
        self.rules.iter().map(status).collect()
    }
}
