//! Work on a store that no host has open: its survey, its backup, and the check of any file.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use amends_engine::{Timestamp, Version};
use rusqlite::{Connection, OptionalExtension as _};

use super::acknowledged::Lost;
use super::archive_check::check_archive;
use super::backup::{BACKUP_AT, Stamp, copy_unused};
use super::connection::{open_reader, open_writer};
use super::copied;
use super::error::describe_open;
use super::file::{self, LOCK_SUFFIX};
use super::read::{self, SUMS_SINCE};
use super::schema::{SCHEMA_VERSION, check_version};
use crate::archive_files::ArchiveFiles;
use crate::archive_place::ArchivePlace;
use crate::backup::{BackupError, BackupSummary};
use crate::copied_row::{Cell, CopiedCounts, CopiedTable};
use crate::error::OpenError;
use crate::in_place::{beside, draft_of, put_in_place};
use crate::paging::PageBudget;
use crate::restored::FileCheck;
use crate::stored_event::StoredEvent;
use crate::stream::Stream;
use crate::survey::StoreSurvey;

/// A store that no host has open, and that none can open meanwhile. Nothing in it is changed: its
/// fence stays, and it is not brought up to date.
pub struct StoppedStore {
    connection: Connection,
    path: PathBuf,
    schema: i64,
    /// Dropped after the connection.
    lock: File,
}

impl StoppedStore {
    /// Opens the store that a URL names.
    ///
    /// # Errors
    /// When there is no store, a host has it, or it cannot be used.
    pub fn open(url: &str) -> Result<Self, OpenError> {
        let path = path_of(url)?;
        if fs::metadata(&path).is_err() {
            return Err(OpenError::file(path, "there is no store"));
        }
        let path = file::resolve(&path)?;
        file::refuse_other_file(&path)?;
        let lock = file::lock(&path)?;
        if !file::exists(&path)? {
            return Err(OpenError::file(path, "there is no store"));
        }
        let connection = open_writer(&path).map_err(|error| describe_open(&path, error))?;
        let schema = check_version(&connection, &path)?;
        Ok(Self { connection, path, schema, lock })
    }

    /// Returns what the store holds.
    ///
    /// # Errors
    /// When the store cannot be read, or an earlier version wrote it.
    pub fn survey(&self) -> Result<StoreSurvey, OpenError> {
        self.check_schema()?;
        read::survey(&self.connection, &self.path).map_err(|error| describe_open(&self.path, error))
    }

    /// Fails when an earlier version wrote the store.
    fn check_schema(&self) -> Result<(), OpenError> {
        if self.schema < SCHEMA_VERSION {
            let found = self.schema;
            let wrong = format!(
                "it has schema version {found}, which a host brings to {SCHEMA_VERSION} when it \
                 starts; start it once"
            );
            return Err(OpenError::file(&self.path, wrong));
        }
        Ok(())
    }

    /// Reads the whole store and checks it. Each finding is a sentence.
    ///
    /// # Errors
    /// When the store cannot be read, an earlier version wrote it, or it lacks events that were acknowledged.
    pub(crate) fn findings(&self) -> Result<Vec<String>, OpenError> {
        self.check_schema()?;
        if let Some(lost) = self.read(Lost::find(&self.lock, &self.connection))? {
            return Err(lost.to_error(&self.path));
        }
        Ok(read::check(&self.connection, self.schema).findings)
    }

    /// Returns the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns how many rows a table has.
    pub(crate) fn count(&self, table: CopiedTable) -> Result<u64, OpenError> {
        self.read(copied::count(&self.connection, table))
    }

    /// Returns what the store counts apart from its rows.
    pub(crate) fn counts(&self) -> Result<CopiedCounts, OpenError> {
        self.read(copied::counts(&self.connection))
    }

    /// Reads a table, row by row. Ends with the first error.
    pub(crate) async fn each_row<E: From<OpenError>>(
        &self,
        table: CopiedTable,
        mut each: impl AsyncFnMut(Vec<Cell>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut statement = self.read(copied::statement(&self.connection, table))?;
        let mut rows = self.read(statement.query([]))?;
        while let Some(row) = self.read(rows.next())? {
            each(self.read(copied::read_row(table, row))?).await?;
        }
        Ok(())
    }

    fn read<T>(&self, read: rusqlite::Result<T>) -> Result<T, OpenError> {
        read.map_err(|error| describe_open(&self.path, error))
    }

    /// Returns how many sagas the store has.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn sagas(&self) -> Result<u64, OpenError> {
        let sql = "SELECT count(*) FROM sagas NOT INDEXED";
        let sagas = self.connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        sagas.map(i64::unsigned_abs).map_err(|error| describe_open(&self.path, error))
    }

    /// Copies the store into a file, which appears under its name when it is complete and durable.
    ///
    /// # Errors
    /// When the file exists and may not be replaced, or the copy fails. No part of it is left then.
    pub fn back_up(&self, target: &Path, may_replace: bool) -> Result<BackupSummary, BackupError> {
        let draft = draft_of(target);
        let copied = copy_unused(&self.connection, draft.clone(), Stamp::Now)?;
        put_in_place(&draft, target, may_replace).map_err(|error| {
            let _ = fs::remove_file(&draft);
            BackupError::copy(target, error)
        })?;
        Ok(copied)
    }
}

/// Returns the file that a URL names.
pub(super) fn path_of(url: &str) -> Result<PathBuf, OpenError> {
    if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        return Err(OpenError::NotOfPostgres);
    }
    match url.strip_prefix("sqlite:") {
        Some(path) if !path.is_empty() && path != ":memory:" => Ok(PathBuf::from(path)),
        Some(_) | None => Err(OpenError::Url(url.to_owned())),
    }
}

/// A file to be checked or copied, which no host has open.
pub(super) struct CheckedFile {
    pub(super) connection: Connection,
    pub(super) check: FileCheck,
    /// Dropped after the connection. A backup has no lock.
    _lock: Option<File>,
}

/// Checks a backup or a store that no host has open. With its archive, the files in there are
/// checked as well.
///
/// # Errors
/// When a host has the file open, or it is no store of this version or an earlier one. Damage that
/// leaves the file readable is a finding.
pub fn check_file(path: &Path, archive: Option<&ArchivePlace>) -> Result<FileCheck, OpenError> {
    let CheckedFile { connection, mut check, .. } = open_checked(path)?;
    if let Some(place) = archive.filter(|_| check.segments > 0) {
        let files = ArchiveFiles::open(place, file::folder(path))?;
        match check_archive(&connection, &files) {
            Ok(found) => check.findings.extend(found),
            // What was found before is not lost.
            Err(error) => {
                check.findings.push(format!("the archive was not checked to its end: {error}"));
            }
        }
    }
    Ok(check)
}

/// Events that [`read_stream`] reads at once.
const EVENTS_PER_READ: PageBudget = PageBudget::items(1_000);

/// The memory for pages of a check, in KiB.
const CHECK_CACHE_KIB: i64 = 256 << 10;

/// Reads the events of a stream of a backup, or of a store that no host has open, by ascending version, until `each`
/// returns false. A file of a schema before version 11 is not read.
///
/// # Errors
/// When a host has the file open, it is no store of this version or an earlier one, or it cannot be read to the end.
pub fn read_stream(
    path: &Path,
    stream: &Stream,
    mut each: impl FnMut(&StoredEvent) -> bool,
) -> Result<(), OpenError> {
    let file = open_unused(path)?;
    if file.schema < SUMS_SINCE {
        return Ok(());
    }
    let mut after = Version(0);
    loop {
        let page = read::events(&file.connection, stream, after, EVENTS_PER_READ)
            .map_err(|error| describe_open(&file.path, error))?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.version;
        if !page.iter().all(&mut each) {
            return Ok(());
        }
    }
}

/// A backup, or a store that no host has open.
struct UnusedFile {
    connection: Connection,
    path: PathBuf,
    bytes: u64,
    schema: i64,
    /// Dropped after the connection. A backup has no lock.
    lock: Option<File>,
}

/// Opens a file that no host has open.
fn open_unused(path: &Path) -> Result<UnusedFile, OpenError> {
    // The lock and the log are beside the file that a link leads to.
    let path = path.canonicalize().map_err(|error| file::file_error(path, error))?;
    let bytes = fs::metadata(&path).map_err(|error| file::file_error(&path, error))?.len();
    file::refuse_other_file(&path)?;
    // A file without a lock beside it was never opened by a host, so nothing is made beside it.
    let has_lock = fs::metadata(beside(&path, LOCK_SUFFIX)).is_ok();
    let lock = if has_lock { Some(file::lock(&path)?) } else { None };
    if !file::exists(&path)? {
        return Err(OpenError::file(&path, "there is no such file"));
    }
    // With a log beside it, reading needs the right to write.
    let connection = if has_log(&path)? { open_writer(&path) } else { open_reader(&path) };
    let connection = connection.map_err(|error| describe_open(&path, error))?;
    let schema = check_version(&connection, &path)?;
    Ok(UnusedFile { connection, path, bytes, schema, lock })
}

/// Opens a file and checks it.
pub(super) fn open_checked(path: &Path) -> Result<CheckedFile, OpenError> {
    let UnusedFile { lock, connection, path, bytes, schema } = open_unused(path)?;
    let failed = |error: rusqlite::Error| describe_open(&path, error);
    // A check reads most pages several times, and nothing else runs beside it.
    connection.pragma_update(None, "cache_size", -CHECK_CACHE_KIB).map_err(failed)?;
    let backup_at = connection
        .query_row("SELECT value FROM meta WHERE name = ?1", [BACKUP_AT], |row| row.get(0))
        .optional();
    let backup_at = backup_at.unwrap_or_default().map(Timestamp::from_millis);
    let mut content = read::check(&connection, schema);
    if let Some(lost) = lock.as_ref().and_then(|lock| Lost::find(lock, &connection).transpose()) {
        content.findings.push(lost.map_err(failed)?.to_string());
    }
    let check = FileCheck {
        bytes,
        schema,
        known_schema: SCHEMA_VERSION,
        events: content.events,
        sagas: content.sagas,
        backup_at,
        segments: content.segments,
        not_folded: content.not_folded,
        findings: content.findings,
        mendable: content.mendable,
    };
    Ok(CheckedFile { connection, check, _lock: lock })
}

/// Returns true when the header of a database says that it has a write-ahead log
/// (<https://www.sqlite.org/fileformat.html>, section 1.3.3).
fn has_log(path: &Path) -> Result<bool, OpenError> {
    let mut header = [0; 20];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.map_err(|error| file::file_error(path, error))?;
    Ok(header[19] == 2)
}
