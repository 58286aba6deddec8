//! Several hosts of one PostgreSQL database, as real processes: they are killed, stand still, stop, and lose the
//! network to the database or to one another, and the database restarts. What comes of it is judged as in the faults of
//! one host: by a ledger outside and by the log. Calls on all hosts append to the same few lists in the state of a
//! plugin, and what they saw and left has to be that of some order of them, one after another.
//!
//! `AMENDS_CLUSTER_SAGAS` says how many starts are acknowledged at least before it ends (without, as many as come while
//! everything happens once), `AMENDS_CLUSTER_SEED` with which seed.
//!
//! `partitions.rs` has hosts in network namespaces of their own, whose cables are cut: no connection ends, and nothing is
//! refused.
//!
//! `access.rs` has hosts with access control, `https.rs` hosts with certificates of their own.
//!
//! Deliberately absent: a network that loses or changes single packets, and clocks that differ.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod access;
#[path = "../system/access/asker.rs"]
#[allow(dead_code, reason = "shared with the tests of one host")]
mod asker;
#[path = "../faults/books.rs"]
mod books;
#[path = "../faults/definitions.rs"]
#[allow(dead_code, reason = "shared with the faults of one host")]
mod definitions;
#[path = "../faults/disk.rs"]
#[allow(dead_code, reason = "shared with the faults of one host")]
mod disk;
mod duties;
#[path = "../faults/event.rs"]
mod event;
mod hosts;
mod https;
#[path = "../faults/judge.rs"]
mod judge;
#[path = "../faults/load.rs"]
#[allow(dead_code, reason = "shared with the faults of one host")]
mod load;
mod namespace;
mod partitions;
#[path = "../system/place.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod place;
mod proxy;
#[path = "../faults/random.rs"]
mod random;
mod receiver;
mod server;
#[path = "../faults/service.rs"]
#[allow(dead_code, reason = "shared with the faults of one host")]
mod service;
mod stage;

use std::sync::Mutex;
use std::time::SystemTime;

use amends_store::{Durability, PostgresStore};
use amends_tests::say;

use self::books::Books;
use self::hosts::Node;
use self::judge::{Record, judge};
use self::load::{World, under_load};
use self::random::Random;
use self::server::Server;
use self::service::Service;
use self::stage::{Event, Stage};

const HOSTS: [&str; 4] = ["node-a", "node-b", "node-c", "node-d"];

/// Clients of a short run, and those of one that is to start many sagas.
const CLIENTS: u64 = 4;
const CLIENTS_MANY: u64 = 24;

/// A test has the machine for itself, because it measures times.
static ALONE: Mutex<()> = Mutex::new(());

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn nothing_is_lost_or_doubled_however_hosts_end_stand_still_or_are_cut_off() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(server) = Server::start() else { return };
    let (seed, sagas) = (seed(), number("AMENDS_CLUSTER_SAGAS").unwrap_or(0));
    say(&format!("cluster: seed {seed} (AMENDS_CLUSTER_SEED), {sagas} sagas at least"));
    let service = Service::start(seed);
    let config = definitions::config(&service.url);
    let node = |name: &&str| Node::new(name, definitions::place(&service), &server, &config);
    let nodes: Vec<_> = HOSTS.iter().map(node).collect();
    let world = World::new(|_| ());
    let mut stage = Stage::new(nodes, server, &world, Random::new(seed));
    let clients = if sagas == 0 { CLIENTS } else { CLIENTS_MANY };
    judged(&mut stage, (&world, &service), seed, clients, |stage| {
        stage.happen(&Event::SHORT);
        while (world.acks.lock().unwrap().starts.len() as u64) < sagas {
            stage.happen(&Event::LONG);
        }
    });
    assert!(stage.count_of("fenced writes after pauses") > 0, "no write met the fence");
}

/// Has things happen to the hosts under load, stops them when every saga has ended, and judges.
fn judged<'w>(
    stage: &mut Stage<'w>,
    (world, service): (&World<'w>, &Service),
    seed: u64,
    clients: u64,
    happen: impl FnOnce(&mut Stage<'w>),
) {
    let result = under_load((world, service), seed, clients, || happen(stage));
    if let Err(panic) = result {
        println!("seed {seed}\n{}", stage.logs());
        std::panic::resume_unwind(panic);
    }
    let events = stage.events();
    stage.stop_all();
    let acks = world.acks.lock().unwrap().clone();
    let store = PostgresStore::open(&stage.server.url(), Durability::Full).unwrap();
    let record = Record { events, acks, ledger: service.ledger(), books: Books::read(store) };
    let [completed, compensated, abandoned] = judge::ends(&record);
    let appended = judge::list_calls(&record.events).len();
    say(&format!(
        "cluster: {} starts acknowledged; {completed} sagas completed, {compensated} compensated, \
         {abandoned} abandoned; {} events, {} of them read; {appended} calls on {} lists; {}",
        record.acks.starts.len(),
        record.events.len(),
        record.acks.read.len(),
        record.books.lists.len(),
        stage.told(),
    ));
    let wrong = judge(&record);
    if !wrong.is_empty() {
        let told = judge::told(&record, &wrong);
        panic!("{} offences, seed {seed}\n{told}\n{}", wrong.len(), stage.logs());
    }
    assert!(completed > 20 && compensated > 20 && appended > 20, "hardly anything ran");
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    number("AMENDS_CLUSTER_SEED").unwrap_or(u64::from(now.subsec_nanos()))
}
