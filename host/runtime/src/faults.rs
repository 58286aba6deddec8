//! Faults on purpose: what a user's own definitions and plugins are tried with (`amends chaos`).
//!
//! A host that `amends run` opens has no faults. A fault acts where a call leaves the host or where its
//! answer comes back. Everything else of the host is the code that runs in production.

use amends_engine::{Call, Outcome, Saga};
use amends_sandbox::Answer;

/// Decides what goes wrong.
pub trait Faults: Send + Sync + std::fmt::Debug {
    /// What a call ends with that is then not run; none: it is run.
    fn instead(&self, saga: &Saga, call: &Call) -> Option<Outcome>;

    /// What the host is told of a call that was run and ended with `answer`.
    fn told(&self, saga: &Saga, call: &Call, answer: &Answer) -> Outcome;
}
