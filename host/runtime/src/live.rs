//! One live saga in its worker.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use amends_engine::{
    CLOCK_TOLERANCE, Call, Command, Direction, Event, Input, Refusal, Saga, SagaId, SagaStatus,
    StateChange, StepName, Timestamp, awaits, commands,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use amends_keys::{DataKey, Lease};
use amends_sandbox::CallTrace;

use crate::breakers::permit::Permit;
use crate::budget::{Budget, HeldBytes};
use crate::dispatch::child::ChildCall;
use crate::error::{OperateError, StartError};
use crate::limits::{LIVE_BYTES_EACH, WAIT_IN_MEMORY_MAX};
use crate::message::{CallNumber, Returned, Waiter};
use crate::rooms::Taken;
use crate::saga_state::{Loaded, RowState, SagaState, Started, rests};
use crate::serving::{Basis, Served};
use crate::stall::{Place, Stall, StallReason};
use crate::traces::TracedCall;
use amends_registry::now;

/// The time of one saga, which never goes back: neither when the clock of this host is set back, nor
/// when the host that had the saga before had a clock that was ahead.
///
/// While the clock is behind the saga's last event, time goes on from that event as fast as the clock
/// does. So a pause of one second takes one second, whatever the clock says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SagaClock {
    /// When the last event was decided.
    pub(crate) at: Timestamp,
    /// When this host decided it, or read it.
    seen: std::time::Instant,
}

impl SagaClock {
    /// A clock that goes on from the last event of a saga.
    pub(crate) fn from(at: Timestamp) -> Self {
        Self { at, seen: std::time::Instant::now() }
    }

    /// The time of the saga when the clock of this host says `wall`.
    pub(crate) fn time(self, wall: Timestamp) -> Timestamp {
        wall.max(self.at.after(self.seen.elapsed()))
    }

    /// The time of the saga now.
    pub(crate) fn now(self) -> Timestamp {
        self.time(now())
    }

    /// How far the time of the saga is ahead of the clock of this host.
    pub(crate) fn ahead(self, wall: Timestamp) -> Duration {
        self.time(wall).since(wall)
    }
}

/// A saga, what is under way for it, and what waits for it.
#[derive(Debug)]
pub(crate) struct Live {
    /// As of the last durable event.
    pub(crate) saga: Saga,
    /// Goes on from the time of that event.
    pub(crate) clock: SagaClock,
    /// What its row in the store says.
    pub(crate) row: RowState,
    /// The key of its personal values; none when it has none, or when they are erased.
    pub(crate) key: Option<DataKey>,
    /// The append under way.
    pub(crate) pending: Option<Pending>,
    /// What happened since that append was made.
    pub(crate) inputs: VecDeque<Queued>,
    /// Calls that were dispatched and whose outcome is not decided on. One that came back during
    /// an append is still running for the saga's state, and must not be dispatched again. One that
    /// runs a saga ends when it is taken out.
    pub(crate) in_flight: HashMap<(StepName, Direction), InFlight>,
    /// Of those in flight, calls that did not begin yet: the host lacked something.
    pub(crate) unbegun: BTreeMap<(StepName, Direction), Unbegun>,
    /// The timer that is set.
    pub(crate) timer: Option<Timestamp>,
    /// What holds it back, outside its events: one for each call that cannot begin.
    pub(crate) stalls: Vec<Stall>,
    /// Says that the store did not take its last append and why, as a clause for people.
    pub(crate) unrecorded: Option<String>,
    /// Told when it rests.
    pub(crate) waiters: Vec<Waiter>,
    /// The places in which its calls wait: each call in one line at most.
    pub(crate) places: BTreeMap<(StepName, Direction), Place>,
    /// When something of it last became durable, or it was loaded.
    pub(crate) moved_at: Timestamp,
    /// Told to be stuck already.
    pub(crate) is_stuck: bool,
    /// Calls that ran, and run again because what they saw of state has changed.
    pub(crate) reran: BTreeMap<(StepName, Direction), Reran>,
    /// Undos that are due and whose component is looked for, or was found.
    pub(crate) sought: BTreeMap<StepName, Sought>,
    /// It waits for the store to take another append.
    pub(crate) waits_for_store: bool,
    /// What it holds of the budget for live sagas: see [`Self::account`].
    held: HeldBytes,
}

/// A call that is in flight for its saga.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// The call whose return the saga waits for; none while none runs.
    pub(crate) number: Option<CallNumber>,
    /// What it runs, if that is a saga.
    pub(crate) child: Option<ChildCall>,
}

/// A call that ran, and whose result was not recorded because what it saw of state had changed. What it
/// did outside may stand, so nobody may say that it did not begin.
#[derive(Debug, Default)]
pub(crate) struct Reran {
    pub(crate) times: u32,
    /// One of these times it sent something outside.
    pub(crate) has_sent: bool,
}

/// A call that is durable and did not begin.
#[derive(Debug, Default)]
pub(crate) struct Unbegun {
    /// By when it was cut off with its host: its component is to be asked what came of it.
    pub(crate) cut_off: Option<std::time::Instant>,
    /// What this machine lacked, and when it is tried again; none when it waits for room.
    pub(crate) lacked: Option<(String, Instant)>,
}

/// The component that serves an undo, when that cannot be told at once.
#[derive(Debug)]
pub(crate) struct Sought {
    pub(crate) basis: Basis,
    /// None until it is found.
    pub(crate) found: Option<Served>,
    pub(crate) search: Search,
}

/// A task that looks for a component; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Search(pub(crate) JoinHandle<()>);

impl Drop for Search {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a call was admitted with: its room, and the leave of its service's breaker. Both are given
/// back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    pub(crate) room: Option<Taken>,
    pub(crate) permit: Option<Permit>,
}

/// An append under way, and the saga as it will be after it.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Goes on from when it was decided: what was due by then is admitted or held back.
    pub(crate) clock: SagaClock,
    pub(crate) draft: Saga,
    /// What the row says after it.
    pub(crate) row: RowState,
    pub(crate) events: Vec<Event>,
    /// Of the append, as the store has it.
    pub(crate) append_bytes: usize,
    /// Kept, so that nothing is lost when the append fails.
    pub(crate) inputs: Vec<Queued>,
    /// Which of them bring state that goes with the append, in its order.
    pub(crate) with_state: Vec<usize>,
    /// What the calls of this append may begin with.
    pub(crate) passes: HashMap<(StepName, Direction), Pass>,
    pub(crate) start: Option<oneshot::Sender<Result<Started, StartError>>>,
    /// Of a start whose personal values are sealed: no erasure overlooks it.
    pub(crate) _lease: Option<Lease>,
}

/// Something that happened, and who wants to know when it is durable.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) input: Input,
    pub(crate) reply: Option<oneshot::Sender<Result<SagaState, OperateError>>>,
    /// Of a call that came back: what it saw and writes of its plugin's state.
    pub(crate) state: Option<Arc<StateChange>>,
    /// Of a call that came back: it sent something outside.
    pub(crate) has_sent: bool,
    /// Of a call that came back: what is told of it in its trace.
    pub(crate) trace: CallTrace,
    /// What it holds of a budget until it is decided on; none: it counts with its saga.
    pub(crate) held: Option<HeldBytes>,
    /// Why it is refused, by the decision that is under way.
    pub(crate) refused: Option<Refusal>,
}

impl From<Input> for Queued {
    fn from(input: Input) -> Self {
        Self {
            input,
            reply: None,
            state: None,
            has_sent: false,
            trace: CallTrace::default(),
            held: None,
            refused: None,
        }
    }
}

impl Queued {
    /// Returns what is told in its trace of a call that came back.
    pub(crate) fn traced(&self) -> Option<TracedCall<'_>> {
        let Input::Outcome { step, direction, attempt, .. } = &self.input else { return None };
        let (direction, attempt, trace) = (*direction, *attempt, &self.trace);
        Some(TracedCall { step, direction, attempt, trace })
    }

    /// Whether what came of a call would be heard; of anything else: always.
    pub(crate) fn is_heard(&self, saga: &Saga) -> bool {
        match &self.input {
            Input::Outcome { step, direction, attempt, .. } => {
                awaits(saga, step, *direction, *attempt)
            }
            Input::Admit { .. }
            | Input::Refuse { .. }
            | Input::Mark { .. }
            | Input::Signal { .. }
            | Input::Operate(_)
            | Input::Tick => true,
        }
    }

    /// Whether the saga has room for what it says, and the host: past what live sagas may hold, only for
    /// a signal that a step waits for now, which lets go of more than it brings.
    pub(crate) fn fits(&self, saga: &Saga, live_bytes: &Budget) -> Result<(), OperateError> {
        match &self.input {
            Input::Signal { name, .. }
                if !saga.waits_for(name) && !live_bytes.has_room(self.input.memory_bytes()) =>
            {
                Err(OperateError::Overloaded("live sagas hold as many bytes as they may"))
            }
            Input::Signal { name, id, payload, who: _ }
                if !saga.has_room_for_signal(name, id.as_deref(), payload) =>
            {
                Err(OperateError::Overloaded(
                    "the signals that no step of the saga has taken yet would have more than 8 MiB",
                ))
            }
            Input::Admit { .. }
            | Input::Outcome { .. }
            | Input::Refuse { .. }
            | Input::Mark { .. }
            | Input::Signal { .. }
            | Input::Operate(_)
            | Input::Tick => Ok(()),
        }
    }

    /// Of what counts with its saga.
    fn bytes(&self) -> usize {
        if self.held.is_some() {
            return 0;
        }
        let state = self.state.iter().flat_map(|state| state.writes.values().flatten());
        let state = state.map(|value| value.len()).sum::<usize>();
        self.input.memory_bytes() + state + self.trace.memory_bytes()
    }

    /// Answers that it is not decided on.
    pub(crate) fn refuse(self, error: OperateError) {
        if let Some(reply) = self.reply {
            let _ = reply.send(Err(error));
        }
    }

    /// Answers, once what was decided is durable.
    pub(crate) fn reply(self, saga: &Saga, stalls: &[Stall], clock: SagaClock) {
        if let Some(reply) = self.reply {
            let refused = self.refused.map(OperateError::from);
            let _ = reply.send(refused.map_or_else(|| Ok(state_of(saga, stalls, clock)), Err));
        }
    }
}

/// What waits for a saga that is being loaded.
#[derive(Debug, Default)]
pub(crate) struct Loading {
    /// Which load it is, of all that the worker has begun.
    pub(crate) number: u64,
    pub(crate) inputs: Vec<Queued>,
    pub(crate) waiters: Vec<Waiter>,
}

/// What must be done for a saga.
#[derive(Debug)]
pub(crate) struct DueWork {
    /// Calls that are durable and not yet dispatched.
    pub(crate) calls: Vec<Call>,
    /// Sagas of its steps that must be undone with it.
    pub(crate) children: Vec<SagaId>,
}

impl Live {
    pub(crate) fn new(Loaded { saga, last_at, row, key }: Loaded, held: HeldBytes) -> Self {
        Self {
            saga,
            clock: SagaClock::from(last_at),
            row,
            key,
            pending: None,
            inputs: VecDeque::new(),
            in_flight: HashMap::new(),
            unbegun: BTreeMap::new(),
            reran: BTreeMap::new(),
            timer: None,
            stalls: Vec::new(),
            unrecorded: None,
            waiters: Vec::new(),
            places: BTreeMap::new(),
            moved_at: now(),
            is_stuck: false,
            sought: BTreeMap::new(),
            waits_for_store: false,
            held,
        }
    }

    /// The saga as a reader sees it now.
    pub(crate) fn state(&self) -> SagaState {
        let unrecorded = self.unrecorded.clone();
        SagaState { unrecorded, ..state_of(&self.saga, &self.stalls, self.clock) }
    }

    /// Has the budget know what it holds now; after whatever changes that.
    pub(crate) fn account(&mut self) {
        self.held.set(self.bytes());
    }

    /// What it holds: the saga, or the draft of the append under way, which has the same payloads;
    /// that append; and what waits to be decided on.
    fn bytes(&self) -> usize {
        let (saga, append) = match &self.pending {
            Some(pending) => (&pending.draft, pending.append_bytes),
            None => (&self.saga, 0),
        };
        let queued = self.inputs.iter().map(Queued::bytes).sum::<usize>();
        LIVE_BYTES_EACH + saga.memory_bytes() + append + queued
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

    /// Whether the store has all there is to it, and only an order, a signal or the clock moves it, and
    /// the clock not soon. Then the store finds it by its row.
    pub(crate) fn may_leave(&mut self, wall: Timestamp) -> bool {
        if self.saga.status() != SagaStatus::Waiting
            || self.row != RowState::of(&self.saga, self.row.is_reason_sealed)
        {
            return false;
        }
        self.waiters.retain(|waiter| !waiter.reply.is_closed());
        let is_idle = self.pending.is_none()
            && self.inputs.is_empty()
            && self.in_flight.is_empty()
            && self.unbegun.is_empty()
            && self.stalls.is_empty()
            && self.unrecorded.is_none()
            && self.waiters.is_empty()
            && self.reran.is_empty()
            && self.sought.is_empty()
            && !self.waits_for_store;
        let wakes_soon = self.timer.is_some_and(|at| at.since(wall) <= WAIT_IN_MEMORY_MAX);
        // Its row says when it wakes by its own time, and the store finds it by the clock of the host.
        is_idle && !wakes_soon && self.clock.ahead(wall) <= CLOCK_TOLERANCE
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
                let _ = waiter.reply.send(self.state());
            }
        }
    }

    /// A call whose outcome is decided on later is in flight for as long, also when it came back at
    /// once: it must not be dispatched again.
    pub(crate) fn keep_call(&mut self, input: &Input) {
        if let Input::Outcome { step, direction, .. } = input {
            self.in_flight.entry((step.clone(), *direction)).or_default();
        }
    }

    /// Once its outcome is decided on, a call is in flight no more.
    pub(crate) fn forget_call(&mut self, input: &Input) {
        if let Input::Outcome { step, direction, .. } = input {
            self.in_flight.remove(&(step.clone(), *direction));
        }
    }

    /// Forgets how often calls were run again for changed state: their outcomes are recorded, or nobody
    /// waits for them.
    pub(crate) fn forget_reruns(&mut self, inputs: &[Queued]) {
        for queued in inputs {
            if let Input::Outcome { step, direction, .. } = &queued.input {
                self.reran.remove(&(step.clone(), *direction));
            }
        }
    }

    /// What must be done now that its events are durable.
    pub(crate) fn due(&self) -> DueWork {
        let mut due = DueWork { calls: Vec::new(), children: Vec::new() };
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

    /// Whether the saga waits for what came of this call. It does not when it was read anew since
    /// the call began: then it takes the call for one that was cut off, as after a crash.
    pub(crate) fn waits_for(&self, returned: &Returned) -> bool {
        let key = (returned.step.clone(), returned.direction);
        self.in_flight.get(&key).is_some_and(|call| call.number == Some(returned.number))
    }

    /// Has a call wait until it can begin; it is in flight for as long.
    pub(crate) fn wait_to_begin(&mut self, key: (StepName, Direction), unbegun: Unbegun) {
        self.in_flight.insert(key.clone(), InFlight::default());
        self.unbegun.insert(key, unbegun);
    }

    /// Has sagas that its steps run undone.
    pub(crate) fn cancel(&self, children: &[SagaId]) {
        let calls = self.in_flight.values().filter_map(|call| call.child.as_ref());
        for call in calls {
            for id in children {
                call.cancel(*id);
            }
        }
    }

    /// The next time after `decided_at` at which it must be ticked; it may have passed by now.
    pub(crate) fn next_wake(&self, decided_at: Timestamp) -> Option<Timestamp> {
        // Timers are set by the clock of the host, and a saga's time may be ahead of it.
        let ahead = self.clock.ahead(now());
        let by_host = |at: Timestamp| at.before(ahead);
        let breakers = self.stalls.iter().filter_map(|stall| match &stall.reason {
            StallReason::BreakerOpen { until, .. } => *until,
            StallReason::PluginMissing { .. }
            | StallReason::ComponentSought(_)
            | StallReason::NoRoom(_)
            | StallReason::Machine(_) => None,
        });
        commands(&self.saga)
            .filter_map(|command| match command {
                Command::Start(due) => due.at.filter(|at| *at > decided_at),
                Command::Wake(at) => Some(at),
                Command::Run(_) | Command::CancelChild(_) => None,
            })
            .map(by_host)
            .chain(breakers)
            .min()
    }
}

/// A saga as a reader sees it, when all that happened to it can be recorded.
fn state_of(saga: &Saga, stalls: &[Stall], clock: SagaClock) -> SagaState {
    let (saga, stalls) = (saga.clone(), stalls.to_vec());
    let (is_archived, is_imported) = (false, false);
    SagaState { saga, stalls, unrecorded: None, now: clock.now(), is_archived, is_imported }
}
