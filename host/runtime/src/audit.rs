//! The audit: who asked this host for a change, and what became of it.
//!
//! Each entry is an event of one stream that all hosts of the store share, and a link of a chain: see
//! [`AuditCheck`]. One task of a host writes, so that entries that come together share a transaction. When another
//! host was first, the task reads what that host wrote and continues the chain there.
//!
//! Requests without a token that counts are counted in memory and recorded each minute, because anybody can send
//! as many as they like.
//!
//! Deliberately absent: which requests are recorded. The API knows, by its document.

mod chain;
mod fact;
mod refused;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use amends_engine::{Timestamp, Version};
use amends_registry::now;
use amends_store::{Append, NewEvent, PageBudget, Store, StoreError, StoredEvent, Stream};
use serde::Serialize;
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

pub use chain::{AuditCheck, check_audit};
pub use fact::{AuditEntry, AuditEvent, AuditFact, AuditRecorded, AuditRefused};

use crate::audit::chain::ChainEnd;
use crate::audit::fact::{RECORDED, REFUSED};
use crate::audit::refused::RefusedCounts;

/// The most bytes of the path and the query of a request that an entry has.
pub const AUDIT_TARGET_BYTES_MAX: usize = 2_048;

/// Entries that wait to be written. Whoever brings more waits for room.
const AUDIT_ENTRIES_WAITING_MAX: usize = 1_024;

/// Entries of one append.
const ENTRIES_PER_APPEND: usize = 256;

/// How often entries are appended again because another host wrote before them. Each time, that host has recorded
/// something.
const APPEND_TRIES_MAX: u32 = 100;

/// How often refused requests are recorded.
const AUDIT_REFUSED_PAUSE: Duration = Duration::from_mins(1);

/// Events of the stream that are read at once.
const EVENTS_PER_READ: PageBudget = PageBudget::items(1_000);

/// The reason why the audit cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The host has no access control.
    #[error("this host has no access control, so it does not record who asks for what")]
    Off,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The data of an event before it has its place in the chain.
#[derive(Debug)]
struct Open {
    kind: &'static str,
    /// JSON whose last field is an empty `chain`.
    data: String,
}

impl Open {
    fn new(kind: &'static str, fact: &impl Serialize) -> Self {
        // Every field is a text, a number, or a list of texts.
        Self { kind, data: serde_json::to_string(fact).unwrap_or_default() }
    }
}

/// An entry that waits to be written.
#[derive(Debug)]
struct Waiting {
    entry: Open,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

/// The audit of a host.
pub(crate) struct Audit {
    store: Arc<dyn Store>,
    entries: mpsc::Sender<Waiting>,
    refused: Mutex<RefusedCounts>,
    /// The end of the stream as far as this host knows it. Held by whoever reads on or writes.
    end: AsyncMutex<ChainEnd>,
}

impl Audit {
    /// Finds the end of the stream of a store, and begins to write.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn open(store: Arc<dyn Store>) -> Result<Arc<Self>, StoreError> {
        let last = last_event(&*store).await?;
        let end = AsyncMutex::new(last.as_ref().map(ChainEnd::of).unwrap_or_default());
        let (entries, waiting) = mpsc::channel(AUDIT_ENTRIES_WAITING_MAX);
        let audit = Arc::new(Self { store, entries, refused: Mutex::default(), end });
        tokio::spawn(write(Arc::downgrade(&audit), waiting));
        Ok(audit)
    }

    /// Records an entry. Returns when it is durable. May be cancelled: then the entry may be recorded.
    ///
    /// # Errors
    /// When the store fails. The entry is not recorded then.
    pub(crate) async fn record(&self, mut entry: AuditEntry) -> Result<(), StoreError> {
        shorten(&mut entry.target);
        let recorded = AuditRecorded { entry, at: now(), chain: String::new() };
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { entry: Open::new(RECORDED, &recorded), reply };
        self.entries.send(waiting).await.map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Counts a request that was refused because no token that counts came with it.
    pub(crate) fn count_refused(&self, address: IpAddr, code: &str) {
        self.refused().count(address, code, now());
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, RefusedCounts> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the requests that were counted. When that fails, they stay counted.
    pub(crate) async fn record_refused(&self) {
        let refused = self.refused().take(now());
        if refused.is_empty() {
            return;
        }
        let entries: Vec<_> = refused.iter().map(|one| Open::new(REFUSED, one)).collect();
        if let Err(error) = self.append(&entries).await {
            tracing::error!(%error, "refused requests are not in the audit yet");
            self.refused().put_back(refused);
        }
    }

    /// Returns the events after a version, or the last ones when there is none: at most `limit`, the oldest first.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn list(
        &self,
        after: Option<Version>,
        limit: u32,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let after = if let Some(after) = after {
            after
        } else {
            let mut end = self.end.lock().await;
            self.read_on(&mut end).await?;
            Version(end.version.0.saturating_sub(u64::from(limit)))
        };
        let page = self.store.log().stream(Stream::Audit, after, PageBudget::items(limit)).await?;
        Ok(page.into_iter().map(AuditEvent::read).collect())
    }

    /// Returns the version of the last entry that is older than this; 0 when there is none. The clocks of hosts
    /// differ a little, so entries of about this time may be on either side.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn version_before(&self, at: Timestamp) -> Result<Version, StoreError> {
        // The entry `low` is older, or 0. The one after `high` is not, or does not exist.
        let (mut low, mut high) = (0, last_event(&*self.store).await?.map_or(0, |it| it.version.0));
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            match next_event(&*self.store, middle - 1).await? {
                Some(event) if event.at < at => low = event.version.0,
                Some(_) | None => high = middle - 1,
            }
        }
        Ok(Version(low))
    }

    /// Appends entries after what any host has written.
    async fn append(&self, entries: &[Open]) -> Result<(), StoreError> {
        let mut end = self.end.lock().await;
        let mut tries = 0;
        loop {
            let mut next = end.clone();
            let events = entries
                .iter()
                .map(|Open { kind, data }| NewEvent { kind: (*kind).into(), data: next.add(data) })
                .collect();
            let append = Append::shared(Stream::Audit, end.version, now(), events);
            match self.store.log().append_shared(append).await {
                Ok(_) => {
                    *end = next;
                    return Ok(());
                }
                Err(StoreError::Conflict { .. }) if tries < APPEND_TRIES_MAX => {
                    tries += 1;
                    self.read_on(&mut end).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what other hosts have written since.
    async fn read_on(&self, end: &mut ChainEnd) -> Result<(), StoreError> {
        loop {
            let log = self.store.log();
            let page = log.stream(Stream::Audit, end.version, EVENTS_PER_READ).await?;
            let Some(last) = page.last() else { return Ok(()) };
            *end = ChainEnd::of(last);
        }
    }
}

/// Writes the entries as they come, until the host is gone.
async fn write(audit: Weak<Audit>, mut waiting: mpsc::Receiver<Waiting>) {
    let first = Instant::now() + AUDIT_REFUSED_PAUSE;
    let mut tick = tokio::time::interval_at(first, AUDIT_REFUSED_PAUSE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut taken = Vec::new();
    loop {
        let is_tick = tokio::select! {
            count = waiting.recv_many(&mut taken, ENTRIES_PER_APPEND) => {
                if count == 0 {
                    return;
                }
                false
            }
            _ = tick.tick() => true,
        };
        let Some(audit) = audit.upgrade() else { return };
        if is_tick {
            audit.record_refused().await;
            continue;
        }
        let (entries, replies): (Vec<_>, Vec<_>) =
            taken.drain(..).map(|Waiting { entry, reply }| (entry, reply)).unzip();
        let written = audit.append(&entries).await;
        for reply in replies {
            // Whoever has gone does not need to know.
            let _ = reply.send(written.clone());
        }
    }
}

/// Finds the last event of the stream without reading all of them: there may be years of them.
async fn last_event(store: &dyn Store) -> Result<Option<StoredEvent>, StoreError> {
    // The last version is in `low..=high`, once nothing comes after `high`.
    let (mut low, mut step) = (0, 1);
    while next_event(store, low + step).await?.is_some() {
        low += step;
        step *= 2;
    }
    let mut high = low + step;
    while low < high {
        let middle = low + (high - low) / 2;
        match next_event(store, middle).await? {
            Some(event) => low = event.version.0,
            None => high = middle,
        }
    }
    match low.checked_sub(1) {
        Some(before) => next_event(store, before).await,
        None => Ok(None),
    }
}

async fn next_event(store: &dyn Store, after: u64) -> Result<Option<StoredEvent>, StoreError> {
    let page = store.log().stream(Stream::Audit, Version(after), PageBudget::items(1)).await?;
    Ok(page.into_iter().next())
}

/// Shortens the target of a request.
fn shorten(target: &mut String) {
    const ELLIPSIS: char = '…';
    if target.len() <= AUDIT_TARGET_BYTES_MAX {
        return;
    }
    let kept = target.floor_char_boundary(AUDIT_TARGET_BYTES_MAX - ELLIPSIS.len_utf8());
    target.truncate(kept);
    target.push(ELLIPSIS);
}

#[cfg(test)]
mod tests;
