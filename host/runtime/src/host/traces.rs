//! Spans of requests to a host.

use amends_engine::TraceContext;

use super::Host;
use crate::traces::{RequestSpan, ServedRequest};

impl Host {
    /// Begins the span of a request that may start or change something. `caller` is the trace context that the
    /// request came with. None: the host makes no spans.
    #[must_use]
    pub fn trace_request(
        &self,
        request: ServedRequest,
        caller: Option<TraceContext>,
    ) -> Option<RequestSpan> {
        self.inner.traces.as_ref().map(|traces| traces.begin(request, caller))
    }

    /// Returns whether the host makes spans.
    #[must_use]
    pub fn has_traces(&self) -> bool {
        self.inner.traces.is_some()
    }
}
