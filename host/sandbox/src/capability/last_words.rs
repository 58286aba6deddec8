//! The last lines that a component says when something is wrong: why a call was stopped.

use std::collections::VecDeque;

/// Lines that are kept for the failure of a call.
pub(crate) const LAST_LINES_MAX: usize = 40;

/// Bytes of their list as JSON: a failure stands in the log of events, in answers and in logs.
const LAST_BYTES_MAX: usize = 4_096;

/// The last lines of what it says when something is wrong.
#[derive(Debug, Default, Clone)]
pub(crate) struct LastWords {
    lines: VecDeque<String>,
    /// [`json_bytes`] of all lines.
    bytes: usize,
}

impl LastWords {
    /// Adds a text, line by line.
    pub(crate) fn add(&mut self, text: &str) {
        for line in text.lines() {
            self.add_line(line);
        }
    }

    fn add_line(&mut self, line: &str) {
        let line = cut_as_json(line, LAST_BYTES_MAX / 2);
        self.bytes += json_bytes(&line);
        self.lines.push_back(line);
        // A list has one bracket more than its lines have commas.
        while self.bytes >= LAST_BYTES_MAX || self.lines.len() > LAST_LINES_MAX {
            let Some(first) = self.lines.pop_front() else { break };
            self.bytes -= json_bytes(&first);
        }
    }

    /// Oldest first.
    pub(crate) fn lines(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// The line that says what was thrown, if there is one in a form that a language's runtime writes.
    /// Any other line may be about something else. Of a message of several lines it is the first.
    pub(crate) fn thrown(&self) -> Option<&str> {
        let lines: Vec<&str> = self.lines().collect();
        let last = |is_it: fn(&[&str], usize) -> bool| {
            (0..lines.len()).rev().find(|at| is_it(&lines, *at)).map(|at| lines[at])
        };
        // Later lines of a panic's message may look like something else that was thrown.
        last(is_panic).or_else(|| last(is_exception))
    }
}

/// Bytes of a line in a list of JSON: with its quotes and a comma.
fn json_bytes(line: &str) -> usize {
    line.chars().map(escaped_bytes).sum::<usize>() + 3
}

/// Bytes of a character in a JSON text, as `serde_json` writes it.
fn escaped_bytes(character: char) -> usize {
    match character {
        '"' | '\\' | '\u{8}' | '\t' | '\n' | '\u{c}' | '\r' => 2,
        control if control < ' ' => 6,
        other => other.len_utf8(),
    }
}

/// Cuts a line to so many bytes as JSON, and adds an ellipsis where something is missing.
fn cut_as_json(line: &str, bytes_max: usize) -> String {
    let mut bytes = 0;
    let is_past = |(_, character): &(usize, char)| {
        bytes += escaped_bytes(*character);
        bytes > bytes_max
    };
    match line.char_indices().find(is_past) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// Whether the line is the first of what a panic of Rust says: in the form of the SDK, or the one behind
/// the place that the standard library writes.
fn is_panic(lines: &[&str], at: usize) -> bool {
    let line = lines[at];
    let is_place = |line: &str| line.starts_with("thread '") && line.contains(" panicked at ");
    let is_behind_place = at.checked_sub(1).is_some_and(|before| is_place(lines[before]));
    line.starts_with("panicked at ")
        || line.starts_with("panicked: ")
        || (is_behind_place && !line.is_empty() && !is_of_runtime(line))
}

/// Whether the line is a failed assertion of C, or the name and message of an exception.
fn is_exception(lines: &[&str], at: usize) -> bool {
    let line = lines[at];
    if line.starts_with("Assertion failed") {
        return true;
    }
    let is_of_name = |character: char| character.is_alphanumeric() || "._$".contains(character);
    let message = line.trim_start_matches(is_of_name);
    let is_named = message.is_empty() || message == ":" || message.starts_with(": ");
    if !is_named || is_of_runtime(line) {
        return false;
    }
    let path = &line[..line.len() - message.len()];
    let name = path.rsplit('.').next().unwrap_or(path);
    if name.ends_with("Error") || name.ends_with("Exception") {
        return true;
    }
    // Another name may be a word of the plugin's own. The places where it was thrown tell: JavaScript
    // writes them behind it, Python before.
    name.starts_with(char::is_uppercase)
        && (lines.get(at + 1).is_some_and(|next| is_frame(next.trim_start()))
            || is_behind_traceback(&lines[..at]))
}

/// Whether lines end with the places of a traceback of Python.
fn is_behind_traceback(lines: &[&str]) -> bool {
    let is_indented = |line: &&&str| line.starts_with(char::is_whitespace);
    let mut places = lines.iter().rev().take_while(is_indented);
    places.any(|line| line.trim_start().starts_with("File \""))
}

/// Whether it is a place of JavaScript, `FUNCTION@FILE:LINE:COLUMN`.
fn is_frame(line: &str) -> bool {
    let mut parts = line.rsplit(':');
    let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
    is_number(parts.next()) && is_number(parts.next()) && line.contains('@')
}

/// Whether a language's own runtime adds the line, which says nothing of what was thrown.
fn is_of_runtime(line: &str) -> bool {
    ["Stack:", "Python function threw an unexpected exception"]
        .iter()
        .any(|words| line.starts_with(words))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    fn thrown(said: &str) -> Option<String> {
        let mut last = LastWords::default();
        last.add(said);
        last.thrown().map(ToOwned::to_owned)
    }

    #[test]
    fn what_was_thrown_is_found_among_what_each_runtime_says() {
        for (said, expected) in [
            (
                "TypeError: no seats\nexecute@plugin.js:49:30\nheard/</<@.build-1/entry.mjs:4:21\n\n\
                 invalid variant tag value `undefined` (received `TypeError: no seats`) specified for \
                 `Failure`\nStack:\n  export$execute@/tmp/1/sources/initializer.js:730:17\n\
                 Redirecting call to abort() to mozalloc_abort\n",
                "TypeError: no seats",
            ),
            ("NoSeats: 3\n  execute@plugin.js:7:3", "NoSeats: 3"),
            (
                "Traceback (most recent call last):\n  File \"/0/plugin.py\", line 64, in execute\n\
                 KeyError: 'nope'\nthread '<unnamed>' (1) panicked at runtime/src/lib.rs:1293:29:\n\
                 Python function threw an unexpected exception\nnote: run with `RUST_BACKTRACE=1`\n",
                "KeyError: 'nope'",
            ),
            (
                "Traceback (most recent call last):\n  File \"/0/plugin.py\", line 64, in execute\n    \
                 raise NoSeats(3)\nplugin.NoSeats: 3\nand its second line",
                "plugin.NoSeats: 3",
            ),
            ("  File \"/0/plugin.py\", line 7\nAssertionError\n", "AssertionError"),
            (
                "panicked at src/lib.rs:3:5: assertion `left == right` failed\n  left: 1\n right: 2",
                "panicked at src/lib.rs:3:5: assertion `left == right` failed",
            ),
            ("panicked at src/lib.rs:3:5: first\nsecond", "panicked at src/lib.rs:3:5: first"),
            ("panicked at src/lib.rs:3:5: one\nIoError: two", "panicked at src/lib.rs:3:5: one"),
            (
                "thread 'main' (1) panicked at src/lib.rs:3:5:\nfirst\nsecond\nnote: run with `…`",
                "first",
            ),
            (
                "Assertion failed: seats > 0 (plugin.c: execute: 74)\n",
                "Assertion failed: seats > 0 (plugin.c: execute: 74)",
            ),
        ] {
            assert_eq!(thrown(said).as_deref(), Some(expected), "{said}");
        }
    }

    #[test]
    fn a_last_line_of_the_plugins_own_is_not_what_was_thrown() {
        for said in [
            "",
            "connected to carrier",
            "Connected: to carrier",
            "  indented\nConnected: to carrier",
            "INFO: connected to carrier",
            "mail to ada@example.com:25 failed",
            "https://example.com/Error",
            "no Error: connected",
        ] {
            assert_eq!(thrown(said), None, "{said}");
        }
    }

    #[test]
    fn the_last_words_are_the_last_of_many_and_bounded() {
        let list_bytes = |last: &LastWords| {
            let list = serde_json::Value::from(last.lines().collect::<Vec<_>>());
            list.to_string().len()
        };
        let mut last = LastWords::default();
        for number in 0..1_000 {
            last.add(&format!("{number} {}", "x".repeat(200)));
        }
        assert_eq!(last.bytes + 1, list_bytes(&last));
        assert!(list_bytes(&last) <= LAST_BYTES_MAX);
        assert!(last.lines().next_back().unwrap().starts_with("999 "));
        for long in ["y", "\u{1b}", "\"", "\u{1f39f}", "\t\\\u{7f}"] {
            last.add(&long.repeat(100_000));
            assert_eq!(last.bytes + 1, list_bytes(&last), "{long:?}");
            assert!(list_bytes(&last) <= LAST_BYTES_MAX, "{long:?}");
            let line = last.lines().next_back().unwrap();
            assert!(line.starts_with(long) && line.ends_with('…'), "{line:?}");
            // As much of it as has room.
            assert!(json_bytes(line) > LAST_BYTES_MAX / 2 - 6, "{line:?}");
        }
    }

    #[test]
    fn characters_are_counted_as_json_writes_them() {
        for character in '\0'..='\u{400}' {
            let text = character.to_string();
            let written = serde_json::Value::from(text.as_str()).to_string();
            assert_eq!(json_bytes(&text), written.len() + 1, "{character:?}");
        }
    }
}
