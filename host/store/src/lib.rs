//! The event store of Amends: append-only streams of events with one global order, and what is
//! derived from the events in the same transaction.
//!
//! [`Store`] is the trait, and its parts are [`Ownership`], [`EventLog`], [`SagaIndex`],
//! [`PluginState`], [`Blobs`] and [`Maintenance`]. A process appends to a saga only through a
//! [`Shard`] that it owns, so that what lost the ownership can write nothing. [`open()`] makes the store that a URL names. Every implementation passes
//! the same suite (`conformance`, behind the feature of that name).
//!
//! # What an append promises
//! An append is all or nothing: its events, the row of the projection, the start key and the
//! changes of plugins' state are one transaction. The append is durable before its future resolves.
//! It fails with [`StoreError::Conflict`] when the stream is not at the expected version, so only
//! one of two concurrent writers succeeds.
//!
//! Deliberately absent: any meaning of an event (its data is JSON text), updates and deletes.

mod append;
mod blob;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod event_log;
mod maintenance;
mod open;
mod ownership;
mod paging;
mod plugin_state;
mod saga_index;
mod saga_query;
mod saga_row;
mod shard_id;
mod sqlite;
mod store;
mod stored_event;
mod stream;

pub use append::{
    APPEND_BYTES_MAX, Append, AppendReply, Appended, EVENT_BYTES_MAX, NewEvent, StartKey,
};
pub use blob::{BLOB_BYTES_MAX, BlobKind, BlobRow, Blobs};
pub use config::{Durability, StoreConfig};
pub use error::{Cause, Fatal, Obstacle, OpenError, StoreError};
pub use event_log::{EventLog, LogPage};
pub use maintenance::{DiskRoom, Maintenance, StoreHealth, StoreStats};
pub use open::open;
pub use ownership::{OwnedShards, Ownership, OwnershipEvent, Shard};
pub use paging::{Cursor, PageBudget};
pub use plugin_state::PluginState;
pub use saga_index::SagaIndex;
pub use saga_query::{IdPart, SagaQuery};
pub use saga_row::{LIVE_PAGE_BYTES_MAX, LiveSaga, SagaRow};
pub use shard_id::{Epoch, SHARDS, ShardId};
pub use sqlite::{APPENDS_WAITING_MAX, LOCK_SUFFIX, SCHEMA_VERSION, SqliteStore};
pub use store::Store;
pub use stored_event::{EVENT_UNREADABLE, EVENTS_PAGE_BYTES_MAX, StoredEvent};
pub use stream::Stream;
