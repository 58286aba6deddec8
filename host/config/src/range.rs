//! Sizes and durations within a range.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::table::{Context, Item};

/// Reads a size within a range; none when it was reported.
pub(super) fn read_size(
    item: &Item<'_>,
    range: RangeInclusive<u64>,
    context: &mut Context<'_>,
) -> Option<u64> {
    let bytes = item.size(context, "1MiB")?;
    if !range.contains(&bytes) {
        let message =
            format!("this is {bytes} bytes; it is from {} to {}", range.start(), range.end());
        item.error(context, message, "write a size between them, such as \"1MiB\"");
        return None;
    }
    Some(bytes)
}

/// Reads a duration within a range; none when it was reported.
pub(super) fn read_time(
    item: &Item<'_>,
    range: &RangeInclusive<Duration>,
    context: &mut Context<'_>,
) -> Option<Duration> {
    let time = item.duration(context, "5s")?;
    if !range.contains(&time) {
        let message =
            format!("this is {time:?}; it is from {:?} to {:?}", range.start(), range.end());
        item.error(context, message, "write a time between them, such as \"5s\"");
        return None;
    }
    Some(time)
}
