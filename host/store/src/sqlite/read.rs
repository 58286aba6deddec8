//! Queries. Each takes a connection and blocks until it has its answer.

mod archived;
mod check;
mod events;
mod groups;
mod list;
mod live;
mod lookup;
mod projections;
mod selection;
mod survey;
mod verify;
mod waiting;

pub(super) use archived::{
    ended, first_unknown, last_position, lines, old_keys, oldest_ended, segment_files,
    segments_after, tombstone_of, tombstones,
};
pub(super) use check::{SUMS_SINCE, check};
pub(super) use events::{end, events, log};
pub(super) use groups::groups;
pub(super) use list::list;
#[cfg(test)]
pub(super) use live::live_query;
pub(super) use live::{live, readable_log, sagas};
pub(super) use lookup::{
    blob, blobs, count_archived_of_key, count_events, counts, has_sealed, key, of_subject_key,
    saga, was_any_live,
};
pub(super) use projections::{
    Stray, Strays, differences, has_other_owner, remove_stray, saga_ids, strays,
};
pub(super) use survey::{oldest_live, survey};
pub(super) use verify::verify;
pub(super) use waiting::{count_waiting, due, waiting};
#[cfg(test)]
pub(super) use waiting::{due_query, waiting_query};
