//! Compiled code on disk, and what its component says about itself.
//!
//! Compiled code is machine code, so only what a host wrote with its own key is ever run: beside each
//! file stands a keyed hash (BLAKE3) of its name and content. The name has the component's digest and
//! the engine's version in it. The key is bound to the moment at which its file was made on this
//! machine: a cache that comes with a copied or unpacked project, key included, is compiled anew.
//!
//! Deliberately absent: whatever removes files. The folder may be deleted at any time.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use amends_engine::Digest;
use amends_failpoint::failpoint;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::component::inspect::Description;
use crate::error::{Rejection, SandboxError};

/// The keyed hash beside compiled code.
const HASH: &str = "blake3";

/// Bytes of a description or a refusal: two schemas of [`crate::component::schema::SCHEMA_BYTES_MAX`] as JSON
/// strings, and some texts.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// How long a component that met a limit is refused without another try. The limits are those of the
/// engine and of this version, and the same bytes meet them again; a day passes until somebody gives
/// the machine more memory.
const REFUSAL_KEPT: Duration = Duration::from_hours(24);

/// The part of a key that is on disk.
const KEY_BYTES: usize = 32;

/// Where compiled code is kept, and whose key vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CacheConfig {
    /// The folder. It is made when it is not there.
    pub dir: PathBuf,
    /// The file of the key, which is made when it is not there; none: a key that only this process
    /// has, and code that no later one takes.
    pub key: Option<PathBuf>,
}

/// The folder, once it is known to be ours. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cache(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    key: [u8; KEY_BYTES],
    /// Of the engine: what compiles for it.
    version: u64,
}

/// A component that met a limit.
#[derive(Serialize, Deserialize)]
struct Refused {
    /// Seconds since 1970.
    at: u64,
    rejection: Rejection,
}

impl Cache {
    /// None where no folder can be made: a host compiles at each start then.
    ///
    /// # Errors
    /// When the folder is not this user's alone, or the key cannot be had.
    pub(crate) fn open(
        config: &CacheConfig,
        engine: &Engine,
    ) -> Result<Option<Self>, SandboxError> {
        let CacheConfig { dir, key } = config;
        let failed = |message: String| SandboxError::Cache { dir: dir.clone(), message };
        match make_folder(dir).map_err(|error| (error.kind(), error)) {
            Ok(()) => {}
            Err((io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied, error)) => {
                tracing::warn!(dir = %dir.display(), %error, "compiled code cannot be kept, and each start compiles anew: name a folder that the host may write to in [plugins] cache or AMENDS_CACHE");
                return Ok(None);
            }
            Err((_, error)) => return Err(failed(format!("{error}; {ANOTHER_FOLDER}"))),
        }
        check_folder(dir).map_err(failed)?;
        let key = match key {
            Some(file) => read_key(file).map_err(|error| {
                failed(format!("its key {} cannot be had: {error}", file.display()))
            })?,
            None => *KEY_OF_PROCESS,
        };
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Some(Self(Arc::new(Inner { dir: dir.clone(), key, version: hasher.finish() }))))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0.dir
    }

    fn file(&self, digest: Digest, ending: &str) -> PathBuf {
        self.0.dir.join(format!("{}-{:016x}.{ending}", digest.hex(), self.0.version))
    }

    /// Whether there is code of a component, sound or not.
    pub(crate) fn has_code(&self, digest: Digest) -> bool {
        self.file(digest, HASH).is_file()
    }

    /// The file of a component's code, if this host wrote it.
    pub(crate) fn code(&self, digest: Digest) -> Option<PathBuf> {
        let file = self.file(digest, "cwasm");
        let read =
            || Ok::<_, io::Error>((read_text(&file.with_extension(HASH))?, open_own(&file)?));
        let hashed = read().and_then(|(written, code)| Ok((written, self.hash(&file, code)?)));
        match hashed {
            Ok((written, hash))
                if blake3::Hash::from_hex(&written).is_ok_and(|written| written == hash) =>
            {
                return Some(file);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "compiled code cannot be read, and is made anew");
                return None;
            }
        }
        tracing::warn!(file = %file.display(), "compiled code is damaged, or not this host's, and is made anew");
        None
    }

    /// Keeps code, which stands in a file of this folder.
    pub(crate) fn put_code(&self, digest: Digest, code: NamedTempFile) -> io::Result<PathBuf> {
        failpoint("plugins.cache.before");
        let file = self.file(digest, "cwasm");
        let hash = self.hash(&file, File::open(code.path())?)?;
        failpoint("plugins.cache.beside");
        code.persist(&file).map_err(|error| error.error)?;
        self.put(&file.with_extension(HASH), hash.to_hex().as_bytes())?;
        failpoint("plugins.cache.written");
        Ok(file)
    }

    /// What a component said about itself when it was asked like this.
    pub(crate) fn description(&self, digest: Digest, asked: &str) -> Option<Description> {
        self.read(&self.file(digest, &format!("{asked}.json")))
    }

    pub(crate) fn put_description(
        &self,
        digest: Digest,
        asked: &str,
        description: &Description,
    ) -> io::Result<()> {
        self.write(&self.file(digest, &format!("{asked}.json")), description)
    }

    /// Why a component is refused that met a limit lately.
    pub(crate) fn refusal(&self, digest: Digest) -> Option<Rejection> {
        let Refused { at, rejection } = self.read(&self.file(digest, "refused"))?;
        let age = seconds_now().checked_sub(at)?;
        (age < REFUSAL_KEPT.as_secs()).then_some(rejection)
    }

    pub(crate) fn put_refusal(&self, digest: Digest, rejection: &Rejection) -> io::Result<()> {
        let refused = Refused { at: seconds_now(), rejection: rejection.clone() };
        self.write(&self.file(digest, "refused"), &refused)
    }

    /// None when the file is not there or not what this host wrote.
    fn read<T: serde::de::DeserializeOwned>(&self, file: &Path) -> Option<T> {
        let text = read_text(file).ok()?;
        let (hash, json) = text.split_once('\n')?;
        let ours = self.hash(file, json.as_bytes()).ok()?;
        if blake3::Hash::from_hex(hash).is_ok_and(|hash| hash == ours) {
            return serde_json::from_str(json).ok();
        }
        tracing::warn!(file = %file.display(), "the file is damaged, or not this host's, and is made anew");
        None
    }

    /// The hash on the first line, then the content.
    fn write(&self, file: &Path, content: &impl Serialize) -> io::Result<()> {
        let json = serde_json::to_string(content)?;
        let hash = self.hash(file, json.as_bytes())?;
        self.put(file, format!("{hash}\n{json}").as_bytes())
    }

    /// Written beside and renamed, so that nobody reads half of it.
    fn put(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        // Only this user may read it, as all that `tempfile` makes.
        let mut beside = NamedTempFile::new_in(&self.0.dir)?;
        beside.write_all(bytes)?;
        beside.persist(file).map_err(|error| error.error)?;
        Ok(())
    }

    /// Of the file's name and of what it holds.
    fn hash(&self, file: &Path, content: impl io::Read) -> io::Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new_keyed(&self.0.key);
        let name = file.file_name().unwrap_or_default().as_encoded_bytes();
        hasher.update(&name.len().to_le_bytes()).update(name).update_reader(content)?;
        Ok(hasher.finalize())
    }
}

/// Maps compiled code, or reads it where its folder is mounted without the right to run what lies there.
///
/// # Errors
/// When the machine does not permit either.
pub(crate) fn map(engine: &Engine, file: &Path) -> Result<Component, Rejection> {
    #[expect(
        unsafe_code,
        reason = "compiled code is machine code, and is mapped from its file: only what this host's \
                  own child wrote may be loaded, and nobody may write to the file while it is \
                  mapped. A keyed hash shows that a file of the cache was written by this host; its \
                  folder is one that only this user may write to; a new file is written beside and \
                  renamed"
    )]
    let component = unsafe {
        Component::deserialize_file(engine, file)
            .or_else(|_| Component::deserialize(engine, fs::read(file)?))
    };
    component.map_err(|error| {
        let error = format!("{error:#}").replace('\n', " ");
        Rejection::Failed(format!("its compiled code cannot be taken: {error}"))
    })
}

/// Of this process: it ends with it.
static KEY_OF_PROCESS: LazyLock<[u8; KEY_BYTES]> = LazyLock::new(|| random().unwrap_or_default());

fn random() -> io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    Ok(key)
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What is right instead of a folder that does not do.
const ANOTHER_FOLDER: &str = "name another folder in [plugins] cache or AMENDS_CACHE";

fn make_folder(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    builder.mode(0o700).create(dir)
}

/// Whether a folder is this user's alone; what others could only read is closed to them.
fn check_folder(dir: &Path) -> Result<(), String> {
    let metadata = fs::symlink_metadata(dir).map_err(|error| error.to_string())?;
    if !metadata.is_dir() {
        return Err(format!("it is a link or a file; {ANOTHER_FOLDER}"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(format!("it belongs to another user; {ANOTHER_FOLDER}"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(
            "other users may write to it, and what it holds is run; remove it, or take that \
                    right away (chmod go-w)"
                .to_owned(),
        );
    }
    if metadata.mode() & 0o077 != 0 {
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(dir, private).map_err(|error| format!("{error}; {ANOTHER_FOLDER}"))?;
    }
    Ok(())
}

fn read_text(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    open_own(file)?.take(TEXT_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Opens a file that is this user's alone; no link, pipe or device.
fn open_own(file: &Path) -> io::Result<File> {
    let metadata = fs::symlink_metadata(file)?;
    let is_own = metadata.is_file() && is_private(&metadata);
    if is_own { File::open(file) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

fn is_private(metadata: &fs::Metadata) -> bool {
    let others = metadata.mode() & 0o077;
    metadata.uid() == rustix::process::geteuid().as_raw() && others == 0
}

/// The key of a file and of the moment at which that file was made, which nobody can choose who packs
/// a file: what another machine has hashed is not taken on this one.
fn read_key(file: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let open = || -> io::Result<([u8; KEY_BYTES], File)> {
        let (mut key, mut open) = ([0; KEY_BYTES], open_own(file)?);
        open.read_exact(&mut key)?;
        Ok((key, open))
    };
    let (key, open) = match open() {
        Ok(read) => read,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(file = %file.display(), %error, "the key of the cache is made anew: it must be a file of 32 bytes of this user alone");
            }
            write_key(file)?;
            open()?
        }
    };
    let mut hasher = blake3::Hasher::new_derive_key("amends 2026 key of compiled code");
    hasher.update(&key).update(&changed_at(&open.metadata()?));
    Ok(*hasher.finalize().as_bytes())
}

fn write_key(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    make_folder(folder)?;
    let mut beside = NamedTempFile::new_in(folder)?;
    beside.write_all(&random()?)?;
    beside.persist(file).map_err(|error| error.error)?;
    Ok(())
}

fn changed_at(metadata: &fs::Metadata) -> Vec<u8> {
    [metadata.ctime().to_le_bytes(), metadata.ctime_nsec().to_le_bytes()].concat()
}

/// A file for code that is to come, for this user alone; in the cache's folder, or where temporary
/// files are.
pub(crate) fn file_for_code(cache: Option<&Cache>) -> io::Result<NamedTempFile> {
    match cache {
        Some(cache) => NamedTempFile::new_in(cache.dir()),
        None => NamedTempFile::new(),
    }
}

/// Opens the file that the parent made for code.
pub(crate) fn open_for_code(file: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).truncate(true).open(file)
}
