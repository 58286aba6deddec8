//! The index of a segment and its footer, as bytes.

use amends_engine::SagaId;

use super::format::{FRAME_BYTES_MAX, SEGMENT_SAGAS_MAX, SegmentError, damaged};

/// The magic numbers of the two skippable frames (RFC 8878, section 3.1.2).
const SKIPPABLE_INDEX: u32 = 0x184d_2a5a;
const SKIPPABLE_FOOTER: u32 = 0x184d_2a5b;

/// The bytes before the content of a skippable frame: its magic number and its length.
const SKIPPABLE_HEAD: usize = 8;

/// The first bytes of the index and of the footer.
const INDEX_MAGIC: &[u8; 8] = b"AMNDIDX1";
const FOOTER_MAGIC: &[u8; 8] = b"AMNDEND1";

/// The bytes of one frame and of one saga in the index.
const FRAME_ENTRY: usize = 8 + 4 + 4 + 32;
const SAGA_ENTRY: usize = 16 + 4 + 4 + 4;

/// The bytes of the index before its entries.
const INDEX_HEAD: usize = 8 + 4 + 4;

/// The bytes of the footer, with its head: the last bytes of a segment.
pub(super) const FOOTER_BYTES: usize = SKIPPABLE_HEAD + 8 + 8 + 8 + 32;

/// The largest index of a sound segment: each saga in a frame of its own, and the header.
const INDEX_BYTES_MAX: usize =
    INDEX_HEAD + FRAME_ENTRY * (SEGMENT_SAGAS_MAX + 1) + SAGA_ENTRY * SEGMENT_SAGAS_MAX;

/// Where a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameEntry {
    /// The place of its first byte in the file.
    pub(super) offset: u64,
    /// Its compressed bytes.
    pub(super) bytes: u32,
    /// Its plain bytes.
    pub(super) plain_bytes: u32,
    /// The BLAKE3 hash of its compressed bytes.
    pub(super) hash: [u8; 32],
}

/// Where the line of a saga is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SagaEntry {
    pub(super) id: SagaId,
    /// The number of its frame.
    pub(super) frame: u32,
    /// The place of its line in the plain bytes of the frame.
    pub(super) offset: u32,
    /// The bytes of its line, without the line feed.
    pub(super) bytes: u32,
}

/// The index of a segment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// The frames in their order, that of the header first.
    pub(super) frames: Vec<FrameEntry>,
    /// The sagas by ascending id.
    pub(super) sagas: Vec<SagaEntry>,
}

/// Where the index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    /// The place of the index's content in the file.
    pub(super) offset: u64,
    /// The bytes of the index's content.
    pub(super) bytes: usize,
    /// The BLAKE3 hash of the index's content.
    pub(super) hash: [u8; 32],
}

impl Index {
    /// Returns the index as a skippable frame, and the hash of its content.
    pub(super) fn to_frame(&self) -> (Vec<u8>, [u8; 32]) {
        let mut content = Vec::new();
        content.extend_from_slice(INDEX_MAGIC);
        content.extend_from_slice(&count(self.frames.len()).to_le_bytes());
        content.extend_from_slice(&count(self.sagas.len()).to_le_bytes());
        for frame in &self.frames {
            content.extend_from_slice(&frame.offset.to_le_bytes());
            content.extend_from_slice(&frame.bytes.to_le_bytes());
            content.extend_from_slice(&frame.plain_bytes.to_le_bytes());
            content.extend_from_slice(&frame.hash);
        }
        for saga in &self.sagas {
            content.extend_from_slice(saga.id.as_bytes());
            content.extend_from_slice(&saga.frame.to_le_bytes());
            content.extend_from_slice(&saga.offset.to_le_bytes());
            content.extend_from_slice(&saga.bytes.to_le_bytes());
        }
        let hash = *blake3::hash(&content).as_bytes();
        (skippable(SKIPPABLE_INDEX, &content), hash)
    }

    /// Reads the content of an index, and checks that every place in it is within the segment.
    /// `end` is the place in the file at which the last frame ends.
    pub(super) fn from_content(content: &[u8], end: u64) -> Result<Self, SegmentError> {
        let mut bytes = Bytes(content);
        if bytes.take::<8>()? != *INDEX_MAGIC {
            return Err(damaged("its index does not begin as an index does"));
        }
        let (frames, sagas) = (bytes.number()? as usize, bytes.number()? as usize);
        let needed = frames
            .checked_mul(FRAME_ENTRY)
            .zip(sagas.checked_mul(SAGA_ENTRY))
            .and_then(|(frames, sagas)| frames.checked_add(sagas));
        if needed != Some(bytes.0.len()) {
            return Err(damaged("its index has another length than its counts say"));
        }
        let mut index = Self::default();
        let mut next = 0;
        for number in 0..frames {
            let entry = FrameEntry {
                offset: u64::from_le_bytes(bytes.take()?),
                bytes: bytes.number()?,
                plain_bytes: bytes.number()?,
                hash: bytes.take()?,
            };
            let is_sound = entry.offset == next && entry.plain_bytes as usize <= FRAME_BYTES_MAX;
            next = entry.offset.saturating_add(u64::from(entry.bytes));
            if !is_sound || next > end {
                return Err(damaged(format!("its index has a wrong place for frame {number}")));
            }
            index.frames.push(entry);
        }
        if next != end || frames == 0 {
            return Err(damaged("its index does not have all frames"));
        }
        for _ in 0..sagas {
            let entry = SagaEntry {
                id: SagaId::from_bytes(bytes.take()?),
                frame: bytes.number()?,
                offset: bytes.number()?,
                bytes: bytes.number()?,
            };
            let plain = index.frames.get(entry.frame as usize).map_or(0, |frame| frame.plain_bytes);
            // A line feed follows the line.
            let is_within = u64::from(entry.offset) + u64::from(entry.bytes) < u64::from(plain);
            let is_after = index.sagas.last().is_none_or(|last| last.id < entry.id);
            if !is_within || !is_after {
                let id = entry.id;
                return Err(damaged(format!("its index has a wrong place for saga {id}")));
            }
            index.sagas.push(entry);
        }
        Ok(index)
    }

    /// Returns where a saga is.
    pub(super) fn find(&self, id: SagaId) -> Option<SagaEntry> {
        let at = self.sagas.binary_search_by_key(&id, |entry| entry.id).ok()?;
        self.sagas.get(at).copied()
    }
}

impl Footer {
    /// Makes the footer of an index whose skippable frame begins at `offset`.
    pub(super) fn of(offset: u64, index: &[u8], hash: [u8; 32]) -> Self {
        let head = SKIPPABLE_HEAD;
        Self { offset: offset + head as u64, bytes: index.len() - head, hash }
    }

    /// Returns the footer as a skippable frame of [`FOOTER_BYTES`].
    pub(super) fn to_frame(self) -> Vec<u8> {
        let mut content = Vec::with_capacity(FOOTER_BYTES);
        content.extend_from_slice(&self.offset.to_le_bytes());
        content.extend_from_slice(&(self.bytes as u64).to_le_bytes());
        content.extend_from_slice(&self.hash);
        content.extend_from_slice(FOOTER_MAGIC);
        skippable(SKIPPABLE_FOOTER, &content)
    }

    /// Reads the last bytes of a segment of this length.
    pub(super) fn from_frame(frame: &[u8], file_bytes: u64) -> Result<Self, SegmentError> {
        let mut bytes = Bytes(frame);
        let (magic, length) = (bytes.number()?, bytes.number()? as usize);
        let (offset, index) = (bytes.take::<8>()?, bytes.take::<8>()?);
        let (hash, end) = (bytes.take()?, bytes.take::<8>()?);
        let content = FOOTER_BYTES - SKIPPABLE_HEAD;
        if magic != SKIPPABLE_FOOTER || length != content || end != *FOOTER_MAGIC {
            return Err(damaged("its footer is missing: the file is cut off or no segment"));
        }
        let offset = u64::from_le_bytes(offset);
        let length = u64::from_le_bytes(index);
        let is_sound = offset.checked_add(length) == Some(file_bytes - FOOTER_BYTES as u64)
            && offset >= SKIPPABLE_HEAD as u64;
        match usize::try_from(length).ok().filter(|bytes| is_sound && *bytes <= INDEX_BYTES_MAX) {
            Some(bytes) => Ok(Self { offset, bytes, hash }),
            None => Err(damaged("its footer has a wrong place for the index")),
        }
    }

    /// Returns the place at which the last frame of sagas ends.
    pub(super) const fn frames_end(&self) -> u64 {
        self.offset - SKIPPABLE_HEAD as u64
    }
}

/// Makes a skippable frame.
fn skippable(magic: u32, content: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(SKIPPABLE_HEAD + content.len());
    frame.extend_from_slice(&magic.to_le_bytes());
    frame.extend_from_slice(&count(content.len()).to_le_bytes());
    frame.extend_from_slice(content);
    frame
}

/// A count that the limits of a segment keep far below 2^32.
fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Bytes that are read from the front.
struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], SegmentError> {
        let (first, rest) =
            self.0.split_first_chunk().ok_or_else(|| damaged("its index or footer is cut off"))?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u32, SegmentError> {
        Ok(u32::from_le_bytes(self.take()?))
    }
}
