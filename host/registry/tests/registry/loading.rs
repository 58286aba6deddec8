//! What is loaded, how often, and whose compiled code.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use amends_engine::{Direction, Failure, PluginName};
use amends_registry::{PluginsConfig, Registry};
use amends_sandbox::{
    CacheConfig, Inspection, Loader, PluginCall, PluginSettings, Priority, Rejection, Required,
    TrustedKeys,
};
use amends_store::{Durability, SqliteStore};
use amends_tests::Component;

use crate::host::{Place, digest, soon, test};

static TEST: LazyLock<PluginName> = LazyLock::new(test);

fn version(version: &str) -> Vec<u8> {
    Component { version, ..Component::default() }.build()
}

/// Also one whose component types are damaged: a reader of them recursed without end over packages
/// that depend on one another, and the process ended.
#[tokio::test]
async fn nothing_of_a_core_module_is_read() {
    let (keys, here) = (TrustedKeys::default(), Inspection::InThisProcess);
    let loader = Loader::new(None, keys, here).unwrap();
    let module = Component::default().core_module();
    let types = module.windows(14).position(|bytes| bytes == b"component-type").unwrap();
    for at in types..module.len() {
        let mut damaged = module.clone();
        damaged[at] ^= 1;
        let settings = Arc::new(PluginSettings::default());
        let came = loader.load(damaged, settings, Priority::Awaited).await;
        assert_eq!(came.unwrap_err(), Rejection::CoreModule, "byte {at}");
    }
}

#[tokio::test]
async fn however_many_want_a_replaced_component_at_once_it_is_compiled_once() {
    let place = Place::new();
    place.write("test", &version("1.0.0"));
    let host = place.open().await;
    place.write("test", &version("2.0.0"));
    soon("2.0.0 is active", || host.version().as_deref() == Some("2.0.0")).await;
    host.close().await;
    // As after an upgrade, none of the compiled code is of this engine.
    std::fs::remove_dir_all(place.cache()).unwrap();
    let host = place.open().await;
    assert_eq!(host.plugins.compiled(), 1, "the active one");
    let first = digest(&version("1.0.0"));
    let callers: Vec<_> = (0..32)
        .map(|_| {
            let plugins = host.plugins.clone();
            tokio::spawn(async move { plugins.by_digest(&TEST, first).await.unwrap() })
        })
        .collect();
    let mut loaded = Vec::new();
    for caller in callers {
        loaded.push(caller.await.unwrap());
    }
    assert_eq!(loaded[0].digest, first);
    assert!(loaded.iter().all(|one| Arc::ptr_eq(one, &loaded[0])), "it is loaded once");
    assert_eq!(host.plugins.compiled(), 2);
    host.close().await;
}

/// As when the machine has no process or no descriptor left for it.
#[tokio::test]
async fn a_call_whose_component_cannot_be_looked_at_now_did_not_begin() {
    let mut place = Place::new();
    place.write("test", &version("1.0.0"));
    let host = place.open().await;
    place.write("test", &version("2.0.0"));
    soon("2.0.0 is active", || host.version().as_deref() == Some("2.0.0")).await;
    host.close().await;
    let first = digest(&version("1.0.0"));
    for file in std::fs::read_dir(place.cache()).unwrap() {
        let file = file.unwrap();
        if file.file_name().to_str().unwrap().starts_with(&first.hex()) {
            std::fs::remove_file(file.path()).unwrap();
        }
    }
    place.inspection = Inspection::Child(place.cache().join("no-such-program"));
    let host = place.open().await;
    let call = PluginCall { digest: first, ..host.call(Direction::Execute) };
    let unknown = Failure::new("timeout", "it did not answer");
    for answer in
        [host.plugins.call(&call).await, host.plugins.ask(&call, unknown.clone(), None, None).await]
    {
        let lacks = answer.not_begun.expect("it did not begin");
        assert!(lacks.to_string().contains("it could not be looked at"), "{lacks}");
    }
    assert!(host.plugins.by_digest(&TEST, first).await.unwrap_err().is_passing());
    host.close().await;
}

/// A file that serves several plugins, which all of them want at once.
#[tokio::test]
async fn a_component_of_several_plugins_is_compiled_once() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("plugins");
    std::fs::create_dir(&dir).unwrap();
    let names = ["one", "two", "three", "four"].map(|name| name.parse::<PluginName>().unwrap());
    for name in &names {
        std::fs::write(dir.join(format!("{name}.wasm")), version("1.0.0")).unwrap();
    }
    let settings = PluginSettings {
        required: Required { execute: true, compensate: true },
        component: Some("test".to_owned()),
        ..PluginSettings::default()
    };
    let config = PluginsConfig {
        dir,
        cache: folder.path().join("cache"),
        inspection: Inspection::InThisProcess,
        plugins: names.iter().map(|name| (name.clone(), settings.clone())).collect(),
        ..PluginsConfig::default()
    };
    let store = SqliteStore::open(&folder.path().join("amends.db"), Durability::Relaxed).unwrap();
    let plugins = Registry::open(config, Arc::new(store)).await.unwrap();
    for name in &names {
        assert_eq!(plugins.active(name).unwrap().digest, digest(&version("1.0.0")), "{name}");
    }
    assert_eq!(plugins.compiled(), 1);
}

#[tokio::test]
async fn whoever_gives_up_first_does_not_end_the_load_of_others() {
    let place = Place::new();
    place.write("test", &version("1.0.0"));
    let host = place.open().await;
    place.write("test", &version("2.0.0"));
    soon("2.0.0 is active", || host.version().as_deref() == Some("2.0.0")).await;
    host.close().await;
    std::fs::remove_dir_all(place.cache()).unwrap();
    let host = place.open().await;
    let first = digest(&version("1.0.0"));
    let other = host.plugins.by_digest(&TEST, first);
    // It begins the load, and is dropped.
    let begun = tokio::time::timeout(Duration::ZERO, host.plugins.by_digest(&TEST, first));
    let (other, _) = tokio::join!(other, begun);
    assert_eq!(other.unwrap().digest, first);
    assert_eq!(host.plugins.compiled(), 2);
    host.close().await;
}

#[tokio::test]
async fn the_folder_of_compiled_code_is_the_users_alone() {
    let place = Place::new();
    place.write("test", &version("1.0.0"));
    place.open().await.close().await;
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let set = |mode: u32| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(place.cache(), permissions).unwrap();
    };
    assert_eq!(mode(&place.cache()), 0o700);
    for file in std::fs::read_dir(place.cache()).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    // One that others could read is closed to them.
    set(0o755);
    place.open().await.close().await;
    assert_eq!(mode(&place.cache()), 0o700);
    let cache = CacheConfig { dir: place.cache(), key: None };
    let open = |cache: &CacheConfig| {
        let here = Inspection::InThisProcess;
        Loader::new(Some(cache), TrustedKeys::default(), here)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    set(0o777);
    let refused = open(&cache).unwrap_err();
    assert!(
        refused.contains("other users may write to it") && refused.contains("chmod"),
        "{refused}"
    );
    set(0o700);
    let link = CacheConfig { dir: place.cache().with_extension("link"), key: None };
    std::os::unix::fs::symlink(place.cache(), &link.dir).unwrap();
    let refused = open(&link).unwrap_err();
    assert!(refused.contains("it is a link or a file; name another folder"), "{refused}");
    open(&cache).unwrap();
}

/// Code that another key vouches for is made anew: that of another machine, or of a key that came with
/// the cache.
#[tokio::test]
async fn only_code_of_this_hosts_key_is_taken() {
    let place = Place::new();
    let key = place.cache().with_extension("key");
    let config = CacheConfig { dir: place.cache(), key: Some(key.clone()) };
    let load = async || {
        let here = Inspection::InThisProcess;
        let loader = Loader::new(Some(&config), TrustedKeys::default(), here).unwrap();
        let settings = Arc::new(PluginSettings::default());
        loader.load(version("1.0.0"), settings, Priority::Awaited).await.unwrap();
        loader.compiled()
    };
    assert_eq!((load().await, load().await), (1, 0));
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    // The same bytes in a file that was made at another moment, as by unpacking an archive.
    let bytes = std::fs::read(&key).unwrap();
    assert_eq!(bytes.len(), 32);
    let unpacked = key.with_extension("unpacked");
    tokio::time::sleep(Duration::from_millis(20)).await;
    std::fs::copy(&key, &unpacked).unwrap();
    std::fs::rename(&unpacked, &key).unwrap();
    assert_eq!((load().await, load().await), (1, 0));
    // One that others may read is no secret.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!((load().await, load().await), (1, 0));
    assert_ne!(std::fs::read(&key).unwrap(), bytes);
    std::fs::remove_file(&key).unwrap();
    assert_eq!((load().await, load().await), (1, 0));
}
