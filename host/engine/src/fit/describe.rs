//! Expressions, values and names in messages.

use super::kinds::Kinds;
use super::near::cut;
use super::shape::Shape;
use crate::definition::Expression;

/// The most bytes of an expression that a message quotes.
const SOURCE_BYTES_QUOTED: usize = 200;

/// Returns the beginning of an expression's text.
pub(super) fn source_of(expression: &Expression) -> &str {
    let source = expression.source();
    &source[..source.floor_char_boundary(SOURCE_BYTES_QUOTED)]
}

/// Says what a value is.
pub(super) fn kinds_of(shape: &Shape<'_>) -> String {
    let numbers_or = Kinds::NUMBER.or(Kinds::TEXT).or(Kinds::LIST).or(Kinds::OTHER);
    if shape.kinds == numbers_or {
        return "the result of a calculation".to_owned();
    }
    shape.kinds.to_string()
}

/// Lists names in backquotes: the first of them, and how many more there are.
pub(super) fn quoted(names: &[&str]) -> String {
    const NAMES_LISTED: usize = 40;
    let listed: Vec<_> =
        names.iter().take(NAMES_LISTED).map(|name| format!("`{}`", cut(name))).collect();
    let more = names.len().saturating_sub(NAMES_LISTED);
    let listed = listed.join(", ");
    if more > 0 { format!("{listed} and {more} more") } else { listed }
}

/// Joins words: `a`, `a and b`, `a, b and c`.
pub(super) fn and(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
