//! The tools of a toolchain: where they are, and running them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

/// The world of a project, in its `wit/` folder.
pub(super) const WORLD: &str = "plugin";

/// Where a program is, by `PATH`.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file() && answers(file))
}

/// Whether a program can be run: a shim of a version manager may be there without what it stands
/// for.
pub(super) fn answers(file: &Path) -> bool {
    Command::new(file)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Where a program is, or what to install.
pub(super) fn need(program: &str, remedy: &str) -> anyhow::Result<PathBuf> {
    find(program).with_context(|| format!("`{program}` is not installed: {remedy}"))
}

/// What a tool says that its version is.
///
/// # Errors
/// When it cannot be run.
pub(super) fn version(file: &Path) -> anyhow::Result<String> {
    let output = Command::new(file).arg("--version").stdin(Stdio::null()).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A tool that could not be run or failed, with all that it said.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(super) struct Failed {
    what: String,
    /// What it exited with, unless it could not be run or a signal ended it.
    pub(super) code: Option<i32>,
}

impl Failed {
    /// A file for the tool could not be written.
    pub(super) fn to_write(file: &Path, error: &std::io::Error) -> Self {
        Self { what: format!("cannot write {}: {error}", file.display()), code: None }
    }

    /// With nothing of what the tool said but what is between these words, the first included, if it said
    /// them.
    pub(super) fn within(self, first: &str, after: &str) -> Self {
        let Some(begin) = self.what.find(first) else { return self };
        let said = &self.what[begin..];
        let said = said.find(after).map_or(said, |end| &said[..end]);
        let head = self.what.lines().next().unwrap_or_default();
        Self { what: format!("{head}\n{}", said.trim_end()), ..self }
    }
}

/// Runs a tool. It says nothing unless it fails; then all that it said is shown.
///
/// # Errors
/// When it cannot be run or fails.
pub(super) fn run(command: &mut Command) -> Result<(), Failed> {
    let program = name(command.get_program());
    let output = command.stdin(Stdio::null()).output().map_err(|error| Failed {
        what: format!("`{program}` cannot be run: {error}"),
        code: None,
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let what = format!("`{program}` failed ({}):\n{}", output.status, said.trim_end());
    Err(Failed { what, code: output.status.code() })
}

fn name(program: &OsStr) -> String {
    Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned()
}
