//! A PostgreSQL database of its own for each test.
//!
//! The server is the one at 127.0.0.1:5432 when it answers and lets the user make databases without a
//! password; else one that is started from the installed binaries, for this process. When neither is there, the
//! tests say so on standard error, and pass.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use amends_store::conformance::StoreLocation;
use amends_store::{Backup, Durability, OpenError, PostgresStore, Store};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// Where PostgreSQL's programs are, on Debian and its relatives.
const PROGRAMS: &str = "/usr/lib/postgresql";

/// A server that tests may make databases on.
pub(crate) struct Server {
    /// The URL without a database: `postgres://USER@HOST:PORT`.
    pub(crate) url: String,
    /// The address, for a proxy.
    pub(crate) address: std::net::SocketAddr,
}

/// Says that a test was not run, and why.
fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Returns the server; none when there is none, which was said.
pub(crate) fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER
        .get_or_init(|| {
            let found = existing().or_else(started);
            if found.is_none() {
                skip("no PostgreSQL server at 127.0.0.1:5432, and none can be started");
            }
            found
        })
        .as_ref()
}

/// Connects and answers whether databases can be made.
fn answers(url: &str) -> bool {
    let url = format!("{url}/postgres?connect_timeout=2");
    in_runtime(async move {
        let Ok(client) = connect(&url).await else { return false };
        let sql = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user";
        client.query_one(sql, &[]).await.is_ok_and(|row| row.get(0))
    })
}

/// Runs a future on a thread and a runtime of its own, so that it may be called anywhere.
fn in_runtime<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future)
    };
    std::thread::spawn(run).join().unwrap()
}

pub(crate) async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn existing() -> Option<Server> {
    let users = ["postgres", "root"];
    let urls = users.map(|user| format!("postgres://{user}@127.0.0.1:5432"));
    let url = urls.into_iter().find(|url| answers(url))?;
    Some(Server { url, address: ([127, 0, 0, 1], 5432).into() })
}

/// A server that was started for this process, and ends with it.
struct Started {
    child: Child,
    _folder: TempDir,
}

fn started() -> Option<Server> {
    static STARTED: OnceLock<Option<Started>> = OnceLock::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
    let started = STARTED.get_or_init(|| start(port));
    let started = started.as_ref()?;
    let url = format!("postgres://postgres@127.0.0.1:{port}");
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        if answers(&url) {
            return Some(Server { url, address: ([127, 0, 0, 1], port).into() });
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = started.child.id();
    None
}

/// Makes a command that runs as `postgres` when this process is root, which PostgreSQL refuses.
fn as_user(program: &Path) -> Command {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt as _;
        own.uid() == 0
    });
    let mut command = if is_root {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            "postgres",
            "--regid",
            "postgres",
            "--clear-groups",
            "--pdeathsig",
            "KILL",
        ]);
        command.arg(program);
        command
    } else {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        command
    };
    // A group of its own: Ctrl-C ends the tests, and the server with them.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn start(port: u16) -> Option<Started> {
    let versions = std::fs::read_dir(PROGRAMS).ok()?.flatten();
    let mut versions: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    versions.sort();
    let programs = versions.pop()?;
    let folder = tempfile::tempdir().ok()?;
    let data = folder.path().join("data");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), open).ok()?;
    let made = as_user(&programs.join("initdb"))
        .args([
            "--auth",
            "trust",
            "--username",
            "postgres",
            "--encoding",
            "UTF8",
            "--no-sync",
            "-D",
        ])
        .arg(&data)
        .status();
    if !made.is_ok_and(|made| made.success()) {
        return None;
    }
    let (started, told) = std::sync::mpsc::channel();
    // The server ends with the thread that starts it, so this one stays until the process ends.
    std::thread::spawn(move || {
        let child = as_user(&programs.join("postgres"))
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k", "", "-c", "fsync=off", "-D"])
            .arg(&data)
            .spawn();
        let _ = started.send(child);
        loop {
            std::thread::park();
        }
    });
    let child = told.recv().ok()?.ok()?;
    Some(Started { child, _folder: folder })
}

/// A database with a random name, which is dropped with this.
pub(crate) struct Database {
    server: &'static Server,
    pub(crate) name: String,
    folder: TempDir,
}

impl Database {
    /// Makes an empty database. None when there is no server.
    pub(crate) fn new() -> Option<Self> {
        let server = server()?;
        let name = format!("amends_test_{}", uuid::Uuid::now_v7().simple());
        let database = Self { server, name, folder: tempfile::tempdir().unwrap() };
        database.create(&database.name);
        Some(database)
    }

    fn create(&self, name: &str) {
        let (url, sql) = (self.admin(), format!("CREATE DATABASE {name}"));
        in_runtime(async move { connect(&url).await.unwrap().batch_execute(&sql).await.unwrap() });
    }

    /// The URL of the database that commands about databases are given in.
    pub(crate) fn admin(&self) -> String {
        format!("{}/postgres", self.server.url)
    }

    /// The URL.
    pub(crate) fn url(&self) -> String {
        format!("{}/{}", self.server.url, self.name)
    }

    /// The URL over a proxy at a port of this machine.
    pub(crate) fn url_over(&self, port: u16) -> String {
        let user = self.server.url.split(['/', '@']).nth(2).unwrap();
        format!("postgres://{user}@127.0.0.1:{port}/{}", self.name)
    }

    /// The address of the server.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.server.address
    }

    fn open_at(&self, name: &str) -> Result<PostgresStore, OpenError> {
        let url = format!("{}/{name}", self.server.url);
        let store = PostgresStore::open(&url, Durability::Relaxed)?;
        store.with_archive(Some(&self.folder.path().join(name).into()))
    }

    fn empty_name(&self) -> String {
        format!("{}_empty", self.name)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (url, names) = (self.admin(), [self.name.clone(), self.empty_name()]);
        let drop = async move {
            let Ok(client) = connect(&url).await else { return };
            for name in names {
                let _ = client
                    .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                    .await;
            }
        };
        in_runtime(drop);
    }
}

impl StoreLocation for Database {
    fn open_store(&self) -> BoxFuture<'_, Result<std::sync::Arc<dyn Store>, OpenError>> {
        let store = self.open_at(&self.name);
        async move { Ok(std::sync::Arc::new(store?) as std::sync::Arc<dyn Store>) }.boxed()
    }

    fn take_over_store(&self) -> BoxFuture<'_, Result<std::sync::Arc<dyn Store>, OpenError>> {
        self.open_store()
    }

    fn open_empty_store(&self) -> BoxFuture<'_, Result<std::sync::Arc<dyn Store>, OpenError>> {
        self.create(&self.empty_name());
        let store = self.open_at(&self.empty_name());
        async move { Ok(std::sync::Arc::new(store?) as std::sync::Arc<dyn Store>) }.boxed()
    }

    fn makes_backups(&self) -> bool {
        false
    }

    fn open_backup(
        &self,
        _: Backup,
    ) -> BoxFuture<'_, Result<std::sync::Arc<dyn Store>, OpenError>> {
        unreachable!("the store makes no backups")
    }
}
