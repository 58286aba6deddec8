//! Several simulated hosts of one store.
//!
//! Each host plays the loop of the runtime (`runtime/src/worker.rs`), one step at a time, so that
//! something else may happen at each point at which the real one waits. The store is a model with
//! leases, fences and shards (`store`). What the hosts decide and what comes of it is the engine's.
//!
//! `ownership` has who owns what, `writing` the way of an append, `calling` that of a call,
//! `requests` the callers, `schedule` what can happen next.

mod calling;
mod flight;
mod host;
mod live;
mod ownership;
mod request;
mod requests;
mod schedule;
mod store;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::action::OrderKind;
use super::cluster_figures::ClusterFigures;
use super::machine::Machine;
use super::protection::Protection;
use super::stage::{Result, Stage};
use crate::{Definition, Payload, SagaId, Timestamp};
use flight::Flight;
use host::Host;
use request::Request;
use store::{Batch, ShardRow, Store};

/// Several hosts, their store, and their sagas.
pub(super) struct Cluster<'m> {
    without: Option<Protection>,
    /// The time of the world, which is that of the database.
    now: Timestamp,
    store: Store,
    sagas: Vec<Play<'m>>,
    hosts: Vec<Host>,
    /// Calls whose end no host has heard.
    flights: Vec<Flight>,
    /// Batches on connections that are broken for their hosts. Each is run some time, or never.
    strays: Vec<Batch>,
    requests: Vec<Request>,
    /// The appends that are stored, and those of which a host was told that they are not.
    stored: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    /// The numbers given so far: of appends, calls and readings of sagas.
    numbers: u64,
    pub(super) figures: ClusterFigures,
    moves: Vec<Move>,
}

/// One saga of a cluster.
struct Play<'m> {
    stage: Stage<'m>,
    shard: usize,
    input: Payload,
    /// The epoch in which each event was written.
    epochs: Vec<u64>,
    /// The sagas that its steps run, and whether they have completed.
    children: BTreeMap<SagaId, bool>,
    is_start_told: bool,
    /// The number of signals whose callers were told that they are recorded.
    signals_told: usize,
}

/// One thing that happens next. Hosts, sagas, calls and batches are named by their places.
#[derive(Debug, Clone, Copy)]
pub(super) enum Move {
    /// A caller starts a saga.
    Start { host: usize, saga: usize },
    /// An operator gives an order.
    Order { host: usize, saga: usize, order: OrderKind, step: usize },
    /// The signal comes that steps wait for.
    Signal { host: usize, saga: usize },
    /// A host reads a saga of a shard that it has gained. `asks`: components tell what became of
    /// the calls that were cut off.
    Recover { host: usize, saga: usize, asks: bool },
    /// A host decides on what happened to a saga.
    Advance { host: usize, saga: usize, admits: bool },
    /// Calls begin that waited for the lease of their host.
    Begin { host: usize, saga: usize },
    /// A host sends what it has decided.
    Send { host: usize },
    /// The database runs what a host has sent.
    Run { host: usize },
    /// The answer of the database reaches the writer of the host.
    Hear { host: usize },
    /// A saga hears what the writer knows of its append.
    Deliver { host: usize },
    /// A host finds out what became of a batch whose answer is lost.
    FindOut { host: usize },
    /// A host renews its lease, claims shards and learns what it has.
    Tick { host: usize, claims: u64 },
    /// A host gives a shard to another one.
    HandOver { host: usize, shard: usize, to: usize },
    /// A request reaches its service.
    Land { call: usize, ending: Ending },
    /// A host hears of the end of a call. When the answer is lost, the component can tell what
    /// became of it, if `tells`. A child saga has completed, if `tells`.
    Reply { call: usize, tells: bool },
    /// The connection of a host to the database breaks.
    Break { host: usize },
    /// The database runs a batch whose connection is broken.
    Stray { batch: usize },
    /// A host stands still.
    Pause { host: usize },
    /// It goes on.
    Wake { host: usize },
    /// A host is killed.
    Kill { host: usize },
    /// It is started again.
    Boot { host: usize },
    /// A host does not reach the database, but its services.
    CutOff { host: usize },
    /// It does again.
    Mend { host: usize },
    /// The clock of a host is set: so many milliseconds ahead.
    SetClock { host: usize, ahead: i64 },
    /// A host whose lease is over is taken over.
    TakeOver { dead: u32 },
    /// A host is to give a shard away.
    Leave { host: usize, shard: usize },
    /// Time passes until something is due.
    Pass,
}

/// How a service answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Done,
    Permanent,
    Retryable,
}

impl<'m> Cluster<'m> {
    /// Makes a store of some shards and sagas, and hosts that own nothing yet.
    pub(super) fn new(
        machine: &'m dyn Machine,
        without: Option<Protection>,
        (hosts, shards): (usize, usize),
        sagas: Vec<(Arc<Definition>, SagaId, std::time::Duration)>,
    ) -> Self {
        let now = Timestamp::from_millis(0);
        let mut store = Store::default();
        store.shards = vec![ShardRow::default(); shards];
        let hosts = (0..hosts).map(|_| {
            let number = store.register(now);
            Host::new(number, store.leases[&number], shards)
        });
        let hosts = hosts.collect();
        let input = Payload::parse(r#"{"yes":true}"#).unwrap_or_else(|_| Payload::null());
        let sagas = sagas.into_iter().enumerate().map(|(index, (definition, id, delay))| Play {
            stage: Stage::new(machine, definition, id, delay),
            shard: index % shards,
            input: input.clone(),
            epochs: Vec::new(),
            children: BTreeMap::new(),
            is_start_told: false,
            signals_told: 0,
        });
        Self {
            without,
            now,
            store,
            sagas: sagas.collect(),
            hosts,
            flights: Vec::new(),
            strays: Vec::new(),
            requests: Vec::new(),
            stored: BTreeSet::new(),
            refused: BTreeSet::new(),
            numbers: 0,
            figures: ClusterFigures { runs: 1, ..ClusterFigures::default() },
            moves: Vec::new(),
        }
    }

    /// Makes one move. A move that is not possible changes nothing.
    pub(super) fn act(&mut self, next: Move) -> Result<()> {
        self.moves.push(next);
        self.act_once(next).map_err(|violation| violation.after(&self.moves))
    }

    fn act_once(&mut self, next: Move) -> Result<()> {
        self.figures.moves += 1;
        match next {
            Move::Start { host, saga } => self.start(host, saga)?,
            Move::Order { host, saga, order, step } => self.order(host, saga, (order, step)),
            Move::Signal { host, saga } => self.signal(host, saga),
            Move::Recover { host, saga, asks } => self.recover(host, saga, asks)?,
            Move::Advance { host, saga, admits } => self.advance(host, saga, admits)?,
            Move::Begin { host, saga } => self.begin(host, saga)?,
            Move::Send { host } => self.send(host),
            Move::Run { host } => self.run(host)?,
            Move::Hear { host } => self.hear(host),
            Move::Deliver { host } => self.deliver(host)?,
            Move::FindOut { host } => self.find_out(host),
            Move::Tick { host, claims } => self.tick(host, claims),
            Move::HandOver { host, shard, to } => self.hand_over(host, shard, to),
            Move::Land { call, ending } => self.land(call, ending)?,
            Move::Reply { call, tells } => self.reply(call, tells)?,
            Move::Break { host } => self.break_connection(host),
            Move::Stray { batch } => {
                let batch = self.strays.remove(batch);
                self.transact(&batch)?;
            }
            Move::Pause { host } => self.pause(host),
            Move::Wake { host } => self.go_on(host),
            Move::Kill { host } => self.kill(host),
            Move::Boot { host } => self.boot(host),
            Move::CutOff { host } => self.hosts[host].is_cut_off = true,
            Move::Mend { host } => self.hosts[host].is_cut_off = false,
            Move::SetClock { host, ahead } => self.hosts[host].skew = ahead,
            Move::TakeOver { dead } => {
                self.figures.takeovers += 1;
                self.store.take_over(dead);
            }
            Move::Leave { host, shard } => self.leave(host, shard),
            Move::Pass => self.pass(),
        }
        Ok(())
    }

    /// Returns true when the machine does without a protection.
    fn lacks(&self, protection: Protection) -> bool {
        self.without == Some(protection)
    }

    /// Returns a number that nothing else has.
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Returns true when no other host can own what a host owns, as far as the host can know.
    fn has_lease(&self, host: usize) -> bool {
        self.now < self.hosts[host].lease_until
    }
}
