//! Keys and signed components, by the verbs, and on a host that trusts one key.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use amends_tests::Component;
use serde_json::Value;

use crate::place::{Place, stderr, stdout};

fn component(version: &str) -> Vec<u8> {
    Component { name: "pack", version, ..Component::default() }.build()
}

fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stdout(output)
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", stdout(output));
    stderr(output)
}

/// A pair of keys without a password; the public one.
pub(crate) fn keygen(place: &Place, name: &str) -> String {
    let told = done(&place.amends(&["plugin", "keygen", name, "--no-password"]));
    let line = told.lines().find(|line| line.starts_with("trusted_keys = ")).unwrap();
    line.split('"').nth(1).unwrap().to_owned()
}

fn mode(place: &Place, name: &str) -> u32 {
    fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777
}

/// A config with one saga, whose host trusts these keys.
fn config(place: &Place, trusted_keys: &str) {
    place.config("[[saga]]\nname = \"order\"\n[[saga.step]]\nname = \"pack\"\nplugin = \"pack\"\n");
    let text = fs::read_to_string(place.path("amends.toml")).unwrap();
    let plugins = format!("[plugins]\ntrusted_keys = [{trusted_keys}]\n");
    fs::write(place.path("amends.toml"), text.replace("[plugins]\n", &plugins)).unwrap();
}

#[test]
fn a_key_is_made_once_and_its_secret_half_is_its_owners() {
    let place = Place::empty();
    let public = keygen(&place, "release");
    assert_eq!(mode(&place, "release.key"), 0o600);
    let file = fs::read_to_string(place.path("release.pub")).unwrap();
    assert_eq!(file.lines().nth(1), Some(public.as_str()));
    let secret = fs::read(place.path("release.key")).unwrap();
    let again = place.amends(&["plugin", "keygen", "release", "--no-password"]);
    assert!(refused(&again).contains("release.key is there already"));
    fs::remove_file(place.path("release.key")).unwrap();
    let again = place.amends(&["plugin", "keygen", "release", "--no-password"]);
    assert!(refused(&again).contains("release.pub is there already"));
    assert!(!place.path("release.key").exists(), "half a pair is of no use");
    fs::write(place.path("release.key"), &secret).unwrap();
    let nowhere = place.amends(&["plugin", "keygen", "no/such", "--no-password"]);
    assert!(refused(&nowhere).contains("no/such.key cannot be written"));
}

#[test]
fn a_component_is_signed_in_place_or_beside_and_a_failure_leaves_it() {
    let place = Place::empty();
    keygen(&place, "release");
    let built = component("1.0.0");
    fs::write(place.path("pack.wasm"), &built).unwrap();
    fs::set_permissions(place.path("pack.wasm"), fs::Permissions::from_mode(0o640)).unwrap();
    let sign = |arguments: &[&str]| {
        place.amends(&[&["plugin", "sign", "pack.wasm", "--key"], arguments].concat())
    };
    done(&sign(&["release.key", "-o", "signed.wasm"]));
    assert_eq!(fs::read(place.path("pack.wasm")).unwrap(), built);
    assert!(fs::read(place.path("signed.wasm")).unwrap().starts_with(&built));
    assert_eq!(mode(&place, "signed.wasm"), 0o640);

    assert!(
        refused(&sign(&["release.pub"])).contains("release.pub cannot be used as a secret key")
    );
    assert!(refused(&sign(&["no.key"])).contains("cannot read no.key"));
    fs::write(place.path("damaged.key"), damaged(&place, "release.key")).unwrap();
    assert!(refused(&sign(&["damaged.key"])).contains("damaged.key: "));
    fs::write(place.path("text.wasm"), "fn main() {}").unwrap();
    let text = place.amends(&["plugin", "sign", "text.wasm", "--key", "release.key"]);
    assert!(refused(&text).contains("it is not WebAssembly"));
    assert!(refused(&sign(&["release.key", "-o", "no/such.wasm"])).contains("cannot be written"));
    assert_eq!(fs::read(place.path("pack.wasm")).unwrap(), built);

    done(&sign(&["release.key"]));
    keygen(&place, "next");
    done(&sign(&["next.key"]));
    assert_eq!(mode(&place, "pack.wasm"), 0o640);
    let signed = fs::read(place.path("pack.wasm")).unwrap();
    done(&sign(&["release.key"]));
    assert_eq!(fs::read(place.path("pack.wasm")).unwrap().len(), signed.len(), "signed again");
    let left = fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with(".amends")));
    let inspect = ["plugin", "inspect", "pack.wasm", "-o", "json"];
    let inspected: Value = serde_json::from_str(&done(&place.amends(&inspect))).unwrap();
    assert_eq!(inspected["signed_by"].as_array().unwrap().len(), 2, "{inspected}");
}

/// A key with one of its digits changed.
fn damaged(place: &Place, name: &str) -> String {
    let text = fs::read_to_string(place.path(name)).unwrap();
    let (comment, key) = text.split_once('\n').unwrap();
    let (begin, end) = key.split_at(100);
    let other = if end.starts_with('A') { 'B' } else { 'A' };
    format!("{comment}\n{begin}{other}{}", &end[1..])
}

#[test]
fn a_key_with_a_password_wants_it() {
    let place = Place::empty();
    fs::write(place.path("pack.wasm"), component("1.0.0")).unwrap();
    let with = |password: &str, arguments: &[&str]| {
        place.command(arguments).env("AMENDS_KEY_PASSWORD", password).output().unwrap()
    };
    done(&with("horse", &["plugin", "keygen", "release"]));
    let sign = ["plugin", "sign", "pack.wasm", "--key", "release.key"];
    let told = refused(&with("donkey", &sign));
    assert!(told.contains("Wrong password"), "{told}");
    let told = done(&with("horse", &sign));
    assert!(!told.contains("horse"), "{told}");
    // One that has none is used whatever the environment says.
    keygen(&place, "open");
    done(&with("horse", &["plugin", "sign", "pack.wasm", "--key", "open.key"]));
}

#[test]
fn a_host_that_trusts_a_key_takes_what_it_signed_and_nothing_else() {
    let place = Place::empty();
    let public = keygen(&place, "release");
    let other = keygen(&place, "other");
    config(&place, &format!("\"{public}\""));
    fs::write(place.plugin("pack"), component("1.0.0")).unwrap();
    let told = place.amends(&["check", "amends.toml"]);
    assert_eq!(told.status.code(), Some(1));
    assert!(stdout(&told).contains("it is not signed"), "{}", stdout(&told));
    done(&place.amends(&["plugin", "sign", "plugins/pack.wasm", "--key", "release.key"]));
    done(&place.amends(&["check", "amends.toml"]));
    let host = place.run();

    let inspect =
        |file: &str| done(&place.amends(&["plugin", "inspect", file, "--config", "amends.toml"]));
    let deploy = |file: &str| place.amends(&["plugin", "deploy", &format!("pack={file}")]);
    fs::write(place.path("new.wasm"), component("2.0.0")).unwrap();
    let told = inspect("new.wasm");
    assert!(told.contains("signed   by nobody") && told.contains("it would be refused: it is not"));
    assert!(refused(&deploy("new.wasm")).contains("plugin pack: it is not signed"));
    done(&place.amends(&["plugin", "sign", "new.wasm", "--key", "other.key"]));
    assert!(inspect("new.wasm").contains("it would be refused: it is signed by key"));
    assert!(refused(&deploy("new.wasm")).contains("which is not in [plugins] trusted_keys"));
    done(&place.amends(&["plugin", "sign", "new.wasm", "--key", "release.key"]));
    assert!(inspect("new.wasm").contains("it would be served"));
    let mut changed = fs::read(place.path("new.wasm")).unwrap();
    let at = changed.windows(5).position(|part| part == b"2.0.0").unwrap();
    changed[at] = b'3';
    fs::write(place.path("changed.wasm"), changed).unwrap();
    assert!(inspect("changed.wasm").contains("does not fit its bytes"));
    assert!(refused(&deploy("changed.wasm")).contains("does not fit its bytes"));
    assert_eq!(host.get("/v1/plugins/pack")["version"], "1.0.0");

    done(&deploy("new.wasm"));
    assert_eq!(host.get("/v1/plugins/pack")["version"], "2.0.0");
    done(&place.amends(&["start", "order", "--wait"]));
    assert_eq!(host.stop(), Some(0));

    // Both keys have signed it; the first component has the release key's alone.
    config(&place, &format!("\"{other}\""));
    let host = place.run();
    assert_eq!(host.get("/v1/plugins/pack")["version"], "2.0.0", "served from the store");
    let back = place.amends(&["plugin", "rollback", "pack", "--reason", "test"]);
    assert!(refused(&back).contains("which is not in [plugins] trusted_keys"), "{}", stderr(&back));
    assert_eq!(host.get("/v1/plugins/pack")["version"], "2.0.0");
    assert_eq!(host.stop(), Some(0));
}
