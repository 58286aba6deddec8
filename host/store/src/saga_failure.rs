//! The failures projection: what failed in a saga, derived from its events.

use amends_engine::{
    Digest, Direction, Event, Failure, SEALED_REASON, SagaEvent, StepEvent, StepName, UndoEvent,
    is_sealed,
};

/// The most bytes of the text of a failure that can be searched. What people search for stands at
/// its beginning, and a longer text would make the index large.
pub const FAILURE_TEXT_BYTES_MAX: usize = 2_560;

/// The call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailedCall {
    /// `execute`, or the wait of a step.
    Execute,
    /// `compensate`.
    Compensate,
    /// None: the saga was blocked, and the text is the reason.
    Block,
}

impl FailedCall {
    /// Returns the stored word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Compensate => "compensate",
            Self::Block => "block",
        }
    }
}

/// One failure of a saga. The store keeps the last one of each step (or element) and call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaFailure {
    /// The place of its event among the events that were looked at, from 0.
    pub event: usize,
    /// The step. None when the saga is blocked because of no step.
    pub step: Option<StepName>,
    /// The call that failed.
    pub call: FailedCall,
    /// The code of the failure. Empty for [`FailedCall::Block`].
    pub code: String,
    /// The code and the message, or the reason of the block, without what is sealed: at most [`FAILURE_TEXT_BYTES_MAX`] bytes.
    pub text: String,
    /// The component that served the call, or the definition of the saga that the step ran. None when
    /// nothing was called.
    pub digest: Option<Digest>,
}

/// Returns the failures among some events of one saga, in their order. `before` says which component
/// served the last call of a step before the first of the events.
pub fn failures(
    events: &[Event],
    before: impl Fn(&StepName, Direction) -> Option<Digest>,
) -> Vec<SagaFailure> {
    let mut found = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let Some(failed) = failed_call(event) else {
            found.extend(block(at, event));
            continue;
        };
        let (step, direction) = (failed.step, failed.direction);
        let began = events[..at].iter().rev().find_map(|event| component(event, step, direction));
        let served = || began.or_else(|| before(step, direction));
        found.push(SagaFailure {
            event: at,
            step: Some(step.clone()),
            call: match direction {
                Direction::Execute => FailedCall::Execute,
                Direction::Compensate => FailedCall::Compensate,
            },
            code: failed.error.code.clone(),
            text: text_of(failed.error),
            digest: if failed.attempt == 0 { None } else { served() },
        });
    }
    found
}

/// A call that an event says to have failed.
struct Failed<'event> {
    step: &'event StepName,
    direction: Direction,
    /// 0 when the step failed before it was called.
    attempt: u32,
    error: &'event Failure,
}

fn failed_call(event: &Event) -> Option<Failed<'_>> {
    let (step, direction, attempt, error) = match event {
        Event::Step(StepEvent::Failed(fact)) => {
            (&fact.step, Direction::Execute, fact.attempt, &fact.error)
        }
        Event::Step(StepEvent::Unknown(fact)) => {
            (&fact.step, Direction::Execute, fact.attempt, &fact.error)
        }
        Event::Undo(UndoEvent::Failed(fact)) => {
            (&fact.step, Direction::Compensate, fact.attempt, &fact.error)
        }
        Event::Undo(UndoEvent::Blocked(fact)) => {
            (&fact.step, Direction::Compensate, fact.attempt, &fact.error)
        }
        Event::Step(
            StepEvent::Started(_)
            | StepEvent::Waiting(_)
            | StepEvent::Expanded(_)
            | StepEvent::Succeeded(_)
            | StepEvent::Skipped(_),
        )
        | Event::Undo(UndoEvent::Started(_) | UndoEvent::Succeeded(_))
        | Event::Saga(_)
        | Event::Operator(_)
        | Event::Signal(_)
        | Event::Emitted(_) => return None,
    };
    Some(Failed { step, direction, attempt, error })
}

/// Returns the block that an event says, if it says one.
fn block(at: usize, event: &Event) -> Option<SagaFailure> {
    let Event::Saga(SagaEvent::Blocked(fact)) = event else { return None };
    Some(SagaFailure {
        event: at,
        step: fact.step.clone(),
        call: FailedCall::Block,
        code: String::new(),
        text: if is_sealed(&fact.reason) {
            SEALED_REASON.to_owned()
        } else {
            cut(fact.reason.clone())
        },
        digest: None,
    })
}

/// Returns the component of a call that an event says to have begun.
fn component(event: &Event, step: &StepName, direction: Direction) -> Option<Digest> {
    let (began, digest) = match (event, direction) {
        (Event::Step(StepEvent::Started(fact)), Direction::Execute) => (&fact.step, fact.digest),
        (Event::Undo(UndoEvent::Started(fact)), Direction::Compensate) => (&fact.step, fact.digest),
        _ => return None,
    };
    (began == step).then_some(digest)
}

/// Returns the text of a failure. A sealed message is left out.
fn text_of(error: &Failure) -> String {
    if is_sealed(&error.message) {
        return cut(error.code.clone());
    }
    cut(format!("{}: {}", error.code, error.message))
}

/// Returns the beginning of a text, whole characters only.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(FAILURE_TEXT_BYTES_MAX));
    text
}
