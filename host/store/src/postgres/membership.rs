//! What this process owns and knows of the other hosts: shared by the shards, the writer and the ticks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use amends_engine::Digest;
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};

use super::job::Job;
use super::owned_shard::OwnedShard;
use crate::append::{Append, AppendReply, Appended};
use crate::error::StoreError;
use crate::ownership::{HostInfo, NOT_OF_THE_SHARD, OwnershipEvent, Shard, ShardOwner};
use crate::queue::{Queue, QueuedJob as _};
use crate::shard_id::{Epoch, ShardId};

/// The name of a process that has not said who it is.
const UNNAMED: &str = "unnamed";

/// What a process has of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    No,
    Owned {
        epoch: i64,
        /// The number of the handle that was given out; none when there is none.
        handle: Option<u64>,
    },
    /// It is about to be another host's. Appends that are under way are still written.
    Leaving {
        epoch: i64,
        handle: Option<u64>,
        /// Since when it is reported as lost; or when the writer was asked to hand it over.
        since: Instant,
        is_asked: bool,
    },
    /// The writer gives it to another host, or has given it.
    Released {
        epoch: i64,
    },
}

/// Another host, as the last tick saw it.
#[derive(Debug, Clone)]
pub(super) struct SeenHost {
    /// None before it has joined.
    pub(super) name: Option<String>,
    pub(super) address: String,
    /// The end of its lease, in microseconds of the database's clock.
    pub(super) lease: i64,
    /// Since when this process has seen that lease.
    pub(super) since: Instant,
    /// The lease has not run out by the database's clock.
    pub(super) is_live: bool,
}

/// The parts that change.
#[derive(Debug)]
pub(super) struct State {
    /// What this process has said it is.
    info: Option<HostInfo>,
    /// The number of this process among the hosts. It gets another one when it joins again.
    pub(super) host: i64,
    /// The row of the host has its name.
    pub(super) is_named: bool,
    /// It had its name before, with this number or another one.
    pub(super) has_joined: bool,
    shards: Vec<Held>,
    /// What is to be reported as lost.
    lost: Vec<ShardId>,
    handles: u64,
    /// The owner of each shard.
    owners: Vec<Option<i64>>,
    hosts: BTreeMap<i64, SeenHost>,
    /// Until when other hosts leave alone what this one owns; none before the first tick.
    deadline: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Membership(Mutex<State>);

impl Membership {
    pub(super) fn new(host: i64) -> Self {
        let none = || ShardId::all().map(|_| None).collect();
        Self(Mutex::new(State {
            info: None,
            host,
            is_named: false,
            has_joined: false,
            shards: ShardId::all().map(|_| Held::No).collect(),
            lost: Vec::new(),
            handles: 0,
            owners: none(),
            hosts: BTreeMap::new(),
            deadline: None,
        }))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn join(&self, info: HostInfo) {
        self.state().info = Some(info);
    }

    /// Returns the name, when the process had it in the database.
    pub(super) fn joined_name(&self) -> Option<String> {
        let state = self.state();
        state.has_joined.then(|| state.info().name)
    }

    /// Returns whether an append through a shard may be written.
    pub(super) fn may_write(&self, shard: OwnedShard) -> bool {
        match self.state().shards[index(shard.id)] {
            Held::Owned { epoch, .. } | Held::Leaving { epoch, .. } => epoch == shard.epoch,
            Held::No | Held::Released { .. } => false,
        }
    }

    /// Returns whether other hosts leave a shard alone that this process owns.
    pub(super) fn has_lease(&self, shard: OwnedShard) -> bool {
        let state = self.state();
        let is_own = match state.shards[index(shard.id)] {
            Held::Owned { epoch, .. } => epoch == shard.epoch,
            Held::No | Held::Leaving { .. } | Held::Released { .. } => false,
        };
        is_own && state.deadline.is_some_and(|until| Instant::now() < until)
    }

    /// Forgets those of some shards that are about to be another host's. Later appends to them are refused.
    pub(super) fn release(&self, shards: &[(ShardId, i64)]) -> Vec<(ShardId, i64)> {
        let mut state = self.state();
        let mut released = Vec::new();
        for (shard, home) in shards {
            let held = state.held(*shard);
            if let Held::Leaving { epoch, .. } = *held {
                *held = Held::Released { epoch };
                released.push((*shard, *home));
            }
        }
        released
    }

    /// Notes that shards could not be given away: the next tick gains them again if the database says so.
    pub(super) fn keep(&self, shards: &[ShardId]) {
        let mut state = self.state();
        for shard in shards {
            let held = state.held(*shard);
            if matches!(held, Held::Released { .. }) {
                *held = Held::No;
            }
        }
    }

    /// Loses everything that host number `host` of this process had.
    pub(super) fn lose_all(&self, host: i64) {
        let mut state = self.state();
        if state.host == host {
            state.lose_all();
        }
    }

    /// Goes on as another host, which owns nothing.
    pub(super) fn begin_again(&self, host: i64) {
        let mut state = self.state();
        state.lose_all();
        (state.host, state.is_named) = (host, false);
    }

    /// Returns what was lost since it was reported last.
    pub(super) fn take_lost(&self) -> Vec<OwnershipEvent> {
        std::mem::take(&mut self.state().lost).into_iter().map(OwnershipEvent::Lost).collect()
    }

    pub(super) fn owner_of(&self, shard: ShardId) -> ShardOwner {
        let state = self.state();
        match state.shards[index(shard)] {
            Held::Owned { .. } if state.deadline.is_some_and(|until| Instant::now() < until) => {
                return ShardOwner::This;
            }
            // Another host may have it by now, or is about to.
            Held::Owned { .. } | Held::Leaving { .. } => return ShardOwner::Nobody,
            Held::No | Held::Released { .. } => {}
        }
        let owner = state.owners[index(shard)].and_then(|owner| state.hosts.get(&owner));
        match owner.filter(|owner| owner.is_live).and_then(SeenHost::info) {
            Some(info) => ShardOwner::Other(info),
            None => ShardOwner::Nobody,
        }
    }

    /// Returns true when no other process has the store open.
    pub(super) fn is_alone(&self) -> bool {
        self.state().hosts.is_empty()
    }

    pub(super) fn others(&self) -> Vec<HostInfo> {
        let state = self.state();
        let live = state.hosts.values().filter(|host| host.is_live);
        let mut others: Vec<_> = live.filter_map(SeenHost::info).collect();
        others.sort_by(|one, other| one.name.cmp(&other.name));
        others
    }
}

/// Returns the place of a shard in a list of all.
pub(super) fn index(shard: ShardId) -> usize {
    usize::from(shard.number())
}

impl SeenHost {
    fn info(&self) -> Option<HostInfo> {
        let name = self.name.clone()?;
        Some(HostInfo { name, address: self.address.clone() })
    }
}

impl State {
    pub(super) fn info(&self) -> HostInfo {
        let unnamed = || HostInfo { name: UNNAMED.to_owned(), address: String::new() };
        self.info.clone().unwrap_or_else(unnamed)
    }

    fn lose_all(&mut self) {
        for shard in ShardId::all() {
            self.lose(shard);
        }
        self.deadline = None;
    }

    /// Forgets a shard. It is reported as lost unless that was done.
    pub(super) fn lose(&mut self, shard: ShardId) {
        let held = std::mem::replace(&mut self.shards[index(shard)], Held::No);
        if matches!(held, Held::Owned { .. }) {
            self.lost.push(shard);
        }
    }

    /// Notes what a tick saw, which began at `began`, and that it has renewed the lease.
    pub(super) fn see(
        &mut self,
        began: Instant,
        deadline: Instant,
        hosts: Vec<(i64, SeenHost)>,
        owners: Vec<Option<i64>>,
    ) {
        let mut seen: BTreeMap<_, _> = hosts.into_iter().collect();
        for (id, host) in &mut seen {
            let before = self.hosts.get(id).filter(|before| before.lease == host.lease);
            host.since = before.map_or(began, |before| before.since);
        }
        (self.hosts, self.owners, self.deadline) = (seen, owners, Some(deadline));
    }

    /// Notes that a shard has been gained in the database.
    pub(super) fn own(&mut self, shard: ShardId) {
        self.owners[index(shard)] = Some(self.host);
    }

    pub(super) fn hosts(&self) -> &BTreeMap<i64, SeenHost> {
        &self.hosts
    }

    pub(super) fn held(&mut self, shard: ShardId) -> &mut Held {
        &mut self.shards[index(shard)]
    }

    /// Returns which host should have a shard: of the live ones, this one included.
    pub(super) fn home_of(&self, shard: ShardId) -> i64 {
        let own = self.info().name;
        let others = self.hosts.iter().filter(|(_, host)| host.is_live);
        let others = others.filter_map(|(id, host)| Some((*id, host.name.as_deref()?)));
        home(shard, others.chain([(self.host, own.as_str())])).unwrap_or(self.host)
    }

    /// Makes a handle of a shard that this process owns.
    pub(super) fn hand_out(
        &mut self,
        membership: &Arc<Membership>,
        queue: &Arc<Queue<Job>>,
        shard: OwnedShard,
    ) -> OwnershipEvent {
        self.handles += 1;
        let handle = self.handles;
        *self.held(shard.id) = Held::Owned { epoch: shard.epoch, handle: Some(handle) };
        let (queue, membership) = (Arc::clone(queue), Arc::clone(membership));
        OwnershipEvent::Gained(Box::new(PostgresShard { shard, handle, queue, membership }))
    }
}

/// Returns which of some hosts should have a shard: the one whose name and shard have the largest digest. So all hosts
/// come to the same, and one host more or less moves the shards of that host alone.
pub(super) fn home<'a>(shard: ShardId, hosts: impl Iterator<Item = (i64, &'a str)>) -> Option<i64> {
    let weight = |name: &str| {
        let digest = Digest::of(format!("{}/{name}", shard.number()).as_bytes());
        *digest.as_bytes()
    };
    hosts.max_by_key(|(id, name)| (weight(name), *id)).map(|(id, _)| id)
}

/// A shard that this process owns. Its appends are refused once it is handed over or was taken over.
struct PostgresShard {
    shard: OwnedShard,
    handle: u64,
    queue: Arc<Queue<Job>>,
    membership: Arc<Membership>,
}

impl PostgresShard {
    /// Checks what needs no look at the store.
    fn check(&self, append: &Append) -> Result<(), StoreError> {
        if append.stream.saga().map(ShardId::of) != Some(self.shard.id) {
            return Err(NOT_OF_THE_SHARD);
        }
        append.check()
    }
}

impl Shard for PostgresShard {
    fn id(&self) -> ShardId {
        self.shard.id
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.shard.epoch.unsigned_abs())
    }

    fn has_lease(&self) -> bool {
        self.membership.has_lease(self.shard)
    }

    fn append_then(&self, append: Append, reply: AppendReply) {
        match self.check(&append) {
            Ok(()) => self.queue.push(Job::append(append, Some(self.shard), reply)),
            Err(error) => reply.send(Err(error)),
        }
    }

    fn append(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        match self.check(&append) {
            Ok(()) => self.queue.append(append, Some(self.shard)),
            Err(error) => ready(Err(error)).boxed(),
        }
    }
}

impl Drop for PostgresShard {
    fn drop(&mut self) {
        let mut state = self.membership.state();
        match state.held(self.shard.id) {
            Held::Owned { handle, .. } | Held::Leaving { handle, .. } => {
                *handle = handle.filter(|handle| *handle != self.handle);
            }
            Held::No | Held::Released { .. } => {}
        }
    }
}

impl fmt::Debug for PostgresShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresShard").field("shard", &self.shard).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One host more takes its part and moves nothing else, and each host has about as much.
    #[test]
    fn one_host_more_moves_its_own_part_alone() {
        let names = ["node-a", "node-b", "node-c", "node-d"];
        let homes = |count: usize| -> Vec<_> {
            let hosts = || (0..).zip(names).take(count);
            ShardId::all().map(|shard| home(shard, hosts())).collect()
        };
        for count in 1..names.len() {
            let (before, after) = (homes(count), homes(count + 1));
            let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
            let to_new = moved.clone().all(|(_, after)| *after == i64::try_from(count).ok());
            let (moved, part) = (moved.count(), 64 / (count + 1));
            assert!(to_new && (part / 2..part * 2).contains(&moved), "{count}: {moved} moved");
        }
    }
}
