//! Who may write to a saga: the owner of its shard.

use std::fmt;
use std::time::Duration;

use amends_engine::SagaId;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::append::{Append, AppendReply, Appended};
use crate::error::StoreError;
use crate::shard_id::{Epoch, ShardId};

/// The pause between two ticks of a host. The shards of a host that has died are free one lease after a tick of another
/// host saw it last, and each of the others takes its part with a tick. So three pauses add to a takeover.
pub const TICK_PAUSE: Duration = Duration::from_millis(500);

/// A shard that this process owns. There is no other way to append to its sagas, and only
/// [`Ownership`] makes one. When it is dropped, the shard is released.
pub trait Shard: Send + Sync + fmt::Debug {
    /// Returns which shard it is.
    fn id(&self) -> ShardId;

    /// Returns the epoch in which this process owns the shard.
    fn epoch(&self) -> Epoch;

    /// Returns true while no other process can own the shard. Once it is false, another one may go on with the sagas:
    /// what this process has of them in memory may be outdated, so it begins no call and answers nothing from it. It is
    /// true again when the lease was renewed in time.
    fn has_lease(&self) -> bool;

    /// Queues an append to a saga of this shard, and calls `reply` once the append is durable or
    /// has failed. Callers make the next append to a saga only after the one before was answered.
    ///
    /// The queue has no limit here: the caller bounds how many appends and bytes it has under way.
    /// Callers without such a bound use [`Self::append`].
    ///
    /// # Errors of the reply
    /// After any error, nothing of the append is stored, neither its events nor its start key nor
    /// its state changes. Other appends do not fail with it, unless the database itself failed.
    /// - [`StoreError::Conflict`]: the saga is not at the expected version. Read the saga again.
    /// - [`StoreError::LostOwnership`]: another process owns the shard by now. Forget its sagas.
    /// - [`StoreError::Unavailable`]: try the same append again.
    /// - [`StoreError::Invalid`] and [`StoreError::Damaged`]: the same append fails again.
    /// - [`StoreError::Closed`] and [`StoreError::Fatal`]: this process writes nothing any more.
    ///   Exception to the first rule: see [`StoreError::Closed`] for an append that may be stored.
    fn append_then(&self, append: Append, reply: AppendReply);

    /// Appends, and resolves when the append is durable. The call itself queues the append, not the
    /// first poll; dropping the future does not cancel it. Exception: when the queue is full
    /// ([`crate::APPENDS_WAITING_MAX`]), the future waits for room and queues the append then.
    ///
    /// # Errors
    /// As for [`Self::append_then`].
    fn append(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        let (reply, answer) = oneshot::channel();
        self.append_then(append, AppendReply::new(|result| drop(reply.send(result))));
        async move { answer.await.unwrap_or(Err(StoreError::Closed)) }.boxed()
    }
}

/// A change of what this process owns.
#[derive(Debug)]
pub enum OwnershipEvent {
    /// This process owns a shard from now on.
    Gained(Box<dyn Shard>),
    /// Another process owns a shard from now on.
    Lost(ShardId),
}

/// A host of a store, as the other hosts see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInfo {
    /// Its name. No two hosts of a store have the same.
    pub name: String,
    /// The base URL at which the other hosts reach its HTTP API, such as `http://10.0.0.2:7070`.
    pub address: String,
}

/// Who owns a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardOwner {
    /// This process.
    This,
    /// Another host.
    Other(HostInfo),
    /// No host, for the moment: its owner has died or has not come up yet.
    Nobody,
}

/// Which shards this process owns.
pub trait Ownership: Send + Sync {
    /// Says who this process is. A process that owns shards calls this before its first tick. An
    /// embedded store has one process and needs no name of it.
    fn join(&self, host: HostInfo);

    /// Returns who owns a shard, as the last tick saw it.
    fn owner_of(&self, shard: ShardId) -> ShardOwner;

    /// Returns the other hosts that are alive, by name, as the last tick saw them.
    fn others(&self) -> Vec<HostInfo>;

    /// Renews what this process owns, takes what nobody owns, and returns what has changed since
    /// the last tick. A host calls this again and again, from one task.
    ///
    /// An embedded store has one process at a time. Its first tick gains all shards. When another
    /// process takes the file over, the next tick loses all of them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: try again. [`StoreError::Closed`] and [`StoreError::Fatal`]:
    /// this process owns nothing any more.
    fn tick(&self) -> BoxFuture<'_, Result<Vec<OwnershipEvent>, StoreError>>;
}

/// The shards that a process owns, by number.
#[derive(Debug)]
pub struct OwnedShards(Vec<Option<Box<dyn Shard>>>);

impl Default for OwnedShards {
    fn default() -> Self {
        Self(ShardId::all().map(|_| None).collect())
    }
}

impl OwnedShards {
    /// Takes the shards that one tick gains. For tools and tests, which do not stay for long.
    ///
    /// # Errors
    /// As for [`Ownership::tick`].
    pub async fn gain(ownership: &dyn Ownership) -> Result<Self, StoreError> {
        let mut owned = Self::default();
        for event in ownership.tick().await? {
            match event {
                OwnershipEvent::Gained(shard) => owned.insert(shard),
                OwnershipEvent::Lost(id) => drop(owned.remove(id)),
            }
        }
        Ok(owned)
    }

    /// Adds a shard.
    pub fn insert(&mut self, shard: Box<dyn Shard>) {
        let number = usize::from(shard.id().number());
        self.0[number] = Some(shard);
    }

    /// Takes a shard out, if it is there.
    pub fn remove(&mut self, id: ShardId) -> Option<Box<dyn Shard>> {
        self.0[usize::from(id.number())].take()
    }

    /// Returns the shard of a saga, if it is there.
    #[must_use]
    pub fn of(&self, saga: SagaId) -> Option<&dyn Shard> {
        self.0[usize::from(ShardId::of(saga).number())].as_deref()
    }

    /// Returns the numbers of the shards that are there.
    pub fn ids(&self) -> impl Iterator<Item = ShardId> {
        self.0.iter().flatten().map(|shard| shard.id())
    }

    /// Appends to the saga that the append names.
    ///
    /// # Errors
    /// As for [`Shard::append_then`]. [`StoreError::Invalid`] when the append names no saga of a
    /// shard that is there.
    #[must_use]
    pub fn append(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        match append.stream.saga().and_then(|saga| self.of(saga)) {
            Some(shard) => shard.append(append),
            None => futures::future::ready(Err(NOT_OF_THE_SHARD)).boxed(),
        }
    }
}

/// The answer to an append through a shard that the saga does not belong to.
pub(crate) const NOT_OF_THE_SHARD: StoreError =
    StoreError::Invalid("a shard takes appends to its own sagas alone");
