//! Which component serves which plugin, and the calls.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use amends_engine::{Digest, PersonalMarks, PluginName, Version};
use amends_failpoint::failpoint_holding;
use amends_sandbox::{
    CacheConfig, Grant, LoadedComponent, Loader, PluginMemory, PluginSettings, Priority, Rejection,
    Sandbox, TrustedKeys,
};
use amends_store::{BlobKind, Store, StoreError};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use tokio::task::JoinHandle;

use crate::activation::{Activation, ActivationCause, Candidate, Guard};
use crate::config::PluginsConfig;
use crate::error::PluginError;
use crate::folder;
use crate::loaded_cache::LoadedCache;
use crate::plugin::{Plugin, PluginInfo};
use crate::state_view::StoredState;

/// The plugins of a host. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: PluginsConfig,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sandbox: Sandbox,
    plugins: RwLock<BTreeMap<PluginName, Plugin>>,
    loaded_cache: Mutex<LoadedCache>,
    /// What the components mark as personal that were loaded since the start. Most mark nothing.
    marks: RwLock<HashMap<Digest, Arc<PersonalMarks>>>,
    /// Loads from the store that are under way: whoever wants the same component joins them. Each ends
    /// when nobody waits for it any more.
    loading: Mutex<HashMap<(PluginName, Digest, Priority), WeakShared<Loading>>>,
    /// The watcher of the folder, and the follower of other hosts.
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// How far the stream of deploys is known. Held while one is recorded: one at a time.
    pub(crate) deploys: tokio::sync::Mutex<Version>,
    /// Of who judges a component and has it serve.
    pub(crate) turn: tokio::sync::Mutex<()>,
    pub(crate) guard: OnceLock<Arc<dyn Guard>>,
}

type Loading = BoxFuture<'static, Result<Arc<LoadedComponent>, NotLoaded>>;

/// Why a component cannot be had from the store.
#[derive(Debug, Clone)]
enum NotLoaded {
    Lost,
    Rejected(Rejection),
    Store(StoreError),
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("dir", &self.inner.config.dir).finish_non_exhaustive()
    }
}

impl Registry {
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
        let instances_max = config.instances_max;
        let loader = Loader::with_instances(instances_max, Some(&cache), keys, inspection)?;
        let mut names = folder::names(&config.dir)?;
        let state = Arc::new(StoredState(Arc::clone(&store)));
        let sandbox = Sandbox::new(loader, config.memory_bytes_max, state);
        let inner = Arc::new(Inner {
            config,
            store,
            sandbox,
            plugins: RwLock::new(BTreeMap::new()),
            loaded_cache: Mutex::new(LoadedCache::default()),
            marks: RwLock::default(),
            loading: Mutex::default(),
            tasks: Mutex::default(),
            deploys: tokio::sync::Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            guard: OnceLock::new(),
        });
        let host = Self { inner };
        for blob in host.inner.store.blobs().list(BlobKind::Component).await? {
            names.extend(blob.name.parse::<PluginName>());
        }
        host.read_deploys(&names).await?;
        host.begin().await?;
        Ok(host)
    }

    /// The component that serves a plugin now.
    #[must_use]
    pub fn active(&self, name: &PluginName) -> Option<Arc<LoadedComponent>> {
        self.with(name, |plugin| plugin.active.as_ref().map(|active| Arc::clone(&active.component)))
            .flatten()
    }

    /// What a component marks as personal, if it marks something and was loaded since the start.
    #[must_use]
    pub fn marks(&self, digest: Digest) -> Option<Arc<PersonalMarks>> {
        let marks = self.inner.marks.read().unwrap_or_else(PoisonError::into_inner);
        if marks.is_empty() {
            return None;
        }
        marks.get(&digest).cloned()
    }

    /// What the components mark as personal that serve a plugin now: the active one and a canary.
    #[must_use]
    pub fn serving_marks(&self, name: &PluginName) -> Vec<Arc<PersonalMarks>> {
        let is_empty = self.inner.marks.read().unwrap_or_else(PoisonError::into_inner).is_empty();
        if is_empty {
            return Vec::new();
        }
        let digests = self.with(name, |plugin| {
            let active = plugin.active.as_ref().map(|active| active.component.digest);
            active
                .into_iter()
                .chain(plugin.canary.as_ref().map(crate::canary::Canary::digest))
                .collect()
        });
        let digests: Vec<_> = digests.unwrap_or_default();
        digests.into_iter().filter_map(|digest| self.marks(digest)).collect()
    }

    /// The keys of which a component must have a signature of one.
    #[must_use]
    pub fn trusted_keys(&self) -> &TrustedKeys {
        &self.inner.config.trusted_keys
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
    pub(crate) async fn by_digest_as(
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
        let bytes = self.inner.store.blobs().get(BlobKind::Component, digest).await;
        let bytes = bytes.map_err(NotLoaded::Store)?.ok_or(NotLoaded::Lost)?;
        let settings = Arc::new(self.configured(name));
        self.tell_compiling(name, digest, bytes.len());
        match self.inner.sandbox.loader().load(bytes, settings, priority).await {
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
        self.with(name, |plugin| plugin.grant.settings.concurrency)
            .unwrap_or_else(|| self.configured(name).concurrency) as usize
    }

    /// What a plugin has of the memory of all guests.
    #[must_use]
    pub fn memory(&self, name: &PluginName) -> Arc<PluginMemory> {
        Arc::clone(&self.grant(name).memory)
    }

    /// Bytes that guests have now.
    #[must_use]
    pub fn memory_used(&self) -> usize {
        self.inner.sandbox.memory_used()
    }

    /// Components whose code is in memory.
    #[must_use]
    pub fn components_loaded(&self) -> usize {
        self.cache().count()
    }

    /// Returns every plugin, by name.
    #[must_use]
    pub fn list(&self) -> Vec<PluginInfo> {
        self.plugins().iter().map(|(name, plugin)| plugin.info(name)).collect()
    }

    /// Returns one plugin; none when it is not known.
    #[must_use]
    pub fn info(&self, name: &PluginName) -> Option<PluginInfo> {
        self.with(name, |plugin| plugin.info(name))
    }

    /// How many components had to be compiled since the start; the others came from the cache.
    #[must_use]
    pub fn compiled(&self) -> u64 {
        self.inner.sandbox.loader().compiled()
    }

    /// Stops watching and following. Calls can still be run.
    pub async fn close(&self) {
        let tasks = std::mem::take(&mut *self.tasks());
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
    }

    /// Whether the config names a plugin, or a component serves or served it.
    #[must_use]
    pub fn is_known(&self, name: &PluginName) -> bool {
        self.plugins().contains_key(name) || self.inner.config.plugins.contains_key(name)
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
        let is_of_file = |one: &&Activation| one.why.cause == ActivationCause::File;
        self.with(name, |plugin| {
            let last_of_file = plugin.history.iter().position(|one| is_of_file(&one));
            let since = &plugin.history[..last_of_file.map_or(0, |last| last + 1)];
            last_of_file > Some(0) && since.iter().any(|one| one.digest == digest)
        })
        .unwrap_or_default()
    }

    /// Whether a file that is there at the start may serve: another host may have had one serve meanwhile.
    pub(crate) fn takes_file_of_start(&self, name: &PluginName) -> bool {
        !self.inner.config.shares_store || self.last(name).is_none()
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
        let loaded = self.inner.sandbox.loader().load(Arc::clone(&bytes), settings, priority).await;
        metrics::histogram!("amends_plugin_reload_seconds").record(began.elapsed());
        let (plugin, component) = (name.clone(), Arc::new(loaded?));
        let marks = PersonalMarks::of(&component.manifest.schemas());
        if !marks.is_empty() {
            let mut all = self.inner.marks.write().unwrap_or_else(PoisonError::into_inner);
            all.insert(digest, Arc::new(marks));
        }
        // Whoever looked at them is done with them.
        Ok(Candidate { plugin, component, bytes: Some(Arc::unwrap_or_clone(bytes)) })
    }

    /// Says that a component is compiled, before: that can take seconds, in which nothing is heard.
    fn tell_compiling(&self, name: &PluginName, digest: Digest, bytes: usize) {
        if !self.inner.sandbox.loader().is_compiled(digest) {
            self.inner.config.progress.compiles(name, bytes);
            tracing::info!(plugin = %name, %digest, bytes, "compiling");
        }
    }

    /// What a plugin is granted.
    pub(crate) fn grant(&self, name: &PluginName) -> Arc<Grant> {
        self.with(name, |plugin| Arc::clone(&plugin.grant)).unwrap_or_else(|| self.new_grant(name))
    }

    /// What the config says about a plugin; the defaults when it says nothing.
    #[must_use]
    pub fn configured(&self, name: &PluginName) -> PluginSettings {
        let settings = self.inner.config.plugins.get(name).cloned().unwrap_or_default();
        PluginSettings { name: Some(name.clone()), ..settings }
    }

    pub(crate) fn with<T>(&self, name: &PluginName, read: impl FnOnce(&Plugin) -> T) -> Option<T> {
        self.plugins().get(name).map(read)
    }

    pub(crate) fn plugins(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<PluginName, Plugin>> {
        self.inner.plugins.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change<T>(&self, name: &PluginName, change: impl FnOnce(&mut Plugin) -> T) -> T {
        let mut plugins = self.inner.plugins.write().unwrap_or_else(PoisonError::into_inner);
        change(plugins.entry(name.clone()).or_insert_with(|| Plugin::new(self.new_grant(name))))
    }

    fn new_grant(&self, name: &PluginName) -> Arc<Grant> {
        self.inner.sandbox.grant(self.configured(name))
    }

    pub(crate) fn tasks(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn cache(&self) -> std::sync::MutexGuard<'_, LoadedCache> {
        self.inner.loaded_cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
