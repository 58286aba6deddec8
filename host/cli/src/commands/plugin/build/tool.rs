//! The tools of a toolchain: where they are, and running them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

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

/// Runs a tool. It says nothing unless it fails; then all that it said is shown.
///
/// # Errors
/// When it cannot be run or fails.
pub(super) fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = name(command.get_program());
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("`{program}` cannot be run"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    bail!("`{program}` failed ({}):\n{}", output.status, said.trim_end())
}

fn name(program: &OsStr) -> String {
    Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned()
}
