//! What holds a saga back outside its events.

use amends_runtime::StallReason;

/// At most this many reasons are told of one saga: a list has a thousand elements.
pub(crate) const STALLS_SAID_MAX: usize = 3;

/// The first reasons, in words.
pub(crate) fn first_stalls(stalls: &[StallReason]) -> Vec<String> {
    stalls.iter().take(STALLS_SAID_MAX).map(ToString::to_string).collect()
}
