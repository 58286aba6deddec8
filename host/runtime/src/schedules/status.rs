//! How schedules stand, as operators see them.

use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::{SagaId, Timestamp};

use super::settings::ScheduleSettings;
use crate::limits::NEXT_TIMES_SHOWN;

/// How a schedule stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleStatus {
    /// Its name.
    pub name: String,
    /// The definition of its sagas.
    pub definition: String,
    /// Its cron pattern.
    pub cron: String,
    /// The name of its time zone.
    pub timezone: String,
    /// The next times at which it is due, up to three.
    pub next: Vec<Timestamp>,
    /// The last time that started a saga, and the saga.
    pub started: Option<(Timestamp, SagaId)>,
    /// The last time that was skipped, and why.
    pub skipped: Option<(Timestamp, String)>,
    /// Why a saga that is due cannot be started now.
    pub error: Option<String>,
}

/// What the task of the schedules tells of each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) started: Option<(Timestamp, SagaId)>,
    pub(crate) skipped: Option<(Timestamp, String)>,
    pub(crate) error: Option<String>,
}

/// The schedules of a host, for readers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Schedules {
    settings: Arc<Vec<ScheduleSettings>>,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Schedules {
    pub(crate) fn new(settings: Vec<ScheduleSettings>) -> Self {
        let told = vec![Told::default(); settings.len()];
        Self { settings: Arc::new(settings), told: Arc::new(Mutex::new(told)) }
    }

    pub(crate) fn settings(&self) -> &[ScheduleSettings] {
        &self.settings
    }

    pub(crate) fn tell(&self, index: usize, told: Told) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)[index] = told;
    }

    /// Returns how each schedule stands, in the order of the config.
    pub(crate) fn list(&self, now: Timestamp) -> Vec<ScheduleStatus> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let status = |(settings, told): (&ScheduleSettings, Told)| {
            let pattern = &settings.pattern;
            let next = std::iter::successors(pattern.next_after(now), |at| pattern.next_after(*at));
            ScheduleStatus {
                name: settings.name.clone(),
                definition: settings.definition.to_string(),
                cron: pattern.text().to_owned(),
                timezone: pattern.zone().to_owned(),
                next: next.take(NEXT_TIMES_SHOWN).collect(),
                started: told.started,
                skipped: told.skipped,
                error: told.error,
            }
        };
        self.settings.iter().zip(told).map(status).collect()
    }
}
