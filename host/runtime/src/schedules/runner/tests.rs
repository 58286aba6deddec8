//! Schedules by a clock that the test moves, over restarts and crashes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::{Mutex, PoisonError};

use amends_engine::Digest;
use amends_store::conformance::{TestStore, saga_id, start};
use amends_store::{Append, Durability, StartKey, StoreConfig};
use futures::FutureExt as _;

use super::*;
use crate::schedules::{CatchUp, SchedulePattern};

const MINUTE: Duration = Duration::from_mins(1);

/// What was started: keys in order, each with its saga. A saga of the store stands for each.
struct Sagas {
    store: TestStore,
    started: Mutex<Vec<(String, SagaId)>>,
    /// True while the host is full.
    is_full: Mutex<bool>,
}

impl Firings for Sagas {
    fn fire(&self, firing: Firing) -> BoxFuture<'_, Result<SagaId, StartError>> {
        let fire = async move {
            if *self.is_full.lock().unwrap_or_else(PoisonError::into_inner) {
                return Err(StartError::Overloaded("the test says so"));
            }
            let number = {
                let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((_, saga)) = started.iter().find(|(key, _)| *key == firing.key) {
                    return Ok(*saga);
                }
                u32::try_from(started.len()).unwrap() + 1
            };
            assert_eq!(firing.tags[SCHEDULE_TAG], firing.schedule);
            assert!(firing.input.as_str().contains(&firing.tags[SCHEDULED_AT]));
            let start_key = StartKey { key: firing.key.clone(), payload_digest: Digest::of(b"") };
            let append = Append { start_key: Some(start_key), ..start(number) };
            self.store.append(append).await.unwrap();
            let saga = saga_id(number);
            self.started.lock().unwrap().push((firing.key, saga));
            Ok(saga)
        };
        fire.boxed()
    }

    fn is_running(&self) -> bool {
        true
    }
}

/// A store, and the sagas that were started.
struct Place {
    _folder: tempfile::TempDir,
    store: Arc<dyn Store>,
    sagas: Arc<Sagas>,
    settings: ScheduleSettings,
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

impl Place {
    async fn new(pattern: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("amends.db").display());
        let config = StoreConfig { url, durability: Durability::Relaxed, archive: None };
        let store = amends_store::open(&config).unwrap();
        let kept = TestStore::of(Arc::clone(&store)).await.unwrap();
        let sagas =
            Arc::new(Sagas { store: kept, started: Mutex::default(), is_full: Mutex::default() });
        let settings = ScheduleSettings {
            name: "nightly".to_owned(),
            pattern: SchedulePattern::parse(pattern, "Europe/Vienna").unwrap(),
            definition: "report".parse().unwrap(),
            input: serde_json::Map::new(),
            tags: BTreeMap::new(),
            catch_up: CatchUp::Last,
            overlap: Overlap::Allow,
        };
        Self { _folder: folder, store, sagas, settings }
    }

    async fn open(&self, at: Timestamp) -> Runner {
        let schedules = Schedules::new(vec![self.settings.clone()]);
        let sagas = Arc::clone(&self.sagas) as Arc<dyn Firings>;
        Runner::open(schedules, Arc::clone(&self.store), sagas, at).await.unwrap()
    }

    /// The times that started a saga, without the name of the schedule.
    fn started(&self) -> Vec<String> {
        let started = self.sagas.started.lock().unwrap();
        started.iter().map(|(key, _)| key.replace("schedule/nightly/", "")).collect()
    }

    async fn skipped(&self) -> Option<(Timestamp, String)> {
        self.store.schedules().schedule("nightly".to_owned()).await.unwrap().unwrap().skipped
    }
}

/// Every look is by a host that was restarted, and every other of them had crashed before it wrote down
/// what it had started.
async fn each_day_once(from: &str, until: &str, expected: &[&str]) {
    let place = Place::new("30 2 * * *").await;
    let (mut at, until) = (time(from), time(until));
    drop(place.open(at).await);
    let mut looks = 0;
    while at < until {
        at = at.after(MINUTE);
        let before = place.store.schedules().schedule("nightly".to_owned()).await.unwrap();
        let mut runner = place.open(at).await;
        runner.look(at).await.unwrap();
        looks += 1;
        if looks % 2 == 0 {
            place.store.schedules().save_schedule(before.unwrap()).await.unwrap();
            let mut runner = place.open(at).await;
            runner.look(at).await.unwrap();
        }
    }
    assert_eq!(place.started(), expected);
}

#[tokio::test]
async fn a_schedule_starts_each_day_once_when_the_clock_goes_forward() {
    let days = ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
    each_day_once("2026-03-28T01:00:00Z", "2026-03-30T03:00:00Z", &days).await;
}

#[tokio::test]
async fn a_schedule_starts_each_day_once_when_the_clock_goes_back() {
    let days = ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"];
    each_day_once("2026-10-24T00:00:00Z", "2026-10-26T03:00:00Z", &days).await;
}

/// What a host starts that was down from `00:00` until `03:20` of an hourly schedule.
async fn after_an_outage(catch_up: CatchUp) -> (Vec<String>, Option<String>) {
    let mut place = Place::new("0 * * * *").await;
    place.settings.catch_up = catch_up;
    drop(place.open(time("2026-06-01T00:00:30Z")).await);
    let at = time("2026-06-01T03:20:00Z");
    let mut runner = place.open(at).await;
    runner.look(at).await.unwrap();
    let skipped = place.skipped().await.map(|(at, reason)| format!("{at} {reason}"));
    // A second host finds nothing more.
    let mut runner = place.open(at).await;
    runner.look(at.after(MINUTE)).await.unwrap();
    (place.started(), skipped)
}

#[tokio::test]
async fn times_that_were_missed_are_caught_up_as_the_config_says() {
    let missed = |at: &str, count: usize| {
        Some(format!("2026-06-01T{at}.000Z missed while the host did not run, {count} in all"))
    };
    assert_eq!(after_an_outage(CatchUp::None).await, (Vec::new(), missed("03:00:00", 3)));
    let last = vec!["2026-06-01T03:00:00Z".to_owned()];
    assert_eq!(after_an_outage(CatchUp::Last).await, (last, missed("02:00:00", 2)));
    let all = ["01", "02", "03"].map(|hour| format!("2026-06-01T{hour}:00:00Z"));
    assert_eq!(after_an_outage(CatchUp::All).await, (all.to_vec(), None));
}

#[tokio::test]
async fn a_hundred_missed_times_are_caught_up_and_no_more() {
    let mut place = Place::new("* * * * *").await;
    place.settings.catch_up = CatchUp::All;
    drop(place.open(time("2026-06-01T00:00:30Z")).await);
    let at = time("2026-06-01T03:20:30Z");
    place.open(at).await.look(at).await.unwrap();
    // 199 were missed, and one was due just now.
    let started = place.started();
    assert_eq!((started.len(), started[0].as_str()), (101, "2026-06-01T01:40:00Z"));
    assert!(place.skipped().await.unwrap().1.contains("99 in all"));
}

#[tokio::test]
async fn a_restart_within_a_minute_misses_nothing() {
    let mut place = Place::new("0 * * * *").await;
    place.settings.catch_up = CatchUp::None;
    drop(place.open(time("2026-06-01T00:59:30Z")).await);
    let at = time("2026-06-01T01:00:50Z");
    place.open(at).await.look(at).await.unwrap();
    assert_eq!(place.started(), ["2026-06-01T01:00:00Z"]);
}

#[tokio::test]
async fn a_clock_that_is_set_back_starts_nothing_twice_and_holds_nothing() {
    let place = Place::new("0 * * * *").await;
    let mut runner = place.open(time("2026-06-01T00:30:00Z")).await;
    runner.look(time("2026-06-01T01:00:00Z")).await.unwrap();
    // A day ahead, and right again.
    runner.look(time("2026-06-02T01:00:10Z")).await.unwrap();
    assert_eq!(place.started(), ["2026-06-01T01:00:00Z", "2026-06-02T01:00:00Z"]);
    runner.look(time("2026-06-01T00:50:00Z")).await.unwrap();
    runner.look(time("2026-06-01T01:00:05Z")).await.unwrap();
    let mut runner = place.open(time("2026-06-01T01:30:00Z")).await;
    runner.look(time("2026-06-01T02:00:00Z")).await.unwrap();
    let expected = ["2026-06-01T01:00:00Z", "2026-06-02T01:00:00Z", "2026-06-01T02:00:00Z"];
    assert_eq!(place.started(), expected);
}

#[tokio::test]
async fn a_time_is_skipped_while_the_saga_before_runs() {
    let mut place = Place::new("0 * * * *").await;
    place.settings.overlap = Overlap::Skip;
    let mut runner = place.open(time("2026-06-01T00:30:00Z")).await;
    runner.look(time("2026-06-01T01:00:00Z")).await.unwrap();
    runner.look(time("2026-06-01T02:00:00Z")).await.unwrap();
    assert_eq!(place.started(), ["2026-06-01T01:00:00Z"]);
    let (at, reason) = place.skipped().await.unwrap();
    assert_eq!(at, time("2026-06-01T02:00:00Z"));
    let saga = place.sagas.started.lock().unwrap()[0].1;
    assert!(reason.starts_with(&format!("saga {saga} of the time before is ")), "{reason}");
    // A restart does not make the skipped time up.
    let mut runner = place.open(time("2026-06-01T02:10:00Z")).await;
    runner.look(time("2026-06-01T02:10:00Z")).await.unwrap();
    assert_eq!(place.started().len(), 1);
}

/// A time that started a saga before a crash is not missed: what comes next is skipped while that saga runs.
#[tokio::test]
async fn a_time_that_was_started_before_a_crash_keeps_the_next_from_starting() {
    for catch_up in [CatchUp::None, CatchUp::Last, CatchUp::All] {
        let mut place = Place::new("* * * * *").await;
        (place.settings.catch_up, place.settings.overlap) = (catch_up, Overlap::Skip);
        let at = time("2026-03-28T01:00:30Z");
        let mut runner = place.open(at).await;
        let before = place.store.schedules().schedule("nightly".to_owned()).await.unwrap();
        runner.look(at.after(MINUTE)).await.unwrap();
        assert_eq!(place.started().len(), 1);
        place.store.schedules().save_schedule(before.unwrap()).await.unwrap();
        let later = at.after(MINUTE * 4);
        place.open(later).await.look(later).await.unwrap();
        assert_eq!(place.started().len(), 1, "{catch_up:?}");
        assert!(place.skipped().await.is_some(), "{catch_up:?}");
    }
}

#[tokio::test]
async fn a_full_host_is_asked_again() {
    let place = Place::new("0 * * * *").await;
    let mut runner = place.open(time("2026-06-01T00:30:00Z")).await;
    *place.sagas.is_full.lock().unwrap() = true;
    let at = time("2026-06-01T01:00:00Z");
    assert_eq!(runner.look(at).await, Some(SCHEDULE_RETRY_PAUSE));
    assert!(runner.schedules.list(at)[0].error.as_ref().unwrap().contains("the test says so"));
    *place.sagas.is_full.lock().unwrap() = false;
    runner.look(at.after(Duration::from_secs(1))).await.unwrap();
    assert_eq!(place.started(), ["2026-06-01T01:00:00Z"]);
    assert_eq!(runner.schedules.list(at)[0].error, None);
}

/// However long the host is full, the time is none that was missed.
#[tokio::test]
async fn a_time_of_a_host_that_is_full_for_long_is_not_missed() {
    for catch_up in [CatchUp::None, CatchUp::Last] {
        let mut place = Place::new("* * * * *").await;
        place.settings.catch_up = catch_up;
        let mut at = time("2026-06-01T00:59:30Z");
        let mut runner = place.open(at).await;
        *place.sagas.is_full.lock().unwrap() = true;
        for _ in 0..60 {
            at = at.after(Duration::from_secs(3));
            runner.look(at).await.unwrap();
        }
        *place.sagas.is_full.lock().unwrap() = false;
        runner.look(at.after(Duration::from_secs(3))).await.unwrap();
        let expected = ["01:00", "01:01", "01:02"].map(|time| format!("2026-06-01T{time}:00Z"));
        assert_eq!(place.started(), expected);
        assert_eq!(place.skipped().await, None);
        assert_eq!(runner.schedules.list(at)[0].error, None);
        // A machine that stood still has missed what came meanwhile.
        runner.look(at.after(MINUTE * 60)).await.unwrap();
        assert!(place.started().len() <= 5, "{:?}", place.started());
        assert!(place.skipped().await.unwrap().1.contains("missed"));
    }
}

/// What was decided before is not decided again because a wrong clock was put right.
#[tokio::test]
async fn a_clock_that_was_years_back_catches_nothing_up() {
    let mut place = Place::new("0 * * * *").await;
    (place.settings.catch_up, place.settings.overlap) = (CatchUp::All, Overlap::Skip);
    let mut runner = place.open(time("2026-06-01T00:30:00Z")).await;
    for hour in ["01", "02", "03"] {
        runner.look(time(&format!("2026-06-01T{hour}:00:00Z"))).await.unwrap();
    }
    let (started, skipped) = (place.started(), place.skipped().await);
    // The keys of archived sagas are forgotten after some time.
    place.sagas.started.lock().unwrap().clear();
    let mut runner = place.open(time("1970-01-01T00:00:10Z")).await;
    runner.look(time("1970-01-01T00:00:20Z")).await.unwrap();
    runner.look(time("2026-06-01T03:30:00Z")).await.unwrap();
    assert_eq!((started.len(), place.started().len()), (1, 0));
    assert_eq!(place.skipped().await, skipped);
}

#[tokio::test]
async fn a_schedule_whose_pattern_changes_begins_anew() {
    let mut place = Place::new("0 2 * * *").await;
    place.settings.catch_up = CatchUp::All;
    drop(place.open(time("2026-06-01T00:30:00Z")).await);
    place.settings.pattern = SchedulePattern::parse("* * * * *", "UTC").unwrap();
    let at = time("2026-06-02T12:00:30Z");
    let mut runner = place.open(at).await;
    runner.look(at).await.unwrap();
    assert_eq!(place.started(), Vec::<String>::new());
    runner.look(at.after(MINUTE)).await.unwrap();
    assert_eq!(place.started(), ["2026-06-02T12:01:00Z"]);
}
