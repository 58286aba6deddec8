//! The hosts of one database: each is started, stopped, cut off and asked here.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::asker::Asker;
use crate::definitions;
use crate::namespace::{Bridge, Cable, Namespace};
use crate::place::{Host, Place, SOON, agent, get, text};
use crate::proxy::{Network, Proxy};
use crate::server::Server;
use crate::service::Service;

/// One host, with the networks between it and the database, and between it and the other hosts.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) database: Link,
    pub(crate) peers: Link,
    /// Where it runs, when it is not where the test does.
    namespace: Option<Namespace>,
    pub(crate) host: Option<Host>,
    /// The token of whoever looks at it here; none when it asks nobody for one.
    pub(crate) token: Option<&'static str>,
    /// What its processes before had logged, and the lines in it that are told of.
    log: Vec<String>,
}

/// What is between a host and others.
pub(crate) enum Link {
    Proxy(Proxy),
    Cable(Cable),
}

impl Link {
    pub(crate) fn set(&self, network: Network) {
        match (self, network) {
            (Self::Proxy(proxy), network) => proxy.set(network),
            (Self::Cable(cable), Network::Open) => cable.mend(),
            (Self::Cable(cable), Network::Silent) => cable.cut(),
            (Self::Cable(_), Network::Shut) => panic!("who is behind a cut cable refuses nothing"),
        }
    }
}

/// The networks of hosts that have namespaces of their own.
pub(crate) struct Networks {
    pub(crate) database: Bridge,
    pub(crate) peers: Bridge,
    pub(crate) hosts: Vec<u8>,
}

/// Lines of a log that are told of.
const LINES: usize = 60;

impl Node {
    /// Makes a host of a place that has its plugins. `sagas` is the config beside the usual.
    pub(crate) fn new(name: &str, place: Place, server: &Server, sagas: &str) -> Self {
        let (database, peers) = (Proxy::new(server.port), Proxy::new(place.port));
        let address = format!("127.0.0.1:{}", peers.port);
        write_config(&place, name, &address, &Server::url_over(database.port), sagas);
        let (database, peers) = (Link::Proxy(database), Link::Proxy(peers));
        let (name, namespace, log) = (name.to_owned(), None, Vec::new());
        Self { name, place, database, peers, namespace, host: None, token: None, log }
    }

    /// Makes a host in a namespace of its own, with a cable to the database and one to the other hosts. The service
    /// outside, and those who ask the host, reach each other by proxies that are never cut.
    pub(crate) fn connected(
        number: u8,
        networks: &Networks,
        server: &Server,
        service: &Service,
    ) -> Self {
        let place = definitions::place(service);
        let namespace = Namespace::new().unwrap();
        let connect = |bridge: &Bridge| bridge.connect(&namespace, number, &networks.hosts);
        let (database, peers) = (connect(&networks.database), connect(&networks.peers));
        let (port, address) = (place.port, networks.peers.address_of(number));
        let asked = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let service_port: u16 = service.url.rsplit(':').next().unwrap().parse().unwrap();
        let called = namespace.run(|| {
            Proxy::of(asked, port);
            // A host listens on loopback only, so it has a proxy for the others.
            Proxy::of(TcpListener::bind((address, port)).unwrap(), port);
            TcpListener::bind(("127.0.0.1", service_port)).unwrap()
        });
        Proxy::of(called, service_port);
        let name = format!("node-{number}");
        let url = server.url_at(networks.database.address());
        let sagas = definitions::config(&service.url);
        write_config(&place, &name, &format!("{address}:{port}"), &url, &sagas);
        let (database, peers) = (Link::Cable(database), Link::Cable(peers));
        let (namespace, log) = (Some(namespace), Vec::new());
        Self { name, place, database, peers, namespace, host: None, token: None, log }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.place.port)
    }

    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    pub(crate) fn start_with(&mut self, environment: &[(&str, &str)]) {
        let spawn = || self.place.spawn_with_env(environment);
        let mut host = self.namespace.as_ref().map_or_else(spawn, |namespace| namespace.run(spawn));
        assert!(host.becomes_ready(), "{} does not start:\n{}", self.name, host.log().join("\n"));
        self.host = Some(host);
    }

    pub(crate) fn kill(&mut self) {
        let log = self.host.take().unwrap().kill();
        self.log.extend(log);
    }

    /// SIGTERM; it ends with 0.
    pub(crate) fn stop(&mut self) {
        let (code, log) = self.host.take().unwrap().stop_logged();
        self.log.extend(log);
        assert_eq!(code, Some(0), "{}", self.told());
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.host.as_ref().unwrap().signal(signal);
    }

    /// What it has said last, but for the lines of debugging.
    pub(crate) fn told(&self) -> String {
        let now = self.host.as_ref().map(Host::log).unwrap_or_default();
        let lines = self.log.iter().chain(&now).filter(|line| !line.contains("DEBUG"));
        let lines: Vec<_> = lines.map(String::as_str).collect();
        format!("{}:\n{}", self.name, lines[lines.len().saturating_sub(LINES)..].join("\n"))
    }

    /// The hosts that it sees.
    fn hosts(&self) -> Value {
        match (self.token, &self.host) {
            (Some(token), Some(host)) => Asker::with(token).get(host, "/v1/host").done(),
            _ => get(&self.url("/v1/host")),
        }
    }

    /// How many hosts it sees, how many shards it owns, and how many nobody owns.
    pub(crate) fn view(&self) -> (usize, usize, u64) {
        let view = self.hosts();
        let hosts = view["hosts"].as_array().unwrap();
        let own = hosts.iter().find(|host| host["is_this"] == true).unwrap();
        let own = own["shards"].as_array().unwrap().len();
        (hosts.len(), own, view["shards_unowned"].as_u64().unwrap())
    }

    /// How many shards the host of this name owns, as this one sees it.
    pub(crate) fn shards_of(&self, name: &str) -> Vec<u64> {
        let view = self.hosts();
        let hosts = view["hosts"].as_array().unwrap();
        let shards = hosts.iter().find(|host| host["name"] == name).map(|host| &host["shards"]);
        let shards = shards.and_then(Value::as_array).into_iter().flatten();
        shards.map(|shard| shard.as_u64().unwrap()).collect()
    }

    /// The writes that the database has refused to this process because another host had taken it over.
    pub(crate) fn fenced_writes(&self) -> u64 {
        let text = text(&self.url("/metrics"));
        let line = text.lines().find_map(|line| line.strip_prefix("amends_fenced_writes_total "));
        line.map_or(0, |number| number.trim().parse().unwrap())
    }

    /// Starts a saga of this host's own; its id.
    pub(crate) fn start_saga(&self, body: &Value) -> String {
        let began = Instant::now();
        loop {
            let answer = agent().post(self.url("/v1/sagas")).send_json(body);
            if let Ok(mut answer) = answer
                && answer.status() == 202
            {
                let saga: Value = answer.body_mut().read_json().unwrap();
                return saga["id"].as_str().unwrap().to_owned();
            }
            assert!(began.elapsed() < SOON, "it takes no saga: {}", self.told());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Writes the config of a host. `sagas` is what it has beside the usual.
fn write_config(place: &Place, name: &str, address: &str, store: &str, sagas: &str) {
    let text = format!(
        "[host]\nname = \"{name}\"\nlisten = \"127.0.0.1:{}\"\naddress = \"http://{address}\"\n\
         [store]\nurl = \"{store}\"\n[plugins]\ndir = \"plugins\"\ncache = \"cache\"\n{sagas}",
        place.port,
    );
    fs::write(place.path("amends.toml"), text).unwrap();
}

/// Waits until some hosts see one another, and own all shards between them, each a part.
pub(crate) fn until_shared(nodes: &[&Node]) {
    let began = Instant::now();
    let is_shared = || {
        let views: Vec<_> = nodes.iter().map(|node| node.view()).collect();
        let owned: usize = views.iter().map(|(_, own, _)| own).sum();
        let all_see = |(hosts, own, unowned): &(usize, usize, u64)| {
            *hosts == nodes.len() && *own > 0 && *unowned == 0
        };
        owned == 64 && views.iter().all(all_see)
    };
    while !is_shared() {
        if began.elapsed() > SOON {
            let told: Vec<_> = nodes.iter().map(|node| node.told()).collect();
            panic!("the shards are not shared:\n{}", told.join("\n"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Opens all networks of a host.
pub(crate) fn open(node: &Node) {
    node.database.set(Network::Open);
    node.peers.set(Network::Open);
}
