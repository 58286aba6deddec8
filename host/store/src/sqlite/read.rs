//! Queries. Each takes a connection and blocks until it has its answer.

mod events;
mod list;
mod live;
mod lookup;
mod verify;

pub(super) use events::{events, log};
pub(super) use list::list;
pub(super) use live::live;
#[cfg(test)]
pub(super) use live::live_query;
pub(super) use lookup::{blob, blobs, count_events, counts, key, saga};
pub(super) use verify::verify;
