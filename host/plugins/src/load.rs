//! From bytes to a component that can be called.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use amends_engine::{Digest, Payload};
use serde_json::Value;
use tokio::sync::Semaphore;
use wasmtime::component::{InstancePre, Linker};

use crate::background::{self, giving_way};
use crate::bindings::exports::amends::saga::{action, manifest, probe, undo};
use crate::check::{Checked, Exports, check};
use crate::compile::{compile, is_compiled};
use crate::config::PluginSettings;
use crate::error::{PluginError, Rejection};
use crate::granted::Granted;
use crate::guest::{Guest, linker};
use crate::idle::{IDLE_MAX, Idle};
use crate::meter::Meter;
use crate::outbound::{Outbound, StubAnswer};
use crate::sandbox::Sandbox;
use crate::schema::{self, Checker};
use crate::signature::TrustedKeys;

/// How long `describe` may take: it only hands out texts.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Loads components. Cheap to clone.
#[derive(Clone)]
pub struct Loader {
    sandbox: Sandbox,
    linker: Arc<Linker<Guest>>,
    trusted_keys: TrustedKeys,
    cache: Option<PathBuf>,
    compiled: Arc<AtomicU64>,
    /// For instances that wait to be used again.
    idle_room: Arc<Semaphore>,
}

/// Who waits for a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// A call, a saga or whoever started the host.
    Awaited,
    /// Nobody: another component serves meanwhile, and its calls go first.
    Background,
}

/// What a component says about itself.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One sentence.
    pub summary: String,
    /// JSON Schema of the input of `execute`.
    pub input_schema: Value,
    /// JSON Schema of the output of `execute`.
    pub output_schema: Value,
    /// The service that it calls.
    pub service: Option<String>,
    /// The capabilities that it needs.
    pub needs: Vec<String>,
}

/// A component that was checked, compiled and described.
pub struct LoadedComponent {
    /// Of the bytes as they came.
    pub digest: Digest,
    /// What it says about itself.
    pub manifest: Manifest,
    /// Which calls it serves.
    pub exports: Exports,
    /// What it imports.
    pub imports: Vec<String>,
    /// How many bytes it had.
    pub bytes_len: usize,
    pub(crate) pre: InstancePre<Guest>,
    pub(crate) action: Option<action::GuestIndices>,
    pub(crate) undo: Option<undo::GuestIndices>,
    pub(crate) probe: Option<probe::GuestIndices>,
    input: Option<Checker>,
    output: Option<Checker>,
    pub(crate) idle: Idle,
    pub(crate) meter: Meter,
}

impl std::fmt::Debug for LoadedComponent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedComponent")
            .field("digest", &self.digest)
            .field("name", &self.manifest.name)
            .field("version", &self.manifest.version)
            .finish_non_exhaustive()
    }
}

impl LoadedComponent {
    /// Whether `execute` takes this input.
    ///
    /// # Errors
    /// Where it does not fit the manifest's schema, and why.
    pub fn takes_input(&self, input: &Payload) -> Result<(), String> {
        schema::fits(self.input.as_ref(), input)
    }

    /// Whether `compensate` can read this output, recorded by this or another component.
    ///
    /// # Errors
    /// Where it does not fit the manifest's schema, and why.
    pub fn reads_output(&self, output: &Payload) -> Result<(), String> {
        schema::fits(self.output.as_ref(), output)
    }
}

impl Loader {
    /// A loader that keeps compiled code in `cache`, if that is given, and loads nothing but what
    /// one of `trusted_keys` has signed, if there is one.
    ///
    /// # Errors
    /// When the sandbox cannot be set up.
    pub fn new(cache: Option<PathBuf>, trusted_keys: TrustedKeys) -> Result<Self, PluginError> {
        let sandbox = Sandbox::new()?;
        let linker =
            linker(&sandbox.engine).map_err(|error| PluginError::Sandbox(format!("{error:#}")))?;
        let compiled = Arc::new(AtomicU64::new(0));
        let idle_room = Arc::new(Semaphore::new(IDLE_MAX));
        let linker = Arc::new(linker);
        Ok(Self { sandbox, linker, trusted_keys, cache, compiled, idle_room })
    }

    /// How many components it had to compile; the others came from the cache.
    #[must_use]
    pub fn compiled(&self) -> u64 {
        self.compiled.load(Ordering::Relaxed)
    }

    /// Checks, compiles and describes a component, off the async threads. May be cancelled.
    ///
    /// # Errors
    /// Why it cannot serve, in words for its author.
    pub async fn load(
        &self,
        bytes: Vec<u8>,
        settings: Arc<PluginSettings>,
        priority: Priority,
    ) -> Result<LoadedComponent, Rejection> {
        let (engine, cache) = (self.sandbox.engine.clone(), self.cache.clone());
        let (granted, trusted_keys) = (Arc::clone(&settings), self.trusted_keys.clone());
        let began = Instant::now();
        let compile = move || {
            // First of all: nothing is parsed, compiled or run of what nobody stands for, also when
            // compiled code of it is there.
            trusted_keys.check(&bytes)?;
            let (bytes_len, digest) = (bytes.len(), Digest::of(&bytes));
            let was_compiled = is_compiled(&engine, cache.as_deref(), digest);
            let Checked { component, exports, imports } = check(&bytes, &granted, was_compiled)?;
            let compiled = compile(&engine, cache.as_deref(), digest, &component)?;
            Ok((bytes_len, digest, exports, imports, compiled))
        };
        let work = tokio::task::spawn_blocking(move || match priority {
            Priority::Awaited => compile(),
            Priority::Background => background::run(compile),
        });
        let (bytes_len, digest, exports, imports, (component, is_new)) =
            work.await.unwrap_or_else(|error| {
                Err(Rejection::Compile(format!("the compiler failed: {error}")))
            })?;
        if is_new {
            self.compiled.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%digest, elapsed = ?began.elapsed(), "component compiled");
        }
        let pre = self
            .linker
            .instantiate_pre(&component)
            .map_err(|error| Rejection::Invalid(format!("{error:#}").replace('\n', " ")))?;
        let shape =
            |error: wasmtime::Error| Rejection::Invalid(format!("{error:#}").replace('\n', " "));
        let action = exports.execute.then(|| action::GuestIndices::new(&pre)).transpose();
        let undo = exports.compensate.then(|| undo::GuestIndices::new(&pre)).transpose();
        let probe = exports.probe.then(|| probe::GuestIndices::new(&pre)).transpose();
        let manifest = self.describe(&pre, Arc::clone(&settings)).await?;
        needs_are_granted(&manifest.needs, &settings)?;
        let work = tokio::task::spawn_blocking(move || {
            let input = schema::checker(&manifest.input_schema, "input")?;
            let output = schema::checker(&manifest.output_schema, "output")?;
            Ok((manifest, input, output))
        });
        let (manifest, input, output) = work.await.unwrap_or_else(|error| {
            Err(Rejection::Manifest(format!("its schemas cannot be read: {error}")))
        })?;
        Ok(LoadedComponent {
            digest,
            manifest,
            exports,
            imports,
            bytes_len,
            pre,
            action: action.map_err(shape)?,
            undo: undo.map_err(shape)?,
            probe: probe.map_err(shape)?,
            input,
            output,
            idle: Idle::new(Arc::clone(&self.idle_room)),
            meter: Meter::new(&self.sandbox.clock),
        })
    }

    pub(crate) fn engine(&self) -> &wasmtime::Engine {
        &self.sandbox.engine
    }

    /// The folder of compiled code.
    #[must_use]
    pub fn cache(&self) -> Option<&Path> {
        self.cache.as_deref()
    }

    async fn describe(
        &self,
        pre: &InstancePre<Guest>,
        settings: Arc<PluginSettings>,
    ) -> Result<Manifest, Rejection> {
        let wrong = |error: wasmtime::Error| {
            Rejection::Manifest(format!("describe failed: {}", crate::call::reason(&error)))
        };
        // Whoever only looks at a component must not have it send anything.
        let no_network = Outbound::stubbed(&settings, StubAnswer::NoAnswer);
        let settings = PluginSettings::clone(&settings);
        let granted = Arc::new(Granted::with_outbound(settings, no_network));
        let mut store = Guest::store(self.engine(), None, None, granted);
        let pre = pre.clone();
        let asked = Box::pin(async move {
            let indices = manifest::GuestIndices::new(&pre)?;
            let instance = pre.instantiate_async(&mut store).await?;
            indices.load(&mut store, &instance)?.call_describe(&mut store).await
        });
        let meter = Meter::new(&self.sandbox.clock);
        let asked = async move { meter.metered(asked).await };
        let description = tokio::time::timeout(DESCRIBE_TIMEOUT, giving_way(Box::pin(asked)))
            .await
            .map_err(|_| {
                Rejection::Manifest(format!("describe took longer than {DESCRIBE_TIMEOUT:?}"))
            })?
            .map_err(wrong)?;
        if description.name.is_empty() || description.version.is_empty() {
            return Err(Rejection::Manifest("it has no name or no version".to_owned()));
        }
        Ok(Manifest {
            name: description.name,
            version: description.version,
            summary: description.summary,
            input_schema: schema::parse(&description.input_schema, "input")?,
            output_schema: schema::parse(&description.output_schema, "output")?,
            service: description.service,
            needs: description.needs,
        })
    }
}

/// Whether a component may be loaded with what it cannot do without.
fn needs_are_granted(needs: &[String], settings: &PluginSettings) -> Result<(), Rejection> {
    for need in needs {
        match settings.grants(need) {
            Some((true, _)) => {}
            Some((false, key)) => {
                let remedy = format!("grant it by {key} in [plugin.NAME]");
                let import = match need.as_str() {
                    "http" => "wasi:http/outgoing-handler".to_owned(),
                    capability => format!("amends:saga/{capability}"),
                };
                return Err(Rejection::NotGranted { import, remedy });
            }
            None => {
                let known = "config, state, events, http";
                let wrong = format!("it needs `{need}`, which is no capability: there are {known}");
                return Err(Rejection::Manifest(wrong));
            }
        }
    }
    Ok(())
}
