//! Hosts of one store in one process, each with its HTTP server. A table says who owns which shard, and a test may
//! change it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use amends_api::{ApiState, ConnectionLimit, PrometheusHandle, Server, prometheus, router};
use amends_engine::{
    BackoffSpec, Definition, DefinitionSpec, RetrySpec, SagaId, StepKind, StepSpec,
    TIMEOUT_DEFAULT, WaitSpec,
};
use amends_registry::{PluginsConfig, Registry};
use amends_runtime::{DEFAULT_NAMESPACE, Host, RuntimeConfig, with_state_cache};
use amends_sandbox::Inspection;
use amends_store::{Durability, HostInfo, ShardId, ShardOwner, SqliteStore, Store};
use amends_tests::Component;
use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::hooked::{Hooked, Next};

/// What anything may take at most; machines are shared.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The process has one recorder of metrics.
static PROMETHEUS: LazyLock<PrometheusHandle> = LazyLock::new(|| prometheus().unwrap());

/// Who owns which shard, as one host believes. By the number of the shard.
type Believed = Arc<Mutex<Vec<Option<HostInfo>>>>;

/// A host.
pub(crate) struct Node {
    pub(crate) me: HostInfo,
    pub(crate) host: Host,
    pub(crate) believed: Believed,
    /// That of the namespace `default`, when `host` is that of another one.
    default: Option<Host>,
    close: watch::Sender<bool>,
    server: tokio::task::JoinHandle<()>,
}

/// Hosts `a` and `b` of one store. At first `a` owns the even shards and `b` the odd ones.
pub(crate) struct Cluster {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) client: reqwest::Client,
    folder: tempfile::TempDir,
}

/// Changes the settings of a host.
pub(crate) type Change = dyn Fn(&mut RuntimeConfig);

/// What a test wants otherwise.
#[derive(Default)]
pub(crate) struct Wants {
    /// The definitions of each host.
    pub(crate) definitions: Option<[Vec<Definition>; 2]>,
    /// Changes the settings of each host.
    pub(crate) change: Option<Box<Change>>,
}

impl Cluster {
    pub(crate) async fn new() -> Self {
        Self::with(Wants::default()).await
    }

    pub(crate) async fn with(wants: Wants) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("amends.db"), Durability::Relaxed);
        let store = with_state_cache(Arc::new(store.unwrap()));
        let listeners = [listen().await, listen().await];
        let infos = [info("a", &listeners[0]), info("b", &listeners[1])];
        let owner = |shard: ShardId| infos[usize::from(shard.number() % 2)].clone();
        let table: Vec<_> = ShardId::all().map(|shard| Some(owner(shard))).collect();
        let definitions = wants.definitions.unwrap_or_else(|| [definitions(), definitions()]);
        let mut nodes = Vec::new();
        for ((listener, me), definitions) in
            listeners.into_iter().zip(infos.clone()).zip(definitions)
        {
            let believed = Arc::new(Mutex::new(table.clone()));
            let mut config = RuntimeConfig { workers: 2, ..RuntimeConfig::default() };
            if let Some(change) = &wants.change {
                change(&mut config);
            }
            let of = (&store, folder.path());
            nodes.push(Node::run(of, (me, listener), believed, (config, definitions)).await);
        }
        let b = nodes.pop().unwrap();
        let a = nodes.pop().unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = HeaderMap::new();
        let namespace = a.host.namespace().parse().unwrap();
        headers.insert("amends-namespace", namespace);
        let client = reqwest::Client::builder().timeout(SOON).default_headers(headers);
        let client = client.build().unwrap();
        let cluster = Self { store, a, b, client, folder };
        for node in [&cluster.a, &cluster.b] {
            until("it owns its shards", || {
                let (hosts, unowned) = node.host.hosts().unwrap();
                unowned == 0 && hosts[0].shards.len() == 32
            })
            .await;
        }
        cluster
    }

    /// Has both hosts believe that a shard belongs to a host, which takes it.
    pub(crate) fn give(&self, shard: ShardId, owner: Option<&HostInfo>) {
        for node in [&self.a, &self.b] {
            node.believe(shard, owner);
        }
    }

    pub(crate) async fn get(&self, node: &Node, path: &str) -> (u16, Value) {
        answer(self.client.get(node.url(path)).send().await.unwrap()).await
    }

    pub(crate) async fn post(&self, node: &Node, path: &str, body: &Value) -> (u16, Value) {
        let request = self.client.post(node.url(path)).header("amends-user", "ann").json(body);
        answer(request.send().await.unwrap()).await
    }

    pub(crate) async fn start(&self, node: &Node, definition: &str, key: Option<&str>) -> SagaId {
        let body = serde_json::json!({ "definition": definition });
        let mut request = self.client.post(node.url("/v1/sagas")).json(&body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let (status, saga) = answer(request.send().await.unwrap()).await;
        assert!(matches!(status, 200 | 202), "{status}: {saga}");
        saga["id"].as_str().unwrap().parse().unwrap()
    }

    /// A key whose saga belongs to a host.
    pub(crate) fn key_of(&self, node: &Node, from: u32) -> String {
        let keys = (from..).map(|number| format!("order-{number}"));
        let other = if node.me == self.a.me { &self.b } else { &self.a };
        let is_others =
            |key: &String| other.host.owner_of_key(key) == ShardOwner::Other(node.me.clone());
        keys.into_iter().find(is_others).unwrap()
    }

    pub(crate) async fn close(self) {
        assert_eq!(self.store.maintenance().verify().await.unwrap(), Vec::<String>::new());
        for node in [self.a, self.b] {
            node.host.stop(Duration::from_secs(1)).await;
            node.close.send_replace(true);
            let _ = tokio::time::timeout(SOON, node.server).await;
            // Both have one store, which the first one closes.
            let _ = node.host.close().await;
            if let Some(default) = node.default {
                default.close().await.unwrap();
            }
        }
        drop(self.folder);
    }
}

impl Node {
    async fn run(
        (store, folder): (&Arc<dyn Store>, &std::path::Path),
        (me, listener): (HostInfo, TcpListener),
        believed: Believed,
        (mut config, definitions): (RuntimeConfig, Vec<Definition>),
    ) -> Self {
        let mut hooked = Hooked::new(Arc::clone(store), Next::append_then);
        let (table, this) = (Arc::clone(&believed), me.clone());
        hooked.owners =
            Box::new(move |shard| match &table.lock().unwrap()[usize::from(shard.number())] {
                Some(owner) if *owner == this => ShardOwner::This,
                Some(owner) => ShardOwner::Other(owner.clone()),
                None => ShardOwner::Nobody,
            });
        let store: Arc<dyn Store> = Arc::new(hooked);
        let dir = folder.join(format!("plugins-{}", me.name));
        std::fs::create_dir(&dir).unwrap();
        let component = Component { name: "good", ..Component::default() };
        std::fs::write(dir.join("good.wasm"), component.build()).unwrap();
        let mut plugins = PluginsConfig {
            dir,
            cache: folder.join(format!("cache-{}", me.name)),
            inspection: Inspection::InThisProcess,
            shares_store: true,
            ..PluginsConfig::default()
        };
        plugins.require(&definitions);
        let plugins = Registry::open(plugins, Arc::clone(&store)).await.unwrap();
        config.host = Some(me.clone());
        let host = Host::open(config, store, plugins, definitions).await.unwrap();
        let state = |host: &Host| ApiState::new(host.clone(), PROMETHEUS.clone(), None);
        let default = if host.namespace() == DEFAULT_NAMESPACE {
            None
        } else {
            Some(default_host(folder, &me).await)
        };
        let router = router(match &default {
            Some(default) => state(default).with_namespaces([host.clone()]),
            None => state(&host),
        });
        let (close, closing) = watch::channel(false);
        let limit = ConnectionLimit::for_descriptors(None);
        let server = tokio::spawn(Server::new(router, limit, closing).run(listener));
        Self { me, host, believed, default, close, server }
    }

    /// Has this host alone believe that a shard belongs to a host.
    pub(crate) fn believe(&self, shard: ShardId, owner: Option<&HostInfo>) {
        self.believed.lock().unwrap()[usize::from(shard.number())] = owner.cloned();
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.me.address)
    }
}

/// The host of the namespace `default`, with a store of its own and nothing to run.
async fn default_host(folder: &std::path::Path, me: &HostInfo) -> Host {
    let store = folder.join(format!("default-{}.db", me.name));
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&store, Durability::Relaxed).unwrap());
    let plugins = PluginsConfig {
        dir: folder.join(format!("plugins-{}", me.name)),
        cache: folder.join(format!("default-cache-{}", me.name)),
        inspection: Inspection::InThisProcess,
        instances_max: 8,
        ..PluginsConfig::default()
    };
    let plugins = Registry::open(plugins, Arc::clone(&store)).await.unwrap();
    let config = RuntimeConfig { workers: 1, ..RuntimeConfig::default() };
    Host::open(config, store, plugins, Vec::new()).await.unwrap()
}

pub(crate) async fn listen() -> TcpListener {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap()
}

pub(crate) fn info(name: &str, listener: &TcpListener) -> HostInfo {
    let address = format!("http://{}", listener.local_addr().unwrap());
    HostInfo { name: name.to_owned(), address }
}

pub(crate) async fn answer(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn step(name: &str, kind: StepKind, after: &[&str]) -> StepSpec {
    StepSpec {
        each: None,
        name: name.parse().unwrap(),
        kind,
        after: after.iter().map(|name| name.parse().unwrap()).collect(),
        when: None,
        input: None,
        timeout: TIMEOUT_DEFAULT,
        retry: RetrySpec { attempts: 1, backoff: BackoffSpec::Listed(Vec::new()) },
        undo: None,
        pivot: false,
    }
}

pub(crate) fn definition(name: &str, steps: Vec<StepSpec>) -> Definition {
    Definition::new(DefinitionSpec {
        name: name.parse().unwrap(),
        deadline: None,
        compensate_within: None,
        index: BTreeMap::new(),
        subject: None,
        personal: Vec::new(),
        steps,
    })
    .unwrap()
}

/// A step that calls the plugin.
pub(crate) fn call(name: &str, after: &[&str]) -> StepSpec {
    let plugin = "good".parse().unwrap();
    step(name, StepKind::Call { plugin, service: None }, after)
}

/// A step that waits for the signal `approved`.
pub(crate) fn approval(after: &[&str]) -> StepSpec {
    let wait = WaitSpec { signal: "approved".parse().unwrap(), timeout: None };
    step("approval", StepKind::Wait { wait }, after)
}

/// `quick` makes a call; `approved` makes one and waits for a signal.
pub(crate) fn definitions() -> Vec<Definition> {
    vec![
        definition("quick", vec![call("good", &[])]),
        definition("approved", vec![call("good", &[]), approval(&["good"])]),
    ]
}
