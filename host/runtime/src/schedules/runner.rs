//! The task of the schedules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::{CLOCK_TOLERANCE, Payload, SagaId, Timestamp};
use amends_registry::now;
use amends_store::{ScheduleRow, Store, StoreError};
use futures::future::BoxFuture;
use serde_json::Value;

use super::due::{Come, due, pause_until};
use super::settings::{
    Overlap, SCHEDULE_KEY_PREFIX, SCHEDULE_TAG, SCHEDULED_AT, ScheduleSettings, written,
};
use super::status::{Schedules, Told};
use crate::error::StartError;
use crate::limits::{MISSED_AFTER, SCHEDULE_LOOK_PAUSE, SCHEDULE_RETRY_PAUSE};

/// A saga that a schedule starts.
#[derive(Debug, Clone)]
pub(crate) struct Firing {
    /// The name of the schedule.
    pub(crate) schedule: String,
    /// The definition of the saga.
    pub(crate) definition: String,
    /// Its input.
    pub(crate) input: Payload,
    /// Its tags.
    pub(crate) tags: BTreeMap<String, String>,
    /// Its start key.
    pub(crate) key: String,
}

/// How schedules start sagas.
pub(crate) trait Firings: Send + Sync {
    /// Starts a saga, or finds the one that its key has started, whatever its input was.
    fn fire(&self, firing: Firing) -> BoxFuture<'_, Result<SagaId, StartError>>;

    /// Returns false once the host stops.
    fn is_running(&self) -> bool;
}

/// The task of the schedules.
pub(crate) struct Runner {
    schedules: Schedules,
    states: Vec<State>,
    /// When the last look ended.
    looked_until: Option<Timestamp>,
    store: Arc<dyn Store>,
    sagas: Arc<dyn Firings>,
}

/// What is known of one schedule.
struct State {
    /// As it is in the store.
    row: ScheduleRow,
    /// Times from this one on came while the host ran.
    on_time_from: Timestamp,
    /// See [`Come::was_decided_until`].
    was_decided_until: Timestamp,
    /// Why its time cannot be decided now.
    error: Option<String>,
}

/// Why a look at the schedules ended early.
enum Ended {
    /// The host stops, or the store is closed.
    Stopping,
    /// Something fails and may work later.
    Failing(String),
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Closed | StoreError::Fatal(_) => Self::Stopping,
            error @ (StoreError::Conflict { .. }
            | StoreError::LostOwnership(_)
            | StoreError::Unavailable { .. }
            | StoreError::Invalid(_)
            | StoreError::Damaged { .. }) => Self::Failing(error.to_string()),
        }
    }
}

impl From<StartError> for Ended {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Stopping => Self::Stopping,
            StartError::Store(error) => error.into(),
            error @ (StartError::DefinitionUnknown(_)
            | StartError::KeyReused(_)
            | StartError::NoSubject { .. }
            | StartError::NeedsSubject { .. }
            | StartError::Keys(_)
            | StartError::Owner(_)
            | StartError::Overloaded(_)
            | StartError::TooOften { .. }) => Self::Failing(error.to_string()),
        }
    }
}

impl Runner {
    /// Reads what the store keeps of the schedules. One that is new, or whose pattern has changed, is
    /// decided up to now, and that is written down before this returns.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub(crate) async fn open(
        schedules: Schedules,
        store: Arc<dyn Store>,
        sagas: Arc<dyn Firings>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut states = Vec::with_capacity(schedules.settings().len());
        for settings in schedules.settings() {
            let pattern = settings.pattern.to_string();
            let kept = store.schedules().schedule(settings.name.clone()).await?;
            let row = match kept {
                Some(row) if row.pattern == pattern => {
                    started_already(settings, row, &*store, now).await?
                }
                kept => {
                    let (started, skipped) =
                        kept.map_or((None, None), |it| (it.started, it.skipped));
                    let name = settings.name.clone();
                    let row = ScheduleRow { name, pattern, decided_until: now, started, skipped };
                    store.schedules().save_schedule(row.clone()).await?;
                    row
                }
            };
            // From 0 on, so that the first one is an increase.
            let name = || row.name.clone();
            metrics::counter!("amends_schedule_started_total", "schedule" => name()).increment(0);
            for reason in ["missed", "overlap"] {
                metrics::counter!(
                    "amends_schedule_skipped_total",
                    "schedule" => name(),
                    "reason" => reason
                )
                .increment(0);
            }
            let (on_time_from, was_decided_until) = (now, row.decided_until);
            states.push(State { row, on_time_from, was_decided_until, error: None });
        }
        let runner = Self { schedules, states, looked_until: None, store, sagas };
        (0..runner.states.len()).for_each(|index| runner.tell(index));
        Ok(runner)
    }

    /// Runs until the host stops.
    pub(crate) async fn run(mut self) {
        while self.sagas.is_running()
            && let Some(pause) = self.look(now()).await
        {
            tokio::time::sleep(pause).await;
        }
    }

    /// Decides every time that is due. Returns how long to wait before the next look; none when the host
    /// stops.
    pub(crate) async fn look(&mut self, at: Timestamp) -> Option<Duration> {
        let (mut pause, began) = (SCHEDULE_LOOK_PAUSE, Instant::now());
        // A time that came while the host ran is never missed, however long its saga cannot be started.
        let stood_still = self.looked_until.is_none_or(|last| at.since(last) > MISSED_AFTER);
        for index in 0..self.states.len() {
            let recent = at.before(MISSED_AFTER);
            let state = &mut self.states[index];
            state.on_time_from = if stood_still { recent } else { state.on_time_from.min(recent) };
            let decided = self.decide(index, at).await;
            let state = &mut self.states[index];
            match decided {
                Ok(()) => {
                    state.on_time_from = at;
                    if state.error.take().is_some() {
                        tracing::info!(schedule = state.row.name, "the schedule goes on");
                    }
                    self.tell(index);
                    let next = self.settings(index).pattern.next_after(at);
                    pause = pause_until(next, now().max(at), pause);
                }
                Err(Ended::Stopping) => return None,
                Err(Ended::Failing(error)) => {
                    if state.error.as_ref() != Some(&error) {
                        let schedule = &state.row.name;
                        tracing::warn!(schedule, %error, "a scheduled saga cannot be started now");
                    }
                    state.error = Some(error);
                    self.tell(index);
                    pause = pause.min(SCHEDULE_RETRY_PAUSE);
                }
            }
        }
        self.looked_until = Some(at.after(began.elapsed()));
        Some(pause)
    }

    /// Decides every time of one schedule that is due.
    async fn decide(&mut self, index: usize, at: Timestamp) -> Result<(), Ended> {
        let state = &mut self.states[index];
        state.was_decided_until = state.was_decided_until.max(state.row.decided_until);
        if state.row.decided_until.since(at) > CLOCK_TOLERANCE {
            // The clock was ahead. What comes from now on is due again; start keys find what was started.
            state.row.decided_until = at;
        }
        let &mut State { on_time_from, was_decided_until, .. } = state;
        let come = Come { from: state.row.decided_until, on_time_from, was_decided_until };
        let settings = self.settings(index).clone();
        let (pattern, catch_up) = (settings.pattern.clone(), settings.catch_up);
        // A pattern of minutes has half a million times in a year.
        let due = tokio::task::spawn_blocking(move || due(&pattern, catch_up, come, at)).await;
        let due = due.map_err(|error| Ended::Failing(error.to_string()))?;
        if let Some((last, count)) = due.missed {
            let reason = format!("missed while the host did not run, {count} in all");
            self.skip(index, last, reason, "missed").await?;
        }
        for time in due.starts {
            self.decide_one(index, &settings, time).await?;
        }
        Ok(())
    }

    async fn decide_one(
        &mut self,
        index: usize,
        settings: &ScheduleSettings,
        time: Timestamp,
    ) -> Result<(), Ended> {
        let started = self.states[index].row.started;
        if settings.overlap == Overlap::Skip
            && let Some((_, saga)) = started.filter(|(at, _)| *at != time)
            && let Some(row) = self.store.sagas().row(saga).await?
            && row.ended_at.is_none()
        {
            let reason = format!("saga {saga} of the time before is {}", row.status);
            return self.skip(index, time, reason, "overlap").await;
        }
        let firing = firing_of(settings, time).map_err(Ended::Failing)?;
        let saga = self.sagas.fire(firing).await?;
        let mut row = self.states[index].row.clone();
        (row.decided_until, row.started) = (time, Some((time, saga)));
        self.save(index, row).await?;
        metrics::counter!("amends_schedule_started_total", "schedule" => settings.name.clone())
            .increment(1);
        Ok(())
    }

    /// Writes down that a time, and those before it, start no saga.
    async fn skip(
        &mut self,
        index: usize,
        time: Timestamp,
        reason: String,
        word: &'static str,
    ) -> Result<(), Ended> {
        let mut row = self.states[index].row.clone();
        let schedule = row.name.clone();
        let text = reason.clone();
        (row.decided_until, row.skipped) = (row.decided_until.max(time), Some((time, reason)));
        self.save(index, row).await?;
        tracing::warn!(schedule, at = %time, reason = text, "a time of a schedule is skipped");
        metrics::counter!(
            "amends_schedule_skipped_total",
            "schedule" => schedule,
            "reason" => word
        )
        .increment(1);
        Ok(())
    }

    /// Writes down how far a schedule has come. Until that is written, it has not.
    async fn save(&mut self, index: usize, row: ScheduleRow) -> Result<(), StoreError> {
        self.store.schedules().save_schedule(row.clone()).await?;
        self.states[index].row = row;
        Ok(())
    }

    fn settings(&self, index: usize) -> &ScheduleSettings {
        &self.schedules.settings()[index]
    }

    fn tell(&self, index: usize) {
        let State { row, error, .. } = &self.states[index];
        let ScheduleRow { started, skipped, .. } = row.clone();
        self.schedules.tell(index, Told { started, skipped, error: error.clone() });
    }
}

/// The saga of a time. The error says why its input is none.
/// Returns a row with the time after those that it has decided, when that has started a saga and a crash came
/// before it was written down.
async fn started_already(
    settings: &ScheduleSettings,
    mut row: ScheduleRow,
    store: &dyn Store,
    now: Timestamp,
) -> Result<ScheduleRow, StoreError> {
    let next = settings.pattern.next_after(row.decided_until).filter(|next| *next <= now);
    let Some(next) = next else { return Ok(row) };
    let Ok(firing) = firing_of(settings, next) else { return Ok(row) };
    if let Some((saga, _)) = store.sagas().key(firing.key).await? {
        (row.decided_until, row.started) = (next, Some((next, saga)));
        store.schedules().save_schedule(row.clone()).await?;
    }
    Ok(row)
}

fn firing_of(settings: &ScheduleSettings, time: Timestamp) -> Result<Firing, String> {
    let time = written(time);
    let mut input = settings.input.clone();
    input.insert(SCHEDULED_AT.to_owned(), Value::String(time.clone()));
    let input = Payload::from_value(&Value::Object(input)).map_err(|error| error.to_string())?;
    let mut tags = settings.tags.clone();
    tags.insert(SCHEDULE_TAG.to_owned(), settings.name.clone());
    tags.insert(SCHEDULED_AT.to_owned(), time.clone());
    Ok(Firing {
        schedule: settings.name.clone(),
        definition: settings.definition.to_string(),
        input,
        tags,
        key: format!("{SCHEDULE_KEY_PREFIX}{}/{time}", settings.name),
    })
}

#[cfg(test)]
mod tests;
