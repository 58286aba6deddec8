//! Clients that say nothing, say half of it or do not listen: what they cost, and whom.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use amends_tests::{Behaviour, Component};
use serde_json::{Value, json};

use crate::carrier::{self, Carrier};
use crate::place::{Host, Place, SOON, agent, get, stdout};

/// Fewer than a process usually has: the library, the store and the runtime need about forty.
const FEW_DESCRIPTORS: u32 = 96;

fn place() -> Place {
    let place = Place::empty();
    for (name, execute) in [("good", Behaviour::Echo), ("slow", Behaviour::Spin)] {
        let component = Component { name, execute, ..Component::default() };
        fs::write(place.plugin(name), component.build()).unwrap();
    }
    place.config(
        "[plugin.good]\nstate = true\n\
         [[saga]]\nname = \"good\"\n[[saga.step]]\nname = \"good\"\nplugin = \"good\"\n\
         [[saga]]\nname = \"later\"\n[[saga.step]]\nname = \"sleep\"\nsleep = \"1h\"\n\
         [[saga.step]]\nname = \"good\"\nplugin = \"good\"\n",
    );
    place
}

fn connect(place: &Place, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", place.port)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

/// What the host says until it closes the connection; none when it has not done so within a while.
fn to_the_end(mut stream: &TcpStream) -> Option<String> {
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Ok(_) | Err(_) => Some(String::from_utf8_lossy(&said).into_owned()),
    }
}

fn head(place: &Place, request: &str, more: &str) -> String {
    format!("{request} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\n{more}", place.port)
}

#[test]
fn heads_and_bodies_that_do_not_come_are_not_waited_for() {
    let place = place();
    let host = place.run();
    let json = "content-type: application/json\r\namends-request: 1\r\n";
    let ndjson = "content-type: application/x-ndjson\r\n";
    let form = "content-type: multipart/form-data; boundary=x\r\namends-request: 1\r\n";
    let part = "--x\r\ncontent-disposition: form-data; name=\"good\"\r\n\r\nhalf";
    let slow = "408 Request Timeout";
    let silent = [
        ("nothing", String::new(), ""),
        ("half a line", "GET /heal".to_owned(), ""),
        ("half a head", head(&place, "GET /healthz", "accept: */*\r\n"), ""),
        (
            "no body",
            head(&place, "POST /v1/sagas", &format!("{json}content-length: 9\r\n\r\n")),
            slow,
        ),
        (
            "half a body",
            head(&place, "POST /v1/sagas", &format!("{json}content-length: 9\r\n\r\n{{")),
            slow,
        ),
        (
            "half a chunk",
            head(
                &place,
                "POST /v1/sagas",
                &format!("{json}transfer-encoding: chunked\r\n\r\n5\r\n{{"),
            ),
            slow,
        ),
        (
            "half an upload",
            head(
                &place,
                "POST /v1/plugins:deploy",
                &format!("{form}content-length: 900\r\n\r\n{part}"),
            ),
            slow,
        ),
        (
            "half an import",
            head(
                &place,
                "POST /v1/plugins/good/state:import",
                &format!("{ndjson}content-length: 9\r\n\r\n{{"),
            ),
            slow,
        ),
        (
            "half a batch",
            head(&place, "POST /v1/sagas:batch", &format!("{ndjson}content-length: 9\r\n\r\n{{")),
            "body_too_slow",
        ),
    ];
    let began = Instant::now();
    let streams: Vec<_> = silent
        .iter()
        .flat_map(|(what, text, said)| {
            // Of these there is one at a time.
            let is_alone = matches!(*what, "half an upload" | "half an import");
            let count = if is_alone { 1 } else { 5 };
            (0..count).map(move |_| (*what, text, *said))
        })
        .map(|(what, text, said)| (what, connect(&place, text), said))
        .collect();
    for (what, stream, said) in &streams {
        assert_eq!(get(&host.url("/healthz"))["status"], "ok");
        let told = to_the_end(stream).unwrap_or_else(|| panic!("{what}: it is still open"));
        assert!(told.contains(said), "{what}: {told}");
        assert_eq!(told.is_empty(), said.is_empty(), "{what}: {told}");
    }
    assert!(began.elapsed() >= Duration::from_secs(10), "a client may take a moment");
    assert_eq!(host.sagas(), Vec::<Value>::new());
}

/// The request takes longer than the head of one may.
#[test]
fn a_connection_that_rests_after_a_long_request_is_closed() {
    let place = place();
    let _host = place.run();
    let body = json!({"definition": "later"}).to_string();
    let more = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    let request = head(&place, "POST /v1/sagas?wait=12s", &more);
    let stream = connect(&place, &format!("{request}\r\n{body}"));
    let said = to_the_end(&stream).expect("it is still open");
    assert!(said.contains(" 202 "), "{said}");
}

#[test]
fn a_head_has_an_end() {
    let place = place();
    let _host = place.run();
    let long = format!("x: {}\r\n", "y".repeat(1 << 20));
    let many = (0..200).map(|number| format!("x-{number}: y\r\n")).collect::<Vec<_>>().concat();
    for more in [long, many] {
        let mut stream = TcpStream::connect(("127.0.0.1", place.port)).unwrap();
        // It may have been answered, and closed, before all is sent.
        let _ = stream.write_all(head(&place, "GET /healthz", &format!("{more}\r\n")).as_bytes());
        let said = to_the_end(&stream).expect("it is still open");
        assert!(said.is_empty() || said.contains(" 431 "), "{said}");
    }
}

#[test]
fn an_answer_that_nobody_reads_is_given_up() {
    let place = place();
    let host = place.run();
    let value = "x".repeat(250 << 10);
    let lines: String = (0..60)
        .map(|key| json!({"key": format!("{key}"), "value": value}).to_string() + "\n")
        .collect();
    let import = agent().post(host.url("/v1/plugins/good/state:import"));
    let import = import.header("content-type", "application/x-ndjson").send(&lines).unwrap();
    assert_eq!(import.status(), 200);
    // One after another, so that there is more than the system keeps for a client.
    let page = head(&place, "GET /v1/plugins/good/state?limit=1000", "\r\n");
    let stream = connect(&place, &page.repeat(6));
    std::thread::sleep(Duration::from_secs(45));
    let said = to_the_end(&stream).expect("it is still open");
    assert!(said.len() < 6 * (8 << 20), "{} bytes", said.len());
    assert_eq!(get(&host.url("/healthz"))["status"], "ok");
}

/// Connections that say nothing, while a host with few descriptors calls a service.
#[test]
fn connections_leave_descriptors_to_sagas() {
    let carrier = Carrier::start(&[]);
    let place = carrier::place(&carrier);
    let host = place.run_with_descriptors(FEW_DESCRIPTORS);
    let mut idle: Vec<TcpStream> = (0..2 * FEW_DESCRIPTORS).map(|_| connect(&place, "")).collect();
    idle.extend((0..FEW_DESCRIPTORS).map(|_| connect(&place, "GET / HTTP/1.1\r\n")));
    let order = crate::place::example().join("order.json");
    let order = order.to_str().unwrap();
    for _ in 0..10 {
        let start = ["start", "order-fulfillment", "--input", order, "--wait", "60s", "-o", "json"];
        let output = place.amends(&start);
        let saga: Value = serde_json::from_str(&stdout(&output)).unwrap_or_default();
        assert_eq!(saga["status"], "completed", "{saga} {}", host.log().join("\n"));
    }
    let open = host.descriptors();
    assert!(open < FEW_DESCRIPTORS as usize / 4 * 3, "{open} of {FEW_DESCRIPTORS} are open");
    drop(idle);
}

#[test]
fn a_full_host_says_so_and_how_it_is() {
    let place = place();
    let host = place.run_with_descriptors(FEW_DESCRIPTORS);
    let body = json!({"definition": "later"}).to_string();
    let started = agent().post(host.url("/v1/sagas")).header("content-type", "application/json");
    let started: Value = started.send(&body).unwrap().body_mut().read_json().unwrap();
    let wait = format!("GET /v1/sagas/{}?wait=5m", started["id"].as_str().unwrap());
    let mut waiting = Vec::new();
    let ask = |path: &str| agent().get(host.url(path)).call().unwrap();
    let is_refused = || {
        let mut answer = ask("/v1/sagas");
        let said = answer.body_mut().read_to_string().unwrap();
        let is_refused = answer.status() == 503 && said.contains("connections_full");
        assert!(!is_refused || answer.headers()["retry-after"] == "1");
        is_refused
    };
    host.until("there are as many clients as it takes", || {
        assert!(waiting.len() < 10 * FEW_DESCRIPTORS as usize, "there is no end of clients");
        waiting.push(connect(&place, &head(&place, &wait, "\r\n")));
        // Time for it to be under way: else the next connection has its place.
        std::thread::sleep(Duration::from_millis(20));
        // More than once: a request that ends just then is a client as well.
        (0..5).all(|_| is_refused())
    });
    // Also while others come who stop in the middle of what they send.
    let more = "content-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    let half = head(&place, "POST /v1/sagas", more);
    let others: Vec<_> = (0..FEW_DESCRIPTORS).map(|_| connect(&place, &half)).collect();
    let silent = ["", "GET /hea"].repeat(FEW_DESCRIPTORS as usize / 8);
    let silent: Vec<_> = silent.into_iter().map(|text| connect(&place, text)).collect();
    let soon = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5)));
    let soon = ureq::Agent::new_with_config(soon.build());
    for _ in 0..5 {
        for path in ["/healthz", "/readyz"] {
            let answer = soon.get(host.url(path)).call();
            assert_eq!(answer.expect("it answers at once").status(), 200, "{path}");
        }
    }
    for other in &others {
        assert!(to_the_end(other).unwrap().contains("connections_full"));
    }
    drop(silent);
    waiting.clear();
    host.until("it takes others", || ask("/v1/sagas").status() == 200);
}

#[test]
fn the_head_of_a_request_has_a_limit() {
    let place = place();
    let _host = place.run();
    for (bytes, status) in
        [(64_000, " 200 "), (66_000, " 431 "), (100_000, " 431 "), (1 << 20, " 431 ")]
    {
        let more = format!("connection: close\r\nnote: {}\r\n\r\n", "x".repeat(bytes));
        let stream = TcpStream::connect(("127.0.0.1", place.port)).unwrap();
        // It may have been answered before all of it was written.
        let _ = (&stream).write_all(head(&place, "GET /healthz", &more).as_bytes());
        let said = to_the_end(&stream).unwrap();
        assert!(said.contains(status) || bytes > 200_000 && said.is_empty(), "{bytes}: {said}");
    }
}

/// Imports that stop shortly before their end, as many as all bodies may have bytes.
#[test]
fn imports_leave_room_for_other_bodies() {
    let place = place();
    let host = place.run();
    let bytes = vec![b'\n'; (16 << 20) - 1];
    let length = bytes.len() + 1;
    let more = format!("content-type: application/x-ndjson\r\ncontent-length: {length}\r\n\r\n");
    let request = head(&place, "POST /v1/plugins/good/state:import", &more);
    std::thread::scope(|scope| {
        let send = || {
            let stream = connect(&place, &request);
            stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
            let _ = (&stream).write_all(&bytes);
            stream
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(send)).collect();
        let streams: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let body = json!({"definition": "later"}).to_string();
        let start = agent().post(host.url("/v1/sagas")).header("content-type", "application/json");
        assert_eq!(start.send(&body).unwrap().status(), 202, "while imports are under way");
        let said: Vec<_> = streams.iter().map(|stream| to_the_end(stream).unwrap()).collect();
        let count = |code: &str| said.iter().filter(|said| said.contains(code)).count();
        assert_eq!((count("body_too_slow"), count("import_running")), (1, 3), "{said:?}");
    });
}

/// Uploads that stop shortly before their end.
#[test]
fn uploads_are_received_one_at_a_time() {
    let place = place();
    let host = place.run();
    let before = host.memory_mib();
    let form = "content-type: multipart/form-data; boundary=x\r\namends-request: 1\r\n";
    let part = "--x\r\ncontent-disposition: form-data; name=\"good\"\r\n\r\n";
    let bytes = vec![b'x'; 60 << 20];
    let length = part.len() + bytes.len() + 1_000;
    let request = format!("{form}content-length: {length}\r\n\r\n{part}");
    let streams: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let stream =
                        connect(&place, &head(&place, "POST /v1/plugins:deploy", &request));
                    // Those that wait are not read.
                    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
                    let _ = (&stream).write_all(&bytes);
                    stream
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let held = host.memory_mib().saturating_sub(before);
    assert!(held < 160, "{held} MiB for uploads of 60");
    let said: Vec<_> = streams.iter().map(|stream| to_the_end(stream).unwrap()).collect();
    let count = |code: &str| said.iter().filter(|said| said.contains(code)).count();
    assert!(count("body_too_slow") >= 1, "{said:?}");
    fs::write(place.path("good.wasm"), component("good", "9.9.9")).unwrap();
    host.until("there is room for an upload", || {
        place.amends(&["plugin", "deploy", "good.wasm"]).status.success()
    });
}

fn component(name: &'static str, version: &'static str) -> Vec<u8> {
    Component { name, version, execute: Behaviour::Echo, ..Component::default() }.build()
}

/// A connection is kept from request to request, and one that is idle gives way to others.
#[test]
fn idle_connections_give_way() {
    let place = place();
    let host: Host = place.run_with_descriptors(FEW_DESCRIPTORS);
    let ping = head(&place, "GET /healthz", "\r\n");
    let answered = |stream: &mut TcpStream| {
        let mut said = [0; 4_096];
        stream.read(&mut said).is_ok_and(|count| said[..count].starts_with(b"HTTP/1.1 200"))
    };
    let mut kept = connect(&place, &ping);
    for _ in 0..3 {
        assert!(answered(&mut kept));
        kept.write_all(ping.as_bytes()).unwrap();
    }
    assert!(answered(&mut kept));
    let others: Vec<_> = (0..FEW_DESCRIPTORS)
        .map(|_| {
            let mut other = connect(&place, &ping);
            assert!(answered(&mut other), "each is served");
            other
        })
        .collect();
    assert_eq!(to_the_end(&kept).as_deref(), Some(""), "the first is closed");
    assert_eq!(get(&host.url("/healthz"))["status"], "ok");
    drop(others);
}

#[test]
fn a_batch_may_come_in_pieces_of_a_byte() {
    let place = place();
    let host = place.run();
    let body = "{\"definition\":\"good\"}\n".repeat(3);
    let chunks = body.chars().map(|byte| format!("1\r\n{byte}\r\n")).collect::<Vec<_>>().concat();
    let more = "content-type: application/x-ndjson\r\nconnection: close\r\n\
                transfer-encoding: chunked\r\n\r\n";
    let request = head(&place, "POST /v1/sagas:batch", more);
    let said = to_the_end(&connect(&place, &format!("{request}{chunks}0\r\n\r\n"))).unwrap();
    assert_eq!(said.matches("{\"id\":").count(), 3, "{said}");
    assert_eq!(host.sagas().len(), 3);
}
