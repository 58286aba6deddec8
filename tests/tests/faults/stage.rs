//! The host, and what it stands on: it is started, stopped and asked here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use amends_store::{Durability, SqliteStore};
use rusqlite::Connection;
use serde_json::json;

use crate::definitions::input;
use crate::disk::Disk;
use crate::event::Event;
use crate::load::{Asker, World};
use crate::place::{Host, Place, SOON};
use crate::random::Random;
use crate::service::Service;

/// Lines of a log that are told of.
const LINES: usize = 40;

/// The host and all that can happen to it.
pub(crate) struct Stage<'w> {
    pub(crate) place: Place,
    pub(crate) disk: &'w Disk,
    pub(crate) world: &'w World<'w>,
    pub(crate) service: &'w Service,
    pub(crate) random: Random,
    pub(crate) host: Option<Host>,
    /// The last lines of the hosts before.
    log: Vec<String>,
    counts: BTreeMap<String, u64>,
    pub(crate) sagas: u64,
}

impl<'w> Stage<'w> {
    pub(crate) fn new(
        place: Place,
        disk: &'w Disk,
        service: &'w Service,
        world: &'w World<'w>,
        seed: u64,
    ) -> Self {
        let mut stage = Self {
            place,
            disk,
            world,
            service,
            random: Random::new(seed),
            host: None,
            log: Vec::new(),
            counts: BTreeMap::new(),
            sagas: 0,
        };
        stage.start();
        stage
    }

    pub(crate) fn sleep(&mut self, from_ms: u64, to_ms: u64) {
        std::thread::sleep(Duration::from_millis(from_ms + self.random.below(to_ms - from_ms)));
    }

    pub(crate) fn count(&mut self, what: &str, more: u64) {
        *self.counts.entry(what.to_owned()).or_default() += more;
    }

    /// What happened how often.
    pub(crate) fn told(&self) -> String {
        let counts = self.counts.iter().map(|(what, count)| format!("{what} {count}"));
        counts.collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        self.host.as_ref().unwrap().url(path)
    }

    pub(crate) fn spawn(&self, more: &[(&str, &str)]) -> Host {
        let of_disk = self.disk.environment();
        let mut environment: Vec<_> =
            of_disk.iter().map(|(name, value)| (*name, value.as_str())).collect();
        environment.extend(more);
        self.place.spawn_with_env(&environment)
    }

    /// Starts a host that is to become ready.
    pub(crate) fn start(&mut self) {
        let host = self.spawn(&[]);
        self.serve(host);
    }

    pub(crate) fn serve(&mut self, mut host: Host) {
        assert!(host.becomes_ready(), "the host does not start:\n{}", host.log().join("\n"));
        self.world.ask_at(vec![host.url("")]);
        self.host = Some(host);
    }

    pub(crate) fn host(&self) -> &Host {
        self.host.as_ref().unwrap()
    }

    pub(crate) fn kill(&mut self) {
        let log = self.host.take().unwrap().kill();
        self.note(&log);
    }

    /// SIGTERM; it ends with 0.
    pub(crate) fn stop(&mut self) {
        let (code, log) = self.host.take().unwrap().stop_logged();
        self.note(&log);
        assert_eq!(code, Some(0), "{}", self.last_log());
    }

    /// Keeps the last lines of a host that has ended.
    pub(crate) fn note(&mut self, log: &[String]) {
        let told: Vec<_> = log.iter().filter(|line| !line.contains("DEBUG")).collect();
        self.log = told[told.len().saturating_sub(LINES)..].iter().copied().cloned().collect();
    }

    /// What the host has said last.
    pub(crate) fn last_log(&self) -> String {
        let now = self.host.as_ref().map(Host::log).unwrap_or_default();
        let now = &now[now.len().saturating_sub(LINES)..];
        format!("log of the host before:\n{}\nlog:\n{}", self.log.join("\n"), now.join("\n"))
    }

    pub(crate) fn until_it_takes_sagas(&mut self) {
        let (asker, began) = (Asker::new(), Instant::now());
        while self.start_saga(&asker, "plain").is_none() {
            assert!(began.elapsed() < SOON, "it takes no sagas:\n{}", self.last_log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Starts a saga; its id when that was acknowledged.
    pub(crate) fn start_saga(&mut self, asker: &Asker, definition: &str) -> Option<String> {
        self.start_saga_at(asker, definition, &self.url("/v1/sagas"))
    }

    pub(crate) fn start_saga_at(
        &mut self,
        asker: &Asker,
        definition: &str,
        url: &str,
    ) -> Option<String> {
        self.sagas += 1;
        let name = format!("stage-{}", self.sagas);
        let body = json!({"definition": definition, "input": input(&name, &mut self.random)});
        let Some((202, saga)) = asker.post(url, None, &body) else { return None };
        let id = saga["id"].as_str()?.to_owned();
        self.world.is_started(&id, &name);
        Some(id)
    }

    pub(crate) fn connection(&self) -> Connection {
        Connection::open(self.place.path("data/amends.db")).unwrap()
    }

    /// Every event of the store.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.host().events_as(Event::new)
    }

    /// The store, which no host has.
    pub(crate) fn with_store<T>(&self, read: impl FnOnce(SqliteStore) -> T) -> T {
        let path = self.place.path("data/amends.db");
        read(SqliteStore::open(&path, Durability::Full).unwrap())
    }

    /// Leaves the files where they are.
    pub(crate) fn keep(self) -> PathBuf {
        self.place.keep()
    }
}
