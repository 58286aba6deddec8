//! Whether a host lives, and whether it takes sagas.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The answer of `/healthz`, also of a host that still starts.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AliveView {
    /// Always `ok`.
    pub status: String,
}

/// The answer of `/readyz` when the host takes sagas.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReadyView {
    /// How many sagas are quarantined.
    pub quarantined: usize,
    /// Always `ready`.
    pub status: String,
    /// What will soon keep the host from taking sagas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<WarningView>,
}

/// The disk of the store is nearly full.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WarningView {
    /// Always `disk_low`.
    pub code: String,
    /// What is the matter, for people.
    pub detail: String,
    /// The size of the disk, in bytes.
    pub disk_bytes: u64,
    /// How much of the disk is free, in bytes.
    pub free_bytes: u64,
}
