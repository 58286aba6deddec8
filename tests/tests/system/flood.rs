//! A flood: everything at once that clients may do to a host that works, and what becomes of each of them, of the
//! host's memory, and of the sagas that run meanwhile.
//!
//! `AMENDS_FLOOD_CONNECTIONS=1000000` has so many short connections; without it there are 50,000.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use amends_tests::{Behaviour, Component};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::place::{Host, Place, SOON, agent};

/// As many as a host takes, half of them from each of two addresses.
const WATCHERS: usize = 2_048;

/// Sagas that are watched, each by as many.
const WATCHED: usize = 32;

const SLOW_READERS: usize = 200;
const HALF_OPEN: usize = 500;
const ENDLESS_HEADS: usize = 500;
const HEADERS: usize = 1_000_000;
const BODY_BYTES: u64 = 10 << 30;
const SHORT_CONNECTIONS: usize = 50_000;

/// Short connections at once.
const SHORT_AT_ONCE: usize = 16;

/// A quarter of these is the most that a host serves, and a few more for its health.
const DESCRIPTORS: u64 = 4 * (4_096 + 16);

/// What the host opens when it first needs it: readers of the store, the code of a component.
const DESCRIPTORS_OPENED: usize = 16;

/// What the flood may add to the host's memory: 128 MiB of answers, 64 MiB of bodies, 128 KiB for each head that does
/// not end, and 40 KiB for each other connection.
const MEMORY_MIB_MAX: u64 = 128 + 64 + 64 + 128;

/// More of a refused body than the host reads, with what the system buffers.
const BODY_READ_MAX: usize = 512 << 20;

/// What an event of those has that slow readers ask for.
const LARGE: usize = (1 << 20) - 100;

fn place() -> Place {
    let place = Place::empty();
    for (name, execute) in [("good", Behaviour::Echo), ("bad", Behaviour::Permanent)] {
        let component = Component { name, execute, ..Component::default() };
        fs::write(place.plugin(name), component.build()).unwrap();
    }
    let step = |name: &str| format!("[[saga.step]]\nname = \"{name}\"\nplugin = \"{name}\"\n");
    place.config(&format!(
        "[[saga]]\nname = \"good\"\n{}[[saga]]\nname = \"bad\"\n{}{}\
         [[saga]]\nname = \"gate\"\n[[saga.step]]\nname = \"gate\"\nwait = \"approved\"\n",
        step("good"),
        step("good"),
        step("bad"),
    ));
    place
}

/// Starts a saga; the saga, as the answer has it.
fn start(agent: &ureq::Agent, host: &Host, query: &str, definition: &str, input: &str) -> Value {
    let body = json!({"definition": definition, "input": input});
    let mut answer = agent.post(host.url(&format!("/v1/sagas{query}"))).send_json(body).unwrap();
    let text = answer.body_mut().with_config().limit(4 << 20).read_to_string().unwrap();
    assert_eq!(answer.status(), 202, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn id(saga: &Value) -> String {
    saga["id"].as_str().unwrap().to_owned()
}

/// Starts sagas of both ends, one after another, until the flood is over; their ids.
fn run_sagas(host: &Host, is_over: &AtomicBool) -> Vec<String> {
    let (agent, mut ids) = (agent(), Vec::new());
    while !is_over.load(Ordering::Relaxed) {
        for (definition, end) in [("good", "completed"), ("bad", "compensated")] {
            let saga = start(&agent, host, "?wait=2m", definition, "");
            assert_eq!(saga["status"], end, "{saga}");
            ids.push(id(&saga));
        }
    }
    ids
}

/// Asks how the host is, on a connection of its own each time; how often it was asked.
fn watch_health(host: &Host, is_over: &AtomicBool) -> usize {
    let mut asked = 0;
    while !is_over.load(Ordering::Relaxed) {
        for path in ["/healthz", "/readyz"] {
            let mut answer = agent().get(host.url(path)).call().unwrap();
            let text = answer.body_mut().read_to_string().unwrap();
            assert_eq!(answer.status(), 200, "{path}: {text}");
        }
        asked += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    asked
}

/// Says that the flood is over, also when it fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A host, as the clients of the flood reach it.
#[derive(Clone)]
struct Target {
    port: u16,
    /// How many may connect at once: more would wait for the system to try again.
    connecting: Arc<Semaphore>,
}

impl Target {
    /// Connects from a loopback address.
    async fn connect(&self, from: [u8; 4]) -> TcpStream {
        let _turn = self.connecting.acquire().await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        // Who reads slowly has no large buffer, or the system would take all of a page at once.
        socket.set_recv_buffer_size(16 << 10).unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        socket.connect(SocketAddr::from(([127, 0, 0, 1], self.port))).await.unwrap()
    }

    /// The first lines of a request; more may follow.
    fn head(&self, request: &str) -> String {
        format!("{request} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\n", self.port)
    }

    /// Asks, and returns the connection with what it said so far: the head of the answer, and perhaps more.
    async fn ask(&self, from: [u8; 4], request: &str) -> (TcpStream, String) {
        let mut stream = self.connect(from).await;
        let text = format!("{}\r\n", self.head(request));
        stream.write_all(text.as_bytes()).await.unwrap();
        let said = read_until(&mut stream, |said| said.contains("\r\n\r\n")).await;
        (stream, said)
    }
}

/// What the host says until it closes the connection, or until that is enough.
async fn read_until(stream: &mut TcpStream, is_enough: impl Fn(&str) -> bool) -> String {
    let (mut said, mut buffer) = (String::new(), [0; 1_024]);
    let reading = async {
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            said.push_str(&String::from_utf8_lossy(&buffer[..count]));
            if is_enough(&said) {
                return;
            }
        }
    };
    let read = tokio::time::timeout(SOON, reading).await;
    assert!(read.is_ok(), "the connection is still open");
    said
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    read_until(stream, |_| false).await
}

/// Sends these bytes again and again, as long as the host takes them; how many it took, and its answer.
async fn pour(mut stream: TcpStream, bytes: &[u8], most: u64) -> (u64, String) {
    let mut sent = 0;
    let pouring = async {
        while sent < most && stream.write_all(bytes).await.is_ok() {
            sent += bytes.len() as u64;
        }
    };
    let poured = tokio::time::timeout(SOON, pouring).await;
    assert!(poured.is_ok(), "the host neither takes {sent} bytes nor refuses them");
    (sent, read_to_end(&mut stream).await)
}

/// Watches a saga until it ends; what was said.
async fn watch(target: Target, from: [u8; 4], saga: String, watching: Arc<AtomicUsize>) -> String {
    let request = format!("GET /v1/sagas/{saga}/watch");
    let (mut stream, said) = target.ask(from, &request).await;
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    watching.fetch_add(1, Ordering::Relaxed);
    // The connection itself stays for another request.
    said + &read_until(&mut stream, |said| said.ends_with("\r\n0\r\n\r\n")).await
}

/// Sends a body that never ends, of a stated length or in chunks; how many bytes the host took, and its answer.
async fn send_endless_body(target: Target, is_chunked: bool) -> (u64, String) {
    let mut stream = target.connect([127, 0, 3, 1]).await;
    let piece = vec![b' '; 1 << 20];
    let (length, bytes) = if is_chunked {
        let chunk = [&b"100000\r\n"[..], &piece[..], &b"\r\n"[..]].concat();
        ("transfer-encoding: chunked".to_owned(), chunk)
    } else {
        (format!("content-length: {BODY_BYTES}"), piece)
    };
    let more = format!("content-type: application/json\r\n{length}\r\n\r\n");
    let head = target.head("POST /v1/sagas") + &more;
    stream.write_all(head.as_bytes()).await.unwrap();
    pour(stream, &bytes, BODY_BYTES).await
}

/// Sends a head of a million headers; the answer.
async fn send_headers(target: Target) -> String {
    let mut stream = target.connect([127, 0, 3, 2]).await;
    stream.write_all(target.head("GET /").as_bytes()).await.unwrap();
    let headers: String =
        (0..1_000).map(|number| format!("x-{number}: y\r\n")).collect::<Vec<_>>().concat();
    pour(stream, headers.as_bytes(), (HEADERS / 1_000 * headers.len()) as u64).await.1
}

/// Sends a head that never ends; what was said before the connection was closed.
async fn send_endless_head(target: Target) -> String {
    let mut stream = target.connect([127, 0, 3, 3]).await;
    let head = format!("{}x: {}", target.head("GET /"), "y".repeat(60_000));
    stream.write_all(head.as_bytes()).await.unwrap();
    // Each second a byte, so it is never silent for long.
    let (mut reading, mut writing) = stream.split();
    let mut said = String::new();
    let trickle = async {
        while writing.write_all(b"y").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let closed = async {
        let _ = reading.read_to_string(&mut said).await;
    };
    let both = async { tokio::join!(trickle, closed) };
    assert!(tokio::time::timeout(SOON, both).await.is_ok(), "it is still open");
    said
}

/// Connects and says nothing; what was said before the connection was closed.
async fn say_nothing(target: Target) -> String {
    read_to_end(&mut target.connect([127, 0, 3, 4]).await).await
}

/// Makes short connections, one after another: three that say nothing, and one with a request.
async fn come_and_go(target: Target, worker: usize, count: usize) {
    for number in 0..count {
        let octet = |number: usize| u8::try_from(number).unwrap();
        let from = [127, 0, 4 + octet(worker), 1 + octet(number % 250)];
        if number % 4 != 0 {
            drop(target.connect(from).await);
            continue;
        }
        let (mut stream, said) = target.ask(from, "GET /v1/definitions").await;
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        stream.shutdown().await.unwrap();
    }
}

/// Has everything come at once; the watchers that go on.
async fn flood(target: &Target, watched: &[String]) -> JoinSet<String> {
    let (mut watchers, watching) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for number in 0..WATCHERS {
        let from = [127, 0, 2, if number < WATCHERS / 2 { 1 } else { 2 }];
        let saga = watched[number % WATCHED].clone();
        watchers.spawn(watch(target.clone(), from, saga, Arc::clone(&watching)));
    }
    let (mut slow, mut silent, mut heads) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    for _ in 0..SLOW_READERS {
        let target = target.clone();
        slow.spawn(async move { target.ask([127, 0, 3, 5], "GET /v1/events?limit=1000").await });
    }
    for _ in 0..HALF_OPEN {
        silent.spawn(say_nothing(target.clone()));
    }
    for _ in 0..ENDLESS_HEADS {
        heads.spawn(send_endless_head(target.clone()));
    }
    let mut bodies = JoinSet::new();
    for is_chunked in [false, true, false, true] {
        bodies.spawn(send_endless_body(target.clone(), is_chunked));
    }
    let headers = tokio::spawn(send_headers(target.clone()));
    let count = std::env::var("AMENDS_FLOOD_CONNECTIONS");
    let count = count.map_or(SHORT_CONNECTIONS, |count| count.parse().unwrap());
    let mut short = JoinSet::new();
    for worker in 0..SHORT_AT_ONCE {
        short.spawn(come_and_go(target.clone(), worker, count / SHORT_AT_ONCE));
    }

    let slow = slow.join_all().await;
    let is_sent = |said: &str| said.starts_with("HTTP/1.1 200 ");
    let is_full = |said: &str| said.starts_with("HTTP/1.1 429 ");
    assert!(slow.iter().all(|(_, said)| is_sent(said) || is_full(said)), "{slow:?}");
    assert!(slow.iter().any(|(_, said)| is_sent(said)));
    let bodies = bodies.join_all().await;
    for (sent, said) in &bodies {
        assert!(*sent < BODY_READ_MAX as u64, "the host took {sent} bytes");
        assert!(said.is_empty() || said.contains("body_too_large"), "{said}");
    }
    // The system may lose an answer when the connection is closed before all is read, but not each.
    assert!(bodies.iter().any(|(_, said)| said.starts_with("HTTP/1.1 413 ")), "{bodies:?}");
    let said = headers.await.unwrap();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 431 "), "{said}");
    for said in [silent.join_all().await, heads.join_all().await].concat() {
        assert_eq!(said, "", "a client that sends no request gets no answer");
    }
    short.join_all().await;
    let all = async {
        while watching.load(Ordering::Relaxed) < WATCHERS {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, all).await.is_ok(), "{watching:?} of {WATCHERS} watch");
    let (_, said) =
        target.ask([127, 0, 2, 3], &format!("GET /v1/sagas/{}/watch", watched[0])).await;
    assert!(said.starts_with("HTTP/1.1 429 "), "one more than it takes: {said}");
    watchers
}

/// Raises the limit of descriptors of this process. False where a host cannot have as many connections as it takes.
fn has_descriptors() -> bool {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    maximum.is_none_or(|maximum| maximum >= DESCRIPTORS)
}

#[test]
fn a_flood_costs_bounded_memory_and_no_saga() {
    if !has_descriptors() {
        let told =
            format!("SKIPPED: a flood: a process has fewer than {DESCRIPTORS} descriptors\n");
        std::io::stderr().write_all(told.as_bytes()).unwrap();
        return;
    }
    let place = place();
    let host = place.run();
    let client = agent();
    let large = "x".repeat(LARGE);
    for _ in 0..24 {
        start(&client, &host, "", "gate", &large);
    }
    let watched: Vec<_> =
        (0..WATCHED).map(|_| id(&start(&client, &host, "", "gate", ""))).collect();
    let quiet: Vec<_> =
        (0..100).map(|_| id(&start(&client, &host, "?wait=2m", "good", ""))).collect();
    drop(client);
    let (memory, descriptors) = (host.memory_mib(), host.descriptors());

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let target = Target { port: place.port, connecting: Arc::new(Semaphore::new(64)) };
    let is_over = AtomicBool::new(false);
    let (mut ids, asked, watchers) = std::thread::scope(|scope| {
        let over = Over(&is_over);
        let sagas = [(); 2].map(|()| scope.spawn(|| run_sagas(&host, &is_over)));
        let health = scope.spawn(|| watch_health(&host, &is_over));
        let watchers = runtime.block_on(flood(&target, &watched));
        drop(over);
        let ids: Vec<_> = sagas.map(|sagas| sagas.join().unwrap()).concat();
        (ids, health.join().unwrap(), watchers)
    });
    let grown = host.memory_peak_mib().saturating_sub(memory);
    assert!(grown < MEMORY_MIB_MAX, "{grown} MiB");
    assert!(asked > 10 && ids.len() > 20, "{asked} questions and {} sagas", ids.len());

    // Every watcher hears of what comes, and of the end.
    for saga in &watched {
        let signal = agent().post(host.url(&format!("/v1/sagas/{saga}/signals/approved")));
        assert_eq!(signal.send_json(json!({"payload": {}})).unwrap().status(), 202);
    }
    for said in runtime.block_on(watchers.join_all()) {
        assert_eq!(said.matches("event: saga.completed").count(), 1, "{said}");
    }
    host.until("its descriptors are as before", || {
        host.descriptors() <= descriptors + DESCRIPTORS_OPENED
    });
    ids.extend(quiet);
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for (saga, kind) in host.events_as(|event| (event["saga"].clone(), event["type"].clone())) {
        if ["saga.completed", "saga.compensated"].iter().any(|end| kind == *end) {
            *ends.entry(saga.as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    for saga in &ids {
        assert_eq!(ends.get(saga), Some(&1), "{saga} ends once");
    }
    assert_eq!(ends.len(), ids.len() + WATCHED);
    assert_eq!(host.stop(), Some(0));
}
