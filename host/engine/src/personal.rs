//! Personal values: where a saga has them, and what stands in their place in the store.
//!
//! The engine sees personal values as they are. The runtime seals them before they are stored, with a
//! key of the saga that the key of its subject opens, and opens them when they are read.
//!
//! Deliberately absent: keys and ciphers, which need randomness.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{Digest, StepName};

/// The most personal paths of one definition. Each is looked for in each event of a saga.
pub const PERSONAL_PATHS_MAX: usize = 64;

/// The longest subject, in bytes: it is a name, not data.
pub const SUBJECT_BYTES_MAX: usize = 1_024;

/// The beginning of a sealed value: a JSON string. The version of the format and the ciphertext follow.
pub const SEALED_PREFIX: &str = "amends:sealed:";

/// The text that stands in the place of a sealed value whose key is gone.
pub const ERASED: &str = "[erased]";

/// The text that stands for a sealed reason in lists of sagas.
pub const SEALED_REASON: &str = "[sealed]";

/// Returns true when a text is a sealed value, or looks like one.
#[must_use]
pub fn is_sealed(text: &str) -> bool {
    text.starts_with(SEALED_PREFIX)
}

/// The id of the key of a subject: 16 random bytes, which say nothing about the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectKeyId([u8; 16]);

impl SubjectKeyId {
    /// Makes an id of its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for SubjectKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for SubjectKeyId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "the id of a subject's key is 32 hexadecimal digits";
        if text.len() != 32 || !text.is_ascii() {
            return Err(wrong);
        }
        let mut bytes = [0; 16];
        for (at, byte) in bytes.iter_mut().enumerate() {
            let digits = text.get(2 * at..2 * at + 2).ok_or(wrong)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for SubjectKeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SubjectKeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The key of a saga's personal values, as its first event has it: only the key of the subject opens
/// it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedKey {
    /// The key of the subject.
    pub subject_key: SubjectKeyId,
    /// The key of the saga, sealed with the key of the subject: base64.
    pub data_key: String,
    /// The keyed digest of the definition's name and the input, by which a second start with the same
    /// idempotency key is compared. None when the saga has no idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_digest: Option<Digest>,
}

/// A place at which sagas of a definition have a personal value. Lists on the way are passed through:
/// each of their elements has the place. Its text is `input.address` or `steps.NAME.output.account`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PersonalPath {
    payload: PayloadPlace,
    /// The fields that lead to the value; none when the whole payload is personal.
    fields: Vec<String>,
}

/// A payload of a saga that may have personal values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PayloadPlace {
    /// The input of the saga.
    Input,
    /// The input of a step, where an operator writes it.
    StepInput(String),
    /// The output of a step.
    Output(String),
}

impl PersonalPath {
    pub(crate) const fn new(payload: PayloadPlace, fields: Vec<String>) -> Self {
        Self { payload, fields }
    }

    /// Returns the fields that lead to the value in the input of the saga. None when another payload has
    /// it.
    #[must_use]
    pub fn in_input(&self) -> Option<&[String]> {
        matches!(self.payload, PayloadPlace::Input).then_some(&*self.fields)
    }

    /// Returns the fields that lead to the value in the input of a step or of an element of it. None when
    /// that does not have it.
    #[must_use]
    pub fn in_step_input(&self, step: &StepName) -> Option<&[String]> {
        let is_it = matches!(&self.payload, PayloadPlace::StepInput(name) if *name == step.step());
        is_it.then_some(&*self.fields)
    }

    /// Returns the fields that lead to the value in the output of a step or of an element of it. None
    /// when that does not have it.
    #[must_use]
    pub fn in_output(&self, step: &StepName) -> Option<&[String]> {
        let is_it = matches!(&self.payload, PayloadPlace::Output(name) if *name == step.step());
        is_it.then_some(&*self.fields)
    }

    /// Returns the name of the step whose input or output has the value.
    pub(crate) fn step(&self) -> Option<&str> {
        match &self.payload {
            PayloadPlace::Input => None,
            PayloadPlace::StepInput(step) | PayloadPlace::Output(step) => Some(step),
        }
    }

    /// Returns true when the other place is this one, or lies in it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.payload == other.payload && other.fields.starts_with(&self.fields)
    }

    /// Returns the payload as a whole.
    #[must_use]
    pub fn whole(&self) -> Self {
        Self { payload: self.payload.clone(), fields: Vec::new() }
    }
}

impl fmt::Display for PersonalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.payload {
            PayloadPlace::Input => f.write_str("input")?,
            PayloadPlace::StepInput(step) => write!(f, "steps.{step}.input")?,
            PayloadPlace::Output(step) => write!(f, "steps.{step}.output")?,
        }
        self.fields.iter().try_for_each(|field| {
            if !field.is_empty() && field.chars().all(is_plain) {
                write!(f, ".{field}")
            } else {
                write!(f, "[\"{field}\"]")
            }
        })
    }
}

impl Serialize for PersonalPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PersonalPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for PersonalPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is no path to a value");
        let mut names = names(text).ok_or_else(wrong)?.into_iter();
        let payload = match names.next().as_deref() {
            Some("input") => PayloadPlace::Input,
            Some("steps") => {
                let step = names.next().ok_or_else(wrong)?;
                match names.next().as_deref() {
                    Some("input") => PayloadPlace::StepInput(step),
                    Some("output") => PayloadPlace::Output(step),
                    Some(_) | None => return Err(wrong()),
                }
            }
            Some(_) | None => return Err(wrong()),
        };
        Ok(Self { payload, fields: names.collect() })
    }
}

/// Returns true for a character of a name that a path has without quotes.
fn is_plain(character: char) -> bool {
    character.is_alphanumeric() || character == '_' || character == '-'
}

/// Returns the names of a path: `input.order["a b"].id`.
pub(crate) fn names(text: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut left = text;
    loop {
        let is_first = names.is_empty();
        if let Some(quoted) = left.strip_prefix("[\"").filter(|_| !is_first) {
            let (name, rest) = quoted.split_once("\"]")?;
            names.push(name.to_owned());
            left = rest;
        } else {
            let field = if is_first { left } else { left.strip_prefix('.')? };
            let end = field.find(['.', '[']).unwrap_or(field.len());
            let (name, rest) = field.split_at(end);
            if name.is_empty() || !name.chars().all(is_plain) {
                return None;
            }
            names.push(name.to_owned());
            left = rest;
        }
        if left.is_empty() {
            return Some(names);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

    use super::*;

    #[test]
    fn a_path_leads_into_the_input_or_into_an_output() {
        let path = |text: &str| text.parse::<PersonalPath>();
        let fields = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let of = |step: Option<&str>, names: &[&str]| {
            let output = |step: &str| PayloadPlace::Output(step.to_owned());
            Ok(PersonalPath::new(step.map_or(PayloadPlace::Input, output), fields(names)))
        };
        assert_eq!(path("input"), of(None, &[]));
        assert_eq!(path("input.order.address"), of(None, &["order", "address"]));
        assert_eq!(path("input[\"a b\"].c"), of(None, &["a b", "c"]));
        assert_eq!(path("steps.ship-out.output.to"), of(Some("ship-out"), &["to"]));
        assert_eq!(path("steps[\"ship\"].output"), of(Some("ship"), &[]));
        for wrong in ["", "saga.id", "input.", "input..a", "steps.a", "steps.a.error", "input[0]"] {
            assert!(path(wrong).is_err(), "{wrong}");
        }
        let element: StepName = "ship[3]".parse().unwrap();
        assert!(path("steps.ship.output.to").unwrap().in_output(&element).is_some());
        assert!(path("input.to").unwrap().in_output(&element).is_none());
    }

    #[test]
    fn a_path_survives_its_text_and_covers_what_lies_in_it() {
        let path = |text: &str| text.parse::<PersonalPath>().unwrap();
        for text in ["input", "input.a[\"b c\"].d", "steps.x.output[\"\"]", "steps.x-1.input.to"] {
            assert_eq!(path(text).to_string(), text);
        }
        assert!(path("input.a").covers(&path("input.a.b")));
        assert!(path("input").covers(&path("input.a")));
        assert!(!path("input.a.b").covers(&path("input.a")));
        assert!(!path("steps.x.input").covers(&path("steps.x.output")));
    }

    #[test]
    fn an_id_of_a_key_survives_its_text() {
        let id = SubjectKeyId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("xyz".parse::<SubjectKeyId>().is_err());
    }
}
