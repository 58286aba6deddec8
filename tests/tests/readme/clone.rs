//! What a reader of the page has after `git clone`: the tracked files, in a repository of their own.
//!
//! Ports and the folder of scratch files are others than the page says, so that a test disturbs nobody.
//! What the page would build of this repository is built already, and a `cargo` in front of the real one
//! says so; the components are really built. The folder is the same each time, because what is compiled
//! for them depends on where it lies.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::place::{binary, repository, stderr};

/// What scripts of the page build with `cargo build --release`.
const BUILT: [&str; 3] = ["amends", "carrier", "amends-componentize"];

/// What tells git of a repository elsewhere.
const GIT: [&str; 3] = ["GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"];

/// Languages of plugins whose tools take a minute, and the one that takes a second; `--test authors`
/// builds a plugin in each.
const LANGUAGES: [(&str, &str); 2] = [("--lang js ", "--lang c "), ("--lang python ", "--lang c ")];

/// In front of the real ones. The profile of components is another than release; and what a test needs,
/// tests/run has installed.
const TOOLS: [(&str, &str); 2] = [
    ("cargo", r#"case "$*" in *" --release "*"-p amends"*) exit ;; esac"#),
    ("rustup", r#"case "$*" in "target add "*) exit 1 ;; esac"#),
];

pub(crate) struct Clone {
    /// Of the repository.
    pub(crate) root: PathBuf,
    /// For scripts and outputs of this test.
    pub(crate) notes: PathBuf,
    /// In place of `/tmp`.
    scratch: PathBuf,
    /// Of the `cargo` in front.
    tools: PathBuf,
    host_port: u16,
    carrier_port: u16,
}

impl Clone {
    /// In a folder of this name below the target folder, as what other tests compile.
    pub(crate) fn new(name: &str) -> Self {
        let test = std::env::current_exe().unwrap();
        let target = test.ancestors().nth(3).unwrap();
        let base = target.join("readme").join(name);
        let folder = |name: &str| {
            let folder = base.join(name);
            fs::create_dir_all(&folder).unwrap();
            folder
        };
        let clone = Self {
            root: folder("amends"),
            notes: folder("notes"),
            scratch: folder("tmp"),
            tools: folder("tools"),
            host_port: free_port(),
            carrier_port: free_port(),
        };
        for folder in [&clone.notes, &clone.scratch, &clone.tools] {
            empty(folder, &[]);
        }
        // What is compiled for components stays.
        empty(&clone.root, &["target"]);
        empty(&clone.root.join("target"), &["guests"]);
        build_componentize(target);
        clone.copy();
        clone.commit();
        clone.install();
        clone
    }

    /// The page's text with the ports, folders and languages of this clone.
    pub(crate) fn localized(&self, text: &str) -> String {
        let text =
            LANGUAGES.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        text.replace("7070", &self.host_port.to_string())
            .replace("7171", &self.carrier_port.to_string())
            .replace("/tmp/", &format!("{}/", self.scratch.display()))
    }

    /// Where the host is that the page starts.
    pub(crate) fn host(&self) -> String {
        format!("http://127.0.0.1:{}", self.host_port)
    }

    /// A shell as a reader has it in the folder of the repository.
    pub(crate) fn shell(&self) -> Command {
        let path = std::env::var("PATH").unwrap();
        let mut shell = Command::new("bash");
        shell.args(["--noprofile", "--norc"]).current_dir(&self.root);
        // What cargo and the script around it say to a test is not said to a reader.
        for (name, _) in std::env::vars_os() {
            let is_ours = |prefix: &&str| name.as_bytes().starts_with(prefix.as_bytes());
            if ["CARGO_PKG", "CARGO_BIN", "CARGO_MANIFEST", "AMENDS_"].iter().any(is_ours) {
                shell.env_remove(&name);
            }
        }
        let of_the_build = ["CARGO", "CARGO_TARGET_DIR", "LD_LIBRARY_PATH", "RUSTFLAGS"];
        for name in of_the_build.iter().chain(&GIT).chain(&["FAILPOINTS"]) {
            shell.env_remove(name);
        }
        shell
            .env("PATH", format!("{}:{path}", self.tools.display()))
            // The host's port is another than what the command line goes to by itself.
            .env("AMENDS_HOST", self.host())
            .env("USER", "ada");
        shell
    }

    fn copy(&self) {
        let listed = git(&repository(), &["ls-files", "-z"]);
        for name in listed.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let name = Path::new(OsStr::from_bytes(name));
            let (from, to) = (repository().join(name), self.root.join(name));
            let Ok(about) = fs::symlink_metadata(&from) else { continue };
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            if about.is_symlink() {
                symlink(fs::read_link(&from).unwrap(), &to).unwrap();
                continue;
            }
            fs::copy(&from, &to).unwrap();
            // Cargo goes by it.
            let time = about.modified().unwrap();
            fs::File::options().write(true).open(&to).unwrap().set_modified(time).unwrap();
            if name.starts_with("examples")
                && let Ok(text) = fs::read_to_string(&to)
            {
                let localized = self.localized(&text);
                if localized != text {
                    fs::write(&to, localized).unwrap();
                }
            }
        }
    }

    fn commit(&self) {
        git(&self.root, &["init", "--quiet"]);
        git(&self.root, &["add", "--all"]);
        let author = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"];
        let commit = ["commit", "--quiet", "--no-gpg-sign", "--message", "A clone"];
        git(&self.root, &[&author[..], &commit].concat());
    }

    fn install(&self) {
        let release = self.root.join("target/release");
        fs::create_dir_all(&release).unwrap();
        for name in BUILT {
            symlink(binary(name), release.join(name)).unwrap();
        }
        let path = std::env::var("PATH").unwrap();
        for (name, answered) in TOOLS {
            let mut found = std::env::split_paths(&path).map(|folder| folder.join(name));
            let Some(real) = found.find(|real| real.is_file()) else { continue };
            let tool = self.tools.join(name);
            let script =
                format!("#!/usr/bin/env bash\n{answered}\nexec '{}' \"$@\"\n", real.display());
            fs::write(&tool, script).unwrap();
            fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

/// What git says in a folder. In a hook of git the environment names another repository.
fn git(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("git");
    for name in GIT {
        command.env_remove(name);
    }
    let output = command.args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", stderr(&output));
    output.stdout
}

/// The one binary that is not built for another test; its dependencies are there.
fn build_componentize(build: &Path) {
    let binaries = binary("amends");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--workspace", "--all-features"])
        .args(["--bin", "amends-componentize", "--config"])
        .arg(format!("build.build-dir = '{}'", build.display()))
        .arg("--target-dir")
        .arg(binaries.ancestors().nth(2).unwrap())
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

/// Nobody else takes it while this test runs: ports are handed out in turn.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Removes all that is in a folder but this.
fn empty(folder: &Path, kept: &[&str]) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        if kept.iter().any(|kept| entry.file_name() == *kept) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            fs::remove_dir_all(entry.path()).unwrap();
        } else {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}
