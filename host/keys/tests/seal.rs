//! What is sealed, where it opens, and that no key means no value.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

use std::sync::Arc;

use amends_engine::{
    Definition, Emitted, Event, Failure, FailureClass, OperatorNoted, OperatorResolved,
    OperatorRetried, Payload, Saga, SagaId, SagaMarked, SealedKey, Start, StepExpanded, StepFailed,
    StepName, StepSucceeded, SubjectKeyId, Timestamp, Version, evolve, start,
};
use amends_keys::{DataKey, ErasedBefore, FoundKey, Keys, PendingKey, Sealer, open_event};
use serde_json::{Value, json};

const NAME: &str = "Ada Byron-Vexley";

fn definition() -> Arc<Definition> {
    let retry = json!({"attempts": 1, "backoff": {"listed": []}});
    let step = |name: &str, kind: Value| {
        let mut step = json!({"name": name, "after": [], "timeout": 1000, "retry": retry});
        step.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
        step
    };
    let spec = json!({
        "name": "order",
        "subject": "input.customer",
        "personal": ["input.name", "input.lines.to", "input.phone", "steps.pay.output.account"],
        "steps": [step("pay", json!({"plugin": "pay"}))],
    });
    Arc::new(Definition::from_canonical(&spec.to_string()).unwrap())
}

fn saga(id: u8) -> (Saga, Vec<Event>) {
    let input = json!({
        "customer": "c-81", "name": NAME, "phone": 436_641_234_567_u64, "count": 1.50,
        "lines": [{"to": {"street": "Kirchengasse 47"}, "by": "van"}, {"to": null}],
    });
    start(
        Timestamp::from_millis(1),
        Start {
            id: SagaId::from_bytes([id; 16]),
            definition: definition(),
            input: Payload::parse(&input.to_string()).unwrap(),
            key: None,
            tags: [("name".to_owned(), NAME.to_owned())].into(),
            traceparent: None,
            start_at: None,
            parent: None,
            sealed_key: None,
            who: None,
            personal: Vec::new(),
        },
    )
}

async fn key(keys: &Keys, id: u8) -> (DataKey, SealedKey) {
    let id = SagaId::from_bytes([id; 16]);
    let seal = keys.begin("c-81", id, None, Timestamp::from_millis(1)).await.unwrap();
    (seal.key, seal.sealed)
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn failed(message: &str) -> Event {
    let mut error = Failure::new("no", message);
    error.details = Some(Payload::parse(&json!({"said": [message, "plain"]}).to_string()).unwrap());
    StepFailed {
        step: "pay".parse().unwrap(),
        attempt: 1,
        class: FailureClass::Permanent,
        error,
        retry_at: None,
        probe: None,
    }
    .into()
}

fn step(name: &str) -> amends_engine::StepName {
    name.parse().unwrap()
}

/// Events with values that nothing was told of.
fn unknown_values() -> Vec<Event> {
    let payload = |value: Value| Payload::parse(&value.to_string()).unwrap();
    let retried = OperatorRetried {
        who: "ada".to_owned(),
        reason: "the ZIP code was wrong".to_owned(),
        step: step("pay"),
        input: Some(payload(json!({"street": "Neue Gasse 9"}))),
        new_key: true,
        digest: None,
    };
    let resolved = OperatorResolved {
        who: "ada".to_owned(),
        reason: "found by hand".to_owned(),
        step: step("pay"),
        happened: true,
        output: None,
        evidence: "Ada paid in cash".to_owned(),
    };
    let items = vec![payload(json!("HIV")), payload(json!({"code": true})), payload(json!([7]))];
    vec![retried.into(), resolved.into(), StepExpanded { step: step("pay"), items }.into()]
}

#[tokio::test]
async fn what_the_host_cannot_look_through_is_sealed_whole() {
    let keys = Keys::in_memory().unwrap();
    let (key, _) = key(&keys, 1).await;
    let (saga, _) = saga(1);
    let mut events = unknown_values();
    events.push(failed("nobody lives in Neue Gasse 9"));
    let sealer = Sealer::new(&saga, &events, Some(&key));
    for (event, version) in events.iter().zip(1..) {
        let version = Version(version);
        let stored = sealer.data(version, event);
        for secret in ["Neue Gasse", "street", "cash", "HIV", "code\":true", "[7]"] {
            assert!(!stored.contains(secret), "{stored}");
        }
        let opened = open_event((saga.id(), version), &event.kind(), &stored, Some(&key)).unwrap();
        assert_eq!(value(&opened), value(&event.data()));
    }
    // The reason is readable, and so is everything that is no value.
    let retried = value(&sealer.data(Version(1), &events[0]));
    assert_eq!(retried["reason"], "the ZIP code was wrong");
}

/// The host's own errors have values as JSON writes them, and cut.
#[tokio::test]
async fn a_value_is_found_as_json_writes_it_and_by_its_beginning() {
    let keys = Keys::in_memory().unwrap();
    let (key, _) = key(&keys, 1).await;
    let (saga, _) = saga(1);
    let long = format!("Kirchengasse 47\n\"Hinterhaus\" {}", "x".repeat(600));
    let edited = OperatorRetried {
        who: "ada".to_owned(),
        reason: "moved".to_owned(),
        step: step("pay"),
        input: Some(Payload::parse(&json!({"to": long, "sum": 1234.50}).to_string()).unwrap()),
        new_key: true,
        digest: None,
    };
    let written = json!(long).to_string();
    for message in [&written[..100], &long[..80], "it was 1234.5"] {
        let events = [edited.clone().into(), failed(message)];
        let sealer = Sealer::new(&saga, &events, Some(&key));
        let stored = sealer.data(Version(2), &events[1]);
        assert!(!stored.contains("Hinterhaus") && !stored.contains("1234.5"), "{stored}");
    }
}

#[test]
fn an_erased_saga_keeps_nothing_that_others_answer() {
    let (saga, _) = saga(1);
    let output = Payload::parse(&json!({"refund": "to Ada"}).to_string()).unwrap();
    let data = output.clone();
    let events = [
        StepSucceeded { step: step("pay"), attempt: 1, output, probe: None }.into(),
        failed("Ada is not known"),
        Emitted { kind: "order.paid".parse().unwrap(), data }.into(),
    ];
    let sealer = Sealer::of_erased(&saga, &events);
    for (event, version) in events.iter().zip(1..) {
        let stored = sealer.data(Version(version), event);
        assert!(!stored.contains("Ada") && stored.contains("[erased]"), "{stored}");
        assert_eq!(Event::decode(&event.kind(), &stored).unwrap().kind(), event.kind());
    }
}

#[tokio::test]
async fn a_second_order_finds_the_erasure_that_is_under_way() {
    let keys = Keys::in_memory().unwrap();
    let (data_key, sealed) = key(&keys, 1).await;
    let at = Timestamp::from_millis(5);
    let order = || keys.retire("c-81", "ada".to_owned(), "request".to_owned(), at);
    let first = order().await.unwrap().unwrap();
    assert_eq!(order().await.unwrap(), Some(first), "it has begun");
    let pending = PendingKey { saga: SagaId::from_bytes([1; 16]), key: data_key, until: None };
    keys.finish(first, 0, vec![pending]).await.unwrap();
    keys.recorded(first).await.unwrap();
    assert_eq!(order().await.unwrap(), Some(first), "a saga waits");
    keys.settle(vec![SagaId::from_bytes([1; 16])], Vec::new()).await.unwrap();
    assert_eq!(order().await.unwrap(), None, "it is over");
    let saga = SagaId::from_bytes([1; 16]);
    assert_eq!(keys.data_key(saga, &sealed).await.unwrap(), FoundKey::Erased);
}

/// As when the key file comes back from a backup.
#[tokio::test]
async fn an_erasure_of_the_log_is_done_again() {
    let keys = Keys::in_memory().unwrap();
    let (_, sealed) = key(&keys, 1).await;
    let saga = SagaId::from_bytes([1; 16]);
    let other = SealedKey { subject_key: SubjectKeyId::from_bytes([9; 16]), ..sealed.clone() };
    assert_eq!(keys.data_key(saga, &other).await.unwrap(), FoundKey::Missing);
    let before = |id| ErasedBefore {
        subject_key: id,
        at: Timestamp::from_millis(7),
        who: "ada".to_owned(),
        reason: "request".to_owned(),
    };
    let all = || vec![before(sealed.subject_key), before(other.subject_key)];
    assert_eq!(keys.erased_before(all()).await.unwrap(), 1);
    assert_eq!(keys.data_key(saga, &other).await.unwrap(), FoundKey::Erased);
    let begun = keys.begun().await.unwrap();
    assert_eq!(begun.iter().map(|one| one.subject_key).collect::<Vec<_>>(), [sealed.subject_key]);
    keys.finish(sealed.subject_key, 1, Vec::new()).await.unwrap();
    assert_eq!(keys.data_key(saga, &sealed).await.unwrap(), FoundKey::Erased);
    assert_eq!(keys.erased_before(all()).await.unwrap(), 0);
}

#[tokio::test]
async fn values_are_sealed_wherever_they_stand_and_open_again() {
    let keys = Keys::in_memory().unwrap();
    let (key, _) = key(&keys, 1).await;
    let (saga, mut events) = saga(1);
    let output =
        json!({"account": {"iban": "AT61 1904"}, "copy": NAME, "dial": 436_641_234_567_u64});
    events.push(
        StepSucceeded {
            step: "pay".parse().unwrap(),
            attempt: 1,
            output: Payload::parse(&output.to_string()).unwrap(),
            probe: None,
        }
        .into(),
    );
    events.push(failed(&format!("{NAME} is not known")));
    events.push(failed("call 436641234567, not AT61 1904"));
    let data = json!([{NAME: 1}, "plain", {"to": "Kirchengasse 47, 2nd floor"}]);
    let data = Payload::parse(&data.to_string()).unwrap();
    events.push(Emitted { kind: "order.paid".parse().unwrap(), data }.into());
    let noted = OperatorNoted { who: "ada".to_owned(), reason: format!("told {NAME}") };
    events.push(noted.into());
    let sealer = Sealer::new(&saga, &events, Some(&key));
    for (at, event) in events.iter().enumerate() {
        let version = Version(at as u64 + 1);
        let stored = sealer.data(version, event);
        let opened = |key| open_event((saga.id(), version), &event.kind(), &stored, key);
        for secret in ["Kirchengasse", "436641234567", "AT61 1904"] {
            assert!(!stored.contains(secret), "{stored}");
        }
        // A tag has it, and nothing else.
        assert_eq!(stored.matches(NAME).count(), usize::from(at == 0), "{stored}");
        // What is sealed can be read as the event that it is.
        assert_eq!(Event::decode(&event.kind(), &stored).unwrap().kind(), event.kind());
        match opened(Some(&key)) {
            Some(opened) => assert_eq!(value(&opened), value(&event.data())),
            None => assert_eq!(stored, event.data()),
        }
        if let Some(erased) = opened(None) {
            assert!(erased.contains("[erased]") && !erased.contains("amends:sealed"), "{erased}");
        }
    }
    let started = value(&sealer.data(Version(1), &events[0]));
    assert_eq!(started["input"]["count"], 1.5);
    assert_eq!(started["input"]["customer"], "c-81");
    assert_eq!(started["input"]["lines"][0]["by"], "van");
    assert_eq!(started["input"]["lines"][1]["to"], Value::Null);
    let error = value(&sealer.data(Version(9), &failed(NAME)))["error"].clone();
    assert_eq!((&error["code"], &error["details"]["said"][1]), (&json!("no"), &json!("plain")));
}

/// Components mark places beside those that the definition names: at the start, and later.
#[tokio::test]
async fn places_that_components_mark_are_sealed_too() {
    let keys = Keys::in_memory().unwrap();
    let (key, _) = key(&keys, 1).await;
    let (mut saga, mut events) = saga(1);
    let places = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let marked = SagaMarked { personal: places(&["input.count", "steps.pay.input.to"]) };
    let step: StepName = "pay".parse().unwrap();
    let retried = OperatorRetried {
        who: "ada".to_owned(),
        reason: "moved to Linzer Strasse 1".to_owned(),
        step,
        input: Some(Payload::parse(r#"{"to":"Linzer Strasse 1","by":"van"}"#).unwrap()),
        new_key: true,
        digest: None,
    };
    evolve(&mut saga, Timestamp::from_millis(2), &marked.clone().into()).unwrap();
    events.extend([marked.into(), retried.into()]);
    let sealer = Sealer::new(&saga, &events, Some(&key));
    let data = |at: usize| value(&sealer.data(Version(at as u64 + 1), &events[at]));
    let is_sealed =
        |value: &Value| value.as_str().is_some_and(|it| it.starts_with("amends:sealed"));
    assert!(is_sealed(&data(0)["input"]["count"]), "{}", data(0));
    let (last, marks) = (events.len() - 1, events.len() - 2);
    // What an operator edits is sealed whole.
    assert!(is_sealed(&data(last)["input"]), "{}", data(last));
    assert!(is_sealed(&data(last)["reason"]), "{}", data(last));
    assert_eq!(data(marks)["personal"][1], "steps.pay.input.to");
}

#[tokio::test]
async fn a_value_opens_only_in_its_place() {
    let keys = Keys::in_memory().unwrap();
    let (key, _) = key(&keys, 1).await;
    let (saga, events) = saga(1);
    let sealer = Sealer::new(&saga, &events, Some(&key));
    let stored = sealer.data(Version(1), &events[0]);
    let open = |id, version, data: &str| {
        open_event(
            (SagaId::from_bytes([id; 16]), Version(version)),
            "saga.started",
            data,
            Some(&key),
        )
        .unwrap()
    };
    assert!(open(1, 1, &stored).contains("Kirchengasse"));
    // Another event, another saga, another field: it stays sealed.
    assert!(!open(1, 2, &stored).contains("Kirchengasse"));
    assert!(!open(2, 1, &stored).contains("Kirchengasse"));
    let mut moved = value(&stored);
    let name = moved["input"]["name"].take();
    moved["input"]["count"] = name;
    assert!(!open(1, 1, &moved.to_string()).contains(&format!("\"count\":\"{NAME}")));
}

#[tokio::test]
async fn a_forged_prefix_is_a_text_like_any_other() {
    let keys = Keys::in_memory().unwrap();
    let (key, _) = key(&keys, 1).await;
    let (saga, events) = saga(1);
    let sealer = Sealer::new(&saga, &events, Some(&key));
    let stored = value(&sealer.data(Version(1), &events[0]));
    let forged = stored["input"]["name"].as_str().unwrap();
    for text in [forged, "amends:sealed:1:", "amends:sealed:9:%%"] {
        let event = Event::from(OperatorNoted { who: "x".to_owned(), reason: text.to_owned() });
        let data = sealer.data(Version(2), &event);
        assert!(!data.contains(text) || text == "amends:sealed:1:", "{data}");
        let opened = open_event((saga.id(), Version(2)), "operator.noted", &data, Some(&key));
        assert_eq!(value(&opened.unwrap())["reason"], text);
    }
}

#[tokio::test]
async fn a_payload_that_grows_too_large_is_sealed_as_a_whole() {
    let keys = Keys::in_memory().unwrap();
    let (key, _) = key(&keys, 1).await;
    let (saga, mut events) = saga(1);
    let many = vec![NAME; 40_000];
    let output = Payload::from_value(&json!({"copies": many})).unwrap();
    let step = "pay".parse().unwrap();
    events.push(StepSucceeded { step, attempt: 1, output, probe: None }.into());
    let sealer = Sealer::new(&saga, &events, Some(&key));
    let event = events.last().unwrap();
    let stored = sealer.data(Version(2), event);
    assert!(Event::decode(&event.kind(), &stored).is_ok());
    let opened = open_event((saga.id(), Version(2)), &event.kind(), &stored, Some(&key)).unwrap();
    assert_eq!(opened, event.data());
}

#[tokio::test]
async fn keys_survive_the_file_and_go_with_an_erasure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("amends.db-keys");
    let id = |id: u8| SagaId::from_bytes([id; 16]);
    let at = Timestamp::from_millis(1);
    let keys = Keys::open(&path).unwrap();
    let (ended, sealed_ended) = key(&keys, 1).await;
    let (waits, sealed_waits) = key(&keys, 2).await;
    assert_eq!(sealed_ended.subject_key, sealed_waits.subject_key);
    assert!(Keys::open(&path).is_err(), "two have the file");
    drop(keys);

    let keys = Keys::open(&path).unwrap();
    assert_eq!(keys.data_key(id(1), &sealed_ended).await.unwrap().key(), Some(ended.clone()));
    // A data key opens for its saga alone.
    assert_eq!(keys.data_key(id(2), &sealed_ended).await.unwrap().key(), None);
    let key_id =
        keys.retire("c-81", "ann".to_owned(), "118".to_owned(), at).await.unwrap().unwrap();
    assert_eq!(keys.begun().await.unwrap().len(), 1);
    let pending = vec![PendingKey { saga: id(2), key: waits.clone(), until: Some(at) }];
    keys.finish(key_id, 1, pending).await.unwrap();
    drop(keys);

    let keys = Keys::open(&path).unwrap();
    assert_eq!(keys.data_key(id(1), &sealed_ended).await.unwrap().key(), None);
    assert_eq!(keys.data_key(id(2), &sealed_waits).await.unwrap().key(), Some(waits));
    let (_, again) = key(&keys, 3).await;
    assert_ne!(again.subject_key, sealed_ended.subject_key);
    let erasure = keys.erasure(key_id).await.unwrap().unwrap();
    assert_eq!((erasure.erased, erasure.waiting, erasure.still_waiting), (1, 1, 1));
    keys.settle(vec![id(2)], Vec::new()).await.unwrap();
    assert_eq!(keys.data_key(id(2), &sealed_waits).await.unwrap().key(), None);
    assert_eq!(keys.pending(None, 10).await.unwrap(), []);
    drop(keys);
    // The file names no subject.
    let bytes = std::fs::read(&path).unwrap();
    assert!(!bytes.windows(4).any(|at| at == b"c-81"));
}
