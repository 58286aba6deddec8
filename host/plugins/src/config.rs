//! What the config says about plugins.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use amends_engine::PluginName;
use serde_json::{Map, Value};

/// Where plugins are and what each may do.
#[derive(Debug, Clone, Default)]
pub struct PluginsConfig {
    /// The folder: `NAME.wasm` is plugin NAME.
    pub dir: PathBuf,
    /// The folder for compiled code.
    pub cache: PathBuf,
    /// Settings by plugin; one that is not here has the defaults.
    pub plugins: BTreeMap<PluginName, PluginSettings>,
}

/// What one plugin may do.
#[derive(Debug, Clone)]
pub struct PluginSettings {
    /// Linear memory of one instance, in bytes.
    pub memory_bytes_max: u64,
    /// Calls at once.
    pub concurrency: u32,
    /// Calls that an instance may serve; 0 or 1: every call has a fresh one.
    pub reuse: u32,
    /// Hosts that it may call. Not in force in this version: it may call none.
    pub allow_hosts: Vec<String>,
    /// Handed out by `config.setting`.
    pub settings: Map<String, Value>,
    /// Handed out by `config.secret`.
    pub secrets: BTreeMap<String, Secret>,
    /// Whether it may keep state. Not in force in this version: it may not.
    pub state: bool,
    /// Whether it may emit events. Not in force in this version: it may not.
    pub events: bool,
    /// What definitions call: a component without it is refused.
    pub required: Required,
}

/// The calls that a component of a plugin must serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Required {
    /// A step names the plugin.
    pub execute: bool,
    /// An undo names the plugin.
    pub compensate: bool,
}

impl Default for PluginSettings {
    fn default() -> Self {
        Self {
            memory_bytes_max: 64 << 20,
            concurrency: 64,
            reuse: 0,
            allow_hosts: Vec::new(),
            settings: Map::new(),
            secrets: BTreeMap::new(),
            state: false,
            events: false,
            required: Required::default(),
        }
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being printed.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for whom it was granted to.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
