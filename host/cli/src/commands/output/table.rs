//! Tables: on a terminal they fit it, row by row; elsewhere nothing is cut off.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use comfy_table::{Attribute, Cell, ColumnConstraint, Row, Table, Width, presets};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use amends_engine::{Timestamp, is_steering, on_one_line};

use super::{use_colour, write};
use crate::commands::output::time;

/// Of the blanks between two columns.
const GAP: u16 = 2;

/// The last column is for text, and has at least two fifths of the width where it needs them: less
/// says nothing.
const LAST_SHARE: (u16, u16) = (2, 5);
const LAST_CHARS_MIN: u16 = 16;

/// Other columns are made narrower to these widths, the widest first; to the second only where the last
/// one would have less than its least.
const NARROW_CHARS: [u16; 2] = [12, 6];

/// Whether nothing is cut off or told in brief, also on a terminal: what the command line says.
static IS_WIDE: AtomicBool = AtomicBool::new(false);

/// Has nothing cut off in this process.
pub(crate) fn set_wide(is_wide: bool) {
    IS_WIDE.store(is_wide, Ordering::Relaxed);
}

/// For whom a table is: a person at a terminal, who wants to see at once what is new and wrong, or a
/// program or a person who asked for all of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// Of the terminal; none: nothing is cut off or told in brief.
    width: Option<u16>,
    now: Timestamp,
}

impl Look {
    /// For standard output. A terminal that says no width, or 0 as a new pseudo terminal does, is taken
    /// for none.
    pub(crate) fn new() -> Self {
        let is_wide = IS_WIDE.load(Ordering::Relaxed);
        let width = Table::new().width().filter(|width| *width > 0 && !is_wide);
        Self { width, now: amends_runtime::now() }
    }

    /// Whether times, ids and digests are told in brief.
    pub(crate) const fn is_brief(self) -> bool {
        self.width.is_some()
    }

    pub(crate) const fn now(self) -> Timestamp {
        self.now
    }

    /// What another program or person said, with its times and ids in brief.
    pub(crate) fn text(self, text: &str) -> Cow<'_, str> {
        if self.is_brief() { time::in_brief(text, self.now).into() } else { text.into() }
    }

    /// Whether a row may have so many characters.
    pub(crate) fn has_room(self, chars: u16) -> bool {
        self.width.is_none_or(|width| width >= chars)
    }

    /// A time, or how long ago it was: `3m 5s ago`.
    pub(crate) fn time(self, at: Timestamp) -> String {
        if self.is_brief() { time::from_now(at, self.now) } else { at.to_string() }
    }

    /// As [`Self::time`], in a column: `3m ago`.
    pub(crate) fn short_time(self, at: Timestamp) -> String {
        if self.is_brief() && at <= self.now {
            return format!("{} ago", time::age(at, self.now));
        }
        self.time(at)
    }

    /// A digest; in brief, enough of it to be known by.
    pub(crate) fn digest(self, digest: &str) -> &str {
        if self.is_brief() {
            return digest.get("sha256:".len()..19).unwrap_or(digest);
        }
        super::short_digest(digest)
    }

    /// The ids of a table; in brief, the ends by which they are known.
    pub(crate) fn ids<'id>(self, ids: &[&'id str]) -> Vec<&'id str> {
        if self.is_brief() { time::tails(ids) } else { ids.to_vec() }
    }

    /// A text in lines that fit the terminal, broken between words: a longer word has a line of its own.
    pub(crate) fn paragraph(self, text: &str) -> Cow<'_, str> {
        let Some(width) = self.width else { return text.into() };
        let (mut lines, mut taken) = (String::with_capacity(text.len()), 0);
        for word in text.split(' ') {
            if taken > 0 && taken + 1 + word.width() > usize::from(width) {
                lines.push('\n');
                taken = 0;
            } else if taken > 0 {
                lines.push(' ');
                taken += 1;
            }
            lines.push_str(word);
            taken += word.width();
        }
        lines.into()
    }

    /// A line of text, cut off at the edge of the terminal.
    pub(crate) fn line(self, text: &str) -> String {
        let text = on_one_line(text);
        match self.width {
            Some(width) => cut(&text, usize::from(width)).unwrap_or_else(|| text.into_owned()),
            None => text.into_owned(),
        }
    }
}

/// What of a text that is wider than so many columns of a terminal fits there; none when all of it does.
fn cut(text: &str, room: usize) -> Option<String> {
    if text.width() <= room {
        return None;
    }
    let mut taken = 0;
    let fits = |letter: &char| {
        taken += letter.width().unwrap_or_default();
        taken < room
    };
    Some(text.chars().take_while(fits).chain(['…']).collect())
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

/// A table without trailing blanks, as wide as the terminal.
pub(crate) fn print_table(table: &Table) -> anyhow::Result<()> {
    print_table_as(table, Look::new())
}

/// A table without trailing blanks.
pub(crate) fn print_table_as(table: &Table, look: Look) -> anyhow::Result<()> {
    let text = arrange(table, look.width);
    // Its cells are escaped; what is left to steer the terminal is their colour.
    text.lines().try_for_each(|line| write(format!("{}\n", line.trim_end()).as_bytes()))
}

/// Every row in one line: an id that is broken in two cannot be copied. With a width, columns in which
/// nothing stands are left out, and those that are too wide are cut off. The first keeps its width.
fn arrange(table: &Table, width: Option<u16>) -> String {
    let mut table = table.clone();
    for row in table.row_iter_mut() {
        escape_cells(row);
    }
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 1));
    }
    if let Some(width @ 1..) = width {
        fit(&mut table, width);
    }
    table.to_string()
}

fn fit(table: &mut Table, width: u16) {
    let is_empty = |column: usize| {
        let is_empty =
            |row: &Row| row.cell_iter().nth(column).is_none_or(|cell| cell.content().is_empty());
        // Of no rows, the columns say what there could be.
        table.row_count() > 0 && table.row_iter().all(is_empty)
    };
    let natural = table.column_max_content_widths();
    let shown: Vec<usize> =
        (0..natural.len()).filter(|column| *column == 0 || !is_empty(*column)).collect();
    let headers: Vec<u16> = table.header().map_or_else(Vec::new, |header| {
        let chars = |cell: &Cell| u16::try_from(cell.content().chars().count()).unwrap_or(u16::MAX);
        header.cell_iter().map(chars).collect()
    });
    let columns: Vec<_> = shown
        .iter()
        .map(|column| (natural[*column], headers.get(*column).copied().unwrap_or(0)))
        .collect();
    let widths = fitting(&columns, width);
    // A header in bold keeps its trailing blanks, which would not fit the terminal.
    if let Some(column) =
        shown.last().filter(|last| **last > 0).and_then(|last| table.column_mut(*last))
    {
        column.set_padding((1, 0));
    }
    for (column, own) in natural.iter().enumerate() {
        let at = shown.iter().position(|shown| *shown == column);
        let constraint = match at.map(|at| widths[at]) {
            None => ColumnConstraint::Hidden,
            Some(fitting) if fitting < *own => {
                // Padding counts as width: the first and the last column have it on one side.
                let is_at_side = column == 0 || shown.last() == Some(&column);
                ColumnConstraint::Absolute(Width::Fixed(fitting + if is_at_side { 1 } else { GAP }))
            }
            Some(_) => continue,
        };
        if let Some(column) = table.column_mut(column) {
            column.set_constraint(constraint);
        }
    }
    table.set_truncation_indicator("…");
    for row in table.row_iter_mut() {
        cut_cells(row, &shown, &widths);
        row.max_height(1);
    }
}

/// Cuts what is too long where the column ends, and not at the word before: the next word may be what a
/// reader looks for.
fn cut_cells(row: &mut Row, shown: &[usize], widths: &[u16]) {
    let room = |column: usize| {
        let at = shown.iter().position(|shown| *shown == column);
        at.map_or(usize::MAX, |at| usize::from(widths[at]))
    };
    let cut: Vec<_> = row
        .cell_iter()
        .enumerate()
        .map(|(column, cell)| cut(&cell.content(), room(column)))
        .collect();
    if cut.iter().all(Option::is_none) {
        return;
    }
    let cells = row.cell_iter().zip(cut);
    let cells = cells.map(|(cell, cut)| cut.map_or_else(|| cell.clone(), Cell::new));
    *row = Row::from(cells.collect::<Vec<_>>());
}

/// The widths of columns, given their own and those of their headers, in a terminal of a width.
fn fitting(columns: &[(u16, u16)], width: u16) -> Vec<u16> {
    let mut widths: Vec<u16> = columns.iter().map(|(own, _)| *own).collect();
    let Some(last) = widths.len().checked_sub(1).filter(|last| *last > 0) else { return widths };
    let taken = |widths: &[u16]| {
        widths[..last].iter().fold(0_u16, |sum, own| sum.saturating_add(own.saturating_add(GAP)))
    };
    let share = width.saturating_mul(LAST_SHARE.0) / LAST_SHARE.1;
    let wanted = widths[last].min(share.max(LAST_CHARS_MIN));
    let floor = widths[last].min(LAST_CHARS_MIN);
    for (narrow, wanted) in [(NARROW_CHARS[0], wanted), (NARROW_CHARS[1], floor)] {
        while taken(&widths).saturating_add(wanted) > width {
            let may_shrink = |at: &usize| widths[*at] > narrow.max(columns[*at].1);
            let Some(widest) = (1..last).filter(may_shrink).max_by_key(|at| widths[*at]) else {
                break;
            };
            widths[widest] -= 1;
        }
    }
    widths[last] = widths[last].min(width.saturating_sub(taken(&widths)).max(LAST_CHARS_MIN));
    widths
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

#[cfg(test)]
mod tests {
    use amends_engine::{Timestamp, is_steering};

    use super::{LAST_CHARS_MIN, Look, arrange, cut, fitting, table};

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
        for (width, status) in [(80, "blocked"), (200, "blocked"), (40, "block…")] {
            let line = told(Some(width));
            let line = line.trim();
            let begins = format!("{id}  {status}  the carrier ");
            assert!(line.starts_with(&begins) && line.ends_with('…'), "{width}: {line}");
            // The first column, by which a row is known, is never cut off.
            let least = begins.chars().count() - "the carrier ".len() + usize::from(LAST_CHARS_MIN);
            assert_eq!(line.chars().count(), usize::from(width).max(least), "{width}: {line}");
            assert_eq!(arrange(&rows, Some(width)).lines().count(), 2, "{width}");
        }
    }

    #[test]
    fn no_row_is_wider_than_the_terminal() {
        let columns = ["wave", "step", "status", "undone by", "digest", "note", "output"];
        let mut rows = table(&columns);
        let long = "a-name-that-is-as-long-as-names-may-be-and-then-some-more";
        rows.add_row(vec!["1", long, "undo_backing_off", long, "0123456789ab", "", "{\"a\": 1}"]);
        rows.add_row(vec!["2", "pay", "failed", "payment", "0123456789ab", "", &long.repeat(3)]);
        for width in [80, 100, 120] {
            let text = arrange(&rows, Some(width));
            assert_eq!(text.lines().count(), 3, "{text}");
            for line in text.lines() {
                // With its blanks: those of a bold header are printed.
                assert!(line.chars().count() <= usize::from(width), "{width}: {line}");
                assert!(!line.contains("NOTE"), "nothing stands in it: {line}");
            }
            // The text that a reader looks for can be read, however many columns there are.
            let last = text.lines().last().unwrap_or_default();
            let told = last.chars().rev().skip_while(|c| *c == ' ').collect::<String>();
            let told = told.split("  ").next().map_or(0, |told| told.chars().count());
            assert!(told >= usize::from(LAST_CHARS_MIN), "{told} of {width}: {last}");
        }
        assert!(arrange(&rows, None).contains(&long.repeat(3)), "nothing is cut off in a pipe");
        assert!(arrange(&rows, None).contains("NOTE"));
    }

    #[test]
    fn a_text_is_cut_by_the_columns_that_it_takes() {
        // A letter of two columns, and an accent of none.
        assert_eq!(cut("日本語", 6), None);
        assert_eq!(cut("日本語", 5).as_deref(), Some("日本…"));
        assert_eq!(cut("日本語", 4).as_deref(), Some("日…"));
        assert_eq!(cut("cafe\u{301}", 4), None);
        let mut rows = table(&["step", "detail"]);
        rows.add_row(vec!["cafe\u{301}", &"日".repeat(60)]);
        let text = arrange(&rows, Some(80));
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("cafe\u{301} ") && text.trim_end().ends_with("日…"), "{text}");
    }

    #[test]
    fn a_sentence_is_broken_between_words() {
        let look = |width| Look { width, now: Timestamp::from_millis(0) };
        let text = "It is blocked: the undo of pay failed, 日本 sha256:0123456789abcdef stands";
        assert_eq!(look(None).paragraph(text), text);
        let lines = look(Some(16)).paragraph(text).into_owned();
        let told: Vec<_> = lines.lines().collect();
        assert_eq!(
            told,
            [
                "It is blocked:",
                "the undo of pay",
                "failed, 日本",
                "sha256:0123456789abcdef",
                "stands"
            ]
        );
        assert_eq!(look(Some(200)).paragraph(text), text);
    }

    #[test]
    fn a_table_without_rows_has_its_columns() {
        let text = arrange(&table(&["key", "value"]), Some(80));
        assert!(text.contains("KEY") && text.contains("VALUE"), "{text}");
    }

    #[test]
    fn a_table_that_fits_is_left_as_it_is() {
        assert_eq!(fitting(&[(8, 2), (12, 10), (9, 6), (40, 6)], 80), [8, 12, 9, 40]);
        assert_eq!(fitting(&[(8, 2), (30, 10), (9, 6), (90, 6)], 80), [8, 25, 9, 32]);
        assert_eq!(fitting(&[(8, 2)], 4), [8]);
    }
}
