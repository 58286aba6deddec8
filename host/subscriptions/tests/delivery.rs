//! Subscriptions over a real store, to receivers that fail in every way.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod nats_server;
mod receiver;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use amends_engine::{SagaStatus, Timestamp, Version};
use amends_store::conformance::{TestStore, at, row, saga_id, start, then};
use amends_store::{Append, Cursor, Durability, SagaRow, SqliteStore, Store, Stream, ToArchive};
use amends_subscriptions::{
    AfterDeadLetter, BatchSettings, EventFilter, NatsSettings, RetrySettings, SigningSecret,
    StartFrom, SubscriptionSettings, SubscriptionStatus, Subscriptions, Target, WebhookSettings,
};
use nats_server::NatsServer;
use receiver::{Decide, Receiver, Reply, key, status};

/// How long a test waits for what must come.
const LIMIT: Duration = Duration::from_mins(1);

fn settings(receiver: &str) -> SubscriptionSettings {
    SubscriptionSettings {
        name: "billing".to_owned(),
        target: webhook(receiver, Duration::from_secs(5)),
        filter: EventFilter::default(),
        from: StartFrom::Start,
        source: "/amends".to_owned(),
        batch: BatchSettings::default(),
        retry: RetrySettings::default(),
    }
}

fn webhook(receiver: &str, timeout: Duration) -> Target {
    Target::Webhook(WebhookSettings {
        url: WebhookSettings::parse_url(receiver).unwrap(),
        secrets: vec![SigningSecret::parse(&format!("whsec_{}", "A".repeat(32))).unwrap()],
        timeout,
    })
}

fn open_store(folder: &Path) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(&folder.join("amends.db"), Durability::Relaxed).unwrap())
}

/// Appends `rounds` events to each of `sagas` sagas, the sagas in turn. Returns the subjects and versions.
async fn fill(store: &Arc<dyn Store>, sagas: u32, rounds: u64) -> BTreeSet<(String, u64)> {
    let store = TestStore::of(Arc::clone(store)).await.unwrap();
    let mut all = BTreeSet::new();
    for round in 0..rounds {
        let appends = (0..sagas).map(|saga| match round {
            0 => start(saga),
            round if round + 1 == rounds => {
                let row = SagaRow {
                    status: SagaStatus::Completed,
                    ended_at: Some(at(saga)),
                    ..row(saga)
                };
                Append { row: Some(row), ..then(saga, round) }
            }
            round => then(saga, round),
        });
        let appends: Vec<_> = appends.collect();
        for append in &appends {
            let Stream::Saga(id) = append.stream else { panic!("it is a saga") };
            all.insert((id.to_string(), round + 1));
        }
        let appends: Vec<_> = appends.into_iter().map(|append| store.append(append)).collect();
        for append in appends {
            append.await.unwrap();
        }
    }
    all
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn only(subscriptions: &Subscriptions) -> SubscriptionStatus {
    subscriptions.list().remove(0)
}

/// Nothing is missing, and the first deliveries of each saga's events are in order.
fn check(events: &[(String, u64)], all: &BTreeSet<(String, u64)>) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for (subject, version) in events {
        let last = last.entry(subject).or_default();
        assert!(*version <= *last + 1, "{subject}: {version} came after {last}");
        *last = (*last).max(*version);
    }
    let came: BTreeSet<_> = events.iter().cloned().collect();
    assert_eq!(&came, all);
}

/// One request in five fails, and the receiver is down for a while.
#[tokio::test]
async fn delivers_everything_in_order_to_a_receiver_that_fails() {
    let count = AtomicUsize::new(0);
    let receiver = Receiver::new(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        40..60 => status("503 Service Unavailable"),
        count if count % 5 == 4 => status("500 Internal Server Error"),
        _ => status("204 No Content"),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let store = open_store(folder.path());
    let all = fill(&store, 20, 3).await;
    let mut settings = settings(&receiver.url);
    settings.retry.pause_max = Duration::from_secs(1);
    let subscriptions = Subscriptions::open(vec![settings], Arc::clone(&store)).await.unwrap();
    until("the end", || only(&subscriptions).lag_events == 0).await;
    check(&receiver.events(), &all);
    let accepted = receiver.accepted.lock().unwrap();
    let ids: BTreeSet<_> = accepted.iter().map(|came| came.headers["webhook-id"].clone()).collect();
    assert_eq!(ids.len(), all.len(), "each event has one id");
    for came in accepted.iter() {
        let event = &came.events()[0];
        assert_eq!(came.headers["content-type"], "application/cloudevents+json");
        assert_eq!(came.headers["webhook-id"], event["id"].as_str().unwrap());
        assert!(came.headers["webhook-signature"].starts_with("v1,"));
        assert_eq!(event["definition"], "order-fulfillment");
    }
}

/// Of two hosts of one store, the one whose turn it is delivers. The other one goes on from where it came.
#[tokio::test]
async fn hosts_deliver_in_turn() {
    let receiver = Receiver::new(|_| status("200 OK")).await;
    let folder = tempfile::tempdir().unwrap();
    let store = open_store(folder.path());
    let mut hosts = Vec::new();
    for is_first in [true, false] {
        let (turn, has_turn) = tokio::sync::watch::channel(is_first);
        let settings = vec![settings(&receiver.url)];
        let opened = Subscriptions::open_in_turn(settings, Arc::clone(&store), has_turn);
        hosts.push((turn, opened.await.unwrap()));
    }
    let all = fill(&store, 4, 2).await;
    until("the first part", || only(&hosts[0].1).lag_events == 0).await;
    let written_down = async |lag: u64| {
        let row = store.outbox().subscription("billing".to_owned()).await.unwrap().unwrap();
        row.cursor.events_until(*store.log().head().borrow()) == lag
    };
    while !written_down(0).await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    check(&receiver.events(), &all);
    assert_eq!(receiver.events().len(), all.len(), "the other one sends nothing");

    // Nobody has the turn, and then the other one.
    hosts[0].0.send_replace(false);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let store_of_test = TestStore::of(Arc::clone(&store)).await.unwrap();
    for saga in 4..8 {
        store_of_test.append(start(saga)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.events().len(), all.len());
    hosts[1].0.send_replace(true);
    until("the second part", || receiver.events().len() == all.len() + 4).await;
    until("the end", || only(&hosts[1].1).lag_events == 0).await;
    for (_, subscriptions) in &hosts {
        subscriptions.stop().await;
    }
    let mut events = receiver.events();
    events.sort_unstable();
    events.dedup();
    assert_eq!(events.len(), all.len() + 4, "each event came once");
}

/// What was delivered before a stop is not sent again, and nothing is left out.
#[tokio::test]
async fn goes_on_after_a_stop() {
    let receiver = Receiver::new(|_| status("200 OK")).await;
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&receiver.url);
    settings.batch.events_max = 7;
    let store = open_store(folder.path());
    let mut all = fill(&store, 10, 2).await;
    let subscriptions =
        Subscriptions::open(vec![settings.clone()], Arc::clone(&store)).await.unwrap();
    until("the end", || only(&subscriptions).lag_events == 0).await;
    subscriptions.stop().await;
    store.close().await.unwrap();
    check(&receiver.events(), &all);
    assert_eq!(receiver.events().len(), all.len());

    let store = open_store(folder.path());
    let more = TestStore::of(Arc::clone(&store)).await.unwrap();
    for saga in 0..10 {
        let append = then(saga, 2);
        let Stream::Saga(id) = append.stream else { panic!("it is a saga") };
        more.append(append).await.unwrap();
        all.insert((id.to_string(), 3));
    }
    let subscriptions =
        Subscriptions::open(vec![settings.clone()], Arc::clone(&store)).await.unwrap();
    until("the end", || only(&subscriptions).lag_events == 0).await;
    check(&receiver.events(), &all);
    assert_eq!(receiver.events().len(), all.len(), "something was sent again");
    for came in receiver.accepted.lock().unwrap().iter() {
        assert_eq!(came.headers["content-type"], "application/cloudevents-batch+json");
        assert!(came.events().len() <= 7);
    }
}

/// A receiver that does not answer holds a bounded part of the log, and neither the store nor another
/// subscription waits for it.
#[tokio::test]
async fn a_dead_receiver_slows_nobody() {
    let dead = Receiver::new(|_| Reply::Silence).await;
    let alive = Receiver::new(|_| status("200 OK")).await;
    let folder = tempfile::tempdir().unwrap();
    let store = open_store(folder.path());
    let mut of_dead = settings(&dead.url);
    of_dead.name = "dead".to_owned();
    of_dead.target = webhook(&dead.url, Duration::from_mins(5));
    let mut of_alive = settings(&alive.url);
    of_alive.batch.events_max = 100;
    let both = vec![of_dead, of_alive];
    let subscriptions = Subscriptions::open(both, Arc::clone(&store)).await.unwrap();
    // Each append is answered, although nobody takes the events.
    let all = fill(&store, 500, 10).await;
    until("the end of the other", || subscriptions.list()[1].lag_events == 0).await;
    check(&alive.events(), &all);
    assert_eq!(*dead.requests.lock().unwrap(), 16, "as many as there may be at once");
    let status = &subscriptions.list()[0];
    assert_eq!((status.lag_events, status.cursor), (5_000, Cursor::START));
    subscriptions.stop().await;
}

/// Each of them fails, says why, and costs no more than the limits.
#[tokio::test]
async fn hostile_receivers_are_failures() {
    let elsewhere = Receiver::new(|_| status("200 OK")).await;
    let to = elsewhere.url.clone();
    let head = "HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\n".to_owned();
    let cases: Vec<(Box<Decide>, &str)> = vec![
        (Box::new(|_| Reply::Silence), "no answer within"),
        (Box::new(move |_| Reply::Endless(head.clone())), "500"),
        (Box::new(|_| Reply::Endless("HTTP/1.1 200 OK\r\nbig: ".to_owned())), "too large"),
        (
            Box::new(|_| {
                let many = "a: b\r\n".repeat(200);
                Reply::Bytes(format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n"))
            }),
            "too large",
        ),
        (Box::new(|_| Reply::Bytes("SSH-2.0-OpenSSH\r\n\r\n".to_owned())), "HTTP"),
        (
            Box::new(move |_| {
                Reply::Bytes(format!(
                    "HTTP/1.1 307 Go\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"
                ))
            }),
            "redirects are not followed",
        ),
    ];
    for (decide, error) in cases {
        let receiver = Receiver::new(decide).await;
        let folder = tempfile::tempdir().unwrap();
        let store = open_store(folder.path());
        fill(&store, 1, 1).await;
        let mut settings = settings(&receiver.url);
        settings.target = webhook(&receiver.url, Duration::from_millis(500));
        let subscriptions = Subscriptions::open(vec![settings], Arc::clone(&store)).await.unwrap();
        until(error, || only(&subscriptions).last_error.is_some()).await;
        let (found, _) = only(&subscriptions).last_error.unwrap();
        assert!(found.contains(error), "{error}: {found}");
        assert!(found.len() < 400, "{found}");
        assert_eq!(only(&subscriptions).lag_events, 1);
        subscriptions.stop().await;
    }
    assert_eq!(*elsewhere.requests.lock().unwrap(), 0);
}

/// The status decides: a body without end, or that never comes, changes nothing.
#[tokio::test]
async fn an_accepted_event_is_delivered_whatever_the_body() {
    let endless = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\n".to_owned();
    let receiver = Receiver::new(move |came| match key(&came.events()[0]).1 {
        1 => Reply::Endless(endless.clone()),
        2 => Reply::Bytes("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nmore".to_owned()),
        _ => status("200 OK"),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let store = open_store(folder.path());
    let all = fill(&store, 1, 3).await;
    let settings = settings(&receiver.url);
    let subscriptions = Subscriptions::open(vec![settings], Arc::clone(&store)).await.unwrap();
    until("the end", || only(&subscriptions).lag_events == 0).await;
    assert_eq!(*receiver.requests.lock().unwrap(), all.len(), "nothing is sent again");
    assert_eq!(only(&subscriptions).last_error, None);
    subscriptions.stop().await;
}

/// A receiver that says 410 gets nothing more, also after a restart, until an operator begins again.
#[tokio::test]
async fn a_receiver_that_is_gone_gets_nothing_until_an_order() {
    let is_back = Arc::new(AtomicBool::new(false));
    let back = Arc::clone(&is_back);
    let receiver = Receiver::new(move |_| {
        status(if back.load(Ordering::Relaxed) { "200 OK" } else { "410 Gone" })
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let store = open_store(folder.path());
    let all = fill(&store, 1, 3).await;
    let settings = settings(&receiver.url);
    let subscriptions =
        Subscriptions::open(vec![settings.clone()], Arc::clone(&store)).await.unwrap();
    until("410", || only(&subscriptions).disabled.is_some()).await;
    subscriptions.stop().await;
    is_back.store(true, Ordering::Relaxed);
    let subscriptions = Subscriptions::open(vec![settings], Arc::clone(&store)).await.unwrap();
    assert!(only(&subscriptions).disabled.unwrap().contains("410"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(receiver.events(), []);
    subscriptions.redrive("billing").unwrap();
    until("the end", || only(&subscriptions).lag_events == 0).await;
    check(&receiver.events(), &all);
    assert_eq!(only(&subscriptions).disabled, None);
    subscriptions.stop().await;
}

/// Dead letters outlive a stop, go out in order when they are sent again, and are gone then.
#[tokio::test]
async fn sends_dead_letters_again() {
    for after_dead_letter in [AfterDeadLetter::GoOn, AfterDeadLetter::Hold] {
        let is_open = Arc::new(AtomicBool::new(false));
        let opened = Arc::clone(&is_open);
        // The second event of each saga is refused.
        let receiver = Receiver::new(move |came| {
            let is_second = key(&came.events()[0]).1 == 2;
            let is_refused = is_second && !opened.load(Ordering::Relaxed);
            status(if is_refused { "422 Unprocessable Content" } else { "200 OK" })
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(&receiver.url);
        settings.retry.attempts_max = 1;
        settings.retry.after_dead_letter = after_dead_letter;
        let store = open_store(folder.path());
        let all = fill(&store, 5, 3).await;
        let subscriptions =
            Subscriptions::open(vec![settings.clone()], Arc::clone(&store)).await.unwrap();
        until("the end", || only(&subscriptions).lag_events == 0).await;
        let (dead, came) = match after_dead_letter {
            AfterDeadLetter::GoOn => (5, 10),
            AfterDeadLetter::Hold => (10, 5),
        };
        assert_eq!(only(&subscriptions).dead_letters, dead);
        assert_eq!(receiver.events().len(), came);
        subscriptions.stop().await;
        // Those of an archived saga are sent again as well.
        let saga = ToArchive { id: saga_id(2), version: Version(3), after: None, is_late: false };
        assert_eq!(store.archive().archive(vec![saga]).await.unwrap().sagas, 1);
        store.close().await.unwrap();

        let store = open_store(folder.path());
        let subscriptions = Subscriptions::open(vec![settings], Arc::clone(&store)).await.unwrap();
        assert_eq!(only(&subscriptions).dead_letters, dead);
        is_open.store(true, Ordering::Relaxed);
        assert_eq!(subscriptions.redrive("another"), None);
        assert!(subscriptions.redrive("billing").unwrap().is_redriving);
        until("the redrive", || !only(&subscriptions).is_redriving).await;
        assert_eq!(only(&subscriptions).dead_letters, 0);
        let events = receiver.events();
        assert_eq!(events.len(), all.len());
        if after_dead_letter == AfterDeadLetter::Hold {
            check(&events, &all);
        }
        subscriptions.stop().await;
        let row = store.outbox().subscription("billing".to_owned()).await.unwrap().unwrap();
        assert_eq!(row.dead_letters, 0);
    }
}

#[tokio::test]
async fn sends_what_is_wanted_from_where_it_is_wanted() {
    let receivers =
        [Receiver::new(|_| status("200 OK")).await, Receiver::new(|_| status("200 OK")).await];
    let folder = tempfile::tempdir().unwrap();
    let store = open_store(folder.path());
    let before = fill(&store, 3, 1).await;
    let mut now = settings(&receivers[0].url);
    (now.name, now.from) = ("now".to_owned(), StartFrom::Now);
    let mut some = settings(&receivers[1].url);
    some.filter.definitions = vec!["no-such-saga".to_owned()];
    let subscriptions = Subscriptions::open(vec![now, some], Arc::clone(&store)).await.unwrap();
    let shards = TestStore::of(Arc::clone(&store)).await.unwrap();
    // Of no saga.
    let stream = Stream::Service("carrier".parse().unwrap());
    shards.append(Append { stream, row: None, ..start(7) }).await.unwrap();
    until("the end", || subscriptions.list().iter().all(|status| status.lag_events == 0)).await;
    assert_eq!(receivers[0].events(), [("service/carrier".to_owned(), 1)], "{before:?}");
    assert_eq!(receivers[1].events(), []);
    subscriptions.stop().await;
}

fn nats(server: &NatsServer) -> SubscriptionSettings {
    let target = Target::Nats(NatsSettings {
        server: NatsSettings::parse_server(&server.url()).unwrap(),
        subject: "amends".to_owned(),
        credentials: None,
        timeout: Duration::from_secs(5),
    });
    SubscriptionSettings { target, ..settings("http://127.0.0.1:9") }
}

async fn until_error(subscriptions: &Subscriptions, words: &str) {
    until(words, || only(subscriptions).last_error.is_some_and(|(error, _)| error.contains(words)))
        .await;
    assert!(only(subscriptions).is_away);
}

/// The server is not there, then it has no stream, then it is killed while it takes the events.
#[tokio::test]
async fn a_stream_of_nats_has_every_event_once_and_in_order() {
    let Some(mut server) = NatsServer::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let store = open_store(folder.path());
    let all = fill(&store, 200, 20).await;
    let subscriptions = Subscriptions::open(vec![nats(&server)], Arc::clone(&store)).await.unwrap();
    until_error(&subscriptions, "refused").await;
    server.start(&[]);
    until("the missing stream is named", || {
        let error = only(&subscriptions).last_error.map(|(error, _)| error);
        error.is_some_and(|error| {
            error.contains("no stream of the server takes the subject amends.")
        })
    })
    .await;
    server.make_stream().await;
    while server.count().await == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.kill();
    assert!(only(&subscriptions).lag_events > 0, "it was not killed in time");
    until_error(&subscriptions, "no connection").await;
    server.start(&[]);
    until("the rest", || only(&subscriptions).lag_events == 0).await;
    assert_eq!(only(&subscriptions).dead_letters, 0);
    subscriptions.stop().await;

    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for (subject, id, body) in server.messages().await {
        assert!(subject.starts_with("amends."), "{subject}");
        assert!(subject.ends_with(body["type"].as_str().unwrap()), "{subject}");
        let at: Timestamp = body["time"].as_str().unwrap().parse().unwrap();
        let expected = format!("/amends/{}/{}", body["id"].as_str().unwrap(), at.as_millis());
        assert_eq!(id, expected);
        let (saga, version) = key(&body);
        let before = seen.insert(saga.clone(), version).unwrap_or(0);
        assert_eq!(version, before + 1, "out of order, or twice");
        found.insert((saga, version));
    }
    assert_eq!(found, all);
}

#[tokio::test]
async fn nats_says_why_it_takes_nothing() {
    let Some(mut server) = NatsServer::new() else { return };
    server.start(&["--auth", "a-token"]);
    let folder = tempfile::tempdir().unwrap();
    let store = open_store(folder.path());
    fill(&store, 1, 1).await;
    let subscriptions = Subscriptions::open(vec![nats(&server)], Arc::clone(&store)).await.unwrap();
    until_error(&subscriptions, "authorization violation").await;
    assert_eq!(only(&subscriptions).target, format!("{} amends.>", server.url()));
    subscriptions.stop().await;
}

#[test]
fn the_address_of_a_nats_server_has_no_secret() {
    for good in ["nats://127.0.0.1", "tls://nats.example.com:4223", "nats://[::1]:4222"] {
        NatsSettings::parse_server(good).unwrap();
    }
    for bad in ["", "127.0.0.1", "http://a", "ws://a", "nats://", "nats://ada:x@a", "nats://t@a"] {
        assert!(NatsSettings::parse_server(bad).is_err(), "{bad}");
    }
    let is_subject = NatsSettings::is_subject;
    assert!(is_subject("amends") && is_subject("shop.amends-1.a_b"));
    let long = "a".repeat(101);
    for bad in ["", ".a", "a.", "a..b", "a b", "a.*", ">", "$JS", "é", &long] {
        assert!(!is_subject(bad), "{bad}");
    }
}
