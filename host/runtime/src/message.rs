//! What a worker is told, and what it answers.

use std::collections::BTreeMap;
use std::time::Duration;

use amends_engine::{
    Digest, Direction, Fate, Input, Outcome, SagaId, ServiceName, Start, StepName,
};
use amends_keys::NewSeal;
use amends_sandbox::{CallTrace, Effects, Lacks};
use amends_store::{Appended, Epoch, Shard, ShardId, StoreError};
use tokio::sync::oneshot;

use crate::budget::HeldBytes;
use crate::error::{OperateError, StartError};
use crate::room_key::RoomKey;
use crate::saga_state::{Found, Loaded, SagaState, Started};
use crate::serving::{Basis, Served};
use crate::stall::Stuck;

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// This host owns a shard from now on, and goes on with its sagas.
    Gained {
        shard: Box<dyn Shard>,
        sagas: Vec<(Loaded, HeldBytes)>,
    },
    /// Another host owns a shard from now on.
    Lost(ShardId),
    /// Goes on with a saga that was quarantined.
    Recover {
        saga: Box<Loaded>,
        held: HeldBytes,
    },
    /// Starts a saga that is not refused for lack of room.
    Start(Box<StartMessage>),
    Returned(Box<Returned>),
    /// What came of the append that was under way for a saga: which one, the epoch tells. None when this
    /// host did not own its shard.
    Appended {
        id: SagaId,
        epoch: Option<Epoch>,
        bytes: usize,
        result: Result<Appended, StoreError>,
    },
    /// Something for a saga: an operator's order or a signal. A saga that is not in memory is loaded.
    /// Dropped without an answer when the saga is set aside or leaves memory before it is decided on.
    Feed {
        id: SagaId,
        input: Box<Input>,
        /// What it holds of a budget, if it is refused for lack of room.
        held: Option<HeldBytes>,
        reply: oneshot::Sender<Result<SagaState, OperateError>>,
    },
    /// The clock wakes these sagas soon: those that are not in memory are loaded. Answers how many, once
    /// they are.
    Due {
        ids: Vec<SagaId>,
        reply: oneshot::Sender<usize>,
    },
    /// Sagas that were read for the load of this number. `done` is dropped when they are in memory.
    Loaded {
        number: u64,
        sagas: Vec<(SagaId, Found)>,
        done: oneshot::Sender<()>,
    },
    /// Dropped without an answer when the saga is not in memory.
    Read {
        id: SagaId,
        reply: oneshot::Sender<Box<SagaState>>,
    },
    /// A saga that is not in memory is loaded. Dropped without an answer when there is no such saga, or
    /// it leaves memory.
    Wait {
        id: SagaId,
        waiter: Waiter,
    },
    /// The component that serves an undo was found.
    Found {
        id: SagaId,
        step: StepName,
        basis: Basis,
        served: Served,
    },
    /// Calls have given back room.
    Room(RoomKey),
    /// The breaker of a service has closed, or is held open until another time.
    BreakerHasChanged(ServiceName),
    /// A call that was to try a service did not begin: another may in its place.
    TrialIsFree(ServiceName),
    /// The store takes writes again.
    StoreWorks,
    Stuck {
        reply: oneshot::Sender<Vec<Stuck>>,
    },
    Gauges {
        reply: oneshot::Sender<Gauges>,
    },
    Stop {
        limit: Duration,
        reply: oneshot::Sender<usize>,
    },
}

/// A saga to start. Those of callers come on a channel of its own, so that they can be refused when
/// there are too many.
#[derive(Debug)]
pub(crate) struct StartMessage {
    pub(crate) start: Start,
    /// The key of its personal values, if it has a subject.
    pub(crate) seal: Option<NewSeal>,
    /// What it holds of the budget for live sagas.
    pub(crate) held: HeldBytes,
    pub(crate) reply: oneshot::Sender<Result<Started, StartError>>,
    /// Who waits for it, if it is started by this. Else dropped.
    pub(crate) waiter: Option<Waiter>,
}

/// What is computed from the sagas in memory.
#[derive(Debug, Default, Clone)]
pub(crate) struct Gauges {
    pub(crate) in_memory: usize,
    /// Of them, those that wait.
    pub(crate) waiting: usize,
    pub(crate) blocked: usize,
    pub(crate) stuck: usize,
    pub(crate) oldest_undo: Duration,
    /// How many calls wait for room, by the room.
    pub(crate) calls_waiting: BTreeMap<RoomKey, usize>,
}

impl Gauges {
    pub(crate) fn add(&mut self, other: Self) {
        for (room, calls) in other.calls_waiting {
            *self.calls_waiting.entry(room).or_default() += calls;
        }
        self.in_memory += other.in_memory;
        self.waiting += other.waiting;
        self.blocked += other.blocked;
        self.stuck += other.stuck;
        self.oldest_undo = self.oldest_undo.max(other.oldest_undo);
    }
}

/// Which call it is, of all that a worker has made. Attempts do not tell calls apart: a saga that was
/// quarantined and taken up again asks what came of an attempt whose first call still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallNumber(pub(crate) u64);

/// Who waits for a saga.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) reply: oneshot::Sender<SagaState>,
    /// For its end; else also for a rest that only an operator ends.
    pub(crate) until_end: bool,
}

/// What came of a call, on its way back to the worker.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) id: SagaId,
    pub(crate) number: CallNumber,
    pub(crate) step: StepName,
    pub(crate) direction: Direction,
    pub(crate) attempt: u32,
    pub(crate) outcome: Outcome,
    pub(crate) probe: Option<Fate>,
    /// What is not done before it is recorded.
    pub(crate) effects: Effects,
    /// The component that was called; none when a saga was run.
    pub(crate) component: Option<Digest>,
    /// How long the call took.
    pub(crate) took: Duration,
    /// It sent something outside.
    pub(crate) has_sent: bool,
    /// By when it was cut off with its host: its component was asked what came of it.
    pub(crate) cut_off: Option<std::time::Instant>,
    /// What the host lacked, so that it did not begin.
    pub(crate) not_begun: Option<Lacks>,
    /// What is told of it in its trace.
    pub(crate) trace: CallTrace,
}
