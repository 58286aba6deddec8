//! One live saga in its shard.

use std::collections::{HashMap, VecDeque};

use amends_engine::{
    Call, Command, Direction, Event, Input, PluginName, Refusal, Saga, SagaId, ServiceName,
    StepName, Timestamp, awaits, commands, permits, permits_signal,
};
use amends_store::{SagaRow, StateChange};
use tokio::sync::oneshot;

use crate::breakers::Ticket;
use crate::clock::now;
use crate::dispatch::ChildCall;
use crate::error::{OperateError, StartError};
use crate::rooms::{RoomKey, Taken};
use crate::runtime::{Started, rests};

/// What holds a saga back that its events do not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StallReason {
    /// No component is active for a plugin that it needs.
    PluginMissing(PluginName),
    /// Every call that may run at once is in flight.
    NoRoom(RoomKey),
    /// The circuit breaker of the service is open.
    BreakerOpen {
        /// The service.
        service: ServiceName,
        /// The step that waits.
        step: StepName,
        /// Until when; then a few calls try.
        until: Timestamp,
    },
    /// The store takes no writes: what happened to it cannot be recorded.
    StoreFailed(String),
}

impl std::fmt::Display for StallReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PluginMissing(plugin) => write!(f, "it waits for plugin `{plugin}`"),
            Self::NoRoom(key) => write!(f, "it waits for room: every call {key} is taken"),
            Self::BreakerOpen { service, step, until } => write!(
                f,
                "{step} waits for service `{service}`, whose circuit breaker is open until {until}"
            ),
            Self::StoreFailed(error) => {
                write!(f, "what happened to it cannot be recorded: {error}")
            }
        }
    }
}

/// A saga, what is under way for it, and what waits for it.
#[derive(Debug)]
pub(crate) struct Live {
    /// As of the last durable event.
    pub(crate) saga: Saga,
    /// Loaded for an order, and nothing of it appended since: by the time that the shard had it, the
    /// saga may have been live, moved on and ended again.
    pub(crate) may_be_stale: bool,
    /// The append under way.
    pub(crate) pending: Option<Pending>,
    /// What happened since that append was made.
    pub(crate) inputs: VecDeque<Queued>,
    /// Calls that were dispatched and whose outcome is not decided on. One that came back during
    /// an append is still running for the saga's state, and must not be dispatched again. One that
    /// runs a saga ends when it is taken out.
    pub(crate) in_flight: HashMap<(StepName, Direction), Option<ChildCall>>,
    /// How often in a row an append of it was refused because state had changed.
    pub(crate) reruns: u32,
    /// The timer that is set.
    pub(crate) timer: Option<Timestamp>,
    /// What holds it back, outside its events: of each call that is due and cannot begin.
    pub(crate) stalls: Vec<Stall>,
    /// Told when it rests.
    pub(crate) waiters: Vec<Waiter>,
    /// The lines in which it waits: a few at most.
    pub(crate) in_lines: Vec<Line>,
    /// When something of it last became durable, or it was loaded.
    pub(crate) moved_at: Timestamp,
    /// Told to be stuck already.
    pub(crate) is_stuck: bool,
}

/// What holds one call of a saga back.
#[derive(Debug, Clone)]
pub(crate) struct Stall {
    pub(crate) reason: StallReason,
    pub(crate) direction: Direction,
}

impl Stall {
    /// The line in which it waits for that to change; none when it looks again by itself.
    pub(crate) fn line(&self) -> Option<Line> {
        match &self.reason {
            StallReason::NoRoom(key) => Some(Line::Room(key.clone(), self.direction)),
            StallReason::BreakerOpen { service, .. } => Some(Line::Breaker(service.clone())),
            StallReason::PluginMissing(_) | StallReason::StoreFailed(_) => None,
        }
    }
}

/// Who waits for a saga.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) reply: oneshot::Sender<Saga>,
    /// For its end; else also for a rest that only an operator ends.
    pub(crate) until_end: bool,
}

/// What a call was admitted with: its room, and what the breaker of its service knows it by.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    pub(crate) room: Option<Taken>,
    pub(crate) ticket: Option<Ticket>,
}

/// What sagas wait for together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Line {
    Room(RoomKey, Direction),
    Breaker(ServiceName),
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
    /// Which of them bring state that goes with the append, in its order.
    pub(crate) with_state: Vec<usize>,
    /// What the calls of this append may begin with.
    pub(crate) passes: HashMap<(StepName, Direction), Pass>,
    pub(crate) start: Option<oneshot::Sender<Result<Started, StartError>>>,
}

/// Something that happened, and who wants to know when it is durable.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) input: Input,
    pub(crate) reply: Option<oneshot::Sender<Result<Saga, OperateError>>>,
    /// Of a call that came back: what it saw and writes of its plugin's state.
    pub(crate) state: Option<Box<StateChange>>,
}

impl From<Input> for Queued {
    fn from(input: Input) -> Self {
        Self { input, reply: None, state: None }
    }
}

impl Queued {
    /// Whether what came of a call would be heard; of anything else: always.
    pub(crate) fn is_heard(&self, saga: &Saga) -> bool {
        match &self.input {
            Input::Outcome { step, direction, attempt, .. } => {
                awaits(saga, step, *direction, *attempt)
            }
            Input::Admit { .. }
            | Input::Refuse { .. }
            | Input::Signal { .. }
            | Input::Operate(_)
            | Input::Tick => true,
        }
    }

    /// Whether it may be decided on a saga as it is now.
    pub(crate) fn permitted(&self, saga: &Saga, at: Timestamp) -> Result<(), Refusal> {
        match &self.input {
            Input::Operate(order) => permits(saga, at, order),
            Input::Signal { name, .. } => permits_signal(saga, name),
            Input::Admit { .. } | Input::Outcome { .. } | Input::Refuse { .. } | Input::Tick => {
                Ok(())
            }
        }
    }

    pub(crate) fn reply(self, result: impl FnOnce() -> Result<Saga, OperateError>) {
        if let Some(reply) = self.reply {
            let _ = reply.send(result());
        }
    }
}

/// What must be done for a saga.
#[derive(Debug)]
pub(crate) struct Due {
    /// Calls that are durable and not yet dispatched.
    pub(crate) calls: Vec<Call>,
    /// Sagas of its steps that must be undone with it.
    pub(crate) children: Vec<SagaId>,
}

impl Live {
    pub(crate) fn new(saga: Saga) -> Self {
        Self {
            saga,
            may_be_stale: false,
            pending: None,
            inputs: VecDeque::new(),
            in_flight: HashMap::new(),
            reruns: 0,
            timer: None,
            stalls: Vec::new(),
            waiters: Vec::new(),
            in_lines: Vec::new(),
            moved_at: now(),
            is_stuck: false,
        }
    }

    /// Gives back memory that it does not need while it waits: it may do so for long, beside many
    /// others.
    pub(crate) fn give_back(&mut self) {
        if self.inputs.is_empty() {
            self.inputs = VecDeque::new();
        }
        if self.in_flight.is_empty() {
            self.in_flight = HashMap::new();
        }
    }

    /// Whom a change of its state is told.
    pub(crate) fn tell_waiters(&mut self) {
        let status = self.saga.status();
        if !rests(status) {
            return;
        }
        for waiter in std::mem::take(&mut self.waiters) {
            if waiter.until_end && !status.is_end() {
                self.waiters.push(waiter);
            } else {
                let _ = waiter.reply.send(self.saga.clone());
            }
        }
    }

    /// A call whose outcome is decided on later is in flight for as long, also when it came back at
    /// once: it must not be dispatched again.
    pub(crate) fn keep_call(&mut self, input: &Input) {
        if let Input::Outcome { step, direction, .. } = input {
            self.in_flight.entry((step.clone(), *direction)).or_insert(None);
        }
    }

    /// Once its outcome is decided on, a call is in flight no more.
    pub(crate) fn forget_call(&mut self, input: &Input) {
        match input {
            Input::Outcome { step, direction, .. } => {
                self.in_flight.remove(&(step.clone(), *direction));
            }
            Input::Admit { .. }
            | Input::Refuse { .. }
            | Input::Signal { .. }
            | Input::Operate(_)
            | Input::Tick => {}
        }
    }

    /// What must be done now that its events are durable.
    pub(crate) fn due(&self) -> Due {
        let mut due = Due { calls: Vec::new(), children: Vec::new() };
        for command in commands(&self.saga) {
            match command {
                Command::Run(call) => {
                    if !self.in_flight.contains_key(&(call.step.clone(), call.direction)) {
                        due.calls.push(call);
                    }
                }
                Command::CancelChild(id) => due.children.push(id),
                Command::Start(_) | Command::Wake(_) => {}
            }
        }
        due
    }

    /// Has sagas that its steps run undone.
    pub(crate) fn cancel(&self, children: &[SagaId]) {
        for id in children {
            self.in_flight.values().flatten().for_each(|call| call.cancel(*id));
        }
    }

    /// The next time after `decided_at` at which it must be ticked; it may have passed by now.
    pub(crate) fn next_wake(&self, decided_at: Timestamp) -> Option<Timestamp> {
        let breakers = self.stalls.iter().filter_map(|stall| match &stall.reason {
            StallReason::BreakerOpen { until, .. } => Some(*until),
            StallReason::PluginMissing(_)
            | StallReason::NoRoom(_)
            | StallReason::StoreFailed(_) => None,
        });
        commands(&self.saga)
            .filter_map(|command| match command {
                Command::Start(due) => due.at.filter(|at| *at > decided_at),
                Command::Wake(at) => Some(at),
                Command::Run(_) | Command::CancelChild(_) => None,
            })
            .chain(breakers)
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
