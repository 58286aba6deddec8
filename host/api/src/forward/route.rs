//! Passes on what belongs to another host.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use amends_api_types::parse_duration;
use amends_peers::{
    Answer, Caller, FORWARD_ANSWER_TIME_MAX, Forwarded, OWNER_LOOK_PAUSE, OWNER_WAIT_MAX, Passed,
    PeerError, Peers,
};
use amends_runtime::{HostInfo, OwnerError, ShardOwner, may_look_again};

use super::place::Place;
use super::receive::{PROBLEM, not_owner};
use crate::api_state::ApiState;
use crate::arrived::Arrived;
use crate::body::{BODY_BYTES_MAX, read};
use crate::error::{ApiError, NotHere, ProblemCode};
use crate::sagas::wait::WAIT_MAX;

/// The headers of a request that the other host needs. Who asks is told beside them.
const PASSED_HEADERS: [&str; 5] =
    ["content-type", "accept", "idempotency-key", "traceparent", "last-event-id"];

/// The headers of an answer that the caller needs.
const ANSWERED_HEADERS: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::LOCATION, header::RETRY_AFTER, header::CONTENT_LENGTH];

/// Has the host serve a request that has to serve it.
pub(crate) async fn to_owner(
    State(state): State<ApiState>,
    request: Request,
    next: Next,
) -> Response {
    let Some(peers) = state.host.peers() else { return next.run(request).await };
    if !Place::is_possible(request.method(), request.uri().path()) {
        return next.run(request).await;
    }
    let forwarded = request.extensions().get::<Forwarded>().cloned();
    let waited = forwarded.as_ref().map_or(Duration::ZERO, |forwarded| forwarded.waited);
    let arrived = Instant::now().checked_sub(waited).unwrap_or_else(Instant::now);
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(Arrived(arrived));
    // Whole, because it may have to be sent twice.
    let body = if parts.method.is_safe() {
        Bytes::new()
    } else {
        match read(Request::from_parts(parts.clone(), body), BODY_BYTES_MAX).await {
            Ok(body) => body,
            Err(problem) => return problem.into_response(),
        }
    };
    let request = axum::http::Request::from_parts(parts, body);
    let Some(place) = Place::of(&state, &request).await else {
        return next.run(request.map(Body::from)).await;
    };
    let of = Routed { state: &state, peers, place: &place, arrived };
    of.serve(&request, forwarded.is_some(), next).await
}

/// A request and where it belongs.
struct Routed<'r> {
    state: &'r ApiState,
    peers: &'r Peers,
    place: &'r Place,
    arrived: Instant,
}

type Whole = axum::http::Request<Bytes>;

impl Routed<'_> {
    /// Serves the request here, or has its owner serve it. Looks again while nobody owns it, at most
    /// [`OWNER_WAIT_MAX`] longer than the request waits for its saga.
    async fn serve(&self, request: &Whole, is_forwarded: bool, next: Next) -> Response {
        let host = &self.state.host;
        let wait = wait_of(request).saturating_sub(self.arrived.elapsed());
        let until = Instant::now() + wait + OWNER_WAIT_MAX;
        let mut is_looked_up = false;
        loop {
            match self.place.owner(host) {
                ShardOwner::This => {
                    let response = next.clone().run(request.clone().map(Body::from)).await;
                    let is_here = response.extensions().get::<NotHere>().is_none();
                    if is_here || is_forwarded || host.is_stopping() {
                        return response;
                    }
                }
                ShardOwner::Other(_) | ShardOwner::Nobody if is_forwarded => return not_owner(),
                ShardOwner::Other(_) | ShardOwner::Nobody
                    if !std::mem::replace(&mut is_looked_up, true)
                        && self.place.is_at_rest(host, request.method()).await =>
                {
                    return next.run(request.clone().map(Body::from)).await;
                }
                ShardOwner::Other(owner) => {
                    let passed = self.pass_on(&owner, request).await;
                    let error = match passed {
                        Ok(answer) => return answered(answer),
                        Err(error) => error,
                    };
                    tracing::debug!(owner = owner.name, %error, "a request was not answered by the owner");
                    let is_repeatable = self.place.is_repeatable(request);
                    if !may_look_again(&error, is_repeatable) || Instant::now() >= until {
                        return ApiError::from(OwnerError::from(error)).into_response();
                    }
                }
                ShardOwner::Nobody => {}
            }
            if Instant::now() >= until || host.is_stopping() {
                return ApiError::from(OwnerError::Nobody).into_response();
            }
            tokio::time::sleep(OWNER_LOOK_PAUSE).await;
        }
    }

    async fn pass_on(&self, owner: &HostInfo, request: &Whole) -> Result<Answer, PeerError> {
        let mut headers = HeaderMap::new();
        for name in PASSED_HEADERS {
            if let Some(value) = request.headers().get(name) {
                headers.insert(name, value.clone());
            }
        }
        let user = request.headers().get("amends-user").and_then(|user| user.to_str().ok());
        let caller = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let shown = request.extensions().get::<crate::caller::Caller>();
        let caller = caller.map(|ConnectInfo(peer)| Caller {
            address: peer.ip(),
            user: user.map(str::to_owned),
            token: shown.and_then(crate::caller::Caller::shown_token),
        });
        let waited = self.arrived.elapsed();
        let passed = Passed {
            method: request.method(),
            uri: request.uri(),
            headers: &headers,
            body: request.body(),
            caller: caller.as_ref(),
            waited,
        };
        let time = FORWARD_ANSWER_TIME_MAX + wait_of(request).saturating_sub(waited);
        self.state.host.answer_of(owner, self.peers.send(owner, passed, time)).await
    }
}

/// How long a request waits for its saga.
fn wait_of(request: &Whole) -> Duration {
    let query = request.uri().query().unwrap_or_default();
    let wait = query.split('&').find_map(|pair| pair.strip_prefix("wait="));
    let wait = wait.and_then(|wait| parse_duration(wait).ok()).unwrap_or_default();
    wait.min(WAIT_MAX)
}

/// The answer of the owner, as it is passed back.
fn answered(answer: Answer) -> Response {
    let mut response = Response::new(Body::new(answer.body));
    *response.status_mut() =
        StatusCode::from_u16(answer.head.status.as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    for name in ANSWERED_HEADERS {
        if let Some(value) = answer.head.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    let code = answer.head.headers.get(PROBLEM).and_then(|code| code.to_str().ok());
    if let Some(code) = code {
        response.extensions_mut().insert(ProblemCode(code.to_owned()));
    }
    response
}
