//! A project of `amends plugin new`, and the binary that makes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::place::{binary, stderr};

/// What a toolchain fetches into a project, kept from one run to the next.
const KEPT: [&str; 2] = ["node_modules", ".venv"];

/// What is said of a toolchain that is not there.
const MISSING: [&str; 4] =
    ["is not installed", "is needed, and", "there is no ", "cannot make a virtual environment"];

/// Toolchains are run one at a time.
static ONE: Mutex<()> = Mutex::new(());

pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Below the target folder.
pub(crate) fn cache() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let cache = test.ancestors().nth(3).unwrap().join("authors");
    fs::create_dir_all(&cache).unwrap();
    cache
}

pub(crate) fn amends(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("amends"));
    command
        .args(arguments)
        .env("CARGO_TARGET_DIR", cache().join("target"))
        // Of the toolchain that runs the tests, which is another.
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("RUSTFLAGS");
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    amends(arguments).output().unwrap()
}

/// Makes a project anew, with what its toolchain has fetched before.
pub(crate) fn placed(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let kept = cache().join("kept").join(name);
    let folder = cache().join("projects").join(name);
    let _ = fs::remove_dir_all(&kept);
    fs::create_dir_all(&kept).unwrap();
    for fetched in KEPT {
        let _ = fs::rename(folder.join(fetched), kept.join(fetched));
    }
    let _ = fs::remove_dir_all(&folder);
    make(&folder);
    for fetched in KEPT {
        let _ = fs::rename(kept.join(fetched), folder.join(fetched));
    }
    folder
}

/// A project of `plugin new`.
pub(crate) fn made(name: &str, language: &str) -> PathBuf {
    placed(name, |folder| {
        let parent = path(folder.parent().unwrap());
        let output = run(&["plugin", "new", name, "--lang", language, "--dir", parent]);
        assert!(output.status.success(), "{}", stderr(&output));
    })
}

/// Builds a project; none when there is no toolchain for it here, which is told.
pub(crate) fn built(folder: &Path) -> Option<PathBuf> {
    let output = run(&["plugin", "build", path(folder)]);
    let said = stderr(&output);
    if output.status.success() {
        let name = folder.file_name().unwrap().to_str().unwrap();
        return Some(folder.join(format!("{name}.wasm")));
    }
    assert!(MISSING.iter().any(|words| said.contains(words)), "{said}");
    amends_tests::skipped(path(folder), &said);
    None
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
