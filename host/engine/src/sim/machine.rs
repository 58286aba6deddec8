//! The machine that is simulated.

use std::sync::Arc;

use crate::{
    Command, Definition, Event, Impossible, Input, Saga, SagaId, Start, Timestamp, commands,
    decide, replay, start,
};

/// The machine that is simulated. The provided methods are those of the engine.
pub trait Machine {
    /// Starts a saga, as [`crate::start`] does.
    fn start(&self, at: Timestamp, what: Start) -> (Saga, Vec<Event>) {
        start(at, what)
    }

    /// Decides, as [`crate::decide`] does.
    fn decide(&self, saga: &Saga, at: Timestamp, input: Input) -> Vec<Event> {
        decide(saga, at, input)
    }

    /// Returns the commands, as [`crate::commands`] does.
    fn commands(&self, saga: &Saga) -> Vec<Command> {
        commands(saga).collect()
    }

    /// Replays a log, as [`crate::replay`] does.
    ///
    /// # Errors
    /// As [`crate::replay`].
    fn replay(
        &self,
        id: SagaId,
        definition: Arc<Definition>,
        log: &[(Timestamp, Arc<Event>)],
    ) -> Result<Saga, Impossible> {
        replay(id, definition, log.iter().map(|(at, event)| (*at, &**event)))
    }
}

/// The engine as it is.
#[derive(Debug, Clone, Copy)]
pub struct Engine;

impl Machine for Engine {}
