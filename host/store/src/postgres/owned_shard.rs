//! A shard and the epoch in which a process owns it.

use crate::shard_id::ShardId;

/// A shard in the epoch of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnedShard {
    pub(super) id: ShardId,
    pub(super) epoch: i64,
}
