//! The door: whose requests the host answers at all.
//!
//! A host on a loopback address asks nobody who they are, and a browser on the same machine sends it
//! requests for any page that is open. So before any route, also before "not found", a request must
//! be addressed to this host (a page that had its own name point to this machine is not) and must
//! not come from a page of another site. Programs are not affected: they send no `Origin` and no
//! `Sec-Fetch-Site`. Who asks is not a question of this module.
//!
//! What each rule follows: RFC 9112, 3.2 (one `Host`); RFC 9110, 15.5.20 (421); the Fetch standard
//! (`Origin`) and W3C Fetch Metadata (`Sec-Fetch-*`, which browsers send to loopback addresses).

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::api_state::ApiState;
use crate::body::{receive, refuse};
use crate::crowded::is_crowded;
use crate::error::ApiError;
use crate::head::{HEAD_BYTES_MAX, head_bytes};
use crate::names::Names;
use amends_api_types::PublicUrl;

/// Refuses requests that are not meant for this host, and adds the headers that tell browsers what they
/// may do with an answer.
pub(crate) async fn door(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let is_read = request.method().is_safe();
    let response = match admit(state.names(), &request) {
        Ok(()) => next.run(receive(request, &state.bodies)).await,
        // The few connections for questions about the host's health wait for no body.
        Err(problem) if is_crowded(&request) => problem.into_response(),
        Err(problem) => refuse(receive(request, &state.bodies), problem).await.into_response(),
    };
    let mut response = state.answers.hold(response, is_read);
    guard(&mut response);
    response
}

/// Adds the headers that tell browsers what they may do with an answer.
pub(crate) fn guard(response: &mut Response) {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        // Answers are of the moment, and payloads do not belong on a disk that nobody thinks of.
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Checks that a request is meant for this host.
///
/// # Errors
/// The problem that says why it is not.
pub(crate) fn admit(names: Names<'_>, request: &Request) -> Result<(), ApiError> {
    let public_url = names.public_url;
    // hyper reads up to twice as much.
    let bytes = head_bytes(request);
    if bytes > HEAD_BYTES_MAX {
        let detail =
            format!("the head of the request has {bytes} bytes, at most {HEAD_BYTES_MAX} are read");
        return Err(ApiError::new(431, "head_too_large", detail)
            .with_remedy("send fewer or shorter headers"));
    }
    let host = addressed_to(request)?;
    if let Some(host) = &host {
        check_host(host, names)?;
    }
    if !is_own_origin(request.headers(), host.as_ref(), public_url) {
        let origins = request.headers().get_all(header::ORIGIN).iter().map(shown);
        let origins = origins.collect::<Vec<_>>().join(", ");
        return Err(cross_site(&format!("Origin: {origins}")));
    }
    check_fetch_site(request)?;
    let is_health = matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics");
    if is_crowded(request) && !is_health {
        let detail = "the host has as many connections as it takes";
        return Err(ApiError::new(503, "connections_full", detail)
            .with_remedy("try again after the time in Retry-After; close connections that wait"));
    }
    Ok(())
}

/// What a header says, as a text that can be shown.
fn shown(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).escape_debug().to_string()
}

/// The name and port that a request is for. `None`: a request of HTTP/1.0 without a `Host`, which no
/// browser sends.
fn addressed_to(request: &Request) -> Result<Option<Authority>, ApiError> {
    let bad = |detail: String| {
        ApiError::new(400, "bad_host", detail)
            .with_remedy("send one Host header, with the name or address and the port of this host")
    };
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host,
        (None, _) if request.version() == Version::HTTP_10 => return Ok(None),
        (None, _) => return Err(bad("the request has no Host header".to_owned())),
        (Some(_), Some(_)) => return Err(bad("the request has several Host headers".to_owned())),
    };
    let authority = host.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
    let authority = authority.filter(|authority| !authority.as_str().contains('@'));
    let authority =
        authority.ok_or_else(|| bad(format!("`{}` is not a Host header", shown(host))))?;
    // A request to a proxy names the host in its first line too (RFC 9112, 3.2.2).
    match request.uri().authority() {
        Some(target) if target != &authority => {
            Err(bad(format!("the request is for `{target}`, its Host header says `{authority}`")))
        }
        Some(_) | None => Ok(Some(authority)),
    }
}

/// Refuses a request for another name than those of the host, whatever its caller shows: a page of a site whose
/// name leads to this host could send what a proxy sends.
pub(crate) fn check_own_name(request: &Request, names: Names<'_>) -> Result<(), ApiError> {
    let Some(host) = addressed_to(request)? else { return Ok(()) };
    check_host(&host, Names { is_any_taken: false, ..names })
}

/// Refuses other names. A page's own name may point to this machine by now, and its browser still sends
/// that name.
fn check_host(host: &Authority, names: Names<'_>) -> Result<(), ApiError> {
    let name = host.host();
    let Names { public_url, address, is_any_taken } = names;
    let is_loopback = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => address.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback()),
        None => name.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback()),
    };
    let is_public = public_url.is_some_and(|url| url.name().eq_ignore_ascii_case(name));
    let is_of_hosts = address.is_some_and(|address| address.name().eq_ignore_ascii_case(name));
    let is_named = is_public || is_of_hosts || name.eq_ignore_ascii_case("localhost");
    if is_loopback || is_named || is_any_taken {
        return Ok(());
    }
    Err(ApiError::new(421, "wrong_host", format!("this host is not `{name}`")).with_remedy(
        "ask for localhost or a loopback address such as 127.0.0.1; for another name, such as that \
         of a proxy, set public_url in [host] of the config",
    ))
}

fn is_own_origin(
    headers: &HeaderMap,
    host: Option<&Authority>,
    public_url: Option<&PublicUrl>,
) -> bool {
    headers.get_all(header::ORIGIN).iter().all(|origin| {
        let Ok(origin) = origin.to_str() else { return false };
        let authority = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
        let is_host = authority
            .zip(host)
            .is_some_and(|(authority, host)| host.as_str().eq_ignore_ascii_case(authority));
        is_host || public_url.is_some_and(|url| url.origin() == origin)
    })
}

/// Refuses what browsers say comes from a page of another site. Exception: such a page may link to what
/// can be read; it can neither frame nor fetch it.
fn check_fetch_site(request: &Request) -> Result<(), ApiError> {
    let says = |name: &'static str, words: &[&str]| {
        let mut values = request.headers().get_all(name).iter();
        values.all(|value| words.iter().any(|word| value.as_bytes() == word.as_bytes()))
    };
    if says("sec-fetch-site", &["same-origin", "none"]) {
        return Ok(());
    }
    let headers = request.headers();
    let is_link = request.method().is_safe()
        && headers.contains_key("sec-fetch-dest")
        && says("sec-fetch-dest", &["document"])
        && says("sec-fetch-mode", &["navigate"]);
    if is_link {
        return Ok(());
    }
    let site = headers.get("sec-fetch-site").map(shown).unwrap_or_default();
    Err(cross_site(&format!("Sec-Fetch-Site: {site}")))
}

fn cross_site(header: &str) -> ApiError {
    let detail = format!("the request comes from a page of another site ({header})");
    ApiError::new(403, "cross_site", detail).with_remedy(
        "send it from a program or from a page of this host; when that is behind a proxy, set \
         public_url in [host] of the config",
    )
}
