//! What a caller gives to start a saga, alone or in a batch.

use std::time::Duration;

use axum::http::HeaderMap;

use amends_api_types::StartBody;
use amends_engine::Timestamp;
use amends_runtime::{
    START_KEY_BYTES_MAX, StartRequest, TAG_BYTES_MAX, is_event_tag, is_reserved_key, now,
};

use crate::error::ApiError;
use crate::legible::legible;

/// A saga has at most this many tags.
pub(crate) const TAGS_MAX: usize = 16;

/// A saga starts at most this much later. A time further ahead is a mistake, such as milliseconds that were
/// taken for seconds.
const START_AHEAD_MAX: Duration = Duration::from_hours(24 * 3_653);

/// Checks what a caller gave to start a saga.
///
/// # Errors
/// 400 when the key or the tags are too many, too long or not legible, or the start is too far ahead.
pub(crate) fn request_of(
    body: StartBody,
    traceparent: Option<String>,
) -> Result<StartRequest, ApiError> {
    let wrong = |detail: String| ApiError::new(400, "bad_request", detail);
    if let Some(key) = &body.key
        && !(1..=START_KEY_BYTES_MAX).contains(&key.len())
    {
        return Err(wrong(format!("an idempotency key has 1 to {START_KEY_BYTES_MAX} bytes")));
    }
    if let Some((prefix, whose)) = body.key.as_deref().and_then(is_reserved_key) {
        let detail = format!("idempotency keys that begin with {prefix} are those of {whose}");
        return Err(wrong(detail).with_remedy("give a key that begins with something else"));
    }
    if let Some(name) = body.tags.keys().find(|name| is_event_tag(name)) {
        let detail = format!("the tag `{name}` is one of events, and only the host sets it");
        return Err(wrong(detail).with_remedy("give the tag another name"));
    }
    let long = |text: &String| text.is_empty() || text.len() > TAG_BYTES_MAX;
    if body.tags.len() > TAGS_MAX || body.tags.iter().any(|(name, value)| long(name) || long(value))
    {
        return Err(wrong(format!(
            "a saga has at most {TAGS_MAX} tags, with names and values of 1 to {TAG_BYTES_MAX} bytes"
        )));
    }
    if let Some(start_at) = body.start_at {
        check_start_at(start_at, now())?;
    }
    let StartBody { definition, input, tags, start_at, key } = body;
    let key = key.map(|key| legible("the idempotency key", key)).transpose()?;
    for (name, value) in &tags {
        legible("the name of a tag", name.clone())?;
        legible("the value of a tag", value.clone())?;
    }
    Ok(StartRequest { definition, input, key, tags, traceparent, start_at })
}

/// Checks that a start is not too far ahead of the present.
fn check_start_at(start_at: Timestamp, at: Timestamp) -> Result<(), ApiError> {
    let latest = at.after(START_AHEAD_MAX);
    if start_at <= latest {
        return Ok(());
    }
    let detail = format!("start_at is {start_at}, more than ten years ahead");
    let remedy = format!("give a time before {latest}");
    Err(ApiError::new(400, "bad_request", detail).with_remedy(remedy))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use amends_engine::Payload;

    use super::*;

    #[test]
    fn the_keys_of_the_host_are_not_for_callers() {
        let body = |key: &str| StartBody {
            definition: "order".to_owned(),
            input: Payload::null(),
            tags: std::collections::BTreeMap::new(),
            start_at: None,
            key: Some(key.to_owned()),
        };
        for free in ["schedules/1", "one/1", "on", "order/7"] {
            assert!(request_of(body(free), None).is_ok(), "{free}");
        }
        for (key, whose) in [
            ("schedule/nightly/2026-12-01T02:00:00Z", "schedules"),
            ("on/orders//shop 7", "events"),
        ] {
            let problem = request_of(body(key), None).err().unwrap().into_problem();
            assert_eq!(problem.status, 400);
            assert!(problem.detail.ends_with(&format!("are those of {whose}")), "{problem:?}");
        }
    }

    #[test]
    fn the_tags_of_the_host_are_not_for_callers() {
        let request = |name: &str| {
            let body = StartBody {
                definition: "order".to_owned(),
                input: Payload::null(),
                tags: [(name.to_owned(), "x".to_owned())].into(),
                start_at: None,
                key: None,
            };
            request_of(body, None)
        };
        assert!(request("on_call").is_ok());
        for name in ["on", "on_chain"] {
            let problem = request(name).err().unwrap().into_problem();
            assert_eq!(problem.status, 400);
            assert!(problem.detail.contains(&format!("the tag `{name}`")), "{problem:?}");
        }
    }

    #[test]
    fn a_start_is_at_most_ten_years_ahead() {
        let now = Timestamp::from_millis(1_000);
        let latest = now.after(START_AHEAD_MAX);
        for fits in [Timestamp::from_millis(i64::MIN), now, latest] {
            assert!(check_start_at(fits, now).is_ok(), "{fits}");
        }
        let refused = check_start_at(latest.after(Duration::from_millis(1)), now).err().unwrap();
        let problem = refused.into_problem();
        assert_eq!((problem.status, problem.code.as_str()), (400, "bad_request"));
        assert!(problem.detail.contains("more than ten years ahead"), "{}", problem.detail);
    }
}
