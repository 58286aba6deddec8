//! Recognises what another host of the store has passed on.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use amends_peers::{
    Caller, FORWARDED, FORWARDED_BYTES_MAX, Forwarded, NOT_OWNER, NotForwarded, Peers, REFUSED,
    SERVED_BY,
};

use crate::api_state::ApiState;
use crate::body::{read, refuse};
use crate::error::{ApiError, NotHere, ProblemCode};

/// The header of an answer to a request that was passed on: the code of the problem that the answer is.
pub(super) const PROBLEM: &str = "amends-problem";

/// What only hosts ask for begins like this.
pub(crate) const INTERNAL: &str = "/internal/";

/// Lets requests through that nobody has passed on, and those that a host of this store has. Whoever else says that
/// a request was passed on is refused, so that nobody can speak for another caller.
pub(crate) async fn receive(
    State(state): State<ApiState>,
    request: Request,
    next: Next,
) -> Response {
    let header = request.headers().get(FORWARDED).cloned();
    let (Some(header), Some(peers)) = (&header, state.host.peers()) else {
        let is_of_hosts = header.is_some() || request.uri().path().starts_with(INTERNAL);
        if !is_of_hosts {
            return next.run(request).await;
        }
        let detail = "only a host of this store may send this request";
        return refuse(request, refused(detail)).await.into_response();
    };
    let mut response = match verified(peers, header, request).await {
        Ok(request) if state.host.is_stopping() => {
            drop(request);
            not_owner()
        }
        Ok(request) => {
            let response = next.run(request).await;
            // Also what was ended on the way: whoever passed it on finds the new owner.
            if response.extensions().get::<NotHere>().is_some() { not_owner() } else { response }
        }
        Err(response) => response,
    };
    let code = response.extensions().get::<ProblemCode>();
    if let Some(code) = code.and_then(|ProblemCode(code)| HeaderValue::from_str(code).ok()) {
        response.headers_mut().insert(HeaderName::from_static(PROBLEM), code);
    }
    let name = HeaderValue::from_str(&peers.me().name);
    let name = name.unwrap_or(HeaderValue::from_static(""));
    response.headers_mut().insert(HeaderName::from_static(SERVED_BY), name);
    response
}

/// Checks the signature of a request and makes it that of its caller. Reads the whole body.
async fn verified(
    peers: &Peers,
    header: &HeaderValue,
    request: Request,
) -> Result<Request, Response> {
    let (parts, body) = request.into_parts();
    let request = Request::from_parts(parts.clone(), body);
    let body = read(request, FORWARDED_BYTES_MAX).await.map_err(ApiError::into_response)?;
    let header = header.to_str().unwrap_or_default();
    match peers.verify((&parts.method, &parts.uri), header, &body).await {
        Ok(forwarded) => {
            let mut request = Request::from_parts(parts, Body::from(body));
            speak_for(forwarded.caller.as_ref(), &mut request);
            request.extensions_mut().insert::<Forwarded>(forwarded);
            Ok(request)
        }
        Err(error @ NotForwarded::OtherHost { .. }) => {
            tracing::debug!(%error, "a request was passed on to another host");
            Err(not_owner())
        }
        Err(error) => {
            tracing::warn!(%error, "a request claims to be passed on by a host, and is refused");
            let mut response = refused(&error.to_string()).into_response();
            mark(&mut response, REFUSED);
            Err(response)
        }
    }
}

/// Whoever asked the first host asks this one.
fn speak_for(caller: Option<&Caller>, request: &mut Request) {
    request.headers_mut().remove("amends-user");
    let Some(Caller { address, user, token: _ }) = caller else { return };
    request.extensions_mut().insert(ConnectInfo(SocketAddr::new(*address, 0)));
    let user = user.as_ref().and_then(|user| HeaderValue::from_str(user).ok());
    if let Some(user) = user {
        request.headers_mut().insert("amends-user", user);
    }
}

/// The answer of a host that does not run the saga of a request that was passed on.
pub(super) fn not_owner() -> Response {
    let detail = "this host does not run the saga";
    let mut response = ApiError::new(421, "not_owner", detail).into_response();
    mark(&mut response, NOT_OWNER);
    response
}

fn mark(response: &mut Response, value: &'static str) {
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static(FORWARDED), HeaderValue::from_static(value));
}

fn refused(detail: &str) -> ApiError {
    ApiError::new(403, "forward_refused", detail)
        .with_remedy(format!("send it without the header {FORWARDED}; any host answers it"))
}
