//! The hosts of a store.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The hosts that share a store.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HostView {
    /// The hosts that are alive, the one that answers first. Empty when it has the store alone.
    pub hosts: Vec<HostItem>,
    /// How many shards no host owns for now: their sagas stand still until one takes them over.
    pub shards_unowned: usize,
}

/// A host.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HostItem {
    /// Its name.
    pub name: String,
    /// Where the other hosts reach it.
    pub address: String,
    /// Whether it is the one that answers.
    pub is_this: bool,
    /// The numbers of the shards that it owns, of 0 to 63.
    pub shards: Vec<u16>,
}
