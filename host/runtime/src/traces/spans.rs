//! From events to spans.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use amends_engine::{
    Digest, Direction, Event, Fate, PluginName, Saga, SagaEvent, SagaStatus, StepEvent, StepName,
    StepStatus, StepView, Timestamp, TraceContext, UndoEvent, saga_span_id,
};
use amends_sandbox::{CallTrace, TracedRequest};
use amends_telemetry::{Span, SpanEvent, SpanKind, SpanLink, Value};

use super::rules::{SagaTrace, TraceRules};

/// The first status of HTTP that is an error of a request.
const STATUS_ERROR_MIN: u16 = 400;

/// Events that have become durable, and what else is known of them.
#[derive(Debug)]
pub(crate) struct Durable<'a> {
    /// The saga before them.
    pub(crate) before: &'a Saga,
    /// When they were decided.
    pub(crate) at: Timestamp,
    pub(crate) events: &'a [Event],
    /// The calls that they end.
    pub(crate) calls: Vec<TracedCall<'a>>,
}

/// What is told of a call in its trace.
#[derive(Debug)]
pub(crate) struct TracedCall<'a> {
    pub(crate) step: &'a StepName,
    pub(crate) direction: Direction,
    pub(crate) attempt: u32,
    pub(crate) trace: &'a CallTrace,
}

/// An attempt, as the event that ends it tells it.
#[derive(Debug, Clone, Copy)]
struct Ended<'a> {
    step: &'a StepName,
    direction: Direction,
    attempt: u32,
    outcome: &'static str,
    /// The code of its failure, if it failed.
    code: Option<&'a str>,
    probe: Option<Fate>,
}

/// The beginning of an attempt.
#[derive(Debug, Clone, Copy)]
struct Beginning {
    at: Timestamp,
    digest: Option<Digest>,
}

/// Makes the spans that follow from events, in the order of the events. `version_of` tells the version of a
/// component.
pub(super) fn spans_of(
    rules: TraceRules,
    durable: &Durable<'_>,
    version_of: impl Fn(&PluginName, Digest) -> Option<String>,
    mut tell: impl FnMut(Span),
) {
    let maker = Maker { durable, trace: SagaTrace::of(rules, durable.before), version_of };
    for (index, event) in durable.events.iter().enumerate() {
        if let Some(ended) = ended(event)
            && maker.keeps(&ended)
            && let Some(beginning) = maker.beginning(&ended, index)
        {
            maker.attempt(&ended, beginning, &mut tell);
        }
        if let Some(status) = end_of_saga(event)
            && let Some(span) = maker.saga(status)
        {
            tell(span);
        }
    }
}

/// Makes the spans of events of one saga.
struct Maker<'a, V> {
    durable: &'a Durable<'a>,
    trace: SagaTrace,
    version_of: V,
}

impl<V: Fn(&PluginName, Digest) -> Option<String>> Maker<'_, V> {
    /// What began the attempt that the event with this index ends. None when the attempt was not running by
    /// then: a step can fail while it waits for its next attempt.
    fn beginning(&self, ended: &Ended<'_>, index: usize) -> Option<Beginning> {
        let Ended { step, direction, attempt, .. } = *ended;
        let is_it = |other: (&StepName, Direction, u32)| other == (step, direction, attempt);
        let mut beginning = None;
        let view = self.durable.before.step(step)?;
        let running = match direction {
            Direction::Execute => (StepStatus::Running, view.attempts, view.digest),
            Direction::Compensate => (StepStatus::Undoing, view.undo_attempts, view.undo_digest),
        };
        if attempt > 0 && (view.status, attempt) == (running.0, running.1) {
            let at = self.durable.before.attempt_began_at(step, direction, attempt)?;
            beginning = Some(Beginning { at, digest: running.2 });
        }
        for event in &self.durable.events[..index] {
            if let Some((other, digest)) = started(event)
                && is_it(other)
            {
                beginning = Some(Beginning { at: self.durable.at, digest: Some(digest) });
            }
            if let Some(other) = self::ended(event)
                && is_it((other.step, other.direction, other.attempt))
            {
                beginning = None;
            }
        }
        beginning
    }

    /// Whether the span of an attempt is kept.
    fn keeps(&self, ended: &Ended<'_>) -> bool {
        let sample = self.trace.rules().sample;
        self.trace.keeps(match ended.direction {
            Direction::Compensate => sample.undo,
            Direction::Execute if ended.code.is_some() => sample.failed,
            Direction::Execute => sample.success,
        })
    }

    /// The span of an attempt, and those below it.
    fn attempt(&self, ended: &Ended<'_>, beginning: Beginning, tell: &mut impl FnMut(Span)) {
        let Ended { step, direction, attempt, .. } = *ended;
        let Some(view) = self.durable.before.step(step) else { return };
        let is_call = |call: &&TracedCall<'_>| {
            (call.step, call.direction, call.attempt) == (step, direction, attempt)
        };
        let call = self.durable.calls.iter().find(is_call).map(|call| call.trace);
        let context = self.trace.attempt(step, direction, attempt, beginning.at);
        let is_late = self.trace.is_late(beginning.at);
        let (events, events_dropped) = self.lines(call);
        let mut attributes = self.attributes(ended, &view, beginning.digest, direction.as_str());
        attributes.push(("amends.outcome", ended.outcome.into()));
        attributes.extend(ended.code.map(|code| ("error.type", Value::from(code))));
        let ended_at = self.durable.at.max(beginning.at);
        tell(Span {
            context,
            parent: self.trace.caller().filter(|_| !is_late),
            is_parent_remote: self.durable.before.started().parent.is_none(),
            kind: SpanKind::Internal,
            name: format!("{} {}", direction.as_str(), step.step()),
            began: system_time(beginning.at),
            ended: system_time(ended_at),
            is_error: ended.code.is_some(),
            attributes,
            events,
            events_dropped,
            links: self.links(ended, &view, is_late),
        });
        let Some(call) = call else { return };
        for request in &call.requests {
            tell(request_span(&context, request, system_time(ended_at)));
        }
        if let Some((asked, answered)) = call.probe {
            let mut attributes = self.attributes(ended, &view, beginning.digest, "probe");
            let fate = ended.probe.unwrap_or(Fate::Unclear);
            attributes.push(("amends.outcome", fate_word(fate).into()));
            tell(Span {
                context: context.probe(),
                parent: Some(context.span_id),
                is_parent_remote: false,
                name: format!("probe {}", step.step()),
                began: asked,
                ended: answered,
                attributes,
                ..internal(&context)
            });
        }
    }

    /// The spans that belong to an attempt: the saga's trace when the attempt is in another one, the attempt
    /// before, and the attempt that it undoes.
    fn links(&self, ended: &Ended<'_>, view: &StepView<'_>, is_late: bool) -> Vec<SpanLink> {
        let Ended { step, direction, attempt, .. } = *ended;
        let before = self.durable.before;
        let link = |relation, direction, attempt| {
            let began_at = before.attempt_began_at(step, direction, attempt)?;
            let context = self.trace.attempt(step, direction, attempt, began_at);
            Some(SpanLink { context, relation })
        };
        let continued =
            is_late.then_some(SpanLink { context: self.trace.base, relation: "continues" });
        let retried = (attempt > 1).then(|| link("retries", direction, attempt - 1)).flatten();
        let is_undo = direction == Direction::Compensate && view.attempts > 0;
        let undone = is_undo.then(|| link("undoes", Direction::Execute, view.attempts)).flatten();
        [continued, retried, undone].into_iter().flatten().collect()
    }

    fn attributes(
        &self,
        ended: &Ended<'_>,
        view: &StepView<'_>,
        digest: Option<Digest>,
        direction: &str,
    ) -> Vec<(&'static str, Value)> {
        let saga = self.durable.before;
        let mut attributes: Vec<(&'static str, Value)> = vec![
            ("amends.saga.id", saga.id().to_string().into()),
            ("amends.definition", saga.definition().name().as_str().into()),
            ("amends.step", ended.step.as_str().into()),
            ("amends.direction", direction.into()),
            ("amends.attempt", ended.attempt.into()),
        ];
        let plugin = match ended.direction {
            Direction::Execute => view.spec.plugin(),
            Direction::Compensate => view.spec.undo_plugin().or_else(|| view.spec.plugin()),
        };
        if let Some(plugin) = plugin {
            attributes.push(("amends.plugin", plugin.as_str().into()));
            if let Some(digest) = digest {
                attributes.push(("amends.plugin.digest", digest.to_string().into()));
                let version = (self.version_of)(plugin, digest);
                attributes
                    .extend(version.map(|version| ("amends.plugin.version", Value::from(version))));
            }
        } else if let Some(child) = view.child {
            attributes.push(("amends.child.id", child.to_string().into()));
        }
        attributes
    }

    /// The log lines of a call, and how many are not there. Those of a saga with personal values may quote
    /// them, and nobody erases spans.
    fn lines(&self, call: Option<&CallTrace>) -> (Vec<SpanEvent>, u32) {
        let Some(call) = call else { return (Vec::new(), 0) };
        if self.durable.before.started().sealed_key.is_some() {
            let lines = u32::try_from(call.lines.len()).unwrap_or(u32::MAX);
            return (Vec::new(), call.lines_dropped.saturating_add(lines));
        }
        let events = call.lines.iter().map(|line| SpanEvent {
            name: "log",
            at: line.at,
            attributes: vec![
                ("level", line.level.into()),
                ("message", line.message.as_str().into()),
            ],
        });
        (events.collect(), call.lines_dropped)
    }

    /// The span of the whole saga. None when it took long, because nobody would find it beside its attempts.
    fn saga(&self, status: SagaStatus) -> Option<Span> {
        let (before, at) = (self.durable.before, self.durable.at);
        let sample = self.trace.rules().sample;
        let is_error = status != SagaStatus::Completed;
        let rate = if is_error { sample.failed } else { sample.success };
        if self.trace.is_late(at) || !self.trace.keeps(rate) {
            return None;
        }
        let base = self.trace.base;
        let context = TraceContext {
            trace_id: base.trace_id,
            span_id: saga_span_id(before.id(), status.as_str()),
            is_sampled: self.trace.is_sampled(),
        };
        let name = before.definition().name();
        let mut attributes: Vec<(&'static str, Value)> = vec![
            ("amends.saga.id", before.id().to_string().into()),
            ("amends.definition", name.as_str().into()),
            ("amends.outcome", status.as_str().into()),
        ];
        if is_error {
            attributes.push(("error.type", status.as_str().into()));
        }
        Some(Span {
            context,
            parent: self.trace.caller(),
            is_parent_remote: before.started().parent.is_none(),
            name: format!("saga {name}"),
            began: system_time(self.trace.started_at()),
            ended: system_time(at.max(self.trace.started_at())),
            is_error,
            attributes,
            ..internal(&context)
        })
    }
}

/// The attempt that an event begins, and the component that serves it.
fn started(event: &Event) -> Option<((&StepName, Direction, u32), Digest)> {
    if let Event::Step(StepEvent::Started(event)) = event {
        return Some(((&event.step, Direction::Execute, event.attempt), event.digest));
    }
    if let Event::Undo(UndoEvent::Started(event)) = event {
        return Some(((&event.step, Direction::Compensate, event.attempt), event.digest));
    }
    None
}

/// The attempt that an event ends.
fn ended(event: &Event) -> Option<Ended<'_>> {
    let (execute, compensate) = (Direction::Execute, Direction::Compensate);
    let ended = |step, direction, attempt, probe| Ended {
        step,
        direction,
        attempt,
        outcome: "succeeded",
        code: None,
        probe,
    };
    match event {
        Event::Step(StepEvent::Succeeded(fact)) => {
            Some(ended(&fact.step, execute, fact.attempt, fact.probe))
        }
        Event::Step(StepEvent::Failed(fact)) => Some(Ended {
            outcome: fact.class.as_str(),
            code: Some(fact.error.code.as_str()),
            ..ended(&fact.step, execute, fact.attempt, fact.probe)
        }),
        Event::Step(StepEvent::Unknown(fact)) => Some(Ended {
            outcome: "unknown",
            code: Some(fact.error.code.as_str()),
            ..ended(&fact.step, execute, fact.attempt, fact.probe)
        }),
        Event::Undo(UndoEvent::Succeeded(fact)) => Some(Ended {
            outcome: if fact.nothing { "nothing_to_undo" } else { "succeeded" },
            ..ended(&fact.step, compensate, fact.attempt, fact.probe)
        }),
        Event::Undo(UndoEvent::Failed(fact)) => Some(Ended {
            outcome: fact.class.as_str(),
            code: Some(fact.error.code.as_str()),
            ..ended(&fact.step, compensate, fact.attempt, fact.probe)
        }),
        Event::Undo(UndoEvent::Blocked(fact)) => Some(Ended {
            outcome: fact.class.as_str(),
            code: Some(fact.error.code.as_str()),
            ..ended(&fact.step, compensate, fact.attempt, fact.probe)
        }),
        Event::Step(
            StepEvent::Started(_)
            | StepEvent::Waiting(_)
            | StepEvent::Expanded(_)
            | StepEvent::Skipped(_),
        )
        | Event::Undo(UndoEvent::Started(_))
        | Event::Saga(_)
        | Event::Signal(_)
        | Event::Operator(_)
        | Event::Emitted(_) => None,
    }
}

/// The status in which an event ends a saga.
fn end_of_saga(event: &Event) -> Option<SagaStatus> {
    let Event::Saga(event) = event else { return None };
    match event {
        SagaEvent::Completed(_) => Some(SagaStatus::Completed),
        SagaEvent::Compensated(_) => Some(SagaStatus::Compensated),
        SagaEvent::Abandoned(_) => Some(SagaStatus::Abandoned),
        SagaEvent::Started(_)
        | SagaEvent::Due(_)
        | SagaEvent::CompensationStarted(_)
        | SagaEvent::Blocked(_)
        | SagaEvent::Retimed(_)
        | SagaEvent::Marked(_) => None,
    }
}

/// The span of a request of a call, with the conventions for clients of HTTP. Path and query may have a secret.
fn request_span(call: &TraceContext, request: &TracedRequest, over: SystemTime) -> Span {
    let mut attributes: Vec<(&'static str, Value)> = vec![
        ("http.request.method", request.method.as_str().into()),
        ("server.address", request.server.as_str().into()),
    ];
    attributes.extend(request.port.map(|port| ("server.port", Value::from(port))));
    attributes
        .extend(request.status.map(|status| ("http.response.status_code", Value::from(status))));
    let failed = match request.status {
        Some(status) => (status >= STATUS_ERROR_MIN).then(|| status.to_string()),
        None => Some("no_answer".to_owned()),
    };
    let is_error = failed.is_some();
    attributes.extend(failed.map(|failed| ("error.type", Value::from(failed))));
    Span {
        context: call.child(&request.name),
        parent: Some(call.span_id),
        is_parent_remote: false,
        kind: SpanKind::Client,
        name: request.method.clone(),
        began: request.began,
        ended: request.ended.unwrap_or_else(|| over.max(request.began)),
        is_error,
        attributes,
        ..internal(call)
    }
}

/// A span of which nothing is known yet.
fn internal(context: &TraceContext) -> Span {
    Span {
        context: *context,
        parent: None,
        is_parent_remote: false,
        kind: SpanKind::Internal,
        name: String::new(),
        began: UNIX_EPOCH,
        ended: UNIX_EPOCH,
        is_error: false,
        attributes: Vec::new(),
        events: Vec::new(),
        events_dropped: 0,
        links: Vec::new(),
    }
}

fn fate_word(fate: Fate) -> &'static str {
    match fate {
        Fate::Happened => "happened",
        Fate::DidNotHappen => "did_not_happen",
        Fate::Unclear => "unclear",
    }
}

fn system_time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0))
}

#[cfg(test)]
mod tests;
