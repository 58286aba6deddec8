//! Which sagas leave the store for the archive, and what becomes of whoever asks for one that did.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::{
    Definition, DefinitionSpec, Digest, Payload, RetrySpec, SagaId, SagaStatus, SignalName,
    StepKind, StepSpec, Timestamp, UndoSpec, Verb, Version, WaitSpec,
};
use amends_registry::now;
use amends_runtime::{
    ArchivePassError, Host, OperateError, Retention, RuntimeConfig, StartRequest, Stream,
};
use amends_store::{Append, BlobKind, NewEvent, Store};
use amends_subscriptions::{
    BatchSettings, EventFilter, RetrySettings, StartFrom, SubscriptionSettings, Target,
    WebhookSettings,
};
use amends_tests::Component;

use crate::place::{Place, SOON, ada, definition, request, start, step, until_some};

const HOUR: Duration = Duration::from_hours(1);

fn approved() -> SignalName {
    "approved".parse().unwrap()
}

/// One step with an undo.
fn call() -> StepSpec {
    let plugin = "test".parse().ok();
    let undo = UndoSpec { plugin, timeout: SOON, retry: RetrySpec::default() };
    let kind = StepKind::Call { plugin: "test".parse().unwrap(), service: None };
    StepSpec { undo: Some(undo), ..step("call", kind) }
}

/// `order` and `kept` make a call. `open` does, and may be compensated for an hour. `gate` waits for a
/// signal. `family` runs an `order`, then waits for a signal.
fn definitions() -> Vec<Definition> {
    let wait = || StepKind::Wait { wait: WaitSpec { signal: approved(), timeout: None } };
    let open = DefinitionSpec {
        name: "open".parse().unwrap(),
        deadline: None,
        compensate_within: Some(HOUR),
        index: std::collections::BTreeMap::new(),
        subject: None,
        personal: Vec::new(),
        steps: vec![call()],
    };
    let undo = UndoSpec { plugin: None, timeout: SOON, retry: RetrySpec::default() };
    let child = StepKind::Saga { saga: "order".parse().unwrap() };
    let after = vec!["child".parse().unwrap()];
    let family = vec![
        StepSpec { undo: Some(undo), ..step("child", child) },
        StepSpec { after, ..step("wait", wait()) },
    ];
    vec![
        definition("order", vec![call()]),
        definition("kept", vec![call()]),
        Definition::new(open).unwrap(),
        definition("gate", vec![step("wait", wait())]),
        definition("family", family),
    ]
}

fn config() -> RuntimeConfig {
    let keep = [("kept".parse().unwrap(), HOUR)].into();
    let retention = Retention { store: Duration::from_millis(1), keep };
    RuntimeConfig { retention: Some(retention), ..RuntimeConfig::default() }
}

async fn ended(host: &Host, id: SagaId) -> SagaStatus {
    let state = host.wait(id, SOON).await.unwrap().unwrap();
    let why = amends_engine::why(&state.saga, state.now);
    assert!(state.saga.has_ended(), "{}; {:?}", why.sentence, state.stalls);
    state.saga.status()
}

async fn is_archived(host: &Host, id: SagaId) -> bool {
    let state = host.state(id).await.unwrap().unwrap();
    assert_eq!(state.is_archived, host.saga(id).await.unwrap().is_none());
    state.is_archived
}

/// A host whose sagas are past their retention as soon as they have ended.
async fn host() -> (Place, Host) {
    let place = Place::new();
    place.write("test", &Component::default().build());
    let host = place.run(place.store(), definitions(), config()).await;
    (place, host)
}

/// A component of plugin `test` for each day before today, the last of them of `days` days ago, and one
/// that serves today. Each served for a day. Returns their digests, the earliest first.
async fn served(store: &Arc<dyn Store>, days: u32) -> Vec<Digest> {
    let (mut digests, mut known) = (Vec::new(), Version(0));
    for day in (0..=days).rev() {
        let version = format!("1.0.{}", days - day);
        let bytes = Component { version: &version, ..Component::default() }.build();
        let (digest, at) = (Digest::of(&bytes), days_ago(day));
        store.blobs().put(BlobKind::Component, "test".to_owned(), digest, at, bytes).await.unwrap();
        let (component, previous) = (digest.to_string(), digests.last().map(Digest::to_string));
        let data = serde_json::json!({ "components": [{ "plugin": "test", "digest": component,
            "version": version, "previous": previous }], "cause": "deploy" });
        let events = vec![NewEvent { kind: "plugin.activated".into(), data: data.to_string() }];
        let append = Append::shared(Stream::Deploys, known, at, events);
        store.log().append_shared(append).await.unwrap();
        known = known.plus(1);
        digests.push(digest);
    }
    digests
}

fn days_ago(days: u32) -> Timestamp {
    now().before(24 * HOUR * days)
}

/// Copies the row of a saga, as if it had run some days ago.
fn copy_row(place: &Place, id: SagaId, days: u32) {
    let at = days_ago(days);
    let hex = |id: SagaId| id.as_bytes().map(|byte| format!("{byte:02x}")).concat();
    let (id, copy, at) = (hex(id), hex(SagaId::from_parts(at, &[7; 10])), at.as_millis());
    place.change(&format!(
        "INSERT INTO sagas (id, definition, definition_digest, status, started_at, ended_at)
         SELECT X'{copy}', definition, definition_digest, status, {at}, {at} FROM sagas
         WHERE id = X'{id}'"
    ));
}

#[tokio::test]
async fn components_that_nothing_needs_leave_the_store() {
    let place = Place::new();
    let store = place.store();
    let days = 15;
    let digests = served(&store, days).await;
    let keep = definitions().iter().map(|one| (one.name().clone(), 1_000 * 24 * HOUR)).collect();
    let retention = Some(Retention { store: 1_000 * 24 * HOUR, keep });
    let config = RuntimeConfig { retention, ..RuntimeConfig::default() };
    let host = place.run(Arc::clone(&store), definitions(), config.clone()).await;
    let order = start(&host, "order").await;
    assert_eq!(ended(&host, order).await, SagaStatus::Completed);
    host.close().await.unwrap();
    copy_row(&place, order, 10);
    let store = place.store();
    let host = place.run(Arc::clone(&store), definitions(), config).await;
    // An operator may have chosen this one for a saga of today.
    assert!(store.blobs().renew(BlobKind::Component, digests[2], now()).await.unwrap());
    let pass = host.archive(&ada()).await.unwrap();
    let left = store.blobs().list(BlobKind::Component).await.unwrap();
    let left: BTreeSet<Digest> = left.into_iter().map(|row| row.digest).collect();
    let gone: Vec<_> = (0..=15).filter(|served| !left.contains(&digests[*served])).collect();
    // The last eight stay; of the others what served when the saga ran, and the hour after that.
    assert_eq!(gone, [0, 1, 3, 6, 7], "{pass:?}");
    assert_eq!(pass.components.count, 5, "{pass:?}");
    assert_eq!(host.archive(&ada()).await.unwrap().components.count, 0);
    let plugin = "test".parse().unwrap();
    let went = host.rollback(&ada(), &plugin, Some(digests[0]), "try".to_owned(), false).await;
    let message = went.unwrap_err().to_string();
    assert!(message.contains("is not in the store"), "{message}");
    host.rollback(&ada(), &plugin, Some(digests[2]), "try".to_owned(), false).await.unwrap();
}

#[tokio::test]
async fn only_sagas_that_nobody_may_need_are_archived() {
    let (_place, host) = host().await;
    let (order, kept) = (start(&host, "order").await, start(&host, "kept").await);
    let (open, gate) = (start(&host, "open").await, start(&host, "gate").await);
    let family = start(&host, "family").await;
    for id in [order, kept, open] {
        assert_eq!(ended(&host, id).await, SagaStatus::Completed);
    }
    let child = until_some("the child has ended", || async {
        let state = host.state(family).await.unwrap().unwrap();
        let child = state.saga.step(&"child".parse().unwrap())?.child?;
        host.saga(child).await.unwrap()?.ended_at.map(|_| child)
    })
    .await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let pass = host.archive(&ada()).await.unwrap();
    assert_eq!((pass.sagas, pass.segments, pass.unreadable), (1, 1, 0), "{pass:?}");
    // One may be compensated, one is the child of a saga that goes on.
    assert_eq!(pass.kept, 2, "{pass:?}");
    for (id, archived) in
        [(order, true), (kept, false), (open, false), (gate, false), (child, false)]
    {
        assert_eq!(is_archived(&host, id).await, archived, "{id}");
    }

    // The parent is compensated, and its undo reaches the child.
    let reason = "not wanted".to_owned();
    host.operate(&ada(), family, Verb::Cancel, reason).await.unwrap();
    assert_eq!(ended(&host, family).await, SagaStatus::Compensated);
    assert_eq!(ended(&host, child).await, SagaStatus::Compensated);
    tokio::time::sleep(Duration::from_millis(20)).await;
    // A child whose id is of the same millisecond may be looked at before its parent, and stays then.
    let first = host.archive(&ada()).await.unwrap();
    let second = host.archive(&ada()).await.unwrap();
    assert_eq!(first.sagas + second.sagas, 2, "{first:?} {second:?}");
    assert_eq!(second.kept, 1, "{second:?}");
    for id in [family, child] {
        assert!(is_archived(&host, id).await);
    }
    assert_eq!(host.archive(&ada()).await.unwrap().sagas, 0);
    host.close().await.unwrap();
}

#[tokio::test]
async fn an_archived_saga_is_read_and_takes_nothing() {
    let (place, host) = host().await;
    let keyed = StartRequest { key: Some("once".to_owned()), ..request("order") };
    let id = host.start(&ada(), keyed.clone()).await.unwrap().id;
    assert_eq!(ended(&host, id).await, SagaStatus::Completed);
    let before = host.state(id).await.unwrap().unwrap();
    let log = host.events(Stream::Saga(id), Version(0), 100).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(host.archive(&ada()).await.unwrap().sagas, 1);

    let state = host.state(id).await.unwrap().unwrap();
    assert!(state.is_archived && !before.is_archived);
    assert_eq!(format!("{:?}", state.saga), format!("{:?}", before.saga));
    assert_eq!(host.events(Stream::Saga(id), Version(0), 100).await.unwrap(), log);
    let part = host.events(Stream::Saga(id), Version(1), 2).await.unwrap();
    assert_eq!(part, log[1..3]);
    assert_eq!(host.events(Stream::Saga(id), state.saga.version(), 2).await.unwrap(), []);
    assert_eq!(ended(&host, id).await, SagaStatus::Completed);
    let reason = || "to see".to_owned();
    for verb in [Verb::Compensate, Verb::Cancel, Verb::Pause, Verb::Resume, Verb::Note] {
        for refused in [
            host.operate(&ada(), id, verb.clone(), reason()).await.map(|_| ()),
            host.would_operate(&ada(), id, verb.clone(), reason()).await.map(|_| ()),
        ] {
            assert!(matches!(refused, Err(OperateError::Archived(of)) if of == id), "{refused:?}");
        }
    }
    let refused = host.signal(&ada(), id, approved(), None, Payload::null()).await;
    assert!(matches!(refused, Err(OperateError::Archived(_))), "{refused:?}");
    let started = host.start(&ada(), keyed.clone()).await.unwrap();
    assert_eq!((started.id, started.created), (id, false));
    host.close().await.unwrap();

    // After a start of the host as well; and brought back it can be compensated.
    let host = place.run(place.store(), definitions(), config()).await;
    assert!(is_archived(&host, id).await);
    let (started, found) = host.start_and_wait(&ada(), keyed, SOON).await.unwrap();
    assert_eq!((started.id, started.created), (id, false));
    assert!(found.unwrap().unwrap().is_archived);
    assert!(host.bring_back(&ada(), id).await.unwrap());
    assert!(!is_archived(&host, id).await);
    host.operate(&ada(), id, Verb::Compensate, reason()).await.unwrap();
    assert_eq!(ended(&host, id).await, SagaStatus::Compensated);
    host.close().await.unwrap();
}

#[tokio::test]
async fn without_retention_nothing_is_archived() {
    let place = Place::new();
    place.write("test", &Component::default().build());
    let host = place.run(place.store(), definitions(), RuntimeConfig::default()).await;
    let id = start(&host, "order").await;
    assert_eq!(ended(&host, id).await, SagaStatus::Completed);
    let refused = host.archive(&ada()).await;
    assert!(matches!(refused, Err(ArchivePassError::NoRetention)), "{refused:?}");
    assert!(!is_archived(&host, id).await);
    host.close().await.unwrap();
}

/// A subscription that nobody answers.
fn dead(from: StartFrom) -> SubscriptionSettings {
    SubscriptionSettings {
        name: "dead".to_owned(),
        target: Target::Webhook(WebhookSettings {
            // Nothing listens on the discard port.
            url: WebhookSettings::parse_url("http://127.0.0.1:9/").unwrap(),
            secrets: Vec::new(),
            timeout: SOON,
        }),
        filter: EventFilter::default(),
        from,
        source: "/amends".to_owned(),
        batch: BatchSettings::default(),
        retry: RetrySettings::default(),
    }
}

#[tokio::test]
async fn what_a_subscription_has_not_delivered_is_not_archived() {
    let place = Place::new();
    place.write("test", &Component::default().build());
    let config = RuntimeConfig { subscriptions: vec![dead(StartFrom::Start)], ..config() };
    let host = place.run(place.store(), definitions(), config).await;
    let id = start(&host, "order").await;
    assert_eq!(ended(&host, id).await, SagaStatus::Completed);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(host.archive(&ada()).await.unwrap().sagas, 0);
    assert!(!is_archived(&host, id).await);
    host.close().await.unwrap();
}

/// The subscription begins after both sagas have ended. Then one of them gets a note.
#[tokio::test]
async fn a_saga_whose_note_is_not_delivered_is_not_archived() {
    let place = Place::new();
    place.write("test", &Component::default().build());
    let none = RuntimeConfig { retention: None, ..config() };
    let host = place.run(place.store(), definitions(), none).await;
    let (noted, other) = (start(&host, "order").await, start(&host, "order").await);
    for id in [noted, other] {
        assert_eq!(ended(&host, id).await, SagaStatus::Completed);
    }
    host.close().await.unwrap();

    let store = place.store();
    let config = RuntimeConfig { subscriptions: vec![dead(StartFrom::Now)], ..config() };
    let host = place.run(Arc::clone(&store), definitions(), config).await;
    until_some("the subscription has begun", || async {
        store.outbox().subscription("dead".to_owned()).await.unwrap()
    })
    .await;
    host.operate(&ada(), noted, Verb::Note, "for the auditor".to_owned()).await.unwrap();
    assert_eq!(host.archive(&ada()).await.unwrap().sagas, 1);
    assert!(!is_archived(&host, noted).await);
    assert!(is_archived(&host, other).await);
    host.close().await.unwrap();
}
