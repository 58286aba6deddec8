//! From the bytes of a component to one that can be called.

pub(crate) mod cache;
pub(crate) mod check;
pub(crate) mod code_limits;
pub(crate) mod inspect;
pub(crate) mod key_id;
pub(crate) mod load;
pub(crate) mod loaded;
pub(crate) mod manifest;
pub(crate) mod schema;
pub(crate) mod signature;
pub(crate) mod timed_checker;
