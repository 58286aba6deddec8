//! What a run is measured by.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::JoinHandle;

use super::options::Load;

/// Clock ticks a second of `/proc/PID/stat`: 100 on every Linux that Rust runs on (`USER_HZ`).
const TICKS: f64 = 100.0;

/// What was measured of a run.
#[derive(Debug)]
pub(super) struct Measured {
    /// Sagas that were started, the ones that only warm up among them: all of them ended.
    pub(super) sagas: u64,
    /// Of those, the ones that ended while it was measured.
    pub(super) counted: u64,
    pub(super) elapsed: Duration,
    /// From start to end of each that was counted, sorted; empty when that was not measured.
    pub(super) latencies: Vec<Duration>,
    /// Of the processes that host, while it was measured.
    pub(super) cpu: Duration,
    /// Of the database's server meanwhile, when there is one and it is on this machine.
    pub(super) cpu_of_server: Option<Duration>,
    /// The most memory of that process, in bytes; with several hosts, of the one that had most.
    pub(super) memory: u64,
    /// Transactions of the store, each one fsync when it is durable.
    pub(super) transactions: u64,
    /// Appends of the store, each one row of its log.
    pub(super) appends: u64,
    /// From the start of the host until it took sagas, where that was measured.
    pub(super) ready: Option<Duration>,
    /// The share of one core that the host used before there was anything to do.
    pub(super) idle: Option<f64>,
    /// Components that were swapped in while it ran.
    pub(super) swapped: u64,
}

/// What one client did, or several together.
#[derive(Debug, Default)]
pub(super) struct Done {
    sagas: u64,
    latencies: Vec<Duration>,
    last: Option<Instant>,
}

impl Done {
    /// One more saga has ended, now.
    pub(super) fn add(&mut self, began: Instant, from: Instant) {
        let ended = Instant::now();
        self.sagas += 1;
        if began >= from {
            self.latencies.push(ended - began);
            self.last = Some(ended);
        }
    }

    /// What all of them did.
    pub(super) async fn of(clients: Vec<JoinHandle<anyhow::Result<Self>>>) -> anyhow::Result<Self> {
        let mut all = Self::default();
        for client in clients {
            let done = client.await.context("a client broke")??;
            all.sagas += done.sagas;
            all.latencies.extend(done.latencies);
            all.last = all.last.max(done.last);
        }
        all.latencies.sort_unstable();
        Ok(all)
    }

    /// The part of the figures that clients know.
    pub(super) fn measured(self, from: Instant, load: Load) -> Measured {
        Measured {
            sagas: self.sagas,
            counted: self.latencies.len() as u64,
            elapsed: self.last.map_or(load.time, |last| last - from),
            latencies: self.latencies,
            cpu: Duration::ZERO,
            cpu_of_server: None,
            memory: 0,
            transactions: 0,
            appends: 0,
            ready: None,
            idle: None,
            swapped: 0,
        }
    }
}

impl Measured {
    pub(super) fn per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let counted = self.counted as f64;
        counted / self.elapsed.as_secs_f64()
    }

    /// The latency that so many of a thousand do not exceed.
    pub(super) fn latency(&self, thousandth: usize) -> Option<Duration> {
        let index =
            (self.latencies.len() * thousandth / 1_000).min(self.latencies.len().max(1) - 1);
        self.latencies.get(index).copied()
    }
}

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What `/proc/PID/stat` says of a process.
pub(super) struct ProcessStat {
    pub(super) parent: u32,
    /// The processor time of all its threads.
    pub(super) cpu: Duration,
    /// That of its children that have ended.
    pub(super) cpu_of_children: Duration,
}

pub(super) fn stat(process: u32) -> anyhow::Result<ProcessStat> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).context("no /proc/PID/stat")?;
    // proc(5): the command in brackets may have anything in it; ppid is 4, utime to cstime are 14 to 17.
    let fields = stat.rsplit_once(')').context("no fields in /proc/PID/stat")?.1;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |field: usize| -> anyhow::Result<u32> {
        let text = fields.get(field - 3).context("a field of /proc/PID/stat is missing")?;
        text.parse().context("a field of /proc/PID/stat is no number")
    };
    let time = |of_user: usize| -> anyhow::Result<Duration> {
        let ticks = f64::from(number(of_user)?) + f64::from(number(of_user + 1)?);
        Ok(Duration::from_secs_f64(ticks / TICKS))
    };
    Ok(ProcessStat { parent: number(4)?, cpu: time(14)?, cpu_of_children: time(16)? })
}

/// The processor time that a process has used, of all its threads.
pub(super) fn cpu(process: u32) -> anyhow::Result<Duration> {
    Ok(stat(process)?.cpu)
}

/// The most memory that a process had, in bytes (`VmHWM`).
pub(super) fn memory(process: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(path).context("no /proc/PID/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kib.context("no VmHWM in /proc/PID/status")? * 1_024)
}

/// Has `VmHWM` of this process count from now on (`proc(5)`, `clear_refs`).
pub(super) fn forget_memory() {
    // Where that is not permitted, the figure is that of all runs so far.
    let _ = fs::write("/proc/self/clear_refs", "5");
}
