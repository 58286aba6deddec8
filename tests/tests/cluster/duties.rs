//! What one host does for all: schedules and subscriptions go on when it is killed.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::ALONE;
use crate::disk::Disk;
use crate::hosts::{Node, until_shared};
use crate::place::{Place, get};
use crate::receiver::Receiver;
use crate::server::Server;

/// How long it may take until another host does what a killed one did.
const TAKEN_OVER_IN: Duration = Duration::from_secs(20);

/// So many milliseconds before a minute the host is killed that starts its scheduled saga: nobody has its duties at
/// the time.
const BEFORE_THE_MINUTE_MS: i64 = 2_000;

const SAGAS: &str = "
[[saga]]
name = \"wait\"
[[saga.step]]
name = \"nap\"
sleep = \"10ms\"
[[schedule]]
name = \"minutely\"
definition = \"wait\"
cron = \"* * * * *\"
";

fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < TAKEN_OVER_IN, "not within {TAKEN_OVER_IN:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The scheduled sagas: the times at which they were due.
fn scheduled(node: &Node) -> Vec<String> {
    let page = get(&node.url("/v1/sagas?tag=schedule:minutely"));
    let due = |saga: &Value| saga["tags"]["scheduled_at"].as_str().unwrap().to_owned();
    page["items"].as_array().unwrap().iter().map(due).collect()
}

#[test]
fn schedules_and_subscriptions_go_on_when_their_host_is_killed() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(server) = Server::start() else { return };
    let receiver = Receiver::start();
    let sagas = format!(
        "{SAGAS}[[subscription]]\nname = \"all\"\nurl = \"{}\"\nsecrets = [{{ env = \"SECRET\" }}]\n",
        receiver.url
    );
    let mut nodes =
        ["node-a", "node-b"].map(|name| Node::new(name, Place::empty(), &server, &sagas));
    // The hosts have a clock that the test sets.
    let beside = tempfile::tempdir().unwrap();
    let disk = Disk::new(&beside.path().join("data"), beside.path(), 0);
    let mut environment = disk.environment();
    environment.push(("SECRET", "whsec_bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3".to_owned()));
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for node in &mut nodes {
        node.start_with(&environment);
    }
    until_shared(&[&nodes[0], &nodes[1]]);
    let leads = |node: &Node| node.shards_of(&node.name).contains(&0);
    let (leader, other) = if leads(&nodes[0]) { (0, 1) } else { (1, 0) };

    let is_delivered = |id: &str| {
        let events = get(&nodes[other].url(&format!("/v1/sagas/{id}/events")));
        let count = events["items"].as_array().unwrap().len() as u64;
        let mut versions = receiver.versions_of(id);
        versions.dedup();
        versions == (1..=count).collect::<Vec<_>>()
    };
    let start = |node: &Node| node.start_saga(&json!({"definition": "wait"}));
    let ended = |id: &str| get(&nodes[other].url(&format!("/v1/sagas/{id}?wait=20s")));
    for node in &nodes {
        let id = start(node);
        assert_eq!(ended(&id)["status"], "completed");
        until("events are delivered", || is_delivered(&id));
    }

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let into_the_minute = i64::try_from(now.as_millis() % 60_000).unwrap();
    disk.set_clock(60_000 - BEFORE_THE_MINUTE_MS - into_the_minute);
    let before = scheduled(&nodes[other]);
    let id = start(&nodes[other]);
    let killed = Instant::now();
    let [one, two] = &mut nodes;
    let (leader, other) = if leader == 0 { (one, two) } else { (two, one) };
    leader.kill();
    let other = &*other;
    until("the schedule starts the saga of the minute", || scheduled(other).len() > before.len());
    println!("the scheduled saga started {:?} after the kill", killed.elapsed());
    let later = other.start_saga(&json!({"definition": "wait"}));
    for id in [&id, &later] {
        let ended = get(&other.url(&format!("/v1/sagas/{id}?wait=20s")));
        assert_eq!(ended["status"], "completed", "{ended}");
    }
    let is_delivered = |id: &str| {
        let events = get(&other.url(&format!("/v1/sagas/{id}/events")));
        let count = events["items"].as_array().unwrap().len() as u64;
        let versions: std::collections::BTreeSet<_> =
            receiver.versions_of(id).into_iter().collect();
        versions == (1..=count).collect()
    };
    until("events are delivered by the other host", || is_delivered(&id) && is_delivered(&later));

    // The other way, without a kill: what it did goes on at once.
    leader.start_with(&environment);
    until_shared(&[leader, other]);
    let mut times = scheduled(other);
    times.sort();
    times.dedup();
    assert_eq!(times.len(), scheduled(other).len(), "a time has started two sagas");
    let told = |node: &Node| get(&node.url("/v1/schedules"))["items"][0]["last_saga"].clone();
    assert_eq!(told(leader), told(other));
}
