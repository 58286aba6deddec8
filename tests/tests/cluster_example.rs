//! The example of a cluster: each of its processes is killed once while orders run. Every order ends, and has its
//! effect once.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

#[path = "system/place.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod place;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use regex::Regex;
use rustix::process::Signal;
use serde_json::Value;

use self::place::{binary, get, repository, signal};

/// The processes of the cluster.
const PROCESSES: [&str; 9] = [
    "balancer",
    "node-a",
    "node-b",
    "node-c",
    "postgres-a",
    "postgres-b",
    "patroni-a",
    "patroni-b",
    "etcd",
];

/// What becomes of the orders of the example, as its README says.
const COMPLETED: usize = 813;
const COMPENSATED: usize = 187;

/// The pieces of each product before the first order, see the config of the example.
const STOCK: u64 = 100_000;

/// The ports that a cluster uses.
const PORTS: u16 = 10;

/// How long it may take to start the cluster, to kill all of it and to run the orders, and then to stop it.
const RUN_MAX: Duration = Duration::from_mins(15);
const STOP_MAX: Duration = Duration::from_mins(4);

/// The exit code of a script that Ctrl-C ends.
const INTERRUPTED: i32 = 130;

#[test]
fn each_process_is_killed_and_every_order_ends_once() {
    if let Some(missing) = missing_tool() {
        amends_tests::skipped("the example of a cluster", &format!("{missing} is not installed"));
        return;
    }
    let mut cluster = Cluster::start();
    let said = cluster.until_says("Ctrl-C stops everything");
    for name in PROCESSES {
        let killed = Regex::new(&format!(r"(?m)^kill -9 \d+  # {name}$")).unwrap();
        assert_eq!(killed.find_iter(&said).count(), 1, "{name}:\n{said}");
        let again = Regex::new(&format!(r"(?m)^  {name} was started again: \d+$")).unwrap();
        assert!(again.is_match(&said), "{name}:\n{said}");
    }
    assert!(said.contains(" is the primary\n"), "no standby was promoted:\n{said}");
    judge_sagas(&cluster.url);
    judge_events(&cluster.url);
    judge_stock(&cluster.url);

    let folder = Regex::new(r"the logs are in (\S+)\.").unwrap();
    let folder = PathBuf::from(&folder.captures(&said).unwrap()[1]);
    assert!(!processes_in(&folder).is_empty(), "{}", folder.display());
    assert_eq!(cluster.interrupt(), Some(INTERRUPTED), "{}", cluster.said());
    assert_eq!(processes_in(&folder), BTreeSet::new());
    assert!(!folder.exists(), "{}", folder.display());
}

/// Every order is one saga, and has ended.
fn judge_sagas(url: &str) {
    let sagas = pages(&format!("{url}/v1/sagas?limit=1000"));
    let count = |status: &str| sagas.iter().filter(|saga| saga["status"] == status).count();
    assert_eq!((count("completed"), count("compensated")), (COMPLETED, COMPENSATED));
    assert_eq!(sagas.len(), COMPLETED + COMPENSATED);
    let keys: BTreeSet<_> = sagas.iter().map(|saga| saga["key"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), sagas.len(), "an order is two sagas");
}

/// The log has no gap, and each saga has one end.
fn judge_events(url: &str) {
    let (mut events, mut after) = (Vec::new(), 0);
    loop {
        let page = get(&format!("{url}/v1/events?after={after}&limit=1000"));
        let items = page["items"].as_array().unwrap();
        let Some(last) = items.last() else { break };
        after = last["position"].as_u64().unwrap();
        events.extend(items.iter().cloned());
    }
    let mut versions = BTreeMap::new();
    let mut ends = BTreeMap::new();
    for (position, event) in (1..).zip(&events) {
        assert_eq!(event["position"], position, "the log has a gap");
        let Some(saga) = event["saga"].as_str() else { continue };
        let version = versions.entry(saga).or_insert(0);
        *version += 1;
        assert_eq!(event["version"], *version, "an event of {saga} is missing, or there twice");
        if event["type"] == "saga.completed" || event["type"] == "saga.compensated" {
            *ends.entry(saga).or_insert(0) += 1;
        }
    }
    assert_eq!(ends.len(), COMPLETED + COMPENSATED);
    assert!(ends.values().all(|count| *count == 1), "a saga ends twice");
}

/// What completed orders have reserved is gone from the stock, and nothing else is.
fn judge_stock(url: &str) {
    let state = pages(&format!("{url}/v1/plugins/inventory/state?limit=1000"));
    let of = |kind: &'static str| {
        state.iter().filter_map(move |entry| {
            let key = entry["key"].as_str().unwrap().strip_prefix(kind)?;
            Some((key.to_owned(), &entry["value"]))
        })
    };
    let mut reserved = BTreeMap::new();
    for (_, reservation) in of("reservation/") {
        let text = |name: &str| reservation[name].as_str().unwrap();
        let product = format!("{}/{}", text("warehouse"), text("sku"));
        *reserved.entry(product).or_insert(0) += reservation["quantity"].as_u64().unwrap();
    }
    assert_eq!(of("reservation/").count(), COMPLETED);
    let taken: BTreeMap<_, _> =
        of("stock/").map(|(product, left)| (product, STOCK - left.as_u64().unwrap())).collect();
    let taken: BTreeMap<_, _> = taken.into_iter().filter(|(_, quantity)| *quantity > 0).collect();
    assert_eq!(taken, reserved);
}

/// Every item of a list. `url` has a query.
fn pages(url: &str) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(&format!("{url}{cursor}"));
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { return items };
        cursor = format!("&cursor={}", next.replace('/', "%2F"));
    }
}

/// The processes that have their working folder in this one.
fn processes_in(folder: &Path) -> BTreeSet<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes
        .filter(|path| fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder)))
        .collect()
}

/// What the example needs and this machine lacks.
fn missing_tool() -> Option<&'static str> {
    let path = std::env::var_os("PATH").unwrap();
    let is_there = |name: &str| std::env::split_paths(&path).any(|it| it.join(name).is_file());
    let servers = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    if !servers.map(|version| version.path().join("bin/postgres")).any(|server| server.is_file()) {
        return Some("PostgreSQL");
    }
    ["patroni", "etcd", "caddy", "curl"].into_iter().find(|name| !is_there(name))
}

/// The first of some ports in a row that nobody uses. They are below those of outgoing connections, one of which could
/// take the port of a process that was killed.
fn free_ports() -> u16 {
    let mut first = 20_000 + u16::try_from(std::process::id() % 1_000).unwrap() * PORTS;
    loop {
        first += PORTS;
        let end = first + PORTS;
        if (first..end).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
}

/// The example, running.
struct Cluster {
    script: Child,
    /// Has what it prints, and a `cargo` that builds nothing.
    folder: tempfile::TempDir,
    /// Of the balancer.
    url: String,
}

impl Cluster {
    /// Runs it with the binary of the tests. It ends with this thread.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cargo = folder.path().join("cargo");
        fs::write(&cargo, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
        let path = std::env::var("PATH").unwrap();
        let printed = File::create(folder.path().join("printed")).unwrap();
        let first = free_ports();
        // Who starts the tests in the background ignores Ctrl-C, and so does what it starts.
        let script = Command::new("env")
            .args(["--default-signal=INT", "setpriv", "--pdeathsig", "TERM"])
            .arg(repository().join("examples/cluster/run"))
            .arg("--kill")
            .env("PATH", format!("{}:{path}", folder.path().display()))
            .env("CARGO_TARGET_DIR", binary("amends").ancestors().nth(2).unwrap())
            .env("AMENDS_CLUSTER_PORT", first.to_string())
            .env_remove("FAILPOINTS")
            .stdin(Stdio::null())
            .stdout(printed.try_clone().unwrap())
            .stderr(printed)
            .spawn();
        Self { script: script.unwrap(), folder, url: format!("http://127.0.0.1:{first}") }
    }

    /// What it has printed so far.
    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("printed")).unwrap()
    }

    /// Waits until it has printed this; all that it has printed.
    fn until_says(&mut self, what: &str) -> String {
        let began = Instant::now();
        loop {
            let said = self.said();
            if said.contains(what) {
                return said;
            }
            let ended = self.script.try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < RUN_MAX, "{ended:?}:\n{said}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ctrl-C; its exit code.
    fn interrupt(&mut self) -> Option<i32> {
        signal(&self.script, Signal::INT);
        let began = Instant::now();
        loop {
            if let Some(status) = self.script.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < STOP_MAX, "it does not stop:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.script.try_wait().is_ok_and(|ended| ended.is_none()) {
            // It ends what it has started.
            signal(&self.script, Signal::TERM);
            let _ = self.script.wait();
        }
    }
}
