//! Erases the personal values of subjects: at once where nothing may need them any more, and of the other
//! sagas when they can no longer be undone.
//!
//! What is to be done is in the key file, so a crash at any moment leaves either the key of the subject
//! or the data keys of the sagas that may still be undone. A host that starts goes on with it.
//!
//! Deliberately absent: rewriting of events. What is sealed stays where it is, and nothing opens it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use amends_engine::{Event, SagaEvent, SagaId, SagaStatus, SubjectKeyId, Timestamp, Version};
use amends_failpoint::failpoint;
use amends_keys::{ErasedBefore, Erasure, Keys, PendingKey};
use amends_registry::now;
use amends_store::{Append, NewEvent, PageBudget, ShardId, Store, StoreError, StoredEvent, Stream};
use tokio::sync::{Mutex, watch};

use crate::definitions::Definitions;
use crate::error::RuntimeError;
use crate::unseal::{first_event, sealed_key};

/// The time from the start of a host to its first pass.
const FIRST_PASS_AFTER: Duration = Duration::from_secs(1);

/// The pause between two passes, with few sagas that wait and with many.
const PASS_PAUSE: Duration = Duration::from_secs(5);
const PASS_PAUSE_LONG: Duration = Duration::from_mins(1);

/// So many sagas that wait are few.
const FEW_SAGAS: usize = 1_000;

/// The sagas that are looked at at once.
const SAGAS_AT_ONCE: u32 = 500;

/// How far up the parents of a saga are looked for.
const PARENTS_MAX: usize = 64;

/// How often an event of an erasure is appended again because another came before it.
const APPEND_TRIES_MAX: u32 = 10;

/// The type of the event of an erasure.
const ERASED_KIND: &str = "subject.erased";

/// What may still need the values of a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndoNeed {
    /// Nothing: it has ended and can no longer be undone.
    Nothing,
    /// It has completed, and may be compensated until then.
    Until(Timestamp),
    /// It, or the saga that runs it, has not ended.
    Live(SagaStatus),
    /// That cannot be found out, because the saga cannot be read. The log says why.
    Unknown,
}

/// A saga that waits for its erasure, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingSaga {
    /// The saga.
    pub id: SagaId,
    /// What may still need its values.
    pub need: UndoNeed,
    /// The key of its subject, which is gone.
    pub subject_key: SubjectKeyId,
}

/// Erases for a host.
pub(crate) struct Eraser {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) keys: Arc<Keys>,
    /// True once the host stops.
    pub(crate) is_stopping: AtomicBool,
    /// Held by the pass that is under way.
    passing: Mutex<()>,
}

/// Reads an event of an erasure; none when it is not understood.
fn erased_before(event: &StoredEvent) -> Option<ErasedBefore> {
    let data: serde_json::Value = serde_json::from_str(&event.data).ok()?;
    let text = |name: &str| data.get(name)?.as_str();
    let subject_key = text("subject_key")?.parse().ok()?;
    let (who, reason) = (text("who")?.to_owned(), text("reason")?.to_owned());
    Some(ErasedBefore { subject_key, at: event.at, who, reason })
}

/// Makes a pass from time to time, until the host is gone or stops. Of several hosts of a store, one makes the
/// passes: `owned` has the shards of this host.
pub(crate) async fn run(eraser: Weak<Eraser>, mut owned: Option<watch::Receiver<Vec<ShardId>>>) {
    let mut pause = FIRST_PASS_AFTER;
    loop {
        tokio::time::sleep(pause).await;
        if let Some(owned) = &mut owned
            && owned.wait_for(|owned| owned.contains(&ShardId::LEADER)).await.is_err()
        {
            return;
        }
        let Some(eraser) = eraser.upgrade() else { return };
        if eraser.is_stopping.load(Ordering::Acquire) {
            return;
        }
        pause = match eraser.pass().await {
            Ok(waiting) if waiting.len() <= FEW_SAGAS => PASS_PAUSE,
            Ok(_) => PASS_PAUSE_LONG,
            Err(RuntimeError::Store(StoreError::Closed | StoreError::Fatal(_))) => return,
            Err(error) => {
                tracing::warn!(%error, "personal values could not be erased; the next pass tries again");
                PASS_PAUSE_LONG
            }
        };
    }
}

/// Returns an error that ends a pass. Any other is one saga's own: it is logged, and keeps no other saga
/// from being erased.
fn passing(error: RuntimeError, whose: &str) -> Result<(), RuntimeError> {
    let is_of_one = matches!(
        error,
        RuntimeError::Store(StoreError::Damaged { .. })
            | RuntimeError::DefinitionLost { .. }
            | RuntimeError::Unreadable { .. }
    );
    if !is_of_one {
        return Err(error);
    }
    tracing::warn!(%error, "personal values {whose} are not erased");
    Ok(())
}

impl Eraser {
    /// Makes it, with what the log says of earlier erasures.
    pub(crate) async fn open(
        store: &Arc<dyn Store>,
        definitions: &Arc<Definitions>,
        keys: &Arc<Keys>,
    ) -> Result<Arc<Self>, RuntimeError> {
        let (store, definitions, keys) =
            (Arc::clone(store), Arc::clone(definitions), Arc::clone(keys));
        let (is_stopping, passing) = Default::default();
        let eraser = Self { store, definitions, keys, is_stopping, passing };
        eraser.take_in_log().await?;
        Ok(Arc::new(eraser))
    }

    /// Takes in what the log has of erasures. A key file that was restored from a backup begins those
    /// again that came after the backup, before anything is read with its keys.
    ///
    /// # Errors
    /// When the store fails or the key file cannot be used.
    async fn take_in_log(&self) -> Result<(), RuntimeError> {
        let (mut after, mut has_begun) = (Version(0), false);
        loop {
            let budget = PageBudget::items(SAGAS_AT_ONCE);
            let page = self.store.log().stream(Stream::Erasures, after, budget).await?;
            let Some(last) = page.last() else { break };
            after = last.version;
            let again =
                self.keys.erased_before(page.iter().filter_map(erased_before).collect()).await?;
            if again > 0 {
                tracing::warn!(
                    erasures = again,
                    "the key file is older than erasures in the log; they are done again"
                );
                has_begun = true;
            }
        }
        if has_begun {
            let _ = self.pass().await?;
        }
        Ok(())
    }

    /// Goes on with the erasures that have begun, and erases the values of the sagas that can no longer
    /// be undone. Returns the sagas that wait.
    ///
    /// # Errors
    /// When the store fails or the key file cannot be used. What was done stays done.
    pub(crate) async fn pass(&self) -> Result<Vec<WaitingSaga>, RuntimeError> {
        let _alone = self.passing.lock().await;
        for erasure in self.keys.begun().await? {
            if let Err(error) = self.finish(erasure.subject_key).await {
                passing(error, &format!("of the key {}", erasure.subject_key))?;
            }
        }
        for erasure in self.keys.unrecorded().await? {
            self.record(erasure).await?;
        }
        let (mut after, mut waiting) = (None, Vec::new());
        loop {
            let page = self.keys.pending(after, SAGAS_AT_ONCE).await?;
            let Some(last) = page.last() else { return Ok(waiting) };
            after = Some(last.saga);
            let (mut gone, mut waits) = (Vec::new(), Vec::new());
            for pending in page {
                let (id, subject_key) = (pending.saga, pending.subject_key);
                let need = self.need(id).await?;
                let until = match need {
                    UndoNeed::Nothing => {
                        gone.push(id);
                        continue;
                    }
                    UndoNeed::Until(until) => Some(until),
                    UndoNeed::Live(_) | UndoNeed::Unknown => None,
                };
                if until != pending.until {
                    waits.push((id, until));
                }
                waiting.push(WaitingSaga { id, need, subject_key });
            }
            if !gone.is_empty() || !waits.is_empty() {
                let sagas = gone.len();
                self.keys.settle(gone, waits).await?;
                if sagas > 0 {
                    tracing::info!(sagas, "personal values were erased that waited for an undo");
                }
            }
        }
    }

    /// Deletes the key of a subject. Its sagas have to be in the store.
    async fn finish(&self, key: SubjectKeyId) -> Result<(), RuntimeError> {
        let (mut after, mut erased, mut pending) = (None, 0, Vec::new());
        loop {
            let page = self.store.sagas().of_subject_key(key, after, SAGAS_AT_ONCE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for row in page {
                let until = match self.need(row.id).await? {
                    UndoNeed::Nothing => {
                        erased += 1;
                        continue;
                    }
                    UndoNeed::Until(until) => Some(until),
                    UndoNeed::Live(_) | UndoNeed::Unknown => None,
                };
                let sealed = first_event(&*self.store, row.id).await?.as_ref().and_then(sealed_key);
                let opened = match sealed {
                    Some(sealed) => self.keys.data_key(row.id, &sealed).await?.key(),
                    None => None,
                };
                match opened {
                    Some(key) => pending.push(PendingKey { saga: row.id, key, until }),
                    None => {
                        tracing::error!(saga_id = %row.id, "the key of its values cannot be read");
                    }
                }
            }
        }
        erased += self.store.archive().count_of_subject_key(key).await?;
        failpoint("runtime.erase.counted");
        self.keys.finish(key, erased, pending).await?;
        Ok(())
    }

    /// Writes into the log that a subject's key is gone.
    async fn record(&self, erasure: Erasure) -> Result<(), RuntimeError> {
        let Erasure { subject_key, who, reason, erased, waiting, .. } = erasure;
        let data = serde_json::json!({
            "who": who,
            "reason": reason,
            "subject_key": subject_key,
            "erased": erased,
            "waiting": waiting,
        });
        let mut expected = Version(0);
        for _ in 0..APPEND_TRIES_MAX {
            let event = NewEvent { kind: ERASED_KIND.into(), data: data.to_string() };
            let append = Append::shared(Stream::Erasures, expected, now(), vec![event]);
            match self.store.log().append_shared(append).await {
                Ok(_) => {
                    failpoint("runtime.erase.recorded");
                    self.keys.recorded(subject_key).await?;
                    tracing::info!(%subject_key, who, erased, waiting, "personal values were erased");
                    return Ok(());
                }
                Err(StoreError::Conflict { actual, .. }) => expected = actual,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Returns what may still need the values of a saga: its own undo, or that of the saga that runs it.
    pub(crate) async fn need(&self, id: SagaId) -> Result<UndoNeed, RuntimeError> {
        match self.find_need(id).await {
            Ok(need) => Ok(need),
            Err(error) => {
                passing(error, &format!("of saga {id}"))?;
                Ok(UndoNeed::Unknown)
            }
        }
    }

    async fn find_need(&self, id: SagaId) -> Result<UndoNeed, RuntimeError> {
        let mut id = id;
        for _ in 0..PARENTS_MAX {
            // One that has left the store can no longer be undone.
            let Some(row) = self.store.sagas().row(id).await? else { return Ok(UndoNeed::Nothing) };
            let Some(ended_at) = row.ended_at else { return Ok(UndoNeed::Live(row.status)) };
            if row.status == SagaStatus::Completed {
                let definition =
                    self.definitions.pinned(id, row.definition_digest, &*self.store).await?;
                let within = definition.spec().compensate_within;
                let until = within.map(|within| ended_at.after(within));
                if let Some(until) = until.filter(|until| *until > now()) {
                    return Ok(UndoNeed::Until(until));
                }
            }
            let first = first_event(&*self.store, id).await?;
            let Some(first) = first else { return Ok(UndoNeed::Nothing) };
            let parent = match Event::decode(&first.kind, &first.data) {
                Ok(Event::Saga(SagaEvent::Started(started))) => started.parent,
                Ok(_) | Err(_) => None,
            };
            match parent {
                Some(parent) => id = parent.saga,
                None => return Ok(UndoNeed::Nothing),
            }
        }
        Ok(UndoNeed::Nothing)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

    use amends_store::{Durability, SqliteStore};

    use super::*;

    /// Of several hosts, the one that does the duties of all makes the passes, and begins when it gets them.
    #[tokio::test]
    async fn passes_begin_with_the_duties() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("amends.db"), Durability::Relaxed);
        let store: Arc<dyn Store> = Arc::new(store.unwrap());
        let definitions = Arc::new(Definitions::publish(Vec::new(), &*store).await.unwrap());
        let keys = Arc::new(Keys::in_memory().unwrap());
        drop(keys.begin("ada", SagaId::from_bytes([1; 16]), None, now()).await.unwrap());
        keys.retire("ada", "ops".to_owned(), "she asked".to_owned(), now()).await.unwrap();
        let eraser = Eraser::open(&store, &definitions, &keys).await.unwrap();
        let (owned, has) = watch::channel(Vec::new());
        let task = tokio::spawn(run(Arc::downgrade(&eraser), Some(has)));
        tokio::time::sleep(FIRST_PASS_AFTER * 2).await;
        assert_eq!(keys.begun().await.unwrap().len(), 1, "a host without the duties has erased");
        owned.send_replace(vec![ShardId::LEADER]);
        let is_over = async {
            while !keys.begun().await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), is_over).await.unwrap();
        drop((eraser, owned));
        task.abort();
        store.close().await.unwrap();
    }
}
