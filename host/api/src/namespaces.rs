//! Namespaces: which one a request is for, and whether its caller may see it.
//!
//! Each namespace has a router of its own over a host of its own, so no handler can reach another one.
//! [`Dispatch`] stands before them and chooses by the header `amends-namespace`. A namespace that the host does not
//! have and one that the caller may not see get the same answer.
//!
//! Deliberately absent: a namespace for questions about the health of the host. They are about all of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use tower::ServiceExt as _;

use amends_peers::{Forwarded, NAMESPACE};
use amends_runtime::{DEFAULT_NAMESPACE, Host};

use crate::api_state::ApiState;
use crate::caller::{Caller, token_of};
use crate::error::ApiError;

/// What is about the whole host, whatever namespace a request names.
const OF_ALL: [&str; 2] = ["/healthz", "/readyz"];

/// Events of a sender that cannot set a header name their namespace in the query: `?namespace=shop`.
const EVENTS: &str = "/v1/on/";

/// Marks a request for a namespace that the host does not have, with the name that it gives.
#[derive(Debug, Clone)]
pub(crate) struct NoNamespace(String);

/// Chooses the router of a request.
pub(crate) struct Dispatch {
    state: ApiState,
    default: Router,
    others: BTreeMap<String, Router>,
}

impl Dispatch {
    /// Makes the router of each namespace. `state` is that of `default`.
    pub(crate) fn new(state: ApiState, router: impl Fn(ApiState) -> Router) -> Arc<Self> {
        let of = |(name, host): (&String, &Host)| (name.clone(), router(state.of_namespace(host)));
        let others = state.hosts.others.iter().map(of).collect();
        Arc::new(Self { default: router(state.clone()), others, state })
    }

    /// Answers a request in its namespace.
    pub(crate) async fn answer(self: Arc<Self>, mut request: Request) -> Response {
        let other = self.chosen(&request).filter(|name| name != DEFAULT_NAMESPACE);
        let router = other.as_ref().and_then(|name| self.others.get(name));
        if let (Some(name), None) = (other.as_ref(), router) {
            // Who asks is found out first, so that nobody without a token learns of it.
            request.extensions_mut().insert(NoNamespace(name.clone()));
        }
        let router = router.unwrap_or(&self.default);
        router.clone().oneshot(request).await.into_response()
    }

    /// Returns the name of the namespace that a request is for: the one that it names, or the only one of its token.
    fn chosen(&self, request: &Request) -> Option<String> {
        let path = request.uri().path();
        if OF_ALL.contains(&path) {
            return None;
        }
        let mut named = request.headers().get_all(NAMESPACE).iter();
        if let Some(name) = named.next() {
            let name = name.to_str().ok().filter(|_| named.next().is_none());
            // A name that cannot be read is that of no namespace.
            return Some(name.unwrap_or_default().to_owned());
        }
        let query = request.uri().query().unwrap_or_default();
        let in_query = query.split('&').find_map(|pair| pair.strip_prefix("namespace="));
        if let Some(name) = in_query.filter(|_| path.starts_with(EVENTS)) {
            return Some(name.to_owned());
        }
        let token = token_of(request.headers()).ok().flatten()?;
        let holder = self.state.hosts.default.holder(token)?.ok()?;
        holder.namespaces.only().map(str::to_owned)
    }
}

/// Returns whether a request is for a namespace that the host does not have.
pub(crate) fn names_no_namespace(request: &Request) -> bool {
    request.extensions().get::<NoNamespace>().is_some()
}

/// Returns why the caller of a request gets no answer from the namespace that it is for; none when they may see it.
pub(crate) fn hidden(state: &ApiState, request: &Request, caller: &Caller) -> Option<ApiError> {
    if let Some(NoNamespace(name)) = request.extensions().get() {
        return Some(no_namespace(name));
    }
    // The host that has passed it on has judged that.
    let is_passed_on = request.extensions().get::<Forwarded>().is_some();
    let name = state.host.namespace();
    let holder = caller.holder.as_ref().filter(|_| !is_passed_on)?;
    (!holder.namespaces.has(name)).then(|| no_namespace(name))
}

fn no_namespace(name: &str) -> ApiError {
    ApiError::new(404, "no_namespace", format!("there is no namespace `{name}` for this caller"))
        .with_remedy(format!(
            "GET /v1/me lists the namespaces of the caller; the header {NAMESPACE} names one"
        ))
}

impl ApiState {
    /// Checks that this is the state of `default`, for what the host has once.
    ///
    /// # Errors
    /// 404 in another namespace.
    pub(crate) fn only_in_default(&self, what: &str) -> Result<(), ApiError> {
        if self.host.namespace() == DEFAULT_NAMESPACE {
            return Ok(());
        }
        let detail = format!("{what} of the host are in the namespace `{DEFAULT_NAMESPACE}` alone");
        Err(ApiError::new(404, "only_in_default", detail)
            .with_remedy(format!("send the header {NAMESPACE}: {DEFAULT_NAMESPACE}")))
    }

    /// Returns the names of the namespaces that a caller may see, of those that the host has.
    pub(crate) fn namespaces_of(&self, caller: &Caller) -> Vec<String> {
        let names = self.hosts.all().map(Host::namespace);
        let sees =
            |name: &&str| caller.holder.as_ref().is_none_or(|holder| holder.namespaces.has(name));
        names.filter(sees).map(str::to_owned).collect()
    }
}
