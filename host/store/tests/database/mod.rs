//! A PostgreSQL database of its own for each test.
//!
//! The server is the one at 127.0.0.1:5432 when it answers and lets the user make databases without a
//! password; else one that is started from the installed binaries, for this process. When neither is there, the
//! tests say so on standard error, and pass.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod own_server;

use std::io::Write as _;
use std::sync::OnceLock;

use amends_store::conformance::StoreLocation;
use amends_store::{Backup, Durability, OpenError, PostgresStore, Store};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use own_server::OwnServer;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// A server that tests may make databases on.
pub(crate) struct Server {
    /// The URL without a database: `postgres://USER@HOST:PORT`.
    pub(crate) url: String,
    /// The address, for a proxy.
    pub(crate) address: std::net::SocketAddr,
}

/// Says that a test was not run, and why.
pub(crate) fn skip(why: &str) {
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

/// Makes a server of a test's own, which is not started yet; none when it cannot be made, which is said.
pub(crate) fn own_server() -> Option<OwnServer> {
    let own = OwnServer::new();
    if own.is_none() {
        skip("no PostgreSQL server of its own can be made: initdb is missing");
    }
    own
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

/// A server that is started for this process, and ends with it.
fn started() -> Option<Server> {
    static STARTED: OnceLock<Option<OwnServer>> = OnceLock::new();
    let own = STARTED.get_or_init(|| {
        let mut own = OwnServer::new()?;
        own.start();
        Some(own)
    });
    let own = own.as_ref()?;
    Some(Server { url: own.url(), address: ([127, 0, 0, 1], own.port).into() })
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
