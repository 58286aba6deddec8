//! Hosts on a folder of their own.

#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod hooked;

use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::{
    BackoffSpec, Definition, DefinitionSpec, Payload, RetrySpec, SagaId, StepKind, StepSpec,
};
use amends_registry::{PluginsConfig, Registry};
use amends_runtime::{Host, Principal, RuntimeConfig, StartRequest, Via, with_state_cache};
use amends_sandbox::{AllowHost, Inspection};
use amends_store::{Durability, SqliteStore, Store};
use amends_tests::{Behaviour, Component};

/// What anything may take at most; machines are shared.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The folder, and what stands in it.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    /// Where the plugins may send requests.
    pub(crate) allow_hosts: Vec<AllowHost>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("plugins")).unwrap();
        Self { folder, allow_hosts: Vec::new() }
    }

    pub(crate) fn write(&self, plugin: &str, component: &[u8]) {
        let file = self.folder.path().join("plugins").join(format!("{plugin}.wasm"));
        std::fs::write(file, component).unwrap();
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        let path = self.folder.path().join("amends.db");
        with_state_cache(Arc::new(SqliteStore::open(&path, Durability::Relaxed).unwrap()))
    }

    /// Changes the store while no host has it.
    pub(crate) fn change(&self, sql: &str) {
        let connection = rusqlite::Connection::open(self.folder.path().join("amends.db")).unwrap();
        assert!(connection.execute(sql, []).unwrap() > 0, "nothing is changed");
    }

    /// The store for another host, while one has it open: that host does not see the lock.
    pub(crate) fn take_over(&self) -> Arc<dyn Store> {
        std::fs::remove_file(self.folder.path().join("amends.db-lock")).unwrap();
        self.store()
    }

    pub(crate) async fn run(
        &self,
        store: Arc<dyn Store>,
        definitions: Vec<Definition>,
        config: RuntimeConfig,
    ) -> Host {
        let mut plugins = PluginsConfig {
            dir: self.folder.path().join("plugins"),
            cache: self.folder.path().join("cache"),
            inspection: Inspection::InThisProcess,
            ..PluginsConfig::default()
        };
        plugins.require(&definitions);
        for settings in plugins.plugins.values_mut() {
            settings.state = true;
            settings.allow_hosts = self.allow_hosts.iter().cloned().collect();
        }
        let plugins = Registry::open(plugins, Arc::clone(&store)).await.unwrap();
        Host::open(config, store, plugins, definitions).await.unwrap()
    }
}

/// A component whose calls of `execute` list keys of state, and so meet [`Hooked::before_list`].
///
/// [`Hooked::before_list`]: hooked::Hooked
pub(crate) fn lists() -> Component<'static> {
    Component {
        imports: "(import \"amends:saga/state@1.1.0\" \"list-keys\"
            (func $list (param i32 i32 i32 i32 i32 i32 i32)))",
        execute: Behaviour::Text(
            "(call $list (i32.const 3060) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 10) (i32.const 9000))
             (i32.const 2048)",
        ),
        ..Component::default()
    }
}

/// A step that comes after no other and has no undo.
pub(crate) fn step(name: &str, kind: StepKind) -> StepSpec {
    StepSpec {
        name: name.parse().unwrap(),
        kind,
        after: Vec::new(),
        each: None,
        when: None,
        input: None,
        timeout: SOON,
        retry: RetrySpec::default(),
        undo: None,
        pivot: false,
    }
}

/// A definition without a deadline.
pub(crate) fn definition(name: &str, steps: Vec<StepSpec>) -> Definition {
    let name = name.parse().unwrap();
    Definition::new(DefinitionSpec {
        name,
        deadline: None,
        compensate_within: None,
        index: std::collections::BTreeMap::new(),
        subject: None,
        personal: Vec::new(),
        steps,
    })
    .unwrap()
}

/// The operator of the tests.
pub(crate) fn ada() -> Principal {
    Principal::local("ada", Via::CommandLine)
}

/// One step of plugin `test`, with an attempt more than it needs.
pub(crate) fn order() -> Definition {
    let call = StepKind::Call { plugin: "test".parse().unwrap(), service: None };
    let backoff = BackoffSpec::Listed(vec![Duration::from_millis(10)]);
    let retry = RetrySpec { attempts: 3, backoff };
    definition("order", vec![StepSpec { retry, ..step("step", call) }])
}

/// A start without input, key and tags.
pub(crate) fn request(definition: &str) -> StartRequest {
    StartRequest {
        definition: definition.to_owned(),
        input: Payload::null(),
        key: None,
        tags: std::collections::BTreeMap::new(),
        traceparent: None,
        start_at: None,
    }
}

pub(crate) async fn start(host: &Host, definition: &str) -> SagaId {
    host.start(&ada(), request(definition)).await.unwrap().id
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn until_some<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut get: impl FnMut() -> F,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = get().await {
            return found;
        }
        assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
