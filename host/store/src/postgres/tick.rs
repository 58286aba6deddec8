//! Who owns which shard: leases, taking over, and handing over.
//!
//! A host has a lease in the database, by the database's clock, and renews it with each tick, on a connection of its own.
//! Which host should have a shard follows from the names of the live hosts, see [`home`](super::membership::home). A
//! shard of no host is taken by the host that should have it. A host that has one which another should have reports it as
//! lost, writes what is under way, and gives it to that host.
//!
//! A host is dead when its lease has run out and this process has had contact with the database for a whole lease
//! without seeing a renewal: after an outage of the database, all leases have run out, and no host is dead.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::PostgresStore;
use super::connection::Pg;
use super::control::Control;
use super::error::Failure;
use super::job::Job;
use super::membership::{Held, SeenHost};
use super::open::{Dead, take_over};
use super::owned_shard::OwnedShard;
use crate::error::{Fatal, Obstacle, StoreError};
use crate::ownership::OwnershipEvent;
use crate::shard_id::ShardId;

/// How long a host keeps its shards without a renewal. A tick renews it.
const LEASE: Duration = Duration::from_secs(5);

/// How long a tick may take. It is tried again, and the lease must not run out meanwhile.
const TICK_TIME_MAX: Duration = Duration::from_secs(4);

/// How long a handle of a shard may stay after the shard was reported as lost. Then the shard is handed over all the
/// same.
const HANDLE_TIME_MAX: Duration = Duration::from_secs(5);

/// What a connection for ticks begins with.
const SETUP: &str =
    "SET client_min_messages = warning; SET jit = off; SET statement_timeout = '4s';
    SET idle_in_transaction_session_timeout = '2s'; SET synchronous_commit = on;
    SET default_transaction_isolation = 'read committed'";

const RENEW: &str = "UPDATE hosts SET lease_until = clock_timestamp() + $2::int8 * interval '1 ms'
                     WHERE id = $1 RETURNING 1";

const HOSTS: &str = "SELECT id, name, address, (extract(epoch FROM lease_until) * 1000000)::int8,
                         lease_until > clock_timestamp() FROM hosts";

/// Takes shards that no host has.
const CLAIM: &str = "UPDATE shards SET host = $1, epoch = epoch + 1 WHERE id = ANY($2)
    AND (host IS NULL OR NOT EXISTS (SELECT 1 FROM hosts WHERE hosts.id = shards.host))
    RETURNING id, epoch";

/// The shards of a store, as the database has them.
struct ShardRows(Vec<(ShardId, Option<i64>, i64)>);

impl PostgresStore {
    /// Does one tick, see [`crate::Ownership::tick`].
    pub(super) async fn turn(&self) -> Result<Vec<OwnershipEvent>, StoreError> {
        if self.is_closing() {
            return Err(StoreError::Closed);
        }
        let mut control = self.control.lock().await;
        let gained = match self.lost_error() {
            Some(error) => Err(error),
            None => match timeout(TICK_TIME_MAX, self.try_turn(&mut control)).await {
                Ok(done) => done,
                Err(_) => Err(StoreError::unavailable(
                    Obstacle::Database,
                    "the database does not answer in time",
                )),
            },
        };
        let mut events = self.membership.take_lost();
        match gained {
            Ok(gained) => events.extend(gained),
            Err(error) => {
                (control.pg, control.contact_since) = (None, None);
                if events.is_empty() {
                    return Err(error);
                }
            }
        }
        Ok(events)
    }

    async fn try_turn(&self, control: &mut Control) -> Result<Vec<OwnershipEvent>, StoreError> {
        let pg = match control.pg.take().filter(|pg| !pg.client.is_closed()) {
            Some(pg) => pg,
            None => self.readers.connect(SETUP).await?,
        };
        let began = Instant::now();
        let contact_since = *control.contact_since.get_or_insert(began);
        self.name(&pg).await?;
        let mut gained = self.renew(&pg, began).await?;
        if began.duration_since(contact_since) >= LEASE && self.bury(&pg, began).await? {
            gained.extend(self.renew(&pg, Instant::now()).await?);
        }
        self.hand_over(began);
        control.pg = Some(pg);
        Ok(gained)
    }

    /// Writes the name of this host into its row. A process with the same name goes: it is an earlier one of this
    /// host, or an operator started the host twice.
    async fn name(&self, pg: &Pg) -> Result<(), StoreError> {
        let (host, info, is_named, has_joined) = {
            let state = self.membership.state();
            (state.host, state.info(), state.is_named, state.has_joined)
        };
        if is_named {
            return Ok(());
        }
        if !has_joined {
            take_over(pg, Dead::OfName(&info.name, host)).await?;
        }
        let sql = "UPDATE hosts SET name = $2, address = $3,
                       lease_until = clock_timestamp() + $4::int8 * interval '1 ms' WHERE id = $1";
        let named =
            pg.execute(sql, &[&host, &info.name, &info.address, &milliseconds(LEASE)]).await;
        match named {
            // It was fenced, which the writer notices.
            Ok(0) => {}
            Ok(_) => {
                let mut state = self.membership.state();
                if state.host == host {
                    (state.is_named, state.has_joined) = (true, true);
                }
            }
            // One of the same name has begun while this one was fenced.
            Err(failure) if failure.code() == Some("23505") && has_joined => {
                return Err(Fatal::Fenced.into());
            }
            Err(failure) => return Err(failure.into()),
        }
        Ok(())
    }

    /// Renews the lease, looks at hosts and shards, and takes what nobody has.
    async fn renew(&self, pg: &Pg, began: Instant) -> Result<Vec<OwnershipEvent>, StoreError> {
        let host = self.membership.state().host;
        // The row of the host is locked, so nobody takes this host over in between.
        pg.batch("BEGIN").await?;
        if !pg.exists(RENEW, &[&host, &milliseconds(LEASE)]).await? {
            pg.batch("ROLLBACK").await?;
            self.membership.lose_all(host);
            return Ok(Vec::new());
        }
        let hosts = read_hosts(pg, host, began).await?;
        let mut rows = ShardRows::read(pg).await?;
        let wanted = {
            let mut state = self.membership.state();
            let owners = rows.0.iter().map(|(_, owner, _)| *owner).collect();
            state.see(began, began + LEASE, hosts, owners);
            let is_free = |owner: Option<i64>| {
                owner.is_none_or(|owner| owner != host && !state.hosts().contains_key(&owner))
            };
            let free = rows
                .0
                .iter()
                .filter(|(id, owner, _)| is_free(*owner) && state.home_of(*id) == host);
            free.map(|(id, ..)| column(*id)).collect::<Vec<i16>>()
        };
        if !wanted.is_empty() {
            for row in pg.query(CLAIM, &[&host, &wanted]).await? {
                let id: i16 = row.try_get(0).map_err(Failure::from)?;
                let epoch = row.try_get(1).map_err(Failure::from)?;
                rows.set(id, host, epoch);
            }
        }
        pg.batch("COMMIT").await?;
        Ok(self.compare(host, &rows))
    }

    /// Compares what this process has with what the database says that it has.
    fn compare(&self, host: i64, rows: &ShardRows) -> Vec<OwnershipEvent> {
        let mut state = self.membership.state();
        // The writer has lost the lane, and goes on as another host.
        if state.host != host {
            return Vec::new();
        }
        let mut gained = Vec::new();
        for (id, owner, epoch) in &rows.0 {
            let shard = OwnedShard { id: *id, epoch: *epoch };
            let is_own = *owner == Some(host);
            let is_wanted = state.home_of(*id) == host;
            match *state.held(*id) {
                Held::No if is_own => {
                    state.own(*id);
                    gained.push(state.hand_out(&self.membership, &self.queue, shard));
                }
                // Another host has given it back. The rows may have been read before the writer gave it away.
                Held::Released { epoch: known } if is_own && *epoch > known => {
                    state.own(*id);
                    gained.push(state.hand_out(&self.membership, &self.queue, shard));
                }
                Held::Released { .. } if !is_own => *state.held(*id) = Held::No,
                Held::Owned { epoch: known, .. } | Held::Leaving { epoch: known, .. }
                    if !is_own || known != *epoch =>
                {
                    state.lose(*id);
                }
                Held::Owned { handle, .. } if !is_wanted => {
                    state.lose(*id);
                    let since = Instant::now();
                    *state.held(*id) =
                        Held::Leaving { epoch: *epoch, handle, since, is_asked: false };
                }
                // The handle was dropped.
                Held::Owned { handle: None, .. } => {
                    gained.push(state.hand_out(&self.membership, &self.queue, shard));
                }
                Held::No | Held::Owned { .. } | Held::Leaving { .. } | Held::Released { .. } => {}
            }
        }
        gained
    }

    /// Has the writer hand over what was reported as lost, once nobody has a handle of it any more.
    fn hand_over(&self, now: Instant) {
        let mut state = self.membership.state();
        let mut shards = Vec::new();
        for id in ShardId::all() {
            let home = state.home_of(id);
            let own = state.host;
            let Held::Leaving { handle, since, is_asked, .. } = *state.held(id) else {
                continue;
            };
            // The writer refuses what it is asked while it has no connection.
            let waits = handle.is_some() || is_asked;
            if waits && now.saturating_duration_since(since) < HANDLE_TIME_MAX {
                continue;
            }
            if home == own {
                // The host that should have it has died meanwhile: the next tick gains it again.
                *state.held(id) = Held::No;
                continue;
            }
            if let Held::Leaving { is_asked, since, .. } = state.held(id) {
                (*is_asked, *since) = (true, now);
            }
            shards.push((id, home));
        }
        let host = state.host;
        drop(state);
        if !shards.is_empty() {
            self.queue.push(Job::HandOver { host, shards });
        }
    }

    /// Takes the shards of dead hosts from them. Returns whether there was one.
    async fn bury(&self, pg: &Pg, now: Instant) -> Result<bool, StoreError> {
        let dead: Vec<i64> = {
            let state = self.membership.state();
            let dead = state.hosts().iter().filter(|(_, host)| {
                !host.is_live && now.saturating_duration_since(host.since) >= LEASE
            });
            dead.map(|(id, _)| *id).collect()
        };
        if dead.is_empty() {
            return Ok(false);
        }
        let gone = take_over(pg, Dead::Expired(&dead)).await?;
        if !gone.is_empty() {
            tracing::warn!(hosts = ?gone, "hosts have not renewed their lease; their shards are taken over");
        }
        Ok(!gone.is_empty())
    }
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn column(shard: ShardId) -> i16 {
    i16::try_from(shard.number()).unwrap_or(i16::MAX)
}

async fn read_hosts(pg: &Pg, own: i64, since: Instant) -> Result<Vec<(i64, SeenHost)>, Failure> {
    let rows = pg.query(HOSTS, &[]).await?;
    let mut hosts = Vec::new();
    for row in &rows {
        let id: i64 = row.try_get(0)?;
        let (name, address, lease) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        if id != own {
            hosts.push((id, SeenHost { name, address, lease, since, is_live: row.try_get(4)? }));
        }
    }
    Ok(hosts)
}

impl ShardRows {
    async fn read(pg: &Pg) -> Result<Self, Failure> {
        let rows = pg.query("SELECT id, host, epoch FROM shards ORDER BY id", &[]).await?;
        let mut found = Vec::new();
        // A store has all shards, in this order.
        for (row, id) in rows.iter().zip(ShardId::all()) {
            found.push((id, row.try_get(1)?, row.try_get(2)?));
        }
        Ok(Self(found))
    }

    fn set(&mut self, id: i16, host: i64, epoch: i64) {
        if let Some(row) = usize::try_from(id).ok().and_then(|id| self.0.get_mut(id)) {
            (row.1, row.2) = (Some(host), epoch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::TICK_PAUSE;

    /// What the book says of a takeover.
    const TAKEOVER_TIME_MAX: Duration = Duration::from_secs(8);

    /// What reading the sagas of a shard may take of it.
    const RECOVERY_TIME: Duration = Duration::from_secs(1);

    /// A host dies right after a renewal. Another one sees that up to a tick later, finds the lease over up to a tick
    /// late, and the last one takes its part with its next tick.
    #[test]
    fn a_takeover_takes_as_long_as_the_book_says() {
        assert!(LEASE + 3 * TICK_PAUSE + RECOVERY_TIME < TAKEOVER_TIME_MAX);
    }
}
