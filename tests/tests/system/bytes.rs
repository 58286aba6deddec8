//! Answers are limited in bytes: what a client asks for, and does not take, costs the host little.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::place::{Host, Place, agent};

/// What an event has at least here.
const LARGE: usize = (1 << 20) - 100;

/// A page of events ends with the one that makes it so large.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// `gate` waits for two signals.
fn place() -> Place {
    let place = Place::empty();
    place.config(
        "[[saga]]\nname = \"gate\"\n\
         [[saga.step]]\nname = \"first\"\nwait = \"first\"\n\
         [[saga.step]]\nname = \"then\"\nwait = \"then\"\n",
    );
    place
}

fn post(host: &Host, path: &str, body: &Value) -> (u16, Value) {
    let request = agent().post(host.url(path)).header("content-type", "application/json");
    let mut response = request.send(body.to_string()).unwrap();
    let text = response.body_mut().read_to_string().unwrap();
    (response.status().as_u16(), serde_json::from_str(&text).unwrap())
}

fn start(host: &Host, input: &str) -> String {
    let (status, saga) = post(host, "/v1/sagas", &json!({"definition": "gate", "input": input}));
    assert_eq!(status, 202, "{saga}");
    saga["id"].as_str().unwrap().to_owned()
}

/// The pages of a list of events, by the versions or positions of their events.
fn pages(host: &Host, path: &str, number: &str) -> Vec<Vec<u64>> {
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let mut response = agent().get(host.url(&format!("{path}{cursor}"))).call().unwrap();
        assert_eq!(response.headers()["content-type"], "application/json");
        let text = response.body_mut().with_config().limit(1 << 30).read_to_string().unwrap();
        assert!(text.len() < PAGE_BYTES_MAX + (2 << 20), "{} bytes", text.len());
        let page: Value = serde_json::from_str(&text).unwrap();
        let items = page["items"].as_array().unwrap();
        pages.push(items.iter().map(|event| event[number].as_u64().unwrap()).collect());
        let Some(next) = page["next_cursor"].as_str() else { return pages };
        cursor = format!("&cursor={next}");
    }
}

/// Asks and does not read the answer.
fn ask(host: &Host, path: &str) -> TcpStream {
    let address = host.url("").trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").unwrap();
    // The answer has begun.
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    stream
}

/// How much the host grows, in MiB, while so many clients ask and do not read.
fn growth(host: &Host, clients: usize, path: &str) -> u64 {
    let before = host.memory_mib();
    let streams: Vec<_> = (0..clients).map(|_| ask(host, path)).collect();
    // As much as it has to send is in its memory by then.
    let (began, mut most) = (Instant::now(), before);
    while began.elapsed() < Duration::from_secs(3) {
        most = most.max(host.memory_mib());
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(streams);
    most - before
}

#[test]
fn a_page_of_events_is_limited_in_bytes() {
    const SAGAS: usize = 24;
    let place = place();
    let host = place.run();
    let large = "x".repeat(LARGE);
    for _ in 0..SAGAS {
        start(&host, &large);
    }
    // Sixteen who ask for it and do not read would have all of it, each several times.
    let grown = growth(&host, 16, "/v1/events?limit=1000");
    assert!(grown < 96, "{grown} MiB");

    let all = pages(&host, "/v1/events?limit=1000", "position");
    assert!(all.len() >= SAGAS / 8, "{all:?}");
    assert!(all.concat().into_iter().eq(1..=2 * SAGAS as u64), "{all:?}");
    // A limit in items ends a page before that.
    let few = pages(&host, "/v1/events?limit=5", "position");
    assert!(few.iter().rev().skip(1).all(|page| page.len() == 5), "{few:?}");
    assert_eq!(few.concat(), all.concat());
}

#[test]
fn watchers_that_do_not_read_cost_little() {
    const SIGNALS: u64 = 8;
    const WATCHERS: usize = 64;
    let place = place();
    let host = place.run();
    let id = start(&host, "");
    let large = "x".repeat(LARGE);
    for number in 0..SIGNALS {
        let body = json!({"payload": large, "id": number.to_string()});
        let (status, answer) = post(&host, &format!("/v1/sagas/{id}/signals/then"), &body);
        assert_eq!(status, 202, "{answer}");
    }
    // Each has one event that is being sent, and no more.
    let grown = growth(&host, WATCHERS, &format!("/v1/sagas/{id}/watch"));
    assert!(grown < 4 * WATCHERS as u64, "{grown} MiB");

    let refused = json!({"payload": large, "id": "one too many"});
    let (status, answer) = post(&host, &format!("/v1/sagas/{id}/signals/then"), &refused);
    assert_eq!((status, answer["code"].as_str()), (429, Some("overloaded")), "{answer}");

    let all = pages(&host, &format!("/v1/sagas/{id}/events?limit=3"), "version");
    assert!(all.iter().rev().skip(1).all(|page| page.len() == 3), "{all:?}");
    assert!(all.concat().into_iter().eq(1..=SIGNALS + 2), "{all:?}");
}
