//! Where plugins are and what each may do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use amends_engine::{Definition, PluginName};
use amends_sandbox::{
    INSTANCES_MAX, Inspection, PluginSettings, TrustedKeys, guest_memory_default,
};

use crate::progress::Progress;

/// Where plugins are and what each may do.
#[derive(Debug, Clone)]
pub struct PluginsConfig {
    /// The folder: `NAME.wasm` is plugin NAME.
    pub dir: PathBuf,
    /// The folder for compiled code.
    pub cache: PathBuf,
    /// The file of the key that vouches for compiled code, not in that folder; none: code is compiled
    /// for this process only.
    pub cache_key: Option<PathBuf>,
    /// Where components are looked at.
    pub inspection: Inspection,
    /// Who must have signed a component, so that it is loaded.
    pub trusted_keys: TrustedKeys,
    /// Bytes of memory that all guests may have together.
    pub memory_bytes_max: u64,
    /// Instances at once, of all plugins together.
    pub instances_max: u32,
    /// Settings by plugin; one that is not here has the defaults.
    pub plugins: BTreeMap<PluginName, PluginSettings>,
    /// Whether other hosts use the store. Then a file that is there at the start counts only for a plugin of
    /// which the store has no component: hosts whose folders differ must not replace one another's.
    pub shares_store: bool,
    /// Told how far the start is.
    pub progress: Progress,
}

impl PluginsConfig {
    /// Requires what these definitions call: a component without it is refused, and a host waits at
    /// its start until something serves the plugins that they name.
    pub fn require(&mut self, definitions: &[Definition]) {
        for step in definitions.iter().flat_map(Definition::steps) {
            if let Some(plugin) = step.plugin() {
                self.plugins.entry(plugin.clone()).or_default().required.execute = true;
            }
            if let Some(plugin) = step.undo_plugin() {
                self.plugins.entry(plugin.clone()).or_default().required.compensate = true;
            }
        }
    }
}

impl Default for PluginsConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            cache: PathBuf::new(),
            cache_key: None,
            inspection: Inspection::default(),
            trusted_keys: TrustedKeys::default(),
            memory_bytes_max: guest_memory_default(),
            instances_max: INSTANCES_MAX,
            plugins: BTreeMap::new(),
            shares_store: false,
            progress: Progress::default(),
        }
    }
}
