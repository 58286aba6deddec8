//! One of several hosts: what it owns, and what it has in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::live::{Append, Live};
use super::store::{Batch, HostNumber};
use crate::Timestamp;

/// One of several hosts.
pub(super) struct Host {
    pub(super) number: HostNumber,
    /// Which start of the host it is: what an earlier one has called, this one does not hear of.
    pub(super) process: u64,
    pub(super) condition: Condition,
    /// The database cannot be reached.
    pub(super) is_cut_off: bool,
    /// How far its clock is ahead, in milliseconds.
    pub(super) skew: i64,
    /// Until then no other host takes over what it owns, as far as it knows.
    pub(super) lease_until: Timestamp,
    pub(super) lane_epoch: u64,
    pub(super) batch: u64,
    pub(super) held: Vec<Held>,
    pub(super) live: BTreeMap<usize, Live>,
    /// Appends that were decided and not sent.
    pub(super) queue: Vec<Arc<Append>>,
    pub(super) writer: Writer,
    /// Answers of the writer that the sagas have not heard.
    pub(super) inbox: Vec<(Arc<Append>, Answer)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Runs,
    /// It stands still, with everything that it has in memory.
    Paused,
    Down,
}

/// What a host has of a shard, see `store/src/postgres/membership.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    No,
    Owned(u64),
    /// It is about to be another host's. What was queued is still written.
    Leaving(u64),
}

/// What the writer of a host does.
pub(super) enum Writer {
    Idle,
    /// The batch is on its way to the database.
    Sent(Batch),
    /// The answer is on its way to the host.
    Answered(Batch, Answer),
    /// The connection broke, and the host does not know what became of the batch.
    Lost(Batch),
}

/// The answer to a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Fenced,
    /// Nothing of it is stored, and it may be tried again.
    Unavailable,
}

impl Host {
    pub(super) fn new(number: HostNumber, lease_until: Timestamp, shards: usize) -> Self {
        Self {
            number,
            process: 0,
            condition: Condition::Runs,
            is_cut_off: false,
            skew: 0,
            lease_until,
            lane_epoch: 1,
            batch: 0,
            held: vec![Held::No; shards],
            live: BTreeMap::new(),
            queue: Vec::new(),
            writer: Writer::Idle,
            inbox: Vec::new(),
        }
    }

    pub(super) fn runs(&self) -> bool {
        self.condition == Condition::Runs
    }

    /// Returns true when it runs and reaches the database.
    pub(super) fn is_connected(&self) -> bool {
        self.runs() && !self.is_cut_off
    }

    /// Returns the time by its clock.
    pub(super) fn wall(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_millis(now.as_millis() + self.skew)
    }

    /// Returns the epoch in which it owns a shard.
    pub(super) fn owned(&self, shard: usize) -> Option<u64> {
        match self.held[shard] {
            Held::Owned(epoch) => Some(epoch),
            Held::No | Held::Leaving(_) => None,
        }
    }

    /// Returns true when an append that was made in this epoch of a shard may be written.
    pub(super) fn may_write(&self, shard: usize, epoch: u64) -> bool {
        match self.held[shard] {
            Held::Owned(known) | Held::Leaving(known) => known == epoch,
            Held::No => false,
        }
    }
}
