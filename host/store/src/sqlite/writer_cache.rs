//! What the writer keeps in memory of what is written.

use std::collections::HashMap;

use amends_engine::{PluginName, Position, Version};

use crate::stream::Stream;

/// The most streams whose version is kept in memory: those of the live sagas of a busy host. Each
/// takes some 100 bytes.
const VERSIONS_CACHED_MAX: usize = 1 << 16;

/// What the writer knows of the database without reading it. Only this process writes, so all of it
/// is right until a transaction fails.
pub(super) struct WriterCache {
    /// The position of the last event.
    pub(super) position: Position,
    /// The versions of the streams that were written last.
    pub(super) versions_cache: HashMap<Stream, Version>,
    /// The bytes of the state of plugins that wrote some.
    pub(super) state_bytes: HashMap<PluginName, u64>,
    /// The longest life of a saga, in milliseconds, once one was longer than usual.
    pub(super) longest_life: Option<i64>,
}

impl WriterCache {
    /// Makes the cache of a database whose last event has this position.
    pub(super) fn new(position: Position) -> Self {
        let (versions_cache, state_bytes, longest_life) = Default::default();
        Self { position, versions_cache, state_bytes, longest_life }
    }

    /// Forgets what a failed transaction has changed. `position` is the one before the transaction.
    pub(super) fn forget(&mut self, position: Position) {
        self.position = position;
        self.versions_cache.clear();
        self.state_bytes.clear();
        self.longest_life = None;
    }

    /// Records the version of a stream. A stream that has ended is forgotten, because nobody writes
    /// to it.
    pub(super) fn note_version(&mut self, stream: &Stream, version: Version, has_ended: bool) {
        if has_ended {
            self.versions_cache.remove(stream);
            return;
        }
        if self.versions_cache.len() >= VERSIONS_CACHED_MAX {
            self.versions_cache.clear();
        }
        self.versions_cache.insert(stream.clone(), version);
    }
}
