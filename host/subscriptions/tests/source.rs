//! Events that come in from a real NATS server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "shared with the tests of subscriptions")]
mod nats_server;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use amends_subscriptions::{
    IncomingEvent, NatsSettings, NatsSourceSettings, NatsSources, NotTaken, StartFrom,
    TakesIncoming,
};
use async_nats::header::HeaderMap;
use async_nats::jetstream;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use nats_server::NatsServer;
use serde_json::json;

/// How long a test waits for what must come.
const LIMIT: Duration = Duration::from_mins(1);

/// Takes every event, those named `later` when they come a second time.
#[derive(Debug, Default)]
struct Taker {
    came: Mutex<Vec<String>>,
    refused: Mutex<Vec<String>>,
    /// What it heard of the stream, in order.
    away: Mutex<Vec<Option<String>>>,
}

impl TakesIncoming for Taker {
    fn take(&self, event: IncomingEvent) -> BoxFuture<'_, Result<(), NotTaken>> {
        async move {
            let id = event.id().to_owned();
            let mut came = self.came.lock().unwrap();
            let is_first = !came.contains(&id);
            came.push(id.clone());
            if id == "later" && is_first {
                return Err(NotTaken {
                    error: "the host is full".to_owned(),
                    is_passing: true,
                    is_early: false,
                });
            }
            Ok(())
        }
        .boxed()
    }

    fn refuse(&self, why: &str) {
        self.refused.lock().unwrap().push(why.to_owned());
    }

    fn is_away(&self, why: Option<String>) {
        self.away.lock().unwrap().push(why);
    }
}

impl Taker {
    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < LIMIT, "{what} did not come: {self:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What it heard last.
    #[expect(clippy::option_option, reason = "nothing was heard yet, or that all is well")]
    fn last(&self) -> Option<Option<String>> {
        self.away.lock().unwrap().last().cloned()
    }

    async fn until_away(&self, words: &str) {
        let says = |taker: &Self| taker.last().flatten().is_some_and(|why| why.contains(words));
        self.until(words, says).await;
    }

    async fn until_here(&self) {
        self.until("the stream", |taker| taker.last() == Some(None)).await;
    }

    async fn until_came(&self, ids: &[&str]) {
        let has_come = |taker: &Self| {
            let mut came = taker.came.lock().unwrap().clone();
            came.sort();
            came == ids
        };
        self.until("the events", has_come).await;
    }
}

fn source(server: &NatsServer) -> NatsSourceSettings {
    NatsSourceSettings {
        server: NatsSettings::parse_server(&server.url()).unwrap(),
        stream: "AMENDS".to_owned(),
        subject: Some("amends.orders.>".to_owned()),
        consumer: "amends-orders".to_owned(),
        begin: StartFrom::Now,
        credentials: None,
    }
}

async fn publish(server: &NatsServer, subject: &'static str, headers: HeaderMap, body: String) {
    let jetstream = jetstream::new(server.client().await);
    let published = jetstream.publish_with_headers(subject, headers, body.into()).await;
    published.unwrap().await.unwrap();
}

async fn publish_event(server: &NatsServer, subject: &'static str, id: &str) {
    let event = json!({"specversion": "1.0", "id": id, "source": "/shop", "type": "order.placed"});
    publish(server, subject, HeaderMap::new(), event.to_string()).await;
}

/// How many messages the stream waits to hear of.
async fn pending(server: &NatsServer) -> (usize, u64) {
    let jetstream = jetstream::new(server.client().await);
    let stream = jetstream.get_stream("AMENDS").await.unwrap();
    let info = stream.consumer_info("amends-orders").await.unwrap();
    (info.num_ack_pending, info.num_pending)
}

/// Waits until the server has no message for the consumer, and none whose acknowledgement it waits for.
async fn until_none_waits(server: &NatsServer) {
    let began = Instant::now();
    while pending(server).await != (0, 0) {
        assert!(began.elapsed() < LIMIT, "a message waits: {:?}", pending(server).await);
    }
}

/// The server is not there, then it has no stream, then messages come, then it is killed.
#[tokio::test]
async fn messages_come_once_they_can_and_again_when_they_were_not_taken() {
    let Some(mut server) = NatsServer::new() else { return };
    let taker = Arc::new(Taker::default());
    let settings = source(&server);
    let open_with = |settings: NatsSourceSettings| {
        let taker: Arc<dyn TakesIncoming> = Arc::clone(&taker) as _;
        NatsSources::open(vec![(settings, taker)])
    };
    let open = || open_with(settings.clone());
    let sources = open();
    taker.until_away("refused").await;
    server.start(&[]);
    taker.until_away("stream not found").await;
    server.make_stream().await;
    taker.until_here().await;
    publish_event(&server, "amends.orders.a", "1").await;
    publish_event(&server, "amends.other", "not wanted").await;
    publish_event(&server, "amends.orders.b", "later").await;
    publish(&server, "amends.orders.a", HeaderMap::new(), "no event".to_owned()).await;
    let mut headers = HeaderMap::new();
    for (name, value) in
        [("ce-specversion", "1.0"), ("ce-id", "2"), ("ce-source", "/s"), ("ce-type", "t")]
    {
        headers.insert(name, value);
    }
    publish(&server, "amends.orders.a", headers, "{}".to_owned()).await;
    taker.until_came(&["1", "2", "later", "later"]).await;
    let refused = taker.refused.lock().unwrap().clone();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].contains("not valid JSON"), "{refused:?}");
    until_none_waits(&server).await;

    server.kill();
    taker.until("the loss", |taker| matches!(taker.last(), Some(Some(_)))).await;
    server.start(&[]);
    taker.until_here().await;
    publish_event(&server, "amends.orders.a", "3").await;
    let has_come = |taker: &Taker| taker.came.lock().unwrap().iter().any(|id| id == "3");
    taker.until("the event after the loss", has_come).await;
    // A server that is killed may forget what was acknowledged just before. It sends that again.
    until_none_waits(&server).await;
    {
        let mut came = taker.came.lock().unwrap();
        came.sort();
        came.dedup();
    }
    sources.stop().await;
    // What comes meanwhile waits, and nothing comes twice.
    publish_event(&server, "amends.orders.a", "4").await;
    let sources = open();
    taker.until_came(&["1", "2", "3", "4", "later"]).await;
    sources.stop().await;

    // A consumer that is there gets the new settings, and goes on where it was.
    taker.away.lock().unwrap().clear();
    let start = StartFrom::Start;
    let sources = open_with(NatsSourceSettings { subject: None, begin: start, ..settings.clone() });
    taker.until_here().await;
    publish_event(&server, "amends.other", "5").await;
    taker.until_came(&["1", "2", "3", "4", "5", "later"]).await;
    sources.stop().await;
}

/// What is in a stream before its rule, and a consumer that is not one of a rule.
#[tokio::test]
async fn a_new_consumer_begins_where_its_rule_says() {
    let Some(mut server) = NatsServer::new() else { return };
    server.start(&[]);
    server.make_stream().await;
    publish_event(&server, "amends.orders.a", "1").await;
    for (begin, name, ids) in [
        (StartFrom::Start, "all", ["1", "2"].as_slice()),
        (StartFrom::Now, "new", ["3"].as_slice()),
    ] {
        let taker = Arc::new(Taker::default());
        let consumer = name.to_owned();
        let settings = NatsSourceSettings { consumer, begin, ..source(&server) };
        let sources = NatsSources::open(vec![(settings, Arc::clone(&taker) as _)]);
        taker.until_here().await;
        publish_event(&server, "amends.orders.a", ids[ids.len() - 1]).await;
        taker.until_came(ids).await;
        sources.stop().await;
    }

    let jetstream = jetstream::new(server.client().await);
    let stream = jetstream.get_stream("AMENDS").await.unwrap();
    let ack_policy = jetstream::consumer::AckPolicy::None;
    let durable_name = Some("foreign".to_owned());
    let config =
        jetstream::consumer::pull::Config { durable_name, ack_policy, ..Default::default() };
    stream.create_consumer(config).await.unwrap();
    let taker = Arc::new(Taker::default());
    let settings = NatsSourceSettings { consumer: "foreign".to_owned(), ..source(&server) };
    let sources = NatsSources::open(vec![(settings, Arc::clone(&taker) as _)]);
    taker.until_away("ack policy").await;
    sources.stop().await;
}

#[test]
fn names_and_subjects_of_a_source() {
    let is_name = NatsSourceSettings::is_name;
    assert!(is_name("ORDERS") && is_name("amends-orders_1"));
    for bad in ["", "a.b", "a b", "*", ">", "é"] {
        assert!(!is_name(bad), "{bad}");
    }
    let is_filter = NatsSourceSettings::is_filter;
    for good in ["orders", "orders.>", ">", "*.placed", "shop.*.orders.>"] {
        assert!(is_filter(good), "{good}");
    }
    for bad in ["", ".", "orders.", "a.>.b", "or>", "a b", "a*"] {
        assert!(!is_filter(bad), "{bad}");
    }
}
