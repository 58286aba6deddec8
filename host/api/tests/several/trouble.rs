//! Owners that are dead, hang, or answer nonsense; hosts that believe different things.

use std::time::{Duration, Instant};

use amends_engine::SagaId;
use amends_store::{HostInfo, ShardId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::cluster::{Cluster, SOON, answer, info, listen};

/// A host that answers every request like this. Without a text it answers nothing.
async fn host_that_says(says: Option<&'static str>) -> HostInfo {
    let listener = listen().await;
    let me = info("c", &listener);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 4_096];
                let _ = stream.read(&mut bytes).await;
                match says {
                    Some(text) => drop(stream.write_all(text.as_bytes()).await),
                    None => tokio::time::sleep(2 * SOON).await,
                }
            });
        }
    });
    me
}

/// Asks host `b` about sagas whose owner it believes to be `owner`. Returns the answers to a read and to an order,
/// each with the time that it took.
async fn ask_about(
    cluster: &Cluster,
    id: SagaId,
    owner: Option<&HostInfo>,
) -> [(u16, Value, Option<String>, Duration); 2] {
    cluster.b.believe(ShardId::of(id), owner);
    let ask = async |request: reqwest::RequestBuilder| {
        let began = Instant::now();
        let response = request.send().await.unwrap();
        let retry = response.headers().get("retry-after");
        let retry = retry.map(|value| value.to_str().unwrap().to_owned());
        let (status, body) = answer(response).await;
        (status, body, retry, began.elapsed())
    };
    let read = cluster.client.get(cluster.b.url(&format!("/v1/sagas/{id}")));
    let order = cluster.client.post(cluster.b.url(&format!("/v1/sagas/{id}/note")));
    let (read, order) = tokio::join!(ask(read), ask(order.json(&json!({ "reason": "to see" }))));
    [read, order]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_owner_is_refused_after_ten_seconds() {
    let cluster = Cluster::new().await;
    let id = cluster.start(&cluster.a, "approved", None).await;
    // Nothing listens there any more.
    let gone = info("c", &listen().await);
    let page = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
    let other = host_that_says(Some(page)).await;
    for owner in [Some(&gone), Some(&other), None] {
        for (status, problem, retry_after, took) in ask_about(&cluster, id, owner).await {
            assert_eq!((status, &problem["code"]), (503, &json!("no_owner")), "{problem}");
            assert_eq!(retry_after.as_deref(), Some("1"));
            assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(15), "{took:?}");
        }
    }
    // An owner that comes in time is asked.
    cluster.b.believe(ShardId::of(id), Some(&gone));
    let path = cluster.b.url(&format!("/v1/sagas/{id}"));
    let asked = tokio::spawn(cluster.client.get(path).send());
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.b.believe(ShardId::of(id), Some(&cluster.a.me));
    let (status, saga) = answer(asked.await.unwrap().unwrap()).await;
    assert_eq!((status, &saga["status"]), (200, &json!("waiting")), "{saga}");
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_hangs_has_a_deadline_and_one_that_breaks_off_is_not_asked_twice() {
    let cluster = Cluster::new().await;
    let id = cluster.start(&cluster.a, "approved", None).await;
    let hangs = host_that_says(None).await;
    for (status, problem, _, took) in ask_about(&cluster, id, Some(&hangs)).await {
        assert_eq!((status, &problem["code"]), (504, &json!("owner_silent")), "{problem}");
        assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(15), "{took:?}");
    }
    // A read is asked for again, until the time is over; an order is not, because it may have been carried out.
    let garbage = host_that_says(Some("what?\r\n\r\n")).await;
    let [read, order] = ask_about(&cluster, id, Some(&garbage)).await;
    assert_eq!((read.0, &read.1["code"]), (504, &json!("owner_silent")), "{}", read.1);
    assert!(read.3 >= Duration::from_secs(10), "{:?}", read.3);
    assert_eq!((order.0, &order.1["code"]), (504, &json!("owner_silent")), "{}", order.1);
    assert!(order.3 < Duration::from_secs(5), "{:?}", order.3);
    // The lines of a batch are refused one by one, and the others are started.
    let key = cluster.key_of(&cluster.a, 0);
    for shard in ShardId::all().filter(|shard| shard.number() % 2 == 0) {
        cluster.b.believe(shard, Some(&garbage));
    }
    let body = format!(
        "{}\n{}",
        json!({ "definition": "quick", "key": key }),
        json!({ "definition": "quick" })
    );
    let request = cluster.client.post(cluster.b.url("/v1/sagas:batch")).body(body);
    let request = request.header("content-type", "application/x-ndjson");
    let text = request.send().await.unwrap().text().await.unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["problem"]["code"], "owner_silent", "{text}");
    assert!(lines[1]["id"].is_string(), "{text}");
    // Who is to say what does not move is not there.
    let (status, problem) = cluster.get(&cluster.b, "/v1/sagas?stuck=true").await;
    assert_eq!((status, &problem["code"]), (503, &json!("host_silent")), "{problem}");
    let (status, list) = cluster.get(&cluster.b, "/v1/sagas").await;
    assert_eq!(status, 200, "{list}");
    cluster.close().await;
}

/// A host that stands still keeps its connections, and does not answer. Once it is not alive any more, what may be
/// asked again goes to the next owner, and what may not is not waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asked_a_host_that_stands_still_goes_on_at_the_next_owner() {
    let cluster = Cluster::new().await;
    let (a, b) = (&cluster.a, &cluster.b);
    let id = cluster.start(a, "approved", None).await;
    let signalled = cluster.start(a, "approved", None).await;
    let stands = host_that_says(None).await;
    let (key, key_of_line) = (cluster.key_of(a, 0), cluster.key_of(a, 1_000));
    for shard in ShardId::all().filter(|shard| shard.number() % 2 == 0) {
        b.believe(shard, Some(&stands));
    }
    let began = Instant::now();
    let ask = async |request: reqwest::RequestBuilder| {
        let (status, body) = answer(request.send().await.unwrap()).await;
        (status, body, began.elapsed())
    };
    let sagas = b.url("/v1/sagas");
    let read = cluster.client.get(format!("{sagas}/{id}?wait=2s"));
    let order = cluster.client.post(format!("{sagas}/{id}/note")).json(&json!({"reason": "why"}));
    let signal = cluster.client.post(format!("{sagas}/{signalled}/signals/approved"));
    let signal = signal.json(&json!({ "id": "once", "payload": 1 }));
    let start = cluster.client.post(&sagas).header("idempotency-key", &key);
    let start = start.json(&json!({ "definition": "quick" }));
    let lines = cluster.client.post(format!("{sagas}:batch"));
    let line = json!({ "definition": "quick", "key": key_of_line }).to_string();
    let lines = lines.header("content-type", "application/x-ndjson").body(line);
    let taken_over = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for shard in ShardId::all().filter(|shard| shard.number() % 2 == 0) {
            b.believe(shard, Some(&a.me));
        }
    };
    let (read, order, signal, start, lines, ()) =
        tokio::join!(ask(read), ask(order), ask(signal), ask(start), ask(lines), taken_over);
    assert_eq!((read.0, &read.1["status"]), (200, &json!("waiting")), "{}", read.1);
    assert_eq!((order.0, &order.1["code"]), (504, &json!("owner_silent")), "{}", order.1);
    assert_eq!((signal.0, start.0), (202, 202), "{} {}", signal.1, start.1);
    assert!(lines.1["id"].is_string(), "{}", lines.1);
    for (_, body, took) in [read, order, signal, start, lines] {
        assert!(took < Duration::from_secs(6), "{took:?}: {body}");
    }
    cluster.close().await;
}

/// Each believes that the other one has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_goes_in_a_circle() {
    let cluster = Cluster::new().await;
    let (a, b) = (&cluster.a, &cluster.b);
    let id = cluster.start(a, "approved", None).await;
    a.believe(ShardId::of(id), Some(&b.me));
    b.believe(ShardId::of(id), Some(&a.me));
    let key = (0..).map(|number| format!("key-{number}"));
    let key = key
        .into_iter()
        .find(|key| amends_store::ShardOwner::Other(b.me.clone()) == a.host.owner_of_key(key));
    let key = key.unwrap();
    let reads = [a, b]
        .map(|node| tokio::spawn(cluster.client.get(node.url(&format!("/v1/sagas/{id}"))).send()));
    for read in reads {
        let (status, problem) = answer(read.await.unwrap().unwrap()).await;
        assert_eq!((status, &problem["code"]), (503, &json!("no_owner")), "{problem}");
    }
    // Both serve on.
    let started = cluster.start(a, "quick", Some(&key)).await;
    let (_, ended) = cluster.get(b, &format!("/v1/sagas/{started}?wait=20s")).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    cluster.close().await;
}

/// An owner that stops refuses what is passed on, and the next one takes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_stops_hands_on_what_comes_to_it() {
    let cluster = Cluster::new().await;
    let (a, b) = (&cluster.a, &cluster.b);
    let id = cluster.start(a, "approved", None).await;
    a.host.stop(Duration::ZERO).await;
    let path = b.url(&format!("/v1/sagas/{id}/signals/approved"));
    let signal = cluster.client.post(path).json(&json!({ "payload": null })).send();
    let signal = tokio::spawn(signal);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!signal.is_finished());
    for shard in ShardId::all() {
        b.believe(shard, Some(&b.me));
    }
    let (status, taken) = answer(signal.await.unwrap().unwrap()).await;
    assert_eq!(status, 202, "{taken}");
    let (_, ended) = cluster.get(b, &format!("/v1/sagas/{id}?wait=20s")).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    cluster.close().await;
}
