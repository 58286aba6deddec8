//! Makes a span of each request that may start or change something.
//!
//! What a request starts is below its span: the header `traceparent`, if the caller sent one, names the span from here
//! on. So each handler that reads the header, and a host to which the request is passed on, need no rule of their own.
//!
//! Deliberately absent: requests that the gate refuses, because strangers would push out the spans of sagas; and those
//! that another host has passed on, because the first host makes the span.

use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use amends_engine::{SagaId, TraceContext};
use amends_peers::Forwarded;
use amends_runtime::{RequestAnswer, RequestSpan, ServedRequest};

use crate::api_state::ApiState;
use crate::audit::code_of;
use crate::caller::Caller;
use crate::encrypted::is_encrypted;
use crate::sagas::start_request::traceparent;

/// A name of a host that is longer is not shown. No name of the DNS is (RFC 1035, 2.3.4).
const SERVER_BYTES_MAX: usize = 255;

/// Makes the span of a request that may start or change something.
pub(crate) async fn trace(
    State(state): State<ApiState>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(span) = begin(&state, &request) else { return next.run(request).await };
    let context = span.context().map(|context| HeaderValue::from_str(&context.to_string()));
    if let Some(Ok(context)) = context {
        request.headers_mut().insert("traceparent", context);
    }
    let response = next.run(request).await;
    let location = response.headers().get(header::LOCATION);
    let saga = location.and_then(|location| saga_of(location.to_str().ok()?));
    span.end(RequestAnswer {
        status: response.status().as_u16(),
        code: code_of(&response).map(str::to_owned),
        saga,
        is_started: response.status() == StatusCode::ACCEPTED,
    });
    response
}

/// Begins the span of a request. None when it has none.
fn begin(state: &ApiState, request: &Request) -> Option<RequestSpan> {
    let is_passed_on = request.extensions().get::<Forwarded>().is_some();
    if !state.host.has_traces() || request.method().is_safe() || is_passed_on {
        return None;
    }
    // The document cannot say that a parameter takes slashes.
    let route = request.extensions().get::<MatchedPath>()?.as_str().replace("{*", "{");
    let caller = request.extensions().get::<Caller>();
    let (server, port) = server_of(request);
    let about = ServedRequest {
        method: request.method().to_string(),
        route,
        scheme: if is_encrypted(request) { "https" } else { "http" },
        server,
        port,
        saga: saga_of(request.uri().path()),
        is_known: caller.is_some_and(|caller| !caller.permissions().is_empty()),
    };
    let context = traceparent(request.headers()).and_then(|text| TraceContext::parse(&text));
    state.host.trace_request(about, context)
}

/// Returns the name by which the caller found the host, and its port.
fn server_of(request: &Request) -> (Option<String>, Option<u16>) {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse::<Authority>().ok());
    let Some(authority) = authority.filter(|one| one.host().len() <= SERVER_BYTES_MAX) else {
        return (None, None);
    };
    // Addresses of IPv6 stand in brackets.
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    (Some(name.to_owned()), authority.port_u16())
}

/// Returns the saga that a path names.
fn saga_of(path: &str) -> Option<SagaId> {
    let rest = path.strip_prefix("/v1/sagas/")?;
    rest.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use axum::body::Body;

    use super::*;

    #[test]
    fn the_server_is_the_name_by_which_the_caller_found_it() {
        let long = "a".repeat(SERVER_BYTES_MAX + 1);
        for (host, server, port) in [
            ("amends.example", Some("amends.example"), None),
            ("127.0.0.1:7070", Some("127.0.0.1"), Some(7070)),
            ("[::1]:7070", Some("::1"), Some(7070)),
            (long.as_str(), None, None),
        ] {
            let request = axum::http::Request::builder().header("host", host);
            let request = request.body(Body::empty()).unwrap();
            assert_eq!(server_of(&request), (server.map(str::to_owned), port), "{host}");
        }
        assert_eq!(server_of(&Request::new(Body::empty())), (None, None));
    }

    #[test]
    fn a_path_may_name_a_saga() {
        let id = "0195d0d0-5c80-7000-8000-0123456789ab";
        for path in [format!("/v1/sagas/{id}"), format!("/v1/sagas/{id}/cancel")] {
            assert_eq!(saga_of(&path).unwrap().to_string(), id, "{path}");
        }
        for path in ["/v1/sagas", "/v1/sagas:batch", "/v1/sagas/0195d0d0/cancel", "/v1/plugins/a"] {
            assert_eq!(saga_of(path), None, "{path}");
        }
    }
}
