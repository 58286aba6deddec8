//! The event store of Amends: append-only streams of events with one global order, and what is
//! derived from the events in the same transaction.
//!
//! [`Store`] is the trait, and its parts are [`Ownership`], [`EventLog`], [`SagaIndex`],
//! [`PluginState`], [`Blobs`], [`Archive`], [`Outbox`], [`Schedules`] and
//! [`Maintenance`]. A process appends to a saga only through a [`Shard`] that it owns, so a process that has lost the ownership can write nothing. [`open()`] makes the
//! store that a URL names. Every implementation passes the same suite (`conformance`, behind the feature of
//! that name).
//!
//! # What an append promises
//! An append is all or nothing: its events, the row of the projection, the start key and the
//! changes of plugins' state are one transaction. The append is durable before its future resolves.
//! It fails with [`StoreError::Conflict`] when the stream is not at the expected version, so only
//! one of two concurrent writers succeeds.
//!
//! Deliberately absent: any meaning of an event (its data is JSON text), and updates. Events leave the
//! database only with their whole saga, by [`Archive`].

mod append;
mod archive;
mod archive_files;
mod archive_place;
mod backup;
mod blob;
mod clock;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod copied_row;
mod copy;
mod derived;
mod error;
mod event_log;
mod events_text;
mod failure_query;
mod health;
mod id_time;
mod in_place;
mod index_query;
mod maintenance;
mod month;
mod open;
mod outbox;
mod ownership;
mod paging;
mod plugin_state;
mod postgres;
mod queue;
mod queue_shard;
mod rebuild;
mod restored;
mod saga_failure;
mod saga_groups;
mod saga_index;
mod saga_query;
mod saga_row;
mod schedules;
mod segment;
mod shard_id;
mod sqlite;
mod store;
mod stored_event;
mod stream;
mod survey;

pub use append::{Append, AppendReply, Appended, NewEvent, StartKey};
pub use archive::{
    Archive, ArchiveError, ArchiveSummary, ArchivedSaga, EndedContent, EndedPage, EndedSaga,
    ImportedSaga, START_KEY_RETENTION, ToArchive, Tombstone,
};
pub use archive_place::{ArchivePlace, BucketPlace, PlaceError};
pub use backup::{Backup, BackupError, BackupSummary};
pub use blob::{BlobKind, BlobRow, Blobs};
pub use config::{Durability, StoreConfig};
pub use copy::{CopyError, CopyProgress, CopySummary, copy_store};
pub use error::{Cause, Fatal, Obstacle, OpenError, StoreError};
pub use event_log::{EventLog, LogPage};
pub use failure_query::{DigestPart, FailureQuery, FailureText};
pub use in_place::{draft_of, put_in_place};
pub use index_query::IndexCondition;
pub use maintenance::{DiskRoom, Maintenance, StoreHealth, StoreStats};
pub use open::open;
pub use outbox::{DeadLetter, Outbox, SubscriptionChange, SubscriptionRow};
pub use ownership::{
    HostInfo, OwnedShards, Ownership, OwnershipEvent, Shard, ShardOwner, TICK_PAUSE,
};
pub use paging::{Cursor, PageBudget};
pub use plugin_state::PluginState;
pub use postgres::{PostgresStore, with_files_from};
pub use queue::APPENDS_WAITING_MAX;
pub use rebuild::{RebuildError, RebuildPlace, RebuildSlice};
pub use restored::{FileCheck, RestoreError, Restored};
pub use saga_failure::{FAILURE_TEXT_BYTES_MAX, FailedCall, SagaFailure, failures};
pub use saga_groups::{GROUPS_MAX, GroupBy, SagaGroup, SagaGroups};
pub use saga_index::SagaIndex;
pub use saga_query::{IdPart, SagaQuery};
pub use saga_row::{LiveSaga, LiveSagas, SagaRow};
pub use schedules::{ScheduleRow, Schedules};
pub use shard_id::{Epoch, ShardId};
pub use sqlite::{SqliteStore, StoppedStore, check_file, read_stream, restore};
pub use store::Store;
pub use stored_event::{EVENT_UNREADABLE, StoredEvent};
pub use stream::Stream;
pub use survey::{
    ArchivedCount, Growth, MonthCount, SURVEY_EVENTS_MAX, SURVEY_TYPES_MAX, SagaCount, StoreSurvey,
    TypeCount,
};
