//! A plugin: what serves it, and what happened to it.

use std::sync::Arc;

use amends_engine::{Digest, PluginName, SagaId, Timestamp};
use amends_sandbox::{Grant, LoadedComponent};

use crate::activation::{Activation, ActivationCause, RejectionRecord};
use crate::canary::{Canary, CanaryEnd, CanaryInfo, Trial};

/// Activations and refusals that are kept in memory, of each plugin. The stream has all of them.
pub(crate) const HISTORY_MAX: usize = 1_000;

/// Refusals of a plugin that are recorded from one activation to the next: whoever deploys in a loop
/// what cannot serve must not fill the store, whose stream each start reads. Further ones are logged,
/// and shown until the host stops.
const REFUSALS_RECORDED_MAX: usize = 100;

/// Canaries of a plugin that ended and are kept in memory. The stream has all of them.
const CANARIES_MAX: usize = 100;

/// A plugin: what serves it, and what happened to it.
pub(crate) struct Plugin {
    /// What it is granted.
    pub(crate) grant: Arc<Grant>,
    pub(crate) active: Option<Active>,
    /// The latest first.
    pub(crate) history: Vec<Activation>,
    /// The latest first.
    pub(crate) rejections: Vec<RejectionRecord>,
    /// How many of them came since the last activation; no two of those say the same.
    pub(crate) rejections_since: usize,
    /// Whether the latest is logged by this process.
    pub(crate) is_rejection_logged: bool,
    pub(crate) canary: Option<Canary>,
    /// Those that ended, the latest first.
    pub(crate) canaries: Vec<CanaryInfo>,
    /// The last that happened is that one was taken back.
    pub(crate) is_taken_back: bool,
    /// The component that should serve and cannot be loaded, and why.
    pub(crate) unloadable: Option<(Digest, String)>,
}

/// The component that serves.
#[derive(Clone)]
pub(crate) struct Active {
    pub(crate) component: Arc<LoadedComponent>,
    pub(crate) since: Timestamp,
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
    /// The calls that the component serves.
    pub exports: Vec<String>,
    /// The capabilities that it needs.
    pub needs: Vec<String>,
    /// When the component became active.
    pub active_since: Option<Timestamp>,
    /// Every component that served it, the latest first.
    pub history: Vec<Activation>,
    /// Every component that was refused, the latest first.
    pub rejections: Vec<RejectionRecord>,
    /// Every component that served a share of the sagas, the latest first: it may run yet.
    pub canaries: Vec<CanaryInfo>,
    /// Whether one was taken back since the last activation.
    pub(crate) is_taken_back: bool,
}

impl Plugin {
    pub(crate) fn new(grant: Arc<Grant>) -> Self {
        Self {
            grant,
            active: None,
            history: Vec::new(),
            rejections: Vec::new(),
            rejections_since: 0,
            is_rejection_logged: false,
            canary: None,
            canaries: Vec::new(),
            is_taken_back: false,
            unloadable: None,
        }
    }

    /// What became active, whatever was tried beside what was.
    pub(crate) fn activated(&mut self, activation: Activation) -> Option<Arc<LoadedComponent>> {
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
    pub(crate) fn new_rejections(&self) -> &[RejectionRecord] {
        &self.rejections[..self.rejections_since]
    }

    /// Whether a refusal is to be an event.
    pub(crate) fn is_to_record(&self, record: &RejectionRecord) -> bool {
        let new = self.new_rejections();
        new.len() < REFUSALS_RECORDED_MAX && !new.iter().any(|one| one.is_same(record))
    }

    /// Takes in a refusal, recorded or not. Whether it is other than the latest, or not logged yet.
    pub(crate) fn refused(&mut self, record: RejectionRecord, is_logged: bool) -> bool {
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

    pub(crate) fn info(&self, name: &PluginName) -> PluginInfo {
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

    /// The component that serves a saga, and whether it is the canary.
    pub(crate) fn serving(&self, saga: SagaId) -> Option<(Arc<LoadedComponent>, bool)> {
        if let Some(Canary { info, component: Some(component), .. }) = &self.canary
            && info.spec.takes(info.digest, saga)
        {
            return Some((Arc::clone(component), true));
        }
        self.active.as_ref().map(|active| (Arc::clone(&active.component), false))
    }

    pub(crate) fn trial(&self, digest: Digest) -> Option<Trial> {
        let Canary { info, counts, .. } = self.canary.as_ref()?;
        let is_canary = info.digest == digest;
        let is_active = || self.active.as_ref().is_some_and(|one| one.component.digest == digest);
        (is_canary || is_active()).then(|| Trial {
            counts: Arc::clone(counts),
            spec: info.spec,
            canary: (info.digest, info.at),
            is_canary,
        })
    }

    /// The component that was tried, for a while.
    pub(crate) fn end_canary(&mut self, end: CanaryEnd) -> Option<Arc<LoadedComponent>> {
        let canary = self.canary.take()?;
        self.is_taken_back = !end.is_promoted;
        let info = CanaryInfo { ended: Some(end), ..canary.info() };
        self.canaries.insert(0, info);
        self.canaries.truncate(CANARIES_MAX);
        canary.component
    }
}

impl PluginInfo {
    /// Which component to go back to, or why to none.
    pub(crate) fn before(&self, to: Option<Digest>) -> Result<Digest, String> {
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
            if later.why.cause == ActivationCause::Rollback {
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
