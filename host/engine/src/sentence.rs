//! Lists within sentences for people.

/// The most parts that one sentence lists.
const PARTS_MAX: usize = 8;

/// Keeps the first parts of a list, and adds how many more there are. Nobody reads a sentence with
/// a thousand parts.
pub(crate) fn shortened(mut parts: Vec<String>) -> Vec<String> {
    let more = parts.len().saturating_sub(PARTS_MAX);
    if more > 0 {
        parts.truncate(PARTS_MAX);
        parts.push(format!("{more} more"));
    }
    parts
}
