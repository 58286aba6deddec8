//! Spans of sagas that run in memory.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::sync::Arc;

use amends_engine::{
    BackoffSpec, Call, Command, Definition, DefinitionSpec, Failure, Input, Outcome, Payload,
    RetrySpec, SagaId, SealedKey, SpanId, Start, StepKind, StepSpec, UndoSpec, commands, decide,
    evolve, replay, start,
};
use amends_sandbox::TracedLine;

use super::super::rules::SampleRates;
use super::*;

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// The pause before the second attempt of a step.
const PAUSE: Duration = Duration::from_millis(100);

const ALL: SampleRates = SampleRates { success: 1.0, failed: 1.0, undo: 1.0 };

fn rules(sample: SampleRates) -> TraceRules {
    TraceRules { sample, ..TraceRules::default() }
}

fn step(name: &str, after: &[&str]) -> StepSpec {
    let retry = RetrySpec { attempts: 2, backoff: BackoffSpec::Listed(vec![PAUSE]) };
    let timeout = Duration::from_secs(5);
    StepSpec {
        each: None,
        name: name.parse().unwrap(),
        kind: StepKind::Call { plugin: name.parse().unwrap(), service: None },
        after: after.iter().map(|name| name.parse().unwrap()).collect(),
        when: None,
        input: None,
        timeout,
        retry: retry.clone(),
        undo: Some(UndoSpec { plugin: Some(name.parse().unwrap()), timeout, retry }),
        pivot: false,
    }
}

/// A saga without a store, and the spans that follow from it.
struct Driver {
    rules: TraceRules,
    saga: Saga,
    now: Timestamp,
    log: Vec<(Timestamp, Event)>,
    spans: Vec<Span>,
}

impl Driver {
    fn start(rules: TraceRules, traceparent: Option<&str>) -> Self {
        Self::start_sealed(rules, traceparent, None)
    }

    fn start_sealed(
        rules: TraceRules,
        traceparent: Option<&str>,
        sealed_key: Option<SealedKey>,
    ) -> Self {
        let steps =
            vec![step("drug", &[]), step("inventory", &["drug"]), step("shipment", &["inventory"])];
        let spec = DefinitionSpec {
            name: "order".parse().unwrap(),
            deadline: None,
            compensate_within: Some(Duration::from_hours(1)),
            index: BTreeMap::new(),
            subject: None,
            personal: Vec::new(),
            steps,
        };
        let now = Timestamp::from_millis(1_000);
        let what = Start {
            id: SagaId::from_parts(now, &[3; 10]),
            definition: Arc::new(Definition::new(spec).unwrap()),
            input: Payload::null(),
            key: None,
            tags: BTreeMap::new(),
            traceparent: traceparent.map(str::to_owned),
            start_at: None,
            parent: None,
            sealed_key,
            who: None,
            personal: Vec::new(),
        };
        let (saga, events) = start(now, what);
        let log = events.into_iter().map(|event| (now, event)).collect();
        let mut driver = Self { rules, saga, now, log, spans: Vec::new() };
        driver.admit();
        driver
    }

    fn feed(&mut self, input: Input) -> Vec<Event> {
        let events = decide(&self.saga, self.now, input);
        for event in &events {
            evolve(&mut self.saga, self.now, event).unwrap();
            self.log.push((self.now, event.clone()));
        }
        events
    }

    fn admit(&mut self) -> Vec<Event> {
        let now = self.now;
        let due = commands(&self.saga).filter_map(|command| match command {
            Command::Start(due) if due.at.is_none_or(|at| at <= now) => Some(due),
            Command::Start(_) | Command::Run(_) | Command::Wake(_) | Command::CancelChild(_) => {
                None
            }
        });
        let due: Vec<_> = due.collect();
        let admit = |due: amends_engine::Due| Input::Admit {
            step: due.step,
            direction: due.direction,
            digest: Digest::of(b"component"),
            note: None,
            is_trial: false,
        };
        due.into_iter().flat_map(|due| self.feed(admit(due))).collect()
    }

    fn running(&self) -> Call {
        let mut running = commands(&self.saga).filter_map(|command| match command {
            Command::Run(call) => Some(call),
            Command::Start(_) | Command::Wake(_) | Command::CancelChild(_) => None,
        });
        running.next().unwrap()
    }

    /// The running call takes 10 ms and ends.
    fn answer(&mut self, outcome: Outcome) {
        self.answer_with(outcome, None, &CallTrace::default());
    }

    fn answer_with(&mut self, outcome: Outcome, probe: Option<Fate>, trace: &CallTrace) {
        self.now = self.now.after(Duration::from_millis(10));
        let (call, before) = (self.running(), self.saga.clone());
        let Call { step, direction, attempt, .. } = call;
        let ended = Input::Outcome {
            step: step.clone(),
            direction,
            attempt,
            outcome,
            probe,
            emitted: Vec::new(),
        };
        let mut events = self.feed(ended);
        events.extend(self.admit());
        let calls = vec![TracedCall { step: &step, direction, attempt, trace }];
        let durable = Durable { before: &before, at: self.now, events: &events, calls };
        let spans = &mut self.spans;
        spans_of(self.rules, &durable, |_, _| Some("1.2.0".to_owned()), |span| spans.push(span));
    }

    /// The pause before an attempt passes.
    fn pass(&mut self, pause: Duration) {
        self.now = self.now.after(pause);
        self.feed(Input::Tick);
        self.admit();
    }

    /// The spans in a line each: name, attempt, outcome, and the spans to which it links.
    fn told(&self) -> Vec<String> {
        let line = |span: &Span| {
            let links = span.links.iter().map(|link| {
                let to = self.spans.iter().find(|other| other.context == link.context);
                format!(", {} {}", link.relation, to.map_or_else(|| "another".to_owned(), short))
            });
            format!(
                "{}: {}{}",
                short(span),
                text(span, "amends.outcome"),
                links.collect::<String>()
            )
        };
        self.spans.iter().map(line).collect()
    }
}

fn short(span: &Span) -> String {
    let attempt = span.attributes.iter().find(|(name, _)| *name == "amends.attempt");
    match attempt {
        Some((_, Value::Number(attempt))) => format!("{} {attempt}", span.name),
        Some((_, Value::Text(_))) | None => span.name.clone(),
    }
}

fn text(span: &Span, name: &str) -> String {
    match span.attributes.iter().find(|(other, _)| *other == name) {
        Some((_, Value::Text(text))) => text.clone(),
        Some((_, Value::Number(number))) => number.to_string(),
        None => String::new(),
    }
}

fn done() -> Outcome {
    Outcome::Succeeded(Payload::null())
}

fn busy() -> Outcome {
    Outcome::Retryable(Failure::new("busy", "the carrier of Ada Lovelace is busy"))
}

fn refused() -> Outcome {
    Outcome::Permanent(Failure::new("refused", "no carrier goes to Ada Lovelace"))
}

/// An order whose shipment fails twice, and which is compensated.
fn compensated(rules: TraceRules, traceparent: Option<&str>) -> Driver {
    let mut driver = Driver::start(rules, traceparent);
    driver.answer(done());
    driver.answer(done());
    driver.answer(busy());
    driver.pass(PAUSE);
    driver.answer(refused());
    driver.answer(done());
    driver.answer(done());
    assert_eq!(driver.saga.status(), SagaStatus::Compensated);
    driver
}

#[test]
fn a_compensated_order_has_a_span_for_each_attempt_in_the_trace_of_its_caller() {
    let driver = compensated(rules(ALL), Some(CALLER));
    assert_eq!(
        driver.told(),
        [
            "execute drug 1: succeeded",
            "execute inventory 1: succeeded",
            "execute shipment 1: retryable",
            "execute shipment 2: permanent, retries execute shipment 1",
            "compensate inventory 1: succeeded, undoes execute inventory 1",
            "compensate drug 1: succeeded, undoes execute drug 1",
            "saga order: compensated",
        ]
    );
    let caller = TraceContext::parse(CALLER).unwrap();
    for span in &driver.spans {
        assert_eq!(span.context.trace_id, caller.trace_id);
        assert_eq!((span.parent, span.is_parent_remote), (Some(caller.span_id), true));
        assert!(!span.context.is_sampled, "what the caller says is passed on");
        let told = format!("{span:?}");
        assert!(!told.contains("Ada"), "{told}");
    }
    let shipment = &driver.spans[2];
    let took = shipment.ended.duration_since(shipment.began).unwrap();
    assert_eq!(took, Duration::from_millis(10));
    let expected: [(&str, Value); 10] = [
        ("amends.saga.id", driver.saga.id().to_string().into()),
        ("amends.definition", "order".into()),
        ("amends.step", "shipment".into()),
        ("amends.direction", "execute".into()),
        ("amends.attempt", 1_u32.into()),
        ("amends.plugin", "shipment".into()),
        ("amends.plugin.digest", Digest::of(b"component").to_string().into()),
        ("amends.plugin.version", "1.2.0".into()),
        ("amends.outcome", "retryable".into()),
        ("error.type", "busy".into()),
    ];
    assert_eq!(shipment.attributes, expected);
    let errors = driver.spans.iter().map(|span| span.is_error);
    assert_eq!(errors.collect::<Vec<_>>(), [false, false, true, true, false, false, true]);
}

#[test]
fn without_a_caller_the_trace_is_that_of_the_saga() {
    let driver = compensated(rules(ALL), None);
    assert_eq!(driver.spans.len(), 7);
    for span in &driver.spans {
        assert_eq!(span.context.trace_id.0, *driver.saga.id().as_bytes());
        assert_eq!(span.parent, None);
        assert!(span.context.is_sampled);
    }
    let of_saga = TraceContext::parse(&driver.saga.traceparent()).unwrap();
    assert_eq!(SagaTrace::of(rules(ALL), &driver.saga).base, of_saga);
}

#[test]
fn an_attempt_that_begins_late_is_in_a_trace_of_its_own() {
    let link_after = Duration::from_millis(50);
    let driver = compensated(TraceRules { link_after, ..rules(ALL) }, Some(CALLER));
    assert_eq!(
        driver.told(),
        [
            "execute drug 1: succeeded",
            "execute inventory 1: succeeded",
            "execute shipment 1: retryable",
            "execute shipment 2: permanent, continues another, retries execute shipment 1",
            "compensate inventory 1: succeeded, continues another, undoes execute inventory 1",
            "compensate drug 1: succeeded, continues another, undoes execute drug 1",
        ]
    );
    let caller = TraceContext::parse(CALLER).unwrap();
    let (early, late) = driver.spans.split_at(3);
    assert!(early.iter().all(|span| span.context.trace_id == caller.trace_id));
    let traces = late.iter().map(|span| span.context.trace_id);
    assert_eq!(traces.collect::<std::collections::BTreeSet<_>>().len(), 3);
    for span in late {
        assert_ne!(span.context.trace_id, caller.trace_id);
        assert_eq!((span.parent, span.links[0].context), (None, caller));
    }
}

#[test]
fn outcomes_are_sampled_each_by_its_own_rate() {
    let none = SampleRates { success: 0.0, failed: 0.0, undo: 0.0 };
    let failed = SampleRates { failed: 1.0, ..none };
    let undo = SampleRates { undo: 1.0, ..none };
    assert_eq!(compensated(rules(none), Some(CALLER)).told(), [""; 0]);
    assert_eq!(
        compensated(rules(failed), Some(CALLER)).told(),
        [
            "execute shipment 1: retryable",
            "execute shipment 2: permanent, retries execute shipment 1",
            "saga order: compensated",
        ]
    );
    assert_eq!(
        compensated(rules(undo), Some(CALLER)).told(),
        [
            "compensate inventory 1: succeeded, undoes another",
            "compensate drug 1: succeeded, undoes another",
        ]
    );
    let sampled = CALLER.replace("31-00", "31-01");
    assert_eq!(compensated(rules(none), Some(&sampled)).spans.len(), 7, "its caller keeps it");
}

#[test]
fn a_part_of_the_traces_is_kept() {
    let driver = Driver::start(rules(ALL), None);
    let mut trace = SagaTrace::of(rules(ALL), &driver.saga);
    let kept = (0..=u8::MAX).filter(|byte| {
        trace.base.trace_id.0[9] = *byte;
        trace.keeps(0.25)
    });
    assert_eq!(kept.count(), 64);
}

#[test]
fn what_a_call_did_is_below_its_attempt() {
    let at = UNIX_EPOCH + Duration::from_millis(1_005);
    let request = TracedRequest {
        name: "request 1".to_owned(),
        method: "POST".to_owned(),
        server: "carrier.example".to_owned(),
        port: Some(8_080),
        began: at,
        ended: Some(at),
        status: Some(503),
    };
    let lost = TracedRequest {
        name: "request 2".to_owned(),
        ended: None,
        status: None,
        ..request.clone()
    };
    let line = TracedLine { at, level: "warn", message: "the carrier is busy".to_owned() };
    let trace = CallTrace {
        lines: vec![line],
        lines_dropped: 4,
        requests: vec![request, lost],
        probe: Some((at, at)),
    };
    let mut driver = Driver::start(rules(ALL), Some(CALLER));
    driver.answer_with(done(), Some(Fate::Happened), &trace);
    let [attempt, answered, unanswered, probe] = driver.spans.as_slice() else {
        panic!("{:?}", driver.spans)
    };
    assert_eq!((attempt.events[0].name, attempt.events_dropped), ("log", 4));
    assert_eq!(attempt.events[0].attributes[1], ("message", Value::from("the carrier is busy")));
    for (span, name) in [(answered, "request 1"), (unanswered, "request 2")] {
        assert_eq!(span.context, attempt.context.child(name));
        assert_eq!((span.parent, span.kind), (Some(attempt.context.span_id), SpanKind::Client));
        assert!(span.is_error);
    }
    assert_eq!(text(answered, "http.response.status_code"), "503");
    assert_eq!(text(answered, "server.address"), "carrier.example");
    assert_eq!(text(unanswered, "error.type"), "no_answer");
    assert_eq!(unanswered.ended, attempt.ended);
    assert_eq!(probe.context, attempt.context.probe());
    assert_eq!((probe.name.as_str(), probe.parent), ("probe drug", Some(attempt.context.span_id)));
    assert_eq!(
        (text(probe, "amends.direction"), text(probe, "amends.outcome")),
        ("probe".to_owned(), "happened".to_owned())
    );
}

/// A line may quote a personal value, and nobody erases spans.
#[test]
fn log_lines_of_a_saga_with_a_subject_are_in_no_span() {
    let key = SealedKey {
        subject_key: "ab".repeat(16).parse().unwrap(),
        data_key: String::new(),
        payload_digest: None,
    };
    let message = "the address is Main Street 1".to_owned();
    let line = TracedLine { at: UNIX_EPOCH, level: "info", message };
    let trace = CallTrace { lines: vec![line], lines_dropped: 2, ..CallTrace::default() };
    let mut driver = Driver::start_sealed(rules(ALL), None, Some(key));
    driver.answer_with(done(), None, &trace);
    let [attempt] = driver.spans.as_slice() else { panic!("{:?}", driver.spans) };
    assert_eq!((attempt.events.len(), attempt.events_dropped), (0, 3));
}

#[test]
fn an_attempt_that_was_cut_off_with_its_host_has_the_same_span() {
    let mut driver = Driver::start(rules(ALL), Some(CALLER));
    driver.answer(done());
    let call = driver.running();
    let known = |saga: &Saga| {
        let Call { step, direction, attempt, .. } = &call;
        let at = saga.attempt_began_at(step, *direction, *attempt).unwrap();
        SagaTrace::of(rules(ALL), saga).attempt(step, *direction, *attempt, at)
    };
    let before_the_call = known(&driver.saga);
    let definition = Arc::clone(driver.saga.definition());
    let log = driver.log.iter().map(|(at, event)| (*at, event));
    driver.saga = replay(driver.saga.id(), definition, log).unwrap();
    assert_eq!(known(&driver.saga), before_the_call);
    driver.answer(Outcome::Unknown(Failure::new("host_stopped", "the host stopped")));
    let span = driver.spans.last().unwrap();
    assert_eq!(span.context, before_the_call);
    assert_eq!(text(span, "error.type"), "host_stopped");
    assert_ne!(span.context.span_id, SpanId([0; 8]));
}
