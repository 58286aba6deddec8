//! Jobs: what the store's callers queue for its writer.

use std::time::{Duration, Instant};

use amends_engine::{Digest, SagaId};
use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::connection::Pg;
use super::error::Result as PgResult;
use super::owned_shard::OwnedShard;
use crate::append::{Append, AppendReply};
use crate::blob::{BlobChange, BlobKind};
use crate::error::StoreError;
use crate::outbox::SubscriptionChange;
use crate::queue::{QueuedJob, to_owner};
use crate::schedules::ScheduleRow;
use crate::shard_id::ShardId;

/// One job of the writer.
pub(super) enum Job {
    /// Writes an append.
    Append {
        append: Box<Append>,
        /// The shard through which the append came; none for a stream that belongs to no shard.
        owner: Option<OwnedShard>,
        reply: AppendReply,
        /// When the append was queued.
        since: Instant,
    },
    /// Writes, renews or removes a blob. The answer is whether there was something to do.
    Blob {
        kind: BlobKind,
        digest: Digest,
        change: BlobChange,
        reply: oneshot::Sender<Result<bool, StoreError>>,
        /// The places that the job takes in the queue, also when its caller no longer waits.
        _place: OwnedSemaphorePermit,
    },
    /// Writes a change of a subscription.
    SaveSubscription {
        change: Box<SubscriptionChange>,
        reply: oneshot::Sender<Result<(), StoreError>>,
        _place: OwnedSemaphorePermit,
    },
    /// Writes what is kept of a schedule.
    SaveSchedule {
        row: Box<ScheduleRow>,
        reply: oneshot::Sender<Result<(), StoreError>>,
        _place: OwnedSemaphorePermit,
    },
    /// Does a part of moving sagas to the archive, or of a rebuild, in a transaction of its own.
    Work { work: Work, reply: oneshot::Sender<Result<WorkDone, StoreError>> },
    /// Gives shards to the hosts of these numbers, as host number `host`. What was queued before is written before.
    HandOver { host: i64, shards: Vec<(ShardId, i64)> },
    /// Closes the store. Jobs that are queued already are still done; later ones are not taken.
    Close,
}

/// Statements that need the answers of those before them. They run within a transaction that has the
/// fence. Whoever queues work waits for its answer.
pub(super) type Work = Box<dyn for<'a> FnOnce(&'a Pg) -> BoxFuture<'a, PgResult<WorkDone>> + Send>;

/// What came of a part.
#[derive(Debug, Clone, Default)]
pub(super) struct WorkDone {
    /// The number of the segment that was recorded.
    pub(super) segment: i64,
    /// The sagas that were moved or rewritten, or the rows that were removed.
    pub(super) count: u64,
    /// The events of the sagas.
    pub(super) events: u64,
    /// The sagas that have more events than was known: nothing of them was written.
    pub(super) changed: Vec<SagaId>,
    /// The sagas of which the writer must look at the version again.
    pub(super) touched: Vec<SagaId>,
    /// The longest delay and life of the sagas, when they were written anew.
    pub(super) start_delay: i64,
    pub(super) longest_life: i64,
    /// How long the writer was held up, without the commit.
    pub(super) took: Duration,
}

impl Job {
    /// Returns the shard through which an append came.
    pub(super) const fn owner(&self) -> Option<OwnedShard> {
        match self {
            Self::Append { owner, .. } => *owner,
            Self::Blob { .. }
            | Self::SaveSubscription { .. }
            | Self::SaveSchedule { .. }
            | Self::Work { .. }
            | Self::HandOver { .. }
            | Self::Close => None,
        }
    }

    /// Answers the caller when this host was fenced: its shards are lost. `error` is for what is of no shard.
    pub(super) fn fail_fenced(self, error: &StoreError) {
        match self.owner() {
            Some(owner) => self.fail(StoreError::LostOwnership(owner.id)),
            None => self.fail(error.clone()),
        }
    }

    /// Returns how many bytes the job adds to a transaction.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append { append, .. } => append.bytes(),
            Self::Blob { change: BlobChange::Put { bytes, .. }, .. } => bytes.len(),
            Self::Blob { .. }
            | Self::SaveSubscription { .. }
            | Self::SaveSchedule { .. }
            | Self::Work { .. }
            | Self::HandOver { .. }
            | Self::Close => 0,
        }
    }
}

impl QueuedJob for Job {
    type Owner = OwnedShard;

    fn append(append: Append, owner: Option<OwnedShard>, reply: AppendReply) -> Self {
        Self::Append { append: Box::new(append), owner, reply, since: Instant::now() }
    }

    fn fail(self, error: StoreError) {
        match self {
            Self::Append { owner, reply, .. } => {
                reply.send(Err(to_owner(error, owner.map(|owner| owner.id))));
            }
            Self::SaveSubscription { reply, .. } | Self::SaveSchedule { reply, .. } => {
                let _ = reply.send(Err(error));
            }
            Self::Blob { reply, .. } => drop(reply.send(Err(error))),
            Self::Work { reply, .. } => drop(reply.send(Err(error))),
            Self::HandOver { .. } | Self::Close => {}
        }
    }
}
