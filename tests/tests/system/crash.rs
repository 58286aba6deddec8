//! kill -9 and SIGTERM.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use crate::ledger;
use crate::place::{Place, example, stdout};

const KILLS: u32 = 10;

#[test]
fn killed_ten_times_nothing_accepted_is_lost_and_nothing_is_done_twice() {
    let place = Place::example();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut random = u64::try_from(now.as_nanos() % 1_000_000_007).unwrap();
    println!("seed {random}");
    let orders = example().join("orders.ndjson");
    let start =
        ["start", "order-fulfillment", "--input", orders.to_str().unwrap(), "--each", "--key", "k"];
    let (mut accepted, mut log) = (BTreeSet::new(), Vec::new());
    let mut in_flight = 0;
    for _ in 0..KILLS {
        let host = place.run();
        let client = place
            .command(&[&start[..], &["-o", "ids"]].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis(20 + (random >> 33) % 400));
        log.extend(host.kill());
        // Accepted means: an id was returned.
        let output = client.wait_with_output().unwrap();
        let before = accepted.len();
        accepted.extend(stdout(&output).lines().map(str::to_owned));
        in_flight += usize::from(accepted.len() > before);
    }
    assert!(in_flight > 0, "no kill came in the middle of the starts");
    let host = place.run();
    let output = place.amends(&[&start[..], &["--wait", "120s", "-o", "ids"]].concat());
    assert_eq!(output.status.code(), Some(0));
    let all: BTreeSet<_> = stdout(&output).lines().map(str::to_owned).collect();
    assert_eq!(all.len(), 1_000);
    assert!(accepted.is_subset(&all), "an accepted order is lost");
    host.settle();
    let events = host.events();
    let found = ledger::check(&events);
    assert_eq!(found.completed + found.compensated, 1_000, "an order was started twice");
    log.extend(host.log());
    ledger::check_effects(&events, &log);
    let cut_off =
        events.iter().filter(|event| event["data"]["error"]["code"] == "host_stopped").count();
    println!("{} accepted before the last start, {cut_off} calls cut off", accepted.len());
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn told_to_stop_it_settles_what_is_in_flight_and_goes_on_later() {
    let place = Place::example();
    let host = place.run();
    let orders = example().join("orders.ndjson");
    let start =
        ["start", "order-fulfillment", "--input", orders.to_str().unwrap(), "--each", "-o", "ids"];
    let client =
        place.command(&start).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    host.until("some are started", || host.events().len() > 300);
    assert_eq!(host.stop(), Some(0));
    let output = client.wait_with_output().unwrap();
    let accepted: Vec<_> = stdout(&output).lines().map(str::to_owned).collect();
    let host = place.run();
    host.settle();
    let events = host.events();
    let found = ledger::check(&events);
    assert!(found.completed + found.compensated >= accepted.len());
    // It waited for its calls: none was cut off.
    assert!(events.iter().all(|event| event["data"]["error"]["code"] != "host_stopped"));
    for id in &accepted {
        host.get(&format!("/v1/sagas/{id}"));
    }
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn told_to_stop_as_soon_as_it_is_ready_it_ends_well() {
    let place = Place::example();
    for _ in 0..10 {
        assert_eq!(place.run().stop(), Some(0));
    }
}

#[test]
fn two_hosts_on_one_sqlite_store_are_refused() {
    let place = Place::example();
    let host = place.run();
    let config = std::fs::read_to_string(place.path("amends.toml")).unwrap();
    let other = config.replace(&place.port.to_string(), "0");
    std::fs::write(place.path("amends.toml"), other).unwrap();
    let second = place.spawn();
    second.until("it is refused", || {
        second.log().join("\n").contains("is in use by another process")
    });
    assert_eq!(second.ended(), Some(1));
    assert_eq!(host.stop(), Some(0));
}
