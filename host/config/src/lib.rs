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
mod on;
mod open;
mod overrides;
mod plugin;
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
mod telemetry;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::{Definition, DefinitionName, DefinitionSpec, PluginName, ServiceName};
use amends_registry::PluginsConfig;
use amends_runtime::{EventRule, ScheduleSettings};
use amends_sandbox::PluginSettings;
use amends_subscriptions::SubscriptionSettings;
use toml::Spanned;
use toml::de::DeTable;
use toml_parser::lexer::TokenKind;

pub use auth::{AuthConfig, TokenRate};
pub use contexts::{Contexts, HostContext, TokenSource, read_contexts};
pub use host::{HostConfig, StoreSettings};
pub use open::{OpenHostError, open, open_registry, open_store};
pub use overrides::{Environment, OverrideFlags, Overrides};
pub use report::{Finding, Place, Position, Report, Severity};
pub use service::ServiceSettings;
pub use source::CONFIG_BYTES_MAX;
pub use telemetry::TelemetryConfig;
pub use tls::{HostTls, TlsFiles};

use auth::read_auth;
use on::read_rules;
use report::Severity::Error;
use retention::check_retention;
use saga::ReadSagas;
use schedule::read_schedules;
use source::Source;
use subscription::read_subscriptions;
use table::{Context, FINDINGS_MAX, Item, Places, Table, check_name};
use telemetry::read_telemetry;

/// What a host runs on. Checked.
#[derive(Debug)]
pub struct Config {
    /// `[host]`.
    pub host: HostConfig,
    /// `[auth]`. None: the host has no access control, so it asks nobody for a token.
    pub auth: Option<AuthConfig>,
    /// `[store]`.
    pub store: StoreSettings,
    /// `[plugins]` and every `[plugin.NAME]`.
    pub plugins: PluginsConfig,
    /// Every `[service.NAME]`.
    pub services: BTreeMap<ServiceName, ServiceSettings>,
    /// Every `[[saga]]`, in the order of the file; at least one.
    pub definitions: Vec<Definition>,
    /// How long sagas stay in the store after their end, where their definition says so.
    pub keep: BTreeMap<DefinitionName, Duration>,
    /// Every `[[subscription]]`, in the order of the file.
    pub subscriptions: Vec<SubscriptionSettings>,
    /// Every `[[schedule]]`, in the order of the file.
    pub schedules: Vec<ScheduleSettings>,
    /// Every `[[on]]`, in the order of the file.
    pub event_rules: Vec<Arc<EventRule>>,
    /// `[telemetry]`, or what the environment says. None: no spans are sent.
    pub telemetry: Option<TelemetryConfig>,
}

/// A config, what is worth knowing about it, and where its keys stand.
#[derive(Debug)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// What is worth knowing: warnings only, of what [`load`] answers.
    pub report: Report,
    /// Every definition that could be read, sound or not.
    specs: Vec<DefinitionSpec>,
    places: Places,
}

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
    let (config, specs) = read(
        Table::new(String::new(), document.span(), document.get_ref()),
        overrides,
        &mut context,
    );
    let (findings, places) = context.into_findings();
    Ok(Loaded { config, report: Report::new(path, findings), specs, places })
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
) -> (Config, Vec<DefinitionSpec>) {
    let mut host = section(&mut top, "host", context);
    let mut store = section(&mut top, "store", context);
    let mut plugins = section(&mut top, "plugins", context);
    let plugin = top.take("plugin", context);
    let service = top.take("service", context);
    let sagas = top.take("saga", context);
    let subscriptions = top.take("subscription", context);
    let schedules = top.take("schedule", context);
    let rules = top.take("on", context);
    let auth = top.take("auth", context);
    let telemetry = top.take("telemetry", context);
    top.finish(context);
    // A table with mistakes is reported for these, and not as one that is missing.
    let has_auth = auth.is_some();
    let auth = auth.and_then(|item| read_auth(&item, context));
    let host_config = host::read_host(&mut host, overrides, has_auth, context);
    host.finish(context);
    let store_config = host::read_store(&mut store, overrides, context);
    store.finish(context);
    host::check_peer_address(&host_config, &store_config, context);
    let plugins_config = host::read_plugins(&mut plugins, overrides, context);
    plugins.finish(context);
    let plugins = read_named(plugin, "[plugin.inventory]", context, plugin::read_plugin);
    let services = read_named(service, "[service.carrier]", context, service::read_service);
    let ReadSagas { definitions, specs, keep } = saga::read_sagas(sagas.as_ref(), context);
    check_retention(&store_config, &keep, &definitions, context);
    check_services(&definitions, &services, context);
    check_states(&definitions, &plugins, context);
    let names: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let subscriptions = read_subscriptions(subscriptions.as_ref(), &names, context);
    let schedules = read_schedules(schedules.as_ref(), &names, context);
    let event_rules = read_rules(rules.as_ref(), &specs, has_auth, context);
    let telemetry = read_telemetry(telemetry.as_ref(), context);
    let plugins = with_shared_state(plugins, &definitions);
    let memory_bytes_max = host_config.memory_max;
    let plugins = PluginsConfig { plugins, memory_bytes_max, ..plugins_config };
    let (host, store) = (host_config, store_config);
    let config = Config {
        host,
        auth,
        store,
        plugins,
        services,
        definitions,
        keep,
        subscriptions,
        schedules,
        event_rules,
        telemetry,
    };
    (config, specs)
}

/// A table of the file, or an empty one in its place.
fn section<'a>(top: &mut Table<'a>, name: &'static str, context: &mut Context<'_>) -> Table<'a> {
    static EMPTY: std::sync::LazyLock<DeTable<'static>> = std::sync::LazyLock::new(DeTable::new);
    let help = format!("write [{name}] and its keys below");
    top.take(name, context)
        .and_then(|item| item.table(context, &help))
        .unwrap_or_else(|| Table::new(name.to_owned(), 0..0, &EMPTY))
}

/// `[plugin.NAME]` and `[service.NAME]`.
fn read_named<N: Ord + std::str::FromStr, S>(
    item: Option<Item<'_>>,
    example: &str,
    context: &mut Context<'_>,
    read: impl Fn(&Item<'_>, &mut Context<'_>) -> Option<S>,
) -> BTreeMap<N, S>
where
    N::Err: std::fmt::Display,
{
    let help = format!("name it: {example}");
    let Some(table) = item.and_then(|item| item.table(context, &help)) else {
        return BTreeMap::new();
    };
    let mut named = BTreeMap::new();
    for (name, span, item) in table.entries(context) {
        if !item.value.is_table() {
            let message = format!("`{name}` is not a table; is a name missing above it?");
            item.error(context, message, help.as_str());
            continue;
        }
        let place = Place::At(context.source.position(&span));
        let name = check_name::<N>(name, &item.key, place, context);
        let settings = read(&item, context);
        named.extend(name.zip(settings));
    }
    named
}

/// An undo works on the state of the step's plugin, so that a grant to that one is a grant to the
/// plugin that a definition has undo it.
fn with_shared_state(
    mut plugins: BTreeMap<PluginName, PluginSettings>,
    definitions: &[Definition],
) -> BTreeMap<PluginName, PluginSettings> {
    for step in definitions.iter().flat_map(Definition::steps) {
        let undo = step.undo.as_ref().and_then(|undo| undo.plugin.as_ref());
        let (Some(undo), Some(owner)) = (undo, step.plugin().and_then(|name| plugins.get(name)))
        else {
            continue;
        };
        if owner.state {
            let bytes_max = owner.state_bytes_max;
            let settings = plugins.entry(undo.clone()).or_default();
            (settings.state, settings.state_bytes_max) = (true, bytes_max);
        }
    }
    plugins
}

/// Personal values are not sealed in the state of a plugin.
fn check_states(
    definitions: &[Definition],
    plugins: &BTreeMap<PluginName, PluginSettings>,
    context: &mut Context<'_>,
) {
    for definition in definitions.iter().filter(|one| one.spec().subject.is_some()) {
        for step in definition.steps() {
            let named = [step.plugin(), step.undo_plugin()].into_iter().flatten();
            let keeps = |name: &&PluginName| {
                let settings = plugins.get(*name);
                settings.is_some_and(|plugin| plugin.state && plugin.state_may_be_personal)
            };
            let Some(plugin) = named.into_iter().find(keeps) else { continue };
            let key = format!("saga.{}.step.{}", definition.name(), step.name);
            let message = format!(
                "the plugin `{plugin}` keeps state, in which personal values would not be sealed, and \
                 `{}` has a subject",
                definition.name()
            );
            let help = format!(
                "set state_personal = false in [plugin.{plugin}] when its state holds no personal \
                 value, or take its state away"
            );
            context.error(context.places.of(&key), &key, message, help);
        }
    }
}

/// A service that a step names need not be described; one that is nearly the name of a
/// described one, or that nothing names, is most likely a slip.
fn check_services(
    definitions: &[Definition],
    services: &BTreeMap<ServiceName, ServiceSettings>,
    context: &mut Context<'_>,
) {
    let steps = || {
        definitions
            .iter()
            .flat_map(|definition| definition.steps().iter().map(move |step| (definition, step)))
    };
    for (definition, step) in steps() {
        let Some(service) = step.service() else { continue };
        if services.contains_key(service) {
            continue;
        }
        let near = context.nearest(service.as_str(), services.keys().map(ServiceName::as_str));
        if let Some(near) = near {
            let key = format!("saga.{}.step.{}.service", definition.name(), step.name);
            let message = format!("there is no [service.{service}]");
            let help = format!("did you mean `{near}`?");
            context.warn(context.places.of(&key), &key, message, help);
        }
    }
    // Without every definition nobody knows what they name.
    if context.findings.iter().any(|finding| finding.severity == Error) {
        return;
    }
    let named: BTreeSet<_> = steps().filter_map(|(_, step)| step.service()).collect();
    for service in services.keys() {
        if !named.contains(service) {
            let key = format!("service.{service}");
            let message = format!("no step names the service `{service}`");
            let help = format!("write service = \"{service}\" in a step, or remove it");
            context.warn(context.places.of(&key), &key, message, help);
        }
    }
}
