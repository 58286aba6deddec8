//! The components that are in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use amends_engine::Digest;

use crate::load::LoadedComponent;

/// Components that are kept ready after they were replaced: calls that were admitted on them may
/// not have begun. Older ones are loaded again when a saga needs them.
const REPLACED_KEPT: usize = 16;

#[derive(Default)]
pub(crate) struct LoadedCache {
    by_digest: HashMap<Digest, Weak<LoadedComponent>>,
    replaced: VecDeque<Arc<LoadedComponent>>,
}

impl LoadedCache {
    /// A component that somebody holds.
    pub(crate) fn get(&self, digest: Digest) -> Option<Arc<LoadedComponent>> {
        self.by_digest.get(&digest).and_then(Weak::upgrade)
    }

    /// Remembers a component that somebody else holds.
    pub(crate) fn know(&mut self, component: &Arc<LoadedComponent>) {
        self.by_digest.retain(|_, known| known.strong_count() > 0);
        self.by_digest.insert(component.digest, Arc::downgrade(component));
    }

    /// Holds a component that nobody else does, or soon no one.
    pub(crate) fn keep(&mut self, component: &Arc<LoadedComponent>) {
        self.know(component);
        self.replaced.push_back(Arc::clone(component));
        if self.replaced.len() > REPLACED_KEPT {
            self.replaced.pop_front();
        }
    }
}
