//! An S3 server of a test's own: SeaweedFS, with one bucket.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::place::agent;

/// How long the server may take until it answers.
const START_TIME_MAX: Duration = Duration::from_mins(1);

/// The bucket, and what the test keeps in it.
const BUCKET: &str = "amends-test";
pub(crate) const ARCHIVE: &str = "s3://amends-test/orders/archive";

/// What a host says to be let in.
const KEY: &str = "test-key";
pub(crate) const SECRET: &str = "test-secret-0123456789";

/// The ports that it needs, by the flags that set them.
const PORTS: [&str; 8] = [
    "s3.port",
    "filer.port",
    "s3.port.grpc",
    "filer.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
];

pub(crate) struct S3Server {
    program: PathBuf,
    ports: [u16; PORTS.len()],
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop();
        // It leaves them in the folder for temporary files.
        for entry in fs::read_dir("/tmp").unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_own = |port| name.ends_with(&format!("-{port}.sock"));
            if name.starts_with("seaweedfs-") && self.ports.iter().any(is_own) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl S3Server {
    /// Chooses ports, and starts nothing yet. None when the program is not installed, which is said.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut programs = std::env::split_paths(&path).map(|folder| folder.join("weed"));
        let Some(program) = programs.find(|path| path.exists()) else {
            let told = format!("SKIPPED: {test}: SeaweedFS (weed) is not installed\n");
            std::io::stderr().write_all(told.as_bytes()).unwrap();
            return None;
        };
        // All at once, so that no two are the same.
        let listeners = PORTS.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = listeners.each_ref().map(|it| it.local_addr().unwrap().port());
        let folder = tempfile::tempdir().unwrap();
        let identity = serde_json::json!({ "identities": [{
            "name": "test",
            "credentials": [{ "accessKey": KEY, "secretKey": SECRET }],
            "actions": ["Admin", "Read", "Write", "List"],
        }] });
        fs::write(folder.path().join("s3.json"), identity.to_string()).unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        Some(Self { program, ports, folder, child: None })
    }

    /// What a host needs in its environment, with this endpoint.
    pub(crate) fn environment_with(endpoint: &str) -> [(&'static str, &str); 4] {
        [
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
        ]
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    /// Starts the server on what it had stored before, and waits until it answers.
    pub(crate) fn start(&mut self) {
        let mut command = Command::new(&self.program);
        let path = |name| self.folder.path().join(name).display().to_string();
        command
            .args(["server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=8"])
            .args(["-master.telemetry=false", "-master.volumeSizeLimitMB=64"])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
            .arg(format!("-dir={}", path("data")))
            .arg(format!("-s3.config={}", path("s3.json")))
            .arg(format!("-filer.localSocket={}", path("filer.sock")))
            .arg(format!("-s3.localSocket={}", path("s3.sock")));
        for (flag, port) in PORTS.iter().zip(self.ports) {
            command.arg(format!("-{flag}={port}"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.current_dir(self.folder.path()).spawn().unwrap());
        let began = Instant::now();
        // It answers before it can store anything.
        while !self.is_writable() {
            assert!(began.elapsed() < START_TIME_MAX, "the S3 server does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn is_writable(&self) -> bool {
        let is_well = agent().get(format!("{}/healthz", self.endpoint())).call();
        let probe = agent().put(self.file("../probe")).send(&b"probe"[..]);
        is_well.is_ok_and(|answer| answer.status() == 200)
            && probe.is_ok_and(|answer| answer.status().is_success())
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Where an object is without the door of S3.
    fn file(&self, name: &str) -> String {
        let folder = ARCHIVE.strip_prefix("s3://").unwrap();
        let path = match name.strip_prefix("../") {
            Some(name) => format!("{BUCKET}/{name}"),
            None => format!("{folder}/{name}"),
        };
        format!("http://127.0.0.1:{}/buckets/{path}", self.ports[1])
    }

    /// The names of the objects of the archive.
    pub(crate) fn objects(&self) -> Vec<String> {
        let url = format!("{}?limit=1000", self.file(""));
        let answer = agent().get(url).header("accept", "application/json").call();
        let mut answer = answer.unwrap();
        if answer.status() == 404 {
            return Vec::new();
        }
        let listed: Value = answer.body_mut().read_json().unwrap();
        let entries = listed["Entries"].as_array().cloned().unwrap_or_default();
        let name = |entry: &Value| {
            let path = entry["FullPath"].as_str().unwrap();
            path.rsplit_once('/').unwrap().1.to_owned()
        };
        entries.iter().map(name).collect()
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        let mut answer = agent().get(self.file(name)).call().unwrap();
        assert_eq!(answer.status(), 200, "{name}");
        answer.body_mut().with_config().limit(64 << 20).read_to_vec().unwrap()
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        let answer = agent()
            .put(self.file(name))
            .header("content-type", "application/octet-stream")
            .send(content)
            .unwrap();
        assert!(answer.status().is_success(), "{name}: {}", answer.status());
    }

    pub(crate) fn remove(&self, name: &str) {
        let answer = agent().delete(self.file(name)).call().unwrap();
        assert!(answer.status().is_success(), "{name}: {}", answer.status());
    }
}
