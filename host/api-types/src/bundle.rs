//! The history of one saga as a file: what `amends store export` writes and `amends replay` reads.
//!
//! A bundle is NDJSON. Its first line is a [`BundleHead`]. Then come the components that it has, one a line
//! ([`BundleBlob`]), and the events of the saga, one a line and in order ([`BundleEvent`]). It needs no host
//! and no store to be read.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use amends_engine::{Digest, Timestamp};

use crate::definitions::DefinitionView;
use crate::words::SagaStatusWord;

/// The format of a bundle that this version writes and reads.
pub const BUNDLE_FORMAT: &str = "amends-saga/1";

/// The most bytes of the components of one bundle: some components of the largest languages.
pub const BUNDLE_COMPONENTS_BYTES_MAX: usize = 256 << 20;

/// The most bytes of a bundle that a host imports, without components: the largest saga of an archive, and
/// what stands around its events.
pub const BUNDLE_IMPORT_BYTES_MAX: usize = 80 << 20;

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
    /// True when the personal values were replaced by `[erased]`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withheld: bool,
    /// The digest of the rest of the head and of the events, see [`BundleDigest`]; none in a bundle of an
    /// earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// The digest of a bundle: that of the lines `id`, digest of the definition, `withheld`, and then of the
/// digest of each event's line. Components have digests of their own.
#[derive(Debug, Clone)]
pub struct BundleDigest(String);

impl BundleDigest {
    /// Begins the digest of a bundle with this head.
    #[must_use]
    pub fn new(head: &BundleHead) -> Self {
        let BundleHead { saga, definition, withheld, .. } = head;
        Self(format!("{saga}\n{}\n{withheld}\n", definition.digest))
    }

    /// Adds the line of an event, without its end.
    pub fn add(&mut self, line: &str) {
        self.0.push_str(&Digest::of(line.as_bytes()).hex());
        self.0.push('\n');
    }

    /// Returns the digest.
    #[must_use]
    pub fn finish(&self) -> String {
        Digest::of(self.0.as_bytes()).to_string()
    }
}

/// A line of a bundle between its head and its events: a component.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundleBlob {
    /// The digest of the component.
    pub component: String,
    /// The bytes of the component: base64.
    pub base64: String,
}

/// What an import came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportedView {
    /// The id of the saga.
    #[schema(format = "uuid")]
    pub id: String,
    /// As what it ended.
    #[schema(value_type = SagaStatusWord)]
    pub status: String,
    /// How many events it has here: those of the bundle, and the note that says who imported it.
    pub events: u64,
    /// False when it was here already, with the same events.
    pub created: bool,
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
