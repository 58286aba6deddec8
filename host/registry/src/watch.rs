//! Hot reload: watches the plugin folder, and also lists it now and then, because the system may lose
//! notices.
//!
//! A file is read when it has not changed for [`SETTLE`]. A truncated file gets until [`GIVE_UP`], because
//! a slow copy looks like that; if it changes later, it is read again.
//!
//! Each file is looked at in a task of its own, at most [`LOOKS_MAX`] at once. The loader of the sandbox
//! runs one long look at a time, so that a long look delays no short one. When the file changes, its look
//! ends, and the next look begins after that.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::{Digest, PluginName};
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinHandle;

use amends_sandbox::{Priority, Rejection};

use crate::activation::{ActivationCause, ActivationReason, Candidate, Guard};
use crate::error::PluginError;
use crate::folder::{self, ComponentFile, Stamp};
use crate::registry::Registry;

/// A file that has not changed for this long is read.
const SETTLE: Duration = Duration::from_millis(100);

/// A file that is cut off and has not changed for this long is refused.
const GIVE_UP: Duration = Duration::from_secs(1);

/// How often the folder is looked at without a notice, and a file that the host failed to take.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// When a file is looked at again that the host could not look at, for want of memory or disk: that can
/// cost minutes each time.
const LOOK_AGAIN_LATER: Duration = Duration::from_mins(1);

/// How often while a file is settling.
const LOOK_CLOSELY: Duration = Duration::from_millis(50);

/// Files that are looked at at once: each holds its bytes, up to 64 MiB.
const LOOKS_MAX: usize = 4;

/// Looking at the folder is an access too: a notice of it must not lead to another look.
fn may_have_changed(notice: &notify::Result<notify::Event>) -> bool {
    let Ok(event) = notice else { return true };
    !event.kind.is_access() || event.kind == EventKind::Access(AccessKind::Close(AccessMode::Write))
}

impl Registry {
    /// Begins to look at the folder and to follow what other hosts of the store deploy. `guard` is
    /// asked before a file replaces what serves; so there must be one by then, where there are sagas.
    pub async fn watch(&self, guard: Option<Arc<dyn Guard>>) {
        if let Some(guard) = guard {
            let _ = self.inner.guard.set(guard);
        }
        let (watcher, ready) = spawn(self.clone());
        let follower = self.follow();
        self.tasks().extend([watcher, follower]);
        // A file that is dropped right after this must be seen.
        let _ = ready.await;
    }
}

/// Watches until it is aborted. The receiver is told when it has begun.
fn spawn(host: Registry) -> (JoinHandle<()>, oneshot::Receiver<()>) {
    let (ready, begun) = oneshot::channel();
    let task = tokio::spawn(async move {
        let wake = Arc::new(Notify::new());
        let noticed = Arc::clone(&wake);
        let watcher = notify::recommended_watcher(move |notice| {
            if may_have_changed(&notice) {
                noticed.notify_one();
            }
        })
        .and_then(|mut watcher| {
            watcher.watch(&host.config().dir, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "no notices of changed files; the folder is looked at every {LOOK_AGAIN:?}");
        }
        let mut folder = Folder::new(host, wake);
        let _ = ready.send(());
        loop {
            folder.look();
            if folder.is_settling() {
                tokio::time::sleep(LOOK_CLOSELY).await;
            } else {
                tokio::select! {
                    () = folder.wake.notified() => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
            }
        }
    });
    (task, begun)
}

/// What is known of the files of the folder.
struct Folder {
    host: Registry,
    /// Told of notices, and of looks that have ended.
    wake: Arc<Notify>,
    /// For the files that are looked at.
    room: Arc<Semaphore>,
    files: BTreeMap<PluginName, Seen>,
}

struct Seen {
    stamp: Stamp,
    since: Instant,
    progress: Progress,
    look: Option<Look>,
    /// It was there at the start, and has not changed since.
    from_start: bool,
    /// What it held when it was read last and not refused: the same bytes again say nothing new.
    taken: Option<Digest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It is to be looked at, when it has settled and no look at it is under way.
    Waits,
    /// It is to be looked at again then, because the host failed.
    Failed(Instant),
    /// It is dealt with until it changes.
    Done,
}

/// A look that is under way. Dropping it breaks it off.
struct Look {
    task: JoinHandle<()>,
    answer: oneshot::Receiver<Looked>,
    /// Of the file as it was.
    stamp: Stamp,
    /// Dropped when the file has changed, or is gone.
    current: Option<oneshot::Sender<()>>,
}

impl Drop for Look {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What came of a look.
#[derive(Debug)]
enum Looked {
    /// It was dealt with: with the digest when it was not refused.
    Done(Option<Digest>),
    /// The file may not be whole yet.
    TooEarly,
    /// The host failed, or the file changed.
    Failed,
    /// It is refused for a reason that passes.
    Refused,
}

impl Seen {
    fn new(stamp: Stamp, from_start: bool) -> Self {
        let (since, progress) = (Instant::now(), Progress::Waits);
        Self { stamp, since, progress, look: None, from_start, taken: None }
    }

    /// Breaks off the look at what was there before. A component that is whole and about to become
    /// active may do so all the same.
    fn break_off(&mut self) {
        if let Some(look) = &mut self.look {
            look.current = None;
        }
    }

    /// Takes in a look that has ended.
    fn take_in(&mut self) {
        let Some(look) = &mut self.look else { return };
        let looked = match look.answer.try_recv() {
            Ok(looked) => looked,
            Err(TryRecvError::Empty) => return,
            // It panicked, and would do so again.
            Err(TryRecvError::Closed) => Looked::Done(None),
        };
        let stamp = look.stamp;
        self.look = None;
        if let Looked::Done(taken) = looked {
            self.taken = taken;
        }
        if stamp == self.stamp {
            self.progress = match looked {
                Looked::Done(_) => Progress::Done,
                Looked::TooEarly => Progress::Waits,
                Looked::Failed => Progress::Failed(Instant::now() + LOOK_AGAIN),
                Looked::Refused => Progress::Failed(Instant::now() + LOOK_AGAIN_LATER),
            };
        }
    }
}

impl Folder {
    /// With what is there at the start.
    fn new(host: Registry, wake: Arc<Notify>) -> Self {
        let room = Arc::new(Semaphore::new(LOOKS_MAX));
        let mut this = Self { host, wake, room, files: BTreeMap::new() };
        if let Some(found) = this.find() {
            this.tell_gone(&found);
            this.files =
                found.into_iter().map(|(name, stamp)| (name, Seen::new(stamp, true))).collect();
        }
        this
    }

    /// The files that may be components. None when the folder cannot be read.
    fn find(&self) -> Option<BTreeMap<PluginName, Stamp>> {
        let dir = &self.host.config().dir;
        let names = folder::names(dir)
            .inspect_err(|error| tracing::warn!(%error, "what is active serves on"))
            .ok()?;
        let stamp = |name: &PluginName| match ComponentFile::open(dir, name) {
            Ok(file) => file.map(|file| file.stamp),
            Err(error) => {
                tracing::debug!(plugin = %name, %error, "the file cannot be looked at now");
                self.files.get(name).map(|seen| seen.stamp)
            }
        };
        let found = names.into_iter().filter_map(|name| stamp(&name).map(|stamp| (name, stamp)));
        Some(found.collect())
    }

    /// A plugin that a file served, and that has none any more.
    fn tell_gone(&self, found: &BTreeMap<PluginName, Stamp>) {
        for plugin in self.host.list() {
            let Some(last) = plugin.history.first() else { continue };
            if last.why.cause == ActivationCause::File && !found.contains_key(&plugin.name) {
                let file = folder::path(&self.host.config().dir, &plugin.name);
                tracing::warn!(plugin = %plugin.name, digest = %last.digest, file = %file.display(), "plugin is served from the store: its file is gone");
            }
        }
    }

    /// Whether a file has to be looked at soon.
    fn is_settling(&self) -> bool {
        self.files.values().any(|seen| seen.progress == Progress::Waits && seen.look.is_none())
    }

    fn look(&mut self) {
        for seen in self.files.values_mut() {
            seen.take_in();
        }
        let Some(found) = self.find() else { return };
        // A deleted file strands nobody: its component serves on.
        self.files.retain(|name, seen| {
            let is_there = found.contains_key(name);
            if !is_there {
                seen.break_off();
            }
            is_there || seen.look.is_some()
        });
        for (name, stamp) in found {
            self.look_at(&name, stamp);
        }
    }

    fn look_at(&mut self, name: &PluginName, stamp: Stamp) {
        let seen = self.files.entry(name.clone()).or_insert_with(|| Seen::new(stamp, false));
        if seen.stamp != stamp {
            seen.break_off();
            let (look, taken) = (seen.look.take(), seen.taken);
            *seen = Seen { look, taken, ..Seen::new(stamp, false) };
        }
        let quiet = seen.since.elapsed();
        let is_due = match seen.progress {
            Progress::Waits => quiet >= SETTLE,
            Progress::Failed(again_at) => again_at <= Instant::now(),
            Progress::Done => false,
        };
        if !is_due || seen.look.is_some() {
            return;
        }
        let (current, changed) = oneshot::channel();
        let (reply, answer) = oneshot::channel();
        let what = FileLook {
            host: self.host.clone(),
            name: name.clone(),
            stamp,
            from_start: seen.from_start,
            taken: seen.taken,
            is_last: quiet >= GIVE_UP,
        };
        let (room, wake) = (Arc::clone(&self.room), Arc::clone(&self.wake));
        let task = tokio::spawn(async move {
            let looked = what.look(&room, changed).await;
            let _ = reply.send(looked);
            wake.notify_one();
        });
        seen.look = Some(Look { task, answer, stamp, current: Some(current) });
    }
}

/// One look at one file.
struct FileLook {
    host: Registry,
    name: PluginName,
    stamp: Stamp,
    from_start: bool,
    taken: Option<Digest>,
    /// Whatever is wrong with it, it has been so for long enough.
    is_last: bool,
}

/// What a file holds.
enum Found {
    /// What it held before, or what serves.
    Known(Digest),
    Candidate(Candidate),
    Refused(Option<Digest>, Rejection),
    TooEarly,
    Failed,
}

impl FileLook {
    /// `changed` ends when the file is not as it was any more.
    async fn look(&self, room: &Semaphore, changed: oneshot::Receiver<()>) -> Looked {
        let found = async {
            let room = room.acquire().await;
            (self.find().await, room)
        };
        // The room is kept until the bytes are gone.
        let (found, _room) = tokio::select! {
            found = found => found,
            _ = changed => return Looked::Failed,
        };
        let (digest, done) = match found {
            Found::Known(digest) => return Looked::Done(Some(digest)),
            Found::TooEarly => return Looked::TooEarly,
            Found::Failed => return Looked::Failed,
            Found::Refused(digest, rejection) => {
                let done = self.host.reject(&self.name, digest, &rejection).await;
                if done.is_ok() && rejection.is_passing() {
                    return Looked::Refused;
                }
                (None, done)
            }
            Found::Candidate(candidate) => self.offer(candidate).await,
        };
        match done {
            Ok(()) => Looked::Done(digest),
            Err(error) => {
                tracing::error!(plugin = %self.name, %error, "the plugin cannot be changed now, trying again");
                Looked::Failed
            }
        }
    }

    /// Reads the file and loads what it holds. May be dropped at any time.
    async fn find(&self) -> Found {
        let (dir, name, stamp) = (self.host.config().dir.clone(), self.name.clone(), self.stamp);
        let read = tokio::task::spawn_blocking(move || read(&dir, &name, stamp)).await;
        let read = match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(plugin = %self.name, %error, "the file cannot be read now, trying again");
                return Found::Failed;
            }
        };
        let (bytes, digest) = match read {
            Some(Ok(read)) => read,
            Some(Err(_)) if !self.is_last => return Found::TooEarly,
            Some(Err(rejection)) => return Found::Refused(None, rejection),
            None => return Found::TooEarly,
        };
        let host = &self.host;
        if self.taken == Some(digest) || host.is_active(&self.name, digest) {
            return Found::Known(digest);
        }
        if self.from_start && host.config().shares_store && host.last(&self.name).is_some() {
            let serving = host.active(&self.name).map(|active| active.digest.to_string());
            tracing::warn!(plugin = %self.name, digest = serving, file_digest = %digest, "plugin is served from the store: the file that was there at the start holds another component; with several hosts it counts when its bytes change, or by a deploy");
            return Found::Known(digest);
        }
        if self.from_start && host.is_superseded(&self.name, digest) {
            let serving = host.active(&self.name).map(|active| active.digest.to_string());
            tracing::warn!(plugin = %self.name, digest = serving, file_digest = %digest, "plugin is served from the store: its file holds another component, which an operator replaced; the file counts again when its bytes change");
            return Found::Known(digest);
        }
        match host.load(&self.name, bytes, Priority::Background).await {
            Ok(candidate) => Found::Candidate(candidate),
            // What is being copied looks like that: its signature comes last.
            Err(
                Rejection::Truncated { .. }
                | Rejection::Invalid(_)
                | Rejection::Unsigned
                | Rejection::SignatureMisfit { .. },
            ) if !self.is_last => Found::TooEarly,
            Err(rejection) => Found::Refused(Some(digest), rejection),
        }
    }

    /// Has a component serve, unless somebody objects. Its digest, when it does.
    async fn offer(&self, candidate: Candidate) -> (Option<Digest>, Result<(), PluginError>) {
        let (host, digest) = (&self.host, candidate.component.digest);
        let _turn = host.turn().await;
        let objection = match host.misnamed(&self.name, &candidate.component) {
            None => host.objection(&self.name, &candidate.component, ActivationCause::File).await,
            misnamed => misnamed,
        };
        if let Some(objection) = objection {
            return (None, host.reject(&self.name, Some(digest), &objection).await);
        }
        let is_wanted = || !self.from_start || host.takes_file_of_start(&self.name);
        let why = ActivationReason::default();
        let done = host.activate_while(vec![candidate], why, is_wanted).await;
        (Some(digest), done.map(|_| ()))
    }
}

/// What a file holds; none when it is not as it was any more.
type Read = Option<Result<(Vec<u8>, Digest), Rejection>>;

/// Blocks.
fn read(dir: &Path, name: &PluginName, stamp: Stamp) -> io::Result<Read> {
    let open =
        || Ok::<_, io::Error>(ComponentFile::open(dir, name)?.filter(|it| it.stamp == stamp));
    let Some(file) = open()? else { return Ok(None) };
    let read = file.read()?;
    // It may have changed while it was read.
    if open()?.is_none() {
        return Ok(None);
    }
    Ok(Some(read.map(|bytes| {
        let digest = Digest::of(&bytes);
        (bytes, digest)
    })))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use amends_sandbox::Inspection;
    use amends_store::{Durability, SqliteStore};
    use amends_tests::Component;

    use super::*;
    use crate::config::PluginsConfig;

    /// As when the machine has no process left for it.
    #[tokio::test]
    async fn a_file_that_the_host_could_not_look_at_is_looked_at_again() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("plugins");
        std::fs::create_dir(&dir).unwrap();
        let config = PluginsConfig {
            dir: dir.clone(),
            cache: folder.path().join("cache"),
            inspection: Inspection::Child(dir.join("no-such-program")),
            ..PluginsConfig::default()
        };
        let store = SqliteStore::open(&folder.path().join("amends.db"), Durability::Relaxed);
        let host = Registry::open(config, Arc::new(store.unwrap())).await.unwrap();
        let name: PluginName = "test".parse().unwrap();
        std::fs::write(folder::path(&dir, &name), Component::default().build()).unwrap();
        let stamp = ComponentFile::open(&dir, &name).unwrap().unwrap().stamp;
        let (from_start, taken, is_last) = (false, None, true);
        let what = FileLook { host: host.clone(), name, stamp, from_start, taken, is_last };
        let (_current, changed) = oneshot::channel();
        let looked = what.look(&Semaphore::new(1), changed).await;
        assert!(matches!(looked, Looked::Refused), "{looked:?}");
        assert_eq!(host.list()[0].rejections.len(), 1);

        let (reply, answer) = oneshot::channel();
        reply.send(looked).unwrap();
        let look = Look { task: tokio::spawn(async {}), answer, stamp, current: None };
        let mut seen = Seen { look: Some(look), ..Seen::new(stamp, false) };
        seen.take_in();
        assert!(matches!(seen.progress, Progress::Failed(_)), "{:?}", seen.progress);
    }
}
