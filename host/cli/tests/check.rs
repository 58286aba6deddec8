//! `amends check` on broken configs, one kind of mistake each, by the real binary.
//!
//! Every `tests/check/*.toml` is copied beside a folder of plugins that is made here, checked,
//! and its output compared with a snapshot. `contract.toml` and `warnings.toml` are sound.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod components;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

/// The files that are sound; in all others at least one error must be found.
const SOUND: [&str; 19] = [
    "cel_undescribed_field",
    "contract",
    "deadline_too_short",
    "each_input_not_said",
    "input_key_missing",
    "input_key_unknown",
    "input_not_said",
    "keep_without_retention",
    "listen_behind_proxy",
    "no_undo_before_pivot",
    "on_warnings",
    "plugins_broken_unneeded",
    "secret_file_missing",
    "secret_variable_missing",
    "step_unreachable",
    "subscription_warnings",
    "undo_needs_other_input",
    "unknown_plugin_settings",
    "warnings",
];

/// Configs and plugins, side by side.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    for case in cases() {
        std::fs::copy(&case, folder.path().join(case.file_name().unwrap())).unwrap();
    }
    components::write_all(folder.path());
    folder
});

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check");
    let mut cases: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    cases.sort();
    cases
}

/// The real binary, in the folder of the configs, with this environment and no other.
fn amends(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_amends"))
        .args(arguments)
        .current_dir(FOLDER.path())
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Says `DIGEST` for digests: another compiler makes other components.
fn without_digests(text: &str) -> String {
    let is_digest = |word: &str| word.len() >= 12 && word.bytes().all(|b| b.is_ascii_hexdigit());
    text.split_inclusive(|c: char| !c.is_ascii_alphanumeric())
        .map(|part| {
            let word = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            if is_digest(word) { part.replace(word, "DIGEST") } else { part.to_owned() }
        })
        .collect()
}

#[test]
fn each_mistake_is_named_with_file_line_key_and_remedy() {
    let environment = [("INVENTORY_API_KEYS", "hunter2")];
    let cases = cases();
    let broken = cases.iter().filter(|case| !SOUND.contains(&name_of(case)));
    assert!(broken.count() >= 24, "kinds of mistakes are missing");
    for case in &cases {
        let name = name_of(case);
        if name == "contract" {
            continue;
        }
        let file = format!("{name}.toml");
        let output = amends(&["check", &file], &environment);
        let text = stdout(&output);
        let is_sound = SOUND.contains(&name);
        assert_eq!(output.status.code(), Some(i32::from(!is_sound)), "{name}: {text}");
        assert!(!text.contains("hunter2"), "{name} tells a secret: {text}");
        assert_form(name, &file, is_sound, &text);
        insta::with_settings!({ snapshot_path => "check/snapshots", prepend_module_to_snapshot => false, omit_expression => true, filters => vec![(r"after \d+ bytes", "after N bytes")] }, {
            insta::assert_snapshot!(name, without_digests(&text));
        });
    }
}

/// Every finding is two lines: place, severity, key and message; then the remedy.
fn assert_form(name: &str, file: &str, is_sound: bool, text: &str) {
    let source = std::fs::read_to_string(FOLDER.path().join(file)).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let findings: Vec<_> = lines
        .iter()
        .enumerate()
        .filter(|(_, line)| line.contains(": error: ") || line.contains(": warning: "))
        .collect();
    assert!(!findings.is_empty(), "{name}: nothing was found: {text}");
    let errors = findings.iter().filter(|(_, line)| line.contains(": error: ")).count();
    assert_eq!(errors == 0, is_sound, "{name}: {text}");
    let mut last = 0;
    for (index, finding) in findings {
        let rest = finding.strip_prefix(file).unwrap_or_else(|| panic!("{name}: {finding}"));
        let (place, message) = rest.split_once(": ").unwrap();
        // A file without a saga has no line to name.
        if !matches!(name, "no_saga" | "empty") {
            let line: usize = place.split(':').nth(1).unwrap().parse().unwrap();
            assert!((1..=source.lines().count()).contains(&line), "{name}: {finding}");
            assert!(line >= last, "{name}: findings are not in the order of lines: {text}");
            last = line;
        }
        let (_severity, message) = message.split_once(": ").unwrap();
        let (key, message) = message.split_once(": ").unwrap();
        assert!(!key.contains(' ') || key.contains('"'), "{name}: no key in {finding}");
        assert!(!message.is_empty(), "{name}: {finding}");
        let help = lines[index + 1].strip_prefix("    help: ");
        assert!(help.is_some_and(|help| help.len() > 5), "{name}: no remedy for {finding}");
    }
}

fn name_of(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

#[test]
fn the_whole_contract_is_read() {
    let key = [("INVENTORY_API_KEY", "hunter2")];
    let output = amends(&["check", "contract.toml"], &key);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(!text.contains("hunter2"));
    insta::with_settings!({ snapshot_path => "check/snapshots", prepend_module_to_snapshot => false, omit_expression => true, filters => vec![(r"after \d+ bytes", "after N bytes")] }, {
        insta::assert_snapshot!("contract", without_digests(&text));
    });
}

#[test]
fn the_plugins_of_the_repository_serve_the_contract() {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    let plugins = plugins.canonicalize().unwrap();
    let arguments =
        ["check", "contract.toml", "-o", "json", "--plugins-dir", plugins.to_str().unwrap()];
    let output = amends(&arguments, &[("INVENTORY_API_KEY", "hunter2")]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let found = answer["plugins"].as_array().unwrap();
    assert_eq!(found.len(), 4, "{text}");
    for plugin in found {
        let file = plugins.join(format!("{}.wasm", plugin["name"].as_str().unwrap()));
        let digest = amends_engine::Digest::of(&std::fs::read(file).unwrap()).to_string();
        assert_eq!(plugin["digest"], digest);
    }
}

#[test]
fn json_says_the_same() {
    let key = [("INVENTORY_API_KEY", "hunter2")];
    let output = amends(&["check", "contract.toml", "-o", "json"], &key);
    let answer: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(answer["ok"], true);
    assert_eq!(answer["definitions"][0]["name"], "order-fulfillment");
    assert_eq!(
        answer["definitions"][0]["steps"],
        serde_json::json!(["prescription", "inventory", "shipment"])
    );
    let plugins = answer["plugins"].as_array().unwrap();
    assert_eq!(plugins.len(), 4, "the undo's plugin is one of them");
    assert!(plugins.iter().all(|plugin| plugin["version"] == "1.2.3"), "{plugins:?}");

    let output = amends(&["check", "unknown_after.toml", "-o", "json"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let answer: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(answer["ok"], false);
    assert_eq!(answer["errors"], 1);
    let finding = &answer["findings"][0];
    assert_eq!(finding["severity"], "error");
    assert_eq!(finding["file"], "unknown_after.toml");
    assert_eq!(finding["line"], 11);
    assert_eq!(finding["key"], "saga.order-fulfillment.step.shipment.after[1]");
    assert!(finding["help"].as_str().unwrap().len() > 5);
}

#[test]
fn a_flag_stands_above_the_environment_and_that_above_the_file() {
    let environment = [("INVENTORY_API_KEY", "k"), ("AMENDS_LISTEN", "10.0.0.1:80")];
    let output = amends(&["check", "contract.toml"], &environment);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("environment AMENDS_LISTEN: error: host.listen: 10.0.0.1:80"), "{text}");

    let output = amends(&["check", "contract.toml", "--listen", "127.0.0.1:80"], &environment);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));

    let output = amends(&["check", "contract.toml", "--plugins-dir", "no-such"], &environment[..1]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("no-such"), "{text}");
}

#[test]
fn a_file_that_is_not_there_and_wrong_usage() {
    let output = amends(&["check", "no-such.toml"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.starts_with("no-such.toml: error: there is no such file\n    help: "), "{text}");
    let output = amends(&["check", "plugins"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("it is a folder"));
    assert_eq!(amends(&["check"], &[]).status.code(), Some(2));
}

/// Whoever checks a config need not have the secrets of the host that runs it.
#[test]
fn secrets_that_are_not_there_are_errors_where_they_are_wanted() {
    for config in ["secret_variable_missing.toml", "secret_file_missing.toml"] {
        let output = amends(&["check", config], &[]);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.contains(": warning: plugin.inventory.secrets.api_key."), "{text}");
        let output = amends(&["check", config, "--secrets"], &[]);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(": error: plugin.inventory.secrets.api_key."), "{text}");
        let output = amends(&["run", config], &[]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(": error: plugin.inventory.secrets.api_key."), "{told}");
    }
}

#[test]
fn a_host_does_not_start_with_a_log_filter_that_it_cannot_read() {
    let output = amends(&["run", "contract.toml"], &[("AMENDS_LOG", "debgu")]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let told = "error: AMENDS_LOG is `debgu`: `debgu` is not a level\n  help: write a level (";
    assert!(stderr.starts_with(told), "{stderr}");
}
