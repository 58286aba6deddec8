//! Plugins: the components behind them, and what an operator orders about them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Timestamp;

use crate::words::ActivationCauseWord;

/// A plugin.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PluginView {
    /// The name of the plugin in the config.
    pub name: String,
    /// The digest of the active component.
    pub digest: Option<String>,
    /// The version of the active component.
    pub version: Option<String>,
    /// What the active component exports: `execute`, `compensate`, `probe`.
    pub exports: Vec<String>,
    /// The capabilities that the active component needs.
    pub needs: Vec<String>,
    /// Since when the component is active.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub active_since: Option<Timestamp>,
    /// Every activation of a component, the latest first.
    pub history: Vec<ActivationView>,
    /// Every rejection of a component, the latest first.
    pub rejections: Vec<RejectionView>,
    /// The latest rejection.
    pub last_rejection: Option<RejectionView>,
    /// Every canary, the latest first. A canary without `ended` still runs.
    pub canaries: Vec<CanaryView>,
}

/// A canary: a component that serves, or served, a share of the sagas beside the active one.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CanaryView {
    /// When the canary began.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The digest of the component.
    pub digest: String,
    /// The version of the component.
    pub version: String,
    /// The share of the sagas that the canary serves, in percent.
    pub share: f64,
    /// The host takes the canary back when its rate of failed calls, or of calls of unknown outcome, is more
    /// than this many percentage points above the active component's.
    pub margin: f64,
    /// The host judges the canary by at least this many calls. It takes the canary back earlier when so many
    /// calls fail that the others could not make up for it.
    pub min_calls: u32,
    /// The host promotes the canary after this many calls; when null, an operator has to.
    pub promote_after: Option<u32>,
    /// Who asked for the canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Why they asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The outcomes of the canary's calls. While the canary runs, only the calls of this host count.
    pub calls: CallCountsView,
    /// The outcomes of the active component's calls in the same time.
    pub active_calls: CallCountsView,
    /// How the canary ended; null while it runs.
    pub ended: Option<CanaryEndView>,
}

/// The outcomes of calls, counted.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CallCountsView {
    /// All calls.
    pub total: u64,
    /// The calls that did not succeed.
    pub failed: u64,
    /// The failed calls whose outcome is unknown: traps, limits, timeouts.
    pub unknown: u64,
}

/// The end of a canary.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CanaryEndView {
    /// When the canary ended.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Whether the canary was promoted: it became the active component. If not, it was taken back.
    pub promoted: bool,
    /// Who ended the canary; absent when the host did so by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Why they ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The activation of a component.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ActivationView {
    /// When the component became active.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The digest of the component.
    pub digest: String,
    /// The version of the component.
    pub version: String,
    /// The cause: a `file` in the plugin folder, an operator's `deploy` or `rollback`, or the promotion of
    /// a `canary`.
    #[schema(value_type = ActivationCauseWord)]
    pub cause: String,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Why they asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The rejection of a component.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RejectionView {
    /// When the host rejected the component.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The digest of the component; null when the host did not read its file, which is too large or cannot
    /// be read.
    pub digest: Option<String>,
    /// Why the host rejected the component.
    pub reason: String,
}

/// The order to go back to an earlier component.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackBody {
    /// Why. The host keeps the reason and who asked in the history of the plugin.
    #[schema(min_length = 1)]
    pub reason: String,
    /// The digest of a component that was active before, or the beginning of the digest. When absent, the
    /// last such component that no rollback has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Whether to go back even if sagas in flight have recorded what the component cannot read, or
    /// definitions do not fit it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// The order to promote a canary.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromoteBody {
    /// Why. The host keeps the reason and who asked in the history of the plugin.
    #[schema(min_length = 1)]
    pub reason: String,
}
