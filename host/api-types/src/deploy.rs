//! What a deploy changes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a deploy changes.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeployView {
    /// Whether they serve now; false of a dry run.
    pub activated: bool,
    /// Whether it serves a share of the sagas, beside the active one.
    pub canary: bool,
    /// Each component.
    pub components: Vec<DeployedView>,
}

/// One component of a deploy.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeployedView {
    /// The plugin.
    pub plugin: String,
    /// The component.
    pub digest: String,
    /// Its version.
    pub version: String,
    /// What served before.
    pub previous: Option<String>,
    /// Definitions with a step that the plugin executes or undoes.
    pub definitions: Vec<String>,
    /// Sagas in flight of them.
    pub sagas: usize,
    /// Steps of sagas in flight that would be undone by it.
    pub to_undo: usize,
    /// Where outputs of the component that served before do not fit its schema.
    pub misfits: Vec<MisfitView>,
    /// Recorded outputs of sagas in flight that it cannot read: the first hundred.
    pub unreadable: Vec<UnreadableView>,
    /// All of them.
    pub unreadable_total: usize,
    /// What in the definitions does not fit the component, or may not; as `amends check` says.
    #[serde(default)]
    pub flaws: Vec<FlawView>,
    /// Of a dry run: why it would be refused. Absent when it would be taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// What in a definition does not fit a component, or may not.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FlawView {
    /// The definition.
    pub definition: String,
    /// Whether it is not in force any more; sagas in flight are pinned to it.
    pub is_older: bool,
    /// The step.
    pub step: String,
    /// The key in the step's table: `input`, or `input.drug` for a field of it.
    pub key: String,
    /// Whether the component is refused for it, unless it is forced; else it is a warning.
    pub refuses: bool,
    /// What does not fit.
    pub message: String,
    /// What would be right.
    pub help: String,
}

/// Where outputs do not fit.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MisfitView {
    /// Whether none fits; else some may not.
    pub is_certain: bool,
    /// What the component does and the output is not: `needs `id`, which is not in it`.
    pub message: String,
}

/// A recorded output that a component cannot read.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UnreadableView {
    /// The saga.
    pub saga: String,
    /// Its step.
    pub step: String,
    /// Why not.
    pub why: String,
    /// The component that executed the step, to which its undo stays pinned.
    pub executed_by: Option<String>,
}
