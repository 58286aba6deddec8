//! Compiled code, kept on disk by the component's digest and the engine's version.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash as _, Hasher as _};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use amends_engine::Digest;
use amends_store::failpoint;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::error::Rejection;

/// Beside the code, its checksum: the code is mapped into memory as it is, so that a host which has 36
/// MiB of it, as one step in JavaScript makes, neither copies nor hashes them with SHA-256 at its start.
const CHECKSUM: &str = "crc32";

/// Takes compiled code from the cache, or compiles and keeps it there. Blocks: milliseconds from
/// the cache, seconds for a big component. Answers whether it had to compile.
pub(crate) fn compile(
    engine: &Engine,
    cache: Option<&Path>,
    digest: Digest,
    component: &[u8],
) -> Result<(Component, bool), Rejection> {
    let file = cache.map(|folder| cache_file(folder, engine, digest));
    if let Some(compiled) = file.as_deref().and_then(|file| read(engine, file)) {
        return Ok((compiled, false));
    }
    let compiled = Component::from_binary(engine, component)
        .map_err(|error| Rejection::Compile(format!("{error:#}").replace('\n', " ")))?;
    if let Some(file) = file
        && let Err(error) = write(&file, &compiled)
    {
        // The next start compiles again; nothing else is lost.
        tracing::warn!(file = %file.display(), error, "compiled code cannot be kept");
    }
    Ok((compiled, true))
}

/// Whether there is compiled code in the cache, sound or not.
pub(crate) fn is_compiled(engine: &Engine, cache: Option<&Path>, digest: Digest) -> bool {
    cache
        .is_some_and(|folder| cache_file(folder, engine, digest).with_extension(CHECKSUM).is_file())
}

fn cache_file(folder: &Path, engine: &Engine, digest: Digest) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    folder.join(format!("{}-{:016x}.cwasm", digest.hex(), hasher.finish()))
}

/// None when the file is not there or not what was written.
fn read(engine: &Engine, file: &Path) -> Option<Component> {
    let written = fs::read_to_string(file.with_extension(CHECKSUM)).ok()?;
    if checksum(File::open(file).ok()?).ok()? != written {
        tracing::warn!(file = %file.display(), "compiled code is damaged and is made anew");
        return None;
    }
    #[expect(
        unsafe_code,
        reason = "compiled code is machine code, and is mapped from its file: only what this host \
                  wrote may be loaded, and nobody may write to the file while it is mapped; a new \
                  one is written beside and renamed. The checksum shows that the file is whole; that \
                  nobody else writes to the cache folder is the operator's to see to, as for the \
                  binary itself"
    )]
    let component = unsafe { Component::deserialize_file(engine, file) };
    component
        .inspect_err(
            |error| tracing::warn!(file = %file.display(), %error, "compiled code is made anew"),
        )
        .ok()
}

/// Of damage, not of malice.
fn checksum(mut code: impl Read) -> std::io::Result<String> {
    let (mut hasher, mut part) = (crc32fast::Hasher::new(), vec![0; 256 << 10]);
    loop {
        match code.read(&mut part)? {
            0 => return Ok(format!("{:08x}", hasher.finalize())),
            bytes => hasher.update(&part[..bytes]),
        }
    }
}

/// Writes so far: two may compile the same at once.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// Written beside and renamed, so that nobody reads half of it; the checksum last.
fn write(file: &Path, component: &Component) -> Result<(), String> {
    failpoint("plugins.cache.before");
    let code = component.serialize().map_err(|error| error.to_string())?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let put = |bytes: &[u8], file: &Path| {
        let number = WRITES.fetch_add(1, Ordering::Relaxed);
        let beside = file.with_extension(format!("{}-{number}.tmp", std::process::id()));
        fs::write(&beside, bytes)
            .inspect(|()| failpoint("plugins.cache.beside"))
            .and_then(|()| fs::rename(&beside, file))
    };
    let checksum = checksum(code.as_slice()).map_err(|error| error.to_string())?;
    fs::create_dir_all(folder)
        .and_then(|()| put(&code, file))
        .and_then(|()| put(checksum.as_bytes(), &file.with_extension(CHECKSUM)))
        .inspect(|()| failpoint("plugins.cache.written"))
        .map_err(|error| error.to_string())
}
