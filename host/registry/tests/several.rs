//! Hosts of one store whose plugin folders differ.
//!
//! A program of its own: each host sets 20 TiB of address space aside, and a process has room for six.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod host;

use std::path::Path;
use std::sync::Arc;

use amends_registry::{PluginsConfig, Registry};
use amends_sandbox::{Inspection, PluginSettings, Required};
use amends_store::{Durability, SqliteStore, Store};
use amends_tests::{Behaviour, Component};

use host::{soon, test};

fn version(version: &str) -> Vec<u8> {
    Component { version, ..Component::default() }.build()
}

fn open_store(folder: &Path) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(&folder.join("amends.db"), Durability::Relaxed).unwrap())
}

/// A folder of plugins, maybe with a component.
fn folder(place: &Path, name: &str, component: Option<&[u8]>) -> PluginsConfig {
    let dir = place.join(name);
    std::fs::create_dir(&dir).unwrap();
    if let Some(bytes) = component {
        std::fs::write(dir.join("test.wasm"), bytes).unwrap();
    }
    let required = Required { execute: true, compensate: true };
    PluginsConfig {
        cache: place.join(format!("cache-{name}")),
        plugins: [(test(), PluginSettings { required, ..PluginSettings::default() })].into(),
        inspection: Inspection::InThisProcess,
        shares_store: true,
        dir,
        ..PluginsConfig::default()
    }
}

async fn run(config: &PluginsConfig, store: &Arc<dyn Store>) -> Registry {
    let registry = Registry::open(config.clone(), Arc::clone(store)).await.unwrap();
    registry.watch(None).await;
    registry
}

fn active(registry: &Registry) -> Option<String> {
    registry.info(&test())?.version
}

fn activations(registry: &Registry) -> usize {
    registry.info(&test()).unwrap().history.len()
}

/// The first host brings its file. Of the others a file counts when it changes while the host runs, and a host
/// without a file has what the others have.
#[tokio::test]
async fn hosts_with_different_folders_do_not_replace_one_anothers_components() {
    let place = tempfile::tempdir().unwrap();
    let store = open_store(place.path());
    let [one, two, none] = [
        folder(place.path(), "one", Some(&version("1.0.0"))),
        folder(place.path(), "two", Some(&version("2.0.0"))),
        folder(place.path(), "none", None),
    ];
    let hosts = [run(&one, &store).await, run(&two, &store).await, run(&none, &store).await];
    // Longer than a file has to be quiet, and longer than the folder is left alone.
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    for host in &hosts {
        assert_eq!(active(host).as_deref(), Some("1.0.0"));
        assert_eq!(activations(host), 1);
    }
    let all_have = async |wanted: &str| {
        for host in &hosts {
            soon(wanted, || active(host).as_deref() == Some(wanted)).await;
        }
    };
    // The same bytes again are no change.
    std::fs::write(two.dir.join("test.wasm"), version("2.0.0")).unwrap();
    std::fs::write(two.dir.join("test.wasm"), version("3.0.0")).unwrap();
    all_have("3.0.0").await;
    // A file that comes while the host runs.
    std::fs::write(none.dir.join("test.wasm"), version("4.0.0")).unwrap();
    all_have("4.0.0").await;
    assert_eq!(activations(&hosts[0]), 3);
    // Each starts again, with its own file.
    for host in &hosts {
        host.close().await;
    }
    for config in [&one, &two, &none, &one] {
        let host = run(config, &store).await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert_eq!(active(&host).as_deref(), Some("4.0.0"));
        assert_eq!(activations(&host), 3);
        host.close().await;
    }
    store.close().await.unwrap();
}

/// Both find an empty store and load what is in their folders.
#[tokio::test]
async fn of_hosts_that_start_at_once_one_brings_the_first_component() {
    for round in 0..5 {
        let place = tempfile::tempdir().unwrap();
        let store = open_store(place.path());
        let [one, two] = [
            folder(place.path(), "one", Some(&version("1.0.0"))),
            folder(place.path(), "two", Some(&version("2.0.0"))),
        ];
        let (first, second) = tokio::join!(run(&one, &store), run(&two, &store));
        soon("they agree", || active(&first) == active(&second)).await;
        for host in [&first, &second] {
            assert_eq!(activations(host), 1, "round {round}");
            host.close().await;
        }
        store.close().await.unwrap();
    }
}

/// What the store says should serve and this host cannot load is tried again; the file of this host takes no
/// advantage of it.
#[tokio::test]
async fn a_component_that_cannot_be_loaded_is_not_replaced_by_a_file_of_the_start() {
    let place = tempfile::tempdir().unwrap();
    let store = open_store(place.path());
    let [one, mut two] = [
        folder(place.path(), "one", Some(&version("1.0.0"))),
        folder(place.path(), "two", Some(&version("2.0.0"))),
    ];
    let first = run(&one, &store).await;
    // This host cannot look at any component.
    two.inspection = Inspection::Child(place.path().join("no-such-program"));
    let second = run(&two, &store).await;
    assert_eq!(active(&second), None);
    let why = second.why_missing(&test()).unwrap();
    assert!(why.contains("cannot be loaded"), "{why}");
    assert_eq!(activations(&first), 1);
    second.close().await;
    two.inspection = Inspection::InThisProcess;
    let second = run(&two, &store).await;
    assert_eq!(active(&second).as_deref(), Some("1.0.0"));
    for host in [first, second] {
        host.close().await;
    }
    store.close().await.unwrap();
}

/// A step that only one host knows is no reason for it to serve something else.
#[tokio::test]
async fn a_bad_file_of_the_start_serves_nobody() {
    let place = tempfile::tempdir().unwrap();
    let store = open_store(place.path());
    let bad = Component { execute: Behaviour::Done, ..Component::default() }.build();
    let [one, two] = [
        folder(place.path(), "one", Some(&version("1.0.0"))),
        folder(place.path(), "two", Some(&bad[..bad.len() / 2])),
    ];
    let hosts = [run(&one, &store).await, run(&two, &store).await];
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    for host in hosts {
        assert_eq!(active(&host).as_deref(), Some("1.0.0"));
        host.close().await;
    }
    store.close().await.unwrap();
}
