//! What a caller gives to start a saga, alone or in a batch.

use axum::http::HeaderMap;

use amends_api_types::StartBody;
use amends_runtime::StartRequest;

use crate::error::ApiError;
use crate::legible::legible;

/// An idempotency key has at most this many bytes.
const KEY_BYTES_MAX: usize = 255;

/// A saga has at most this many tags.
const TAGS_MAX: usize = 16;

/// The name of a tag has at most this many bytes, and so has its value.
const TAG_BYTES_MAX: usize = 255;

/// Checks what a caller gave to start a saga.
///
/// # Errors
/// 400 when the key or the tags are too many, too long or not legible.
pub(crate) fn request_of(
    body: StartBody,
    traceparent: Option<String>,
) -> Result<StartRequest, ApiError> {
    let wrong = |detail: String| ApiError::new(400, "bad_request", detail);
    if let Some(key) = &body.key
        && !(1..=KEY_BYTES_MAX).contains(&key.len())
    {
        return Err(wrong(format!("an idempotency key has 1 to {KEY_BYTES_MAX} bytes")));
    }
    let long = |text: &String| text.is_empty() || text.len() > TAG_BYTES_MAX;
    if body.tags.len() > TAGS_MAX || body.tags.iter().any(|(name, value)| long(name) || long(value))
    {
        return Err(wrong(format!(
            "a saga has at most {TAGS_MAX} tags, with names and values of 1 to {TAG_BYTES_MAX} bytes"
        )));
    }
    let StartBody { definition, input, tags, key } = body;
    let key = key.map(|key| legible("the idempotency key", key)).transpose()?;
    for (name, value) in &tags {
        legible("the name of a tag", name.clone())?;
        legible("the value of a tag", value.clone())?;
    }
    Ok(StartRequest { definition, input, key, tags, traceparent })
}

/// The trace context of the caller (W3C Trace Context). One that cannot be read is ignored, as the standard
/// says.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    is_traceparent(text).then(|| text.to_owned())
}

/// Whether a text is `version-trace_id-parent_id-flags` in lower-case hexadecimal (W3C Trace Context,
/// 3.2.2).
fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length
            && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let parts: Vec<_> = text.split('-').collect();
    let [version, trace, parent, flags, ..] = parts.as_slice() else { return false };
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    hex(version, 2)
        && *version != "ff"
        && hex(trace, 32)
        && !zero(trace)
        && hex(parent, 16)
        && !zero(parent)
        && hex(flags, 2)
}
