//! What a caller asks for, and what it was told.

use crate::sim::memory::Draft;
use crate::sim::stage::{Result, Stage};
use crate::{Event, Input, Saga, Verb, decide_on};

/// What a caller asks for.
pub(super) struct Request {
    pub(super) saga: usize,
    pub(super) kind: RequestKind,
    pub(super) told: Told,
    /// The decision has a fact of its own for it.
    pub(super) has_fact: bool,
}

pub(super) enum RequestKind {
    Start,
    Order(Verb),
    /// A signal with an id. Its caller repeats it until it is told that it is recorded.
    Signal(usize),
}

/// What a caller was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing: it waits, or whoever was to answer was killed.
    Nothing,
    Done,
    /// It is not done, and will not be.
    NotDone,
}

impl Request {
    /// Takes down what was decided, and checks that it is the right answer. `from` is the draft
    /// before the decision: the saga and the number of its events. Without an append, a host whose
    /// lease is over does not answer.
    pub(super) fn decided(
        &mut self,
        stage: &Stage<'_>,
        (mut saga, from): (Saga, usize),
        draft: &Draft,
        (input, may_answer): (&Input, bool),
    ) -> Result<()> {
        let events = &draft.events[from..];
        let fact = self.fact();
        self.has_fact = events.iter().any(|event| event.kind().starts_with(fact));
        if !self.has_fact && !may_answer {
            return Ok(());
        }
        let refused = decide_on(&mut saga, draft.at, input.clone()).refused;
        let is_fulfilled = match &self.kind {
            RequestKind::Start => true,
            RequestKind::Order(verb) => {
                let mut record = stage.record.clone();
                for event in &draft.events {
                    record.apply((&stage.definition, &stage.units), draft.at, event);
                }
                record.is_fulfilled(verb)
            }
            RequestKind::Signal(id) => count(stage, fact, &signal_id(*id)) > 0,
        };
        stage.check_answer(refused.as_ref(), events.iter(), fact, is_fulfilled)
    }

    /// Returns the beginning of the type of its fact.
    pub(super) fn fact(&self) -> &'static str {
        match self.kind {
            RequestKind::Start => "saga.started",
            RequestKind::Order(_) => "operator.",
            RequestKind::Signal(_) => "signal.received",
        }
    }
}

/// Returns how many events of a type have a text.
pub(super) fn count(stage: &Stage<'_>, fact: &str, text: &str) -> usize {
    let quoted = format!("\"{text}\"");
    let is_it =
        |event: &Event| event.kind().starts_with(fact) && event.data().as_str().contains(&quoted);
    stage.log.iter().filter(|(_, event)| is_it(event)).count()
}

/// Returns the name of the caller of a request.
pub(super) fn caller(request: usize) -> String {
    format!("caller {request}")
}

/// Returns the id of a signal.
pub(super) fn signal_id(id: usize) -> String {
    format!("signal {id}")
}
