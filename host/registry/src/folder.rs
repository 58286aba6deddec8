//! The plugin folder: which files may be components, and reading one.
//!
//! Whoever can write into the folder must not choose what the host reads elsewhere. A component is a
//! regular file. A symbolic link is followed as long as it stays in the folder, because Kubernetes
//! mounts a ConfigMap as such links; one that leaves the folder is refused. Everything else (folders,
//! FIFOs, devices) is passed over. The size is looked at before the file is read, and no more than
//! the largest component is ever read.
//!
//! Deliberately absent: when a file is read (`watch.rs`), and what its bytes are.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use amends_engine::PluginName;
use amends_sandbox::{COMPONENT_BYTES_MAX, Rejection};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::PluginError;

/// The plugins that may have a component in a folder: `NAME.wasm` is that of plugin NAME. A file
/// whose name cannot be a plugin's is logged and passed over.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn names(dir: &Path) -> Result<BTreeSet<PluginName>, PluginError> {
    let failed =
        |error: io::Error| PluginError::Folder { dir: dir.to_owned(), message: error.to_string() };
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let file = PathBuf::from(entry.map_err(failed)?.file_name());
        if file.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        let Some(stem) = file.file_stem().and_then(|stem| stem.to_str()) else { continue };
        match stem.parse::<PluginName>() {
            Ok(name) => {
                found.insert(name);
            }
            Err(error) => tracing::debug!(file = %file.display(), %error, "not a plugin"),
        }
    }
    Ok(found)
}

/// Where the component of a plugin is.
pub(crate) fn path(dir: &Path, name: &PluginName) -> PathBuf {
    dir.join(format!("{name}.wasm"))
}

/// Reads the component of a plugin from a folder. None when there is no such file, or it is no
/// regular one. Blocks.
///
/// # Errors
/// When the file is a link that leaves the folder, is too large or cannot be read.
pub fn read_component(dir: &Path, name: &PluginName) -> Result<Option<Vec<u8>>, Rejection> {
    let unreadable = |error: io::Error| Rejection::NotReadable(error.to_string());
    match ComponentFile::open(dir, name).map_err(unreadable)? {
        Some(file) => file.read().map_err(unreadable)?.map(Some),
        None => Ok(None),
    }
}

/// What changes when a file does, as far as that can be known without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// As above: of the bytes, the owner or the rights.
    changed: (i64, i64),
    inode: u64,
    device: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }
}

/// A file that may be a component, not read yet.
#[derive(Debug)]
pub(crate) struct ComponentFile {
    pub(crate) stamp: Stamp,
    file: Result<File, Rejection>,
}

impl ComponentFile {
    /// None when there is no such file, or it is no regular one.
    ///
    /// # Errors
    /// When the system cannot tell now; another try may succeed.
    pub(crate) fn open(dir: &Path, name: &PluginName) -> io::Result<Option<Self>> {
        let found = match fs::symlink_metadata(path(dir, name)) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // Opening a device may do something.
        if !found.is_file() && !found.is_symlink() {
            return Ok(None);
        }
        let refused = |rejection| Ok(Some(Self { stamp: Stamp::of(&found), file: Err(rejection) }));
        match open_in(dir, &format!("{name}.wasm")) {
            Ok(file) => {
                let opened = file.metadata()?;
                let stamp = Stamp::of(&opened);
                Ok(opened.is_file().then_some(Self { stamp, file: Ok(file) }))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::XDEV | Errno::LOOP) => refused(Rejection::Link),
            Err(error @ (Errno::ACCESS | Errno::PERM)) => {
                refused(Rejection::NotReadable(io::Error::from(error).to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// At most one byte more than a component may have. Blocks.
    ///
    /// # Errors
    /// Outside, when the system fails; inside, why the file is no component.
    pub(crate) fn read(self) -> io::Result<Result<Vec<u8>, Rejection>> {
        let file = match self.file {
            Ok(file) => file,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let too_large = |bytes: u64| {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            Ok(Err(Rejection::TooLarge { bytes, max: COMPONENT_BYTES_MAX }))
        };
        let max = COMPONENT_BYTES_MAX as u64;
        if self.stamp.bytes > max {
            return too_large(self.stamp.bytes);
        }
        let mut bytes = Vec::new();
        // It may have grown.
        file.take(max + 1).read_to_end(&mut bytes)?;
        let read = bytes.len() as u64;
        if read > max { too_large(read) } else { Ok(Ok(bytes)) }
    }
}

/// Opens a file of a folder without leaving the folder, and without waiting for whoever writes into
/// a FIFO.
fn open_in(dir: &Path, file: &str) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags | OFlags::DIRECTORY, Mode::empty())?;
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::ResolveFlags;
        let stay = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&dir, file, flags, Mode::empty(), stay) {
            // A kernel before 5.6, or a filter that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => {}
            opened => return opened.map(File::from),
        }
    }
    // No link at all.
    rustix::fs::openat(&dir, file, flags | OFlags::NOFOLLOW, Mode::empty()).map(File::from)
}
