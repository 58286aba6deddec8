//! Components in a registry and a store of their own, which go with the process.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use amends_engine::PluginName;
use amends_registry::{PluginsConfig, Registry};
use amends_sandbox::{CacheConfig, Exports, LoadedComponent, PluginSettings, Required};
use amends_store::{Durability, Store, StoreConfig};
use anyhow::{Context as _, bail};

use super::component::{looked_at, name_of};

/// Components that a host would serve.
pub(super) struct Alone {
    pub(super) plugins: Registry,
    pub(super) store: Arc<dyn Store>,
    /// In the order in which they were given.
    pub(super) served: Vec<Served>,
    _folder: tempfile::TempDir,
}

/// A component, and the plugin that it serves.
pub(super) struct Served {
    pub(super) name: PluginName,
    pub(super) component: Arc<LoadedComponent>,
}

impl Alone {
    /// Has components serve: each the plugin that is given with it, or else that of its manifest.
    ///
    /// # Errors
    /// Why a host would refuse one of them.
    pub(super) async fn open(
        components: Vec<(Vec<u8>, Option<PluginName>)>,
        granted: impl Fn(&PluginName) -> anyhow::Result<PluginSettings>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no folder for a store")?;
        let (dir, cache) = (folder.path().join("plugins"), folder.path().join("cache"));
        fs::create_dir(&dir)?;
        // For its name and its calls; the host below takes the compiled code from the cache.
        let kept = CacheConfig { dir: cache.clone(), key: None };
        let (mut names, mut plugins) = (Vec::new(), BTreeMap::new());
        for (bytes, name) in components {
            let looked_at = looked_at(bytes.clone(), Some(&kept)).await?;
            let (name, component) = match name {
                Some(name) => (name, Some(looked_at.manifest.name.clone())),
                None => (name_of(&looked_at)?, None),
            };
            fs::write(dir.join(format!("{name}.wasm")), &bytes)?;
            let Exports { execute, compensate, .. } = looked_at.exports;
            // What is required serves when the host is open.
            let required = Required { execute, compensate };
            let settings = PluginSettings { required, component, ..granted(&name)? };
            if plugins.insert(name.clone(), settings).is_some() {
                bail!("both components have the name {name}: an undo of its own has another");
            }
            names.push(name);
        }
        let url = format!("sqlite:{}", folder.path().join("test.db").display());
        let store = amends_store::open(&StoreConfig {
            url,
            durability: Durability::Relaxed,
            archive: None,
        })?;
        let config = PluginsConfig { dir, cache, plugins, ..PluginsConfig::default() };
        let plugins = Registry::open(config, Arc::clone(&store)).await?;
        let served = names.into_iter().map(|name| served(&plugins, name));
        let served = served.collect::<anyhow::Result<_>>()?;
        Ok(Self { plugins, store, served, _folder: folder })
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        self.plugins.close().await;
        Ok(self.store.close().await?)
    }
}

/// The component that serves a plugin.
fn served(plugins: &Registry, name: PluginName) -> anyhow::Result<Served> {
    let Some(component) = plugins.active(&name) else {
        let refused = plugins.info(&name).and_then(|info| info.rejections.into_iter().next());
        bail!("{}", refused.map_or_else(|| "nobody serves it".to_owned(), |last| last.reason));
    };
    Ok(Served { name, component })
}
