//! `bench`: how fast a host is on this machine, and what that costs.
//!
//! One saga of three trivial steps, as it completes and as it is undone, from a number of clients
//! in a closed loop: each starts the next saga when the one before has ended. Everything is real:
//! components, store, fsync. After each run the store is closed, opened again and counted: a saga
//! that is not in it, ended as it must, fails the bench.
//!
//! Deliberately absent: a time that is compared with another machine's. Machines are shared and
//! differ; compare what one run prints.

mod floor;
mod host;
mod http;
mod inside;
mod measure;
mod options;
mod report;

use std::time::Duration;

use crate::commands::exit::{EXIT_DONE, EXIT_INTERRUPTED};
use crate::commands::output::format::Format;

pub use options::{Bench, Durability, Mode, Outcome};

use host::Place;
use options::{Load, STEPS};
use report::{Report, Run};

pub(crate) async fn run(args: Bench) -> anyhow::Result<u8> {
    let swaps = args.swaps.iter().any(|swaps| *swaps > 0);
    anyhow::ensure!(
        !swaps || args.mode == [Mode::InProcess],
        "--swaps goes with --mode in-process alone"
    );
    anyhow::ensure!(args.output != Format::Ids, "-o ids: figures have no ids; use json or jsonl");
    // Dropped, what is under way removes its folder and ends its host.
    tokio::select! {
        done = all(&args) => done.map(|()| EXIT_DONE),
        _ = tokio::signal::ctrl_c() => Ok(EXIT_INTERRUPTED),
    }
}

async fn all(args: &Bench) -> anyhow::Result<()> {
    let mut report = Report::new(args);
    let loads = loads(args);
    for (number, load) in loads.iter().enumerate() {
        let Load { mode, outcome, clients, .. } = *load;
        let name = format!("{}, {}, {clients} clients", mode.word(), outcome.word());
        match one(args, *load).await {
            Ok(run) => {
                let sagas = run.measured.per_second();
                eprintln!("run {} of {}: {name}: {sagas:.0} sagas/s", number + 1, loads.len());
                report.add(run)?;
            }
            // What was measured before is told all the same.
            Err(error) => {
                report.print(args.output)?;
                return Err(error.context(name));
            }
        }
    }
    report.print(args.output)
}

/// Every run, in the order in which they are made.
fn loads(args: &Bench) -> Vec<Load> {
    let loads = [Load {
        mode: Mode::InProcess,
        outcome: Outcome::Happy,
        clients: 1,
        time: Duration::from_secs(args.seconds),
        steps: STEPS,
        stored: 0,
        waiting: args.waiting,
        swaps: 0,
    }];
    let loads = each(&loads, &args.mode, |load, mode| load.mode = mode);
    let loads = each(&loads, &args.outcome, |load, outcome| load.outcome = outcome);
    let loads = each(&loads, &args.clients, |load, clients| load.clients = clients);
    let loads = each(&loads, &args.steps, |load, steps| load.steps = steps);
    let loads = each(&loads, &args.stored, |load, stored| load.stored = stored);
    each(&loads, &args.swaps, |load, swaps| load.swaps = swaps)
}

/// Each of the loads with each of the values.
fn each<T: Copy>(loads: &[Load], values: &[T], set: impl Fn(&mut Load, T)) -> Vec<Load> {
    let with = |mut load: Load, value: T| {
        set(&mut load, value);
        load
    };
    loads.iter().flat_map(|load| values.iter().map(|value| with(*load, *value))).collect()
}

/// Each run has a store and a host of its own, so that none is slower for what came before it.
async fn one(args: &Bench, load: Load) -> anyhow::Result<Run> {
    let place = Place::new(args, load.steps)?;
    inside::fill(&place, load).await?;
    let before = place.before().await?;
    let measured = match load.mode {
        Mode::InProcess => inside::run(&place, load).await?,
        Mode::Http | Mode::Batch => http::run(&place, load).await?,
    };
    let stored = place.count(load, measured.sagas, before).await?;
    let floor = if args.floor {
        Some(floor::measure(args, load, &measured, stored.bytes).await?)
    } else {
        None
    };
    Ok(Run { load, measured, stored, floor })
}
