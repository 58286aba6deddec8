//! Writes the changes of this host's breakers to the store, and reads the changes that other hosts wrote.
//!
//! The last event of a service's stream is the state of its breaker. A change that this host has decided
//! and not yet written will follow that event. So such a change takes precedence over the events read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use amends_engine::{ServiceName, Version};
use amends_store::{Append, Appended, Cursor, PageBudget, Store, StoreError, StoredEvent, Stream};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::breaker::{Breaker, State};
use super::record::{CLOSED, Entry, OPENED};
use crate::ports::Wake;

/// How often the streams are read. A read finds nothing nearly always, by an index.
const FOLLOW_PAUSE: Duration = Duration::from_secs(1);

/// Events of a service's stream that are read at once.
const EVENTS_PER_READ: PageBudget = PageBudget::items(1_000);

pub(super) struct Follower {
    store: Arc<dyn Store>,
    /// Told when the breaker of a service was closed by another host.
    wake: Arc<dyn Wake>,
    all: Arc<BTreeMap<ServiceName, Mutex<Breaker>>>,
    /// How far each stream is known.
    versions: BTreeMap<ServiceName, Version>,
    head: watch::Receiver<Cursor>,
    /// Where the log ended when all streams were read.
    read_at: Option<Cursor>,
}

impl Follower {
    /// Reads where each breaker was left.
    pub(super) async fn open(
        store: Arc<dyn Store>,
        wake: Arc<dyn Wake>,
        all: Arc<BTreeMap<ServiceName, Mutex<Breaker>>>,
    ) -> Result<Self, StoreError> {
        let versions = all.keys().map(|service| (service.clone(), Version(0))).collect();
        let head = store.log().head();
        let mut this = Self { store, wake, all, versions, head, read_at: None };
        this.read_all().await?;
        Ok(this)
    }

    /// Until nobody has anything to write any more: the host is gone.
    pub(super) async fn run(mut self, mut entries: mpsc::UnboundedReceiver<Entry>) {
        let mut tick = tokio::time::interval(FOLLOW_PAUSE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                biased;
                entry = entries.recv() => match entry {
                    Some(entry) => self.write(entry).await,
                    None => return,
                },
                _ = tick.tick() => self.read_news().await,
            };
            match done {
                Ok(()) => {}
                Err(StoreError::Closed) => return,
                Err(error) if error.is_fatal() => return,
                // Tried again at the next tick.
                Err(error) => tracing::debug!(%error, "breakers cannot be read"),
            }
        }
    }

    /// Reads the streams when anything was written since they were read last.
    async fn read_news(&mut self) -> Result<(), StoreError> {
        let head = *self.head.borrow_and_update();
        if self.read_at == Some(head) {
            return Ok(());
        }
        self.read_all().await?;
        self.read_at = Some(head);
        Ok(())
    }

    async fn read_all(&mut self) -> Result<(), StoreError> {
        for service in Arc::clone(&self.all).keys() {
            self.read(service).await?;
        }
        Ok(())
    }

    async fn read(&mut self, service: &ServiceName) -> Result<(), StoreError> {
        let version = self.versions.entry(service.clone()).or_default();
        let mut last = None;
        loop {
            let stream = Stream::Service(service.clone());
            let events = self.store.log().stream(stream, *version, EVENTS_PER_READ).await?;
            let Some(event) = events.last() else { break };
            *version = event.version;
            // What cannot be read says nothing: the breaker is as the event before it has it.
            let says = |event: &StoredEvent| [OPENED, CLOSED].contains(&event.kind.as_str());
            last = events.into_iter().rfind(says).or(last);
        }
        let (Some(event), Some(breaker)) = (last, self.all.get(service)) else { return Ok(()) };
        let is_to_tell = {
            let mut breaker = breaker.lock().unwrap_or_else(PoisonError::into_inner);
            if breaker.unwritten > 0 {
                return Ok(());
            }
            let before = breaker.state;
            breaker.remember(&event);
            // Of one that opened by itself, each finds out when it tries again.
            breaker.state != before && matches!(breaker.state, State::Closed | State::Held { .. })
        };
        tracing::debug!(%service, event = event.kind, "breaker is as its stream says");
        if is_to_tell {
            self.wake.breaker_has_changed(service);
        }
        Ok(())
    }

    /// One that cannot be written is tried until it can: calls go on meanwhile, on what is in
    /// memory.
    async fn write(&mut self, entry: Entry) -> Result<(), StoreError> {
        let Entry { service, at, event, told } = entry;
        let mut told = Some(told);
        let mut tell = |result| {
            if let Some(told) = told.take() {
                let _ = told.send(result);
            }
        };
        let version = self.versions.entry(service.clone()).or_default();
        loop {
            let stream = Stream::Service(service.clone());
            let append = Append::shared(stream, *version, at, vec![event.clone()]);
            match self.store.log().append_shared(append).await {
                Ok(Appended::Done { version: written, .. }) => {
                    *version = written;
                    tell(Ok(()));
                    break;
                }
                // These are of starts.
                Ok(
                    Appended::Duplicate(_)
                    | Appended::KeyReused(_)
                    | Appended::StateChanged(_)
                    | Appended::StateFull(_),
                ) => break,
                // Another host wrote; this one's event comes after that, so it is not read.
                Err(StoreError::Conflict { actual, .. }) => *version = actual,
                // The same the next time, and the events of other services wait.
                Err(error @ (StoreError::Invalid(_) | StoreError::Damaged { .. })) => {
                    tracing::error!(%service, %error, "breaker event is not recorded");
                    tell(Err(error));
                    break;
                }
                Err(error @ StoreError::Closed) => return Err(error),
                Err(error) if error.is_fatal() => return Err(error),
                // The store says what is wrong with it.
                Err(error) => {
                    tracing::debug!(%service, %error, "breaker event cannot be written yet");
                    let pause = error.retry_after();
                    tell(Err(error));
                    tokio::time::sleep(pause).await;
                }
            }
        }
        if let Some(breaker) = self.all.get(&service) {
            breaker.lock().unwrap_or_else(PoisonError::into_inner).unwritten -= 1;
        }
        Ok(())
    }
}
