//! A host without a store, for the examples of the rules.
#![allow(dead_code, reason = "each test crate uses a part of it")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::{
    BackoffSpec, Call, Command, Definition, DefinitionSpec, Digest, Event, Failure, Input, Order,
    Outcome, Payload, RetrySpec, Saga, SagaId, Start, StepKind, StepSpec, Timestamp, UndoSpec,
    Verb, commands, decide, evolve, permits, start,
};

pub(crate) fn retry(attempts: u32, pauses_ms: &[u64]) -> RetrySpec {
    let pauses = pauses_ms.iter().copied().map(Duration::from_millis).collect();
    RetrySpec { attempts, backoff: BackoffSpec::Listed(pauses) }
}

pub(crate) fn step(name: &str, after: &[&str]) -> StepSpec {
    let timeout = Duration::from_secs(5);
    StepSpec {
        each: None,
        name: name.parse().unwrap(),
        kind: StepKind::Call { plugin: format!("{name}-plugin").parse().unwrap(), service: None },
        after: after.iter().map(|name| name.parse().unwrap()).collect(),
        when: None,
        input: None,
        timeout,
        retry: retry(2, &[100]),
        undo: Some(UndoSpec {
            plugin: Some(format!("{name}-undo").parse().unwrap()),
            timeout,
            retry: retry(2, &[100]),
        }),
        pivot: false,
    }
}

pub(crate) fn serial() -> Vec<StepSpec> {
    vec![step("a", &[]), step("b", &["a"]), step("c", &["b"])]
}

pub(crate) fn diamond() -> Vec<StepSpec> {
    vec![step("a", &[]), step("l", &["a"]), step("r", &["a"]), step("j", &["l", "r"])]
}

/// A host without a store: applies what is decided, and notes each fact in a word or three.
pub(crate) struct Host {
    pub(crate) saga: Saga,
    pub(crate) now: Timestamp,
    /// All facts so far.
    pub(crate) log: Vec<(Timestamp, Event)>,
    noted: Vec<String>,
}

impl Host {
    pub(crate) fn start(steps: Vec<StepSpec>) -> Self {
        Self::start_with(steps, None, r#"{"n":1}"#)
    }

    pub(crate) fn start_with(
        steps: Vec<StepSpec>,
        deadline: Option<Duration>,
        input: &str,
    ) -> Self {
        Self::start_later(steps, deadline, input, None)
    }

    /// Starts a saga whose first steps may begin after a delay.
    pub(crate) fn start_later(
        steps: Vec<StepSpec>,
        deadline: Option<Duration>,
        input: &str,
        delay: Option<Duration>,
    ) -> Self {
        let compensate_within = Some(Duration::from_hours(1));
        let spec = DefinitionSpec {
            name: "test".parse().unwrap(),
            deadline,
            compensate_within,
            index: std::collections::BTreeMap::new(),
            subject: None,
            personal: Vec::new(),
            steps,
        };
        Self::start_spec(spec, input, delay)
    }

    /// Starts a saga of a definition.
    pub(crate) fn start_spec(spec: DefinitionSpec, input: &str, delay: Option<Duration>) -> Self {
        let now = Timestamp::from_millis(1_000);
        let what = Start {
            id: SagaId::from_parts(now, &[3; 10]),
            definition: Arc::new(Definition::new(spec).unwrap()),
            input: Payload::parse(input).unwrap(),
            key: None,
            tags: BTreeMap::new(),
            traceparent: None,
            start_at: delay.map(|delay| now.after(delay)),
            parent: None,
            sealed_key: None,
            who: None,
            personal: Vec::new(),
        };
        let (saga, events) = start(now, what);
        let noted = events.iter().map(word).collect();
        let log = events.into_iter().map(|event| (now, event)).collect();
        let mut host = Self { saga, now, log, noted };
        host.admit();
        host
    }

    pub(crate) fn feed(&mut self, input: Input) {
        for event in decide(&self.saga, self.now, input) {
            evolve(&mut self.saga, self.now, &event).unwrap();
            self.noted.push(word(&event));
            self.log.push((self.now, event));
        }
    }

    pub(crate) fn admit(&mut self) {
        let now = self.now;
        let due: Vec<_> = commands(&self.saga)
            .filter_map(|command| match command {
                Command::Start(due) if due.at.is_none_or(|at| at <= now) => Some(due),
                Command::Start(_)
                | Command::Run(_)
                | Command::Wake(_)
                | Command::CancelChild(_) => None,
            })
            .collect();
        for due in due {
            let (step, direction) = (due.step, due.direction);
            self.feed(Input::Admit {
                step,
                direction,
                digest: Digest::of(b"x"),
                note: None,
                is_trial: false,
            });
        }
    }

    pub(crate) fn running(&self) -> Vec<Call> {
        let running = commands(&self.saga).filter_map(|command| match command {
            Command::Run(call) => Some(call),
            Command::Start(_) | Command::Wake(_) | Command::CancelChild(_) => None,
        });
        running.collect()
    }

    /// The running call of `step` ends.
    pub(crate) fn answer(&mut self, step: &str, outcome: Outcome) -> &mut Self {
        let call = self.running().into_iter().find(|call| call.step.as_str() == step);
        let call = call.unwrap_or_else(|| panic!("{step} is not running"));
        let (step, direction, attempt) = (call.step, call.direction, call.attempt);
        self.feed(Input::Outcome {
            step,
            direction,
            attempt,
            outcome,
            probe: None,
            emitted: Vec::new(),
        });
        self.admit();
        self
    }

    pub(crate) fn tick(&mut self, millis: u64) -> &mut Self {
        self.now = self.now.after(Duration::from_millis(millis));
        self.feed(Input::Tick);
        self.admit();
        self
    }

    pub(crate) fn cancel(&mut self) -> &mut Self {
        self.feed(Input::Operate(order(Verb::Cancel)));
        self.admit();
        self
    }

    /// An operator orders what is permitted.
    pub(crate) fn order(&mut self, verb: Verb) -> &mut Self {
        permits(&self.saga, self.now, &order(verb.clone())).unwrap();
        self.feed(Input::Operate(order(verb)));
        self.admit();
        self
    }

    /// Why an operator's order is refused.
    pub(crate) fn refused(&self, verb: Verb) -> String {
        permits(&self.saga, self.now, &order(verb)).unwrap_err().to_string()
    }

    pub(crate) fn signal(&mut self, name: &str, id: Option<&str>, payload: &str) -> &mut Self {
        let (name, id) = (name.parse().unwrap(), id.map(str::to_owned));
        self.feed(Input::Signal { name, id, payload: Payload::parse(payload).unwrap(), who: None });
        self.admit();
        self
    }

    /// What was noted since the last time.
    pub(crate) fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.noted)
    }
}

/// `step.started a 1`, `step.failed a 1 again` when another attempt follows.
pub(crate) fn word(event: &Event) -> String {
    let data: serde_json::Value = serde_json::from_str(&event.data()).unwrap();
    let mut word = event.kind().into_owned();
    for field in ["step", "attempt", "cause"] {
        if let Some(value) = data.get(field) {
            word.push(' ');
            word.push_str(value.to_string().trim_matches('"'));
        }
    }
    if data.get("retry_at").is_some() {
        word += " again";
    }
    word
}

pub(crate) fn order(verb: Verb) -> Order {
    Order { who: "ada".to_owned(), reason: "a mistake".to_owned(), verb }
}

pub(crate) fn done() -> Outcome {
    Outcome::Succeeded(Payload::parse(r#"{"ok":true}"#).unwrap())
}

pub(crate) fn permanent() -> Outcome {
    Outcome::Permanent(Failure::new("no", "it is not possible"))
}

pub(crate) fn retryable() -> Outcome {
    Outcome::Retryable(Failure::new("busy", "try later"))
}

pub(crate) fn unknown() -> Outcome {
    Outcome::Unknown(Failure::new("timeout", "no answer within 5s"))
}
