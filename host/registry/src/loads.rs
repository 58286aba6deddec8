//! Loads components in the background that should serve on this host and do not yet.
//!
//! These are components that another host of the store activated, canaries, and the components of plugins
//! that no definition needs. Each is loaded in a task of its own. While another component serves the
//! plugin, the load gives way to loads that somebody waits for. A load that fails is repeated with a pause
//! that doubles, because a disk may be full, or the bytes may not be in the store yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::{Digest, PluginName};
use amends_failpoint::failpoint;
use amends_sandbox::{LoadedComponent, Priority};
use amends_store::StoreError;
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinSet};

use crate::canary::Canary;
use crate::error::PluginError;
use crate::plugin::Active;
use crate::registry::Registry;

/// Components that are loaded at once: each holds its bytes, up to 64 MiB.
pub(crate) const LOADS_MAX: usize = 4;

/// The pauses before something is tried again: the first, and the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// A component that should serve a plugin.
type Wanted = (PluginName, Digest);

/// What is being loaded, and what could not be. Dropping it cancels the loads.
pub(crate) struct Loads {
    room: Arc<Semaphore>,
    tasks: JoinSet<bool>,
    running: BTreeMap<Id, Wanted>,
    failed: BTreeMap<Wanted, Failed>,
}

struct Failed {
    times: u32,
    again_at: Instant,
}

impl Loads {
    pub(crate) fn new() -> Self {
        let room = Arc::new(Semaphore::new(LOADS_MAX));
        Self { room, tasks: JoinSet::new(), running: BTreeMap::new(), failed: BTreeMap::new() }
    }

    /// Takes in what has ended, and begins what is missing.
    pub(crate) fn go_on(&mut self, host: &Registry) {
        self.take_in();
        let wanted = host.missing();
        self.failed.retain(|one, _| wanted.contains(one));
        for (name, digest) in wanted {
            let one = (name, digest);
            let is_due = self.failed.get(&one).is_none_or(|one| one.again_at <= Instant::now());
            if !is_due || self.running.values().any(|running| *running == one) {
                continue;
            }
            let (host, room, name) = (host.clone(), Arc::clone(&self.room), one.0.clone());
            let is_first = !self.failed.contains_key(&one);
            let task = self.tasks.spawn(async move {
                let _room = room.acquire().await;
                host.load_missing(&name, digest, is_first).await
            });
            self.running.insert(task.id(), one);
        }
    }

    fn take_in(&mut self) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            let (id, is_loaded) = match ended {
                Ok(ended) => ended,
                Err(error) => {
                    tracing::error!(%error, "loading a component panicked; it is tried again");
                    (error.id(), false)
                }
            };
            let Some(one) = self.running.remove(&id) else { continue };
            if is_loaded {
                self.failed.remove(&one);
                continue;
            }
            let times = self.failed.get(&one).map_or(0, |failed| failed.times);
            let again_at = Instant::now() + pause(times);
            self.failed.insert(one, Failed { times: times.saturating_add(1), again_at });
        }
    }
}

/// After so many failures before the last.
fn pause(times: u32) -> Duration {
    PAUSE_FIRST.saturating_mul(2_u32.saturating_pow(times)).min(PAUSE_MAX)
}

impl Registry {
    /// What should serve by the stream, and is not loaded.
    fn missing(&self) -> Vec<Wanted> {
        let mut missing = Vec::new();
        for (name, plugin) in &*self.plugins() {
            let active = plugin.active.as_ref().map(|active| active.component.digest);
            let last = plugin.history.first().map(|last| last.digest);
            let last = last.filter(|last| Some(*last) != active);
            let canary = plugin.canary.as_ref().and_then(Canary::missing);
            missing.extend([last, canary].into_iter().flatten().map(|one| (name.clone(), one)));
        }
        missing
    }

    /// Whether it could be loaded.
    async fn load_missing(&self, name: &PluginName, digest: Digest, is_first: bool) -> bool {
        // While something serves, nobody waits for what comes after it.
        let priority = match self.active(name) {
            Some(_) => Priority::Background,
            None => Priority::Awaited,
        };
        let error = match self.by_digest_as(name, digest, priority).await {
            Ok(component) => {
                self.put_to_use(name, &component);
                return true;
            }
            Err(PluginError::Store(StoreError::Closed | StoreError::Fatal(_))) => return false,
            Err(error) => error,
        };
        self.note_unloadable(name, digest, &error);
        if is_first {
            let serving = self.serving_words(name);
            tracing::error!(plugin = %name, %digest, %error, serving, "what should serve cannot be loaded; it is tried again");
        } else {
            tracing::debug!(plugin = %name, %digest, %error, "what should serve cannot be loaded");
        }
        false
    }

    pub(crate) fn note_unloadable(&self, name: &PluginName, digest: Digest, error: &PluginError) {
        self.change(name, |plugin| plugin.unloadable = Some((digest, error.to_string())));
    }

    /// Why no component serves a plugin, in a clause for people, as far as that is known. None while one
    /// serves, and while it is being loaded.
    #[must_use]
    pub fn why_missing(&self, name: &PluginName) -> Option<String> {
        let nothing = || "no component of it is in the store or in the plugin folder".to_owned();
        let why = self.with(name, |plugin| {
            if plugin.active.is_some() {
                return None;
            }
            let last = plugin.history.first().map(|last| last.digest);
            match (&plugin.unloadable, last, plugin.rejections.first()) {
                (Some((digest, error)), Some(last), _) if *digest == last => {
                    Some(format!("the component that served it last cannot be loaded: {error}"))
                }
                (_, Some(_), _) => None,
                (_, None, Some(rejection)) => {
                    Some(format!("its file is refused: {}", rejection.reason))
                }
                (_, None, None) => Some(nothing()),
            }
        });
        why.unwrap_or_else(|| Some(nothing()))
    }

    /// Has a component serve that the stream says should, if it still does.
    pub(crate) fn put_to_use(&self, name: &PluginName, component: &Arc<LoadedComponent>) {
        failpoint("plugins.serve_from_store");
        let digest = component.digest;
        let (is_active, replaced) = self.change(name, |plugin| {
            if let Some(canary) = &mut plugin.canary {
                canary.loaded(component);
            }
            let active = plugin.active.as_ref().map(|active| active.component.digest);
            let last = plugin.history.first().filter(|last| last.digest == digest);
            let Some(last) = last.filter(|_| active != Some(digest)) else { return (false, None) };
            let active = Active { component: Arc::clone(component), since: last.at };
            (true, plugin.active.replace(active))
        });
        if let Some(replaced) = replaced {
            self.cache().keep(&replaced.component, Instant::now());
        }
        if is_active {
            let version = &component.manifest.version;
            tracing::info!(plugin = %name, %digest, version, "plugin is active");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let pauses: Vec<_> = (0..8).map(|times| pause(times).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
    }
}
