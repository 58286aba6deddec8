//! Reads a segment: one saga, or all of it.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use amends_engine::SagaId;

use super::format::{SegmentError, damaged};
use super::index::{FOOTER_BYTES, Footer, FrameEntry, Index, SagaEntry};
use super::line::parse_line;
use super::write::SegmentHeader;
use crate::archive::ArchivedSaga;

/// The most findings of one segment. More would say nothing new.
const FINDINGS_MAX: usize = 20;

/// What a segment is read from.
pub(crate) trait SegmentSource: Send {
    /// Returns the size in bytes, and the last so many bytes; all of them when there are fewer. It is
    /// called before [`Self::read_at`].
    fn end(&mut self, bytes: usize) -> Result<(u64, Vec<u8>), SegmentError>;

    /// Fills a buffer from a place on.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), SegmentError>;
}

impl SegmentSource for File {
    fn end(&mut self, bytes: usize) -> Result<(u64, Vec<u8>), SegmentError> {
        let size = self.metadata()?.len();
        let mut end = vec![0; usize::try_from(size).map_or(bytes, |size| size.min(bytes))];
        self.read_at(size - end.len() as u64, &mut end)?;
        Ok((size, end))
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), SegmentError> {
        self.seek(SeekFrom::Start(offset))?;
        Ok(self.read_exact(buffer)?)
    }
}

/// An open segment. Its footer and index are checked; its frames are when they are read.
pub(crate) struct Segment {
    source: Box<dyn SegmentSource>,
    index: Index,
}

impl Segment {
    /// Opens a segment that is a file.
    pub(crate) fn open(path: &Path) -> Result<Self, SegmentError> {
        Self::over(Box::new(File::open(path)?))
    }

    /// Opens a segment.
    pub(crate) fn over(mut source: Box<dyn SegmentSource>) -> Result<Self, SegmentError> {
        let (bytes, footer) = source.end(FOOTER_BYTES)?;
        if footer.len() < FOOTER_BYTES {
            return Err(damaged("it is shorter than a footer: the file is cut off or no segment"));
        }
        let footer = Footer::from_frame(&footer, bytes)?;
        let mut content = vec![0; footer.bytes];
        source.read_at(footer.offset, &mut content)?;
        if *blake3::hash(&content).as_bytes() != footer.hash {
            return Err(damaged("its index has another hash than its footer says"));
        }
        let index = Index::from_content(&content, footer.frames_end())?;
        Ok(Self { source, index })
    }

    /// Returns what the first line says.
    pub(crate) fn header(&mut self) -> Result<SegmentHeader, SegmentError> {
        let plain = self.frame(0)?;
        SegmentHeader::from_line(&plain).map_err(damaged)
    }

    /// Returns the line of a saga, if the segment has it.
    pub(crate) fn line(&mut self, id: SagaId) -> Result<Option<Vec<u8>>, SegmentError> {
        let Some(entry) = self.index.find(id) else { return Ok(None) };
        let plain = self.frame(entry.frame as usize)?;
        Ok(Some(line_in(&plain, entry)?.to_vec()))
    }

    /// Returns a saga, if the segment has it.
    pub(crate) fn saga(&mut self, id: SagaId) -> Result<Option<ArchivedSaga>, SegmentError> {
        self.line(id)?.map(|line| parse_line(&line, id)).transpose()
    }

    /// Returns the ids of the sagas in the segment, ascending.
    pub(crate) fn ids(&self) -> impl Iterator<Item = SagaId> {
        self.index.sagas.iter().map(|entry| entry.id)
    }

    /// Reads the whole segment, one frame after the other. Each finding is a sentence.
    ///
    /// # Errors
    /// [`SegmentError::Unreachable`] alone: everything else is a finding.
    pub(crate) fn check(&mut self) -> Result<Vec<String>, SegmentError> {
        let mut findings = Vec::new();
        match self.header() {
            Err(error @ SegmentError::Unreachable(_)) => return Err(error),
            Err(error) => findings.push(error.to_string()),
            Ok(_) => {}
        }
        let mut sagas = self.index.sagas.clone().into_iter().peekable();
        for number in 1..self.index.frames.len() {
            let plain = self.frame(number);
            let mut places = Vec::new();
            while let Some(entry) = sagas.next_if(|entry| entry.frame as usize <= number) {
                places.push(entry);
            }
            match plain {
                Err(error @ SegmentError::Unreachable(_)) => return Err(error),
                Err(error) => findings.push(error.to_string()),
                Ok(plain) => {
                    let wrong = places.iter().filter_map(|entry| {
                        line_in(&plain, *entry).and_then(|line| parse_line(line, entry.id)).err()
                    });
                    findings.extend(wrong.map(|error| format!("frame {number}: {error}")));
                    if lines(&plain) != places.len() {
                        findings.push(format!("frame {number} has lines that its index has not"));
                    }
                }
            }
            if findings.len() >= FINDINGS_MAX {
                findings.truncate(FINDINGS_MAX);
                break;
            }
        }
        Ok(findings)
    }

    /// Returns the plain bytes of a frame.
    fn frame(&mut self, number: usize) -> Result<Vec<u8>, SegmentError> {
        let Some(FrameEntry { offset, bytes, plain_bytes, hash }) =
            self.index.frames.get(number).copied()
        else {
            return Err(damaged(format!("it has no frame {number}")));
        };
        let mut compressed = vec![0; bytes as usize];
        self.source.read_at(offset, &mut compressed)?;
        if *blake3::hash(&compressed).as_bytes() != hash {
            return Err(damaged(format!("frame {number}: its checksum does not match")));
        }
        let plain = zstd::bulk::decompress(&compressed, plain_bytes as usize)
            .map_err(|error| damaged(format!("frame {number}: {error}")))?;
        if plain.len() != plain_bytes as usize {
            return Err(damaged(format!(
                "frame {number}: it has another length than its index says"
            )));
        }
        Ok(plain)
    }
}

/// Returns the line at a place that the index has checked to be within the frame.
fn line_in(plain: &[u8], entry: SagaEntry) -> Result<&[u8], SegmentError> {
    let begin = entry.offset as usize;
    let end = begin + entry.bytes as usize;
    let begins = begin == 0 || plain.get(begin - 1) == Some(&b'\n');
    plain
        .get(begin..end)
        .filter(|line| begins && plain.get(end) == Some(&b'\n') && !line.contains(&b'\n'))
        .ok_or_else(|| damaged(format!("no line is at the place of saga {}", entry.id)))
}

fn lines(plain: &[u8]) -> usize {
    plain.split_inclusive(|byte| *byte == b'\n').count()
}
