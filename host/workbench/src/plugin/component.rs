//! A component that no host serves: where it comes from, how it looks, and what a config grants it.

use std::path::Path;
use std::sync::Arc;

use amends_engine::PluginName;
use amends_registry::PluginsConfig;
use amends_sandbox::{
    CacheConfig, Inspection, LoadedComponent, Loader, PluginSettings, Priority, TrustedKeys,
};
use anyhow::Context as _;

use super::oci;
use amends_config::{OverrideFlags, Overrides, load};

/// The bytes of a file, or of a component in a registry (`oci://…`). May be cancelled.
///
/// # Errors
/// When they cannot be had.
pub async fn bytes_of(file: &Path) -> anyhow::Result<Vec<u8>> {
    match file.to_str().filter(|text| oci::is_reference(text)) {
        Some(text) => oci::pull(&text.parse::<oci::Reference>()?).await,
        None => std::fs::read(file).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// As a host would load it, with everything granted and whoever signed it; `cache` keeps the compiled
/// code.
///
/// # Errors
/// Why a host would refuse it, whatever it is granted.
pub(super) async fn looked_at(
    bytes: Vec<u8>,
    cache: Option<&CacheConfig>,
) -> anyhow::Result<LoadedComponent> {
    let granted = Arc::new(PluginSettings::for_inspection());
    let loader = Loader::new(cache, TrustedKeys::default(), Inspection::default())?;
    Ok(loader.load(bytes, granted, Priority::Awaited).await?)
}

/// The plugin that its manifest names.
///
/// # Errors
/// When that is no name of a plugin.
pub(super) fn name_of(component: &LoadedComponent) -> anyhow::Result<PluginName> {
    let name = &component.manifest.name;
    name.parse().map_err(|error| {
        anyhow::anyhow!("the manifest's name `{name}` is no name of a plugin: {error}")
    })
}

/// What a config says about plugins.
///
/// # Errors
/// When the config cannot be read: all that is wrong with it.
pub(super) fn plugins_of(config: &Path) -> anyhow::Result<PluginsConfig> {
    let overrides = Overrides::of_process(OverrideFlags::default());
    let loaded = load(config, &overrides).map_err(|report| anyhow::anyhow!("{report}"))?;
    Ok(loaded.config.plugins)
}

/// What a config grants a plugin.
///
/// # Errors
/// As [`plugins_of`].
pub(super) fn granted(config: &Path, name: &PluginName) -> anyhow::Result<PluginSettings> {
    Ok(plugins_of(config)?.plugins.remove(name).unwrap_or_default())
}
