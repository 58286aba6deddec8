//! The handle: what the API and the command line ask of a host.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use amends_engine::{Definition, Payload, Saga, SagaId, SagaStatus, Start};
use amends_plugins::PluginHost;
use amends_store::{SagaRow, Store, Stream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::definitions::Definitions;
use crate::error::{CancelError, RuntimeError, StartError};
use crate::limits::{EVENTS_PER_READ, STARTS_WAITING_MAX};
use crate::live::StallReason;
use crate::recovery::{self, Quarantined};
use crate::shard::{Gauges, Message, Shard, ShardConfig, StartMessage};

/// How a host is set up.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Shards, each a task: about one a core.
    pub shards: usize,
    /// The plugin folder, for messages.
    pub plugins_dir: PathBuf,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        let shards = std::thread::available_parallelism().map_or(1, usize::from);
        Self { shards, plugins_dir: PathBuf::new() }
    }
}

/// A saga to start.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// The name of a definition.
    pub definition: String,
    /// What it is given.
    pub input: Payload,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// For finding it.
    pub tags: BTreeMap<String, String>,
    /// The caller's trace context (W3C), kept and handed to every call.
    pub traceparent: Option<String>,
}

/// A saga that was started, now or earlier with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Its id.
    pub id: SagaId,
    /// Whether this request started it.
    pub created: bool,
}

/// A saga as a reader sees it.
#[derive(Debug, Clone)]
pub struct State {
    /// The saga.
    pub saga: Saga,
    /// What holds it back, outside its events.
    pub stall: Option<StallReason>,
}

/// A running host. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    plugins: PluginHost,
    definitions: Arc<Definitions>,
    shards: Vec<ShardHandle>,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
    quarantined: Vec<Quarantined>,
    stopping: AtomicBool,
}

struct ShardHandle {
    inbox: mpsc::UnboundedSender<Message>,
    starts: mpsc::Sender<StartMessage>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Checks that every definition has its plugins, recovers what is live, and goes on with it.
    ///
    /// # Errors
    /// When a plugin is missing or does not do what a definition wants, or the store fails.
    pub async fn open(
        config: RuntimeConfig,
        store: Arc<dyn Store>,
        plugins: PluginHost,
        definitions: Vec<Definition>,
    ) -> Result<Self, RuntimeError> {
        recovery::check_plugins(&definitions, &plugins, &config.plugins_dir)?;
        let definitions = Arc::new(Definitions::publish(definitions, &*store).await?);
        let live_total = Arc::new(AtomicUsize::new(0));
        let shards_count = config.shards.max(1);
        let (mut shards, mut tasks) = (Vec::new(), Vec::new());
        for number in 0..shards_count {
            let (inbox, inbox_receiver) = mpsc::unbounded_channel();
            let (starts, starts_receiver) = mpsc::channel(STARTS_WAITING_MAX / shards_count);
            let shard = Shard::new(ShardConfig {
                number,
                shards: shards_count,
                store: Arc::clone(&store),
                plugins: plugins.clone(),
                inbox: inbox.downgrade(),
                live_total: Arc::clone(&live_total),
            });
            tasks.push(tokio::spawn(shard.run(inbox_receiver, starts_receiver)));
            shards.push(ShardHandle { inbox, starts });
        }
        let recovered = recovery::recover(&*store, &definitions).await?;
        for saga in recovered.sagas {
            let shard = &shards[shard_of(saga.id(), shards_count)];
            let _ = shard.inbox.send(Message::Recover { saga: Box::new(saga) });
        }
        let inner = Inner {
            store,
            plugins,
            definitions,
            shards,
            tasks: std::sync::Mutex::new(tasks),
            quarantined: recovered.quarantined,
            stopping: AtomicBool::new(false),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts a saga; answers when it is durable. With a key that was used with the same
    /// definition and input it answers the saga that it started then.
    ///
    /// # Errors
    /// When it was not started; see [`StartError`] for who can act.
    pub async fn start(&self, request: StartRequest) -> Result<Started, StartError> {
        if self.is_stopping() {
            return Err(StartError::Stopping);
        }
        let definition = self
            .inner
            .definitions
            .named(&request.definition)
            .ok_or(StartError::DefinitionUnknown(request.definition))?;
        let id = SagaId::from_bytes(*Uuid::now_v7().as_bytes());
        let start = Start {
            id,
            definition: Arc::clone(definition),
            input: request.input,
            key: request.key,
            tags: request.tags,
            traceparent: request.traceparent,
        };
        let (reply, answer) = oneshot::channel();
        let message = StartMessage { start, reply };
        self.shard(id).starts.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                StartError::Overloaded("too many sagas are being started")
            }
            mpsc::error::TrySendError::Closed(_) => StartError::Stopping,
        })?;
        answer.await.unwrap_or(Err(StartError::Stopping))
    }

    /// Asks for a saga to be undone; answers when the wish is durable. Asking again does nothing.
    ///
    /// # Errors
    /// When there is no such saga or it cannot be cancelled any more.
    pub async fn cancel(
        &self,
        id: SagaId,
        who: String,
        reason: String,
    ) -> Result<State, CancelError> {
        let (reply, answer) = oneshot::channel();
        self.send(id, Message::Cancel { id, who, reason, reply })?;
        if let Ok(result) = answer.await {
            return result.map(|saga| State { saga, stall: None });
        }
        // Not live: it has ended, or was never there.
        let state = self.state(id).await?.ok_or(CancelError::NotFound(id))?;
        amends_engine::permits_cancel(&state.saga)?;
        Ok(state)
    }

    /// A saga as it is now; none when there is no such saga.
    ///
    /// # Errors
    /// When the store fails or the saga's log cannot be read.
    pub async fn state(&self, id: SagaId) -> Result<Option<State>, RuntimeError> {
        let (reply, answer) = oneshot::channel();
        self.send(id, Message::Read { id, reply })?;
        if let Ok(state) = answer.await {
            return Ok(Some(*state));
        }
        let Some(row) = self.inner.store.saga(id).await? else { return Ok(None) };
        let saga = self.load(&row).await?;
        Ok(Some(State { saga, stall: None }))
    }

    /// Waits until a saga rests, ended or blocked; answers it as it then is, or as it is when
    /// `timeout` ends. None when there is no such saga. May be cancelled at any time.
    ///
    /// # Errors
    /// When the store fails or the saga's log cannot be read.
    pub async fn wait(&self, id: SagaId, timeout: Duration) -> Result<Option<State>, RuntimeError> {
        let (reply, answer) = oneshot::channel();
        self.send(id, Message::Wait { id, reply })?;
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(saga)) => Ok(Some(State { saga, stall: None })),
            Ok(Err(_)) | Err(_) => self.state(id).await,
        }
    }

    /// The definitions in force.
    #[must_use]
    pub fn definitions(&self) -> &Definitions {
        &self.inner.definitions
    }

    /// The store, to read from.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// The plugin host.
    #[must_use]
    pub fn plugins(&self) -> &PluginHost {
        &self.inner.plugins
    }

    /// Sagas that could not be read at the start and that nothing touches.
    #[must_use]
    pub fn quarantined(&self) -> &[Quarantined] {
        &self.inner.quarantined
    }

    /// Whether [`Self::stop`] was called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.inner.stopping.load(Ordering::Acquire)
    }

    /// Brings the gauges up to date; called before metrics are read.
    pub async fn refresh_gauges(&self) {
        let mut total = Gauges::default();
        for shard in &self.inner.shards {
            let (reply, answer) = oneshot::channel();
            if shard.inbox.send(Message::Gauges { reply }).is_ok()
                && let Ok(gauges) = answer.await
            {
                total.add(gauges);
            }
        }
        crate::gauges::set(&total);
    }

    /// Stops: no new sagas and no new calls; what is in flight may settle for up to `limit`.
    /// Answers how many calls were cut off; their outcome is unknown at the next start.
    pub async fn stop(&self, limit: Duration) -> usize {
        self.inner.stopping.store(true, Ordering::Release);
        let mut answers = Vec::new();
        for shard in &self.inner.shards {
            let (reply, answer) = oneshot::channel();
            let _ = shard.inbox.send(Message::Stop { limit, reply });
            answers.push(answer);
        }
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
        cut_off
    }

    async fn load(&self, row: &SagaRow) -> Result<Saga, RuntimeError> {
        let store = &*self.inner.store;
        let definition =
            self.inner.definitions.pinned(row.id, row.definition_digest, store).await?;
        let mut log = Vec::new();
        loop {
            let after = amends_engine::Version(log.len() as u64);
            let page = store.events(Stream::Saga(row.id), after, EVENTS_PER_READ).await?;
            let full = page.len() == EVENTS_PER_READ as usize;
            log.extend(page);
            if !full {
                return recovery::replay(row.id, definition, &log);
            }
        }
    }

    fn send(&self, id: SagaId, message: Message) -> Result<(), RuntimeError> {
        self.shard(id).inbox.send(message).map_err(|_| RuntimeError::Stopping)
    }

    fn shard(&self, id: SagaId) -> &ShardHandle {
        &self.inner.shards[shard_of(id, self.inner.shards.len())]
    }
}

/// Whether nothing will happen without an operator.
pub(crate) fn rests(status: SagaStatus) -> bool {
    status.is_end() || status == SagaStatus::Blocked
}

/// By the random end of the id: its beginning is the time.
fn shard_of(id: SagaId, shards: usize) -> usize {
    let bytes = id.as_bytes();
    usize::from(u16::from_be_bytes([bytes[14], bytes[15]])) % shards
}
