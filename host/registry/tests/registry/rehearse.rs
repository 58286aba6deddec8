//! A rehearsal has no effect: nothing is sent, nothing is kept.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amends_engine::{Direction, Outcome, Payload, StateQuery, Timestamp, Version};
use amends_sandbox::{PluginCall, PluginSettings, StubAnswer};
use amends_store::conformance::whole_log;
use amends_store::{Append, NewEvent, Stream};
use amends_tests::{Behaviour, Component};
use serde_json::json;

use crate::host::{Host, Place, test};

fn committed(name: &str) -> Vec<u8> {
    let plugins = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins");
    std::fs::read(format!("{plugins}/{name}.wasm")).unwrap()
}

/// A service that says yes to all, and how often it was asked.
fn service() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4_096]);
            let body = r#"{"cancelled":true}"#;
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    (url, asked)
}

fn undo(host: &Host, input: &serde_json::Value) -> PluginCall {
    let input = Payload::from_value(input).unwrap();
    PluginCall { input, ..host.call(Direction::Compensate) }
}

#[tokio::test]
async fn requests_are_answered_by_the_stub_and_do_not_leave() {
    let (url, asked) = service();
    let mut place = Place::new();
    place.settings = PluginSettings {
        allow_hosts: [url.parse().unwrap()].into_iter().collect(),
        settings: [("carrier".to_owned(), json!(url))].into_iter().collect(),
        component: Some("shipment".to_owned()),
        ..place.settings
    };
    place.write("test", &committed("shipment"));
    let host = place.open().await;
    let address = json!({"name": "Ada", "street": "1", "city": "P", "state": "OR", "zip": "97201"});
    let call = undo(&host, &json!({"order_id": "A-1", "address": address, "weight_g": 10}));
    let component = host.plugins.active(&test()).unwrap();
    for (answer, words) in [
        (StubAnswer::Status(200), "failed (unknown) with invalid_response"),
        (StubAnswer::Status(404), "failed (permanent) with carrier_refused"),
        (StubAnswer::Status(503), "failed (retryable) with carrier_busy"),
        (StubAnswer::NoAnswer, "failed (unknown) with no_response"),
    ] {
        let rehearsed = host.plugins.rehearse(&component, &call, answer).await;
        let told = rehearsed.outcome.to_string();
        assert!(told.starts_with(words), "{answer}: {told}");
        let [request] = rehearsed.requests.as_slice() else { panic!("{rehearsed:?}") };
        assert_eq!(request.method, "DELETE");
        assert!(request.url.starts_with(&format!("{url}/labels/LBL-")), "{}", request.url);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    let earnest = host.plugins.call(&call).await.outcome;
    assert!(matches!(earnest, Outcome::Succeeded(_)), "{earnest}");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the service would have been asked");
    host.close().await;
}

#[tokio::test]
async fn state_is_read_and_what_is_written_goes_to_whoever_asks() {
    let mut place = Place::new();
    place.settings = PluginSettings {
        state: true,
        settings: [("stock_default".to_owned(), json!(100))].into_iter().collect(),
        component: Some("inventory".to_owned()),
        ..place.settings
    };
    place.write("test", &committed("inventory"));
    let host = place.open().await;
    let drug = json!({"name": "m", "form": "tablet", "strength_mg": 5, "quantity": 60});
    let call = undo(&host, &json!({"order_id": "A-1", "warehouse": "north", "drug": drug}));
    let execute = PluginCall { direction: Direction::Execute, ..call.clone() };
    let done = host.plugins.call(&execute).await;
    let Outcome::Succeeded(output) = done.outcome else { panic!("{}", done.outcome) };
    let append = Append {
        stream: Stream::Saga(call.saga_id),
        expected: Version(0),
        at: Timestamp::from_millis(0),
        events: vec![NewEvent { kind: "call.succeeded".into(), data: "{}".to_owned() }],
        row: None,
        failures: Vec::new(),
        start_key: None,
        state: done.effects.state.into_iter().map(std::sync::Arc::from).collect(),
    };
    host.store.append(append).await.unwrap();
    let kept = state(&host).await;
    assert_eq!(kept.len(), 2, "{kept:?}");
    let events = whole_log(&*host.store).await;

    let component = host.plugins.active(&test()).unwrap();
    let call = PluginCall { output: Some(output), ..call };
    for _ in 0..2 {
        let rehearsed = host.plugins.rehearse(&component, &call, StubAnswer::Status(200)).await;
        assert!(matches!(rehearsed.outcome, Outcome::Succeeded(_)), "{}", rehearsed.outcome);
        let amends_engine::StateChange { writes, counters, .. } = *rehearsed.effects.state.unwrap();
        assert_eq!(counters["stock/north/m-5mg-tablet"].delta, 60);
        assert!(writes.values().any(Option::is_none), "the reservation is removed: {writes:?}");
        assert_eq!(rehearsed.requests, []);
    }
    assert_eq!(state(&host).await, kept);
    assert_eq!(whole_log(&*host.store).await, events);
    host.close().await;
}

async fn state(host: &Host) -> Vec<(String, Option<Arc<str>>)> {
    let query = StateQuery { limit: 100, ..StateQuery::default() };
    let mut state = Vec::new();
    for key in host.store.state().keys(test(), query).await.unwrap() {
        let value = host.store.state().value(test(), key.clone()).await.unwrap();
        state.push((key, value));
    }
    state
}

/// Also where the plugin's own calls reuse theirs, and it leaves none behind.
#[tokio::test]
async fn the_instance_is_fresh_and_the_limits_are_those_that_are_granted() {
    let mut place = Place::new();
    place.settings.reuse = 1_000;
    place.settings.cpu_max = Duration::from_millis(50);
    let component = Component {
        execute: Behaviour::Count,
        compensate: Behaviour::Spin,
        ..Component::default()
    };
    place.write("test", &component.build());
    let host = place.open().await;
    let n = async || host.execute().await.to_string();
    assert_eq!((n().await, n().await), ("answered {\"n\":1}".into(), "answered {\"n\":2}".into()));
    let component = host.plugins.active(&test()).unwrap();
    let call = host.call(Direction::Execute);
    for _ in 0..2 {
        let rehearsed = host.plugins.rehearse(&component, &call, StubAnswer::NoAnswer).await;
        assert_eq!(rehearsed.outcome.to_string(), "answered {\"n\":1}");
    }
    assert_eq!(n().await, "answered {\"n\":3}");
    let call = host.call(Direction::Compensate);
    let rehearsed = host.plugins.rehearse(&component, &call, StubAnswer::NoAnswer).await;
    let told = rehearsed.outcome.to_string();
    assert!(told.starts_with("failed (unknown) with cpu_limit: "), "{told}");
    host.close().await;
}
