//! The components that are in memory, and those that lately could not be loaded.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use amends_engine::{Digest, PluginName};
use amends_sandbox::{LoadedComponent, Rejection};

/// How long a component is kept ready that serves nothing any more, after its last call began: calls
/// that were admitted on it may not have begun, and sagas that are pinned to it come in crowds. Past
/// it the code is freed with its last call, and loaded again for a saga that comes later.
const REPLACED_KEPT: Duration = Duration::from_secs(5);

/// Of those, how many at once. The one that was idle longest goes first.
const REPLACED_MAX: usize = 16;

/// How long a rejection is answered again without a look at the component: a thousand sagas that
/// wait for one bad component would each compile it.
const REJECTION_KEPT: Duration = Duration::from_secs(30);

/// As [`REJECTION_KEPT`], where the host could not look at it: calls wait for that.
const PASSING_KEPT: Duration = Duration::from_secs(5);

/// Rejections that are kept at once. More bad components than a host has plugins are not
/// expected; past it the oldest is forgotten, which costs a load.
const REJECTIONS_MAX: usize = 64;

#[derive(Default)]
pub(crate) struct LoadedCache {
    /// The oldest first. What a plugin is granted is in it, so the digest alone does not do.
    rejected: VecDeque<(Instant, PluginName, Digest, Rejection)>,
    by_digest: HashMap<Digest, Weak<LoadedComponent>>,
    replaced: Vec<Replaced>,
}

struct Replaced {
    component: Arc<LoadedComponent>,
    used_at: Instant,
}

impl LoadedCache {
    /// A component that somebody holds.
    pub(crate) fn get(&mut self, digest: Digest, now: Instant) -> Option<Arc<LoadedComponent>> {
        if let Some(kept) = self.replaced.iter_mut().find(|one| one.component.digest == digest) {
            kept.used_at = now;
        }
        self.by_digest.get(&digest).and_then(Weak::upgrade)
    }

    /// Returns how many components are in memory.
    pub(crate) fn count(&self) -> usize {
        self.by_digest.values().filter(|known| known.strong_count() > 0).count()
    }

    /// Lets go of what nobody asked for lately; whoever takes it drops it.
    pub(crate) fn let_go(&mut self, now: Instant) -> Vec<Arc<LoadedComponent>> {
        let is_idle =
            |one: &mut Replaced| now.saturating_duration_since(one.used_at) >= REPLACED_KEPT;
        let idle = self.replaced.extract_if(.., is_idle).map(|one| one.component).collect();
        self.by_digest.retain(|_, known| known.strong_count() > 0);
        idle
    }

    /// Remembers a component that somebody else holds.
    pub(crate) fn know(&mut self, component: &Arc<LoadedComponent>) {
        self.by_digest.retain(|_, known| known.strong_count() > 0);
        self.by_digest.insert(component.digest, Arc::downgrade(component));
        self.rejected.retain(|(_, _, digest, _)| *digest != component.digest);
    }

    /// Holds a component that nobody else does, or soon no one.
    pub(crate) fn keep(&mut self, component: &Arc<LoadedComponent>, now: Instant) {
        self.know(component);
        self.replaced.retain(|one| one.component.digest != component.digest);
        if self.replaced.len() == REPLACED_MAX {
            let idle = self.replaced.iter().enumerate().min_by_key(|(_, one)| one.used_at);
            if let Some((index, _)) = idle {
                self.replaced.swap_remove(index);
            }
        }
        self.replaced.push(Replaced { component: Arc::clone(component), used_at: now });
    }

    /// Why a component could not be loaded, if that was tried a moment before `now`.
    pub(crate) fn rejection(
        &self,
        plugin: &PluginName,
        digest: Digest,
        now: Instant,
    ) -> Option<Rejection> {
        let is_fresh = |at: Instant, rejection: &Rejection| {
            let kept = if rejection.is_passing() { PASSING_KEPT } else { REJECTION_KEPT };
            now.saturating_duration_since(at) < kept
        };
        self.rejected
            .iter()
            .find(|(at, name, of, why)| is_fresh(*at, why) && name == plugin && *of == digest)
            .map(|(.., rejection)| rejection.clone())
    }

    /// Remembers why a component could not be loaded.
    pub(crate) fn reject(
        &mut self,
        plugin: &PluginName,
        digest: Digest,
        rejection: Rejection,
        now: Instant,
    ) {
        self.rejected.retain(|(_, name, of, _)| name != plugin || *of != digest);
        self.rejected.push_back((now, plugin.clone(), digest, rejection));
        if self.rejected.len() > REJECTIONS_MAX {
            self.rejected.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    #[test]
    fn a_rejection_is_forgotten_after_some_time_and_when_there_are_many() {
        let mut cache = LoadedCache::default();
        let plugin = |name: &str| name.parse::<PluginName>().unwrap();
        let (began, name, digest) = (Instant::now(), plugin("test"), Digest::of(b"one"));
        let rejection = Rejection::Compile("why".to_owned());
        cache.reject(&name, digest, rejection.clone(), began);
        let just_before = began + REJECTION_KEPT.saturating_sub(Duration::from_millis(1));
        assert_eq!(cache.rejection(&name, digest, just_before), Some(rejection.clone()));
        assert_eq!(cache.rejection(&name, digest, began + REJECTION_KEPT), None);
        assert_eq!(cache.rejection(&plugin("other"), digest, began), None);
        assert_eq!(cache.rejection(&name, Digest::of(b"two"), began), None);
        for number in 0..REJECTIONS_MAX {
            let digest = Digest::of(number.to_string().as_bytes());
            cache.reject(&name, digest, rejection.clone(), began);
        }
        assert_eq!(cache.rejection(&name, digest, began), None);
        assert_eq!(cache.rejected.len(), REJECTIONS_MAX);
    }
}
