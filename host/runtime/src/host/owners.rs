//! Who owns what: a start or a signal of this host whose saga belongs to another host goes there.
//!
//! The API passes whole requests on. What begins within this host (lines of a batch, events, schedules) comes
//! through here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::{Digest, Payload, SagaId, SignalName};
use amends_peers::{
    OWNER_LOOK_PAUSE, OWNER_WAIT_MAX, PeerError, PeerSignal, PeerStart, PeerStarted, Peers,
    SIGNAL_PATH, Signalled,
};
use amends_store::{HostInfo, ShardId, ShardOwner, StoreError};
use tokio::sync::watch;

use super::{Host, StartRequest};
use crate::action::{Action, authorize};
use crate::error::{OperateError, OwnerError, RuntimeError, StartError};
use crate::principal::Principal;
use crate::saga_state::Started;
use crate::shared::{Shared, shard_of_end};

/// How long a host that is not alive any more may take to answer. After an outage of the database, no host seems alive
/// until the next tick of each.
const GONE_ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// A host of a store, and which shards it owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostShards {
    /// The host.
    pub host: HostInfo,
    /// Whether it is this one.
    pub is_this: bool,
    /// The numbers of its shards.
    pub shards: Vec<u16>,
}

impl Host {
    /// Returns how this host reaches the others of its store; none when the store has one process.
    #[must_use]
    pub fn peers(&self) -> Option<&Arc<Peers>> {
        self.inner.shared.as_ref().map(|shared| &shared.peers)
    }

    /// Returns who owns a saga. A host that has just gained the shard of the saga is [`ShardOwner::This`] once
    /// it has taken up the sagas of the shard.
    #[must_use]
    pub fn owner_of(&self, saga: SagaId) -> ShardOwner {
        self.owner_of_shard(ShardId::of(saga))
    }

    /// Returns who owns the saga that a start key has started or starts.
    #[must_use]
    pub fn owner_of_key(&self, key: &str) -> ShardOwner {
        self.owner_of_shard(shard_of_end(end_of_key(key)))
    }

    /// Returns who starts a saga without a key: this host, unless it owns nothing.
    #[must_use]
    pub fn owner_of_new(&self) -> ShardOwner {
        let Some(shared) = &self.inner.shared else { return ShardOwner::This };
        if !shared.owned.borrow().is_empty() {
            return ShardOwner::This;
        }
        let others = self.inner.store.ownership().others();
        let owns = |host: &HostInfo| {
            ShardId::all().any(|shard| {
                matches!(self.owner_of_shard(shard), ShardOwner::Other(other) if other == *host)
            })
        };
        others.into_iter().find(owns).map_or(ShardOwner::Nobody, ShardOwner::Other)
    }

    /// Returns which host does what one host does for all of the store: schedules, subscriptions and passes of
    /// the archive.
    #[must_use]
    pub fn owner_of_duties(&self) -> ShardOwner {
        self.owner_of_shard(ShardId::LEADER)
    }

    /// Returns the other hosts of the store that are alive.
    #[must_use]
    pub fn other_hosts(&self) -> Vec<HostInfo> {
        self.inner.shared.as_ref().map_or_else(Vec::new, |_| self.inner.store.ownership().others())
    }

    /// Returns the hosts of the store that are alive, this one first, and how many shards nobody owns. None
    /// when the store has one process.
    #[must_use]
    pub fn hosts(&self) -> Option<(Vec<HostShards>, usize)> {
        let me = self.peers()?.me().clone();
        let mut hosts = vec![HostShards { host: me, is_this: true, shards: Vec::new() }];
        let without = |host| HostShards { host, is_this: false, shards: Vec::new() };
        hosts.extend(self.other_hosts().into_iter().map(without));
        let mut nobodys = 0;
        for shard in ShardId::all() {
            let number = shard.number();
            match self.owner_of_shard(shard) {
                ShardOwner::This => hosts[0].shards.push(number),
                ShardOwner::Other(owner) => match hosts.iter_mut().find(|one| one.host == owner) {
                    Some(known) => known.shards.push(number),
                    None => hosts.push(HostShards { shards: vec![number], ..without(owner) }),
                },
                ShardOwner::Nobody => nobodys += 1,
            }
        }
        Some((hosts, nobodys))
    }

    /// Waits for the answer of another host, and gives up when that host is not alive any more: it may stand still, and
    /// then its connections stay open.
    ///
    /// # Errors
    /// Those of the answer. [`PeerError::Silent`] when the host has gone without an answer.
    pub async fn answer_of<T>(
        &self,
        host: &HostInfo,
        answer: impl Future<Output = Result<T, PeerError>>,
    ) -> Result<T, PeerError> {
        let gone = async {
            let mut gone_since = None;
            loop {
                tokio::time::sleep(OWNER_LOOK_PAUSE).await;
                if self.inner.store.ownership().others().contains(host) {
                    gone_since = None;
                } else if gone_since.get_or_insert_with(Instant::now).elapsed()
                    >= GONE_ANSWER_TIME_MAX
                {
                    return;
                }
            }
        };
        tokio::select! {
            answer = answer => answer,
            () = gone => {
                let error = format!("host {} has not answered and is not alive any more", host.name);
                Err(PeerError::Silent(error))
            }
        }
    }

    fn owner_of_shard(&self, shard: ShardId) -> ShardOwner {
        let Some(others) = &self.inner.shared else { return ShardOwner::This };
        match self.inner.store.ownership().owner_of(shard) {
            ShardOwner::This if !others.has(shard) => ShardOwner::Nobody,
            owner @ (ShardOwner::This | ShardOwner::Other(_) | ShardOwner::Nobody) => owner,
        }
    }

    /// Whether this host runs a saga.
    pub(super) fn is_here(&self, saga: SagaId) -> bool {
        matches!(self.owner_of(saga), ShardOwner::This)
    }

    /// Told whenever this host has taken up shards or lost some; none when the store has one process.
    pub(crate) fn owned(&self) -> Option<watch::Receiver<Vec<ShardId>>> {
        self.inner.shared.as_ref().map(|shared| shared.owned.clone())
    }

    /// The id of a new saga. Starts with one key go to one shard, so that of several the first is the one.
    pub(super) fn new_id(&self, key: Option<&str>) -> SagaId {
        let mut id = *uuid::Uuid::now_v7().as_bytes();
        match (key, &self.inner.shared) {
            (Some(key), _) => id[14..].copy_from_slice(&end_of_key(key)),
            (None, Some(shared)) => shared.place(&mut id),
            (None, None) => {}
        }
        SagaId::from_bytes(id)
    }

    /// Starts a saga here, or on the host that owns it.
    pub(super) async fn start_at_owner(
        &self,
        shared: &Shared,
        principal: &Principal,
        request: StartRequest,
    ) -> Result<Started, StartError> {
        let (until, mut last) = (Instant::now() + OWNER_WAIT_MAX, OwnerError::Nobody);
        loop {
            let id = self.new_id(request.key.as_deref());
            match self.owner_of(id) {
                ShardOwner::This => {
                    match self.start_as(self.start_of(principal, id, request.clone())?).await {
                        Err(StartError::Store(StoreError::LostOwnership(_)))
                            if !self.is_stopping() => {}
                        result => return result,
                    }
                }
                ShardOwner::Other(owner) => {
                    let start = peer_start(id, principal, &request);
                    match self.answer_of(&owner, shared.peers.start(&owner, &start)).await {
                        Ok(answer) => return started(answer),
                        Err(error) if may_look_again(&error, request.key.is_some()) => {
                            last = error.into();
                        }
                        Err(error) => return Err(StartError::Owner(error.into())),
                    }
                }
                ShardOwner::Nobody => {}
            }
            if Instant::now() >= until || self.is_stopping() {
                return Err(StartError::Owner(last));
            }
            tokio::time::sleep(OWNER_LOOK_PAUSE).await;
        }
    }

    /// Starts a saga for another host, which looked who owns it.
    ///
    /// # Errors
    /// As [`Self::start`]. [`StoreError::LostOwnership`] when this host does not own the saga.
    pub async fn start_for_peer(&self, start: PeerStart) -> Result<Started, StartError> {
        let principal = Principal::of_peer(start.principal);
        let PeerStart { id, definition, input, key, tags, traceparent, start_at, .. } = start;
        authorize(&principal, &Action::Start { definition: &definition });
        if !self.is_here(id) {
            return Err(StartError::Store(StoreError::LostOwnership(ShardId::of(id))));
        }
        let request = StartRequest { definition, input, key, tags, traceparent, start_at };
        self.start_as(self.start_of(&principal, id, request)?).await
    }

    /// Sends a signal to a saga here, or on the host that owns it.
    pub(super) async fn signal_at_owner(
        &self,
        principal: &Principal,
        saga: SagaId,
        name: SignalName,
        id: Option<String>,
        payload: Payload,
    ) -> Result<(), OperateError> {
        let (until, mut last) = (Instant::now() + OWNER_WAIT_MAX, OwnerError::Nobody);
        loop {
            match self.owner_of(saga) {
                ShardOwner::This => {
                    let (name, id) = (name.clone(), id.clone());
                    let sent = self.signal(principal, saga, name, id, payload.clone()).await;
                    match (sent, &self.inner.shared) {
                        (
                            Err(OperateError::Runtime(RuntimeError::Store(
                                StoreError::LostOwnership(_),
                            ))),
                            Some(_),
                        ) if !self.is_stopping() => {}
                        (result, _) => return result.map(|_| ()),
                    }
                }
                ShardOwner::Other(owner) => {
                    let (name, payload) = (name.clone(), payload.clone());
                    let principal = principal.of_here();
                    let signal = PeerSignal { saga, name, id: id.clone(), payload, principal };
                    match self.send_signal(&owner, &signal).await {
                        Ok(Signalled::Taken) => return Ok(()),
                        Ok(Signalled::Refused(problem)) => {
                            return Err(OperateError::Owner(OwnerError::Answered(problem.into())));
                        }
                        Ok(Signalled::NotOwner) => {}
                        Err(error) if may_look_again(&error, id.is_some()) => last = error.into(),
                        Err(error) => return Err(OperateError::Owner(error.into())),
                    }
                }
                ShardOwner::Nobody => {}
            }
            if Instant::now() >= until || self.is_stopping() {
                return Err(OperateError::Owner(last));
            }
            tokio::time::sleep(OWNER_LOOK_PAUSE).await;
        }
    }

    async fn send_signal(
        &self,
        owner: &HostInfo,
        signal: &PeerSignal,
    ) -> Result<Signalled, PeerError> {
        match self.peers() {
            Some(peers) => self.answer_of(owner, peers.ask(owner, SIGNAL_PATH, signal)).await,
            None => Ok(Signalled::NotOwner),
        }
    }

    /// Sends a signal to a saga for another host, which looked who owns it.
    ///
    /// # Errors
    /// As [`Self::signal`]. [`StoreError::LostOwnership`] when this host does not own the saga.
    pub async fn signal_for_peer(&self, signal: PeerSignal) -> Result<(), OperateError> {
        let PeerSignal { saga, name, id, payload, principal } = signal;
        if !self.is_here(saga) {
            let lost = StoreError::LostOwnership(ShardId::of(saga));
            return Err(OperateError::Runtime(lost.into()));
        }
        self.signal(&Principal::of_peer(principal), saga, name, id, payload).await.map(|_| ())
    }
}

/// The end of the ids of sagas that are started with a key.
fn end_of_key(key: &str) -> [u8; 2] {
    let digest = Digest::of(key.as_bytes());
    [digest.as_bytes()[0], digest.as_bytes()[1]]
}

fn peer_start(id: SagaId, principal: &Principal, request: &StartRequest) -> PeerStart {
    let StartRequest { definition, input, key, tags, traceparent, start_at } = request.clone();
    let principal = principal.of_here();
    PeerStart { id, definition, input, key, tags, traceparent, start_at, principal }
}

fn started(answer: PeerStarted) -> Result<Started, StartError> {
    match answer {
        PeerStarted::Started { saga, created } => Ok(Started { id: saga, created }),
        PeerStarted::KeyReused(saga) => Err(StartError::KeyReused(saga)),
        PeerStarted::Refused(problem) => {
            Err(StartError::Owner(OwnerError::Answered(problem.into())))
        }
        PeerStarted::NotOwner => Err(StartError::Owner(OwnerError::Nobody)),
    }
}

/// Whether the owner may be another host by now, or the same request may be sent to it again.
/// `is_repeatable`: what it does, it does once however often it comes.
#[must_use]
pub fn may_look_again(error: &PeerError, is_repeatable: bool) -> bool {
    match error {
        PeerError::NotOwner(_) | PeerError::Unreachable(_) | PeerError::NotTheHost(_) => true,
        PeerError::Silent(_) => is_repeatable,
        PeerError::Refused(_) | PeerError::Full(_) => false,
    }
}
