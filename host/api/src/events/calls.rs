//! Completes events with what follows from the events before them: the idempotency key of a call, and the step
//! whose call emitted a domain event.
//!
//! A key follows from the saga, the step, the direction, and how often an edited input began a new
//! key. Domain events follow the event of their call at once.

use std::collections::{BTreeMap, BTreeSet};

use amends_api_types::EventView;
use amends_engine::{
    Direction, Event, EventType, OperatorEvent, SagaId, StepEvent, StepName, UndoEvent, Version,
    idempotency_key,
};
use amends_runtime::{Host, RuntimeError, StoredEvent, Stream};
use serde::Deserialize;

use crate::events::event_view::event_view;
use crate::payloads::Payloads;

/// At most this many events are read at once.
const EVENTS_PER_READ: u32 = 1_000;

/// What is known about a saga's calls after some of its events.
#[derive(Debug)]
pub(crate) struct Calls {
    saga: SagaId,
    /// The version of the last event that was taken in.
    version: Version,
    /// How often a step began a new key. Most steps have one key for each direction and are not in here.
    generations: BTreeMap<(StepName, Direction), u32>,
    /// Steps whose undo has begun: later orders are about the undo.
    undone: BTreeSet<StepName>,
    /// Steps that run a saga: their calls carry no key.
    sagas: BTreeSet<StepName>,
    /// The step, or the element of a step, whose call the last event is about.
    last: Option<String>,
}

/// The part of an event that says which step it is about.
#[derive(Deserialize)]
struct About {
    step: String,
}

impl Calls {
    /// Begins before the first event of a saga.
    pub(crate) fn new(saga: SagaId) -> Self {
        Self {
            saga,
            version: Version(0),
            generations: BTreeMap::new(),
            undone: BTreeSet::new(),
            sagas: BTreeSet::new(),
            last: None,
        }
    }

    /// Takes in what the host has recorded of the saga up to `version`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn catch_up(
        &mut self,
        host: &Host,
        version: Version,
    ) -> Result<(), RuntimeError> {
        while self.version < version {
            let left = u32::try_from(version.0 - self.version.0).unwrap_or(EVENTS_PER_READ);
            let limit = left.min(EVENTS_PER_READ);
            let found = host.events(Stream::Saga(self.saga), self.version, limit).await?;
            if found.is_empty() {
                return Ok(());
            }
            for event in &found {
                self.step(event);
                self.key_of(event);
            }
        }
        Ok(())
    }

    /// Shows the next event, with its key or its step.
    pub(crate) fn view(&mut self, event: StoredEvent, payloads: Payloads) -> EventView {
        let (step, idempotency_key) = (self.step(&event), self.key_of(&event));
        EventView { step, idempotency_key, ..event_view(event, payloads) }
    }

    /// Finds the step of a domain event.
    fn step(&mut self, event: &StoredEvent) -> Option<String> {
        if event.kind.parse::<EventType>().is_ok() {
            return self.last.clone();
        }
        let about = serde_json::from_str::<About>(&event.data).ok();
        self.last = about.map(|about| about.step);
        None
    }

    /// Finds the key of the call that an event begins, if it begins one. An event that cannot be read begins
    /// none.
    fn key_of(&mut self, event: &StoredEvent) -> Option<String> {
        self.version = event.version;
        match event.kind.as_str() {
            "step.started" | "undo.started" | "operator.retried" => {}
            _ => return None,
        }
        let event = Event::decode(&event.kind, &event.data).ok()?;
        if let Event::Step(StepEvent::Started(started)) = event {
            if started.child.is_some() {
                self.sagas.insert(started.step);
                return None;
            }
            return Some(self.key(&started.step, Direction::Execute));
        }
        if let Event::Undo(UndoEvent::Started(started)) = event {
            let key = self.key(&started.step, Direction::Compensate);
            let runs_saga = self.sagas.contains(&started.step);
            self.undone.insert(started.step);
            return (!runs_saga).then_some(key);
        }
        if let Event::Operator(OperatorEvent::Retried(retried)) = event
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
