//! The idempotency keys that the calls of a saga carried, as its events tell them.
//!
//! A key follows from the saga, the step, the direction, and how often an edited input began a new
//! one. No event has it; whoever shows events computes it.

use std::collections::{BTreeMap, BTreeSet};

use amends_engine::{Direction, Event, SagaId, StepName, Version, idempotency_key};
use amends_store::{Store, StoreError, StoredEvent, Stream};

/// Events that are read at once.
const EVENTS_PER_READ: u32 = 1_000;

/// What is known of a saga's keys after some of its events.
#[derive(Debug)]
pub(crate) struct Keys {
    saga: SagaId,
    /// The last event that this knows.
    version: Version,
    /// How often a new key of a step began; most steps have one key for each direction.
    generations: BTreeMap<(StepName, Direction), u32>,
    /// Steps whose undo has begun: from then on orders are about that.
    undone: BTreeSet<StepName>,
    /// Steps that run a saga: their calls carry no key.
    sagas: BTreeSet<StepName>,
}

impl Keys {
    /// Before the first event of a saga.
    pub(crate) fn new(saga: SagaId) -> Self {
        Self {
            saga,
            version: Version(0),
            generations: BTreeMap::new(),
            undone: BTreeSet::new(),
            sagas: BTreeSet::new(),
        }
    }

    /// Takes in what the store has of the saga up to `version`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn catch_up(
        &mut self,
        store: &dyn Store,
        version: Version,
    ) -> Result<(), StoreError> {
        while self.version < version {
            let left = u32::try_from(version.0 - self.version.0).unwrap_or(EVENTS_PER_READ);
            let limit = left.min(EVENTS_PER_READ);
            let found = store.events(Stream::Saga(self.saga), self.version, limit).await?;
            if found.is_empty() {
                return Ok(());
            }
            for event in &found {
                self.next(event);
            }
        }
        Ok(())
    }

    /// The key of the call that the next event says to begin, if it says that. An event that cannot be
    /// read says nothing.
    pub(crate) fn next(&mut self, event: &StoredEvent) -> Option<String> {
        self.version = event.version;
        match event.kind.as_str() {
            "step.started" | "undo.started" | "operator.retried" => {}
            _ => return None,
        }
        let event = Event::decode(&event.kind, &event.data).ok()?;
        if let Event::StepStarted(started) = event {
            if started.child.is_some() {
                self.sagas.insert(started.step);
                return None;
            }
            return Some(self.key(&started.step, Direction::Execute));
        }
        if let Event::UndoStarted(started) = event {
            let key = self.key(&started.step, Direction::Compensate);
            let runs_saga = self.sagas.contains(&started.step);
            self.undone.insert(started.step);
            return (!runs_saga).then_some(key);
        }
        if let Event::OperatorRetried(retried) = event
            && retried.new_key
        {
            let is_undone = self.undone.contains(&retried.step);
            let direction = if is_undone { Direction::Compensate } else { Direction::Execute };
            *self.generations.entry((retried.step, direction)).or_default() += 1;
        }
        None
    }

    fn key(&self, step: &StepName, direction: Direction) -> String {
        let generation = self.generations.get(&(step.clone(), direction)).copied();
        idempotency_key(self.saga, step, direction, generation.unwrap_or_default())
    }
}
