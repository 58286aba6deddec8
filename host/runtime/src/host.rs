//! The handle of a running host: everything that the API and the command line ask of it.
//!
//! A method that changes something takes a [`Principal`]. It passes [`authorize`] before it does
//! anything, and what is recorded of the change has the principal's subject as `who`. Reads take
//! none. Nobody outside the crate reaches the store or the registry of a host.

mod access;
mod archive;
mod audit;
mod breakers;
mod erasures;
mod event_rules;
mod evidence;
mod import;
mod orders;
mod owners;
mod plugins;
mod records;
mod sagas;
mod schedules;
mod subscriptions;
mod traces;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use amends_engine::{
    Definition, Digest, IndexName, NamespaceName, Payload, PlannedUndo, SagaId, ServiceName, Start,
    Timestamp, Version, undo_plan,
};
use amends_failpoint::failpoint;
use amends_keys::{Keys, NewSeal};
use amends_peers::Peers;
use amends_registry::{Registry, now};
use amends_store::{HostInfo, ShardId, StartKey, Store, StoreError, StoreHealth, Stream};
use amends_subscriptions::{DefinitionNames, NatsSources, SubscriptionSettings, Subscriptions};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub use erasures::{Erased, PersonalState};
pub use event_rules::EventTaken;
pub use import::{ImportError, ImportEvent, Imported, SagaImport};
pub use owners::{HostShards, may_look_again};
pub use subscriptions::NamedLogPage;

use crate::abandoned::Abandoned;
use crate::access::{Access, AccessSettings};
use crate::action::{Action, authorize};
use crate::archiver::{self, Archiver};
use crate::breakers::Breakers;
use crate::breakers::settings::BreakerSettings;
use crate::budget::Budget;
use crate::definitions::Definitions;
use crate::due::DueSagas;
use crate::erasure::{self, Eraser};
use crate::error::{RuntimeError, StartError};
use crate::event_rules::{
    EventRule, EventRules, IncomingPort, LateEventPort, sources_of, subscriptions_of,
};
use crate::evidence::EvidenceKey;
use crate::faults::Faults;
use crate::gauges::{GaugeLabel, HostGauges};
use crate::limits::{
    CALLS_MAX, EVENTS_PER_READ, LIVE_BYTES_EACH, LIVE_BYTES_MAX_DEFAULT, ORDER_BYTES_WAITING_MAX,
    REHEARSALS_MAX, SIGNAL_BYTES_WAITING_MAX, STARTS_WAITING_MAX,
};
use crate::loader::{LivePages, Loader};
use crate::message::{Gauges, Message, StartMessage, Waiter};
use crate::owner::{Owner, worker_of};
use crate::personal_alone;
use crate::ports::{SagaPort, Wake};
use crate::principal::Principal;
use crate::recovery::{self, Quarantine, Quarantined};
use crate::retention::Retention;
use crate::room_key::RoomKey;
use crate::rooms::Rooms;
use crate::saga_state::{Loaded, RowState, SagaState, Started};
use crate::schedules::{Runner, ScheduleSettings, Schedules};
use crate::serving::undo_component;
use crate::shared::Shared;
use crate::stall::Stuck;
use crate::start_rate::{StartRate, StartRateSettings};
use crate::traces::{TraceSettings, Traces};
use crate::unseal::{open_log, open_page};
use crate::worker::{Worker, WorkerConfig};

/// How a host is set up.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Workers, each a task: about one a core.
    pub workers: usize,
    /// The plugin folder, for messages.
    pub plugins_dir: PathBuf,
    /// Calls at once, by service; one that is not here has no limit of its own.
    pub concurrency: BTreeMap<ServiceName, usize>,
    /// Circuit breakers, by service.
    pub breakers: BTreeMap<ServiceName, BreakerSettings>,
    /// Bytes that live sagas may hold together: their inputs, outputs and signals, what is being
    /// appended of them, and some kilobytes each. Past it starts and signals are refused.
    pub live_bytes_max: usize,
    /// How long ended sagas stay in the store; none for ever.
    pub retention: Option<Retention>,
    /// Which events reach which other systems.
    pub subscriptions: Vec<SubscriptionSettings>,
    /// Which sagas start when, by themselves.
    pub schedules: Vec<ScheduleSettings>,
    /// Which events start sagas or become signals.
    pub event_rules: Vec<Arc<EventRule>>,
    /// The keys of personal values. None: keys that go with the process, for a store that does too.
    pub keys: Option<Arc<Keys>>,
    /// Who this host is among the hosts of its store. None: no other process uses the store.
    pub host: Option<HostInfo>,
    /// How the host asks callers who they are. None: it asks nobody.
    pub access: Option<AccessSettings>,
    /// The key with which the host signs evidence. None: it signs none.
    pub evidence_key: Option<Arc<EvidenceKey>>,
    /// The namespace whose sagas the host runs. None: `default`.
    pub namespace: Option<NamespaceName>,
    /// Calls at once, at most [`CALLS_MAX`].
    pub calls_max: usize,
    /// How many sagas may be started. None: any number.
    pub starts: Option<StartRateSettings>,
    /// What goes wrong on purpose; none in earnest.
    pub faults: Option<Arc<dyn Faults>>,
    /// Which spans are made, and where they go. None: none are made.
    pub traces: Option<TraceSettings>,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            workers,
            plugins_dir: PathBuf::new(),
            concurrency: BTreeMap::new(),
            breakers: BTreeMap::new(),
            live_bytes_max: LIVE_BYTES_MAX_DEFAULT,
            retention: None,
            subscriptions: Vec::new(),
            schedules: Vec::new(),
            event_rules: Vec::new(),
            keys: None,
            host: None,
            access: None,
            evidence_key: None,
            namespace: None,
            calls_max: CALLS_MAX,
            starts: None,
            faults: None,
            traces: None,
        }
    }
}

/// A saga to start.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// The name of a definition.
    pub definition: String,
    /// The input of the saga.
    pub input: Payload,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// Tags, by which the saga is found later.
    pub tags: BTreeMap<String, String>,
    /// The caller's trace context (W3C), kept and handed to every call.
    pub traceparent: Option<String>,
    /// When the first steps may begin. None, or a time that has passed: at once. A key does not
    /// compare it, so the first start with a key decides.
    pub start_at: Option<Timestamp>,
}

/// An undo that a compensation would run now, and the component that would serve it.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The undo.
    pub undo: PlannedUndo,
    /// The component that would serve it; none for a saga, or while the plugin has none.
    pub digest: Option<Digest>,
    /// The reason for that component, when it is not the active one.
    pub note: Option<String>,
}

/// A running host. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    plugins: Registry,
    definitions: Arc<Definitions>,
    workers: Vec<WorkerHandle>,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
    breakers: Arc<Breakers>,
    rooms: Arc<Rooms>,
    quarantine: Arc<Quarantine>,
    loader: Arc<Loader>,
    live_bytes: Arc<Budget>,
    /// Of orders that wait to be recorded.
    order_bytes: Arc<Budget>,
    signal_bytes: Arc<Budget>,
    abandoned: Abandoned,
    /// Moves sagas to the archive; none without retention.
    archiver: Option<Arc<Archiver>>,
    keys: Arc<Keys>,
    eraser: Arc<Eraser>,
    subscriptions: Subscriptions,
    schedules: Schedules,
    event_rules: EventRules,
    nats_sources: NatsSources,
    /// None when no other process uses the store.
    shared: Option<Shared>,
    definition_names: DefinitionNames,
    /// Room for one rehearsal.
    rehearsals: Semaphore,
    /// None: the host asks nobody who they are.
    access: Option<Arc<Access>>,
    /// None: the host signs no evidence.
    evidence_key: Option<Arc<EvidenceKey>>,
    /// None: no spans are made.
    traces: Option<Arc<Traces>>,
    gauge_label: GaugeLabel,
    /// None: any number of sagas may be started.
    start_rate: Option<StartRate>,
    stopping: AtomicBool,
}

struct WorkerHandle {
    inbox: mpsc::UnboundedSender<Message>,
    starts: mpsc::Sender<StartMessage>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

/// Returns the start key that a saga has whose values are sealed, as it would be without a seal.
fn plain_key(start: &Start) -> Option<StartKey> {
    let key = start.key.as_deref().filter(|_| start.sealed_key.is_some())?;
    Some(StartKey::of(key, start.definition.name(), &start.input))
}

/// A worker that does not run yet, and what it receives.
type IdleWorker = (Worker, mpsc::UnboundedReceiver<Message>, mpsc::Receiver<StartMessage>);

/// Makes an inbox for each of so many workers.
fn inboxes_of(
    workers: usize,
) -> (Vec<mpsc::UnboundedSender<Message>>, Vec<mpsc::UnboundedReceiver<Message>>) {
    (0..workers).map(|_| mpsc::unbounded_channel()).unzip()
}

impl Host {
    /// Checks that every definition has its plugins, recovers what is live, and goes on with it.
    ///
    /// # Errors
    /// When a plugin is missing or does not do what a definition wants, or the store fails.
    pub async fn open(
        config: RuntimeConfig,
        store: Arc<dyn Store>,
        plugins: Registry,
        definitions: Vec<Definition>,
    ) -> Result<Self, RuntimeError> {
        recovery::check_plugins(&definitions, &plugins, &config.plugins_dir)?;
        let definitions = Arc::new(Definitions::publish(definitions, &*store).await?);
        let live_bytes = Budget::new(config.live_bytes_max);
        let workers_count = config.workers.max(1);
        let (inboxes, receivers) = inboxes_of(workers_count);
        let weak: Vec<_> = inboxes.iter().map(mpsc::UnboundedSender::downgrade).collect();
        let wake: Arc<dyn Wake> = Arc::new(WakeWorkers(weak.clone()));
        let breakers = Breakers::open(config.breakers, Arc::clone(&store), Arc::clone(&wake)).await;
        let breakers = Arc::new(breakers?);
        let rooms = Arc::new(Rooms::new(config.calls_max, config.concurrency, wake));
        let quarantine = Arc::<Quarantine>::default();
        tokio::spawn(tell_when_store_works(store.maintenance().health(), weak.clone()));
        // Before anything is appended: a new one gets every event from here on.
        let event_port = LateEventPort::default();
        let of_rules = subscriptions_of(&config.event_rules, &event_port);
        let subscriptions: Vec<_> = config.subscriptions.into_iter().chain(of_rules).collect();
        let names = subscriptions.iter().map(|settings| settings.name.clone()).collect();
        let (turn, has_turn) = watch::channel(config.host.is_none());
        let subscriptions =
            Subscriptions::open_in_turn(subscriptions, Arc::clone(&store), has_turn).await?;
        failpoint("runtime.recovery.before");
        let has_keys = config.keys.is_some();
        let keys = config.keys.map_or_else(|| Keys::in_memory().map(Arc::new), Ok)?;
        let of = (&store, &definitions, &keys);
        let owner = Owner::new(of, weak.clone(), &live_bytes, &quarantine);
        let shared = join((config.host, config.namespace.as_ref()), &store, &owner).await?;
        let due = DueSagas::new(&store, weak, &live_bytes, owner.owned.subscribe());
        let loader = Arc::new(Loader::new(&store, &definitions, &keys));
        let eraser = Eraser::open(&store, &definitions, &keys).await?;
        // Before the workers run: an order from one saga to another must not overtake its recovery.
        owner.tick().await?;
        failpoint("runtime.recovery.read");
        begin_shared(&*store, shared.as_ref(), has_keys, turn).await?;
        let of = (&store, &definitions, &quarantine);
        let archiver = archiver_of(of, &plugins, config.retention, names);
        let access = access_of((config.access, config.namespace.as_ref()), &store).await?;
        let traces = config.traces.map(Traces::new);
        let mut idle = Vec::new();
        let inner = Arc::new_cyclic(|inner: &Weak<Inner>| {
            let sagas: Arc<dyn SagaPort> = Arc::new(WeakHost(inner.clone()));
            let incoming: Arc<dyn IncomingPort> = Arc::new(WeakHost(inner.clone()));
            let mut workers = Vec::new();
            for (number, (inbox, receiver)) in inboxes.into_iter().zip(receivers).enumerate() {
                let (starts, starts_receiver) = mpsc::channel(STARTS_WAITING_MAX / workers_count);
                let worker = Worker::new(WorkerConfig {
                    number,
                    health: store.maintenance().health(),
                    plugins: plugins.clone(),
                    breakers: Arc::clone(&breakers),
                    rooms: Arc::clone(&rooms),
                    sagas: Arc::clone(&sagas),
                    inbox: inbox.downgrade(),
                    workers: workers_count,
                    live_bytes: Arc::clone(&live_bytes),
                    quarantine: Arc::clone(&quarantine),
                    loader: Arc::clone(&loader),
                    faults: config.faults.clone(),
                    traces: traces.clone(),
                });
                idle.push((worker, receiver, starts_receiver));
                workers.push(WorkerHandle { inbox, starts });
            }
            Inner {
                definition_names: DefinitionNames::new(Arc::clone(&store)),
                subscriptions,
                schedules: Schedules::new(config.schedules),
                nats_sources: NatsSources::open(sources_of(&config.event_rules, &incoming)),
                event_rules: EventRules::new(config.event_rules),
                shared,
                store,
                plugins,
                definitions,
                workers,
                tasks: std::sync::Mutex::default(),
                breakers,
                rooms,
                quarantine,
                loader,
                live_bytes,
                order_bytes: Budget::new(ORDER_BYTES_WAITING_MAX),
                signal_bytes: Budget::new(SIGNAL_BYTES_WAITING_MAX),
                abandoned: Abandoned::default(),
                archiver,
                keys,
                eraser,
                rehearsals: Semaphore::new(REHEARSALS_MAX),
                access,
                evidence_key: config.evidence_key,
                traces,
                gauge_label: GaugeLabel::of(config.namespace),
                start_rate: config.starts.map(StartRate::new),
                stopping: AtomicBool::new(false),
            }
        });
        let runtime = Self { inner };
        let _ = event_port.set(Arc::new(WeakHost(Arc::downgrade(&runtime.inner))));
        runtime.run_workers(idle);
        runtime.begin(owner, due).await?;
        Ok(runtime)
    }

    /// Starts the workers, and keeps their tasks, which a stop waits for.
    fn run_workers(&self, idle: Vec<IdleWorker>) {
        let run =
            |(worker, receiver, starts): IdleWorker| tokio::spawn(worker.run(receiver, starts));
        let tasks = idle.into_iter().map(run).collect();
        *self.inner.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = tasks;
    }

    /// Begins what a host does by itself beside its sagas.
    async fn begin(&self, owner: Owner, due: DueSagas) -> Result<(), StoreError> {
        tokio::spawn(owner.run());
        tokio::spawn(due.run());
        if let Some(archiver) = &self.inner.archiver {
            tokio::spawn(archiver::run(Arc::downgrade(archiver), self.owned()));
        }
        tokio::spawn(erasure::run(Arc::downgrade(&self.inner.eraser), self.owned()));
        // Last: what replaces a component is held against the sagas that are live.
        let guard = WeakHost(Arc::downgrade(&self.inner));
        self.inner.plugins.watch(Some(Arc::new(guard))).await;
        self.begin_schedules().await
    }

    /// Starts a saga; answers when it is durable. With a key that was used with the same
    /// definition and input it answers the saga that it started then.
    ///
    /// # Errors
    /// When it was not started; see [`StartError`] for who can act.
    pub async fn start(
        &self,
        principal: &Principal,
        request: StartRequest,
    ) -> Result<Started, StartError> {
        authorize(principal, &Action::Start { definition: &request.definition });
        if let Some(shared) = &self.inner.shared {
            return self.start_at_owner(shared, principal, request).await;
        }
        let id = self.new_id(request.key.as_deref());
        self.start_as(self.start_of(principal, id, request)?).await
    }

    /// As [`Self::start`], on this host alone.
    ///
    /// # Errors
    /// As [`Self::start`]. [`StoreError::LostOwnership`] when another host owns the saga.
    pub async fn start_here(
        &self,
        principal: &Principal,
        request: StartRequest,
    ) -> Result<Started, StartError> {
        authorize(principal, &Action::Start { definition: &request.definition });
        let id = self.new_id(request.key.as_deref());
        self.start_as(self.start_of(principal, id, request)?).await
    }

    /// As [`Self::start_here`], and then as [`Self::wait`]: what that answers is beside what was
    /// started, so that a saga that was is told whatever becomes of waiting for it.
    ///
    /// # Errors
    /// When it was not started; see [`StartError`] for who can act.
    pub async fn start_and_wait(
        &self,
        principal: &Principal,
        request: StartRequest,
        timeout: Duration,
    ) -> Result<(Started, Result<Option<SagaState>, RuntimeError>), StartError> {
        authorize(principal, &Action::Start { definition: &request.definition });
        let (reply, rests) = oneshot::channel();
        let waiter = Waiter { reply, until_end: false };
        let id = self.new_id(request.key.as_deref());
        let mut start = self.start_of(principal, id, request)?;
        let seal = self.seal(&mut start).await?;
        let plain = plain_key(&start);
        let started = self.hand_in(start, seal, Some(waiter))?;
        let rested = tokio::time::timeout(timeout, rests).await;
        let started = started.await.unwrap_or(Err(StartError::Stopping));
        let started = self.started_in_clear(plain, started).await?;
        let found = match rested {
            Ok(Ok(state)) => Ok(Some(state)),
            Err(_) => self.state(started.id).await,
            // It was started earlier.
            Ok(Err(_)) => self.wait(started.id, timeout).await,
        };
        Ok((started, found))
    }

    fn start_of(
        &self,
        principal: &Principal,
        id: SagaId,
        request: StartRequest,
    ) -> Result<Start, StartError> {
        let definition = self
            .inner
            .definitions
            .named(&request.definition)
            .ok_or(StartError::DefinitionUnknown(request.definition))?;
        Ok(Start {
            id,
            definition: Arc::clone(definition),
            input: request.input,
            key: request.key,
            tags: request.tags,
            traceparent: request.traceparent,
            start_at: request.start_at,
            parent: None,
            sealed_key: None,
            who: self.has_access_control().then(|| principal.subject.clone()),
            personal: Vec::new(),
        })
    }

    /// Starts a saga with the id that it is given.
    pub(crate) async fn start_as(&self, mut start: Start) -> Result<Started, StartError> {
        let seal = self.seal(&mut start).await?;
        let plain = plain_key(&start);
        let started = self.hand_in(start, seal, None)?.await.unwrap_or(Err(StartError::Stopping));
        self.started_in_clear(plain, started).await
    }

    /// Looks once more at a key that seems to have started another saga: the saga may be from before its
    /// definition had a subject, so that its input was compared by a digest without a key.
    async fn started_in_clear(
        &self,
        plain: Option<StartKey>,
        started: Result<Started, StartError>,
    ) -> Result<Started, StartError> {
        let (Some(plain), Err(StartError::KeyReused(earlier))) = (plain, &started) else {
            return started;
        };
        let known = self.inner.store.sagas().key(plain.key).await?;
        if known == Some((*earlier, plain.payload_digest)) {
            return Ok(Started { id: *earlier, created: false });
        }
        started
    }

    fn hand_in(
        &self,
        start: Start,
        seal: Option<NewSeal>,
        waiter: Option<Waiter>,
    ) -> Result<oneshot::Receiver<Result<Started, StartError>>, StartError> {
        if self.is_stopping() {
            return Err(StartError::Stopping);
        }
        let worker = self.worker(start.id);
        let (reply, answer) = oneshot::channel();
        // What it will hold while it is appended: its input, once in the saga and once in the
        // event. From then on its worker accounts for it.
        let bytes = LIVE_BYTES_EACH + 2 * start.input.as_str().len();
        if start.parent.is_some() {
            let held = self.inner.live_bytes.hold(bytes);
            let message = Box::new(StartMessage { start, seal, held, reply, waiter });
            worker.inbox.send(Message::Start(message)).map_err(|_| StartError::Stopping)?;
            return Ok(answer);
        }
        if let Some(wait) = self.inner.start_rate.as_ref().and_then(StartRate::wait) {
            return Err(StartError::TooOften { wait });
        }
        let held = self
            .inner
            .live_bytes
            .try_hold(bytes)
            .ok_or(StartError::Overloaded("live sagas hold as many bytes as they may"))?;
        let message = StartMessage { start, seal, held, reply, waiter };
        worker.starts.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                StartError::Overloaded("too many sagas are being started")
            }
            mpsc::error::TrySendError::Closed(_) => StartError::Stopping,
        })?;
        Ok(answer)
    }

    /// The undos that a compensation of a saga would run now, in their order, and who would serve
    /// each. None when there is no such saga.
    ///
    /// # Errors
    /// When the store fails or the saga's log cannot be read.
    pub async fn undo_plan(&self, id: SagaId) -> Result<Option<Vec<Planned>>, RuntimeError> {
        let Some(state) = self.state(id).await? else { return Ok(None) };
        let mut plan = Vec::new();
        for undo in undo_plan(&state.saga) {
            let served = match &undo.plugin {
                Some(plugin) => {
                    let plugins = &self.inner.plugins;
                    undo_component(plugins, &state.saga, &undo, plugin).await
                }
                None => None,
            };
            let (digest, note) = served.unzip();
            plan.push(Planned { undo, digest, note: note.flatten() });
        }
        Ok(Some(plan))
    }

    /// The sagas that have not ended, page by page, as the store has them.
    pub(crate) fn live_pages(&self) -> LivePages {
        LivePages::new(&self.inner.loader)
    }

    pub(crate) fn abandoned(&self) -> &Abandoned {
        &self.inner.abandoned
    }

    /// The bytes that live sagas hold, of [`RuntimeConfig::live_bytes_max`]: it is past that when
    /// sagas of steps, or what calls answered, needed more.
    #[must_use]
    pub fn live_bytes(&self) -> usize {
        self.inner.live_bytes.used()
    }

    /// Sagas that have not moved for longer than they should.
    pub async fn stuck(&self) -> Vec<Stuck> {
        self.ask_workers(|reply| Message::Stuck { reply }).await.into_iter().flatten().collect()
    }

    async fn ask_workers<T>(&self, ask: impl Fn(oneshot::Sender<T>) -> Message) -> Vec<T> {
        let mut answers = Vec::new();
        for worker in &self.inner.workers {
            let (reply, answer) = oneshot::channel();
            if worker.inbox.send(ask(reply)).is_ok() {
                answers.extend(answer.await);
            }
        }
        answers
    }

    /// A saga as it is now, also when it is archived; none when there is no such saga.
    ///
    /// # Errors
    /// When the store fails or the saga's log cannot be read.
    pub async fn state(&self, id: SagaId) -> Result<Option<SagaState>, RuntimeError> {
        let (reply, answer) = oneshot::channel();
        self.send(id, Message::Read { id, reply })?;
        if let Ok(state) = answer.await {
            return Ok(Some(*state));
        }
        match self.load(id).await {
            Ok(Some(loaded)) => Ok(Some(loaded.into())),
            Ok(None) => match self.archived_state(id).await? {
                Some(archived) => Ok(Some(archived)),
                // It may have come back between the two looks.
                None => Ok(self.load(id).await?.map(SagaState::from)),
            },
            Err(error) => {
                if self.inner.loader.is_lost(id, &error).await {
                    // Its worker cannot read it either, and sets it aside.
                    let (reply, answer) = oneshot::channel();
                    self.send(id, Message::Due { ids: vec![id], reply })?;
                    let _ = answer.await;
                }
                Err(error)
            }
        }
    }

    /// Waits until a saga rests, ended or blocked; answers it as it then is, or as it is when
    /// `timeout` ends. None when there is no such saga. May be cancelled at any time.
    ///
    /// # Errors
    /// When the store fails or the saga's log cannot be read. [`StoreError::LostOwnership`] when another host
    /// owns the saga, or comes to own it meanwhile.
    pub async fn wait(
        &self,
        id: SagaId,
        timeout: Duration,
    ) -> Result<Option<SagaState>, RuntimeError> {
        let (reply, answer) = oneshot::channel();
        self.send(id, Message::Wait { id, waiter: Waiter { reply, until_end: false } })?;
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(state)) => Ok(Some(state)),
            Ok(Err(_)) if !self.is_here(id) => match self.state(id).await? {
                // Its owner goes on with it.
                Some(state) if !state.saga.has_ended() => {
                    Err(StoreError::LostOwnership(ShardId::of(id)).into())
                }
                ended => Ok(ended),
            },
            Ok(Err(_)) | Err(_) => self.state(id).await,
        }
    }

    /// Returns the names by which sagas of the definitions in force are found.
    #[must_use]
    pub fn index_names(&self) -> BTreeSet<IndexName> {
        self.definitions().flat_map(|definition| definition.index_names().cloned()).collect()
    }

    /// Returns the definitions in force, by name.
    pub fn definitions(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.inner.definitions.current()
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.inner.plugins
    }

    pub(crate) fn rehearsals(&self) -> &Semaphore {
        &self.inner.rehearsals
    }

    /// Sagas that could not be read or stepped and that nothing touches, until an operator resumes
    /// them.
    #[must_use]
    pub fn quarantined(&self) -> Vec<Quarantined> {
        self.inner.quarantine.list()
    }

    /// Why a saga is quarantined, if it is.
    #[must_use]
    pub fn quarantine_reason(&self, id: SagaId) -> Option<String> {
        self.inner.quarantine.reason(id)
    }

    /// Whether every worker still runs.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        // A worker ends when it is told to, or when it panics.
        let tasks = self.inner.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        !tasks.iter().any(JoinHandle::is_finished)
    }

    /// Returns the name of the namespace whose sagas the host runs.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.inner.gauge_label.namespace()
    }

    /// Whether [`Self::stop`] was called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.inner.stopping.load(Ordering::Acquire)
    }

    /// Brings the gauges up to date; called before metrics are read.
    pub async fn refresh_gauges(&self) {
        let mut total = Gauges::default();
        for gauges in self.ask_workers(|reply| Message::Gauges { reply }).await {
            total.add(gauges);
        }
        let oldest_live = self.inner.store.sagas().oldest_live().await.ok();
        let oldest_live = oldest_live
            .map(|oldest| oldest.map_or(Duration::ZERO, |(_, started_at)| now().since(started_at)));
        let host = HostGauges {
            rooms: self.inner.rooms.keys(),
            oldest_live,
            in_flight: self.inner.rooms.in_flight(),
            guest_bytes: self.inner.plugins.memory_used(),
            live_bytes: self.live_bytes(),
            waiting: self.inner.store.sagas().count_waiting().await.ok(),
            quarantined: self.inner.quarantine.count(),
            components: self.inner.plugins.components_loaded(),
            shards: self
                .owned()
                .map_or_else(|| ShardId::all().count(), |owned| owned.borrow().len()),
            breakers: self.inner.breakers.gauges(),
            oldest_ended: self.inner.archiver.as_ref().and_then(|archiver| {
                *archiver.oldest_ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
            }),
            store: self.stats(),
        };
        crate::gauges::set(&self.inner.gauge_label, &total, &host);
        self.inner.subscriptions.refresh_gauges(&self.inner.gauge_label.labels());
    }

    /// Stops: no new sagas and no new calls; what is in flight may settle for up to `limit`.
    /// Answers how many calls were cut off; their outcome is unknown at the next start.
    pub async fn stop(&self, limit: Duration) -> usize {
        self.inner.stopping.store(true, Ordering::Release);
        if let Some(archiver) = &self.inner.archiver {
            archiver.is_stopping.store(true, Ordering::Release);
        }
        self.inner.eraser.is_stopping.store(true, Ordering::Release);
        let mut answers = Vec::new();
        for worker in &self.inner.workers {
            let (reply, answer) = oneshot::channel();
            let _ = worker.inbox.send(Message::Stop { limit, reply });
            answers.push(answer);
        }
        failpoint("runtime.stop.told");
        let mut cut_off = 0;
        for answer in answers {
            cut_off += answer.await.unwrap_or(0);
        }
        let tasks = std::mem::take(
            &mut *self.inner.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        for task in tasks {
            let _ = task.await;
        }
        self.inner.nats_sources.stop().await;
        self.inner.subscriptions.stop().await;
        failpoint("runtime.stop.done");
        cut_off
    }

    /// Closes the host: what follows the plugins, and the store. Once this has resolved, the store can
    /// be opened again. A host that was not stopped stops first, and calls in flight are cut off.
    ///
    /// # Errors
    /// When the store fails to write what was queued before.
    pub async fn close(&self) -> Result<(), StoreError> {
        if !self.is_stopping() {
            self.stop(Duration::ZERO).await;
        }
        if let Some(access) = &self.inner.access {
            access.audit.record_refused().await;
        }
        self.inner.plugins.close().await;
        let closed = self.inner.store.close().await;
        if let Some(traces) = &self.inner.traces {
            traces.close().await;
        }
        closed
    }

    /// Returns the definition that a saga is pinned to; none when there is no such saga. A saga in
    /// quarantine has one too.
    ///
    /// # Errors
    /// When the store fails, or has lost the definition.
    pub async fn definition_of(&self, id: SagaId) -> Result<Option<Arc<Definition>>, RuntimeError> {
        let store = &*self.inner.store;
        let row = match store.sagas().row(id).await? {
            Some(row) => Some(row),
            None => store.archive().read(id).await?.map(|archived| archived.row),
        };
        let Some(row) = row else { return Ok(None) };
        self.pinned(&row).await.map(Some)
    }

    /// Reads a saga from its log in the store; none when it is not there.
    pub(super) async fn load(&self, id: SagaId) -> Result<Option<Loaded>, RuntimeError> {
        let store = &*self.inner.store;
        let Some(row) = store.sagas().row(id).await? else { return Ok(None) };
        let definition =
            self.inner.definitions.pinned(row.id, row.definition_digest, store).await?;
        let stream = || Stream::Saga(row.id);
        let first = store.log().stream(stream(), Version(0), EVENTS_PER_READ).await?;
        if first.is_empty() && store.archive().tombstone(id).await?.is_some() {
            return Ok(None);
        }
        let (opened, key) = open_log(&self.inner.keys, row.id, &first).await?;
        let mut saga = recovery::replay(row.id, definition, &opened)?;
        let mut last_at = recovery::last_at(saga.started_at(), &first);
        loop {
            let page = store.log().stream(stream(), saga.version(), EVENTS_PER_READ).await?;
            if page.is_empty() {
                // It may have been archived between two pages.
                let is_whole = store.archive().tombstone(id).await?.is_none();
                let row = RowState::from(&row);
                return Ok(is_whole.then_some(Loaded { saga, last_at, row, key }));
            }
            last_at = recovery::last_at(last_at, &page);
            let page = match &saga.started().sealed_key {
                Some(_) => open_page(row.id, page, key.as_ref()),
                None => page,
            };
            recovery::go_on(&mut saga, &page)?;
        }
    }

    fn send(&self, id: SagaId, message: Message) -> Result<(), RuntimeError> {
        self.worker(id).inbox.send(message).map_err(|_| RuntimeError::Stopping)
    }

    fn worker(&self, id: SagaId) -> &WorkerHandle {
        &self.inner.workers[worker_of(ShardId::of(id), self.inner.workers.len())]
    }
}

/// Until the store is closed or the host is gone.
async fn tell_when_store_works(
    mut health: watch::Receiver<StoreHealth>,
    inboxes: Vec<mpsc::WeakUnboundedSender<Message>>,
) {
    while health.changed().await.is_ok() {
        if !matches!(*health.borrow_and_update(), StoreHealth::Well) {
            continue;
        }
        for inbox in &inboxes {
            let Some(inbox) = inbox.upgrade() else { return };
            let _ = inbox.send(Message::StoreWorks);
        }
    }
}

/// What moves sagas to the archive; none without retention.
fn archiver_of(
    (store, definitions, quarantine): (&Arc<dyn Store>, &Arc<Definitions>, &Arc<Quarantine>),
    plugins: &Registry,
    retention: Option<Retention>,
    subscriptions: Vec<String>,
) -> Option<Arc<Archiver>> {
    let of = (Arc::clone(store), Arc::clone(definitions), Arc::clone(quarantine));
    Some(Arc::new(Archiver::new(of, plugins.clone(), retention?, subscriptions)))
}

/// Tells a store that other hosts use who this host is.
async fn join(
    (me, namespace): (Option<HostInfo>, Option<&NamespaceName>),
    store: &Arc<dyn Store>,
    owner: &Owner,
) -> Result<Option<Shared>, StoreError> {
    let Some(me) = me else { return Ok(None) };
    store.ownership().join(me.clone());
    let peers = Peers::open(me, namespace.cloned(), Arc::clone(store)).await?;
    Ok(Some(Shared { peers, owned: owner.owned.subscribe() }))
}

/// Reads the tokens and finds the end of the audit, on a host with access control. The tokens of all namespaces are
/// in the store of `default`.
async fn access_of(
    (settings, namespace): (Option<AccessSettings>, Option<&NamespaceName>),
    store: &Arc<dyn Store>,
) -> Result<Option<Arc<Access>>, StoreError> {
    let Some(settings) = settings else { return Ok(None) };
    let access = Access::open(settings, Arc::clone(store)).await?;
    if namespace.is_none() && !access.is_administered() {
        tracing::warn!("no token may make other tokens: set admin_token in [auth] of the config");
    }
    Ok(Some(access))
}

/// Begins what a host does in turn with others, once it knows them.
async fn begin_shared(
    store: &dyn Store,
    shared: Option<&Shared>,
    has_keys: bool,
    turn: watch::Sender<bool>,
) -> Result<(), RuntimeError> {
    if shared.is_some() {
        personal_alone::check(store, has_keys).await?;
    }
    tokio::spawn(take_turns(turn, shared.map(|shared| shared.owned.clone())));
    Ok(())
}

/// Tells the subscriptions whether this host delivers them. Until it stops.
async fn take_turns(turn: watch::Sender<bool>, owned: Option<watch::Receiver<Vec<ShardId>>>) {
    if let Some(mut owned) = owned {
        loop {
            let has_turn = owned.borrow_and_update().contains(&ShardId::LEADER);
            turn.send_replace(has_turn);
            if owned.changed().await.is_err() {
                break;
            }
        }
    }
    // Until nobody waits for a turn any more.
    turn.closed().await;
}

/// The inboxes of all workers.
#[derive(Debug)]
struct WakeWorkers(Vec<mpsc::WeakUnboundedSender<Message>>);

impl WakeWorkers {
    fn tell(&self, numbers: u64, message: impl Fn() -> Message) {
        for (number, inbox) in self.0.iter().enumerate() {
            if numbers >> (number % 64) & 1 == 1
                && let Some(inbox) = inbox.upgrade()
            {
                let _ = inbox.send(message());
            }
        }
    }
}

impl Wake for WakeWorkers {
    fn room(&self, workers: u64, key: &RoomKey) {
        self.tell(workers, || Message::Room(key.clone()));
    }

    fn breaker_has_changed(&self, service: &ServiceName) {
        self.tell(u64::MAX, || Message::BreakerHasChanged(service.clone()));
    }

    fn trial_is_free(&self, service: &ServiceName) {
        self.tell(u64::MAX, || Message::TrialIsFree(service.clone()));
    }
}

/// The host, for what runs inside of it and must not keep it alive.
#[derive(Debug)]
pub(crate) struct WeakHost(Weak<Inner>);

impl WeakHost {
    /// The host; none when it is gone.
    pub(crate) fn host(&self) -> Option<Host> {
        Some(Host { inner: self.0.upgrade()? })
    }
}
