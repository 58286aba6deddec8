//! One shard: a task that owns its live sagas.

mod admit;
mod append;
mod lines;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amends_engine::{
    Digest, Event, Input, Saga, SagaId, ServiceName, Start, Timestamp, Version, decide_on,
};
use amends_plugins::{Effects, PluginHost};
use amends_store::{Appended, StartKey, Store, StoreError, StoreHealth, failpoint};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::breakers::Breakers;
use crate::clock::now;
use crate::dispatch::{Dispatcher, Returned, host_stopped};
use crate::error::{OperateError, StartError};
use crate::faults::Faults;
use crate::limits::LIVE_MAX;
use crate::live::{Line, Live, Pending, Queued, Waiter, row};
use crate::recovery::Quarantine;
use crate::rooms::{RoomKey, Rooms};
use crate::runtime::{Sagas, Started, State, rests};
use crate::stuck::{STUCK_CHECK_PAUSE, Stuck, stuck};

/// How often a saga that waits for a plugin looks again.
const STALL_PAUSE: Duration = Duration::from_millis(500);

/// A component whose last call took no longer is called by the shard itself: that saves a task, two
/// changes of threads and a message. The calls of others are tasks of their own, and so are those
/// that come when the shard has called for so long in one turn. One that takes longer than before
/// becomes a task when it first waits or has computed for a tick of the sandbox, 1 ms.
const CALL_IN_SHARD_MAX: Duration = Duration::from_millis(1);

/// After so long a turn the shard gives way to the other tasks of its thread.
const TURN_MAX: Duration = Duration::from_millis(1);

/// Components that are remembered as slow: far more than are active.
const SLOW_MAX: usize = 1_024;

/// Messages that are taken before the clock is looked at. New starts are when there are none.
const BURST_MAX: usize = 64;

/// The longest sleep: the wall clock may jump, and a timer must not be late for longer.
const SLEEP_MAX: Duration = Duration::from_secs(10);

/// What a shard is told.
#[derive(Debug)]
pub(crate) enum Message {
    Recover {
        saga: Box<Saga>,
    },
    Returned(Box<Returned>),
    /// What came of the append that was under way for a saga.
    Appended {
        id: SagaId,
        result: Result<Appended, StoreError>,
    },
    /// Something for a saga: an operator's order or a signal. With the saga, when it was loaded
    /// for this because it is not live. Dropped without an answer when there is neither, or when
    /// what was loaded is older than the saga's log.
    Feed {
        id: SagaId,
        input: Box<Input>,
        loaded: Option<Box<Saga>>,
        reply: oneshot::Sender<Result<Saga, OperateError>>,
    },
    /// Dropped without an answer when the saga is not live.
    Read {
        id: SagaId,
        reply: oneshot::Sender<Box<State>>,
    },
    /// Dropped without an answer when the saga is not live.
    Wait {
        id: SagaId,
        waiter: Waiter,
    },
    /// Calls have given back room.
    Room(RoomKey),
    /// The breaker of a service has closed.
    ServiceIsBack(ServiceName),
    /// The store takes writes again.
    StoreWorks,
    Stuck {
        reply: oneshot::Sender<Vec<Stuck>>,
    },
    Exposed {
        reply: oneshot::Sender<Vec<Saga>>,
    },
    Gauges {
        reply: oneshot::Sender<Gauges>,
    },
    Stop {
        limit: Duration,
        reply: oneshot::Sender<usize>,
    },
}

/// A saga to start; on a channel of its own, so that it can be refused when there are too many.
#[derive(Debug)]
pub(crate) struct StartMessage {
    pub(crate) start: Start,
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

pub(crate) struct ShardConfig {
    pub(crate) number: usize,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) health: watch::Receiver<StoreHealth>,
    pub(crate) plugins: PluginHost,
    pub(crate) breakers: Arc<Breakers>,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) sagas: Sagas,
    pub(crate) inbox: mpsc::WeakUnboundedSender<Message>,
    pub(crate) live_total: Arc<AtomicUsize>,
    pub(crate) quarantine: Arc<Quarantine>,
    pub(crate) faults: Option<Arc<dyn Faults>>,
}

pub(crate) struct Shard {
    config: ShardConfig,
    dispatcher: Dispatcher,
    live: HashMap<SagaId, Live>,
    /// Under way.
    appends: usize,
    timers: BinaryHeap<Reverse<(Timestamp, SagaId)>>,
    /// Sagas that wait in line for room or a service, the first first.
    lines: BTreeMap<Line, VecDeque<SagaId>>,
    /// Sagas that wait for a plugin, and when they look again.
    stalled: HashSet<SagaId>,
    stalled_until: Option<Instant>,
    /// Sagas of which something cannot be recorded while the store takes no writes.
    await_store: HashSet<SagaId>,
    /// Calls of components that have not come back. A saga that a step runs is not one: it goes
    /// on without this host.
    calls_in_flight: usize,
    /// Components whose last call took longer than [`CALL_IN_SHARD_MAX`].
    slow: HashSet<Digest>,
    /// How long it has called components itself in this turn.
    time_in_calls: Duration,
    stuck_check_at: Instant,
    stop: Option<(Instant, oneshot::Sender<usize>)>,
}

impl Shard {
    pub(crate) fn new(config: ShardConfig) -> Self {
        let dispatcher = Dispatcher {
            plugins: config.plugins.clone(),
            breakers: Arc::clone(&config.breakers),
            sagas: config.sagas.clone(),
            faults: config.faults.clone(),
            inbox: config.inbox.clone(),
        };
        Self {
            config,
            dispatcher,
            live: HashMap::new(),
            appends: 0,
            timers: BinaryHeap::new(),
            lines: BTreeMap::new(),
            stalled: HashSet::new(),
            stalled_until: None,
            await_store: HashSet::new(),
            calls_in_flight: 0,
            slow: HashSet::new(),
            time_in_calls: Duration::ZERO,
            stuck_check_at: Instant::now() + STUCK_CHECK_PAUSE,
            stop: None,
        }
    }

    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Message>,
        mut starts: mpsc::Receiver<StartMessage>,
    ) {
        tracing::debug!(shard = self.config.number, "shard began");
        let (mut messages, mut is_open) = (Vec::with_capacity(BURST_MAX), true);
        let mut gave_way = Instant::now();
        while !self.is_stopped() {
            let wake = self.next_wake();
            self.time_in_calls = Duration::ZERO;
            let may_start = self.stop.is_none();
            // Results before new work: what was begun is finished first.
            tokio::select! {
                biased;
                count = inbox.recv_many(&mut messages, BURST_MAX), if is_open => {
                    is_open = count > 0;
                    for message in messages.drain(..) {
                        self.message(message).await;
                    }
                }
                Some(start) = starts.recv(), if may_start => self.start(start).await,
                () = sleep_until(wake) => {}
            }
            let now = Instant::now();
            if wake <= now {
                self.wake().await;
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
        if let Some((_, reply)) = self.stop {
            let _ = reply.send(self.calls_in_flight);
        }
    }

    /// Stopped when asked to and nothing is under way, or when the time for that is over. An
    /// append that is under way is always waited for.
    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|(limit, _)| {
            self.appends == 0 && (self.calls_in_flight == 0 || *limit <= Instant::now())
        })
    }

    async fn message(&mut self, message: Message) {
        match message {
            Message::Recover { saga } => self.recover(*saga).await,
            Message::Returned(returned) => self.returned(*returned).await,
            Message::Appended { id, result } => {
                self.appends -= 1;
                self.appended(id, result).await;
            }
            Message::Feed { id, input, loaded, reply } => {
                if let (false, Some(saga)) = (self.live.contains_key(&id), loaded) {
                    self.insert(id, Live { may_be_stale: true, ..Live::new(*saga) });
                }
                if let Some(live) = self.live.get_mut(&id) {
                    live.inputs.push_back(Queued { reply: Some(reply), ..Queued::from(*input) });
                    self.advance(id).await;
                }
            }
            Message::Read { id, reply } => {
                if let Some(live) = self.live.get(&id) {
                    let stalls = live.stalls.iter().map(|stall| stall.reason.clone()).collect();
                    let _ = reply.send(Box::new(State { saga: live.saga.clone(), stalls }));
                }
            }
            Message::Wait { id, waiter } => {
                if let Some(live) = self.live.get_mut(&id) {
                    live.waiters.retain(|waiter| !waiter.reply.is_closed());
                    live.waiters.push(waiter);
                    live.tell_waiters();
                }
            }
            Message::Room(key) => self.room(&key).await,
            Message::ServiceIsBack(service) => self.service_is_back(service).await,
            Message::StoreWorks => self.store_works().await,
            Message::Stuck { reply } => {
                let _ = reply.send(self.stuck());
            }
            Message::Exposed { reply } => {
                let _ = reply.send(self.live.values().map(|live| live.saga.clone()).collect());
            }
            Message::Gauges { reply } => {
                let _ = reply.send(self.gauges());
            }
            Message::Stop { limit, reply } => self.stop = Some((Instant::now() + limit, reply)),
        }
    }

    async fn start(&mut self, message: StartMessage) {
        let StartMessage { start, reply, waiter } = message;
        let id = start.id;
        // Only a saga that another one starts has an id that may have been started before.
        if self.live.contains_key(&id) {
            let _ = reply.send(Ok(Started { id, created: false }));
            return;
        }
        if self.config.live_total.load(Ordering::Relaxed) >= LIVE_MAX {
            let _ = reply.send(Err(StartError::Overloaded("too many sagas are live")));
            return;
        }
        let at = now();
        let start_key = start
            .key
            .as_ref()
            .map(|key| StartKey { key: key.clone(), payload_digest: payload_digest(&start) });
        // A broken invariant of the engine must cost one saga, not the shard.
        let begun = catch_unwind(AssertUnwindSafe(|| amends_engine::start(at, start)));
        let Ok((saga, mut events)) = begun else {
            let failed = StoreError::Invalid(BROKEN_INVARIANT);
            let _ = reply.send(Err(StartError::Store(failed)));
            return;
        };
        let mut draft = saga.clone();
        let Ok(admitted) = self.admit(&mut draft, &mut events, at).await else {
            let failed = StoreError::Invalid(BROKEN_INVARIANT);
            let _ = reply.send(Err(StartError::Store(failed)));
            return;
        };
        let append = append::append(Version(0), at, &events, Some(row(&draft)), &draft, start_key);
        let mut live = Live::new(saga);
        live.stalls = admitted.stalls;
        live.waiters.extend(waiter);
        live.pending = Some(Pending {
            at,
            draft,
            events,
            inputs: Vec::new(),
            with_state: Vec::new(),
            passes: admitted.passes,
            start: Some(reply),
        });
        self.insert(id, live);
        failpoint("runtime.start.decided");
        self.append(id, append);
    }

    /// Goes on with a saga that was loaded from the store. What its log says is running was cut
    /// off with its host: what can tell what came of it is asked, of the rest it is unknown.
    async fn recover(&mut self, saga: Saga) {
        failpoint("runtime.recovery.saga_before");
        let id = saga.id();
        if self.live.contains_key(&id) {
            return;
        }
        let mut live = Live::new(saga);
        live.inputs.push_back(Input::Tick.into());
        let due = live.due();
        for call in due.calls {
            if self.dispatcher.may_tell(&call) {
                let key = (call.step.clone(), call.direction);
                self.calls_in_flight += counted(&call.target);
                live.in_flight.insert(key, self.dispatcher.recover(&live.saga, call));
                continue;
            }
            live.inputs.push_back(Queued::from(Input::Outcome {
                step: call.step,
                direction: call.direction,
                attempt: call.attempt,
                outcome: amends_engine::Outcome::Unknown(host_stopped()),
                probe: None,
                emitted: Vec::new(),
            }));
        }
        live.cancel(&due.children);
        self.insert(id, live);
        self.advance(id).await;
        failpoint("runtime.recovery.saga_after");
    }

    async fn returned(&mut self, returned: Returned) {
        let id = returned.id;
        self.hear(returned);
        self.advance(id).await;
    }

    /// Takes down what came of a call; it is decided on when its saga is next.
    fn hear(&mut self, returned: Returned) {
        let Returned { id, step, direction, attempt, outcome, probe, effects, component, took } =
            returned;
        failpoint("runtime.outcome.received");
        if let Some(component) = component {
            self.calls_in_flight -= 1;
            if took <= CALL_IN_SHARD_MAX {
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
            let state = state.filter(|state| !state.is_empty());
            let outcome = Input::Outcome { step, direction, attempt, outcome, probe, emitted };
            live.inputs.push_back(Queued { state, ..Queued::from(outcome) });
        }
    }

    async fn wake(&mut self) {
        let at = now();
        let mut due = Vec::new();
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
            self.advance(id).await;
        }
        if self.stuck_check_at <= Instant::now() {
            self.stuck_check_at = Instant::now() + STUCK_CHECK_PAUSE;
            self.check_stuck();
        }
    }

    /// Decides on all that happened to a saga since its last append, admits what is due, and
    /// appends the facts together. Does nothing while an append is under way.
    async fn advance(&mut self, id: SagaId) {
        let Some(live) = self.live.get_mut(&id) else { return };
        if live.pending.is_some() {
            return;
        }
        let at = now();
        let mut draft = live.saga.clone();
        let before = (draft.status(), draft.wake_at());
        let (mut events, mut inputs) = (Vec::new(), Vec::new());
        let one_by_one = live.reruns > 0;
        let mut with_state = Vec::new();
        let mut later = VecDeque::new();
        for queued in live.inputs.drain(..).collect::<Vec<_>>() {
            // Of calls that were refused together, one is recorded at a time: so each round makes
            // something durable.
            let brings_state = queued.state.is_some() && queued.is_heard(&draft);
            if one_by_one && brings_state && !with_state.is_empty() {
                live.keep_call(&queued.input);
                later.push_back(queued);
                continue;
            }
            // On the saga as it is by then, not as it was when somebody asked.
            if let Err(refusal) = queued.permitted(&draft, at) {
                queued.reply(|| Err(refusal.into()));
                continue;
            }
            if let Err(reason) = try_decide(&mut draft, at, queued.input.clone(), &mut events) {
                self.quarantine(id, &reason);
                return;
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
                Input::Tick | Input::Admit { .. } | Input::Refuse { .. } => "runtime.tick.decided",
            });
            inputs.push(queued);
        }
        live.inputs = later;
        let admitted = match self.admit(&mut draft, &mut events, at).await {
            Ok(admitted) => admitted,
            Err(reason) => {
                self.quarantine(id, &reason);
                return;
            }
        };
        let Some(live) = self.live.get_mut(&id) else { return };
        live.stalls = admitted.stalls;
        if events.is_empty() {
            for queued in inputs {
                queued.reply(|| Ok(live.saga.clone()));
            }
            if live.saga.has_ended() || live.may_be_stale {
                self.remove(id);
                return;
            }
            self.set_timer(id, at);
            self.remember_stalls(id);
            return;
        }
        if events.iter().any(|event| matches!(event, Event::CompensationStarted(_))) {
            failpoint("runtime.compensation.decided");
        }
        let changed = (draft.status(), draft.wake_at()) != before;
        let row = changed.then(|| row(&draft));
        let mut append = append::append(live.saga.version(), at, &events, row, &draft, None);
        append.state =
            with_state.iter().filter_map(|at| inputs[*at].state.as_deref().cloned()).collect();
        let passes = admitted.passes;
        live.pending = Some(Pending { at, draft, events, inputs, with_state, passes, start: None });
        self.append(id, append);
    }

    /// A saga that cannot be stepped is left as its log has it; the others go on.
    fn quarantine(&mut self, id: SagaId, reason: &str) {
        tracing::error!(saga_id = %id, reason, "saga is quarantined");
        self.config.quarantine.add(id, reason.to_owned());
        self.remove(id);
    }

    fn insert(&mut self, id: SagaId, live: Live) {
        self.config.live_total.fetch_add(1, Ordering::Relaxed);
        self.live.insert(id, live);
    }

    fn remove(&mut self, id: SagaId) {
        if let Some(live) = self.live.remove(&id) {
            self.config.live_total.fetch_sub(1, Ordering::Relaxed);
            live.in_lines.iter().for_each(|line| self.leave_line(id, line));
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
        let limit = self.stop.as_ref().map(|(limit, _)| *limit);
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
    }

    fn gauges(&self) -> Gauges {
        let at = now();
        let mut gauges = Gauges { live: self.live.len(), ..Gauges::default() };
        for live in self.live.values() {
            gauges.blocked += usize::from(rests(live.saga.status()));
            gauges.stuck += usize::from(live.is_stuck);
            if let Some(since) = live.saga.compensating_since() {
                gauges.oldest_undo = gauges.oldest_undo.max(at.since(since));
            }
        }
        gauges
    }
}

const BROKEN_INVARIANT: &str = "the engine broke an invariant of its own";

/// Timers that may be kept beyond two a live saga before the useless ones are dropped.
const TIMERS_SPARE: usize = 1_024;

/// Whether a call holds up a stop.
fn counted(target: &amends_engine::Target) -> usize {
    match target {
        amends_engine::Target::Plugin(_) => 1,
        amends_engine::Target::Saga { .. } => 0,
    }
}

/// Decides and applies to the draft. A broken invariant of the engine must cost one saga, not
/// the shard; the draft is worth nothing then.
fn try_decide(
    draft: &mut Saga,
    at: Timestamp,
    input: Input,
    events: &mut Vec<Event>,
) -> Result<(), String> {
    let decided = catch_unwind(AssertUnwindSafe(|| decide_on(draft, at, input)));
    events.extend(decided.map_err(|_| format!("{BROKEN_INVARIANT}; the log above says which"))?);
    Ok(())
}

/// Of what makes two starts with one key the same: the definition's name and the input.
fn payload_digest(start: &Start) -> Digest {
    let mut bytes = start.definition.name().as_str().as_bytes().to_vec();
    bytes.push(0);
    bytes.extend_from_slice(start.input.to_value().to_string().as_bytes());
    Digest::of(&bytes)
}
