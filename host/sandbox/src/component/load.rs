//! From bytes to a component that can be called.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use amends_engine::Digest;
use tempfile::NamedTempFile;
use tokio::sync::{Notify, OwnedMutexGuard, Semaphore, SemaphorePermit};
use wasmtime::component::{Component, Linker};

use crate::bindings::exports::amends::saga::{action, probe, undo};
use crate::call::guest::{Guest, linker};
use crate::call::idle::{IDLE_MAX, IDLE_PART, Idle};
use crate::component::cache::{self, Cache, CacheConfig};
use crate::component::check::{check_is_component, check_required};
use crate::component::inspect::{self, Asked, Code, Description, Inspection, Limits, Request};
use crate::component::loaded::LoadedComponent;
use crate::component::schema;
use crate::component::signature::TrustedKeys;
use crate::component::timed_checker::TimedChecker;
use crate::error::{Rejection, SandboxError};
use crate::limits::engine::{INSTANCES_MAX, WasmEngine};
use crate::limits::meter::Meter;
use crate::settings::PluginSettings;

/// Components that are looked at at once: each may take a gibibyte of memory, and two processors for a
/// minute.
const INSPECTIONS_MAX: usize = 2;

/// A look that nobody waits for and that has taken so long is one of those that take long, of which there
/// is one at a time: the other place is for components that take seconds.
const LONG_LOOK: Duration = Duration::from_secs(30);

/// Loads components. Cheap to clone.
#[derive(Clone)]
pub struct Loader {
    sandbox: WasmEngine,
    linker: Arc<Linker<Guest>>,
    trusted_keys: TrustedKeys,
    cache: Option<Cache>,
    inspection: Arc<Inspection>,
    inspections: Arc<Semaphore>,
    /// For the one look that may take long while nobody waits for it, besides its place among all.
    long_inspection: Arc<Semaphore>,
    /// [`LONG_LOOK`].
    long_look: Duration,
    /// Who looks at a component holds its lock.
    looks: Arc<Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>>,
    /// Told when somebody waits for a turn: what nobody waits for ends, and takes another.
    turn_wanted: Arc<Notify>,
    compiled: Arc<AtomicU64>,
    /// For instances that wait to be used again.
    idle_room: Arc<Semaphore>,
}

/// Who waits for a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Priority {
    /// A call, a saga or whoever started the host.
    Awaited,
    /// Nobody: another component serves meanwhile, and its calls go first.
    Background,
}

impl Loader {
    /// A loader that keeps compiled code in `cache`, if that is given, and loads nothing but what
    /// one of `trusted_keys` has signed, if there is one.
    ///
    /// # Errors
    /// When the sandbox cannot be set up, or the cache's folder is not this user's alone.
    pub fn new(
        cache: Option<&CacheConfig>,
        trusted_keys: TrustedKeys,
        inspection: Inspection,
    ) -> Result<Self, SandboxError> {
        Self::with_instances(INSTANCES_MAX, cache, trusted_keys, inspection)
    }

    /// As [`Self::new`], with room for so many instances at once, at most [`INSTANCES_MAX`].
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_instances(
        instances_max: u32,
        cache: Option<&CacheConfig>,
        trusted_keys: TrustedKeys,
        inspection: Inspection,
    ) -> Result<Self, SandboxError> {
        let sandbox = WasmEngine::new(instances_max)?;
        let idle_max = usize::try_from(instances_max).unwrap_or(usize::MAX) / IDLE_PART;
        let linker =
            linker(&sandbox.engine).map_err(|error| SandboxError::SetUp(format!("{error:#}")))?;
        let cache = cache.map(|cache| Cache::open(cache, &sandbox.engine)).transpose()?.flatten();
        Ok(Self {
            sandbox,
            linker: Arc::new(linker),
            trusted_keys,
            cache,
            inspection: Arc::new(inspection),
            inspections: Arc::new(Semaphore::new(INSPECTIONS_MAX)),
            long_inspection: Arc::new(Semaphore::new(1)),
            long_look: LONG_LOOK,
            looks: Arc::default(),
            turn_wanted: Arc::default(),
            compiled: Arc::default(),
            idle_room: Arc::new(Semaphore::new(idle_max.min(IDLE_MAX))),
        })
    }

    /// How many components it had to compile; the others came from the cache.
    #[must_use]
    pub fn compiled(&self) -> u64 {
        self.compiled.load(Ordering::Relaxed)
    }

    /// Takes a component from the cache, or has it checked, compiled and described in a child process.
    /// May be cancelled: the child is killed then. One that met a limit lately is refused at once.
    ///
    /// # Errors
    /// Why it cannot serve, in words for its author.
    pub async fn load(
        &self,
        bytes: impl Into<Arc<Vec<u8>>>,
        settings: Arc<PluginSettings>,
        priority: Priority,
    ) -> Result<LoadedComponent, Rejection> {
        let loaded = self.load_uncut(bytes.into(), settings, priority).await;
        loaded.map_err(Rejection::cut)
    }

    async fn load_uncut(
        &self,
        bytes: Arc<Vec<u8>>,
        settings: Arc<PluginSettings>,
        priority: Priority,
    ) -> Result<LoadedComponent, Rejection> {
        let bytes_len = bytes.len();
        let asked = Asked::of(&settings);
        let (loader, looked, with) = (self.clone(), Arc::clone(&bytes), asked.fingerprint());
        let (digest, kept) = blocking(move || {
            // First of all: nothing is parsed, compiled or run of what nobody stands for, also when
            // compiled code of it is there.
            loader.trusted_keys.check(&looked)?;
            check_is_component(&looked)?;
            let digest = Digest::of(&looked);
            Ok((digest, loader.kept(digest, &with)?))
        })
        .await?;
        let (component, description) = match kept.whole() {
            Ok(whole) => whole,
            Err(_) => self.look(digest, bytes, asked, priority).await?,
        };
        let loader = self.clone();
        blocking(move || loader.linked(digest, bytes_len, &component, description, &settings)).await
    }

    /// What the cache has of a component.
    ///
    /// # Errors
    /// When it met a limit lately.
    fn kept(&self, digest: Digest, asked: &str) -> Result<CachedParts, Rejection> {
        let Some(cache) = &self.cache else { return Ok(CachedParts::default()) };
        let code = cache.code(digest).and_then(|file| {
            let component = cache::map(self.engine(), &file);
            component
                .inspect_err(|error| {
                    tracing::warn!(file = %file.display(), %error, "compiled code is made anew");
                })
                .ok()
                .map(|component| (file, component))
        });
        if code.is_none()
            && let Some(refusal) = cache.refusal(digest)
        {
            return Err(refusal);
        }
        Ok(CachedParts { code, description: cache.description(digest, asked) })
    }

    /// Has a component looked at, when it is its turn, and keeps what comes of it.
    async fn look(
        &self,
        digest: Digest,
        bytes: Arc<Vec<u8>>,
        asked: Asked,
        priority: Priority,
    ) -> Result<(Component, Description), Rejection> {
        let is_background = priority == Priority::Background;
        let (mut takes_long, mut long_place) = (false, None);
        // From before it has its turn: nobody who waits is missed.
        let mut wanted = Box::pin(self.turn_wanted.notified());
        wanted.as_mut().enable();
        loop {
            if takes_long && long_place.is_none() {
                long_place = self.long_inspection.acquire().await.ok();
            }
            let Turn { alone, one_of_few } = self.turn(digest, priority).await;
            // Somebody else may have compiled it meanwhile.
            let (loader, with) = (self.clone(), asked.fingerprint());
            let kept = blocking(move || loader.kept(digest, &with)).await?;
            let kept = match kept.whole() {
                Ok(whole) => return Ok(whole),
                Err(kept) => *kept,
            };
            let (code, to) = self.place_for_code(&kept)?;
            let (limits, bytes_len) = (Limits::default(), bytes.len() as u64);
            let request = Request { asked: asked.clone(), code, limits, is_background, bytes_len };
            let began = Instant::now();
            let mut looked = pin!(inspect::look(&self.inspection, request, Arc::clone(&bytes)));
            let mut long = pin!(tokio::time::sleep(self.long_look));
            let description = loop {
                tokio::select! {
                    biased;
                    description = looked.as_mut() => break Some(description),
                    () = wanted.as_mut(), if is_background => {
                        wanted.set(self.turn_wanted.notified());
                        wanted.as_mut().enable();
                        // Whoever waits is before it.
                        break None;
                    }
                    () = long.as_mut(), if is_background && long_place.is_none() => {
                        takes_long = true;
                        long_place = self.long_inspection.try_acquire().ok();
                        if long_place.is_none() {
                            break None;
                        }
                    }
                }
            };
            let Some(description) = description else { continue };
            drop(one_of_few);
            let (loader, with) = (self.clone(), asked.fingerprint());
            return blocking(move || {
                let looked = loader.keep(digest, &with, (kept, to), description);
                tracing::debug!(%digest, elapsed = ?began.elapsed(), "component looked at");
                // Until here, also when nobody waits for it any more: others find it kept.
                drop(alone);
                looked
            })
            .await;
        }
    }

    /// Where the compiled code of a component stands, or is to be made.
    fn place_for_code(
        &self,
        kept: &CachedParts,
    ) -> Result<(Code, Option<NamedTempFile>), Rejection> {
        if let Some((file, _)) = &kept.code {
            return Ok((Code::In(file.clone()), None));
        }
        let made = cache::file_for_code(self.cache.as_ref())
            .or_else(|_| cache::file_for_code(None))
            .map_err(|error| {
                let why = format!("compiled code cannot be written: {error}; make room");
                Rejection::Failed(why)
            })?;
        Ok((Code::To(made.path().to_owned()), Some(made)))
    }

    /// Keeps what came of a look at a component. Blocks.
    fn keep(
        &self,
        digest: Digest,
        fingerprint: &str,
        (kept, to): (CachedParts, Option<NamedTempFile>),
        description: Result<Description, Rejection>,
    ) -> Result<(Component, Description), Rejection> {
        let component = match (kept.code, to) {
            (Some((_, component)), _) => description.is_ok().then_some(Ok(component)),
            (None, Some(made)) => description.is_ok().then(|| self.keep_code(digest, made)),
            (None, None) => None,
        };
        if let Some(cache) = &self.cache {
            let kept = match &description {
                Ok(description) => cache.put_description(digest, fingerprint, description),
                Err(limit @ Rejection::Limit(_)) => cache.put_refusal(digest, limit),
                Err(_) => Ok(()),
            };
            if let Err(error) = kept {
                // It is looked at again, sooner or later; nothing else is lost.
                tracing::warn!(%digest, %error, "what is known of a component cannot be kept");
            }
        }
        let description = description?;
        let nothing = || Err(Rejection::Failed("it has no compiled code".to_owned()));
        Ok((component.unwrap_or_else(nothing)?, description))
    }

    /// Waits until a component may be looked at: nobody looks at the same one, and few at others.
    async fn turn(&self, digest: Digest, priority: Priority) -> Turn<'_> {
        let alone = {
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            looks.retain(|_, one| one.strong_count() > 0);
            let known = looks.get(&digest).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let new: Arc<tokio::sync::Mutex<()>> = Arc::default();
                looks.insert(digest, Arc::downgrade(&new));
                new
            })
        };
        let alone = self.awaited(priority, pin!(alone.lock_owned())).await;
        let one_of_few = self.awaited(priority, pin!(self.inspections.acquire())).await.ok();
        Turn { alone, one_of_few }
    }

    /// Waits in line for something. Whoever has it and is not waited for himself gives it back to one
    /// who is.
    async fn awaited<T>(
        &self,
        priority: Priority,
        mut place: Pin<&mut (impl Future<Output = T> + Send)>,
    ) -> T {
        if priority == Priority::Awaited {
            // It stands in the line before those whose turn it takes come back.
            if let Poll::Ready(taken) = futures::poll!(place.as_mut()) {
                return taken;
            }
            self.turn_wanted.notify_waiters();
        }
        place.await
    }

    /// Maps code that the child has just made, and keeps it.
    fn keep_code(&self, digest: Digest, made: NamedTempFile) -> Result<Component, Rejection> {
        let component = cache::map(self.engine(), made.path())?;
        self.compiled.fetch_add(1, Ordering::Relaxed);
        if let Some(cache) = &self.cache
            && let Err(error) = cache.put_code(digest, made)
        {
            // The next start compiles again; nothing else is lost.
            tracing::warn!(dir = %cache.dir().display(), %error, "compiled code cannot be kept");
        }
        Ok(component)
    }

    /// Ready to be called, when all that it says is within the limits and granted. Blocks, for some
    /// milliseconds.
    fn linked(
        &self,
        digest: Digest,
        bytes_len: usize,
        component: &Component,
        description: Description,
        settings: &PluginSettings,
    ) -> Result<LoadedComponent, Rejection> {
        let Description { exports, imports, texts } = description;
        check_required(exports, settings.required)?;
        let manifest = texts.read()?;
        needs_are_granted(&manifest.needs, settings)?;
        let shape = |error: wasmtime::Error| Rejection::Invalid(format!("{error:#}"));
        let pre = self.linker.instantiate_pre(component).map_err(shape)?;
        let action = exports.execute.then(|| action::GuestIndices::new(&pre)).transpose();
        let undo = exports.compensate.then(|| undo::GuestIndices::new(&pre)).transpose();
        let probe = exports.probe.then(|| probe::GuestIndices::new(&pre)).transpose();
        Ok(LoadedComponent {
            digest,
            input: schema::checker(&manifest.input_schema, "input")?.map(TimedChecker::new),
            output: schema::checker(&manifest.output_schema, "output")?.map(TimedChecker::new),
            manifest,
            exports,
            imports,
            bytes_len,
            pre,
            action: action.map_err(shape)?,
            undo: undo.map_err(shape)?,
            probe: probe.map_err(shape)?,
            idle: Idle::new(Arc::clone(&self.idle_room)),
            meter: Meter::new(&self.sandbox.clock),
        })
    }

    /// Whether there is compiled code of a component, sound or not.
    #[must_use]
    pub fn is_compiled(&self, digest: Digest) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.has_code(digest))
    }

    pub(crate) fn engine(&self) -> &wasmtime::Engine {
        &self.sandbox.engine
    }
}

/// The turn of a component to be looked at.
struct Turn<'a> {
    /// Nobody else looks at it.
    alone: OwnedMutexGuard<()>,
    /// One of the few looks that there are at once. None is never: nobody closes the semaphore.
    one_of_few: Option<SemaphorePermit<'a>>,
}

/// Of a component, what the cache has.
#[derive(Default)]
struct CachedParts {
    code: Option<(PathBuf, Component)>,
    description: Option<Description>,
}

impl CachedParts {
    fn whole(self) -> Result<(Component, Description), Box<Self>> {
        match self {
            Self { code: Some((_, component)), description: Some(description) } => {
                Ok((component, description))
            }
            part => Err(Box::new(part)),
        }
    }
}

/// Work that reads files or takes some milliseconds, off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Rejection> + Send + 'static,
) -> Result<T, Rejection> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Rejection::Failed(error.to_string())))
}

/// Whether a component may be loaded with what it cannot do without.
fn needs_are_granted(needs: &[String], settings: &PluginSettings) -> Result<(), Rejection> {
    for need in needs {
        match settings.grants(need) {
            Some((true, _)) => {}
            Some((false, key)) => {
                let remedy = format!("grant it by {key} in [{}]", settings.section());
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::os::unix::fs::PermissionsExt as _;

    use amends_tests::Component;

    use super::*;

    /// More files than are looked at at once, none of which comes to an end.
    #[tokio::test]
    async fn components_that_take_long_leave_a_place_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("endless");
        std::fs::write(&program, "#!/bin/sh\nexec sleep 600\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let loader = Loader::new(None, TrustedKeys::default(), Inspection::Child(program)).unwrap();
        let endless = Loader { long_look: Duration::from_millis(200), ..loader };
        let sound = Loader { inspection: Arc::new(Inspection::InThisProcess), ..endless.clone() };
        let load = |loader: &Loader, version: &'static str| {
            let (loader, bytes) = (loader.clone(), Component { version, ..Component::default() });
            let settings = Arc::new(PluginSettings::default());
            async move { loader.load(bytes.build(), settings, Priority::Background).await }
        };
        let mut looks = tokio::task::JoinSet::new();
        for version in ["1.0.0", "2.0.0", "3.0.0"] {
            looks.spawn(load(&endless, version));
        }
        let long = async {
            while endless.long_inspection.available_permits() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let soon = Duration::from_secs(20);
        tokio::time::timeout(soon, long).await.expect("none takes long");
        let taken = tokio::time::timeout(soon, load(&sound, "4.0.0")).await;
        assert_eq!(taken.expect("it has no turn").unwrap().manifest.version, "4.0.0");
        assert!(looks.try_join_next().is_none(), "one of the others has ended");
    }
}
