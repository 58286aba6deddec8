//! The wall clock. The engine is given its times; they are read here and nowhere else.

use std::time::{SystemTime, UNIX_EPOCH};

use amends_engine::Timestamp;

/// The time now.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
