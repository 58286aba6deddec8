//! Circuit breakers (M. Nygard, *Release It!*), one a service, shared by every saga.
//!
//! Closed: calls run; failures in a row are counted, and which part of the calls of the last
//! seconds failed. Open: none begins until a time. Half open: a few calls try; when all of them
//! succeed they close the breaker, and the first that fails opens it again.
//!
//! What opens and closes a breaker is an event in the service's stream, so it is the same after a
//! restart, and for every host of the store: each follows the streams of its services.
//!
//! Deliberately absent: shared counts. Each host counts its own calls, and lets its own try.

mod breaker;
mod follow;
pub(crate) mod permit;
mod record;
pub(crate) mod settings;
mod window;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amends_engine::{Outcome, ServiceName, Timestamp};
use amends_store::{NewEvent, Store, StoreError};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::ports::Wake;
use breaker::{Breaker, Change, State};
use follow::Follower;
use record::{CLOSED, Entry, OPENED};
use settings::{Admission, BreakerInfo, BreakerSettings, ByHand, Ticket};

/// Receives the result of the first try to write a change.
pub(crate) type Written = oneshot::Receiver<Result<(), StoreError>>;

/// The breakers of a host.
#[derive(Debug)]
pub(crate) struct Breakers {
    all: Arc<BTreeMap<ServiceName, Mutex<Breaker>>>,
    log: mpsc::UnboundedSender<Entry>,
    wake: Arc<dyn Wake>,
}

impl Breakers {
    /// Reads where each breaker was left, and follows what becomes of it.
    pub(crate) async fn open(
        settings: BTreeMap<ServiceName, BreakerSettings>,
        store: Arc<dyn Store>,
        wake: Arc<dyn Wake>,
    ) -> Result<Self, StoreError> {
        let new = |(service, settings)| (service, Mutex::new(Breaker::new(settings)));
        let all: Arc<BTreeMap<_, _>> = Arc::new(settings.into_iter().map(new).collect());
        let (log, events) = mpsc::unbounded_channel();
        if !all.is_empty() {
            let follower = Follower::open(store, Arc::clone(&wake), Arc::clone(&all)).await?;
            tokio::spawn(follower.run(events));
        }
        Ok(Self { all, log, wake })
    }

    /// Returns each service with the value of its metric.
    pub(crate) fn gauges(&self) -> Vec<(ServiceName, f64)> {
        let value = |breaker: &Mutex<Breaker>| {
            breaker.lock().unwrap_or_else(PoisonError::into_inner).state.gauge()
        };
        self.all.iter().map(|(service, breaker)| (service.clone(), value(breaker))).collect()
    }

    /// Whether a call of the service may begin at `at`. One that may has a [`Permit`] with its ticket.
    pub(crate) fn admit(&self, service: &ServiceName, is_undo: bool, at: Timestamp) -> Admission {
        let Some(mut breaker) = self.breaker(service) else {
            return Admission::Go(Ticket { generation: 0, round: 0, is_trial: false });
        };
        if breaker.is_hold_over(at) && !breaker.opens_by_itself() {
            breaker.close();
            tracing::info!(%service, "breaker is closed: its time is over");
            // Nobody waits for that.
            drop(self.write(service, &mut breaker, at, CLOSED, "{}".to_owned()));
        }
        breaker.admit(is_undo, at)
    }

    /// What came of a call. True when sagas that wait for the service may go on.
    fn report(
        &self,
        service: &ServiceName,
        ticket: Ticket,
        outcome: &Outcome,
        at: Timestamp,
    ) -> bool {
        let Some(mut breaker) = self.breaker(service) else { return false };
        let change = breaker.report(ticket, outcome, at);
        let (kind, data) = match &change {
            None => return false,
            Some(Change::Opened(data)) => {
                let (error, failures) = (&breaker.last_error, breaker.failures);
                tracing::warn!(%service, until = data["until"].as_str(), failures, error, "breaker is open");
                (OPENED, data.to_string())
            }
            Some(Change::Closed) => {
                tracing::info!(%service, "breaker is closed");
                (CLOSED, "{}".to_owned())
            }
        };
        // Nobody waits for that.
        drop(self.write(service, &mut breaker, at, kind, data));
        change == Some(Change::Closed)
    }

    /// A call did not begin. True when another may try the service in its place.
    fn give_back(&self, service: &ServiceName, ticket: Ticket) -> bool {
        self.breaker(service).is_some_and(|mut breaker| breaker.give_back(ticket))
    }

    /// Opens a breaker by hand, until a time or until somebody closes it. It counts at once, and is written
    /// like an opening by itself. Returns none when the service has no breaker.
    pub(crate) fn hold(
        &self,
        service: &ServiceName,
        by_hand: ByHand,
        until: Option<Timestamp>,
        at: Timestamp,
    ) -> Option<Written> {
        let mut breaker = self.breaker(service)?;
        let ByHand { who, reason } = &by_hand;
        let time = until.map(tracing::field::display);
        tracing::warn!(%service, who, reason, until = time, "breaker is opened by hand");
        let data = breaker.hold(by_hand, until);
        let written = self.write(service, &mut breaker, at, OPENED, data.to_string());
        drop(breaker);
        // Those that wait already wait until another time now.
        self.wake.breaker_has_changed(service);
        Some(written)
    }

    /// Closes a breaker by hand: sagas that wait for its service go on. A closed breaker stays as it is.
    /// Returns none when the service has no breaker.
    pub(crate) fn close(
        &self,
        service: &ServiceName,
        by_hand: &ByHand,
        at: Timestamp,
    ) -> Option<Written> {
        let mut breaker = self.breaker(service)?;
        if breaker.state == State::Closed && breaker.unwritten == 0 {
            let (told, written) = oneshot::channel();
            let _ = told.send(Ok(()));
            return Some(written);
        }
        let ByHand { who, reason } = by_hand;
        tracing::warn!(%service, who, reason, "breaker is closed by hand");
        breaker.close();
        let data = json!({"who": who, "reason": reason}).to_string();
        let written = self.write(service, &mut breaker, at, CLOSED, data);
        drop(breaker);
        self.wake.breaker_has_changed(service);
        Some(written)
    }

    /// Has a change of a breaker written: in the order in which they happened, because the breaker is held.
    fn write(
        &self,
        service: &ServiceName,
        breaker: &mut Breaker,
        at: Timestamp,
        kind: &'static str,
        data: String,
    ) -> Written {
        breaker.unwritten += 1;
        let (told, written) = oneshot::channel();
        let event = NewEvent { kind: kind.into(), data };
        let _ = self.log.send(Entry { service: service.clone(), at, event, told });
        written
    }

    pub(crate) fn list(&self, at: Timestamp) -> Vec<BreakerInfo> {
        let info = |(service, breaker): (&ServiceName, &Mutex<Breaker>)| {
            let breaker = breaker.lock().unwrap_or_else(PoisonError::into_inner);
            let is_fine = breaker.failures == 0 && breaker.state == State::Closed;
            BreakerInfo {
                service: service.clone(),
                state: breaker.state.word(),
                failures: breaker.failures,
                counted: breaker.counted(at).map(|count| (count.calls, count.failed)),
                open_until: breaker.state.until(),
                last_error: breaker.last_error.clone().filter(|_| !is_fine),
                by_hand: breaker.by_hand.clone(),
                settings: breaker.settings,
            }
        };
        self.all.iter().map(info).collect()
    }

    fn breaker(&self, service: &ServiceName) -> Option<MutexGuard<'_, Breaker>> {
        Some(self.all.get(service)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use amends_engine::{Failure, Payload, Position, Version};
    use amends_store::{Append, Durability, PageBudget, SqliteStore, StoredEvent, Stream};

    use std::time::Duration;

    use super::*;
    use crate::breakers::permit::Permit;
    use crate::breakers::settings::{OnOpen, RateSettings};

    /// No worker waits.
    #[derive(Debug)]
    struct Nobody;

    impl Wake for Nobody {
        fn room(&self, _: u64, _: &crate::room_key::RoomKey) {}

        fn breaker_has_changed(&self, _: &ServiceName) {}

        fn trial_is_free(&self, _: &ServiceName) {}
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// Of a breaker that nothing opens.
    const SETTINGS: BreakerSettings =
        BreakerSettings { open_for: SECOND, ..BreakerSettings::BY_HAND };

    type Trial = (Breakers, ServiceName, mpsc::UnboundedReceiver<Entry>);

    /// A breaker that opens after two failures, for a second; and what it records.
    fn breaker(on_open: OnOpen) -> Trial {
        trial(BreakerSettings { failures: Some(2), on_open, ..SETTINGS })
    }

    /// One that opens when half of at least ten calls within ten seconds failed.
    fn rate_breaker() -> Trial {
        let rate = RateSettings { failure_rate: 0.5, window: 10 * SECOND, calls_min: 10 };
        trial(BreakerSettings { rate: Some(rate), ..SETTINGS })
    }

    fn trial(settings: BreakerSettings) -> Trial {
        let breaker = Breaker::new(settings);
        let service: ServiceName = "carrier".parse().unwrap();
        let (log, events) = mpsc::unbounded_channel();
        let all = Arc::new(BTreeMap::from([(service.clone(), Mutex::new(breaker))]));
        (Breakers { all, log, wake: Arc::new(Nobody) }, service, events)
    }

    /// Of a call that began when the breaker was as it is now.
    fn report(
        breakers: &Breakers,
        service: &ServiceName,
        outcome: &Outcome,
        at: Timestamp,
    ) -> bool {
        let ticket = breakers.breaker(service).unwrap().ticket();
        breakers.report(service, ticket, outcome, at)
    }

    fn goes(admission: Admission) -> bool {
        matches!(admission, Admission::Go(_))
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
        report(&breakers, &service, &failed(), at(0));
        report(&breakers, &service, &succeeded(), at(0));
        report(&breakers, &service, &failed(), at(0));
        assert!(goes(breakers.admit(&service, false, at(0))), "not in a row");
        report(&breakers, &service, &failed(), at(0));
        let wait = Admission::Wait { until: Some(at(1_000)) };
        assert_eq!(breakers.admit(&service, false, at(999)), wait);
        assert_eq!(breakers.list(at(999))[0].state, "open");
        assert!(goes(breakers.admit(&service, false, at(1_000))), "one tries");
        let others = Admission::Wait { until: Some(at(2_000)) };
        assert_eq!(breakers.admit(&service, false, at(1_001)), others, "the others wait for it");
        assert!(report(&breakers, &service, &succeeded(), at(1_100)), "who waits may go on");
        assert!(goes(breakers.admit(&service, false, at(1_100))));
        let kinds: Vec<_> =
            std::iter::from_fn(|| events.try_recv().ok()).map(|entry| entry.event.kind).collect();
        assert_eq!(kinds, ["breaker.opened", "breaker.closed"]);
    }

    #[test]
    fn a_try_that_fails_opens_it_again_and_one_that_is_lost_lets_another_try() {
        let (breakers, service, _events) = breaker(OnOpen::Wait);
        report(&breakers, &service, &failed(), at(0));
        report(&breakers, &service, &failed(), at(0));
        assert!(goes(breakers.admit(&service, false, at(1_000))));
        report(&breakers, &service, &failed(), at(1_200));
        let wait = Admission::Wait { until: Some(at(2_200)) };
        assert_eq!(breakers.admit(&service, false, at(1_300)), wait);
        assert!(goes(breakers.admit(&service, false, at(2_200))));
        assert!(goes(breakers.admit(&service, false, at(3_200))), "nothing was heard");
    }

    #[test]
    fn a_rate_of_failures_opens_it_when_there_are_calls_enough() {
        let (breakers, service, mut events) = rate_breaker();
        let state = |millis| breakers.list(at(millis))[0].state;
        // Never two failures in a row.
        for number in 0..8_i64 {
            let outcome = if number % 2 == 0 { failed() } else { succeeded() };
            report(&breakers, &service, &outcome, at(number * 100));
        }
        report(&breakers, &service, &failed(), at(900));
        assert_eq!(state(900), "closed", "nine calls say too little");
        assert_eq!(breakers.list(at(900))[0].counted, Some((9, 5)));
        report(&breakers, &service, &succeeded(), at(1_000));
        assert_eq!(state(1_000), "open", "five of ten");
        let event = events.try_recv().unwrap().event;
        assert_eq!(event.kind, "breaker.opened");
        let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!((&data["calls"], &data["calls_failed"]), (&10.into(), &5.into()), "{data}");
        assert_eq!(data["error"], "busy: try later", "{data}");
        // The calls from before do not count when it has closed.
        assert!(goes(breakers.admit(&service, false, at(2_000))));
        assert!(report(&breakers, &service, &succeeded(), at(2_000)));
        assert_eq!(breakers.list(at(2_000))[0].counted, Some((0, 0)));
    }

    #[test]
    fn failures_that_are_few_or_long_ago_are_no_rate() {
        let (breakers, service, _events) = rate_breaker();
        for number in 0..1_000_i64 {
            let outcome = if number % 5 > 2 { failed() } else { succeeded() };
            report(&breakers, &service, &outcome, at(number * 10));
        }
        for number in 0..100_i64 {
            report(&breakers, &service, &failed(), at(20_000 + number * 2_000));
        }
        assert_eq!(breakers.list(at(220_000))[0].state, "closed");
        assert_eq!(breakers.list(at(220_000))[0].failures, 102);
    }

    #[test]
    fn several_calls_may_try_and_all_must_succeed() {
        let three = BreakerSettings { failures: Some(1), half_open: 3, ..SETTINGS };
        let (breakers, service, mut events) = trial(three);
        let admit = |millis| breakers.admit(&service, false, at(millis));
        let wait = |millis| Admission::Wait { until: Some(at(millis)) };
        report(&breakers, &service, &failed(), at(0));
        for millis in 1_000..1_003 {
            assert!(goes(admit(millis)));
        }
        assert_eq!(admit(1_003), wait(2_000), "three try");
        assert!(!report(&breakers, &service, &succeeded(), at(1_100)));
        assert_eq!(admit(1_100), wait(2_000), "its success lets no other try");
        report(&breakers, &service, &failed(), at(1_200));
        assert!(!report(&breakers, &service, &succeeded(), at(1_300)), "the third comes too late");
        assert_eq!(admit(2_199), wait(2_200), "the first failure opens it");
        // One succeeds and of two nothing is heard: two more may try.
        for millis in 2_200..2_203 {
            assert!(goes(admit(millis)));
        }
        assert!(!report(&breakers, &service, &succeeded(), at(2_300)));
        assert!(goes(admit(3_200)) && goes(admit(3_201)));
        assert_eq!(admit(3_202), wait(4_200));
        assert!(!report(&breakers, &service, &succeeded(), at(3_300)));
        assert_eq!(breakers.list(at(3_300))[0].state, "half_open");
        assert!(report(&breakers, &service, &succeeded(), at(3_300)), "three have succeeded");
        let kinds: Vec<_> =
            std::iter::from_fn(|| events.try_recv().ok()).map(|entry| entry.event.kind).collect();
        assert_eq!(kinds, ["breaker.opened", "breaker.opened", "breaker.closed"]);
    }

    #[tokio::test]
    async fn of_two_hosts_the_one_that_writes_last_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("amends.db"), Durability::Relaxed);
        let store: Arc<dyn Store> = Arc::new(store.unwrap());
        let service: ServiceName = "carrier".parse().unwrap();
        let settings = BreakerSettings { failures: Some(1), ..SETTINGS };
        let mut hosts = Vec::new();
        for _ in 0..3 {
            let settings = BTreeMap::from([(service.clone(), settings)]);
            let breakers = Breakers::open(settings, Arc::clone(&store), Arc::new(Nobody)).await;
            hosts.push(breakers.unwrap());
        }
        // Neither knows of the other's failure when it writes its own.
        let begun =
            store.log().stream(Stream::Service(service.clone()), Version(0), PageBudget::items(10));
        assert_eq!(begun.await.unwrap(), []);
        report(&hosts[0], &service, &failed(), at(10_000));
        report(&hosts[1], &service, &failed(), at(20_000));
        let last = loop {
            let events = store.log().stream(
                Stream::Service(service.clone()),
                Version(0),
                PageBudget::items(10),
            );
            let events = events.await.unwrap();
            if let [_, last] = events.as_slice() {
                break last.clone();
            }
            assert!(events.len() < 2, "{events:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let right = last.at.after(SECOND);
        let is_right = |host: &Breakers| host.list(last.at)[0].open_until == Some(right);
        for _ in 0..1_000 {
            if hosts.iter().all(is_right) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", hosts.iter().map(|host| host.list(last.at)).collect::<Vec<_>>());
    }

    /// Two appends of a service's stream have lost their versions, which one of them cannot be told by
    /// any other.
    #[tokio::test]
    async fn what_cannot_be_read_of_a_stream_holds_up_no_host() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("amends.db");
        let open = || SqliteStore::open(&path, Durability::Relaxed).unwrap();
        let store = open();
        let (damaged, other): (ServiceName, ServiceName) =
            ("carrier".parse().unwrap(), "mail".parse().unwrap());
        let append = |service: &ServiceName, version, kind: &'static str, data: String| {
            let events = vec![NewEvent { kind: kind.into(), data }];
            Append::shared(Stream::Service(service.clone()), Version(version), at(1), events)
        };
        let until = at(i64::from(u32::MAX) * 1_000);
        let opened = || serde_json::json!({"until": until, "failures": 3, "error": "busy"});
        let nothing = || "{}".to_owned();
        for (version, kind, data) in [
            (0, "breaker.closed", nothing()),
            (1, "breaker.opened", opened().to_string()),
            (2, "breaker.closed", nothing()),
        ] {
            store.log().append_shared(append(&damaged, version, kind, data)).await.unwrap();
        }
        store.close().await.unwrap();
        let connection = rusqlite::Connection::open(&path).unwrap();
        let damage = "UPDATE appends SET version = 'v' || version WHERE version <> 2";
        assert_eq!(connection.execute(damage, []).unwrap(), 2);
        let store: Arc<dyn Store> = Arc::new(open());
        let settings = BreakerSettings { failures: Some(1), ..SETTINGS };
        let settings = [&damaged, &other].map(|service| (service.clone(), settings));
        let opening = Breakers::open(settings.into(), Arc::clone(&store), Arc::new(Nobody));
        let opening = tokio::time::timeout(10 * SECOND, opening).await;
        let breakers = opening.expect("the stream is read for ever").unwrap();
        assert_eq!(breakers.list(at(2))[0].state, "open", "as the last event that can be read");

        // It cannot be written to any more, and is not waited for.
        breakers.breaker(&damaged).unwrap().remember(&StoredEvent {
            position: Position(0),
            stream: Stream::Service(damaged.clone()),
            version: Version(9),
            at: at(2),
            kind: "breaker.closed".to_owned(),
            data: nothing(),
        });
        for service in [&damaged, &other] {
            report(&breakers, service, &failed(), at(2));
        }
        let began = std::time::Instant::now();
        while store
            .log()
            .stream(Stream::Service(other.clone()), Version(0), PageBudget::items(10))
            .await
            .unwrap()
            .is_empty()
        {
            assert!(began.elapsed() < 10 * SECOND, "the other service's event is not recorded");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[test]
    fn what_began_before_it_opened_does_not_count() {
        let (breakers, service, _events) = breaker(OnOpen::Wait);
        let go = |millis| match breakers.admit(&service, false, at(millis)) {
            Admission::Go(ticket) => ticket,
            other @ (Admission::Wait { .. } | Admission::Fail { .. }) => panic!("{other:?}"),
        };
        let state = |millis| breakers.list(at(millis))[0].state;
        let told = |ticket, outcome: &Outcome, millis| {
            breakers.report(&service, ticket, outcome, at(millis))
        };
        let (slow, late) = (go(0), go(0));
        assert!(!slow.is_trial);
        report(&breakers, &service, &failed(), at(0));
        report(&breakers, &service, &failed(), at(0));
        assert!(!told(slow, &succeeded(), 1));
        assert_eq!(state(1), "open");
        // While another call tries, it neither closes the breaker nor opens it again.
        let trial = go(1_000);
        assert!(trial.is_trial);
        assert!(!told(slow, &succeeded(), 1_001));
        assert_eq!(state(1_001), "half_open");
        assert!(!told(late, &failed(), 1_002));
        assert_eq!(state(1_002), "half_open");
        assert!(told(trial, &succeeded(), 1_003));
        // And of a breaker that has closed since it is no failure.
        for _ in 0..2 {
            assert!(!told(late, &failed(), 1_004));
        }
        assert_eq!(state(1_004), "closed");
    }

    #[test]
    fn the_trial_of_a_call_that_did_not_begin_is_free_again() {
        let two = BreakerSettings { failures: Some(1), half_open: 2, ..SETTINGS };
        let (breakers, service, _events) = trial(two);
        let breakers = Arc::new(breakers);
        let permit = |millis| match breakers.admit(&service, false, at(millis)) {
            Admission::Go(ticket) => Some(Permit::new(&breakers, &service, ticket)),
            Admission::Wait { .. } | Admission::Fail { .. } => None,
        };
        permit(0).unwrap().report(&failed(), at(0));
        assert!(permit(999).is_none());
        let (first, second) = (permit(1_000).unwrap(), permit(1_000).unwrap());
        assert!(first.is_trial() && second.is_trial());
        assert!(permit(1_001).is_none(), "two try");
        first.report(&succeeded(), at(1_002));
        assert!(permit(1_002).is_none(), "one that was reported on leaves no place");
        drop(second);
        let second = permit(1_003).unwrap();
        assert!(permit(1_003).is_none(), "the place is one");
        // Nothing is heard of it, and another tries in its place: it has none to give back.
        let third = permit(2_000).unwrap();
        drop(second);
        assert!(permit(2_001).is_none());
        third.report(&succeeded(), at(2_002));
        assert_eq!(breakers.list(at(2_002))[0].state, "closed");
        // Nor has one of before the breaker changed.
        let late = permit(2_003).unwrap();
        assert!(!late.is_trial());
        permit(2_003).unwrap().report(&failed(), at(2_003));
        let trials = [permit(3_003).unwrap(), permit(3_003).unwrap()];
        drop(late);
        assert!(permit(3_004).is_none());
        // What panics has begun.
        let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _trials = trials;
            panic!("on purpose");
        }));
        assert!(panics.is_err());
        assert!(permit(3_005).is_none());
    }

    #[test]
    fn a_step_fails_where_that_is_said_and_an_undo_waits() {
        let (breakers, service, _events) = breaker(OnOpen::Fail);
        report(&breakers, &service, &failed(), at(0));
        report(&breakers, &service, &failed(), at(0));
        let until = Some(at(1_000));
        assert_eq!(breakers.admit(&service, false, at(1)), Admission::Fail { until });
        assert_eq!(breakers.admit(&service, true, at(1)), Admission::Wait { until });
    }

    #[test]
    fn one_that_is_opened_by_hand_stays_open_until_it_is_closed_or_its_time_is_over() {
        let (breakers, service, mut events) = breaker(OnOpen::Wait);
        let by = |reason: &str| ByHand { who: "ada".to_owned(), reason: reason.to_owned() };
        let admit = |is_undo, millis| breakers.admit(&service, is_undo, at(millis));
        let Admission::Go(late) = admit(false, 0) else { panic!("it is open") };
        assert!(breakers.hold(&service, by("it moves house"), None, at(0)).is_some());
        let wait = Admission::Wait { until: None };
        assert_eq!(admit(false, 1_000_000_000), wait);
        assert_eq!(admit(true, 1), wait);
        assert!(!breakers.report(&service, late, &succeeded(), at(2)), "it began before");
        let info = breakers.list(at(3)).remove(0);
        assert_eq!((info.state, info.open_until), ("open", None));
        assert_eq!(info.by_hand, Some(by("it moves house")));
        // Another host, or this one after a restart, has it from the stream.
        let event = events.try_recv().unwrap().event;
        let stored = StoredEvent {
            position: Position(1),
            stream: Stream::Service(service.clone()),
            version: Version(1),
            at: at(0),
            kind: event.kind.into_owned(),
            data: event.data,
        };
        let mut other = Breaker::new(SETTINGS);
        other.remember(&stored);
        assert_eq!(other.admit(true, at(1_000_000_000)), wait);
        assert_eq!(other.by_hand, Some(by("it moves house")));
        assert!(breakers.close(&service, &by("it is back"), at(4)).is_some());
        assert!(goes(admit(false, 5)));
        assert_eq!(breakers.list(at(5))[0].by_hand, None);
        // Done already: nothing is recorded.
        events.try_recv().unwrap();
        breakers.breaker(&service).unwrap().unwritten = 0;
        let mut written = breakers.close(&service, &by("it is back"), at(6)).unwrap();
        assert!(written.try_recv().unwrap().is_ok(), "it is closed already");
        assert!(events.try_recv().is_err());
        // For longer than it would stay open by itself.
        assert!(breakers.hold(&service, by("a moment"), Some(at(9_000)), at(7)).is_some());
        assert_eq!(admit(false, 8_999), Admission::Wait { until: Some(at(9_000)) });
        assert!(goes(admit(false, 9_000)), "one tries");
        assert_eq!(breakers.list(at(9_000))[0].state, "half_open");
        let other: ServiceName = "other".parse().unwrap();
        assert!(breakers.close(&other, &by("it is back"), at(9_000)).is_none());
    }

    #[test]
    fn a_service_that_says_no_for_good_works() {
        let (breakers, service, _events) = breaker(OnOpen::Wait);
        let no = Outcome::Permanent(Failure::new("undeliverable", "no such place"));
        for _ in 0..10 {
            report(&breakers, &service, &no, at(0));
        }
        assert!(goes(breakers.admit(&service, false, at(0))));
        let unknown: ServiceName = "other".parse().unwrap();
        assert!(goes(breakers.admit(&unknown, false, at(0))));
    }

    /// Of a service that the config gives no breaker.
    #[test]
    fn one_that_only_operators_open_closes_when_its_time_is_over() {
        let (breakers, service, mut events) = trial(SETTINGS);
        let by = ByHand { who: "ada".to_owned(), reason: "it moves house".to_owned() };
        for _ in 0..1_000 {
            report(&breakers, &service, &failed(), at(0));
        }
        let info = breakers.list(at(0)).remove(0);
        assert_eq!((info.state, info.failures, info.last_error), ("closed", 0, None));
        assert!(breakers.hold(&service, by, Some(at(9_000)), at(1)).is_some());
        let wait = Admission::Wait { until: Some(at(9_000)) };
        assert_eq!(breakers.admit(&service, false, at(8_999)), wait);
        let Admission::Go(ticket) = breakers.admit(&service, false, at(9_000)) else {
            panic!("its time is over")
        };
        assert!(!ticket.is_trial);
        breakers.report(&service, ticket, &failed(), at(9_001));
        assert!(goes(breakers.admit(&service, false, at(9_002))), "that opens it for nobody");
        let kinds: Vec<_> =
            std::iter::from_fn(|| events.try_recv().ok()).map(|entry| entry.event.kind).collect();
        assert_eq!(kinds, [OPENED, CLOSED]);
        // The config gave it one before.
        let mut other = Breaker::new(SETTINGS);
        other.remember(&StoredEvent {
            position: Position(1),
            stream: Stream::Service(service),
            version: Version(1),
            at: at(0),
            kind: OPENED.to_owned(),
            data: json!({"until": at(1_000_000), "failures": 5, "error": "busy"}).to_string(),
        });
        assert!(goes(other.admit(false, at(1))));
    }

    #[test]
    fn an_order_to_close_is_not_answered_for_one_that_is_not_written() {
        let (breakers, service, mut events) = breaker(OnOpen::Wait);
        let by = || ByHand { who: "ada".to_owned(), reason: "a moment".to_owned() };
        assert!(breakers.hold(&service, by(), None, at(0)).is_some());
        assert!(breakers.close(&service, &by(), at(1)).is_some());
        let mut again = breakers.close(&service, &by(), at(2)).unwrap();
        assert!(again.try_recv().is_err(), "the one before is not written yet");
        let kinds: Vec<_> =
            std::iter::from_fn(|| events.try_recv().ok()).map(|entry| entry.event.kind).collect();
        assert_eq!(kinds, [OPENED, CLOSED, CLOSED]);
    }
}
