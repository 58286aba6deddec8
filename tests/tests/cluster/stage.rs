//! What happens to the hosts, one after another, each of it over when all hosts have their shards again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::definitions::input;
use crate::event;
use crate::hosts::{Node, open, until_shared};
use crate::load::{Asker, World};
use crate::place::SOON;
use crate::proxy::Network;
use crate::random::Random;
use crate::server::Server;

/// How long a takeover may take, as the book says.
const TAKEOVER_TIME_MAX: Duration = Duration::from_secs(8);

/// How long it may take until a request that was passed on to a host that is gone is given up and sent again.
const PASSED_ON_TIME_MAX: Duration = Duration::from_secs(3);

/// How long it may take until the shards of a host that stops are another's.
const HANDOVER_TIME_MAX: Duration = Duration::from_secs(3);

/// Sagas whose time comes while their host stands still.
const NAPS: usize = 20;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// One host is killed and another one stands still; both are taken over.
    KillAndPause,
    /// One host has no database for longer than its lease; it is taken over.
    DatabaseGone(Network),
    /// The other hosts do not reach one. It goes on.
    PeersGone(Network),
    /// SIGTERM; its shards are handed over at once.
    Stop,
    /// The database breaks all connections off and starts again. Nobody is taken over.
    Restart,
}

impl Event {
    /// What a short run has. The database restarts twice.
    pub(crate) const SHORT: [Self; 6] = [
        Self::KillAndPause,
        Self::DatabaseGone(Network::Silent),
        Self::PeersGone(Network::Silent),
        Self::Stop,
        Self::Restart,
        Self::Restart,
    ];

    /// What a long run has again and again.
    pub(crate) const LONG: [Self; 9] = [
        Self::KillAndPause,
        Self::KillAndPause,
        Self::DatabaseGone(Network::Shut),
        Self::DatabaseGone(Network::Silent),
        Self::PeersGone(Network::Shut),
        Self::PeersGone(Network::Silent),
        Self::Stop,
        Self::Restart,
        Self::Restart,
    ];
}

pub(crate) struct Stage<'w> {
    pub(crate) nodes: Vec<Node>,
    pub(crate) server: Server,
    pub(crate) world: &'w World<'w>,
    pub(crate) random: Random,
    asker: Asker,
    counts: BTreeMap<&'static str, u64>,
    takeovers: Vec<Duration>,
    sagas: u64,
}

impl<'w> Stage<'w> {
    /// Starts all hosts.
    pub(crate) fn new(
        nodes: Vec<Node>,
        server: Server,
        world: &'w World<'w>,
        random: Random,
    ) -> Self {
        let (counts, takeovers) = (BTreeMap::new(), Vec::new());
        let asker = Asker::new();
        let mut stage = Self { nodes, server, world, random, asker, counts, takeovers, sagas: 0 };
        for node in &mut stage.nodes {
            node.start();
        }
        stage.until_shared();
        stage.world.ask_at(stage.nodes.iter().map(|node| node.url("")).collect());
        stage
    }

    pub(crate) fn told(&self) -> String {
        let counts = self.counts.iter().map(|(what, count)| format!("{what} {count}"));
        format!(
            "{}; {} takeovers, the longest {:.1?}",
            counts.collect::<Vec<_>>().join(", "),
            self.takeovers.len(),
            self.takeovers.iter().max().copied().unwrap_or_default(),
        )
    }

    /// What the hosts have said last.
    pub(crate) fn logs(&self) -> String {
        self.nodes.iter().map(Node::told).collect::<Vec<_>>().join("\n\n")
    }

    pub(crate) fn count_of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    pub(crate) fn count(&mut self, what: &'static str, more: u64) {
        *self.counts.entry(what).or_default() += more;
    }

    pub(crate) fn until_shared(&self) {
        until_shared(&self.nodes.iter().collect::<Vec<_>>());
    }

    /// Everything that may happen, in another order each time.
    pub(crate) fn happen(&mut self, events: &[Event]) {
        let mut events = events.to_vec();
        self.random.shuffle(&mut events);
        for event in events {
            self.sleep(200, 1_000);
            let began = Instant::now();
            let mut victims: Vec<_> = (0..self.nodes.len()).collect();
            self.random.shuffle(&mut victims);
            match event {
                Event::KillAndPause => self.kill_and_pause(victims[0], victims[1], victims[2]),
                Event::DatabaseGone(network) => {
                    self.take_database(network, victims[0], victims[1]);
                }
                Event::PeersGone(network) => {
                    self.nodes[victims[0]].peers.set(network);
                    self.sleep(1_000, 3_000);
                    self.nodes[victims[0]].peers.set(Network::Open);
                }
                Event::Stop => self.stop(victims[0], victims[1]),
                Event::Restart => {
                    let away = Duration::from_millis(self.random.below(1_500));
                    self.server.restart(away);
                }
            }
            self.until_shared();
            println!("{event:?} took {:.1} s", began.elapsed().as_secs_f64());
        }
    }

    fn sleep(&mut self, from_ms: u64, to_ms: u64) {
        std::thread::sleep(Duration::from_millis(from_ms + self.random.below(to_ms - from_ms)));
    }

    /// Starts sagas of a host's own; their ids.
    pub(crate) fn start_sagas(&mut self, of: usize, definition: &str, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for _ in 0..count {
            self.sagas += 1;
            let name = format!("stage-{}", self.sagas);
            let body = json!({"definition": definition, "input": input(&name, &mut self.random)});
            let id = self.nodes[of].start_saga(&body);
            self.world.is_started(&id, &name);
            ids.push(id);
        }
        ids
    }

    /// Starts a saga of a host's own that waits for a signal. The service refuses the label of some for good.
    pub(crate) fn hold(&mut self, of: usize) -> String {
        let began = Instant::now();
        loop {
            let id = self.start_sagas(of, "hold", 1).remove(0);
            let url = self.nodes[of].url(&format!("/v1/sagas/{id}"));
            loop {
                let saga = self.asker.get(&url).map(|(_, saga)| saga).unwrap_or_default();
                match saga["status"].as_str() {
                    Some("waiting") => return id,
                    Some("compensating" | "compensated" | "blocked") => break,
                    _ => (),
                }
                assert!(began.elapsed() < SOON, "no saga waits: {saga}\n{}", self.logs());
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    pub(crate) fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends the signal that a saga waits for by way of a host, until it is taken.
    pub(crate) fn approve(&self, id: &str, by: usize) {
        let url = self.nodes[by].url(&format!("/v1/sagas/{id}/signals/approved"));
        let signal = json!({"id": "approval", "payload": true});
        self.until("the signal is taken", || {
            matches!(self.asker.post(&url, None, &signal), Some((202, _)))
        });
        let signal = ((*id).to_owned(), "approval".to_owned());
        self.world.acks.lock().unwrap().signals.push(signal);
    }

    /// Waits until the saga of a host that is gone has another one, by way of a host. Asks that one host, so it is also
    /// seen that nobody is kept waiting by a host that stands still.
    fn is_taken_over(&mut self, id: &str, by: usize, since: Instant) {
        self.approve(id, by);
        let took = since.elapsed();
        self.takeovers.push(took);
        assert!(
            took < TAKEOVER_TIME_MAX + PASSED_ON_TIME_MAX,
            "the takeover took {took:?}\n{}",
            self.logs()
        );
    }

    fn kill_and_pause(&mut self, killed: usize, paused: usize, other: usize) {
        let (of_killed, of_paused) = (self.hold(killed), self.hold(paused));
        self.start_sagas(paused, "sleepy", NAPS);
        let fenced = self.nodes[paused].fenced_writes();
        self.nodes[paused].signal(Signal::STOP);
        self.nodes[killed].kill();
        let since = Instant::now();
        self.is_taken_over(&of_killed, other, since);
        self.is_taken_over(&of_paused, other, since);
        self.sleep(1, 1_000);
        self.nodes[paused].signal(Signal::CONT);
        self.nodes[killed].start();
        self.until_shared();
        let refused = self.nodes[paused].fenced_writes() - fenced;
        self.count("kills", 1);
        self.count("pauses", 1);
        self.count("fenced writes after pauses", refused);
    }

    /// One host has no database for longer than its lease. What it wrote and nobody has acknowledged may arrive when it
    /// has the database again.
    pub(crate) fn take_database(&mut self, network: Network, victim: usize, other: usize) {
        let id = self.hold(victim);
        self.start_sagas(victim, "sleepy", NAPS);
        let process = self.server.process_of(&self.nodes[victim].name);
        let fenced = self.nodes[victim].fenced_writes();
        self.nodes[victim].database.set(network);
        self.is_taken_over(&id, other, Instant::now());
        let written = self.server.last_batch_of(process);
        assert!(written > 0, "it wrote nothing before");
        self.sleep(1, 1_000);
        open(&self.nodes[victim]);
        self.until_shared();
        assert_eq!(self.server.last_batch_of(process), written, "it wrote after its takeover");
        let refused = self.nodes[victim].fenced_writes() - fenced;
        self.count("database cuts", 1);
        self.count("fenced writes after cuts", refused);
    }

    fn stop(&mut self, victim: usize, other: usize) {
        let id = self.hold(victim);
        let asked = Instant::now();
        self.nodes[victim].stop();
        let ended = Instant::now();
        self.approve(&id, other);
        let (took, ending) = (ended.elapsed(), ended - asked);
        println!("it stopped in {ending:?}, and its saga went on {took:?} later");
        assert!(took < HANDOVER_TIME_MAX, "the handover took {took:?}\n{}", self.logs());
        self.nodes[victim].start();
        self.count("stops", 1);
    }

    /// Stops all hosts.
    pub(crate) fn stop_all(&mut self) {
        for node in &mut self.nodes {
            node.stop();
        }
    }

    /// Every event of the store.
    pub(crate) fn events(&self) -> Vec<event::Event> {
        self.nodes[0].host.as_ref().unwrap().events_as(event::Event::new)
    }
}
