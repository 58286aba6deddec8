//! The database file: where it is, its lock, who may read it, and whether it is whole.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::Read as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use crate::error::OpenError;
use crate::in_place::beside;

/// The suffix of the lock file: `amends.db-lock` is locked while `amends.db` is open.
pub(crate) const LOCK_SUFFIX: &str = "lock";

/// The bits of a file's mode that give rights to everybody but its owner and group.
const OTHERS: u32 = 0o007;

/// The first bytes of every SQLite database: <https://www.sqlite.org/fileformat.html>, section 1.3.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

const NO_DATABASE: &str = "it is not a SQLite database";

/// Returns the file that a path leads to, with symbolic links followed. So the file has one lock
/// and one log, whichever path names it. Creates the folder when there is none.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, OpenError> {
    let folder = folder(path);
    // Only the owner gets access to what is created here, whatever the umask says.
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        let message = format!(
            "the folder of the store cannot be made: {error}; set url in [store], or --store-url"
        );
        OpenError::file(folder, message)
    })?;
    let failed = |message: String| OpenError::file(path, message);
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let folder = folder.canonicalize().map_err(|error| file_error(folder, error))?;
            return Ok(path.file_name().map_or_else(|| folder.clone(), |name| folder.join(name)));
        }
        Err(error) => return Err(file_error(path, error)),
    };
    let resolved = path.canonicalize().map_err(|error| {
        if found.is_symlink() {
            failed("it is a symbolic link to a file that is not there".to_owned())
        } else {
            file_error(path, error)
        }
    })?;
    let links =
        fs::metadata(&resolved).map_or(1, |found| if found.is_file() { found.nlink() } else { 1 });
    if links > 1 {
        return Err(failed(format!(
            "the file has {links} names (hard links), and by each it would have a lock and a log of \
             its own; remove the others (`find -samefile` lists them)"
        )));
    }
    Ok(resolved)
}

/// Returns the file that a path leads to, as [`resolve`] does, whatever other names the file has.
pub(super) fn real_path(path: &Path) -> Result<PathBuf, OpenError> {
    match path.canonicalize() {
        Ok(path) => Ok(path),
        Err(_) => resolve(path),
    }
}

/// Takes the lock that one process holds while it uses the file. `path` is what [`resolve`]
/// returned. The operating system releases the lock when the process ends, however it ends.
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let lock_path = beside(path, LOCK_SUFFIX);
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&lock_path)
        .map_err(|error| file_error(&lock_path, error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => return Err(file_error(&lock_path, error)),
    }
    Ok(lock)
}

/// Rejects a file that is certainly no store, before anything is created beside it or changed in
/// it.
pub(super) fn refuse_other_file(path: &Path) -> Result<(), OpenError> {
    let damaged = |message: &str| Err(OpenError::damaged(path, message));
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => return damaged("it is not a file"),
        Ok(found) if found.len() > 0 => {}
        // Another host may be about to write an empty file.
        Ok(_) | Err(_) => return Ok(()),
    }
    let mut begin = [0; MAGIC.len()];
    match File::open(path).and_then(|mut file| file.read_exact(&mut begin)) {
        Ok(()) if begin == *MAGIC => Ok(()),
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            Err(file_error(path, error))
        }
        Ok(()) | Err(_) => damaged(NO_DATABASE),
    }
}

/// Takes the rights of others away: a store that an earlier version made may be readable by
/// everybody. The rights of the group stay, because an operator may have set them for backups.
pub(super) fn keep_from_others(path: &Path) {
    for file in [path.to_owned(), log_path(path), beside(path, "shm"), beside(path, LOCK_SUFFIX)] {
        take_from_others(&file);
    }
}

fn take_from_others(file: &Path) {
    let Ok(found) = fs::metadata(file) else { return };
    let mode = found.permissions().mode() & 0o7777;
    if mode & OTHERS == 0 {
        return;
    }
    match fs::set_permissions(file, Permissions::from_mode(mode & !OTHERS)) {
        Ok(()) => tracing::info!(file = %file.display(), "others may no longer read this file"),
        Err(error) => tracing::warn!(
            file = %file.display(), %error,
            "others may read this file, and the host cannot change that; chmod o= takes it from them"
        ),
    }
}

/// Returns true when the database exists, false when there is none yet. Fails when the file is no
/// database or is not whole.
///
/// This runs before SQLite opens the file. SQLite would make an empty database of an empty file,
/// and would notice a truncated file only when it reads the missing part.
pub(super) fn exists(path: &Path) -> Result<bool, OpenError> {
    let damaged = |message: &str| Err(OpenError::damaged(path, message));
    let wal_length = log_bytes(path);
    let length = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return damaged("it is not a file"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && wal_length == 0 => {
            return Ok(false);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return damaged("it is missing, but its log (-wal) is there");
        }
        Err(error) => return Err(file_error(path, error)),
    };
    if length == 0 {
        return damaged("it is empty");
    }
    let mut header = [0; 100];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    if read.is_err() || !header.starts_with(MAGIC) {
        return damaged(NO_DATABASE);
    }
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    let pages = u64::from(u32::from_be_bytes([header[28], header[29], header[30], header[31]]));
    if wal_length == 0 && length < pages * page_bytes {
        return damaged("the end of it is missing");
    }
    Ok(true)
}

/// Returns the folder of a file.
pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Returns the path of the write-ahead log of a database.
pub(super) fn log_path(path: &Path) -> PathBuf {
    beside(path, "wal")
}

/// Returns the size of the write-ahead log; 0 when there is none.
pub(super) fn log_bytes(path: &Path) -> u64 {
    fs::metadata(log_path(path)).map_or(0, |metadata| metadata.len())
}

/// Makes the error for a file or folder that the system refuses.
pub(super) fn file_error(path: &Path, error: std::io::Error) -> OpenError {
    OpenError::file(path, error)
}
