//! Faults: the real binary under a mixed load, with kills, power cuts, errors of its disk, a full
//! disk, stops, jumps of its clock, a second host that takes over and damaged sagas, judged by a
//! ledger outside it and by its own log.
//!
//! `AMENDS_FAULTS_SECONDS` says for how long (without, a short run), `AMENDS_FAULTS_SEED` with which
//! seed, `AMENDS_FAULTS_ONLY=kill,power` with which faults. A seed repeats which faults come, in which
//! order and with which numbers, and what each client wants; when the host gets to what, it does not.
//!
//! Deliberately absent: a disk that forgets what it said it had synced, and a service that breaks its
//! contract, such as one that does what it said it had refused.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod books;
mod definitions;
mod disk;
mod event;
mod fault;
mod judge;
mod load;
#[path = "../system/place.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod place;
mod random;
mod service;
mod stage;

use std::time::{Duration, Instant, SystemTime};

use amends_tests::say;

use self::books::Books;
use self::disk::Disk;
use self::event::Event;
use self::fault::Fault;
use self::judge::{Record, judge};
use self::load::{World, under_load};
use self::service::Service;
use self::stage::Stage;

/// Each fault comes two or three times in this.
const SECONDS: u64 = 30;

const CLIENTS: u64 = 3;

#[test]
fn nothing_acknowledged_is_lost_and_no_effect_is_doubled_missing_or_left_over() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = number("AMENDS_FAULTS_SEED").unwrap_or(u64::from(now.subsec_nanos()));
    let seconds = number("AMENDS_FAULTS_SECONDS").unwrap_or(SECONDS);
    let only = std::env::var("AMENDS_FAULTS_ONLY").unwrap_or_default();
    let faults = Fault::chosen(&only);
    let again = format!(
        "AMENDS_FAULTS_SEED={seed} AMENDS_FAULTS_SECONDS={seconds} AMENDS_FAULTS_ONLY={only} \
         tests/run --test faults -- --nocapture"
    );
    say(&format!("faults: seed {seed}; the same again: {again}"));

    let service = Service::start(seed);
    let place = definitions::place(&service);
    let disk = Disk::new(&place.path("data"), &place.path(""), seed);
    let world = World::new(|saga| disk.note(saga));
    let mut stage = Stage::new(place, &disk, &service, &world, seed);
    let began = Instant::now();
    let result = under_load((&world, &service), seed, CLIENTS, || {
        stage.run(&faults, began + Duration::from_secs(seconds));
    });
    if let Err(panic) = result {
        println!("again: {again}\n{}", stage.last_log());
        std::panic::resume_unwind(panic);
    }
    let record = record(&mut stage, &service, &world);
    summary(&record, &stage);
    let wrong = judge(&record);
    if !wrong.is_empty() {
        let told = judge::told(&record, &wrong);
        println!("{}", stage.last_log());
        let kept = stage.keep();
        panic!("{} offences; files in {}\nagain: {again}\n{told}", wrong.len(), kept.display());
    }
    what_is_wrong_is_found(&record);
    what_is_wrong_with_lists_is_found(&record);
    stage.damage_is_found();
}

/// Reads all that there is to know, the last of it from the store when the host has stopped.
fn record(stage: &mut Stage<'_>, service: &Service, world: &World<'_>) -> Record {
    let events = stage.events();
    stage.stop();
    let acks = world.acks.lock().unwrap().clone();
    let books = stage.with_store(Books::read);
    Record { events, acks, ledger: service.ledger(), books }
}

fn summary(record: &Record, stage: &Stage<'_>) {
    let acks = &record.acks;
    let [completed, compensated, abandoned] = judge::ends(record);
    let requests: usize =
        record.ledger.values().map(|entry| entry.issues.len() + entry.cancels.len()).sum();
    say(&format!(
        "faults: {} starts, {} orders and {} signals acknowledged; {completed} sagas completed, \
         {compensated} compensated, {abandoned} abandoned; {} events, {} of them read; {requests} \
         requests of the service\n{}",
        acks.starts.len(),
        acks.orders.len(),
        acks.signals.len(),
        record.events.len(),
        acks.read.len(),
        stage.told(),
    ));
    assert!(acks.starts.len() > 20 && completed > 5 && compensated > 5, "hardly anything ran");
}

/// Spoils a record, of which the judge has to tell this.
fn spoiled(record: &Record, what: &str, spoil: &dyn Fn(&mut Record)) {
    let mut record = record.clone();
    spoil(&mut record);
    let wrong = judge(&record);
    let found = wrong.iter().find(|wrong| wrong.what.contains(what));
    let found = found.unwrap_or_else(|| panic!("not found: {what}: {wrong:?}"));
    println!("spoiled: {:.150}", found.what);
}

/// The judge finds what it looks for: each of these is told of.
fn what_is_wrong_is_found(record: &Record) {
    let spoiled = |what: &str, spoil: &dyn Fn(&mut Record)| spoiled(record, what, spoil);
    let index_of = |record: &Record, kind: &str| {
        record.events.iter().position(|event| &*event.kind == kind).unwrap()
    };
    // A completed saga that stays so, with an effect that stands.
    let standing = |record: &Record| {
        let mut events = record.events.iter().filter(|event| &*event.kind == "saga.completed");
        events
            .find_map(|event| {
                let of_saga = |other: &&Event| other.saga == event.saga;
                let last = record.events.iter().rev().find(of_saga)?;
                let order = format!("{}/ship-a", event.saga.as_deref()?);
                let mut entries = record.ledger.iter();
                let (reference, _) =
                    entries.find(|(_, it)| it.order.as_ref() == Some(&order) && it.stands())?;
                (last.position == event.position).then(|| reference.clone())
            })
            .unwrap()
    };
    spoiled("acknowledged and is lost", &|record| {
        record.acks.starts.insert("0198c0de".to_owned(), "nobody".to_owned());
    });
    spoiled("was started twice", &|record| {
        let first = index_of(record, "saga.started");
        let mut event = record.events[first].clone();
        event.saga = Some("0198c0de".into());
        record.events.push(event);
    });
    spoiled("the log has", &|record| {
        record.events.remove(record.events.len() / 2);
    });
    spoiled("a reader was given", &|record| record.acks.read[0].1.push('?'));
    // Not one of them: it may have asked for what was so already.
    spoiled("which was acknowledged", &|record| {
        record.acks.orders.iter_mut().for_each(|order| order.reason.push('?'));
    });
    spoiled("has no signal", &|record| record.acks.signals[0].1.push('?'));
    spoiled("has not ended", &|record| {
        // Of a saga that nobody has undone afterwards.
        let is_last = |index: usize| {
            let later = &record.events[index + 1..];
            later.iter().all(|event| event.saga != record.events[index].saga)
        };
        let is_end = |index: &usize| &*record.events[*index].kind == "saga.completed";
        let index = (0..record.events.len()).filter(is_end).find(|index| is_last(*index)).unwrap();
        record.events[index].kind = "other".into();
    });
    spoiled("its effect is missing", &|record| {
        let reference = standing(record);
        record.ledger.get_mut(&reference).unwrap().issued = None;
    });
    spoiled("its effect is left standing", &|record| {
        let entries = record.ledger.values_mut();
        for entry in entries.filter(|entry| entry.issued.is_some()) {
            entry.cancelled = None;
        }
    });
    spoiled("was not undone in reverse", &|record| {
        let last = u64::MAX;
        let entries = record.ledger.values_mut();
        for entry in entries.filter(|entry| entry.cancelled.is_some()) {
            let is_late = entry.order.as_deref().is_some_and(|order| order.ends_with("ship-b"));
            entry.cancelled = is_late.then_some(last).or(entry.cancelled);
        }
    });
    spoiled("it was asked for with 2 keys", &|record| {
        let reference = standing(record);
        let entry = record.ledger.get_mut(&reference).unwrap();
        entry.issues.push((u64::MAX, "another".to_owned()));
    });
    spoiled("step.started in the log", &|record| {
        let reference = standing(record);
        let entry = record.ledger.get_mut(&reference).unwrap();
        for _ in 0..10 {
            entry.issues.push(entry.issues[0].clone());
        }
    });
    spoiled("was asked for by no saga", &|record| {
        let reference = standing(record);
        record.ledger.get_mut(&reference).unwrap().order = Some("nobody/ship-a".to_owned());
    });
    spoiled("is reserved by no saga", &|record| {
        record.books.reservations.insert("RSV".to_owned());
    });
    spoiled("pieces are left", &|record| record.books.stock += 1);
    spoiled("lost RSV", &|record| record.books.reservations.clear());
}

/// The longest list to which calls have appended.
fn longest(record: &mut Record) -> &mut Vec<String> {
    let list = record.books.lists.values_mut().max_by_key(|list| list.len()).unwrap();
    assert!(list.len() > 1, "hardly anything was appended");
    list
}

/// Those of lists to which calls append.
fn what_is_wrong_with_lists_is_found(record: &Record) {
    let spoiled = |what: &str, spoil: &dyn Fn(&mut Record)| spoiled(record, what, spoil);
    spoiled("is lost from", &|record| drop(longest(record).pop()));
    spoiled("times", &|record| {
        let list = longest(record);
        list.push(list[0].clone());
    });
    spoiled("is no prefix of", &|record| longest(record).swap(0, 1));
}
