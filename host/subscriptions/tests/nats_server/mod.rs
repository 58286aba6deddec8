//! A NATS server of a test's own.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::jetstream::{self, stream};
use tempfile::TempDir;

/// How long a server may take until it answers.
const START_TIME_MAX: Duration = Duration::from_secs(30);

pub(crate) struct NatsServer {
    program: PathBuf,
    port: u16,
    folder: TempDir,
    child: Option<Child>,
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl NatsServer {
    /// Chooses a port, and starts nothing yet. None when the program is not installed, which is said.
    pub(crate) fn new() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        // Debian has it where the PATH of most users does not look.
        let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
        let mut programs = folders.map(|folder| folder.join("nats-server"));
        let Some(program) = programs.find(|path| path.exists()) else {
            amends_tests::skipped("events into NATS", "nats-server is not installed");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Some(Self { program, port, folder: tempfile::tempdir().unwrap(), child: None })
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Starts the server, with these arguments beside its own, on what it had stored before.
    pub(crate) fn start(&mut self, arguments: &[&str]) {
        let child = Command::new(&self.program)
            .args(["--addr", "127.0.0.1", "--port", &self.port.to_string(), "--jetstream"])
            .arg("--store_dir")
            .arg(self.folder.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) async fn client(&self) -> Client {
        let began = Instant::now();
        loop {
            match async_nats::connect(self.url()).await {
                Ok(client) => return client,
                Err(error) => assert!(began.elapsed() < START_TIME_MAX, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes the stream that takes the events.
    pub(crate) async fn make_stream(&self) {
        let config = stream::Config {
            name: "AMENDS".to_owned(),
            subjects: vec!["amends.>".to_owned()],
            ..stream::Config::default()
        };
        jetstream::new(self.client().await).create_stream(config).await.unwrap();
    }

    /// Returns how many messages the stream has.
    pub(crate) async fn count(&self) -> u64 {
        let jetstream = jetstream::new(self.client().await);
        let stream = jetstream.get_stream("AMENDS").await;
        stream.map_or(0, |stream| stream.cached_info().state.messages)
    }

    /// Returns all messages of the stream in order: subject, `Nats-Msg-Id` and body.
    pub(crate) async fn messages(&self) -> Vec<(String, String, serde_json::Value)> {
        let jetstream = jetstream::new(self.client().await);
        let stream = jetstream.get_stream("AMENDS").await.unwrap();
        let mut messages = Vec::new();
        for number in 1..=stream.cached_info().state.last_sequence {
            let message = stream.get_raw_message(number).await.unwrap();
            assert_eq!(
                message.headers.get("content-type").unwrap().as_str(),
                "application/cloudevents+json"
            );
            let id = message.headers.get("Nats-Msg-Id").unwrap().as_str().to_owned();
            let body = serde_json::from_slice(&message.payload).unwrap();
            messages.push((message.subject.to_string(), id, body));
        }
        messages
    }
}
