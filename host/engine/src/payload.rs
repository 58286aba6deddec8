//! JSON text that passes through Amends with nothing changed but the space between its words.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::personal::is_sealed;

/// A payload (input, output, receipt, details) is at most this many bytes of JSON text:
/// every one is kept in the event log for as long as the saga is.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// A payload nests at most this deep: JSON readers recurse, and each must be able to read it.
pub const PAYLOAD_DEPTH_MAX: usize = 64;

/// A payload that is sealed as a whole is at most this many bytes: base64 takes a third more.
const SEALED_BYTES_MAX: usize = PAYLOAD_BYTES_MAX * 3 / 2;

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
    /// JSON by its grammar, but not every reader gets the same value of it.
    #[error(
        "JSON that not every reader understands the same: {0}; write each name once in an object, \
         no half of a surrogate pair, and no number beyond the range of a double"
    )]
    Ambiguous(String),
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
    /// Checks and takes a text of somebody else. What is taken has one value, the same for a
    /// schema, for an expression and for a component, whatever reads it.
    ///
    /// # Errors
    /// When the text is not one JSON value, is too large, or has no definite value (see
    /// [`check_json`]).
    pub fn parse(text: &str) -> Result<Self, PayloadError> {
        check_bytes(text)?;
        let raw: &RawValue =
            serde_json::from_str(text).map_err(|error| PayloadError::Json(error.to_string()))?;
        let depth = match read_through(text) {
            Ok(depth) => in_depth(depth)?,
            // Readers recurse, so they stop at what nests deep.
            Err(error) => return Err(in_depth(depth(text)).err().unwrap_or(error)),
        };
        Ok(Self { text: on_one_line(raw).into(), depth })
    }

    /// Takes a text that is in the log. Earlier versions recorded texts without a definite value:
    /// they stay as they are, and [`Self::to_value`] refuses them.
    ///
    /// # Errors
    /// When the text is not one JSON value or too large.
    pub fn recorded(text: &str) -> Result<Self, PayloadError> {
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

    /// An object of payloads, each as it was written; the names are in order.
    ///
    /// # Errors
    /// When the text would be too large or nest too deep.
    pub(crate) fn object(
        fields: impl Iterator<Item = (String, Self)>,
    ) -> Result<Self, PayloadError> {
        let fields: BTreeMap<_, _> = fields.collect();
        let raw: BTreeMap<_, &RawValue> =
            fields.iter().map(|(name, value)| (name, &*value.text)).collect();
        let text = to_raw_value(&raw).map_err(|error| PayloadError::Json(error.to_string()))?;
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
    ///
    /// # Errors
    /// When the text has no definite value; then an earlier version recorded it.
    pub fn to_value(&self) -> Result<serde_json::Value, PayloadError> {
        serde_json::from_str(self.as_str())
            .map_err(|error| PayloadError::Ambiguous(error.to_string()))
    }
}

/// Checks that a JSON text has one value, whatever reads it: no name stands twice in one object,
/// no text has half of a surrogate pair, no number is beyond the range of a double. RFC 8259
/// leaves all of that to the reader; this is what RFC 7493 asks of JSON that others read.
///
/// # Errors
/// When the text is not JSON, or has no definite value.
pub fn check_json(text: &str) -> Result<(), PayloadError> {
    read_through(text).map(|_| ())
}

/// Reads a text to its end, keeps nothing of it, and answers how deep it nests.
fn read_through(text: &str) -> Result<usize, PayloadError> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let mut deepest = 0;
    let read = Walk { depth: 0, deepest: &mut deepest }.deserialize(&mut reader);
    read.and_then(|()| reader.end()).map_err(|error| PayloadError::Ambiguous(error.to_string()))?;
    Ok(deepest)
}

struct Walk<'d> {
    depth: usize,
    deepest: &'d mut usize,
}

impl Walk<'_> {
    fn inner(&mut self) -> Walk<'_> {
        let depth = self.depth + 1;
        *self.deepest = depth.max(*self.deepest);
        Walk { depth, deepest: self.deepest }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        // Tried for the end of the list as well, so that an empty one counts.
        while items.next_element_seed(self.inner())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        let mut names = Vec::new();
        *self.deepest = (self.depth + 1).max(*self.deepest);
        while let Some(Name(name)) = fields.next_key()? {
            names.push(name);
            fields.next_value_seed(self.inner())?;
        }
        names.sort_unstable();
        match names.windows(2).find(|two| two[0] == two[1]) {
            None => Ok(()),
            Some(two) => {
                let name = two[0].chars().take(NAME_SHOWN_CHARS).collect::<String>();
                Err(serde::de::Error::custom(format_args!("the name {name:?} stands twice")))
            }
        }
    }
}

/// Of a name that stands twice, so much is told.
const NAME_SHOWN_CHARS: usize = 64;

/// A name in an object, not copied where it needs no decoding.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }

        deserializer.deserialize_str(Names)
    }
}

/// Checks the limits of a text, whether or not it is JSON, and answers how deep it nests.
fn check(text: &str) -> Result<u8, PayloadError> {
    check_bytes(text)?;
    in_depth(depth(text))
}

fn check_bytes(text: &str) -> Result<(), PayloadError> {
    if text.len() > PAYLOAD_BYTES_MAX {
        return Err(PayloadError::TooLarge { bytes: text.len() });
    }
    Ok(())
}

fn in_depth(depth: usize) -> Result<u8, PayloadError> {
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

/// As it was recorded: like [`Payload::recorded`], because events are read by it. A body of
/// somebody else is checked as a whole, by [`check_json`], before it is read.
impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let is_sealed = raw.get().strip_prefix('"').is_some_and(is_sealed);
        let depth = if is_sealed && raw.get().len() <= SEALED_BYTES_MAX {
            0
        } else {
            check(raw.get()).map_err(serde::de::Error::custom)?
        };
        Ok(Self { text: on_one_line(&raw).into(), depth })
    }
}

/// For a field that may be absent: `null` that stands there is a payload, not its absence.
pub(crate) fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Payload>, D::Error> {
    Payload::deserialize(deserializer).map(Some)
}
