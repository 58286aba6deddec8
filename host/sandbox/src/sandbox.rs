//! The sandbox of a host: what all calls of components share.

use std::sync::Arc;
use std::time::Instant;

use amends_engine::{Failure, Fate, Outcome};

use crate::call::answer::{Answer, PluginCall};
use crate::call::context::CallContext;
use crate::call::rehearsal::Rehearsed;
use crate::call::{probe, run};
use crate::capability::grant::Grant;
use crate::capability::outbound::stub::StubAnswer;
use crate::capability::state_view::StateView;
use crate::component::load::Loader;
use crate::component::loaded::LoadedComponent;
use crate::limits::call_limits::Lacks;
use crate::limits::memory::{CallMemory, Memory};
use crate::settings::PluginSettings;

/// Runs calls of components, within the memory that all of them may have together.
pub struct Sandbox {
    loader: Loader,
    memory: Memory,
    state_view: Arc<dyn StateView>,
}

/// What serves a call.
#[derive(Clone, Copy)]
pub struct Callee<'a> {
    /// The component.
    pub component: &'a LoadedComponent,
    /// What the plugin of the call is granted.
    pub grant: &'a Arc<Grant>,
    /// Bytes that the state may have on which the call works; none when the plugin that it belongs to
    /// is granted no state.
    pub state_bytes_max: Option<u64>,
}

impl Sandbox {
    /// A sandbox whose guests have at most `memory_bytes_max` bytes together and read state through
    /// `state_view`.
    #[must_use]
    pub fn new(loader: Loader, memory_bytes_max: u64, state_view: Arc<dyn StateView>) -> Self {
        Self { loader, memory: Memory::new(memory_bytes_max), state_view }
    }

    /// The loader of components.
    #[must_use]
    pub fn loader(&self) -> &Loader {
        &self.loader
    }

    /// Bytes of memory that guests have now.
    #[must_use]
    pub fn memory_used(&self) -> usize {
        self.memory.used()
    }

    /// Grants a plugin what its settings say, with a share of the memory of all guests.
    #[must_use]
    pub fn grant(&self, settings: PluginSettings) -> Arc<Grant> {
        Arc::new(Grant::new(settings).within(&self.memory))
    }

    /// Runs one call: in an instance of its own, or in one that has served others where the plugin's
    /// settings allow that. The call holds `memory` and takes more as it grows; what is left of it is
    /// returned, unless an instance that waits for the next call keeps it. A call never fails: what goes
    /// wrong is its outcome. May be dropped at any time: the instance goes with it.
    pub async fn run(
        &self,
        callee: Callee<'_>,
        call: &PluginCall,
        memory: Option<CallMemory>,
    ) -> (Answer, Option<CallMemory>) {
        let held = memory.map(|memory| memory.0);
        let (answer, held) = run::run(self.context(callee), callee.component, call, held).await;
        (answer, held.map(CallMemory))
    }

    /// Asks the component what became of a call whose outcome is `unknown`. What happened is a success;
    /// what did not happen can be tried again. None when the component cannot be asked. May be dropped
    /// at any time.
    ///
    /// A request of the call may still be on its way while the component looks. So `did-not-happen` is
    /// believed only once the call's timeout has passed since `began`; without `began` no request can be
    /// on its way.
    ///
    /// # Errors
    /// What the host lacked for asking.
    pub async fn probe(
        &self,
        callee: Callee<'_>,
        call: &PluginCall,
        unknown: &Failure,
        memory: Option<CallMemory>,
        began: Option<Instant>,
    ) -> Result<Option<(Outcome, Fate)>, Lacks> {
        let held = memory.map(|memory| memory.0);
        let context = self.context(callee);
        probe::ask(context, callee.component, call, unknown, held, began).await
    }

    /// Runs a call without any effect, with what `settings` grant: its instance is fresh, every request
    /// is answered by a stub, log lines are dropped, nothing is counted, nobody probes it, and what it
    /// would change is returned instead of recorded. It reads the state as it is. May be dropped at any
    /// time.
    pub async fn rehearse(
        &self,
        component: &LoadedComponent,
        settings: PluginSettings,
        state_bytes_max: Option<u64>,
        call: &PluginCall,
        answer: StubAnswer,
    ) -> Rehearsed {
        let grant = Grant::for_rehearsal(settings, answer).within(&self.memory);
        let grant = Arc::new(grant);
        let context = self.context(Callee { component, grant: &grant, state_bytes_max });
        let (answered, _) = run::run(context, component, call, None).await;
        let stub = grant.outbound().stub();
        let requests = stub.map(|stub| stub.requests(&grant.secrets)).unwrap_or_default();
        Rehearsed { outcome: answered.outcome, effects: answered.effects, requests }
    }

    fn context<'a>(&'a self, callee: Callee<'a>) -> CallContext<'a> {
        CallContext {
            engine: self.loader.engine(),
            state_view: &self.state_view,
            granted: callee.grant,
            state_bytes_max: callee.state_bytes_max,
        }
    }
}
