//! The simulator. It runs the machine through schedules that nobody would write as a test, and
//! checks the results against rules that do not know how the machine works.
//!
//! - [`exhaustive`] runs every schedule of every small graph, within a [`Budget`] of faults.
//! - [`seeded`] runs one long schedule of a large random definition with random faults.
//! - [`hosts`] runs one long schedule of a few sagas on several hosts of one store.
//!
//! All play the loop of the crate's first page on a stage: the log of one saga, and a ledger of the
//! world outside, which says which effect stands, whatever the log says. An append is judged when it
//! is stored. Calls end in every way that a call can end: done, failed, unknown with its effect,
//! unknown without it.
//!
//! With one host, an append is answered at once. The host crashes between any two appends, every
//! result is delivered again and late, and every prefix of every log is recovered and run to its
//! end. With several hosts, each step of an append and of a call is a move of its own, and anything
//! may happen in between: a host stands still or is killed, an answer is late or lost, a shard gets
//! another owner, a clock is wrong. Each [`Protection`] can be taken away, to show that the rules
//! miss it.
//!
//! The machine is a [`Machine`], so that a test can break it on purpose and see that the simulator
//! notices. Deliberately absent: real time, threads, the database, and a host that stands still
//! between its look at its lease and the request that it sends then. The first three have tests of
//! their own. No clock of a host can rule out the last one.

mod action;
mod cluster;
mod cluster_figures;
mod exhaustive;
mod figures;
mod generate;
mod hosts;
mod ledger;
mod machine;
mod memory;
mod protection;
mod record;
mod rules;
mod seeded;
mod stage;
mod units;
mod violation;
mod world;

pub use cluster_figures::ClusterFigures;
pub use exhaustive::{Budget, exhaustive};
pub use figures::Figures;
pub use generate::{Variants, graphs};
pub use hosts::hosts;
pub use machine::{Engine, Machine};
pub use protection::Protection;
pub use seeded::seeded;
pub use violation::Violation;
