//! The names and numbers that cross crates, each a type of its own so that two
//! of them cannot be swapped.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Names are at most this many bytes: they stand in file names, metrics labels and table columns.
pub const NAME_BYTES_MAX: usize = 63;

/// Why a text is not an id or a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a name.
    #[error(
        "`{0}` is not a name: use 1 to {NAME_BYTES_MAX} of a-z, 0-9, `-` and `_`, beginning with a letter or digit"
    )]
    Name(String),
    /// Not a UUID.
    #[error("`{0}` is not a saga id: it is a UUID such as 0198c0de-0000-7000-8000-000000000000")]
    SagaId(String),
    /// Not a digest.
    #[error("`{0}` is not a digest: it is `sha256:` and 64 hexadecimal digits")]
    Digest(String),
    /// Not a time.
    #[error("`{0}` is not a time: it is RFC 3339, such as 2026-03-01T09:30:00Z")]
    Timestamp(String),
}

/// One saga: a `UUIDv7` (RFC 9562), so ids sort by the time of their start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SagaId(Uuid);

impl SagaId {
    /// A new id from the time and 10 random bytes; the engine has no randomness of its own.
    #[must_use]
    pub fn from_parts(at: Timestamp, random: &[u8; 10]) -> Self {
        let millis = u64::try_from(at.as_millis()).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid())
    }

    /// The id of the saga that an attempt of a step starts, from when the attempt begins: its time
    /// is the child's own, so that ids sort by it. The parent's log keeps the id, so that a start
    /// that was cut off is not done twice. It ends as the parent's id does, so that both are in one
    /// shard of the store.
    #[must_use]
    pub fn child(self, step: &StepName, attempt: u32, at: Timestamp) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.as_bytes());
        hash.update(step.as_str().as_bytes());
        hash.update([0]);
        hash.update(attempt.to_be_bytes());
        let mut random = [0; 10];
        random[..8].copy_from_slice(&hash.finalize()[..8]);
        random[8..].copy_from_slice(&self.as_bytes()[14..]);
        Self::from_parts(at, &random)
    }

    /// From its 16 bytes, as the store keeps it.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for SagaId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Uuid::try_parse(text).map(Self).map_err(|_| IdError::SagaId(text.to_owned()))
    }
}

/// Milliseconds since the Unix epoch, UTC. As text and in JSON it is RFC 3339 with milliseconds:
/// `2026-03-01T09:30:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Beyond them there are no words for it: the nearest time that has some can be read again.
        let (first, last) = (jiff::Timestamp::MIN, jiff::Timestamp::MAX);
        let time = jiff::Timestamp::from_millisecond(self.0);
        let time = time.unwrap_or(if self.0 < 0 { first } else { last });
        write!(f, "{time:.3}")
    }
}

impl FromStr for Timestamp {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse::<jiff::Timestamp>()
            .map(|time| Self(time.as_millisecond()))
            .map_err(|_| IdError::Timestamp(text.to_owned()))
    }
}

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This much later; saturates at the end of time.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This long before; the earliest time there is, when it would be before that.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// The time from `earlier` to this; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// How many events a stream has: the version of its last event. 0 is a stream that does not exist.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// This many events later.
    #[must_use]
    pub fn plus(self, events: usize) -> Self {
        Self(self.0 + events as u64)
    }
}

/// The place of an event in the order of the whole store, from 1.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

/// A SHA-256 digest (FIPS 180-4), written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// From its 32 bytes, as the store keeps it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 hexadecimal digits, for file names.
    #[must_use]
    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    /// The first 12 hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        hex(&self.0[..6])
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    push_hex(&mut text, bytes);
    text
}

pub(crate) fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 0xf)]));
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.short())
    }
}

impl FromStr for Digest {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Digest(text.to_owned());
        let digits = text.strip_prefix("sha256:").ok_or_else(wrong)?.as_bytes();
        if digits.len() != 64 {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

macro_rules! text_serde {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                if is_name(text) { Ok(Self(text.into())) } else { Err(IdError::Name(text.to_owned())) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=NAME_BYTES_MAX).contains(&bytes.len())
        && plain(&bytes[0])
        && bytes.iter().all(|byte| plain(byte) || matches!(byte, b'-' | b'_'))
}

name! {
    /// The name of a definition: `order-fulfillment`.
    DefinitionName
}
name! {
    /// The name of a plugin in the config: `inventory-release`.
    PluginName
}
name! {
    /// The name of a service that steps share: `carrier`.
    ServiceName
}
name! {
    /// The name of a signal that a step waits for: `approved`.
    SignalName
}

name! {
    /// The name of an index value by which sagas are found: `customer`.
    IndexName
}

name! {
    /// The name of a namespace of a host: `shop`. The engine knows no namespaces; the rule of names is here.
    NamespaceName
}

/// The name of a step in its definition, `inventory`, or of one element of a step that runs once
/// for each element of a list: `shipment[3]`, counted from 0.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepName(Arc<str>);

impl StepName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of one of its elements.
    pub(crate) fn element(&self, number: usize) -> Self {
        Self(format!("{}[{number}]", self.step()).into())
    }

    /// The name of the step in its definition: `shipment` for `shipment[3]`.
    #[must_use]
    pub fn step(&self) -> &str {
        self.0.split('[').next().unwrap_or_default()
    }

    /// The number of the element; none: it names a step of a definition.
    #[must_use]
    pub fn number(&self) -> Option<usize> {
        self.0.split_once('[')?.1.strip_suffix(']')?.parse().ok()
    }
}

impl FromStr for StepName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let name = Self(text.into());
        let is_whole = name.number().map_or_else(
            || text == name.step(),
            // As it would be written, without zeros or signs before it.
            |number| text == name.element(number).as_str(),
        );
        if is_whole && is_name(name.step()) {
            Ok(name)
        } else {
            Err(IdError::Name(text.to_owned()))
        }
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_serde!(
    SagaId,
    Timestamp,
    Digest,
    DefinitionName,
    StepName,
    PluginName,
    ServiceName,
    SignalName,
    IndexName,
    NamespaceName
);
