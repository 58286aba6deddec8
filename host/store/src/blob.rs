//! Blobs: bytes that are stored under their digest.

use amends_engine::{Digest, Timestamp};
use futures::future::BoxFuture;

use crate::error::StoreError;

/// The largest blob, in bytes: several times the largest component seen so far (18 MB, Python).
pub(crate) const BLOB_BYTES_MAX: usize = 256 << 20;

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
    /// When the blob was last stored or renewed.
    pub at: Timestamp,
    /// The number of bytes.
    pub bytes_len: u64,
}

/// A change of one blob. See the methods of [`Blobs`].
#[derive(Debug)]
pub(crate) enum BlobChange {
    /// Stores it.
    Put {
        /// The name of the plugin or definition.
        name: String,
        at: Timestamp,
        bytes: Vec<u8>,
    },
    /// Renews it.
    Renew { at: Timestamp },
    /// Removes it.
    Remove { unused_since: Timestamp },
}

/// Keeps blobs: components and definitions. Every host writes them, and equal bytes have one digest.
///
/// # Errors
/// Each method fails with [`StoreError::Unavailable`] (try again), or with [`StoreError::Damaged`],
/// [`StoreError::Closed`] or [`StoreError::Fatal`] (it fails again).
pub trait Blobs: Send + Sync {
    /// Stores bytes under their digest; renews the blob when they are stored already. The store trusts
    /// the digest and does not compute it. [`StoreError::Invalid`] when they are more than
    /// [`BLOB_BYTES_MAX`].
    fn put(
        &self,
        kind: BlobKind,
        name: String,
        digest: Digest,
        at: Timestamp,
        bytes: Vec<u8>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Keeps a blob from being removed by who decided to do so before `at`. Returns false when there is
    /// no such blob.
    fn renew(
        &self,
        kind: BlobKind,
        digest: Digest,
        at: Timestamp,
    ) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Removes a blob, unless it was stored or renewed at `unused_since` or later. Returns whether it
    /// did.
    fn remove(
        &self,
        kind: BlobKind,
        digest: Digest,
        unused_since: Timestamp,
    ) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Returns the bytes that are stored under a digest.
    fn get(
        &self,
        kind: BlobKind,
        digest: Digest,
    ) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>>;

    /// Returns the blobs of a kind without their bytes, the oldest first.
    fn list(&self, kind: BlobKind) -> BoxFuture<'_, Result<Vec<BlobRow>, StoreError>>;
}
