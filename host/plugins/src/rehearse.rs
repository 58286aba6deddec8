//! A call without any effect: to see what a component would do.
//!
//! It differs from a real one in this: its instance is fresh, its requests are answered by a stub,
//! its log lines are dropped, it is not counted, nobody asks what became of it (`probe`), and what it
//! would change of its state goes to whoever asks instead of into an append. What it reads of its
//! state is what is there.

use std::sync::Arc;

use amends_engine::Outcome;

use crate::call::{self, PluginCall};
use crate::effects::Effects;
use crate::granted::Granted;
use crate::host::PluginHost;
use crate::load::LoadedComponent;
use crate::outbound::{StubAnswer, StubbedRequest};

/// What a component did in a rehearsal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsed {
    /// What it answered, or why it did not.
    pub outcome: Outcome,
    /// What would have been recorded with that.
    pub effects: Effects,
    /// What it would have sent, in order.
    pub requests: Vec<StubbedRequest>,
}

impl PluginHost {
    /// Runs a call on this component, whichever serves, with what the plugin of the call is granted;
    /// every request is answered the same. Never fails: what goes wrong is the outcome. May be
    /// dropped at any time.
    pub async fn rehearse(
        &self,
        component: &LoadedComponent,
        call: &PluginCall,
        answer: StubAnswer,
    ) -> Rehearsed {
        let granted = Granted::for_rehearsal(self.configured(&call.plugin), answer);
        let granted = Arc::new(granted.within(&self.inner.memory));
        let (answered, _) = call::run(self.place(&granted, call), component, call, None).await;
        let stub = granted.outbound().stub();
        let requests = stub.map(|stub| stub.requests(&granted)).unwrap_or_default();
        Rehearsed { outcome: answered.outcome, effects: answered.effects, requests }
    }
}
