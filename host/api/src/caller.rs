//! Who sent a request, and what they may do.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use amends_api_types::Problem;
use amends_peers::{Forwarded, ShownToken};
use amends_runtime::{
    Holder, Namespaces, Permission, Permissions, Principal, Role, TokenError, Via,
};

use crate::api_state::ApiState;
use crate::door::check_own_name;
use crate::error::ApiError;
use crate::header::header_text;
use crate::legible::legible;

/// The name of a person in a header has at most this many bytes: it is recorded with each order.
const USER_BYTES_MAX: usize = 256;

/// Groups of a person that an error names.
const GROUPS_SHOWN: usize = 10;

/// Who sent a request. It is an extension of each request that reaches a handler.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    principal: Principal,
    permissions: Permissions,
    /// None without access control, of a caller who showed no token that counts, and of another host.
    pub(crate) holder: Option<Holder>,
    /// Why what the caller showed is no token that counts.
    wrong: Option<Problem>,
}

impl Caller {
    /// Makes the caller of a request to a host that asks nobody.
    fn local(peer: IpAddr, user: Option<String>) -> Self {
        let subject = user.map_or_else(|| peer.to_string(), |user| format!("{user}@{peer}"));
        let principal = Principal::local(subject, Via::Http);
        Self { principal, permissions: Permissions::all(), holder: None, wrong: None }
    }

    /// Makes the caller who has shown a token. `user` is on whose behalf they say that they ask.
    fn of_token(holder: Holder, peer: IpAddr, user: Option<String>) -> Self {
        let Holder { name, roles, permissions, .. } = &holder;
        let subject = match user {
            Some(user) => format!("{name}@{peer} on behalf of {user}"),
            None => format!("{name}@{peer}"),
        };
        let principal = Principal::of_token(subject, roles);
        Self { principal, permissions: *permissions, holder: Some(holder), wrong: None }
    }

    /// Makes the caller who has shown no token that counts, and perhaps something else. They may do nothing that
    /// needs a permission.
    pub(crate) fn anonymous(peer: IpAddr, wrong: Option<Problem>) -> Self {
        let principal = Principal::local(peer.to_string(), Via::Http);
        Self { principal, permissions: Permissions::default(), holder: None, wrong }
    }

    /// Who is recorded.
    pub(crate) const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What the caller may do.
    pub(crate) const fn permissions(&self) -> Permissions {
        self.permissions
    }

    /// Returns what another host is told of the caller's token.
    pub(crate) fn shown_token(&self) -> Option<ShownToken> {
        self.holder.as_ref().map(|holder| ShownToken {
            name: holder.name.clone(),
            roles: holder.roles.iter().map(ToString::to_string).collect(),
            payloads: holder.permissions.has(Permission::Payloads),
        })
    }

    /// Checks that the caller has permissions.
    ///
    /// # Errors
    /// 401 when the caller has shown no token, 403 when the token does not have all of them.
    pub(crate) fn require(&self, needed: Permissions) -> Result<(), ApiError> {
        let missing = needed.without(self.permissions);
        if missing.is_empty() {
            return Ok(());
        }
        let Some(holder) = &self.holder else {
            return Err(self.wrong.clone().map_or_else(token_missing, ApiError::from));
        };
        let roles: Vec<_> = holder.roles.iter().map(|role| role.as_str()).collect();
        let remedy = if holder.is_of_proxy() {
            "`roles` and `payloads` in [auth.proxy] of the config say which group may do it"
        } else {
            "use a token whose roles have it; GET /v1/me says what this token may do"
        };
        let (what, name, roles) = (holder.kind(), &holder.name, roles.join(", "));
        let detail =
            format!("the {what} `{name}` ({roles}) does not have the permission {missing}");
        Err(ApiError::new(403, "permission_missing", detail).with_remedy(remedy))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| no_rule(parts.uri.path()))
    }
}

/// The problem of a route of which nobody has said who may use it.
pub(crate) fn no_rule(path: &str) -> ApiError {
    ApiError::new(403, "no_rule", format!("no rule says who may use {path}"))
        .with_remedy("this is a mistake of Amends; please report it")
}

/// The problem of a request without a token.
pub(crate) fn token_missing() -> ApiError {
    ApiError::new(401, "token_missing", "this host wants to know who asks, and no token came")
        .with_remedy("send the header authorization: Bearer TOKEN")
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        let detail = error.to_string();
        let problem = match error {
            TokenError::Unknown | TokenError::Malformed => Self::new(401, "token_wrong", detail),
            TokenError::Expired { .. } => Self::new(401, "token_expired", detail),
            TokenError::Revoked { .. } => Self::new(401, "token_revoked", detail),
        };
        problem.with_remedy("use another token; amends token new makes one")
    }
}

/// Finds out who sent a request. None: the host has access control, and no token came.
///
/// # Errors
/// 401 when the token does not count, 400 when the name in the header `amends-user` is not legible.
pub(crate) fn identify(state: &ApiState, request: &Request) -> Result<Option<Caller>, ApiError> {
    // It keeps the tokens of all namespaces.
    let host = &state.hosts.default;
    let headers = request.headers();
    let peer = peer_of(request);
    let forwarded = request.extensions().get::<Forwarded>();
    if let Some(Forwarded { from, caller: None, .. }) = forwarded {
        let principal = Principal::local(format!("host {from}"), Via::Host);
        return Ok(Some(Caller {
            principal,
            permissions: Permissions::all(),
            holder: None,
            wrong: None,
        }));
    }
    // Nothing that can be read says who asks, so a name that nobody can read refuses no read.
    let user = match user_of(headers) {
        Err(_) if request.method().is_safe() => None,
        user => user?,
    };
    if !host.has_access_control() {
        return Ok(Some(Caller::local(peer, user)));
    }
    let holder = match forwarded {
        Some(forwarded) => {
            let shown = forwarded.caller.as_ref().and_then(|caller| caller.token.clone());
            shown.map(holder_of)
        }
        None => match token_of(headers)? {
            Some(token) => host.holder(token).transpose()?,
            None => named_by_proxy(state, peer, request)?,
        },
    };
    Ok(holder.map(|holder| Caller::of_token(holder, peer, user)))
}

/// The address of whoever sent a request.
pub(crate) fn peer_of(request: &Request) -> IpAddr {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map_or(IpAddr::from([0, 0, 0, 0]), |ConnectInfo(peer)| peer.ip())
}

/// Returns the name in the header `amends-user`. Nobody checks it.
fn user_of(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let named = header_text(headers, "amends-user")?.filter(|name| !name.trim().is_empty());
    named.map(|name| name_in("amends-user", name)).transpose()
}

/// Checks a name from a header: it is recorded with each order.
fn name_in(header: &str, name: String) -> Result<String, ApiError> {
    if name.len() > USER_BYTES_MAX {
        let detail = format!(
            "the name in the header {header} has {} bytes, at most {USER_BYTES_MAX} are allowed",
            name.len()
        );
        return Err(ApiError::new(400, "bad_header", detail).with_remedy("send a shorter name"));
    }
    legible(&format!("the header {header}"), name)
}

/// Returns the token that a request shows (RFC 6750, 2.1).
pub(crate) fn token_of(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    if let (Some(token), None) = (token, values.next()) {
        return Ok(Some(token));
    }
    let detail = "the request has no single header authorization with a Bearer token";
    Err(ApiError::new(401, "token_wrong", detail)
        .with_remedy("send the header authorization: Bearer TOKEN, once"))
}

/// Returns the person whom a proxy names. None: the host believes no proxy, or the request names nobody.
///
/// A request that names somebody and does not come from the proxy is refused. To ignore the header would hide a proxy
/// that is missing in the config, and whoever tries to pass for one.
///
/// # Errors
/// 401 when the sender is not believed, 421 when the request is for another name than those of the host, 400 when a
/// header cannot be read, 403 when no group of the person has a role.
fn named_by_proxy(
    state: &ApiState,
    peer: IpAddr,
    request: &Request,
) -> Result<Option<Holder>, ApiError> {
    let Some(proxy) = state.hosts.default.proxy() else { return Ok(None) };
    let (headers, name) = (request.headers(), proxy.user.as_str());
    let Some(user) = header_text(headers, name)? else { return Ok(None) };
    if !proxy.trusts(peer) {
        let detail = format!("the header {name} is believed from a proxy, and {peer} is none");
        return Err(ApiError::new(401, "proxy_not_trusted", detail).with_remedy(
            "ask through the proxy, or send a token; `peers` in [auth.proxy] lists the proxies",
        ));
    }
    check_own_name(request, state.names())?;
    // Of two, one may be the caller's own.
    for name in [name, proxy.groups.as_str()] {
        if headers.get_all(name).iter().count() > 1 {
            return Err(ApiError::new(400, "bad_header", format!("the header {name} came twice"))
                .with_remedy("have the proxy remove the header that callers send"));
        }
    }
    let user = name_in(name, user.trim().to_owned())?;
    if user.is_empty() {
        return Ok(None);
    }
    let groups = header_text(headers, &proxy.groups)?.unwrap_or_default();
    let groups: Vec<_> =
        groups.split(',').map(str::trim).filter(|group| !group.is_empty()).collect();
    let holder = proxy.holder(&user, &groups);
    if !holder.roles.is_empty() {
        return Ok(Some(holder));
    }
    let detail = if groups.is_empty() {
        format!("the proxy names `{user}` and no group in the header {}", proxy.groups)
    } else {
        let shown = groups.iter().take(GROUPS_SHOWN).copied().collect::<Vec<_>>().join(", ");
        format!("no group of `{user}` has a role on this host: {shown}")
    };
    Err(ApiError::new(403, "no_role", detail)
        .with_remedy("give one of the groups a role: `roles` in [auth.proxy] of the config"))
}

/// Returns who showed a token to another host, which has judged it.
fn holder_of(shown: ShownToken) -> Holder {
    let ShownToken { name, roles, payloads } = shown;
    let roles: Vec<_> = roles.iter().filter_map(|role| Role::from_word(role)).collect();
    let permissions = Permissions::of(&roles, payloads);
    let namespaces = Namespaces::All;
    Holder { name, id: None, roles, permissions, namespaces, expires_at: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    #[test]
    fn a_bearer_token_stands_alone_in_its_header() {
        let headers = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            headers
        };
        let read = |values: &[&str]| {
            token_of(&headers(values)).map(|token| token.map(str::to_owned)).map_err(|_| ())
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["Bearer abc"]), Ok(Some("abc".to_owned())));
        assert_eq!(read(&["bearer  abc"]), Ok(Some("abc".to_owned())));
        for wrong in [&["Basic abc"][..], &["Bearer"], &["abc"], &["Bearer a", "Bearer b"]] {
            assert_eq!(read(wrong), Err(()), "{wrong:?}");
        }
    }
}
