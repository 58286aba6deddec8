//! Spans of requests to the host.
//!
//! The span of a request ends when its answer begins, or when nobody waits for the answer any more. The ids are not
//! those of any event: a request is not stored, and one that is sent again is another one.
//!
//! Deliberately absent: paths, queries, headers and bodies, because each may have a secret; and requests that only
//! read, because probes and people who watch would push out everything else.

use std::time::SystemTime;

use amends_engine::{SagaId, SpanId, TraceContext, TraceId};
use amends_telemetry::{Exporter, Span, SpanKind, Value};

use super::rules::{SampleRates, is_within};

/// The first status of HTTP that is an error of the server.
const SERVER_ERROR_MIN: u16 = 500;

/// What is known of a request before it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedRequest {
    /// The method.
    pub method: String,
    /// The path as the routes have it, with names in the place of ids: `/v1/sagas/{id}/cancel`.
    pub route: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The name or address of the host by which the caller found it.
    pub server: Option<String>,
    /// The port of that name, if the caller gave it.
    pub port: Option<u16>,
    /// The saga that the request is about.
    pub saga: Option<SagaId>,
    /// False for a caller of whom the host does not know who it is. Only what succeeds has a span then, so that
    /// strangers cannot push out other spans.
    pub is_known: bool,
}

/// How a request was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestAnswer {
    /// The status.
    pub status: u16,
    /// The code of the problem that the answer is.
    pub code: Option<String>,
    /// The saga that the request started, or found by its key.
    pub saga: Option<SagaId>,
    /// True when the request started that saga.
    pub is_started: bool,
}

/// The span of a request that is being served. It is sent when this is dropped.
#[derive(Debug)]
pub struct RequestSpan {
    exporter: Exporter,
    sample: SampleRates,
    open: OpenSpan,
}

/// What the span of a request is made from.
#[derive(Debug)]
struct OpenSpan {
    caller: Option<TraceContext>,
    context: TraceContext,
    began: SystemTime,
    request: ServedRequest,
    /// None: nobody has waited for it.
    answer: Option<RequestAnswer>,
}

impl RequestSpan {
    pub(super) fn begin(
        exporter: Exporter,
        sample: SampleRates,
        request: ServedRequest,
        caller: Option<TraceContext>,
    ) -> Self {
        Self { exporter, sample, open: OpenSpan::begin(request, caller) }
    }

    /// Returns the trace context of what the request starts: this span. None without a caller's context, because a
    /// saga has a trace of its own then.
    #[must_use]
    pub fn context(&self) -> Option<TraceContext> {
        self.open.caller.map(|_| self.open.context)
    }

    /// Ends the span with the answer to its request.
    pub fn end(mut self, answer: RequestAnswer) {
        self.open.answer = Some(answer);
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        if let Some(span) = self.open.span(self.sample, SystemTime::now()) {
            self.exporter.send(span);
        }
    }
}

impl OpenSpan {
    fn begin(request: ServedRequest, caller: Option<TraceContext>) -> Self {
        // The same caller may send several requests, also the same one twice.
        let unique = uuid::Uuid::now_v7();
        let base = caller.unwrap_or(TraceContext {
            trace_id: TraceId(*unique.as_bytes()),
            span_id: SpanId([0; 8]),
            is_sampled: false,
        });
        let context = base.child(&unique.to_string());
        Self { caller, context, began: SystemTime::now(), request, answer: None }
    }

    /// The span that is over now. None when it is not kept.
    fn span(&self, sample: SampleRates, now: SystemTime) -> Option<Span> {
        let Self { caller, request, answer, .. } = self;
        let status = answer.as_ref().map(|answer| answer.status);
        if !request.is_known && !status.is_some_and(|status| (200..300).contains(&status)) {
            return None;
        }
        let context = TraceContext { trace_id: self.trace_id(), ..self.context };
        let failed = match answer {
            Some(answer) if answer.status < SERVER_ERROR_MIN => None,
            Some(answer) => Some(answer.code.clone().unwrap_or_else(|| answer.status.to_string())),
            None => Some("no_answer".to_owned()),
        };
        let rate = if failed.is_some() { sample.failed } else { sample.success };
        let is_callers = caller.is_some_and(|caller| caller.is_sampled);
        if !is_callers && !is_within(context.trace_id, rate) {
            return None;
        }
        let saga = answer.as_ref().and_then(|answer| answer.saga).or(request.saga);
        let is_error = failed.is_some();
        let attributes = [
            Some(("http.request.method", Value::from(request.method.as_str()))),
            Some(("http.route", Value::from(request.route.as_str()))),
            Some(("url.scheme", Value::from(request.scheme))),
            request.server.as_deref().map(|server| ("server.address", Value::from(server))),
            request.port.map(|port| ("server.port", Value::from(port))),
            status.map(|status| ("http.response.status_code", Value::from(status))),
            failed.map(|failed| ("error.type", Value::from(failed))),
            saga.map(|saga| ("amends.saga.id", Value::from(saga.to_string()))),
        ];
        Some(Span {
            context,
            parent: caller.map(|caller| caller.span_id),
            is_parent_remote: true,
            kind: SpanKind::Server,
            name: format!("{} {}", request.method, request.route),
            began: self.began,
            ended: now.max(self.began),
            is_error,
            attributes: attributes.into_iter().flatten().collect(),
            events: Vec::new(),
            events_dropped: 0,
            links: Vec::new(),
        })
    }

    /// The trace of the span: that of the caller, or that of the saga that the request started, or one of its own.
    fn trace_id(&self) -> TraceId {
        let started = self.answer.as_ref().filter(|answer| answer.is_started);
        let started = started.and_then(|answer| answer.saga);
        match (self.caller, started) {
            (None, Some(saga)) => TraceContext::of_saga(saga).trace_id,
            (Some(_), _) | (None, None) => self.context.trace_id,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::time::Duration;

    use amends_engine::Timestamp;

    use super::*;

    const ALL: SampleRates = SampleRates { success: 1.0, failed: 1.0, undo: 1.0 };

    const NONE: SampleRates = SampleRates { success: 0.0, failed: 0.0, undo: 0.0 };

    fn caller(is_sampled: bool) -> Option<TraceContext> {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        TraceContext::parse(text).map(|context| TraceContext { is_sampled, ..context })
    }

    fn request() -> ServedRequest {
        ServedRequest {
            method: "POST".to_owned(),
            route: "/v1/sagas".to_owned(),
            scheme: "http",
            server: Some("amends.example".to_owned()),
            port: Some(7070),
            saga: None,
            is_known: true,
        }
    }

    fn saga() -> SagaId {
        SagaId::from_parts(Timestamp::from_millis(1_000), &[3; 10])
    }

    fn answer(status: u16, saga: Option<SagaId>) -> RequestAnswer {
        RequestAnswer { status, code: None, saga, is_started: status == 202 }
    }

    fn span(open: OpenSpan, sample: SampleRates, answer: Option<RequestAnswer>) -> Option<Span> {
        let now = open.began + Duration::from_millis(5);
        OpenSpan { answer, ..open }.span(sample, now)
    }

    #[test]
    fn a_request_is_below_its_caller_and_no_two_have_one_span() {
        let caller = caller(false).unwrap();
        let [one, other] = [(); 2].map(|()| OpenSpan::begin(request(), Some(caller)));
        assert_ne!(one.context.span_id, other.context.span_id);
        assert!([one.context, other.context].iter().all(|context| !context.is_sampled));
        let span = span(one, ALL, Some(answer(202, Some(saga())))).unwrap();
        assert_eq!((span.name.as_str(), span.kind), ("POST /v1/sagas", SpanKind::Server));
        assert_eq!((span.context.trace_id, span.parent), (caller.trace_id, Some(caller.span_id)));
        assert_eq!(span.ended.duration_since(span.began).unwrap(), Duration::from_millis(5));
        let attributes: Vec<(&str, Value)> = vec![
            ("http.request.method", "POST".into()),
            ("http.route", "/v1/sagas".into()),
            ("url.scheme", "http".into()),
            ("server.address", "amends.example".into()),
            ("server.port", Value::Number(7070)),
            ("http.response.status_code", Value::Number(202)),
            ("amends.saga.id", saga().to_string().into()),
        ];
        assert_eq!(span.attributes, attributes);
        assert!(!span.is_error);
    }

    #[test]
    fn without_a_caller_a_start_is_in_the_trace_of_its_saga() {
        let of = |status, saga| {
            let open = OpenSpan::begin(request(), None);
            let own = open.context.trace_id;
            (own, span(open, ALL, Some(answer(status, saga))).unwrap())
        };
        let (_, started) = of(202, Some(saga()));
        assert_eq!(started.context.trace_id, TraceContext::of_saga(saga()).trace_id);
        assert_eq!(started.parent, None);
        // Found by its key: the saga may have the trace of another caller.
        for (status, saga) in [(200, Some(saga())), (404, None)] {
            let (own, span) = of(status, saga);
            assert_eq!(span.context.trace_id, own, "{status}");
        }
    }

    #[test]
    fn what_is_kept_follows_from_the_caller_and_the_answer() {
        let failing = SampleRates { failed: 1.0, ..NONE };
        for (caller, sample, status, is_kept) in [
            (caller(true), NONE, Some(202), true),
            (caller(true), NONE, None, true),
            (caller(false), NONE, Some(202), false),
            (caller(false), failing, Some(202), false),
            (caller(false), failing, Some(409), false),
            (caller(false), failing, Some(503), true),
            (caller(false), failing, None, true),
            (None, failing, Some(503), true),
            (None, NONE, Some(503), false),
            (None, ALL, Some(202), true),
        ] {
            let open = OpenSpan::begin(request(), caller);
            let span = span(open, sample, status.map(|status| answer(status, None)));
            assert_eq!(span.is_some(), is_kept, "{caller:?} {sample:?} {status:?}");
        }
    }

    #[test]
    fn an_error_of_the_host_has_its_code_and_a_request_that_is_given_up_has_a_word() {
        let failed = |answer| {
            let span = span(OpenSpan::begin(request(), None), ALL, answer).unwrap();
            let failed = span.attributes.iter().find(|(name, _)| *name == "error.type");
            (span.is_error, failed.map(|(_, value)| value.clone()))
        };
        let full = RequestAnswer { code: Some("starts_full".to_owned()), ..answer(503, None) };
        assert_eq!(failed(Some(full)), (true, Some("starts_full".into())));
        assert_eq!(failed(Some(answer(500, None))), (true, Some("500".into())));
        assert_eq!(failed(None), (true, Some("no_answer".into())));
        assert_eq!(failed(Some(answer(409, None))), (false, None));
    }

    #[test]
    fn of_a_stranger_only_what_succeeds_has_a_span() {
        for (status, is_kept) in
            [(Some(202), true), (Some(401), false), (Some(503), false), (None, false)]
        {
            let request = ServedRequest { is_known: false, ..request() };
            let open = OpenSpan::begin(request, caller(true));
            let span = span(open, ALL, status.map(|status| answer(status, None)));
            assert_eq!(span.is_some(), is_kept, "{status:?}");
        }
    }
}
