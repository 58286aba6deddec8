//! `examples/monitoring`: the alert rules and the dashboard, by Prometheus' own tool and against what a host serves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::place::{Place, repository, stderr, stdout, text};

/// The labels that Prometheus adds, and those of the buckets of a histogram.
const OF_PROMETHEUS: [&str; 3] = ["instance", "job", "le"];

fn folder() -> PathBuf {
    repository().join("examples/monitoring")
}

/// `promtool`, or why it is not there.
fn promtool() -> Option<Command> {
    let is_there = Command::new("promtool").arg("--version").output().is_ok();
    if !is_there {
        amends_tests::skipped("monitoring", "there is no promtool (Debian: prometheus)");
    }
    is_there.then(|| Command::new("promtool"))
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    let said = format!("{}{}", stdout(&output), stderr(&output));
    assert!(output.status.success(), "{command:?}: {said}");
}

/// The labels of each metric, by the table of the book. Another test compares the table with the sources.
fn metrics() -> BTreeMap<String, BTreeSet<String>> {
    let page = repository().join("host/docs/src/reference/metrics.md");
    let text = fs::read_to_string(page).unwrap();
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.strip_suffix('`')?.to_owned();
        let words = cells.nth(1)?.split('`').skip(1).step_by(2);
        Some((name, words.map(str::to_owned).collect()))
    };
    let rows: BTreeMap<_, _> = text.lines().filter_map(row).collect();
    assert!(rows.len() > 30, "{rows:?}");
    rows
}

/// The words of an expression of Prometheus.
fn words(expression: &str) -> impl Iterator<Item = &str> {
    expression.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
}

/// The labels that an expression names: those to sum by, and those in braces.
fn labels(expression: &str) -> BTreeSet<String> {
    let by = expression.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    let braces = expression.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let compared = braces.flat_map(|list| list.split(',')).filter_map(|one| one.split('=').next());
    by.flat_map(|list| list.split(',')).chain(compared).map(|one| one.trim().to_owned()).collect()
}

/// Checks that an expression names metrics and labels that there are. `shown` are labels that its texts show.
fn check(expression: &str, shown: &BTreeSet<String>, metrics: &BTreeMap<String, BTreeSet<String>>) {
    let mut known: BTreeSet<String> = OF_PROMETHEUS.map(str::to_owned).into();
    for word in words(expression).filter(|word| word.starts_with("amends_")) {
        let of_histogram =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
        let labels = of_histogram.and_then(|name| metrics.get(name)).or_else(|| metrics.get(word));
        known.extend(labels.unwrap_or_else(|| panic!("no host serves {word}")).iter().cloned());
    }
    let named: BTreeSet<_> = labels(expression).union(shown).cloned().collect();
    let missing: Vec<_> = named.difference(&known).collect();
    assert!(missing.is_empty(), "{expression} has no {missing:?}");
}

/// The parts of the rules' file: each alert with its expression, its texts and its page.
fn alerts() -> Vec<(String, String, String, String)> {
    let text = fs::read_to_string(folder().join("rules.yaml")).unwrap();
    let after = |rule: &str, key: &str| {
        let (_, rest) =
            rule.split_once(&format!("{key}: ")).unwrap_or_else(|| panic!("{key}: {rule}"));
        let one = rest.lines().next().unwrap_or_default();
        // An expression on several lines.
        let several = rest.lines().skip(1).take_while(|line| line.starts_with("          "));
        if one == ">" {
            several.map(str::trim).collect::<Vec<_>>().join(" ")
        } else {
            one.to_owned()
        }
    };
    let rules = text.split("- alert: ").skip(1);
    let parts = rules.map(|rule| {
        let name = rule.lines().next().unwrap().to_owned();
        (name, after(rule, "expr"), after(rule, "summary"), after(rule, "page"))
    });
    parts.collect()
}

/// The labels that a text shows, as `{{ $labels.NAME }}` or as `{{NAME}}`.
fn shown(text: &str) -> BTreeSet<String> {
    let inner = text.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()).map(str::trim);
    let names = inner.filter_map(|name| match name.strip_prefix('$') {
        Some(variable) => variable.strip_prefix("labels."),
        None => Some(name),
    });
    names.map(str::to_owned).collect()
}

#[test]
fn alerts_fire_when_they_should_and_name_a_page_of_the_book() {
    let metrics = metrics();
    let tests =
        fs::read_to_string(repository().join("tests/tests/system/monitoring/rules_test.yaml"));
    let tests = tests.unwrap();
    let alerts = alerts();
    assert!(alerts.len() > 10, "{alerts:?}");
    for (name, expression, summary, page) in &alerts {
        check(expression, &shown(summary), &metrics);
        // Once where it fires, once where it does not.
        assert_eq!(tests.matches(&format!("alertname: {name}\n")).count(), 2, "{name} has no test");
        let (file, anchor) = page.split_once('#').unwrap_or((page, ""));
        let text = fs::read_to_string(repository().join("host/docs/src").join(file));
        let text = text.unwrap_or_else(|error| panic!("{name}: {file}: {error}"));
        let heading = |line: &str| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            line.starts_with('#') && words.replace(' ', "-").replace(['?', '`', ','], "") == anchor
        };
        assert!(anchor.is_empty() || text.lines().any(heading), "{name}: no {anchor} in {file}");
    }
    let Some(mut promtool) = promtool() else { return };
    let copy = tempfile::tempdir().unwrap();
    fs::copy(folder().join("rules.yaml"), copy.path().join("rules.yaml")).unwrap();
    fs::write(copy.path().join("rules_test.yaml"), tests).unwrap();
    succeeds(promtool.args(["test", "rules", "rules_test.yaml"]).current_dir(&copy));
    succeeds(
        Command::new("promtool").args(["check", "config"]).arg(folder().join("prometheus.yaml")),
    );
}

#[test]
fn the_dashboard_asks_for_what_a_host_serves() {
    let metrics = metrics();
    let text = fs::read_to_string(folder().join("grafana.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut asked = BTreeSet::new();
    for target in targets {
        let expression = target["expr"].as_str().unwrap();
        check(expression, &shown(target["legendFormat"].as_str().unwrap()), &metrics);
        asked.extend(words(expression).filter(|word| word.starts_with("amends_")));
    }
    assert!(asked.len() > 20, "{asked:?}");
    let mut ids: Vec<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    ids.dedup();
    assert_eq!(ids.len(), panels.len(), "two panels have one id");
}

/// What a host serves is what Prometheus reads, with the names that it wants.
#[test]
fn prometheus_reads_what_a_host_serves() {
    let place = Place::example();
    let host = place.run();
    let served = text(&host.url("/metrics"));
    for line in [
        "amends_build_info{version=",
        "amends_oldest_live_saga_seconds 0",
        "amends_calls_waiting{room=\"host\"} 0",
    ] {
        assert!(served.lines().any(|served| served.starts_with(line)), "no {line} in {served}");
    }
    let Some(mut promtool) = promtool() else { return };
    let promtool = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().unwrap();
    child.stdin.take().unwrap().write_all(served.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}
