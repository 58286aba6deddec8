//! A host to measure: its folder, its config, and what is in its store afterwards.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use amends_store::StoreConfig;
use anyhow::Context as _;

use super::{Bench, Durability, Outcome};
use crate::config::{Loaded, Overrides, load};

/// The component of every step: it does nothing.
const TRIVIAL: &[u8] = include_bytes!("../../../../../plugins/trivial/trivial.wasm");

const STEPS: [&str; 3] = ["prescription", "inventory", "shipment"];

/// The definition that is run.
pub(super) const DEFINITION: &str = "order-fulfillment";

/// A folder with everything that a host needs; removed when it is dropped.
pub(super) struct Place {
    folder: tempfile::TempDir,
    durability: Durability,
}

/// What is in the store after a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    /// Bytes of its file, by saga.
    pub(super) bytes: f64,
    /// Events, by saga.
    pub(super) events: f64,
}

impl Place {
    pub(super) fn new(args: &Bench) -> anyhow::Result<Self> {
        let folder = match &args.dir {
            Some(dir) => tempfile::tempdir_in(dir)
                .with_context(|| format!("--dir {}: no folder can be made in it", dir.display()))?,
            None => tempfile::tempdir().context("no folder for a store")?,
        };
        let plugins = folder.path().join("plugins");
        fs::create_dir(&plugins).context("no folder for plugins")?;
        let durability = match args.durability {
            Durability::Full => "full",
            Durability::Relaxed => "relaxed",
        };
        let mut config = format!(
            "[host]\nlisten = \"127.0.0.1:0\"\n[store]\nurl = \"sqlite:amends.db\"\n\
             durability = \"{durability}\"\n[plugins]\ndir = \"plugins\"\ncache = \"cache\"\n"
        );
        let mut saga = format!("[[saga]]\nname = \"{DEFINITION}\"\n");
        for step in STEPS {
            fs::write(plugins.join(format!("{step}.wasm")), TRIVIAL).context("no plugin")?;
            let reuse = args.reuse;
            let _ = writeln!(config, "[plugin.{step}]\nconcurrency = 640\nreuse = {reuse}");
            let _ = write!(
                saga,
                "[[saga.step]]\nname = \"{step}\"\nplugin = \"{step}\"\ninput = \"input\"\n"
            );
        }
        fs::write(folder.path().join("amends.toml"), config + &saga).context("no config")?;
        Ok(Self { folder, durability: args.durability })
    }

    pub(super) fn config_file(&self) -> PathBuf {
        self.folder.path().join("amends.toml")
    }

    pub(super) fn config(&self) -> anyhow::Result<Loaded> {
        load(&self.config_file(), &Overrides::default())
            .map_err(|report| anyhow::anyhow!("the config of the bench is wrong: {report}"))
    }

    /// Opens the store that a host has closed and looks for what was counted: `sagas` of them,
    /// each with the end that it must have.
    pub(super) async fn count(&self, outcome: Outcome, sagas: u64) -> anyhow::Result<Stored> {
        let path = self.folder.path().join("amends.db");
        let bytes = fs::metadata(&path).context("the store is gone")?.len();
        let url = format!("sqlite:{}", path.display());
        let durability = match self.durability {
            Durability::Full => amends_store::Durability::Full,
            Durability::Relaxed => amends_store::Durability::Relaxed,
        };
        let store = amends_store::open(&StoreConfig { url, durability })?;
        let counts = store.counts().await?;
        let events = store.head().borrow().0;
        store.close().await?;
        let ended = counts.get(&outcome.end()).copied().unwrap_or_default();
        let all: u64 = counts.values().sum();
        anyhow::ensure!(
            ended == sagas && all == sagas,
            "{sagas} sagas were counted as {}, and the store has {counts:?}",
            outcome.end()
        );
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let by_saga = |number: u64| number as f64 / sagas.max(1) as f64;
        Ok(Stored { bytes: by_saga(bytes), events: by_saga(events) })
    }
}
