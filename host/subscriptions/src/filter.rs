//! Which events are wanted: by the definition of their saga, and by their type.

use std::str::FromStr;

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
}
