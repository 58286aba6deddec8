//! Compares what was acknowledged, what the log says, what the service's ledger says and what the
//! plugins keep. Knows nothing of the faults.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;

use crate::books::Books;
use crate::definitions::{SHIPPED, STOCK};
use crate::load::{Acks, identity};
use crate::service::{Entry, Ledger};

/// Offences that are told of, and sagas whose story is.
const TOLD_MAX: usize = 20;
const STORIES_MAX: usize = 3;

/// All that is known when everything is over.
#[derive(Clone)]
pub(crate) struct Record {
    /// The whole log, in order.
    pub(crate) events: Vec<Value>,
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
    name: &'r str,
    parent: Option<&'r str>,
    end: End,
    events: Vec<&'r Value>,
}

impl Saga<'_> {
    fn has(&self, kind: &str, step: &str) -> bool {
        self.events.iter().any(|event| event["type"] == kind && event["data"]["step"] == step)
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
    for saga in sagas.values().filter(|saga| saga.end == End::None) {
        wrong.push(saga.offence("has not ended".to_owned()));
    }
    children(&sagas, &mut wrong);
    effects(record, &sagas, &mut wrong);
    stock(record, &sagas, &mut wrong);
    wrong
}

/// How many sagas ended in each way: completed, compensated, abandoned.
pub(crate) fn ends(record: &Record) -> [usize; 3] {
    let sagas = sagas(&record.events);
    [End::Completed, End::Compensated, End::Abandoned]
        .map(|end| sagas.values().filter(|saga| saga.end == end).count())
}

fn sagas(events: &[Value]) -> BTreeMap<&str, Saga<'_>> {
    let mut sagas = BTreeMap::new();
    for event in events {
        let Some(id) = event["saga"].as_str() else { continue };
        let saga = sagas.entry(id).or_insert_with(|| Saga {
            id,
            name: event["data"]["input"]["n"].as_str().unwrap_or_default(),
            parent: event["data"]["parent"]["saga"].as_str(),
            end: End::None,
            events: Vec::new(),
        });
        saga.events.push(event);
        match event["type"].as_str().unwrap_or_default() {
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
        if event["position"] != position {
            general(format!("the log has {} in place {position}", event["position"]));
        }
        at.insert(event["position"].as_u64().unwrap_or(0), identity(event));
    }
    for (position, identity) in &record.acks.read {
        if at.get(position) != Some(identity) {
            let found = at.get(position);
            general(format!("a reader was given {position} {identity}, the log has {found:?}"));
        }
    }
}

/// Each start that was acknowledged is there, and none is there twice.
fn starts(record: &Record, sagas: &BTreeMap<&str, Saga<'_>>, wrong: &mut Vec<Offence>) {
    for (id, name) in &record.acks.starts {
        if sagas.get(id.as_str()).is_none_or(|saga| saga.name != name) {
            let what = format!("{id} ({name}) was acknowledged and is lost");
            wrong.push(Offence { saga: Some(id.clone()), what });
        }
    }
    let mut names = BTreeMap::new();
    for saga in sagas.values() {
        // A step that is tried again runs another saga, which is given the same.
        if saga.parent.is_none()
            && let Some(other) = names.insert(saga.name, saga.id)
        {
            wrong.push(saga.offence(format!("was started twice, the other is {other}")));
        }
        for (version, event) in (1..).zip(&saga.events) {
            if event["version"] != version {
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
        let any = |kinds: &[&str]| {
            saga.events.iter().any(|event| kinds.iter().any(|kind| event["type"] == *kind))
        };
        let is_so = match order.verb.as_str() {
            "cancel" | "compensate" => {
                any(&["compensation.started", "operator.cancelled", "operator.compensated"])
            }
            "pause" => any(&["operator.paused"]),
            // A saga of which an undo was skipped is abandoned too, and to abandon it again does nothing.
            "abandon" => any(&["operator.abandoned", "saga.abandoned"]),
            _ => false,
        };
        let mut reasons = saga.events.iter().map(|event| &event["data"]["reason"]);
        if !is_so && !reasons.any(|reason| *reason == order.reason.as_str()) {
            let (verb, reason) = (&order.verb, &order.reason);
            wrong.push(saga.offence(format!("has no {verb} `{reason}`, which was acknowledged")));
        }
    }
    for (id, signal) in &record.acks.signals {
        let Some(saga) = sagas.get(id.as_str()) else { continue };
        if !saga.events.iter().any(|event| event["data"]["id"] == signal.as_str()) {
            wrong.push(saga.offence(format!("has no signal {signal}, which was acknowledged")));
        }
    }
}

/// What a saga that came undone had started did so as well. Where an operator skips an undo, the
/// saga is abandoned and not compensated.
fn children(sagas: &BTreeMap<&str, Saga<'_>>, wrong: &mut Vec<Offence>) {
    for saga in sagas.values().filter(|saga| [End::Completed, End::Abandoned].contains(&saga.end)) {
        let Some(parent) = saga.parent.and_then(|parent| sagas.get(parent)) else { continue };
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
        let attempts = saga.events.iter();
        let attempts =
            attempts.filter(|event| event["type"] == kind && event["data"]["step"] == step);
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
        let succeeded = saga
            .events
            .iter()
            .find(|event| event["type"] == "step.succeeded" && event["data"]["step"] == "stock");
        let Some(number) = succeeded.and_then(|it| it["data"]["output"]["reservation_id"].as_str())
        else {
            continue;
        };
        known.insert(number);
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
    for number in record.books.reservations.iter().filter(|number| !known.contains(number.as_str()))
    {
        general(format!("{number} is reserved by no saga"));
    }
    let (left, reserved) = (record.books.stock, record.books.reservations.len() as u64);
    if left + reserved != STOCK {
        general(format!("{left} pieces are left and {reserved} reserved, of {STOCK}"));
    }
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
    for event in record.events.iter().filter(|event| event["saga"] == saga) {
        story.push(format!(
            "  {} {} {} {}",
            event["position"], event["at"], event["type"], event["data"]
        ));
    }
    let orders = record.ledger.iter().filter(|(_, entry)| {
        entry.order.as_deref().is_some_and(|order| order.split('/').next() == Some(saga))
    });
    story.extend(orders.map(|(reference, entry)| format!("  ledger {reference} {entry:?}")));
    let acks = record.acks.orders.iter().filter(|order| order.saga == saga);
    story.extend(acks.map(|order| format!("  acknowledged {} `{}`", order.verb, order.reason)));
    story.join("\n")
}
