//! Who owns what: ticks, takeovers, handovers, and hosts that stand still or are killed.

use std::collections::BTreeMap;

use super::Cluster;
use super::host::{Condition, Held, Host, Writer};
use super::store::LEASE;
use crate::sim::protection::Protection;

impl Cluster<'_> {
    /// Renews the lease, claims free shards, and compares what the host has with the database.
    pub(super) fn tick(&mut self, host: usize, claims: u64) {
        let number = self.hosts[host].number;
        if !self.store.leases.contains_key(&number) {
            self.lose_all(host);
            // Only the writer knows what became of a batch that is under way.
            if matches!(self.hosts[host].writer, Writer::Idle) {
                self.begin_again(host);
            }
            return;
        }
        self.renew(host);
        for shard in 0..self.store.shards.len() {
            if self.store.shards[shard].owner.is_none() && claims >> shard & 1 == 1 {
                self.store.give(shard, number);
            }
            let row = self.store.shards[shard];
            let owned = (row.owner == Some(number)).then_some(row.epoch);
            match (self.hosts[host].held[shard], owned) {
                (Held::No, Some(epoch)) => self.hosts[host].held[shard] = Held::Owned(epoch),
                (Held::Owned(known) | Held::Leaving(known), owned) if owned != Some(known) => {
                    self.lose(host, shard);
                }
                (Held::No | Held::Owned(_) | Held::Leaving(_), _) => {}
            }
        }
    }

    /// Renews the lease of a host that is in the database.
    pub(super) fn renew(&mut self, host: usize) {
        let until = self.now.after(LEASE);
        if let Some(lease) = self.store.leases.get_mut(&self.hosts[host].number) {
            (*lease, self.hosts[host].lease_until) = (until, until);
        }
    }

    /// Returns true when a host has to tick: something has changed, or its lease is over.
    pub(super) fn is_tick_due(&self, host: &Host) -> bool {
        let is_new = |(shard, row): (usize, &super::store::ShardRow)| {
            let owned = (row.owner == Some(host.number)).then_some(row.epoch);
            let known = match host.held[shard] {
                Held::No => None,
                Held::Owned(epoch) | Held::Leaving(epoch) => Some(epoch),
            };
            row.owner.is_none() || owned != known
        };
        if self.store.leases.contains_key(&host.number) {
            let is_over = self.now >= host.lease_until;
            is_over || self.store.shards.iter().enumerate().any(is_new)
        } else {
            matches!(host.writer, Writer::Idle) || !host.live.is_empty()
        }
    }

    /// Forgets the sagas of a shard that another host owns.
    pub(super) fn lose(&mut self, host: usize, shard: usize) {
        self.hosts[host].held[shard] = Held::No;
        self.forget(host, shard);
    }

    fn forget(&mut self, host: usize, shard: usize) {
        if !self.lacks(Protection::Forgetting) {
            let sagas = &self.sagas;
            self.hosts[host].live.retain(|saga, _| sagas[*saga].shard != shard);
        }
    }

    fn lose_all(&mut self, host: usize) {
        for shard in 0..self.store.shards.len() {
            self.lose(host, shard);
        }
    }

    /// Registers a host again that was fenced, as another one.
    pub(super) fn begin_again(&mut self, host: usize) {
        self.lose_all(host);
        let number = self.store.register(self.now);
        let host = &mut self.hosts[host];
        host.number = number;
        host.lease_until = self.store.leases[&number];
        (host.lane_epoch, host.batch) = (1, 0);
    }

    /// Begins to give a shard away: the sagas leave memory, and what was queued is still written.
    pub(super) fn leave(&mut self, host: usize, shard: usize) {
        if let Held::Owned(epoch) = self.hosts[host].held[shard] {
            self.hosts[host].held[shard] = Held::Leaving(epoch);
            self.forget(host, shard);
        }
    }

    /// Gives a shard to another host, in a transaction with the fence.
    pub(super) fn hand_over(&mut self, host: usize, shard: usize, to: usize) {
        let (from, to) = (&self.hosts[host], self.hosts[to].number);
        let has_fence = self.store.lanes.get(&from.number) == Some(&from.lane_epoch);
        let is_owner = self.store.shards[shard].owner == Some(from.number);
        if has_fence && is_owner && self.store.leases.contains_key(&to) {
            self.store.give(shard, to);
            self.figures.handovers += 1;
        }
        self.lose(host, shard);
    }

    pub(super) fn pause(&mut self, host: usize) {
        self.hosts[host].condition = Condition::Paused;
    }

    pub(super) fn go_on(&mut self, host: usize) {
        self.hosts[host].condition = Condition::Runs;
        self.figures.late_wakes += u64::from(!self.has_lease(host));
    }

    /// Kills a host: it forgets everything. What it has sent may still arrive.
    pub(super) fn kill(&mut self, host: usize) {
        self.figures.kills += 1;
        self.break_connection(host);
        let host = &mut self.hosts[host];
        host.condition = Condition::Down;
        (host.live, host.writer) = (BTreeMap::new(), Writer::Idle);
        host.queue.clear();
        host.inbox.clear();
    }

    /// Starts a host that was killed. It takes over what it was before, because of its name.
    pub(super) fn boot(&mut self, host: usize) {
        self.store.take_over(self.hosts[host].number);
        let number = self.store.register(self.now);
        let process = self.number();
        let fresh = Host::new(number, self.store.leases[&number], self.store.shards.len());
        let skew = self.hosts[host].skew;
        self.hosts[host] = Host { process, skew, ..fresh };
    }
}
