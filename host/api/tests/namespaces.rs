//! Two namespaces behind one router: what is about the whole host, and what is not.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use amends_api::{ApiState, prometheus, router};
use amends_engine::{
    BackoffSpec, Definition, DefinitionSpec, NamespaceName, RetrySpec, StepKind, StepSpec,
    TIMEOUT_DEFAULT, WaitSpec,
};
use amends_registry::{PluginsConfig, Registry};
use amends_runtime::{Host, RuntimeConfig, StartRateSettings};
use amends_sandbox::Inspection;
use amends_store::{Durability, SqliteStore, Store};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{Method, Request};
use serde_json::Value;
use tower::ServiceExt as _;

/// A saga that waits for a signal.
fn gate() -> Definition {
    let wait = WaitSpec { signal: "approved".parse().unwrap(), timeout: None };
    let step = StepSpec {
        each: None,
        name: "approval".parse().unwrap(),
        kind: StepKind::Wait { wait },
        after: Vec::new(),
        when: None,
        input: None,
        timeout: TIMEOUT_DEFAULT,
        retry: RetrySpec { attempts: 1, backoff: BackoffSpec::Listed(Vec::new()) },
        undo: None,
        pivot: false,
    };
    let spec = DefinitionSpec {
        name: "gate".parse().unwrap(),
        deadline: None,
        compensate_within: None,
        index: std::collections::BTreeMap::new(),
        subject: None,
        personal: Vec::new(),
        steps: vec![step],
    };
    Definition::new(spec).unwrap()
}

async fn open(folder: &Path, config: RuntimeConfig) -> Host {
    let dir = folder.join("plugins");
    std::fs::create_dir_all(&dir).unwrap();
    let name = config.namespace.as_ref().map_or("default", NamespaceName::as_str).to_owned();
    let store = SqliteStore::open(&folder.join(format!("{name}.db")), Durability::Relaxed);
    let store: Arc<dyn Store> = Arc::new(store.unwrap());
    let plugins = PluginsConfig {
        dir,
        cache: folder.join(format!("{name}-cache")),
        inspection: Inspection::InThisProcess,
        instances_max: 8,
        ..PluginsConfig::default()
    };
    let plugins = Registry::open(plugins, Arc::clone(&store)).await.unwrap();
    Host::open(config, store, plugins, vec![gate()]).await.unwrap()
}

/// Returns the status of an answer, its header Retry-After, and its body.
async fn ask(
    router: &Router,
    (method, path): (Method, &str),
    namespace: Option<&str>,
) -> (u16, Option<String>, String) {
    let body = if method == Method::POST { "{\"definition\": \"gate\"}" } else { "" };
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    let headers = request.headers_mut();
    headers.insert("host", "127.0.0.1:7070".parse().unwrap());
    headers.insert("content-type", "application/json".parse().unwrap());
    if let Some(namespace) = namespace {
        headers.insert("amends-namespace", namespace.parse().unwrap());
    }
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 50_000))));
    let answer = router.clone().oneshot(request).await.unwrap();
    let (head, body) = answer.into_parts();
    let retry_after =
        head.headers.get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    let body = to_bytes(body, 1 << 20).await.unwrap();
    (head.status.as_u16(), retry_after, String::from_utf8(body.to_vec()).unwrap())
}

fn problem(text: &str) -> (String, String) {
    let problem: Value = serde_json::from_str(text).unwrap();
    let text = |key: &str| problem[key].as_str().unwrap().to_owned();
    (text("code"), text("detail"))
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_about_all_namespaces() {
    let folder = tempfile::tempdir().unwrap();
    let prometheus = prometheus().unwrap();
    let default =
        open(folder.path(), RuntimeConfig { workers: 2, ..RuntimeConfig::default() }).await;
    let one = NonZeroU32::MIN;
    let starts = Some(StartRateSettings { per_second: one, burst: one.saturating_add(1) });
    let namespace = Some("shop".parse().unwrap());
    let config = RuntimeConfig { workers: 2, namespace, starts, ..RuntimeConfig::default() };
    let shop = open(folder.path(), config).await;
    let state = ApiState::new(default.clone(), prometheus, None).with_namespaces([shop.clone()]);
    let router = router(state);
    let get = |path, namespace| ask(&router, (Method::GET, path), namespace);
    let start = |namespace| ask(&router, (Method::POST, "/v1/sagas"), namespace);

    // The rate is that of one namespace.
    for _ in 0..2 {
        assert_eq!(start(Some("shop")).await.0, 202);
    }
    let (status, retry_after, text) = start(Some("shop")).await;
    assert_eq!((status, retry_after.as_deref()), (429, Some("1")), "{text}");
    assert_eq!(problem(&text).0, "rate_limited");
    for _ in 0..5 {
        assert_eq!(start(None).await.0, 202);
    }

    // Each gauge says of which namespace it is.
    let (status, _, metrics) = get("/metrics", None).await;
    assert_eq!(status, 200);
    for line in [
        "amends_saga_live 5",
        "amends_saga_live{namespace=\"shop\"} 2",
        "amends_shards_owned 64",
        "amends_shards_owned{namespace=\"shop\"} 64",
        "amends_calls_waiting{namespace=\"shop\",room=\"host\"} 0",
        "amends_saga_started_total{definition=\"gate\"} 7",
    ] {
        assert!(metrics.lines().any(|one| one == line), "{line} is not in\n{metrics}");
    }
    let (status, _, text) = get("/metrics", Some("shop")).await;
    assert_eq!((status, problem(&text).0.as_str()), (404, "only_in_default"));

    // What is about the host names no namespace.
    for namespace in [None, Some("shop"), Some("none")] {
        assert_eq!(get("/readyz", namespace).await.0, 200, "{namespace:?}");
        assert_eq!(get("/healthz", namespace).await.0, 200, "{namespace:?}");
    }
    let told = [Some("none"), Some(""), Some("Shop")].map(|name| get("/v1/sagas", name));
    for answer in told {
        let (status, _, text) = answer.await;
        assert_eq!((status, problem(&text).0.as_str()), (404, "no_namespace"));
    }
    shop.stop(Duration::ZERO).await;
    let (status, _, text) = get("/readyz", None).await;
    assert_eq!((status, problem(&text).0.as_str()), (503, "stopping"));
    assert_eq!(problem(&text).1, "namespace `shop`: the host is stopping");
    // The other one goes on.
    assert_eq!(start(None).await.0, 202);
    default.stop(Duration::ZERO).await;
    for host in [default, shop] {
        host.close().await.unwrap();
    }
}
