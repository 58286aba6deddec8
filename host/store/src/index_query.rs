//! Which index values a list of sagas looks for.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use amends_engine::{INDEX_TEXT_BYTES_MAX, IndexName, IndexValue};
use serde_json::{Number, Value};

/// One condition on an index value of a listed saga, such as `customer=C-81`, `total>=100` or
/// `order^=PO-2026`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexCondition {
    /// The name of the value.
    pub name: IndexName,
    /// What the value fulfils.
    pub(crate) test: IndexTest,
}

/// What an index value fulfils.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IndexTest {
    /// It equals one of these, each of another kind: what people write as `7` may be a number or a
    /// text.
    Equals(Vec<IndexValue>),
    /// It is of the kind of this number or text, and on this side of it.
    Compares(Side, IndexValue),
    /// It is a text that begins so.
    BeginsWith(String),
}

/// The side of a limit on which a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Below,
    UpTo,
    From,
    Above,
}

impl Side {
    /// Returns the operator, which is the same in a condition and in SQL.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Below => "<",
            Self::UpTo => "<=",
            Self::From => ">=",
            Self::Above => ">",
        }
    }
}

impl IndexCondition {
    /// What a condition looks like, for error messages.
    pub const FORM: &str = "write NAME=VALUE, NAME<VALUE, NAME<=VALUE, NAME>VALUE, NAME>=VALUE, or \
                            NAME^=BEGINNING; a value in double quotes is a text, also \"7\"";

    /// Reads a condition. An equal value may be the text, or the number, `true` or `false` that the
    /// text is. A limit that is a number compares numbers; another one compares texts by their bytes. What
    /// may be a mistake has to be quoted: a value that begins with `=`, `<` or `>`, and a limit such as
    /// `.5`, which is no number of JSON.
    ///
    /// # Errors
    /// A clause that says what is wrong, when the text is no condition or its value is longer than
    /// [`INDEX_TEXT_BYTES_MAX`].
    pub fn parse(text: &str) -> Result<Self, String> {
        let no_condition = || format!("`{text}` is not a condition");
        let at = text.find(['=', '<', '>', '^']).ok_or_else(no_condition)?;
        let name = text[..at].trim();
        let name = name.parse::<IndexName>().map_err(|error| error.to_string())?;
        let operators = ["<=", ">=", "^=", "<", ">", "="];
        let operator = operators.into_iter().find(|operator| text[at..].starts_with(operator));
        let operator = operator.ok_or_else(no_condition)?;
        let value = text[at + operator.len()..].trim();
        let is_quoted = value.starts_with('"');
        let quote =
            |what: &str| Err(format!("the value `{value}` {what}; quote it to look for this text"));
        if value.starts_with(['=', '<', '>']) {
            return quote("begins as an operator does");
        }
        let word = if is_quoted {
            serde_json::from_str::<String>(value)
                .map_err(|error| format!("the value {value} is not a text in quotes: {error}"))?
        } else {
            value.to_owned()
        };
        if word.len() > INDEX_TEXT_BYTES_MAX {
            return Err(format!(
                "the value for `{name}` has {} bytes, and a text of more than {INDEX_TEXT_BYTES_MAX} \
                 is not indexed",
                word.len()
            ));
        }
        let number = (!is_quoted).then(|| serde_json::from_str::<Number>(value).ok()).flatten();
        let number = number.and_then(|number| IndexValue::of(Value::Number(number)));
        let is_order = !matches!(operator, "=" | "^=");
        let is_like_number =
            value.contains(|letter: char| letter.is_ascii_digit()) && value.parse::<f64>().is_ok();
        if is_order && number.is_none() && is_like_number && !is_quoted {
            return quote("is not written as a number of JSON");
        }
        let parsed = match operator {
            "=" => {
                let truth =
                    (!is_quoted).then(|| value.parse().ok().map(IndexValue::Bool)).flatten();
                let written = Some(IndexValue::Text(word));
                IndexTest::Equals([written, number, truth].into_iter().flatten().collect())
            }
            "^=" => IndexTest::BeginsWith(word),
            _ => {
                let sides = [Side::Below, Side::UpTo, Side::From, Side::Above];
                let side = sides.into_iter().find(|side| side.as_str() == operator);
                let limit = number.unwrap_or(IndexValue::Text(word));
                IndexTest::Compares(side.ok_or_else(no_condition)?, limit)
            }
        };
        Ok(Self { name, test: parsed })
    }

    /// Returns true when the index values of a saga fulfil the condition.
    #[must_use]
    pub fn fits(&self, index: &BTreeMap<IndexName, IndexValue>) -> bool {
        let Some(value) = index.get(&self.name) else { return false };
        match &self.test {
            IndexTest::Equals(any) => {
                any.iter().any(|one| value.compare(one) == Some(Ordering::Equal))
            }
            IndexTest::Compares(side, limit) => {
                value.compare(limit).is_some_and(|order| match side {
                    Side::Below => order.is_lt(),
                    Side::UpTo => order.is_le(),
                    Side::From => order.is_ge(),
                    Side::Above => order.is_gt(),
                })
            }
            IndexTest::BeginsWith(beginning) => match value {
                IndexValue::Text(text) => text.starts_with(beginning),
                IndexValue::Bool(_) | IndexValue::Number(_) => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

    use serde_json::json;

    use super::*;

    fn fits(condition: &str, value: Value) -> bool {
        let index = IndexValue::of(value).map(|value| ("a".parse().unwrap(), value));
        IndexCondition::parse(condition).unwrap().fits(&index.into_iter().collect())
    }

    #[test]
    fn a_condition_is_read_as_people_write_it() {
        for (condition, value) in [
            ("a=C-81", json!("C-81")),
            ("a = C-81 ", json!("C-81")),
            ("a=7", json!(7)),
            ("a=7", json!("7")),
            ("a=7.0", json!(7)),
            ("a=\"7\"", json!("7")),
            ("a=true", json!(true)),
            ("a=true", json!("true")),
            ("a=", json!("")),
            ("a=\"=b\"", json!("=b")),
            ("a>\"+5\"", json!("+6")),
            ("a=+5", json!("+5")),
            ("a<nan", json!("inf")),
            ("a=x<y", json!("x<y")),
            ("a>=100", json!(100)),
            ("a>99.5", json!(100)),
            ("a<100", json!(-1)),
            ("a<=2026-03-01", json!("2026-02-28")),
            ("a>\"9\"", json!("90")),
            ("a^=PO-", json!("PO-17")),
            ("a^=", json!("")),
        ] {
            assert!(fits(condition, value.clone()), "{condition} {value}");
        }
        for (condition, value) in [
            ("a=C-8", json!("C-81")),
            ("a=\"7\"", json!(7)),
            ("a=\"true\"", json!(true)),
            ("a=07", json!(7)),
            ("a>=100", json!("200")),
            ("a>=x", json!(7)),
            ("a>100", json!(100)),
            ("a<1", json!(true)),
            ("a^=7", json!(7)),
            ("b=7", json!(7)),
            ("a=null", json!(null)),
        ] {
            assert!(!fits(condition, value.clone()), "{condition} {value}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_in_words() {
        let long = format!("a={}", "x".repeat(INDEX_TEXT_BYTES_MAX + 1));
        for (wrong, told) in [
            ("customer", "is not a condition"),
            ("", "is not a condition"),
            ("=7", "is not a name"),
            ("Größe=7", "is not a name"),
            ("a!=7", "is not a name"),
            ("a^7", "is not a condition"),
            ("a=\"7", "not a text in quotes"),
            ("a=>5", "`>5` begins as an operator does; quote it"),
            ("a==5", "`=5` begins as an operator does; quote it"),
            ("a^==b", "quote it to look for this text"),
            ("a>.5", "`.5` is not written as a number of JSON; quote it"),
            ("a<+5", "quote it"),
            ("a>=1e999", "quote it"),
            ("a<=07", "quote it"),
            (long.as_str(), "257 bytes"),
        ] {
            let error = IndexCondition::parse(wrong).unwrap_err();
            assert!(error.contains(told), "{wrong}: {error}");
        }
    }
}
