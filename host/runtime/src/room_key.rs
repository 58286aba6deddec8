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
