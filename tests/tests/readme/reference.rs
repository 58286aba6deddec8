//! The pages of reference name what the sources have: event types, metrics, codes and limits.
//!
//! The names come from the sources as text, because most of them are private to their crate. What a
//! test module says is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use amends_engine::{Event, EventType};
use regex::Regex;

use crate::page::Page;
use crate::place::repository;

/// Limits that a page states: the page, the beginning of the row, and the crate and constant.
const LIMITS: [(&str, &str, &str); 142] = [
    ("limits", "components of a plugin that stay", "registry::COMPONENTS_KEPT"),
    ("limits", "components of a plugin that stay", "registry::COMPONENT_UNUSED_FOR"),
    ("limits", "steps of a saga", "engine::STEPS_MAX"),
    ("limits", "elements of all steps with `each`", "engine::ELEMENTS_MAX"),
    ("limits", "attempts", "engine::ATTEMPTS_MAX"),
    ("limits", "`timeout` of a call", "engine::TIMEOUT_MAX"),
    ("limits", "`retry-after` that a plugin asks for", "engine::RETRY_AFTER_MAX"),
    ("limits", "an expression", "engine::EXPRESSION_BYTES_MAX"),
    ("limits", "an expression", "engine::EVALUATION_STEPS_MAX"),
    ("limits", "an expression", "engine::EVALUATION_BYTES_MAX"),
    ("limits", "a name", "engine::NAME_BYTES_MAX"),
    ("limits", "names of an `index`", "engine::INDEX_NAMES_MAX"),
    ("limits", "an index value that is a text", "engine::INDEX_TEXT_BYTES_MAX"),
    ("limits", "paths of `personal`", "engine::PERSONAL_PATHS_MAX"),
    ("limits", "a `subject`", "engine::SUBJECT_BYTES_MAX"),
    ("limits", "personal texts", "keys::TEXT_BYTES_MIN"),
    ("limits", "personal texts", "keys::TEXTS_MAX"),
    ("limits", "log lines in its span", "sandbox::TRACED_LINES_MAX"),
    ("limits", "spans that wait for the collector", "telemetry::SPANS_WAITING_MAX"),
    ("limits", "spans of one request to the collector", "telemetry::BATCH_MAX"),
    ("limits", "a name in `amends-user`", "api::USER_BYTES_MAX"),
    ("limits", "a payload", "engine::PAYLOAD_BYTES_MAX"),
    ("limits", "a payload", "engine::PAYLOAD_DEPTH_MAX"),
    ("limits", "events in its log", "engine::LOG_EVENTS_MAX"),
    ("limits", "events in its log", "engine::LOG_EVENTS_MORE"),
    ("limits", "data in its log", "engine::LOG_BYTES_MAX"),
    ("limits", "data in its log", "engine::LOG_BYTES_MORE"),
    ("limits", "groups of one count", "store::GROUPS_MAX"),
    ("limits", "the text of a failure", "store::FAILURE_TEXT_BYTES_MAX"),
    ("limits", "signals that a saga keeps", "engine::SIGNALS_MAX"),
    ("limits", "signals that a saga keeps", "engine::SIGNAL_BYTES_MAX"),
    ("limits", "requests over HTTP", "sandbox::HTTP_REQUESTS_MAX"),
    ("limits", "keys of state that it reads and writes", "engine::STATE_KEYS_MAX"),
    ("limits", "keys of state that it reads and writes", "sandbox::STATE_BYTES_OF_CALL_MAX"),
    ("limits", "keys of state that it reads or lists", "engine::STATE_ROWS_MAX"),
    ("limits", "domain events", "sandbox::EVENTS_MAX"),
    ("limits", "log lines", "sandbox::LOG_LINES_MAX"),
    ("limits", "log lines", "sandbox::LOG_LINE_BYTES_MAX"),
    ("limits", "answers to", "sandbox::PROBE_TIMEOUT"),
    ("limits", "state", "engine::STATE_BYTES_MAX_DEFAULT"),
    ("limits", "state", "engine::STATE_KEY_BYTES_MAX"),
    ("limits", "state", "engine::STATE_VALUE_BYTES_MAX"),
    ("limits", "a component", "sandbox::COMPONENT_BYTES_MAX"),
    ("limits", "a component", "sandbox::FUNCTIONS_MAX"),
    ("limits", "a function", "sandbox::FUNCTION_BYTES_MAX"),
    ("limits", "a function", "sandbox::LOCALS_MAX"),
    ("limits", "a function", "sandbox::NESTING_MAX"),
    ("limits", "a function", "sandbox::BRANCH_TARGETS_MAX"),
    ("limits", "imports", "sandbox::IMPORTS_MAX"),
    ("limits", "signatures", "sandbox::SIGNATURES_MAX"),
    ("limits", "the manifest", "sandbox::VERSION_BYTES_MAX"),
    ("limits", "the manifest", "sandbox::SUMMARY_BYTES_MAX"),
    ("limits", "the manifest", "sandbox::NEEDS_MAX"),
    ("limits", "the manifest", "sandbox::NEED_BYTES_MAX"),
    ("limits", "a JSON Schema", "sandbox::SCHEMA_BYTES_MAX"),
    ("limits", "a JSON Schema", "sandbox::SCHEMA_DEPTH_MAX"),
    ("limits", "a JSON Schema", "sandbox::SCHEMA_REFERENCES_MAX"),
    ("limits", "a JSON Schema", "sandbox::PATTERNS_MAX"),
    ("limits", "a JSON Schema", "sandbox::PATTERN_BYTES_MAX"),
    ("limits", "calls at once", "runtime::CALLS_MAX"),
    ("limits", "calls at once", "runtime::CALLS_KEPT_FOR_UNDO"),
    ("limits", "bytes of sagas in memory", "runtime::LIVE_BYTES_MAX_DEFAULT"),
    ("limits", "starts that wait", "runtime::STARTS_WAITING_MAX"),
    ("limits", "signals that wait", "runtime::SIGNAL_BYTES_WAITING_MAX"),
    ("limits", "look-ups of names", "sandbox::LOOKUPS_MAX"),
    ("limits", "watchers of sagas", "api::WATCHERS_MAX"),
    ("limits", "watchers of the log", "api::LOG_WATCHERS_MAX"),
    ("limits", "entries of the audit", "runtime::AUDIT_ENTRIES_WAITING_MAX"),
    ("limits", "the path and the query in an entry", "runtime::AUDIT_TARGET_BYTES_MAX"),
    ("limits", "refused requests", "runtime::REFUSED_PAIRS_MAX"),
    ("limits", "refused requests", "runtime::AUDIT_REFUSED_PAUSE"),
    ("limits", "events that it holds in memory", "subscriptions::EVENTS_HELD_MAX"),
    ("limits", "events that it holds in memory", "subscriptions::EVENT_BYTES_HELD_MAX"),
    ("limits", "requests at once", "subscriptions::REQUESTS_MAX"),
    ("limits", "events of a batch", "subscriptions::BATCH_EVENTS_MAX"),
    ("limits", "dead letters", "subscriptions::DEAD_LETTERS_MAX"),
    ("limits", "the head of an answer", "subscriptions::ANSWER_HEAD_BYTES_MAX"),
    ("limits", "the body of an answer", "subscriptions::ANSWER_BYTES_MAX"),
    ("limits", "`Retry-After`", "subscriptions::RETRY_AFTER_MAX"),
    ("limits", "the time in which a request looks for the owner", "peers::OWNER_WAIT_MAX"),
    ("limits", "the time in which another host answers", "peers::FORWARD_ANSWER_TIME_MAX"),
    ("limits", "a connection to another host", "peers::CONNECT_TIME_MAX"),
    ("limits", "a request that is passed on", "peers::FORWARDED_BYTES_MAX"),
    ("limits", "an answer that is passed back", "peers::PASSED_BYTES_MAX"),
    ("limits", "an answer that is passed back", "peers::SILENCE_MAX"),
    ("limits", "starts that one request carries", "peers::STARTS_PER_REQUEST"),
    ("limits", "starts that one request carries", "peers::START_REQUESTS_MAX"),
    ("limits", "starts that wait for one host", "peers::STARTS_WAITING_MAX"),
    ("limits", "the difference of two clocks", "peers::SIGNATURE_AGE_MAX"),
    ("limits", "rules", "config::RULES_MAX"),
    ("limits", "events of one request", "subscriptions::INCOMING_BATCH_EVENTS_MAX"),
    ("limits", "attributes of an event", "subscriptions::ATTRIBUTES_MAX"),
    ("limits", "attributes of an event", "subscriptions::ATTRIBUTE_BYTES_MAX"),
    ("limits", "the age of a signature", "subscriptions::SIGNATURE_AGE_MAX"),
    ("limits", "events of one request that are taken at once", "runtime::EVENTS_AT_ONCE"),
    ("limits", "requests and messages whose expressions", "runtime::EVENT_PLANS_AT_ONCE"),
    ("limits", "messages of one rule that were delivered", "subscriptions::SOURCE_PENDING_MAX"),
    ("limits", "the age of a message", "subscriptions::SOURCE_AGE_MAX"),
    ("limits", "rules of such a chain", "runtime::EVENT_REPEATS_MAX"),
    ("limits", "messages of one rule at once", "subscriptions::SOURCE_MESSAGES_MAX"),
    ("limits", "deliveries of a message that fails", "subscriptions::SOURCE_ATTEMPTS_MAX"),
    ("limits", "the pause before the next delivery", "subscriptions::SOURCE_PAUSE_MAX"),
    ("limits", "attempts to take an event", "runtime::EVENT_ATTEMPTS_MAX"),
    ("limits", "sagas in a chain", "runtime::EVENT_DEPTH_MAX"),
    ("limits", "schedules", "config::SCHEDULES_MAX"),
    ("limits", "missed times that are caught up", "runtime::CATCH_UP_MAX"),
    ("limits", "a time that counts as missed", "runtime::MISSED_AFTER"),
    ("limits", "the data of one event", "store::EVENT_BYTES_MAX"),
    ("limits", "the data of one append", "store::APPEND_BYTES_MAX"),
    ("limits", "a component or definition", "store::BLOB_BYTES_MAX"),
    ("limits", "rows that `store export --parquet` holds", "cli::GROUP_BYTES"),
    ("limits", "rows that `store export --parquet` holds", "cli::GROUP_ROWS"),
    ("limits", "a saga that goes to the archive", "store::ARCHIVED_SAGA_BYTES_MAX"),
    ("limits", "a file of the archive", "store::SEGMENT_SAGAS_MAX"),
    ("limits", "the time of reading an archived saga from a bucket", "store::SAGA_TIME_MAX"),
    ("limits", "the time of sending a file to a bucket", "store::WRITE_TIME_MAX"),
    ("limits", "the time of a part of a file in a bucket", "store::PART_TIME_MAX"),
    ("limits", "the time of listing the files in a bucket", "store::LIST_TIME_MAX"),
    ("limits", "a connection to a bucket", "store::CONNECT_TIME_MAX"),
    ("limits", "a connection to a bucket", "store::SILENCE_MAX"),
    ("limits", "namespaces of a host", "runtime::NAMESPACES_MAX"),
    ("limits", "calls at once of a namespace", "config::NAMESPACE_CALLS_MAX"),
    ("limits", "calls at once of a namespace", "config::CALLS_DEFAULT"),
    ("limits", "active tokens", "runtime::TOKENS_MAX"),
    ("limits", "the name of a token", "runtime::TOKEN_NAME_BYTES_MAX"),
    ("limits", "the token of the config", "config::ADMIN_TOKEN_BYTES_MIN"),
    ("limits", "the token of the config", "config::ADMIN_TOKEN_BYTES_MAX"),
    ("limits", "a `rate` in `[auth]`", "config::RATE_MAX"),
    ("limits", "requests without a token", "api::REFUSED_PER_SECOND"),
    ("limits", "requests without a token", "api::REFUSED_AT_ONCE"),
    ("limits", "tokens or addresses whose rates", "api::RATES_MAX"),
    ("config", "`tls`", "api::FILE_BYTES_MAX"),
    ("http", "the handshake", "api::HANDSHAKE_TIME_MAX"),
    ("http", "the head of a request", "api::HEAD_TIME_MAX"),
    ("http", "the head of a request", "api::HEADERS_MAX"),
    ("http", "a connection between two requests", "api::IDLE_TIME_MAX"),
    ("http", "connections", "api::CONNECTIONS_MAX"),
    ("http", "bodies that are being received", "api::BODIES_BYTES_MAX"),
    ("http", "answers of more than", "api::ANSWERS_BYTES_MAX"),
    ("http", "answers of more than", "api::SMALL_BYTES_MAX"),
    ("http", "watchers of sagas", "api::WATCHERS_OF_ADDRESS_MAX"),
    ("http", "watchers of the log", "api::LOG_WATCHERS_OF_ADDRESS_MAX"),
];

static DURATION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^Duration::from_(secs|mins|hours)\(([\d_]+)\)$").unwrap());

fn reference(name: &str) -> Page {
    Page::read(&format!("host/docs/src/reference/{name}.md"))
}

/// The sources of a crate, without tests.
fn sources(package: &str) -> String {
    let mut folders = vec![repository().join("host").join(package).join("src")];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !["tests", "sim", "conformance"].contains(&name) {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs")
                && !["tests.rs", "fuzz.rs"].contains(&name)
            {
                files.push(path);
            }
        }
    }
    let text = files.iter().map(|path| fs::read_to_string(path).unwrap());
    text.map(|text| text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned())
        .collect()
}

/// What a pattern's first group finds.
fn found(pattern: &str, text: &str) -> BTreeSet<String> {
    let pattern = Regex::new(pattern).unwrap();
    pattern.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

/// The part of a page from this heading to the next one.
fn section<'a>(page: &'a Page, heading: &str) -> &'a str {
    let (_, rest) = page.text.split_once(&format!("\n{heading}\n")).unwrap();
    rest.split("\n## ").next().unwrap_or(rest)
}

/// The cells of every row of the tables in a text, without their heads.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines: Vec<_> = text.lines().collect();
    let mut rows = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let is_head = lines.get(number + 1).is_some_and(|next| next.starts_with("|---"));
        if line.starts_with('|') && !line.starts_with("|---") && !is_head {
            let inner = line.trim_start_matches('|').trim_end_matches('|');
            rows.push(inner.split('|').map(str::trim).collect());
        }
    }
    rows
}

#[test]
fn every_event_type_is_on_the_page() {
    let words =
        "saga|step|undo|compensation|operator|signal|plugin|breaker|event|subject|token|audit";
    let packages = ["store", "registry", "runtime"].map(sources).concat();
    let mut types = found(&format!(r#""((?:{words})\.[a-z_]+)""#), &packages);
    types.extend(Event::KINDS.iter().map(|&kind| kind.to_owned()));
    let page = reference("events");
    let named = found(&format!(r"`((?:{words})\.[a-z_]+)`"), &page.text);
    assert_eq!(named, types);
}

/// The keys of an event's data that a row of the page names.
fn keys(cell: &str) -> BTreeSet<String> {
    found("`([a-z_]+)`", cell)
}

/// The keys of the data of each event type of a saga, from the text of the engine's `events!`.
fn written_keys() -> BTreeMap<String, BTreeSet<String>> {
    let engine = sources("engine");
    let types = Regex::new(r#"= "([a-z]+\.[a-z_]+)" \{(?s:(.*?))\n? *\}\n"#).unwrap();
    let (_, declared) = engine.split_once("\nevents! {").unwrap();
    let declared = declared.split("\n}\n").next().unwrap();
    let keys_of = |body: &str| found(r"(?m)^ {12}([a-z_]+): ", body);
    types
        .captures_iter(&format!("{declared}\n"))
        .map(|found| (found[1].to_owned(), keys_of(&found[2])))
        .collect()
}

/// What the engine declares, the golden files of its log hold, and the page says: three lists of the same
/// keys.
#[test]
fn the_data_of_events_is_what_the_engine_writes() {
    let written = written_keys();
    let types: BTreeSet<_> = written.keys().map(String::as_str).collect();
    assert_eq!(types, Event::KINDS.iter().copied().collect());

    let golden = repository().join("host/engine/tests/golden/events.ndjson");
    let mut kept: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in fs::read_to_string(golden).unwrap().lines() {
        let (kind, data) = line.split_once(' ').unwrap();
        if written.contains_key(kind) {
            let data: serde_json::Value = serde_json::from_str(data).unwrap();
            let data = data.as_object().unwrap().keys().cloned();
            kept.entry(kind.to_owned()).or_default().extend(data);
        }
    }
    assert_eq!(kept, written, "a field of an event has no golden line");

    let page = reference("events");
    let mut named = BTreeMap::new();
    for row in rows(section(&page, "## Of a saga")) {
        for kind in found(r"`([a-z]+\.[a-z_]+)`", row[0]) {
            let mut data = keys(row[row.len() - 1]);
            if row.len() == 2 {
                data.extend(["who", "reason"].map(str::to_owned));
            }
            named.insert(kind, data);
        }
    }
    assert_eq!(named, written, "the page names other keys");
}

/// The data of the other events is made in several ways, so this finds only keys that no source has.
#[test]
fn the_data_of_other_events_has_keys_of_the_sources() {
    let packages = ["registry", "runtime"].map(sources).concat();
    let page = reference("events");
    let rows = rows(section(&page, "## Of plugins, services and deploys"));
    let named: BTreeSet<_> = rows.iter().flat_map(|row| keys(row[3])).collect();
    assert!(named.len() > 20, "{named:?}");
    let is_made = |key: &String| {
        packages.contains(&format!("\"{key}\""))
            || packages.contains(&format!("    {key}: "))
            || packages.contains(&format!("    pub {key}: "))
    };
    let missing: Vec<_> = named.iter().filter(|key| !is_made(key)).collect();
    assert!(missing.is_empty(), "no event has {missing:?}");
}

#[test]
fn the_reserved_words_are_reserved() {
    let page = reference("events");
    let words = section(&page, "## Types that are reserved");
    let words = words.split("The type `event").next().unwrap();
    let words = found("`([a-z]+)`", words);
    let engine = sources("engine");
    let (_, listed) = engine.split_once("const RESERVED: [").unwrap();
    let listed = found(r#""([a-z]+)""#, listed.split("];").next().unwrap());
    assert_eq!(words, listed);
    for word in words {
        assert!(format!("{word}.happened").parse::<EventType>().is_err(), "{word}");
    }
}

#[test]
fn every_metric_is_on_the_page() {
    let packages = ["store", "sandbox", "registry", "subscriptions", "runtime", "telemetry", "api"]
        .map(sources)
        .concat();
    let metrics = found(r#""(amends_[a-z_]+)""#, &packages);
    assert!(metrics.len() > 15, "{metrics:?}");
    let page = reference("metrics");
    let rows = rows(section(&page, "## Metrics"));
    let named: BTreeSet<_> = rows.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_eq!(named, metrics);
}

#[test]
fn every_problem_is_on_the_page_with_its_status() {
    let pattern = Regex::new(r#"(?:ApiError|Self)::new\(\s*(\d{3}),\s*"([a-z_]+)""#).unwrap();
    let api = sources("api");
    let mut problems: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for found in pattern.captures_iter(&api) {
        let (_, [status, code]) = found.extract();
        problems.entry(code).or_default().insert(status);
    }
    let page = reference("errors");
    let rows = rows(section(&page, "## Problems over HTTP"));
    let mut named = BTreeSet::new();
    for row in &rows {
        for code in found("`([a-z_]+)`", row[0]) {
            let statuses = problems.get(code.as_str());
            let statuses = statuses.unwrap_or_else(|| panic!("no answer has the code `{code}`"));
            for status in statuses {
                assert!(row[1].contains(status), "`{code}` has the status {status}");
            }
            named.insert(code);
        }
    }
    let missing: Vec<_> = problems.keys().filter(|code| !named.contains(**code)).collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");
}

#[test]
fn every_exit_code_is_on_the_page() {
    let codes = found(r"const EXIT_[A-Z_]+: u8 = (\d+);", &sources("cli"));
    let page = reference("errors");
    let rows = rows(section(&page, "## Exit codes of the command line"));
    let named: BTreeSet<_> = rows.iter().map(|row| row[0].to_owned()).collect();
    assert_eq!(named, codes);
}

/// A code that no source has is none that a user can meet. The other way round nobody can tell which
/// texts are codes, but those that stand where a failure is made.
#[test]
fn the_codes_of_failures_are_those_of_the_sources() {
    let packages = ["engine", "sandbox", "registry", "runtime"].map(sources).concat();
    let page = reference("errors");
    let rows = rows(section(&page, "## Codes of failures that the host records"));
    let mut named = BTreeSet::from(["invalid_code".to_owned()]);
    named.extend(rows.iter().flat_map(|row| found("`([a-z_]+)`", row[0])));
    for code in &named {
        assert!(packages.contains(&format!("\"{code}\"")), "no failure has the code `{code}`");
    }
    let made = found(r#"(?:Failure|Stopped)::new\(\s*"([a-z_]+)""#, &packages);
    assert!(made.len() > 10, "{made:?}");
    let missing: Vec<_> = made.difference(&named).collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");
}

#[test]
fn the_limits_of_the_pages_are_those_of_the_sources() {
    let mut texts: BTreeMap<&str, String> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (page, start, constant) in LIMITS {
        let (package, name) = constant.split_once("::").unwrap();
        let source = texts.entry(package).or_insert_with(|| sources(package));
        let named = |word| found(&format!(r"(?m)^\s*{word}const {name}: [^=]+= ([^;]+);"), source);
        let public = named("pub ");
        let values = if public.is_empty() { named(r"(?:pub\(\w+\) )?") } else { public };
        let [value] = values.iter().collect::<Vec<_>>()[..] else {
            wrong.push(format!("{constant} is defined as {values:?}"));
            continue;
        };
        let page = reference(page);
        let is_about = |row: &&Vec<&str>| {
            let rest = row[0].strip_prefix(start);
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
        };
        let shown = forms(value);
        let is_said = rows(&page.text)
            .iter()
            .filter(is_about)
            .any(|row| shown.iter().any(|form| stands(form, &row.join(" "))));
        if !is_said {
            wrong.push(format!("{}: {start}: {constant} is one of {shown:?}", page.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether the text has this number, and not as a part of a larger one.
fn stands(form: &str, text: &str) -> bool {
    let joins = |c: char| c.is_ascii_digit() || c == '_';
    text.match_indices(form).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + form.len()..]);
        let mut next = after.chars();
        let goes_on = next.next() == Some(',') && next.next().is_some_and(joins);
        !before.ends_with(|c: char| joins(c) || c == ',') && !after.starts_with(joins) && !goes_on
    })
}

/// How a page may write the value of a constant.
fn forms(value: &str) -> Vec<String> {
    if let Some(duration) = DURATION.captures(value) {
        let units = match &duration[1] {
            "secs" => ["s", "seconds"],
            "mins" => ["m", "minutes"],
            _ => ["h", "hours"],
        };
        return units.map(|unit| format!("{} {unit}", &duration[2])).to_vec();
    }
    let (base, shift) = value.split_once("<<").unwrap_or((value, "0"));
    let number = |text: &str| text.trim().replace('_', "").parse::<u64>().unwrap();
    let number = number(base) << number(shift);
    let mut forms = vec![with_commas(number)];
    for (unit, bytes) in [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)] {
        if number % bytes == 0 {
            forms.push(format!("{} {unit}", with_commas(number / bytes)));
        }
    }
    forms
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    groups.map(|group| std::str::from_utf8(group).unwrap()).collect::<Vec<_>>().join(",")
}

#[test]
fn a_value_is_written_as_people_write_it() {
    assert!(stands("64", "at most 64, and 8 MiB"));
    assert!(!stands("64", "at most 64,000 or 164"));
    assert_eq!(forms("1_000"), ["1,000"]);
    assert_eq!(forms("900 << 20"), ["943,718,400", "921,600 KiB", "900 MiB"]);
    assert_eq!(forms("Duration::from_hours(24)"), ["24 h", "24 hours"]);
}
