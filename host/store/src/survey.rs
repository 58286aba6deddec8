//! What a store holds and how fast it grows, for operators.

use std::time::Duration;

use amends_engine::{SagaId, SagaStatus, Timestamp};

/// The events that a survey reads at most to estimate how many there are of each type. With 5,000 a
/// share of 10 % is right to about one percentage point.
pub const SURVEY_EVENTS_MAX: u64 = 5_000;

/// The event types that a survey names at most, the most frequent first. Plugins name their own.
pub const SURVEY_TYPES_MAX: usize = 100;

/// What a store holds. Counts are exact where nothing else is said.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreSurvey {
    /// The size of the database.
    pub bytes: u64,
    /// The size of its write-ahead log.
    pub wal_bytes: u64,
    /// The part of the database that is free for new content.
    pub free_bytes: u64,
    /// The size of a page of the database.
    pub page_bytes: u64,
    /// The events that were ever stored.
    pub events: u64,
    /// The sagas, by definition and status.
    pub sagas: Vec<SagaCount>,
    /// The events by type, the most frequent first; at most [`SURVEY_TYPES_MAX`] types.
    pub types: Vec<TypeCount>,
    /// How many events were read to estimate [`Self::types`]. When all were read, the counts are
    /// exact.
    pub events_sampled: u64,
    /// What each month added, the oldest first.
    pub months: Vec<MonthCount>,
    /// How fast the store grows; none for a store that is younger than an hour.
    pub growth: Option<Growth>,
    /// What was moved to the archive or deleted. It is in no other count but [`Self::events`].
    pub archived: ArchivedCount,
    /// The saga that was started first of those that have not ended, and when.
    pub oldest_live: Option<(SagaId, Timestamp)>,
}

/// What a store has moved to its archive, or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArchivedCount {
    /// The sagas.
    pub sagas: u64,
    /// Their events.
    pub events: u64,
    /// The files of the archive.
    pub segments: u64,
    /// The bytes of the files.
    pub bytes: u64,
}

/// How many sagas of a definition have a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaCount {
    /// The name of the definition.
    pub definition: String,
    /// The status.
    pub status: SagaStatus,
    /// The number of sagas.
    pub sagas: u64,
}

/// How many events have a type, and the bytes of their data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeCount {
    /// The type.
    pub kind: String,
    /// The number of events.
    pub events: u64,
    /// The bytes of their types and data.
    pub bytes: u64,
}

/// What a month of the calendar, in UTC, added to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonthCount {
    /// The year.
    pub year: i64,
    /// The month, 1 to 12.
    pub month: u32,
    /// The sagas whose id was made in it.
    pub sagas: u64,
    /// The events that were stored in it. They are found by their positions, so a clock that was
    /// set back moves some of them to another month, and archived ones count to the month before
    /// which no event is left.
    pub events: u64,
}

/// How fast a store grows, as it did in a time that ends now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// The time over which this was measured: 7 days, or the age of the store.
    pub over: Duration,
    /// The events that a day adds.
    pub events_per_day: u64,
    /// The bytes that a day adds: the bytes that an event takes on average, times the events.
    pub bytes_per_day: u64,
}

impl StoreSurvey {
    /// Returns the number of all sagas.
    #[must_use]
    pub fn sagas_total(&self) -> u64 {
        self.sagas.iter().map(|count| count.sagas).sum()
    }
}
