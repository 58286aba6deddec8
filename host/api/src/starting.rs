//! Answers while the host starts: that it lives, and why it is not ready.
//!
//! A start compiles components that are not compiled yet, which takes half a minute for a large one. Without an
//! answer until then, whoever watches the host takes it for dead.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use tower::ServiceExt as _;

use crate::door::{admit, guard};
use crate::error::ApiError;
use crate::health::alive;
use crate::names::Names;
use amends_api_types::PublicUrl;

/// Says how far the start is, such as `2 of 4 plugins are loaded`.
type Says = dyn Fn() -> String + Send + Sync;

/// Switches a router that [`starting`] made to the router of the host, once the host is open.
#[derive(Debug, Clone, Default)]
pub struct Opening(Arc<OnceLock<Router>>);

impl Opening {
    /// Sends all requests to this router from now on.
    pub fn open(&self, router: Router) {
        let _ = self.0.set(router);
    }
}

/// Makes the router of a host that starts, and the switch to the host's own router. `says` tells for each answer
/// how far the start is.
pub fn starting(
    public_url: Option<PublicUrl>,
    has_access_control: bool,
    says: impl Fn() -> String + Send + Sync + 'static,
) -> (Router, Opening) {
    let (opening, public_url) = (Opening::default(), Arc::new(public_url));
    let says: Arc<Says> = Arc::new(says);
    let opened = Arc::clone(&opening.0);
    let router = Router::new().fallback(move |request: Request| {
        let (opened, says) = (Arc::clone(&opened), Arc::clone(&says));
        let public_url = Arc::clone(&public_url);
        async move {
            if let Some(router) = opened.get() {
                return router.clone().oneshot(request).await.into_response();
            }
            let public_url = public_url.as_ref().as_ref();
            let names = Names { public_url, address: None, is_any_taken: has_access_control };
            answer(names, &request, &*says)
        }
    });
    (router, opening)
}

fn answer(names: Names<'_>, request: &Request, says: &Says) -> Response {
    let mut response = match admit(names, request) {
        Err(problem) => problem.into_response(),
        Ok(()) if request.uri().path() == "/healthz" => alive().into_response(),
        Ok(()) => ApiError::new(503, "starting", format!("the host is starting: {}", says()))
            .with_remedy("try again after the time in Retry-After")
            .into_response(),
    };
    guard(&mut response);
    response
}
