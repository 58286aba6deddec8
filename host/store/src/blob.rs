//! Blobs: bytes that are stored under their digest.

use amends_engine::{Digest, Timestamp};

/// The largest blob, in bytes: several times the largest component seen so far (18 MB, Python).
pub const BLOB_BYTES_MAX: usize = 256 << 20;

/// The kind of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlobKind {
    /// The blob is a component.
    Component,
    /// The blob is the canonical form of a definition.
    Definition,
}

impl BlobKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Definition => "definition",
        }
    }
}

/// One stored blob, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRow {
    /// The name of the plugin or definition.
    pub name: String,
    /// The digest of the bytes.
    pub digest: Digest,
    /// When the blob was first stored.
    pub at: Timestamp,
    /// The number of bytes.
    pub bytes_len: u64,
}
