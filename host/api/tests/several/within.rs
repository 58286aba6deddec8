//! What begins within a host, without a request: events, schedules.

use std::sync::Arc;
use std::time::Duration;

use amends_engine::{EventExpression, Timestamp};
use amends_runtime::{
    CatchUp, EventEffect, EventOrigin, EventPayload, EventRule, EventSignal, EventStart, Overlap,
    SchedulePattern, ScheduleSettings, SignalTarget, now,
};
use amends_store::{ScheduleRow, ShardId, ShardOwner};
use serde_json::{Value, json};

use crate::cluster::{Change, Cluster, Node, SOON, Wants, until};

fn expression(source: &str) -> EventExpression {
    EventExpression::compile(source).unwrap()
}

fn rules() -> Vec<Arc<EventRule>> {
    let start = EventStart {
        definition: "approved".parse().unwrap(),
        key: None,
        input: EventPayload::Data,
        tags: std::collections::BTreeMap::new(),
    };
    let signal = EventSignal {
        name: "approved".parse().unwrap(),
        to: SignalTarget::Key(expression("'on/orders//shop ' + event.data.order")),
        payload: EventPayload::Data,
    };
    let rule = |name: &str, effect| EventRule {
        name: name.to_owned(),
        event: "*".parse().unwrap(),
        origin: EventOrigin::Webhook(Vec::new()),
        effect,
    };
    vec![
        Arc::new(rule("orders", EventEffect::Start(start))),
        Arc::new(rule("approvals", EventEffect::Signal(signal))),
    ]
}

fn events(kind: &str, from: u32) -> Value {
    let event = |number: u32| {
        json!({
            "specversion": "1.0", "type": kind, "source": "/shop", "id": number.to_string(),
            "datacontenttype": "application/json", "data": { "order": number.to_string() },
        })
    };
    (from..from + 20).map(event).collect()
}

/// Events come to both hosts. Each starts its saga where its key belongs, once, and becomes a signal where the saga
/// runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_reach_the_sagas_of_other_hosts() {
    let change: Box<Change> = Box::new(|config| config.event_rules = rules());
    let cluster = Cluster::with(Wants { change: Some(change), ..Wants::default() }).await;
    let send = async |node: &Node, rule: &str, events: &Value| {
        let request = cluster.client.post(node.url(&format!("/v1/on/{rule}")));
        let request = request.header("content-type", "application/cloudevents-batch+json");
        let answer = request.body(events.to_string()).send().await.unwrap();
        let status = answer.status().as_u16();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(status, 202, "{answer}");
        answer["items"].as_array().unwrap().clone()
    };
    let orders = events("order.placed", 0);
    let first = send(&cluster.a, "orders", &orders).await;
    let again = send(&cluster.b, "orders", &orders).await;
    let mut of_b = 0;
    for (first, again) in first.iter().zip(&again) {
        assert_eq!((&first["result"], &again["result"]), (&json!("started"), &json!("repeated")));
        assert_eq!(first["saga"], again["saga"]);
        let id = first["saga"].as_str().unwrap().parse().unwrap();
        of_b += u32::from(cluster.b.host.owner_of(id) == ShardOwner::This);
    }
    assert!(of_b > 0 && of_b < 20, "{of_b}");
    let signalled = send(&cluster.a, "approvals", &events("order.approved", 0)).await;
    for (signalled, started) in signalled.iter().zip(&first) {
        assert_eq!(signalled["result"], "signalled");
        assert_eq!(signalled["saga"], started["saga"]);
        let path = format!("/v1/sagas/{}?wait=20s", started["saga"].as_str().unwrap());
        let (_, ended) = cluster.get(&cluster.b, &path).await;
        assert_eq!(ended["status"], "completed", "{ended}");
    }
    // What the owner refuses is refused here.
    let request = cluster.client.post(cluster.b.url("/v1/on/approvals"));
    let request = request.header("content-type", "application/cloudevents-batch+json");
    let refused = request.body(events("order.approved", 100).to_string()).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 404);
    cluster.close().await;
}

/// The time before the last one that a schedule has decided.
const AGO: Duration = Duration::from_mins(3);

/// One host runs the schedules, and the next one goes on with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_host_runs_the_schedules() {
    let pattern = || SchedulePattern::parse("* * * * *", "UTC").unwrap();
    let settings = ScheduleSettings {
        name: "nightly".to_owned(),
        pattern: pattern(),
        definition: "quick".parse().unwrap(),
        input: serde_json::Map::new(),
        tags: std::collections::BTreeMap::new(),
        catch_up: CatchUp::Last,
        overlap: Overlap::Allow,
    };
    let change: Box<Change> = Box::new(move |config| config.schedules = vec![settings.clone()]);
    let cluster = Cluster::with(Wants { change: Some(change), ..Wants::default() }).await;
    let schedules = cluster.store.schedules();
    let row = async || schedules.schedule("nightly".to_owned()).await.unwrap();
    let until_row = async |what: &str, holds: &dyn Fn(&ScheduleRow) -> bool| {
        let began = std::time::Instant::now();
        loop {
            if let Some(row) = row().await.filter(|row| holds(row)) {
                return row;
            }
            assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until_row("it is known", &|_| true).await;
    // As if no host had run for some minutes.
    let duty = ShardId::all().next().unwrap();
    cluster.give(duty, None);
    until("nobody runs it", || cluster.a.host.owner_of_duties() == ShardOwner::Nobody).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let known = row().await.unwrap();
    let decided_until = Timestamp::from_millis((now().as_millis() / 60_000) * 60_000).before(AGO);
    schedules.save_schedule(ScheduleRow { decided_until, ..known }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(row().await.unwrap().decided_until, decided_until, "nobody runs it");
    cluster.give(duty, Some(&cluster.b.me));
    // The times that were missed are written down before the last one starts its saga.
    let has_started =
        |row: &ScheduleRow| row.decided_until > decided_until && row.started.is_some();
    let decided = until_row("the next host runs it", &has_started).await;
    let (at, saga) = decided.started.unwrap();
    assert!(at > decided_until);
    let (_, ended) = cluster.get(&cluster.a, &format!("/v1/sagas/{saga}?wait=20s")).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    let seen = async |node: &Node| {
        let (status, mut list) = cluster.get(node, "/v1/schedules").await;
        assert_eq!(status, 200, "{list}");
        // The next minute may begin between two requests.
        list["items"][0].as_object_mut().unwrap().remove("next");
        list["items"][0]["started_at"].take()
    };
    assert!(seen(&cluster.a).await.is_string());
    cluster.close().await;
}
