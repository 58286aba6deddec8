//! Rebuilding the projections from the events, a slice at a time.

use std::fmt;
use std::str::FromStr;

use amends_engine::SagaId;

use crate::error::StoreError;

/// A table that is derived from events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Projection {
    /// One row for each saga: what lists show, and the timers.
    Sagas,
    /// The tags of sagas.
    Tags,
    /// The index values of sagas.
    Index,
    /// The last failure of each step and call, with its words.
    Failures,
    /// The idempotency keys that started sagas.
    Keys,
}

impl Projection {
    /// All of them, each after those that it is compared with. Of sagas alone no row is ever removed.
    pub(crate) const ALL: [Self; 5] =
        [Self::Sagas, Self::Tags, Self::Index, Self::Failures, Self::Keys];

    /// Returns the columns of the table's key, in the order of its rows.
    pub(crate) const fn key_columns(self) -> &'static [&'static str] {
        match self {
            Self::Sagas => &["id"],
            Self::Tags | Self::Index => &["name", "value", "saga"],
            Self::Failures => &["position"],
            Self::Keys => &["key"],
        }
    }

    /// Returns the name of the table.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Sagas => "sagas",
            Self::Tags => "saga_tags",
            Self::Index => "saga_index",
            Self::Failures => "failures",
            Self::Keys => "start_keys",
        }
    }
}

/// The most bytes of texts and bytes in the key of a row after which a slice begins. Keys that are
/// written are shorter.
pub(crate) const KEY_BYTES_MAX: usize = 1_024;

/// The key of a row, as it is stored: also a text that is none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RowKey(pub(crate) Vec<KeyPart>);

// A number in a key is never NaN, which SQLite stores as NULL.
impl Eq for RowKey {}

/// One column of a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum KeyPart {
    Integer(i64),
    Real(f64),
    /// The bytes of a text, which may not be UTF-8.
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl RowKey {
    /// Returns true when a place may have this key.
    pub(crate) fn is_short(&self) -> bool {
        let bytes = |part: &KeyPart| match part {
            KeyPart::Integer(_) | KeyPart::Real(_) => 8,
            KeyPart::Text(bytes) | KeyPart::Blob(bytes) => bytes.len(),
        };
        self.0.iter().map(bytes).sum::<usize>() <= KEY_BYTES_MAX
    }

    fn parse(text: &str, table: Projection) -> Option<Self> {
        let parts: Option<Vec<_>> = text.split('.').map(KeyPart::parse).collect();
        let key = Self(parts?);
        (key.0.len() == table.key_columns().len() && key.is_short()).then_some(key)
    }
}

impl fmt::Display for RowKey {
    /// Writes the letter of the type, and the number or the hexadecimal bytes, of each column.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, part) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str(".")?;
            }
            match part {
                KeyPart::Integer(number) => write!(f, "i{number}")?,
                KeyPart::Real(number) => write_bytes(f, 'r', &number.to_be_bytes())?,
                KeyPart::Text(bytes) => write_bytes(f, 't', bytes)?,
                KeyPart::Blob(bytes) => write_bytes(f, 'b', bytes)?,
            }
        }
        Ok(())
    }
}

impl KeyPart {
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_at_checked(1)?;
        Some(match kind {
            "i" => Self::Integer(rest.parse().ok()?),
            "r" => Self::Real(f64::from_be_bytes(bytes_of(rest)?.try_into().ok()?)),
            "t" => Self::Text(bytes_of(rest)?),
            "b" => Self::Blob(bytes_of(rest)?),
            _ => return None,
        })
    }
}

fn write_bytes(f: &mut fmt::Formatter<'_>, letter: char, bytes: &[u8]) -> fmt::Result {
    write!(f, "{letter}")?;
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Reads hexadecimal digits, two for each byte.
fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| {
        let value = pair.iter().try_fold(0, |value, digit| {
            char::from(*digit).to_digit(16).map(|digit| 16 * value + digit)
        });
        value.filter(|_| pair.len() == 2).and_then(|value| u8::try_from(value).ok())
    };
    digits.as_bytes().chunks(2).map(pair).collect()
}

/// The reason why a slice of a rebuild was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RebuildError {
    /// Another slice of a rebuild of the store is being done. Caller: wait for its end.
    #[error("another rebuild of this store is under way")]
    UnderWay,
    /// The store failed, or is closed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How far a rebuild is: its checkpoint. Callers keep it, write it down as text and hand it back, also
/// to a store that was opened again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuildPlace(pub(crate) RebuildStage);

/// What a rebuild does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RebuildStage {
    /// It looks at the sagas after this one.
    Sagas(Option<SagaId>),
    /// It looks for the rows of a table that no saga has, after the row with this key.
    Strays { table: Projection, after: Option<RowKey> },
    /// It indexes the words of failures anew, when they are wrong.
    Words,
}

impl RebuildPlace {
    /// The place before the first saga.
    pub const START: Self = Self(RebuildStage::Sagas(None));
}

impl fmt::Display for RebuildPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            RebuildStage::Sagas(None) => f.write_str("sagas"),
            RebuildStage::Sagas(Some(id)) => write!(f, "sagas:{id}"),
            RebuildStage::Strays { table, after } => {
                write!(f, "strays:{}:", table.as_str())?;
                after.iter().try_for_each(|key| write!(f, "{key}"))
            }
            RebuildStage::Words => f.write_str("end"),
        }
    }
}

impl FromStr for RebuildPlace {
    type Err = StoreError;

    /// Reads what `Display` wrote.
    fn from_str(text: &str) -> Result<Self, StoreError> {
        read_stage(text).map(Self).ok_or(StoreError::Invalid("this is no place of a rebuild"))
    }
}

fn read_stage(text: &str) -> Option<RebuildStage> {
    let mut parts = text.split(':');
    let stage = match (parts.next()?, parts.next(), parts.next()) {
        ("sagas", id, None) => RebuildStage::Sagas(id.map(str::parse).transpose().ok()?),
        ("strays", Some(name), Some(key)) => {
            let table = Projection::ALL.into_iter().find(|table| table.as_str() == name)?;
            let after = if key.is_empty() { None } else { Some(RowKey::parse(key, table)?) };
            RebuildStage::Strays { table, after }
        }
        ("end", None, None) => RebuildStage::Words,
        _ => return None,
    };
    parts.next().is_none().then_some(stage)
}

/// What one slice of a rebuild did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RebuildSlice {
    /// The sagas whose rows were compared with their events.
    pub sagas: u64,
    /// The sagas whose rows were written anew, because they differed.
    pub rebuilt: u64,
    /// The rows that were removed, because no saga has them.
    pub removed: u64,
    /// The sagas whose rows stay as they are, and why: what their events say cannot be computed, there
    /// are no events, or the rows cannot be written.
    pub unreadable: Vec<(SagaId, String)>,
    /// Where the next slice begins; none when the rebuild is complete.
    pub next: Option<RebuildPlace>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let stages = [
            RebuildStage::Sagas(None),
            RebuildStage::Sagas(Some(SagaId::from_bytes([7; 16]))),
            RebuildStage::Strays { table: Projection::Keys, after: None },
            strays(Projection::Keys, vec![KeyPart::Text(b"a:\xff\0 \xc3".to_vec())]),
            strays(Projection::Failures, vec![KeyPart::Integer(-7)]),
            strays(
                Projection::Index,
                vec![KeyPart::Text(vec![]), KeyPart::Real(-0.1), KeyPart::Blob(vec![0; 16])],
            ),
            strays(Projection::Sagas, vec![KeyPart::Blob(vec![7; KEY_BYTES_MAX])]),
            RebuildStage::Words,
        ];
        for stage in stages {
            let place = RebuildPlace(stage);
            assert!(place.to_string().len() < 2 * KEY_BYTES_MAX + 100);
            assert_eq!(place.to_string().parse::<RebuildPlace>().unwrap(), place);
        }
        let long = format!("strays:start_keys:t{}", "00".repeat(KEY_BYTES_MAX + 1));
        for wrong in [
            "",
            "words",
            "sagas:7",
            "strays:sagas",
            "strays:meta:",
            "end:",
            "sagas:a:b",
            "strays:start_keys:t6",
            "strays:start_keys:x61",
            "strays:start_keys:t61.t61",
            "strays:failures:i1x",
            "strays:start_keys:té1",
            &long,
        ] {
            assert!(wrong.parse::<RebuildPlace>().is_err(), "{wrong}");
        }
    }

    fn strays(table: Projection, key: Vec<KeyPart>) -> RebuildStage {
        RebuildStage::Strays { table, after: Some(RowKey(key)) }
    }
}
