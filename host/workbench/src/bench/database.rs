//! A database of a PostgreSQL server that a run makes for itself and drops.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};

use super::measure::stat;

/// A database of its own for one run; dropped when it is dropped.
pub(super) struct Database {
    /// Where the server is: a URL with another database of it, which stays as it is.
    server: String,
    name: String,
}

impl Database {
    /// Makes an empty database on the server that a URL names.
    pub(super) async fn new(server: &str) -> anyhow::Result<Self> {
        let name = format!("amends_bench_{}", uuid::Uuid::now_v7().simple());
        let client = connect(server).await?;
        client
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await
            .with_context(|| format!("--store: no database `{name}` can be made"))?;
        Ok(Self { server: server.to_owned(), name })
    }

    /// The URL of the database.
    pub(super) fn url(&self) -> anyhow::Result<String> {
        let (head, parameters) = match self.server.split_once('?') {
            Some((head, parameters)) => (head, format!("?{parameters}")),
            None => (self.server.as_str(), String::new()),
        };
        // `postgres://USER@HOST:PORT/DATABASE`
        let (place, _) = head.rsplit_once('/').context("--store: a URL names a database")?;
        Ok(format!("{place}/{}{parameters}", self.name))
    }

    pub(super) async fn connect(&self) -> anyhow::Result<Client> {
        connect(&self.url()?).await
    }

    /// What the database takes on disk.
    pub(super) async fn bytes(&self) -> anyhow::Result<u64> {
        let sql = "SELECT pg_database_size(current_database())";
        let bytes: i64 = self.connect().await?.query_one(sql, &[]).await?.get(0);
        Ok(bytes.unsigned_abs())
    }

    /// The processor time that the server has used, of all its processes; none when they are not visible here, as those
    /// of a container.
    pub(super) async fn cpu(&self) -> anyhow::Result<Option<Duration>> {
        let client = self.connect().await?;
        let own: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
        let Ok(name) = fs::read_to_string(format!("/proc/{own}/comm")) else { return Ok(None) };
        if name.trim() != "postgres" {
            return Ok(None);
        }
        let parent = stat(own.unsigned_abs())?.parent;
        let of_parent = stat(parent)?;
        let mut cpu = of_parent.cpu + of_parent.cpu_of_children;
        for entry in fs::read_dir("/proc").context("no /proc")?.flatten() {
            let Ok(process) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            // One that ends meanwhile is counted with those of the parent.
            if let Ok(found) = stat(process)
                && found.parent == parent
            {
                cpu += found.cpu;
            }
        }
        Ok(Some(cpu))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, sql) =
            (self.server.clone(), format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        // Also while the bench is being cancelled.
        let drop = std::thread::spawn(move || -> anyhow::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                connect(&server).await?.batch_execute(&sql).await.context("it is not dropped")
            })
        });
        if !matches!(drop.join(), Ok(Ok(()))) {
            tracing::warn!(database = self.name, "the database of a run could not be dropped");
        }
    }
}

async fn connect(url: &str) -> anyhow::Result<Client> {
    let mut config: Config = url.parse().context("--store: this is not the URL of a database")?;
    let is_here = config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Host::Unix(_) => true,
    });
    anyhow::ensure!(
        is_here,
        "--store: the server has to be on this machine, because connections of the bench are not encrypted"
    );
    config.ssl_mode(SslMode::Disable);
    if config.get_password().is_none()
        && let Ok(password) = std::env::var("PGPASSWORD")
    {
        config.password(password);
    }
    let (client, connection) =
        config.connect(NoTls).await.context("--store: the server does not let this program in")?;
    tokio::spawn(connection);
    Ok(client)
}
