//! Python with libraries of others, as a user would install them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::place::stderr;

/// Held while a folder is looked at and made. Tests run side by side and may want the same one.
static MAKING: Mutex<()> = Mutex::new(());

/// Returns the folder of the programs of a Python that has these libraries, each with its version. It stands beside
/// the build and is made once.
pub(crate) fn python_with(name: &str, libraries: &[&str]) -> PathBuf {
    let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-python"));
    // Written last: a folder without it was cut off.
    let list = folder.join("libraries");
    let wanted = libraries.join("\n");
    if fs::read_to_string(&list).is_ok_and(|installed| installed == wanted) {
        return folder.join("bin");
    }
    let _ = fs::remove_dir_all(&folder);
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", stderr(&output));
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(folder.join("bin/python")).args(pip).args(libraries));
    fs::write(&list, wanted).unwrap();
    folder.join("bin")
}
