//! Which component becomes active, recorded before it serves.
//!
//! Every activation and every refusal, of whatever plugin, is an event of one stream, so hosts of
//! the same store agree on their order; each follows what the others wrote. Events that earlier
//! versions wrote in a stream of the plugin are read as well.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::{Digest, PluginName, Timestamp, Version};
use amends_failpoint::failpoint;
use amends_sandbox::{LoadedComponent, Priority, Rejection};
use amends_store::{Append, BlobKind, NewEvent, PageBudget, StoreError, StoredEvent, Stream};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::activation::{
    Activation, ActivationCause, ActivationReason, Candidate, RejectionRecord, misnamed,
};
use crate::clock::now;
use crate::error::PluginError;
use crate::loads::Loads;
use crate::plugin::Active;
use crate::registry::Registry;

/// Events of a stream that are read at once.
const EVENTS_PER_READ: PageBudget = PageBudget::items(1_000);

/// How often the stream is read for what other hosts wrote, and code let go of that nobody needs. A
/// read finds nothing nearly always, by an index.
const FOLLOW_PAUSE: Duration = Duration::from_millis(500);

/// Of the reason of a refusal, so many bytes are kept: it may tell what a component says.
const REASON_BYTES_MAX: usize = 4 << 10;

const ACTIVATED: &str = "plugin.activated";
const REJECTED: &str = "plugin.rejected";

/// The stored form.
#[derive(Serialize, Deserialize)]
struct Activated {
    components: Vec<ActivatedComponent>,
    #[serde(flatten)]
    why: ActivationReason,
}

#[derive(Serialize, Deserialize)]
struct ActivatedComponent {
    plugin: PluginName,
    digest: Digest,
    version: String,
    previous: Option<Digest>,
}

#[derive(Serialize, Deserialize)]
struct Rejected {
    plugin: PluginName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    reason: String,
    serving: Option<Digest>,
}

/// As earlier versions wrote it, in the stream of the plugin.
#[derive(Deserialize)]
struct EarlierEvent {
    digest: Digest,
    #[serde(default)]
    version: String,
    #[serde(default)]
    reason: String,
}

impl Registry {
    pub(crate) async fn objection(
        &self,
        plugin: &PluginName,
        component: &LoadedComponent,
        cause: ActivationCause,
    ) -> Option<Rejection> {
        self.inner.guard.get()?.objection(plugin, component, cause).await
    }

    /// Why a component is most likely not meant for a plugin, if it is not; see [`misnamed`].
    #[must_use]
    pub fn misnamed(&self, plugin: &PluginName, component: &LoadedComponent) -> Option<Rejection> {
        let (wanted, active) = (self.configured(plugin).component, self.active(plugin));
        let serves = active.as_ref().map(|active| active.manifest.name.as_str());
        misnamed(plugin, wanted.as_deref(), serves, &component.manifest.name)
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
        self.load(plugin, bytes, Priority::Awaited).await
    }

    /// Has components serve, all or none. Durable first: their bytes, then one event for all of
    /// them; then they serve.
    ///
    /// # Errors
    /// When the store fails; none of them serves then.
    pub async fn activate(
        &self,
        candidates: Vec<Candidate>,
        why: ActivationReason,
    ) -> Result<(), PluginError> {
        self.activate_while(candidates, why, || true).await.map(|_| ())
    }

    /// Held from when a component is judged until it serves: of two that fit what serves, and not one
    /// another, the second one is judged by the first.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.turn.lock().await
    }

    /// As [`Self::activate`]; false, and nothing is done, when it is not wanted any more in the
    /// moment in which it would be recorded.
    pub(crate) async fn activate_while(
        &self,
        mut candidates: Vec<Candidate>,
        why: ActivationReason,
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

    /// Has the store keep a component.
    pub(crate) async fn put_bytes(
        &self,
        Candidate { plugin, component, bytes }: &mut Candidate,
        at: Timestamp,
    ) -> Result<(), PluginError> {
        let digest = component.digest;
        let Some(bytes) = bytes.take() else {
            let is_kept = self.keep(digest, at).await?;
            let lost = || PluginError::Lost { plugin: plugin.clone(), digest };
            return if is_kept { Ok(()) } else { Err(lost()) };
        };
        let name = plugin.to_string();
        Ok(self.inner.store.blobs().put(BlobKind::Component, name, digest, at, bytes).await?)
    }

    /// None for what is the last that became active already: it serves on.
    fn to_record(&self, candidate: &Candidate) -> Option<ActivatedComponent> {
        let Candidate { plugin, component, .. } = candidate;
        let previous = self.last(plugin).map(|last| last.digest);
        let (digest, version) = (component.digest, component.manifest.version.clone());
        let is_new = previous != Some(digest);
        is_new.then(|| ActivatedComponent { plugin: plugin.clone(), digest, version, previous })
    }

    /// The last component that became active for a plugin, whether or not it can serve.
    pub(crate) fn last(&self, name: &PluginName) -> Option<Activation> {
        self.with(name, |plugin| plugin.history.first().cloned()).flatten()
    }

    fn serve(
        &self,
        name: &PluginName,
        component: &Arc<LoadedComponent>,
        why: &ActivationReason,
        at: Timestamp,
    ) {
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

    /// Refuses a component: what serves, serves on. `digest` is none when its bytes were not read.
    ///
    /// It is recorded unless the same was refused for the same reason since the last activation of
    /// the plugin, or `REFUSALS_RECORDED_MAX` were recorded since.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn reject(
        &self,
        name: &PluginName,
        digest: Option<Digest>,
        rejection: &Rejection,
    ) -> Result<(), PluginError> {
        let mut reason = rejection.to_string();
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        let at = now();
        let record = RejectionRecord { at, digest, reason };
        failpoint("plugins.reject.before");
        let mut known = self.inner.deploys.lock().await;
        // What another host wrote may be the same.
        while self.with(name, |plugin| plugin.is_to_record(&record)) != Some(false) {
            let (plugin, reason) = (name.clone(), record.reason.clone());
            let serving = self.active(name).map(|active| active.digest);
            let data = Rejected { plugin, digest, reason, serving };
            if self.append_deploy(&mut known, REJECTED, at, &data).await? {
                failpoint("plugins.reject.recorded");
                break;
            }
        }
        let reason = record.reason.clone();
        let is_news = self.change(name, |plugin| plugin.refused(record, true));
        drop(known);
        if is_news {
            let digest = digest.map(|digest| digest.to_string());
            let serving = self.serving_words(name);
            tracing::error!(plugin = %name, digest, reason, serving, "component is refused");
        }
        Ok(())
    }

    /// What serves a plugin, for a log.
    pub(crate) fn serving_words(&self, name: &PluginName) -> String {
        self.active(name).map_or_else(|| "nothing".to_owned(), |active| active.digest.to_string())
    }

    /// False when another host wrote first; what it wrote is taken in then.
    pub(crate) async fn append_deploy(
        &self,
        known: &mut Version,
        kind: &'static str,
        at: Timestamp,
        data: &impl Serialize,
    ) -> Result<bool, PluginError> {
        // Every field of it is a text, a number or a flag.
        let data = serde_json::to_string(data).unwrap_or_default();
        let events = vec![NewEvent { kind: kind.into(), data }];
        let append = Append::shared(Stream::Deploys, *known, at, events);
        match self.inner.store.log().append_shared(append).await {
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

    /// Takes in what other hosts wrote. What should serve by that is loaded by [`Loads`], which does
    /// not hold up whoever waits to record something.
    async fn take_in(&self, known: &mut Version) -> Result<(), StoreError> {
        for event in self.read(Stream::Deploys, *known).await? {
            self.remember(&event);
            *known = event.version;
        }
        Ok(())
    }

    /// Reads what became of all plugins so far, without loading anything.
    pub(crate) async fn read_deploys(
        &self,
        names: &BTreeSet<PluginName>,
    ) -> Result<(), PluginError> {
        for name in names {
            for event in self.read(Stream::Plugin(name.clone()), Version(0)).await? {
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
            let page =
                self.inner.store.log().stream(stream.clone(), after, EVENTS_PER_READ).await?;
            if page.is_empty() {
                return Ok(log);
            }
            log.extend(page);
        }
    }

    /// ActivatedComponent event of the stream; what a later version wrote otherwise is passed over.
    fn remember(&self, event: &StoredEvent) {
        let at = event.at;
        if event.kind == REJECTED
            && let Ok(Rejected { plugin, digest, reason, .. }) = serde_json::from_str(&event.data)
        {
            let record = RejectionRecord { at, digest, reason };
            self.change(&plugin, |plugin| plugin.refused(record, false));
        }
        if event.kind == ACTIVATED
            && let Ok(Activated { components, why }) = serde_json::from_str(&event.data)
        {
            for ActivatedComponent { plugin: name, digest, version, .. } in components {
                let activation = Activation { digest, version, at, why: why.clone() };
                if let Some(canary) = self.change(&name, |plugin| plugin.activated(activation)) {
                    self.cache().keep(&canary, Instant::now());
                }
            }
        }
        self.remember_canary(event);
    }

    fn remember_of_one(&self, name: &PluginName, event: &StoredEvent) {
        let Ok(EarlierEvent { digest, version, reason }) = serde_json::from_str(&event.data) else {
            return;
        };
        let at = event.at;
        match event.kind.as_str() {
            ACTIVATED => {
                let why = ActivationReason::default();
                self.change(name, |plugin| {
                    plugin.activated(Activation { digest, version, at, why })
                });
            }
            REJECTED => {
                let record = RejectionRecord { at, digest: Some(digest), reason };
                self.change(name, |plugin| plugin.refused(record, false));
            }
            _ => {}
        }
    }

    /// Frees the code of components that nobody needs any more.
    fn let_go(&self) {
        let idle = self.cache().let_go(Instant::now());
        drop(idle);
    }

    /// Has what other hosts made active serve here too, and loads what is missing. Until it is aborted.
    pub(crate) fn follow(&self) -> JoinHandle<()> {
        let host = self.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(FOLLOW_PAUSE);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut loads = Loads::new();
            loop {
                tick.tick().await;
                host.let_go();
                let mut known = host.inner.deploys.lock().await;
                let followed = host.take_in(&mut known).await;
                drop(known);
                match followed {
                    Ok(()) => {}
                    Err(StoreError::Closed | StoreError::Fatal(_)) => return,
                    Err(error) => tracing::debug!(%error, "deploys cannot be read"),
                }
                loads.go_on(&host);
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
        why: ActivationReason,
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
        let _turn = self.turn().await;
        if !why.forced
            && let Some(rejection) =
                self.objection(name, &component, ActivationCause::Rollback).await
        {
            return Err(PluginError::Rejected { plugin: name.clone(), rejection });
        }
        let why = ActivationReason { cause: ActivationCause::Rollback, ..why };
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
