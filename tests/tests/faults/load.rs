//! Who uses the host while faults come: clients, an operator, a reader of the log. They keep what
//! they were told, for a host is judged by what it acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::definitions::{DEFINITIONS, appends, input};
use crate::event::Event;
use crate::random::Random;
use crate::service::Service;

/// A host that is stopped or whose disk is full is not waited for.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Idempotency keys that clients use again and again.
const KEYS: u64 = 60;

/// In which every saga is to rest once there are no more faults, and how much longer for each that was started.
const SETTLED_IN: Duration = Duration::from_mins(2);
const SETTLED_IN_EACH: Duration = Duration::from_millis(2);

/// So many starts later, sagas append to other lists. Those of keys have the age 0 for ever.
const STARTS_OF_AN_AGE: usize = 200;

/// Events that the reader takes at once.
const PAGE: usize = 300;

/// An order that was answered with 200.
#[derive(Debug, Clone)]
pub(crate) struct OrderAck {
    pub(crate) saga: String,
    pub(crate) verb: String,
    /// Its own, so that it is found in the log.
    pub(crate) reason: String,
}

/// What was acknowledged.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acks {
    /// The name that a saga was given, by its id.
    pub(crate) starts: BTreeMap<String, String>,
    /// The saga that a key stands for.
    pub(crate) keys: BTreeMap<String, String>,
    pub(crate) orders: Vec<OrderAck>,
    /// The ids of signals, with their sagas.
    pub(crate) signals: Vec<(String, String)>,
    /// Each event that the reader was given: its position and what identifies it.
    pub(crate) read: Vec<(u64, String)>,
    /// What was wrong at once.
    pub(crate) offences: Vec<String>,
}

/// Is told each saga that was acknowledged.
type Told<'t> = Box<dyn Fn(&str) + Send + Sync + 't>;

/// What all of them share.
pub(crate) struct World<'t> {
    told: Told<'t>,
    /// The hosts that are asked, in turn.
    urls: RwLock<Vec<String>>,
    turn: AtomicUsize,
    pub(crate) acks: Mutex<Acks>,
    /// The clients are to end.
    pub(crate) is_over: AtomicBool,
    /// The reader is to end.
    pub(crate) is_read: AtomicBool,
    /// Nobody reads the log: there is damage in it.
    pub(crate) is_unread: AtomicBool,
}

impl<'t> World<'t> {
    pub(crate) fn new(told: impl Fn(&str) + Send + Sync + 't) -> Self {
        Self {
            told: Box::new(told),
            urls: RwLock::default(),
            turn: AtomicUsize::new(0),
            acks: Mutex::default(),
            is_over: AtomicBool::new(false),
            is_read: AtomicBool::new(false),
            is_unread: AtomicBool::new(false),
        }
    }

    /// Keeps that the saga was acknowledged.
    pub(crate) fn is_started(&self, id: &str, name: &str) {
        (self.told)(id);
        self.acks.lock().unwrap().starts.insert(id.to_owned(), name.to_owned());
    }

    /// What sagas append to that are started now.
    fn age(&self) -> u64 {
        1 + (self.acks.lock().unwrap().starts.len() / STARTS_OF_AN_AGE) as u64
    }

    /// From now on these hosts are asked.
    pub(crate) fn ask_at(&self, urls: Vec<String>) {
        *self.urls.write().unwrap() = urls;
    }

    /// The URL of a path at the host whose turn it is.
    pub(crate) fn path(&self, path: &str) -> String {
        let urls = self.urls.read().unwrap();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        format!("{}{path}", urls[turn % urls.len()])
    }
}

/// One who asks, and waits for answers only so long.
pub(crate) struct Asker(ureq::Agent);

impl Asker {
    pub(crate) fn new() -> Self {
        Self::patient(ANSWER_MAX)
    }

    /// One who waits for this time.
    pub(crate) fn patient(answer_max: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(answer_max));
        Self(config.build().into())
    }

    pub(crate) fn get(&self, url: &str) -> Option<(u16, Value)> {
        let mut answer = self.0.get(url).call().ok()?;
        Some((answer.status().as_u16(), answer.body_mut().read_json().ok()?))
    }

    /// The status, once there is one, and the body as far as it came.
    pub(crate) fn post(&self, url: &str, key: Option<&str>, body: &Value) -> Option<(u16, Value)> {
        let mut request = self.0.post(url);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let mut answer = request.send_json(body).ok()?;
        Some((answer.status().as_u16(), answer.body_mut().read_json().unwrap_or_default()))
    }

    /// The lines that came, each of them whole.
    fn post_lines(&self, url: &str, body: &str) -> Vec<Value> {
        let request = self.0.post(url).header("content-type", "application/x-ndjson");
        let Ok(mut answer) = request.send(body) else { return Vec::new() };
        let lines = BufReader::new(answer.body_mut().as_reader()).lines();
        lines.map_while(|line| serde_json::from_str(&line.ok()?).ok()).collect()
    }
}

/// One client.
pub(crate) struct Client<'w> {
    world: &'w World<'w>,
    name: String,
    random: Random,
    asker: Asker,
    count: u64,
    /// The latest sagas that it started.
    recent: Vec<(String, &'static str)>,
}

impl<'w> Client<'w> {
    pub(crate) fn new(world: &'w World<'w>, name: &str, seed: u64) -> Self {
        let random = Random::new(seed);
        let asker = Asker::new();
        Self { world, name: name.to_owned(), random, asker, count: 0, recent: Vec::new() }
    }

    pub(crate) fn run(mut self) {
        while !self.world.is_over.load(Ordering::Relaxed) {
            self.count += 1;
            match self.random.below(100) {
                0..45 => self.start(),
                45..52 => self.start_many(),
                52..65 => self.start_with_key(),
                65..85 => self.order(),
                _ => self.signal(),
            }
            std::thread::sleep(Duration::from_millis(10 + self.random.below(50)));
        }
    }

    fn remember(&mut self, id: &str, name: &str, definition: &'static str) {
        self.world.is_started(id, name);
        self.recent.push((id.to_owned(), definition));
        if self.recent.len() > 20 {
            self.recent.remove(0);
        }
    }

    fn start(&mut self) {
        let name = format!("{}-{}", self.name, self.count);
        let definition = *self.random.pick(&DEFINITIONS);
        let input = given(&name, self.world.age(), &mut self.random);
        let body = json!({"definition": definition, "input": input});
        let answer = self.asker.post(&self.world.path("/v1/sagas"), None, &body);
        if let Some((202, saga)) = answer
            && let Some(id) = saga["id"].as_str()
        {
            self.remember(id, &name, definition);
        }
    }

    fn start_many(&mut self) {
        let names: Vec<_> =
            (0..5).map(|line| format!("{}-{}-{line}", self.name, self.count)).collect();
        let (mut body, mut definitions) = (String::new(), Vec::new());
        for name in &names {
            let definition = *self.random.pick(&DEFINITIONS);
            let input = given(name, self.world.age(), &mut self.random);
            body += &json!({"definition": definition, "input": input, "key": name}).to_string();
            body.push('\n');
            definitions.push(definition);
        }
        let answers = self.asker.post_lines(&self.world.path("/v1/sagas:batch"), &body);
        for ((answer, name), definition) in answers.iter().zip(&names).zip(definitions) {
            if let Some(id) = answer["id"].as_str() {
                self.remember(id, name, definition);
            }
        }
    }

    /// A key that others use as well, and maybe used before a kill.
    fn start_with_key(&mut self) {
        let number = self.random.below(KEYS);
        let key = format!("key-{number}");
        // Whoever uses the key says the same.
        let mut of_key = Random::new(number);
        let definition = *of_key.pick(&DEFINITIONS);
        let mut body = json!({"definition": definition, "input": given(&key, 0, &mut of_key)});
        let known = self.world.acks.lock().unwrap().keys.get(&key).cloned();
        let is_other = known.is_some() && self.random.percent(20);
        if is_other {
            body["input"]["other"] = json!(true);
        }
        let answer = self.asker.post(&self.world.path("/v1/sagas"), Some(&key), &body);
        let Some((status @ (200 | 202), saga)) = answer else { return };
        let Some(id) = saga["id"].as_str() else { return };
        {
            let mut acks = self.world.acks.lock().unwrap();
            let other = acks.keys.entry(key.clone()).or_insert_with(|| id.to_owned()).clone();
            if is_other {
                let offence = format!("{key} was taken with another payload: {status} {saga}");
                acks.offences.push(offence);
            } else if other != id {
                acks.offences.push(format!("{key} started {other} and then {id}"));
            } else if known.is_some() && status == 202 {
                acks.offences.push(format!("{key} started {id} anew"));
            }
        }
        self.remember(id, &key, definition);
    }

    fn order(&mut self) {
        if self.recent.is_empty() {
            return;
        }
        let (id, definition) = self.random.pick(&self.recent).clone();
        let verb = *self.random.pick(&[
            "cancel",
            "cancel",
            "compensate",
            "pause",
            "pause",
            "resume",
            "resume",
            "retry",
            "skip",
            "skip",
            "resolve",
            "resolve",
            "abandon",
        ]);
        match verb {
            // What becomes of a step that has an effect is not for a passer-by to say.
            "skip" | "resolve" if !["gate", "late"].contains(&definition) => return,
            "abandon" if !self.random.percent(20) => return,
            _ => (),
        }
        let reason = format!("{} order {}", self.name, self.count);
        send(self.world, &self.asker, &id, verb, approval(verb), reason);
    }

    fn signal(&mut self) {
        if self.recent.is_empty() {
            return;
        }
        let (id, _) = self.random.pick(&self.recent).clone();
        let signal = format!("{}-{}", self.name, self.count);
        let url = self.world.path(&format!("/v1/sagas/{id}/signals/approved"));
        let answer = self.asker.post(&url, None, &json!({"id": signal, "payload": true}));
        if matches!(answer, Some((202, _))) {
            self.world.acks.lock().unwrap().signals.push((id, signal));
        }
    }
}

/// What a saga of any definition is given.
fn given(name: &str, age: u64, random: &mut Random) -> Value {
    let mut input = input(name, random);
    input["appends"] = appends(age, random).into();
    input
}

/// Sends an order, and keeps that it was acknowledged.
fn send(world: &World<'_>, asker: &Asker, id: &str, verb: &str, mut body: Value, reason: String) {
    body["reason"] = reason.clone().into();
    let answer = asker.post(&world.path(&format!("/v1/sagas/{id}/{verb}")), None, &body);
    if matches!(answer, Some((200, _))) {
        let order = OrderAck { saga: id.to_owned(), verb: verb.to_owned(), reason };
        world.acks.lock().unwrap().orders.push(order);
    }
}

/// Sends an order about a saga that waits for its approval.
pub(crate) fn order_approval(world: &World<'_>, id: &str, verb: &str, reason: String) {
    send(world, &Asker::new(), id, verb, approval(verb), reason);
}

/// What is said of the approval with this verb.
fn approval(verb: &str) -> Value {
    match verb {
        "skip" => json!({"step": "approval"}),
        "resolve" => json!({"step": "approval", "output": {"by": "phone"}, "evidence": "a call"}),
        _ => json!({}),
    }
}

/// The operator on call: sees to every saga that is blocked or paused.
pub(crate) struct Operator<'w> {
    world: &'w World<'w>,
    service: &'w Service,
    random: Random,
    asker: Asker,
    count: u64,
}

impl<'w> Operator<'w> {
    pub(crate) fn new(world: &'w World<'w>, service: &'w Service, seed: u64) -> Self {
        let (random, asker) = (Random::new(seed), Asker::new());
        Self { world, service, random, asker, count: 0 }
    }

    pub(crate) fn run(mut self) {
        while !self.world.is_over.load(Ordering::Relaxed) {
            self.tend();
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Goes once through all that need somebody.
    pub(crate) fn tend(&mut self) {
        let url = self.world.path("/v1/sagas?status=blocked,paused&limit=200");
        let Some((200, page)) = self.asker.get(&url) else { return };
        for saga in page["items"].as_array().into_iter().flatten() {
            let Some(id) = saga["id"].as_str() else { continue };
            if saga["status"] == "paused" {
                self.order(id, "resume", json!({}));
            } else if let Some((200, saga)) =
                self.asker.get(&self.world.path(&format!("/v1/sagas/{id}")))
            {
                self.unblock(id, &saga["reason"]);
            }
        }
    }

    fn unblock(&mut self, id: &str, reason: &Value) {
        let reason = reason.as_str().unwrap_or_default();
        let undone =
            reason.strip_prefix("the undo of ").and_then(|rest| rest.split_once(" failed"));
        if let Some((step, why)) = undone {
            match self.random.below(10) {
                // A child that was given up is not undone by trying again.
                _ if why.contains("child_") => self.order(id, "skip", json!({"step": step})),
                0 => self.order(id, "skip", json!({"step": step})),
                1 | 2 => {
                    self.service.cancel_by_hand(&format!("{id}/{step}"));
                    let body = json!({"step": step, "happened": true, "evidence": "a phone call"});
                    self.order(id, "resolve", body);
                }
                _ => self.order(id, "retry", json!({"step": step})),
            }
        } else {
            // Behind the pivot: the service refuses it for good.
            let verb = if self.random.percent(70) { "skip" } else { "retry" };
            self.order(id, verb, json!({}));
        }
    }

    fn order(&mut self, id: &str, verb: &str, body: Value) {
        self.count += 1;
        let reason = format!("operator's order {}", self.count);
        send(self.world, &self.asker, id, verb, body, reason);
    }
}

/// Has clients, an operator and a reader of the log use the hosts while `faults` runs. Then waits until every saga has
/// ended, without trouble of the service. Returns the panic of a fault.
pub(crate) fn under_load(
    (world, service): (&World<'_>, &Service),
    seed: u64,
    clients: u64,
    faults: impl FnOnce(),
) -> std::thread::Result<()> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients)
            .map(|number| Client::new(world, &format!("client{number}"), seed + 10 + number))
            .map(|client| scope.spawn(|| client.run()))
            .collect();
        let operator = Operator::new(world, service, seed + 2);
        let operator = scope.spawn(|| operator.run());
        let reader = scope.spawn(|| read_log(world));
        // Also when a fault panics: otherwise the scope waits for ever.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            faults();
            world.is_over.store(true, Ordering::Relaxed);
            for thread in clients {
                thread.join().unwrap();
            }
            operator.join().unwrap();
            service.calm();
            settle(world, Operator::new(world, service, seed + 3));
        }));
        world.is_over.store(true, Ordering::Relaxed);
        // What the reader has not read by then, it reads.
        std::thread::sleep(Duration::from_secs(1));
        world.is_read.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        result
    })
}

/// Waits until every saga has ended, with an operator who sees to those that need one. The judge tells of those that
/// have not ended in time.
fn settle(world: &World<'_>, mut operator: Operator<'_>) {
    let asker = Asker::new();
    let started = u32::try_from(world.acks.lock().unwrap().starts.len()).unwrap();
    let (began, time) = (Instant::now(), SETTLED_IN + started * SETTLED_IN_EACH);
    loop {
        operator.tend();
        let unsettled = "/v1/sagas?status=running,waiting,compensating,paused,blocked&limit=5";
        let Some((200, page)) = asker.get(&world.path(unsettled)) else {
            assert!(began.elapsed() < time, "no host lists the sagas");
            continue;
        };
        let items = page["items"].as_array().unwrap();
        if items.is_empty() {
            return;
        }
        if began.elapsed() > time {
            for item in items {
                let id = item["id"].as_str().unwrap();
                println!("{id}: {:?}", asker.get(&world.path(&format!("/v1/sagas/{id}/why"))));
            }
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Reads the log from the first event on, over every kill.
pub(crate) fn read_log(world: &World<'_>) {
    let asker = Asker::new();
    let (mut last, mut is_behind) = (0, false);
    while !world.is_read.load(Ordering::Relaxed) {
        if !std::mem::take(&mut is_behind) {
            std::thread::sleep(Duration::from_millis(100));
        }
        if world.is_unread.load(Ordering::Relaxed) {
            continue;
        }
        let url = world.path(&format!("/v1/events?after={last}&limit={PAGE}"));
        let answer = asker.get(&url);
        let mut acks = world.acks.lock().unwrap();
        let page = match answer {
            Some((200, page)) => page,
            Some((409, problem)) => {
                acks.offences.push(format!("a reader after {last} was refused: {problem}"));
                continue;
            }
            _ => continue,
        };
        let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
        is_behind = items.len() == PAGE;
        for event in items {
            let position = event["position"].as_u64().unwrap();
            if position != last + 1 {
                acks.offences.push(format!("a reader got position {position} after {last}"));
            }
            last = position;
            acks.read.push((position, Event::new(event).identity()));
        }
    }
}
