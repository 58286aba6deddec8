//! One shard: a task that owns its live sagas.

mod admit;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amends_engine::{
    Digest, Event, Input, Saga, SagaId, Start, Timestamp, Version, decide, evolve, permits_cancel,
};
use amends_plugins::PluginHost;
use amends_store::{Append, Appended, NewEvent, StartKey, Store, StoreError, Stream};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::clock::now;
use crate::dispatch::{Returned, dispatch};
use crate::error::{CancelError, StartError};
use crate::limits::LIVE_MAX;
use crate::live::{Live, Pending, Queued, StallReason, row};
use crate::runtime::{Started, State, rests};

/// How long a shard waits before it appends again after the store failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// How often a saga that waits for a plugin looks again.
const STALL_PAUSE: Duration = Duration::from_millis(250);

/// The longest sleep: the wall clock may jump, and a timer must not be late for longer.
const SLEEP_MAX: Duration = Duration::from_secs(10);

/// What a shard is told.
#[derive(Debug)]
pub(crate) enum Message {
    Recover {
        saga: Box<Saga>,
    },
    Returned(Box<Returned>),
    Cancel {
        id: SagaId,
        who: String,
        reason: String,
        reply: oneshot::Sender<Result<Saga, CancelError>>,
    },
    /// Dropped without an answer when the saga is not live.
    Read {
        id: SagaId,
        reply: oneshot::Sender<Box<State>>,
    },
    /// Dropped without an answer when the saga is not live.
    Wait {
        id: SagaId,
        reply: oneshot::Sender<Saga>,
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
}

/// What is computed from the live sagas.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Gauges {
    pub(crate) live: usize,
    pub(crate) blocked: usize,
    pub(crate) in_flight: usize,
    pub(crate) oldest_undo: Duration,
}

impl Gauges {
    pub(crate) fn add(&mut self, other: Self) {
        self.live += other.live;
        self.blocked += other.blocked;
        self.in_flight += other.in_flight;
        self.oldest_undo = self.oldest_undo.max(other.oldest_undo);
    }
}

pub(crate) struct ShardConfig {
    pub(crate) number: usize,
    pub(crate) shards: usize,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) plugins: PluginHost,
    pub(crate) inbox: mpsc::WeakUnboundedSender<Message>,
    pub(crate) live_total: Arc<AtomicUsize>,
}

type Ack = (SagaId, Result<Appended, StoreError>);

pub(crate) struct Shard {
    config: ShardConfig,
    live: HashMap<SagaId, Live>,
    appends: FuturesUnordered<BoxFuture<'static, Ack>>,
    timers: BinaryHeap<Reverse<(Timestamp, SagaId)>>,
    /// Sagas with a call that is due and for which there was no room.
    waiting_for_room: VecDeque<SagaId>,
    /// Sagas that wait for a plugin, or for the store to work again.
    stalled: HashSet<SagaId>,
    calls_in_flight: usize,
    stop: Option<(Instant, oneshot::Sender<usize>)>,
}

impl Shard {
    pub(crate) fn new(config: ShardConfig) -> Self {
        Self {
            config,
            live: HashMap::new(),
            appends: FuturesUnordered::new(),
            timers: BinaryHeap::new(),
            waiting_for_room: VecDeque::new(),
            stalled: HashSet::new(),
            calls_in_flight: 0,
            stop: None,
        }
    }

    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Message>,
        mut starts: mpsc::Receiver<StartMessage>,
    ) {
        tracing::debug!(shard = self.config.number, "shard began");
        while !self.is_stopped() {
            let wake = self.next_wake();
            let may_start = self.stop.is_none();
            // Results before new work: what was begun is finished first.
            tokio::select! {
                biased;
                Some((id, result)) = self.appends.next() => self.appended(id, result).await,
                Some(message) = inbox.recv() => self.message(message).await,
                Some(start) = starts.recv(), if may_start => self.start(start).await,
                () = sleep_until(wake) => self.wake().await,
            }
            self.use_room().await;
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
            self.appends.is_empty() && (self.calls_in_flight == 0 || *limit <= Instant::now())
        })
    }

    async fn message(&mut self, message: Message) {
        match message {
            Message::Recover { saga } => {
                let id = saga.id();
                self.insert(id, Live::recovered(*saga));
                self.advance(id).await;
            }
            Message::Returned(returned) => self.returned(*returned).await,
            Message::Cancel { id, who, reason, reply } => {
                self.cancel(id, who, reason, reply).await;
            }
            Message::Read { id, reply } => {
                if let Some(live) = self.live.get(&id) {
                    let (saga, stall) = (live.saga.clone(), live.stall.clone());
                    let _ = reply.send(Box::new(State { saga, stall }));
                }
            }
            Message::Wait { id, reply } => {
                if let Some(live) = self.live.get_mut(&id) {
                    if rests(live.saga.status()) {
                        let _ = reply.send(live.saga.clone());
                    } else {
                        live.waiters.retain(|waiter| !waiter.is_closed());
                        live.waiters.push(reply);
                    }
                }
            }
            Message::Gauges { reply } => {
                let _ = reply.send(self.gauges());
            }
            Message::Stop { limit, reply } => self.stop = Some((Instant::now() + limit, reply)),
        }
    }

    async fn start(&mut self, message: StartMessage) {
        if self.config.live_total.load(Ordering::Relaxed) >= LIVE_MAX {
            let full = StartError::Overloaded("too many sagas are live");
            let _ = message.reply.send(Err(full));
            return;
        }
        let at = now();
        let start_key = message.start.key.as_ref().map(|key| StartKey {
            key: key.clone(),
            payload_digest: payload_digest(&message.start),
        });
        let (saga, mut events) = amends_engine::start(at, message.start);
        let id = saga.id();
        let mut draft = saga.clone();
        let (admitted, stall) = self.admit(&mut draft, &mut events, at).await;
        let append = append(Version(0), at, &events, Some(row(&draft)), &draft, start_key);
        let mut live = Live::new(saga);
        live.stall = stall;
        live.pending = Some(Pending {
            at,
            draft,
            events,
            inputs: Vec::new(),
            admitted,
            start: Some(message.reply),
        });
        self.insert(id, live);
        self.append(id, append);
    }

    async fn cancel(
        &mut self,
        id: SagaId,
        who: String,
        reason: String,
        reply: oneshot::Sender<Result<Saga, CancelError>>,
    ) {
        let Some(live) = self.live.get_mut(&id) else { return };
        if let Err(refusal) = permits_cancel(&live.saga) {
            let _ = reply.send(Err(refusal.into()));
            return;
        }
        let input = Input::Cancel { who, reason };
        live.inputs.push_back(Queued { input, reply: Some(reply) });
        self.advance(id).await;
    }

    async fn returned(&mut self, returned: Returned) {
        let Returned { id, step, direction, attempt, outcome } = returned;
        self.calls_in_flight -= 1;
        let Some(live) = self.live.get_mut(&id) else { return };
        live.in_flight.remove(&(step.clone(), direction));
        live.inputs.push_back(Input::Outcome { step, direction, attempt, outcome }.into());
        self.advance(id).await;
    }

    async fn wake(&mut self) {
        let at = now();
        while let Some(Reverse((due, id))) = self.timers.peek().copied()
            && due <= at
        {
            self.timers.pop();
            if let Some(live) = self.live.get_mut(&id)
                && live.timer == Some(due)
            {
                live.timer = None;
                live.inputs.push_back(Input::Tick.into());
                self.advance(id).await;
            }
        }
        for id in std::mem::take(&mut self.stalled) {
            self.advance(id).await;
        }
    }

    async fn use_room(&mut self) {
        for _ in 0..self.waiting_for_room.len() {
            if !self.has_room_for_undo() || self.stop.is_some() {
                return;
            }
            let Some(id) = self.waiting_for_room.pop_front() else { return };
            self.advance(id).await;
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
        let inputs: Vec<_> = live.inputs.drain(..).collect();
        let mut draft = live.saga.clone();
        let before = (draft.status(), draft.wake_at());
        let mut events = Vec::new();
        for queued in &inputs {
            if let Err(reason) = try_decide(&mut draft, at, &queued.input, &mut events) {
                self.quarantine(id, &reason);
                return;
            }
        }
        let (admitted, stall) = self.admit(&mut draft, &mut events, at).await;
        let Some(live) = self.live.get_mut(&id) else { return };
        live.stall = stall;
        if events.is_empty() {
            for queued in inputs {
                queued.reply(Ok(live.saga.clone()));
            }
            self.set_timer(id, at);
            self.remember_stall(id);
            return;
        }
        let changed = (draft.status(), draft.wake_at()) != before;
        let row = changed.then(|| row(&draft));
        let append = append(live.saga.version(), at, &events, row, &draft, None);
        live.pending = Some(Pending { at, draft, events, inputs, admitted, start: None });
        self.append(id, append);
    }

    fn append(&mut self, id: SagaId, append: Append) {
        let done = self.config.store.append(append);
        self.appends.push(Box::pin(async move { (id, done.await) }));
    }

    async fn appended(&mut self, id: SagaId, result: Result<Appended, StoreError>) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let Some(pending) = live.pending.take() else { return };
        match result {
            Ok(Appended::Done { .. }) => self.durable(id, pending).await,
            Ok(Appended::Duplicate(earlier)) => {
                self.forget(id, pending, Ok(Started { id: earlier, created: false }));
            }
            Ok(Appended::KeyReused(earlier)) => {
                self.forget(id, pending, Err(StartError::KeyReused(earlier)));
            }
            Err(error) => self.append_failed(id, pending, error),
        }
    }

    /// The facts are durable: now they are true, and are acted upon.
    async fn durable(&mut self, id: SagaId, pending: Pending) {
        let Some(live) = self.live.get_mut(&id) else { return };
        live.saga = pending.draft;
        crate::gauges::count(&live.saga, &pending.events);
        if let Some(reply) = pending.start {
            let _ = reply.send(Ok(Started { id, created: true }));
        }
        for queued in pending.inputs {
            queued.reply(Ok(live.saga.clone()));
        }
        let status = live.saga.status();
        if rests(status) {
            log_rest(&live.saga);
            for waiter in live.waiters.drain(..) {
                let _ = waiter.send(live.saga.clone());
            }
        }
        if status.is_end() {
            self.remove(id);
            return;
        }
        for call in live.undispatched() {
            live.in_flight.insert((call.step.clone(), call.direction));
            dispatch(&self.config.plugins, &live.saga, call, self.config.inbox.clone());
        }
        if live.inputs.is_empty() {
            self.set_timer(id, pending.at);
            self.remember_stall(id);
        } else {
            self.advance(id).await;
        }
    }

    /// A start that was not one: the key was known.
    fn forget(&mut self, id: SagaId, pending: Pending, answer: Result<Started, StartError>) {
        self.calls_in_flight -= pending.admitted;
        self.remove(id);
        if let Some(reply) = pending.start {
            let _ = reply.send(answer);
        }
    }

    /// Nothing of the append is true. A start is refused; for a live saga what happened is kept
    /// and tried again, because a result that was had must not be lost.
    fn append_failed(&mut self, id: SagaId, pending: Pending, error: StoreError) {
        tracing::error!(saga_id = %id, error = %error, "append failed");
        self.calls_in_flight -= pending.admitted;
        if let Some(reply) = pending.start {
            self.remove(id);
            let _ = reply.send(Err(error.into()));
            return;
        }
        if matches!(error, StoreError::Conflict { .. }) {
            let reason = format!("its log was changed by someone else: {error}");
            self.quarantine(id, &reason);
            return;
        }
        if let Some(live) = self.live.get_mut(&id) {
            for queued in pending.inputs.into_iter().rev() {
                live.inputs.push_front(queued);
            }
            self.stalled.insert(id);
        }
    }

    /// A saga that cannot be stepped is left as its log has it; the others go on.
    fn quarantine(&mut self, id: SagaId, reason: &str) {
        tracing::error!(saga_id = %id, reason, "saga is quarantined until the next start");
        self.remove(id);
    }

    fn insert(&mut self, id: SagaId, live: Live) {
        self.config.live_total.fetch_add(1, Ordering::Relaxed);
        self.live.insert(id, live);
    }

    fn remove(&mut self, id: SagaId) {
        if self.live.remove(&id).is_some() {
            self.config.live_total.fetch_sub(1, Ordering::Relaxed);
        }
        self.stalled.remove(&id);
    }

    /// For what was not due when the saga was last decided on. An append takes time: what has
    /// become due meanwhile wakes at once.
    fn set_timer(&mut self, id: SagaId, decided_at: Timestamp) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let next = live.next_wake(decided_at);
        if live.timer != next {
            live.timer = next;
            self.timers.extend(next.map(|next| Reverse((next, id))));
        }
    }

    /// A saga that something outside its events holds back looks again when that may have changed.
    fn remember_stall(&mut self, id: SagaId) {
        match self.live.get(&id).and_then(|live| live.stall.as_ref()) {
            Some(StallReason::PluginMissing(_)) => {
                self.stalled.insert(id);
            }
            Some(StallReason::NoRoom) => self.waiting_for_room.push_back(id),
            None => {}
        }
    }

    fn next_wake(&self) -> Instant {
        let timer = self.timers.peek().map(|Reverse((at, _))| at.since(now()));
        let stalled = (!self.stalled.is_empty()).then_some(STALL_PAUSE.min(STORE_PAUSE));
        let limit = self.stop.as_ref().map(|(limit, _)| limit.duration_since(Instant::now()));
        let pause = [timer, stalled, limit].into_iter().flatten().min().unwrap_or(SLEEP_MAX);
        Instant::now() + pause.min(SLEEP_MAX)
    }

    fn gauges(&self) -> Gauges {
        let at = now();
        let mut gauges =
            Gauges { live: self.live.len(), in_flight: self.calls_in_flight, ..Gauges::default() };
        for live in self.live.values() {
            gauges.blocked += usize::from(rests(live.saga.status()));
            if let Some(since) = live.saga.compensating_since() {
                gauges.oldest_undo = gauges.oldest_undo.max(at.since(since));
            }
        }
        gauges
    }
}

impl Queued {
    fn reply(self, result: Result<Saga, CancelError>) {
        if let Some(reply) = self.reply {
            let _ = reply.send(result);
        }
    }
}

/// Decides and applies to the draft. A broken invariant of the engine must cost one saga, not
/// the shard.
fn try_decide(
    draft: &mut Saga,
    at: Timestamp,
    input: &Input,
    events: &mut Vec<Event>,
) -> Result<(), String> {
    let decided =
        catch_unwind(AssertUnwindSafe(|| decide(draft, at, input.clone()))).map_err(|_| {
            "the engine broke an invariant of its own; the log above says which".to_owned()
        })?;
    for event in decided {
        evolve(draft, at, &event).map_err(|error| error.to_string())?;
        events.push(event);
    }
    Ok(())
}

fn append(
    expected: Version,
    at: Timestamp,
    events: &[Event],
    row: Option<amends_store::SagaRow>,
    draft: &Saga,
    start_key: Option<StartKey>,
) -> Append {
    let events = events
        .iter()
        .map(|event| NewEvent { at, kind: event.kind().into(), data: event.data() })
        .collect();
    Append { stream: Stream::Saga(draft.id()), expected, events, row, start_key }
}

/// Of what makes two starts with one key the same: the definition's name and the input.
fn payload_digest(start: &Start) -> Digest {
    let mut bytes = start.definition.name().as_str().as_bytes().to_vec();
    bytes.push(0);
    bytes.extend_from_slice(start.input.to_value().to_string().as_bytes());
    Digest::of(&bytes)
}

fn log_rest(saga: &Saga) {
    let (saga_id, definition) = (saga.id(), saga.definition().name());
    let (status, reason) = (saga.status().as_str(), saga.reason().unwrap_or_default());
    if status == "blocked" {
        tracing::error!(%saga_id, %definition, status, reason, "saga needs an operator");
    } else {
        tracing::debug!(%saga_id, %definition, status, reason, "saga ended");
    }
}
