//! Which shard a saga belongs to, and how often the shard changed its owner.

use std::fmt;

use amends_engine::SagaId;

/// The number of shards of a store. It does not depend on the machine.
pub(crate) const SHARDS: u16 = 64;

/// One of the [`SHARDS`] parts of all sagas. A shard has one owner at a time, and only the owner
/// writes to its sagas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(u16);

impl ShardId {
    /// The shard whose owner does what one host at a time does for all: the archive, retention, schedules,
    /// subscriptions. So the leases of shards also decide about that, and there is no second election.
    pub const LEADER: Self = Self(0);

    /// Returns the shard of a saga. It follows from the last two bytes of the id, so a child is in
    /// the shard of its parent.
    #[must_use]
    pub fn of(saga: SagaId) -> Self {
        let bytes = saga.as_bytes();
        Self(u16::from_be_bytes([bytes[14], bytes[15]]) % SHARDS)
    }

    /// Returns all shards of a store.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SHARDS).map(Self)
    }

    /// Returns the number of the shard, less than [`SHARDS`].
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the owners of a shard. Each owner has a larger epoch than the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);
