//! Kinds of values.

use std::fmt;

use serde_json::Value;

/// A set of kinds of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

impl Kinds {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const NULL: Self = Self(1);
    pub(crate) const BOOL: Self = Self(2);
    pub(crate) const NUMBER: Self = Self(4);
    pub(crate) const TEXT: Self = Self(8);
    pub(crate) const LIST: Self = Self(16);
    pub(crate) const OBJECT: Self = Self(32);
    /// Values that only CEL has: bytes and types.
    pub(crate) const OTHER: Self = Self(64);
    /// All values that JSON has.
    pub(crate) const JSON: Self = Self(63);
    pub(crate) const ANY: Self = Self(127);

    /// Returns the union of two sets.
    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the intersection of two sets.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns true when two sets share a kind.
    pub(crate) const fn intersects(self, other: Self) -> bool {
        self.and(other).0 != 0
    }

    /// Returns true when this set is not empty and within `other`.
    pub(crate) const fn is_within(self, other: Self) -> bool {
        self.0 != 0 && self.and(other).0 == self.0
    }

    /// Returns the kind of a value of JSON.
    pub(crate) fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::NULL,
            Value::Bool(_) => Self::BOOL,
            Value::Number(_) => Self::NUMBER,
            Value::String(_) => Self::TEXT,
            Value::Array(_) => Self::LIST,
            Value::Object(_) => Self::OBJECT,
        }
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (Self::NULL, "null"),
            (Self::BOOL, "true or false"),
            (Self::NUMBER, "a number"),
            (Self::TEXT, "text"),
            (Self::LIST, "a list"),
            (Self::OBJECT, "an object"),
            (Self::OTHER, "bytes or a type"),
        ];
        let words: Vec<_> = words
            .into_iter()
            .filter(|(kind, _)| self.intersects(*kind))
            .map(|(_, word)| word)
            .collect();
        f.write_str(&words.join(" or "))
    }
}
