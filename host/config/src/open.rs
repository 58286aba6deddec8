//! Opens what a config describes: its store, and a host over it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amends_engine::{Definition, NamespaceName};
use amends_registry::{PluginError, Registry};
use amends_runtime::{
    AccessSettings, BreakerSettings, Host, Keys, LIVE_BYTES_MAX_DEFAULT, Retention, RuntimeConfig,
    RuntimeError, TraceSettings, with_state_cache,
};
use amends_store::{Fatal, HostInfo, OpenError, Store, StoreConfig, StoreError};
use amends_telemetry::{Exporter, ExporterError};

use crate::telemetry::TelemetryConfig;
use crate::{Config, Loaded};

/// Why a host cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenHostError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The plugins cannot be loaded.
    #[error(transparent)]
    Plugins(#[from] PluginError),
    /// The sagas cannot be recovered.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Spans cannot be sent.
    #[error(transparent)]
    Telemetry(#[from] ExporterError),
    /// The host of a namespace cannot be opened.
    #[error("namespace `{name}`: {error}")]
    Namespace {
        /// The namespace.
        name: NamespaceName,
        /// Why not.
        error: Box<OpenHostError>,
    },
    /// The file with the keys of the store's personal values is not there.
    #[error(
        "the store has personal values, and the key file {} is not there; restore the newest backup of \
         it, or name it in `keys` of [store]. If all of them are lost, an empty store is needed",
        .0.display()
    )]
    KeysMissing(PathBuf),
}

impl OpenHostError {
    /// Returns true when the store is damaged: another start fails as well.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Store(error) => {
                matches!(error, OpenError::Damaged { .. } | OpenError::Behind { .. })
            }
            Self::Plugins(PluginError::Store(error))
            | Self::Runtime(RuntimeError::Store(error)) => {
                matches!(
                    error,
                    StoreError::Damaged { .. } | StoreError::Fatal(Fatal::Damaged { .. })
                )
            }
            Self::Namespace { error, .. } => error.is_damage(),
            Self::Plugins(_) | Self::Runtime(_) | Self::Telemetry(_) | Self::KeysMissing(_) => {
                false
            }
        }
    }
}

/// Opens the store of a config, without a host.
///
/// # Errors
/// When the store cannot be opened, or another process has it.
pub fn open_store(config: &Config) -> Result<Arc<dyn Store>, OpenError> {
    let url = config.store.url.clone();
    let (durability, archive) = (config.store.durability, config.store.archive.clone());
    let store = amends_store::open(&StoreConfig { url, durability, archive })?;
    Ok(with_state_cache(store))
}

/// Opens the store of a config, and the registry with the plugins that its definitions need.
///
/// # Errors
/// When one of them cannot be opened.
pub async fn open_registry(config: &Config) -> Result<(Arc<dyn Store>, Registry), OpenHostError> {
    let store = open_store(config)?;
    let mut plugins = config.plugins.clone();
    plugins.cache_key = Some(config.store.cache_key(&plugins.cache));
    plugins.shares_store = config.store.is_shared();
    plugins.require(&config.definitions);
    let plugins = Registry::open(plugins, Arc::clone(&store)).await?;
    Ok((store, plugins))
}

/// Opens the keys of personal values, when a definition has a subject or had one. A file is made only for
/// a store without personal values: the keys of those are in another file.
async fn open_keys(
    path: &Path,
    definitions: &[Definition],
    store: &dyn Store,
) -> Result<Option<Arc<Keys>>, OpenHostError> {
    let is_there = path.metadata().is_ok_and(|file| file.len() > 0);
    if !is_there {
        if store.sagas().has_sealed().await.map_err(RuntimeError::from)? {
            return Err(OpenHostError::KeysMissing(path.to_owned()));
        }
        if !definitions.iter().any(|definition| definition.spec().subject.is_some()) {
            return Ok(None);
        }
    }
    Ok(Some(Arc::new(Keys::open(path).map_err(RuntimeError::from)?)))
}

/// Opens a host: its store, its plugins, and the sagas that are in the store, which go on.
///
/// # Errors
/// When one of them cannot be opened.
pub async fn open(config: Config) -> Result<Host, OpenHostError> {
    let traces = open_traces(&config).await?;
    open_with(config, traces).await
}

/// The hosts of the namespaces of a config.
#[derive(Debug)]
pub struct Hosts {
    /// That of `default`.
    pub default: Host,
    /// The others, in the order of their names.
    pub others: Vec<Host>,
}

impl Hosts {
    /// Returns all of them, that of `default` first.
    pub fn all(&self) -> impl Iterator<Item = &Host> {
        std::iter::once(&self.default).chain(&self.others)
    }
}

/// Opens the hosts of all namespaces of a config, that of `default` first. They share what sends spans. When one
/// cannot be opened, those that were are closed.
///
/// # Errors
/// When one of them cannot be opened. The error names its namespace, unless it is `default`.
pub async fn open_all(loaded: Loaded) -> Result<Hosts, OpenHostError> {
    let traces = open_traces(&loaded.config).await?;
    let default = open_with(loaded.config, traces.clone()).await?;
    let mut hosts = Hosts { default, others: Vec::new() };
    for (name, namespace) in loaded.namespaces {
        match open_with(namespace.config, traces.clone()).await {
            Ok(host) => hosts.others.push(host),
            Err(error) => {
                for host in hosts.all() {
                    // Why the other one cannot be opened counts.
                    let _ = host.close().await;
                }
                return Err(OpenHostError::Namespace { name, error: Box::new(error) });
            }
        }
    }
    Ok(hosts)
}

async fn open_traces(config: &Config) -> Result<Option<TraceSettings>, OpenHostError> {
    let Some(TelemetryConfig { endpoint, rules }) = config.telemetry.clone() else {
        return Ok(None);
    };
    let exporter = Exporter::open(endpoint, config.host.name.clone()).await?;
    Ok(Some(TraceSettings { exporter, rules }))
}

async fn open_with(config: Config, traces: Option<TraceSettings>) -> Result<Host, OpenHostError> {
    let (store, plugins) = open_registry(&config).await?;
    let services = config.services.iter();
    let concurrency = services.clone().filter_map(|(name, settings)| {
        Some((name.clone(), usize::try_from(settings.concurrency?).ok()?))
    });
    // An operator may open the breaker of any service.
    let steps = config.definitions.iter().flat_map(Definition::steps);
    let named = steps.filter_map(|step| step.service()).chain(config.services.keys());
    let mut breakers: BTreeMap<_, _> =
        named.map(|name| (name.clone(), BreakerSettings::BY_HAND)).collect();
    breakers
        .extend(services.filter_map(|(name, settings)| Some((name.clone(), settings.breaker?))));
    let access = config.auth.map(|auth| {
        let admin_token = auth.admin_token.map(|token| token.reveal().to_owned());
        AccessSettings { admin_token, proxy: auth.proxy }
    });
    let me = HostInfo { name: config.host.name.clone(), address: config.host.peer_address() };
    // Live sagas may hold half of what calls may: together they leave some for everything else.
    let live_bytes_max = usize::try_from(config.host.memory_max / 2).unwrap_or(usize::MAX);
    let runtime = RuntimeConfig {
        plugins_dir: config.plugins.dir,
        live_bytes_max: live_bytes_max.min(LIVE_BYTES_MAX_DEFAULT),
        retention: config.store.retention.map(|store| Retention { store, keep: config.keep }),
        concurrency: concurrency.collect(),
        breakers,
        subscriptions: config.subscriptions,
        schedules: config.schedules,
        event_rules: config.event_rules,
        keys: open_keys(&config.store.keys, &config.definitions, &*store).await?,
        host: config.store.is_shared().then_some(me),
        access,
        evidence_key: config.host.evidence_key,
        traces,
        namespace: config.namespace,
        calls_max: config.quotas.calls_max(),
        starts: config.quotas.starts,
        ..RuntimeConfig::default()
    };
    Ok(Host::open(runtime, store, plugins, config.definitions).await?)
}
