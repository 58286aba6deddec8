//! Files that somebody else wrote: configs, and components in the child process of the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stdout, reason = "a test says what it has tried")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use amends::{Format, check_file};
use amends_config::{CONFIG_BYTES_MAX, Environment, Overrides, Place, Report, Severity, load};
use amends_engine::Definition;
use amends_fuzz::{Shape, Target};
use amends_sandbox::{Inspection, Loader, PluginSettings, Priority, Rejection, TrustedKeys};
use amends_tests::{Component, HOSTILE};
use toml::de::{DeTable, DeValue};

const CONFIG_TIME_MAX: Duration = Duration::from_secs(2);

/// Compiling what a component of half a megabyte has takes seconds, and machines are shared.
const CHILD_TIME_MAX: Duration = Duration::from_mins(1);

/// What no report may say.
const SECRET: &str = "hunter2-and-more";

/// A config that is sound is looked at with its folder of plugins once in so many times.
const LINTED: u64 = 50;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every config of the examples and of the tests.
fn configs() -> Vec<Vec<u8>> {
    let tests = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check")).unwrap();
    let tests = tests.map(|entry| entry.unwrap().path());
    let examples = fs::read_dir(repository().join("examples")).unwrap();
    let examples = examples.map(|entry| entry.unwrap().path().join("amends.toml"));
    let mut all: Vec<_> = tests.chain(examples).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    all.sort();
    let all: Vec<_> = all.iter().filter_map(|path| fs::read(path).ok()).collect();
    assert!(all.len() > 80, "{} configs", all.len());
    all
}

#[expect(clippy::too_many_lines, reason = "its seeds are a list")]
#[test]
fn any_config_is_sound_or_told_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("amends.toml");
    fs::create_dir(folder.path().join("plugins")).unwrap();
    fs::write(folder.path().join("key.txt"), SECRET).unwrap();
    let pipe = Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap();
    assert!(pipe.success());
    let environment = Environment::from_iter([
        ("INVENTORY_API_KEY", SECRET),
        ("INVENTORY_API_KEYS", SECRET),
        ("EMPTY", ""),
    ]);
    let overrides = Overrides { environment, ..Overrides::default() };
    let words = [
        "[host]",
        "[store]",
        "[plugins]",
        "[plugin.inventory]",
        "[service.carrier]",
        "[[saga]]",
        "[[saga.step]]",
        "[[subscription]]",
        "[auth]",
        "[telemetry]",
        "name",
        "listen",
        "memory_max",
        "public_url",
        "evidence_key",
        "tls",
        "certificate",
        "key",
        "admin_token",
        "rate",
        "per_second",
        "burst",
        "proxy",
        "peers",
        "roles",
        "groups",
        "payloads",
        "otlp",
        "protocol",
        "sample",
        "link_after",
        "url",
        "durability",
        "retention",
        "archive",
        "dir",
        "cache",
        "trusted_keys",
        "cpu_max",
        "concurrency",
        "reuse",
        "host_calls_max",
        "log_rate",
        "payload_max",
        "state_max",
        "table_elements_max",
        "instances_max",
        "allow_hosts",
        "connect_timeout",
        "request_timeout",
        "response_max",
        "component",
        "settings",
        "secrets",
        "env",
        "file",
        "state",
        "events",
        "breaker",
        "failures",
        "failure_rate",
        "window",
        "calls_min",
        "open_for",
        "half_open",
        "on_open",
        "definitions",
        "types",
        "from",
        "source",
        "batch",
        "bytes",
        "attempts_max",
        "age_max",
        "pause_max",
        "after_dead_letter",
        "deadline",
        "compensate_within",
        "keep",
        "step",
        "plugin",
        "service",
        "after",
        "when",
        "input",
        "each",
        "list",
        "timeout",
        "retry",
        "attempts",
        "backoff",
        "initial",
        "factor",
        "max",
        "jitter",
        "undo",
        "pivot",
        "wait",
        "signal",
        "sleep",
        "saga",
        "\"30s\"",
        "\"64MiB\"",
        "\"18446744073709551615d\"",
        "true",
        "false",
        "inf",
        "nan",
        "1979-05-27T07:32:00Z",
        "0x7f",
        "1_000",
        "{ env = \"INVENTORY_API_KEY\" }",
        "INVENTORY_API_KEY",
        "{ file = \"key.txt\" }",
        "\"/dev/zero\"",
        "\"pipe\"",
        "\"/proc/self/environ\"",
        "\"../..\"",
        "\"sqlite:data/amends.db\"",
        "\"127.0.0.1:0\"",
        "\"0.0.0.0:0\"",
        "\"proxy\"",
        "\"[::1]:9\"",
        "\"https://*.example.com:443\"",
        "\"10.0.0.0/8\"",
        "\"input.a == 1\"",
        "\"steps.a.output.b\"",
        "\"'text'\"",
        "\"\"\"",
        "'''",
        "= {",
        "}",
        "[[",
        "]]",
        "\\u0000",
        "\\x1b",
        "\u{1b}[2J",
        "\u{202e}",
        "\u{feff}",
        "#",
        "\r\n",
        ".",
        "\" \"",
    ];
    let mut sound = 0_u64;
    Target {
        name: "config",
        seeds: configs(),
        words: &words,
        shape: Shape::Text,
        bytes_max: CONFIG_BYTES_MAX + 1,
        time_max: CONFIG_TIME_MAX,
    }
    .run(|bytes| {
        fs::write(&path, bytes).unwrap();
        let text = String::from_utf8_lossy(bytes);
        let report = match load(&path, &overrides) {
            Ok(loaded) => {
                assert_eq!(loaded.report.errors(), 0);
                assert!(!format!("{loaded:?}").contains(SECRET), "a secret is printed");
                loaded.config.definitions.iter().for_each(assert_kept);
                sound += 1;
                if sound.is_multiple_of(LINTED) {
                    lint(&path, &overrides);
                }
                loaded.report
            }
            Err(report) => {
                assert!(report.errors() > 0, "it is refused without a reason");
                report
            }
        };
        assert_form(&text, &report);
        if let Ok(text) = str::from_utf8(bytes) {
            assert_unknown_keys_are_told(text, &report);
        }
        let first = report.findings().first();
        first.map_or("sound".to_owned(), |one| format!("{} {} {}", one.key, one.message, one.help))
    });
}

/// A definition that was taken is read back from the store as the same.
fn assert_kept(definition: &Definition) {
    let again = Definition::from_canonical(&definition.canonical()).unwrap();
    assert_eq!(again.spec(), definition.spec());
    assert_eq!(again.digest(), definition.digest());
}

fn lint(path: &Path, overrides: &Overrides) {
    for format in [Format::Table, Format::Json] {
        let checked = check_file(path, overrides, Severity::Error, format).unwrap();
        assert!(!checked.text.contains(SECRET), "{}", checked.text);
    }
}

/// Each finding is two lines, at a place that there is.
fn assert_form(text: &str, report: &Report) {
    let shown = report.to_string();
    assert!(!shown.contains(SECRET), "{shown}");
    assert_eq!(shown.lines().count(), 2 * report.findings().len(), "{shown}");
    let lines: Vec<&str> = text.split('\n').collect();
    let mut last = Place::File;
    for finding in report.findings() {
        assert!(!finding.message.is_empty() && finding.help.len() > 5, "{finding:?}");
        assert!(finding.place >= last || finding.place == Place::File, "{shown}");
        last = finding.place;
        if let Place::At(position) = finding.place {
            let line = lines.get(position.line - 1).unwrap_or_else(|| panic!("{finding:?}"));
            assert!((1..=line.chars().count() + 1).contains(&position.column), "{finding:?}");
        }
    }
    assert_eq!(report.to_json().as_array().unwrap().len(), report.findings().len());
}

fn assert_unknown_keys_are_told(text: &str, report: &Report) {
    // Of very many findings the first are told, and nothing is read of what is too large or too deep.
    let is_cut = report.findings().len() >= 1_000;
    let is_deep = report.findings().iter().any(|one| one.message.contains("brackets are open"));
    if text.len() > CONFIG_BYTES_MAX || is_cut || is_deep {
        return;
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return;
    }
    let is_told = |name: &str| {
        let told = format!("there is no key `{name}`");
        let is_it = |one: &amends_config::Finding| {
            one.severity == Severity::Error && one.message.contains(&told)
        };
        // A long name is told by its beginning.
        let is_shown = name.chars().count() <= 80 && !name.contains(char::is_control);
        !is_shown || report.findings().iter().any(is_it)
    };
    let top = [
        "host",
        "store",
        "plugins",
        "plugin",
        "service",
        "saga",
        "subscription",
        "schedule",
        "on",
        "auth",
        "telemetry",
    ];
    for (name, value) in document.get_ref() {
        let name = name.get_ref();
        assert!(top.contains(&name.as_ref()) || is_told(name), "`{name}` is passed over");
        if let ("host", DeValue::Table(host)) = (name.as_ref(), value.get_ref()) {
            let known =
                ["name", "listen", "address", "tls", "memory_max", "public_url", "evidence_key"];
            for name in host.keys().map(toml::Spanned::get_ref) {
                assert!(known.contains(&name.as_ref()) || is_told(name), "`{name}` is passed over");
            }
        }
    }
}

#[test]
fn any_component_leaves_the_child_that_looks_at_it_an_answer() {
    let program = Inspection::Child(env!("CARGO_BIN_EXE_amends").into());
    let loader = Loader::new(None, TrustedKeys::default(), program).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = Arc::new(PluginSettings::for_inspection());
    let mut seeds: Vec<Vec<u8>> = ["step", "step-only", "undo-only"]
        .map(|world| Component { world, ..Component::default() }.build())
        .into();
    seeds.extend(HOSTILE.iter().take(6).map(amends_tests::Hostile::build));
    seeds.push(fs::read(repository().join("plugins/inventory-release.wasm")).unwrap());
    Target {
        name: "child",
        seeds,
        words: &[
            "amends:saga/manifest@1.1.0",
            "amends:saga/log@1.1.0",
            "wasi:io/poll@0.2.0",
            "describe",
        ],
        shape: Shape::Wasm,
        bytes_max: 512 << 10,
        time_max: CHILD_TIME_MAX,
    }
    .run(|bytes| {
        let loading = loader.load(bytes.to_vec(), Arc::clone(&settings), Priority::Awaited);
        match runtime.block_on(loading) {
            Ok(component) => format!("{} {:?}", component.manifest.name, component.exports),
            Err(rejection) => {
                // A child that panics, runs out of stack or is killed leaves no answer.
                assert!(!matches!(rejection, Rejection::Failed(_)), "{rejection}");
                rejection.to_string()
            }
        }
    });
}
