//! Sagas: what starts them, what is seen of them, and what operators do to them.

pub(crate) mod batch;
pub(crate) mod bring_back;
pub(crate) mod counts;
pub(crate) mod events;
pub(crate) mod evidence;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod news;
pub(crate) mod operate;
pub(crate) mod saga_lookup;
pub(crate) mod signal;
pub(crate) mod start;
pub(crate) mod undo_plan;
pub(crate) mod watch;
pub(crate) mod watchers;
pub(crate) mod why;

mod saga_item;
mod saga_query;
pub(crate) mod saga_view;
mod stalls;
pub(crate) mod start_request;
mod step_view;
mod unread;
pub(crate) mod wait;
