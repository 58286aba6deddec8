//! A root file system that a host has for itself, as engines of containers make them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::place::{SOON, agent, stderr, stdout};

const ENTER: &str = include_str!("enter.sh");

/// Mounts and processes of its own. [`ENTER`] keeps the mounts from the machine's.
const NAMESPACES: [&str; 5] = ["--mount", "--propagation", "unchanged", "--pid", "--fork"];

/// Whether this process may make such roots; says so when it may not.
pub(super) fn may_enter(what: &str) -> bool {
    let tried = Command::new("unshare").args(NAMESPACES).arg("true").output();
    let why = match tried {
        Ok(output) if output.status.success() => return true,
        Ok(output) => stderr(&output).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    amends_tests::skipped(what, &format!("only root may mount: {why}"));
    false
}

/// The libraries that a program is linked with, and what loads them.
pub(super) fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// A root file system, in a folder that goes with it.
pub(super) struct Root {
    folder: tempfile::TempDir,
}

/// Who runs in a root, where, and with what.
pub(super) struct Process<'a> {
    pub(super) user: u32,
    pub(super) group: u32,
    /// The folder that it runs in.
    pub(super) folder: &'a str,
    /// The only folder that it can write to.
    pub(super) writable: &'a str,
    pub(super) environment: &'a [(&'a str, &'a str)],
    pub(super) command: &'a [String],
}

impl Root {
    /// Makes an empty one.
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Self { folder };
        for path in ["/", "/proc"] {
            root.folder(path);
        }
        // Other users get through it.
        fs::set_permissions(root.path("/"), fs::Permissions::from_mode(0o755)).unwrap();
        root
    }

    /// What is at this path outside of the root.
    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join("root").join(inside.trim_start_matches('/'))
    }

    /// Makes a folder.
    pub(super) fn folder(&self, inside: &str) {
        fs::create_dir_all(self.path(inside)).unwrap();
    }

    /// Copies a file into it.
    pub(super) fn copy(&self, file: &Path, inside: &str) {
        let target = self.path(inside);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }

    /// Copies the libraries of a program to where they are on this machine.
    pub(super) fn copy_libraries(&self, program: &Path) {
        for library in libraries(program) {
            self.copy(&library, library.to_str().unwrap());
        }
    }

    /// Runs a host in it, as the first process of a process namespace, and waits until it is ready on a port.
    pub(super) fn run(&self, process: &Process<'_>, port: u16) -> Running {
        let log = self.folder.path().join("log");
        let mut command = Command::new("unshare");
        command
            .args(NAMESPACES)
            .args(["--kill-child", "sh", "-euc", ENTER, "sh"])
            .arg(self.path("/"))
            .args([process.user.to_string(), process.group.to_string()])
            .args([process.folder, process.writable])
            .args(process.command)
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap())
            .envs(process.environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap());
        let mut running = Running { outer: command.spawn().unwrap(), log };
        let began = Instant::now();
        let url = format!("http://127.0.0.1:{port}/readyz");
        while !agent().get(&url).call().is_ok_and(|answer| answer.status() == 200) {
            let ended = running.outer.try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < SOON, "{ended:?}: {}", running.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }
}

/// A host in a root.
pub(super) struct Running {
    /// What has made the namespaces. It waits for the host, and ends as the host does.
    outer: Child,
    log: PathBuf,
}

impl Running {
    /// What the kernel says of the host's process.
    pub(super) fn status(&self, file: &str) -> String {
        let id = self.inner().unwrap().as_raw_nonzero();
        fs::read_to_string(format!("/proc/{id}/{file}")).unwrap()
    }

    /// SIGTERM to the host; its exit code, and what it has logged.
    pub(super) fn stop(mut self) -> (Option<i32>, String) {
        kill_process(self.inner().unwrap(), Signal::TERM).unwrap();
        let began = Instant::now();
        loop {
            if let Some(status) = self.outer.try_wait().unwrap() {
                return (status.code(), self.log());
            }
            assert!(began.elapsed() < SOON, "the host does not stop: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn inner(&self) -> Option<Pid> {
        let id = self.outer.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let (Ok(None), Some(inner)) = (self.outer.try_wait(), self.inner()) {
            let _ = kill_process(inner, Signal::KILL);
        }
        let _ = self.outer.kill();
        let _ = self.outer.wait();
    }
}
