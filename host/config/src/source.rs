//! The text of a config file, and where in it a byte is.

use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::report::{Finding, Place, Position, Report, Severity};

/// A config is at most this many bytes: a thousand steps fit, a database named by mistake is not
/// read to its end.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;

/// One config file.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// The byte at which each line begins.
    lines: Vec<usize>,
    /// How many characters begin before each block of [`BLOCK_BYTES`], and in all.
    characters: Vec<usize>,
}

/// Bytes of a block whose characters are counted once: a file may be one long line.
const BLOCK_BYTES: usize = 64;

impl Source {
    /// Reads the file.
    pub(super) fn read(path: &Path) -> Result<Self, Report> {
        let refuse = |message: String, help: &str| {
            let finding = Finding {
                severity: Severity::Error,
                place: Place::File,
                key: String::new(),
                message,
                help: help.to_owned(),
            };
            Report::new(path, vec![finding])
        };
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
            .map_err(|error| {
                let kind = error.kind();
                if kind == std::io::ErrorKind::NotFound {
                    refuse("there is no such file".to_owned(), "name a config file (TOML)")
                } else if kind == std::io::ErrorKind::IsADirectory {
                    let help = "name the config file in it, such as amends.toml";
                    refuse("it is a folder".to_owned(), help)
                } else {
                    let help = "check the file and its permissions";
                    refuse(format!("it cannot be read: {error}"), help)
                }
            })?;
        if bytes.len() > CONFIG_BYTES_MAX {
            let message = format!("it has more than {CONFIG_BYTES_MAX} bytes");
            return Err(refuse(message, "is it a config? Split its sagas over several hosts"));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self::of(path, text)),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let line = error.as_bytes()[..valid].split(|byte| *byte == b'\n').count();
                let message = format!("it is not UTF-8 text (line {line})");
                Err(refuse(message, "save it as UTF-8"))
            }
        }
    }

    fn of(path: &Path, text: String) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(after_newlines).collect();
        let mut characters = vec![0];
        for block in text.as_bytes().chunks(BLOCK_BYTES) {
            characters.push(characters[characters.len() - 1] + begun(block));
        }
        Self { path: path.to_owned(), text, lines, characters }
    }

    /// How many characters there are before this byte, at which one begins.
    fn characters_before(&self, at: usize) -> usize {
        let block = at / BLOCK_BYTES;
        self.characters[block] + begun(&self.text.as_bytes()[block * BLOCK_BYTES..at])
    }

    /// A line, from 1, without its end.
    pub(super) fn line(&self, number: usize) -> &str {
        let start = self.lines.get(number - 1).copied().unwrap_or(self.text.len());
        let end = self.lines.get(number).copied().unwrap_or(self.text.len());
        self.text[start..end].trim_end_matches(['\n', '\r'])
    }

    /// Where the span begins.
    pub(super) fn position(&self, span: &Range<usize>) -> Position {
        let mut at = span.start.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let line = self.lines.partition_point(|start| *start <= at);
        let start = self.lines[line - 1];
        let column = 1 + self.characters_before(at) - self.characters_before(start);
        Position { line, column }
    }

    /// A relative path counts from the config file's folder.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or_else(|| Path::new("")).join(path)
    }
}

/// How many characters begin in bytes of a text.
fn begun(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0b1100_0000 != 0b1000_0000).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_a_long_line_count_characters() {
        let source = Source::of(Path::new("a.toml"), format!("a\n{}x", "ü".repeat(4_096)));
        let x = source.text.len() - 1;
        assert_eq!(source.position(&(x..x + 1)), Position { line: 2, column: 4_097 });
        assert_eq!(source.position(&(x + 1..x + 1)), Position { line: 2, column: 4_098 });
        let even = Source::of(Path::new("a.toml"), "x".repeat(2 * BLOCK_BYTES));
        let end = even.text.len();
        assert_eq!(even.position(&(end..end)), Position { line: 1, column: end + 1 });
    }

    #[test]
    fn columns_count_characters() {
        let source = Source::of(Path::new("conf/a.toml"), "a = 1\nµ = \"ü\" x\n".to_owned());
        assert_eq!(source.position(&(0..1)), Position { line: 1, column: 1 });
        assert_eq!(source.position(&(6..8)), Position { line: 2, column: 1 });
        let x = source.text.find('x').unwrap_or_default();
        assert_eq!(source.position(&(x..x + 1)), Position { line: 2, column: 9 });
        let end = source.text.len();
        assert_eq!(source.position(&(end..end)), Position { line: 3, column: 1 });
    }

    #[test]
    fn paths_count_from_the_files_folder() {
        let source = Source::of(Path::new("conf/a.toml"), String::new());
        assert_eq!(source.resolve("data"), Path::new("conf/data"));
        assert_eq!(source.resolve("/data"), Path::new("/data"));
        let beside = Source::of(Path::new("a.toml"), String::new());
        assert_eq!(beside.resolve("data"), Path::new("data"));
    }
}
