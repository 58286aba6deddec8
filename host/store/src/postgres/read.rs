//! Queries. Each takes a connection that reads.

mod archived;
mod groups;
mod list;
mod live;
mod log;
mod lookup;
mod survey;
mod verify;

pub(super) use archived::{ended, lines};
pub(super) use groups::groups;
pub(super) use list::{list, tombstones};
pub(super) use live::{live, readable_log, sagas};
pub(super) use log::{Placed, UNPLACED, events, log};
pub(super) use lookup::{
    blob, blobs, count_archived_of_key, count_events, count_waiting, counts, dead_letters, due,
    first_unknown, has_sealed, key, of_subject_key, old_keys, oldest_ended, runs, saga, schedule,
    segment_files, state_value, subscription, tombstone, waiting, was_any_live,
};
pub(super) use survey::{oldest_live, survey};
pub(super) use verify::{findings, verify};
