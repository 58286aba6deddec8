//! Which call an instance serves.

use amends_engine::{DefinitionName, PluginName, SagaId, StepName};

/// Which call it is.
#[derive(Debug, Clone)]
pub(crate) struct CallId {
    pub(crate) plugin: PluginName,
    /// Whose state it works on.
    pub(crate) state_of: PluginName,
    /// How large that may be; none while that plugin is granted none.
    pub(crate) state_bytes_max: Option<u64>,
    pub(crate) saga_id: SagaId,
    pub(crate) definition: DefinitionName,
    pub(crate) step: StepName,
    pub(crate) attempt: u32,
    pub(crate) idempotency_key: String,
    pub(crate) traceparent: Option<String>,
    /// It is asked what became of the call, and may only look.
    pub(crate) is_probe: bool,
}

/// The trace id of a call, for log lines; empty when it has none.
#[must_use]
pub fn trace_id(traceparent: Option<&str>) -> &str {
    // `version-trace_id-parent_id-flags` (W3C Trace Context).
    traceparent.and_then(|text| text.split('-').nth(1)).unwrap_or_default()
}
