//! Which sagas a list has.

use amends_engine::{DefinitionName, SagaId, SagaStatus, Timestamp};

use crate::failure_query::{DigestPart, FailureQuery};
use crate::index_query::IndexCondition;
use crate::saga_row::SagaRow;

/// The conditions that a listed saga fulfils: all of those that are set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SagaQuery {
    /// The saga has one of these statuses; an empty list allows all.
    pub statuses: Vec<SagaStatus>,
    /// The saga runs this definition.
    pub definition: Option<DefinitionName>,
    /// The definition that the saga is pinned to has a digest with this beginning.
    pub definition_digest: Option<DigestPart>,
    /// The saga has each of these tags: name and value.
    pub tags: Vec<(String, String)>,
    /// The index values of the saga fulfil each of these conditions.
    pub index: Vec<IndexCondition>,
    /// The saga was started with this idempotency key.
    pub key: Option<String>,
    /// The saga started after this time.
    pub started_after: Option<Timestamp>,
    /// The saga started before this time.
    pub started_before: Option<Timestamp>,
    /// The saga has ended, after this time.
    pub ended_after: Option<Timestamp>,
    /// The saga has ended, before this time.
    pub ended_before: Option<Timestamp>,
    /// A failure of the saga fulfils these conditions.
    pub failure: FailureQuery,
    /// The id of the saga begins or ends with this part.
    pub id: Option<IdPart>,
    /// The id of the saga is smaller than this one: the cursor.
    pub before: Option<SagaId>,
    /// The largest number of sagas to return.
    pub limit: u32,
}

impl SagaQuery {
    /// Returns true when a saga fulfils all conditions on its row. Those on its failures, the cursor
    /// and the limit are none.
    #[must_use]
    pub fn fits(&self, row: &SagaRow) -> bool {
        let mut tags = self.tags.iter();
        let ended = |is: &dyn Fn(Timestamp) -> bool| row.ended_at.is_some_and(is);
        (self.statuses.is_empty() || self.statuses.contains(&row.status))
            && self.definition.as_ref().is_none_or(|name| *name == row.definition)
            && self.definition_digest.as_ref().is_none_or(|part| part.fits(row.definition_digest))
            && tags.all(|(name, value)| row.tags.get(name) == Some(value))
            && self.index.iter().all(|condition| condition.fits(&row.index))
            && self.key.as_ref().is_none_or(|key| row.key.as_ref() == Some(key))
            && self.started_after.is_none_or(|after| row.started_at > after)
            && self.started_before.is_none_or(|before| row.started_at < before)
            && self.ended_after.is_none_or(|after| ended(&|at| at > after))
            && self.ended_before.is_none_or(|before| ended(&|at| at < before))
            && self.id.as_ref().is_none_or(|part| part.fits(row.id))
    }
}

/// The beginning or the end of a saga's id, as people write it.
///
/// The first digits of an id are its time, the last eight are random. So the end distinguishes
/// sagas that started in the same moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdPart(String);

impl IdPart {
    /// The fewest hexadecimal digits: a shorter part would match many sagas.
    pub const DIGITS_MIN: usize = 8;

    /// Returns none when the text is not 8 to 32 hexadecimal digits. Hyphens are ignored.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let digits = text.replace('-', "").to_ascii_lowercase();
        let is_part = digits.bytes().all(|digit| digit.is_ascii_hexdigit())
            && (Self::DIGITS_MIN..=32).contains(&digits.len());
        is_part.then_some(Self(digits))
    }

    /// Returns true when the id begins or ends with this part.
    #[must_use]
    pub fn fits(&self, id: SagaId) -> bool {
        let digits = id.to_string().replace('-', "");
        digits.starts_with(&self.0) || digits.ends_with(&self.0)
    }

    /// Returns the smallest and the largest id that begin with this part, as bytes.
    pub(crate) fn range(&self) -> [Vec<u8>; 2] {
        ['0', 'f'].map(|fill| {
            let digits: String = self.0.chars().chain(std::iter::repeat(fill)).take(32).collect();
            let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap_or(0);
            (0..16).map(|byte| digit(byte * 2)).collect()
        })
    }

    /// Returns the digits in upper case, as the SQL function `hex` writes them.
    pub(crate) fn as_upper(&self) -> String {
        self.0.to_ascii_uppercase()
    }

    /// Returns the last bytes of any id that ends with this part: four, as many as
    /// [`Self::DIGITS_MIN`] digits are.
    pub(crate) fn last_bytes(&self) -> Vec<u8> {
        let last = &self.0[self.0.len() - Self::DIGITS_MIN..];
        let byte = |at: usize| u8::from_str_radix(&last[at..at + 2], 16).unwrap_or(0);
        (0..Self::DIGITS_MIN / 2).map(|number| byte(number * 2)).collect()
    }
}
