//! Hot reload, the cache of compiled code, and what serves when a file is gone.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use amends_engine::{Direction, Outcome, Payload, PluginName, SagaId, Timestamp, Version};
use amends_registry::{
    ActivationCause, ActivationReason, CanarySpec, Guard, PluginsConfig, Registry,
};
use amends_sandbox::{Inspection, LoadedComponent, PluginCall, Rejection, Required};
use amends_store::{Append, BlobKind, NewEvent, Stream};
use amends_tests::{Behaviour, Component};
use serde_json::json;

use crate::host::{Host, Place, digest, soon, test};

static TEST: LazyLock<PluginName> = LazyLock::new(test);

fn version(version: &str) -> Vec<u8> {
    Component { version, ..Component::default() }.build()
}

#[tokio::test]
async fn a_file_that_is_written_over_is_active_for_the_next_call() {
    let place = Place::new();
    place.write("test", &version("1.0.0"));
    let host = place.open().await;
    assert_eq!(host.version().as_deref(), Some("1.0.0"));
    place.write("test", &version("1.1.0"));
    soon("1.1.0 is active", || host.version().as_deref() == Some("1.1.0")).await;
    assert!(matches!(host.execute().await, Outcome::Succeeded(_)));
    let info = host.info();
    let history: Vec<_> = info.history.iter().map(|one| one.version.as_str()).collect();
    assert_eq!(history, ["1.1.0", "1.0.0"]);
    let events = host.events().await;
    assert_eq!(events.len(), 2);
    assert_eq!(events[1].0, "plugin.activated");
    assert_eq!(events[1].1["components"][0]["digest"], digest(&version("1.1.0")).to_string());
    assert_eq!(events[1].1["components"][0]["version"], "1.1.0");
    host.close().await;
}

#[tokio::test]
async fn a_file_that_is_moved_in_is_active() {
    let place = Place::new();
    place.write("test", &version("1.0.0"));
    let host = place.open().await;
    let beside = place.cache().join("new");
    std::fs::write(&beside, version("2.0.0")).unwrap();
    std::fs::rename(&beside, place.file("test")).unwrap();
    soon("2.0.0 is active", || host.version().as_deref() == Some("2.0.0")).await;
    host.close().await;
}

#[tokio::test]
async fn a_file_that_is_copied_slowly_is_taken_when_it_is_whole() {
    let place = Place::new();
    place.write("test", &version("1.0.0"));
    let host = place.open().await;
    let new = version("2.0.0");
    let mut file = std::fs::File::create(place.file("test")).unwrap();
    for part in new.chunks(new.len() / 6 + 1) {
        file.write_all(part).unwrap();
        file.flush().unwrap();
        // Longer than a file must be quiet to be read: it is read in parts, and found cut off.
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert!(matches!(host.execute().await, Outcome::Succeeded(_)));
    }
    drop(file);
    soon("2.0.0 is active", || host.version().as_deref() == Some("2.0.0")).await;
    assert_eq!(host.info().rejections, [], "a copy under way is not a broken file");
    host.close().await;
}

#[tokio::test]
async fn a_file_that_stays_half_is_refused_and_then_taken_when_it_is_whole() {
    let place = Place::new();
    place.write("test", &version("1.0.0"));
    let host = place.open().await;
    let new = version("2.0.0");
    place.write("test", &new[..new.len() / 2]);
    soon("it is refused", || !host.info().rejections.is_empty()).await;
    assert!(host.info().rejections[0].reason.contains("it is incomplete"));
    assert_eq!(host.version().as_deref(), Some("1.0.0"));
    let mut file = std::fs::OpenOptions::new().append(true).open(place.file("test")).unwrap();
    file.write_all(&new[new.len() / 2..]).unwrap();
    soon("2.0.0 is active", || host.version().as_deref() == Some("2.0.0")).await;
    host.close().await;
}

#[tokio::test]
async fn a_plugin_that_is_dropped_into_the_folder_is_there() {
    let place = Place::new();
    let host = place.open().await;
    assert_eq!(host.version(), None);
    place.write("test", &version("1.0.0"));
    soon("1.0.0 is active", || host.version().as_deref() == Some("1.0.0")).await;
    host.close().await;
}

#[tokio::test]
async fn a_call_in_flight_ends_on_the_component_that_it_began_with() {
    let place = Place::new();
    let slow = Component { execute: Behaviour::Spin, version: "1.0.0", ..Component::default() };
    place.write("test", &slow.build());
    let host = place.open().await;
    let timeout = Duration::from_secs(2);
    let call = PluginCall { timeout, ..host.call(Direction::Execute) };
    let plugins = host.plugins.clone();
    let in_flight = tokio::spawn(async move { plugins.call(&call).await.outcome });
    place.write("test", &version("2.0.0"));
    soon("2.0.0 is active", || host.version().as_deref() == Some("2.0.0")).await;
    assert!(matches!(host.execute().await, Outcome::Succeeded(_)), "new calls use the new one");
    let Outcome::Unknown(failure) = in_flight.await.unwrap() else { panic!("it was swapped") };
    assert_eq!(failure.code, "timeout");
    host.close().await;
}

#[tokio::test]
async fn a_call_that_was_admitted_before_a_swap_runs_on_its_digest() {
    let place = Place::new();
    let echo = Component { execute: Behaviour::Echo, version: "1.0.0", ..Component::default() };
    place.write("test", &echo.build());
    let host = place.open().await;
    let admitted = host.call(Direction::Execute);
    place.write("test", &version("2.0.0"));
    soon("2.0.0 is active", || host.version().as_deref() == Some("2.0.0")).await;
    let echoed = Outcome::Succeeded(Payload::parse(r#"{"n":1}"#).unwrap());
    assert_eq!(host.plugins.call(&admitted).await.outcome, echoed);
    host.close().await;
    // After a restart too: the bytes are in the store.
    let host = place.open().await;
    assert_eq!(host.plugins.call(&admitted).await.outcome, echoed);
    host.close().await;
}

#[tokio::test]
async fn code_is_freed_when_its_last_call_is_over() {
    let place = Place::new();
    let slow = Component { execute: Behaviour::Spin, version: "1.0.0", ..Component::default() };
    place.write("test", &slow.build());
    let host = place.open().await;
    let code = Arc::downgrade(&host.plugins.active(&TEST).unwrap());
    // Longer than what was replaced is kept for another call.
    let timeout = Duration::from_secs(8);
    let call = PluginCall { timeout, ..host.call(Direction::Execute) };
    let plugins = host.plugins.clone();
    let in_flight = tokio::spawn(async move { plugins.call(&call).await.outcome });
    place.write("test", &version("2.0.0"));
    soon("2.0.0 is active", || host.version().as_deref() == Some("2.0.0")).await;
    let digest = code.upgrade().unwrap().digest;
    let admitted = PluginCall { digest, ..host.call(Direction::Compensate) };
    let Outcome::Unknown(_) = in_flight.await.unwrap() else { panic!("it does not end") };
    soon("its code is freed", || code.strong_count() == 0).await;
    let compiled = host.plugins.compiled();
    // A saga that is pinned to it has it back, without compiling it.
    host.plugins.call(&admitted).await;
    let again = Arc::downgrade(&host.plugins.by_digest(&TEST, admitted.digest).await.unwrap());
    assert_eq!((host.plugins.compiled(), again.strong_count() > 0), (compiled, true));
    soon("its code is freed again", || again.strong_count() == 0).await;
    host.close().await;
}

#[tokio::test]
async fn a_component_that_cannot_be_loaded_is_not_loaded_for_every_call() {
    let place = Place::new();
    place.write("test", &version("1.0.0"));
    let host = place.open().await;
    let (bytes, at) = (b"\0asm".to_vec(), Timestamp::from_millis(0));
    let bad = digest(&bytes);
    host.store.blobs().put(BlobKind::Component, "test".to_owned(), bad, at, bytes).await.unwrap();
    let first = host.plugins.by_digest(&test(), bad).await.unwrap_err().to_string();
    assert!(first.contains("it is incomplete"), "{first}");
    // It is not even read again.
    host.store.close().await.unwrap();
    let second = host.plugins.by_digest(&test(), bad).await.unwrap_err().to_string();
    assert_eq!(second, first);
    host.close().await;
}

#[tokio::test]
async fn a_deleted_file_strands_nobody() {
    let place = Place::new();
    place.write("test", &version("1.0.0"));
    let host = place.open().await;
    std::fs::remove_file(place.file("test")).unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(matches!(host.execute().await, Outcome::Succeeded(_)));
    host.close().await;
    let host = place.open().await;
    assert_eq!(host.version().as_deref(), Some("1.0.0"));
    assert!(matches!(host.execute().await, Outcome::Succeeded(_)));
    host.close().await;
}

#[tokio::test]
async fn a_bad_file_at_the_start_leaves_the_last_good_one_serving() {
    let place = Place::new();
    place.write("test", &version("1.0.0"));
    place.open().await.close().await;
    place.write("test", b"not a component");
    let host = place.open().await;
    assert_eq!(host.version().as_deref(), Some("1.0.0"));
    soon("it is refused", || !host.info().rejections.is_empty()).await;
    host.close().await;
    // What is refused twice is recorded once.
    let host = place.open().await;
    // Long enough for it to be looked at again.
    tokio::time::sleep(Duration::from_secs(2)).await;
    place.write("test", b"not a component either");
    soon("the next one is refused", || host.info().rejections.len() == 2).await;
    assert_eq!(host.events().await.len(), 3);
    host.close().await;
}

#[tokio::test]
async fn a_start_without_a_change_compiles_nothing() {
    let place = Place::new();
    place.write("test", &version("1.0.0"));
    let host = place.open().await;
    assert_eq!(host.plugins.compiled(), 1);
    host.close().await;
    let host = place.open().await;
    assert_eq!(host.plugins.compiled(), 0);
    assert!(matches!(host.execute().await, Outcome::Succeeded(_)));
    host.close().await;
}

#[tokio::test]
async fn a_damaged_cache_is_made_anew() {
    let place = Place::new();
    place.write("test", &version("1.0.0"));
    place.open().await.close().await;
    let files = std::fs::read_dir(place.cache()).unwrap().map(|file| file.unwrap().path());
    let is_code = |file: &std::path::PathBuf| file.extension().is_some_and(|end| end == "cwasm");
    let file = files.into_iter().find(is_code).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    for damaged in [bytes.clone(), bytes[..middle].to_vec(), Vec::new()] {
        std::fs::write(&file, damaged).unwrap();
        let host = place.open().await;
        assert_eq!(host.plugins.compiled(), 1);
        assert!(matches!(host.execute().await, Outcome::Succeeded(_)));
        host.close().await;
        let host = place.open().await;
        assert_eq!(host.plugins.compiled(), 0, "it was written again");
        host.close().await;
    }
    let checksum = file.with_extension("blake3");
    std::fs::remove_file(&checksum).unwrap();
    let host = place.open().await;
    assert_eq!(
        (host.plugins.compiled(), checksum.is_file()),
        (1, true),
        "nothing says it is whole"
    );
    host.close().await;
}

#[tokio::test]
async fn a_required_call_may_live_in_the_store_alone() {
    let mut place = Place::new();
    place.write("test", &version("1.0.0"));
    place.open().await.close().await;
    std::fs::remove_file(place.file("test")).unwrap();
    place.settings.required = Required { execute: true, compensate: true };
    let host = place.open().await;
    assert_eq!(host.version().as_deref(), Some("1.0.0"));
    host.close().await;
}

#[tokio::test]
async fn a_rollback_serves_at_once_and_stands_until_the_file_changes() {
    let place = Place::new();
    place.write("test", &version("1.0.0"));
    let host = place.open().await;
    let back = |to| {
        host.plugins.rollback(
            &TEST,
            to,
            ActivationReason {
                who: Some("ada".to_owned()),
                reason: Some("why".to_owned()),
                ..ActivationReason::default()
            },
        )
    };
    let refused = back(None).await.unwrap_err().to_string();
    assert!(refused.contains("no other component served it before"), "{refused}");
    place.write("test", &version("2.0.0"));
    soon("2.0.0 is active", || host.version().as_deref() == Some("2.0.0")).await;
    let refused = back(Some(digest(b"other"))).await.unwrap_err().to_string();
    assert!(refused.contains("that component never served it"), "{refused}");
    let refused = back(Some(digest(&version("2.0.0")))).await.unwrap_err().to_string();
    assert!(refused.contains("that component serves it now"), "{refused}");
    let done = back(None).await.unwrap();
    assert_eq!(host.version().as_deref(), Some("1.0.0"));
    assert_eq!((done.why.cause, done.why.who.as_deref()), (ActivationCause::Rollback, Some("ada")));
    // Whoever asks twice does not get what was left.
    let refused = back(None).await.unwrap_err().to_string();
    assert!(refused.contains("but those that a rollback left; name one"), "{refused}");
    assert_eq!(back(Some(digest(&version("2.0.0")))).await.unwrap().version, "2.0.0");
    assert_eq!(back(Some(digest(&version("1.0.0")))).await.unwrap().version, "1.0.0");
    let [.., last] = &host.events().await[..] else { panic!("no events") };
    assert_eq!(last.1["cause"], "rollback");
    assert_eq!(last.1["reason"], "why");
    host.close().await;
    // The folder still has 2.0.0.
    let host = place.open().await;
    assert_eq!(host.version().as_deref(), Some("1.0.0"));
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(host.version().as_deref(), Some("1.0.0"), "nobody changed the file");
    assert_eq!(host.info().history.len(), 5);
    place.write("test", &version("2.0.0"));
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(host.version().as_deref(), Some("1.0.0"), "it has the same bytes");
    place.write("test", &version("3.0.0"));
    soon("the file counts again", || host.version().as_deref() == Some("3.0.0")).await;
    host.close().await;
}

/// Another host of the same store, with an empty folder of its own.
async fn follower(host: &Host) -> (Place, Registry) {
    let place = Place::new();
    let (dir, cache) = (place.cache().join("none"), place.cache());
    std::fs::create_dir_all(&dir).unwrap();
    let plugins = [(test(), place.settings.clone())].into();
    let inspection = Inspection::InThisProcess;
    let config = PluginsConfig { dir, cache, plugins, inspection, ..PluginsConfig::default() };
    let plugins = Registry::open(config, Arc::clone(&host.store.store)).await.unwrap();
    plugins.watch(None).await;
    (place, plugins)
}

#[tokio::test]
async fn what_one_host_makes_active_serves_on_the_others_within_a_second() {
    let place = Place::new();
    place.write("test", &version("1.0.0"));
    let host = place.open().await;
    let (_other, follower) = follower(&host).await;
    let its_version = || follower.info(&TEST).and_then(|info| info.version);
    assert_eq!(its_version().as_deref(), Some("1.0.0"), "from the store");
    place.write("test", &version("2.0.0"));
    soon("2.0.0 is active", || host.version().as_deref() == Some("2.0.0")).await;
    soon("2.0.0 is followed", || its_version().as_deref() == Some("2.0.0")).await;
    host.plugins.rollback(&TEST, None, by("ada")).await.unwrap();
    soon("1.0.0 is followed", || its_version().as_deref() == Some("1.0.0")).await;
    // And the other way round: two that decide at once agree on an order.
    let to = Some(digest(&version("2.0.0")));
    let (one, two) = tokio::join!(
        follower.rollback(&TEST, to, by("grace")),
        host.plugins.rollback(&TEST, to, by("ada")),
    );
    assert!(one.is_ok() || two.is_ok());
    soon("they agree", || its_version() == host.version()).await;
    follower.close().await;
    host.close().await;
}

fn by(who: &str) -> ActivationReason {
    ActivationReason { who: Some(who.to_owned()), ..ActivationReason::default() }
}

/// Calls of as many sagas, each by whichever component serves it.
async fn serve(host: &Host, sagas: u32) {
    for number in 0..sagas {
        let random = digest(&number.to_be_bytes());
        let saga_id = SagaId::from_bytes(*random.as_bytes().first_chunk().unwrap());
        let digest = host.plugins.serving(&TEST, saga_id).unwrap().0.digest;
        host.plugins.call(&PluginCall { saga_id, digest, ..host.call(Direction::Execute) }).await;
    }
}

#[tokio::test]
async fn a_canary_is_followed_counted_and_known_after_a_restart() {
    let place = Place::new();
    place.write("test", &version("1.0.0"));
    let host = place.open().await;
    let (_other, follower) = follower(&host).await;
    let traps = Component { execute: Behaviour::Trap, version: "2.0.0", ..Component::default() };
    let spec = CanarySpec::new(20.0, None, Some(50), Some(200)).unwrap();
    let canary = async |bytes: Vec<u8>| {
        let candidate = host.plugins.candidate(&TEST, bytes).await.unwrap();
        host.plugins.start_canary(candidate, spec, ActivationReason::default()).await
    };
    canary(traps.build()).await.unwrap();
    let last = |plugins: &Registry| plugins.info(&TEST).unwrap().canaries.first().cloned();
    let runs = |plugins: &Registry| last(plugins).is_some_and(|one| one.ended.is_none());
    soon("it is followed", || runs(&follower)).await;
    let refused = canary(version("3.0.0")).await.unwrap_err().to_string();
    assert!(refused.contains("a canary runs, version 2.0.0"), "{refused}");
    // Three of fifty may fail; the fourth is one too many.
    serve(&host, 100).await;
    soon("it is taken back", || !runs(&host.plugins)).await;
    soon("that is followed", || !runs(&follower)).await;
    let (here, there) = (last(&host.plugins).unwrap(), last(&follower).unwrap());
    let end = here.ended.clone().unwrap();
    assert!(!end.is_promoted && end.who.is_none(), "{end:?}");
    assert!(end.reason.as_ref().is_some_and(|why| why.contains("points worse")), "{end:?}");
    assert!((3..30).contains(&here.tally.canary.unknown), "{:?}", here.tally);
    assert_eq!(here.tally.active.failed, 0);
    assert_eq!(there.ended, here.ended);
    assert_eq!(host.version().as_deref(), Some("1.0.0"));
    serve(&host, 100).await;

    canary(version("3.0.0")).await.unwrap();
    let refused = canary(version("3.0.0")).await.unwrap_err().to_string();
    assert!(refused.contains("a canary runs"), "{refused}");
    soon("it is followed", || runs(&follower)).await;
    follower.close().await;
    host.close().await;
    let host = place.open().await;
    assert!(runs(&host.plugins), "after a restart");
    assert_eq!(host.version().as_deref(), Some("1.0.0"), "the file is as it was");
    // Its code is loaded in the background; until then the active component serves its share.
    let began = std::time::Instant::now();
    while host.version().as_deref() != Some("3.0.0") {
        assert!(began.elapsed() < Duration::from_mins(1), "it is not promoted: {:?}", host.info());
        serve(&host, 300).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let end = last(&host.plugins).unwrap().ended.unwrap();
    assert!(end.is_promoted, "{end:?}");
    let info = host.info();
    assert_eq!(info.history[0].why.cause, ActivationCause::Canary);
    let kinds: Vec<_> = host.events().await.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(
        kinds,
        [
            "plugin.activated",
            "plugin.canary_started",
            "plugin.canary_ended",
            "plugin.canary_started",
            "plugin.activated"
        ]
    );

    // What becomes active in another way ends it, and an operator takes it back.
    let start = async |bytes: Vec<u8>| {
        let candidate = host.plugins.candidate(&TEST, bytes).await.unwrap();
        host.plugins.start_canary(candidate, spec, ActivationReason::default()).await
    };
    let refused = start(version("3.0.0")).await.unwrap_err().to_string();
    assert!(refused.contains("serves all sagas already"), "{refused}");
    start(version("4.0.0")).await.unwrap();
    place.write("test", &version("5.0.0"));
    soon("5.0.0 is active", || host.version().as_deref() == Some("5.0.0")).await;
    assert!(!last(&host.plugins).unwrap().ended.unwrap().is_promoted);
    // What replaced a canary can be gone back from.
    host.plugins.rollback(&TEST, None, by("ada")).await.unwrap();
    assert_eq!(host.version().as_deref(), Some("3.0.0"));
    place.write("test", &version("5.0.1"));
    soon("5.0.1 is active", || host.version().as_deref() == Some("5.0.1")).await;
    // Whoever copies what served before wants it back.
    place.write("test", &version("5.0.0"));
    soon("5.0.0 is active", || host.version().as_deref() == Some("5.0.0")).await;
    start(version("6.0.0")).await.unwrap();
    host.plugins.rollback(&TEST, None, by("ada")).await.unwrap();
    assert_eq!(host.version().as_deref(), Some("5.0.0"));
    assert_eq!(last(&host.plugins).unwrap().ended.unwrap().who.as_deref(), Some("ada"));
    let refused = host.plugins.rollback(&TEST, None, by("ada")).await.unwrap_err().to_string();
    assert!(refused.contains("its canary, version 6.0.0, is taken back"), "{refused}");
    let refused = host.plugins.promote(&TEST, "ada".to_owned(), "x".to_owned()).await.unwrap_err();
    assert!(refused.to_string().contains("no canary of it runs"), "{refused}");
    host.close().await;
}

/// What became active, as another host records it.
async fn record(host: &Host, expected: u64, plugin: &str, bytes: &[u8], version: &str) {
    let components = json!([{
        "plugin": plugin, "digest": digest(bytes), "version": version, "previous": null,
    }]);
    let data = json!({"components": components, "cause": "deploy", "who": "ada"}).to_string();
    let append = Append {
        stream: Stream::Deploys,
        expected: Version(expected),
        at: Timestamp::from_millis(1),
        events: vec![NewEvent { kind: "plugin.activated".into(), data }],
        row: None,
        failures: Vec::new(),
        start_key: None,
        state: Vec::new(),
    };
    host.store.append(append).await.unwrap();
}

#[tokio::test]
async fn what_another_host_made_active_is_tried_again_until_it_can_be_loaded() {
    let place = Place::new();
    place.write("test", &version("1.0.0"));
    let host = place.open().await;
    let put = async |name: &str, bytes: Vec<u8>| {
        let (name, of, at) = (name.to_owned(), digest(&bytes), Timestamp::from_millis(0));
        host.store.blobs().put(BlobKind::Component, name, of, at, bytes).await.unwrap();
    };
    let other = Component { name: "other", ..Component::default() }.build();
    put("other", other.clone()).await;
    // Its bytes are not there.
    record(&host, 1, "test", &version("2.0.0"), "2.0.0").await;
    record(&host, 2, "other", &other, "1.2.3").await;
    let name = "other".parse().unwrap();
    soon("one that follows it serves", || host.plugins.active(&name).is_some()).await;
    assert_eq!(host.version().as_deref(), Some("1.0.0"));
    put("test", version("2.0.0")).await;
    soon("2.0.0 serves", || host.version().as_deref() == Some("2.0.0")).await;
    host.close().await;
}

/// Nobody waits for it, so it gives way like a file of the folder.
#[tokio::test]
async fn what_another_host_made_active_is_looked_at_in_the_background() {
    let mut place = Place::new();
    place.write("test", &version("1.0.0"));
    place.open().await.close().await;
    let (program, asked) = (place.cache().join("refuses"), place.cache().join("asked"));
    let to = asked.display();
    let script = format!("#!/bin/sh\nread -r line\necho \"$line\" >>{to}\nexit 1\n");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    place.inspection = Inspection::Child(program);
    let host = place.open().await;
    assert_eq!(host.version().as_deref(), Some("1.0.0"), "from the cache");
    let (name, bytes, at) = ("test".to_owned(), version("2.0.0"), Timestamp::from_millis(0));
    host.store.blobs().put(BlobKind::Component, name, digest(&bytes), at, bytes).await.unwrap();
    record(&host, 1, "test", &version("2.0.0"), "2.0.0").await;
    let requests = || std::fs::read_to_string(&asked).unwrap_or_default();
    soon("2.0.0 is looked at", || requests().contains('\n')).await;
    assert!(requests().contains(r#""is_background":true"#), "{}", requests());
    host.close().await;
}

struct Objects;

impl Guard for Objects {
    fn objection<'a>(
        &'a self,
        _: &'a PluginName,
        _: &'a LoadedComponent,
        _: ActivationCause,
    ) -> Pin<Box<dyn Future<Output = Option<Rejection>> + Send + 'a>> {
        let objection = Rejection::Unreadable { steps: 1, examples: "one".to_owned() };
        Box::pin(std::future::ready(Some(objection)))
    }
}

#[tokio::test]
async fn a_file_that_comes_while_a_host_starts_is_held_against_what_sagas_need() {
    let place = Place::new();
    place.write("test", &version("1.0.0"));
    let host = place.open_only().await;
    place.write("test", &version("2.0.0"));
    // Long enough for the file to be taken, if anybody looked at it.
    tokio::time::sleep(Duration::from_millis(700)).await;
    host.plugins.watch(Some(Arc::new(Objects))).await;
    soon("it is refused", || !host.info().rejections.is_empty()).await;
    assert!(host.info().rejections[0].reason.starts_with("its undo cannot read"));
    assert_eq!(host.version().as_deref(), Some("1.0.0"));
    host.close().await;
}

/// A pipeline that deploys bad builds, for ever.
#[tokio::test]
async fn refusals_are_recorded_once_each_and_a_hundred_between_two_activations() {
    let place = Place::new();
    place.write("test", &version("1.0.0"));
    let host = place.open().await;
    let (_other, follower) = follower(&host).await;
    let reject = async |plugins: &Registry, number: u32| {
        let of = Some(digest(&number.to_be_bytes()));
        plugins.reject(&TEST, of, &Rejection::Compile("x".repeat(100_000))).await.unwrap();
    };
    let recorded = async || {
        let events = host.events().await;
        events.into_iter().filter(|(kind, _)| kind == "plugin.rejected").collect::<Vec<_>>()
    };
    for number in [0, 1, 0, 1, 1, 0] {
        reject(&host.plugins, number).await;
        reject(&follower, number).await;
    }
    assert_eq!(recorded().await.len(), 2);
    assert_eq!(host.info().rejections[0].digest, Some(digest(&0_u32.to_be_bytes())));
    let reason = recorded().await.swap_remove(0).1["reason"].as_str().unwrap().len();
    assert!((4_000..=4_096).contains(&reason), "{reason} bytes of its reason are kept");
    for number in 2..150 {
        reject(&host.plugins, number).await;
    }
    assert_eq!(recorded().await.len(), 100);
    assert_eq!(host.info().rejections.len(), 150, "all of them are shown");
    place.write("test", &version("2.0.0"));
    soon("2.0.0 is active", || host.version().as_deref() == Some("2.0.0")).await;
    reject(&host.plugins, 0).await;
    assert_eq!(recorded().await.len(), 101, "that it is refused again is news");
    follower.close().await;
    host.close().await;
    let host = place.open().await;
    reject(&host.plugins, 0).await;
    assert_eq!(host.info().rejections.len(), 101, "and known after a restart");
    host.close().await;
}

/// Earlier versions wrote what became active in a stream of the plugin.
#[tokio::test]
async fn what_an_earlier_version_recorded_is_known() {
    let place = Place::new();
    let host = place.open().await;
    let bytes = version("0.9.0");
    let (digest, at) = (digest(&bytes), Timestamp::from_millis(7));
    host.store
        .blobs()
        .put(BlobKind::Component, "test".to_owned(), digest, at, bytes)
        .await
        .unwrap();
    let event = |kind: &'static str, data: serde_json::Value| NewEvent {
        kind: kind.into(),
        data: data.to_string(),
    };
    let append = Append {
        stream: Stream::Plugin(TEST.clone()),
        expected: Version(0),
        at,
        events: vec![
            event(
                "plugin.activated",
                json!({"digest": digest, "version": "0.9.0", "previous": null}),
            ),
            event("plugin.rejected", json!({"digest": digest, "reason": "no", "serving": null})),
        ],
        row: None,
        failures: Vec::new(),
        start_key: None,
        state: Vec::new(),
    };
    host.store.append(append).await.unwrap();
    host.close().await;
    let host = place.open().await;
    assert_eq!(host.version().as_deref(), Some("0.9.0"));
    let info = host.info();
    assert_eq!((info.history[0].at, info.history[0].why.cause), (at, ActivationCause::File));
    assert_eq!(info.rejections[0].reason, "no");
    host.close().await;
}
