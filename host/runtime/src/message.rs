//! What a worker is told, and what it answers.

use std::time::Duration;

use amends_engine::{
    Digest, Direction, Fate, Input, Outcome, Saga, SagaId, ServiceName, Start, StepName,
};
use amends_sandbox::{Effects, Lacks};
use amends_store::{Appended, Shard, ShardId, StoreError};
use tokio::sync::oneshot;

use crate::budget::HeldBytes;
use crate::error::{OperateError, StartError};
use crate::room_key::RoomKey;
use crate::saga_state::{Loaded, SagaState, Started};
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
    /// What came of the append that was under way for a saga.
    Appended {
        id: SagaId,
        bytes: usize,
        result: Result<Appended, StoreError>,
    },
    /// Something for a saga: an operator's order or a signal. With the saga, when it was loaded
    /// for this because it is not live. Dropped without an answer when there is neither, or when
    /// what was loaded is older than the saga's log.
    Feed {
        id: SagaId,
        input: Box<Input>,
        loaded: Option<Box<Loaded>>,
        /// What it holds of a budget, if it is refused for lack of room.
        held: Option<HeldBytes>,
        reply: oneshot::Sender<Result<SagaState, OperateError>>,
    },
    /// Dropped without an answer when the saga is not live.
    Read {
        id: SagaId,
        reply: oneshot::Sender<Box<SagaState>>,
    },
    /// Dropped without an answer when the saga is not live.
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
    Look(Look),
    Gauges {
        reply: oneshot::Sender<Gauges>,
    },
    Stop {
        limit: Duration,
        reply: oneshot::Sender<usize>,
    },
}

/// Looks at every live saga of a worker. The worker does nothing else meanwhile.
pub(crate) struct Look(pub(crate) Box<LookAt>);

type LookAt = dyn FnOnce(&mut dyn Iterator<Item = &Saga>) + Send;

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Look").finish_non_exhaustive()
    }
}

/// A saga to start. Those of callers come on a channel of its own, so that they can be refused when
/// there are too many.
#[derive(Debug)]
pub(crate) struct StartMessage {
    pub(crate) start: Start,
    /// What it holds of the budget for live sagas.
    pub(crate) held: HeldBytes,
    pub(crate) reply: oneshot::Sender<Result<Started, StartError>>,
    /// Who waits for it, if it is started by this. Else dropped.
    pub(crate) waiter: Option<Waiter>,
}

/// What is computed from the live sagas.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Gauges {
    pub(crate) live: usize,
    pub(crate) blocked: usize,
    pub(crate) stuck: usize,
    pub(crate) oldest_undo: Duration,
}

impl Gauges {
    pub(crate) fn add(&mut self, other: Self) {
        self.live += other.live;
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
    pub(crate) reply: oneshot::Sender<Saga>,
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
}
