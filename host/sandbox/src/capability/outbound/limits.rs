//! How much one call may send.

/// The most requests that one call may send.
pub(crate) const HTTP_REQUESTS_MAX: u32 = 100;
