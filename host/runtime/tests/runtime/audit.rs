//! What a host with access control records of who asks.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::{Definition, Event, SagaEvent, SagaId, StepKind, Version, WaitSpec};
use amends_runtime::{
    AccessSettings, AuditEntry, AuditError, AuditFact, Host, Principal, Role, RuntimeConfig,
    Stream, check_audit,
};

use crate::place::{Place, ada, definition, request, step};

/// `gate` waits for a signal that never comes.
fn gate() -> Vec<Definition> {
    let wait = WaitSpec { signal: "approved".parse().unwrap(), timeout: None };
    vec![definition("gate", vec![step("gate", StepKind::Wait { wait })])]
}

fn with_access() -> RuntimeConfig {
    let access = Some(AccessSettings { admin_token: None, proxy: None });
    RuntimeConfig { access, ..RuntimeConfig::default() }
}

/// Who started a saga, as its log says it.
async fn who(host: &Host, saga: SagaId) -> Option<String> {
    let events = host.events(Stream::Saga(saga), Version(0), 1).await.unwrap();
    let started = Event::decode(&events[0].kind, &events[0].data).unwrap();
    let Event::Saga(SagaEvent::Started(started)) = &started else { panic!("{started:?}") };
    started.who.clone()
}

#[tokio::test]
async fn a_start_has_who_started_it_with_access_control_alone() {
    let shop = Principal::of_token("shop@10.0.0.7", &[Role::Service]);
    for (config, expected) in
        [(with_access(), Some("shop@10.0.0.7")), (RuntimeConfig::default(), None)]
    {
        let place = Place::new();
        let host = place.run(place.store(), gate(), config).await;
        let plain = host.start(&shop, request("gate")).await.unwrap().id;
        let here = host.start_here(&shop, request("gate")).await.unwrap().id;
        let waited = host.start_and_wait(&shop, request("gate"), Duration::from_millis(1)).await;
        for saga in [plain, here, waited.unwrap().0.id] {
            assert_eq!(who(&host, saga).await.as_deref(), expected);
        }
        host.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_was_recorded_is_there_when_the_host_comes_back() {
    let place = Place::new();
    let host = place.run(place.store(), gate(), with_access()).await;
    let address = IpAddr::from([10, 0, 0, 7]);
    let entry = AuditEntry {
        who: "ada@10.0.0.7".to_owned(),
        token: Some("k3Jq9ZbX0a".to_owned()),
        roles: vec!["operator".to_owned()],
        address,
        operation: Some("cancel_saga".to_owned()),
        target: "/v1/sagas/7/cancel".to_owned(),
        status: Some(409),
        code: Some("wrong_state".to_owned()),
    };
    host.audit(entry.clone()).await.unwrap();
    for _ in 0..12 {
        host.count_refused(address, "token_missing");
    }
    host.close().await.unwrap();

    let store = place.store();
    let host = place.run(Arc::clone(&store), gate(), with_access()).await;
    let events = host.audit_events(None, 10).await.unwrap();
    let [recorded, refused] = &events[..] else { panic!("{events:?}") };
    let AuditFact::Recorded(recorded) = &recorded.fact else { panic!("{recorded:?}") };
    assert_eq!(recorded.entry, entry);
    let AuditFact::Refused(refused) = &refused.fact else { panic!("{refused:?}") };
    assert_eq!((refused.address.as_str(), refused.count), ("10.0.0.7", 12));
    host.audit(entry).await.unwrap();
    let check = check_audit(&*store).await.unwrap();
    assert_eq!((check.finding(), check.entries()), (None, 3));
    host.close().await.unwrap();
}

#[tokio::test]
async fn a_host_without_access_control_has_no_audit() {
    let place = Place::new();
    let host = place.run(place.store(), gate(), RuntimeConfig::default()).await;
    assert!(matches!(host.audit_events(None, 10).await, Err(AuditError::Off)));
    host.count_refused(IpAddr::from([10, 0, 0, 7]), "token_missing");
    host.start(&ada(), request("gate")).await.unwrap();
    host.close().await.unwrap();
    let check = check_audit(&*place.store()).await.unwrap();
    assert_eq!((check.finding(), check.entries()), (None, 0));
}
