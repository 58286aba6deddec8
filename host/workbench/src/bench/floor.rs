//! Measures what the parts of a host can do alone, on the same machine and in the same run as the whole.
//!
//! The whole host cannot be faster than the commits of its appends, nor than the calls of its components.
//! It cannot be faster than its clients either, because each client waits for the commits and the calls of
//! its saga. Commits are measured in groups of the size that the run had. More clients make larger groups,
//! which are faster.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use amends_engine::{Direction, Outcome, Payload, SagaId, Timestamp};
use amends_registry::Registry;
use amends_sandbox::PluginCall;
use amends_store::Durability;
use anyhow::Context as _;
use rusqlite::{Connection, params};

use super::database::Database;
use super::host::{DEFINITION, Place};
use super::measure::{Measured, cores, cpu};
use super::options::{BenchOptions, Load, plugin, step};
use amends_config::open_registry;

/// How long each part is measured.
const TIME: Duration = Duration::from_secs(1);

/// Commits and calls that only warm up.
const WARM_UP: u32 = 200;

/// What the parts can do alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floor {
    /// `fdatasync` after 4 KiB at the end of a file, the median.
    pub(super) fsync: Duration,
    /// Sagas a second that the database alone commits, with the same bytes in as many rows and as many
    /// rows a transaction as in the run.
    pub(super) commits: f64,
    /// The same if every client's append shared one transaction.
    pub(super) commits_grouped: f64,
    /// Sagas a second whose calls the plugin host alone runs, on all cores.
    pub(super) calls: f64,
    /// Sagas a second of both, when they share the cores.
    pub(super) together: f64,
    /// Sagas a second that so many clients could have one after another.
    pub(super) clients: f64,
}

impl Floor {
    /// The fastest that the whole could be.
    pub(super) fn sagas_per_second(&self) -> f64 {
        [self.calls, self.together, self.clients].into_iter().fold(self.commits, f64::min)
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(super) async fn measure(
    options: &BenchOptions,
    load: Load,
    measured: &Measured,
    bytes: f64,
) -> anyhow::Result<Floor> {
    let place = Place::new(options, load).await?;
    let counted = measured.counted.max(1) as f64;
    let appends = measured.appends as f64 / counted;
    let bytes = bytes / appends.max(1.0);
    let group = measured.appends as f64 / measured.transactions.max(1) as f64;
    let fsync = fsync(place.folder())?;
    let commits = async |group| match place.database() {
        Some(database) => on_server(database, options, load.hosts, (bytes, group)).await,
        None => commits(place.folder(), options.durability, (bytes, group)),
    };
    let (one, commit_cpu) = commits(group).await?;
    let (grouped, _) = commits(load.in_flight() as f64 / load.hosts as f64).await?;
    let call = calls(&place, load).await?;
    let cores = cores() as f64;
    // A commit takes as long as its whole group.
    let serial = appends * group / one + call.as_secs_f64();
    Ok(Floor {
        fsync,
        commits: one / appends,
        commits_grouped: grouped / appends,
        calls: cores / call.as_secs_f64(),
        together: cores / (commit_cpu * appends + call.as_secs_f64()),
        clients: load.in_flight() as f64 / serial,
    })
}

fn fsync(folder: &Path) -> anyhow::Result<Duration> {
    let mut file = File::create(folder.join("fsync")).context("no file to sync")?;
    let mut times = Vec::new();
    let until = Instant::now() + TIME / 2;
    while Instant::now() < until {
        let began = Instant::now();
        file.write_all(&[0x5a; 4_096]).and_then(|()| file.sync_data()).context("no sync")?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("no sync in time")
}

/// Rows a second, and the processor time of one in seconds.
fn commits(
    folder: &Path,
    durability: Durability,
    (bytes, group): (f64, f64),
) -> anyhow::Result<(f64, f64)> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
    let (bytes, group) = (bytes.round() as usize, group.round().max(1.0) as u32);
    let database = tempfile::tempdir_in(folder).context("no folder for a database")?;
    let connection =
        Connection::open(database.path().join("commits.db")).context("no database to commit to")?;
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Relaxed => "NORMAL",
    };
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.execute_batch("CREATE TABLE rows (position INTEGER PRIMARY KEY, bytes TEXT)")?;
    let text = "5".repeat(bytes);
    let transaction = |number: &mut i64| -> rusqlite::Result<()> {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut insert = connection.prepare_cached("INSERT INTO rows VALUES (?1, ?2)")?;
        for _ in 0..group {
            *number += 1;
            insert.execute(params![*number, text])?;
        }
        connection.execute_batch("COMMIT")
    };
    let mut rows = 0;
    for _ in 0..WARM_UP {
        transaction(&mut rows)?;
    }
    let (warm, began) = (rows, Instant::now());
    let cpu_before = cpu(std::process::id())?;
    while began.elapsed() < TIME {
        transaction(&mut rows)?;
    }
    let cpu = cpu(std::process::id())?.saturating_sub(cpu_before);
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let rows = (rows - warm) as f64;
    Ok((rows / began.elapsed().as_secs_f64(), cpu.as_secs_f64() / rows))
}

/// The same on a server of PostgreSQL, over a connection of each host; the processor time is the server's.
async fn on_server(
    database: &Database,
    options: &BenchOptions,
    connections: usize,
    (bytes, group): (f64, f64),
) -> anyhow::Result<(f64, f64)> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
    let (bytes, group) = (bytes.round() as usize, group.round().max(1.0) as i32);
    let setup = database.connect().await?;
    setup.batch_execute("CREATE TABLE rows (position bigserial PRIMARY KEY, bytes text)").await?;
    let synchronous = match options.durability {
        Durability::Full => "on",
        Durability::Relaxed => "off",
    };
    let text = "5".repeat(bytes);
    let cpu_before = database.cpu().await?;
    let began = Instant::now();
    let mut writers = Vec::new();
    for _ in 0..connections {
        let client = database.connect().await?;
        client.batch_execute(&format!("SET synchronous_commit = {synchronous}")).await?;
        let text = text.clone();
        writers.push(tokio::spawn(async move {
            let sql = "INSERT INTO rows (bytes) SELECT $1 FROM generate_series(1, $2)";
            let insert = client.prepare(sql).await?;
            let mut rows = 0;
            while began.elapsed() < TIME {
                rows += client.execute(&insert, &[&text, &group]).await?;
            }
            anyhow::Ok(rows)
        }));
    }
    let mut rows = 0;
    for writer in writers {
        rows += writer.await.context("a writer broke")??;
    }
    let elapsed = began.elapsed();
    let cpu = database.cpu().await?.zip(cpu_before);
    // A host refuses a database with other tables than its own.
    setup.batch_execute("DROP TABLE rows").await?;
    let cpu = cpu.map_or(Duration::ZERO, |(now, before)| now.saturating_sub(before));
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let rows = rows.max(1) as f64;
    Ok((rows / elapsed.as_secs_f64(), cpu.as_secs_f64() / rows))
}

/// The calls of one saga on one core, with every core at it.
async fn calls(place: &Place, load: Load) -> anyhow::Result<Duration> {
    let (store, plugins) = open_registry(&place.config()?.config).await?;
    let saga = all_calls(load, &plugins)?;
    let tasks = (0..cores())
        .map(|_| {
            let (plugins, calls) = (plugins.clone(), saga.clone());
            tokio::spawn(async move { one_core(&plugins, &calls).await })
        })
        .collect::<Vec<_>>();
    let mut times = Vec::new();
    for task in tasks {
        times.push(task.await.context("a caller broke")??);
    }
    plugins.close().await;
    store.close().await?;
    times.into_iter().max().context("no core")
}

/// How long the calls of a saga take, on average.
async fn one_core(plugins: &Registry, calls: &[PluginCall]) -> anyhow::Result<Duration> {
    let (mut sagas, mut began) = (0_u32, Instant::now());
    loop {
        for call in calls {
            let outcome = plugins.call(call).await.outcome;
            let is_answer = matches!(
                outcome,
                Outcome::Succeeded(_) | Outcome::Permanent(_) | Outcome::NothingToUndo
            );
            anyhow::ensure!(is_answer, "a call failed: {outcome:?}");
        }
        sagas += 1;
        if sagas == WARM_UP {
            began = Instant::now();
        }
        if sagas > WARM_UP && began.elapsed() >= TIME {
            return Ok(began.elapsed() / (sagas - WARM_UP));
        }
        tokio::task::yield_now().await;
    }
}

/// The calls of one saga, in their order.
fn all_calls(load: Load, plugins: &Registry) -> anyhow::Result<Vec<PluginCall>> {
    let executes = (0..load.steps).map(|step| (step, Direction::Execute));
    let undone = match load.outcome {
        super::options::Outcome::Happy => 0,
        super::options::Outcome::Compensating => load.steps - 1,
    };
    let undos = (0..undone).rev().map(|step| (step, Direction::Compensate));
    let calls = executes.chain(undos);
    calls.map(|(step, direction)| one_call(load, plugins, step, direction)).collect()
}

fn one_call(
    load: Load,
    plugins: &Registry,
    index: usize,
    direction: Direction,
) -> anyhow::Result<PluginCall> {
    let plugin = plugin(index).parse()?;
    let active = plugins.active(&plugin).context("a plugin of the bench is not active")?;
    let output = Payload::parse(r#"{"number":"N-0000000000000000"}"#)?;
    Ok(PluginCall {
        state_of: plugin.clone(),
        plugin,
        digest: active.digest,
        saga_id: SagaId::from_parts(Timestamp::from_millis(1), &[0; 10]),
        definition: DEFINITION.parse()?,
        step: step(index).parse()?,
        attempt: 1,
        direction,
        idempotency_key: "0".repeat(32),
        traceparent: None,
        is_traced: false,
        input: Payload::parse(&load.outcome.input(load.steps))?,
        output: (direction == Direction::Compensate).then_some(output),
        timeout: Duration::from_secs(30),
    })
}
