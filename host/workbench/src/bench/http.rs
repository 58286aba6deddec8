//! Sagas started over HTTP, from this process to hosts that are processes of their own on the same
//! machine: the clients take their share of the cores. Each client uses one of the hosts.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::host::{DEFINITION, Place};
use super::inside::WARM_UP;
use super::measure::{Done, Measured, cpu, memory};
use super::options::{BATCH, BATCHES_MAX, BenchOptions, Load, Mode};

/// How often it is asked whether the sagas of batches have ended.
const LOOK: Duration = Duration::from_millis(10);

/// How long a client waits that a full host has refused: what its `Retry-After` says.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// Sagas that have not ended by then do not end.
const END_LIMIT: Duration = Duration::from_mins(1);

/// A host of its own; killed when it is dropped before it was stopped.
struct Host {
    child: Child,
    base: String,
}

pub(super) async fn run(
    options: &BenchOptions,
    place: &Place,
    load: Load,
) -> anyhow::Result<Measured> {
    let hosts = Hosts::start(options, place, load).await?;
    let measured = match load.mode {
        Mode::Batch => batches(&hosts, place, load).await?,
        Mode::Http | Mode::InProcess => singles(&hosts, place, load).await?,
    };
    let memory = hosts.memory()?;
    hosts.stop()?;
    Ok(Measured { memory, ..measured })
}

/// The hosts that share the store, and a client for them.
struct Hosts {
    hosts: Vec<Host>,
    http: reqwest::Client,
}

/// The processor time that has been used.
struct Used {
    hosts: Duration,
    server: Option<Duration>,
}

impl Hosts {
    /// Starts the hosts, and waits until each has its part of the shards.
    async fn start(options: &BenchOptions, place: &Place, load: Load) -> anyhow::Result<Self> {
        let hosts: anyhow::Result<Vec<_>> = (0..load.hosts)
            .map(|number| Host::start(options, &place.config_file(number)))
            .collect();
        // The hosts are on this machine and their connections are not encrypted: certificates are not read.
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]);
        let started = Self { hosts: hosts?, http: http.build().context("no HTTP client")? };
        let limit = Instant::now() + END_LIMIT;
        while load.hosts > 1 && !started.have_shards().await? {
            anyhow::ensure!(Instant::now() < limit, "the hosts do not share the shards");
            tokio::time::sleep(LOOK).await;
        }
        Ok(started)
    }

    /// Returns whether each host owns shards, and no shard is without an owner.
    async fn have_shards(&self) -> anyhow::Result<bool> {
        let url = format!("{}/v1/host", self.base(0));
        let view: Value = serde_json::from_str(&self.http.get(url).send().await?.text().await?)?;
        let known = view["hosts"].as_array().map(Vec::as_slice).unwrap_or_default();
        let owners = known.iter().filter(|host| host["shards"].as_array() != Some(&Vec::new()));
        Ok(owners.count() == self.hosts.len() && view["shards_unowned"] == 0)
    }

    /// The URL of the host that serves a client.
    fn base(&self, client: usize) -> &str {
        self.hosts.get(client % self.hosts.len()).map_or("", |host| &host.base)
    }

    async fn used(&self, place: &Place) -> anyhow::Result<Used> {
        let mut used = Duration::ZERO;
        for host in &self.hosts {
            used += cpu(host.child.id())?;
        }
        let server = match place.database() {
            Some(database) => database.cpu().await?,
            None => None,
        };
        Ok(Used { hosts: used, server })
    }

    fn memory(&self) -> anyhow::Result<u64> {
        let mut most = 0;
        for host in &self.hosts {
            most = most.max(memory(host.child.id())?);
        }
        Ok(most)
    }

    fn stop(self) -> anyhow::Result<()> {
        self.hosts.into_iter().try_for_each(Host::stop)
    }

    /// What the hosts' metrics say so far.
    async fn counts(&self) -> anyhow::Result<Counts> {
        let mut all = Counts::default();
        for host in &self.hosts {
            let counts = host.counts(&self.http).await?;
            all.ended += counts.ended;
            all.transactions += counts.transactions;
            all.appends += counts.appends;
        }
        Ok(all)
    }
}

impl Used {
    /// What has been used since.
    fn measured(self, before: &Self, measured: Measured) -> Measured {
        let server = self.server.zip(before.server);
        Measured {
            cpu: self.hosts.saturating_sub(before.hosts),
            cpu_of_server: server.map(|(now, before)| now.saturating_sub(before)),
            ..measured
        }
    }
}

/// What hosts have done since they began.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// Sagas that have ended.
    ended: u64,
    transactions: u64,
    appends: u64,
}

impl Host {
    fn start(options: &BenchOptions, config: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(&options.program)
            .arg("run")
            .arg(config)
            .env("AMENDS_LOG", "amends=info,warn")
            .env_remove("AMENDS_LISTEN")
            .env_remove("AMENDS_STORE_URL")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("the host does not start")?;
        let stderr = child.stderr.take().context("the host has no log")?;
        let mut host = Self { child, base: String::new() };
        let mut lines = BufReader::new(stderr).lines();
        while let Some(Ok(line)) = lines.next() {
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(listen) = line["listen"].as_str() {
                host.base = format!("http://{listen}");
                let complain = options.complain;
                // Whatever it says from here on is shown, and its pipe never fills up.
                std::thread::spawn(move || {
                    for line in lines.map_while(Result::ok).filter(|line| line.contains("ERROR")) {
                        complain(&line);
                    }
                });
                return Ok(host);
            }
        }
        anyhow::bail!("the host ended before it was ready")
    }

    fn stop(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("no signal was sent")?;
        let status = self.child.wait().context("the host does not end")?;
        anyhow::ensure!(status.success(), "the host ended with {status}");
        Ok(())
    }

    /// What the host's metrics say so far.
    async fn counts(&self, http: &reqwest::Client) -> anyhow::Result<Counts> {
        let text = http.get(format!("{}/metrics", self.base)).send().await?.text().await?;
        let sum = |name: &str| -> u64 {
            let of_name = text.lines().filter(|line| line.starts_with(name));
            of_name.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        };
        Ok(Counts {
            ended: sum("amends_saga_finished_total{"),
            transactions: sum("amends_store_batch_size_count"),
            appends: sum("amends_store_append_seconds_count"),
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn body(load: Load) -> String {
    let input = load.outcome.input(load.steps);
    format!("{{\"definition\":\"{DEFINITION}\",\"input\":{input}}}")
}

/// Each client starts one saga and waits for its end, then the next.
async fn singles(hosts: &Hosts, place: &Place, load: Load) -> anyhow::Result<Measured> {
    let from = Instant::now() + WARM_UP;
    let until = from + load.time;
    let clients = (0..load.clients)
        .map(|client| {
            let url = format!("{}/v1/sagas?wait=60s", hosts.base(client));
            tokio::spawn(single(hosts.http.clone(), url, load, (from, until)))
        })
        .collect::<Vec<_>>();
    tokio::time::sleep_until(from.into()).await;
    let used_before = hosts.used(place).await?;
    let before = hosts.counts().await?;
    let done = Done::of(clients).await?;
    let used = hosts.used(place).await?;
    let counts = hosts.counts().await?;
    let measured = Measured {
        transactions: counts.transactions - before.transactions,
        appends: counts.appends - before.appends,
        ..done.measured(from, load)
    };
    Ok(used.measured(&used_before, measured))
}

async fn single(
    http: reqwest::Client,
    url: String,
    load: Load,
    (from, until): (Instant, Instant),
) -> anyhow::Result<Done> {
    let (body, end) = (body(load), format!("\"status\":\"{}\"", load.outcome.end()));
    let mut done = Done::default();
    while Instant::now() < until {
        let began = Instant::now();
        let request = http.post(&url).header("content-type", "application/json");
        let answer = request.body(body.clone()).send().await?.text().await?;
        anyhow::ensure!(answer.contains(&end), "a saga did not end as it must: {answer}");
        done.add(began, from);
    }
    Ok(done)
}

/// Batches, one after another from each client. It is over when every saga has ended.
async fn batches(hosts: &Hosts, place: &Place, load: Load) -> anyhow::Result<Measured> {
    let clients = load.clients.min(BATCHES_MAX);
    warm_up(hosts, load).await?;
    let used_before = hosts.used(place).await?;
    let before = hosts.counts().await?;
    let from = Instant::now();
    let until = from + load.time;
    let senders = (0..clients)
        .map(|client| {
            let (http, url) =
                (hosts.http.clone(), format!("{}/v1/sagas:batch", hosts.base(client)));
            tokio::spawn(async move {
                let mut sagas = 0;
                while Instant::now() < until {
                    sagas += send_batch(&http, &url, load).await?;
                }
                anyhow::Ok(sagas)
            })
        })
        .collect::<Vec<_>>();
    let mut counted = 0;
    for sender in senders {
        counted += sender.await.context("a client broke")??;
    }
    let (elapsed, counts) = ended(hosts, from, before.ended + counted).await?;
    let used = hosts.used(place).await?;
    let measured = Measured {
        sagas: before.ended + counted,
        counted,
        elapsed,
        transactions: counts.transactions - before.transactions,
        appends: counts.appends - before.appends,
        ..Done::default().measured(from, load)
    };
    Ok(used.measured(&used_before, measured))
}

async fn warm_up(hosts: &Hosts, load: Load) -> anyhow::Result<()> {
    let (began, mut sagas) = (Instant::now(), 0);
    for client in 0.. {
        if began.elapsed() > WARM_UP && client >= hosts.hosts.len() {
            break;
        }
        let url = format!("{}/v1/sagas:batch", hosts.base(client));
        sagas += send_batch(&hosts.http, &url, load).await?;
    }
    ended(hosts, began, sagas).await.map(|_| ())
}

/// Starts the sagas of one batch. Those that a full host refuses are sent again, as its answer asks
/// for.
async fn send_batch(http: &reqwest::Client, url: &str, load: Load) -> anyhow::Result<u64> {
    let line = format!("{}\n", body(load));
    let mut started = 0;
    let until = Instant::now() + END_LIMIT;
    loop {
        let request = http.post(url).header("content-type", "application/x-ndjson");
        let answer = request.body(line.repeat(BATCH - started)).send().await?.text().await?;
        let mut is_full = false;
        for answer in answer.lines() {
            let answer: Value = serde_json::from_str(answer).context("an answer is not JSON")?;
            let problem = &answer["problem"];
            started += usize::from(answer["id"].is_string());
            is_full |= problem["code"] == "overloaded";
            anyhow::ensure!(
                answer["id"].is_string() || problem["code"] == "overloaded",
                "a saga of a batch was not started: {}",
                problem["detail"]
            );
        }
        if started == BATCH {
            return Ok(BATCH as u64);
        }
        anyhow::ensure!(is_full, "{started} of {BATCH} sagas of a batch were answered");
        anyhow::ensure!(
            Instant::now() < until,
            "{started} of {BATCH} sagas of a batch were started within {END_LIMIT:?}: the host is full"
        );
        tokio::time::sleep(FULL_PAUSE).await;
    }
}

/// Waits until so many sagas have ended; how long that took, and what was done by then.
async fn ended(hosts: &Hosts, from: Instant, sagas: u64) -> anyhow::Result<(Duration, Counts)> {
    let limit = Instant::now() + END_LIMIT;
    loop {
        let counts = hosts.counts().await?;
        if counts.ended >= sagas {
            return Ok((from.elapsed(), counts));
        }
        let ended = counts.ended;
        anyhow::ensure!(Instant::now() < limit, "{ended} of {sagas} sagas have ended");
        tokio::time::sleep(LOOK).await;
    }
}
