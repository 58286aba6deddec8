//! How a payload stands in a sentence.

use crate::payload::Payload;

/// The most bytes of an output that the explanation quotes: enough for a booking number.
const ANSWER_BYTES_MAX: usize = 200;

/// How a payload is quoted in a sentence.
pub(super) type Quote = fn(&Payload) -> String;

/// Returns the beginning of a payload.
pub(super) fn quoted(payload: &Payload) -> String {
    let text = payload.as_str();
    let end = text.floor_char_boundary(ANSWER_BYTES_MAX);
    let more = if end < text.len() { "…" } else { "" };
    format!("{}{more}", &text[..end])
}
