//! What a call needs of the host: the engine, the state and what the plugin is granted.

use std::sync::Arc;

use wasmtime::Store;

use crate::bindings::amends::saga::types;
use crate::call::answer::PluginCall;
use crate::call::call_id::CallId;
use crate::call::guest::Guest;
use crate::capability::grant::Grant;
use crate::capability::state_view::StateView;
use crate::limits::budget::Held;
use crate::limits::call_limits::Lacks;

/// What a call needs of the host.
#[derive(Clone, Copy)]
pub(crate) struct CallContext<'a> {
    pub(crate) engine: &'a wasmtime::Engine,
    pub(crate) state_view: &'a Arc<dyn StateView>,
    pub(crate) granted: &'a Arc<Grant>,
    /// Bytes that the state may have on which the call works, see [`CallId`].
    pub(crate) state_bytes_max: Option<u64>,
}

impl CallContext<'_> {
    pub(crate) fn call_id(&self, call: &PluginCall) -> CallId {
        CallId {
            plugin: call.plugin.clone(),
            state_of: call.state_of.clone(),
            state_bytes_max: self.state_bytes_max,
            saga_id: call.saga_id,
            definition: call.definition.clone(),
            step: call.step.clone(),
            attempt: call.attempt,
            idempotency_key: call.idempotency_key.clone(),
            is_probe: false,
            traceparent: call.traceparent.clone(),
            is_traced: call.is_traced,
        }
    }

    pub(crate) fn guest(&self, id: CallId, held: Held) -> Store<Guest> {
        let (state_view, granted) = (Arc::clone(self.state_view), Arc::clone(self.granted));
        let mut guest = Guest::store(self.engine, Some(state_view), Some(id), granted);
        guest.data_mut().hold_memory(held);
        guest
    }
}

/// The call as the component sees it.
pub(crate) fn about(call: &PluginCall) -> types::Call {
    types::Call {
        saga_id: call.saga_id.to_string(),
        definition: call.definition.to_string(),
        step: call.step.to_string(),
        attempt: call.attempt,
        idempotency_key: call.idempotency_key.clone(),
        traceparent: call.traceparent.clone(),
    }
}

/// What the host lacked for a call that is over, if it did; and what its plugin's calls need from now
/// on.
pub(crate) fn lacks(store: &mut Store<Guest>, error: Option<&wasmtime::Error>) -> Option<Lacks> {
    let guest = store.data();
    let (memory, bytes) = (&guest.granted().memory, guest.limits.bytes());
    let lacked = guest.limits.lacked.clone().or_else(|| error.and_then(Lacks::of));
    match &lacked {
        Some(Lacks::Memory) => memory.wanted(bytes),
        // It needs more than it has had.
        Some(Lacks::Machine(_)) => {}
        None => memory.needed(bytes),
    }
    lacked
}
