//! The plugin folder: whoever can write a file into it can delay nobody, name nothing otherwise than
//! it is, and have the host read nothing else.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Output;

use amends_tests::Component;
use serde_json::Value;

use crate::place::{Host, Place, agent, stderr, stdout};

/// What a component of the largest size has, in bytes.
const COMPONENT_BYTES_MAX: u64 = 64 << 20;

fn component(name: &str, version: &str) -> Vec<u8> {
    Component { name, version, ..Component::default() }.build()
}

/// A definition with one step, of the plugin `good`; what else the config says.
fn place_with(config: &str) -> Place {
    let place = Place::empty();
    place.config(&format!(
        "{config}[[saga]]\nname = \"good\"\n[[saga.step]]\nname = \"one\"\nplugin = \"good\"\n"
    ));
    place
}

fn place() -> Place {
    let place = place_with("");
    fs::write(place.plugin("good"), component("good", "1.0.0")).unwrap();
    place
}

/// The failpoint at which a file's load is held, for these bytes.
fn held(bytes: &[u8]) -> String {
    format!("plugins.load.before=return({})", digest(bytes).replace("sha256:", ""))
}

fn digest(bytes: &[u8]) -> String {
    amends_engine::Digest::of(bytes).to_string()
}

fn version(host: &Host, plugin: &str) -> Value {
    let mut response = agent().get(host.url(&format!("/v1/plugins/{plugin}"))).call().unwrap();
    let plugin: Value = response.body_mut().read_json().unwrap();
    plugin["version"].clone()
}

fn rejection(host: &Host, plugin: &str) -> String {
    let plugin = host.get(&format!("/v1/plugins/{plugin}"));
    plugin["last_rejection"]["reason"].as_str().unwrap_or_default().to_owned()
}

fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stdout(output)
}

fn has_line(log: &[String], words: &[&str]) -> bool {
    log.iter().any(|line| words.iter().all(|word| line.contains(word)))
}

#[test]
fn a_file_that_takes_for_ever_delays_no_other_and_ends_with_its_next_version() {
    let place = place();
    let slow = component("a-slow", "1.0.0");
    let host = place.spawn_with(&held(&slow));
    host.until("it is ready", || version_or_none(&host, "good") == "1.0.0");
    fs::write(place.plugin("a-slow"), &slow).unwrap();
    host.until("it is held", || has_line(&host.log(), &["call is held"]));
    for version in ["2.0.0", "3.0.0"] {
        fs::write(place.plugin("good"), component("good", version)).unwrap();
        host.until("the other one is active", || self::version(&host, "good") == version);
    }
    fs::write(place.plugin("a-slow"), component("a-slow", "2.0.0")).unwrap();
    host.until("its next version is active", || version_or_none(&host, "a-slow") == "2.0.0");
    assert_eq!(host.stop(), Some(0));
}

/// As [`version`], also while nobody answers.
fn version_or_none(host: &Host, plugin: &str) -> Value {
    let answer = agent().get(host.url(&format!("/v1/plugins/{plugin}"))).call();
    let Ok(mut response) = answer else { return Value::Null };
    let plugin: Value = response.body_mut().read_json().unwrap();
    plugin["version"].clone()
}

#[test]
fn a_start_serves_what_the_store_has_before_it_looks_at_new_files() {
    let place = place();
    assert_eq!(place.run().stop(), Some(0));
    let slow = component("good", "2.0.0");
    fs::write(place.plugin("good"), &slow).unwrap();
    fs::write(place.plugin("unneeded"), component("unneeded", "1.0.0")).unwrap();
    let mut host = place.spawn_with(&held(&slow));
    assert!(host.becomes_ready());
    host.until("the new file is looked at", || has_line(&host.log(), &["call is held"]));
    assert_eq!(version(&host, "good"), "1.0.0");
    done(&place.amends(&["start", "good", "--wait"]));
    host.until("another is active", || version_or_none(&host, "unneeded") == "1.0.0");
    fs::write(place.plugin("good"), component("good", "3.0.0")).unwrap();
    host.until("the next one is active", || version(&host, "good") == "3.0.0");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_first_start_says_what_it_compiles_and_waits_for_what_definitions_need() {
    let place = place();
    let unneeded = component("unneeded", "1.0.0");
    fs::write(place.plugin("unneeded"), &unneeded).unwrap();
    let mut host = place.spawn_with(&held(&unneeded));
    assert!(host.becomes_ready());
    done(&place.amends(&["start", "good", "--wait"]));
    let bytes = fs::metadata(place.plugin("good")).unwrap().len().to_string();
    assert!(has_line(&host.log(), &["\"compiling\"", "\"plugin\":\"good\"", &bytes]));
    assert_eq!(host.stop(), Some(0));
    let host = place.run();
    assert!(!has_line(&host.log(), &["\"compiling\"", "\"plugin\":\"good\""]), "it is cached");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_component_of_another_name_is_refused_in_the_folder_as_over_http() {
    let place = place();
    let host = place.run();
    fs::write(place.plugin("good"), component("evil", "2.0.0")).unwrap();
    host.until("it is refused", || !rejection(&host, "good").is_empty());
    let reason = rejection(&host, "good");
    for words in ["says that it is `evil`", "what serves says `good`", "component = \"evil\""] {
        assert!(reason.contains(words), "{words}: {reason}");
    }
    assert_eq!(version(&host, "good"), "1.0.0");
    fs::write(place.path("evil.wasm"), component("evil", "2.0.0")).unwrap();
    let told = place.amends(&["plugin", "deploy", "good=evil.wasm"]);
    assert_eq!(told.status.code(), Some(1));
    assert!(stderr(&told).contains("says that it is `evil`"), "{}", stderr(&told));
    // What an operator has forced is what serves from then on, and what a file is held against.
    let force = ["plugin", "deploy", "good=evil.wasm", "--force", "--reason", "it is renamed"];
    done(&place.amends(&force));
    fs::write(place.plugin("good"), component("evil", "3.0.0")).unwrap();
    host.until("the next one is active", || version(&host, "good") == "3.0.0");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_first_start_refuses_a_component_of_another_name_unless_the_config_has_it() {
    let place = place_with("");
    fs::write(place.plugin("good"), component("evil", "1.0.0")).unwrap();
    let host = place.spawn();
    host.until("it says why", || {
        has_line(&host.log(), &["says that it is `evil`", "the plugin is `good`"])
    });
    assert_eq!(host.ended(), Some(1));
    let check = place.amends(&["check", "amends.toml"]);
    assert_eq!(check.status.code(), Some(1), "{}", stdout(&check));
    assert!(stdout(&check).contains("says that it is `evil`"), "{}", stdout(&check));

    let place = place_with("[plugin.good]\ncomponent = \"evil\"\n");
    fs::write(place.plugin("good"), component("evil", "1.0.0")).unwrap();
    done(&place.amends(&["check", "amends.toml"]));
    let host = place.run();
    done(&place.amends(&["start", "good", "--wait"]));
    fs::write(place.plugin("good"), component("good", "2.0.0")).unwrap();
    host.until("it is refused", || rejection(&host, "good").contains("says that it is `good`"));
    assert_eq!(version(&host, "good"), "1.0.0");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_link_that_leaves_the_folder_is_refused_and_nothing_behind_it_is_shown() {
    let place = place();
    fs::write(place.path("shadow"), "hunter2:*:20228:0:99999").unwrap();
    let host = place.run();
    symlink(place.path("shadow"), place.plugin("linked")).unwrap();
    host.until("it is refused", || {
        has_line(&host.log(), &["component is refused", "a symbolic link", "linked"])
    });
    assert!(rejection(&host, "linked").contains("copy the component itself"));
    // A relative one, and one of a component that would serve.
    fs::write(place.path("good.wasm"), component("good", "2.0.0")).unwrap();
    fs::remove_file(place.plugin("good")).unwrap();
    symlink("../good.wasm", place.plugin("good")).unwrap();
    host.until("it is refused", || rejection(&host, "good").contains("a symbolic link"));
    assert_eq!(version(&host, "good"), "1.0.0");
    // A file that is no component is not shown either.
    fs::write(place.plugin("text"), "hunter2 is a password").unwrap();
    host.until("it is refused", || {
        has_line(&host.log(), &["it is not WebAssembly", "\"plugin\":\"text\""])
    });
    let plugins = host.get("/v1/plugins").to_string() + &rejection(&host, "text");
    assert!(!plugins.contains("hunter2"), "{plugins}");
    let events: String = host.events().iter().map(Value::to_string).collect();
    assert!(!events.contains("hunter2"), "{events}");
    let (code, log) = host.stop_logged();
    assert_eq!(code, Some(0));
    assert!(!has_line(&log, &["hunter2"]));
}

/// Kubernetes mounts a ConfigMap like this: links that stay in the folder, of which one is replaced.
#[test]
fn links_that_stay_in_the_folder_are_followed_and_seen_to_change() {
    let place = place_with("");
    let folder = place.plugins();
    for (data, version) in [("..2026_1", "1.0.0"), ("..2026_2", "2.0.0")] {
        fs::create_dir(folder.join(data)).unwrap();
        fs::write(folder.join(data).join("good.wasm"), component("good", version)).unwrap();
    }
    symlink("..2026_1", folder.join("..data")).unwrap();
    symlink("..data/good.wasm", place.plugin("good")).unwrap();
    let host = place.run();
    assert_eq!(version(&host, "good"), "1.0.0");
    symlink("..2026_2", folder.join("..new")).unwrap();
    fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
    host.until("the next one is active", || version(&host, "good") == "2.0.0");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_file_that_is_too_large_is_refused_and_not_read() {
    let place = place();
    let host = place.run();
    let before = host.memory_peak_mib();
    let bytes = 4 * COMPONENT_BYTES_MAX;
    fs::File::create(place.plugin("big")).unwrap().set_len(bytes).unwrap();
    host.until("it is refused", || has_line(&host.log(), &["component is refused", "big"]));
    let reason = rejection(&host, "big");
    assert!(reason.contains(&format!("it has {bytes} bytes, at most {COMPONENT_BYTES_MAX}")));
    let after = host.memory_peak_mib();
    assert!(after < before + 100, "{before} MiB before, {after} MiB at most after");
    let check = place.amends(&["check", "amends.toml"]);
    assert!(stdout(&check).contains("it has 268435456 bytes"), "{}", stdout(&check));
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_start_says_why_a_plugin_is_not_served_by_its_file() {
    let place = place();
    let host = place.run();
    fs::write(place.path("good.wasm"), component("good", "2.0.0")).unwrap();
    done(&place.amends(&["plugin", "deploy", "good.wasm"]));
    done(&place.amends(&["plugin", "rollback", "good", "--reason", "test"]));
    assert_eq!(version(&host, "good"), "1.0.0");
    assert_eq!(host.stop(), Some(0));
    // The file has exactly these bytes.
    let log = looked_at(&place);
    assert!(!has_line(&log, &["\"level\":\"WARN\""]), "{}", log.join("\n"));

    let host = place.run();
    done(&place.amends(&["plugin", "deploy", "good.wasm"]));
    assert_eq!(host.stop(), Some(0));
    let log = looked_at(&place);
    let other = digest(&component("good", "1.0.0"));
    assert!(has_line(&log, &["\"level\":\"WARN\"", "its file holds another", &other]));
    assert!(!has_line(&log, &["its file is gone"]), "{}", log.join("\n"));

    let host = place.run();
    fs::write(place.plugin("good"), component("good", "3.0.0")).unwrap();
    host.until("it is active", || version(&host, "good") == "3.0.0");
    assert_eq!(host.stop(), Some(0));
    fs::remove_file(place.plugin("good")).unwrap();
    let log = looked_at(&place);
    assert!(has_line(&log, &["\"level\":\"WARN\"", "its file is gone"]), "{}", log.join("\n"));
    assert!(!has_line(&log, &["its file holds another"]), "{}", log.join("\n"));

    fs::write(place.plugin("good"), "no component").unwrap();
    let log = looked_at(&place);
    assert!(!has_line(&log, &["\"level\":\"WARN\""]), "{}", log.join("\n"));
    assert!(has_line(&log, &["component is refused", "it is not WebAssembly"]));
}

/// What a host logs that starts, looks at every file and stops: the last of them is a new one.
fn looked_at(place: &Place) -> Vec<String> {
    let number = fs::read_dir(place.plugins()).unwrap().count();
    let name = format!("zz-{number}");
    fs::write(place.plugin(&name), component(&name, "1.0.0")).unwrap();
    let host = place.run();
    host.until("a new file is active", || version_or_none(&host, &name) == "1.0.0");
    fs::write(place.plugin("zz"), "no component").unwrap();
    host.until("the files are looked at", || has_line(&host.log(), &["refused", "\"zz\""]));
    fs::remove_file(place.plugin("zz")).unwrap();
    let (code, log) = host.stop_logged();
    assert_eq!(code, Some(0));
    log
}

/// A pipeline that deploys two bad builds in turn, for ever.
#[test]
fn refusals_that_alternate_are_recorded_once_each() {
    let place = place();
    let host = place.run();
    for (name, bytes) in [("one", "no component"), ("two", "no component either")] {
        fs::write(place.path(&format!("{name}.wasm")), bytes).unwrap();
    }
    for _ in 0..5 {
        for file in ["good=one.wasm", "good=two.wasm"] {
            assert_eq!(place.amends(&["plugin", "deploy", file]).status.code(), Some(1));
        }
    }
    let recorded =
        || host.events().iter().filter(|event| event["type"] == "plugin.rejected").count();
    assert_eq!(recorded(), 2);
    let last = host.get("/v1/plugins/good")["last_rejection"]["digest"].clone();
    assert_eq!(last, digest(b"no component either"), "the last one is shown as the last");
    // After a good one they are news.
    fs::write(place.path("good.wasm"), component("good", "2.0.0")).unwrap();
    done(&place.amends(&["plugin", "deploy", "good.wasm"]));
    assert_eq!(place.amends(&["plugin", "deploy", "good=one.wasm"]).status.code(), Some(1));
    assert_eq!(recorded(), 3);
    assert_eq!(host.stop(), Some(0));
}
