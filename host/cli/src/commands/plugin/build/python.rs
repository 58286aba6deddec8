//! Python, by componentize-py: CPython and the project's modules go into the component, already
//! imported.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::WORLD;
use super::tool::{answers, find, need, run};

const PYTHON_REMEDY: &str = "as root on Debian: apt-get install python3 python3-venv";
const PIP_REMEDY: &str = "python3 cannot make a virtual environment with componentize-py in it; as \
                          root on Debian: apt-get install python3-venv, or put componentize-py into \
                          PATH";

/// WASI is stubbed: CPython imports sockets, which no host of components grants, and with them
/// stubbed it imports nothing but what the world says. So a plugin has no clock, and its random
/// numbers are those that were drawn when it was built: a plugin that wants others is written in
/// another language, or takes them from its input.
pub(super) fn build(dir: &Path, made: &Path) -> anyhow::Result<()> {
    let componentize = componentize(dir)?;
    run(Command::new(componentize)
        .args(["--wit-path", "wit", "--world", WORLD, "componentize", "plugin", "--stub-wasi"])
        .arg("--output")
        .arg(made)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(dir))?;
    Ok(())
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
