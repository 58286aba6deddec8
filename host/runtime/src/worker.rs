//! One worker: a task that owns its live sagas.

mod admit;
mod append;
mod begin;
mod lines;
mod load;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use amends_engine::{
    CLOCK_TOLERANCE, Digest, Direction, Event, Input, Outcome, Refusal, STATE_ROWS_MAX, Saga,
    SagaEvent, SagaId, SagaStatus, Target, Timestamp, decide_on,
};
use amends_failpoint::failpoint;
use amends_registry::Registry;
use amends_sandbox::Effects;
use amends_store::{Epoch, OwnedShards, Shard, ShardId, StartKey, StoreError, StoreHealth};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::breakers::Breakers;
use crate::budget::{Budget, HeldBytes};
use crate::dispatch::{Dispatcher, host_stopped};
use crate::error::{RuntimeError, StartError};
use crate::faults::Faults;
use crate::limits::{APPEND_BYTES_UNDER_WAY_MAX, APPENDS_UNDER_WAY_MAX};
use crate::live::{Live, Loading, Pending, Queued, SagaClock, Unbegun};
use crate::loader::Loader;
use crate::marks;
use crate::message::{CallNumber, Gauges, Message, Returned, StartMessage};
use crate::ports::SagaPort;
use crate::recovery::Quarantine;
use crate::rooms::Rooms;
use crate::saga_state::{Loaded, RowState, Started, rests};
use crate::stall::{Line, Stuck};
use crate::stored_form::stored_events;
use crate::stuck::{STUCK_CHECK_PAUSE, stuck};
use crate::traces::Traces;
use amends_registry::now;

/// How often a saga that waits for a plugin looks again.
const STALL_PAUSE: Duration = Duration::from_millis(500);

/// A component whose last call took no longer is called by the worker itself: that saves a task, two
/// changes of threads and a message. The calls of others are tasks of their own, and so are those
/// that come when the worker has called for so long in one turn. One that takes longer than before
/// becomes a task when it first waits or has computed for a tick of the sandbox, 1 ms.
const CALL_IN_WORKER_MAX: Duration = Duration::from_millis(1);

/// After so long a turn the worker gives way to the other tasks of its thread.
const TURN_MAX: Duration = Duration::from_millis(1);

/// Components that are remembered as slow: far more than are active.
const SLOW_MAX: usize = 1_024;

/// Messages that are taken before the clock is looked at. New starts are when there are none.
const BURST_MAX: usize = 64;

/// The longest sleep: the wall clock may jump, and a timer must not be late for longer.
const SLEEP_MAX: Duration = Duration::from_secs(10);

/// What will make an append when the store takes one.
enum Appends {
    Start(Box<StartMessage>),
    Saga(SagaId),
}

pub(crate) struct WorkerConfig {
    pub(crate) number: usize,
    pub(crate) health: watch::Receiver<StoreHealth>,
    pub(crate) plugins: Registry,
    pub(crate) breakers: Arc<Breakers>,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) sagas: Arc<dyn SagaPort>,
    pub(crate) inbox: mpsc::WeakUnboundedSender<Message>,
    /// How many workers there are: each has its part of what all may have.
    pub(crate) workers: usize,
    pub(crate) live_bytes: Arc<Budget>,
    pub(crate) quarantine: Arc<Quarantine>,
    pub(crate) loader: Arc<Loader>,
    pub(crate) faults: Option<Arc<dyn Faults>>,
    /// None: no spans are made.
    pub(crate) traces: Option<Arc<Traces>>,
}

pub(crate) struct Worker {
    config: WorkerConfig,
    dispatcher: Dispatcher,
    /// The shards of the store whose sagas this worker runs.
    owned: OwnedShards,
    /// The sagas in memory: all that have not ended, except those that wait for long.
    live: HashMap<SagaId, Live>,
    /// Sagas that are being loaded.
    loading: HashMap<SagaId, Loading>,
    /// Loads begun so far: each has a number of its own.
    loads: u64,
    /// Appends under way of shards that were lost meanwhile, by the epoch in which they were made. The
    /// shard may have been gained again by the time they are answered.
    left: HashMap<(SagaId, Epoch), Pending>,
    /// Under way, and their bytes.
    appends: usize,
    append_bytes: usize,
    /// What waits for the store to take another append, the first first.
    store_line: VecDeque<Appends>,
    timers: BinaryHeap<Reverse<(Timestamp, SagaId)>>,
    /// Lines of calls that wait for room or a service: the saga of each place, by its number.
    lines: BTreeMap<Line, BTreeMap<u64, SagaId>>,
    /// Places given so far: each has a number of its own.
    places: u64,
    /// Sagas that wait for a plugin, and when they look again.
    stalled: HashSet<SagaId>,
    stalled_until: Option<Instant>,
    /// Sagas of which something cannot be recorded while the store takes no writes.
    await_store: HashSet<SagaId>,
    /// Calls of components that have not come back. A saga that a step runs is not one: it goes
    /// on without this host.
    calls_in_flight: usize,
    /// Calls made so far: each has a number of its own.
    calls_made: u64,
    /// Components whose last call took longer than [`CALL_IN_WORKER_MAX`].
    slow: HashSet<Digest>,
    /// How long it has called components itself in this turn.
    time_in_calls: Duration,
    stuck_check_at: Instant,
    /// The time at which it last woke.
    woke_at: Timestamp,
    stop: Option<(Instant, oneshot::Sender<usize>)>,
}

impl Worker {
    pub(crate) fn new(config: WorkerConfig) -> Self {
        let dispatcher = Dispatcher {
            plugins: config.plugins.clone(),
            sagas: Arc::clone(&config.sagas),
            faults: config.faults.clone(),
            traces: config.traces.clone(),
            inbox: config.inbox.clone(),
        };
        Self {
            config,
            dispatcher,
            owned: OwnedShards::default(),
            live: HashMap::new(),
            loading: HashMap::new(),
            loads: 0,
            left: HashMap::new(),
            appends: 0,
            append_bytes: 0,
            store_line: VecDeque::new(),
            timers: BinaryHeap::new(),
            lines: BTreeMap::new(),
            places: 0,
            stalled: HashSet::new(),
            stalled_until: None,
            await_store: HashSet::new(),
            calls_in_flight: 0,
            calls_made: 0,
            slow: HashSet::new(),
            time_in_calls: Duration::ZERO,
            stuck_check_at: Instant::now() + STUCK_CHECK_PAUSE,
            woke_at: now(),
            stop: None,
        }
    }

    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Message>,
        mut starts: mpsc::Receiver<StartMessage>,
    ) {
        tracing::debug!(worker = self.config.number, "worker began");
        let (mut messages, mut is_open) = (Vec::with_capacity(BURST_MAX), true);
        let mut gave_way = Instant::now();
        while !self.is_stopped() {
            let wake = self.next_wake();
            self.time_in_calls = Duration::ZERO;
            let may_start = self.stop.is_none() && self.has_store_room();
            // Results before new work: what was begun is finished first.
            tokio::select! {
                biased;
                count = inbox.recv_many(&mut messages, BURST_MAX), if is_open => {
                    is_open = count > 0;
                    for message in messages.drain(..) {
                        self.message(message);
                    }
                }
                Some(start) = starts.recv(), if may_start => self.start(start),
                () = sleep_until(wake) => {}
            }
            let now = Instant::now();
            if wake <= now {
                self.wake();
            }
            if now.duration_since(gave_way) >= TURN_MAX {
                tokio::task::yield_now().await;
                gave_way = Instant::now();
            }
        }
        starts.close();
        while let Ok(start) = starts.try_recv() {
            let _ = start.reply.send(Err(StartError::Stopping));
        }
        // Released before the answer: who runs the store next gains the shards at once.
        drop(self.owned);
        if let Some((_, reply)) = self.stop {
            let _ = reply.send(self.calls_in_flight);
        }
    }

    /// Stopped when asked to and nothing is under way, or when the time for that is over. An
    /// append that is under way is always waited for.
    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|(limit, _)| {
            self.appends == 0
                && self.store_line.is_empty()
                && (self.calls_in_flight == 0 || *limit <= Instant::now())
        })
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Gained { shard, sagas } => {
                self.owned.insert(shard);
                for (saga, held) in sagas {
                    self.recover(saga, held);
                }
            }
            Message::Lost(id) => self.lose(id),
            Message::Recover { saga, held } => self.recover(*saga, held),
            Message::Returned(returned) => self.returned(*returned),
            Message::Start(message) if self.has_store_room() => self.start(*message),
            Message::Start(message) => self.store_line.push_back(Appends::Start(message)),
            Message::Appended { id, epoch, bytes, result } => {
                self.appends -= 1;
                self.append_bytes -= bytes;
                self.appended(id, epoch, result);
                self.account(id);
                self.store_has_room();
            }
            Message::Feed { id, reply, .. } if self.owned.of(id).is_none() => {
                let _ = reply.send(Err(RuntimeError::Store(not_owned(id)).into()));
            }
            Message::Feed { id, input, held, reply } => {
                let queued = Queued { reply: Some(reply), held, ..Queued::from(*input) };
                if let Some(live) = self.live.get_mut(&id) {
                    live.inputs.push_back(queued);
                    self.advance(id);
                } else {
                    self.load_for(id, |loading| loading.inputs.push(queued));
                }
            }
            Message::Due { ids, reply } => self.load_due(ids, reply),
            Message::Loaded { number, sagas, done } => {
                self.loaded(number, sagas);
                drop(done);
            }
            Message::Read { id, reply } => {
                if let Some(live) = self.live.get(&id) {
                    let _ = reply.send(Box::new(live.state()));
                }
            }
            Message::Wait { id, .. } if self.owned.of(id).is_none() => {}
            Message::Wait { id, waiter } => {
                if let Some(live) = self.live.get_mut(&id) {
                    live.waiters.retain(|waiter| !waiter.reply.is_closed());
                    live.waiters.push(waiter);
                    live.tell_waiters();
                } else {
                    self.load_for(id, |loading| loading.waiters.push(waiter));
                }
            }
            Message::Found { id, step, basis, served } => {
                if let Some(live) = self.live.get_mut(&id)
                    && let Some(sought) = live.sought.get_mut(&step)
                    && sought.basis == basis
                {
                    sought.found = Some(served);
                    self.advance(id);
                }
            }
            Message::Room(key) => self.room(&key),
            Message::BreakerHasChanged(service) => self.breaker_has_changed(service),
            Message::TrialIsFree(service) => self.wake_some(&Line::Breaker(service)),
            Message::StoreWorks => self.store_works(),
            Message::Stuck { reply } => {
                let _ = reply.send(self.stuck());
            }
            Message::Gauges { reply } => {
                let _ = reply.send(self.gauges());
            }
            Message::Stop { limit, reply } => {
                self.stop = Some((Instant::now() + limit, reply));
                // Calls that did not begin will not, and their sagas are told so.
                let waiting = self.live.iter().filter(|(_, live)| !live.unbegun.is_empty());
                for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.advance(id);
                }
            }
        }
    }

    fn start(&mut self, message: StartMessage) {
        let StartMessage { start, seal, held, reply, waiter } = message;
        let (key, lease) = seal.map(|seal| (seal.key, seal.lease)).unzip();
        let id = start.id;
        if self.stop.is_some() {
            let _ = reply.send(Err(StartError::Stopping));
            return;
        }
        if self.owned.of(id).is_none() {
            let _ = reply.send(Err(StartError::Store(not_owned(id))));
            return;
        }
        // Only a saga that another one starts has an id that may have been started before.
        if self.live.contains_key(&id) {
            let _ = reply.send(Ok(Started { id, created: false }));
            return;
        }
        let at = now();
        // A broken invariant of the engine must cost one saga, not the worker.
        let begun = catch_unwind(AssertUnwindSafe(|| amends_engine::start(at, start)));
        let Ok((saga, mut events)) = begun else {
            let failed = StoreError::Invalid(BROKEN_INVARIANT);
            let _ = reply.send(Err(StartError::Store(failed)));
            return;
        };
        let mut draft = saga.clone();
        let Ok(admitted) = self.admit(&mut draft, &mut events, at) else {
            let failed = StoreError::Invalid(BROKEN_INVARIANT);
            let _ = reply.send(Err(StartError::Store(failed)));
            return;
        };
        let start_key = StartKey::of_started(saga.started());
        let stored = stored_events(None, &events, &draft, key.as_ref());
        let row = RowState::of(&draft, stored.is_reason_sealed(false));
        let append = Self::append_of(None, at, stored, Some(row.row(&draft)), &draft, start_key);
        let mut live = Live::new(Loaded { saga, last_at: at, row, key }, held);
        let clock = live.clock;
        live.stalls = admitted.stalls;
        live.waiters.extend(waiter);
        live.pending = Some(Pending {
            clock,
            draft,
            row,
            events,
            append_bytes: append.bytes(),
            inputs: Vec::new(),
            with_state: Vec::new(),
            passes: admitted.passes,
            start: Some(reply),
            _lease: lease,
        });
        self.insert(id, live);
        failpoint("runtime.start.decided");
        self.append(id, append);
    }

    /// Goes on with a saga that was loaded from the store. What its log says is running was cut
    /// off with its host: what can tell what came of it is asked, of the rest it is unknown.
    fn recover(&mut self, loaded: Loaded, held: HeldBytes) {
        self.take_up(loaded, held, Loading::default());
    }

    fn take_up(&mut self, loaded: Loaded, held: HeldBytes, loading: Loading) {
        failpoint("runtime.recovery.saga_before");
        let id = loaded.saga.id();
        if self.live.contains_key(&id) || self.owned.of(id).is_none() {
            return;
        }
        let mut live = Live::new(loaded, held);
        live.inputs.push_back(Input::Tick.into());
        // A call that was cut off ran before this.
        let here = std::time::Instant::now();
        let due = live.due();
        for call in due.calls {
            if self.dispatcher.may_tell(&call) {
                let key = (call.step.clone(), call.direction);
                if matches!(call.target, Target::Saga { .. }) {
                    let number = next_number(&mut self.calls_made);
                    let found = self.dispatcher.recover(&live.saga, (number, call), None, here);
                    live.in_flight.insert(key, found);
                } else {
                    live.wait_to_begin(key, Unbegun { cut_off: Some(here), lacked: None });
                }
                continue;
            }
            live.inputs.push_back(Queued::from(Input::Outcome {
                step: call.step,
                direction: call.direction,
                attempt: call.attempt,
                outcome: Outcome::Unknown(host_stopped()),
                probe: None,
                emitted: Vec::new(),
            }));
        }
        live.cancel(&due.children);
        live.inputs.extend(loading.inputs);
        live.waiters.extend(loading.waiters);
        live.tell_waiters();
        self.insert(id, live);
        self.advance(id);
        failpoint("runtime.recovery.saga_after");
    }

    fn returned(&mut self, returned: Returned) {
        let id = returned.id;
        if self.live.get(&id).is_some_and(|live| live.waits_for(&returned)) {
            self.hear(returned);
            self.advance(id);
        } else {
            self.calls_in_flight -= usize::from(returned.component.is_some());
            let Returned { step, attempt, .. } = returned;
            tracing::debug!(saga_id = %id, %step, attempt, "nobody waits for this call any more");
        }
    }

    /// Takes down what came of a call that its saga waits for; it is decided on when its saga is
    /// next.
    fn hear(&mut self, returned: Returned) {
        let Returned { id, step, direction, attempt, .. } = returned;
        let Returned { mut outcome, probe, effects, component, took, has_sent, trace, .. } =
            returned;
        failpoint("runtime.outcome.received");
        self.calls_in_flight -= usize::from(component.is_some());
        if let Some(lacks) = returned.not_begun {
            self.did_not_begin(id, (step, direction), returned.cut_off, lacks);
            return;
        }
        if let Some(component) = component {
            if took <= CALL_IN_WORKER_MAX {
                self.slow.remove(&component);
            } else {
                if self.slow.len() >= SLOW_MAX {
                    self.slow.clear();
                }
                self.slow.insert(component);
            }
        }
        if let Some(live) = self.live.get_mut(&id) {
            let Effects { state, emitted } = effects;
            let state = state.filter(|state| !state.is_empty()).map(Arc::from);
            let reran = live.reran.get(&(step.clone(), direction));
            let may_have_been_done =
                direction == Direction::Execute && reran.is_some_and(|reran| reran.has_sent);
            if may_have_been_done {
                outcome = may_stand(outcome);
            }
            let outcome = Input::Outcome { step, direction, attempt, outcome, probe, emitted };
            live.inputs.push_back(Queued { state, has_sent, trace, ..Queued::from(outcome) });
        }
    }

    fn wake(&mut self) {
        let at = now();
        let mut due = self.clock_set_back(at);
        while let Some(Reverse((time, id))) = self.timers.peek().copied()
            && time <= at
        {
            self.timers.pop();
            if let Some(live) = self.live.get_mut(&id)
                && live.timer == Some(time)
            {
                failpoint("runtime.timer.fired");
                live.timer = None;
                live.inputs.push_back(Input::Tick.into());
                due.push(id);
            }
        }
        if self.stalled_until.is_some_and(|until| until <= Instant::now()) {
            self.stalled_until = None;
            due.extend(std::mem::take(&mut self.stalled));
        }
        for id in due {
            self.advance(id);
        }
        if self.stuck_check_at <= Instant::now() {
            self.stuck_check_at = Instant::now() + STUCK_CHECK_PAUSE;
            self.check_stuck();
        }
    }

    /// The sagas that take notice when the clock was set back: all, because what they wait for may
    /// now be further away than they are to wait.
    fn clock_set_back(&mut self, at: Timestamp) -> Vec<SagaId> {
        let back = std::mem::replace(&mut self.woke_at, at).since(at);
        if back <= CLOCK_TOLERANCE {
            return Vec::new();
        }
        tracing::warn!(worker = self.config.number, ?back, "the clock was set back");
        for live in self.live.values_mut() {
            live.moved_at = live.moved_at.min(at);
            live.inputs.push_back(Input::Tick.into());
        }
        self.live.keys().copied().collect()
    }

    /// Decides on all that happened to a saga since its last append, admits what is due, and
    /// appends the facts together. Does nothing while an append is under way; while the store has
    /// as many appends as it may, the saga waits in line.
    fn advance(&mut self, id: SagaId) {
        let has_room = self.has_store_room();
        let Some(live) = self.live.get_mut(&id) else { return };
        if live.pending.is_none() && has_room {
            self.decide(id);
        } else if live.pending.is_none() && !live.waits_for_store {
            live.waits_for_store = true;
            self.store_line.push_back(Appends::Saga(id));
        }
        self.account(id);
    }

    /// Whether the store may be given another append: one at least, whatever its size.
    fn has_store_room(&self) -> bool {
        let workers = self.config.workers;
        self.appends == 0
            || self.appends < APPENDS_UNDER_WAY_MAX / workers
                && self.append_bytes < APPEND_BYTES_UNDER_WAY_MAX / workers
    }

    /// An append was answered: sagas that waited for that go on.
    fn store_has_room(&mut self) {
        while self.has_store_room()
            && let Some(next) = self.store_line.pop_front()
        {
            match next {
                Appends::Start(message) => self.start(*message),
                Appends::Saga(id) => {
                    if let Some(live) = self.live.get_mut(&id) {
                        live.waits_for_store = false;
                        self.advance(id);
                    }
                }
            }
        }
    }

    fn account(&mut self, id: SagaId) {
        if let Some(live) = self.live.get_mut(&id) {
            live.account();
        }
    }

    fn decide(&mut self, id: SagaId) {
        let unbegun = self.begin_again(id);
        let Some(live) = self.live.get_mut(&id) else { return };
        let at = live.clock.now();
        let clock = SagaClock::from(at);
        let mut draft = live.saga.clone();
        let (mut events, mut inputs) = (Vec::new(), Vec::new());
        let one_by_one = !live.reran.is_empty();
        let (mut with_state, mut rows) = (Vec::new(), 0);
        let mut later = VecDeque::new();
        for mut queued in live.inputs.drain(..).collect::<Vec<_>>() {
            // Of calls that were refused together, one is recorded at a time: so each round makes
            // something durable. Of others, as many as have not seen too much together.
            let brings_state = queued.state.is_some() && queued.is_heard(&draft);
            rows += queued.state.as_ref().map_or(0, |state| state.rows());
            let is_enough = one_by_one || rows > STATE_ROWS_MAX;
            if is_enough && brings_state && !with_state.is_empty() {
                live.keep_call(&queued.input);
                later.push_back(queued);
                continue;
            }
            if let Err(full) = queued.fits(&draft, &self.config.live_bytes) {
                queued.refuse(full);
                continue;
            }
            // An order meets the saga as it is by then, not as it was when somebody asked; also a
            // refusal rests on what is only durable with this append.
            match decide_marked(&self.config, &mut draft, at, &queued.input, &mut events) {
                Ok(refused) => queued.refused = refused,
                Err(reason) => {
                    self.quarantine(id, &reason);
                    return;
                }
            }
            live.forget_call(&queued.input);
            // The state of a call goes with its outcome, if that is heard at all. It is kept all the
            // same: when the append is refused, this outcome may be the one that is heard.
            if brings_state {
                with_state.push(inputs.len());
            }
            failpoint(match &queued.input {
                Input::Outcome { .. } => "runtime.outcome.decided",
                Input::Operate(_) => "runtime.order.decided",
                Input::Signal { .. } => "runtime.signal.decided",
                Input::Tick | Input::Admit { .. } | Input::Refuse { .. } | Input::Mark { .. } => {
                    "runtime.tick.decided"
                }
            });
            // From here on it counts with the saga.
            queued.held = None;
            inputs.push(queued);
        }
        live.inputs = later;
        let admitted = match self.admit(&mut draft, &mut events, at) {
            Ok(admitted) => admitted,
            Err(reason) => {
                self.quarantine(id, &reason);
                return;
            }
        };
        let Some(live) = self.live.get_mut(&id) else { return };
        live.stalls = admitted.stalls;
        live.stalls.extend(unbegun);
        live.unrecorded = None;
        if events.is_empty() {
            live.forget_reruns(&inputs);
            // Nothing was compared with the store, so the saga may be another host's by now.
            let has_lease = self.owned.of(id).is_some_and(Shard::has_lease);
            answer_from_memory(live, has_lease, inputs);
            if live.saga.has_ended() {
                self.remove(id);
                return;
            }
            self.set_timer(id, at);
            self.remember_stalls(id);
            self.let_go(id);
            return;
        }
        if events
            .iter()
            .any(|event| matches!(event, Event::Saga(SagaEvent::CompensationStarted(_))))
        {
            failpoint("runtime.compensation.decided");
        }
        let stored = stored_events(Some(&live.saga), &events, &draft, live.key.as_ref());
        let row_state = RowState::of(&draft, stored.is_reason_sealed(live.row.is_reason_sealed));
        // Only these may change what the row says besides its state: a reason, a deadline.
        let is_of_saga = |event: &Event| matches!(event, Event::Saga(_) | Event::Operator(_));
        let is_changed = row_state != live.row || events.iter().any(is_of_saga);
        let row = is_changed.then(|| row_state.row(&draft));
        let mut append = Self::append_of(Some(&live.saga), at, stored, row, &draft, None);
        append.state = with_state.iter().filter_map(|at| inputs[*at].state.clone()).collect();
        live.pending = Some(Pending {
            clock,
            draft,
            row: row_state,
            events,
            append_bytes: append.bytes(),
            inputs,
            with_state,
            passes: admitted.passes,
            start: None,
            _lease: None,
        });
        self.append(id, append);
    }

    /// A saga that cannot be stepped is left as its log has it; the others go on.
    fn quarantine(&mut self, id: SagaId, reason: &str) {
        tracing::error!(saga_id = %id, reason, "saga is quarantined");
        self.config.quarantine.add(id, reason.to_owned());
        self.remove(id);
    }

    /// Forgets the sagas of a shard that another host owns: that one goes on with them as their logs
    /// have them. Of a saga whose append is under way, only the append is kept until it is answered.
    fn lose(&mut self, shard: ShardId) {
        let Some(lost) = self.owned.remove(shard) else { return };
        let epoch = lost.epoch();
        // The new owner finds out whether they can be read. So does this host when it gains the shard
        // again.
        self.config.quarantine.forget(shard);
        let sagas: Vec<_> =
            self.live.keys().copied().filter(|id| ShardId::of(*id) == shard).collect();
        tracing::info!(%shard, sagas = sagas.len(), "another host has taken over a shard");
        for id in sagas {
            let pending = self.live.get_mut(&id).and_then(|live| live.pending.take());
            self.left.extend(pending.map(|pending| ((id, epoch), pending)));
            self.remove(id);
        }
        self.loading.retain(|id, _| ShardId::of(*id) != shard);
    }

    fn insert(&mut self, id: SagaId, mut live: Live) {
        // What a load of it reads may be outdated when the saga leaves memory again.
        if let Some(loading) = self.loading.remove(&id) {
            live.inputs.extend(loading.inputs);
            live.waiters.extend(loading.waiters);
        }
        live.account();
        self.live.insert(id, live);
    }

    fn remove(&mut self, id: SagaId) {
        if let Some(live) = self.live.remove(&id) {
            live.places.values().for_each(|place| self.leave_line(place));
        }
        self.stalled.remove(&id);
        self.await_store.remove(&id);
    }

    /// For what was not due when the saga was last decided on. An append takes time: what has
    /// become due meanwhile wakes at once.
    fn set_timer(&mut self, id: SagaId, decided_at: Timestamp) {
        let Some(live) = self.live.get_mut(&id) else { return };
        live.give_back();
        let next = live.next_wake(decided_at);
        if live.timer != next {
            live.timer = next;
            self.timers.extend(next.map(|next| Reverse((next, id))));
        }
        // Those of sagas that have ended or have another time now are dropped together.
        if self.timers.len() > 2 * self.live.len() + TIMERS_SPARE {
            let live = self.live.iter();
            self.timers = live.filter_map(|(id, live)| Some(Reverse((live.timer?, *id)))).collect();
        }
    }

    fn next_wake(&self) -> Instant {
        let now = now();
        let timer = self.timers.peek().map(|Reverse((at, _))| Instant::now() + at.since(now));
        // Once it has passed, the answer of the store is what is waited for.
        let limit = self.stop.as_ref().map(|(limit, _)| *limit);
        let limit = limit.filter(|limit| *limit > Instant::now());
        let latest = Instant::now() + SLEEP_MAX;
        let all = [timer, self.stalled_until, limit, Some(self.stuck_check_at)];
        all.into_iter().flatten().min().map_or(latest, |wake| wake.min(latest))
    }

    fn stuck(&self) -> Vec<Stuck> {
        let at = now();
        self.live.values().filter_map(|live| stuck(live, at)).collect()
    }

    /// Logs each saga once that has come to be stuck.
    fn check_stuck(&mut self) {
        let at = now();
        for live in self.live.values_mut() {
            let stuck = stuck(live, at);
            if let (Some(stuck), false) = (&stuck, live.is_stuck) {
                tracing::warn!(saga_id = %stuck.id, since = %stuck.since, reason = stuck.reason, "saga is stuck");
            }
            live.is_stuck = stuck.is_some();
        }
        self.let_go_of_all();
    }

    fn gauges(&self) -> Gauges {
        let mut gauges = Gauges { in_memory: self.live.len(), ..Gauges::default() };
        for live in self.live.values() {
            gauges.waiting += usize::from(live.saga.status() == SagaStatus::Waiting);
            gauges.blocked += usize::from(rests(live.saga.status()));
            gauges.stuck += usize::from(live.is_stuck);
            if let Some(since) = live.saga.compensating_since() {
                gauges.oldest_undo = gauges.oldest_undo.max(live.clock.now().since(since));
            }
        }
        for (line, calls) in &self.lines {
            if let Line::Room(room, _) = line {
                *gauges.calls_waiting.entry(room.clone()).or_default() += calls.len();
            }
        }
        gauges
    }
}

/// The outcome of an `execute` whose earlier run sent a request and was not recorded. A failure says that
/// no effect stands, but it knows only of its own run: so the outcome is unknown.
fn may_stand(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Permanent(mut failure) | Outcome::Retryable(mut failure) => {
            failure.message.push_str(
                "; it ran before, sent a request and was not recorded because the state that it saw \
                 had changed, so what it did may stand",
            );
            Outcome::Unknown(failure)
        }
        Outcome::Succeeded(_) | Outcome::NothingToUndo | Outcome::Unknown(_) => outcome,
    }
}

/// Answers inputs that changed nothing; refuses them while another host may have the saga.
fn answer_from_memory(live: &Live, has_lease: bool, inputs: Vec<Queued>) {
    for queued in inputs {
        if has_lease {
            queued.reply(&live.saga, &live.stalls, live.clock);
        } else {
            queued.refuse(RuntimeError::Store(not_owned(live.saga.id())).into());
        }
    }
}

/// Why nothing is recorded of a saga whose worker this host does not own.
pub(super) fn not_owned(id: SagaId) -> StoreError {
    StoreError::LostOwnership(ShardId::of(id))
}

const BROKEN_INVARIANT: &str = "the engine broke an invariant of its own";

/// Timers that may be kept beyond two a live saga before the useless ones are dropped.
const TIMERS_SPARE: usize = 1_024;

fn next_number(calls_made: &mut u64) -> CallNumber {
    *calls_made += 1;
    CallNumber(*calls_made)
}

/// Whether a call holds up a stop.
fn counted(target: &amends_engine::Target) -> usize {
    match target {
        amends_engine::Target::Plugin(_) => 1,
        amends_engine::Target::Saga { .. } => 0,
    }
}

/// As [`try_decide`]; before the outcome of a call, on what its component marks as personal.
fn decide_marked(
    config: &WorkerConfig,
    draft: &mut Saga,
    at: Timestamp,
    input: &Input,
    events: &mut Vec<Event>,
) -> Result<Option<Refusal>, String> {
    if let Some(mark) = marks::before(&config.plugins, draft, input) {
        try_decide(draft, at, mark, events)?;
    }
    try_decide(draft, at, input.clone(), events)
}

/// Decides and applies to the draft; why it is refused, if it is. A broken invariant of the engine must cost one saga, not
/// the worker; the draft is worth nothing then.
fn try_decide(
    draft: &mut Saga,
    at: Timestamp,
    input: Input,
    events: &mut Vec<Event>,
) -> Result<Option<Refusal>, String> {
    let decided = catch_unwind(AssertUnwindSafe(|| decide_on(draft, at, input)));
    let decided = decided.map_err(|_| format!("{BROKEN_INVARIANT}; the log above says which"))?;
    events.extend(decided.events);
    Ok(decided.refused)
}
