//! Texts of others, where a person reads them.
//!
//! Plugins and callers choose codes, messages, reasons and payloads. A terminal acts on some of
//! their characters instead of showing them: an escape sequence clears the screen or sets its
//! title, a line break forges a row of a table, a bidirectional control turns the order of what
//! follows. Such a character is kept as it is where programs read it, escaped where people do, and
//! refused in texts that have no need of it.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a terminal acts on the character instead of showing it: C0 and C1 controls, delete, line
/// and paragraph separators, and what changes the direction of writing (Unicode Standard Annex 9).
#[must_use]
pub fn is_steering(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061c}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{2029}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// The text on one line with nothing in it that steers a terminal: `\n`, `\r`, `\t`, and else
/// `\u001b`, as JSON writes them.
#[must_use]
pub fn on_one_line(text: &str) -> Cow<'_, str> {
    escape(text, is_steering)
}

/// The text with those characters escaped; they are all below `U+10000`.
#[must_use]
pub fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            _ if !is_escaped(character) => escaped.push(character),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            // Writing to a `String` does not fail.
            _ => drop(write!(escaped, "\\u{:04x}", u32::from(character))),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::{is_steering, on_one_line};

    #[test]
    fn what_steers_a_terminal_is_escaped_and_nothing_else() {
        let hostile =
            "a\x1b[2J\x1b]0;title\x07\r\n\t\u{7f}\u{9b}1m\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}z";
        let escaped = on_one_line(hostile);
        assert_eq!(
            escaped,
            "a\\u001b[2J\\u001b]0;title\\u0007\\r\\n\\t\\u007f\\u009b1m\\u202e\\u2066\\u200f\\u061c\\u2028z"
        );
        assert!(!escaped.contains(is_steering));
        let plain = "Größe: 3 m², ‘ok’ → 東京 👩‍🚀 שלום";
        assert!(matches!(on_one_line(plain), std::borrow::Cow::Borrowed(same) if same == plain));
    }
}
