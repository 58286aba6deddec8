//! A folder with a config, plugins and data, and the host that runs on it.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What a test waits for at most; machines are shared.
pub(crate) const SOON: Duration = Duration::from_mins(2);

/// What a process ends with that aborts.
const SIGABRT: i32 = 6;

pub(crate) struct Place {
    folder: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Place {
    /// With the example's definition and the committed components.
    pub(crate) fn example() -> Self {
        let place = Self::empty();
        for entry in fs::read_dir(repository().join("plugins")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "wasm") {
                fs::copy(&path, place.plugins().join(path.file_name().unwrap())).unwrap();
            }
        }
        let config = fs::read_to_string(example().join("amends.toml")).unwrap();
        let grants = config.find("[plugin.").unwrap();
        let sagas = &config[grants..];
        // Sooner than a person would want it, so that tests end.
        let sagas =
            sagas.replace("[\"60s\", \"120s\", \"300s\"]", "[\"20ms\", \"20ms\", \"20ms\"]");
        assert!(sagas.contains("20ms"), "the example has other pauses");
        // Their lines are what tests compare the record with: none must be dropped.
        let granted = sagas.replace("]\nevents", "]\nlog_rate = 100000\nevents");
        let granted = granted.replace("]\nallow", "]\nlog_rate = 100000\nallow");
        assert_eq!(granted.matches("log_rate").count(), 2, "the example grants otherwise");
        place.config(&granted);
        place
    }

    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("plugins")).unwrap();
        // Nobody else takes it while this test runs: ports are handed out in turn.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { folder, port }
    }

    /// Leaves the folder where it is.
    pub(crate) fn keep(self) -> PathBuf {
        self.folder.keep()
    }

    /// Writes the config: the usual host, and these definitions.
    pub(crate) fn config(&self, sagas: &str) {
        let port = self.port;
        let text = format!(
            "[host]\nlisten = \"127.0.0.1:{port}\"\n[store]\nurl = \"sqlite:data/amends.db\"\n\
             [plugins]\ndir = \"plugins\"\ncache = \"cache\"\n{sagas}"
        );
        fs::write(self.path("amends.toml"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn plugins(&self) -> PathBuf {
        self.path("plugins")
    }

    pub(crate) fn plugin(&self, name: &str) -> PathBuf {
        self.plugins().join(format!("{name}.wasm"))
    }

    /// Starts the host and waits until it is ready.
    pub(crate) fn run(&self) -> Host {
        let host = self.spawn();
        host.wait_until_ready();
        host
    }

    /// Starts the host.
    pub(crate) fn spawn(&self) -> Host {
        self.spawn_with_env(&[])
    }

    /// Starts the host with these failpoints set.
    pub(crate) fn spawn_with(&self, failpoints: &str) -> Host {
        self.spawn_with_env(&[("FAILPOINTS", failpoints)])
    }

    /// Starts the host in this environment and waits until it is ready.
    pub(crate) fn run_with_env(&self, environment: &[(&str, &str)]) -> Host {
        let host = self.spawn_with_env(environment);
        host.wait_until_ready();
        host
    }

    /// Starts the host with so many descriptors and waits until it is ready.
    pub(crate) fn run_with_descriptors(&self, descriptors: u32) -> Host {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"")])
            .arg(amends());
        let host = self.spawn_command(command, &[]);
        host.wait_until_ready();
        host
    }

    /// Starts the host in this control group and waits until it is ready.
    pub(crate) fn run_in(&self, group: &MemoryGroup) -> Host {
        let mut command = Command::new("sh");
        let enter =
            format!("echo $$ >'{}' && exec \"$0\" \"$@\"", group.path("cgroup.procs").display());
        command.args(["-c", &enter]).arg(amends());
        let host = self.spawn_command(command, &[]);
        host.wait_until_ready();
        host
    }

    /// Starts the host in this environment.
    pub(crate) fn spawn_with_env(&self, environment: &[(&str, &str)]) -> Host {
        self.spawn_command(Command::new(amends()), environment)
    }

    fn spawn_command(&self, mut command: Command, environment: &[(&str, &str)]) -> Host {
        let mut child = command
            .arg("run")
            .arg(self.path("amends.toml"))
            .env_remove("FAILPOINTS")
            .envs(environment.iter().copied())
            .env("AMENDS_LOG", "info,amends_runtime=debug,plugin=debug")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (stderr, lines) = (child.stderr.take().unwrap(), Arc::clone(&log));
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Host { child: Some(child), port: self.port, log, reader: Some(reader) }
    }

    /// The command line, talking to this place's host.
    pub(crate) fn amends(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(amends());
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("AMENDS_HOST", format!("http://127.0.0.1:{}", self.port))
            // Not the contexts of whoever runs the tests.
            .env("XDG_CONFIG_HOME", self.path("settings"))
            .env_remove("AMENDS_CONTEXT")
            .env_remove("AMENDS_NAMESPACE")
            .env("USER", "ada");
        command
    }
}

/// A control group (version 1 or 2) whose processes have so much memory together. The kernel ends one
/// of them when they want more.
pub(crate) struct MemoryGroup {
    folder: PathBuf,
    peak: &'static str,
}

impl MemoryGroup {
    /// None where this process may not make one.
    pub(crate) fn new(bytes_max: u64) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let versions = [
            (
                ":memory:",
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.max_usage_in_bytes",
            ),
            ("0::", "/sys/fs/cgroup", "memory.max", "memory.peak"),
        ];
        versions.into_iter().find_map(|(marker, root, limit, peak)| {
            let (_, path) = own.lines().find_map(|line| line.split_once(marker))?;
            let name = format!("amends-test-{}", std::process::id());
            let folder = Path::new(root).join(path.trim_start_matches('/')).join(name);
            fs::create_dir(&folder).ok()?;
            let group = Self { folder, peak };
            fs::write(group.path(limit), bytes_max.to_string()).ok()?;
            Some(group)
        })
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// The most that its processes have had together, with the system's cache of their files.
    pub(crate) fn peak_mib(&self) -> u64 {
        fs::read_to_string(self.path(self.peak)).unwrap().trim().parse::<u64>().unwrap() >> 20
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

pub(crate) struct Host {
    child: Option<Child>,
    port: u16,
    log: Arc<Mutex<Vec<String>>>,
    /// Reads the log; ends with the host.
    reader: Option<JoinHandle<()>>,
}

impl Host {
    fn wait_until_ready(&self) {
        let began = Instant::now();
        while get_status(&self.url("/readyz")) != 200 {
            assert!(began.elapsed() < SOON, "the host is not ready:\n{}", self.log().join("\n"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until it is ready; false when it ends before.
    pub(crate) fn becomes_ready(&mut self) -> bool {
        let began = Instant::now();
        while get_status(&self.url("/readyz")) != 200 {
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            assert!(began.elapsed() < SOON, "the host is not ready:\n{}", self.log().join("\n"));
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Waits until it has aborted; what it had logged. None when it has not within `limit`.
    pub(crate) fn aborted(mut self, limit: Duration) -> Option<Vec<String>> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                let log = self.whole_log();
                assert_eq!(status.signal(), Some(SIGABRT), "{status}:\n{}", log.join("\n"));
                return Some(log);
            }
            if began.elapsed() > limit {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Its process.
    pub(crate) fn child(&self) -> &Child {
        self.child.as_ref().unwrap()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The memory of the process now.
    pub(crate) fn memory_mib(&self) -> u64 {
        self.status_mib("VmRSS:")
    }

    /// The most memory that the process has had.
    pub(crate) fn memory_peak_mib(&self) -> u64 {
        self.status_mib("VmHWM:")
    }

    fn status_mib(&self, key: &str) -> u64 {
        let id = self.child.as_ref().unwrap().id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10
    }

    /// The descriptors that the process has now.
    pub(crate) fn descriptors(&self) -> usize {
        let id = self.child.as_ref().unwrap().id();
        fs::read_dir(format!("/proc/{id}/fd")).unwrap().count()
    }

    /// kill -9; what it had logged.
    pub(crate) fn kill(mut self) -> Vec<String> {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        self.whole_log()
    }

    /// What it has logged, when it has ended.
    fn whole_log(&mut self) -> Vec<String> {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.log()
    }

    /// SIGTERM, and no wait for its end.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub(crate) fn signal(&self, what: Signal) {
        signal(self.child.as_ref().unwrap(), what);
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// SIGTERM; its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        let child = self.child.take().unwrap();
        signal(&child, Signal::TERM);
        self.wait(child)
    }

    /// SIGTERM; its exit code, and all that it had logged.
    pub(crate) fn stop_logged(mut self) -> (Option<i32>, Vec<String>) {
        let child = self.child.take().unwrap();
        signal(&child, Signal::TERM);
        (self.wait(child), self.whole_log())
    }

    /// Its exit code, when it ends by itself, and all that it had logged.
    pub(crate) fn ended_logged(mut self) -> (Option<i32>, Vec<String>) {
        let child = self.child.take().unwrap();
        (self.wait(child), self.whole_log())
    }

    /// Its exit code, when it ends by itself.
    pub(crate) fn ended(mut self) -> Option<i32> {
        let child = self.child.take().unwrap();
        self.wait(child)
    }

    fn wait(&self, mut child: Child) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if began.elapsed() > SOON {
                child.kill().unwrap();
                panic!("the host does not stop:\n{}", self.log().join("\n"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        get(&self.url(path))
    }

    /// Every event of the store, in order.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.events_as(Value::clone)
    }

    /// What `of` makes of every event of the store, in order.
    pub(crate) fn events_as<T>(&self, of: impl Fn(&Value) -> T) -> Vec<T> {
        let (mut events, mut last) = (Vec::new(), 0);
        loop {
            let page = self.get(&format!("/v1/events?after={last}&limit=1000"));
            let items = page["items"].as_array().unwrap();
            let Some(event) = items.last() else { return events };
            last = event["position"].as_u64().unwrap();
            events.extend(items.iter().map(&of));
        }
    }

    /// Every saga.
    pub(crate) fn sagas(&self) -> Vec<Value> {
        let mut sagas: Vec<Value> = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/v1/sagas?limit=1000{cursor}"));
            sagas.extend(page["items"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next_cursor"].as_str() else { return sagas };
            cursor.clear();
            write!(cursor, "&cursor={next}").unwrap();
        }
    }

    /// Waits until every saga has ended or is blocked.
    pub(crate) fn settle(&self) {
        // In one request: between two, a saga could go from the second status to the first.
        self.until("every saga rests", || {
            let page = self.get("/v1/sagas?status=running,waiting,compensating&limit=1");
            page["items"].as_array().unwrap().is_empty()
        });
    }

    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            if began.elapsed() > SOON {
                let log = self.log();
                let last = log[log.len().saturating_sub(20)..].join("\n");
                panic!("not within {SOON:?}: {what}\n{last}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

/// The body of an answer, as it is.
pub(crate) fn text(url: &str) -> String {
    agent().get(url).call().unwrap().body_mut().read_to_string().unwrap()
}

pub(crate) fn get(url: &str) -> Value {
    let mut response = agent().get(url).call().unwrap();
    let text = response.body_mut().with_config().limit(64 << 20).read_to_string().unwrap();
    assert_eq!(response.status(), 200, "{url}: {text}");
    serde_json::from_str(&text).unwrap()
}

fn get_status(url: &str) -> u16 {
    agent().get(url).call().map_or(0, |response| response.status().as_u16())
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn example() -> PathBuf {
    repository().join("examples/order-fulfillment")
}

/// The binary beside this test's own.
pub(crate) fn amends() -> PathBuf {
    binary("amends")
}

/// One of the binaries that are built with the tests.
pub(crate) fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("AMENDS_TEST_BINARIES").map_or_else(
        || std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_path_buf(),
        PathBuf::from,
    );
    let binary = folder.join(name);
    assert!(binary.is_file(), "{} is not built: run tests/run", binary.display());
    binary
}
