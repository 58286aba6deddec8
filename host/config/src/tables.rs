//! The tables of a namespace, and the config that they make. Those of `default` stand at the top of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use amends_engine::{
    Definition, DefinitionName, DefinitionSpec, NamespaceName, PluginName, ServiceName,
};
use amends_registry::PluginsConfig;
use amends_runtime::{EventRule, ScheduleSettings};
use amends_sandbox::PluginSettings;
use amends_subscriptions::SubscriptionSettings;
use toml::de::DeTable;

use crate::auth::AuthConfig;
use crate::host::{self, HostConfig, StoreSettings};
use crate::on::read_rules;
use crate::overrides::Overrides;
use crate::plugin;
use crate::quotas::Quotas;
use crate::report::Severity::Error;
use crate::report::{Place, Report};
use crate::retention::check_retention;
use crate::saga::{self, ReadSagas};
use crate::schedule::read_schedules;
use crate::service::{self, ServiceSettings};
use crate::subscription::read_subscriptions;
use crate::table::{Context, Item, Places, Table, check_name};
use crate::telemetry::TelemetryConfig;

/// What a host runs on, in one namespace. Checked.
#[derive(Debug)]
pub struct Config {
    /// The NAME of `[namespace.NAME]`. None: it is `default`, whose tables stand at the top.
    pub namespace: Option<NamespaceName>,
    /// `[host]`. A namespace has a `memory_max` of its own.
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
    /// What the namespace may take of the host.
    pub quotas: Quotas,
}

/// A config, what is worth knowing about it, and where its keys stand.
#[derive(Debug)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// What is worth knowing: warnings only, of what [`crate::load`] answers.
    pub report: Report,
    /// The namespaces beside `default`. The keys of their reports count from their own table.
    pub namespaces: BTreeMap<NamespaceName, Loaded>,
    /// Every definition that could be read, sound or not.
    pub(crate) specs: Vec<DefinitionSpec>,
    pub(crate) places: Places,
}

/// What is the same in each namespace of a host, but for the quotas.
#[derive(Debug, Clone)]
pub(super) struct OfHost {
    pub(super) host: HostConfig,
    pub(super) auth: Option<AuthConfig>,
    /// Whether the config has `[auth]`, right or wrong.
    pub(super) has_auth: bool,
    pub(super) telemetry: Option<TelemetryConfig>,
    pub(super) quotas: Quotas,
}

/// The tables of a namespace. Those of `default` stand at the top of the file.
pub(super) struct Tables<'a> {
    store: Table<'a>,
    plugins: Table<'a>,
    plugin: Option<Item<'a>>,
    service: Option<Item<'a>>,
    sagas: Option<Item<'a>>,
    subscriptions: Option<Item<'a>>,
    schedules: Option<Item<'a>>,
    rules: Option<Item<'a>>,
}

impl<'a> Tables<'a> {
    pub(super) fn take(top: &mut Table<'a>, context: &mut Context<'_>) -> Self {
        Self {
            store: section(top, "store", context),
            plugins: section(top, "plugins", context),
            plugin: top.take("plugin", context),
            service: top.take("service", context),
            sagas: top.take("saga", context),
            subscriptions: top.take("subscription", context),
            schedules: top.take("schedule", context),
            rules: top.take("on", context),
        }
    }

    pub(super) fn read(
        mut self,
        namespace: Option<NamespaceName>,
        of_host: OfHost,
        overrides: &Overrides,
        context: &mut Context<'_>,
    ) -> (Config, Vec<DefinitionSpec>) {
        let OfHost { host, auth, has_auth, telemetry, quotas } = of_host;
        let store = host::read_store(&mut self.store, overrides, context);
        self.store.finish(context);
        let plugins_config = host::read_plugins(&mut self.plugins, overrides, context);
        self.plugins.finish(context);
        let plugins = read_named(self.plugin, "[plugin.inventory]", context, plugin::read_plugin);
        let services =
            read_named(self.service, "[service.carrier]", context, service::read_service);
        let ReadSagas { definitions, specs, keep } = saga::read_sagas(self.sagas.as_ref(), context);
        check_retention(&store, &keep, &definitions, context);
        check_services(&definitions, &services, context);
        check_states(&definitions, &plugins, context);
        let names: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let subscriptions = read_subscriptions(self.subscriptions.as_ref(), &names, context);
        let schedules = read_schedules(self.schedules.as_ref(), &names, context);
        let event_rules = read_rules(self.rules.as_ref(), &specs, has_auth, context);
        let plugins = with_shared_state(plugins, &definitions);
        let plugins = PluginsConfig {
            plugins,
            memory_bytes_max: host.memory_max,
            instances_max: quotas.instances_max(),
            ..plugins_config
        };
        let config = Config {
            namespace,
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
            quotas,
        };
        (config, specs)
    }
}

/// A table of the file, or an empty one in its place.
pub(super) fn section<'a>(
    top: &mut Table<'a>,
    name: &'static str,
    context: &mut Context<'_>,
) -> Table<'a> {
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
