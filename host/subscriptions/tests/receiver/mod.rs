//! A receiver of webhooks that answers as a test wants.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// One request that came.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Came {
    /// The events in the body, which is one or a list of them.
    pub(crate) fn events(&self) -> Vec<Value> {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        body.as_array().cloned().unwrap_or_else(|| vec![body])
    }
}

/// What the receiver does with a request.
pub(crate) enum Reply {
    /// Answers with these bytes, and keeps the connection open.
    Bytes(String),
    /// Never answers.
    Silence,
    /// Answers with this, and then with `x` without end.
    Endless(String),
}

/// An answer of this status without a body.
pub(crate) fn status(status: &str) -> Reply {
    Reply::Bytes(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"))
}

/// What a receiver does with each request.
pub(crate) type Decide = dyn Fn(&Came) -> Reply + Send + Sync;

pub(crate) struct Receiver {
    pub(crate) url: String,
    /// Requests that were answered with success, in order.
    pub(crate) accepted: Arc<Mutex<Vec<Came>>>,
    /// How many requests came.
    pub(crate) requests: Arc<Mutex<usize>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    pub(crate) async fn new(decide: impl Fn(&Came) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?key=of-the-receiver", listener.local_addr().unwrap());
        let (accepted, requests) = (Arc::default(), Arc::default());
        let decide: Arc<Decide> = Arc::new(decide);
        let shared = (Arc::clone(&accepted), Arc::clone(&requests));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (decide, shared) = (Arc::clone(&decide), shared.clone());
                connections.spawn(async move {
                    let _ = serve(stream, &*decide, &shared).await;
                });
            }
        });
        Self { url, accepted, requests, task }
    }

    /// The events that were accepted: their subjects and versions, with repetitions.
    pub(crate) fn events(&self) -> Vec<(String, u64)> {
        let accepted = self.accepted.lock().unwrap();
        accepted.iter().flat_map(Came::events).map(|event| key(&event)).collect()
    }
}

pub(crate) fn key(event: &Value) -> (String, u64) {
    let subject = event["subject"].as_str().unwrap().to_owned();
    (subject, event["sequence"].as_str().unwrap().parse().unwrap())
}

async fn serve(
    mut stream: TcpStream,
    decide: &Decide,
    (accepted, requests): &(Arc<Mutex<Vec<Came>>>, Arc<Mutex<usize>>),
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        assert!(lines.next().unwrap().starts_with("POST /hook?key=of-the-receiver HTTP/1.1"));
        let headers: BTreeMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let length: usize = headers["content-length"].parse().unwrap();
        while buffer.len() < end + length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let body = buffer[end..end + length].to_vec();
        buffer.drain(..end + length);
        let came = Came { headers, body };
        *requests.lock().unwrap() += 1;
        match decide(&came) {
            Reply::Bytes(bytes) => {
                if bytes.starts_with("HTTP/1.1 2") {
                    accepted.lock().unwrap().push(came);
                }
                stream.write_all(bytes.as_bytes()).await?;
            }
            Reply::Silence => std::future::pending().await,
            Reply::Endless(head) => {
                stream.write_all(head.as_bytes()).await?;
                loop {
                    stream.write_all(&[b'x'; 4_096]).await?;
                }
            }
        }
    }
}
