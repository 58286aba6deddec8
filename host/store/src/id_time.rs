//! The time in the id of a saga, which bounds the ids that a search by time looks at.

use std::time::Duration;

use amends_engine::{SagaId, Timestamp};

/// The delay that needs no record: a saga that starts later than this after the making of its id is
/// written down, see [`start_delay`].
pub(crate) const START_DELAY: Duration = Duration::from_mins(10);

/// Returns how long after the making of its id a saga started, in milliseconds.
pub(crate) fn delay_of(id: SagaId, started_at: Timestamp) -> i64 {
    let made = id.as_bytes()[..6].iter().fold(0, |made, byte| made << 8 | i64::from(*byte));
    started_at.as_millis().saturating_sub(made)
}

/// Returns a lower limit for ids: no saga that started after `after`, with a delay of at most
/// `delay` milliseconds, has a smaller id.
pub(crate) fn first_id(after: Timestamp, delay: i64) -> [u8; 16] {
    let made = Timestamp::from_millis(after.as_millis().saturating_sub(delay).max(0));
    let mut bytes = *SagaId::from_parts(made, &[0; 10]).as_bytes();
    // The version and variant bits of a UUID follow the time.
    bytes[6..].fill(0);
    bytes
}

/// Returns an upper limit for ids: no saga that started before `before` has a greater one, because
/// an id is made before its saga starts. The limit leaves room for a clock that was set back in
/// between.
pub(crate) fn last_id(before: Timestamp) -> [u8; 16] {
    first_id(before.after(START_DELAY), 0)
}
