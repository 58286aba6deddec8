//! What can go wrong with plugins.

use std::path::PathBuf;

use amends_engine::{Digest, PluginName};
use amends_sandbox::{Rejection, SandboxError};
use amends_store::StoreError;

/// What can go wrong with plugins. An operator can act, unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The plugin folder cannot be read.
    #[error("the plugin folder {} cannot be read: {message}; name another in [plugins] dir", .dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why not.
        message: String,
    },
    /// The sandbox cannot be used.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A task of the start panicked.
    #[error("the start of the plugins failed: {0}")]
    Start(String),
    /// Nobody has the bytes of a digest.
    #[error(
        "plugin {plugin}: the component {digest} is not in the store (any more); to have it serve, \
         deploy its file"
    )]
    Lost {
        /// The plugin.
        plugin: PluginName,
        /// The digest.
        digest: Digest,
    },
    /// A component is refused.
    #[error("plugin {plugin}: {rejection}")]
    Rejected {
        /// The plugin.
        plugin: PluginName,
        /// Why.
        rejection: Rejection,
    },
    /// There is no component to go back to.
    #[error("plugin {plugin} cannot be rolled back: {message}")]
    NoRollback {
        /// The plugin.
        plugin: PluginName,
        /// Why not.
        message: String,
    },
    /// A canary cannot be started or promoted.
    #[error("plugin {plugin}: {message}")]
    Canary {
        /// The plugin.
        plugin: PluginName,
        /// Why not.
        message: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PluginError {
    /// Whether it says nothing of a component: the host cannot look at it or read it now, and another
    /// try may do.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Store(_) => true,
            Self::Rejected { rejection, .. } => rejection.is_passing(),
            Self::Folder { .. }
            | Self::Sandbox(_)
            | Self::Start(_)
            | Self::Lost { .. }
            | Self::NoRollback { .. }
            | Self::Canary { .. } => false,
        }
    }
}
