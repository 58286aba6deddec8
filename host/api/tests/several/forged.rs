//! Whoever is no host of the store cannot pass for one.

use std::sync::{Arc, Mutex};

use amends_store::{HostInfo, ShardId};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::cluster::{Cluster, answer, info, listen};

/// The requests that have come to a host that is not there.
type Heard = Arc<Mutex<Vec<String>>>;

/// A host that keeps what it hears, and answers nothing.
async fn listener_that_hears(name: &str) -> (HostInfo, Heard) {
    let listener = listen().await;
    let (me, heard) = (info(name, &listener), Heard::default());
    let kept = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = vec![0; 1 << 16];
            let mut length = 0;
            while let Ok(read) = stream.read(&mut bytes[length..]).await
                && read > 0
            {
                length += read;
                let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                if text.contains("\r\n\r\n") && text.ends_with('}') {
                    kept.lock().unwrap().push(text);
                    break;
                }
            }
            let _ = stream.shutdown().await;
        }
    });
    (me, heard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_speaks_for_another_caller() {
    let cluster = Cluster::new().await;
    let (a, b) = (&cluster.a, &cluster.b);
    let id = cluster.start(a, "approved", None).await;
    let note = format!("/v1/sagas/{id}/note");
    let body = json!({ "reason": "called" });

    // A host passes an order on to one that is not there; somebody on the way has a copy of the request.
    let (thief, heard) = listener_that_hears("c").await;
    b.believe(ShardId::of(id), Some(&thief));
    let (status, problem) = cluster.post(b, &note, &body).await;
    assert_eq!((status, &problem["code"]), (504, &json!("owner_silent")), "{problem}");
    let request = heard.lock().unwrap().pop().unwrap();
    let header = |name: &str| {
        let line = request.lines().find(|line| line.starts_with(&format!("{name}: ")));
        line.map(|line| line.split_once(": ").unwrap().1.to_owned())
    };
    let passed = header("amends-forwarded").unwrap();
    assert_eq!(header("amends-user"), None, "who asks is signed, and nowhere else");
    let text = request.rsplit("\r\n\r\n").next().unwrap().to_owned();

    let send = async |path: &str, header: &str, body: &str| {
        let request = cluster.client.post(a.url(path)).header("amends-forwarded", header);
        let request = request.header("content-type", "application/json").body(body.to_owned());
        answer(request.send().await.unwrap()).await
    };
    // As it is, it is for another host. Otherwise it is none of a host.
    let (status, problem) = send(&note, &passed, &text).await;
    assert_eq!((status, &problem["code"]), (421, &json!("not_owner")), "{problem}");
    let cancel = format!("/v1/sagas/{id}/cancel");
    let changed = format!("{}A", &passed[..passed.len() - 1]);
    for (path, header, body) in [
        (&cancel, passed.as_str(), text.as_str()),
        (&note, &passed, r#"{"reason":"another"}"#),
        (&note, &changed, &text),
        (&note, "", &text),
        (&note, "a.b.c", &text),
    ] {
        let (status, problem) = send(path, header, body).await;
        assert_eq!(
            (status, &problem["code"]),
            (403, &json!("forward_refused")),
            "{header}: {problem}"
        );
    }
    // What only hosts ask for.
    for path in ["starts", "signal", "unmoved", "activities"] {
        let path = format!("/internal/v1/{path}");
        let (status, problem) = cluster.post(a, &path, &json!({})).await;
        assert_eq!((status, &problem["code"]), (403, &json!("forward_refused")), "{problem}");
        let (status, _) = send(&path, &passed, &text).await;
        assert_eq!(status, 403);
    }
    // Nothing was done.
    let (_, events) = cluster.get(a, &format!("/v1/sagas/{id}/events")).await;
    let orders: Vec<_> = events["items"].as_array().unwrap().iter().collect();
    assert!(
        orders.iter().all(|event| !event["type"].as_str().unwrap().starts_with("operator.")),
        "{events}"
    );
    cluster.close().await;
}
