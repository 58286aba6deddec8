//! The files of an archive: each is written once, appears under its name when it is whole, and is read,
//! listed and removed. They are in a folder or in a bucket; whoever uses them does not ask which.
//!
//! Everything here blocks, so it is called off the async threads.

mod bucket;
mod refusal;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use amends_engine::SagaId;
use amends_failpoint::failpoint;

use crate::archive::ArchiveError;
use crate::archive_place::ArchivePlace;
use crate::error::OpenError;
use crate::segment::{
    DRAFT_SUFFIX, Segment, SegmentError, SegmentHeader, SegmentWriter, WrittenSegment,
};
use bucket::{Bucket, is_unknown};

/// The files of an archive.
pub(crate) struct ArchiveFiles {
    place: ArchivePlace,
    /// Where a file is written before it has its name.
    drafts: PathBuf,
    /// None when the files are in a folder.
    bucket: Option<Bucket>,
    /// It was said that a file stays that the store does not know.
    has_kept_orphan: AtomicBool,
}

/// A file that the store does not know.
pub(crate) struct Orphan {
    /// The name of the file.
    pub(crate) file: String,
    /// The sagas in it.
    pub(crate) sagas: Vec<SagaId>,
}

impl ArchiveFiles {
    /// Opens an archive. Nothing is created, read or connected to.
    ///
    /// The drafts of files for a bucket are in `beside`, the folder of the database.
    ///
    /// # Errors
    /// When the environment has settings of the bucket that cannot be used.
    pub(crate) fn open(place: &ArchivePlace, beside: &Path) -> Result<Self, OpenError> {
        let (drafts, bucket) = match place {
            ArchivePlace::Folder(folder) => (folder.clone(), None),
            ArchivePlace::Bucket(part) => {
                let failed = |wrong| OpenError::Archive { place: part.to_string(), wrong };
                (beside.to_owned(), Some(Bucket::open(part.clone()).map_err(failed)?))
            }
        };
        Ok(Self { place: place.clone(), drafts, bucket, has_kept_orphan: AtomicBool::new(false) })
    }

    /// Returns where the files are.
    pub(crate) const fn place(&self) -> &ArchivePlace {
        &self.place
    }

    /// Begins a file.
    ///
    /// # Errors
    /// When its draft cannot be written.
    pub(crate) fn begin(&self, header: &SegmentHeader) -> Result<SegmentWriter, ArchiveError> {
        SegmentWriter::create(&self.drafts, header).map_err(|error| self.draft_failed(error))
    }

    /// Returns the error of a draft that cannot be written.
    pub(crate) fn draft_failed(&self, error: io::Error) -> ArchiveError {
        failed(self.drafts.display().to_string(), error.into())
    }

    /// Completes a file, gives it its name, reads it back and compares. None when it has no saga.
    ///
    /// # Errors
    /// When it cannot be written, or what is read is not what was written.
    pub(crate) fn finish(
        &self,
        writer: SegmentWriter,
    ) -> Result<Option<WrittenSegment>, ArchiveError> {
        let Some(bucket) = &self.bucket else {
            let written = writer.finish().map_err(|error| self.draft_failed(error))?;
            let Some(written) = written else { return Ok(None) };
            has_its_name();
            let findings = self.check(&written.file, &written.hash);
            self.refuse(
                &written.file,
                findings.map_err(|error| self.failed(&written.file, error))?,
            )?;
            return Ok(Some(written));
        };
        let complete = writer.complete().map_err(|error| self.draft_failed(error))?;
        let Some(complete) = complete else { return Ok(None) };
        let WrittenSegment { file, hash, .. } = &complete.written;
        let draft = complete.path();
        let checked = Segment::open(draft).and_then(|mut segment| segment.check());
        let findings = checked.map_err(|error| failed(draft.display().to_string(), error))?;
        self.refuse(file, findings)?;
        bucket.put(file, draft).map_err(|error| self.failed(file, error))?;
        has_its_name();
        let read = bucket.hash(file).map_err(|error| self.failed(file, error))?;
        if read != *hash {
            self.refuse(file, vec!["what is read back is not what was written".to_owned()])?;
        }
        // The draft goes.
        Ok(Some(complete.written))
    }

    fn refuse(&self, file: &str, findings: Vec<String>) -> Result<(), ArchiveError> {
        match findings.into_iter().next() {
            Some(what) => Err(ArchiveError::Damaged { file: self.place.of(file), what }),
            None => Ok(()),
        }
    }

    /// Opens a file, to read some sagas of it.
    ///
    /// # Errors
    /// When it is not there, cannot be reached or is damaged.
    pub(crate) fn segment(&self, file: &str) -> Result<Segment, SegmentError> {
        match (&self.place, &self.bucket) {
            (_, Some(bucket)) => Segment::over(Box::new(bucket.reader(file))),
            (ArchivePlace::Folder(folder), _) => Segment::open(&folder.join(file)),
            (ArchivePlace::Bucket(_), None) => Segment::open(&self.drafts.join(file)),
        }
    }

    /// Reads a whole file. Each finding is a sentence that names the frame where that is known.
    ///
    /// # Errors
    /// [`SegmentError::Unreachable`] alone: everything else is a finding.
    pub(crate) fn check(&self, file: &str, hash: &[u8; 32]) -> Result<Vec<String>, SegmentError> {
        let checked = || -> Result<Vec<String>, SegmentError> {
            let mut findings = match &self.bucket {
                Some(bucket) => Segment::over(Box::new(bucket.reader_of_all(file)))?.check()?,
                None => self.segment(file)?.check()?,
            };
            if findings.is_empty() && self.hash(file)? != *hash {
                findings.push("its hash is not the one that the store has".to_owned());
            }
            Ok(findings)
        };
        match checked() {
            Err(error @ (SegmentError::File(_) | SegmentError::Damaged(_))) => {
                Ok(vec![error.to_string()])
            }
            other => other,
        }
    }

    /// Returns the BLAKE3 hash of a file.
    fn hash(&self, file: &str) -> Result<[u8; 32], SegmentError> {
        if let Some(bucket) = &self.bucket {
            return bucket.hash(file);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(fs::File::open(self.drafts.join(file))?)?;
        Ok(*hasher.finalize().as_bytes())
    }

    /// Removes drafts that these runs of the store left. Returns the files that one of them wrote and that the
    /// store does not know, each with its sagas: most likely a process ended before it recorded them, and
    /// then their sagas are in the store. Other files are not looked at: those of another store, and those of a
    /// later owner than `epoch`, who may be about to record them.
    ///
    /// # Errors
    /// When the files cannot be listed or read, or a draft cannot be removed.
    pub(crate) fn orphans(
        &self,
        known: BTreeSet<String>,
        runs: &BTreeSet<i64>,
        epoch: u64,
    ) -> Result<Vec<Orphan>, ArchiveError> {
        self.remove_drafts(runs)?;
        let mut orphans = Vec::new();
        for file in self.unknown(known)? {
            let looked = self.segment(&file).and_then(|mut segment| {
                let header = segment.header()?;
                let is_own = runs.contains(&header.store) && header.fence.unsigned_abs() <= epoch;
                Ok(if is_own { segment.ids().collect() } else { Vec::new() })
            });
            match looked {
                Ok(sagas) if sagas.is_empty() => {}
                Ok(sagas) => orphans.push(Orphan { file, sagas }),
                Err(error @ SegmentError::Unreachable(_)) => return Err(self.failed(&file, error)),
                Err(SegmentError::File(_) | SegmentError::Damaged(_)) => {}
            }
        }
        Ok(orphans)
    }

    /// Removes a file whose sagas are all in the store.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn remove_orphan(&self, file: &str) -> Result<(), ArchiveError> {
        tracing::info!(file = self.place.of(file), "an archive file without sagas is removed");
        self.remove(file)
    }

    /// Says that a file stays although the store does not know it.
    pub(crate) fn keep_orphan(&self, file: &str, saga: SagaId) {
        if self.has_kept_orphan.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::warn!(
            file = self.place.of(file),
            saga_id = %saga,
            "an archive file of this store is not known to it and has a saga that is nowhere else; it \
             stays. The database may be an older copy than the archive"
        );
    }

    /// Returns the names of files that are not `known`; in a bucket, at most some thousands of them.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn unknown(&self, known: BTreeSet<String>) -> Result<Vec<String>, ArchiveError> {
        let here = || self.place.to_string();
        if let Some(bucket) = &self.bucket {
            return bucket.unknown(known).map_err(|error| failed(here(), error));
        }
        let entries = match fs::read_dir(&self.drafts) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(here(), error.into())),
        };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| is_unknown(&known, name)).collect())
    }

    /// Removes a file.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn remove(&self, file: &str) -> Result<(), ArchiveError> {
        let removed = match &self.bucket {
            Some(bucket) => bucket.remove(file),
            None => fs::remove_file(self.drafts.join(file)).map_err(SegmentError::from),
        };
        removed.map_err(|error| self.failed(file, error))
    }

    /// Removes the drafts that runs of the store left.
    ///
    /// # Errors
    /// When one cannot be removed.
    fn remove_drafts(&self, runs: &BTreeSet<i64>) -> Result<(), ArchiveError> {
        for run in runs {
            let draft = self.drafts.join(format!("{:016x}{DRAFT_SUFFIX}", run.cast_unsigned()));
            match fs::remove_file(&draft) {
                Ok(()) => {
                    tracing::info!(file = %draft.display(), "a draft of an archive file is removed");
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(draft.display().to_string(), error.into())),
            }
        }
        Ok(())
    }

    /// Returns the error of a file that cannot be used.
    pub(crate) fn failed(&self, file: &str, error: SegmentError) -> ArchiveError {
        failed(self.place.of(file), error)
    }

    /// Ends requests that are under way, and refuses later ones. Files in a folder are not affected.
    pub(crate) fn close(&self) {
        if let Some(bucket) = &self.bucket {
            bucket.close();
        }
    }
}

/// Where a test has the host die when a file has its name and nothing of the database names it.
fn has_its_name() {
    failpoint("store.archive.named");
}

fn failed(file: String, error: SegmentError) -> ArchiveError {
    match error {
        SegmentError::File(source) => ArchiveError::File { file, source },
        SegmentError::Damaged(what) => ArchiveError::Damaged { file, what },
        SegmentError::Unreachable(what) => ArchiveError::Unreachable { file, what },
    }
}
