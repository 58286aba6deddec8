//! Which component serves which plugin, and the calls.

mod canary;
mod deploys;
mod loads;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use amends_engine::{Digest, Failure, Outcome, PluginName, Timestamp, Version};
use amends_store::{
    Append, Appended, BlobKind, NewEvent, StateChange, Store, StoreError, Stream, failpoint_holding,
};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::cache::CacheConfig;
use crate::call::{self, Answer, Place, PluginCall};
use crate::config::{PluginSettings, PluginsConfig};
use crate::error::{PluginError, Rejection};
use crate::folder;
use crate::granted::Granted;
use crate::guest::Lacks;
use crate::load::{LoadedComponent, Loader, Priority};
use crate::loaded_cache::LoadedCache;
use crate::memory::{CallMemory, Memory, PluginMemory};
use crate::watch;
use canary::Canary;
use deploys::REFUSALS_RECORDED_MAX;
use loads::LOADS_MAX;

pub use canary::{CallCounts, CanaryEnd, CanaryInfo, CanarySpec, Tally};
pub use deploys::{Activation, Candidate, Cause, Guard, RejectionRecord, Why, misnamed};

/// Activations and refusals that are kept in memory, of each plugin. The stream has all of them.
const HISTORY_MAX: usize = 1_000;

/// The plugins of a host. Cheap to clone.
#[derive(Clone)]
pub struct PluginHost {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: PluginsConfig,
    pub(crate) store: Arc<dyn Store>,
    loader: Loader,
    pub(crate) memory: Memory,
    plugins: RwLock<BTreeMap<PluginName, Plugin>>,
    loaded_cache: Mutex<LoadedCache>,
    /// Loads from the store that are under way: whoever wants the same component joins them. Each ends
    /// when nobody waits for it any more.
    loading: Mutex<HashMap<(PluginName, Digest, Priority), WeakShared<Loading>>>,
    /// The watcher of the folder, and the follower of other hosts.
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// How far the stream of deploys is known. Held while one is recorded: one at a time.
    deploys: tokio::sync::Mutex<Version>,
    /// Of who judges a component and has it serve.
    turn: tokio::sync::Mutex<()>,
    guard: OnceLock<Arc<dyn Guard>>,
}

type Loading = BoxFuture<'static, Result<Arc<LoadedComponent>, NotLoaded>>;

/// Why a component cannot be had from the store.
#[derive(Debug, Clone)]
enum NotLoaded {
    Lost,
    Rejected(Rejection),
    Store(StoreError),
}

struct Plugin {
    granted: Arc<Granted>,
    active: Option<Active>,
    /// The latest first.
    history: Vec<Activation>,
    /// The latest first.
    rejections: Vec<RejectionRecord>,
    /// How many of them came since the last activation; no two of those say the same.
    rejections_since: usize,
    /// Whether the latest is logged by this process.
    is_rejection_logged: bool,
    canary: Option<Canary>,
    /// Those that ended, the latest first.
    canaries: Vec<CanaryInfo>,
    /// The last that happened is that one was taken back.
    is_taken_back: bool,
    /// The component that should serve and cannot be loaded, and why.
    unloadable: Option<(Digest, String)>,
    stream: Version,
}

#[derive(Clone)]
struct Active {
    component: Arc<LoadedComponent>,
    since: Timestamp,
}

/// A plugin as a reader sees it.
#[derive(Debug, Clone)]
pub struct PluginInfo {
    /// Its name.
    pub name: PluginName,
    /// The component that serves it; none while every one was refused.
    pub digest: Option<Digest>,
    /// That component's version.
    pub version: Option<String>,
    /// Which calls it serves.
    pub exports: Vec<String>,
    /// The capabilities that it needs.
    pub needs: Vec<String>,
    /// Since when.
    pub active_since: Option<Timestamp>,
    /// Every component that served it, the latest first.
    pub history: Vec<Activation>,
    /// Every component that was refused, the latest first.
    pub rejections: Vec<RejectionRecord>,
    /// Every component that served a share of the sagas, the latest first: it may run yet.
    pub canaries: Vec<CanaryInfo>,
    /// Whether one was taken back since the last activation.
    pub is_taken_back: bool,
}

impl std::fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginHost").field("dir", &self.inner.config.dir).finish_non_exhaustive()
    }
}

impl PluginHost {
    /// Has each plugin that a definition needs be served by what served it last, from the store; by
    /// its file when the store has nothing for it that can be loaded. Others are loaded, and files
    /// are looked at, from [`Self::watch`] on: a host does not wait for what it can do without.
    ///
    /// # Errors
    /// When the folder cannot be read, the sandbox cannot be set up or the store fails. A bad
    /// component is not an error: it is refused and recorded.
    pub async fn open(config: PluginsConfig, store: Arc<dyn Store>) -> Result<Self, PluginError> {
        let cache = CacheConfig { dir: config.cache.clone(), key: config.cache_key.clone() };
        let (keys, inspection) = (config.trusted_keys.clone(), config.inspection.clone());
        let loader = Loader::new(Some(&cache), keys, inspection)?;
        let mut names = folder::names(&config.dir)?;
        let memory = Memory::new(config.memory_bytes_max);
        let inner = Arc::new(Inner {
            config,
            store,
            loader,
            memory,
            plugins: RwLock::new(BTreeMap::new()),
            loaded_cache: Mutex::new(LoadedCache::default()),
            loading: Mutex::default(),
            tasks: Mutex::default(),
            deploys: tokio::sync::Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            guard: OnceLock::new(),
        });
        let host = Self { inner };
        for blob in host.inner.store.blobs(BlobKind::Component).await? {
            names.extend(blob.name.parse::<PluginName>());
        }
        host.read_deploys(&names).await?;
        host.begin().await?;
        Ok(host)
    }

    /// Begins to look at the folder and to follow what other hosts of the store deploy. `guard` is
    /// asked before a file replaces what serves; so there must be one by then, where there are sagas.
    pub async fn watch(&self, guard: Option<Arc<dyn Guard>>) {
        if let Some(guard) = guard {
            let _ = self.inner.guard.set(guard);
        }
        let (watcher, ready) = watch::spawn(self.clone());
        let follower = self.follow();
        self.tasks().extend([watcher, follower]);
        // A file that is dropped right after this must be seen.
        let _ = ready.await;
    }

    /// Has something serve each plugin that a definition needs, all at once.
    async fn begin(&self) -> Result<(), PluginError> {
        let room = Arc::new(Semaphore::new(LOADS_MAX));
        let mut begun = JoinSet::new();
        let required = self.inner.config.plugins.iter();
        let required: Vec<_> = required
            .filter(|(_, settings)| settings.required.any())
            .map(|(name, _)| name)
            .collect();
        self.inner.config.progress.begin(required.len());
        for name in required {
            let (host, name, room) = (self.clone(), name.clone(), Arc::clone(&room));
            begun.spawn(async move {
                let _room = room.acquire().await;
                let begun = host.begin_one(&name).await;
                host.inner.config.progress.done(&name);
                begun
            });
        }
        while let Some(done) = begun.join_next().await {
            done.map_err(|error| PluginError::Sandbox(error.to_string()))??;
        }
        Ok(())
    }

    async fn begin_one(&self, name: &PluginName) -> Result<(), PluginError> {
        if let Some(last) = self.last(name) {
            match self.by_digest(name, last.digest).await {
                Ok(component) => {
                    self.put_to_use(name, &component);
                    return Ok(());
                }
                Err(PluginError::Store(error)) => return Err(error.into()),
                Err(error) => {
                    tracing::error!(plugin = %name, %error, "what served last cannot be loaded");
                    self.note_unloadable(name, last.digest, &error);
                }
            }
        }
        // Nothing serves, so there is nothing that the guard would have to keep serving.
        let (dir, of) = (self.inner.config.dir.clone(), name.clone());
        let read = tokio::task::spawn_blocking(move || folder::read_component(&dir, &of)).await;
        let read = read.unwrap_or_else(|error| Err(Rejection::NotReadable(error.to_string())));
        let bytes = match read {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(()),
            Err(rejection) => return self.reject(name, None, &rejection).await,
        };
        let digest = Digest::of(&bytes);
        if self.is_superseded(name, digest) {
            return Ok(());
        }
        let refused = match self.load(name, bytes, Priority::Awaited).await {
            Ok(candidate) => match self.misnamed(name, &candidate.component) {
                None => return self.activate(vec![candidate], Why::default()).await,
                Some(rejection) => rejection,
            },
            Err(rejection) => rejection,
        };
        self.reject(name, Some(digest), &refused).await
    }

    /// The component that serves a plugin now.
    #[must_use]
    pub fn active(&self, name: &PluginName) -> Option<Arc<LoadedComponent>> {
        self.with(name, |plugin| plugin.active.as_ref().map(|active| Arc::clone(&active.component)))
            .flatten()
    }

    /// The component, of those that any plugin has or had, whose digest begins like this.
    ///
    /// # Errors
    /// When there is none such, or more than one.
    pub fn digest_of(&self, beginning: &str) -> Result<Digest, String> {
        let mut found = Vec::new();
        for info in self.list() {
            let canaries = info.canaries.iter().map(|one| one.digest);
            found.extend(info.history.iter().map(|one| one.digest).chain(canaries));
        }
        found.retain(|digest| digest.to_string().starts_with(beginning));
        found.sort();
        found.dedup();
        match found[..] {
            [digest] => Ok(digest),
            [] => Err(format!(
                "no component that serves or served a plugin begins with `{beginning}`"
            )),
            _ => Err(format!(
                "{} components begin with `{beginning}`; write more of it",
                found.len()
            )),
        }
    }

    /// Whether a component serves a plugin or did before, as far as is remembered.
    #[must_use]
    pub fn has_served(&self, name: &PluginName, digest: Digest) -> bool {
        let has = |plugin: &Plugin| {
            plugin.history.iter().any(|one| one.digest == digest)
                || plugin.canary.as_ref().is_some_and(|one| one.digest() == digest)
                || plugin.canaries.iter().any(|one| one.digest == digest)
        };
        self.with(name, has).unwrap_or_default()
    }

    /// A component that serves or served a plugin, from memory or from the store. However many ask for
    /// one at once, it is loaded once. One that could not be loaded is refused for the same reason for
    /// some time, without another try. May be cancelled.
    ///
    /// # Errors
    /// When nobody has its bytes or they cannot be loaded any more.
    pub async fn by_digest(
        &self,
        name: &PluginName,
        digest: Digest,
    ) -> Result<Arc<LoadedComponent>, PluginError> {
        self.by_digest_as(name, digest, Priority::Awaited).await
    }

    /// As [`Self::by_digest`], by who waits for it.
    async fn by_digest_as(
        &self,
        name: &PluginName,
        digest: Digest,
        priority: Priority,
    ) -> Result<Arc<LoadedComponent>, PluginError> {
        if let Some(active) = self.active(name)
            && active.digest == digest
        {
            return Ok(active);
        }
        let loaded = match self.known(name, digest) {
            Some(known) => known,
            None => self.loading(name, digest, priority).await,
        };
        loaded.map_err(|error| {
            let plugin = name.clone();
            match error {
                NotLoaded::Lost => PluginError::Lost { plugin, digest },
                NotLoaded::Rejected(rejection) => PluginError::Rejected { plugin, rejection },
                NotLoaded::Store(error) => error.into(),
            }
        })
    }

    /// A component that is in memory, or why it could not be loaded lately.
    fn known(
        &self,
        name: &PluginName,
        digest: Digest,
    ) -> Option<Result<Arc<LoadedComponent>, NotLoaded>> {
        let (mut cache, now) = (self.cache(), Instant::now());
        let refused = cache.rejection(name, digest, now).map(NotLoaded::Rejected).map(Err);
        cache.get(digest, now).map(Ok).or(refused)
    }

    /// The load of a component that is under way, or a new one.
    fn loading(&self, name: &PluginName, digest: Digest, priority: Priority) -> Shared<Loading> {
        let mut all = self.inner.loading.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, one| one.upgrade().is_some());
        // A call must not join a load that gives way to it.
        let key = (name.clone(), digest, priority);
        if let Some(loading) = all.get(&key).and_then(WeakShared::upgrade) {
            return loading;
        }
        let host = self.clone();
        let name = name.clone();
        let loading = async move { host.load_from_store(&name, digest, priority).await };
        let loading = loading.boxed().shared();
        all.extend(loading.downgrade().map(|weak| (key, weak)));
        loading
    }

    async fn load_from_store(
        &self,
        name: &PluginName,
        digest: Digest,
        priority: Priority,
    ) -> Result<Arc<LoadedComponent>, NotLoaded> {
        // Another load may have ended since it was looked for.
        if let Some(known) = self.known(name, digest) {
            return known;
        }
        let bytes = self.inner.store.blob(BlobKind::Component, digest).await;
        let bytes = bytes.map_err(NotLoaded::Store)?.ok_or(NotLoaded::Lost)?;
        let settings = Arc::new(self.configured(name));
        self.tell_compiling(name, digest, bytes.len());
        match self.inner.loader.load(bytes, settings, priority).await {
            Ok(component) => {
                let component = Arc::new(component);
                self.cache().keep(&component, Instant::now());
                Ok(component)
            }
            Err(rejection) => {
                self.cache().reject(name, digest, rejection.clone(), Instant::now());
                Err(NotLoaded::Rejected(rejection))
            }
        }
    }

    /// How many calls of a plugin may run at once. Whoever calls must keep to it.
    #[must_use]
    pub fn concurrency(&self, name: &PluginName) -> usize {
        self.with(name, |plugin| plugin.granted.settings.concurrency)
            .unwrap_or_else(|| self.configured(name).concurrency) as usize
    }

    /// What a plugin has of the memory of all guests.
    #[must_use]
    pub fn memory(&self, name: &PluginName) -> Arc<PluginMemory> {
        Arc::clone(&self.granted(name).memory)
    }

    /// Bytes that guests have now.
    #[must_use]
    pub fn memory_used(&self) -> usize {
        self.inner.memory.used()
    }

    /// What became of a call that was cut off with its host: what the component can tell, if it
    /// can be asked. It holds `memory`, and takes more as it grows. May be dropped at any time.
    ///
    /// The call began before `cut_off`. The host believes that it did not happen only once the call's
    /// timeout has passed since then: until then a request of it may be on its way. Without `cut_off` the
    /// call is over.
    pub async fn ask(
        &self,
        call: &PluginCall,
        unknown: Failure,
        memory: Option<CallMemory>,
        cut_off: Option<Instant>,
    ) -> Answer {
        let granted = self.granted(&call.plugin);
        let held = memory.map(|memory| memory.0);
        let asked = match self.by_digest(&call.plugin, call.digest).await {
            Ok(component) => {
                let place = self.place(&granted, call);
                call::ask(place, &component, call, &unknown, held, cut_off).await
            }
            Err(error) if error.is_passing() => Err(not_loaded(&error)),
            Err(_) => Ok(None),
        };
        match asked {
            Ok(Some((outcome, fate))) => Answer { fate: Some(fate), ..Answer::of(outcome) },
            Ok(None) => Answer::of(Outcome::Unknown(unknown)),
            Err(lacks) => Answer::not_begun(lacks),
        }
    }

    /// As [`Self::call_within`], with memory that is taken as the call grows: for who makes one call at
    /// a time.
    pub async fn call(&self, call: &PluginCall) -> Answer {
        self.call_within(call, None).await
    }

    /// Runs a call on the component that it names; when nobody knows what came of it and the
    /// component can be asked, asks it. It holds `memory`, and takes more as it grows. Never fails: what
    /// goes wrong is the outcome. May be dropped at any time.
    pub async fn call_within(&self, call: &PluginCall, memory: Option<CallMemory>) -> Answer {
        let component = match self.by_digest(&call.plugin, call.digest).await {
            Ok(component) => component,
            // Nothing was run.
            Err(error) if error.is_passing() => return Answer::not_begun(not_loaded(&error)),
            Err(error) => {
                let failure = Failure::new("component_lost", error.to_string());
                return Answer::of(Outcome::Retryable(failure));
            }
        };
        let (granted, trial) = self
            .with(&call.plugin, |plugin| (Arc::clone(&plugin.granted), plugin.trial(call.digest)))
            .unwrap_or_else(|| (self.granted(&call.plugin), None));
        failpoint_holding("plugins.call.before", || call.words()).await;
        let began = Instant::now();
        let (answer, held) = call::run(self.place(&granted, call), &component, call, memory).await;
        failpoint_holding("plugins.call.returned", || call.words()).await;
        if let Some(trial) = trial.filter(|_| answer.not_begun.is_none()) {
            self.count(&call.plugin, &trial, &answer.outcome);
        }
        let Outcome::Unknown(unknown) = &answer.outcome else { return answer };
        let place = self.place(&granted, call);
        match call::ask(place, &component, call, unknown, held, Some(began)).await {
            Ok(Some((outcome, fate))) => {
                Answer { fate: Some(fate), has_sent: answer.has_sent, ..Answer::of(outcome) }
            }
            Ok(None) | Err(_) => answer,
        }
    }

    pub(crate) fn place<'a>(&'a self, granted: &'a Arc<Granted>, call: &PluginCall) -> Place<'a> {
        let of = |settings: &PluginSettings| settings.state.then_some(settings.state_bytes_max);
        // The state is that plugin's, and so are its grant and its limit, also where this version
        // of the config has another plugin undo the step or none.
        let state_bytes_max = if call.state_of == call.plugin {
            of(&granted.settings)
        } else {
            of(&self.granted(&call.state_of).settings)
        };
        let (engine, store) = (self.inner.loader.engine(), &self.inner.store);
        Place { engine, store, granted, state_bytes_max }
    }

    /// Every plugin, by name.
    #[must_use]
    pub fn list(&self) -> Vec<PluginInfo> {
        self.plugins().iter().map(|(name, plugin)| plugin.info(name)).collect()
    }

    /// One plugin.
    #[must_use]
    pub fn info(&self, name: &PluginName) -> Option<PluginInfo> {
        self.with(name, |plugin| plugin.info(name))
    }

    /// How many components had to be compiled since the start; the others came from the cache.
    #[must_use]
    pub fn compiled(&self) -> u64 {
        self.inner.loader.compiled()
    }

    /// Stops watching and following. Calls can still be run.
    pub async fn close(&self) {
        let tasks = std::mem::take(&mut *self.tasks());
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
    }

    pub(crate) fn config(&self) -> &PluginsConfig {
        &self.inner.config
    }

    pub(crate) fn is_active(&self, name: &PluginName, digest: Digest) -> bool {
        self.active(name).is_some_and(|active| active.digest == digest)
    }

    /// Whether a file of the start holds what served before an operator had another component serve, or
    /// meanwhile: then it says nothing new.
    pub(crate) fn is_superseded(&self, name: &PluginName, digest: Digest) -> bool {
        let is_of_file = |one: &&Activation| one.why.cause == Cause::File;
        self.with(name, |plugin| {
            let last_of_file = plugin.history.iter().position(|one| is_of_file(&one));
            let since = &plugin.history[..last_of_file.map_or(0, |last| last + 1)];
            last_of_file > Some(0) && since.iter().any(|one| one.digest == digest)
        })
        .unwrap_or_default()
    }

    pub(crate) async fn load(
        &self,
        name: &PluginName,
        bytes: Vec<u8>,
        priority: Priority,
    ) -> Result<Candidate, Rejection> {
        let began = Instant::now();
        let settings = Arc::new(self.configured(name));
        let digest = Digest::of(&bytes);
        self.tell_compiling(name, digest, bytes.len());
        failpoint_holding("plugins.load.before", || digest.hex()).await;
        let bytes = Arc::new(bytes);
        let loaded = self.inner.loader.load(Arc::clone(&bytes), settings, priority).await;
        metrics::histogram!("amends_plugin_reload_seconds").record(began.elapsed());
        let (plugin, component) = (name.clone(), Arc::new(loaded?));
        // Whoever looked at them is done with them.
        Ok(Candidate { plugin, component, bytes: Some(Arc::unwrap_or_clone(bytes)) })
    }

    /// Says that a component is compiled, before: that can take seconds, in which nothing is heard.
    fn tell_compiling(&self, name: &PluginName, digest: Digest, bytes: usize) {
        if !self.inner.loader.is_compiled(digest) {
            self.inner.config.progress.compiles(name, bytes);
            tracing::info!(plugin = %name, %digest, bytes, "compiling");
        }
    }

    /// An event in the plugin's own stream, with changes of its state; what came of it otherwise
    /// than done is the answer.
    pub(crate) async fn record_with(
        &self,
        name: &PluginName,
        kind: &'static str,
        at: Timestamp,
        data: &Value,
        state: Vec<StateChange>,
    ) -> Result<Appended, PluginError> {
        let mut expected = self.with(name, |plugin| plugin.stream).unwrap_or_default();
        loop {
            let append = Append {
                stream: Stream::Plugin(name.clone()),
                expected,
                at,
                events: vec![NewEvent { kind: kind.into(), data: data.to_string() }],
                row: None,
                start_key: None,
                state: state.clone(),
            };
            match self.inner.store.append(append).await {
                Ok(done @ Appended::Done { .. }) => {
                    self.change(name, |plugin| plugin.stream = expected.plus(1));
                    return Ok(done);
                }
                Ok(refused) => return Ok(refused),
                // Another host of the same store wrote; what it wrote changes nothing here.
                Err(StoreError::Conflict { actual, .. }) => expected = actual,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn granted(&self, name: &PluginName) -> Arc<Granted> {
        self.with(name, |plugin| Arc::clone(&plugin.granted))
            .unwrap_or_else(|| Arc::new(self.new_granted(name)))
    }

    pub(crate) fn configured(&self, name: &PluginName) -> PluginSettings {
        let settings = self.inner.config.plugins.get(name).cloned().unwrap_or_default();
        PluginSettings { name: Some(name.clone()), ..settings }
    }

    fn with<T>(&self, name: &PluginName, read: impl FnOnce(&Plugin) -> T) -> Option<T> {
        self.plugins().get(name).map(read)
    }

    fn plugins(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<PluginName, Plugin>> {
        self.inner.plugins.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, name: &PluginName, change: impl FnOnce(&mut Plugin) -> T) -> T {
        let mut plugins = self.inner.plugins.write().unwrap_or_else(PoisonError::into_inner);
        change(plugins.entry(name.clone()).or_insert_with(|| Plugin::new(self.new_granted(name))))
    }

    fn new_granted(&self, name: &PluginName) -> Granted {
        Granted::new(self.configured(name)).within(&self.inner.memory)
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, LoadedCache> {
        self.inner.loaded_cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plugin {
    fn new(granted: Granted) -> Self {
        Self {
            granted: Arc::new(granted),
            active: None,
            history: Vec::new(),
            rejections: Vec::new(),
            rejections_since: 0,
            is_rejection_logged: false,
            canary: None,
            canaries: Vec::new(),
            is_taken_back: false,
            unloadable: None,
            stream: Version(0),
        }
    }

    /// What became active, whatever was tried beside what was.
    fn activated(&mut self, activation: Activation) -> Option<Arc<LoadedComponent>> {
        let canary = self.end_canary(CanaryEnd {
            at: activation.at,
            is_promoted: self.canary.as_ref().is_some_and(|one| one.digest() == activation.digest),
            who: activation.why.who.clone(),
            reason: activation.why.reason.clone(),
        });
        self.history.insert(0, activation);
        self.history.truncate(HISTORY_MAX);
        self.rejections_since = 0;
        self.is_taken_back = false;
        canary
    }

    /// Those since the last activation.
    fn new_rejections(&self) -> &[RejectionRecord] {
        &self.rejections[..self.rejections_since]
    }

    /// Whether a refusal is to be an event.
    fn is_to_record(&self, record: &RejectionRecord) -> bool {
        let new = self.new_rejections();
        new.len() < REFUSALS_RECORDED_MAX && !new.iter().any(|one| one.is_same(record))
    }

    /// Takes in a refusal, recorded or not. Whether it is other than the latest, or not logged yet.
    fn refused(&mut self, record: RejectionRecord, is_logged: bool) -> bool {
        let known = self.new_rejections().iter().position(|one| one.is_same(&record));
        let is_news = known != Some(0) || !self.is_rejection_logged;
        self.is_rejection_logged = is_logged || !is_news;
        match known {
            Some(0) => return is_news,
            Some(at) => drop(self.rejections.remove(at)),
            None => self.rejections_since += 1,
        }
        self.rejections.insert(0, record);
        self.rejections.truncate(HISTORY_MAX);
        self.rejections_since = self.rejections_since.min(HISTORY_MAX);
        is_news
    }

    fn info(&self, name: &PluginName) -> PluginInfo {
        let component = self.active.as_ref().map(|active| &active.component);
        PluginInfo {
            name: name.clone(),
            digest: component.map(|component| component.digest),
            version: component.map(|component| component.manifest.version.clone()),
            exports: component.map(|component| component.exports.words()).unwrap_or_default(),
            needs: component.map(|component| component.manifest.needs.clone()).unwrap_or_default(),
            active_since: self.active.as_ref().map(|active| active.since),
            history: self.history.clone(),
            rejections: self.rejections.clone(),
            canaries: self.canary.iter().map(Canary::info).chain(self.canaries.clone()).collect(),
            is_taken_back: self.is_taken_back,
        }
    }
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// What a host lacks for a call whose component it cannot load.
fn not_loaded(error: &PluginError) -> Lacks {
    Lacks::Machine(format!("the component cannot be loaded: {error}"))
}
