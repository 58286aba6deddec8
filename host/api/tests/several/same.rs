//! Requests that come to a host that does not run the saga.

use std::collections::BTreeMap;
use std::time::Duration;

use amends_store::{ShardId, ShardOwner};
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::cluster::{
    Change, Cluster, Node, SOON, Wants, answer, approval, call, definition, until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_starts_one_saga_whichever_host_is_asked() {
    let cluster = Cluster::new().await;
    let mut owners = BTreeMap::<String, u32>::new();
    for number in 0..20 {
        let key = format!("key-{number}");
        let body = json!({ "definition": "quick", "input": { "number": number } });
        let start = async |node: &Node, body: &Value| {
            let request = cluster.client.post(node.url("/v1/sagas")).json(body);
            let request = request.header("idempotency-key", key.as_str());
            let response = request.send().await.unwrap();
            let location = response.headers().get("location").cloned();
            (location, answer(response).await)
        };
        let (first, second) =
            if number % 2 == 0 { (&cluster.a, &cluster.b) } else { (&cluster.b, &cluster.a) };
        let (location, (status, saga)) = start(first, &body).await;
        assert_eq!(status, 202, "{saga}");
        let (again, (status, same)) = start(second, &body).await;
        assert_eq!((status, &same["id"]), (200, &saga["id"]), "{same}");
        assert_eq!(location, again);
        assert_eq!(
            location.unwrap().to_str().unwrap(),
            format!("/v1/sagas/{}", saga["id"].as_str().unwrap())
        );
        // Another payload is refused by both, in the same words.
        let other = json!({ "definition": "quick", "input": {} });
        let (_, refused) = start(first, &other).await;
        assert_eq!(refused.0, 422, "{}", refused.1);
        assert_eq!(start(second, &other).await.1, refused);
        // A key in the body, and one in quotes, are the same key.
        let in_body = json!({ "definition": "quick", "input": { "number": number }, "key": key });
        let (status, same) = cluster.post(second, "/v1/sagas", &in_body).await;
        assert_eq!((status, &same["id"]), (200, &saga["id"]), "{same}");
        let owner = cluster.a.host.owner_of(saga["id"].as_str().unwrap().parse().unwrap());
        *owners.entry(format!("{owner:?}")).or_default() += 1;
    }
    assert_eq!(owners.len(), 2, "{owners:?}");
    // Without a key, a saga is run where it is started.
    for node in [&cluster.a, &cluster.b] {
        for _ in 0..20 {
            let id = cluster.start(node, "quick", None).await;
            assert_eq!(node.host.owner_of(id), ShardOwner::This);
        }
    }
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_orders_and_signals_are_the_same_from_both_hosts() {
    let cluster = Cluster::new().await;
    let (owner, other) = (&cluster.a, &cluster.b);
    let id = cluster.start(owner, "approved", None).await;
    let saga = format!("/v1/sagas/{id}");
    let is_waiting = async || cluster.get(other, &saga).await.1["status"] == "waiting";
    while !is_waiting().await {}
    for path in ["", "/why", "/undo-plan", "/exposure", "/events", "/definition"] {
        let path = format!("{saga}{path}");
        let answers = [cluster.get(owner, &path).await, cluster.get(other, &path).await];
        assert_eq!(answers[0].0, 200, "{path}: {}", answers[0].1);
        assert_eq!(answers[0], answers[1], "{path}");
    }
    let list = "/v1/sagas?activity=true";
    let listed = cluster.get(owner, list).await;
    assert!(listed.1["items"][0]["activity"].is_string(), "{}", listed.1);
    assert_eq!(cluster.get(other, list).await, listed);
    for path in ["/v1/sagas?stuck=true", "/v1/sagas?status=quarantined", "/v1/sagas/counts"] {
        assert_eq!(cluster.get(other, path).await, cluster.get(owner, path).await, "{path}");
    }

    // What an operator orders is recorded as that operator's, at the address of the operator.
    let (status, noted) =
        cluster.post(other, &format!("{saga}/note"), &json!({ "reason": "called" })).await;
    assert_eq!(status, 200, "{noted}");
    let (_, events) = cluster.get(other, &format!("{saga}/events")).await;
    let note = events["items"].as_array().unwrap().last().unwrap();
    assert_eq!(note["type"], "operator.noted", "{events}");
    assert_eq!(note["data"]["who"], "ann@127.0.0.1", "{note}");
    // Refusals are those of the owner.
    let wrong = json!({ "reason": "no", "step": "nothing" });
    let refused = cluster.post(owner, &format!("{saga}/skip"), &wrong).await;
    assert_eq!(cluster.post(other, &format!("{saga}/skip"), &wrong).await, refused);
    assert_eq!(refused.0, 409, "{}", refused.1);
    let refused = cluster.post(owner, &format!("{saga}/cancel"), &json!({})).await;
    assert_eq!(refused.1["code"], "bad_request", "{}", refused.1);
    assert_eq!(cluster.post(other, &format!("{saga}/cancel"), &json!({})).await, refused);

    // Somebody watches and somebody waits at the host that does not run it.
    let watched = tokio::spawn(watch(cluster.client.clone(), other.url(&format!("{saga}/watch"))));
    let waits = cluster.client.get(other.url(&format!("{saga}?wait=20s"))).send();
    let waits = tokio::spawn(waits);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let signal = json!({ "payload": { "by": "eve" } });
    let (status, taken) = cluster.post(other, &format!("{saga}/signals/approved"), &signal).await;
    assert_eq!(status, 202, "{taken}");
    let (status, ended) = answer(waits.await.unwrap().unwrap()).await;
    assert_eq!((status, &ended["status"]), (200, &json!("completed")), "{ended}");
    let watched = watched.await.unwrap();
    assert!(watched.contains("event: saga.started"), "{watched}");
    assert!(watched.trim_end().contains("event: saga.completed"), "{watched}");
    for path in ["", "/why", "/undo-plan", "/events", "/watch"] {
        let path = format!("{saga}{path}");
        assert_eq!(cluster.get(other, &path).await, cluster.get(owner, &path).await, "{path}");
    }
    let unknown = "/v1/sagas/0198c0de-0000-7000-8000-000000000000";
    let refused = cluster.get(owner, unknown).await;
    assert_eq!(refused.0, 404);
    assert_eq!(cluster.get(other, unknown).await, refused);
    let refused = cluster.post(owner, &format!("{unknown}/pause"), &json!({ "reason": "x" })).await;
    assert_eq!(refused.0, 404);
    assert_eq!(
        cluster.post(other, &format!("{unknown}/pause"), &json!({ "reason": "x" })).await,
        refused
    );

    let (_, hosts) = cluster.get(other, "/v1/host").await;
    let hosts = hosts["hosts"].as_array().unwrap();
    let names: Vec<_> = hosts.iter().map(|host| host["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["b", "a"]);
    assert!(hosts.iter().all(|host| host["shards"].as_array().unwrap().len() == 32));
    cluster.close().await;
}

/// What a watch says, to its end.
async fn watch(client: reqwest::Client, url: String) -> String {
    let response = client.get(url).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let (mut body, mut text) = (response.bytes_stream(), String::new());
    while let Some(bytes) = body.next().await {
        text.push_str(&String::from_utf8_lossy(&bytes.unwrap()));
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lines_of_a_batch_go_to_their_owners_and_come_back_in_order() {
    const LINES: usize = 400;
    let cluster = Cluster::new().await;
    let line = |number: usize| match number {
        7 => json!({ "definition": "nothing", "key": "order-7" }).to_string(),
        9 => json!({ "definition": "quick", "key": "schedule/x" }).to_string(),
        11 => "{".to_owned(),
        13 => json!({ "definition": "quick" }).to_string(),
        _ => json!({ "definition": "quick", "key": format!("order-{number}") }).to_string(),
    };
    let body = (0..LINES).map(line).collect::<Vec<_>>().join("\n");
    let send = async |node: &Node| {
        let request = cluster.client.post(node.url("/v1/sagas:batch")).body(body.clone());
        let request = request.header("content-type", "application/x-ndjson");
        let answer = request.send().await.unwrap().text().await.unwrap();
        answer.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    let first = send(&cluster.a).await;
    assert_eq!(first.len(), LINES);
    let second = send(&cluster.b).await;
    let mut of_b = 0;
    for (number, (first, second)) in first.iter().zip(&second).enumerate() {
        match number {
            7 => assert_eq!(first["problem"]["code"], "definition_unknown", "{first}"),
            9 | 11 => assert_eq!(first["problem"]["code"], "bad_request", "{first}"),
            13 => {
                assert_ne!(first["id"], second["id"]);
                continue;
            }
            _ => {
                let id = first["id"].as_str().unwrap_or_else(|| panic!("{first}"));
                of_b += u32::from(cluster.b.host.owner_of(id.parse().unwrap()) == ShardOwner::This);
                let saga = cluster.store.sagas().row(id.parse().unwrap()).await.unwrap().unwrap();
                assert_eq!(saga.key, Some(format!("order-{number}")));
            }
        }
        assert_eq!(first, second, "{number}");
    }
    assert!((100..300).contains(&of_b), "{of_b}");
    cluster.close().await;
}

/// A request waits for a saga at the host that does not run it, and another one where it is started. Both are
/// answered by the new owner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_saga_does_so_while_it_moves() {
    let cluster = Cluster::new().await;
    let (a, b) = (&cluster.a, &cluster.b);
    let start = |node: &Node| {
        let request = cluster.client.post(node.url("/v1/sagas?wait=20s"));
        tokio::spawn(request.json(&json!({ "definition": "approved" })).send())
    };
    let started = start(a);
    let id = loop {
        let (_, list) = cluster.get(b, "/v1/sagas?status=waiting").await;
        if let Some(id) = list["items"][0]["id"].as_str() {
            break id.parse().unwrap();
        }
    };
    let saga = format!("/v1/sagas/{id}");
    let waits = [a, b]
        .map(|node| tokio::spawn(cluster.client.get(node.url(&format!("{saga}?wait=20s"))).send()));
    tokio::time::sleep(Duration::from_millis(200)).await;
    // For some time nobody owns it.
    let shard = ShardId::of(id);
    cluster.give(shard, None);
    until("it is lost", || a.host.owner_of(id) == ShardOwner::Nobody).await;
    let order = cluster.client.post(a.url(&format!("{saga}/signals/approved")));
    let order = tokio::spawn(order.json(&json!({ "payload": null })).send());
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(!order.is_finished());
    cluster.give(shard, Some(&b.me));
    let (status, taken) = answer(order.await.unwrap().unwrap()).await;
    assert_eq!(status, 202, "{taken}");
    for wait in waits {
        let (status, ended) = answer(wait.await.unwrap().unwrap()).await;
        assert_eq!((status, &ended["status"]), (200, &json!("completed")), "{ended}");
    }
    let (status, ended) = answer(started.await.unwrap().unwrap()).await;
    assert_eq!((status, &ended["status"]), (202, &json!("completed")), "{ended}");
    assert_eq!(ended["id"].as_str().unwrap(), id.to_string());
    assert_eq!(b.host.owner_of(id), ShardOwner::This);
    cluster.close().await;
}

/// Starts go on while shards move to and fro: each key has one saga in the end, and each caller heard of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_start_is_lost_or_doubled_while_shards_move() {
    let cluster = Cluster::new().await;
    let lines = |from: u32| {
        let line =
            |number| json!({ "definition": "quick", "key": format!("key-{number}") }).to_string();
        (from..from + 100).map(line).collect::<Vec<_>>().join("\n")
    };
    let mut batches = Vec::new();
    for round in 0..6_u32 {
        for node in [&cluster.a, &cluster.b] {
            // Both hosts are sent the same keys.
            let request = cluster.client.post(node.url("/v1/sagas:batch")).body(lines(round * 100));
            let request = request.header("content-type", "application/x-ndjson").send();
            batches.push(tokio::spawn(async move { request.await.unwrap().text().await.unwrap() }));
        }
        for shard in ShardId::all().filter(|shard| u32::from(shard.number()) % 6 == round) {
            let to = if round % 2 == 0 { &cluster.b.me } else { &cluster.a.me };
            cluster.give(shard, Some(to));
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let mut ids = BTreeMap::<String, u32>::new();
    for batch in batches {
        let text = tokio::time::timeout(SOON, batch).await.unwrap().unwrap();
        for line in text.lines() {
            let answer: Value = serde_json::from_str(line).unwrap();
            let id = answer["id"].as_str().unwrap_or_else(|| panic!("{answer}"));
            *ids.entry(id.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(ids.len(), 600);
    assert!(ids.values().all(|count| *count == 2), "each key was sent to both");
    cluster.close().await;
}

/// A saga keeps the definition with which it was started, whichever host runs it. A key is of the host that owns
/// it, and so is the definition of its saga.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_may_have_different_definitions_of_one_name() {
    let older = vec![definition("order", vec![call("good", &[]), approval(&["good"])])];
    let newer = vec![definition(
        "order",
        vec![call("good", &[]), approval(&["good"]), call("more", &["approval"])],
    )];
    let digests = [older[0].digest().to_string(), newer[0].digest().to_string()];
    let definitions = Some([older, newer]);
    let cluster = Cluster::with(Wants { definitions, ..Wants::default() }).await;
    let (a, b) = (&cluster.a, &cluster.b);
    let of = [cluster.start(a, "order", None).await, cluster.start(b, "order", None).await];
    let keyed = cluster.start(a, "order", Some(&cluster.key_of(b, 0))).await;
    for (id, digest) in of.iter().chain([&keyed]).zip([&digests[0], &digests[1], &digests[1]]) {
        for node in [a, b] {
            let (_, saga) = cluster.get(node, &format!("/v1/sagas/{id}")).await;
            assert_eq!(saga["definition_digest"], **digest, "{saga}");
        }
    }
    // Each goes to the other host and ends as it began.
    for (id, to, steps) in [(of[0], b, 2), (of[1], a, 3)] {
        cluster.give(ShardId::of(id), Some(&to.me));
        let (status, taken) = cluster
            .post(a, &format!("/v1/sagas/{id}/signals/approved"), &json!({ "payload": null }))
            .await;
        assert_eq!(status, 202, "{taken}");
        let (_, ended) = cluster.get(b, &format!("/v1/sagas/{id}?wait=20s")).await;
        assert_eq!(ended["status"], "completed", "{ended}");
        assert_eq!(ended["steps"].as_array().unwrap().len(), steps);
        assert_eq!(to.host.owner_of(id), ShardOwner::This);
    }
    cluster.close().await;
}

/// Each host has two namespaces, and each namespace a store and secrets of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_passed_on_stays_in_its_namespace() {
    let change: Box<Change> = Box::new(|config| config.namespace = "shop".parse().ok());
    let cluster = Cluster::with(Wants { change: Some(change), ..Wants::default() }).await;
    let key = cluster.key_of(&cluster.b, 0);
    let id = cluster.start(&cluster.a, "approved", Some(&key)).await;
    assert_eq!(cluster.b.host.owner_of(id), ShardOwner::This);
    let path = format!("/v1/sagas/{id}");
    for node in [&cluster.a, &cluster.b] {
        let (status, saga) = cluster.get(node, &path).await;
        assert_eq!((status, &saga["id"]), (200, &json!(id.to_string())), "{saga}");
        // The other namespace of the same host does not know it.
        let request = cluster.client.get(node.url(&path)).header("amends-namespace", "default");
        let (status, problem) = answer(request.send().await.unwrap()).await;
        assert_eq!((status, &problem["code"]), (404, &json!("saga_unknown")), "{problem}");
    }
    // An order goes to the owner, and to the same namespace there.
    let reason = json!({ "reason": "a test" });
    let (status, problem) = cluster.post(&cluster.a, &format!("{path}/cancel"), &reason).await;
    assert_eq!(status, 200, "{problem}");
    cluster.close().await;
}
