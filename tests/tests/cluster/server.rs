//! A PostgreSQL server of the test's own, which it may restart as it likes.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::place::{SOON, signal};

/// Where PostgreSQL's programs are, on Debian and its relatives.
const PROGRAMS: &str = "/usr/lib/postgresql";

/// The user as whom a server runs that root starts.
const USER: &str = "postgres";

/// What the last line of the server's file says when the server takes connections.
const READY: &str = "ready";

pub(crate) struct Server {
    programs: PathBuf,
    folder: tempfile::TempDir,
    pub(crate) port: u16,
    /// Where it listens.
    addresses: String,
    child: Option<Child>,
}

impl Server {
    /// Starts a server with an empty database. None when the programs are not here, which was said.
    pub(crate) fn start() -> Option<Self> {
        Self::start_at("127.0.0.1".to_owned())
    }

    /// The same, for the hosts of a network in which this is the server's address as well.
    pub(crate) fn start_for(network: Ipv4Addr) -> Option<Self> {
        Self::start_at(format!("127.0.0.1,{network}"))
    }

    fn start_at(addresses: String) -> Option<Self> {
        let versions = fs::read_dir(PROGRAMS).into_iter().flatten().flatten();
        let programs = versions.map(|version| version.path().join("bin"));
        let Some(programs) = programs.filter(|bin| bin.join("postgres").is_file()).max() else {
            amends_tests::skipped("several hosts of one database", "PostgreSQL is not installed");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        // Another user makes the data folder in it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { programs, folder, port, addresses, child: None };
        let made = server
            .command("initdb")
            .args(["--auth", "trust", "--username", USER, "--encoding", "UTF8"])
            .args(["--locale", "C", "--no-sync", "-D"])
            .arg(server.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let rules = server.data().join("pg_hba.conf");
        let local = fs::read_to_string(&rules).unwrap();
        fs::write(&rules, format!("{local}host all all samenet trust\n")).unwrap();
        server.serve();
        Some(server)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A command that runs as another user when this process is root, which PostgreSQL refuses. It ends with this
    /// thread.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]);
        }
        command.args(["--pdeathsig", "KILL"]).arg(self.programs.join(program));
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    fn serve(&mut self) {
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        let port = self.port.to_string();
        let child = self
            .command("postgres")
            .args(["-h", &self.addresses, "-p", &port, "-k", "", "-c", "max_connections=200", "-D"])
            .arg(self.data())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
        let began = Instant::now();
        let file = self.data().join("postmaster.pid");
        let is_ready = |file: &Path| {
            fs::read_to_string(file).is_ok_and(|text| text.trim_end().ends_with(READY))
        };
        while !is_ready(&file) {
            assert!(began.elapsed() < SOON, "PostgreSQL does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Breaks all connections off and starts again, as after a crash: `pg_ctl restart -m immediate`.
    pub(crate) fn restart(&mut self, away: Duration) {
        self.stop();
        std::thread::sleep(away);
        self.serve();
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(&child, Signal::QUIT);
            child.wait().unwrap();
        }
    }

    /// The URL of the database over a port of this machine.
    pub(crate) fn url_over(port: u16) -> String {
        format!("postgres://{USER}@127.0.0.1:{port}/postgres")
    }

    pub(crate) fn url(&self) -> String {
        Self::url_over(self.port)
    }

    /// The URL for a host in a network that nobody else is in.
    pub(crate) fn url_at(&self, address: Ipv4Addr) -> String {
        format!("postgres://{USER}@{address}:{}/postgres?sslmode=disable", self.port)
    }

    /// The number of the process that runs the host of this name.
    pub(crate) fn process_of(&self, host: &str) -> i64 {
        self.number(&format!("SELECT id FROM hosts WHERE name = '{host}'"))
    }

    /// The last batch that a process of this number has written, 0 when it has written none.
    pub(crate) fn last_batch_of(&self, process: i64) -> i64 {
        self.number(&format!("SELECT coalesce(max(number), 0) FROM batches WHERE host = {process}"))
    }

    fn number(&self, query: &str) -> i64 {
        let output = Command::new(self.programs.join("psql"))
            .args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", query, &self.url()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
