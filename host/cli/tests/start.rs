//! `amends start` against a host that is made here and answers what it is told to.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const ID: &str = "0198c0de-0000-7000-8000-000000000001";

/// What a host does with a request.
enum Act {
    /// Answers with this status and body.
    Answer(u16, Value),
    /// Closes the connection.
    Die,
    /// Never answers.
    Hang,
}

/// A host that does this with a request's first line and body. Answers its address.
fn host(act: impl Fn(&str, &str) -> Act + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let act = Arc::new(act);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let act = Arc::clone(&act);
            std::thread::spawn(move || serve(stream.unwrap(), &*act));
        }
    });
    address
}

fn serve(mut stream: TcpStream, act: &impl Fn(&str, &str) -> Act) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        if first.is_empty() {
            line.clone_into(&mut first);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    match act(&first, &String::from_utf8(body).unwrap()) {
        Act::Answer(status, body) => {
            let body = body.to_string();
            let length = body.len();
            let head = "content-type: application/json\r\nconnection: close";
            let text = format!(
                "HTTP/1.1 {status} Told\r\n{head}\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            stream.write_all(text.as_bytes()).unwrap();
        }
        Act::Die => {}
        Act::Hang => std::thread::park(),
    }
}

fn definitions() -> Act {
    let definition = |name| json!({"name": name, "digest": "", "spec": {}});
    let items = [definition("order-fulfillment"), definition("billing")];
    Act::Answer(200, json!({"items": items, "next_cursor": null}))
}

fn saga(status: &str) -> Act {
    let saga = json!({
        "id": ID, "definition": "billing", "definition_digest": "", "status": status,
        "input": null, "steps": [], "started_at": "2026-01-01T00:00:00Z",
        "next_at": "2126-01-02T00:00:00Z", "version": 1,
    });
    Act::Answer(202, saga)
}

fn start(address: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
    command.arg("start").args(arguments).args(["--host", address]).env_clear();
    command
}

fn outcome(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A file with this many lines.
fn lines(count: usize) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for number in 0..count {
        writeln!(file, "{{\"number\": {number}}}").unwrap();
    }
    file
}

#[test]
fn a_line_without_an_answer_is_not_refused() {
    let started = AtomicUsize::new(0);
    let address = host(move |first, _| {
        if first.starts_with("GET /v1/definitions ") {
            definitions()
        } else if started.fetch_add(1, Ordering::Relaxed) < 10 {
            saga("running")
        } else {
            Act::Die
        }
    });
    let file = lines(100);
    let each = ["billing", "--each", "--key", "k", "--input", file.path().to_str().unwrap()];
    let (code, stdout, stderr) = outcome(&mut start(&address, &each));
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(stdout.starts_with("10 of 100 sagas of billing started in "), "{stdout}");
    let told = "90  no answer: whether they were started is not known; run it again with the \
                same --key\n";
    assert!(stdout.ends_with(told), "{stdout}");
    assert!(!stdout.contains("refused"), "{stdout}");
    assert_eq!(stderr.matches("did not answer").count(), 1, "the same error once: {stderr}");
    assert!(stderr.starts_with("90 lines ("), "{stderr}");
    let (_, stdout, _) = outcome(start(&address, &each).args(["-o", "json"]));
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&answer["no_answer"], &answer["refused"]), (&json!(100), &json!(0)));
}

#[test]
fn a_line_that_is_not_json_is_named_by_its_line_in_the_file() {
    let address = host(|first, _| match first {
        "GET /v1/definitions HTTP/1.1" => definitions(),
        _ => saga("completed"),
    });
    let mut file = lines(2);
    writeln!(file, "\n{{bad").unwrap();
    let each = ["billing", "--each", "--wait", "--input", file.path().to_str().unwrap()];
    let (code, stdout, stderr) = outcome(&mut start(&address, &each));
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert_eq!(stderr, "line 4: it is not JSON: key must be a string, at column 2\n");
    assert!(stdout.ends_with("     2  completed\n       1  refused\n"), "{stdout}");
    let (code, _, stderr) = outcome(&mut start(&address, &["billing", each[3], each[4]]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("it has 3 lines\n  help: with --each"), "{stderr}");
}

#[test]
fn an_interrupt_tells_how_many_were_started() {
    let started = AtomicUsize::new(0);
    let address = host(move |first, _| {
        if first.starts_with("GET /v1/definitions ") {
            definitions()
        } else if started.fetch_add(1, Ordering::Relaxed) < 10 {
            saga("running")
        } else {
            Act::Hang
        }
    });
    let file = lines(200);
    let each = ["billing", "--each", "-o", "ids", "--input", file.path().to_str().unwrap()];
    let mut command = start(&address, &each);
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let ids = BufReader::new(process.stdout.take().unwrap()).lines().take(10).count();
    assert_eq!(ids, 10);
    kill_process(Pid::from_child(&process), Signal::INT).unwrap();
    let output = process.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.starts_with("interrupted: 10 of 200 sagas started, up to 64 more may be; "),
        "{told}"
    );
}

#[test]
fn a_definition_that_is_unknown_is_told_once_with_what_would_be_right() {
    let address = host(|first, _| match first {
        "GET /v1/definitions HTTP/1.1" => definitions(),
        _ => Act::Answer(
            404,
            json!({
                "type": "urn:amends:problem:definition_unknown", "title": "Error", "status": 404,
                "code": "definition_unknown", "detail": "there is no definition", "remedy": "look",
            }),
        ),
    });
    let file = lines(30);
    let near = "error: there is no definition `biling`\n  help: did you mean `billing`?\n";
    let each = ["biling", "--each", "--input", file.path().to_str().unwrap()];
    assert_eq!(outcome(&mut start(&address, &each)), (Some(4), String::new(), near.to_owned()));
    let one = outcome(&mut start(&address, &["biling"]));
    assert_eq!(one, (Some(4), String::new(), near.to_owned()));
    let (code, _, stderr) = outcome(&mut start(&address, &["refunds"]));
    assert_eq!(code, Some(4));
    let all = "help: the definitions of this host are `order-fulfillment`, `billing`\n";
    assert!(stderr.ends_with(all), "{stderr}");
}

#[test]
fn a_wait_that_ends_first_says_what_would_tell_more() {
    let address = host(|first, _| match first {
        "GET /v1/definitions HTTP/1.1" => definitions(),
        _ => saga("waiting"),
    });
    let (code, stdout, stderr) = outcome(&mut start(&address, &["billing", "--wait", "50ms"]));
    assert_eq!(code, Some(7), "{stdout}{stderr}");
    assert_eq!(
        stderr,
        format!(
            "the wait of 50ms ended first: the saga is waiting, something is next due at \
             2126-01-02T00:00:00.000Z; `amends why {ID}` says what it waits for, `amends watch {ID}` \
             follows it\n"
        )
    );
    let file = lines(3);
    let each = ["billing", "--wait", "50ms", "--each", "--input", file.path().to_str().unwrap()];
    let (code, _, stderr) = outcome(&mut start(&address, &each));
    assert_eq!(code, Some(7));
    assert!(stderr.starts_with("the wait of 50ms ended first for 3 sagas; "), "{stderr}");
}

#[test]
fn a_tag_takes_both_signs() {
    let address = host(|_, body| {
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["tags"], json!({"shop": "a:b", "region": "c=d"}));
        saga("running")
    });
    let tags = ["billing", "--tag", "shop=a:b", "--tag", "region:c=d", "-o", "ids"];
    let (code, stdout, stderr) = outcome(&mut start(&address, &tags));
    assert_eq!((code, stdout.trim()), (Some(0), ID), "{stderr}");
    let (code, _, stderr) = outcome(&mut start(&address, &["billing", "--tag", "shop"]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("write NAME=VALUE or NAME:VALUE"), "{stderr}");
}

#[test]
fn a_host_that_goes_away_during_the_wait_is_not_a_wait_that_ended() {
    let address = host(|first, _| match first {
        "GET /v1/definitions HTTP/1.1" => definitions(),
        _ if first.starts_with("POST ") => saga("waiting"),
        _ => Act::Die,
    });
    let file = lines(3);
    let each = ["billing", "--wait", "20s", "--each", "--input", file.path().to_str().unwrap()];
    let (code, stdout, stderr) = outcome(&mut start(&address, &each));
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    let told = "the host went away during the wait for 3 sagas, which it started; they go on when \
                it is back\n";
    assert!(stderr.ends_with(told), "{stderr}");
    assert!(!stderr.contains("ended first"), "{stderr}");
    assert!(stdout.starts_with("3 of 3 sagas of billing started"), "{stdout}");
}
