//! The spans that a collector gets, and what a host does whose collector takes none.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use amends_engine::{Direction, SagaId, SpanId, TraceContext, attempt_span_id};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use serde_json::{Value, json};

use crate::carrier::{self, Carrier};
use crate::place::{Host, Place, SOON, agent, example, stderr, stdout, text};
use crate::python::python_with;

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A collector in Rust.
const COLLECTOR: &str = "rotel==0.0.1a15";

/// A collector of the test's own, which speaks OTLP over HTTP.
struct Collector {
    port: u16,
    got: Arc<Mutex<Vec<Got>>>,
}

/// A span that the collector got, and the attributes of its resource.
#[derive(Debug, Clone)]
struct Got {
    span: Span,
    resource: Vec<KeyValue>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let got = Arc::<Mutex<Vec<Got>>>::default();
        let kept = Arc::clone(&got);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || take(&stream.unwrap(), &kept));
            }
        });
        Self { port, got }
    }

    fn spans(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// Waits until it has so many spans.
    fn has(&self, host: &Host, count: usize) -> Vec<Got> {
        host.until("the collector has the spans", || self.spans().len() >= count);
        self.spans()
    }
}

/// Takes the spans of a connection.
fn take(stream: &TcpStream, kept: &Mutex<Vec<Got>>) {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        assert!(line.starts_with("POST /v1/traces "), "{line}");
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            let header = header.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
        for of_host in request.resource_spans {
            let resource = of_host.resource.unwrap_or_default().attributes;
            let spans = of_host.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let got = spans.map(|span| Got { span, resource: resource.clone() });
            kept.lock().unwrap().extend(got);
        }
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\
                      content-length: 0\r\n\r\n";
        writer.write_all(answer.as_bytes()).unwrap();
    }
}

fn value(attributes: &[KeyValue], key: &str) -> String {
    let attribute = attributes.iter().find(|attribute| attribute.key == key);
    let value = attribute.and_then(|attribute| attribute.value.as_ref()?.value.as_ref());
    if let Some(Any::StringValue(text)) = value {
        return text.clone();
    }
    if let Some(Any::IntValue(number)) = value {
        return number.to_string();
    }
    String::new()
}

impl Got {
    fn told(&self, key: &str) -> String {
        value(&self.span.attributes, key)
    }

    fn is_error(&self) -> bool {
        self.span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
    }
}

/// Has the host of a place send its spans there.
fn send_spans(place: &Place, telemetry: &str) {
    let config = place.path("amends.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n[telemetry]\n{telemetry}\n")).unwrap();
}

fn over_http(port: u16) -> String {
    format!("otlp = \"http://127.0.0.1:{port}\"\nprotocol = \"http\"\nsample = {{ success = 1.0 }}")
}

/// Starts an order of the example and waits until it rests.
fn order(host: &Host, file: &str, traceparent: Option<&str>) -> Value {
    let order: Value = serde_json::from_slice(&fs::read(example().join(file)).unwrap()).unwrap();
    let mut request = agent().post(host.url("/v1/sagas?wait=60s"));
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let body = json!({ "definition": "order-fulfillment", "input": order });
    request.send_json(&body).unwrap().body_mut().read_json().unwrap()
}

fn span_id(saga: &Value, step: &str, direction: Direction, attempt: u32) -> Vec<u8> {
    let saga: SagaId = saga["id"].as_str().unwrap().parse().unwrap();
    let SpanId(id) = attempt_span_id(saga, &step.parse().unwrap(), direction, attempt);
    id.to_vec()
}

#[test]
fn a_compensated_order_is_one_trace_below_its_caller() {
    let collector = Collector::start();
    let place = Place::example();
    send_spans(&place, &over_http(collector.port));
    let host = place.run();
    let saga = order(&host, "order-undeliverable.json", Some(CALLER));
    assert_eq!(saga["status"], "compensated", "{saga}");
    let spans = collector.has(&host, 7);
    let names: Vec<_> = spans.iter().map(|got| got.span.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "execute prescription",
            "execute inventory",
            "execute shipment",
            "compensate inventory",
            "compensate prescription",
            "saga order-fulfillment",
            "POST /v1/sagas",
        ]
    );
    let caller = TraceContext::parse(CALLER).unwrap();
    let request = &spans[6].span;
    assert_eq!(request.kind(), SpanKind::Server);
    assert_eq!(request.parent_span_id, caller.span_id.0);
    for got in &spans {
        assert_eq!(got.span.trace_id, caller.trace_id.0);
        if got.span.span_id != request.span_id {
            assert_eq!(got.span.parent_span_id, request.span_id, "{got:?}");
        }
        assert_eq!(got.told("amends.saga.id"), saga["id"].as_str().unwrap());
        assert!(got.span.end_time_unix_nano >= got.span.start_time_unix_nano);
        assert_eq!(value(&got.resource, "service.name"), "amends");
        assert!(!value(&got.resource, "service.instance.id").is_empty());
        let told = format!("{:?}", got.span);
        // Who the order is for, and where it goes.
        assert!(!told.contains("Castillo") && !told.contains("Oak Avenue"), "{told}");
    }
    let (execute, compensate) = (Direction::Execute, Direction::Compensate);
    let (shipment, undo) = (&spans[2], &spans[3]);
    assert_eq!(shipment.span.span_id, span_id(&saga, "shipment", execute, 1));
    assert!(shipment.is_error() && !undo.is_error());
    assert_eq!(shipment.told("amends.outcome"), "permanent");
    assert_eq!(shipment.told("error.type"), "undeliverable_address");
    assert_eq!(undo.span.span_id, span_id(&saga, "inventory", compensate, 1));
    assert_eq!(undo.told("amends.plugin"), "inventory-release");
    let digest = undo.told("amends.plugin.digest");
    let served = host.get("/v1/plugins/inventory-release");
    assert_eq!(digest, served["digest"].as_str().unwrap());
    assert_eq!(undo.told("amends.plugin.version"), served["version"].as_str().unwrap());
    let [link] = undo.span.links.as_slice() else { panic!("{undo:?}") };
    assert_eq!(link.span_id, span_id(&saga, "inventory", execute, 1));
    assert_eq!(link.trace_id, caller.trace_id.0);
    assert_eq!(value(&link.attributes, "amends.link"), "undoes");
    let lines: Vec<_> = spans[1].span.events.iter().map(|event| &event.attributes).collect();
    assert!(lines.iter().any(|line| value(line, "message") == "stock reserved"), "{lines:?}");
    host.until("the spans are counted", || {
        text(&host.url("/metrics")).contains("amends_spans_sent_total 7")
    });
}

#[test]
fn a_request_of_a_plugin_is_a_span_below_its_attempt() {
    let (collector, carrier) = (Collector::start(), Carrier::start(&[]));
    let place = carrier::place(&carrier);
    send_spans(&place, &over_http(collector.port));
    let host = place.run_with_env(&[("OTEL_SERVICE_NAME", "shop")]);
    let saga = order(&host, "order.json", None);
    assert_eq!(saga["status"], "completed", "{saga}");
    let spans = collector.has(&host, 6);
    let shipment = spans.iter().find(|got| got.span.name == "execute shipment").unwrap();
    let of_carrier = |got: &&Got| got.span.parent_span_id == shipment.span.span_id;
    let requests: Vec<_> = spans.iter().filter(of_carrier).collect();
    assert!(!requests.is_empty(), "{spans:?}");
    for request in requests {
        assert_eq!(request.span.kind(), SpanKind::Client);
        assert_eq!(request.span.trace_id, shipment.span.trace_id);
        assert_eq!(request.told("server.address"), "127.0.0.1");
        assert!(request.told("http.response.status_code").starts_with('2'), "{request:?}");
        assert_eq!(value(&request.resource, "service.name"), "shop");
    }
    // Without a caller the trace is that of the saga, and nothing is above it.
    let id = saga["id"].as_str().unwrap().replace('-', "");
    let trace = shipment.span.trace_id.as_slice().try_into().unwrap();
    let trace = format!("{:032x}", u128::from_be_bytes(trace));
    assert_eq!((trace, shipment.span.parent_span_id.as_slice()), (id, &[][..]));
}

/// Posts JSON, and returns the status of the answer.
fn post(host: &Host, path: &str, traceparent: Option<&str>, body: &Value) -> u16 {
    let mut request = agent().post(host.url(path));
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    request.send_json(body).unwrap().status().as_u16()
}

#[test]
fn requests_that_change_something_are_spans_and_reads_are_none() {
    let collector = Collector::start();
    let place = Place::example();
    send_spans(&place, &over_http(collector.port));
    let host = place.run();
    let saga = order(&host, "order.json", None);
    let id = saga["id"].as_str().unwrap();
    for path in [format!("/v1/sagas/{id}"), format!("/v1/sagas/{id}/why"), "/v1/sagas".to_owned()] {
        host.get(&path);
    }
    text(&host.url("/metrics"));
    let note = json!({ "reason": "Castillo called" });
    let noted = post(&host, &format!("/v1/sagas/{id}/note"), Some(CALLER), &note);
    assert_eq!(noted, 200);
    let unknown = json!({ "definition": "no-such", "input": null });
    let refused = post(&host, "/v1/sagas?secret=7", Some(CALLER), &unknown);
    assert!((400..500).contains(&refused), "{refused}");
    // Nothing is there, so nothing was changed.
    assert_eq!(post(&host, "/v1/nothing", Some(CALLER), &unknown), 404);
    let of_host = |got: &Got| got.span.kind() == SpanKind::Server;
    host.until("the spans of the requests are there", || {
        collector.spans().iter().filter(|got| of_host(got)).count() >= 3
    });
    let all = collector.spans();
    let requests: Vec<_> = all.iter().filter(|got| of_host(got)).collect();
    let told: Vec<_> = requests
        .iter()
        .map(|got| (got.span.name.clone(), got.told("http.response.status_code")))
        .collect();
    let refused = refused.to_string();
    assert_eq!(
        told,
        [
            ("POST /v1/sagas", "202"),
            ("POST /v1/sagas/{id}/note", "200"),
            ("POST /v1/sagas", refused.as_str()),
        ]
        .map(|(name, status)| (name.to_owned(), status.to_owned()))
    );
    let [start, note, refused] = requests.as_slice() else { panic!("{requests:?}") };
    // Without a caller, the request is in the trace of the saga that it started.
    let executed = all.iter().find(|got| got.span.name == "execute prescription").unwrap();
    assert_eq!(start.span.trace_id, executed.span.trace_id);
    assert!(start.span.parent_span_id.is_empty() && executed.span.parent_span_id.is_empty());
    assert_eq!((start.told("amends.saga.id"), note.told("amends.saga.id")), (id.into(), id.into()));
    let caller = TraceContext::parse(CALLER).unwrap();
    for request in [note, refused] {
        assert_eq!(request.span.trace_id, caller.trace_id.0);
        assert_eq!(request.span.parent_span_id, caller.span_id.0);
        assert!(!request.is_error(), "the mistake is the caller's");
    }
    for request in requests {
        assert_eq!(request.told("url.scheme"), "http");
        assert_eq!(request.told("server.address"), "127.0.0.1");
        let told = format!("{:?}", request.span);
        assert!(!told.contains("Castillo") && !told.contains("secret"), "{told}");
    }
}

#[test]
fn an_attempt_during_which_its_host_died_has_its_span_from_the_beginning() {
    let collector = Collector::start();
    let place = Place::example();
    send_spans(&place, &over_http(collector.port));
    let host = place.spawn_with("runtime.outcome.received=return");
    host.until("the host is ready", || {
        agent().get(host.url("/readyz")).call().is_ok_and(|answer| answer.status() == 200)
    });
    let order = example().join("order.json");
    let start = ["start", "order-fulfillment", "--input", order.to_str().unwrap(), "-o", "ids"];
    let started = place.amends(&start);
    assert!(host.aborted(SOON).is_some());
    let host = place.run();
    host.settle();
    let sagas = host.sagas();
    assert_eq!(sagas.len(), 1, "{}", stderr(&started));
    let wanted = span_id(&sagas[0], "prescription", Direction::Execute, 1);
    let span = || collector.spans().into_iter().find(|got| got.span.span_id == wanted);
    host.until("the span of the attempt is there", || span().is_some());
    let events = host.events();
    let began = events.iter().find(|event| event["type"] == "step.started").unwrap();
    let began: jiff::Timestamp = began["at"].as_str().unwrap().parse().unwrap();
    let told = u64::try_from(began.as_nanosecond()).unwrap();
    assert_eq!(span().unwrap().span.start_time_unix_nano, told);
}

/// An address at which nobody listens.
fn nobody() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("otlp = \"http://127.0.0.1:{port}\"\nsample = {{ success = 1.0 }}")
}

#[test]
fn a_host_without_its_collector_counts_what_it_drops() {
    let place = Place::example();
    send_spans(&place, &nobody());
    let host = place.run();
    for _ in 0..20 {
        assert_eq!(order(&host, "order.json", None)["status"], "completed");
    }
    host.until("spans that were not sent are counted", || {
        let metrics = text(&host.url("/metrics"));
        let dropped = "amends_spans_dropped_total{reason=\"not_sent\"} ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(dropped));
        line.is_some_and(|count| count.parse::<u64>().unwrap() >= 20)
    });
    let (code, log) = host.stop_logged();
    assert_eq!(code, Some(0));
    let warned = log.iter().filter(|line| line.contains("spans are dropped, and sagas go on"));
    assert_eq!(warned.count(), 1, "{log:?}");
}

#[test]
fn a_host_whose_collector_never_answers_goes_on_and_stops() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::example();
    send_spans(&place, &over_http(listener.local_addr().unwrap().port()));
    let host = place.run();
    for _ in 0..20 {
        assert_eq!(order(&host, "order.json", None)["status"], "completed");
    }
    let began = Instant::now();
    let (code, log) = host.stop_logged();
    assert_eq!(code, Some(0));
    // The host waits for at most 5 s, and machines are shared.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let told = |line: &String| line.contains("the host stops without having sent all spans");
    assert!(log.iter().any(told), "{log:?}");
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the program of a collector is that others made.
fn collector_of_others() -> PathBuf {
    let programs = python_with("traces", &[COLLECTOR]);
    let find = "import importlib.util as u; print(u.find_spec('rotel').origin)";
    let output = Command::new(programs.join("python")).args(["-c", find]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    PathBuf::from(stdout(&output).trim()).with_file_name("rotel-agent")
}

#[test]
fn a_collector_of_others_takes_the_spans_over_both_protocols() {
    let program = collector_of_others();
    let ports = ["127.0.0.1:0"; 2].map(|any| TcpListener::bind(any).unwrap());
    let [grpc, http] = ports.map(|listener| listener.local_addr().unwrap());
    let collector = Command::new(program)
        .args(["start", "--exporter", "blackhole"])
        .args(["--debug-log", "traces", "--debug-log-verbosity", "detailed"])
        .args(["--otlp-grpc-endpoint", &grpc.to_string()])
        .args(["--otlp-http-endpoint", &http.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = Arc::<Mutex<Vec<String>>>::default();
    let mut collector = Running(collector);
    let (printed, kept) = (collector.0.stdout.take().unwrap(), Arc::clone(&lines));
    std::thread::spawn(move || {
        for line in BufReader::new(printed).lines().map_while(Result::ok) {
            kept.lock().unwrap().push(line);
        }
    });
    for (address, protocol) in [(grpc, "grpc"), (http, "http")] {
        let place = Place::example();
        let sample = "sample = { success = 1.0 }";
        send_spans(
            &place,
            &format!("otlp = \"http://{address}\"\nprotocol = \"{protocol}\"\n{sample}"),
        );
        let host = place.run();
        let saga = order(&host, "order-undeliverable.json", None);
        let trace = saga["id"].as_str().unwrap().replace('-', "");
        host.until("the collector has printed the trace", || {
            let lines = lines.lock().unwrap();
            let of_trace = |line: &&String| line.contains("Trace ID") && line.contains(&trace);
            let is_named = |name: &str| lines.iter().any(|line| line.ends_with(name));
            // Seven spans, and two links to others of them.
            lines.iter().filter(of_trace).count() >= 9 && is_named(": compensate prescription")
        });
        assert_eq!(host.stop(), Some(0));
    }
}
