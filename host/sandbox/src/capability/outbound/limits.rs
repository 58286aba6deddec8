//! How much one call may send.

/// Requests of one call.
pub const HTTP_REQUESTS_MAX: u32 = 100;
