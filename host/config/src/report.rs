//! What is wrong with a config, and where.

use std::fmt;
use std::path::{Path, PathBuf};

use amends_engine::on_one_line;
use serde::Serialize;
use serde_json::{Value, json};

/// Whether a finding stops the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The host does not start with it.
    Error,
    /// The host starts; a person should know.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A place in a file. Both count from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in it.
    pub column: usize,
}

/// Where a value came from. Ordered as a report lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A flag of the command line, such as `--listen`.
    Flag(&'static str),
    /// A variable of the environment, such as `AMENDS_LISTEN`.
    Environment(&'static str),
    /// The file as a whole.
    File,
    /// A place in the file.
    At(Position),
}

/// One thing that is wrong, or worth knowing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it stops the host.
    pub severity: Severity,
    /// Where.
    pub place: Place,
    /// The key, from the top of the file: `plugin.inventory.memory_max`.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: String,
}

impl Finding {
    /// Makes it one of the whole file, when it was found in a table that was read on its own: the key gets that of
    /// the table, and a finding without a place gets the place of the table.
    pub(crate) fn put_below(&mut self, table: &str, place: Place) {
        self.key =
            if self.key.is_empty() { table.to_owned() } else { format!("{table}.{}", self.key) };
        if self.place == Place::File {
            self.place = place;
        }
    }
}

/// All findings of a config, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    file: PathBuf,
    findings: Vec<Finding>,
}

impl Report {
    /// Puts findings in order, and leaves out what is said twice.
    #[must_use]
    pub(crate) fn new(file: &Path, mut findings: Vec<Finding>) -> Self {
        findings.sort_by(|one, other| {
            (one.place, one.severity, &one.key, &one.message).cmp(&(
                other.place,
                other.severity,
                &other.key,
                &other.message,
            ))
        });
        findings.dedup();
        Self { file: file.to_owned(), findings }
    }

    /// The file, as it was named.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// In the order of lines.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// This and what else was found.
    #[must_use]
    pub(crate) fn with(self, more: Vec<Finding>) -> Self {
        let mut findings = self.findings;
        findings.extend(more);
        Self::new(&self.file, findings)
    }

    /// How many stop the host.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// How many do not.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// `1 error, 2 warnings`.
    #[must_use]
    pub fn summary(&self) -> String {
        let counted = |count: usize, what: &str| {
            format!("{count} {what}{}", if count == 1 { "" } else { "s" })
        };
        let (errors, warnings) = (self.errors(), self.warnings());
        match (errors, warnings) {
            (0, 0) => "no mistakes".to_owned(),
            (_, 0) => counted(errors, "error"),
            (0, _) => counted(warnings, "warning"),
            _ => format!("{}, {}", counted(errors, "error"), counted(warnings, "warning")),
        }
    }

    /// Each finding as a JSON object: `severity`, `file`, `line`, `column`, `source`, `key`,
    /// `message`, `help`. What is not in the file has no line, and a `source` instead.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.findings.iter().map(|finding| self.finding_json(finding)).collect()
    }

    fn finding_json(&self, finding: &Finding) -> Value {
        let (position, source) = match finding.place {
            Place::Flag(name) | Place::Environment(name) => (None, Some(name)),
            Place::File => (None, None),
            Place::At(position) => (Some(position), None),
        };
        json!({
            "severity": finding.severity,
            "file": self.file.display().to_string(),
            "line": position.map(|position| position.line),
            "column": position.map(|position| position.column),
            "source": source,
            "key": finding.key,
            "message": finding.message,
            "help": finding.help,
        })
    }
}

impl fmt::Display for Report {
    /// Two lines a finding: `FILE:LINE:COLUMN: error: KEY: MESSAGE` and `    help: REMEDY`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            match finding.place {
                Place::Flag(name) => write!(f, "{name}")?,
                Place::Environment(name) => write!(f, "environment {name}")?,
                Place::File => write!(f, "{}", self.file.display())?,
                Place::At(Position { line, column }) => {
                    write!(f, "{}:{line}:{column}", self.file.display())?;
                }
            }
            write!(f, ": {}: ", finding.severity)?;
            if !finding.key.is_empty() {
                write!(f, "{}: ", on_one_line(&finding.key))?;
            }
            // They may have texts of the file in them, and a line must not look like one of ours.
            let (message, help) = (on_one_line(&finding.message), on_one_line(&finding.help));
            writeln!(f, "{message}\n    help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
