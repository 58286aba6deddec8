//! `[telemetry]`: where spans go, and which are kept. What the table does not say, the variables of
//! OpenTelemetry may say.

use std::ops::RangeInclusive;
use std::time::Duration;

use amends_runtime::{LINK_AFTER_DEFAULT, SampleRates, TraceRules};
use amends_telemetry::{Endpoint, EndpointError, Protocol};

use crate::report::Place;
use crate::table::{Context, Item};

/// How long after its saga an attempt may begin and still be in the trace of the saga. Below, hardly any
/// attempt would be; above, no backend has the trace any more.
const LINK_AFTER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

/// With this variable nothing is sent, whatever else is said.
const DISABLED: &str = "OTEL_SDK_DISABLED";

/// Which exporter sends spans; `none` turns them off.
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";

/// The variables with the URL of a collector, the first first, and whether it is the whole URL of requests.
const ENDPOINTS: [(&str, bool); 2] =
    [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", true), ("OTEL_EXPORTER_OTLP_ENDPOINT", false)];

/// The variables with the protocol, the first first.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];

const HELP: &str = "write [telemetry], and below it otlp = \"http://127.0.0.1:4317\"";

const ENDPOINT_EXAMPLE: &str = "\"http://127.0.0.1:4317\"";

const SAMPLE_HELP: &str = "write such as { success = 0.01, failed = 1.0, undo = 1.0 }";

/// Where spans go, and which are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct TelemetryConfig {
    /// The collector that takes them.
    pub endpoint: Endpoint,
    /// Which are made, and in which traces.
    pub rules: TraceRules,
}

/// Reads `[telemetry]`, if it is there. None when nothing names a collector, or when it was reported.
pub(super) fn read_telemetry(
    item: Option<&Item<'_>>,
    context: &mut Context<'_>,
) -> Option<TelemetryConfig> {
    let mut table = item.and_then(|item| item.table(context, HELP));
    let mut take = |name: &'static str, context: &mut Context<'_>| {
        table.as_mut().and_then(|table| table.take(name, context))
    };
    let otlp = take("otlp", context);
    let protocol = take("protocol", context);
    let sample = take("sample", context);
    let link_after = take("link_after", context);
    if let Some(table) = table {
        table.finish(context);
    }
    let words = [("grpc", Protocol::Grpc), ("http", Protocol::Http)];
    let protocol = protocol.and_then(|item| item.word(context, &words));
    let sample = sample.map_or_else(SampleRates::default, |item| read_sample(&item, context));
    let link_after = link_after.and_then(|item| read_link_after(&item, context));
    let link_after = link_after.unwrap_or(LINK_AFTER_DEFAULT);
    let rules = TraceRules { sample, link_after };
    let is_set =
        |name, to| context.environment.get(name).is_some_and(|text| text.eq_ignore_ascii_case(to));
    // Other programs may have variables that mean nothing here.
    let is_disabled = is_set(DISABLED, "true") || is_set(EXPORTER, "none");
    let endpoint = match otlp {
        Some(_) | None if is_disabled => None,
        Some(otlp) => {
            let protocol = protocol.or_else(|| read_protocol(context)).unwrap_or(Protocol::Grpc);
            read_otlp(&otlp, protocol, context)
        }
        None => read_endpoint(protocol, item, context),
    };
    endpoint.map(|endpoint| TelemetryConfig { endpoint, rules })
}

fn read_otlp(item: &Item<'_>, protocol: Protocol, context: &mut Context<'_>) -> Option<Endpoint> {
    let text = item.text(context, ENDPOINT_EXAMPLE)?;
    match Endpoint::of_collector(text, protocol) {
        Ok(endpoint) => Some(endpoint),
        Err(error) => {
            item.error(context, error.to_string(), endpoint_help(error));
            None
        }
    }
}

/// The collector of the environment.
fn read_endpoint(
    protocol: Option<Protocol>,
    item: Option<&Item<'_>>,
    context: &mut Context<'_>,
) -> Option<Endpoint> {
    let environment = context.environment;
    let set = |name: &str| environment.get(name).filter(|text| !text.is_empty());
    let named = ENDPOINTS.into_iter().find_map(|(name, exact)| Some((name, set(name)?, exact)));
    let Some((name, text, is_exact)) = named else {
        if let Some(item) = item {
            let message = "this sends no spans: neither `otlp` nor OTEL_EXPORTER_OTLP_ENDPOINT \
                           names a collector";
            let help = format!("add otlp = {ENDPOINT_EXAMPLE}, or remove the table");
            context.warn(item.place(context), &item.key, message, help);
        }
        return None;
    };
    let protocol = protocol.or_else(|| read_protocol(context)).unwrap_or(Protocol::Grpc);
    let endpoint = if is_exact {
        Endpoint::exact(text, protocol)
    } else {
        Endpoint::of_collector(text, protocol)
    };
    match endpoint {
        Ok(endpoint) => Some(endpoint),
        Err(error) => {
            let help = endpoint_help(error);
            context.error(Place::Environment(name), "telemetry.otlp", error.to_string(), help);
            None
        }
    }
}

/// The protocol of the environment; none when no variable names one.
fn read_protocol(context: &mut Context<'_>) -> Option<Protocol> {
    let environment = context.environment;
    let set = |name: &str| environment.get(name).filter(|text| !text.is_empty());
    let (name, text) = PROTOCOLS.into_iter().find_map(|name| Some((name, set(name)?)))?;
    match text {
        "grpc" => Some(Protocol::Grpc),
        "http/protobuf" => Some(Protocol::Http),
        _ => {
            let message = "this is no protocol that the host speaks";
            let help = "set it to `grpc` or `http/protobuf`";
            context.error(Place::Environment(name), "telemetry.protocol", message, help);
            None
        }
    }
}

fn endpoint_help(error: EndpointError) -> String {
    match error {
        EndpointError::NoUrl | EndpointError::Scheme => {
            format!("write the address of a collector, such as {ENDPOINT_EXAMPLE}")
        }
        EndpointError::Password => {
            "take them out, and set OTEL_EXPORTER_OTLP_HEADERS, such as authorization=Basic%20…"
                .to_owned()
        }
    }
}

fn read_sample(item: &Item<'_>, context: &mut Context<'_>) -> SampleRates {
    let default = SampleRates::default();
    let Some(mut table) = item.table(context, SAMPLE_HELP) else { return default };
    let mut rate = |name: &'static str, default: f64| {
        let item = table.take(name, context);
        item.and_then(|item| read_rate(&item, context)).unwrap_or(default)
    };
    let success = rate("success", default.success);
    let failed = rate("failed", default.failed);
    let undo = rate("undo", default.undo);
    table.finish(context);
    SampleRates { success, failed, undo }
}

fn read_rate(item: &Item<'_>, context: &mut Context<'_>) -> Option<f64> {
    let rate = item.number(context, "0.01")?;
    if (0.0..=1.0).contains(&rate) {
        return Some(rate);
    }
    let help = "write a number from 0 to 1: 0.01 keeps one trace of a hundred";
    item.error(context, format!("{rate} is no part of the spans"), help);
    None
}

fn read_link_after(item: &Item<'_>, context: &mut Context<'_>) -> Option<Duration> {
    let link_after = item.duration(context, "10m")?;
    if LINK_AFTER.contains(&link_after) {
        return Some(link_after);
    }
    let help = "write a duration from \"1s\" to \"24h\"";
    item.error(context, "a trace is not that short or long", help);
    None
}
