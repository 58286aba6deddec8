//! Start keys that the host makes. Callers may not use such keys, so nobody can take the place of a saga that
//! a schedule or an event is to start.

use crate::event_rules::EVENT_KEY_PREFIX;
use crate::schedules::SCHEDULE_KEY_PREFIX;

/// What the keys of the host begin with, and whose they are.
const RESERVED: [(&str, &str); 2] =
    [(SCHEDULE_KEY_PREFIX, "schedules"), (EVENT_KEY_PREFIX, "events")];

/// Returns what a key begins with, and whose keys begin so, when only the host makes such keys.
#[must_use]
pub fn is_reserved_key(key: &str) -> Option<(&'static str, &'static str)> {
    RESERVED.into_iter().find(|(prefix, _)| key.starts_with(prefix))
}
