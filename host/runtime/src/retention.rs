//! How long ended sagas stay in the store.

use std::collections::BTreeMap;
use std::time::Duration;

use amends_engine::DefinitionName;

/// How long sagas stay in the store after their end. Later they go to the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// The time for the sagas of every definition that is not in `keep`.
    pub store: Duration,
    /// The time for the sagas of single definitions.
    pub keep: BTreeMap<DefinitionName, Duration>,
}

impl Retention {
    /// Returns the time for the sagas of a definition.
    #[must_use]
    pub fn of(&self, definition: &DefinitionName) -> Duration {
        self.keep.get(definition).copied().unwrap_or(self.store)
    }

    /// Returns the shortest time of any definition.
    pub(crate) fn shortest(&self) -> Duration {
        self.keep.values().copied().fold(self.store, Duration::min)
    }
}
