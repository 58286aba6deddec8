//! What one plugin is granted and how much it may take.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use amends_engine::{PAYLOAD_BYTES_MAX, PluginName, STATE_BYTES_MAX_DEFAULT};
use serde_json::{Map, Value};

use crate::capability::outbound::allow::AllowHosts;

/// What one plugin is granted and how much it may take.
#[derive(Debug, Clone)]
pub struct PluginSettings {
    /// The plugin, for messages about its table in the config; none for one that has no name yet.
    pub name: Option<PluginName>,
    /// Linear memory of one instance, in bytes.
    pub memory_bytes_max: u64,
    /// How many of its calls may run at once.
    pub concurrency: u32,
    /// Calls that an instance may serve; 0 or 1: every call has a fresh one.
    pub reuse: u32,
    /// Elements of all tables of one instance.
    pub table_elements_max: usize,
    /// Core instances, memories and tables of one instance, of each so many.
    pub instances_max: usize,
    /// How long one call may compute.
    pub cpu_max: Duration,
    /// Bytes of a call's input and of its answer.
    pub payload_bytes_max: usize,
    /// Calls of the host by one call.
    pub host_calls_max: u32,
    /// Log lines a second, of all calls together.
    pub log_rate: u32,
    /// The hosts that it may send requests to.
    pub allow_hosts: AllowHosts,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long a request may take, to the last byte of its answer.
    pub request_timeout: Duration,
    /// Bytes of the body of an answer.
    pub response_bytes_max: usize,
    /// Handed out by `config.setting`.
    pub settings: Map<String, Value>,
    /// Handed out by `config.secret`.
    pub secrets: BTreeMap<String, Secret>,
    /// Whether it may keep state.
    pub state: bool,
    /// Whether its state may hold personal values. They are not sealed there, so a saga with a subject
    /// calls only plugins without state, or with state that holds none.
    pub state_may_be_personal: bool,
    /// Bytes of the state, keys and values.
    pub state_bytes_max: u64,
    /// Whether it may emit events.
    pub events: bool,
    /// What definitions call: a component without it is refused.
    pub required: Required,
    /// The name in the manifest of the component that serves the plugin; none: the plugin's own.
    pub component: Option<String>,
}

/// Core instances, memories or tables of one instance: wit-component makes up to four; a component of
/// Python is 38 modules, its shared libraries among them.
pub const INSTANCES_OF_ONE_MAX: usize = 64;

/// Elements of all tables of one instance, at most: functions that it calls by their number.
pub const TABLE_ELEMENTS_MAX: usize = 100_000;

/// The calls that a component of a plugin must serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Required {
    /// A step names the plugin.
    pub execute: bool,
    /// An undo names the plugin.
    pub compensate: bool,
}

impl Required {
    /// Whether any definition names the plugin.
    #[must_use]
    pub fn any(self) -> bool {
        self.execute || self.compensate
    }
}

impl Default for PluginSettings {
    fn default() -> Self {
        Self {
            name: None,
            memory_bytes_max: 64 << 20,
            concurrency: 64,
            reuse: 0,
            table_elements_max: TABLE_ELEMENTS_MAX,
            instances_max: INSTANCES_OF_ONE_MAX,
            cpu_max: Duration::from_secs(10),
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            host_calls_max: 10_000,
            log_rate: 1_000,
            allow_hosts: AllowHosts::default(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            response_bytes_max: 4 << 20,
            settings: Map::new(),
            secrets: BTreeMap::new(),
            state: false,
            state_may_be_personal: true,
            state_bytes_max: STATE_BYTES_MAX_DEFAULT,
            events: false,
            required: Required::default(),
            component: None,
        }
    }
}

impl PluginSettings {
    /// Whether a capability (`config`, `state`, `events`, `http`) is granted, and the key of
    /// `[plugin.NAME]` that grants it; none when there is no such capability.
    #[must_use]
    pub fn grants(&self, capability: &str) -> Option<(bool, &'static str)> {
        match capability {
            "config" => Some((true, "settings = { … }")),
            "state" => Some((self.state, "state = true")),
            "events" => Some((self.events, "events = true")),
            "http" => Some((!self.allow_hosts.is_empty(), "allow_hosts = [\"https://…\"]")),
            _ => None,
        }
    }

    /// Its table in the config: `plugin.shipment`.
    pub(crate) fn section(&self) -> String {
        format!("plugin.{}", self.name.as_ref().map_or("NAME", PluginName::as_str))
    }

    /// With every capability granted, for looking at a component: nothing of it is run but what it
    /// says about itself.
    #[must_use]
    pub fn for_inspection() -> Self {
        let anywhere = "https://inspection.invalid".parse().ok();
        Self {
            state: true,
            events: true,
            allow_hosts: anywhere.into_iter().collect(),
            ..Self::default()
        }
    }
}

/// A secret that is shorter is not looked for in what a plugin says: it would be found everywhere.
pub(crate) const SECRET_BYTES_MIN: usize = 6;

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being printed.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Whether it is too short to be looked for in what a plugin says.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.0.len() < SECRET_BYTES_MIN
    }

    /// The text, for whom it was granted to.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
