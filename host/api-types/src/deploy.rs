//! What a deploy changes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The effect of a deploy, or of a dry run of one.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeployView {
    /// Whether the components are active now; false after a dry run.
    pub activated: bool,
    /// Whether the component is a canary now: it serves a share of the sagas beside the active one.
    pub canary: bool,
    /// Each component of the deploy.
    pub components: Vec<DeployedView>,
}

/// One component of a deploy.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeployedView {
    /// The name of the plugin.
    pub plugin: String,
    /// The digest of the component.
    pub digest: String,
    /// The version in the component's manifest.
    pub version: String,
    /// The digest of the component that was active before.
    pub previous: Option<String>,
    /// The names of the definitions with a step that the plugin executes or undoes.
    pub definitions: Vec<String>,
    /// How many sagas in flight run one of these definitions.
    pub sagas: usize,
    /// How many steps of sagas in flight the component would undo.
    pub to_undo: usize,
    /// Where outputs of the component that was active before do not fit the schema of this one.
    pub misfits: Vec<MisfitView>,
    /// The first hundred recorded outputs of sagas in flight that the component cannot read.
    pub unreadable: Vec<UnreadableView>,
    /// How many such outputs there are.
    pub unreadable_total: usize,
    /// What in the definitions does not fit the component, or may not fit. `amends check` says the same.
    #[serde(default)]
    pub flaws: Vec<FlawView>,
    /// In the answer to a dry run: why the host would reject the component. Absent when it would not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// A place in a definition that does not fit a component, or may not fit.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FlawView {
    /// The name of the definition.
    pub definition: String,
    /// Whether the definition is an older one, which is no longer in force and has sagas in flight.
    pub is_older: bool,
    /// The name of the step.
    pub step: String,
    /// The key in the step's table: `input`, or `input.drug` for a field of it.
    pub key: String,
    /// Whether the host rejects the component for this, unless the deploy is forced. If not, this is a
    /// warning.
    pub refuses: bool,
    /// What does not fit.
    pub message: String,
    /// What would fit.
    pub help: String,
}

/// How outputs of one component do not fit the schema of the next.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MisfitView {
    /// Whether no output fits; if not, some may not.
    pub is_certain: bool,
    /// What the next component requires and the output does not have, such as: needs `id`, which is not in
    /// it.
    pub message: String,
}

/// A recorded output that a component cannot read.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UnreadableView {
    /// The id of the saga.
    pub saga: String,
    /// The name of the step.
    pub step: String,
    /// Why the component cannot read the output.
    pub why: String,
    /// The digest of the component that executed the step. The step's undo stays pinned to it.
    pub executed_by: Option<String>,
}
