//! The host dies at each of its failpoints, is started again, and nothing is lost, done twice or
//! left standing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use amends_tests::{Behaviour, Component};
use serde_json::{Value, json};

use crate::archive::ARCHIVE_POINTS;
use crate::backup::{BACKUP_POINTS, DRAFT_POINTS, RESTORE_POINTS};
use crate::copy::COPY_POINTS;
use crate::erase::KEY_POINTS;
use crate::import::IMPORT_POINTS;
use crate::ledger;
use crate::place::{Host, Place, agent, example, repository, stdout};
use crate::rebuild::REBUILD_POINTS;
use crate::swap::another_version;

/// How long a host may live on with its failpoint set and all its work before it.
const HIT_LIMIT: Duration = Duration::from_secs(20);

/// Orders of one round.
const ORDERS: usize = 100;

/// What is done when the host dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum While {
    /// The first start on an empty folder.
    FirstStart,
    /// Orders come in.
    Orders,
    /// A start that finds live sagas.
    Recovery,
    /// A stop, in the middle of orders.
    Stop,
    /// A component is replaced in the middle of orders.
    Swap,
    /// A component is replaced by a broken file.
    BrokenSwap,
    /// A component is tried on a share of the orders.
    Canary,
    /// It is taken back.
    CanaryEnd,
    /// A start that lacks the file of a component.
    FileGone,
    /// Operators and signals act on orders that sleep and wait.
    Operating,
    /// Orders are children of sagas.
    Children,
}

/// Every failpoint, what is done when it is hit, and after how many hits the host dies: once for
/// each number.
const POINTS: &[(&str, While, &[u32])] = &[
    ("store.opened", While::FirstStart, &[0]),
    ("store.blob.before", While::FirstStart, &[0, 4]),
    ("store.blob.written", While::FirstStart, &[0, 4]),
    ("store.transaction.before", While::Orders, &[12, 12]),
    ("store.append.events_written", While::Orders, &[2, 90]),
    ("store.transaction.written", While::Orders, &[12, 12]),
    ("store.transaction.committed", While::Orders, &[12, 12]),
    ("store.transaction.answered", While::Orders, &[12, 12]),
    ("store.close.before", While::Stop, &[0]),
    ("plugins.cache.before", While::FirstStart, &[0, 2]),
    ("plugins.cache.beside", While::FirstStart, &[0, 2]),
    ("plugins.cache.written", While::FirstStart, &[0, 2]),
    ("plugins.load.before", While::Swap, &[0]),
    ("plugins.activate.before", While::Swap, &[0]),
    ("plugins.activate.stored", While::Swap, &[0]),
    ("plugins.activate.recorded", While::Swap, &[0]),
    ("plugins.activate.done", While::Swap, &[0]),
    ("plugins.reject.before", While::BrokenSwap, &[0]),
    ("plugins.reject.recorded", While::BrokenSwap, &[0]),
    ("plugins.canary.started", While::Canary, &[0]),
    ("plugins.canary.ended", While::CanaryEnd, &[0]),
    ("plugins.serve_from_store", While::FileGone, &[0]),
    ("plugins.call.before", While::Orders, &[0, 40]),
    ("plugins.call.returned", While::Orders, &[0, 40]),
    ("runtime.definition.stored", While::FirstStart, &[0]),
    ("runtime.start.decided", While::Orders, &[0, 40]),
    ("runtime.start.durable", While::Orders, &[0, 40]),
    ("runtime.start.answered", While::Orders, &[0, 40]),
    ("runtime.step.admitted", While::Orders, &[0, 40]),
    ("runtime.undo.admitted", While::Orders, &[0, 10]),
    ("runtime.compensation.decided", While::Orders, &[0, 10]),
    ("runtime.dispatch.before", While::Orders, &[0, 40]),
    ("runtime.call.before", While::Orders, &[0, 40]),
    ("runtime.call.returned", While::Orders, &[0, 40]),
    ("runtime.outcome.received", While::Orders, &[0, 40]),
    ("runtime.outcome.decided", While::Orders, &[0, 40]),
    ("runtime.outcome.durable", While::Orders, &[0, 40]),
    ("runtime.rest.durable", While::Orders, &[0, 30]),
    ("runtime.recovery.before", While::Recovery, &[0]),
    ("runtime.recovery.read", While::Recovery, &[0]),
    ("runtime.recovery.saga_before", While::Recovery, &[0, 3]),
    ("runtime.recovery.saga_after", While::Recovery, &[0, 3]),
    ("runtime.stop.told", While::Stop, &[0]),
    ("runtime.stop.done", While::Stop, &[0]),
    ("runtime.timer.fired", While::Operating, &[0, 10]),
    ("runtime.tick.decided", While::Operating, &[0, 10]),
    ("runtime.tick.durable", While::Operating, &[0, 10]),
    ("runtime.order.decided", While::Operating, &[0, 10]),
    ("runtime.order.durable", While::Operating, &[0, 10]),
    ("runtime.saga.leaves", While::Operating, &[0, 5]),
    ("runtime.signal.decided", While::Operating, &[0, 10]),
    ("runtime.signal.durable", While::Operating, &[0, 10]),
    ("runtime.child.before", While::Children, &[0, 30]),
    ("runtime.child.started", While::Children, &[0, 30]),
    ("runtime.child.ended", While::Children, &[0, 10]),
    ("runtime.child.undo_ordered", While::Children, &[0, 5]),
    ("runtime.child.undone", While::Children, &[0, 5]),
    ("runtime.child.cancelled", While::Children, &[0, 5]),
];

/// One place, emptied for each point; what its hosts logged and which sagas they accepted. Each
/// host that becomes ready has orders of its own, so that there is always work to die in.
struct Trial {
    place: Place,
    rounds: usize,
    accepted: BTreeSet<String>,
    log: Vec<String>,
}

impl Trial {
    fn new(place: Place) -> Self {
        let orders = fs::read_to_string(example().join("orders.ndjson")).unwrap();
        let orders: Vec<_> = orders.lines().take(ORDERS).collect();
        fs::write(place.path("orders"), orders.join("\n")).unwrap();
        Self { place, rounds: 0, accepted: BTreeSet::new(), log: Vec::new() }
    }

    fn points(during: While) -> impl Iterator<Item = (&'static str, &'static [u32])> {
        let points = POINTS.iter().filter(move |point| point.1 == during);
        points.map(|(name, _, skips)| (*name, *skips))
    }

    /// As if nothing had run; compiled code and its key are kept.
    fn begin(&mut self, name: &str) {
        println!("{name}");
        for file in fs::read_dir(self.place.path("data")).into_iter().flatten().flatten() {
            if !file.file_name().to_string_lossy().ends_with("-cache-key") {
                fs::remove_file(file.path()).unwrap();
            }
        }
        self.rounds = 0;
        self.accepted.clear();
        self.log.clear();
    }

    /// Runs a host that dies at the failpoint after so many hits; `work` is done once it is ready.
    fn die(&mut self, name: &str, hits: u32, work: impl FnOnce(&mut Self, &Host)) {
        let action = if hits == 0 { "return".to_owned() } else { format!("{hits}*off->return") };
        let mut host = self.place.spawn_with(&format!("{name}={action}"));
        if host.becomes_ready() {
            self.rounds += 1;
            work(self, &host);
        }
        let log = host.aborted(HIT_LIMIT);
        let log = log.unwrap_or_else(|| {
            panic!("{name} is not hit {} times; is the host built with failpoints?", hits + 1)
        });
        self.log.extend(log);
    }

    /// Starts the orders of a round, each once however often this is called; accepted are those
    /// whose id comes back. A host that dies meanwhile is no matter.
    fn start(&mut self, definition: &str) {
        self.start_round(definition, self.rounds);
    }

    fn start_round(&mut self, definition: &str, round: usize) {
        let output = self.begin_start(definition, round).wait_with_output().unwrap();
        self.accepted.extend(stdout(&output).lines().map(str::to_owned));
    }

    fn begin_start(&self, definition: &str, round: usize) -> Child {
        let key = format!("{definition}-{round}");
        let start =
            ["start", definition, "--input", "orders", "--each", "--key", &key, "-o", "ids"];
        let mut command = self.place.command(&start);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Runs a host to the end of all sagas, orders the rest, and judges.
    fn settle(&mut self, what: &str, definitions: &[&str]) {
        let host = self.place.run();
        self.settle_on(&host, what, definitions);
        assert_eq!(host.stop(), Some(0), "{what}");
    }

    fn settle_on(&mut self, host: &Host, what: &str, definitions: &[&str]) {
        let early = self.accepted.clone();
        let rounds = self.rounds.max(1);
        for round in 1..=rounds {
            for definition in definitions {
                self.start_round(definition, round);
            }
        }
        host.settle();
        let all = definitions.len() * rounds * ORDERS;
        assert_eq!(self.accepted.len(), all, "{what}: an order was lost or started twice");
        let events = host.events();
        let started =
            |event: &&Value| event["type"] == "saga.started" && event["data"]["parent"].is_null();
        let started: BTreeSet<_> =
            events.iter().filter(started).map(|event| event["saga"].as_str().unwrap()).collect();
        assert_eq!(started.len(), all, "{what}: an order was started twice");
        assert!(early.iter().all(|id| started.contains(id.as_str())), "{what}: one was lost");
        ledger::check(&events);
        check_families(&events);
        let mut log = self.log.clone();
        log.extend(host.log());
        ledger::check_effects(&events, &log);
        let quarantined = log.iter().find(|line| line.contains("saga is quarantined"));
        assert_eq!(quarantined, None, "{what}");
    }
}

/// A saga that a step runs ends as its parent does.
fn check_families(events: &[Value]) {
    let mut ends = BTreeMap::new();
    for event in events {
        if let (Some(saga), "saga.completed" | "saga.compensated") =
            (event["saga"].as_str(), event["type"].as_str().unwrap())
        {
            ends.insert(saga, event["type"].as_str().unwrap());
        }
    }
    for event in events.iter().filter(|event| event["type"] == "saga.started") {
        let saga = event["saga"].as_str().unwrap();
        assert!(ends.contains_key(saga), "saga {saga} has not ended");
        if let Some(parent) = event["data"]["parent"]["saga"].as_str() {
            assert_eq!(ends[saga], ends[parent], "saga {saga} and its parent {parent}");
        }
    }
}

#[test]
fn each_failpoint_is_in_the_list_and_in_the_code_once() {
    let mut found: Vec<String> = Vec::new();
    for folder in ["store", "keys", "sandbox", "registry", "runtime"] {
        read_names(&repository().join("host").join(folder).join("src"), &mut found);
    }
    found.sort();
    let here = POINTS.iter().map(|(name, ..)| *name);
    let of_others = [
        &ARCHIVE_POINTS[..],
        &BACKUP_POINTS,
        &DRAFT_POINTS,
        &REBUILD_POINTS,
        &RESTORE_POINTS,
        &KEY_POINTS,
        &IMPORT_POINTS,
        &COPY_POINTS,
    ]
    .concat();
    let mut listed: Vec<_> = here.chain(of_others).map(str::to_owned).collect();
    listed.sort();
    assert_eq!(found, listed);
    println!("{} failpoints", listed.len());
}

/// Every text in the sources below a folder that is a failpoint's name.
fn read_names(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_names(&path, found);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            let names = text.split('"').filter(|text| {
                let is_name = |text: &str| {
                    text.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte))
                };
                let crates = ["store.", "keys.", "plugins.", "runtime."];
                crates.iter().any(|name| text.starts_with(name)) && is_name(text)
            });
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn killed_while_orders_come_in() {
    let mut trial = Trial::new(Place::example());
    let mut cut_off = 0;
    for (name, skips) in Trial::points(While::Orders) {
        trial.begin(name);
        for hits in skips {
            let before = trial.accepted.len();
            trial.die(name, *hits, |trial, _| trial.start("order-fulfillment"));
            cut_off += usize::from((1..ORDERS).contains(&(trial.accepted.len() - before)));
        }
        trial.settle(name, &["order-fulfillment"]);
    }
    assert!(cut_off > 3, "no host died in the middle of the starts");
}

#[test]
fn killed_at_its_first_start() {
    let mut trial = Trial::new(Place::example());
    for (name, skips) in Trial::points(While::FirstStart) {
        trial.begin(name);
        for hits in skips {
            let _ = fs::remove_dir_all(trial.place.path("cache"));
            trial.die(name, *hits, |_, _| ());
        }
        trial.settle(name, &["order-fulfillment"]);
    }
}

#[test]
fn killed_while_it_recovers_and_while_it_stops() {
    let mut trial = Trial::new(Place::example());
    for (name, skips) in Trial::points(While::Recovery) {
        trial.begin(name);
        trial.die("runtime.outcome.received", 60, |trial, _| trial.start("order-fulfillment"));
        for hits in skips {
            trial.die(name, *hits, |_, _| ());
        }
        trial.settle(name, &["order-fulfillment"]);
    }
    for (name, skips) in Trial::points(While::Stop) {
        trial.begin(name);
        for hits in skips {
            trial.die(name, *hits, |trial, host| {
                let client = trial.begin_start("order-fulfillment", trial.rounds);
                host.until("some are started", || host.events().len() > 100);
                host.terminate();
                let output = client.wait_with_output().unwrap();
                trial.accepted.extend(stdout(&output).lines().map(str::to_owned));
            });
        }
        trial.settle(name, &["order-fulfillment"]);
    }
}

#[test]
fn killed_while_a_component_is_replaced() {
    let mut trial = Trial::new(Place::example());
    let plugin = trial.place.plugin("inventory-release");
    let old = fs::read(&plugin).unwrap();
    let new = another_version(&old);
    for during in [While::Swap, While::BrokenSwap, While::FileGone] {
        for (name, skips) in Trial::points(during) {
            trial.begin(name);
            fs::write(&plugin, &old).unwrap();
            assert_eq!(trial.place.run().stop(), Some(0));
            for hits in skips {
                if during == While::FileGone {
                    fs::remove_file(&plugin).unwrap();
                }
                trial.die(name, *hits, |trial, _| {
                    let bytes = if during == While::Swap { &new } else { &b"broken".to_vec() };
                    fs::write(&plugin, bytes).unwrap();
                    trial.start("order-fulfillment");
                });
            }
            let host = trial.place.run();
            let version = if during == While::Swap { "0.1.1" } else { "0.1.0" };
            // What the store has serves until the file is looked at.
            let shown = || host.get("/v1/plugins/inventory-release");
            host.until(name, || shown()["version"] == version);
            let shown = shown();
            let history = shown["history"].as_array().unwrap();
            assert_eq!(history.len(), if during == While::Swap { 2 } else { 1 }, "{name}");
            trial.settle_on(&host, name, &["order-fulfillment"]);
            assert_eq!(host.stop(), Some(0));
        }
    }
}

#[test]
fn killed_while_a_canary_starts_and_ends() {
    let mut trial = Trial::new(Place::example());
    let old = fs::read(trial.place.plugin("inventory-release")).unwrap();
    fs::write(trial.place.path("inventory-release.wasm"), another_version(&old)).unwrap();
    let amends = |trial: &Trial, arguments: &[&str]| {
        let arguments = [&["plugin"], arguments, &["--reason", "test"]].concat();
        trial.place.command(&arguments).stderr(Stdio::null()).output().unwrap().status
    };
    let start = ["deploy", "inventory-release.wasm", "--canary", "50%"];
    for during in [While::Canary, While::CanaryEnd] {
        for (name, skips) in Trial::points(during) {
            trial.begin(name);
            for hits in skips {
                trial.die(name, *hits, |trial, _| {
                    let order = trial.begin_start("order-fulfillment", trial.rounds);
                    amends(trial, &start);
                    if during == While::CanaryEnd {
                        amends(trial, &["rollback", "inventory-release"]);
                    }
                    let output = order.wait_with_output().unwrap();
                    trial.accepted.extend(stdout(&output).lines().map(str::to_owned));
                });
            }
            let host = trial.place.run();
            let plugin = || host.get("/v1/plugins/inventory-release");
            let canaries = plugin()["canaries"].clone();
            assert_eq!(canaries.as_array().unwrap().len(), 1, "{name}: {canaries}");
            assert_eq!(
                canaries[0]["ended"].is_null(),
                during == While::Canary,
                "{name}: {canaries}"
            );
            assert_eq!(plugin()["version"], "0.1.0");
            trial.settle_on(&host, name, &["order-fulfillment"]);
            assert_eq!(host.stop(), Some(0));
        }
    }
}

/// The example's definition with a pause and a wait for a signal before the shipment.
fn waiting() -> Place {
    let place = Place::example();
    let config = fs::read_to_string(place.path("amends.toml")).unwrap();
    let shipment = "[[saga.step]]\nname = \"shipment\"";
    let (before, after) = config.split_once(shipment).unwrap();
    let config = format!(
        "{before}[[saga.step]]\nname = \"pause\"\nsleep = \"30ms\"\n\
         [[saga.step]]\nname = \"approval\"\nwait = \"approved\"\n{shipment}{after}"
    );
    fs::write(place.path("amends.toml"), config).unwrap();
    place
}

#[test]
fn killed_while_operators_and_signals_act() {
    let mut trial = Trial::new(waiting());
    for (name, skips) in Trial::points(While::Operating) {
        trial.begin(name);
        let mut cancelled = BTreeSet::new();
        for hits in skips {
            trial.die(name, *hits, |trial, host| {
                trial.start("order-fulfillment");
                cancelled.extend(act(host, &trial.accepted));
            });
        }
        let host = trial.place.run();
        for round in 1..=trial.rounds {
            trial.start_round("order-fulfillment", round);
        }
        cancelled.extend(act(&host, &trial.accepted));
        // Those that still slept had their signals kept.
        trial.settle_on(&host, name, &["order-fulfillment"]);
        for id in &cancelled {
            let saga = host.get(&format!("/v1/sagas/{id}"));
            assert_eq!(saga["status"], "compensated", "{name}: a cancel was answered: {saga}");
        }
        assert!(cancelled.len() > ORDERS / 4, "{name}: {} are cancelled", cancelled.len());
        assert_eq!(host.stop(), Some(0));
    }
}

/// Cancels every second saga and approves the others, as far as the host lives; those whose cancel
/// was answered.
fn act(host: &Host, sagas: &BTreeSet<String>) -> Vec<String> {
    let mut cancelled = Vec::new();
    for id in sagas {
        let is_cancel = id.bytes().last().unwrap() % 2 == 0;
        let (path, body) = if is_cancel {
            (format!("/v1/sagas/{id}/cancel"), json!({"reason": "changed their mind"}))
        } else {
            (format!("/v1/sagas/{id}/signals/approved"), json!({"id": "1", "payload": true}))
        };
        match agent().post(host.url(&path)).send_json(&body) {
            Ok(answer) if is_cancel && answer.status() == 200 => cancelled.push(id.clone()),
            // It was undone before, or has completed by then.
            Ok(answer) => assert!(answer.status().as_u16() < 500, "{path}: {answer:?}"),
            Err(_) => break,
        }
    }
    cancelled
}

/// Sagas that have an order fulfilled and may refuse it: `parent` afterwards, `hasty` meanwhile.
fn families() -> Place {
    let place = Place::example();
    let refuse =
        Component { name: "refuse", execute: Behaviour::Permanent, ..Component::default() };
    fs::write(place.plugin("refuse"), refuse.build()).unwrap();
    let mut config = fs::read_to_string(place.path("amends.toml")).unwrap();
    for (name, after) in [("parent", "[\"fulfil\"]"), ("hasty", "[]")] {
        let _ = write!(
            config,
            "\n[[saga]]\nname = \"{name}\"\n\
             [[saga.step]]\nname = \"fulfil\"\nsaga = \"order-fulfillment\"\ninput = \"input\"\n\
             [[saga.step]]\nname = \"refuse\"\nplugin = \"refuse\"\nafter = {after}\n\
             when = \"input.ship\"\n"
        );
    }
    fs::write(place.path("amends.toml"), config).unwrap();
    place
}

#[test]
fn killed_while_sagas_run_sagas() {
    let mut trial = Trial::new(families());
    for (name, skips) in Trial::points(While::Children) {
        trial.begin(name);
        for hits in skips {
            trial.die(name, *hits, |trial, _| {
                trial.start("parent");
                trial.start("hasty");
            });
        }
        trial.settle(name, &["parent", "hasty"]);
    }
}
