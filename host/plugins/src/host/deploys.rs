//! Which component becomes active, recorded before it serves.
//!
//! Every activation and every refusal, of whatever plugin, is an event of one stream, so hosts of
//! the same store agree on their order; each follows what the others wrote. Events that earlier
//! versions wrote in a stream of the plugin are read as well.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::{Digest, PluginName, Timestamp, Version};
use amends_store::{Append, BlobKind, NewEvent, StoreError, StoredEvent, Stream, failpoint};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::{Active, CanaryInfo, HISTORY_MAX, PluginHost, PluginInfo, now};
use crate::error::{PluginError, Rejection};
use crate::load::{LoadedComponent, Priority};

/// Events of a stream that are read at once.
const EVENTS_PER_READ: u32 = 1_000;

/// How often the stream is read for what other hosts wrote, and code let go of that nobody needs. A
/// read finds nothing nearly always, by an index.
const FOLLOW_PAUSE: Duration = Duration::from_millis(500);

/// After so many pauses a canary that could not be loaded is tried again: every half a minute.
const LOAD_AGAIN: u32 = 60;

const ACTIVATED: &str = "plugin.activated";
const REJECTED: &str = "plugin.rejected";

/// What led to an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A file in the plugin folder.
    #[default]
    File,
    /// An operator handed it in.
    Deploy,
    /// An operator went back to one that served before.
    Rollback,
    /// It served a share of the sagas, well enough or until an operator said so.
    Canary,
}

/// Why a component becomes active: for people, and for the record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Why {
    /// What led to it.
    #[serde(default)]
    pub cause: Cause,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// It does not fit what sagas in flight have recorded, and was wanted nevertheless.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
}

/// A component that became active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// Which.
    pub digest: Digest,
    /// Its version.
    pub version: String,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub why: Why,
}

/// A component that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectionRecord {
    /// When.
    pub at: Timestamp,
    /// Which.
    pub digest: Digest,
    /// Why.
    pub reason: String,
}

/// A component that is to become active.
#[derive(Debug)]
pub struct Candidate {
    /// Of which plugin.
    pub plugin: PluginName,
    /// The component.
    pub component: Arc<LoadedComponent>,
    /// None when the store has them.
    pub(crate) bytes: Option<Vec<u8>>,
}

/// Whoever knows what a component would have to undo.
pub trait Guard: Send + Sync {
    /// Why a component should not become active for a plugin, if it should not.
    fn objection<'a>(
        &'a self,
        plugin: &'a PluginName,
        component: &'a LoadedComponent,
    ) -> Pin<Box<dyn Future<Output = Option<Rejection>> + Send + 'a>>;
}

/// The stored form.
#[derive(Serialize, Deserialize)]
struct Activated {
    components: Vec<One>,
    #[serde(flatten)]
    why: Why,
}

#[derive(Serialize, Deserialize)]
struct One {
    plugin: PluginName,
    digest: Digest,
    version: String,
    previous: Option<Digest>,
}

#[derive(Serialize, Deserialize)]
struct Rejected {
    plugin: PluginName,
    digest: Digest,
    reason: String,
    serving: Option<Digest>,
}

/// As earlier versions wrote it, in the stream of the plugin.
#[derive(Deserialize)]
struct OfOne {
    digest: Digest,
    #[serde(default)]
    version: String,
    #[serde(default)]
    reason: String,
}

impl PluginHost {
    /// Has somebody look at each component of the folder that is to replace one that serves. Once.
    pub fn guard_with(&self, guard: Arc<dyn Guard>) {
        let _ = self.inner.guard.set(guard);
    }

    pub(crate) async fn objection(
        &self,
        plugin: &PluginName,
        component: &LoadedComponent,
    ) -> Option<Rejection> {
        self.inner.guard.get()?.objection(plugin, component).await
    }

    /// Loads bytes that may become active for a plugin; nothing is recorded.
    ///
    /// # Errors
    /// Why they cannot serve it.
    pub async fn candidate(
        &self,
        plugin: &PluginName,
        bytes: Vec<u8>,
    ) -> Result<Candidate, Rejection> {
        self.load(plugin, bytes, Priority::Background).await
    }

    /// Has components serve, all or none. Durable first: their bytes, then one event for all of
    /// them; then they serve.
    ///
    /// # Errors
    /// When the store fails; none of them serves then.
    pub async fn activate(&self, candidates: Vec<Candidate>, why: Why) -> Result<(), PluginError> {
        self.activate_while(candidates, why, || true).await.map(|_| ())
    }

    /// As [`Self::activate`]; false, and nothing is done, when it is not wanted any more in the
    /// moment in which it would be recorded.
    pub(super) async fn activate_while(
        &self,
        mut candidates: Vec<Candidate>,
        why: Why,
        is_wanted: impl Fn() -> bool,
    ) -> Result<bool, PluginError> {
        failpoint("plugins.activate.before");
        let at = now();
        for candidate in &mut candidates {
            self.put_bytes(candidate, at).await?;
        }
        failpoint("plugins.activate.stored");
        let mut known = self.inner.deploys.lock().await;
        loop {
            if !is_wanted() {
                return Ok(false);
            }
            let components: Vec<_> =
                candidates.iter().filter_map(|candidate| self.to_record(candidate)).collect();
            if components.is_empty() {
                break;
            }
            let data = Activated { components, why: why.clone() };
            if self.append_deploy(&mut known, ACTIVATED, at, &data).await? {
                failpoint("plugins.activate.recorded");
                break;
            }
        }
        for Candidate { plugin, component, .. } in candidates {
            self.serve(&plugin, &component, &why, at);
        }
        failpoint("plugins.activate.done");
        Ok(true)
    }

    /// Has the store keep what it does not have yet.
    pub(super) async fn put_bytes(
        &self,
        Candidate { plugin, component, bytes }: &mut Candidate,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(bytes) = bytes.take() else { return Ok(()) };
        let (name, digest) = (plugin.to_string(), component.digest);
        self.inner.store.put_blob(BlobKind::Component, name, digest, at, bytes).await
    }

    /// None for what is the last that became active already: it serves on.
    fn to_record(&self, candidate: &Candidate) -> Option<One> {
        let Candidate { plugin, component, .. } = candidate;
        let previous = self.last(plugin).map(|last| last.digest);
        let (digest, version) = (component.digest, component.manifest.version.clone());
        let is_new = previous != Some(digest);
        is_new.then(|| One { plugin: plugin.clone(), digest, version, previous })
    }

    /// The last component that became active for a plugin, whether or not it can serve.
    pub(super) fn last(&self, name: &PluginName) -> Option<Activation> {
        self.with(name, |plugin| plugin.history.first().cloned()).flatten()
    }

    fn serve(&self, name: &PluginName, component: &Arc<LoadedComponent>, why: &Why, at: Timestamp) {
        let (digest, version) = (component.digest, component.manifest.version.clone());
        let last = self.last(name).filter(|last| last.digest == digest);
        let since = last.as_ref().map_or(at, |last| last.at);
        let (replaced, canary) = self.change(name, |plugin| {
            let canary = if last.is_none() {
                let (version, why) = (version.clone(), why.clone());
                plugin.activated(Activation { digest, version, at, why })
            } else {
                None
            };
            let replaced =
                plugin.active.replace(Active { component: Arc::clone(component), since });
            (replaced.map(|replaced| replaced.component), canary)
        });
        let mut cache = self.cache();
        cache.know(component);
        for done in [replaced, canary].into_iter().flatten() {
            cache.keep(&done, Instant::now());
        }
        drop(cache);
        tracing::info!(plugin = %name, %digest, version, "plugin is active");
    }

    /// Records that a component was refused; once for each in a row.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn reject(
        &self,
        name: &PluginName,
        digest: Digest,
        rejection: &Rejection,
    ) -> Result<(), PluginError> {
        let reason = rejection.to_string();
        let is_known = |last: &RejectionRecord| last.digest == digest && last.reason == reason;
        if self.with(name, |plugin| plugin.rejections.first().is_some_and(is_known)) == Some(true) {
            return Ok(());
        }
        let at = now();
        failpoint("plugins.reject.before");
        let mut known = self.inner.deploys.lock().await;
        loop {
            let serving = self.active(name).map(|active| active.digest);
            let data = Rejected { plugin: name.clone(), digest, reason: reason.clone(), serving };
            if self.append_deploy(&mut known, REJECTED, at, &data).await? {
                break;
            }
        }
        failpoint("plugins.reject.recorded");
        let serving = self.active(name).map(|active| active.digest);
        tracing::error!(
            plugin = %name,
            %digest,
            reason,
            serving = serving.map_or_else(|| "nothing".to_owned(), |digest| digest.to_string()),
            "component is refused"
        );
        self.remember_rejection(name, RejectionRecord { at, digest, reason });
        Ok(())
    }

    fn remember_rejection(&self, name: &PluginName, rejection: RejectionRecord) {
        self.change(name, |plugin| {
            plugin.rejections.insert(0, rejection);
            plugin.rejections.truncate(HISTORY_MAX);
        });
    }

    /// False when another host wrote first; what it wrote is taken in then.
    pub(super) async fn append_deploy(
        &self,
        known: &mut Version,
        kind: &'static str,
        at: Timestamp,
        data: &impl Serialize,
    ) -> Result<bool, PluginError> {
        // Every field of it is a text, a number or a flag.
        let data = serde_json::to_string(data).unwrap_or_default();
        let append = Append {
            stream: Stream::Deploys,
            expected: *known,
            at,
            events: vec![NewEvent { kind: kind.into(), data }],
            row: None,
            start_key: None,
            state: Vec::new(),
        };
        match self.inner.store.append(append).await {
            Ok(_) => {
                *known = known.plus(1);
                Ok(true)
            }
            Err(StoreError::Conflict { .. }) => {
                self.take_in(known).await?;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Has what other hosts made active serve here too.
    async fn take_in(&self, known: &mut Version) -> Result<(), PluginError> {
        for event in self.read(Stream::Deploys, *known).await? {
            let touched = self.remember(&event);
            *known = event.version;
            for name in touched {
                self.load_canary(&name).await?;
                let Some(last) = self.last(&name) else { continue };
                if self.is_active(&name, last.digest) {
                    continue;
                }
                match self.by_digest(&name, last.digest).await {
                    Ok(component) => self.serve(&name, &component, &last.why, last.at),
                    Err(error) => tracing::error!(
                        plugin = %name, %error,
                        "what another host made active cannot be loaded here; what was active serves on"
                    ),
                }
            }
        }
        Ok(())
    }

    /// Reads what became of all plugins so far, without loading anything. The names of the plugins
    /// in it.
    pub(super) async fn read_deploys(&self, names: &[PluginName]) -> Result<(), PluginError> {
        for name in names {
            for event in self.read(Stream::Plugin(name.clone()), Version(0)).await? {
                self.change(name, |plugin| plugin.stream = event.version);
                self.remember_of_one(name, &event);
            }
        }
        let mut known = self.inner.deploys.lock().await;
        for event in self.read(Stream::Deploys, Version(0)).await? {
            self.remember(&event);
            *known = event.version;
        }
        Ok(())
    }

    async fn read(&self, stream: Stream, after: Version) -> Result<Vec<StoredEvent>, StoreError> {
        let mut log: Vec<StoredEvent> = Vec::new();
        loop {
            let after = log.last().map_or(after, |last| last.version);
            let page = self.inner.store.events(stream.clone(), after, EVENTS_PER_READ).await?;
            if page.is_empty() {
                return Ok(log);
            }
            log.extend(page);
        }
    }

    /// One event of the stream; what a later version wrote otherwise is passed over. The plugins
    /// whose component changed.
    fn remember(&self, event: &StoredEvent) -> Vec<PluginName> {
        let at = event.at;
        if event.kind == REJECTED
            && let Ok(Rejected { plugin, digest, reason, .. }) = serde_json::from_str(&event.data)
        {
            self.remember_rejection(&plugin, RejectionRecord { at, digest, reason });
        }
        let mut touched = Vec::new();
        if event.kind == ACTIVATED
            && let Ok(Activated { components, why }) = serde_json::from_str(&event.data)
        {
            for One { plugin: name, digest, version, .. } in components {
                let activation = Activation { digest, version, at, why: why.clone() };
                if let Some(canary) = self.change(&name, |plugin| plugin.activated(activation)) {
                    self.cache().keep(&canary, Instant::now());
                }
                touched.push(name);
            }
        }
        touched.extend(self.remember_canary(event));
        touched
    }

    fn remember_of_one(&self, name: &PluginName, event: &StoredEvent) {
        let Ok(OfOne { digest, version, reason }) = serde_json::from_str(&event.data) else {
            return;
        };
        let at = event.at;
        match event.kind.as_str() {
            ACTIVATED => {
                let why = Why::default();
                self.change(name, |plugin| {
                    plugin.activated(Activation { digest, version, at, why })
                });
            }
            REJECTED => self.remember_rejection(name, RejectionRecord { at, digest, reason }),
            _ => {}
        }
    }

    /// Frees the code of components that nobody needs any more.
    fn let_go(&self) {
        let (idle, loaded) = self.cache().let_go(Instant::now());
        #[expect(clippy::cast_precision_loss, reason = "a few")]
        metrics::gauge!("amends_plugin_components").set(loaded as f64);
        drop(idle);
    }

    /// Until it is aborted.
    pub(super) fn follow(&self) -> JoinHandle<()> {
        let host = self.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(FOLLOW_PAUSE);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for ticks in 1_u32.. {
                tick.tick().await;
                host.let_go();
                let mut known = host.inner.deploys.lock().await;
                let mut followed = host.take_in(&mut known).await;
                if followed.is_ok() && ticks.is_multiple_of(LOAD_AGAIN) {
                    followed = host.load_canaries().await;
                }
                match followed {
                    Ok(()) => {}
                    Err(PluginError::Store(StoreError::Closed | StoreError::Fenced)) => return,
                    Err(error) => tracing::debug!(%error, "deploys cannot be read"),
                }
            }
        })
    }

    /// Goes back to a component that served before: `to`, or the last one before the active that no
    /// rollback left; when none is named and a canary runs, the canary is taken back and the active one
    /// serves on. It serves at once, here, and within a second on the other hosts of the store. The file
    /// in the folder is left as it is, and counts again when its bytes change. `why` says who, why, and
    /// whether it is forced.
    ///
    /// # Errors
    /// When there is none such, it cannot be loaded any more, or it cannot read what sagas in flight
    /// have recorded and that is not forced; and when a canary has just been taken back: whoever wanted
    /// that does not want more.
    pub async fn rollback(
        &self,
        name: &PluginName,
        to: Option<Digest>,
        why: Why,
    ) -> Result<Activation, PluginError> {
        if to.is_none()
            && let Some(canary) = self.canary(name)
            && self.end_canary(name, canary, why.who.clone(), why.reason.clone()).await?
            && let Some(last) = self.last(name)
        {
            return Ok(last);
        }
        let missing = |why: String| PluginError::NoRollback { plugin: name.clone(), message: why };
        let info = self.info(name).ok_or_else(|| missing("there is no such plugin".to_owned()))?;
        let found = info.before(to).map_err(missing)?;
        let component = self.by_digest(name, found).await?;
        if !why.forced
            && let Some(rejection) = self.objection(name, &component).await
        {
            return Err(PluginError::Rejected { plugin: name.clone(), rejection });
        }
        let why = Why { cause: Cause::Rollback, ..why };
        let candidate = Candidate { plugin: name.clone(), component, bytes: None };
        let is_as_it_was = || {
            let now = self.info(name);
            now.is_some_and(|now| {
                now.history.first() == info.history.first()
                    && now.canaries.len() == info.canaries.len()
            })
        };
        let is_done = self.activate_while(vec![candidate], why, is_as_it_was).await?;
        let last = self.last(name).filter(|_| is_done);
        last.ok_or_else(|| missing("it was replaced meanwhile; look again".to_owned()))
    }
}

impl PluginInfo {
    /// Which component to go back to, or why to none.
    fn before(&self, to: Option<Digest>) -> Result<Digest, String> {
        if let Some(to) = to {
            return match self.history.iter().any(|one| one.digest == to) {
                _ if Some(to) == self.digest => Err("that component serves it now".to_owned()),
                true => Ok(to),
                false => Err("that component never served it".to_owned()),
            };
        }
        if let Some(CanaryInfo { version, ended: Some(end), .. }) = self.canaries.first()
            && self.is_taken_back
        {
            return Err(format!(
                "its canary, version {version}, is taken back already, at {}; to go further back, name \
                 the component",
                end.at
            ));
        }
        let mut left = Vec::new();
        for (later, earlier) in self.history.iter().zip(self.history.iter().skip(1)) {
            if later.why.cause == Cause::Rollback {
                left.push(earlier.digest);
            }
        }
        let others = || self.history.iter().filter(|one| Some(one.digest) != self.digest);
        match others().find(|one| !left.contains(&one.digest)) {
            Some(found) => Ok(found.digest),
            None if others().next().is_none() => {
                Err("no other component served it before".to_owned())
            }
            None => {
                Err("no other component served it before but those that a rollback left; name one \
                         to go to it all the same"
                    .to_owned())
            }
        }
    }
}
