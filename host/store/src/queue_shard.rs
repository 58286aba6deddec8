//! The shards of a store that one process has: it owns all of them as long as nobody raises the fence.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};

use crate::append::{Append, AppendReply, Appended};
use crate::error::StoreError;
use crate::ownership::{NOT_OF_THE_SHARD, Shard};
use crate::queue::{Queue, QueuedJob};
use crate::shard_id::{Epoch, SHARDS, ShardId};

/// Which shards have been handed out and not released.
#[derive(Debug)]
pub(crate) struct Handed([bool; SHARDS as usize]);

impl Default for Handed {
    fn default() -> Self {
        Self([false; SHARDS as usize])
    }
}

impl Handed {
    /// Hands out what is not handed out.
    pub(crate) fn gain_all(&mut self) -> impl Iterator<Item = ShardId> {
        let all = ShardId::all().zip(&mut self.0);
        all.filter_map(|(id, handed)| (!std::mem::replace(handed, true)).then_some(id))
    }

    /// Returns whether a shard is handed out.
    pub(crate) fn has(&self, shard: ShardId) -> bool {
        self.0[usize::from(shard.number())]
    }

    /// Takes everything back.
    pub(crate) fn lose_all(&mut self) -> impl Iterator<Item = ShardId> {
        let all = ShardId::all().zip(&mut self.0);
        all.filter_map(|(id, handed)| std::mem::take(handed).then_some(id))
    }
}

/// A shard that this process owns. Its epoch is the fence that this process has set.
pub(crate) struct QueueShard<Job> {
    id: ShardId,
    epoch: Epoch,
    queue: Arc<Queue<Job>>,
    handed: Arc<Mutex<Handed>>,
}

impl<Job: QueuedJob<Owner = ShardId>> QueueShard<Job> {
    pub(crate) const fn new(
        id: ShardId,
        epoch: Epoch,
        queue: Arc<Queue<Job>>,
        handed: Arc<Mutex<Handed>>,
    ) -> Self {
        Self { id, epoch, queue, handed }
    }

    /// Checks what needs no look at the store.
    fn check(&self, append: &Append) -> Result<(), StoreError> {
        if append.stream.saga().map(ShardId::of) != Some(self.id) {
            return Err(NOT_OF_THE_SHARD);
        }
        append.check()
    }
}

impl<Job: QueuedJob<Owner = ShardId>> Shard for QueueShard<Job> {
    fn id(&self) -> ShardId {
        self.id
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn has_lease(&self) -> bool {
        // The lock of the file has no end.
        true
    }

    fn append_then(&self, append: Append, reply: AppendReply) {
        match self.check(&append) {
            Ok(()) => self.queue.push(Job::append(append, Some(self.id), reply)),
            Err(error) => reply.send(Err(error)),
        }
    }

    fn append(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        match self.check(&append) {
            Ok(()) => self.queue.append(append, Some(self.id)),
            Err(error) => ready(Err(error)).boxed(),
        }
    }
}

impl<Job> Drop for QueueShard<Job> {
    fn drop(&mut self) {
        let mut handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner);
        handed.0[usize::from(self.id.number())] = false;
    }
}

impl<Job> fmt::Debug for QueueShard<Job> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueShard")
            .field("id", &self.id)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}
