//! How answers look.

use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal as _, Write as _};

use comfy_table::{Cell, Color};
use serde::Serialize;

use amends_engine::{escape, is_steering};

use crate::commands::exit::PipeClosed;

mod counts;
pub(crate) mod format;
mod progress;
mod saga;
mod table;
mod time;

pub(crate) use counts::print_counts;
pub(crate) use progress::Progress;
pub(crate) use saga::{
    EVENT_COLUMNS, event_line, event_row, print_saga, print_saga_line, print_sagas,
};
pub(crate) use table::{Look, print_table, print_table_as, set_wide, table};
pub(crate) use time::{from_now, span, took};

/// Of many that were refused, so many are printed one by one.
pub(crate) const REFUSED_SHOWN: usize = 10;

/// `println!` that answers [`PipeClosed`] when nobody reads any more, where the macro panics. What
/// would steer a terminal is escaped, but for line breaks: others' texts go through
/// [`on_one_line`] first, or stand in a table.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::commands::output::write(
            $crate::commands::output::shown(&format!("{}\n", format_args!($($text)*))).as_bytes(),
        )
    };
}
pub(crate) use say;

/// `eprintln!` with what would steer a terminal escaped, as by [`say!`].
macro_rules! complain {
    ($($text:tt)*) => {
        eprintln!("{}", $crate::commands::output::shown(&format!($($text)*)))
    };
}
pub(crate) use complain;

/// The text as it may stand on a terminal: lines, colours of ours, and nothing else that steers it.
/// JSON stays the same JSON.
#[must_use]
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    escape_all_but(text, true, use_colour())
}

/// A line of the log, with its line break: what is in it can begin no other line.
pub(crate) fn log_line(line: &str, has_colour: bool) -> String {
    let line = line.strip_suffix('\n').unwrap_or(line);
    format!("{}\n", escape_all_but(line, false, has_colour))
}

fn escape_all_but(text: &str, line_breaks: bool, colours: bool) -> Cow<'_, str> {
    let is_escaped = |character| is_steering(character) && !(line_breaks && character == '\n');
    if !colours || !text.contains('\x1b') {
        return escape(text, is_escaped);
    }
    let mut parts = text.split('\x1b');
    let mut shown = escape(parts.next().unwrap_or_default(), is_escaped).into_owned();
    for part in parts {
        shown += if is_colour(part) { "\x1b" } else { "\\u001b" };
        shown += &escape(part, is_escaped);
    }
    Cow::Owned(shown)
}

/// Whether an escape sequence goes on like one that sets a colour, or how bold it is, as [`paint`]
/// and the log do.
fn is_colour(after_escape: &str) -> bool {
    let code = after_escape.strip_prefix('[').and_then(|rest| rest.split_once('m'));
    let code = code.and_then(|(code, _)| code.parse::<u8>().ok());
    matches!(code, Some(0..=3 | 31..=36))
}

/// Writes to standard output.
///
/// # Errors
/// [`PipeClosed`] when nobody reads it any more, else what is wrong with it.
pub(crate) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| {
        if error.kind() == ErrorKind::BrokenPipe {
            return PipeClosed.into();
        }
        anyhow::Error::new(error).context("the output cannot be written")
    })
}

/// Whether to use colour: on a terminal that has some, unless `NO_COLOR` is set (no-color.org).
pub(crate) fn use_colour() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A status in its colour.
pub(crate) fn status_cell(status: &str) -> Cell {
    let cell = Cell::new(status);
    if !use_colour() {
        return cell;
    }
    match status {
        // The dark ones of each colour: the bright ones cannot be read on white.
        "completed" | "succeeded" => cell.fg(Color::DarkGreen),
        "compensated" | "undone" | "skipped" => cell.fg(Color::DarkYellow),
        "blocked" | "undo_blocked" | "failed" | "unknown" => cell.fg(Color::DarkRed),
        _ => cell,
    }
}

/// Writes a number with what is counted: `1 saga`, `2 sagas`.
pub(crate) fn counted<N: Copy + PartialEq + From<u8> + std::fmt::Display>(
    number: N,
    what: &str,
) -> String {
    if number == N::from(1) { format!("1 {what}") } else { format!("{number} {what}s") }
}

pub(crate) fn print_json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string_pretty(value)?)
}

pub(crate) fn print_json_line<T: Serialize>(value: &T) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string(value)?)
}

/// A status for a line of text.
pub(crate) fn paint(status: &str) -> String {
    let code = match status {
        "completed" => "32",
        "compensated" => "33",
        "blocked" => "31",
        _ => return status.to_owned(),
    };
    if use_colour() { format!("\x1b[{code}m{status}\x1b[0m") } else { status.to_owned() }
}

/// The beginning of a digest, enough to tell it from others: its algorithm and 12 digits.
pub(crate) fn short_digest(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use amends_engine::is_steering;

    use super::{escape_all_but, log_line};

    #[test]
    fn only_line_breaks_and_colours_of_ours_are_left() {
        let text = "a\x1b[31mred\x1b[0m\x1b[8mhidden\x1b]52;c;x\x07\r\nb\u{7f}";
        let plain = r"a\u001b[31mred\u001b[0m\u001b[8mhidden\u001b]52;c;x\u0007\r";
        assert_eq!(escape_all_but(text, true, false), format!("{plain}\nb\\u007f"));
        let coloured = "a\x1b[31mred\x1b[0m\\u001b[8mhidden\\u001b]52;c;x\\u0007\\r";
        assert_eq!(escape_all_but(text, true, true), format!("{coloured}\nb\\u007f"));
        assert_eq!(log_line("one\r\ntwo\n", true), "one\\r\\ntwo\n");
        let json = serde_json::json!({"a": "\u{1b}[2J\u{7f}\u{9b}\u{202e}\n"});
        let text = serde_json::to_string_pretty(&json).unwrap();
        let shown = escape_all_but(&text, true, false);
        assert!(!shown.contains(|c| c != '\n' && is_steering(c)), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), json);
    }
}
