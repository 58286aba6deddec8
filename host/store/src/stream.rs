//! Streams: which list of events an append goes to.

use std::fmt;

use amends_engine::{PluginName, SagaId, ServiceName};

/// The name of a stream: a list of events with versions from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// The stream of a saga.
    Saga(SagaId),
    /// The stream of a plugin: what operators changed of its state. Streams that early versions
    /// wrote also say which components served the plugin; today the stream of deploys does.
    Plugin(PluginName),
    /// The stream of a service: when its circuit breaker opened and closed.
    Service(ServiceName),
    /// The stream of deploys: which components of any plugin became active or were rejected, and
    /// why.
    Deploys,
    /// The stream of erasures: which keys of subjects were deleted, by whom and why.
    Erasures,
    /// The stream of tokens of access control: which were made, used and revoked.
    Tokens,
    /// The audit stream of access control: who asked a host for a change, and what became of it.
    Audit,
}

impl Stream {
    /// Returns the saga whose stream it is.
    #[must_use]
    pub const fn saga(&self) -> Option<SagaId> {
        match self {
            Self::Saga(id) => Some(*id),
            Self::Plugin(_)
            | Self::Service(_)
            | Self::Deploys
            | Self::Erasures
            | Self::Tokens
            | Self::Audit => None,
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saga(id) => write!(f, "saga {id}"),
            Self::Plugin(name) => write!(f, "plugin {name}"),
            Self::Service(name) => write!(f, "service {name}"),
            Self::Deploys => f.write_str("deploys"),
            Self::Erasures => f.write_str("erasures"),
            Self::Tokens => f.write_str("tokens"),
            Self::Audit => f.write_str("audit"),
        }
    }
}
