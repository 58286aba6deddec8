//! Which events are wanted: by the definition of their saga, and by their type.

use std::fmt;
use std::str::FromStr;

use amends_engine::is_steering;

use crate::event::NamedEvent;

/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 128;

/// A pattern of event types: a whole type such as `step.failed`, or the beginning of one and `*`, such as
/// `saga.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypePattern {
    /// The type, or its beginning.
    text: String,
    is_beginning: bool,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// There is a `*` before the end.
    #[error("`*` stands at the end only")]
    StarInside,
    /// No event type looks like this.
    #[error("an event type has small letters, digits, dots and underscores")]
    NoType,
    /// No event of another system has such a type.
    #[error("an event type has 1 to {PATTERN_BYTES_MAX} bytes, without blanks")]
    NoTypeOfOthers,
}

impl fmt::Display for TypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        f.write_str(if self.is_beginning { "*" } else { "" })
    }
}

impl FromStr for TypePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (text, is_beginning) = match text.strip_suffix('*') {
            Some(beginning) => (beginning, true),
            None => (text, false),
        };
        if text.contains('*') {
            return Err(PatternError::StarInside);
        }
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c);
        if !text.chars().all(is_plain)
            || text.len() > PATTERN_BYTES_MAX
            || text.is_empty() && !is_beginning
        {
            return Err(PatternError::NoType);
        }
        Ok(Self { text: text.to_owned(), is_beginning })
    }
}

impl TypePattern {
    /// Reads a pattern of the types of events from other systems, which may have any letters.
    ///
    /// # Errors
    /// When the text is empty, has blanks or control characters, has more than 128 bytes, or has a `*`
    /// before its end.
    pub fn of_others(text: &str) -> Result<Self, PatternError> {
        let (beginning, is_beginning) = match text.strip_suffix('*') {
            Some(beginning) => (beginning, true),
            None => (text, false),
        };
        if beginning.contains('*') {
            return Err(PatternError::StarInside);
        }
        let is_plain = beginning.chars().all(|c| !c.is_whitespace() && !is_steering(c));
        if !is_plain || text.is_empty() || beginning.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::NoTypeOfOthers);
        }
        Ok(Self { text: beginning.to_owned(), is_beginning })
    }

    /// Returns true when an event type matches.
    #[must_use]
    pub fn matches(&self, kind: &str) -> bool {
        if self.is_beginning { kind.starts_with(&self.text) } else { kind == self.text }
    }
}

/// Which events are wanted. The default is all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventFilter {
    /// The definitions of sagas. Empty: all, and also the events of no saga.
    pub definitions: Vec<String>,
    /// The patterns of types. Empty: all.
    pub types: Vec<TypePattern>,
}

impl EventFilter {
    /// Returns true when every event is wanted.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.definitions.is_empty() && self.types.is_empty()
    }

    /// Returns true when an event is wanted.
    #[must_use]
    pub fn wants(&self, event: &NamedEvent) -> bool {
        self.wants_type(&event.event.kind)
            && (self.definitions.is_empty()
                || event
                    .definition
                    .as_ref()
                    .is_some_and(|name| self.definitions.iter().any(|wanted| **wanted == **name)))
    }

    /// Returns true when an event of this type may be wanted.
    pub(crate) fn wants_type(&self, kind: &str) -> bool {
        self.types.is_empty() || self.types.iter().any(|pattern| pattern.matches(kind))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    #[test]
    fn a_pattern_is_a_type_or_its_beginning() {
        let matches = |pattern: &str, kind| pattern.parse::<TypePattern>().unwrap().matches(kind);
        assert!(matches("*", "order.made"));
        assert!(matches("saga.*", "saga.completed"));
        assert!(!matches("saga.*", "sagas.completed") && !matches("saga.*", "saga"));
        assert!(matches("step.failed", "step.failed"));
        assert!(!matches("step.failed", "step.failed_again") && !matches("step.f", "step.failed"));
        for (text, error) in [
            ("", PatternError::NoType),
            ("*.failed", PatternError::StarInside),
            ("saga.**", PatternError::StarInside),
            ("Saga.*", PatternError::NoType),
            ("saga .*", PatternError::NoType),
        ] {
            assert_eq!(text.parse::<TypePattern>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_pattern_of_others_takes_any_letters() {
        let matches = |pattern, kind| TypePattern::of_others(pattern).unwrap().matches(kind);
        assert!(matches("com.Shop/order-placed", "com.Shop/order-placed"));
        assert!(!matches("com.Shop/order-placed", "com.shop/order-placed"));
        assert!(matches("com.Shop/*", "com.Shop/order-placed") && matches("*", "x"));
        for (text, error) in [
            ("", PatternError::NoTypeOfOthers),
            ("a b", PatternError::NoTypeOfOthers),
            ("a\u{1b}", PatternError::NoTypeOfOthers),
            (&"a".repeat(129), PatternError::NoTypeOfOthers),
            ("*a", PatternError::StarInside),
        ] {
            assert_eq!(TypePattern::of_others(text), Err(error), "{text}");
        }
    }
}
