//! Runs the simulator for as long as asked:
//! `cargo run --release -p amends-engine --features sim --example simulate -- --seconds 60`.
//!
//! Prints its seed first; then every small graph exhaustively, or with `--exhaustive` all of four
//! steps too; then seeds until the time is up: one host for half of it, several hosts for the other
//! half. Ends with 1 when a rule was broken, after printing how and the seed that broke it.
//! `--one SEED` runs that seed alone, on one host and on several.
#![allow(clippy::print_stdout, reason = "it is a program")]
#![allow(clippy::disallowed_types, reason = "the machine has no clock; who runs it may")]

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use amends_engine::sim::{
    Budget, ClusterFigures, Engine, Figures, Variants, Violation, exhaustive, graphs, hosts, seeded,
};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut seconds, mut seed, mut one, mut is_exhaustive) = (10, None, None, false);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse::<u64>().ok());
        match argument.as_str() {
            "--seconds" => match number() {
                Some(number) => seconds = number,
                None => return usage(),
            },
            "--seed" => match number() {
                Some(number) => seed = Some(number),
                None => return usage(),
            },
            "--one" => match number() {
                Some(number) => one = Some(number),
                None => return usage(),
            },
            "--exhaustive" => is_exhaustive = true,
            _ => return usage(),
        }
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed =
        seed.unwrap_or_else(|| u64::try_from(now.as_nanos() % u128::from(u64::MAX)).unwrap_or(1));
    let half = Duration::from_secs(seconds) / 2;
    let result = if let Some(one) = one {
        run_seeded(one, Duration::ZERO).and_then(|()| run_hosts(one, Duration::ZERO))
    } else {
        println!("seed {seed}");
        run_exhaustive(is_exhaustive)
            .and_then(|()| run_seeded(seed, half))
            .and_then(|()| run_hosts(seed, half))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    println!("usage: simulate [--seconds N] [--seed N] [--exhaustive] | simulate --one SEED");
    ExitCode::from(2)
}

fn run_exhaustive(is_large: bool) -> Result<(), Box<Violation>> {
    let started = Instant::now();
    let mut figures = Figures::default();
    let small = Budget { faults: 2, crashes: 1, cancels: 1, orders: 1, ..Budget::default() };
    let looks = true;
    for definition in (1..=2).flat_map(|steps| graphs(steps, Variants::All)) {
        figures.add(exhaustive(&Engine, &definition, Budget { looks, ..small })?);
    }
    let budget = Budget { faults: 1, crashes: 0, delays: 1, looks, ..small };
    for definition in (1..=2).flat_map(|steps| graphs(steps, Variants::All)) {
        figures.add(exhaustive(&Engine, &definition, budget)?);
    }
    let budget = Budget { faults: 1, orders: 0, clock: true, looks, ..small };
    for definition in (1..=2).flat_map(|steps| graphs(steps, Variants::All)) {
        figures.add(exhaustive(&Engine, &definition, budget)?);
    }
    let budget = Budget { faults: 1, orders: 0, ..small };
    for definition in graphs(3, Variants::All) {
        figures.add(exhaustive(&Engine, &definition, budget)?);
    }
    for definition in graphs(1, Variants::Lists) {
        for (faults, orders) in [(2, 0), (1, 1)] {
            figures.add(exhaustive(&Engine, &definition, Budget { faults, orders, ..small })?);
        }
    }
    for definition in graphs(2, Variants::Lists) {
        figures.add(exhaustive(&Engine, &definition, budget)?);
    }
    if is_large {
        for definition in (1..=2).flat_map(|steps| graphs(steps, Variants::Lists)) {
            let budget = Budget { faults: 2, orders: 1, admissions: true, ..small };
            figures.add(exhaustive(&Engine, &definition, budget)?);
        }
        for definition in graphs(3, Variants::All) {
            let budget = Budget { faults: 3, crashes: 2, orders: 1, admissions: true, ..small };
            figures.add(exhaustive(&Engine, &definition, budget)?);
        }
        for definition in graphs(4, Variants::All) {
            figures.add(exhaustive(&Engine, &definition, budget)?);
        }
    }
    println!("exhaustive, {:.1} s: {figures}", started.elapsed().as_secs_f64());
    Ok(())
}

fn run_seeded(first: u64, time: Duration) -> Result<(), Box<Violation>> {
    let mut figures = Figures::default();
    let (seeds, took) =
        run_seeds(first, time, |seed| seeded(&Engine, seed).map(|run| figures.add(run)))?;
    println!("seeded, {took:.1} s, {seeds} seeds: {figures}");
    Ok(())
}

fn run_hosts(first: u64, time: Duration) -> Result<(), Box<Violation>> {
    let mut figures = ClusterFigures::default();
    let (seeds, took) =
        run_seeds(first, time, |seed| hosts(&Engine, None, seed).map(|run| figures.add(run)))?;
    println!("several hosts, {took:.1} s, {seeds} seeds: {figures}");
    Ok(())
}

/// Runs seeds until the time is up, and at least the first. Returns how many, and the seconds that
/// they took.
fn run_seeds(
    first: u64,
    time: Duration,
    mut run: impl FnMut(u64) -> Result<(), Box<Violation>>,
) -> Result<(u64, f64), Box<Violation>> {
    let started = Instant::now();
    let mut seed = first;
    while started.elapsed() < time || seed == first {
        run(seed)
            .inspect_err(|_| println!("seed {seed} breaks a rule; see it with --one {seed}"))?;
        seed = seed.wrapping_add(1);
    }
    Ok((seed.wrapping_sub(first), started.elapsed().as_secs_f64()))
}
