//! A service outside the host, and its ledger: what really happened, whoever died meanwhile.
//!
//! It speaks as the carriers' service does, so that the plugin `shipment` can call it. A label is
//! issued once for each reference, and cancelled for good: a request that comes after its undo
//! issues none. Which references it refuses follows from the seed and the reference alone; whether a
//! request is slow, lost or refused for now is drawn for each.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::random::{Random, number_of};

/// Longer than the plugin waits for an answer (`request_timeout`).
const SLOW_MS: u64 = 450;

/// Of 1,000 references: those whose label is refused for good, and those whose first cancels are.
const REFUSED_PERMILLE: u64 = 40;
const HELD_PERMILLE: u64 = 25;

/// Of 100 requests, each of: 503, lost before its effect, lost after it, slow before it, 500 after
/// it.
const TROUBLE_PERCENT: u64 = 3;

/// What happened to one reference. The numbers say in which order over all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    /// The order's number: which saga and step it is of.
    pub(crate) order: Option<String>,
    pub(crate) issued: Option<u64>,
    pub(crate) cancelled: Option<u64>,
    /// Requests that came, with their keys.
    pub(crate) issues: Vec<(u64, String)>,
    pub(crate) cancels: Vec<(u64, String)>,
}

impl Entry {
    pub(crate) fn stands(&self) -> bool {
        match (self.issued, self.cancelled) {
            (Some(issued), Some(cancelled)) => issued > cancelled,
            (issued, _) => issued.is_some(),
        }
    }
}

/// By reference.
pub(crate) type Ledger = BTreeMap<String, Entry>;

pub(crate) struct Service {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    seed: u64,
    is_calm: AtomicBool,
    /// From when on everything is refused for now: the service is away.
    is_away: AtomicBool,
    books: Mutex<Books>,
}

struct Books {
    random: Random,
    clock: u64,
    ledger: Ledger,
}

/// What becomes of a request, beside what it asks for.
enum Trouble {
    None,
    Busy,
    LostBefore,
    LostAfter,
    Slow,
    FailedAfter,
}

impl Service {
    pub(crate) fn start(seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let books = Books { random: Random::new(seed ^ 1), clock: 0, ledger: Ledger::new() };
        let shared = Arc::new(Shared {
            seed,
            is_calm: AtomicBool::new(false),
            is_away: AtomicBool::new(false),
            books: Mutex::new(books),
        });
        let of_all = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&of_all);
                // A caller that was killed breaks off: there is nobody to tell.
                std::thread::spawn(move || drop(shared.serve(&stream)));
            }
        });
        Self { url, shared }
    }

    /// No trouble from now on.
    pub(crate) fn calm(&self) {
        self.shared.is_calm.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_away(&self, is_away: bool) {
        self.shared.is_away.store(is_away, Ordering::Relaxed);
    }

    pub(crate) fn ledger(&self) -> Ledger {
        self.shared.books.lock().unwrap().ledger.clone()
    }

    /// Cancels by hand, as an operator who phones the carrier.
    pub(crate) fn cancel_by_hand(&self, order: &str) {
        let mut books = self.shared.books.lock().unwrap();
        books.clock += 1;
        let clock = books.clock;
        let entries = books.ledger.values_mut();
        for entry in entries.filter(|entry| entry.order.as_deref() == Some(order)) {
            entry.cancelled.get_or_insert(clock);
        }
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut reader = BufReader::new(stream);
        let (mut first, mut key, mut length) = (String::new(), String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end();
            match line.split_once(": ") {
                _ if line.is_empty() => break,
                _ if first.is_empty() => line.clone_into(&mut first),
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().unwrap_or(0);
                }
                Some((name, value)) if name.eq_ignore_ascii_case("idempotency-key") => {
                    value.clone_into(&mut key);
                }
                _ => (),
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let Some((status, answer)) = self.act(method, path, &key, &body) else { return Ok(()) };
        let answer = answer.to_string();
        write!(
            &mut &*stream,
            "HTTP/1.1 {status} Told\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{answer}",
            answer.len()
        )
    }

    /// Does what is asked; none: there is no answer.
    fn act(&self, method: &str, path: &str, key: &str, body: &[u8]) -> Option<(u16, Value)> {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let is_issue = method == "POST";
        let reference = if is_issue {
            body["reference"].as_str().unwrap_or_default()
        } else {
            path.strip_prefix("/labels/").unwrap_or_default()
        };
        let trouble = self.note(reference, is_issue.then_some(&body), key);
        match trouble {
            Trouble::Busy => return Some((503, json!({"code": "busy"}))),
            Trouble::LostBefore => return None,
            Trouble::Slow => std::thread::sleep(Duration::from_millis(SLOW_MS)),
            Trouble::None | Trouble::LostAfter | Trouble::FailedAfter => (),
        }
        let answer = self.apply(reference, is_issue);
        match trouble {
            Trouble::LostAfter => None,
            Trouble::FailedAfter => Some((500, json!({"code": "failed"}))),
            Trouble::None | Trouble::Slow | Trouble::Busy | Trouble::LostBefore => Some(answer),
        }
    }

    /// Enters that the request came, and draws what becomes of it.
    fn note(&self, reference: &str, issue: Option<&Value>, key: &str) -> Trouble {
        let mut books = self.books.lock().unwrap();
        let Books { random, clock, ledger } = &mut *books;
        *clock += 1;
        let entry = ledger.entry(reference.to_owned()).or_default();
        let came = (*clock, key.to_owned());
        if let Some(body) = issue {
            entry.order = body["order_id"].as_str().map(str::to_owned);
            entry.issues.push(came);
        } else {
            entry.cancels.push(came);
        }
        let drawn = random.below(100) / TROUBLE_PERCENT;
        if self.is_calm.load(Ordering::Relaxed) {
            return Trouble::None;
        }
        if self.is_away.load(Ordering::Relaxed) {
            return Trouble::Busy;
        }
        match drawn {
            0 => Trouble::Busy,
            1 => Trouble::LostBefore,
            2 => Trouble::LostAfter,
            3 => Trouble::Slow,
            4 => Trouble::FailedAfter,
            _ => Trouble::None,
        }
    }

    fn apply(&self, reference: &str, is_issue: bool) -> (u16, Value) {
        let refused = |code: &str| (409, json!({"code": code}));
        let fate = number_of(self.seed, reference) % 1_000;
        let mut books = self.books.lock().unwrap();
        let Books { clock, ledger, .. } = &mut *books;
        *clock += 1;
        let entry = ledger.entry(reference.to_owned()).or_default();
        if is_issue {
            if fate < REFUSED_PERMILLE {
                return refused("no_carrier");
            }
            if entry.cancelled.is_some() {
                return refused("cancelled");
            }
            entry.issued.get_or_insert(*clock);
            return (201, json!({"label": reference}));
        }
        // The first two calls find somebody who says no.
        let is_held = (REFUSED_PERMILLE..REFUSED_PERMILLE + HELD_PERMILLE).contains(&fate);
        if is_held && entry.cancelled.is_none() && entry.cancels.len() < 3 {
            return refused("on_its_way");
        }
        let was_issued = entry.issued.is_some();
        entry.cancelled.get_or_insert(*clock);
        (200, json!({"cancelled": was_issued}))
    }
}
