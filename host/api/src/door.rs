//! What is looked at before any route.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::ApiState;
use crate::body::{receive, refuse};
use crate::problem::Problem;

/// An extension of requests that come while the host has as many connections as it serves. Only those
/// about its health are answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crowded;

/// Refuses what comes while the host is crowded, and has bodies come at a pace.
pub(crate) async fn door(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let is_health = matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics");
    let is_refused = request.extensions().get::<Crowded>().is_some() && !is_health;
    let request = receive(request, &state.bodies);
    if is_refused {
        let detail = "the host has as many connections as it takes";
        let problem = Problem::new(503, "connections_full", detail)
            .with_remedy("try again after the time in Retry-After; close connections that wait");
        return refuse(request, problem).await.into_response();
    }
    next.run(request).await
}
