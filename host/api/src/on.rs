//! Rules for events (`[[on]]`): taking what other systems send, and how the rules stand.

mod delivery;
pub(crate) mod list;
pub(crate) mod take;
