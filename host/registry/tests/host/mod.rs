//! A plugin host on a folder and a store of its own.
#![allow(dead_code, reason = "each test crate uses a part of it")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::{Digest, Direction, Outcome, Payload, PluginName, SagaId, Timestamp, Version};
use amends_registry::{PluginInfo, PluginsConfig, Registry};
use amends_sandbox::{Inspection, PluginCall, PluginSettings, Required, TrustedKeys};
use amends_store::conformance::TestStore;
use amends_store::{Durability, PageBudget, SqliteStore, Store, Stream};

/// What a swap or a refusal may take at most in a test; machines are shared.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The folder, and what stands in it.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    pub(crate) settings: PluginSettings,
    pub(crate) trusted_keys: TrustedKeys,
    /// In this process, because the program of a test cannot be the child.
    pub(crate) inspection: Inspection,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("plugins")).unwrap();
        let required = Required { execute: true, compensate: true };
        let settings = PluginSettings { required, ..PluginSettings::default() };
        let trusted_keys = TrustedKeys::default();
        Self { folder, settings, trusted_keys, inspection: Inspection::InThisProcess }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("plugins").join(format!("{name}.wasm"))
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.file(name), bytes).unwrap();
    }

    /// Opens a host, and has it watch the folder. What is in the folder serves by then, or is refused:
    /// a definition needs it.
    pub(crate) async fn open(&self) -> Host {
        let host = self.open_only().await;
        host.plugins.watch(None).await;
        host
    }

    /// Opens a host, which does not watch the folder yet.
    pub(crate) async fn open_only(&self) -> Host {
        let store = SqliteStore::open(&self.folder.path().join("amends.db"), Durability::Full);
        let store: Arc<dyn Store> = Arc::new(store.unwrap());
        let config = PluginsConfig {
            dir: self.folder.path().join("plugins"),
            cache: self.cache(),
            trusted_keys: self.trusted_keys.clone(),
            plugins: [(test(), self.settings.clone())].into(),
            inspection: self.inspection.clone(),
            ..PluginsConfig::default()
        };
        let plugins = Registry::open(config, Arc::clone(&store)).await.unwrap();
        let store = TestStore::of(store).await.unwrap();
        Host { plugins, store }
    }
}

/// The plugin that most tests are about.
pub(crate) fn test() -> PluginName {
    "test".parse().unwrap()
}

pub(crate) struct Host {
    pub(crate) plugins: Registry,
    pub(crate) store: TestStore,
}

impl Host {
    pub(crate) fn info(&self) -> PluginInfo {
        self.plugins.info(&test()).expect("the plugin is known")
    }

    /// The component that is active now, by its version.
    pub(crate) fn version(&self) -> Option<String> {
        self.plugins.info(&test())?.version
    }

    pub(crate) fn call(&self, direction: Direction) -> PluginCall {
        let active = self.plugins.active(&test()).expect("a component is active");
        PluginCall {
            plugin: test(),
            state_of: test(),
            digest: active.digest,
            saga_id: SagaId::from_parts(Timestamp::from_millis(0), &[1; 10]),
            definition: "definition".parse().unwrap(),
            step: "step".parse().unwrap(),
            attempt: 1,
            direction,
            idempotency_key: "0123".to_owned(),
            traceparent: None,
            is_traced: false,
            input: Payload::parse(r#"{"n":1}"#).unwrap(),
            output: None,
            timeout: Duration::from_secs(10),
        }
    }

    pub(crate) async fn execute(&self) -> Outcome {
        self.plugins.call(&self.call(Direction::Execute)).await.outcome
    }

    /// The types and data of the events about plugins.
    pub(crate) async fn events(&self) -> Vec<(String, serde_json::Value)> {
        let (mut events, mut after) = (Vec::new(), Version(0));
        loop {
            let page = self
                .store
                .log()
                .stream(Stream::Deploys, after, PageBudget::items(1_000))
                .await
                .unwrap();
            let Some(last) = page.last() else { return events };
            after = last.version;
            let read = |data: &str| serde_json::from_str(data).unwrap();
            events.extend(page.iter().map(|event| (event.kind.clone(), read(&event.data))));
        }
    }

    pub(crate) async fn close(self) {
        self.plugins.close().await;
        self.store.close().await.unwrap();
    }
}

/// Waits until it holds.
pub(crate) async fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest::of(bytes)
}
