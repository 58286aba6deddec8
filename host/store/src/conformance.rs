//! The suite that every store passes.
//!
//! A test crate says where a new store is kept, and gets one test for each check:
//!
//! ```text
//! amends_store::conformance_tests!(TemporaryFile::new());
//! ```
//!
//! Deliberately absent: anything about files, tables or connections. What only one implementation
//! has is tested beside that implementation.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a check says by a panic what does not hold"
)]

mod append;
mod archive;
mod backup;
mod durable;
mod fixture;
mod index;
mod keys;
mod location;
mod model;
mod outbox;
mod ownership;
mod read;
mod rebuild;
mod schedules;
mod search;
mod state;

pub use append::*;
pub use archive::*;
pub use backup::*;
pub use durable::*;
pub use fixture::{
    at, definition, event, live_page, row, saga_id, start, then, whole_log, whole_stream,
};
pub use index::*;
pub use keys::*;
pub use location::{StoreLocation, TestStore};
pub use model::Model;
pub use outbox::*;
pub use ownership::*;
pub use read::*;
pub use rebuild::*;
pub use schedules::*;
pub use search::*;
pub use state::*;

/// One test for each check of the suite; the argument is an expression that makes a
/// [`StoreLocation`]. With `if` before it, the expression makes an option, and nothing is checked when it is
/// none. The caller's crate has tokio.
#[macro_export]
macro_rules! conformance_tests {
    (@all [$($location:tt)*]) => {
        $crate::conformance_tests! { @each [$($location)*];
            appends_and_reads_back,
            refuses_another_version,
            keeps_streams_apart,
            orders_appends_of_one_stream,
            lets_one_of_many_writers_win,
            refuses_one_append_alone,
            refuses_what_breaks_a_rule,
            keeps_large_payloads,
            appends_when_the_future_is_dropped,
            lets_callers_wait_for_room,
            moves_the_head,
            starts_once_for_a_key,
            looks_at_a_saga_beside_a_refused_start,
            starts_once_for_a_key_in_parallel,
            leaves_the_key_of_a_refused_start,
            lists_by_each_filter,
            lists_by_part_of_an_id_and_before_a_time,
            lists_by_start_key,
            lists_by_failures,
            keeps_cursors_while_sagas_fail,
            keeps_the_last_failure_of_a_call,
            lists_by_index_values,
            keeps_cursors_of_index_values,
            lists_by_end,
            archives_failures,
            counts_groups,
            limits_groups,
            finds_live_sagas,
            finds_waiting_sagas,
            limits_pages_of_live_sagas_by_bytes,
            limits_pages_of_events_by_bytes,
            follows_rows,
            counts_by_status,
            keeps_blobs,
            removes_blobs_that_nobody_renewed,
            knows_whether_a_saga_was_live,
            keeps_state,
            refuses_state_that_has_changed,
            refuses_lists_that_have_changed,
            refuses_state_that_is_too_large,
            refuses_changes_that_saw_too_much,
            adds_to_counters,
            adds_to_one_counter_at_once,
            gives_the_last_pieces_once,
            reads_no_gap_while_writing,
            keeps_everything_over_a_reopen,
            refuses_when_closed,
            backs_up_a_prefix_of_the_log_while_it_is_written,
            makes_one_backup_at_a_time,
            surveys_what_it_holds,
            archives_and_reads_back,
            keeps_versions_keys_and_positions_of_archived_sagas,
            archives_parents_first_and_nothing_that_goes_on,
            brings_archived_sagas_back,
            imports_a_saga_once,
            finds_each_saga_while_it_is_archived,
            commits_in_groups,
            gains_every_shard_once,
            appends_only_to_the_sagas_of_a_shard,
            shares_the_streams_of_no_saga,
            refuses_what_lost_ownership,
            loses_nothing_when_taken_over_between_decide_and_append,
            loses_nothing_when_taken_over_with_appends_under_way,
            keeps_subscriptions,
            rebuilds_what_differs,
            rebuilds_beside_appends,
            leaves_the_keys_that_were_removed,
            keeps_schedules,
            refuses_schedules_of_a_lost_store,
            refuses_cursors_of_a_lost_store,
        }
    };
    (@each $location:tt; $($check:ident),* $(,)?) => {
        $($crate::conformance_tests! { @one $location $check })*
    };
    (@one [if $location:expr] $check:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            // There is no place, and why was said.
            if let Some(location) = $location {
                $crate::conformance::$check(&location).await;
            }
        }
    };
    (@one [$location:expr] $check:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            $crate::conformance::$check(&$location).await;
        }
    };
    (if $location:expr) => {
        $crate::conformance_tests! { @all [if $location] }
    };
    ($location:expr) => {
        $crate::conformance_tests! { @all [$location] }
    };
}
