//! Sagas started by calls within the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use amends_engine::{Payload, SagaStatus};
use amends_runtime::{Host, Principal, StartRequest, Via};
use anyhow::Context as _;
use futures::stream::{self, StreamExt as _};

use super::host::{DEFINITION, Place, SWAPPED, WAITING};
use super::measure::{Done, Measured, cpu, forget_memory, memory};
use super::options::{Load, Outcome};
use amends_config::open;

/// So long each run is driven before it is measured, so that nothing is done for the first time.
pub(super) const WARM_UP: Duration = Duration::from_millis(500);

/// A saga that has not ended by then does not end.
const END_LIMIT: Duration = Duration::from_mins(1);

/// How long calls in flight may take when the run is over; there are none.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How long a host that only waits is watched, and how long it is left alone before.
const IDLE_TIME: Duration = Duration::from_secs(2);

/// Clients that fill a store.
const FILLERS: usize = 256;

/// How often it is asked whether all that are to wait do.
const LOOK: Duration = Duration::from_millis(50);

pub(super) async fn run(place: &Place, load: Load) -> anyhow::Result<Measured> {
    forget_memory();
    let began = Instant::now();
    let runtime = open(place.config()?.config).await?;
    let ready = began.elapsed();
    let process = std::process::id();
    let idle = if load.waiting > 0 { Some(idle(process).await?) } else { None };
    let from = Instant::now() + WARM_UP;
    let until = from + load.time;
    let clients = (0..load.clients)
        .map(|_| tokio::spawn(client(runtime.clone(), load, from, until)))
        .collect::<Vec<_>>();
    tokio::time::sleep_until(from.into()).await;
    let (cpu_before, stats_before) = (cpu(process)?, runtime.stats());
    let (done, ()) = tokio::try_join!(Done::of(clients), swap(place, load, until))?;
    let stats = runtime.stats();
    let measured = Measured {
        cpu: cpu(process)?.saturating_sub(cpu_before),
        memory: memory(process)?,
        transactions: stats.transactions - stats_before.transactions,
        appends: stats.appends - stats_before.appends,
        ready: Some(ready),
        idle,
        swapped: swapped(&runtime)?,
        ..done.measured(from, load)
    };
    stop(&runtime).await?;
    Ok(measured)
}

/// Swaps a component as often as is wanted.
async fn swap(place: &Place, load: Load, until: Instant) -> anyhow::Result<()> {
    if load.swaps == 0 {
        return Ok(());
    }
    let pause = Duration::from_mins(1) / u32::try_from(load.swaps)?;
    let mut number = 0;
    while Instant::now() + pause < until {
        tokio::time::sleep(pause).await;
        place.swap(number).context("a plugin cannot be swapped")?;
        number += 1;
    }
    Ok(())
}

/// How many components came after the first.
fn swapped(runtime: &Host) -> anyhow::Result<u64> {
    let info = runtime.plugin(&SWAPPED.parse()?);
    Ok(info.map_or(0, |info| info.history.len().saturating_sub(1) as u64))
}

/// Fills a store with what is to be in it before a run.
pub(super) async fn fill(place: &Place, load: Load) -> anyhow::Result<()> {
    if load.stored + load.waiting == 0 {
        return Ok(());
    }
    let runtime = open(place.config()?.config).await?;
    let left = Arc::new(AtomicU64::new(load.stored));
    let fillers = (0..FILLERS)
        .map(|_| {
            let (runtime, left) = (runtime.clone(), Arc::clone(&left));
            tokio::spawn(async move {
                let take = |left: u64| left.checked_sub(1);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                    one(&runtime, load).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect::<Vec<_>>();
    for filler in fillers {
        filler.await.context("a client broke")??;
    }
    let waits = Load { outcome: Outcome::Happy, ..load };
    let starts = (0..load.waiting).zip(WAITING.into_iter().cycle()).map(|(_, definition)| {
        let (runtime, request) = (runtime.clone(), request(definition, waits));
        async move { anyhow::Ok(runtime.start(&bench(), request?).await?) }
    });
    let mut starts = stream::iter(starts).buffer_unordered(FILLERS);
    while let Some(started) = starts.next().await {
        started?;
    }
    drop(starts);
    let limit = Instant::now() + END_LIMIT;
    while waiting(&runtime).await? < load.waiting {
        anyhow::ensure!(Instant::now() < limit, "not all sagas that are to wait do");
        tokio::time::sleep(LOOK).await;
    }
    stop(&runtime).await
}

async fn waiting(runtime: &Host) -> anyhow::Result<u64> {
    let counts = runtime.counts().await?;
    Ok(counts.get(&SagaStatus::Waiting).copied().unwrap_or_default())
}

/// The share of one core that a host uses when there is nothing to do.
async fn idle(process: u32) -> anyhow::Result<f64> {
    tokio::time::sleep(IDLE_TIME).await;
    let before = cpu(process)?;
    tokio::time::sleep(IDLE_TIME).await;
    Ok(cpu(process)?.saturating_sub(before).as_secs_f64() / IDLE_TIME.as_secs_f64())
}

async fn stop(runtime: &Host) -> anyhow::Result<()> {
    runtime.stop(STOP_LIMIT).await;
    Ok(runtime.close().await?)
}

async fn client(runtime: Host, load: Load, from: Instant, until: Instant) -> anyhow::Result<Done> {
    let mut done = Done::default();
    while Instant::now() < until {
        let began = Instant::now();
        one(&runtime, load).await?;
        done.add(began, from);
    }
    Ok(done)
}

/// Starts a saga and waits for its end, which must be the one that is wanted.
async fn one(runtime: &Host, load: Load) -> anyhow::Result<()> {
    let request = request(DEFINITION, load)?;
    let (started, state) = runtime.start_and_wait(&bench(), request, END_LIMIT).await?;
    let status = state?.context("a saga is gone")?.saga.status();
    anyhow::ensure!(status == load.outcome.end(), "saga {} is {status}", started.id);
    Ok(())
}

fn bench() -> Principal {
    Principal::local("bench", Via::CommandLine)
}

fn request(definition: &str, load: Load) -> anyhow::Result<StartRequest> {
    Ok(StartRequest {
        definition: definition.to_owned(),
        input: Payload::parse(&load.outcome.input(load.steps))?,
        key: None,
        tags: BTreeMap::new(),
        traceparent: None,
        start_at: None,
    })
}
