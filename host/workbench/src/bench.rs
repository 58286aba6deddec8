//! `bench`: how fast a host is on this machine, and what that costs.
//!
//! One saga of three trivial steps, as it completes and as it is undone, from a number of clients
//! in a closed loop: each starts the next saga when the one before has ended. Everything is real:
//! components, store, fsync. After each run the store is closed, opened again and counted: a saga
//! that is not in it, ended as it must, fails the bench.
//!
//! [`BenchOptions::loads`] lists the runs, and [`run`] makes one of them.
//!
//! Deliberately absent: a time that is compared with another machine's. Machines are shared and
//! differ; compare what one run prints.

mod database;
mod floor;
mod host;
mod http;
mod inside;
mod measure;
mod options;
mod report;

pub use options::{BenchOptions, Load, Mode, Outcome, STEPS, STEPS_MAX};
pub use report::{BenchReport, FloorReport, RunReport};

use host::Place;

/// Makes one run. It has a store and a host of its own, so that none is slower for what came before it.
/// May be cancelled: its folder is removed then, and its host ends.
///
/// # Errors
/// When the run cannot be made, or a saga did not end as it must.
pub async fn run(options: &BenchOptions, load: Load) -> anyhow::Result<RunReport> {
    let place = Place::new(options, load).await?;
    inside::fill(&place, load).await?;
    let before = place.before().await?;
    let measured = match load.mode {
        Mode::InProcess => inside::run(&place, load).await?,
        Mode::Http | Mode::Batch => http::run(options, &place, load).await?,
    };
    let stored = place.count(load, measured.sagas, before).await?;
    let floor = if options.floor {
        Some(floor::measure(options, load, &measured, stored.bytes).await?)
    } else {
        None
    };
    Ok(RunReport::new(load, &measured, stored, floor))
}
