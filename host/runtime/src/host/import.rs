//! Sagas that ended on another host: they are put into the archive, and stay there.
//!
//! Everything is checked before anything is written. Personal values are sealed with a key of this host, as
//! those of a start are.
//!
//! Deliberately absent: sagas that have not ended, because a saga runs on one host; components, because what
//! may serve here is decided by a deploy.

use std::sync::Arc;

use amends_engine::{
    Definition, Digest, ERASED, Event, OperatorNoted, Saga, SagaEvent, SagaId, SagaStatus,
    Timestamp, Version, evolve, replay,
};
use amends_keys::{DataKey, KeyError, Lease, Sealer};
use amends_registry::now;
use amends_store::{
    ArchiveError, BlobKind, ImportedSaga, NewEvent, StartKey, StoreError, StoredEvent, Stream,
};
use serde_json::Value;

use super::Host;
use crate::action::{Action, authorize};
use crate::error::RuntimeError;
use crate::principal::Principal;
use crate::saga_state::RowState;
use crate::stored_form::stored_events;

/// The events of a saga that are read at once, to compare them.
const EVENTS_PER_READ: u32 = 1_000;

/// How the reason of the note begins that says who imported a saga.
const IMPORTED: &str = "imported: ";

/// A saga that ended on another host.
#[derive(Debug, Clone)]
pub struct SagaImport {
    /// The saga.
    pub id: SagaId,
    /// The canonical form of the definition that it is pinned to, and its digest.
    pub definition: (String, Digest),
    /// Its events from the first on.
    pub events: Vec<ImportEvent>,
    /// True when its personal values were taken out before.
    pub is_withheld: bool,
    /// Why it is imported; kept with who asked.
    pub reason: String,
}

/// An event of a saga that ended on another host.
#[derive(Debug, Clone)]
pub struct ImportEvent {
    /// When it was decided.
    pub at: Timestamp,
    /// Its type.
    pub kind: String,
    /// Its data: JSON.
    pub data: String,
}

/// What an import came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// The saga.
    pub id: SagaId,
    /// As what it ended.
    pub status: SagaStatus,
    /// How many events it has here.
    pub events: u64,
    /// False when it was here already, with the same events.
    pub created: bool,
}

/// Why a saga is not imported. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// What came is damaged. Caller: export it again.
    #[error("the saga cannot be read: {0}")]
    Damaged(String),
    /// The saga has not ended: it runs on the other host. Caller: later.
    #[error("saga {id} has not ended: it is {status}, and a saga runs on one host")]
    NotEnded {
        /// The saga.
        id: SagaId,
        /// Its status.
        status: SagaStatus,
    },
    /// There is a saga of this id that has other events. Caller.
    #[error("saga {id} is here already, with other events: {what}")]
    Differs {
        /// The saga.
        id: SagaId,
        /// Where they differ, as a clause.
        what: String,
    },
    /// The key file cannot be used. Operator.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The archive cannot be used, or the store failed. Operator.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> Self {
        Self::Runtime(error.into())
    }
}

impl From<ArchiveError> for ImportError {
    fn from(error: ArchiveError) -> Self {
        Self::Runtime(error.into())
    }
}

impl Host {
    /// Puts a saga that ended on another host into the archive, where it is read as any archived saga is.
    /// A note at the end of its events says who imported it, and why. A saga that is here with the same
    /// events stays as it is.
    ///
    /// # Errors
    /// See [`ImportError`]. Nothing was written then, but perhaps its definition.
    pub async fn import(
        &self,
        principal: &Principal,
        import: SagaImport,
    ) -> Result<Imported, ImportError> {
        authorize(principal, &Action::Import { saga: import.id });
        let SagaImport { id, definition: (text, digest), events, is_withheld, reason } = import;
        let definition = Definition::from_canonical(&text)
            .map_err(|message| ImportError::Damaged(format!("its definition: {message}")))?;
        if definition.digest() != digest {
            let what = format!("its definition is not the one of the digest {digest}");
            return Err(ImportError::Damaged(what));
        }
        let folded = Folded::new(id, Arc::new(definition), events)?;
        if !folded.saga.has_ended() {
            return Err(ImportError::NotEnded { id, status: folded.saga.status() });
        }
        let status = folded.saga.status();
        // Twice: another import of the same saga may come between the look and the write.
        for _ in 0..2 {
            if let Some(events) = self.compare(id, &folded).await? {
                return Ok(Imported { id, status, events, created: false });
            }
            let note = OperatorNoted {
                who: principal.subject.clone(),
                reason: format!("{IMPORTED}{reason}"),
            };
            let (saga, _lease) = self.sealed(&folded, note, is_withheld).await?;
            let (name, bytes) = (folded.definition.name().to_string(), text.clone().into_bytes());
            let blobs = self.inner.store.blobs();
            blobs.put(BlobKind::Definition, name, digest, now(), bytes).await?;
            let events = saga.events.len() as u64;
            if self.inner.store.archive().import(saga).await? {
                let who = &principal.subject;
                tracing::info!(saga_id = %id, events, who, "a saga of another host was imported");
                return Ok(Imported { id, status, events, created: true });
            }
        }
        let what = "it came while this one was imported".to_owned();
        Err(ImportError::Differs { id, what })
    }

    /// Compares a saga with the one of its id that is here. None when there is none.
    async fn compare(&self, id: SagaId, folded: &Folded) -> Result<Option<u64>, ImportError> {
        let mut here: Vec<StoredEvent> = Vec::new();
        loop {
            let after = here.last().map_or(Version(0), |last| last.version);
            let page = self.events(Stream::Saga(id), after, EVENTS_PER_READ).await?;
            if page.is_empty() {
                break;
            }
            here.extend(page);
        }
        if here.is_empty() {
            return Ok(None);
        }
        let count = here.len() as u64;
        // That of the import, or another one: a note changes nothing.
        let is_note = |event: &StoredEvent| event.kind == "operator.noted";
        if here.len() == folded.events.len() + 1 && here.last().is_some_and(is_note) {
            here.pop();
        }
        let differs = |what: String| ImportError::Differs { id, what };
        if here.len() != folded.events.len() {
            let (kept, came) = (here.len(), folded.events.len());
            return Err(differs(format!("{kept} here, {came} in what came")));
        }
        let here = here.into_iter().map(|StoredEvent { at, kind, data, .. }| ImportEvent {
            at,
            kind,
            data,
        });
        let here = Folded::new(id, Arc::clone(&folded.definition), here.collect())
            .map_err(|_| differs("those that are here cannot be read".to_owned()))?;
        let (mine, theirs) = (here.comparable(), folded.comparable());
        let place = mine.iter().zip(&theirs).position(|(one, other)| one != other);
        match place {
            Some(place) => Err(differs(format!("event {} is another one", place + 1))),
            None => Ok(Some(count)),
        }
    }

    /// Returns what is stored of a saga, with a note at its end: personal values are sealed with a key of
    /// this host, or replaced when the saga has none any more. The lease is to be kept until it is durable.
    async fn sealed(
        &self,
        folded: &Folded,
        note: OperatorNoted,
        is_withheld: bool,
    ) -> Result<(ImportedSaga, Option<Lease>), ImportError> {
        let Folded { saga, definition, events, decoded } = folded;
        let (id, mut decoded) = (saga.id(), decoded.clone());
        let mut data_key: Option<DataKey> = None;
        let mut lease = None;
        if let (Some(Event::Saga(SagaEvent::Started(started))), false) =
            (decoded.first_mut(), is_withheld)
            && let Ok(Some(subject)) = definition.subject(&started.input)
            && subject != ERASED
        {
            let payload = started.key.as_ref().map(|_| (definition.name(), &started.input));
            let seal = self.inner.keys.begin(&subject, id, payload, now()).await?;
            started.sealed_key = Some(Box::new(seal.sealed));
            (data_key, lease) = (Some(seal.key), Some(seal.lease));
        }
        let last_at = events.last().map_or_else(now, |last| last.at);
        let note = Event::from(note);
        let times: Vec<_> =
            events.iter().map(|event| event.at).chain([last_at.max(now())]).collect();
        decoded.push(note);
        let log = times.iter().copied().zip(&decoded);
        let draft = replay(id, Arc::clone(definition), log).map_err(damaged)?;
        let stored = stored_events(None, &decoded, &draft, data_key.as_ref());
        let row = RowState::of(&draft, stored.is_reason_sealed(false)).row(&draft);
        let start_key = StartKey::of_started(draft.started());
        let mut new: Vec<NewEvent> = stored.new;
        if draft.started().sealed_key.is_none() {
            // As they came: a later version may have fields that this one does not know.
            for (new, event) in new.iter_mut().zip(events) {
                new.data.clone_from(&event.data);
            }
        }
        let events = times.into_iter().zip(new).collect();
        Ok((ImportedSaga { row, events, start_key }, lease))
    }
}

/// A saga as its events say.
struct Folded {
    saga: Saga,
    definition: Arc<Definition>,
    events: Vec<ImportEvent>,
    decoded: Vec<Event>,
}

impl Folded {
    fn new(
        id: SagaId,
        definition: Arc<Definition>,
        events: Vec<ImportEvent>,
    ) -> Result<Self, ImportError> {
        let (mut saga, mut decoded): (Option<Saga>, Vec<Event>) = (None, Vec::new());
        for (number, event) in (1..).zip(&events) {
            let wrong = |what: String| ImportError::Damaged(format!("event {number}: {what}"));
            let fact = Event::decode(&event.kind, &event.data)
                .map_err(|error| wrong(error.to_string()))?;
            match &mut saga {
                None => {
                    let first = replay(id, Arc::clone(&definition), [(event.at, &fact)]);
                    saga = Some(first.map_err(|error| wrong(error.to_string()))?);
                }
                Some(saga) => {
                    evolve(saga, event.at, &fact).map_err(|error| wrong(error.to_string()))?;
                }
            }
            decoded.push(fact);
        }
        let saga = saga.ok_or_else(|| ImportError::Damaged("it has no events".to_owned()))?;
        if saga.started().definition_digest != definition.digest() {
            let what = "its definition is not the one that its first event names".to_owned();
            return Err(ImportError::Damaged(what));
        }
        Ok(Self { saga, definition, events, decoded })
    }

    /// Returns the events without personal values and without the key that they are sealed with, which
    /// differ from host to host.
    fn comparable(&self) -> Vec<(Timestamp, &str, Value)> {
        let sealer = Sealer::new(&self.saga, &self.decoded, None);
        let has_subject = self.saga.started().sealed_key.is_some();
        let pairs = (1..).zip(self.events.iter().zip(&self.decoded));
        let compared = pairs.map(|(version, (event, fact))| {
            let withheld = has_subject.then(|| sealer.data(Version(version), fact));
            let stored = withheld.as_ref().unwrap_or(&event.data);
            let mut json = serde_json::from_str(stored).unwrap_or(Value::Null);
            if let Value::Object(fields) = &mut json {
                fields.remove("sealed_key");
            }
            (event.at, event.kind.as_str(), json)
        });
        compared.collect()
    }
}

fn damaged(error: impl std::fmt::Display) -> ImportError {
    ImportError::Damaged(error.to_string())
}
