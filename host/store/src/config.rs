//! Where a store is, and how durable its appends are.

use crate::archive_place::ArchivePlace;

/// Where a store is, and when it acknowledges appends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The URL of the store: `sqlite:FILE`, or `postgres://USER@HOST/DATABASE`.
    pub url: String,
    /// When an append is acknowledged.
    pub durability: Durability,
    /// Where the archive is; none when ended sagas are deleted instead.
    pub archive: Option<ArchivePlace>,
}

/// The moment at which an append is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// An append is acknowledged after fsync.
    #[default]
    Full,
    /// An append is acknowledged after the write. A power cut may lose the last moments, but never
    /// corrupts the store.
    Relaxed,
}
