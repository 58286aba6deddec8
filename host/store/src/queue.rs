//! The queue before the writer, and its limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::append::{Append, AppendReply, Appended};
use crate::error::{Fatal, StoreError};
use crate::shard_id::ShardId;

/// The size of the queue, in places of 16 KiB. [`Shard::append`] and [`Blobs::put`] wait while the
/// queue is full, so that a stalled disk costs at most 64 MiB of memory. [`Shard::append_then`] does
/// not use these places.
///
/// [`Shard::append`]: crate::Shard::append
/// [`Blobs::put`]: crate::Blobs::put
/// [`Shard::append_then`]: crate::Shard::append_then
pub const APPENDS_WAITING_MAX: usize = 4_096;

/// The bytes of one place of the queue. A job takes one place, and one more for each of these.
const PLACE_BYTES: usize = 16 << 10;

/// The most places that one job takes, so that a large job need not wait for an empty queue.
const PLACES_OF_ONE_MAX: usize = APPENDS_WAITING_MAX / 4;

/// A job of a writer, as the queue makes and refuses it.
pub(crate) trait QueuedJob: Send + 'static {
    /// A shard that this process owns, as the writer knows it.
    type Owner: Send + 'static;

    /// Makes the job that writes an append. `owner` is the shard through which it came; none for a
    /// stream that belongs to no shard.
    fn append(append: Append, owner: Option<Self::Owner>, reply: AppendReply) -> Self;

    /// Answers the caller with an error.
    fn fail(self, error: StoreError);
}

/// Returns an error as the owner of a shard gets it: whoever raised the fence took the shard over.
pub(crate) fn to_owner(error: StoreError, owner: Option<ShardId>) -> StoreError {
    match (error, owner) {
        (StoreError::Fatal(Fatal::Fenced), Some(shard)) => StoreError::LostOwnership(shard),
        (error, _) => error,
    }
}

/// The jobs that wait for the writer.
pub(crate) struct Queue<Job> {
    pub(crate) jobs: mpsc::UnboundedSender<Job>,
    pub(crate) places: Arc<Semaphore>,
    pub(crate) is_closing: AtomicBool,
}

impl<Job: QueuedJob> Queue<Job> {
    /// Makes the queue in front of a writer.
    pub(crate) fn new(jobs: mpsc::UnboundedSender<Job>) -> Self {
        let places = Arc::new(Semaphore::new(APPENDS_WAITING_MAX));
        Self { jobs, places, is_closing: AtomicBool::new(false) }
    }

    /// Queues a job at once. The reply of the job has its result.
    pub(crate) fn push(&self, job: Job) {
        if self.is_closing.load(Ordering::Acquire) {
            return job.fail(StoreError::Closed);
        }
        // The queue was not closed by us, so the writer has ended unexpectedly.
        if let Err(mpsc::error::SendError(job)) = self.jobs.send(job) {
            job.fail(Fatal::WriterEnded.into());
        }
    }

    /// Queues an append when there is room, and resolves when it is durable.
    pub(crate) fn append(
        self: &Arc<Self>,
        append: Append,
        owner: Option<Job::Owner>,
    ) -> BoxFuture<'static, Result<Appended, StoreError>> {
        let (reply, answer) = oneshot::channel();
        let queued = self.push_when_room(append.bytes(), move |place| {
            let reply = AppendReply::new(|result| drop(reply.send(result)));
            Job::append(append, owner, reply.holding(place))
        });
        async move {
            queued.await?;
            answer.await.unwrap_or(Err(StoreError::Closed))
        }
        .boxed()
    }

    /// Queues a job that takes places for `bytes`. The call queues it at once when there is room;
    /// else the future queues it as soon as there is room. `job` makes the job, which holds its
    /// places.
    pub(crate) fn push_when_room(
        self: &Arc<Self>,
        bytes: usize,
        job: impl FnOnce(OwnedSemaphorePermit) -> Job + Send + 'static,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        let count = (1 + bytes / PLACE_BYTES).min(PLACES_OF_ONE_MAX);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if let Ok(places) = Arc::clone(&self.places).try_acquire_many_owned(count) {
            self.push(job(places));
            return ready(Ok(())).boxed();
        }
        let queue = Arc::clone(self);
        async move {
            let places = Arc::clone(&queue.places).acquire_many_owned(count).await;
            queue.push(job(places.map_err(|_| StoreError::Closed)?));
            Ok(())
        }
        .boxed()
    }
}
