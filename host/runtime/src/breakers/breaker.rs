//! One breaker, without its service: what it was told, and what it answers.

use amends_engine::{CLOCK_TOLERANCE, Failure, Outcome, Timestamp};
use amends_store::StoredEvent;
use serde_json::{Value, json};

use super::record::OPENED;
use super::settings::{Admission, BreakerSettings, ByHand, OnOpen, Ticket};
use super::window::{Count, Window};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Closed,
    Open {
        until: Timestamp,
    },
    /// An operator has opened it; none: until one closes it.
    Held {
        until: Option<Timestamp>,
    },
    /// A few calls try; when nothing is heard of one by then, another may in its place.
    HalfOpen {
        until: Timestamp,
        begun: u32,
        succeeded: u32,
    },
}

/// What a report has changed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// With the data of the event.
    Opened(Value),
    Closed,
}

#[derive(Debug)]
pub(super) struct Breaker {
    pub(super) settings: BreakerSettings,
    pub(super) state: State,
    /// In a row.
    pub(super) failures: u32,
    pub(super) last_error: Option<String>,
    /// Who opened it by hand, if it was opened so, and why.
    pub(super) by_hand: Option<ByHand>,
    /// Changes that are not in the stream yet.
    pub(super) unwritten: u32,
    /// How often it has opened and closed.
    generation: u64,
    /// How often calls were let try because it was time, not in the place of another.
    round: u64,
    window: Option<Window>,
}

impl State {
    /// The value of the service's metric: 0 closed, 1 half open, 2 open.
    pub(super) const fn gauge(self) -> f64 {
        match self {
            Self::Closed => 0.0,
            Self::HalfOpen { .. } => 1.0,
            Self::Open { .. } | Self::Held { .. } => 2.0,
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } | Self::Held { .. } => "open",
            Self::HalfOpen { .. } => "half_open",
        }
    }

    pub(super) const fn until(self) -> Option<Timestamp> {
        match self {
            Self::Closed => None,
            Self::Held { until } => until,
            Self::Open { until } | Self::HalfOpen { until, .. } => Some(until),
        }
    }
}

impl Breaker {
    pub(super) fn new(settings: BreakerSettings) -> Self {
        let window = settings.rate.map(|rate| Window::new(rate.window));
        Self {
            settings,
            state: State::Closed,
            failures: 0,
            last_error: None,
            by_hand: None,
            unwritten: 0,
            generation: 0,
            round: 0,
            window,
        }
    }

    pub(super) fn admit(&mut self, is_undo: bool, at: Timestamp) -> Admission {
        let (until, begun, succeeded) = match self.state {
            State::Closed => return self.go(),
            State::Open { until } => (until, self.settings.half_open, 0),
            State::Held { until: None } => return self.bar(is_undo, None),
            // Its time is over: as of one that opened by itself.
            State::Held { until: Some(until) } if until <= at => {
                (until, self.settings.half_open, 0)
            }
            State::Held { until: Some(until) } => return self.bar(is_undo, Some(until)),
            State::HalfOpen { until, begun, succeeded } => (until, begun, succeeded),
        };
        // A clock that was ahead when it opened and is set right holds nobody back for longer.
        let is_ahead = until.since(at) > self.settings.open_for + CLOCK_TOLERANCE;
        if until <= at || is_ahead {
            // Of those that began and did not succeed, nothing was heard.
            let (until, begun) = (at.after(self.settings.open_for), succeeded + 1);
            self.state = State::HalfOpen { until, begun, succeeded };
            self.by_hand = None;
            self.round += 1;
            return self.go();
        }
        if begun < self.settings.half_open {
            self.state = State::HalfOpen { until, begun: begun + 1, succeeded };
            return self.go();
        }
        self.bar(is_undo, Some(until))
    }

    /// Whether the config says when it opens. Of one that only operators open, no call tries.
    pub(super) const fn opens_by_itself(&self) -> bool {
        self.settings.failures.is_some() || self.settings.rate.is_some()
    }

    /// Whether an operator opened it for a time that has passed.
    pub(super) fn is_hold_over(&self, at: Timestamp) -> bool {
        matches!(self.state, State::Held { until: Some(until) } if until <= at)
    }

    fn bar(&self, is_undo: bool, until: Option<Timestamp>) -> Admission {
        match self.settings.on_open {
            OnOpen::Fail if !is_undo => Admission::Fail { until },
            OnOpen::Fail | OnOpen::Wait => Admission::Wait { until },
        }
    }

    /// Opens it by hand, until then or until somebody closes it. The data of the event.
    pub(super) fn hold(&mut self, by_hand: ByHand, until: Option<Timestamp>) -> Value {
        let ByHand { who, reason } = &by_hand;
        let mut data = json!({"who": who, "reason": reason, "failures": self.failures});
        if let Some(until) = until {
            data["until"] = json!(until);
        }
        self.enter(State::Held { until });
        self.by_hand = Some(by_hand);
        data
    }

    fn go(&self) -> Admission {
        Admission::Go(self.ticket())
    }

    pub(super) fn ticket(&self) -> Ticket {
        let is_trial = self.state != State::Closed;
        Ticket { generation: self.generation, round: self.round, is_trial }
    }

    /// A call did not begin. Whether another may try in its place.
    pub(super) fn give_back(&mut self, ticket: Ticket) -> bool {
        let is_of_now = (ticket.generation, ticket.round) == (self.generation, self.round);
        match &mut self.state {
            State::HalfOpen { begun, .. } if is_of_now && ticket.is_trial => {
                *begun = begun.saturating_sub(1);
                true
            }
            State::Closed | State::Open { .. } | State::Held { .. } | State::HalfOpen { .. } => {
                false
            }
        }
    }

    pub(super) fn report(
        &mut self,
        ticket: Ticket,
        outcome: &Outcome,
        at: Timestamp,
    ) -> Option<Change> {
        if ticket.generation != self.generation {
            return None;
        }
        match outcome {
            // A service that says no for good works.
            Outcome::Succeeded(_) | Outcome::NothingToUndo | Outcome::Permanent(_) => {
                self.succeeded(at)
            }
            Outcome::Retryable(failure) | Outcome::Unknown(failure) => self.failed(failure, at),
        }
    }

    fn succeeded(&mut self, at: Timestamp) -> Option<Change> {
        match self.state {
            State::Closed => {
                self.failures = 0;
                // Of the calls that ended before it, enough may have failed.
                self.count(false, at);
                self.is_rate_reached(at).then(|| self.open(at))
            }
            State::HalfOpen { until, begun, succeeded } => {
                let succeeded = succeeded + 1;
                if succeeded < self.settings.half_open {
                    self.state = State::HalfOpen { until, begun, succeeded };
                    return None;
                }
                self.close();
                Some(Change::Closed)
            }
            // No call begins while it is open.
            State::Open { .. } | State::Held { .. } => None,
        }
    }

    fn failed(&mut self, failure: &Failure, at: Timestamp) -> Option<Change> {
        if !self.opens_by_itself() {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(format!("{}: {}", failure.code, failure.message));
        match self.state {
            State::Closed => {
                self.count(true, at);
                let max = self.settings.failures;
                let in_a_row = max.is_some_and(|max| self.failures >= max);
                (in_a_row || self.is_rate_reached(at)).then(|| self.open(at))
            }
            State::HalfOpen { .. } => Some(self.open(at)),
            State::Open { .. } | State::Held { .. } => None,
        }
    }

    /// The calls that count for the rate.
    pub(super) fn counted(&self, at: Timestamp) -> Option<Count> {
        self.window.as_ref().map(|window| window.count(at))
    }

    fn count(&mut self, failed: bool, at: Timestamp) {
        if let Some(window) = &mut self.window {
            window.add(failed, at);
        }
    }

    fn is_rate_reached(&self, at: Timestamp) -> bool {
        let (Some(rate), Some(count)) = (self.settings.rate, self.counted(at)) else {
            return false;
        };
        count.calls >= rate.calls_min
            && f64::from(count.failed) >= rate.failure_rate * f64::from(count.calls)
    }

    fn open(&mut self, at: Timestamp) -> Change {
        let until = at.after(self.settings.open_for);
        let error = self.last_error.as_deref().unwrap_or_default();
        let mut data = json!({"until": until, "failures": self.failures, "error": error});
        if let Some(count) = self.counted(at) {
            data["calls"] = count.calls.into();
            data["calls_failed"] = count.failed.into();
        }
        self.enter(State::Open { until });
        Change::Opened(data)
    }

    pub(super) fn close(&mut self) {
        self.failures = 0;
        self.enter(State::Closed);
    }

    /// Calls from before say nothing of what comes.
    fn enter(&mut self, state: State) {
        self.state = state;
        self.by_hand = None;
        self.generation += 1;
        if let Some(window) = &mut self.window {
            window.clear();
        }
    }

    /// The last event of the stream says where it is.
    pub(super) fn remember(&mut self, event: &StoredEvent) {
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        let text = |field: &str| data[field].as_str().map(str::to_owned);
        let until = data["until"].as_str().and_then(|until| until.parse().ok());
        if event.kind == OPENED
            && let (Some(who), Some(reason)) = (text("who"), text("reason"))
        {
            self.hold(ByHand { who, reason }, until);
            return;
        }
        // It opened by itself when the config was another.
        let Some(until) = until.filter(|_| event.kind == OPENED && self.opens_by_itself()) else {
            if self.state != State::Closed {
                self.close();
            }
            return;
        };
        self.enter(State::Open { until });
        let failures = data["failures"].as_u64().unwrap_or(1);
        self.failures = u32::try_from(failures).unwrap_or(u32::MAX);
        self.last_error = data["error"].as_str().map(str::to_owned);
    }
}
