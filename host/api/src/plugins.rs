//! Plugins: which component serves them, and what serves next.

pub(crate) mod component;
pub(crate) mod deploy;
pub(crate) mod digest;
pub(crate) mod list;
mod plugin_lookup;
mod plugin_view;
pub(crate) mod rehearse;
pub(crate) mod serving;
pub(crate) mod upload;
