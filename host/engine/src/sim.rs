//! The simulator: runs the machine through schedules that a test would not think of, and checks
//! what it does against rules that know nothing of how it is done.
//!
//! - [`exhaustive`]: every schedule of every small graph, within a [`Budget`] of faults.
//! - [`seeded`]: one long run of a large random definition with random faults.
//!
//! Both play the loop of the crate's first page around a world that keeps a ledger of its own:
//! which effect stands, whatever the log says. Each call answers in every way that a call can
//! (done, failed, unknown with its effect and without). The host crashes between any two appends.
//! Every result is delivered again, and late. Every prefix of every log is recovered and run to
//! its end.
//!
//! The machine is a [`Machine`], so that a test can break it on purpose and see that this is
//! caught. Deliberately absent: real time, threads, the store; they have tests of their own.

mod exhaustive;
mod generate;
mod record;
mod rules;
mod seeded;
mod units;
mod world;

use std::fmt;
use std::sync::Arc;

pub use exhaustive::{Budget, exhaustive};
pub use generate::{Variants, graphs};
pub use seeded::seeded;

use crate::{
    Command, Definition, Event, Impossible, Input, Saga, SagaId, Start, Timestamp, commands,
    decide, replay, start,
};

/// What is simulated. The methods as they are given here are the engine's own.
pub trait Machine {
    /// [`crate::start`].
    fn start(&self, at: Timestamp, what: Start) -> (Saga, Vec<Event>) {
        start(at, what)
    }

    /// [`crate::decide`].
    fn decide(&self, saga: &Saga, at: Timestamp, input: Input) -> Vec<Event> {
        decide(saga, at, input)
    }

    /// [`crate::commands`].
    fn commands(&self, saga: &Saga) -> Vec<Command> {
        commands(saga).collect()
    }

    /// [`crate::replay`].
    ///
    /// # Errors
    /// As the original.
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

/// How much was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Definitions.
    pub definitions: u64,
    /// Ways from a start to a rest; saturates.
    pub schedules: u64,
    /// Distinct states of saga and world that were reached.
    pub states: u64,
    /// Appends.
    pub appends: u64,
    /// Crashes of the host.
    pub crashes: u64,
    /// Results that were delivered again or late.
    pub repeats: u64,
    /// Prefixes of logs that were recovered and run to their end.
    pub prefixes: u64,
    /// Rests in each end: completed, compensated, blocked.
    pub ends: [u64; 3],
}

impl Figures {
    /// Adds what another run tried.
    pub fn add(&mut self, other: Self) {
        self.definitions += other.definitions;
        self.schedules = self.schedules.saturating_add(other.schedules);
        self.states += other.states;
        self.appends += other.appends;
        self.crashes += other.crashes;
        self.repeats += other.repeats;
        self.prefixes += other.prefixes;
        for (sum, more) in self.ends.iter_mut().zip(other.ends) {
            *sum += more;
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [completed, compensated, blocked] = self.ends;
        write!(
            f,
            "{} definitions, {} schedules, {} distinct states, {} appends, {} crashes, \
             {} results repeated or late, {} prefixes recovered; rests seen: {completed} \
             completed, {compensated} compensated, {blocked} blocked",
            self.definitions,
            self.schedules,
            self.states,
            self.appends,
            self.crashes,
            self.repeats,
            self.prefixes,
        )
    }
}

/// A rule that was broken, and how to see it again.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The rule, in words.
    pub rule: String,
    /// The definition.
    pub definition: Arc<Definition>,
    /// What was done to it, in order.
    pub actions: Vec<String>,
    /// What was durable by then.
    pub log: Vec<(Timestamp, Arc<Event>)>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.rule)?;
        writeln!(f, "definition: {}", self.definition.canonical())?;
        writeln!(f, "actions: {}", self.actions.join(", "))?;
        writeln!(f, "log:")?;
        for (at, event) in &self.log {
            writeln!(f, "  {:>8} {} {}", at.as_millis(), event.kind(), event.data())?;
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}
