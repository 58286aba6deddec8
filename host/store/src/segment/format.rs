//! The limits and names of segments, and what is wrong with one.

/// The version of the format. A file of a newer one is refused.
pub(super) const FORMAT_VERSION: u32 = 1;

/// The word in the header that says what the file is.
pub(super) const FORMAT: &str = "amends-archive";

/// The plain bytes after which a frame ends. Larger frames compress little better, and one saga
/// costs the decompression of its frame.
pub(super) const FRAME_BYTES: usize = 256 << 10;

/// The largest saga that goes to the archive, in bytes of its line. Whoever reads a segment holds
/// one frame in memory, and a frame may exceed [`FRAME_BYTES`] by one line. A larger saga stays in
/// the store.
pub(crate) const ARCHIVED_SAGA_BYTES_MAX: usize = 64 << 20;

/// The largest frame of a sound segment, in plain bytes.
pub(super) const FRAME_BYTES_MAX: usize = FRAME_BYTES + ARCHIVED_SAGA_BYTES_MAX;

/// The most sagas of one segment.
pub(crate) const SEGMENT_SAGAS_MAX: usize = 20_000;

/// The compressed bytes after which a segment ends.
pub(crate) const SEGMENT_BYTES: u64 = 50_000_000;

/// The ending of a segment's name.
pub(crate) const SEGMENT_SUFFIX: &str = ".amends.zst";

/// The ending of the name of a segment that is not complete.
pub(crate) const DRAFT_SUFFIX: &str = ".amends.zst-part";

/// A segment that cannot be read, or has something wrong.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum SegmentError {
    /// The file cannot be opened or read.
    #[error("{0}")]
    File(std::sync::Arc<std::io::Error>),
    /// The content is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// The object store does not answer, or refuses. Nothing is known about the file.
    #[error("{0}")]
    Unreachable(String),
}

impl From<std::io::Error> for SegmentError {
    fn from(error: std::io::Error) -> Self {
        Self::File(std::sync::Arc::new(error))
    }
}

/// Makes the error of content that is not what was written.
pub(crate) fn damaged(what: impl Into<String>) -> SegmentError {
    SegmentError::Damaged(what.into())
}
