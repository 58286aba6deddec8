//! Replaces a file as a whole.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

/// Writes a file that replaces `out` when it is complete: who reads `out` sees the old file or the whole new one. Its
/// permissions are those of `out`, or else those of `source`.
///
/// # Errors
/// When the file cannot be written. Then `out` stays as it was.
pub(crate) fn replace(out: &Path, source: &Path, bytes: &[u8]) -> io::Result<()> {
    // What a link leads to is replaced, not the link.
    let out = fs::canonicalize(out).unwrap_or_else(|_| out.to_owned());
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let mut beside = tempfile::Builder::new().prefix(".amends-").tempfile_in(folder)?;
    beside.write_all(bytes)?;
    let permissions = fs::metadata(&out).or_else(|_| fs::metadata(source))?.permissions();
    beside.as_file().set_permissions(permissions)?;
    beside.as_file().sync_all()?;
    beside.persist(&out)?;
    Ok(())
}
