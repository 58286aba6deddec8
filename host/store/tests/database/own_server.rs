//! A PostgreSQL server of a test's own, which it may stop, configure and promote.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Where PostgreSQL's programs are, on Debian and its relatives.
const PROGRAMS: &str = "/usr/lib/postgresql";

/// How long a server may take to answer.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// A server, which is stopped when this is dropped, also when its process is killed.
pub(crate) struct OwnServer {
    programs: PathBuf,
    folder: TempDir,
    pub(crate) port: u16,
    running: Option<Running>,
}

struct Running {
    child: Child,
    /// The server ends with the thread that started it, which waits for this to be dropped.
    _thread: Sender<()>,
}

/// Makes a command that runs as `postgres` when this process is root, which PostgreSQL refuses.
fn as_user(program: &Path) -> Command {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let mut command = Command::new("setpriv");
    if is_root {
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig", "KILL"]).arg(program);
    // A group of its own: Ctrl-C ends the tests, and the server with them.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn is_done(command: &mut Command) -> bool {
    command.status().is_ok_and(|done| done.success())
}

impl OwnServer {
    /// Makes a folder for a server, and gives it a port. None when the programs are not installed.
    fn place() -> Option<Self> {
        let versions = std::fs::read_dir(PROGRAMS).ok()?.flatten();
        let mut versions: Vec<PathBuf> =
            versions.map(|version| version.path().join("bin")).collect();
        versions.retain(|programs| programs.join("postgres").is_file());
        versions.sort();
        let programs = versions.pop()?;
        let folder = tempfile::tempdir().ok()?;
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).ok()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        Some(Self { programs, folder, port, running: None })
    }

    /// Makes a server that is not started yet. None when the programs are not installed.
    pub(crate) fn new() -> Option<Self> {
        Self::place().filter(|server| {
            let mut initdb = as_user(&server.programs.join("initdb"));
            initdb.args(["--auth", "trust", "--username", "postgres", "--encoding", "UTF8"]);
            is_done(initdb.args(["--no-sync", "-D"]).arg(server.data()))
        })
    }

    /// Makes a standby of a server that runs, under a name for `synchronous_standby_names`. It is not started yet.
    pub(crate) fn standby_of(primary: &Self, name: &str) -> Self {
        let server = Self::place().unwrap();
        let from =
            format!("host=127.0.0.1 port={} user=postgres application_name={name}", primary.port);
        let mut copy = as_user(&server.programs.join("pg_basebackup"));
        copy.args([
            "--no-sync",
            "--checkpoint=fast",
            "--write-recovery-conf",
            "-X",
            "stream",
            "-d",
            &from,
        ]);
        assert!(is_done(copy.arg("-D").arg(server.data())), "pg_basebackup failed");
        server
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Adds a line to the settings. A later line replaces an earlier one.
    pub(crate) fn configure(&self, line: &str) {
        let path = self.data().join("postgresql.conf");
        let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }

    /// Writes a file into the folder of the server, for its user alone.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.data().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let owner = std::fs::metadata(self.data()).unwrap();
        std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }

    /// Starts the server. Whoever asks it too early is refused.
    pub(crate) fn launch(&mut self) {
        let mut command = as_user(&self.programs.join("postgres"));
        let port = self.port.to_string();
        command.args(["-h", "127.0.0.1", "-p", &port, "-k", "", "-c", "fsync=off", "-D"]);
        command.arg(self.data());
        let (started, told) = channel();
        let (thread, until) = channel::<()>();
        std::thread::spawn(move || {
            let _ = started.send(command.spawn());
            let _ = until.recv();
        });
        let child = told.recv().unwrap().unwrap();
        self.running = Some(Running { child, _thread: thread });
    }

    /// Starts the server, and waits until it answers.
    pub(crate) fn start(&mut self) {
        self.launch();
        let until = Instant::now() + START_TIME_MAX;
        let mut ready = as_user(&self.programs.join("pg_isready"));
        ready.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        while !is_done(&mut ready) {
            assert!(Instant::now() < until, "the server does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the server: `fast`, or `immediate`, which is a crash.
    pub(crate) fn stop(&mut self, mode: &str) {
        let Some(mut running) = self.running.take() else { return };
        let mut stop = as_user(&self.programs.join("pg_ctl"));
        stop.args(["stop", "-w", "-m", mode, "-D"]).arg(self.data());
        if !is_done(&mut stop) {
            let _ = running.child.kill();
        }
        let _ = running.child.wait();
    }

    /// Reads the settings again.
    pub(crate) fn reload(&self) {
        let mut reload = as_user(&self.programs.join("pg_ctl"));
        assert!(is_done(reload.args(["reload", "-D"]).arg(self.data())));
    }

    /// Makes a folder of the user of the server in a folder that it may write.
    pub(crate) fn folder_in(folder: &Path, name: &str) -> String {
        let path = folder.join(name);
        assert!(is_done(as_user(Path::new("mkdir")).arg(&path)));
        path.display().to_string()
    }

    /// Makes a standby the primary, and waits until it is.
    pub(crate) fn promote(&self) {
        let mut promote = as_user(&self.programs.join("pg_ctl"));
        promote.args(["promote", "-w", "-D"]).arg(self.data());
        assert!(is_done(&mut promote), "the standby is not promoted");
    }

    /// The URL without a database.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}", self.port)
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.stop("immediate");
    }
}
