//! Index values: what the business calls a saga.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

/// The most names that the index of one definition has. Each costs a row and two entries of indexes
/// for each saga.
pub const INDEX_NAMES_MAX: usize = 16;

/// The longest text that is indexed, in bytes. A longer one is no name that people search for. It is
/// not indexed at all, because a part of it would match other sagas.
pub const INDEX_TEXT_BYTES_MAX: usize = 256;

/// The largest whole number below which every whole number is a double.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// One value by which a saga is found. Values of different kinds are never equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IndexValue {
    /// True or false.
    Bool(bool),
    /// A whole number of 64 bits with its sign, or a double.
    Number(Number),
    /// A text of at most [`INDEX_TEXT_BYTES_MAX`] bytes.
    Text(String),
}

impl IndexValue {
    /// Makes an index value of a JSON value. None for null, a list, an object, and a text that is too
    /// long: those are not indexed.
    #[must_use]
    pub fn of(value: Value) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(Self::Bool(value)),
            Value::Number(number) => Some(Self::Number(plain(number))),
            Value::String(text) => (text.len() <= INDEX_TEXT_BYTES_MAX).then_some(Self::Text(text)),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// Returns the bytes that the value takes, about.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Bool(_) | Self::Number(_) => size_of::<Self>(),
            Self::Text(text) => text.len(),
        }
    }

    /// Compares two values of one kind: texts by their bytes, numbers by their value. None when they
    /// are of different kinds.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(one), Self::Bool(other)) => Some(one.cmp(other)),
            (Self::Text(one), Self::Text(other)) => Some(one.cmp(other)),
            (Self::Number(one), Self::Number(other)) => compare_numbers(one, other),
            (Self::Bool(_) | Self::Number(_) | Self::Text(_), _) => None,
        }
    }
}

impl fmt::Display for IndexValue {
    /// Writes the value as people do: a text without quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Returns a number in the one form that it is kept in: whole numbers without a point, and none that
/// needs more than 64 bits with the sign.
fn plain(number: Number) -> Number {
    if number.as_i64().is_some() {
        return number;
    }
    let Some(double) = number.as_f64() else { return number };
    if double.fract() == 0.0 && double.abs() < WHOLE_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and small")]
        return Number::from(double as i64);
    }
    Number::from_f64(double).unwrap_or(number)
}

fn compare_numbers(one: &Number, other: &Number) -> Option<Ordering> {
    if let (Some(one), Some(other)) = (one.as_i64(), other.as_i64()) {
        return Some(one.cmp(&other));
    }
    let (one_double, other_double) = (one.as_f64()?, other.as_f64()?);
    let order = one_double.partial_cmp(&other_double)?;
    // A whole number that is no double may lie beside the double that it was rounded to.
    #[expect(clippy::cast_possible_truncation, reason = "doubles of that size are whole")]
    let exact = |number: &Number, double: f64| number.as_i64().map_or(double as i128, i128::from);
    if order == Ordering::Equal && one_double.abs() >= WHOLE_MAX {
        return Some(exact(one, one_double).cmp(&exact(other, other_double)));
    }
    Some(order)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_is_kept_in_one_form() {
        let form = |value: Value| serde_json::to_string(&IndexValue::of(value).unwrap()).unwrap();
        assert_eq!(form(json!(1.0)), "1");
        assert_eq!(form(json!(-0.0)), "0");
        assert_eq!(form(json!(1.5)), "1.5");
        assert_eq!(form(json!(i64::MIN)), i64::MIN.to_string());
        assert_eq!(form(json!(u64::MAX)), "1.8446744073709552e+19");
        assert_eq!(form(json!(1e300)), "1e+300");
    }

    #[test]
    fn a_computed_number_survives_its_text() {
        for number in 0..10_000 {
            let value = IndexValue::of(json!(f64::from(number) * 1.19)).unwrap();
            let text = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<IndexValue>(&text).unwrap(), value, "{text}");
        }
    }

    #[test]
    fn what_nobody_searches_for_is_not_indexed() {
        for none in [json!(null), json!([1]), json!({"a": 1})] {
            assert_eq!(IndexValue::of(none), None);
        }
        let text = |bytes: usize| IndexValue::of(json!("a".repeat(bytes)));
        assert!(text(INDEX_TEXT_BYTES_MAX).is_some());
        assert_eq!(text(INDEX_TEXT_BYTES_MAX + 1), None);
    }

    #[test]
    fn values_of_one_kind_compare_exactly() {
        let value = |value: Value| IndexValue::of(value).unwrap();
        let order = |one: Value, other: Value| value(one).compare(&value(other));
        assert_eq!(order(json!(1), json!(1.0)), Some(Ordering::Equal));
        assert_eq!(order(json!(10), json!(9.5)), Some(Ordering::Greater));
        let big = 9_007_199_254_740_993_i64;
        assert_eq!(order(json!(big), json!(9_007_199_254_740_992.0)), Some(Ordering::Greater));
        assert_eq!(order(json!(i64::MAX), json!(u64::MAX)), Some(Ordering::Less));
        assert_eq!(order(json!("10"), json!("9")), Some(Ordering::Less));
        assert_eq!(order(json!("1"), json!(1)), None);
        assert_eq!(order(json!(true), json!("true")), None);
    }
}
