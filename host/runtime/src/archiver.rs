//! Moves sagas to the archive whose retention is over.
//!
//! A pass looks at the ended sagas by ascending id, so the oldest go first, and most sagas that ran
//! another one go before that one. A child that comes first, because its id is of the same
//! millisecond, goes with the next pass. Never moved are sagas that somebody may still need as they are:
//! one that its definition still lets be compensated, one whose parent is still in the store (the
//! parent's undo must find it), and one that is quarantined. Nor are sagas with events that a
//! subscription has not delivered.
//!
//! Deliberately absent: a time by which a pass ends. It goes on beside the load, and the store gives the
//! load most of the writer's time, as long as the sagas are not a day late.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use amends_engine::{Event, SagaEvent, SagaId, SagaStatus, Timestamp};
use amends_registry::{Registry, RetiredComponents, now};
use amends_store::{
    ArchiveError, Cursor, EndedContent, EndedSaga, PageBudget, START_KEY_RETENTION, ShardId, Store,
    StoreError, ToArchive,
};
use tokio::sync::{Mutex, watch};

use crate::definitions::Definitions;
use crate::error::{ArchivePassError, RuntimeError};
use crate::recovery::Quarantine;
use crate::retention::Retention;

/// The time from the start of a host to its first pass: what the start is for goes first.
const FIRST_PASS_AFTER: Duration = Duration::from_secs(30);

/// The pause between two passes.
const PASS_PAUSE: Duration = Duration::from_hours(1);

/// The pause after a first pass that failed. It doubles with each further one, up to [`PASS_PAUSE`].
const RETRY_PAUSE: Duration = Duration::from_mins(1);

/// The ended sagas that are looked at at once. After them comes a pause as long as that took.
const SAGAS_LOOKED_AT: PageBudget = PageBudget::items(250);

/// A saga whose retention has been over for so long is late: moving it gives way to the load no longer.
const LATE_AFTER: Duration = Duration::from_hours(24);

/// The sagas that are handed to the store at once: those of one file.
const SAGAS_AT_ONCE: usize = 20_000;

/// The unreadable sagas that one pass names. More would say nothing new.
const UNREADABLE_NAMED_MAX: usize = 20;

/// What a pass came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchivePass {
    /// The sagas that were moved to the archive; deleted, when the store has none.
    pub sagas: u64,
    /// Their events.
    pub events: u64,
    /// The files that were written.
    pub segments: u64,
    /// The bytes of the files.
    pub bytes: u64,
    /// Ended sagas past their retention that stay, because somebody may still need them.
    pub kept: u64,
    /// Sagas that stay because they cannot be read. The log names them.
    pub unreadable: u64,
    /// The start keys that were removed.
    pub keys: u64,
    /// The components that were removed because nothing needs them any more.
    pub components: RetiredComponents,
    /// True when the sagas were deleted, because the store has no archive.
    pub is_deleting: bool,
}

/// Moves sagas for a host.
pub(crate) struct Archiver {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) quarantine: Arc<Quarantine>,
    pub(crate) plugins: Registry,
    pub(crate) retention: Retention,
    /// The names of the subscriptions: what they have not delivered stays in the log.
    pub(crate) subscriptions: Vec<String>,
    /// True once the host stops.
    pub(crate) is_stopping: AtomicBool,
    /// How old the oldest ended saga was that the last pass has left; none before the first pass.
    pub(crate) oldest_ended: std::sync::Mutex<Option<Duration>>,
    /// Held by the pass that is under way.
    passing: Mutex<()>,
}

/// Makes a pass from time to time, until the host is gone or its store writes nothing any more. Passes that
/// fail in a row are one line of the log, and so is the end of that. Of several hosts of a store, one makes the
/// passes: `owned` has the shards of this host.
pub(crate) async fn run(archiver: Weak<Archiver>, owned: Option<watch::Receiver<Vec<ShardId>>>) {
    let mut pause = FIRST_PASS_AFTER;
    let mut is_failing = false;
    loop {
        tokio::time::sleep(pause).await;
        let Some(archiver) = archiver.upgrade() else { return };
        if owned.as_ref().is_some_and(|owned| !owned.borrow().contains(&ShardId::LEADER)) {
            pause = RETRY_PAUSE;
            continue;
        }
        let passed = archiver.pass().await;
        drop(archiver);
        match passed {
            Ok(pass) => {
                if std::mem::take(&mut is_failing) {
                    tracing::info!("sagas are archived again");
                }
                pass.log();
                pause = PASS_PAUSE;
            }
            Err(
                ArchivePassError::Stopping
                | ArchivePassError::Runtime(RuntimeError::Store(
                    StoreError::Closed | StoreError::Fatal(_),
                )),
            ) => return,
            // An operator's pass is under way.
            Err(ArchivePassError::Runtime(RuntimeError::Archive(ArchiveError::UnderWay))) => {
                pause = PASS_PAUSE;
            }
            Err(error) => {
                pause = if is_failing { (pause * 2).min(PASS_PAUSE) } else { RETRY_PAUSE };
                if std::mem::replace(&mut is_failing, true) {
                    tracing::debug!(%error, "sagas can still not be archived");
                } else {
                    tracing::warn!(
                        %error,
                        "sagas cannot be archived and stay in the store; the host goes on trying"
                    );
                }
            }
        }
    }
}

impl ArchivePass {
    fn log(&self) {
        let Self {
            sagas,
            events,
            segments,
            bytes,
            kept,
            unreadable,
            keys,
            is_deleting,
            components: _,
        } = self;
        if *sagas > 0 {
            let what = if *is_deleting { "sagas were deleted" } else { "sagas were archived" };
            tracing::info!(sagas, events, segments, bytes, kept, unreadable, keys, "{what}");
        }
    }
}

impl Archiver {
    pub(crate) fn new(
        (store, definitions, quarantine): (Arc<dyn Store>, Arc<Definitions>, Arc<Quarantine>),
        plugins: Registry,
        retention: Retention,
        subscriptions: Vec<String>,
    ) -> Self {
        metrics::counter!("amends_archived_total").increment(0);
        let (is_stopping, oldest_ended, passing) = Default::default();
        Self {
            store,
            definitions,
            quarantine,
            plugins,
            retention,
            subscriptions,
            is_stopping,
            oldest_ended,
            passing,
        }
    }

    /// Returns how far each subscription has delivered. One that is disabled counts too, because an operator
    /// may let it go on.
    async fn delivered(&self) -> Result<Vec<Cursor>, StoreError> {
        let mut delivered = Vec::new();
        for name in &self.subscriptions {
            let row = self.store.outbox().subscription(name.clone()).await?;
            delivered.extend(row.map(|row| row.cursor));
        }
        Ok(delivered)
    }

    /// Makes one pass.
    ///
    /// # Errors
    /// [`ArchiveError::UnderWay`] when another one is under way.
    pub(crate) async fn pass(&self) -> Result<ArchivePass, ArchivePassError> {
        let _alone = self.passing.try_lock().map_err(|_| ArchiveError::UnderWay)?;
        let archive = self.store.archive();
        let began = Instant::now();
        let mut pass = Pass::new(self);
        pass.done.is_deleting = archive.place().is_none();
        pass.delivered = self.delivered().await?;
        let ended_before = pass.now.before(self.retention.shortest());
        let mut after = None;
        loop {
            if self.is_stopping.load(Ordering::Acquire) {
                return Err(ArchivePassError::Stopping);
            }
            let looked_at = Instant::now();
            let page = archive.ended(ended_before, after, SAGAS_LOOKED_AT).await?;
            for saga in page.sagas {
                pass.look(saga).await?;
            }
            let took = looked_at.elapsed();
            while pass.chosen.len() >= SAGAS_AT_ONCE
                || page.next.is_none() && !pass.chosen.is_empty()
            {
                pass.move_chosen().await?;
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
            tokio::time::sleep(took).await;
        }
        pass.done.keys = archive.remove_keys(pass.now.before(START_KEY_RETENTION)).await?;
        pass.done.components = self.plugins.retire_components(pass.now).await?;
        let oldest = archive.oldest_ended().await?;
        let age = oldest.map_or(Duration::ZERO, |at| now().since(at));
        *self.oldest_ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(age);
        metrics::histogram!("amends_archive_pass_seconds").record(began.elapsed());
        Ok(pass.done)
    }
}

/// A pass under way.
struct Pass<'a> {
    archiver: &'a Archiver,
    now: Timestamp,
    /// How far each subscription had delivered when the pass began.
    delivered: Vec<Cursor>,
    /// The sagas that are to be moved next, by ascending id.
    chosen: Vec<ToArchive>,
    done: ArchivePass,
}

impl<'a> Pass<'a> {
    fn new(archiver: &'a Archiver) -> Self {
        let (delivered, chosen, done) = Default::default();
        Self { archiver, now: now(), delivered, chosen, done }
    }

    /// Chooses a saga, or not.
    async fn look(&mut self, EndedSaga { id, content }: EndedSaga) -> Result<(), RuntimeError> {
        match content {
            Err(reason) => self.name_unreadable(id, &reason),
            Ok(content) => match self.choose(&content).await? {
                Choice::Goes(after) => {
                    let version = content.last.version;
                    let is_late = content.row.ended_at.is_some_and(|ended_at| {
                        let keep = self.archiver.retention.of(&content.row.definition);
                        ended_at.after(keep).after(LATE_AFTER) < self.now
                    });
                    self.chosen.push(ToArchive { id, version, after, is_late });
                }
                Choice::Stays => self.done.kept += 1,
                Choice::IsYoung => {}
                Choice::Unreadable(reason) => self.name_unreadable(id, &reason),
            },
        }
        Ok(())
    }

    async fn choose(
        &self,
        EndedContent { row, first, last }: &EndedContent,
    ) -> Result<Choice, RuntimeError> {
        let Archiver { store, definitions, quarantine, retention, .. } = self.archiver;
        let Some(ended_at) = row.ended_at else { return Ok(Choice::IsYoung) };
        if ended_at.after(retention.of(&row.definition)) > self.now {
            return Ok(Choice::IsYoung);
        }
        let is_undelivered =
            self.delivered.iter().any(|until| until.events_until(last.cursor()) > 0);
        if is_undelivered || quarantine.reason(row.id).is_some() {
            return Ok(Choice::Stays);
        }
        let definition = match definitions.pinned(row.id, row.definition_digest, &**store).await {
            Ok(definition) => definition,
            Err(
                error @ (RuntimeError::DefinitionLost { .. }
                | RuntimeError::Unreadable { .. }
                | RuntimeError::Store(StoreError::Damaged { .. })),
            ) => return Ok(Choice::Unreadable(error.to_string())),
            Err(error) => return Err(error),
        };
        let until = definition.spec().compensate_within.map(|within| ended_at.after(within));
        if row.status == SagaStatus::Completed && until.is_some_and(|until| until > self.now) {
            return Ok(Choice::Stays);
        }
        let parent = match Event::decode(&first.kind, &first.data) {
            Ok(Event::Saga(SagaEvent::Started(started))) => {
                started.parent.map(|parent| parent.saga)
            }
            Ok(_) => return Ok(Choice::Unreadable("it does not begin with its start".to_owned())),
            Err(error) => return Ok(Choice::Unreadable(format!("its first event: {error}"))),
        };
        let Some(parent) = parent else { return Ok(Choice::Goes(None)) };
        let is_chosen = self.chosen.binary_search_by_key(&parent, |saga| saga.id).is_ok();
        if is_chosen {
            return Ok(Choice::Goes(Some(parent)));
        }
        match store.sagas().row(parent).await {
            // It is looked at again in the transaction, because it may be brought back.
            Ok(None) => Ok(Choice::Goes(Some(parent))),
            // One whose row cannot be read is there.
            Ok(Some(_)) | Err(StoreError::Damaged { .. }) => Ok(Choice::Stays),
            Err(error) => Err(error.into()),
        }
    }

    fn name_unreadable(&mut self, id: SagaId, reason: &str) {
        self.done.unreadable += 1;
        if self.done.unreadable <= UNREADABLE_NAMED_MAX as u64 {
            tracing::warn!(saga_id = %id, reason, "saga stays in the store: it cannot be archived");
        }
    }

    /// Moves what was chosen: as many as one file has, and the rest when it is called again.
    async fn move_chosen(&mut self) -> Result<(), RuntimeError> {
        let rest = self.chosen.split_off(self.chosen.len().min(SAGAS_AT_ONCE));
        let chosen = std::mem::replace(&mut self.chosen, rest);
        if chosen.is_empty() {
            return Ok(());
        }
        let moved = self.archiver.store.archive().archive(chosen).await?;
        for (id, reason) in &moved.unreadable {
            self.name_unreadable(*id, reason);
        }
        let done = &mut self.done;
        done.sagas += moved.sagas;
        done.events += moved.events;
        done.segments += moved.segments;
        done.bytes += moved.bytes;
        done.kept += moved.changed;
        metrics::counter!("amends_archived_total").increment(moved.sagas);
        Ok(())
    }
}

/// What becomes of an ended saga.
enum Choice {
    /// It goes to the archive, after its parent.
    Goes(Option<SagaId>),
    /// It is past its retention, and somebody may still need it.
    Stays,
    /// Its retention is not over.
    IsYoung,
    /// It cannot be read, for this reason.
    Unreadable(String),
}
