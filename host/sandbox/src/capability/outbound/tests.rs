//! Where a plugin gets to with addresses that were made to get elsewhere (server-side request
//! forgery), and what a request costs at most.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use amends_engine::{Direction, TraceContext};

use http::Request;
use wasmtime_wasi_http::{Error, RequestOptions, WasiHttpHooks as _};

use crate::capability::grant::Grant;
use crate::capability::outbound::allow::AllowHost;
use crate::capability::outbound::client::Outbound;
use crate::capability::outbound::connect::{self, Resolve};
use crate::capability::outbound::limits::HTTP_REQUESTS_MAX;
use crate::capability::outbound::requests::{Left, Requests};
use crate::capability::outbound::stub::StubAnswer;
use crate::limits::budget::{Budget, Share};
use crate::settings::PluginSettings;

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It was answered.
    Answered(u16),
    /// It names a host that is not allowed.
    Denied,
    /// Its name stands for an address that is not allowed.
    Prohibited,
    /// Its name stands for nothing.
    Unresolved,
    /// No connection was made, though one was allowed.
    NotReached,
    /// `http::Uri` has no such address, so nothing of it reaches the host.
    NoUri,
    /// Something else.
    Other(String),
}

/// A server that answers every connection once, and keeps what it was sent.
async fn server(answer: &'static [u8]) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let heard = Arc::clone(&heard);
            tokio::spawn(async move {
                let mut buffer = vec![0; 4_096];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    heard.lock().unwrap().push(text);
                    if stream.write_all(answer).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (port, seen)
}

/// Names as the test says; `changing.example.com` is a public address once and this machine from
/// then on.
fn names(fixed: &[(&str, &str)]) -> Arc<Resolve> {
    let fixed: BTreeMap<String, IpAddr> =
        fixed.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap())).collect();
    let asked = Arc::new(AtomicU32::new(0));
    Arc::new(move |name: String, _, _| {
        let first = asked.load(Ordering::Relaxed) == 0;
        let found = match name.as_str() {
            "changing.example.com" => {
                asked.fetch_add(1, Ordering::Relaxed);
                Some(if first { "203.0.114.1" } else { "127.0.0.1" }.parse().unwrap())
            }
            name => fixed.get(name).copied(),
        };
        Box::pin(async move {
            found.map(|ip| vec![ip]).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        }) as Pin<Box<dyn Future<Output = _> + Send>>
    })
}

fn settings(allow: &[String]) -> PluginSettings {
    PluginSettings {
        allow_hosts: allow.iter().map(|host| host.parse::<AllowHost>().unwrap()).collect(),
        connect_timeout: Duration::from_millis(300),
        ..PluginSettings::default()
    }
}

/// A plugin's requests, its names resolved as the test says.
fn requests(settings: &PluginSettings, resolve: Arc<Resolve>) -> Requests {
    let granted = Grant::with_outbound(settings.clone(), Outbound::with(settings, resolve));
    Requests::new(Arc::new(granted), "key-1".to_owned(), Some("00-aa-bb-01".to_owned()))
}

async fn send(requests: &mut Requests, url: &str) -> (Fate, Option<http::HeaderMap>) {
    send_request(requests, Request::builder().uri(url)).await
}

async fn send_request(
    requests: &mut Requests,
    request: http::request::Builder,
) -> (Fate, Option<http::HeaderMap>) {
    let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
    let Ok(request) = request.body(body) else { return (Fate::NoUri, None) };
    let sent = requests.send_request(request, None, Box::new(async { Ok(()) }));
    let came = match Pin::from(sent).await {
        Ok((answer, _)) => {
            let (parts, body) = answer.into_parts();
            let whole = body.collect().await;
            return match whole {
                Ok(_) => (Fate::Answered(parts.status.as_u16()), Some(parts.headers)),
                Err(error) => (Fate::Other(format!("{error:?}")), None),
            };
        }
        Err(Error::HttpRequestDenied) => Fate::Denied,
        Err(Error::DestinationIpProhibited) => Fate::Prohibited,
        Err(Error::DnsError { .. }) => Fate::Unresolved,
        Err(
            Error::ConnectionRefused | Error::ConnectionTimeout | Error::DestinationUnavailable,
        ) => Fate::NotReached,
        Err(error) => Fate::Other(format!("{error:?}")),
    };
    (came, None)
}

/// Each address, and what happened.
#[tokio::test]
async fn addresses_that_were_made_to_get_elsewhere() {
    use Fate::{Answered, Denied, NoUri, Prohibited, Unresolved};
    let (port, _) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let (other, _) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let allow = [
        format!("http://127.0.0.1:{port}"),
        format!("http://api.example.com:{port}"),
        format!("http://*.example.org:{port}"),
        format!("http://inside.example.com:{port}"),
        format!("http://localhost:{port}"),
        format!("http://nowhere.example.com:{port}"),
        "127.0.0.7".to_owned(),
    ];
    let resolve = names(&[
        ("api.example.com", "127.0.0.1"),
        ("a.example.org", "10.0.0.1"),
        ("metadata.example.org", "169.254.169.254"),
        ("mapped.example.org", "::ffff:127.0.0.1"),
        ("unique.example.org", "fd00::1"),
        ("nat.example.org", "64:ff9b::7f00:1"),
        ("sixtofour.example.org", "2002:7f00:1::1"),
        ("zero.example.org", "0.0.0.0"),
        ("inside.example.com", "127.0.0.7"),
        ("localhost", "127.0.0.1"),
    ]);
    let mut requests = requests(&settings(&allow), resolve);
    let table = [
        // What is allowed.
        ("http://127.0.0.1:PORT/", Answered(200)),
        ("http://localhost:PORT/", Answered(200)),
        ("http://LOCALHOST.:PORT/", Answered(200)),
        ("http://[::ffff:127.0.0.1]:PORT/", Answered(200)),
        // Not named.
        ("http://127.0.0.1:OTHER/", Denied),
        ("https://127.0.0.1:PORT/", Denied),
        ("http://127.0.0.2:PORT/", Denied),
        ("http://0.0.0.0:PORT/", Denied),
        ("http://[::1]:PORT/", Denied),
        ("http://[::]:PORT/", Denied),
        ("http://169.254.169.254/latest/meta-data/", Denied),
        ("http://example.org:PORT/", Denied),
        ("http://evil-example.org:PORT/", Denied),
        ("http://a.example.org.evil.com:PORT/", Denied),
        ("http://api.example.com/", Denied),
        // Other forms of 127.0.0.1, which are no names of it here.
        ("http://2130706433:PORT/", Denied),
        ("http://0x7f000001:PORT/", Denied),
        ("http://0177.0.0.1:PORT/", Denied),
        ("http://127.1:PORT/", Denied),
        ("http://127.0.0.1.:PORT/", Denied),
        // A user in front of the host.
        ("http://127.0.0.1:PORT@evil.com/", Denied),
        ("http://evil.com@127.0.0.1:PORT/", Denied),
        ("http://api.example.com:PORT@169.254.169.254/", Denied),
        // Names that are allowed, and stand for what is not.
        ("http://api.example.com:PORT/", Prohibited),
        ("http://a.example.org:PORT/", Prohibited),
        ("http://metadata.example.org:PORT/", Prohibited),
        ("http://mapped.example.org:PORT/", Prohibited),
        ("http://unique.example.org:PORT/", Prohibited),
        ("http://nat.example.org:PORT/", Prohibited),
        ("http://sixtofour.example.org:PORT/", Prohibited),
        ("http://zero.example.org:PORT/", Prohibited),
        // One whose address is named as well.
        ("http://inside.example.com:PORT/", Fate::NotReached),
        ("http://nowhere.example.com:PORT/", Unresolved),
        // What is no address at all.
        ("http://exa mple.com:PORT/", NoUri),
        ("http://127.0.0.1:99999/", Denied),
        ("ftp://127.0.0.1:PORT/", Denied),
    ];
    assert!(table.len() >= 25);
    let mut wrong = Vec::new();
    for (url, expected) in table {
        let url = url.replace("PORT", &port.to_string()).replace("OTHER", &other.to_string());
        requests.count = 0;
        let (came, _) = send(&mut requests, &url).await;
        println!("{url}  {came:?}  {}", requests.left().refused.unwrap_or_default());
        if came != expected {
            wrong.push(format!("{url}: {came:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whoever follows a redirect sends a request like any other.
#[tokio::test]
async fn a_redirect_is_followed_by_a_request_that_is_checked() {
    let to =
        b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n";
    let (port, _) = server(to).await;
    let allow = [format!("http://127.0.0.1:{port}")];
    let mut requests = requests(&settings(&allow), names(&[]));
    let (came, headers) = send(&mut requests, &format!("http://127.0.0.1:{port}/")).await;
    assert_eq!(came, Fate::Answered(302));
    let headers = headers.unwrap();
    let location = headers["location"].to_str().unwrap();
    assert_eq!(send(&mut requests, location).await.0, Fate::Denied);
    let why = requests.left().refused.unwrap();
    assert!(why.contains("add \"http://169.254.169.254:80\" to allow_hosts"), "{why}");
}

/// A name that stands for another address the second time: each connection is checked.
#[tokio::test]
async fn a_name_that_changes_gains_nothing() {
    let (port, seen) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let allow = [format!("http://changing.example.com:{port}")];
    let mut requests = requests(&settings(&allow), names(&[]));
    let url = format!("http://changing.example.com:{port}/");
    assert_eq!(send(&mut requests, &url).await.0, Fate::NotReached, "a public address");
    assert_eq!(send(&mut requests, &url).await.0, Fate::Prohibited, "this machine");
    let why = requests.left().refused.unwrap();
    assert!(why.contains("stands for 127.0.0.1, which is not a public address"), "{why}");
    assert!(seen.lock().unwrap().is_empty());
}

/// A server of names that is silent, until this is dropped.
struct Silent {
    heard: AtomicU32,
    answers: AtomicBool,
}

struct Answers(Arc<Silent>);

impl Drop for Answers {
    fn drop(&mut self) {
        self.0.answers.store(true, Ordering::SeqCst);
    }
}

/// They hold so many threads and no more, also those whose callers have given up; and no plugin holds
/// more of them than it leaves to others.
#[tokio::test]
async fn so_many_names_are_looked_up_at_once() {
    let silent = Arc::new(Silent { heard: AtomicU32::new(0), answers: AtomicBool::new(false) });
    let answers = Answers(Arc::clone(&silent));
    let budget = Budget::new(connect::LOOKUPS_MAX, 0);
    let (greedy, other) = (budget.share(), budget.share());
    let lookup = |share: &Arc<Share>| {
        let (silent, share) = (Arc::clone(&silent), Arc::clone(share));
        async move {
            let place = share.take(Direction::Execute, 1).await;
            let blocking = move || {
                silent.heard.fetch_add(1, Ordering::SeqCst);
                while !silent.answers.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(vec!["203.0.114.1".parse().unwrap()])
            };
            connect::look_up(blocking, place).await
        }
    };
    let heard = || silent.heard.load(Ordering::SeqCst) as usize;
    let all = futures::future::join_all((0..connect::LOOKUPS_MAX + 8).map(|_| lookup(&greedy)));
    let mut all = Box::pin(all);
    while heard() < connect::LOOKUPS_MAX / 2 {
        let soon = tokio::time::timeout(Duration::from_millis(10), &mut all);
        assert!(soon.await.is_err(), "none is answered");
    }
    // More would have begun by now.
    let later = tokio::time::timeout(Duration::from_millis(100), &mut all);
    assert!(later.await.is_err());
    assert_eq!(heard(), connect::LOOKUPS_MAX / 2);
    // Nobody waits for them any more, and they are in it all the same.
    drop(all);
    let again = lookup(&greedy);
    assert!(tokio::time::timeout(Duration::from_millis(100), again).await.is_err());
    assert_eq!(heard(), connect::LOOKUPS_MAX / 2);
    // Another finds as much as it leaves.
    let its = (0..connect::LOOKUPS_MAX / 4).map(|_| tokio::spawn(lookup(&other)));
    let its: Vec<_> = its.collect();
    while heard() < connect::LOOKUPS_MAX * 3 / 4 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(answers);
    for lookup in its {
        assert_eq!(lookup.await.unwrap().unwrap(), ["203.0.114.1".parse::<IpAddr>().unwrap()]);
    }
}

/// A plugin whose server of names is silent, and one that calls another host at the same time.
#[tokio::test]
async fn a_plugin_whose_names_are_not_answered_holds_up_no_other() {
    let (port, _) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let (silent, answers) =
        (Arc::new(AtomicBool::new(true)), names(&[("b.example.com", "127.0.0.1")]));
    let resolve: Arc<Resolve> = {
        let silent = Arc::clone(&silent);
        Arc::new(move |name, port, place| {
            if name == "b.example.com" {
                return answers(name, port, place);
            }
            let silent = Arc::clone(&silent);
            Box::pin(connect::look_up(
                move || {
                    while silent.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Err(io::Error::from(io::ErrorKind::NotFound))
                },
                place,
            ))
        })
    };
    let allow = [
        "http://*.a.example.com".to_owned(),
        format!("http://b.example.com:{port}"),
        "127.0.0.1".to_owned(),
    ];
    let settings = settings(&allow);
    let greedy = requests(&settings, Arc::clone(&resolve));
    let sent: Vec<_> = (0..2 * connect::LOOKUPS_MAX)
        .map(|number| {
            let granted = Arc::clone(&greedy.granted);
            let mut requests = Requests::new(granted, "key-1".to_owned(), None);
            let url = format!("http://x{number}.a.example.com/");
            tokio::spawn(async move { send(&mut requests, &url).await.0 })
        })
        .collect();
    let mut other = requests(&settings, resolve);
    let (came, _) = send(&mut other, &format!("http://b.example.com:{port}/")).await;
    assert_eq!(came, Fate::Answered(200));
    let (mut unresolved, mut timed_out) = (0, 0);
    for sent in sent {
        match sent.await.unwrap() {
            Fate::Unresolved => unresolved += 1,
            Fate::NotReached => timed_out += 1,
            other @ (Fate::Answered(_)
            | Fate::Denied
            | Fate::Prohibited
            | Fate::NoUri
            | Fate::Other(_)) => panic!("{other:?}"),
        }
    }
    silent.store(false, Ordering::SeqCst);
    // Those that found no place are told so; the others waited for an answer. Other tests look up names
    // beside this one.
    assert!((1..=connect::LOOKUPS_MAX / 2).contains(&timed_out), "{timed_out}");
    assert_eq!(unresolved + timed_out, 2 * connect::LOOKUPS_MAX);
}

/// What the host lacks is not the component's: it is known that nothing was sent.
#[tokio::test]
async fn a_request_that_the_host_has_no_descriptor_for_was_not_sent() {
    let (port, _) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let allow = [format!("http://127.0.0.1:{port}"), "http://api.example.com".to_owned()];
    let no_descriptor = |_: String, _: u16, _: crate::limits::budget::Held| {
        let error = io::Error::from_raw_os_error(24);
        Box::pin(async { Err(error) }) as Pin<Box<dyn Future<Output = _> + Send>>
    };
    let mut requests = requests(&settings(&allow), Arc::new(no_descriptor));
    let (came, _) = send(&mut requests, "http://api.example.com/").await;
    assert_eq!(came, Fate::Other("ConnectionLimitReached".to_owned()));
    let Left { refused, lacked, has_sent, .. } = requests.left();
    let lacked = lacked.unwrap();
    assert!(
        lacked.starts_with("the host has no file descriptors left: raise its limit"),
        "{lacked}"
    );
    assert_eq!((refused, has_sent), (Some(lacked), false));
    send(&mut requests, &format!("http://127.0.0.1:{port}/")).await;
    assert!(requests.left().has_sent);
}

/// Who reads that a call was too slow wants to know for whom it waited.
#[tokio::test]
async fn a_request_without_an_answer_is_named_by_its_origin() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let (port, _) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let answers = format!("http://127.0.0.1:{port}");
    let settings = settings(&[origin.clone(), answers.clone()]);
    let mut requests = requests(&settings, Arc::new(connect::system));
    send(&mut requests, &answers).await;
    assert_eq!(requests.left().unanswered, None);
    let url = format!("{origin}/orders?token=secret");
    let silent = tokio::time::timeout(Duration::from_millis(50), send(&mut requests, &url)).await;
    assert!(silent.is_err());
    assert_eq!(requests.left().unanswered, Some(format!("GET {origin}")));
}

/// The idempotency key that a request went out with.
fn key_of(request: &str) -> Option<&str> {
    request.lines().find_map(|line| line.strip_prefix("idempotency-key: "))
}

#[tokio::test]
async fn trace_and_keys_go_out_by_themselves_over_one_connection() {
    let (port, seen) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let (busy, seen_busy) =
        server(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let allow = [format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{busy}")];
    let mut requests = requests(&settings(&allow), names(&[]));
    let own = Some("own-key");
    let table = [
        ("GET", port, "/a", None, None),
        ("POST", port, "/a", None, Some("key-1")),
        ("POST", port, "/a", own, own),
        // Another effect, also at the same place.
        ("POST", port, "/b", None, Some("key-1-2")),
        ("POST", port, "/a", None, Some("key-1-3")),
        ("HEAD", port, "/a", None, None),
        ("DELETE", busy, "/c", None, Some("key-1-4")),
        // Nobody knows what came of it, so it is the same once more.
        ("DELETE", busy, "/c", None, Some("key-1-4")),
        ("PUT", busy, "/c", None, Some("key-1-5")),
        ("POST", port, "/b", None, Some("key-1-6")),
    ];
    let mut sent = std::collections::BTreeMap::<_, Vec<_>>::new();
    for (method, port, path, key, expected) in table {
        let request = Request::builder().method(method);
        let request =
            key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
        let url = format!("http://127.0.0.1:{port}{path}");
        let (came, _) = send_request(&mut requests, request.uri(url)).await;
        assert!(matches!(came, Fate::Answered(200 | 503)), "{came:?}");
        sent.entry(port).or_default().push((method, expected));
    }
    for (port, seen) in [(port, seen), (busy, seen_busy)] {
        let seen = seen.lock().unwrap();
        let keys: Vec<_> = seen
            .iter()
            .map(|request| (request.split(' ').next().unwrap(), key_of(request)))
            .collect();
        assert_eq!(keys, sent[&port]);
        assert!(seen.iter().all(|request| request.contains("traceparent: 00-aa-bb-01\r\n")));
    }
}

#[tokio::test]
async fn each_request_of_a_traced_call_has_a_span_of_its_own() {
    let (port, seen) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let (busy, seen_busy) =
        server(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let allow = [port, busy].map(|port| format!("http://127.0.0.1:{port}"));
    let call =
        TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
    let mut requests = requests(&settings(&allow), names(&[])).below(Some(call));
    for port in [port, busy] {
        let url = format!("http://127.0.0.1:{port}/path?query");
        let request = Request::builder().method("POST").header("tracestate", "vendor=1");
        send_request(&mut requests, request.uri(url)).await;
    }
    let told = requests.left().requests;
    assert_eq!(told.len(), 2);
    assert_ne!(call.child(&told[0].name), call.child(&told[1].name));
    for (told, (port, status, seen)) in told.iter().zip([(port, 200, seen), (busy, 503, seen_busy)])
    {
        let seen = seen.lock().unwrap();
        assert!(seen[0].contains(&format!("traceparent: {}\r\n", call.child(&told.name))));
        assert!(seen[0].contains("tracestate: vendor=1\r\n"));
        assert_eq!((told.method.as_str(), told.server.as_str()), ("POST", "127.0.0.1"));
        assert_eq!((told.port, told.status), (Some(port), Some(status)));
        assert!(told.ended.is_some_and(|ended| ended >= told.began));
    }
}

#[tokio::test]
async fn answers_and_requests_have_limits() {
    let large = b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\nx";
    let endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n800\r\n";
    let ((large, _), (endless, _), (silent, _)) =
        (server(large).await, server(endless).await, server(b"").await);
    let allow = [large, endless, silent].map(|port| format!("http://127.0.0.1:{port}"));
    let settings = PluginSettings {
        response_bytes_max: 1_000,
        request_timeout: Duration::from_millis(300),
        ..settings(&allow)
    };
    let mut requests = requests(&settings, names(&[]));
    let (came, _) = send(&mut requests, &allow[0]).await;
    assert_eq!(came, Fate::Other("HttpResponseBodySize(Some(1000))".to_owned()));
    for slow in [&allow[1], &allow[2]] {
        let (came, _) = send(&mut requests, slow).await;
        assert_eq!(came, Fate::Other("HttpResponseTimeout".to_owned()));
    }
    for _ in 3..HTTP_REQUESTS_MAX {
        send(&mut requests, "http://127.0.0.1:1/").await;
    }
    let (came, _) = send(&mut requests, &allow[0]).await;
    assert_eq!(came, Fate::Other("ConnectionLimitReached".to_owned()));
}

/// A plugin's requests in a rehearsal.
fn rehearsed(settings: &PluginSettings, answer: StubAnswer) -> (Requests, Arc<Grant>) {
    let granted = Arc::new(Grant::for_rehearsal(settings.clone(), answer));
    let trace = Some("00-aa-bb-01".to_owned());
    (Requests::new(Arc::clone(&granted), "key-1".to_owned(), trace), granted)
}

#[tokio::test]
async fn a_stub_answers_as_it_is_told_and_nothing_leaves() {
    let (port, seen) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let url = format!("http://127.0.0.1:{port}/a?b");
    let settings = settings(&[format!("http://127.0.0.1:{port}")]);
    let broken = Fate::Other("ConnectionTerminated".to_owned());
    for (answer, expected) in [
        (StubAnswer::Status(200), Fate::Answered(200)),
        (StubAnswer::Status(404), Fate::Answered(404)),
        (StubAnswer::NoAnswer, broken),
    ] {
        let (mut requests, granted) = rehearsed(&settings, answer);
        assert_eq!(send(&mut requests, &url).await.0, expected);
        let refused = "http://169.254.169.254/latest/meta-data/";
        assert_eq!(send(&mut requests, refused).await.0, Fate::Denied);
        let noted = granted.outbound().stub().unwrap().requests(&granted.secrets);
        let urls: Vec<_> = noted.iter().map(|request| request.url.as_str()).collect();
        assert_eq!(urls, [&url, refused]);
        assert_eq!(noted[0].headers, BTreeMap::new(), "what the host adds is not noted");
        assert_eq!(noted[0].refused, None);
        assert!(noted[1].refused.as_ref().unwrap().contains("to allow_hosts"), "{noted:?}");
        // A client is not there at all.
        let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
        let request = Request::builder().uri(&url).body(body).unwrap();
        assert!(granted.outbound().send(request, RequestOptions::default()).await.is_err());
    }
    assert!(seen.lock().unwrap().is_empty(), "{seen:?}");
    let mut earnest = requests(&settings, names(&[]));
    assert_eq!(send(&mut earnest, &url).await.0, Fate::Answered(200));
    assert_eq!(seen.lock().unwrap().len(), 1, "the server would have seen them");
}

#[tokio::test]
async fn what_a_stub_notes_has_no_secrets_and_is_bounded() {
    let secrets = [("api_key".to_owned(), crate::settings::Secret::new("k-123456".to_owned()))];
    let settings =
        PluginSettings { secrets: secrets.into(), ..settings(&["http://127.0.0.1:1".to_owned()]) };
    let (mut requests, granted) = rehearsed(&settings, StubAnswer::Status(200));
    let large = "a".repeat(70_000);
    for (body, credentials) in
        [(r#"{"key":"k-\u003123456"}"#, "Basic azppcw=="), (&large, "Basic other")]
    {
        let body = http_body_util::Full::new(Bytes::copy_from_slice(body.as_bytes()));
        let request = Request::builder()
            .method("POST")
            .uri("http://127.0.0.1:1/?key=k-123456")
            .header("host", "127.0.0.1:1")
            .header("x-key", "k-123456")
            .header("x-two", "1")
            .header("x-two", "2")
            .header("authorization", credentials)
            .body(body.map_err(|never| match never {}).boxed_unsync())
            .unwrap();
        let sent = requests.send_request(request, None, Box::new(async { Ok(()) }));
        assert!(Pin::from(sent).await.is_ok());
    }
    for _ in 2..=HTTP_REQUESTS_MAX + 10 {
        send(&mut requests, "http://127.0.0.1:1/").await;
    }
    let noted = granted.outbound().stub().unwrap().requests(&granted.secrets);
    assert_eq!(noted.len(), HTTP_REQUESTS_MAX as usize + 1, "one more than may be sent");
    let first = &noted[0];
    assert_eq!(first.url, "http://127.0.0.1:1/?key=[secret api_key]");
    assert_eq!(first.body, r#"{"key":"[secret api_key]"}"#);
    assert_eq!(first.headers["x-key"], "[secret api_key]");
    assert_eq!(first.headers["x-two"], "1, 2");
    assert!(!first.headers.contains_key("host"));
    let shown = &first.headers["authorization"];
    assert!(shown.starts_with("not shown (") && !shown.contains("azppcw"), "{shown}");
    assert_ne!(shown, &noted[1].headers["authorization"], "that they differ is seen");
    assert!(noted[1].body.starts_with("70000 bytes, sha256:"), "{}", noted[1].body);
}

/// A component that writes its body only when it has its answer gets one.
#[tokio::test]
async fn a_body_that_does_not_end_is_not_waited_for() {
    let settings = settings(&["http://127.0.0.1:1".to_owned()]);
    let (mut requests, _) = rehearsed(&settings, StubAnswer::Status(404));
    let never = http_body_util::StreamBody::new(futures::stream::pending());
    let request = Request::builder().uri("http://127.0.0.1:1/").body(never.boxed_unsync()).unwrap();
    let sent = requests.send_request(request, None, Box::new(async { Ok(()) }));
    let (answer, _) = Pin::from(sent).await.unwrap();
    assert_eq!(answer.status(), 404);
}

#[test]
fn entries_of_allow_hosts() {
    for text in [
        "http://127.0.0.1:7171",
        "https://a.example",
        "http://[::1]:80",
        "http://[::1]",
        "https://*.example.com",
        "http://localhost:1",
        "10.0.0.0/8",
        "10.1.2.3",
        "fd00::/8",
    ] {
        assert!(text.parse::<AllowHost>().is_ok(), "{text}");
    }
    for text in [
        "127.0.0.1:80",
        "ftp://a",
        "http://",
        "http://a/b",
        "http://a:0",
        "http://a:b",
        "http://u@a",
        "http://a:99999",
        "https://*",
        "https://*.com",
        "https://a.*.com",
        "https://*example.com",
        "http://2130706433",
        "http://0x7f.1",
        "10.0.0.0/40",
        "*",
    ] {
        let refused = text.parse::<AllowHost>();
        assert!(refused.is_err_and(|why| why.contains(text)), "{text}");
    }
}
