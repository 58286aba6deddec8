//! Traces: the spans of sagas are views of events, and requests to the host have spans of their own.
//!
//! A span of a saga is made when the event that ends an attempt is durable, from that event and the one that began the
//! attempt. Nothing of a span lives while a call runs, so a call that takes days and a crash in the middle of
//! one change nothing: the ids follow from the call, and the times are those of the events.
//!
//! Deliberately absent: spans of attempts that no event ends (an operator abandoned the saga), and of events
//! whose shard was lost before their append was answered. Spans may be missing; none is made up.

mod requests;
mod rules;
mod spans;

use std::sync::Arc;

use amends_engine::{Call, Saga, TraceContext};
use amends_registry::Registry;
use amends_sandbox::PluginCall;
use amends_telemetry::Exporter;

pub use requests::{RequestAnswer, RequestSpan, ServedRequest};
pub use rules::{LINK_AFTER_DEFAULT, SampleRates, TraceRules};
pub(crate) use spans::{Durable, TracedCall};

use rules::SagaTrace;
use spans::spans_of;

/// Which spans are made, and where they go.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// Takes the spans.
    pub exporter: Exporter,
    /// Which are made, and in which traces.
    pub rules: TraceRules,
}

/// Makes the spans of a host.
#[derive(Debug)]
pub(crate) struct Traces {
    settings: TraceSettings,
}

impl Traces {
    pub(crate) fn new(settings: TraceSettings) -> Arc<Self> {
        Arc::new(Self { settings })
    }

    /// Returns the span of a call that is in flight. None when nothing is known of its beginning.
    pub(crate) fn span_of(&self, saga: &Saga, call: &Call) -> Option<TraceContext> {
        let Call { step, direction, attempt, .. } = call;
        let began_at = saga.attempt_began_at(step, *direction, *attempt)?;
        let trace = SagaTrace::of(self.settings.rules, saga);
        Some(trace.attempt(step, *direction, *attempt, began_at))
    }

    /// Hands in the spans that follow from events. Never waits.
    pub(crate) fn tell(&self, plugins: &Registry, durable: &Durable<'_>) {
        spans_of(
            self.settings.rules,
            durable,
            |plugin, digest| {
                // Of an earlier component, the version is not in memory.
                let active = plugins.active(plugin).filter(|active| active.digest == digest);
                active.map(|active| active.manifest.version.clone())
            },
            |span| self.settings.exporter.send(span),
        );
    }

    /// Begins the span of a request to the host. `caller` is the trace context that the request came with.
    pub(crate) fn begin(
        &self,
        request: ServedRequest,
        caller: Option<TraceContext>,
    ) -> RequestSpan {
        let TraceSettings { exporter, rules } = &self.settings;
        RequestSpan::begin(exporter.clone(), rules.sample, request, caller)
    }

    /// Sends what waits, for at most 5 s.
    pub(crate) async fn close(&self) {
        self.settings.exporter.close().await;
    }
}

/// A call whose span is `span`, if it has one.
pub(crate) fn below(span: Option<TraceContext>, call: PluginCall) -> PluginCall {
    match span {
        Some(span) => PluginCall { traceparent: Some(span.to_string()), is_traced: true, ..call },
        None => call,
    }
}
