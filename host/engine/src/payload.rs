//! JSON text that passes through Amends with nothing changed but the space between its words.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

/// A payload (input, output, receipt, details) is at most this many bytes of JSON text:
/// every one is kept in the event log for as long as the saga is.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// A payload nests at most this deep: JSON readers recurse, and each must be able to read it.
pub const PAYLOAD_DEPTH_MAX: usize = 64;

/// Why a text is not a payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// More bytes than [`PAYLOAD_BYTES_MAX`].
    #[error("{bytes} bytes of JSON, at most {PAYLOAD_BYTES_MAX} are allowed")]
    TooLarge {
        /// The bytes of the text.
        bytes: usize,
    },
    /// Nested deeper than [`PAYLOAD_DEPTH_MAX`].
    #[error("nested deeper than {PAYLOAD_DEPTH_MAX} levels")]
    TooDeep,
}

/// One valid JSON text of at most [`PAYLOAD_BYTES_MAX`] bytes, on one line: numbers and texts
/// stay as they were written, white space between them goes, so that a payload can stand in NDJSON
/// and in an event stream. Cheap to clone.
#[derive(Clone)]
pub struct Payload {
    text: Arc<RawValue>,
    /// How deep it nests.
    depth: u8,
}

impl Payload {
    /// Checks and takes the text.
    ///
    /// # Errors
    /// When the text is not one JSON value or too large.
    pub fn parse(text: &str) -> Result<Self, PayloadError> {
        let depth = check(text)?;
        let raw: &RawValue =
            serde_json::from_str(text).map_err(|error| PayloadError::Json(error.to_string()))?;
        Ok(Self { text: on_one_line(raw).into(), depth })
    }

    /// The value as text.
    ///
    /// # Errors
    /// When the text would be too large.
    pub fn from_value(value: &serde_json::Value) -> Result<Self, PayloadError> {
        let text = to_raw_value(value).map_err(|error| PayloadError::Json(error.to_string()))?;
        let depth = check(text.get())?;
        Ok(Self { text: text.into(), depth })
    }

    /// A list of values.
    ///
    /// # Errors
    /// When the text would be too large or nest too deep.
    pub(crate) fn list(items: impl Iterator<Item = Self>) -> Result<Self, PayloadError> {
        let items: Vec<_> = items.collect();
        let bytes = items.iter().map(|item| item.as_str().len() + 1).sum::<usize>() + 1;
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(PayloadError::TooLarge { bytes });
        }
        let items: Vec<&RawValue> = items.iter().map(|item| &*item.text).collect();
        let text = to_raw_value(&items).map_err(|error| PayloadError::Json(error.to_string()))?;
        let depth = check(text.get())?;
        Ok(Self { text: text.into(), depth })
    }

    /// The payload `null`.
    #[must_use]
    pub fn null() -> Self {
        Self { text: RawValue::NULL.to_owned().into(), depth: 0 }
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.text.get()
    }

    /// How deep it nests.
    pub(crate) fn depth(&self) -> usize {
        usize::from(self.depth)
    }

    /// The JSON value.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        // The text was checked when the payload was made; nesting past the parser's limit was
        // refused there too.
        serde_json::from_str(self.as_str()).unwrap_or(serde_json::Value::Null)
    }
}

/// Checks the limits of a text, whether or not it is JSON, and answers how deep it nests.
fn check(text: &str) -> Result<u8, PayloadError> {
    if text.len() > PAYLOAD_BYTES_MAX {
        return Err(PayloadError::TooLarge { bytes: text.len() });
    }
    let depth = depth(text);
    match u8::try_from(depth) {
        Ok(small) if depth <= PAYLOAD_DEPTH_MAX => Ok(small),
        Ok(_) | Err(_) => Err(PayloadError::TooDeep),
    }
}

/// How deep a text nests, whether or not it is JSON.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Without white space outside of texts (RFC 8259, section 2).
fn on_one_line(raw: &RawValue) -> Box<RawValue> {
    let text = raw.get();
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r');
    if !text.contains(is_space) {
        return raw.to_owned();
    }
    let (mut in_string, mut escaped) = (false, false);
    let kept = text.chars().filter(|c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
        in_string || !is_space(*c)
    });
    // Less of what was JSON is JSON.
    RawValue::from_string(kept.collect()).unwrap_or_else(|_| raw.to_owned())
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Payload {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let depth = check(raw.get()).map_err(serde::de::Error::custom)?;
        Ok(Self { text: on_one_line(&raw).into(), depth })
    }
}

/// For a field that may be absent: `null` that stands there is a payload, not its absence.
pub(crate) fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Payload>, D::Error> {
    Payload::deserialize(deserializer).map(Some)
}
