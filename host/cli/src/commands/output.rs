//! How answers look.

use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal as _, Write as _};

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, Row, Table, Width, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use amends_api::{EventView, SagaItem, SagaView};
use amends_engine::{EventType, escape, is_steering, on_one_line};

use crate::commands::Format;
use crate::commands::exit::PipeClosed;

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
pub fn shown(text: &str) -> Cow<'_, str> {
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

/// Whether to use colour: on a terminal, unless `NO_COLOR` is set (no-color.org).
pub(crate) fn use_colour() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A table with these columns.
pub(crate) fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let bold = |name: &&str| {
        let cell = Cell::new(name.to_uppercase());
        if use_colour() { cell.add_attribute(Attribute::Bold) } else { cell }
    };
    table.set_header(columns.iter().map(bold));
    table
}

/// A table without trailing blanks. On a terminal its last column, which is for text, is cut off
/// at the edge.
pub(crate) fn print_table(table: &Table) -> anyhow::Result<()> {
    let text = arrange(table, table.width());
    // Its cells are escaped; what is left to steer the terminal is their colour.
    text.lines().try_for_each(|line| write(format!("{}\n", line.trim_end()).as_bytes()))
}

/// Every row in one line: an id that is broken in two cannot be copied. The columns but the last
/// keep their width. Without a width (not a terminal, or one that does not say), or with one of 0
/// (as a new pseudo terminal says), nothing is cut off.
fn arrange(table: &Table, width: Option<u16>) -> String {
    /// Of the blanks beside the content of a cell.
    const PADDING: u16 = 2;
    /// The last column has at least this: less says nothing.
    const CHARS_MIN: u16 = 16;
    let mut table = table.clone();
    for row in table.row_iter_mut() {
        escape_cells(row);
    }
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 1));
    }
    let widths = table.column_max_content_widths();
    if let (Some(width @ 1..), [others @ .., last]) = (width, widths.as_slice()) {
        let taken = others.iter().fold(0_u16, |sum, other| sum.saturating_add(other + PADDING));
        let left = width.saturating_sub(taken).max(CHARS_MIN);
        if *last > left
            && let Some(column) = table.column_mut(others.len())
        {
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(left + PADDING)));
        }
        table.set_truncation_indicator("…");
        for row in table.row_iter_mut() {
            row.max_height(1);
        }
    }
    table.to_string()
}

/// A line break in a cell would begin a row.
fn escape_cells(row: &mut Row) {
    let is_plain = |cell: &Cell| !cell.content().contains(is_steering);
    if row.cell_iter().all(is_plain) {
        return;
    }
    // A status that has to be escaped is none, and needs no colour.
    let escaped = row.cell_iter().map(|cell| {
        if is_plain(cell) { cell.clone() } else { Cell::new(on_one_line(&cell.content())) }
    });
    *row = Row::from(escaped.collect::<Vec<_>>());
}

/// A status in its colour.
pub(crate) fn status_cell(status: &str) -> Cell {
    let cell = Cell::new(status);
    if !use_colour() {
        return cell;
    }
    match status {
        "completed" | "succeeded" => cell.fg(Color::Green),
        "compensated" | "undone" | "skipped" => cell.fg(Color::Yellow),
        "blocked" | "undo_blocked" | "failed" | "unknown" => cell.fg(Color::Red),
        _ => cell,
    }
}

pub(crate) fn print_json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string_pretty(value)?)
}

pub(crate) fn print_json_line<T: Serialize>(value: &T) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string(value)?)
}

/// One saga.
pub(crate) fn print_saga(saga: &SagaView, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => return print_json(saga),
        Format::Jsonl => return print_json_line(saga),
        Format::Ids => return say!("{}", saga.id),
        Format::Table => {}
    }
    say!("{}  {}  {}", saga.id, saga.definition, paint(&saga.status))?;
    if let Some(reason) = &saga.reason {
        say!("reason   {}", on_one_line(reason))?;
    }
    say!("started  {}", saga.started_at)?;
    if let Some(ended_at) = saga.ended_at {
        say!("ended    {ended_at}  ({:?})", ended_at.since(saga.started_at))?;
    }
    if let Some(output) = &saga.output {
        say!("output   {}", output.as_str())?;
    }
    say!("")?;
    let mut steps = table(&["step", "status", "attempts", "detail"]);
    for step in &saga.steps {
        let error = step.error.as_ref().map(|error| format!("{}: {}", error.code, error.message));
        let output = step.output.as_ref().map(|output| output.as_str().to_owned());
        let omitted = step.omitted.as_ref().map(|omitted| {
            format!("{} bytes, which `amends history {}` has", omitted.bytes, saga.id)
        });
        let mut detail = error.or(output).or(omitted).unwrap_or_default();
        if let Some(next_at) = step.next_at {
            detail = format!("{detail} (next attempt {next_at})");
        }
        steps.add_row(vec![
            Cell::new(&step.name),
            status_cell(&step.status),
            Cell::new(step.attempts),
            Cell::new(short(&detail)),
        ]);
    }
    print_table(&steps)
}

/// A list of sagas.
pub(crate) fn print_sagas(items: &[SagaItem], format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => return print_json(&items),
        Format::Jsonl => return items.iter().try_for_each(print_json_line),
        Format::Ids => return items.iter().try_for_each(|item| say!("{}", item.id)),
        Format::Table => {}
    }
    let mut rows = table(&["id", "definition", "status", "started", "reason"]);
    for item in items {
        rows.add_row(vec![
            Cell::new(&item.id),
            Cell::new(&item.definition),
            status_cell(&item.status),
            Cell::new(item.started_at),
            Cell::new(short(item.reason.as_deref().unwrap_or_default())),
        ]);
    }
    print_table(&rows)
}

/// One line of a history.
pub(crate) fn event_row(event: &EventView) -> Vec<Cell> {
    let data: Value = serde_json::from_str(event.data.get()).unwrap_or_default();
    let step = data["step"].as_str().unwrap_or_default().to_owned();
    vec![
        Cell::new(event.version),
        Cell::new(event.at),
        Cell::new(&event.kind),
        Cell::new(step),
        Cell::new(short(&detail(&event.kind, &data))),
    ]
}

/// The columns of [`event_row`].
pub(crate) const EVENT_COLUMNS: [&str; 5] = ["#", "at", "event", "step", "detail"];

/// What a person wants to know of an event.
pub(crate) fn detail(kind: &str, data: &Value) -> String {
    let text = |field: &str| data[field].as_str().unwrap_or_default().to_owned();
    let attempt = || format!("attempt {}", data["attempt"]);
    let error = || {
        let error = &data["error"];
        let words = |field: &str| error[field].as_str().unwrap_or_default();
        format!("{}: {}", words("code"), words("message"))
    };
    let retry =
        || data["retry_at"].as_str().map_or_else(String::new, |at| format!(", again at {at}"));
    match kind {
        "saga.started" => data["input"].to_string(),
        "step.started" | "undo.started" => {
            let digest = text("digest");
            let short = short_digest(&digest);
            let note = data["note"].as_str().map_or_else(String::new, |note| format!(", {note}"));
            format!("{}, {short}{note}", attempt())
        }
        "step.succeeded" => data["output"].to_string(),
        "step.failed" | "step.unknown" | "undo.failed" | "undo.blocked" => {
            format!("{}, {}{}", attempt(), error(), retry())
        }
        "undo.succeeded" if data["nothing"] == Value::Bool(true) => "nothing to undo".to_owned(),
        "undo.succeeded" if data["receipt"].is_null() => String::new(),
        "undo.succeeded" => data["receipt"].to_string(),
        "step.waiting" => {
            let signal = data["signal"].as_str().map(|name| format!("for the signal {name}"));
            let until = data["until"].as_str().map(|until| format!("until {until}"));
            signal.into_iter().chain(until).collect::<Vec<_>>().join(", ")
        }
        "saga.retimed" => format!("the clock was {} ms ahead", data["ahead_ms"]),
        "signal.received" => {
            let id = data["id"].as_str().map_or_else(String::new, |id| format!(" ({id})"));
            format!("{}{id}: {}", text("name"), data["payload"])
        }
        _ if kind.starts_with("operator.") => {
            let evidence = data["evidence"].as_str();
            let evidence = evidence.map_or_else(String::new, |known| format!("; known by {known}"));
            format!("{}: {}{evidence}", text("who"), text("reason"))
        }
        // What a plugin tells, in words of its own.
        _ if kind.parse::<EventType>().is_ok() => data.to_string(),
        _ => text("reason"),
    }
}

/// Of so many sagas; on a terminal only.
pub(crate) fn progress(sagas: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} sagas, {per_sec}, {eta} left");
    ProgressBar::new(sagas).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
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

/// Long texts make tables unreadable; `-o json` has all of it.
pub(crate) fn short(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    if text.chars().count() <= CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(CHARS_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use amends_engine::is_steering;

    use super::{arrange, escape_all_but, log_line, table};

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

    #[test]
    fn a_cell_cannot_steer_the_terminal_or_begin_a_row() {
        let mut rows = table(&["step", "detail"]);
        rows.add_row(vec![
            "pay",
            "no\x1b[2J\x1b]0;title\x07\r\nship  step.succeeded\u{202e}\u{9b}1m",
        ]);
        for width in [None, Some(200)] {
            let text = arrange(&rows, width);
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(!text.contains(|c| c != '\n' && is_steering(c)), "{text:?}");
            assert!(text.contains(r"no\u001b[2J\u001b]0;title\u0007\r\nship  step"), "{text}");
        }
    }

    #[test]
    fn only_the_last_column_is_cut_off() {
        let id = "0198c0de-0000-7000-8000-000000000001";
        let mut rows = table(&["id", "status", "reason"]);
        rows.add_row(vec![id, "blocked", &"the carrier does not know the label ".repeat(5)]);
        let told = |width| arrange(&rows, width).lines().last().unwrap_or_default().to_owned();
        assert!(told(None).trim_end().ends_with("know the label"), "{}", told(None));
        assert_eq!(told(Some(0)), told(None));
        let others = 36 + 2 + 7 + 2;
        for (width, chars_max) in [(80, 80), (200, 200), (40, others + 16)] {
            let line = told(Some(width));
            let line = line.trim();
            assert!(line.starts_with(id) && line.contains("  blocked  the carrier "), "{line}");
            // Cut off between words.
            let chars = line.chars().count();
            assert!(line.ends_with('…') && chars <= chars_max, "{width}: {line}");
            assert!(chars + 10 > chars_max, "{width}: {line}");
            assert_eq!(arrange(&rows, Some(width)).lines().count(), 2, "{width}");
        }
    }
}
