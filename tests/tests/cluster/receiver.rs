//! Takes the events of a subscription over HTTP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

pub(crate) struct Receiver {
    pub(crate) url: String,
    events: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let events = Arc::<Mutex<Vec<Value>>>::default();
        let taken = Arc::clone(&events);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let taken = Arc::clone(&taken);
                // A sender that was killed breaks off: there is nobody to tell.
                std::thread::spawn(move || drop(serve(&stream, &taken)));
            }
        });
        Self { url, events }
    }

    /// The events of a subject in the order in which they came: their versions.
    pub(crate) fn versions_of(&self, subject: &str) -> Vec<u64> {
        let events = self.events.lock().unwrap();
        let of_subject = events.iter().filter(|event| event["subject"] == subject);
        of_subject.map(|event| event["sequence"].as_str().unwrap().parse().unwrap()).collect()
    }
}

fn serve(stream: &TcpStream, events: &Mutex<Vec<Value>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().unwrap_or(0);
                }
                _ if line.trim_end().is_empty() => break,
                _ => (),
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        events.lock().unwrap().push(serde_json::from_slice(&body)?);
        (&mut &*stream).write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    }
}
