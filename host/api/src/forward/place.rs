//! Which host has to serve a request.

use axum::http::{Method, Request};
use bytes::Bytes;
use serde::Deserialize;

use amends_engine::SagaId;
use amends_runtime::{Host, ShardOwner};

use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::header::header_text;
use crate::sagas::start::start_key;

/// What decides which host serves a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The host that runs a saga.
    Saga(SagaId),
    /// The host that starts a saga with this key, or runs the one that the key has started.
    Key(String),
    /// Any host that can start a saga.
    New,
    /// The host that does what one host does for all of the store.
    Duties,
}

/// What is read of a saga in memory. Everything else of a saga that is read is in the store.
const LIVE_READS: [&str; 5] = ["", "/why", "/undo-plan", "/exposure", "/watch"];

impl Place {
    /// Whether a request may have a place. The body of one that has none is not read here.
    pub(super) fn is_possible(method: &Method, path: &str) -> bool {
        match *method {
            Method::GET | Method::POST => {
                path == "/v1/sagas" && method == Method::POST
                    || Self::of_path(method, path).is_some()
            }
            _ => false,
        }
    }

    /// The place of a request; none when it is served where it arrives. Of a start, the key is in the body or in
    /// a header.
    pub(super) async fn of(state: &ApiState, request: &Request<Bytes>) -> Option<Self> {
        let (method, path) = (request.method(), request.uri().path());
        if method == Method::POST && path == "/v1/sagas" {
            return Some(Self::of_start(state, request).await);
        }
        Self::of_path(method, path)
    }

    fn of_path(method: &Method, path: &str) -> Option<Self> {
        match (method, path) {
            (&Method::GET, "/v1/schedules" | "/v1/subscriptions")
            | (&Method::POST, "/v1/store/archive") => return Some(Self::Duties),
            _ => {}
        }
        let redriven = path.strip_prefix("/v1/subscriptions/");
        if method == Method::POST && redriven.is_some_and(|rest| rest.ends_with("/redrive")) {
            return Some(Self::Duties);
        }
        let rest = path.strip_prefix("/v1/sagas/")?;
        let (id, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_of_owner = match *method {
            Method::POST => true,
            Method::GET => LIVE_READS.contains(&rest),
            _ => false,
        };
        is_of_owner.then(|| id.parse().ok().map(Self::Saga)).flatten()
    }

    /// A request that is refused has no place: it is refused where it arrives.
    async fn of_start(state: &ApiState, request: &Request<Bytes>) -> Self {
        #[derive(Deserialize)]
        struct Keyed {
            #[serde(default)]
            key: Option<String>,
        }
        let in_header = async {
            match header_text(request.headers(), "idempotency-key")? {
                Some(text) => start_key(state, text).await.map(Some),
                None => Ok::<_, ApiError>(None),
            }
        };
        let key = in_header.await.ok().flatten();
        let in_body = || serde_json::from_slice::<Keyed>(request.body()).ok()?.key;
        key.or_else(in_body).map_or(Self::New, Self::Key)
    }

    /// Who serves it now.
    pub(super) fn owner(&self, host: &Host) -> ShardOwner {
        match self {
            Self::Saga(id) => host.owner_of(*id),
            Self::Key(key) => host.owner_of_key(key),
            Self::New => host.owner_of_new(),
            Self::Duties => host.owner_of_duties(),
        }
    }

    /// Whether doing it again changes nothing more: a read, a start with a key, a signal with an id.
    pub(super) fn is_repeatable(&self, request: &Request<Bytes>) -> bool {
        #[derive(Deserialize)]
        struct Identified {
            id: Option<String>,
        }
        let is_signal = || request.uri().path().contains("/signals/");
        let has_id = || {
            let signal = serde_json::from_slice::<Identified>(request.body());
            signal.is_ok_and(|signal| signal.id.is_some())
        };
        match self {
            Self::Key(_) => true,
            Self::Saga(_) if is_signal() => has_id(),
            Self::Saga(_) | Self::New | Self::Duties => request.method() == Method::GET,
        }
    }

    /// Whether the answer is in the store, whoever runs the saga: it has ended, or there is no such saga in the
    /// store.
    pub(super) async fn is_at_rest(&self, host: &Host, method: &Method) -> bool {
        let Self::Saga(id) = self else { return false };
        if method != Method::GET {
            return false;
        }
        match host.saga(*id).await {
            Ok(Some(row)) => row.status.is_end(),
            Ok(None) => true,
            // Whoever runs it says what is wrong.
            Err(_) => false,
        }
    }
}
