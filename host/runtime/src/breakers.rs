//! Circuit breakers (M. Nygard, *Release It!*), one a service, shared by every saga.
//!
//! Closed: calls run, and failures in a row are counted. Open: none begins until a time. Half
//! open: one call tries; it closes the breaker or opens it again. What opens and closes a breaker
//! is an event in the service's stream, so it is the same after a restart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use amends_engine::{Outcome, ServiceName, Timestamp, Version};
use amends_store::{Append, NewEvent, Store, StoreError, StoredEvent, Stream};
use serde_json::json;
use tokio::sync::mpsc;

/// Events of a service's stream that are read at once at the start.
const EVENTS_PER_READ: u32 = 1_000;

/// When a breaker opens and what a step does that finds it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// It opens after this many failures in a row.
    pub failures: u32,
    /// It stays open for so long.
    pub open_for: Duration,
    /// What a step does that finds it open.
    pub on_open: OnOpen,
}

/// What a step does that finds its breaker open. An undo always waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnOpen {
    /// Waits, without using an attempt.
    #[default]
    Wait,
    /// Fails.
    Fail,
}

/// A breaker as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerInfo {
    /// The service.
    pub service: ServiceName,
    /// `closed`, `open` or `half_open`.
    pub state: &'static str,
    /// Failures in a row.
    pub failures: u32,
    /// Until when no call begins, while it is open.
    pub open_until: Option<Timestamp>,
    /// What the last failure was.
    pub last_error: Option<String>,
    /// When it opens, and for how long.
    pub settings: BreakerSettings,
}

/// Whether a call may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Go,
    /// Not before then, and then only if no other call is trying.
    Wait {
        until: Timestamp,
    },
    /// The step fails.
    Fail {
        until: Timestamp,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Timestamp,
    },
    /// One call tries; when nothing is heard of it by then, another may.
    HalfOpen {
        until: Timestamp,
    },
}

#[derive(Debug)]
struct Breaker {
    settings: BreakerSettings,
    state: State,
    failures: u32,
    last_error: Option<String>,
}

/// The breakers of a host.
#[derive(Debug)]
pub(crate) struct Breakers {
    all: BTreeMap<ServiceName, Mutex<Breaker>>,
    log: mpsc::UnboundedSender<(ServiceName, NewEvent)>,
}

impl Breakers {
    /// Reads where each breaker was left.
    pub(crate) async fn open(
        settings: BTreeMap<ServiceName, BreakerSettings>,
        store: Arc<dyn Store>,
    ) -> Result<Self, StoreError> {
        let mut all = BTreeMap::new();
        let mut versions = BTreeMap::new();
        for (service, settings) in settings {
            let mut breaker =
                Breaker { settings, state: State::Closed, failures: 0, last_error: None };
            let mut version = Version(0);
            loop {
                let stream = Stream::Service(service.clone());
                let events = store.events(stream, version, EVENTS_PER_READ).await?;
                let Some(last) = events.last() else { break };
                version = last.version;
                breaker.remember(last);
            }
            breaker.gauge(&service);
            versions.insert(service.clone(), version);
            all.insert(service, Mutex::new(breaker));
        }
        let (log, events) = mpsc::unbounded_channel();
        tokio::spawn(write(store, versions, events));
        Ok(Self { all, log })
    }

    /// Whether a call of the service may begin at `at`. One that may must be reported on.
    pub(crate) fn admit(&self, service: &ServiceName, is_undo: bool, at: Timestamp) -> Admission {
        let Some(mut breaker) = self.breaker(service) else { return Admission::Go };
        let until = match breaker.state {
            State::Closed => return Admission::Go,
            State::Open { until } | State::HalfOpen { until } => until,
        };
        if until <= at {
            let until = at.after(breaker.settings.open_for);
            breaker.state = State::HalfOpen { until };
            breaker.gauge(service);
            return Admission::Go;
        }
        match breaker.settings.on_open {
            OnOpen::Fail if !is_undo => Admission::Fail { until },
            OnOpen::Fail | OnOpen::Wait => Admission::Wait { until },
        }
    }

    /// What came of a call. True when sagas that wait for the service may go on.
    pub(crate) fn report(&self, service: &ServiceName, outcome: &Outcome, at: Timestamp) -> bool {
        let Some(mut breaker) = self.breaker(service) else { return false };
        let failed = match outcome {
            // A service that says no for good works.
            Outcome::Succeeded(_) | Outcome::NothingToUndo | Outcome::Permanent(_) => None,
            Outcome::Retryable(failure) | Outcome::Unknown(failure) => Some(failure),
        };
        let Some(failure) = failed else {
            let was_closed = breaker.state == State::Closed;
            breaker.failures = 0;
            breaker.state = State::Closed;
            if !was_closed {
                breaker.gauge(service);
                self.record(service, "breaker.closed", at, &json!({}));
                tracing::info!(%service, "breaker is closed");
            }
            return !was_closed;
        };
        breaker.failures = breaker.failures.saturating_add(1);
        breaker.last_error = Some(format!("{}: {}", failure.code, failure.message));
        let opens = match breaker.state {
            State::Closed => breaker.failures >= breaker.settings.failures,
            State::HalfOpen { .. } => true,
            // A call that began before it opened.
            State::Open { .. } => false,
        };
        if opens {
            let until = at.after(breaker.settings.open_for);
            breaker.state = State::Open { until };
            breaker.gauge(service);
            let error = breaker.last_error.as_deref().unwrap_or_default();
            let data = json!({"until": until, "failures": breaker.failures, "error": error});
            self.record(service, "breaker.opened", at, &data);
            tracing::warn!(%service, %until, failures = breaker.failures, error, "breaker is open");
        }
        false
    }

    pub(crate) fn list(&self) -> Vec<BreakerInfo> {
        let info = |(service, breaker): (&ServiceName, &Mutex<Breaker>)| {
            let breaker = breaker.lock().unwrap_or_else(PoisonError::into_inner);
            BreakerInfo {
                service: service.clone(),
                state: breaker.state.word(),
                failures: breaker.failures,
                open_until: match breaker.state {
                    State::Closed => None,
                    State::Open { until } | State::HalfOpen { until } => Some(until),
                },
                last_error: breaker.last_error.clone().filter(|_| breaker.failures > 0),
                settings: breaker.settings,
            }
        };
        self.all.iter().map(info).collect()
    }

    fn breaker(&self, service: &ServiceName) -> Option<MutexGuard<'_, Breaker>> {
        Some(self.all.get(service)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn record(
        &self,
        service: &ServiceName,
        kind: &'static str,
        at: Timestamp,
        data: &serde_json::Value,
    ) {
        let event = NewEvent { at, kind: kind.into(), data: data.to_string() };
        let _ = self.log.send((service.clone(), event));
    }
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen { .. } => "half_open",
        }
    }
}

impl Breaker {
    /// The last event of the stream says where it is.
    fn remember(&mut self, event: &StoredEvent) {
        let data: serde_json::Value = serde_json::from_str(&event.data).unwrap_or_default();
        let until = data["until"].as_str().and_then(|until| until.parse().ok());
        let Some(until) = until.filter(|_| event.kind == "breaker.opened") else {
            (self.state, self.failures) = (State::Closed, 0);
            return;
        };
        self.state = State::Open { until };
        let failures = data["failures"].as_u64().unwrap_or(1);
        self.failures = u32::try_from(failures).unwrap_or(u32::MAX);
        self.last_error = data["error"].as_str().map(str::to_owned);
    }

    /// 0 closed, 1 half open, 2 open.
    fn gauge(&self, service: &ServiceName) {
        let value = match self.state {
            State::Closed => 0.0,
            State::HalfOpen { .. } => 1.0,
            State::Open { .. } => 2.0,
        };
        metrics::gauge!("amends_breaker_state", "service" => service.to_string()).set(value);
    }
}

/// Writes the events in order. One that cannot be written is tried until it can: calls go on
/// meanwhile, on what is in memory.
async fn write(
    store: Arc<dyn Store>,
    mut versions: BTreeMap<ServiceName, Version>,
    mut events: mpsc::UnboundedReceiver<(ServiceName, NewEvent)>,
) {
    while let Some((service, event)) = events.recv().await {
        let version = versions.entry(service.clone()).or_default();
        loop {
            let append = Append {
                stream: Stream::Service(service.clone()),
                expected: *version,
                events: vec![event.clone()],
                row: None,
                start_key: None,
            };
            match store.append(append).await {
                Ok(_) => {
                    *version = version.plus(1);
                    break;
                }
                // Another host of the same store wrote.
                Err(StoreError::Conflict { actual, .. }) => *version = actual,
                Err(StoreError::Closed | StoreError::Fenced) => return,
                Err(error) => {
                    tracing::error!(%service, %error, "breaker event cannot be written");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use amends_engine::{Failure, Payload};

    use super::*;

    /// A breaker that opens after two failures, for a second; and what it records.
    fn breaker(
        on_open: OnOpen,
    ) -> (Breakers, ServiceName, mpsc::UnboundedReceiver<(ServiceName, NewEvent)>) {
        let settings = BreakerSettings { failures: 2, open_for: Duration::from_secs(1), on_open };
        let breaker = Breaker { settings, state: State::Closed, failures: 0, last_error: None };
        let service: ServiceName = "carrier".parse().unwrap();
        let (log, events) = mpsc::unbounded_channel();
        let all = BTreeMap::from([(service.clone(), Mutex::new(breaker))]);
        (Breakers { all, log }, service, events)
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn failed() -> Outcome {
        Outcome::Retryable(Failure::new("busy", "try later"))
    }

    fn succeeded() -> Outcome {
        Outcome::Succeeded(Payload::null())
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_success_closes_it() {
        let (breakers, service, mut events) = breaker(OnOpen::Wait);
        breakers.report(&service, &failed(), at(0));
        breakers.report(&service, &succeeded(), at(0));
        breakers.report(&service, &failed(), at(0));
        assert_eq!(breakers.admit(&service, false, at(0)), Admission::Go, "not in a row");
        breakers.report(&service, &failed(), at(0));
        let wait = Admission::Wait { until: at(1_000) };
        assert_eq!(breakers.admit(&service, false, at(999)), wait);
        assert_eq!(breakers.list()[0].state, "open");
        assert_eq!(breakers.admit(&service, false, at(1_000)), Admission::Go, "one tries");
        let others = Admission::Wait { until: at(2_000) };
        assert_eq!(breakers.admit(&service, false, at(1_001)), others, "the others wait for it");
        assert!(breakers.report(&service, &succeeded(), at(1_100)), "who waits may go on");
        assert_eq!(breakers.admit(&service, false, at(1_100)), Admission::Go);
        let kinds: Vec<_> =
            std::iter::from_fn(|| events.try_recv().ok()).map(|(_, event)| event.kind).collect();
        assert_eq!(kinds, ["breaker.opened", "breaker.closed"]);
    }

    #[test]
    fn a_try_that_fails_opens_it_again_and_one_that_is_lost_lets_another_try() {
        let (breakers, service, _events) = breaker(OnOpen::Wait);
        breakers.report(&service, &failed(), at(0));
        breakers.report(&service, &failed(), at(0));
        assert_eq!(breakers.admit(&service, false, at(1_000)), Admission::Go);
        breakers.report(&service, &failed(), at(1_200));
        let wait = Admission::Wait { until: at(2_200) };
        assert_eq!(breakers.admit(&service, false, at(1_300)), wait);
        assert_eq!(breakers.admit(&service, false, at(2_200)), Admission::Go);
        assert_eq!(breakers.admit(&service, false, at(3_200)), Admission::Go, "nothing was heard");
    }

    #[test]
    fn a_step_fails_where_that_is_said_and_an_undo_waits() {
        let (breakers, service, _events) = breaker(OnOpen::Fail);
        breakers.report(&service, &failed(), at(0));
        breakers.report(&service, &failed(), at(0));
        let until = at(1_000);
        assert_eq!(breakers.admit(&service, false, at(1)), Admission::Fail { until });
        assert_eq!(breakers.admit(&service, true, at(1)), Admission::Wait { until });
    }

    #[test]
    fn a_service_that_says_no_for_good_works() {
        let (breakers, service, _events) = breaker(OnOpen::Wait);
        let no = Outcome::Permanent(Failure::new("undeliverable", "no such place"));
        for _ in 0..10 {
            breakers.report(&service, &no, at(0));
        }
        assert_eq!(breakers.admit(&service, false, at(0)), Admission::Go);
        let unknown: ServiceName = "other".parse().unwrap();
        assert_eq!(breakers.admit(&unknown, false, at(0)), Admission::Go);
    }
}
