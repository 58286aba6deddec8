//! The simulator. It runs the machine through schedules that nobody would write as a test, and
//! checks the results against rules that do not know how the machine works.
//!
//! - [`exhaustive`] runs every schedule of every small graph, within a [`Budget`] of faults.
//! - [`seeded`] runs one long schedule of a large random definition with random faults.
//!
//! Both play the loop of the crate's first page around a world with a ledger of its own: which
//! effect stands, whatever the log says. Each call ends in every way that a call can end: done,
//! failed, unknown with its effect, unknown without it. The host crashes between any two appends.
//! Every result is delivered again, and late. Every prefix of every log is recovered and run to its
//! end.
//!
//! The machine is a [`Machine`], so that a test can break it on purpose and see that the simulator
//! notices. Deliberately absent: real time, threads, the store. They have tests of their own.

mod action;
mod exhaustive;
mod figures;
mod generate;
mod ledger;
mod machine;
mod record;
mod rules;
mod seeded;
mod units;
mod violation;
mod world;

pub use exhaustive::{Budget, exhaustive};
pub use figures::Figures;
pub use generate::{Variants, graphs};
pub use machine::{Engine, Machine};
pub use seeded::seeded;
pub use violation::Violation;
