//! What a component is granted of the host: each capability is what it imports, within its limits.

pub(crate) mod events;
pub(crate) mod grant;
pub(crate) mod last_words;
pub(crate) mod log;
pub(crate) mod log_limits;
pub(crate) mod log_rate;
pub(crate) mod outbound;
pub(crate) mod redactor;
pub(crate) mod standard_streams;
pub(crate) mod state;
pub(crate) mod state_view;
