//! The name of a room: whose calls it limits.

use amends_engine::{PluginName, ServiceName};

/// Names the calls that a room limits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoomKey {
    /// All calls of the host.
    Host,
    /// A plugin's: `concurrency` in `[plugin.NAME]`.
    Plugin(PluginName),
    /// A service's: `concurrency` in `[service.NAME]`.
    Service(ServiceName),
    /// The memory of all guests, as far as a plugin may have it: `memory_max` in `[host]`.
    Memory(PluginName),
}

impl RoomKey {
    /// The name of the room in the label of a metric: `host`, `plugin/inventory`.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Host => "host".to_owned(),
            Self::Plugin(name) => format!("plugin/{name}"),
            Self::Service(name) => format!("service/{name}"),
            Self::Memory(name) => format!("memory/{name}"),
        }
    }
}

impl std::fmt::Display for RoomKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host => f.write_str("of this host"),
            Self::Plugin(name) => write!(f, "of plugin `{name}`"),
            Self::Service(name) => write!(f, "to service `{name}`"),
            Self::Memory(name) => write!(f, "of plugin `{name}`, by memory"),
        }
    }
}
