//! The calls of plugins: each on the component that was chosen when it was admitted.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use amends_engine::{Failure, Outcome};
use amends_failpoint::failpoint_holding;
use amends_sandbox::{
    Answer, CallMemory, CallTrace, Callee, Grant, Lacks, LoadedComponent, PluginCall,
    PluginSettings, Rehearsed, StubAnswer,
};

use crate::error::PluginError;
use crate::registry::Registry;

impl Registry {
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
        let grant = self.grant(&call.plugin);
        let began = SystemTime::now();
        let asked = match self.by_digest(&call.plugin, call.digest).await {
            Ok(component) => {
                let callee = self.callee(&component, &grant, call);
                self.inner.sandbox.probe(callee, call, &unknown, memory, cut_off).await
            }
            Err(error) if error.is_passing() => Err(not_loaded(&error)),
            Err(_) => Ok(None),
        };
        match asked {
            Ok(Some((outcome, fate))) => {
                let trace = CallTrace { probe: probe_time(call, began), ..CallTrace::default() };
                Answer { fate: Some(fate), trace, ..Answer::of(outcome) }
            }
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
        let (grant, trial) = self
            .with(&call.plugin, |plugin| (Arc::clone(&plugin.grant), plugin.trial(call.digest)))
            .unwrap_or_else(|| (self.grant(&call.plugin), None));
        failpoint_holding("plugins.call.before", || call.words()).await;
        let began = Instant::now();
        let callee = self.callee(&component, &grant, call);
        let (answer, memory) = self.inner.sandbox.run(callee, call, memory).await;
        failpoint_holding("plugins.call.returned", || call.words()).await;
        if let Some(trial) = trial.filter(|_| answer.not_begun.is_none()) {
            self.count(&call.plugin, &trial, &answer.outcome);
        }
        let Outcome::Unknown(unknown) = &answer.outcome else { return answer };
        let asked_at = SystemTime::now();
        match self.inner.sandbox.probe(callee, call, unknown, memory, Some(began)).await {
            Ok(Some((outcome, fate))) => {
                let has_sent = answer.has_sent;
                let trace = CallTrace { probe: probe_time(call, asked_at), ..answer.trace };
                Answer { fate: Some(fate), has_sent, trace, ..Answer::of(outcome) }
            }
            Ok(None) | Err(_) => answer,
        }
    }

    /// Runs a call without any effect on this component, whichever serves, with what the plugin of the
    /// call is granted; every request is answered the same. Never fails: what goes wrong is the outcome.
    /// May be dropped at any time.
    pub async fn rehearse(
        &self,
        component: &LoadedComponent,
        call: &PluginCall,
        answer: StubAnswer,
    ) -> Rehearsed {
        let (settings, state) = (self.configured(&call.plugin), self.state_bytes_max(call));
        self.inner.sandbox.rehearse(component, settings, state, call, answer).await
    }

    fn callee<'a>(
        &self,
        component: &'a LoadedComponent,
        grant: &'a Arc<Grant>,
        call: &PluginCall,
    ) -> Callee<'a> {
        // Most calls work on the state of their own plugin.
        let state_bytes_max = if call.state_of == call.plugin {
            state_bytes_max(&grant.settings)
        } else {
            self.state_bytes_max(call)
        };
        Callee { component, grant, state_bytes_max }
    }

    /// How large the state of a call may be. The state belongs to the plugin that executes the step, and
    /// so do its grant and its limit, also where this version of the config has another plugin undo the
    /// step or none.
    fn state_bytes_max(&self, call: &PluginCall) -> Option<u64> {
        state_bytes_max(&self.grant(&call.state_of).settings)
    }
}

/// When a component was asked what became of a call that is traced, and when that was over.
fn probe_time(call: &PluginCall, began: SystemTime) -> Option<(SystemTime, SystemTime)> {
    call.is_traced.then(|| (began, SystemTime::now()))
}

fn state_bytes_max(settings: &PluginSettings) -> Option<u64> {
    settings.state.then_some(settings.state_bytes_max)
}

/// What a host lacks for a call whose component it cannot load.
fn not_loaded(error: &PluginError) -> Lacks {
    Lacks::Machine(format!("the component cannot be loaded: {error}"))
}
