//! What a page shows of an output, held against what was printed.
//!
//! Ids, times, digests, keys, references and durations are different each time. Each stands for any other of
//! its kind; what stands twice on the page has to be printed twice. Blanks may be more or fewer where
//! there are two or more, because columns are as wide as what is in them. On the page `…` is whatever
//! is left out of a line, and a line that is `…` alone any number of lines. That a component is being
//! compiled is only told when that takes long, so such a line may be there or not.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// What stands for a part that is different each time: the first of private characters of Unicode, one
/// for each kind.
const FIRST_MARK: u32 = 0xe000;

/// The kinds that differ each time. A value of a kind that has a name is the same thing wherever it
/// stands.
const KINDS: [(&str, bool); 7] = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", true),
    (r"sha256:[0-9a-f]{12,64}|\b[0-9a-f]{12}\b", true),
    // Keys that sign components, and what names them.
    (r"\bRW[0-9A-Za-z+/]{54}", true),
    (r"\b[0-9A-F]{16}\b", true),
    (r"\b(?:RX|RSV|LBL)(?:-[0-9A-Z]{4}){3}\b", true),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z", false),
    (r"\d+(?:\.\d+)?(?:ns|µs|ms)\b|\d+\.\d+ ?s\b|\(\d+s\)", false),
];

static DIFFERS: LazyLock<Regex> = LazyLock::new(|| {
    let kinds: Vec<_> = KINDS.iter().map(|(kind, _)| format!("({kind})")).collect();
    Regex::new(&kinds.join("|")).unwrap()
});
static BLANKS: LazyLock<Regex> = LazyLock::new(|| Regex::new(" {2,}").unwrap());
static PROGRESS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?m)^compiling [a-z0-9-]+ \([0-9.]+ [KM]iB\)$\n?").unwrap());
static NUMBER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\d+").unwrap());

/// Where an output differs from what the page shows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The line of what the page shows, from 0; one past the last when more was printed.
    pub(crate) line: usize,
    /// What it says there, if anything.
    pub(crate) shown: Option<String>,
    /// The line that was printed in its place, if any.
    pub(crate) printed: Option<String>,
}

/// The first difference. With `numbers_vary`, numbers are not compared.
pub(crate) fn difference(shown: &str, printed: &str, numbers_vary: bool) -> Option<Difference> {
    let printed = &*PROGRESS.replace_all(printed, "");
    let read = |text: &str| -> Vec<Line> {
        text.trim_matches('\n').lines().map(|line| Line::read(line, numbers_vary)).collect()
    };
    let (shown_lines, printed_lines) = (read(shown), read(printed));
    let mut parts = shown_lines.split(|line| line.text == "…");
    let mut names = Names::default();
    // The first part begins where the output begins.
    let first = parts.next().unwrap_or_default();
    let (mut line, mut next) = (first.len(), first.len());
    let parts: Vec<_> = parts.collect();
    let is_whole = parts.is_empty();
    if let Err(at) = fits(first, &printed_lines, is_whole, &mut names) {
        return Some(differs_at(shown, printed, at, at));
    }
    for (number, part) in parts.iter().enumerate() {
        line += 1;
        let is_last = number + 1 == parts.len();
        // The last part ends where the output ends.
        let last_start = printed_lines.len().saturating_sub(part.len());
        let mut starts = next..=last_start;
        let found = starts.find(|&start| {
            let mut tried = names.clone();
            let fits = fits(part, &printed_lines[start..], is_last && !part.is_empty(), &mut tried)
                .is_ok();
            if fits {
                names = tried;
            }
            fits
        });
        let Some(start) = found else {
            let nearest = if is_last { last_start.max(next) } else { next };
            let at = fits(part, &printed_lines[nearest..], is_last, &mut names).err().unwrap_or(0);
            return Some(differs_at(shown, printed, line + at, nearest + at));
        };
        line += part.len();
        next = start + part.len();
    }
    None
}

fn differs_at(shown: &str, printed: &str, shown_at: usize, printed_at: usize) -> Difference {
    let line = |text: &str, at| text.trim_matches('\n').lines().nth(at).map(str::to_owned);
    Difference { line: shown_at, shown: line(shown, shown_at), printed: line(printed, printed_at) }
}

/// Whether the output begins with these lines, or is these (`is_all`); else which of them does not
/// fit.
fn fits(shown: &[Line], printed: &[Line], is_all: bool, names: &mut Names) -> Result<(), usize> {
    for (number, line) in shown.iter().enumerate() {
        if !printed.get(number).is_some_and(|printed| line.fits(printed, names)) {
            return Err(number);
        }
    }
    if is_all && printed.len() > shown.len() { Err(shown.len()) } else { Ok(()) }
}

/// Which value of the output stands for which of the page.
#[derive(Debug, Clone, Default)]
struct Names {
    printed: BTreeMap<String, String>,
    shown: BTreeMap<String, String>,
}

impl Names {
    /// Whether both have always stood for one another.
    fn bind(&mut self, shown: &str, printed: &str) -> bool {
        let to = self.printed.entry(shown.to_owned()).or_insert_with(|| printed.to_owned());
        let from = self.shown.entry(printed.to_owned()).or_insert_with(|| shown.to_owned());
        to == printed && from == shown
    }
}

/// A line, with marks where it is different each time.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    text: String,
    /// What stood where the marks are; none for what has no name.
    values: Vec<Option<String>>,
}

impl Line {
    fn read(line: &str, numbers_vary: bool) -> Self {
        let mut values = Vec::new();
        let text = DIFFERS.replace_all(line.trim_end(), |found: &Captures<'_>| {
            let kind = (0..KINDS.len()).find(|kind| found.get(kind + 1).is_some()).unwrap_or(0);
            values.push(KINDS[kind].1.then(|| short(&found[0]).to_owned()));
            mark(kind).to_string()
        });
        let text = BLANKS.replace_all(&text, "  ");
        let text = if numbers_vary { NUMBER.replace_all(&text, "0") } else { text };
        Self { text: text.into_owned(), values }
    }

    fn fits(&self, printed: &Self, names: &mut Names) -> bool {
        let parts: Vec<&str> = self.text.split('…').collect();
        let [first, others @ ..] = parts.as_slice() else { return false };
        let Some(mut rest) = printed.text.strip_prefix(first) else { return false };
        let mut values = self.values.iter();
        let mut fits = bind(&mut values, &printed.values, first, names);
        for (number, part) in others.iter().enumerate() {
            let is_last = number + 1 == others.len();
            let at = if is_last { rest.strip_suffix(part).map(str::len) } else { rest.find(part) };
            let Some(at) = at else { return false };
            let skipped = marks(&printed.text[..printed.text.len() - rest.len() + at]);
            fits = fits && bind(&mut values, &printed.values[skipped..], part, names);
            rest = &rest[at + part.len()..];
        }
        fits && rest.is_empty()
    }
}

/// A digest as tables show it, so that it is the same in both forms; anything else as it is.
fn short(value: &str) -> &str {
    value.strip_prefix("sha256:").map_or(value, |digits| &digits[..12])
}

/// Binds the next values of the page, those of `part`, to these.
fn bind<'a>(
    shown: &mut impl Iterator<Item = &'a Option<String>>,
    printed: &[Option<String>],
    part: &str,
    names: &mut Names,
) -> bool {
    printed.iter().zip(shown.take(marks(part))).all(|(printed, shown)| match (shown, printed) {
        (Some(shown), Some(printed)) => names.bind(shown, printed),
        _ => true,
    })
}

fn mark(kind: usize) -> char {
    u32::try_from(kind).ok().and_then(|kind| char::from_u32(FIRST_MARK + kind)).unwrap()
}

fn marks(text: &str) -> usize {
    let of_kind = |c: char| (0..KINDS.len()).any(|kind| c == mark(kind));
    text.chars().filter(|c| of_kind(*c)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "01a20c70-fdc6-7266-9b55-948e9246f5d6";
    const SECOND: &str = "01a20c70-fdc6-7266-9b55-948e9246f5d7";

    fn is_same(shown: &str, printed: &str) -> bool {
        difference(shown, printed, false).is_none()
    }

    #[test]
    fn ids_times_digests_references_and_widths_differ_each_time() {
        let shown = "ID  AT  EVENT\n01a20c70-fdc6-7266-9b55-948e9246f5d6  2026-11-24T07:24:21.318Z  \
                     sha256:7bc5d7d9724a RX-RRY5-31JR-2QS8 (6ms) in 0.9 s\n";
        let printed = "ID      AT   EVENT\nffffffff-fdc6-7266-9b55-948e9246f5d6   \
                       2027-01-01T00:00:00Z  sha256:000000000000 RX-0000-1111-2222 (1.25ms) in \
                       12.0 s";
        assert!(is_same(shown, printed));
        for (from, to) in
            [("EVENT", "EVENTS"), ("RX-", "RY-"), ("sha256:", "sha1:"), ("(1.25ms)", "(1)")]
        {
            assert!(!is_same(shown, &printed.replace(from, to)), "{from} as {to}");
        }
    }

    #[test]
    fn what_stands_twice_is_printed_twice() {
        let twice = format!("{FIRST} {FIRST}");
        assert!(is_same(&twice, &format!("{SECOND} {SECOND}")));
        assert!(!is_same(&twice, &format!("{FIRST} {SECOND}")));
        assert!(!is_same(&format!("{FIRST}\n{SECOND}"), &format!("{FIRST}\n{FIRST}")));
        // Also behind what is left out, where more stands than the page shows.
        let shown = format!("{FIRST} … and {FIRST}");
        assert!(is_same(&shown, &format!("{SECOND} by {FIRST} and {SECOND}")));
        assert!(!is_same(&shown, &format!("{SECOND} by {SECOND} and {FIRST}")));
    }

    #[test]
    fn a_digest_is_the_same_in_short() {
        let shown = "sha256:7bc5d7d9724a is 7bc5d7d9724a, sha256:7bc5d7d9724a…";
        let whole = "0123456789ab".repeat(5);
        let printed = format!("sha256:0123456789ab is 0123456789ab, sha256:{whole}");
        assert!(is_same(shown, &printed));
        assert!(!is_same(shown, &printed.replace("is 0", "is 1")));
    }

    #[test]
    fn what_is_left_out_is_anything_within_its_line() {
        assert!(is_same("a … d …", "a b c d e"));
        assert!(is_same("a … d", "a b d d"));
        assert!(is_same("{\"a\":1,…", "{\"a\":1,…"));
        assert!(!is_same("a … d", "a b c"));
        assert!(!is_same("a …", "a b\nc"));
        assert!(!is_same("b …", "a b c"));
    }

    #[test]
    fn lines_are_left_out_by_a_line_of_their_own() {
        assert!(is_same("…\nc\n…\ne", "a\nb\nc\nd\ne"));
        assert!(is_same("a\n…", "a\nb\nc"));
        assert!(is_same("a\n…\nb", "a\nb\nc\nb"));
        assert!(!is_same("…\nd", "a\nb\nc"));
        assert!(!is_same("…\nb", "a\nb\nc"));
        assert!(!is_same("a\n…\nb\n…\na", "a\nc\na"));
    }

    #[test]
    fn numbers_are_compared_unless_they_vary() {
        let (shown, printed) = ("96 of 100 differ", "7 of 50 differ");
        assert!(!is_same(shown, printed));
        assert_eq!(difference(shown, printed, true), None);
        assert!(difference(shown, "7 of 50 are the same", true).is_some());
    }

    #[test]
    fn what_is_told_of_long_work_may_be_there_or_not() {
        let printed = "compiling inventory (94 KiB)\n1 component is sound\n";
        assert!(is_same("1 component is sound", printed));
        assert!(is_same("1 component is sound", "1 component is sound\ncompiling a (1.5 MiB)"));
        assert!(!is_same("1 component is sound", "compiling is broken\n1 component is sound"));
    }

    #[test]
    fn the_first_difference_is_told() {
        let told = |line, shown: Option<&str>, printed: Option<&str>| {
            let (shown, printed) = (shown.map(str::to_owned), printed.map(str::to_owned));
            Some(Difference { line, shown, printed })
        };
        let differs = |shown, printed| difference(shown, printed, false);
        assert_eq!(differs("a\nb\nc\n", "a\nB\nc\n"), told(1, Some("b"), Some("B")));
        assert_eq!(differs("a\nb\n", "a\n"), told(1, Some("b"), None));
        assert_eq!(differs("a\n", "a\nb\n"), told(1, None, Some("b")));
        assert_eq!(differs("…\nb\nc\n", "a\nb\nd\n"), told(2, Some("c"), Some("d")));
    }
}
