//! Python, by componentize-py: CPython and the project's modules go into the component, already
//! imported.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::tool::{WORLD, answers, find, need, run};

const PYTHON_REMEDY: &str = "as root on Debian: apt-get install python3 python3-venv";
const PIP_REMEDY: &str = "python3 cannot make a virtual environment with componentize-py in it; as \
                          root on Debian: apt-get install python3-venv, or put componentize-py into \
                          PATH";

/// Where the types are.
const BINDINGS: &str = "bindings";

/// The module that stands between the host and the project's.
const ENTRY: &str = "amends_entry";
const ENTRY_SOURCE: &str = include_str!("../../../templates/python/entry.py");

pub(super) fn build(dir: &Path, scratch: &Path, made: &Path) -> anyhow::Result<()> {
    let componentize = componentize(dir)?;
    bindings(&componentize, dir, scratch)?;
    let entry = scratch.join(format!("{ENTRY}.py"));
    fs::write(&entry, ENTRY_SOURCE).with_context(|| format!("cannot write {}", entry.display()))?;
    let built = run(Command::new(componentize)
        .args(["--wit-path", "wit", "--world", WORLD, "componentize", ENTRY])
        .args(["--python-path", ".", "--python-path"])
        .arg(scratch)
        .arg("--output")
        .arg(made)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(dir));
    Ok(built
        .map_err(|failed| failed.within("Traceback (most recent call last)", "Stack backtrace"))?)
}

/// Makes the folder of the types that the plugin imports and exports, for an editor and for unit tests:
/// the component has its own.
fn bindings(componentize: &Path, dir: &Path, scratch: &Path) -> anyhow::Result<()> {
    let made = scratch.join(BINDINGS);
    let place = dir.join(BINDINGS);
    if place.exists() && !place.join("componentize_py_types.py").is_file() {
        bail!(
            "{} is in the way: `plugin build` writes there what it makes of wit/",
            place.display()
        );
    }
    run(Command::new(componentize)
        .args(["--wit-path", "wit", "--world", WORLD, "bindings"])
        .arg(&made)
        .current_dir(dir))?;
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    }
    fs::rename(&made, &place).with_context(|| format!("cannot write {}", place.display()))
}

/// The project's own, else one of this machine, else one that is installed into the project.
fn componentize(dir: &Path) -> anyhow::Result<PathBuf> {
    let own = dir.join(".venv/bin/componentize-py");
    if answers(&own) {
        return Ok(own);
    }
    if let Some(found) = find("componentize-py") {
        return Ok(found);
    }
    let python = need("python3", PYTHON_REMEDY)?;
    run(Command::new(python).args(["-m", "venv", ".venv"]).current_dir(dir)).context(PIP_REMEDY)?;
    let install = ["-m", "pip", "install", "--quiet", "-r", "requirements.txt"];
    run(Command::new(dir.join(".venv/bin/python")).args(install).current_dir(dir))
        .context(PIP_REMEDY)?;
    Ok(own)
}
