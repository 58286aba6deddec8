//! The wall clock. The engine is given its times; the host reads them here.

use std::time::{SystemTime, UNIX_EPOCH};

use amends_engine::Timestamp;

/// Returns the time now.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
