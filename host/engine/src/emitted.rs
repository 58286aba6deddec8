//! Domain events: facts that plugins emit into the stream of their saga.

use std::fmt;
use std::str::FromStr;

use crate::payload::Payload;

/// The longest type of a domain event, in bytes: it appears in tables and filters.
pub(crate) const EVENT_TYPE_BYTES_MAX: usize = 100;

/// The first words that are reserved for types of this host, now or later.
const RESERVED: [&str; 12] = [
    "amends",
    "breaker",
    "compensation",
    "host",
    "operator",
    "plugin",
    "saga",
    "service",
    "signal",
    "state",
    "step",
    "undo",
];

/// The type that this host uses for events that it cannot read. Plugins may use other types with
/// the same first word.
const UNREADABLE: &str = "event.unreadable";

/// The type of a domain event, such as `order.prescription_created`. It is two or more words of
/// small letters, digits and `_`, joined by dots. The first word is not a reserved one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(String);

/// The reason why a text is not the type of a domain event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventTypeError {
    /// The text is not two or more words.
    #[error(
        "`{0}` is not an event type: write two or more words of small letters, digits and `_`, \
         joined by dots, such as `order.prescription_created`, at most {EVENT_TYPE_BYTES_MAX} bytes"
    )]
    Form(String),
    /// The type would look like one of this host.
    #[error(
        "the event type `{0}` is this host's own, or begins with a word of this host's own \
         ({words}): write another first word",
        words = RESERVED.join(", ")
    )]
    Reserved(String),
}

impl EventType {
    /// Returns the type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EventType {
    type Err = EventTypeError;

    fn from_str(text: &str) -> Result<Self, EventTypeError> {
        Self::check(text).map(|()| Self(text.to_owned()))
    }
}

impl EventType {
    /// Checks that a text is the type of a domain event.
    ///
    /// # Errors
    /// The reason why it is not.
    pub(crate) fn check(text: &str) -> Result<(), EventTypeError> {
        let letter = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        let is_word = |word: &str| {
            word.starts_with(|first: char| first.is_ascii_lowercase()) && word.bytes().all(letter)
        };
        let words = text.split('.').count();
        if words < 2 || text.len() > EVENT_TYPE_BYTES_MAX || !text.split('.').all(is_word) {
            let shown = text.chars().take(EVENT_TYPE_BYTES_MAX).collect();
            return Err(EventTypeError::Form(shown));
        }
        let is_reserved = text.split('.').next().is_some_and(|first| RESERVED.contains(&first));
        if is_reserved || text == UNREADABLE {
            return Err(EventTypeError::Reserved(text.to_owned()));
        }
        Ok(())
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One domain event. It follows the event of the call that emitted it, in the same append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    /// The type of the event.
    pub kind: EventType,
    /// The data of the event, as the plugin gave it.
    pub data: Payload,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_words_of_the_plugins_own() {
        for text in ["order.prescription_created", "a.b", "order.v2.done"] {
            assert!(text.parse::<EventType>().is_ok(), "{text}");
        }
        let long = format!("order.{}", "x".repeat(EVENT_TYPE_BYTES_MAX));
        for text in ["", "order", "Order.made", "order.", ".made", "order made", "a.2", &long] {
            assert!(matches!(text.parse::<EventType>(), Err(EventTypeError::Form(_))), "{text}");
        }
        for text in [
            "saga.completed",
            "step.succeeded",
            "operator.paused",
            "plugin.activated",
            "event.unreadable",
        ] {
            let error = text.parse::<EventType>();
            assert!(matches!(error, Err(EventTypeError::Reserved(_))), "{text}");
        }
        assert!("event.planned".parse::<EventType>().is_ok(), "as it ever was");
    }
}
