//! Speaks OTLP with a collector.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use amends_engine::{SpanId, TraceContext};
use opentelemetry::trace::{
    Event, Link, SpanContext, SpanId as OtelSpanId, SpanKind as OtelSpanKind, Status, TraceFlags,
    TraceId as OtelTraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, Value as OtelValue};
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
    WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};

use crate::endpoint::{Endpoint, Protocol};
use crate::span::{Span, SpanKind, Value};

/// How long one request may take. It is the default of the standard.
const REQUEST_MAX: Duration = Duration::from_secs(10);

/// How long one batch may take with its repetitions, of which the library makes up to three.
const EXPORT_MAX: Duration = Duration::from_secs(30);

/// The name of the program in spans, and its name among services unless the environment has another.
const NAME: &str = "amends";

/// The variable of the standard that names the service.
const SERVICE_NAME_VARIABLE: &str = "OTEL_SERVICE_NAME";

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// The settings are wrong, those of the environment included.
    #[error("spans cannot be sent: {0}")]
    Settings(#[from] ExporterBuildError),
    /// There is no HTTP client.
    #[error(
        "no client for the collector: {0}; install the certificates of this system, or name a file of \
         certificates in SSL_CERT_FILE"
    )]
    Client(#[from] reqwest::Error),
    /// There is no thread that sends spans.
    #[error("no thread that sends spans: {0}")]
    Thread(#[from] io::Error),
    /// The thread that sends spans has ended.
    #[error("the thread that sends spans has ended")]
    Ended,
}

/// A collector. It is connected to when spans are sent.
pub(crate) struct Collector {
    exporter: SpanExporter,
    scope: InstrumentationScope,
}

impl Collector {
    /// A collector at this endpoint, for the spans of the host `instance`. To be called in the runtime in
    /// which spans are sent.
    pub(crate) fn new(endpoint: &Endpoint, instance: &str) -> Result<Self, ExporterError> {
        // The TLS of reqwest, which panics when there is none. The binary has installed the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut exporter = match endpoint.protocol {
            Protocol::Grpc => {
                let builder = SpanExporter::builder().with_tonic().with_endpoint(&endpoint.url);
                if endpoint.is_encrypted() {
                    builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots()).build()?
                } else {
                    builder.build()?
                }
            }
            Protocol::Http => SpanExporter::builder()
                .with_http()
                .with_http_client(http_client(endpoint)?)
                .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                .with_endpoint(&endpoint.url)
                .build()?,
        };
        exporter.set_resource(&resource(instance));
        let scope = InstrumentationScope::builder(NAME).with_version(env!("CARGO_PKG_VERSION"));
        Ok(Self { exporter, scope: scope.build() })
    }

    /// Sends a batch. May be cancelled; then nobody knows whether the collector has it.
    pub(crate) async fn export(&self, batch: Vec<Span>) -> Result<(), OTelSdkError> {
        let batch = batch.into_iter().map(|span| span_data(span, &self.scope)).collect();
        match tokio::time::timeout(EXPORT_MAX, self.exporter.export(batch)).await {
            Ok(sent) => sent,
            Err(_) => Err(OTelSdkError::Timeout(EXPORT_MAX)),
        }
    }
}

/// Speaks HTTP with the collector itself: a proxy of the environment is for other things, and a redirect
/// would send spans to where nobody said.
fn http_client(endpoint: &Endpoint) -> Result<reqwest::Client, reqwest::Error> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(REQUEST_MAX);
    if endpoint.is_encrypted() {
        client.https_only(true).build()
    } else {
        // The machine's certificates are not read, which fails where there are none.
        client.tls_certs_only([]).build()
    }
}

/// What sends the spans. `OTEL_RESOURCE_ATTRIBUTES` stands above what is known here, and `OTEL_SERVICE_NAME`
/// above both.
fn resource(instance: &str) -> Resource {
    let known = [
        KeyValue::new("service.name", NAME),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance.to_owned()),
    ];
    let resource = Resource::builder_empty()
        .with_attributes(known)
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match std::env::var(SERVICE_NAME_VARIABLE) {
        Ok(name) if !name.is_empty() => resource.with_service_name(name).build(),
        Ok(_) | Err(_) => resource.build(),
    }
}

fn span_data(span: Span, scope: &InstrumentationScope) -> SpanData {
    let mut events = SpanEvents::default();
    events.events.extend(
        span.events
            .into_iter()
            .map(|event| Event::new(event.name, event.at, key_values(event.attributes), 0)),
    );
    events.dropped_count = span.events_dropped;
    let mut links = SpanLinks::default();
    links.links.extend(span.links.iter().map(|link| {
        let relation = vec![KeyValue::new("amends.link", link.relation)];
        Link::new(span_context(&link.context, link.context.is_sampled), relation, 0)
    }));
    SpanData {
        // What is sent is kept, whatever was known when the call began.
        span_context: span_context(&span.context, true),
        parent_span_id: span.parent.map_or(OtelSpanId::INVALID, span_id),
        parent_span_is_remote: span.is_parent_remote,
        span_kind: match span.kind {
            SpanKind::Internal => OtelSpanKind::Internal,
            SpanKind::Client => OtelSpanKind::Client,
            SpanKind::Server => OtelSpanKind::Server,
        },
        name: Cow::Owned(span.name),
        start_time: span.began,
        end_time: span.ended,
        attributes: key_values(span.attributes),
        dropped_attributes_count: 0,
        events,
        links,
        status: if span.is_error { Status::error("") } else { Status::Unset },
        instrumentation_scope: scope.clone(),
    }
}

fn span_context(context: &TraceContext, is_sampled: bool) -> SpanContext {
    let flags = if is_sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let trace_id = OtelTraceId::from_bytes(context.trace_id.0);
    SpanContext::new(trace_id, span_id(context.span_id), flags, false, TraceState::default())
}

fn span_id(id: SpanId) -> OtelSpanId {
    OtelSpanId::from_bytes(id.0)
}

fn key_values(attributes: Vec<(&'static str, Value)>) -> Vec<KeyValue> {
    let key_value = |(name, value): (&'static str, Value)| {
        let value = match value {
            Value::Text(text) => OtelValue::from(text),
            Value::Number(number) => OtelValue::from(number),
        };
        KeyValue::new(name, value)
    };
    attributes.into_iter().map(key_value).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::time::SystemTime;

    use opentelemetry::Key;

    use super::*;
    use crate::span::{SpanEvent, SpanLink};

    #[test]
    fn a_span_keeps_its_ids_times_and_links() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let context = TraceContext::parse(text).unwrap();
        let (began, later) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + REQUEST_MAX);
        let span = Span {
            context,
            parent: Some(SpanId([7; 8])),
            is_parent_remote: true,
            kind: SpanKind::Client,
            name: "POST".to_owned(),
            began,
            ended: later,
            is_error: true,
            attributes: vec![("server.port", Value::from(80_u16)), ("error.type", "503".into())],
            events: vec![SpanEvent { name: "log", at: later, attributes: Vec::new() }],
            events_dropped: 3,
            links: vec![SpanLink { context: context.child("other"), relation: "retries" }],
        };
        let data = span_data(span, &InstrumentationScope::builder(NAME).build());
        assert_eq!(data.span_context.trace_id().to_bytes(), context.trace_id.0);
        assert_eq!(data.span_context.span_id().to_bytes(), context.span_id.0);
        assert!(data.span_context.is_sampled());
        assert_eq!(data.parent_span_id.to_bytes(), [7; 8]);
        assert_eq!((data.start_time, data.end_time), (began, later));
        assert_eq!(data.attributes[0], KeyValue::new("server.port", 80_i64));
        assert_eq!((data.events.events.len(), data.events.dropped_count), (1, 3));
        let link = &data.links.links[0];
        assert_eq!(link.span_context.span_id().to_bytes(), context.child("other").span_id.0);
        assert!(!link.span_context.is_sampled());
        assert_eq!(link.attributes, [KeyValue::new("amends.link", "retries")]);
        assert_eq!(data.status, Status::error(""));
    }

    #[test]
    fn the_host_is_named_by_its_program_and_its_instance() {
        let resource = resource("node-a");
        let value = |name: &'static str| resource.get(&Key::from_static_str(name));
        assert_eq!(value("service.instance.id"), Some("node-a".into()));
        assert_eq!(value("service.version"), Some(env!("CARGO_PKG_VERSION").into()));
    }
}
