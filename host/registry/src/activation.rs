//! Why a component becomes active or is rejected: what is recorded, and what operators see.

use std::pin::Pin;
use std::sync::Arc;

use amends_engine::{Digest, PluginName, Timestamp};
use amends_sandbox::{LoadedComponent, Rejection};
use serde::{Deserialize, Serialize};

/// What led to an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationCause {
    /// A file in the plugin folder.
    #[default]
    File,
    /// An operator handed it in.
    Deploy,
    /// An operator went back to one that served before.
    Rollback,
    /// It served a share of the sagas, well enough or until an operator said so.
    Canary,
}

/// What led to an activation, and who asked for it and why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ActivationReason {
    /// What led to the activation.
    #[serde(default)]
    pub cause: ActivationCause,
    /// Who asked for it; none when a file or the host itself did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// The reason that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it was activated although it does not fit what sagas in flight have recorded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
}

/// A component that became active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// The component.
    pub digest: Digest,
    /// Its version.
    pub version: String,
    /// When it became active.
    pub at: Timestamp,
    /// What led to the activation, and who asked for it.
    pub why: ActivationReason,
}

/// A component that was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectionRecord {
    /// When it was rejected.
    pub at: Timestamp,
    /// The component; none when its file was not read.
    pub digest: Option<Digest>,
    /// Why it was rejected, for people.
    pub reason: String,
}

impl RejectionRecord {
    /// Whether the same component was rejected for the same reason, at any time.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest && self.reason == other.reason
    }
}

/// A component that is to become active.
#[derive(Debug)]
pub struct Candidate {
    /// The plugin that it is meant for.
    pub plugin: PluginName,
    /// The component.
    pub component: Arc<LoadedComponent>,
    /// The bytes of the component; none when the store has them.
    pub(crate) bytes: Option<Vec<u8>>,
}

/// Knows what a component would have to undo.
pub trait Guard: Send + Sync {
    /// Why a component should not become active for a plugin, if it should not. `cause` says what
    /// is to make it active.
    fn objection<'a>(
        &'a self,
        plugin: &'a PluginName,
        component: &'a LoadedComponent,
        cause: ActivationCause,
    ) -> Pin<Box<dyn Future<Output = Option<Rejection>> + Send + 'a>>;
}

/// Why a component that `says` this name is most likely not meant for a plugin: the name is not the
/// one that the config wants; or, when the config wants none, neither the plugin's own nor that of
/// the component that serves it.
#[must_use]
pub fn misnamed(
    plugin: &PluginName,
    wanted: Option<&str>,
    serves: Option<&str>,
    says: &str,
) -> Option<Rejection> {
    let wanted = match (wanted, serves) {
        (Some(wanted), _) if says == wanted => return None,
        (Some(wanted), _) => format!("and [plugin.{plugin}] component is `{wanted}`"),
        (None, _) if says == plugin.as_str() => return None,
        (None, Some(serves)) if says == serves => return None,
        (None, Some(serves)) => format!("what serves says `{}`", serves.escape_debug()),
        (None, None) => format!("and the plugin is `{plugin}`"),
    };
    Some(Rejection::Misnamed { says: says.to_owned(), wanted })
}
