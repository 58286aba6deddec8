//! What a store holds, and its backup.

use amends_engine::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::words::SagaStatusWord;

/// The header of the answer of `/v1/store/backup`. Its value is a [`BackupView`], as JSON.
pub const BACKUP_HEADER: &str = "amends-backup";

/// What a store holds and how fast it grows.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StoreView {
    /// The size of the database.
    pub bytes: u64,
    /// The size of its write-ahead log.
    pub wal_bytes: u64,
    /// The part of the database that is free for new content.
    pub free_bytes: u64,
    /// How many events were ever stored.
    pub events: u64,
    /// How many sagas there are.
    pub sagas: u64,
    /// The sagas by definition and status.
    pub sagas_by_status: Vec<StoreSagasItem>,
    /// The events by type, the most frequent first; at most 100 types.
    pub events_by_type: Vec<StoreEventsItem>,
    /// How many events were read to estimate `events_by_type`. Equal to `events`: the counts are
    /// exact.
    pub events_sampled: u64,
    /// What each month added, the oldest first.
    pub months: Vec<StoreMonthItem>,
    /// How fast the store grows; absent for a store that is younger than an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth: Option<GrowthView>,
    /// What was moved to the archive or deleted. It is in no other count but `events`.
    #[serde(default)]
    pub archived: ArchivedCountView,
    /// The saga that was started first of those that have not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_live: Option<OldestSagaView>,
}

/// What was moved to the archive, or deleted.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct ArchivedCountView {
    /// The sagas.
    pub sagas: u64,
    /// Their events.
    pub events: u64,
    /// The files of the archive.
    pub segments: u64,
    /// The bytes of the files.
    pub bytes: u64,
}

/// The body of a request to the archive: an empty object.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveBody {}

/// The body of a request to rebuild.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RebuildBody {
    /// The `next` of the slice before; none to begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// What one slice of a rebuild did.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RebuildView {
    /// The sagas whose rows were compared with their events.
    pub sagas: u64,
    /// The sagas whose rows were written anew, because they differed.
    pub rebuilt: u64,
    /// The rows that were removed, because no saga has them.
    pub removed: u64,
    /// The sagas whose rows stay as they are: their events are missing or cannot be read, or their rows
    /// cannot be written.
    pub unreadable: Vec<RebuildUnreadableItem>,
    /// Where the next slice begins; none when the rebuild is complete.
    pub next: Option<String>,
}

/// A saga whose rows stay as they are.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RebuildUnreadableItem {
    /// The saga.
    pub saga: String,
    /// Why they stay.
    pub reason: String,
}

/// What a pass of the archive came to.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ArchivePassView {
    /// The sagas that were moved to the archive; deleted, when the store has none.
    pub sagas: u64,
    /// Their events.
    pub events: u64,
    /// The files that were written.
    pub segments: u64,
    /// The bytes of the files.
    pub bytes: u64,
    /// Ended sagas past their retention that stay, because somebody may still need them.
    pub kept: u64,
    /// Sagas that stay because they cannot be read. The log of the host names them.
    pub unreadable: u64,
    /// The start keys that were removed.
    pub keys: u64,
    /// Whether the sagas were deleted, because the store has no archive.
    pub deleted: bool,
    /// The components that were removed because nothing needs them any more.
    #[serde(default)]
    pub components: u64,
    /// The bytes of these components.
    #[serde(default)]
    pub component_bytes: u64,
}

/// How many sagas of a definition have a status.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StoreSagasItem {
    /// The definition.
    pub definition: String,
    /// The status.
    #[schema(value_type = SagaStatusWord)]
    pub status: String,
    /// The number of sagas.
    pub sagas: u64,
}

/// How many events have a type.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StoreEventsItem {
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The number of events.
    pub events: u64,
    /// The bytes of their data.
    pub bytes: u64,
}

/// What a month added to a store.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StoreMonthItem {
    /// The month in UTC, such as `2026-03`.
    pub month: String,
    /// The sagas whose ids were made in it.
    pub sagas: u64,
    /// The events that were stored in it.
    pub events: u64,
}

/// How fast a store grows.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GrowthView {
    /// The time up to now over which this was measured: at most 7 days.
    pub measured_seconds: u64,
    /// The events that a day adds.
    pub events_per_day: u64,
    /// The bytes that a day adds.
    pub bytes_per_day: u64,
}

/// The oldest saga that has not ended.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OldestSagaView {
    /// Its id.
    pub id: String,
    /// When it was started.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
}

/// What a backup holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackupView {
    /// The size of the backup.
    pub bytes: u64,
    /// The number of events, which is the position of the last one.
    pub events: u64,
    /// The number of sagas.
    pub sagas: u64,
    /// When the copy was complete.
    pub at: Timestamp,
    /// How long the copy took.
    pub seconds: f64,
}
