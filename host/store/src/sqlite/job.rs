//! Jobs: what the store's callers queue for its writer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::Digest;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::archive_job::ArchiveJob;
use super::rebuild_job::RebuildJob;
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
        owner: Option<ShardId>,
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
    /// Does a part of moving sagas to the archive, see the module `archive`.
    Archive(ArchiveJob),
    /// Does a part of a rebuild, see the module `rebuild`.
    Rebuild(RebuildJob),
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
    /// Does a part of a backup, see the module `backup`.
    Backup(BackupJob),
    /// Looks after the store, see the module `look`.
    Look {
        /// Shared with the sender, which sends no second look while this one waits.
        _waits: Arc<()>,
    },
    /// Closes the store. Jobs that are queued already are still done; later ones are not taken.
    Close,
}

/// A part of a backup. One backup is made at a time, and whoever makes it waits for each answer.
pub(super) enum BackupJob {
    /// Begins to copy into an empty database.
    Begin { copy: Connection, reply: oneshot::Sender<Result<(), StoreError>> },
    /// Copies some more pages.
    Step { pages: u16, reply: oneshot::Sender<Result<BackupStep, rusqlite::Error>> },
    /// Gives up. A backup that is complete or has failed has ended already.
    End,
}

/// What one step of a backup came to.
pub(super) enum BackupStep {
    /// There are more pages.
    More {
        /// The pages that are left.
        left: u64,
        /// How long the writer was held up.
        took: Duration,
        /// Another program kept the database locked, so nothing was copied.
        is_locked: bool,
    },
    /// The copy is complete, and closed.
    Done,
}

impl Job {
    /// Returns how many bytes the job adds to a transaction.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append { append, .. } => append.bytes(),
            Self::Blob { change: BlobChange::Put { bytes, .. }, .. } => bytes.len(),
            Self::Archive(job) => job.task.bytes(),
            Self::Rebuild(_)
            | Self::SaveSubscription { .. }
            | Self::SaveSchedule { .. }
            | Self::Blob { .. }
            | Self::Backup(_)
            | Self::Look { .. }
            | Self::Close => 0,
        }
    }
}

impl QueuedJob for Job {
    type Owner = ShardId;

    fn append(append: Append, owner: Option<ShardId>, reply: AppendReply) -> Self {
        Self::Append { append: Box::new(append), owner, reply, since: Instant::now() }
    }

    /// Answers the caller with an error. A caller that no longer waits is not answered.
    fn fail(self, error: StoreError) {
        match self {
            Self::Append { owner, reply, .. } => reply.send(Err(to_owner(error, owner))),
            Self::SaveSubscription { reply, .. }
            | Self::SaveSchedule { reply, .. }
            | Self::Backup(BackupJob::Begin { reply, .. }) => {
                let _ = reply.send(Err(error));
            }
            Self::Blob { reply, .. } => drop(reply.send(Err(error))),
            Self::Archive(job) => drop(job.reply.send(Err(error))),
            Self::Rebuild(job) => drop(job.reply.send(Err(error))),
            // Whoever waits for a step learns that there is no answer.
            Self::Backup(_) | Self::Look { .. } | Self::Close => {}
        }
    }
}
