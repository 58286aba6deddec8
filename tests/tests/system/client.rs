//! The command line as a host sees it: the host is made here, and says what it is told to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::place::{Place, stderr, stdout};

const ID: &str = "0198c0de-0000-7000-8000-000000000001";

/// An answer: the status, more header lines, the body.
struct Answer(u16, &'static str, Value);

/// Answers requests on the place's port, one after another, and keeps what was asked.
fn host(place: &Place, answers: Vec<Answer>) -> Arc<Mutex<Vec<(Instant, String)>>> {
    let listener = TcpListener::bind(("127.0.0.1", place.port)).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    std::thread::spawn(move || {
        for Answer(status, headers, body) in answers {
            let (stream, _) = listener.accept().unwrap();
            let request = read(&stream).lines().next().unwrap_or_default().to_owned();
            kept.lock().unwrap().push((Instant::now(), request));
            let body = body.to_string();
            let length = body.len();
            let text = format!(
                "HTTP/1.1 {status} Told\r\ncontent-type: application/json\r\nconnection: close\r\n\
                 content-length: {length}\r\n{headers}\r\n{body}"
            );
            (&stream).write_all(text.as_bytes()).unwrap();
        }
    });
    asked
}

/// The head of a request, in small letters; the request is read to its end.
pub(crate) fn read(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        head += &line;
        head.push('\n');
    }
    reader.read_exact(&mut vec![0; length]).unwrap();
    head
}

fn saga(status: &str) -> Value {
    json!({
        "id": ID, "definition": "good", "definition_digest": "", "status": status, "input": null,
        "steps": [], "started_at": "2026-01-01T00:00:00Z", "version": 1,
    })
}

fn problem(status: u16, code: &str) -> Value {
    json!({
        "type": format!("urn:amends:problem:{code}"), "title": "Error", "status": status,
        "code": code, "detail": format!("it is {code}"), "remedy": "do better",
    })
}

#[test]
fn a_start_that_is_refused_is_sent_once() {
    let place = Place::empty();
    let answers = vec![
        Answer(503, "retry-after: 1\r\n", problem(503, "store_failed")),
        Answer(202, "", saga("running")),
    ];
    let asked = host(&place, answers);
    let output = place.amends(&["start", "good"]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    let told = stderr(&output);
    assert!(told.contains("it is store_failed") && told.contains("help: do better"), "{told}");
    assert_eq!(asked.lock().unwrap().len(), 1, "a second request may start a second saga");
}

#[test]
fn a_start_comes_back_to_a_busy_host_when_it_is_told_to() {
    let place = Place::empty();
    let answers = vec![
        Answer(429, "retry-after: 3\r\n", problem(429, "overloaded")),
        Answer(202, "", saga("running")),
    ];
    let asked = host(&place, answers);
    let output = place.amends(&["start", "good", "-o", "ids"]);
    assert_eq!(stdout(&output).trim(), ID, "{}", stderr(&output));
    let asked = asked.lock().unwrap();
    let pause = asked[1].0.duration_since(asked[0].0);
    assert!(pause >= Duration::from_secs(3), "{pause:?}");
}

#[test]
fn a_start_waits_until_its_own_wait_is_over() {
    let place = Place::empty();
    let answers = vec![
        Answer(202, "", saga("running")),
        Answer(200, "", saga("waiting")),
        Answer(200, "", saga("compensated")),
    ];
    let asked = host(&place, answers);
    let output = place.amends(&["start", "good", "--wait", "10m"]);
    assert_eq!(output.status.code(), Some(5), "{}{}", stdout(&output), stderr(&output));
    let asked = asked.lock().unwrap();
    assert!(asked[0].1.starts_with("post /v1/sagas?wait="), "{asked:?}");
    for (_, request) in &asked[1..] {
        assert!(request.starts_with(&format!("get /v1/sagas/{ID}?wait=")), "{request}");
    }
    let place = Place::empty();
    let answers = (0..10).map(|_| Answer(200, "", saga("running"))).collect();
    let asked = host(&place, answers);
    let output = place.amends(&["start", "good", "--wait", "1500ms"]);
    assert_eq!(output.status.code(), Some(7), "{}{}", stdout(&output), stderr(&output));
    assert!(asked.lock().unwrap().len() > 1);
}

#[test]
fn a_wait_that_cannot_go_on_names_the_saga() {
    let place = Place::empty();
    let answers = vec![
        Answer(202, "", saga("running")),
        Answer(503, "retry-after: 1\r\n", problem(503, "stopping")),
    ];
    host(&place, answers);
    let output = place.amends(&["start", "good", "--wait", "10m"]);
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert!(told.contains(ID) && told.contains("it is stopping"), "{told}");
}
