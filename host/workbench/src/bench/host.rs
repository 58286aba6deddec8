//! A host to measure: its folder, its config, and what is in its store afterwards.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amends_engine::SagaStatus;
use amends_store::Store;
use anyhow::Context as _;

use super::database::Database;
use super::options::{BenchOptions, Load, PLUGINS, durability_word, plugin, step};
use amends_config::{Loaded, Overrides, load, open_store};

/// The component of every step: it does nothing.
const TRIVIAL: &[u8] = include_bytes!("../../../../plugins/trivial/trivial.wasm");

/// The plugin that is swapped.
pub(super) const SWAPPED: &str = "shipment";

/// Sagas that wait: half for a signal, half for a time. The first step of each is done.
pub(super) const WAITING: [&str; 2] = ["waits-for-signal", "waits-for-time"];

/// The definition that is run.
pub(super) const DEFINITION: &str = "order-fulfillment";

/// A folder with everything that a host needs; removed when it is dropped, and the database with it.
pub(super) struct Place {
    folder: tempfile::TempDir,
    /// None: the store is a file of the folder.
    database: Option<Database>,
}

/// What is in the store after a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    /// Bytes that its file has grown by, by saga.
    pub(super) bytes: f64,
    /// Events, by saga.
    pub(super) events: f64,
}

/// What is in a store that is closed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Before {
    bytes: u64,
    events: u64,
}

impl Place {
    pub(super) async fn new(options: &BenchOptions, load: Load) -> anyhow::Result<Self> {
        let folder = match &options.dir {
            Some(dir) => tempfile::tempdir_in(dir)
                .with_context(|| format!("--dir {}: no folder can be made in it", dir.display()))?,
            None => tempfile::tempdir().context("no folder for a store")?,
        };
        let plugins = folder.path().join("plugins");
        fs::create_dir(&plugins).context("no folder for plugins")?;
        let durability = durability_word(options.durability);
        let database = match &options.server {
            Some(server) => Some(Database::new(server).await?),
            None => None,
        };
        let url = match &database {
            Some(database) => database.url()?,
            None => "sqlite:amends.db".to_owned(),
        };
        let mut config = format!(
            "[store]\nurl = \"{url}\"\ndurability = \"{durability}\"\n\
             [plugins]\ndir = \"plugins\"\ncache = \"cache\"\n"
        );
        for plugin in PLUGINS {
            fs::write(plugins.join(format!("{plugin}.wasm")), TRIVIAL).context("no plugin")?;
            let reuse = options.reuse;
            let _ = writeln!(
                config,
                "[plugin.{plugin}]\ncomponent = \"trivial\"\nconcurrency = 640\nreuse = {reuse}"
            );
        }
        let _ = writeln!(config, "[[saga]]\nname = \"{DEFINITION}\"");
        for index in 0..load.steps {
            let _ = writeln!(config, "{}", call(&step(index), plugin(index)));
        }
        for (name, waits) in
            WAITING.into_iter().zip(["wait = { signal = \"go\" }", "sleep = \"1h\""])
        {
            let first = call(&step(0), plugin(0));
            let _ = writeln!(
                config,
                "[[saga]]\nname = \"{name}\"\n{first}\n[[saga.step]]\nname = \"waits\"\n{waits}"
            );
        }
        for host in 0..load.hosts {
            let config =
                format!("[host]\nname = \"host-{host}\"\nlisten = \"127.0.0.1:0\"\n{config}");
            fs::write(folder.path().join(format!("host-{host}.toml")), config)
                .context("no config")?;
        }
        Ok(Self { folder, database })
    }

    pub(super) fn database(&self) -> Option<&Database> {
        self.database.as_ref()
    }

    /// Drops another component into the folder: the same code, with a section that says `number`.
    pub(super) fn swap(&self, number: u64) -> std::io::Result<()> {
        // A custom section has the id 0, its length, the length of its name and the name
        // (WebAssembly, binary format, 5.5.3).
        let name = format!("swap-{number:08}");
        let mut bytes = TRIVIAL.to_vec();
        let length = u8::try_from(name.len()).unwrap_or(0);
        bytes.extend([0, length + 1, length]);
        bytes.extend(name.as_bytes());
        let plugins = self.folder().join("plugins");
        // Renamed, so that nobody reads half of it.
        let beside = plugins.join("shipment.tmp");
        fs::write(&beside, bytes)?;
        fs::rename(beside, plugins.join(format!("{SWAPPED}.wasm")))
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The config of one of the hosts, from 0 on.
    pub(super) fn config_file(&self, host: usize) -> PathBuf {
        self.folder.path().join(format!("host-{host}.toml"))
    }

    pub(super) fn config(&self) -> anyhow::Result<Loaded> {
        load(&self.config_file(0), &Overrides::default())
            .map_err(|report| anyhow::anyhow!("the config of the bench is wrong: {report}"))
    }

    fn store(&self) -> anyhow::Result<Arc<dyn Store>> {
        Ok(open_store(&self.config()?.config)?)
    }

    /// What is in the store before a run: nothing when there is none yet.
    pub(super) async fn before(&self) -> anyhow::Result<Before> {
        let bytes = match &self.database {
            Some(database) => database.bytes().await?,
            None => match self.file_bytes() {
                Ok(bytes) => bytes,
                Err(_) => return Ok(Before::default()),
            },
        };
        let store = self.store()?;
        let events = store.maintenance().events().await?;
        store.close().await?;
        Ok(Before { bytes, events })
    }

    fn file_bytes(&self) -> anyhow::Result<u64> {
        let file = fs::metadata(self.folder().join("amends.db")).context("the store is gone")?;
        Ok(file.len())
    }

    /// Opens the store that a host has closed and looks for what was counted: `sagas` of them and
    /// those from before, each with the end that it must have, and those that wait.
    pub(super) async fn count(
        &self,
        load: Load,
        sagas: u64,
        before: Before,
    ) -> anyhow::Result<Stored> {
        let bytes = match &self.database {
            Some(database) => database.bytes().await?,
            None => self.file_bytes()?,
        };
        let store = self.store()?;
        let counts = store.sagas().counts().await?;
        let events = store.maintenance().events().await?;
        store.close().await?;
        let end = load.outcome.end();
        let of = |status: SagaStatus| counts.get(&status).copied().unwrap_or_default();
        let all: u64 = counts.values().sum();
        let (ended, waiting) = (load.stored + sagas, load.waiting);
        anyhow::ensure!(
            of(end) == ended && of(SagaStatus::Waiting) == waiting && all == ended + waiting,
            "{ended} sagas were counted as {end} and {waiting} as waiting, and the store has \
             {counts:?}"
        );
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let by_saga = |number: u64| number as f64 / sagas.max(1) as f64;
        let bytes = bytes.saturating_sub(before.bytes);
        Ok(Stored { bytes: by_saga(bytes), events: by_saga(events - before.events) })
    }
}

/// A step that calls a plugin, as the config has it.
fn call(name: &str, plugin: &str) -> String {
    format!("[[saga.step]]\nname = \"{name}\"\nplugin = \"{plugin}\"\ninput = \"input\"")
}
