//! The history of one saga as a file: what `amends store export` writes and `amends replay` reads.
//!
//! A bundle is NDJSON. Its first line is a [`BundleHead`], and each other line is one event of the saga, in
//! order ([`BundleEvent`]). It needs no host and no store to be read.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use amends_engine::Timestamp;

use crate::definitions::DefinitionView;

/// The format of a bundle that this version writes and reads.
pub const BUNDLE_FORMAT: &str = "amends-saga/1";

/// The first line of a bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundleHead {
    /// The format, [`BUNDLE_FORMAT`].
    pub format: String,
    /// The version of Amends that wrote the bundle.
    pub amends: String,
    /// The id of the saga.
    pub saga: String,
    /// The definition that the saga is pinned to.
    pub definition: DefinitionView,
    /// The components that served calls of the saga.
    pub components: Vec<BundleComponent>,
    /// How many events follow; none in a bundle of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
}

/// A component that served calls of a saga.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BundleComponent {
    /// The plugin that the step calls.
    pub plugin: String,
    /// The digest of the component.
    pub digest: String,
}

/// Any other line of a bundle: one event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundleEvent {
    /// The place of the event in its saga, from 1.
    pub version: u64,
    /// When the event was decided.
    pub at: Timestamp,
    /// The type of the event.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the event says.
    pub data: Box<RawValue>,
}
