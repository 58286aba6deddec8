//! Events: of the whole store, and what pages of events have in common.

pub(crate) mod calls;
pub(crate) mod event_page;
mod event_view;
pub(crate) mod log;
mod stream;
