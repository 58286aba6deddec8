//! The store: leases, lanes, shards and batches, as `store/src/postgres` has them.
//!
//! A transaction is one step here. What hosts and the database do between transactions happens in
//! any order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::live::Append;
use crate::Timestamp;

/// How long a host keeps its shards without a renewal.
pub(super) const LEASE: Duration = Duration::from_secs(5);

/// The number of a host. One that begins again after it was fenced gets another number.
pub(super) type HostNumber = u32;

/// What the database has, except the logs of the sagas.
#[derive(Debug, Default)]
pub(super) struct Store {
    hosts: HostNumber,
    /// The end of each host's lease.
    pub(super) leases: BTreeMap<HostNumber, Timestamp>,
    /// The fence: the epoch of each host's lane.
    pub(super) lanes: BTreeMap<HostNumber, u64>,
    pub(super) shards: Vec<ShardRow>,
    /// The batches that were committed.
    pub(super) batches: BTreeSet<BatchId>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ShardRow {
    pub(super) owner: Option<HostNumber>,
    pub(super) epoch: u64,
}

/// The row by which a batch is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BatchId {
    pub(super) host: HostNumber,
    pub(super) lane_epoch: u64,
    pub(super) number: u64,
}

/// Appends that are one transaction.
#[derive(Clone)]
pub(super) struct Batch {
    pub(super) id: BatchId,
    pub(super) appends: Vec<Arc<Append>>,
}

impl Store {
    /// Registers a host, which owns nothing.
    pub(super) fn register(&mut self, now: Timestamp) -> HostNumber {
        self.hosts += 1;
        self.leases.insert(self.hosts, now.after(LEASE));
        self.lanes.insert(self.hosts, 1);
        self.hosts
    }

    /// Removes a host. What it still sends is refused, and its shards are free.
    pub(super) fn take_over(&mut self, dead: HostNumber) {
        self.leases.remove(&dead);
        self.lanes.remove(&dead);
        for shard in self.shards.iter_mut().filter(|shard| shard.owner == Some(dead)) {
            shard.owner = None;
        }
    }

    /// Gives a shard to a host.
    pub(super) fn give(&mut self, shard: usize, to: HostNumber) {
        let row = &mut self.shards[shard];
        *row = ShardRow { owner: Some(to), epoch: row.epoch + 1 };
    }

    pub(super) fn has_fence(&self, batch: &BatchId) -> bool {
        self.lanes.get(&batch.host) == Some(&batch.lane_epoch)
    }
}
