//! Requests of whoever reaches the port: each has an answer that the contract knows.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]
#![allow(clippy::print_stdout, reason = "a test says what it has tried")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use amends_api::{ApiState, PrometheusHandle, prometheus, router};
use amends_api_types::Problem;
use amends_engine::{
    Definition, DefinitionSpec, RetrySpec, StepKind, StepSpec, TIMEOUT_DEFAULT, UndoSpec, WaitSpec,
};
use amends_fuzz::{Random, Shape, Target, change_json};
use amends_registry::{PluginsConfig, Registry};
use amends_runtime::{Host, RuntimeConfig};
use amends_sandbox::{Inspection, PluginSettings};
use amends_store::{Durability, SqliteStore, Store};
use amends_tests::{Behaviour, Component};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use serde_json::Value;
use tower::ServiceExt as _;

/// A component that is handed in is compiled, and may compute for five seconds while it is described.
const TIME_MAX: Duration = Duration::from_secs(10);

/// What is asked to be answered later is not waited for.
const PATIENCE: Duration = Duration::from_millis(100);

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// After so many inputs everything is made anew, so that a run does not get slower.
const INPUTS_OF_HOST: u64 = 3_000;

/// Between the requests of one input.
const NEXT: &[u8] = b"\n%%%\n";

/// The statuses of the contract, by what they are for.
const STATUSES: [u16; 17] = [
    200, 202, 204, // done
    400, 403, 404, 405, 408, 409, 413, 415, 421, 422, 429, 431, // the caller's
    503, 507, // the host's, for now
];

/// What `$COMPONENT` stands for in a body.
static COMPONENT: LazyLock<Vec<u8>> = LazyLock::new(|| component("good", "2.0.0"));

/// Panics of any thread.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn definition(name: &str, steps: Vec<StepSpec>) -> Definition {
    let spec = DefinitionSpec {
        name: name.parse().unwrap(),
        deadline: None,
        compensate_within: None,
        index: std::collections::BTreeMap::new(),
        subject: None,
        personal: Vec::new(),
        steps,
    };
    Definition::new(spec).unwrap()
}

fn step(plugin: &str, after: &[&str]) -> StepSpec {
    let plugin: amends_engine::PluginName = plugin.parse().unwrap();
    let retry = RetrySpec { attempts: 1, backoff: amends_engine::BackoffSpec::Listed(Vec::new()) };
    StepSpec {
        each: None,
        name: plugin.as_str().parse().unwrap(),
        kind: StepKind::Call { plugin: plugin.clone(), service: None },
        after: after.iter().map(|name| name.parse().unwrap()).collect(),
        when: None,
        input: None,
        timeout: TIMEOUT_DEFAULT,
        retry: retry.clone(),
        undo: Some(UndoSpec { plugin: Some(plugin), timeout: TIMEOUT_DEFAULT, retry }),
        pivot: false,
    }
}

fn definitions() -> Vec<Definition> {
    let wait = WaitSpec { signal: "approved".parse().unwrap(), timeout: None };
    let wait = StepSpec {
        name: "wait".parse().unwrap(),
        kind: StepKind::Wait { wait },
        undo: None,
        ..step("good", &["good"])
    };
    let list = amends_engine::EachSpec { list: "input.items".to_owned(), concurrency: 2 };
    vec![
        definition("quick", vec![step("good", &[])]),
        definition("waits", vec![step("good", &[]), wait]),
        definition("undone", vec![step("good", &[]), step("fails", &["good"])]),
        definition("blocked", vec![step("stuck", &[]), step("fails", &["stuck"])]),
        definition("list", vec![StepSpec { each: Some(list), ..step("good", &[]) }]),
    ]
}

fn component(name: &str, version: &str) -> Vec<u8> {
    let (execute, compensate) = match name {
        "fails" => (Behaviour::Permanent, Behaviour::Done),
        "stuck" => (Behaviour::Done, Behaviour::Permanent),
        _ => (Behaviour::Done, Behaviour::Done),
    };
    Component { name, version, execute, compensate, ..Component::default() }.build()
}

/// A host with a store of its own.
struct Served {
    folder: tempfile::TempDir,
    store: Arc<dyn Store>,
    host: Host,
    router: Router,
}

impl Served {
    async fn new(prometheus: PrometheusHandle) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("plugins");
        std::fs::create_dir(&dir).unwrap();
        for name in ["good", "fails", "stuck"] {
            std::fs::write(dir.join(format!("{name}.wasm")), component(name, "1.0.0")).unwrap();
        }
        let store = SqliteStore::open(&folder.path().join("amends.db"), Durability::Relaxed);
        let store: Arc<dyn Store> = Arc::new(store.unwrap());
        let keeps = PluginSettings { state: true, ..PluginSettings::default() };
        let mut plugins = PluginsConfig {
            dir,
            cache: folder.path().join("cache"),
            inspection: Inspection::InThisProcess,
            plugins: [("good".parse().unwrap(), keeps)].into(),
            ..PluginsConfig::default()
        };
        let definitions = definitions();
        plugins.require(&definitions);
        let plugins = Registry::open(plugins, Arc::clone(&store)).await.unwrap();
        let config = RuntimeConfig { workers: 2, ..RuntimeConfig::default() };
        let opened = Host::open(config, Arc::clone(&store), plugins, definitions);
        let host = opened.await.unwrap();
        let router = router(ApiState::new(host.clone(), prometheus, None));
        Self { folder, store, host, router }
    }

    async fn close(self) {
        let findings = self.store.maintenance().verify().await.unwrap();
        assert_eq!(findings, Vec::<String>::new());
        self.host.stop(Duration::from_secs(1)).await;
        // Else its tasks keep the sandbox, which has set aside a part of all addresses.
        self.host.close().await.unwrap();
        drop(self.folder);
    }

    /// Asks one after the other; `$ID` stands for the saga that was answered last.
    async fn ask(&self, input: &[u8]) -> String {
        let (mut outcome, mut id) =
            (String::new(), "0198c0de-0000-7000-8000-000000000000".to_owned());
        for text in parts(input, NEXT).into_iter().take(6) {
            let text = replaced(text, b"$ID", id.as_bytes());
            let Some(asked) = Asked::read(&text) else { continue };
            let panics = PANICS.load(Ordering::SeqCst);
            let answer = self.router.clone().oneshot(asked.request());
            let answered = if asked.may_wait() {
                tokio::time::timeout(PATIENCE, answer).await.ok()
            } else {
                Some(answer.await)
            };
            let Some(answer) = answered else { continue };
            let (told, value) = checked(&asked, answer.unwrap()).await;
            if let Some(found) = value.as_ref().and_then(|value| value["id"].as_str()) {
                found.clone_into(&mut id);
            }
            outcome = format!("{outcome}{}\n", told.replace('\n', " "));
            assert_eq!(PANICS.load(Ordering::SeqCst), panics, "a thread has panicked");
            let quarantined = self.host.quarantined();
            assert!(quarantined.is_empty(), "{quarantined:?}");
        }
        outcome
    }
}

/// The pieces of what stands between some bytes.
fn parts<'b>(bytes: &'b [u8], between: &[u8]) -> Vec<&'b [u8]> {
    let (mut parts, mut from) = (Vec::new(), 0);
    for at in 0..bytes.len() {
        if at >= from && bytes[at..].starts_with(between) {
            parts.push(&bytes[from..at]);
            from = at + between.len();
        }
    }
    parts.push(&bytes[from..]);
    parts
}

fn replaced(bytes: &[u8], what: &[u8], by: &[u8]) -> Vec<u8> {
    parts(bytes, what).join(by)
}

/// A request as it stands in an input: the first line, headers, an empty line, the body.
struct Asked {
    method: Method,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Vec<u8>,
}

impl Asked {
    /// None when a server would not hand it on.
    fn read(text: &[u8]) -> Option<Self> {
        let pieces = parts(text, b"\n\n");
        let (head, body) = (pieces[0], pieces.get(1..).unwrap_or_default().join(&b"\n\n"[..]));
        let mut lines = head.split(|byte| *byte == b'\n');
        let mut first = lines.next()?.split(|byte| *byte == b' ');
        let method = Method::from_bytes(first.next()?).ok()?;
        let uri = Uri::try_from(first.next()?).ok()?;
        let mut headers = Vec::new();
        for line in lines {
            let at = line.iter().position(|byte| *byte == b':')?;
            let value = line[at + 1..].trim_ascii();
            headers.push((
                HeaderName::from_bytes(&line[..at]).ok()?,
                HeaderValue::from_bytes(value).ok()?,
            ));
        }
        Some(Self { method, uri, headers, body: replaced(&body, b"$COMPONENT", &COMPONENT) })
    }

    fn request(&self) -> Request<Body> {
        let mut request = Request::new(Body::from(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        if !self.headers.iter().any(|(name, _)| name == header::HOST) {
            headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:7070"));
        }
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        let peer = SocketAddr::from(([127, 0, 0, 1], 50_000));
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    }

    /// Whether it asks for an answer that comes later.
    fn may_wait(&self) -> bool {
        self.uri.query().is_some_and(|query| query.contains("wait"))
    }

    fn is_watch(&self) -> bool {
        let is_stream = |(name, value): &(HeaderName, HeaderValue)| {
            name == header::ACCEPT && value.to_str().is_ok_and(|text| text.contains("event-stream"))
        };
        self.uri.path().ends_with("/watch")
            || self.uri.path() == "/v1/events" && self.headers.iter().any(is_stream)
    }
}

/// What an answer must be; what came, and its JSON.
async fn checked(asked: &Asked, answer: Response<Body>) -> (String, Option<Value>) {
    let (status, what) = (answer.status(), format!("{} {}", asked.method, asked.uri));
    assert!(STATUSES.contains(&status.as_u16()), "{what}: {status}");
    let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
    let kind = kind.map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default();
    if asked.is_watch() && status == StatusCode::OK {
        return (format!("{status} {kind}"), None);
    }
    let body = to_bytes(answer.into_body(), ANSWER_BYTES_MAX).await.unwrap();
    if asked.method == Method::HEAD {
        return (status.to_string(), None);
    }
    if status.is_client_error() || status.is_server_error() {
        assert_eq!(kind, "application/problem+json", "{what}: {status}");
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        check_problem(&what, &problem);
        assert_eq!(problem.status, status.as_u16(), "{what}");
        return (format!("{status} {} {}", problem.code, problem.detail), None);
    }
    if kind == "application/x-ndjson" {
        let lines: Vec<Value> = serde_json::Deserializer::from_slice(&body)
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap();
        let sent = asked.body.split(|byte| *byte == b'\n');
        let sent = sent.filter(|line| !line.trim_ascii().is_empty()).count();
        // A line that is too long ends the batch.
        let last = lines.last().map_or("", |line| line["problem"]["code"].as_str().unwrap_or(""));
        assert!(
            lines.len() == sent || last == "body_too_large",
            "{what}: {} of {sent}",
            lines.len()
        );
        let mut told = format!("{status} {kind}");
        for line in lines {
            let (id, problem) = (line.get("id"), line.get("problem"));
            assert!(id.is_some() != problem.is_some(), "{what}: {line}");
            if let Some(problem) = problem {
                let problem: Problem = serde_json::from_value(problem.clone()).unwrap();
                check_problem(&what, &problem);
                told = format!("{told}\n{} {}", problem.code, problem.detail);
            }
        }
        return (told, None);
    }
    if ["application/json", "application/cloudevents-batch+json"].contains(&kind.as_str()) {
        let value: Value = serde_json::from_slice(&body).unwrap();
        let told = value["status"].as_str().unwrap_or_default().to_owned();
        // Without what names one of many.
        let route = asked.uri.path().split('/').filter(|part| part.len() < 24);
        let route = route.collect::<Vec<_>>().join("/");
        return (format!("{status} {told} {route}"), Some(value));
    }
    assert!(body.is_empty() || kind.starts_with("text/plain"), "{what}: {kind}");
    (format!("{status} {kind}"), None)
}

fn check_problem(what: &str, problem: &Problem) {
    let is_word = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    assert!(problem.code.bytes().all(is_word) && !problem.code.is_empty(), "{what}: {problem:?}");
    assert_eq!(problem.kind, format!("urn:amends:problem:{}", problem.code), "{what}");
    assert!(!problem.title.is_empty() && !problem.detail.is_empty(), "{what}: {problem:?}");
    assert!(STATUSES.contains(&problem.status), "{what}: {problem:?}");
}

/// Changes the JSON of one request's body, and leaves it JSON.
fn change_body(random: &mut Random, input: &mut Vec<u8>, words: &[&str]) {
    let requests = parts(input, NEXT);
    let chosen = random.below(requests.len());
    let mut request = requests[chosen].to_vec();
    let Some(at) = request.windows(2).position(|two| two == b"\n\n") else { return };
    let mut body = request.split_off(at + 2);
    let mut lines: Vec<Vec<u8>> = body.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let line = random.below(lines.len());
    if change_json(random, &mut lines[line], words) {
        body = lines.join(&b'\n');
    }
    request.extend(body);
    let (earlier, later) = (&requests[..chosen], &requests[chosen + 1..]);
    let all: Vec<&[u8]> =
        earlier.iter().copied().chain([request.as_slice()]).chain(later.iter().copied()).collect();
    *input = all.join(NEXT);
}

fn seeds() -> Vec<Vec<u8>> {
    const JSON: &str = "content-type: application/json";
    let start = |definition: &str, input: &str| {
        // One that waits for a signal does not rest.
        let wait = if definition == "waits" { "" } else { "?wait=2s" };
        format!(
            "POST /v1/sagas{wait}\n{JSON}\n\n{{\"definition\":\"{definition}\",\"input\":{input}}}"
        )
    };
    let then = |definition: &str, rest: &[&str]| {
        let mut all = vec![start(definition, "{\"items\":[1,2],\"n\":1}")];
        all.extend(rest.iter().map(|one| (*one).replace("JSON", JSON)));
        all.join("\n%%%\n")
    };
    let form = |name: &str, content: &str| {
        format!(
            "content-type: multipart/form-data; boundary=X\namends-request: 1\n\n--X\r\n\
             Content-Disposition: form-data; name=\"{name}\"; filename=\"a.wasm\"\r\n\
             Content-Type: application/wasm\r\n\r\n{content}\r\n--X--\r\n"
        )
    };
    let mut seeds = vec![
        format!(
            "POST /v1/sagas\n{JSON}\nidempotency-key: \"order-7\"\ntraceparent: \
             00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n\n\
             {{\"definition\":\"quick\",\"input\":{{\"a\":[1,2.5,null,\"x\"]}},\"tags\":{{\"region\":\"north\"}}}}"
        ),
        "POST /v1/sagas:batch\ncontent-type: application/x-ndjson\n\n\
         {\"definition\":\"quick\",\"input\":1,\"key\":\"k1\"}\n\
         {\"definition\":\"none\",\"input\":{}}\n\n{\"definition\":\"undone\",\"tags\":{\"a\":\"b\"}}\n"
            .to_owned(),
        "GET /v1/sagas/counts?by=step,code&text=no*&tag=a:b&tag=region:north\n%%%\nGET /v1/sagas?status=running,blocked&definition=quick&tag=region:north&limit=10".to_owned(),
        "GET /v1/sagas?stuck=true&started_after=2026-03-01T09:30:00Z".to_owned(),
        "GET /v1/sagas?status=quarantined&cursor=0198c0de-0000-7000-8000-000000000000".to_owned(),
        "GET /v1/events?after=1&limit=1000\n%%%\nGET /v1/events?cursor=5&definition=quick&type=saga.*\n%%%\nGET /v1/events?type=*\naccept: application/cloudevents-batch+json\n%%%\nGET /v1/events?type=saga.*\naccept: text/event-stream\nlast-event-id: 3\n%%%\nGET /v1/subscriptions".to_owned(),
        "GET /v1/plugins\n%%%\nGET /v1/plugins/good\n%%%\nGET /v1/definitions\n%%%\nGET /v1/breakers"
            .to_owned(),
        "GET /v1/exposure\n%%%\nGET /healthz\n%%%\nGET /readyz\n%%%\nGET /metrics\n%%%\nGET /".to_owned(),
        "GET /v1/openapi.json\n%%%\nHEAD /v1/sagas\n%%%\nOPTIONS /v1/sagas\norigin: http://evil.example\n\
         %%%\nGET /v1/sagas\nsec-fetch-site: cross-site\nsec-fetch-mode: navigate\nsec-fetch-dest: document"
            .to_owned(),
        "GET /v1/sagas\nhost: evil.example\n%%%\nGET http://127.0.0.1:7070/v1/sagas\nhost: 127.0.0.1:7070"
            .to_owned(),
        then("undone", &[
            "GET /v1/sagas/$ID",
            "GET /v1/sagas/$ID/events?limit=2",
            "GET /v1/sagas/$ID/why",
            "GET /v1/sagas/$ID/undo-plan",
            "GET /v1/sagas/$ID/exposure",
        ]),
        then("waits", &[
            "POST /v1/sagas/$ID/signals/approved\nJSON\n\n{\"payload\":{\"by\":\"ada\"},\"id\":\"s1\"}",
            "GET /v1/sagas/$ID?wait=1s",
            "GET /v1/sagas/$ID/watch\nlast-event-id: 2",
        ]),
        then("waits", &[
            "POST /v1/sagas/$ID/pause\nJSON\namends-user: ada\n\n{\"reason\":\"a mistake\"}",
            "POST /v1/sagas/$ID/resume\nJSON\n\n{\"reason\":\"it is well\"}",
            "POST /v1/subscriptions/billing/redrive\nJSON\n\n{\"reason\":\"it is well\"}",
            "POST /v1/sagas/$ID/skip\nJSON\n\n{\"reason\":\"no\",\"step\":\"wait\"}",
            "POST /v1/sagas/$ID/compensate\nJSON\n\n{\"reason\":\"no\"}",
        ]),
        then("waits", &[
            "POST /v1/sagas/$ID/resolve\nJSON\n\n{\"reason\":\"r\",\"step\":\"wait\",\"evidence\":\"e\",\
             \"happened\":true,\"output\":{\"a\":1}}",
            "POST /v1/sagas/$ID/cancel\nJSON\n\n{\"reason\":\"r\"}",
            "POST /v1/sagas/$ID/abandon\nJSON\n\n{\"reason\":\"r\"}",
        ]),
        then("blocked", &[
            "GET /v1/sagas/$ID/why",
            "POST /v1/sagas/$ID/retry\nJSON\n\n{\"reason\":\"r\",\"step\":\"stuck\",\"input\":{\"n\":2},\
             \"digest\":\"sha256:0000000000000000000000000000000000000000000000000000000000000000\"}",
            "POST /v1/sagas/$ID/resolve\nJSON\n\n{\"reason\":\"r\",\"evidence\":\"e\"}",
            "GET /v1/sagas/$ID",
        ]),
        then("list", &[
            "GET /v1/sagas/$ID",
            "POST /v1/sagas/$ID/retry\nJSON\n\n{\"reason\":\"r\",\"step\":\"good[1]\"}",
            "GET /v1/sagas/$ID/undo-plan",
        ]),
        "PUT /v1/plugins/good/state/stock/a\ncontent-type: application/json\n\n{\"n\":1}\n%%%\n\
         GET /v1/plugins/good/state?prefix=stock&limit=5\n%%%\nGET /v1/plugins/good/state/stock/a\n%%%\n\
         DELETE /v1/plugins/good/state/stock/a"
            .to_owned(),
        "POST /v1/plugins/good/state:import?source=stock.csv&only_new=true\n\
         content-type: application/x-ndjson\n\n{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"value\":{\"n\":[]}}\n"
            .to_owned(),
        format!("POST /v1/plugins:deploy?reason=r\n{}", form("good", "$COMPONENT")),
        format!("POST /v1/plugins:deploy?dry_run=true&force=true&reason=r\n{}", form("good", "text")),
        format!(
            "POST /v1/plugins:deploy?canary=10&margin=5&min_calls=10&promote_after=20\n{}",
            form("good", "$COMPONENT")
        ),
        format!("POST /v1/plugins:rehearse?sagas=5\n{}", form("good", "$COMPONENT")),
        "POST /v1/plugins/good/rollback\ncontent-type: application/json\n\n{\"reason\":\"r\",\"force\":true}\n\
         %%%\nPOST /v1/plugins/good/promote\ncontent-type: application/json\n\n{\"reason\":\"r\"}\n%%%\n\
         POST /v1/plugins/good/rollback\ncontent-type: application/json\n\n\
         {\"reason\":\"r\",\"to\":\"sha256:00000000\"}"
            .to_owned(),
    ];
    // Small enough for each to come often.
    seeds.push("GET /v1/sagas/not-an-id/%ff/%2e%2e".to_owned());
    seeds.into_iter().map(String::into_bytes).collect()
}

#[expect(clippy::too_many_lines, reason = "its seeds are a list")]
#[test]
fn any_request_has_an_answer_of_the_contract() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        hook(panic);
    }));
    let prometheus = prometheus().unwrap();
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut host = Some(tokio.block_on(Served::new(prometheus.clone())));
    let mut inputs = 0_u64;
    let words = [
        "definition",
        "input",
        "tags",
        "key",
        "reason",
        "step",
        "digest",
        "output",
        "evidence",
        "happened",
        "payload",
        "id",
        "to",
        "force",
        "value",
        "quick",
        "waits",
        "undone",
        "blocked",
        "list",
        "good",
        "fails",
        "stuck",
        "wait",
        "good[0]",
        "good[1]",
        "approved",
        "cancel",
        "compensate",
        "retry",
        "skip",
        "resolve",
        "pause",
        "resume",
        "abandon",
        "signals",
        "events",
        "why",
        "watch",
        "undo-plan",
        "exposure",
        "state",
        "state:import",
        "rollback",
        "promote",
        "/v1/sagas",
        "/v1/plugins",
        "/v1/events",
        "/v1/sagas:batch",
        "?wait=1s",
        "&limit=",
        "cursor=",
        "after=",
        "status=",
        "tag=",
        "step=",
        "code=",
        "text=",
        "/v1/sagas/counts?by=",
        "started_after=",
        "stuck=",
        "$ID",
        "$COMPONENT",
        "POST",
        "GET",
        "PUT",
        "DELETE",
        "PATCH",
        "HEAD",
        "application/json",
        "application/x-ndjson",
        "multipart/form-data; boundary=X",
        "content-type: ",
        "content-length: 5",
        "idempotency-key: ",
        "traceparent: ",
        "amends-user: ",
        "amends-request: 1",
        "last-event-id: ",
        "origin: ",
        "host: ",
        "transfer-encoding: chunked",
        "expect: 100-continue",
        "--X",
        "%00",
        "%ff",
        "%2f",
        "..",
        "[[[[",
        "\\ud800",
        "1e999",
        "2026-03-01T09:30:00Z",
        "99999999999999999999d",
    ];
    Target {
        name: "http",
        seeds: seeds(),
        words: &words,
        shape: Shape::Own(change_body),
        // One body that is too large, and a few requests around it.
        bytes_max: 2 << 20,
        time_max: TIME_MAX,
    }
    .run(|input| {
        inputs += 1;
        if inputs.is_multiple_of(INPUTS_OF_HOST) {
            tokio.block_on(host.take().unwrap().close());
            host = Some(tokio.block_on(Served::new(prometheus.clone())));
        }
        tokio.block_on(host.as_ref().unwrap().ask(input))
    });
    tokio.block_on(host.take().unwrap().close());
}
