//! One live saga in its shard.

use std::collections::{HashSet, VecDeque};

use amends_engine::{
    Call, Command, Direction, Event, Input, PluginName, Saga, StepName, Timestamp, commands,
};
use amends_store::SagaRow;
use tokio::sync::oneshot;

use crate::error::{CancelError, StartError};
use crate::runtime::Started;

/// What holds a saga back that its events do not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StallReason {
    /// No component is active for a plugin that it needs.
    PluginMissing(PluginName),
    /// Every call that the host may run at once is in flight.
    NoRoom,
}

impl std::fmt::Display for StallReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PluginMissing(plugin) => write!(f, "it waits for plugin `{plugin}`"),
            Self::NoRoom => f.write_str("it waits for room: every call of this host is taken"),
        }
    }
}

/// A saga, what is under way for it, and what waits for it.
#[derive(Debug)]
pub(crate) struct Live {
    /// As of the last durable event.
    pub(crate) saga: Saga,
    /// The append under way.
    pub(crate) pending: Option<Pending>,
    /// What happened since that append was made.
    pub(crate) inputs: VecDeque<Queued>,
    /// Calls that were dispatched and have not come back.
    pub(crate) in_flight: HashSet<(StepName, Direction)>,
    /// The timer that is set.
    pub(crate) timer: Option<Timestamp>,
    /// What holds it back, outside its events.
    pub(crate) stall: Option<StallReason>,
    /// Told when it rests.
    pub(crate) waiters: Vec<oneshot::Sender<Saga>>,
}

/// An append under way, and the saga as it will be after it.
#[derive(Debug)]
pub(crate) struct Pending {
    /// When it was decided: what was due by then is admitted or held back.
    pub(crate) at: Timestamp,
    pub(crate) draft: Saga,
    pub(crate) events: Vec<Event>,
    /// Kept, so that nothing is lost when the append fails.
    pub(crate) inputs: Vec<Queued>,
    /// Calls that this append admits.
    pub(crate) admitted: usize,
    pub(crate) start: Option<oneshot::Sender<Result<Started, StartError>>>,
}

/// Something that happened, and who wants to know when it is durable.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) input: Input,
    pub(crate) reply: Option<oneshot::Sender<Result<Saga, CancelError>>>,
}

impl From<Input> for Queued {
    fn from(input: Input) -> Self {
        Self { input, reply: None }
    }
}

impl Live {
    pub(crate) fn new(saga: Saga) -> Self {
        Self {
            saga,
            pending: None,
            inputs: VecDeque::new(),
            in_flight: HashSet::new(),
            timer: None,
            stall: None,
            waiters: Vec::new(),
        }
    }

    /// One that was loaded from the store: what its log says is running was cut off.
    pub(crate) fn recovered(saga: Saga) -> Self {
        let stopped = || {
            amends_engine::Outcome::Unknown(amends_engine::Failure::new(
                "host_stopped",
                "the host stopped while the call was in flight",
            ))
        };
        let cut_off = commands(&saga).filter_map(|command| match command {
            Command::Run(call) => Some(Queued::from(Input::Outcome {
                step: call.step,
                direction: call.direction,
                attempt: call.attempt,
                outcome: stopped(),
            })),
            Command::Start(_) | Command::Wake(_) => None,
        });
        let inputs = std::iter::once(Queued::from(Input::Tick)).chain(cut_off).collect();
        Self { inputs, ..Self::new(saga) }
    }

    /// Calls that are durable and not yet dispatched.
    pub(crate) fn undispatched(&self) -> Vec<Call> {
        commands(&self.saga)
            .filter_map(|command| match command {
                Command::Run(call) => Some(call),
                Command::Start(_) | Command::Wake(_) => None,
            })
            .filter(|call| !self.in_flight.contains(&(call.step.clone(), call.direction)))
            .collect()
    }

    /// The next time after `decided_at` at which it must be ticked; it may have passed by now.
    pub(crate) fn next_wake(&self, decided_at: Timestamp) -> Option<Timestamp> {
        commands(&self.saga)
            .filter_map(|command| match command {
                Command::Start(due) => due.at.filter(|at| *at > decided_at),
                Command::Wake(at) => Some(at),
                Command::Run(_) => None,
            })
            .min()
    }
}

/// The row of the sagas projection.
pub(crate) fn row(saga: &Saga) -> SagaRow {
    let started = saga.started();
    SagaRow {
        id: saga.id(),
        definition: started.definition.clone(),
        definition_digest: started.definition_digest,
        status: saga.status(),
        reason: saga.reason().map(str::to_owned),
        started_at: saga.started_at(),
        ended_at: saga.ended_at(),
        deadline_at: started.deadline_at,
        wake_at: saga.wake_at(),
        tags: started.tags.clone(),
        key: started.key.clone(),
    }
}
