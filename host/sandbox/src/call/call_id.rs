//! Which call an instance serves.

use amends_engine::{DefinitionName, PluginName, SagaId, StepName, TraceContext};

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
    /// Its log lines and requests are kept for its trace.
    pub(crate) is_traced: bool,
    /// It is asked what became of the call, and may only look.
    pub(crate) is_probe: bool,
}

impl CallId {
    /// The trace context that its requests are below; none when it is not traced.
    pub(crate) fn trace(&self) -> Option<TraceContext> {
        self.traceparent.as_deref().filter(|_| self.is_traced).and_then(TraceContext::parse)
    }

    /// For the question what became of the call. Its requests go out with the span of the question as the
    /// parent, because nobody makes spans of them.
    pub(crate) fn for_probe(mut self) -> Self {
        if let Some(trace) = self.trace() {
            self.traceparent = Some(trace.probe().to_string());
        }
        (self.is_probe, self.is_traced) = (true, false);
        self
    }
}

/// The trace id of a call, for log lines; empty when it has none.
#[must_use]
pub fn trace_id(traceparent: Option<&str>) -> &str {
    // `version-trace_id-parent_id-flags` (W3C Trace Context).
    traceparent.and_then(|text| text.split('-').nth(1)).unwrap_or_default()
}
