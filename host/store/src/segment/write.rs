//! Writes a segment.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use amends_engine::{SagaId, Timestamp};
use amends_failpoint::failpoint;

use super::format::{DRAFT_SUFFIX, FORMAT, FORMAT_VERSION, FRAME_BYTES, SEGMENT_SUFFIX};
use super::index::{Footer, FrameEntry, Index, SagaEntry};

/// The level of compression: higher ones take three times as long and save a tenth.
const LEVEL: i32 = 3;

/// What the first line of a segment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The number of the run of the store that wrote the segment.
    pub(crate) store: i64,
    /// The fence of the process that wrote it.
    pub(crate) fence: i64,
    /// When it was begun.
    pub(crate) at: Timestamp,
}

impl SegmentHeader {
    /// Returns the line, with its line feed.
    fn to_line(&self) -> String {
        let Self { store, fence, at } = self;
        let line = serde_json::json!({
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "store": format!("{store:016x}"),
            "fence": fence,
            "made_at": at.to_string(),
            "lines": "one saga each: its row, and `appends` with the position and version of the \
                      last of their `events`, each [type, data]; times are milliseconds since 1970",
        });
        format!("{line}\n")
    }

    /// Reads the line.
    pub(super) fn from_line(line: &[u8]) -> Result<Self, String> {
        let line: serde_json::Value =
            serde_json::from_slice(line).map_err(|error| format!("its first line: {error}"))?;
        if line["format"] != FORMAT {
            return Err("its first line is not that of an archive".to_owned());
        }
        let version = line["version"].as_u64().unwrap_or(0);
        if version == 0 || version > u64::from(FORMAT_VERSION) {
            return Err(format!(
                "its format has version {version}, and this version of Amends reads {FORMAT_VERSION}"
            ));
        }
        let store = line["store"].as_str().and_then(|text| u64::from_str_radix(text, 16).ok());
        let at = line["made_at"].as_str().and_then(|text| text.parse().ok());
        match (store, line["fence"].as_i64(), at) {
            (Some(store), Some(fence), Some(at)) => {
                Ok(Self { store: i64::from_ne_bytes(store.to_ne_bytes()), fence, at })
            }
            _ => Err("its first line does not say which store wrote it".to_owned()),
        }
    }
}

/// A segment that is complete and durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrittenSegment {
    /// The name of the file.
    pub(crate) file: String,
    /// The BLAKE3 hash of the file.
    pub(crate) hash: [u8; 32],
    pub(crate) first: SagaId,
    pub(crate) last: SagaId,
    pub(crate) sagas: u64,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    pub(crate) at: Timestamp,
}

/// A segment that is being written, under the name of a draft. The draft is removed when this is
/// dropped.
pub(crate) struct SegmentWriter {
    folder: PathBuf,
    draft: Draft,
    file: File,
    hasher: blake3::Hasher,
    /// The bytes that are written.
    bytes: u64,
    /// The plain bytes of the frame that is not written yet.
    frame: Vec<u8>,
    index: Index,
    events: u64,
    at: Timestamp,
}

/// The name of a draft.
struct Draft {
    path: PathBuf,
    is_kept: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes a folder and those above it, so that a power failure does not take them away.
fn make_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<_> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for made in missing {
        if let Some(parent) = made.parent() {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

impl SegmentWriter {
    /// Begins a segment in a folder, which is made when it is not there.
    pub(crate) fn create(folder: &Path, header: &SegmentHeader) -> io::Result<Self> {
        make_folder(folder)?;
        let store = u64::from_ne_bytes(header.store.to_ne_bytes());
        // A store writes one segment at a time, and replaces what an earlier process left of one.
        let path = folder.join(format!("{store:016x}{DRAFT_SUFFIX}"));
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let draft = Draft { path, is_kept: false };
        let (hasher, index, at) = (blake3::Hasher::new(), Index::default(), header.at);
        let folder = folder.to_owned();
        let frame = header.to_line().into_bytes();
        let mut writer =
            Self { folder, draft, file, hasher, bytes: 0, frame, index, events: 0, at };
        writer.end_frame()?;
        Ok(writer)
    }

    /// Adds the line of a saga. Callers add sagas by ascending id.
    pub(crate) fn add(&mut self, id: SagaId, line: &str, events: u64) -> io::Result<()> {
        let number = |number: usize| u32::try_from(number).map_err(io::Error::other);
        let frame = number(self.index.frames.len())?;
        let (offset, bytes) = (number(self.frame.len())?, number(line.len())?);
        self.index.sagas.push(SagaEntry { id, frame, offset, bytes });
        self.frame.extend_from_slice(line.as_bytes());
        self.frame.push(b'\n');
        self.events += events;
        if self.frame.len() >= FRAME_BYTES {
            self.end_frame()?;
            failpoint("store.archive.writing");
        }
        Ok(())
    }

    /// Returns how many bytes are written so far.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Compresses and writes the current frame.
    fn end_frame(&mut self) -> io::Result<()> {
        let number = |number: usize| u32::try_from(number).map_err(io::Error::other);
        let compressed = zstd::bulk::compress(&self.frame, LEVEL)?;
        self.index.frames.push(FrameEntry {
            offset: self.bytes,
            bytes: number(compressed.len())?,
            plain_bytes: number(self.frame.len())?,
            hash: *blake3::hash(&compressed).as_bytes(),
        });
        self.frame.clear();
        self.write(&compressed)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// Completes the segment and makes it durable, under the name of the draft. None when no saga was
    /// added.
    pub(crate) fn complete(mut self) -> io::Result<Option<CompleteSegment>> {
        let (Some(first), Some(last)) = (self.index.sagas.first(), self.index.sagas.last()) else {
            return Ok(None);
        };
        let (first, last) = (first.id, last.id);
        if !self.frame.is_empty() {
            self.end_frame()?;
        }
        let (index, index_hash) = self.index.to_frame();
        let footer = Footer::of(self.bytes, &index, index_hash);
        self.write(&index)?;
        self.write(&footer.to_frame())?;
        self.file.sync_all()?;
        failpoint("store.archive.written");
        let hash = self.hasher.finalize();
        let plain = |id: SagaId| id.to_string().replace('-', "");
        let file = format!(
            "segment-{}-{}-{}{SEGMENT_SUFFIX}",
            plain(first),
            plain(last),
            &hash.to_hex()[..16]
        );
        let written = WrittenSegment {
            file,
            hash: *hash.as_bytes(),
            first,
            last,
            sagas: self.index.sagas.len() as u64,
            events: self.events,
            bytes: self.bytes,
            at: self.at,
        };
        Ok(Some(CompleteSegment { written, draft: self.draft, folder: self.folder }))
    }

    /// Completes the segment, makes it durable and gives it its name in its folder. None when no saga was
    /// added.
    pub(crate) fn finish(self) -> io::Result<Option<WrittenSegment>> {
        let Some(CompleteSegment { written, mut draft, folder }) = self.complete()? else {
            return Ok(None);
        };
        fs::rename(&draft.path, folder.join(&written.file))?;
        draft.is_kept = true;
        File::open(&folder)?.sync_all()?;
        Ok(Some(written))
    }
}

/// A segment that is complete and durable, and has the name of a draft. The draft is removed when this is
/// dropped.
pub(crate) struct CompleteSegment {
    /// What it is, with the name that it will have.
    pub(crate) written: WrittenSegment,
    draft: Draft,
    folder: PathBuf,
}

impl CompleteSegment {
    /// Returns where it is now.
    pub(crate) fn path(&self) -> &Path {
        &self.draft.path
    }
}
