//! A decision in progress.

use crate::event::{Event, SagaMarked};
use crate::evolve::evolve;
use crate::ids::Timestamp;
use crate::personal::PersonalPath;
use crate::saga::Saga;

/// A copy of a saga on which facts are tried, and the facts so far.
pub(super) struct Draft<'s> {
    pub(super) saga: &'s mut Saga,
    pub(super) at: Timestamp,
    pub(super) events: Vec<Event>,
}

impl Draft<'_> {
    /// Adds a fact, and applies it to the saga.
    pub(super) fn emit(&mut self, event: impl Into<Event>) {
        let event = event.into();
        if let Err(error) = evolve(self.saga, self.at, &event) {
            // The decisions must only lead to facts that `evolve` accepts; anything else is a bug
            // here.
            panic!("decided what cannot be: {error}");
        }
        self.events.push(event);
    }

    /// Records places that components mark as personal, but for those that are known as such.
    pub(super) fn mark(&mut self, mut personal: Vec<PersonalPath>) {
        personal.retain(|place| !self.saga.personal().any(|known| known.covers(place)));
        if !personal.is_empty() {
            self.emit(SagaMarked { personal });
        }
    }
}
