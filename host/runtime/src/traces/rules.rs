//! In which trace an attempt is, and whether its spans are kept.

use std::time::Duration;

use amends_engine::{
    Direction, Saga, SagaId, SpanId, StepName, Timestamp, TraceContext, TraceId, attempt_span_id,
    attempt_trace_id,
};

/// How long after the beginning of its saga an attempt is in the trace of the saga. Most backends take a trace
/// for over after some minutes.
pub const LINK_AFTER_DEFAULT: Duration = Duration::from_mins(10);

/// Which spans are made, and in which traces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TraceRules {
    /// Which part of the spans is kept.
    pub sample: SampleRates,
    /// An attempt that begins later than this after its saga is in a trace of its own.
    pub link_after: Duration,
}

/// Which part of the spans is kept, from 0 to 1. The spans of a saga whose caller keeps its trace are all kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleRates {
    /// Of attempts that succeeded, and of sagas that completed.
    pub success: f64,
    /// Of attempts that failed or are unknown, and of sagas that did not complete.
    pub failed: f64,
    /// Of undos.
    pub undo: f64,
}

impl Default for SampleRates {
    fn default() -> Self {
        Self { success: 0.01, failed: 1.0, undo: 1.0 }
    }
}

impl Default for TraceRules {
    fn default() -> Self {
        Self { sample: SampleRates::default(), link_after: LINK_AFTER_DEFAULT }
    }
}

/// The trace of a saga.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SagaTrace {
    rules: TraceRules,
    saga: SagaId,
    started_at: Timestamp,
    /// What the saga was started with, or what follows from its id.
    pub(crate) base: TraceContext,
    /// The caller gave `base`.
    has_caller: bool,
}

impl SagaTrace {
    pub(crate) fn of(rules: TraceRules, saga: &Saga) -> Self {
        let given = saga.started().traceparent.as_deref().and_then(TraceContext::parse);
        Self {
            rules,
            saga: saga.id(),
            started_at: saga.started_at(),
            has_caller: given.is_some(),
            base: given.unwrap_or_else(|| TraceContext::of_saga(saga.id())),
        }
    }

    /// Returns true when an attempt that begins then is in a trace of its own.
    pub(crate) fn is_late(&self, began_at: Timestamp) -> bool {
        began_at.since(self.started_at) > self.rules.link_after
    }

    /// Returns the span of an attempt.
    pub(crate) fn attempt(
        &self,
        step: &StepName,
        direction: Direction,
        attempt: u32,
        began_at: Timestamp,
    ) -> TraceContext {
        let trace_id = if self.is_late(began_at) {
            attempt_trace_id(self.saga, step, direction, attempt)
        } else {
            self.base.trace_id
        };
        let span_id = attempt_span_id(self.saga, step, direction, attempt);
        TraceContext { trace_id, span_id, is_sampled: self.is_sampled() }
    }

    /// Returns the span of the caller, for a span of the same trace.
    pub(crate) fn caller(&self) -> Option<SpanId> {
        self.has_caller.then_some(self.base.span_id)
    }

    /// Returns true when others are asked to keep the trace. It is said when a call begins, so its outcome is
    /// not known: it is what would be kept if all went well.
    pub(crate) fn is_sampled(&self) -> bool {
        if self.has_caller {
            self.base.is_sampled
        } else {
            self.is_within(self.rules.sample.success)
        }
    }

    /// Returns true when a span is kept of whose like this part is kept.
    pub(crate) fn keeps(&self, rate: f64) -> bool {
        self.has_caller && self.base.is_sampled || self.is_within(rate)
    }

    fn is_within(&self, rate: f64) -> bool {
        is_within(self.base.trace_id, rate)
    }

    pub(crate) fn started_at(&self) -> Timestamp {
        self.started_at
    }

    pub(crate) fn rules(&self) -> TraceRules {
        self.rules
    }
}

/// Returns true for this part of all traces. It follows from the trace alone, so that spans of one trace are kept
/// together.
pub(super) fn is_within(trace: TraceId, rate: f64) -> bool {
    // The last seven bytes of a trace id are random, those of a saga's id too.
    let id = &trace.0;
    let part = u32::from_be_bytes([id[9], id[10], id[11], id[12]]);
    f64::from(part) < rate * (f64::from(u32::MAX) + 1.0)
}
