//! A component that serves a share of a plugin's sagas before it serves all of them, beside the active
//! component. The host takes it back when its calls go worse.
//!
//! The start and the end of a canary are events of the stream of deploys; its promotion is an activation.
//! Each host counts the calls that it makes itself, from when it learned of the canary.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use amends_engine::{Digest, Outcome, PluginName, SagaId, Timestamp};
use amends_failpoint::failpoint;
use amends_sandbox::LoadedComponent;
use amends_store::StoredEvent;
use serde::{Deserialize, Serialize};

use crate::activation::{ActivationCause, ActivationReason, Candidate};
use crate::canary::{Canary, CanaryEnd, CanaryInfo, CanarySpec, Run, Tally, Trial, Verdict};
use crate::clock::now;
use crate::error::PluginError;
use crate::plugin::Plugin;
use crate::registry::Registry;

const STARTED: &str = "plugin.canary_started";
const ENDED: &str = "plugin.canary_ended";

#[derive(Serialize, Deserialize)]
struct CanaryStarted {
    plugin: PluginName,
    digest: Digest,
    version: String,
    active: Option<Digest>,
    #[serde(flatten)]
    spec: CanarySpec,
    #[serde(flatten)]
    why: ActivationReason,
}

#[derive(Serialize, Deserialize)]
struct CanaryEnded {
    plugin: PluginName,
    digest: Digest,
    version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    who: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    tally: Tally,
}

impl Registry {
    /// The component that serves a saga's calls of a plugin now, and whether it is the canary rather
    /// than the active one.
    #[must_use]
    pub fn serving(&self, name: &PluginName, saga: SagaId) -> Option<(Arc<LoadedComponent>, bool)> {
        self.with(name, |plugin| plugin.serving(saga)).flatten()
    }

    /// Has a component serve a share of the sagas. Durable first.
    ///
    /// # Errors
    /// When nothing serves the plugin that it could be held against, it serves already, or another
    /// canary runs; and when the store fails.
    pub async fn start_canary(
        &self,
        mut candidate: Candidate,
        spec: CanarySpec,
        why: ActivationReason,
    ) -> Result<(), PluginError> {
        let at = now();
        self.put_bytes(&mut candidate, at).await?;
        let Candidate { plugin: name, component, .. } = candidate;
        let (digest, version) = (component.digest, component.manifest.version.clone());
        let refuse = |message: String| Err(PluginError::Canary { plugin: name.clone(), message });
        let mut known = self.inner.deploys.lock().await;
        let started = loop {
            let active = self.active(&name).map(|active| active.digest);
            let running = self.with(&name, |plugin| plugin.canary.as_ref().map(Canary::info));
            if let Some(running) = running.flatten() {
                let CanaryInfo { digest, version, .. } = running;
                return refuse(format!(
                    "a canary runs, version {version}, {digest}; promote it or roll it back first"
                ));
            }
            if active.is_none() {
                return refuse("nothing serves the plugin yet; deploy it to all sagas".to_owned());
            }
            if active == Some(digest) {
                return refuse(format!("{digest} serves all sagas already"));
            }
            let (plugin, version, why) = (name.clone(), version.clone(), why.clone());
            let started = CanaryStarted { plugin, digest, version, active, spec, why };
            if self.append_deploy(&mut known, STARTED, at, &started).await? {
                break started;
            }
        };
        failpoint("plugins.canary.started");
        self.cache().know(&component);
        let canary = started.canary(at, Some(component));
        self.change(&name, |plugin| plugin.canary = Some(canary));
        tracing::info!(plugin = %name, %digest, version, share = spec.share, "a canary serves a share of the sagas");
        Ok(())
    }

    /// Has the canary serve all sagas.
    ///
    /// # Errors
    /// When no canary runs, or it cannot read what sagas in flight have recorded; and when the store
    /// fails.
    pub async fn promote(
        &self,
        name: &PluginName,
        who: String,
        reason: String,
    ) -> Result<(), PluginError> {
        let Some(run) = self.canary(name) else {
            let message = "no canary of it runs".to_owned();
            return Err(PluginError::Canary { plugin: name.clone(), message });
        };
        self.promote_as(name, run, Some(who), reason).await
    }

    async fn promote_as(
        &self,
        name: &PluginName,
        run @ (digest, _): Run,
        who: Option<String>,
        reason: String,
    ) -> Result<(), PluginError> {
        let component = self.by_digest(name, digest).await?;
        let _turn = self.turn().await;
        let is_forced = self.with(name, |plugin| plugin.canary.as_ref().map(|one| one.is_forced));
        let is_forced = is_forced.flatten().unwrap_or_default();
        if !is_forced
            && let Some(rejection) = self.objection(name, &component, ActivationCause::Canary).await
        {
            return Err(PluginError::Rejected { plugin: name.clone(), rejection });
        }
        let why = ActivationReason {
            cause: ActivationCause::Canary,
            who,
            reason: Some(reason),
            forced: is_forced,
        };
        let candidate = Candidate { plugin: name.clone(), component, bytes: None };
        if self.activate_while(vec![candidate], why, || self.canary(name) == Some(run)).await? {
            return Ok(());
        }
        let message = format!("the canary {digest} does not run any more");
        Err(PluginError::Canary { plugin: name.clone(), message })
    }

    /// The canary of a plugin that runs.
    pub(crate) fn canary(&self, name: &PluginName) -> Option<Run> {
        let run =
            |plugin: &Plugin| plugin.canary.as_ref().map(|one| (one.info.digest, one.info.at));
        self.with(name, run).flatten()
    }

    /// Takes a canary back; false when it does not run any more.
    pub(crate) async fn end_canary(
        &self,
        name: &PluginName,
        run @ (digest, _): Run,
        who: Option<String>,
        reason: Option<String>,
    ) -> Result<bool, PluginError> {
        let at = now();
        let mut known = self.inner.deploys.lock().await;
        loop {
            let running = self.with(name, |plugin| plugin.canary.as_ref().map(Canary::info));
            let Some(CanaryInfo { version, tally, .. }) =
                running.flatten().filter(|one| (one.digest, one.at) == run)
            else {
                return Ok(false);
            };
            let (plugin, who, reason) = (name.clone(), who.clone(), reason.clone());
            let ended = CanaryEnded { plugin, digest, version, who, reason, tally };
            if self.append_deploy(&mut known, ENDED, at, &ended).await? {
                break;
            }
        }
        failpoint("plugins.canary.ended");
        let told = reason.clone().unwrap_or_default();
        let end = CanaryEnd { at, is_promoted: false, who, reason };
        let component = self.change(name, |plugin| plugin.end_canary(end));
        if let Some(component) = component {
            self.cache().keep(&component, Instant::now());
        }
        tracing::warn!(plugin = %name, %digest, reason = told, "the canary is taken back");
        Ok(true)
    }

    /// Counts what came of a call, and has what follows from that done.
    pub(crate) fn count(&self, name: &PluginName, trial: &Trial, outcome: &Outcome) {
        let Trial { counts, spec, canary: run, is_canary } = trial;
        let side = if *is_canary { &counts.canary } else { &counts.active };
        side.add(outcome);
        let Some(verdict) = counts.tally().verdict(spec) else { return };
        if counts.is_decided.swap(true, Ordering::Relaxed) {
            return;
        }
        let (host, name, run, counts) = (self.clone(), name.clone(), *run, Arc::clone(counts));
        tokio::spawn(async move {
            let done = match verdict {
                Verdict::TakeBack(reason) => {
                    host.end_canary(&name, run, None, Some(reason)).await.map(|_| ())
                }
                Verdict::Promote(reason) => match host.promote_as(&name, run, None, reason).await {
                    Err(PluginError::Rejected { rejection, .. }) => {
                        let reason = Some(rejection.to_string());
                        host.end_canary(&name, run, None, reason).await.map(|_| ())
                    }
                    Err(PluginError::Canary { .. }) => Ok(()),
                    done => done,
                },
            };
            if let Err(error) = done {
                tracing::error!(plugin = %name, digest = %run.0, %error, "the end of the canary cannot be recorded; the next call tries it again");
                counts.is_decided.store(false, Ordering::Relaxed);
            }
        });
    }

    /// Takes in one event of the stream, if it is about a canary.
    pub(crate) fn remember_canary(&self, event: &StoredEvent) {
        if event.kind == STARTED
            && let Ok(started) = serde_json::from_str::<CanaryStarted>(&event.data)
        {
            let name = started.plugin.clone();
            let canary = started.canary(event.at, None);
            self.change(&name, |plugin| plugin.canary = Some(canary));
        }
        if event.kind == ENDED
            && let Ok(ended) = serde_json::from_str::<CanaryEnded>(&event.data)
        {
            let CanaryEnded { plugin: name, digest, who, reason, tally, .. } = ended;
            let end = CanaryEnd { at: event.at, is_promoted: false, who, reason };
            let component = self.change(&name, |plugin| {
                if plugin.canary.as_ref().is_none_or(|one| one.digest() != digest) {
                    return None;
                }
                let component = plugin.end_canary(end);
                if let Some(last) = plugin.canaries.first_mut() {
                    last.tally = tally;
                }
                component
            });
            if let Some(component) = component {
                self.cache().keep(&component, Instant::now());
            }
        }
    }
}

impl CanaryStarted {
    fn canary(self, at: Timestamp, component: Option<Arc<LoadedComponent>>) -> Canary {
        let Self { digest, version, spec, why, .. } = self;
        let ActivationReason { who, reason, forced, .. } = why;
        let (tally, ended) = (Tally::default(), None);
        let info = CanaryInfo { digest, version, at, spec, who, reason, tally, ended };
        Canary { info, is_forced: forced, component, counts: Arc::default() }
    }
}
