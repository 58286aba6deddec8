//! Who asks for a change is in every event that the change leads to, and in one line of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::{
    Definition, Payload, PluginName, RetrySpec, SagaId, ServiceName, StepKind, StepSpec,
    StepStatus, UndoSpec, Verb, WaitSpec,
};
use amends_registry::CanarySpec;
use amends_runtime::{
    BreakerSettings, Cursor, DeployRequest, Host, Principal, RuntimeConfig, StartRequest,
    StateWrite, Via,
};
use amends_tests::{Behaviour, Component};
use serde_json::Value;

use crate::place::{Place, SOON, definition, step, until_some};

/// The subject of every change of this test.
const SUBJECT: &str = "ann@192.0.2.7";

/// The lines that a host logs.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// The actions in the lines. Each line must name the subject, and the way by which it came.
    fn actions(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let action = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(
                (line["subject"].as_str(), line["via"].as_str()),
                (Some(SUBJECT), Some("http"))
            );
            line["action"].as_str().unwrap().to_owned()
        };
        text.lines().map(action).collect()
    }
}

fn plugin() -> PluginName {
    "test".parse().unwrap()
}

fn component(version: &str) -> Component<'_> {
    Component { version, ..Component::default() }
}

/// `order` waits for a signal when its step is done. So does `stuck`, and its undo always fails.
fn definitions() -> Vec<Definition> {
    let of = |plugin: &str, name| {
        let wait = WaitSpec { signal: "approved".parse().unwrap(), timeout: None };
        let call = StepKind::Call { plugin: plugin.parse().unwrap(), service: Some(carrier()) };
        let retry = RetrySpec { attempts: 1, ..RetrySpec::default() };
        let undo = Some(UndoSpec { plugin: Some(plugin.parse().unwrap()), timeout: SOON, retry });
        let after = vec!["ship".parse().unwrap()];
        let steps = vec![
            StepSpec { undo, ..step("ship", call) },
            StepSpec { after, ..step("wait", StepKind::Wait { wait }) },
        ];
        definition(name, steps)
    };
    vec![of("test", "order"), of("stuck", "stuck")]
}

fn carrier() -> ServiceName {
    "carrier".parse().unwrap()
}

/// A host, and who asks it for everything.
struct Trial {
    host: Host,
    ann: Principal,
}

impl Trial {
    async fn start(&self, definition: &str) -> SagaId {
        let request = StartRequest {
            definition: definition.to_owned(),
            input: Payload::null(),
            key: None,
            tags: BTreeMap::new(),
            traceparent: None,
            start_at: None,
        };
        let (host, ann) = (&self.host, &self.ann);
        // Both ways to start a saga.
        let id = if definition == "order" {
            host.start(ann, request).await.unwrap().id
        } else {
            host.start_and_wait(ann, request, Duration::ZERO).await.unwrap().0.id
        };
        self.until(id, "wait", StepStatus::Waiting).await;
        id
    }

    async fn until(&self, id: SagaId, step: &str, status: StepStatus) {
        until_some(&format!("{step} is {status:?}"), || async {
            let saga = self.host.state(id).await.unwrap()?.saga;
            (saga.step(&step.parse().unwrap())?.status == status).then_some(())
        })
        .await;
    }

    async fn order(&self, id: SagaId, verb: Verb) {
        self.host.operate(&self.ann, id, verb, "a test".to_owned()).await.unwrap();
    }

    async fn sagas(&self) {
        let (host, ann) = (&self.host, &self.ann);
        let id = self.start("order").await;
        self.order(id, Verb::Pause).await;
        self.order(id, Verb::Resume).await;
        self.order(id, Verb::Note).await;
        let signal = "approved".parse().unwrap();
        host.signal(ann, id, signal, None, Payload::null()).await.unwrap();
        host.wait(id, SOON).await.unwrap();
        self.order(id, Verb::Compensate).await;

        let id = self.start("order").await;
        self.order(id, Verb::Abandon).await;

        let id = self.start("stuck").await;
        self.order(id, Verb::Cancel).await;
        self.until(id, "ship", StepStatus::UndoBlocked).await;
        let step = || Some("ship".parse().unwrap());
        self.order(id, Verb::Retry { step: step(), input: None, digest: None }).await;
        self.until(id, "ship", StepStatus::UndoBlocked).await;
        let evidence = "a ticket".to_owned();
        let undo = true;
        self.order(
            id,
            Verb::Resolve { step: step(), happened: true, output: None, evidence, undo },
        )
        .await;

        let id = self.start("stuck").await;
        self.order(id, Verb::Cancel).await;
        self.until(id, "ship", StepStatus::UndoBlocked).await;
        self.order(id, Verb::Skip { step: step(), undo: true }).await;
    }

    async fn plugins(&self) {
        let (host, ann, plugin) = (&self.host, &self.ann, plugin());
        let deploy = async |version: &str, canary, is_dry_run| {
            let components = vec![(plugin.clone(), component(version).build())];
            let reason = Some("a test".to_owned());
            let is_forced = false;
            let request = DeployRequest { components, reason, is_forced, is_dry_run, canary };
            host.deploy(ann, request).await.unwrap();
        };
        let canary = || Some(CanarySpec::new(10.0, None, None, None).unwrap());
        deploy("2.0.0", None, true).await;
        deploy("2.0.0", None, false).await;
        deploy("3.0.0", canary(), false).await;
        host.rollback(ann, &plugin, None, "a test".to_owned(), false).await.unwrap();
        deploy("4.0.0", canary(), false).await;
        host.promote(ann, &plugin, "a test".to_owned()).await.unwrap();
        host.rollback(ann, &plugin, None, "a test".to_owned(), false).await.unwrap();
        host.rehearse(ann, plugin.clone(), component("5.0.0").build(), 1).await.unwrap();

        let write = |value: Option<&str>| StateWrite {
            key: "stock".to_owned(),
            value: value.map(str::to_owned),
        };
        host.set_plugin_state(ann, &plugin, write(Some("1"))).await.unwrap();
        host.set_plugin_state(ann, &plugin, write(None)).await.unwrap();
        let writes = vec![write(Some("2"))];
        host.import_plugin_state(ann, &plugin, "a file", writes, false).await.unwrap();
    }

    async fn breakers(&self) {
        let (host, ann, reason) = (&self.host, &self.ann, || "a test".to_owned());
        host.open_breaker(ann, &carrier(), reason(), None).await.unwrap().unwrap();
        host.close_breaker(ann, &carrier(), reason()).await.unwrap().unwrap();
        // There is none, and the order is asked for all the same.
        assert_eq!(host.redrive(ann, "billing", "a test"), None);
        let erased = host.erase(ann, "customer-81", reason()).await.unwrap();
        assert_eq!(erased.erasure, None);
    }
}

/// The actions without the ids of sagas.
fn without_ids(actions: &[String]) -> Vec<String> {
    let without_id = |action: &String| {
        let words = action.split(' ').filter(|word| word.parse::<SagaId>().is_err());
        words.collect::<Vec<_>>().join(" ")
    };
    actions.iter().map(without_id).collect()
}

#[tokio::test]
async fn every_change_records_who_asked_for_it() {
    let place = Place::new();
    place.write("test", &component("1.0.0").build());
    let stuck =
        Component { name: "stuck", compensate: Behaviour::Permanent, ..Component::default() };
    place.write("stuck", &stuck.build());
    let config = RuntimeConfig {
        breakers: [(carrier(), BreakerSettings::BY_HAND)].into(),
        ..RuntimeConfig::default()
    };
    let host = place.run(place.store(), definitions(), config).await;
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter("amends::action=debug")
        .with_writer(move || writer.clone())
        .finish();
    let _log = tracing::subscriber::set_default(log);
    let trial = Trial { host, ann: Principal::local(SUBJECT, Via::Http) };
    trial.sagas().await;
    trial.plugins().await;
    trial.breakers().await;

    let expected = "start order, operate pause, operate resume, operate note, signal approved, \
        operate compensate, start order, operate abandon, \
        start stuck, operate cancel, operate retry, operate resolve, \
        start stuck, operate cancel, operate skip, \
        try to deploy test, deploy test, deploy test, rollback test, deploy test, promote test, \
        rollback test, rehearse test, \
        set state test stock, set state test stock, import state test, \
        open breaker carrier, close breaker carrier, redrive subscription billing, erase";
    assert_eq!(without_ids(&lines.actions()).join(", "), expected);

    let mut recorded = BTreeSet::new();
    for event in trial.host.log(Cursor::START, 10_000).await.unwrap() {
        let data: Value = serde_json::from_str(&event.data).unwrap();
        if let Some(who) = data["who"].as_str() {
            assert_eq!(who, SUBJECT, "{} {}", event.kind, event.data);
            recorded.insert(event.kind.clone());
        } else {
            assert!(!event.kind.starts_with("operator."), "{} {}", event.kind, event.data);
        }
    }
    let recorded: Vec<_> = recorded.iter().map(String::as_str).collect();
    let all = [
        "breaker.closed",
        "breaker.opened",
        "operator.abandoned",
        "operator.cancelled",
        "operator.compensated",
        "operator.noted",
        "operator.paused",
        "operator.resolved",
        "operator.resumed",
        "operator.retried",
        "operator.skipped",
        "operator.state_imported",
        "operator.state_set",
        "plugin.activated",
        "plugin.canary_ended",
        "plugin.canary_started",
        "signal.received",
    ];
    assert_eq!(recorded, all);
    trial.host.close().await.unwrap();
}
