//! Files that appear under their name only when they are complete.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use amends_failpoint::failpoint;

/// Returns the name under which this process writes a file until it is complete: beside the file,
/// so that renaming it copies nothing.
#[must_use]
pub fn draft_of(target: &Path) -> PathBuf {
    // The process alone would not do: in containers each one is the first.
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    beside(target, &format!("{}-{now:x}-part", std::process::id()))
}

/// Returns the path of a file beside another one, such as `amends.db-wal` or `amends.db-lock`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-");
    name.push(suffix);
    PathBuf::from(name)
}

/// Gives a complete and durable draft its name, and makes the name durable. Fails when there is such
/// a file already, unless `may_replace`. A store is never replaced: a host may have it open, and what
/// its log holds would be read into the new file. A store has a lock or a log beside it.
///
/// # Errors
/// What the system refuses. The draft is then still there.
pub fn put_in_place(draft: &Path, target: &Path, may_replace: bool) -> io::Result<()> {
    failpoint("store.draft.complete");
    if !may_replace && fs::symlink_metadata(target).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let companions = ["lock", "wal", "shm"].map(|suffix| beside(target, suffix));
    if let Some(companion) = companions.iter().find(|one| fs::symlink_metadata(one).is_ok()) {
        let (target, companion) = (target.display(), companion.display());
        return Err(io::Error::other(format!(
            "{target} is a store, because {companion} exists; name another file"
        )));
    }
    fs::rename(draft, target)?;
    failpoint("store.draft.named");
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
