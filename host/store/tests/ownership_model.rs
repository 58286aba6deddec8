//! A model of how the hosts of one PostgreSQL database own shards, write, and learn what became of a lost answer. A
//! model checker (stateright) visits every state that it can reach.
//!
//! Two processes want one shard. The database runs one transaction after another, because each locks the rows that it
//! compares. Everything else happens in any order:
//!
//! - A process stands still for any time.
//! - A connection breaks before or after a transaction. What was sent over a broken connection happens later, or never.
//! - The lease of a host runs out at any time, so a host that works is taken for dead as well.
//! - The answer to a reconnection is lost, so the epoch of a lane rises without its host.
//!
//! Each action has the name of the function of `src/postgres` that does it. The model has no clocks: they decide who is
//! taken over, and may not decide what is stored.
//!
//! Each [`Flaw`] takes one protection away, and the checker has to find what that breaks. So no protection is there for
//! nothing, and the model is able to find a mistake. With two expiries and two handovers, which take minutes, the
//! checker found nothing either.
#![allow(missing_docs, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Checker as _, Expectation, HasDiscoveries, Model, Property};

/// The number of a process among the hosts. A process that registers again gets another one.
type Host = u8;

const PROCESSES: usize = 2;

/// How often each of these may happen. The states grow with all of them.
const APPENDS_MAX: u8 = 2;
const BREAKS_MAX: u8 = 2;
const EXPIRIES_MAX: u8 = 1;
const HAND_OVERS_MAX: u8 = 1;

/// A protection that is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// A transaction does not compare the epoch of its lane.
    NoFence,
    /// A process that reconnects leaves the epoch of its lane as it is.
    NoRaise,
    /// A takeover leaves the lane of the host.
    LaneStays,
    /// A process that was fenced writes what it had been asked to write before.
    NoEpochOfShard,
    /// A shard is handed over without the fence.
    HandOverWithoutFence,
}

/// A transaction that appends, as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Batch {
    host: Host,
    lane_epoch: u8,
    number: u8,
    /// The version that the saga has before.
    expected: u8,
    /// The epoch of the shard, as the process knows it. No statement of the transaction has it.
    shard_epoch: u8,
    value: u8,
}

/// A transaction that gives the shard to another host, as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Gift {
    host: Host,
    lane_epoch: u8,
    to: Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Transaction {
    Append(Batch),
    HandOver(Gift),
}

/// An append that is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Stored {
    shard_epoch: u8,
    value: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Database {
    /// The hosts, and whether their lease has run out.
    hosts: BTreeMap<Host, bool>,
    /// The epochs of the lanes.
    lanes: BTreeMap<Host, u8>,
    owner: Option<Host>,
    shard_epoch: u8,
    log: Vec<Stored>,
    /// The rows of batches: host, number and epoch.
    batches: BTreeSet<(Host, u8, u8)>,
    next_host: Host,
}

/// What a process has of the shard, see `membership.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Held {
    No,
    Owned(u8),
    Leaving(u8),
    Released(u8),
}

/// What the writer of a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Writer {
    /// It may begin something.
    Idle,
    /// It waits for the answer to a transaction.
    Sent(Transaction),
    /// The database has the transaction behind it, and has answered whether it was committed.
    Answered(Transaction, bool),
    /// The answer to an append is lost: it connects again and raises its epoch, see `lost.rs`.
    Lost(Batch),
    /// It has raised its epoch, or was fenced, and asks for the row of the batch.
    Asks(Batch),
    /// It has lost its connection, and does not ask what became of anything.
    Apart,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Process {
    host: Host,
    lane_epoch: u8,
    batch: u8,
    held: Held,
    /// The version of the saga: read, or written by this process since.
    version: Option<u8>,
    writer: Writer,
    /// A job of the queue: the epoch of the shard with which it was made, and its value.
    queued: Option<(u8, u8)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Milestone {
    TakenOver,
    Fenced,
    LostAnswerWasYes,
    LostAnswerWasNo,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    database: Database,
    processes: Vec<Process>,
    /// Transactions on connections that are broken for their senders. Each happens some time, or never.
    strays: Vec<Transaction>,
    acknowledged: BTreeSet<u8>,
    refused: BTreeSet<u8>,
    appends: u8,
    breaks: u8,
    expiries: u8,
    hand_overs: u8,
    /// What has happened, to see that the model comes so far.
    milestones: BTreeSet<Milestone>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// A tick renews the lease, and claims or compares.
    Tick(usize),
    Expire(Host),
    TakeOver(Host),
    /// A job comes into the queue.
    Queue(usize),
    LookUp(usize),
    Send(usize),
    /// The database runs the transaction that a process has sent.
    Run(usize),
    Answer(usize),
    Break(usize),
    RunStray(usize),
    /// A process connects again. The answer to the raised epoch arrives, or not.
    Reconnect(usize, bool),
    IsThere(usize),
    /// The writer looks at its fence between transactions.
    Look(usize),
    Leave(usize),
    HandOver(usize, usize),
}

struct Hosts(Flaw);

impl Database {
    fn run(&mut self, transaction: Transaction, flaw: Flaw) -> bool {
        match transaction {
            Transaction::Append(batch) => self.append(batch, flaw),
            Transaction::HandOver(gift) => self.hand_over(gift, flaw),
        }
    }

    /// `try_hand_over` in `lost.rs`.
    fn hand_over(&mut self, gift: Gift, flaw: Flaw) -> bool {
        let has_fence = self.lanes.get(&gift.host) == Some(&gift.lane_epoch);
        let is_done =
            (has_fence || flaw == Flaw::HandOverWithoutFence) && self.owner == Some(gift.host);
        if is_done {
            (self.owner, self.shard_epoch) = (Some(gift.to), self.shard_epoch + 1);
        }
        is_done
    }

    /// `transact` in `transaction.rs`: all or nothing.
    fn append(&mut self, batch: Batch, flaw: Flaw) -> bool {
        let has_fence = self.lanes.get(&batch.host) == Some(&batch.lane_epoch);
        // The unique index of the saga and the version of the first event.
        let is_next = usize::from(batch.expected) == self.log.len();
        if !(has_fence || flaw == Flaw::NoFence) || !is_next {
            return false;
        }
        self.log.push(Stored { shard_epoch: batch.shard_epoch, value: batch.value });
        self.batches.insert((batch.host, batch.number, batch.lane_epoch))
    }

    /// `register` in `open.rs`.
    fn register(&mut self) -> Host {
        let host = self.next_host;
        self.next_host += 1;
        self.hosts.insert(host, false);
        self.lanes.insert(host, 1);
        host
    }
}

impl Process {
    fn new(host: Host) -> Self {
        let (held, writer) = (Held::No, Writer::Idle);
        Self { host, lane_epoch: 1, batch: 0, held, version: None, writer, queued: None }
    }

    /// `may_write` in `membership.rs`.
    fn may_write(&self, epoch: u8) -> bool {
        matches!(self.held, Held::Owned(known) | Held::Leaving(known) if known == epoch)
    }

    /// `fenced` in `lost.rs`: goes on as another host.
    fn begin_again(&mut self, database: &mut Database) {
        let queued = self.queued;
        *self = Self { queued, ..Self::new(database.register()) };
    }
}

impl World {
    /// `renew` and `compare` in `tick.rs`.
    fn tick(&mut self, number: usize) {
        let (database, process) = (&mut self.database, &mut self.processes[number]);
        let host = process.host;
        if !database.hosts.contains_key(&host) {
            process.held = Held::No;
            return;
        }
        database.hosts.insert(host, false);
        // Which host should have a shard is left open: any may claim it.
        let is_free = database.owner.is_none_or(|owner| !database.hosts.contains_key(&owner));
        if is_free {
            (database.owner, database.shard_epoch) = (Some(host), database.shard_epoch + 1);
        }
        let (is_own, epoch) = (database.owner == Some(host), database.shard_epoch);
        process.held = match process.held {
            Held::No if is_own => Held::Owned(epoch),
            Held::Released(known) if is_own && epoch > known => Held::Owned(epoch),
            Held::Released(_) if !is_own => Held::No,
            Held::Owned(known) | Held::Leaving(known) if !is_own || known != epoch => Held::No,
            held @ (Held::No | Held::Owned(_) | Held::Leaving(_) | Held::Released(_)) => held,
        };
    }

    /// `take_over` in `open.rs`.
    fn take_over(&mut self, dead: Host, flaw: Flaw) {
        let database = &mut self.database;
        if flaw != Flaw::LaneStays {
            database.lanes.remove(&dead);
        }
        if database.owner == Some(dead) {
            database.owner = None;
        }
        database.hosts.remove(&dead);
        self.milestones.insert(Milestone::TakenOver);
    }

    /// `own` and `try_write_once` in `writer.rs`.
    fn send(&mut self, number: usize, flaw: Flaw) {
        let process = &mut self.processes[number];
        let (Some((epoch, value)), Some(expected)) = (process.queued.take(), process.version)
        else {
            return;
        };
        if !process.may_write(epoch) && flaw != Flaw::NoEpochOfShard {
            self.refused.insert(value);
            return;
        }
        process.batch += 1;
        process.writer = Writer::Sent(Transaction::Append(Batch {
            host: process.host,
            lane_epoch: process.lane_epoch,
            number: process.batch,
            expected,
            shard_epoch: epoch,
            value,
        }));
    }

    fn answer(&mut self, number: usize) {
        let process = &mut self.processes[number];
        let Writer::Answered(transaction, is_done) = process.writer else {
            return;
        };
        process.writer = Writer::Idle;
        let Transaction::Append(batch) = transaction else {
            return;
        };
        if is_done {
            self.acknowledged.insert(batch.value);
            process.version = Some(batch.expected + 1);
            return;
        }
        self.refused.insert(batch.value);
        process.version = None;
        // A fence that is not its own.
        if self.database.lanes.get(&process.host) != Some(&batch.lane_epoch) {
            self.milestones.insert(Milestone::Fenced);
            process.begin_again(&mut self.database);
        }
    }

    fn reconnect(&mut self, number: usize, is_heard: bool, flaw: Flaw) {
        let process = &mut self.processes[number];
        let lane = self.database.lanes.get_mut(&process.host);
        let is_fenced = lane.is_none();
        if let Some(epoch) = lane {
            if flaw != Flaw::NoRaise {
                *epoch += 1;
            }
            if is_heard {
                process.lane_epoch = *epoch;
            }
        }
        if !is_heard {
            return;
        }
        process.version = None;
        match process.writer {
            // A host that was fenced asks as well.
            Writer::Lost(batch) => process.writer = Writer::Asks(batch),
            Writer::Idle
            | Writer::Sent(_)
            | Writer::Answered(..)
            | Writer::Asks(_)
            | Writer::Apart => {
                process.writer = Writer::Idle;
                if is_fenced {
                    process.begin_again(&mut self.database);
                }
            }
        }
        if let Held::Released(_) = process.held {
            // `keep`: the next tick says what became of it.
            process.held = Held::No;
        }
    }

    fn is_there(&mut self, number: usize) {
        let process = &mut self.processes[number];
        let Writer::Asks(batch) = process.writer else {
            return;
        };
        let is_there =
            self.database.batches.contains(&(batch.host, batch.number, batch.lane_epoch));
        if is_there {
            self.acknowledged.insert(batch.value);
            self.milestones.insert(Milestone::LostAnswerWasYes);
        } else {
            self.refused.insert(batch.value);
            self.milestones.insert(Milestone::LostAnswerWasNo);
        }
        process.writer = Writer::Idle;
        if !self.database.lanes.contains_key(&process.host) {
            process.begin_again(&mut self.database);
        }
    }

    /// `hand_over` in `lost.rs`.
    fn hand_over(&mut self, number: usize, to: usize) {
        let to = self.processes[to].host;
        let process = &mut self.processes[number];
        let Held::Leaving(epoch) = process.held else {
            return;
        };
        process.held = Held::Released(epoch);
        process.version = None;
        self.hand_overs += 1;
        let (host, lane_epoch) = (process.host, process.lane_epoch);
        process.writer = Writer::Sent(Transaction::HandOver(Gift { host, lane_epoch, to }));
    }

    /// `look` in `look.rs`.
    fn look(&mut self, number: usize) {
        let process = &mut self.processes[number];
        if self.database.lanes.get(&process.host) != Some(&process.lane_epoch) {
            process.begin_again(&mut self.database);
        }
    }

    fn break_connection(&mut self, number: usize) {
        self.breaks += 1;
        let process = &mut self.processes[number];
        if let Writer::Sent(transaction) = process.writer {
            self.strays.push(transaction);
        }
        process.writer = match process.writer {
            Writer::Sent(Transaction::Append(batch))
            | Writer::Answered(Transaction::Append(batch), _)
            | Writer::Lost(batch) => Writer::Lost(batch),
            Writer::Idle | Writer::Sent(_) | Writer::Answered(..) | Writer::Apart => Writer::Apart,
            asks @ Writer::Asks(_) => asks,
        };
    }
}

impl Model for Hosts {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut database = Database {
            hosts: BTreeMap::new(),
            lanes: BTreeMap::new(),
            owner: None,
            shard_epoch: 0,
            log: Vec::new(),
            batches: BTreeSet::new(),
            next_host: 1,
        };
        let processes = (0..PROCESSES).map(|_| Process::new(database.register())).collect();
        vec![World {
            database,
            processes,
            strays: Vec::new(),
            acknowledged: BTreeSet::new(),
            refused: BTreeSet::new(),
            appends: 0,
            breaks: 0,
            expiries: 0,
            hand_overs: 0,
            milestones: BTreeSet::new(),
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (host, is_over) in &world.database.hosts {
            match is_over {
                true => actions.push(Action::TakeOver(*host)),
                false if world.expiries < EXPIRIES_MAX => actions.push(Action::Expire(*host)),
                false => {}
            }
        }
        actions.extend((0..world.strays.len()).map(Action::RunStray));
        for (number, process) in world.processes.iter().enumerate() {
            actions.push(Action::Tick(number));
            let can_queue = process.queued.is_none() && world.appends < APPENDS_MAX;
            if can_queue && matches!(process.held, Held::Owned(_)) {
                actions.push(Action::Queue(number));
            }
            let can_break = world.breaks < BREAKS_MAX;
            match process.writer {
                Writer::Idle => {
                    actions.push(Action::Look(number));
                    if process.queued.is_some() && process.version.is_none() {
                        actions.push(Action::LookUp(number));
                    }
                    if process.queued.is_some() && process.version.is_some() {
                        actions.push(Action::Send(number));
                    }
                    match process.held {
                        Held::Owned(_) if world.hand_overs < HAND_OVERS_MAX => {
                            actions.push(Action::Leave(number));
                        }
                        // Behind everything that was queued.
                        Held::Leaving(_) if process.queued.is_none() => {
                            let others = (0..PROCESSES).filter(|other| *other != number);
                            actions.extend(others.map(|other| Action::HandOver(number, other)));
                        }
                        Held::No | Held::Owned(_) | Held::Leaving(_) | Held::Released(_) => {}
                    }
                    if can_break {
                        actions.push(Action::Break(number));
                    }
                }
                Writer::Sent(_) => {
                    actions.push(Action::Run(number));
                    if can_break {
                        actions.push(Action::Break(number));
                    }
                }
                Writer::Answered(..) => {
                    actions.push(Action::Answer(number));
                    if can_break {
                        actions.push(Action::Break(number));
                    }
                }
                Writer::Lost(_) | Writer::Apart => {
                    actions.push(Action::Reconnect(number, true));
                    if can_break {
                        actions.push(Action::Reconnect(number, false));
                    }
                }
                Writer::Asks(_) => actions.push(Action::IsThere(number)),
            }
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let (mut world, flaw) = (last.clone(), self.0);
        match action {
            Action::Tick(number) => world.tick(number),
            Action::Expire(host) => {
                world.expiries += 1;
                world.database.hosts.insert(host, true);
            }
            Action::TakeOver(host) => world.take_over(host, flaw),
            Action::Queue(number) => {
                let process = &mut world.processes[number];
                let Held::Owned(epoch) = process.held else {
                    return None;
                };
                world.appends += 1;
                process.queued = Some((epoch, world.appends));
            }
            Action::LookUp(number) => {
                let version = u8::try_from(world.database.log.len()).ok()?;
                world.processes[number].version = Some(version);
            }
            Action::Send(number) => world.send(number, flaw),
            Action::Run(number) => {
                let process = &mut world.processes[number];
                let Writer::Sent(transaction) = process.writer else {
                    return None;
                };
                let is_done = world.database.run(transaction, flaw);
                process.writer = Writer::Answered(transaction, is_done);
            }
            Action::Answer(number) => world.answer(number),
            Action::Break(number) => world.break_connection(number),
            Action::RunStray(number) => {
                let transaction = world.strays.remove(number);
                world.database.run(transaction, flaw);
            }
            Action::Reconnect(number, is_heard) => {
                world.breaks += u8::from(!is_heard);
                world.reconnect(number, is_heard, flaw);
            }
            Action::IsThere(number) => world.is_there(number),
            Action::Look(number) => world.look(number),
            Action::Leave(number) => {
                let process = &mut world.processes[number];
                let Held::Owned(epoch) = process.held else {
                    return None;
                };
                process.held = Held::Leaving(epoch);
            }
            Action::HandOver(number, to) => world.hand_over(number, to),
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("owners write one after another", |_, world: &World| {
                world.database.log.is_sorted_by_key(|stored| stored.shard_epoch)
            }),
            Property::always("what was acknowledged is stored", |_, world: &World| {
                let is_there =
                    |value: &u8| world.database.log.iter().any(|stored| stored.value == *value);
                world.acknowledged.iter().all(is_there)
            }),
            Property::always("what was refused is not stored, now or later", |_, world: &World| {
                world.database.log.iter().all(|stored| !world.refused.contains(&stored.value))
            }),
            Property::always("nothing is stored twice", |_, world: &World| {
                let values: BTreeSet<_> =
                    world.database.log.iter().map(|stored| stored.value).collect();
                values.len() == world.database.log.len()
            }),
            Property::sometimes("a host is taken over", |_, world: &World| {
                world.milestones.contains(&Milestone::TakenOver)
            }),
            Property::sometimes("a write is fenced", |_, world: &World| {
                world.milestones.contains(&Milestone::Fenced)
            }),
            Property::sometimes("a lost answer was yes", |_, world: &World| {
                world.milestones.contains(&Milestone::LostAnswerWasYes)
            }),
            Property::sometimes("a lost answer was no", |_, world: &World| {
                world.milestones.contains(&Milestone::LostAnswerWasNo)
            }),
            Property::sometimes(
                "two processes have written after a handover",
                |_, world: &World| {
                    let owners: BTreeSet<_> =
                        world.database.log.iter().map(|stored| stored.shard_epoch).collect();
                    world.hand_overs > 0 && owners.len() > 1
                },
            ),
        ]
    }
}

/// Returns what a protocol with a flaw breaks: the name of the first property, if there is one.
fn broken_by(flaw: Flaw) -> Option<&'static str> {
    let checker = Hosts(flaw).checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let always = |property: &Property<Hosts>| matches!(property.expectation, Expectation::Always);
    let properties = checker.model().properties();
    let mut names = properties.iter().filter(|one| always(one)).map(|one| one.name);
    names.find(|name| checker.discovery(name).is_some())
}

#[test]
fn nothing_is_lost_or_written_out_of_turn_whatever_happens_when() {
    let checker = Hosts(Flaw::None).checker().spawn_bfs().join();
    checker.assert_properties();
    // A model in which little can happen shows little.
    assert!(checker.unique_state_count() > 400_000, "{}", checker.unique_state_count());
}

#[test]
fn each_protection_is_needed() {
    let (stored, order) =
        ("what was refused is not stored, now or later", "owners write one after another");
    for (flaw, broken) in [
        (Flaw::NoFence, stored),
        (Flaw::NoRaise, stored),
        (Flaw::LaneStays, order),
        (Flaw::NoEpochOfShard, order),
        (Flaw::HandOverWithoutFence, order),
    ] {
        assert_eq!(broken_by(flaw), Some(broken), "{flaw:?}");
    }
}
