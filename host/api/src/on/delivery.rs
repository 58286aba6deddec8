//! The events of a request: CloudEvents 1.0 over HTTP, in its three content modes.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header};

use amends_runtime::{CLOUD_EVENT, CLOUD_EVENTS, IncomingError, IncomingEvent};

use crate::error::ApiError;

/// What the names of the headers begin with that have attributes.
const PREFIX: &str = "ce-";

/// How a request has its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The body is one event.
    Structured,
    /// The body is a list of events.
    Batch,
    /// The headers have the attributes, and the body is the data.
    Binary,
}

/// The type of the body, without parameters such as a charset.
fn kind_of(headers: &HeaderMap) -> String {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

/// Says how a request has its events. No form of a web page can send what this takes.
///
/// # Errors
/// 415 when the request says that it has something else.
pub(crate) fn mode_of(headers: &HeaderMap) -> Result<Mode, ApiError> {
    let kind = kind_of(headers);
    let is_json =
        kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json");
    match kind.as_str() {
        CLOUD_EVENT => Ok(Mode::Structured),
        CLOUD_EVENTS => Ok(Mode::Batch),
        _ if headers.keys().any(|name| name.as_str().starts_with(PREFIX)) => {
            if is_json || kind.is_empty() {
                return Ok(Mode::Binary);
            }
            Err(ApiError::new(415, "not_an_event", "the data of an event have to be JSON")
                .with_remedy("send the header `content-type: application/json` and JSON"))
        }
        _ => Err(ApiError::new(415, "not_an_event", "this takes CloudEvents").with_remedy(format!(
            "send the header `content-type: {CLOUD_EVENT}`, or the attributes as headers: ce-id, \
             ce-source, ce-type, ce-specversion"
        ))),
    }
}

/// Reads the events of a request, of which the whole body is there.
///
/// # Errors
/// 400 when one of them is no event.
pub(crate) fn events_of(
    mode: Mode,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Vec<IncomingEvent>, ApiError> {
    let text = str::from_utf8(body)
        .map_err(|_| ApiError::new(400, "bad_event", "the body is not UTF-8"))?;
    let events = match mode {
        Mode::Structured => IncomingEvent::parse(text).map(|event| vec![event]),
        Mode::Batch => IncomingEvent::parse_batch(text),
        Mode::Binary => {
            let mut attributes = attributes(headers)?;
            let kind = kind_of(headers);
            if !kind.is_empty() {
                attributes.insert("datacontenttype".to_owned(), kind);
            }
            let data = Some(text).filter(|text| !text.is_empty());
            IncomingEvent::of_attributes(attributes, data).map(|event| vec![event])
        }
    };
    events.map_err(|error| bad_event(&error))
}

fn bad_event(error: &IncomingError) -> ApiError {
    ApiError::new(400, "bad_event", error.to_string())
        .with_remedy("send CloudEvents 1.0, with specversion, id, source and type")
}

/// The attributes in headers. What is no plain character there is percent-encoded.
fn attributes(headers: &HeaderMap) -> Result<BTreeMap<String, String>, ApiError> {
    let mut attributes = BTreeMap::new();
    for (name, value) in headers {
        let Some(attribute) = name.as_str().strip_prefix(PREFIX) else { continue };
        let decoded = value.to_str().ok().and_then(decoded);
        let Some(text) = decoded else {
            let detail = format!("the header {name} is no text, or percent-encoded as none");
            return Err(ApiError::new(400, "bad_event", detail));
        };
        if attributes.insert(attribute.to_owned(), text).is_some() {
            let detail = format!("the header {name} comes twice");
            return Err(ApiError::new(400, "bad_event", detail));
        }
    }
    Ok(attributes)
}

/// Undoes percent-encoding. None when a `%` is not followed by two digits, or the bytes are not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = more;
            continue;
        }
        let (digits, more) = more.split_at_checked(2)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        bytes.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
        rest = more;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(all: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            )
        };
        all.iter().map(pair).collect()
    }

    const BINARY: [(&str, &str); 5] = [
        ("ce-specversion", "1.0"),
        ("ce-id", "a%20b%C3%A9%25"),
        ("ce-source", "/shop"),
        ("ce-type", "order.placed"),
        ("content-type", "application/json; charset=utf-8"),
    ];

    fn events_of(headers: &HeaderMap, body: &[u8]) -> Result<Vec<IncomingEvent>, ApiError> {
        super::events_of(mode_of(headers)?, headers, body)
    }

    #[test]
    fn an_event_comes_in_three_modes() {
        let event = r#"{"specversion":"1.0","id":"7","source":"/shop","type":"order.placed"}"#;
        let structured =
            headers(&[("content-type", "Application/CloudEvents+JSON; charset=utf-8")]);
        let events = events_of(&structured, event.as_bytes()).unwrap();
        assert_eq!((events.len(), events[0].id()), (1, "7"));
        let batch = headers(&[("content-type", CLOUD_EVENTS)]);
        let events = events_of(&batch, format!("[{event},{event}]").as_bytes()).unwrap();
        assert_eq!(events.len(), 2);
        let events = events_of(&headers(&BINARY), br#"{"a": 1.50}"#).unwrap();
        assert_eq!((events[0].id(), events[0].kind()), ("a bé%", "order.placed"));
        assert_eq!(events[0].data().as_str(), r#"{"a": 1.50}"#.replace(' ', ""));
        let (value, _) = events[0].to_value().unwrap();
        assert_eq!(value["datacontenttype"], "application/json");
        let events = events_of(&headers(&BINARY[..4]), b"").unwrap();
        assert_eq!(events[0].data().as_str(), "null");
    }

    #[test]
    fn what_is_no_event_is_refused_with_what_would_be_right() {
        let refused = |all: &[(&str, &str)], body: &[u8]| {
            let problem = events_of(&headers(all), body).unwrap_err().into_problem();
            (problem.status, problem.detail)
        };
        let of = |kind| [("content-type", kind)];
        assert_eq!(refused(&[], b"").0, 415);
        assert_eq!(refused(&of("application/json"), b"{}").0, 415);
        assert_eq!(refused(&of(CLOUD_EVENT), b"\xff"), (400, "the body is not UTF-8".to_owned()));
        assert_eq!(
            refused(&of(CLOUD_EVENT), b"{}"),
            (400, "the attribute `specversion` is missing".to_owned())
        );
        let text = [&BINARY[..4], &of("text/plain")].concat();
        assert_eq!(refused(&text, b"data").0, 415);
        let twice = [&BINARY[..], &[("ce-id", "another")]].concat();
        assert_eq!(refused(&twice, b"{}"), (400, "the header ce-id comes twice".to_owned()));
        for wrong in ["%", "%2", "%zz", "%+1", "%ff", "é"] {
            let all = [&BINARY[..1], &[("ce-id", wrong)]].concat();
            assert_eq!(refused(&all, b"").0, 400, "{wrong}");
        }
        let steering = [&BINARY[..1], &[("ce-id", "a%0ab")], &BINARY[2..]].concat();
        assert!(refused(&steering, b"{}").1.contains("`id` has a control character, U+000A"));
    }
}
