//! Hosts in network namespaces of their own, each with one cable to the database and one to the other hosts. A cut cable
//! is the hard case: packets vanish, and no connection ends.
//!
//! Who asks the hosts, and the service outside, always reach them.

use std::time::{Duration, Instant};

use amends_tests::{say, skipped};
use serde_json::{Value, json};

use crate::definitions::input;
use crate::hosts::{Networks, Node};
use crate::load::{Asker, World};
use crate::namespace::{Bridge, Namespace};
use crate::proxy::Network;
use crate::random::Random;
use crate::server::Server;
use crate::service::Service;
use crate::stage::Stage;
use crate::{ALONE, CLIENTS, judged, seed};

/// The hosts, by their numbers in each network.
const HOSTS: [u8; 3] = [1, 2, 3];

/// How long a host may take to say that it does not reach another one: it looks for the owner for 10 s, and waits for an
/// answer for 10 s.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(25);

/// Starts with a key that are sent to a host that is apart: more than one host can own by chance.
const KEYS: usize = 12;

#[test]
fn nothing_is_lost_or_doubled_when_a_host_has_no_network_to_the_database_or_to_the_others() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match Namespace::new() {
        Ok(outside) => outside.run(cut_cables),
        Err(why) => skipped("hosts in network namespaces", &why),
    }
}

fn cut_cables() {
    let (database, peers) = (Bridge::new("database", 1), Bridge::new("peers", 2));
    let Some(server) = Server::start_for(database.address()) else { return };
    let networks = Networks { database, peers, hosts: HOSTS.to_vec() };
    let seed = seed();
    say(&format!("cluster: seed {seed} (AMENDS_CLUSTER_SEED), hosts in network namespaces"));
    let service = Service::start(seed);
    let nodes = HOSTS.map(|number| Node::connected(number, &networks, &server, &service)).into();
    let world = World::new(|_| ());
    let mut stage = Stage::new(nodes, server, &world, Random::new(seed));
    judged(&mut stage, (&world, &service), seed, CLIENTS, |stage| {
        let mut hosts = [0, 1, 2];
        stage.random.shuffle(&mut hosts);
        let [first, second, third] = hosts;
        stage.take_database(Network::Silent, first, second);
        cut_from_the_others(stage, second, third);
        stage.take_database(Network::Silent, third, first);
    });
}

/// A host and the others do not reach each other. Each goes on with its own sagas. Who asks one side for what the other
/// one has is told so in time, and what was asked is done once when it is asked again afterwards.
fn cut_from_the_others(stage: &mut Stage<'_>, victim: usize, other: usize) {
    let (of_victim, of_other) = (stage.hold(victim), stage.hold(other));
    let process = |stage: &Stage<'_>| stage.server.process_of(&stage.nodes[victim].name);
    let before = process(stage);
    stage.nodes[victim].peers.set(Network::Silent);
    let here = stage.hold(victim);
    stage.approve(&here, victim);

    let began = Instant::now();
    let keys: Vec<_> = (0..KEYS).map(|number| format!("apart-{number}")).collect();
    let starts: Vec<_> = keys.iter().map(|key| start(key, &mut stage.random)).collect();
    let requests = [
        (victim, format!("/v1/sagas/{of_other}"), None),
        (other, format!("/v1/sagas/{of_victim}"), None),
        (victim, format!("/v1/sagas/{of_other}/signals/approved"), Some(signal())),
        (other, format!("/v1/sagas/{of_victim}/signals/approved"), Some(signal())),
    ];
    let starts_here =
        starts.iter().map(|start| (victim, "/v1/sagas".to_owned(), Some(start.clone())));
    let requests: Vec<_> = requests.into_iter().chain(starts_here).collect();
    let answers = ask_at_once(stage, &requests);
    println!("hosts that are apart answered within {:.1?}: {answers:?}", began.elapsed());
    let is_refused = |answer: &(u16, Value)| match answer.0 {
        200 | 202 => false,
        503 if answer.1["code"] == "no_owner" => true,
        504 if answer.1["code"] == "owner_silent" => true,
        _ => panic!("not clear: {answer:?}\n{}", stage.logs()),
    };
    let (crossed, started) = answers.split_at(answers.len() - KEYS);
    assert!(crossed.iter().all(is_refused), "something reached the other side");
    assert!(started.iter().any(is_refused), "one host owns every key");
    for (key, (_, saga)) in keys.iter().zip(started).filter(|(_, answer)| !is_refused(answer)) {
        stage.world.is_started(saga["id"].as_str().unwrap(), key);
    }
    assert_eq!(process(stage), before, "who has the database is not taken over");

    stage.nodes[victim].peers.set(Network::Open);
    stage.until_shared();
    stage.approve(&of_other, victim);
    stage.approve(&of_victim, other);
    // Also what was taken: it has the same answer again.
    let again: Vec<_> =
        starts.iter().map(|start| (victim, "/v1/sagas".to_owned(), Some(start.clone()))).collect();
    for ((key, (_, before)), (status, saga)) in
        keys.iter().zip(started).zip(ask_at_once(stage, &again))
    {
        assert!([200, 202].contains(&status), "{key}: {status} {saga}\n{}", stage.logs());
        assert!(before["id"].is_null() || before["id"] == saga["id"], "{before} and then {saga}");
        stage.world.is_started(saga["id"].as_str().unwrap(), key);
    }
    stage.count("cuts from the other hosts", 1);
}

fn signal() -> Value {
    json!({"id": "approval", "payload": true})
}

/// A start whose key is the name of the saga.
fn start(key: &str, random: &mut Random) -> Value {
    json!({"definition": "plain", "input": input(key, random), "key": key})
}

/// What hosts answer to requests that come at once: to a read, or to a body that is posted.
fn ask_at_once(
    stage: &Stage<'_>,
    requests: &[(usize, String, Option<Value>)],
) -> Vec<(u16, Value)> {
    let asker = Asker::patient(ANSWER_TIME_MAX);
    let ask = |(host, path, body): &(usize, String, Option<Value>)| {
        let url = stage.nodes[*host].url(path);
        let answer = match body {
            Some(body) => asker.post(&url, None, body),
            None => asker.get(&url),
        };
        answer.unwrap_or_else(|| panic!("{url} has no answer\n{}", stage.logs()))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            requests.iter().map(|request| scope.spawn(move || ask(request))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
