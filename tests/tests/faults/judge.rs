//! Compares what was acknowledged, what the log says, what the service's ledger says and what the
//! plugins keep. Knows nothing of the faults.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use amends_tests::{ListCall, Operation, anomalies};
use serde_json::Value;

use crate::books::Books;
use crate::definitions::{SHIPPED, STOCK};
use crate::event::Event;
use crate::load::Acks;
use crate::service::{Entry, Ledger};

/// Offences that are told of, and sagas whose story is.
const TOLD_MAX: usize = 20;
const STORIES_MAX: usize = 3;

/// All that is known when everything is over.
#[derive(Clone)]
pub(crate) struct Record {
    /// The whole log, in order.
    pub(crate) events: Vec<Event>,
    pub(crate) acks: Acks,
    pub(crate) ledger: Ledger,
    pub(crate) books: Books,
}

/// What is wrong, and the saga that it is about.
#[derive(Debug, Clone)]
pub(crate) struct Offence {
    pub(crate) saga: Option<String>,
    pub(crate) what: String,
}

/// How a saga ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    None,
    Completed,
    Compensated,
    Abandoned,
}

/// A saga as the log has it.
struct Saga<'r> {
    id: &'r str,
    /// The name that it was given.
    name: String,
    parent: Option<String>,
    end: End,
    events: Vec<&'r Event>,
}

impl Saga<'_> {
    fn has(&self, kind: &str, step: &str) -> bool {
        self.events.iter().any(|event| event.is_of_step(kind, step))
    }

    fn offence(&self, mut what: String) -> Offence {
        what.insert_str(0, &format!("{} ({}) ", self.id, self.name));
        Offence { saga: Some(self.id.to_owned()), what }
    }
}

/// Everything that is wrong.
pub(crate) fn judge(record: &Record) -> Vec<Offence> {
    let sagas = sagas(&record.events);
    let mut wrong = Vec::new();
    let general = |what: &String| Offence { saga: None, what: what.clone() };
    wrong.extend(record.acks.offences.iter().map(general));
    wrong.extend(record.books.verified.iter().map(|what| general(&format!("verify: {what}"))));
    positions(record, &mut wrong);
    starts(record, &sagas, &mut wrong);
    orders(record, &sagas, &mut wrong);
    signals(&sagas, &mut wrong);
    for saga in sagas.values().filter(|saga| saga.end == End::None) {
        wrong.push(saga.offence("has not ended".to_owned()));
    }
    children(&sagas, &mut wrong);
    effects(record, &sagas, &mut wrong);
    stock(record, &sagas, &mut wrong);
    lists(record, &mut wrong);
    wrong
}

/// How many sagas ended in each way: completed, compensated, abandoned.
pub(crate) fn ends(record: &Record) -> [usize; 3] {
    let sagas = sagas(&record.events);
    [End::Completed, End::Compensated, End::Abandoned]
        .map(|end| sagas.values().filter(|saga| saga.end == end).count())
}

fn sagas(events: &[Event]) -> BTreeMap<&str, Saga<'_>> {
    let mut sagas = BTreeMap::new();
    for event in events {
        let Some(id) = event.saga.as_deref() else { continue };
        let saga = sagas.entry(id).or_insert_with(|| {
            let data = event.data();
            let name = data["input"]["n"].as_str().unwrap_or_default().to_owned();
            let parent = data["parent"]["saga"].as_str().map(str::to_owned);
            Saga { id, name, parent, end: End::None, events: Vec::new() }
        });
        saga.events.push(event);
        match &*event.kind {
            "saga.completed" => saga.end = End::Completed,
            "saga.compensated" => saga.end = End::Compensated,
            "saga.abandoned" | "operator.abandoned" => saga.end = End::Abandoned,
            "compensation.started" | "operator.compensated" => saga.end = End::None,
            _ => (),
        }
    }
    sagas
}

/// Positions have no gap, and a reader was given what the log has.
fn positions(record: &Record, wrong: &mut Vec<Offence>) {
    let mut general = |what| wrong.push(Offence { saga: None, what });
    let mut at = BTreeMap::new();
    for (position, event) in (1..).zip(&record.events) {
        if event.position != position {
            general(format!("the log has {} in place {position}", event.position));
        }
        at.insert(event.position, event);
    }
    for (position, identity) in &record.acks.read {
        let found = at.get(position).map(|event| event.identity());
        if found.as_ref() != Some(identity) {
            general(format!("a reader was given {position} {identity}, the log has {found:?}"));
        }
    }
}

/// Each start that was acknowledged is there, and none is there twice.
fn starts(record: &Record, sagas: &BTreeMap<&str, Saga<'_>>, wrong: &mut Vec<Offence>) {
    for (id, name) in &record.acks.starts {
        if sagas.get(id.as_str()).is_none_or(|saga| saga.name != *name) {
            let what = format!("{id} ({name}) was acknowledged and is lost");
            wrong.push(Offence { saga: Some(id.clone()), what });
        }
    }
    let mut names = BTreeMap::new();
    for saga in sagas.values() {
        // A step that is tried again runs another saga, which is given the same.
        if saga.parent.is_none()
            && let Some(other) = names.insert(saga.name.as_str(), saga.id)
        {
            wrong.push(saga.offence(format!("was started twice, the other is {other}")));
        }
        for (version, event) in (1..).zip(&saga.events) {
            if event.version != version {
                wrong.push(saga.offence(format!("has no version {version}")));
                break;
            }
        }
    }
}

/// Each order and each signal that was acknowledged is in the log, or what it wants was so already.
fn orders(record: &Record, sagas: &BTreeMap<&str, Saga<'_>>, wrong: &mut Vec<Offence>) {
    for order in &record.acks.orders {
        let Some(saga) = sagas.get(order.saga.as_str()) else { continue };
        let any = |kinds: &[&str]| saga.events.iter().any(|event| kinds.contains(&&*event.kind));
        let is_so = match order.verb.as_str() {
            "cancel" | "compensate" => {
                any(&["compensation.started", "operator.cancelled", "operator.compensated"])
            }
            "pause" => any(&["operator.paused"]),
            // A saga of which an undo was skipped is abandoned too, and to abandon it again does nothing.
            "abandon" => any(&["operator.abandoned", "saga.abandoned"]),
            _ => false,
        };
        let mut data = saga.events.iter().map(|event| event.data());
        if !is_so && !data.any(|data| data["reason"] == order.reason.as_str()) {
            let (verb, reason) = (&order.verb, &order.reason);
            wrong.push(saga.offence(format!("has no {verb} `{reason}`, which was acknowledged")));
        }
    }
    for (id, signal) in &record.acks.signals {
        let Some(saga) = sagas.get(id.as_str()) else { continue };
        let mut received = saga.events.iter().filter(|event| &*event.kind == "signal.received");
        if !received.any(|event| event.data()["id"] == signal.as_str()) {
            wrong.push(saga.offence(format!("has no signal {signal}, which was acknowledged")));
        }
    }
}

/// No signal is there twice, however often it was sent.
fn signals(sagas: &BTreeMap<&str, Saga<'_>>, wrong: &mut Vec<Offence>) {
    for saga in sagas.values() {
        let mut ids = BTreeSet::new();
        for event in saga.events.iter().filter(|event| &*event.kind == "signal.received") {
            let id = event.data()["id"].as_str().unwrap_or_default().to_owned();
            if ids.contains(&id) {
                wrong.push(saga.offence(format!("has the signal {id} twice")));
            }
            ids.insert(id);
        }
    }
}

/// What a saga that came undone had started did so as well. Where an operator skips an undo, the
/// saga is abandoned and not compensated.
fn children(sagas: &BTreeMap<&str, Saga<'_>>, wrong: &mut Vec<Offence>) {
    for saga in sagas.values().filter(|saga| [End::Completed, End::Abandoned].contains(&saga.end)) {
        let Some(parent) = saga.parent.as_deref().and_then(|parent| sagas.get(parent)) else {
            continue;
        };
        if parent.end == End::Compensated {
            let what = format!("is {:?}, its parent {} compensated", saga.end, parent.id);
            wrong.push(saga.offence(what));
        }
    }
}

/// The ledger has of each saga what its end says, done once and undone in reverse.
fn effects(record: &Record, sagas: &BTreeMap<&str, Saga<'_>>, wrong: &mut Vec<Offence>) {
    let mut by_order: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    let mut keys: BTreeMap<&str, &str> = BTreeMap::new();
    for (reference, entry) in &record.ledger {
        by_order.entry(entry.order.as_deref().unwrap_or_default()).or_default().push(entry);
        for (_, key) in entry.issues.iter().chain(&entry.cancels) {
            if keys.insert(key, reference).is_some_and(|other| other != reference) {
                let what = format!("key {key} came for {reference} and for another");
                wrong.push(Offence { saga: None, what });
            }
        }
    }
    let mut known = BTreeSet::new();
    for saga in sagas.values() {
        let mut undone = Vec::new();
        for step in SHIPPED {
            let order = format!("{}/{step}", saga.id);
            let entries = by_order.get_key_value(order.as_str());
            if let Some((order, _)) = entries {
                known.insert(*order);
            }
            let entries = entries.map_or(&[][..], |(_, entries)| &entries[..]);
            if entries.len() > 1 {
                wrong.push(saga.offence(format!("has {} references for {step}", entries.len())));
            }
            let entry = entries.first().copied();
            of_step(saga, step, entry, wrong);
            undone.extend(entry.filter(|entry| entry.issued.is_some()).and_then(|it| it.cancelled));
        }
        if !undone.iter().rev().is_sorted() {
            wrong.push(saga.offence(format!("was not undone in reverse: {undone:?}")));
        }
    }
    for order in by_order.keys().filter(|order| !order.is_empty() && !known.contains(*order)) {
        wrong.push(Offence { saga: None, what: format!("{order} was asked for by no saga") });
    }
}

fn of_step(saga: &Saga<'_>, step: &str, entry: Option<&Entry>, wrong: &mut Vec<Offence>) {
    let mut offence = |what: String| wrong.push(saga.offence(format!("{step}: {what}: {entry:?}")));
    let stands = entry.is_some_and(Entry::stands);
    let happened = saga.has("step.succeeded", step);
    match saga.end {
        End::Completed if happened && !stands => offence("its effect is missing".to_owned()),
        End::Completed if !happened && stands => offence("its effect is left over".to_owned()),
        End::Compensated if stands => offence("its effect is left standing".to_owned()),
        End::Completed | End::Compensated | End::Abandoned | End::None => (),
    }
    let Some(entry) = entry else { return };
    let keys: BTreeSet<_> = entry.issues.iter().map(|(_, key)| key).collect();
    if keys.len() > 1 {
        offence(format!("it was asked for with {} keys", keys.len()));
    }
    for (came, kind) in [(&entry.issues, "step.started"), (&entry.cancels, "undo.started")] {
        let attempts = saga.events.iter().filter(|event| event.is_of_step(kind, step));
        // One request an attempt, and each attempt is in the log before it.
        let attempts = attempts.count();
        if attempts < came.len() {
            offence(format!("{} requests, and {attempts} {kind} in the log", came.len()));
        }
    }
}

/// The books of the plugin say what the sagas say.
fn stock(record: &Record, sagas: &BTreeMap<&str, Saga<'_>>, wrong: &mut Vec<Offence>) {
    let mut known = BTreeSet::new();
    for saga in sagas.values() {
        let mut events = saga.events.iter();
        let succeeded = events.find(|event| event.is_of_step("step.succeeded", "stock"));
        let Some(data) = succeeded.map(|event| event.data()) else { continue };
        let Some(number) = data["output"]["reservation_id"].as_str() else { continue };
        known.insert(number.to_owned());
        let is_kept = record.books.reservations.contains(number);
        match saga.end {
            End::Completed if !is_kept => wrong.push(saga.offence(format!("lost {number}"))),
            End::Compensated if is_kept => {
                wrong.push(saga.offence(format!("left {number} reserved")));
            }
            End::Completed | End::Compensated | End::Abandoned | End::None => (),
        }
    }
    let mut general = |what| wrong.push(Offence { saga: None, what });
    for number in record.books.reservations.iter().filter(|number| !known.contains(*number)) {
        general(format!("{number} is reserved by no saga"));
    }
    let (left, reserved) = (record.books.stock, record.books.reservations.len() as u64);
    if left + reserved != STOCK {
        general(format!("{left} pieces are left and {reserved} reserved, of {STOCK}"));
    }
}

/// The lists that steps have appended to are those of some order of these steps.
fn lists(record: &Record, wrong: &mut Vec<Offence>) {
    let anomalies = anomalies(&list_calls(&record.events), &record.books.lists);
    wrong.extend(anomalies.into_iter().map(|what| Offence { saga: None, what }));
}

/// The calls of the plugin that appends, as far as their success is in the log.
pub(crate) fn list_calls(events: &[Event]) -> Vec<ListCall> {
    let succeeded = events.iter().filter(|event| &*event.kind == "step.succeeded");
    let of_plugin = succeeded
        .filter(|event| event.step.as_deref().is_some_and(|step| step.starts_with("append[")));
    of_plugin
        .map(|event| {
            let output = event.data()["output"].take();
            let texts =
                |list: &Value| -> Vec<String> { serde_json::from_value(list.clone()).unwrap() };
            let operations = output["operations"].as_array().unwrap().iter().map(|operation| {
                let text = operation[0].as_str().unwrap();
                let appends = text.starts_with('+');
                Operation { list: text[1..].to_owned(), appends, seen: texts(&operation[1]) }
            });
            let operations = operations.collect();
            ListCall { key: output["key"].as_str().unwrap().to_owned(), operations }
        })
        .collect()
}

/// What is wrong, and what is known of some sagas that it is about.
pub(crate) fn told(record: &Record, wrong: &[Offence]) -> String {
    let mut told = String::new();
    for offence in wrong.iter().take(TOLD_MAX) {
        writeln!(told, "{}", offence.what).unwrap();
    }
    let sagas: BTreeSet<_> = wrong.iter().filter_map(|offence| offence.saga.as_deref()).collect();
    for saga in sagas.into_iter().take(STORIES_MAX) {
        writeln!(told, "story of {saga}:\n{}", story(record, saga)).unwrap();
    }
    told
}

/// What is known of a saga.
fn story(record: &Record, saga: &str) -> String {
    let mut story = Vec::new();
    let events = record.events.iter().filter(|event| event.saga.as_deref() == Some(saga));
    story.extend(events.map(|event| format!("  {}", event.told())));
    let orders = record.ledger.iter().filter(|(_, entry)| {
        entry.order.as_deref().is_some_and(|order| order.split('/').next() == Some(saga))
    });
    story.extend(orders.map(|(reference, entry)| format!("  ledger {reference} {entry:?}")));
    let acks = record.acks.orders.iter().filter(|order| order.saga == saga);
    story.extend(acks.map(|order| format!("  acknowledged {} `{}`", order.verb, order.reason)));
    story.join("\n")
}
