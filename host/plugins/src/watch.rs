//! Hot reload: the plugin folder is watched, and looked at now and then in case the system's
//! notices are lost.
//!
//! A file is read when it has not changed for [`SETTLE`]. One that is cut off is given until
//! [`GIVE_UP`], because a slow copy looks like that; if it changes later, it is read again.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use amends_engine::{Digest, PluginName};
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::error::{PluginError, Rejection};
use crate::host::{PluginHost, Why};
use crate::load::Priority;

/// A file that has not changed for this long is read.
const SETTLE: Duration = Duration::from_millis(100);

/// A file that is cut off and has not changed for this long is refused.
const GIVE_UP: Duration = Duration::from_secs(1);

/// How often the folder is looked at without a notice.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How often while a file is settling.
const LOOK_CLOSELY: Duration = Duration::from_millis(50);

/// What tells that a file has changed, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signature {
    bytes: u64,
    modified: Option<SystemTime>,
    file: u64,
}

#[derive(Debug)]
struct Seen {
    signature: Signature,
    since: Instant,
    is_done: bool,
    /// It was there at the start, and has not changed since.
    from_start: bool,
    /// What it held when it was read last and not refused: the same bytes again say nothing new.
    taken: Option<Digest>,
}

impl Seen {
    fn new(signature: Signature, from_start: bool) -> Self {
        Self { signature, since: Instant::now(), is_done: false, from_start, taken: None }
    }
}

/// The components of a folder: `NAME.wasm` by NAME. A name that cannot be a plugin's is told.
pub(crate) fn files(dir: &Path) -> Result<BTreeMap<PluginName, PathBuf>, PluginError> {
    let failed = |error: std::io::Error| PluginError::Folder {
        dir: dir.to_owned(),
        message: error.to_string(),
    };
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|extension| extension != "wasm") || !path.is_file() {
            continue;
        }
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        match stem.parse::<PluginName>() {
            Ok(name) => {
                found.insert(name, path);
            }
            Err(error) => tracing::debug!(file = %path.display(), %error, "not a plugin"),
        }
    }
    Ok(found)
}

/// Looking at the folder is an access too: a notice of it must not lead to another look.
fn may_have_changed(notice: &notify::Result<notify::Event>) -> bool {
    let Ok(event) = notice else { return true };
    !event.kind.is_access() || event.kind == EventKind::Access(AccessKind::Close(AccessMode::Write))
}

/// Watches until it is aborted. The receiver is told when it has begun.
pub(crate) fn spawn(host: PluginHost) -> (JoinHandle<()>, oneshot::Receiver<()>) {
    let (ready, begun) = oneshot::channel();
    let task = tokio::spawn(async move {
        let (sender, mut notices) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |notice| {
            if may_have_changed(&notice) {
                let _ = sender.send(());
            }
        })
        .and_then(|mut watcher| {
            watcher.watch(&host.config().dir, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "no notices of changed files; the folder is looked at every {LOOK_AGAIN:?}");
        }
        let mut seen = first_look(&host);
        let _ = ready.send(());
        loop {
            let is_settling = seen.values().any(|seen| !seen.is_done);
            let pause = if is_settling { LOOK_CLOSELY } else { LOOK_AGAIN };
            tokio::select! {
                notice = notices.recv(), if watcher.is_ok() && !is_settling => {
                    if notice.is_none() {
                        tokio::time::sleep(LOOK_AGAIN).await;
                    }
                    while notices.try_recv().is_ok() {}
                }
                () = tokio::time::sleep(pause) => {}
            }
            look(&host, &mut seen).await;
        }
    });
    (task, begun)
}

/// What was loaded at the start, unless it has changed meanwhile.
fn first_look(host: &PluginHost) -> HashMap<PathBuf, Seen> {
    let mut seen = HashMap::new();
    for (_, path) in files(&host.config().dir).unwrap_or_default() {
        if let Some(signature) = signature(&path) {
            seen.insert(path, Seen::new(signature, true));
        }
    }
    seen
}

async fn look(host: &PluginHost, seen: &mut HashMap<PathBuf, Seen>) {
    let found = match files(&host.config().dir) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "what is active serves on");
            return;
        }
    };
    // A deleted file strands nobody: its component serves on.
    seen.retain(|path, _| found.values().any(|other| other == path));
    for (name, path) in found {
        let Some(signature) = signature(&path) else { continue };
        let entry = seen.entry(path.clone()).or_insert_with(|| Seen::new(signature, false));
        if entry.signature != signature {
            *entry = Seen { taken: entry.taken, ..Seen::new(signature, false) };
        }
        let quiet = entry.since.elapsed();
        if !entry.is_done && quiet >= SETTLE {
            entry.is_done = take(host, &name, &path, entry, quiet >= GIVE_UP).await;
        }
    }
}

/// Reads a file and offers it. False when it should be looked at again.
async fn take(
    host: &PluginHost,
    name: &PluginName,
    path: &Path,
    seen: &mut Seen,
    is_last: bool,
) -> bool {
    let Ok(bytes) = tokio::fs::read(path).await else { return false };
    if signature(path) != Some(seen.signature) {
        return false;
    }
    let digest = Digest::of(&bytes);
    if host.is_active(name, digest) || seen.from_start && host.is_superseded(name, digest) {
        seen.taken = Some(digest);
    }
    if seen.taken == Some(digest) || seen.from_start && host.is_refused(name, digest) {
        return true;
    }
    seen.taken = None;
    let result = match host.load(name, bytes, Priority::Background).await {
        Ok(candidate) => {
            if let Some(objection) = host.objection(name, &candidate.component).await {
                host.reject(name, digest, &objection).await
            } else {
                let done = host.activate(vec![candidate], Why::default()).await;
                seen.taken = done.is_ok().then_some(digest);
                done
            }
        }
        // What is being copied looks like that: its signature comes last.
        Err(
            Rejection::Truncated { .. }
            | Rejection::Invalid(_)
            | Rejection::Unsigned
            | Rejection::SignatureMisfit { .. },
        ) if !is_last => return false,
        Err(rejection) => host.reject(name, digest, &rejection).await,
    };
    if let Err(error) = result {
        tracing::error!(plugin = %name, %error, "the plugin cannot be changed now, trying again");
        return false;
    }
    true
}

fn signature(path: &Path) -> Option<Signature> {
    let metadata = fs::metadata(path).ok()?;
    #[cfg(unix)]
    let file = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let file = 0;
    Some(Signature { bytes: metadata.len(), modified: metadata.modified().ok(), file })
}
