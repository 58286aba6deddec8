//! Sagas started by calls within the process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::Payload;
use amends_runtime::{Runtime, StartRequest};
use anyhow::Context as _;

use super::host::{DEFINITION, Place};
use super::measure::{Measured, cpu, forget_memory, memory};
use super::{Load, Outcome};
use crate::commands::run::open;

/// So long each run is driven before it is measured, so that nothing is done for the first time.
pub(super) const WARM_UP: Duration = Duration::from_millis(500);

/// A saga that has not ended by then does not end.
const END_LIMIT: Duration = Duration::from_mins(1);

/// How long calls in flight may take when the run is over; there are none.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What one client did.
#[derive(Default)]
struct Done {
    sagas: u64,
    latencies: Vec<Duration>,
    last: Option<Instant>,
}

pub(super) async fn run(place: &Place, load: Load) -> anyhow::Result<Measured> {
    forget_memory();
    let runtime = open(place.config()?.config).await?;
    let from = Instant::now() + WARM_UP;
    let until = from + load.time;
    let clients = (0..load.clients)
        .map(|_| tokio::spawn(client(runtime.clone(), load.outcome, from, until)))
        .collect::<Vec<_>>();
    tokio::time::sleep_until(from.into()).await;
    let process = std::process::id();
    let (cpu_before, stats_before) = (cpu(process)?, runtime.store().stats());
    let mut done = Vec::new();
    for client in clients {
        done.push(client.await.context("a client broke")??);
    }
    let stats = runtime.store().stats();
    let cpu = cpu(process)?.saturating_sub(cpu_before);
    let memory = memory(process)?;
    runtime.stop(STOP_LIMIT).await;
    runtime.plugins().close().await;
    runtime.store().close().await?;
    let last = done.iter().filter_map(|done| done.last).max();
    let sagas = done.iter().map(|done| done.sagas).sum();
    let mut latencies: Vec<_> = done.into_iter().flat_map(|done| done.latencies).collect();
    latencies.sort_unstable();
    Ok(Measured {
        sagas,
        counted: latencies.len() as u64,
        elapsed: last.map_or(load.time, |last| last - from),
        latencies,
        cpu,
        memory,
        transactions: stats.transactions - stats_before.transactions,
    })
}

async fn client(
    runtime: Runtime,
    outcome: Outcome,
    from: Instant,
    until: Instant,
) -> anyhow::Result<Done> {
    let input = Payload::parse(outcome.input())?;
    let definition: Arc<str> = DEFINITION.into();
    let mut done = Done::default();
    while Instant::now() < until {
        let began = Instant::now();
        let request = StartRequest {
            definition: definition.to_string(),
            input: input.clone(),
            key: None,
            tags: std::collections::BTreeMap::new(),
            traceparent: None,
        };
        let (started, state) = runtime.start_and_wait(request, END_LIMIT).await?;
        let state = state?.context("a saga is gone")?;
        let status = state.saga.status();
        anyhow::ensure!(status == outcome.end(), "saga {} is {status}", started.id);
        let ended = Instant::now();
        done.sagas += 1;
        if began >= from {
            done.latencies.push(ended - began);
            done.last = Some(ended);
        }
    }
    Ok(done)
}
