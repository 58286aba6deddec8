//! Sends spans to an OpenTelemetry collector (OTLP over gRPC or HTTP).
//!
//! An [`Exporter`] takes a [`Span`] that is over and never waits: its queue is bounded, and spans that do not
//! fit are dropped and counted. One thread sends them in batches, so that nothing of it runs beside sagas.
//!
//! Deliberately absent: spans that are open, context that is passed along by itself, sampling (whoever makes
//! spans decides which), and logs and metrics over OTLP. The ids of spans are those of
//! [`amends_engine::TraceContext`].

mod collector;
mod endpoint;
mod exporter;
mod span;

pub use collector::ExporterError;
pub use endpoint::{Endpoint, EndpointError, Protocol};
pub use exporter::{Exporter, SPANS_WAITING_MAX};
pub use span::{Span, SpanEvent, SpanKind, SpanLink, Value};
