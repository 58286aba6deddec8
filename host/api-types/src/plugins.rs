//! Plugins, and the components that serve or served them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Timestamp;

/// A plugin.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PluginView {
    /// Its name in the config.
    pub name: String,
    /// The component that serves it now.
    pub digest: Option<String>,
    /// That component's version.
    pub version: Option<String>,
    /// `execute`, `compensate`, `probe`.
    pub exports: Vec<String>,
    /// The capabilities that it needs.
    pub needs: Vec<String>,
    /// Since when it serves.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub active_since: Option<Timestamp>,
    /// Every component that served it, the latest first, and why it did.
    pub history: Vec<ActivationView>,
    /// Every component that was refused, the latest first.
    pub rejections: Vec<RejectionView>,
    /// The last component that was refused.
    pub last_rejection: Option<RejectionView>,
    /// Every component that served a share of the sagas, the latest first; one without `ended` does.
    pub canaries: Vec<CanaryView>,
}

/// A component that serves or served a share of the sagas.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CanaryView {
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Which.
    pub digest: String,
    /// Its version.
    pub version: String,
    /// The share of the sagas, in percent.
    pub share: f64,
    /// How much worse it may be than the active component, in percentage points.
    pub margin: f64,
    /// Calls that it is judged by at least.
    pub min_calls: u32,
    /// Calls after which it is promoted by itself.
    pub promote_after: Option<u32>,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What came of its calls; while it runs, of those that this host made.
    pub calls: CallCountsView,
    /// What came of the active component's calls meanwhile.
    pub active_calls: CallCountsView,
    /// How it ended.
    pub ended: Option<CanaryEndView>,
}

/// What came of calls.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CallCountsView {
    /// All.
    pub total: u64,
    /// Those that did not succeed.
    pub failed: u64,
    /// Of those, the ones of unknown outcome: traps, limits, timeouts.
    pub unknown: u64,
}

/// How a canary ended.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CanaryEndView {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Whether it serves all sagas since.
    pub promoted: bool,
    /// Who ended it; absent: the host by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A component that became active.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ActivationView {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Which.
    pub digest: String,
    /// Its version.
    pub version: String,
    /// What led to it: `file` in the plugin folder, an operator's `deploy` or `rollback`, or
    /// the promotion of a `canary`.
    pub cause: String,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A component that was refused.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RejectionView {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Which; none when its file was not read: it is too large, or not there to be read.
    pub digest: Option<String>,
    /// Why.
    pub reason: String,
}

/// Which component to go back to, and why.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackBody {
    /// Kept in the plugin's history, with who asked.
    pub reason: String,
    /// The digest of a component that served before, or its beginning; when absent, the last one that
    /// did and that no rollback left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Also when sagas in flight have recorded what it cannot read, or definitions do not fit it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// Why a canary serves all sagas.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromoteBody {
    /// Kept in the plugin's history, with who asked.
    pub reason: String,
}
