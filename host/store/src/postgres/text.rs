//! Values of columns, written and read: texts, streams and index values.

use std::borrow::Cow;

use amends_engine::{IndexValue, SubjectKeyId};
use uuid::Uuid;

use super::error::Failure;
use crate::index_query::{IndexTest, Side};
use crate::stream::Stream;

/// PostgreSQL takes no NUL in a text. So a NUL is written as this noncharacter of Unicode and `0`, and the
/// noncharacter itself as it and `1`.
const MARK: char = '\u{fdd0}';

/// Returns a text as it is stored. Equal texts, and only those, are stored equal, and the beginning of
/// a text is stored as the beginning of what the text is stored as.
pub(super) fn stored_text(text: &str) -> String {
    if !text.contains(['\0', MARK]) {
        return text.to_owned();
    }
    text.replace(MARK, "\u{fdd0}1").replace('\0', "\u{fdd0}0")
}

/// Returns the text that was stored.
pub(super) fn read_text(stored: String) -> String {
    if !stored.contains(MARK) {
        return stored;
    }
    stored.replace("\u{fdd0}0", "\0").replace("\u{fdd0}1", "\u{fdd0}")
}

/// Returns the text with no character that `LIKE` takes for more than itself.
pub(super) fn like_text(text: &str) -> Cow<'_, str> {
    if !text.contains(['\\', '%', '_']) {
        return text.into();
    }
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_").into()
}

/// Returns the id of a subject's key as the database has it.
pub(super) fn uuid_of_key(key: SubjectKeyId) -> Uuid {
    Uuid::from_bytes(*key.as_bytes())
}

const SAGA_PREFIX: &str = "saga/";
const PLUGIN_PREFIX: &str = "plugin/";
const SERVICE_PREFIX: &str = "service/";
const DEPLOYS: &str = "deploys";
const ERASURES: &str = "erasures";
const TOKENS: &str = "tokens";
const AUDIT: &str = "audit";

/// Returns a stream as text.
pub(super) fn stream_text(stream: &Stream) -> String {
    match stream {
        Stream::Saga(id) => format!("{SAGA_PREFIX}{id}"),
        Stream::Plugin(name) => format!("{PLUGIN_PREFIX}{name}"),
        Stream::Service(name) => format!("{SERVICE_PREFIX}{name}"),
        Stream::Deploys => DEPLOYS.to_owned(),
        Stream::Erasures => ERASURES.to_owned(),
        Stream::Tokens => TOKENS.to_owned(),
        Stream::Audit => AUDIT.to_owned(),
    }
}

/// Reads what [`stream_text`] wrote.
pub(super) fn read_stream(text: &str) -> Result<Stream, Failure> {
    let wrong = || Failure::Unreadable(format!("`{text}` is not a stream"));
    if text == DEPLOYS {
        return Ok(Stream::Deploys);
    }
    if text == ERASURES {
        return Ok(Stream::Erasures);
    }
    if text == TOKENS {
        return Ok(Stream::Tokens);
    }
    if text == AUDIT {
        return Ok(Stream::Audit);
    }
    if let Some(id) = text.strip_prefix(SAGA_PREFIX) {
        return id.parse().map(Stream::Saga).map_err(|_| wrong());
    }
    if let Some(name) = text.strip_prefix(PLUGIN_PREFIX) {
        return name.parse().map(Stream::Plugin).map_err(|_| wrong());
    }
    let name = text.strip_prefix(SERVICE_PREFIX).ok_or_else(wrong)?;
    name.parse().map(Stream::Service).map_err(|_| wrong())
}

/// Returns the id of a saga as the database has it.
pub(super) fn uuid_of(id: amends_engine::SagaId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

/// Reads the id of a saga.
pub(super) fn saga_of(id: Uuid) -> amends_engine::SagaId {
    amends_engine::SagaId::from_bytes(id.into_bytes())
}

/// The first bytes of stored index values. Kinds are kept apart, and sort in this order.
const NUMBER: u8 = 1;
const TEXT: u8 = 2;
const BOOL: u8 = 3;

/// The middle of the third part of a number.
const EXACT: i16 = i16::MIN;

/// Returns an index value as bytes, which sort as the values of its kind do. A number is the double
/// nearest to it, whose bits are arranged so that they sort, and how far the number is from the double: a whole number
/// of 64 bits may lie between two doubles.
pub(super) fn index_key(value: &IndexValue) -> Vec<u8> {
    match value {
        IndexValue::Bool(value) => vec![BOOL, u8::from(*value)],
        IndexValue::Text(text) => [&[TEXT], text.as_bytes()].concat(),
        IndexValue::Number(number) => {
            let whole = number.as_i64();
            #[expect(clippy::cast_precision_loss, reason = "what is lost follows in the key")]
            let nearest =
                whole.map_or_else(|| number.as_f64().unwrap_or_default(), |whole| whole as f64);
            // There is one zero.
            let nearest = if nearest == 0.0 { 0.0 } else { nearest };
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a double near a number of 64 bits"
            )]
            let off = whole.map_or(0, |whole| i128::from(whole) - nearest as i128);
            let off = i16::try_from(off).unwrap_or_default();
            let bits = nearest.to_bits();
            let sorted = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
            let off = (off ^ EXACT).cast_unsigned();
            [&[NUMBER][..], &sorted.to_be_bytes(), &off.to_be_bytes()].concat()
        }
    }
}

/// Returns what [`index_key`] wrote, for people.
pub(super) fn index_text(key: &[u8]) -> String {
    match key {
        [BOOL, value] => (*value == 1).to_string(),
        [TEXT, text @ ..] => String::from_utf8_lossy(text).into_owned(),
        [NUMBER, number @ ..] if number.len() == 10 => {
            let (sorted, off) = number.split_at(8);
            let sorted = u64::from_be_bytes(sorted.try_into().unwrap_or_default());
            let bits = if sorted >> 63 == 1 { sorted & !(1 << 63) } else { !sorted };
            let off = u16::from_be_bytes(off.try_into().unwrap_or_default()).cast_signed() ^ EXACT;
            let nearest = f64::from_bits(bits);
            #[expect(clippy::cast_precision_loss, reason = "a limit")]
            let is_whole = nearest.fract() == 0.0 && nearest.abs() <= i64::MAX as f64;
            #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
            if is_whole {
                (nearest as i128 + i128::from(off)).to_string()
            } else {
                nearest.to_string()
            }
        }
        other => format!("{other:02x?}"),
    }
}

/// A range of stored index values: from the first, which may be excluded, to the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyRange {
    AnyOf(Vec<Vec<u8>>),
    /// `first < value < last`, or with `=` where the flag is set.
    Between {
        first: (Vec<u8>, bool),
        last: (Vec<u8>, bool),
    },
}

/// Returns the stored values that fulfil a test.
pub(super) fn key_range(test: &IndexTest) -> KeyRange {
    match test {
        IndexTest::Equals(any) => KeyRange::AnyOf(any.iter().map(index_key).collect()),
        IndexTest::Compares(side, limit) => {
            let key = index_key(limit);
            let kind = key[0];
            let (begin, end) = ((vec![kind], true), (vec![kind + 1], false));
            match side {
                Side::Below => KeyRange::Between { first: begin, last: (key, false) },
                Side::UpTo => KeyRange::Between { first: begin, last: (key, true) },
                Side::From => KeyRange::Between { first: (key, true), last: end },
                Side::Above => KeyRange::Between { first: (key, false), last: end },
            }
        }
        IndexTest::BeginsWith(beginning) => {
            let first = [&[TEXT], beginning.as_bytes()].concat();
            // No byte of UTF-8 is 0xff, so no text that begins so is greater.
            let last = [&first[..], &[0xff]].concat();
            KeyRange::Between { first: (first, true), last: (last, false) }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_comes_back_and_keeps_its_beginnings() {
        for text in ["", "plain", "a\0b", "\u{fdd0}", "\u{fdd0}0", "\0\u{fdd0}1\0"] {
            assert!(!stored_text(text).contains('\0'));
            assert_eq!(read_text(stored_text(text)), text);
            for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
                assert!(stored_text(text).starts_with(&stored_text(&text[..end])), "{text:?}");
            }
        }
    }

    #[test]
    fn keys_of_numbers_sort_as_the_numbers_do() {
        let numbers = [
            json!(-1e300),
            json!(i64::MIN),
            json!(i64::MIN + 1),
            json!(-9_007_199_254_740_993_i64),
            json!(-9_007_199_254_740_992_i64),
            json!(-1),
            json!(-0.5),
            json!(0),
            json!(1e-300),
            json!(1),
            json!(1.5),
            json!(9_007_199_254_740_992_i64),
            json!(9_007_199_254_740_993_i64),
            json!(9_007_199_254_740_994_i64),
            json!(i64::MAX - 1),
            json!(i64::MAX),
            json!(1e19),
            json!(1e300),
        ];
        let values: Vec<_> = numbers.into_iter().map(|one| IndexValue::of(one).unwrap()).collect();
        for (at, one) in values.iter().enumerate() {
            for (other_at, other) in values.iter().enumerate() {
                assert_eq!(
                    index_key(one).cmp(&index_key(other)),
                    at.cmp(&other_at),
                    "{one} {other}"
                );
            }
        }
        let same = [json!(21), json!(21.0)].map(|one| index_key(&IndexValue::of(one).unwrap()));
        assert_eq!(same[0], same[1]);
        let shown = [json!(7), json!(-7), json!(0.25), json!("x"), json!(true), json!(i64::MAX)];
        let shown = shown.map(|one| index_text(&index_key(&IndexValue::of(one).unwrap())));
        assert_eq!(shown, ["7", "-7", "0.25", "x", "true", "9223372036854775807"]);
    }

    #[test]
    fn streams_are_read_as_they_were_written() {
        let id = amends_engine::SagaId::from_bytes([7; 16]);
        let streams = [
            Stream::Saga(id),
            Stream::Plugin("deploys".parse().unwrap()),
            Stream::Plugin("tokens".parse().unwrap()),
            Stream::Plugin("audit".parse().unwrap()),
            Stream::Service("a".parse().unwrap()),
            Stream::Deploys,
            Stream::Erasures,
            Stream::Tokens,
            Stream::Audit,
        ];
        for stream in streams {
            assert_eq!(read_stream(&stream_text(&stream)).unwrap(), stream);
        }
        assert!(read_stream("plugin/").is_err() && read_stream("x").is_err());
    }
}
