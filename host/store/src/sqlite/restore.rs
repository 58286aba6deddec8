//! Puts a backup in the place of a store.
//!
//! The order of the steps lets a crash leave the old store, the new one, or a file that a host
//! refuses to open, and never an empty place where a host would make a new store. The old store gets
//! a second name (a hard link) before the new one is renamed over it: with two names it is refused,
//! and the next restore removes the second one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use amends_failpoint::failpoint;
use rusqlite::{Connection, ErrorCode};

use super::acknowledged::Acknowledged;
use super::backup::{BACKUP_AT, Stamp, copy_unused, remove_files};
use super::clock::now;
use super::connection::open_writer;
use super::error::describe_open;
use super::file::{self, file_error, folder};
use super::runs::forget_runs;
use super::stopped::{open_checked, path_of};
use super::writer::read_fence;
use crate::error::OpenError;
use crate::in_place::beside;
use crate::restored::{RestoreError, Restored};

/// The suffix of the restored database until it is complete. A file of that name is replaced, so it
/// is none that people give to a copy of theirs.
const DRAFT_SUFFIX: &str = "unfinished-restore";

/// The suffix of the store that was replaced; the time follows.
const REPLACED_SUFFIX: &str = "replaced";

/// How much higher the fence of a restored store is than every fence that is known: more than there
/// are ever starts of a host between a backup and its restore. So no process that had the store
/// before can take the restored one for its own, even when the old store cannot be read.
const FENCE_LEAP: i64 = 1 << 20;

/// The findings that an error names.
const FINDINGS_NAMED: usize = 3;

/// Restores the store that a URL names from a backup. A store that is there already is kept under
/// another name, and only replaced when `may_replace`. Blocks meanwhile.
///
/// A backup in which only projections are wrong is restored as it is, and the check says so: the store
/// wants a rebuild then.
///
/// # Errors
/// When a host has the store, when the backup is damaged, newer than this version or of another
/// program, or when the system refuses something. What was there before is then still there.
pub fn restore(backup: &Path, url: &str, may_replace: bool) -> Result<Restored, RestoreError> {
    let path = path_of(url)?;
    let path = file::real_path(&path)?;
    let lock = file::lock(&path)?;
    remove_second_name(&path)?;
    let path = file::resolve(&path)?;
    let is_there = fs::metadata(&path).is_ok();
    if (is_there || file::log_bytes(&path) > 0) && !may_replace {
        return Err(RestoreError::Exists(path));
    }
    let checked = open_checked(backup)?;
    if checked.check.is_damaged() {
        let mut findings = checked.check.findings;
        findings.truncate(FINDINGS_NAMED);
        return Err(RestoreError::Damaged { path: backup.to_owned(), findings });
    }
    let draft = beside(&path, DRAFT_SUFFIX);
    copy_unused(&checked.connection, draft.clone(), Stamp::AsIs)?;
    // Last: until the copy is in its place, the number guards the old store.
    Acknowledged::forget(&lock).map_err(|error| file_error(&path, error))?;
    let placed = put_over(&draft, &path, is_there);
    if placed.is_err() {
        remove_files(&draft);
    }
    Ok(Restored { path, check: checked.check, replaced: placed? })
}

/// Renames the draft to the name of the store, with a fence above all others. Returns where the old
/// store is.
fn put_over(draft: &Path, path: &Path, is_there: bool) -> Result<Option<PathBuf>, OpenError> {
    let old_fence = if is_there { fence_old(path)? } else { None };
    raise_fence(draft, old_fence.unwrap_or(0))?;
    failpoint("store.restore.copied");
    let replaced = beside(path, &format!("{REPLACED_SUFFIX}-{}", compact_now()));
    if is_there {
        fs::hard_link(path, &replaced).map_err(|error| file_error(&replaced, error))?;
    }
    failpoint("store.restore.linked");
    // A log that is left fits the old store alone. SQLite would apply it to the new one.
    let mut has_log = false;
    for suffix in ["wal", "shm"] {
        let (log, kept) = (beside(path, suffix), beside(&replaced, suffix));
        match fs::rename(&log, kept) {
            Ok(()) => has_log = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(file_error(&log, error)),
        }
    }
    failpoint("store.restore.aside");
    fs::rename(draft, path).map_err(|error| file_error(path, error))?;
    failpoint("store.restore.renamed");
    let folder = folder(path);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| file_error(folder, error))?;
    Ok((is_there || has_log).then_some(replaced))
}

/// Raises the fence of the old store, so that a process that still has it open can no longer write,
/// and copies its log into it. Returns the fence; none when the old file is no store that can be
/// read, so that no process can write to it either.
///
/// # Errors
/// When the old store cannot be fenced now: a process that does not share the lock has it.
fn fence_old(path: &Path) -> Result<Option<i64>, OpenError> {
    let fence = || {
        let connection = open_writer(path)?;
        let raise = "UPDATE meta SET value = value + 1 WHERE name = 'fence' RETURNING value";
        let fence = connection.query_row(raise, [], |row| row.get::<_, i64>(0))?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        connection.close().map_err(|(_, error)| error)?;
        Ok(fence)
    };
    let fence: rusqlite::Result<i64> = fence();
    fence.map(Some).or_else(|error| {
        // `Unknown` is the code of a table that is not there.
        let is_unreadable = matches!(
            error.sqlite_error_code(),
            None | Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown)
        );
        tracing::debug!(%error, is_unreadable, "the old store is not fenced");
        if is_unreadable { Ok(None) } else { Err(describe_open(path, error)) }
    })
}

/// Sets the fence of the draft above its own and that of the old store, and makes it durable.
fn raise_fence(draft: &Path, old_fence: i64) -> Result<(), OpenError> {
    let raise = || {
        let connection: Connection = open_writer(draft)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let fence = read_fence(&connection)?.max(old_fence).saturating_add(FENCE_LEAP);
        connection.execute("UPDATE meta SET value = ?1 WHERE name = 'fence'", [fence])?;
        // Archive files that the old store wrote since the backup are not those of this one.
        forget_runs(&connection)?;
        // From here on it is a store and no backup.
        connection.execute("DELETE FROM meta WHERE name = ?1", [BACKUP_AT])?;
        connection.close().map_err(|(_, error)| error)
    };
    raise().map_err(|error| describe_open(draft, error))
}

/// Removes the second name of the store that a restore made before a crash ended it.
fn remove_second_name(path: &Path) -> Result<(), OpenError> {
    let Ok(store) = fs::metadata(path) else { return Ok(()) };
    let Some(name) = path.file_name() else { return Ok(()) };
    if store.nlink() < 2 {
        return Ok(());
    }
    let prefix = format!("{}-{REPLACED_SUFFIX}-", name.to_string_lossy());
    let failed = |error| file_error(path, error);
    for entry in fs::read_dir(folder(path)).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_second = entry.file_name().to_string_lossy().starts_with(&prefix)
            && entry.metadata().is_ok_and(|found| found.ino() == store.ino());
        if is_second {
            let second = entry.path();
            // Its log goes back to it.
            for suffix in ["wal", "shm"] {
                let _ = fs::rename(beside(&second, suffix), beside(path, suffix));
            }
            fs::remove_file(&second).map_err(|error| file_error(&second, error))?;
        }
    }
    Ok(())
}

/// Returns the time now as `20260301T093000.000Z`.
fn compact_now() -> String {
    now().to_string().chars().filter(|letter| !matches!(letter, '-' | ':')).collect()
}
