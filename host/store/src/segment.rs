//! The files of the archive: segments of sagas that have ended.
//!
//! A segment is a sequence of zstd frames (RFC 8878). Each frame is plain NDJSON, so that
//! `zstd -dc FILE` shows the whole segment with any tool. The first line is the header, and every
//! other line is one saga: its row and all its events, exactly as they were stored. Two skippable
//! frames follow, which other tools pass over: the index and the footer.
//!
//! ```text
//! frame        the header, one line
//! frame …      lines of sagas by ascending id; a frame ends after 256 KiB
//! skippable    index: the place, length and BLAKE3 hash of each frame; the place of each saga
//! skippable    footer: the place, length and BLAKE3 hash of the index
//! ```
//!
//! All numbers are little-endian. A saga is found by three reads: footer, index, frame.
//!
//! Deliberately absent: changes. A segment is written once, and appears under its name when it is
//! complete.

mod format;
mod index;
mod line;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use format::{
    ARCHIVED_SAGA_BYTES_MAX, DRAFT_SUFFIX, SEGMENT_BYTES, SEGMENT_SAGAS_MAX, SEGMENT_SUFFIX,
    SegmentError, damaged,
};
pub(crate) use line::{SagaLine, imported_line, parse_line};
pub(crate) use read::{Segment, SegmentSource};
pub(crate) use write::{SegmentHeader, SegmentWriter, WrittenSegment};
