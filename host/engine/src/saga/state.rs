//! The state of a saga.

use std::sync::Arc;

use super::fan_out::FanOut;
use super::orders::{Note, Ordered, Wish};
use super::step_state::StepState;
use crate::definition::Definition;
use crate::event::{CompensationStarted, SagaAbandoned, SagaBlocked, SagaStarted};
use crate::ids::{SagaId, SignalName, Timestamp, Version};
use crate::log_limits::LogSize;
use crate::payload::Payload;
use crate::personal::PersonalPath;

/// One saga. [`crate::start`] and [`crate::replay`] make it; only [`crate::evolve`] changes it, but for
/// [`Self::set_erased`].
#[derive(Debug, Clone)]
pub struct Saga {
    pub(crate) id: SagaId,
    pub(crate) definition: Arc<Definition>,
    pub(crate) version: Version,
    pub(crate) started: Arc<SagaStarted>,
    pub(crate) started_at: Timestamp,
    pub(crate) ended_at: Option<Timestamp>,
    /// The latest time of its events since the clock was last set back.
    pub(crate) latest_at: Timestamp,
    /// When the saga is compensated unless it has completed, and when that time was set.
    pub(crate) deadline: Option<(Timestamp, Timestamp)>,
    /// While the first steps may not begin: when they may, and when that time was set.
    pub(crate) start_at: Option<(Timestamp, Timestamp)>,
    pub(crate) phase: Phase,
    pub(crate) compensating_since: Option<Timestamp>,
    pub(crate) blocked: Option<Arc<SagaBlocked>>,
    /// The order to compensate the saga, if there is one.
    pub(crate) wish: Option<Arc<Wish>>,
    /// The order that paused the saga, if it is paused.
    pub(crate) paused: Option<Arc<Ordered>>,
    /// The order that abandoned the saga, if there is one.
    pub(crate) given_up: Option<Arc<Ordered>>,
    /// The last note of an operator.
    pub(crate) note: Option<Arc<Note>>,
    /// The signals that arrived, in order. Those that a step has taken keep only their id.
    pub(crate) signals: Vec<Signal>,
    /// The steps of the definition, in its order, then the elements of each fan-out.
    pub(crate) steps: Vec<StepState>,
    /// The steps over a list that have their elements, in the order in which they got them.
    pub(crate) fan_outs: Vec<FanOut>,
    /// The places that components have marked as personal.
    pub(crate) marked: Vec<PersonalPath>,
    /// True when the key of its personal values is gone. Whoever folds its log says so.
    pub(crate) is_erased: bool,
    /// The size of its log, and the size at which the log is full.
    pub(crate) log: LogSize,
    pub(crate) log_max: LogSize,
}

/// The direction in which a saga goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It goes forward.
    Forward,
    /// It is being compensated.
    Compensating(Arc<CompensationStarted>),
    /// It ended: every step is done.
    Completed,
    /// It ended: every effect that has an undo is undone.
    Compensated(Arc<CompensationStarted>),
    /// It ended: an operator gave it up, and effects may stand.
    Abandoned(Arc<SagaAbandoned>),
}

/// A signal that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signal {
    pub(crate) name: SignalName,
    pub(crate) id: Option<String>,
    /// The payload; none once a step has taken it.
    pub(crate) payload: Option<Payload>,
}

impl Saga {
    /// Makes a saga that has just started.
    pub(crate) fn new(
        id: SagaId,
        definition: Arc<Definition>,
        at: Timestamp,
        started: SagaStarted,
    ) -> Self {
        let steps = vec![StepState::default(); definition.steps().len()];
        let log_max = definition.log_limits().max;
        let input_bytes = started.input.as_str().len() as u64;
        Self {
            id,
            definition,
            version: Version(1),
            deadline: started.deadline_at.map(|deadline| (deadline, at)),
            start_at: started.start_at.map(|start_at| (start_at, at)),
            started: Arc::new(started),
            started_at: at,
            ended_at: None,
            latest_at: at,
            phase: Phase::Forward,
            compensating_since: None,
            blocked: None,
            wish: None,
            paused: None,
            given_up: None,
            note: None,
            signals: Vec::new(),
            steps,
            fan_outs: Vec::new(),
            marked: Vec::new(),
            is_erased: false,
            log: LogSize { events: 1, bytes: input_bytes },
            log_max,
        }
    }

    /// Returns the places of its personal values: those that its definition names, and those that
    /// components have marked.
    pub fn personal(&self) -> impl Iterator<Item = &PersonalPath> {
        self.definition.personal().iter().chain(&self.marked)
    }

    /// Returns true when the saga has ended. Unlike its status, this needs no look at the steps.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        match self.phase {
            Phase::Completed | Phase::Compensated(_) | Phase::Abandoned(_) => true,
            Phase::Forward | Phase::Compensating(_) => false,
        }
    }

    /// Returns true when the log of the saga is full: no call begins until an operator allows more.
    pub(crate) fn is_log_full(&self) -> bool {
        self.log.events >= self.log_max.events || self.log.bytes >= self.log_max.bytes
    }

    /// Returns true when the saga has not ended, and its log is full.
    pub(crate) fn awaits_room(&self) -> bool {
        !self.has_ended() && self.is_log_full()
    }

    /// Returns true when two sagas are equal in everything that their log decides.
    #[cfg(feature = "sim")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.version == other.version
            && self.phase == other.phase
            && self.started == other.started
            && (self.started_at, self.ended_at) == (other.started_at, other.ended_at)
            && (self.latest_at, self.deadline) == (other.latest_at, other.deadline)
            && self.start_at == other.start_at
            && self.compensating_since == other.compensating_since
            && self.blocked == other.blocked
            && self.wish == other.wish
            && self.paused == other.paused
            && self.given_up == other.given_up
            && self.note == other.note
            && self.signals == other.signals
            && self.steps == other.steps
            && self.fan_outs == other.fan_outs
            && self.marked == other.marked
            && (self.log, self.log_max) == (other.log, other.log_max)
    }
}
