//! The config file: reads it, says everything that is wrong with it at once, and opens a host from it.
//!
//! [`load`] gives a [`Config`] that the host can run, or a [`Report`] in which each finding has
//! file, line, key, and what would be right. [`look`] gives as much of it as can be read, and
//! [`lint::lint`] looks at the plugins as well. [`open()`] opens the host that a config describes.
//!
//! A flag stands above the environment, and that above the file. Relative paths count from the
//! config file's folder. Nothing is printed here, and no value that may be a secret is ever
//! part of a message.

mod auth;
mod children;
mod contexts;
mod definition;
mod graph;
mod host;
mod kind;
pub mod lint;
mod namespaces;
mod on;
mod open;
mod overrides;
mod plugin;
mod quotas;
mod range;
mod report;
mod retention;
mod retry;
mod saga;
mod schedule;
mod secret;
mod service;
mod setting;
mod size;
mod source;
mod subscription;
pub mod suggest;
mod table;
mod tables;
mod telemetry;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use amends_engine::{DefinitionSpec, NamespaceName};
use toml::Spanned;
use toml::de::DeTable;
use toml_parser::lexer::TokenKind;

pub use auth::{AuthConfig, TokenRate};
pub use contexts::{Contexts, HostContext, TokenSource, read_contexts};
pub use host::{HostConfig, StoreSettings};
pub use open::{Hosts, OpenHostError, open, open_all, open_registry, open_store};
pub use overrides::{Environment, OverrideFlags, Overrides};
pub use quotas::Quotas;
pub use report::{Finding, Place, Position, Report, Severity};
pub use service::ServiceSettings;
pub use source::CONFIG_BYTES_MAX;
pub use tables::{Config, Loaded};
pub use telemetry::TelemetryConfig;
pub use tls::{HostTls, TlsFiles};

use auth::read_auth;
use namespaces::read_namespaces;
use report::Severity::Error;
use source::Source;
use table::{Context, FINDINGS_MAX, Table};
use tables::{OfHost, Tables, section};
use telemetry::read_telemetry;

/// Reads a config file.
///
/// # Errors
/// Everything that is wrong with it, up to a thousand things, in the order of its lines, warnings
/// included.
pub fn load(path: &Path, overrides: &Overrides) -> Result<Loaded, Report> {
    let loaded = look(path, overrides, Error)?;
    if loaded.report.errors() > 0 { Err(loaded.report) } else { Ok(loaded) }
}

/// Reads as much of a config file as can be read: in place of a mistake there is a default, and an
/// unsound definition is left out. `lacking_secrets` says how bad it is that a secret is not there.
///
/// # Errors
/// When the file cannot be read or is no TOML.
pub fn look(
    path: &Path,
    overrides: &Overrides,
    lacking_secrets: Severity,
) -> Result<Loaded, Report> {
    let source = Source::read(path)?;
    let document = parse(&source)?;
    let mut context = Context::new(&source, &overrides.environment, lacking_secrets);
    let (config, specs, namespaces) = read(
        Table::new(String::new(), document.span(), document.get_ref()),
        overrides,
        &mut context,
    );
    let (findings, places) = context.into_findings();
    Ok(Loaded { config, report: Report::new(path, findings), namespaces, specs, places })
}

/// Parses the text of a file.
fn parse(source: &Source) -> Result<Spanned<DeTable<'_>>, Report> {
    if let Some(place) = deep_bracket(&source.text) {
        return Err(depth_report(source, place));
    }
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    if errors.is_empty() { Ok(document) } else { Err(syntax_report(source, &errors)) }
}

/// Brackets that may be open at once: more than any config has, and what the parser has a stack for.
const BRACKETS_OPEN_MAX: usize = 80;

/// Where more brackets are open than may be.
fn deep_bracket(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    let deep = toml_parser::Source::new(text).lex().find(|token| {
        let kind = token.kind();
        if matches!(kind, TokenKind::LeftCurlyBracket | TokenKind::LeftSquareBracket) {
            open += 1;
        } else if matches!(kind, TokenKind::RightCurlyBracket | TokenKind::RightSquareBracket) {
            open = open.saturating_sub(1);
        }
        open > BRACKETS_OPEN_MAX
    });
    deep.map(|token| token.span().start())
}

fn depth_report(source: &Source, place: usize) -> Report {
    let position = source.position(&(place..place));
    let finding = Finding {
        severity: Error,
        place: Place::At(position),
        key: key_of_line(source.line(position.line)),
        message: format!("more than {BRACKETS_OPEN_MAX} brackets are open here"),
        help: "close each [ with ] and each { with }".to_owned(),
    };
    Report::new(&source.path, vec![finding])
}

/// One finding a line: what follows a slip in a line is mostly noise. The first of them.
fn syntax_report(source: &Source, errors: &[toml::de::Error]) -> Report {
    let (mut findings, mut lines) = (Vec::new(), BTreeSet::new());
    for error in errors {
        if findings.len() == FINDINGS_MAX {
            break;
        }
        let position = source.position(&error.span().unwrap_or(0..0));
        if !lines.insert(position.line) {
            continue;
        }
        let line = source.line(position.line);
        let message = if has_bare_text(line) { "text without quotes" } else { error.message() };
        let help = if message.starts_with("duplicate key") {
            "a key stands once in its table: keep one of them"
        } else if message.contains("quote") || message.contains("unquoted") {
            "put text between double quotes: name = \"node-a\""
        } else if message.contains("unclosed") {
            "close each [ with ] and each { with }"
        } else {
            "write TOML (https://toml.io): [table], key = value, text in double quotes"
        };
        findings.push(Finding {
            severity: Error,
            place: Place::At(position),
            key: key_of_line(line),
            message: format!("this is not TOML: {message}"),
            help: help.to_owned(),
        });
    }
    Report::new(&source.path, findings)
}

/// Whether a value begins with a letter, and is none of the words that may stand bare.
fn has_bare_text(line: &str) -> bool {
    let Some((_, value)) = line.split_once('=') else { return false };
    let value = value.trim();
    value.starts_with(char::is_alphabetic) && !matches!(value, "true" | "false" | "inf" | "nan")
}

/// The key that a line seems to be about; empty when there is none.
fn key_of_line(line: &str) -> String {
    let line = line.trim();
    let key = line.split_once('=').map_or(line, |(key, _)| key);
    let key = key.trim().trim_matches(['[', ']']);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if key.chars().all(plain) { key.to_owned() } else { String::new() }
}

/// Reads on after a mistake, with a default in its place.
fn read(
    mut top: Table<'_>,
    overrides: &Overrides,
    context: &mut Context<'_>,
) -> (Config, Vec<DefinitionSpec>, BTreeMap<NamespaceName, Loaded>) {
    let mut host = section(&mut top, "host", context);
    let auth = top.take("auth", context);
    let telemetry = top.take("telemetry", context);
    let namespaces = top.take("namespace", context);
    let tables = Tables::take(&mut top, context);
    top.finish(context);
    // A table with mistakes is reported for these, and not as one that is missing.
    let has_auth = auth.is_some();
    let auth = auth.and_then(|item| read_auth(&item, context));
    let host_config = host::read_host(&mut host, overrides, has_auth, context);
    host.finish(context);
    let telemetry = read_telemetry(telemetry.as_ref(), context);
    let of_host =
        OfHost { host: host_config, auth, has_auth, telemetry, quotas: Quotas::default() };
    let (config, specs) = tables.read(None, of_host.clone(), overrides, context);
    host::check_peer_address(&config.host, &config.store, context);
    let namespaces = read_namespaces(namespaces.as_ref(), &config, &of_host, context);
    (config, specs, namespaces)
}
